//! Wakes that wait until a piece of work is done.
//!
//! Whoever works through a batch (the frames of a chunk, the messages of a turn) and wakes another thread
//! at the first of them makes that one run after every single message: a system call and a packet each.
//! While a [`Wakes`] lives, what [`wake`] is given on its thread waits for it.
//!
//! * It decides: nothing but the moment of a wake.
//! * Invariant: every waker is woken, at the latest when the outermost [`Wakes`] of its thread is dropped.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::task::Waker;

#[derive(Default)]
struct Held {
    depth: usize,
    wakers: Vec<Waker>,
}

thread_local! {
    static HELD: RefCell<Held> = const { RefCell::new(Held { depth: 0, wakers: Vec::new() }) };
}

/// Holds back the wakes of this thread until dropped.
#[derive(Debug)]
pub struct Wakes(PhantomData<*const ()>);

impl Wakes {
    /// Begins to hold back.
    #[must_use]
    pub fn hold() -> Self {
        HELD.with_borrow_mut(|held| held.depth += 1);
        Self(PhantomData)
    }

    /// Whether somebody waits to be woken.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        HELD.with_borrow(|held| !held.wakers.is_empty())
    }

    /// Wakes all that wait, and holds back what comes after.
    pub fn now(&self) {
        release();
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        let outermost = HELD.with_borrow_mut(|held| {
            held.depth -= 1;
            held.depth == 0
        });
        if outermost {
            release();
        }
    }
}

/// Wakes, now or when this thread has done its piece of work.
pub fn wake(waker: Waker) {
    let now = HELD.with_borrow_mut(|held| match held.depth {
        0 => Some(waker),
        _ => {
            held.wakers.push(waker);
            None
        }
    });
    // Outside of the borrow: what a waker does may wake.
    if let Some(waker) = now {
        waker.wake();
    }
}

fn release() {
    let mut wakers = HELD.with_borrow_mut(|held| std::mem::take(&mut held.wakers));
    wakers.drain(..).for_each(Waker::wake);
    // Its room is kept for the next batch.
    HELD.with_borrow_mut(|held| {
        if held.wakers.is_empty() {
            held.wakers = wakers;
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_wait_for_the_outermost_batch_or_until_it_lets_them_go() {
        let woken = Arc::new(Woken::default());
        let one_more = || wake(Waker::from(Arc::clone(&woken)));
        let so_far = || woken.0.load(Ordering::Relaxed);
        one_more();
        assert_eq!(so_far(), 1, "nobody holds it back");
        let outer = Wakes::hold();
        one_more();
        {
            let inner = Wakes::hold();
            one_more();
            assert!(inner.are_waiting());
        }
        assert_eq!(so_far(), 1, "the outer one still works");
        outer.now();
        assert_eq!((so_far(), outer.are_waiting()), (3, false));
        one_more();
        drop(outer);
        assert_eq!(so_far(), 4);
        one_more();
        assert_eq!(so_far(), 5);
    }

    #[test]
    fn a_panic_within_a_batch_leaves_nobody_asleep() {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        std::panic::catch_unwind(move || {
            let _wakes = Wakes::hold();
            wake(waker);
            panic!("on purpose");
        })
        .expect_err("it panicked");
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    }
}
