//! A watched value that wakes who waits for it in the order in which they began to wait. Tokio's wakes them in one that it
//! draws from the operating system's entropy, and no two stories of one seed would be the same.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

struct Shared<T> {
    value: RwLock<(u64, T)>,
    waiting: Mutex<Vec<Waker>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Shared<T> {
    fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// See above.
pub(super) struct SimWatch;

/// Who says what it is.
pub(super) struct Says<T>(Arc<Shared<T>>);

/// Who looks at it.
pub(super) struct Looks<T>(Arc<Shared<T>>, u64);

/// It, while it is looked at.
pub(super) struct Look<'a, T>(RwLockReadGuard<'a, (u64, T)>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Says<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Says<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.wake();
        }
    }
}

impl<T> Clone for Looks<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0), self.1)
    }
}

impl<T> Drop for Looks<T> {
    fn drop(&mut self) {
        self.0.receivers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Watch for SimWatch {
    type Sender<T: Send + Sync> = Says<T>;
    type Receiver<T: Send + Sync> = Looks<T>;
    type Ref<'a, T: Send + 'a> = Look<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Says<T>, Looks<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new((0, init)),
            waiting: Mutex::default(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        });
        (Says(Arc::clone(&shared)), Looks(shared, 0))
    }
}

impl<T: Send + Sync> WatchSender<SimWatch, T> for Says<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Relaxed) == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|before| {
            *before = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = {
            let mut value = self.0.value.write();
            let modified = modify(&mut value.1);
            value.0 += u64::from(modified);
            modified
        };
        if modified {
            self.0.wake();
        }
        modified
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        Look(self.0.value.read())
    }

    fn subscribe(&self) -> Looks<T> {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Looks(Arc::clone(&self.0), self.0.value.read().0)
    }
}

impl<T: Send + Sync> WatchReceiver<SimWatch, T> for Looks<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|cx| {
            let version = self.0.value.read().0;
            if version != self.1 {
                self.1 = version;
                return Poll::Ready(Ok(()));
            }
            if self.0.senders.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            let mut waiting = self.0.waiting.lock();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> Look<'_, T> {
        Look(self.0.value.read())
    }

    fn borrow_and_update(&mut self) -> Look<'_, T> {
        let value = self.0.value.read();
        self.1 = value.0;
        Look(value)
    }
}
