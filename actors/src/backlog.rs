//! How much waits in an actor's mailbox, counted beside it: actix says it of none.
//!
//! * It decides nothing; it counts, without a lock.
//! * It never does: bound anything. The mailbox does; what comes beyond it is not counted.
//! * Invariant: what came and was not taken waits. The times are exact while messages come one after the
//!   other; two that come at one moment may have each other's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What waits in front of one actor.
#[derive(Debug)]
pub struct Backlog {
    begun: Instant,
    came: AtomicU64,
    taken: AtomicU64,
    /// When each came, in microseconds after `begun`, at its number's place.
    times: Box<[AtomicU64]>,
}

/// What waits now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Messages that wait.
    pub waiting: usize,
    /// Messages for which there is room.
    pub capacity: usize,
    /// How long the first of them has waited; none where none waits.
    pub oldest: Option<Duration>,
}

impl Backlog {
    /// Of a mailbox with room for so many, at least one.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a shell: it measures real waiting")]
    pub fn of(capacity: usize) -> Self {
        let times = (0..capacity.max(1)).map(|_| AtomicU64::new(0)).collect();
        Self { begun: Instant::now(), came: AtomicU64::new(0), taken: AtomicU64::new(0), times }
    }

    /// A message was let in.
    pub fn came(&self) {
        let number = self.came.fetch_add(1, Ordering::Relaxed);
        self.place(number).store(self.now(), Ordering::Relaxed);
    }

    /// The actor has taken the first of those that wait.
    pub fn taken(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// What waits now.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let taken = self.taken.load(Ordering::Relaxed);
        // A message may be taken before who sent it has counted it.
        let waiting = self.came.load(Ordering::Relaxed).saturating_sub(taken);
        let since = self.now().saturating_sub(self.place(taken).load(Ordering::Relaxed));
        Waiting {
            waiting: usize::try_from(waiting).unwrap_or(usize::MAX),
            capacity: self.times.len(),
            oldest: (waiting > 0).then_some(Duration::from_micros(since)),
        }
    }

    fn place(&self, number: u64) -> &AtomicU64 {
        &self.times[(number % self.times.len() as u64) as usize]
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_was_not_taken_waits_and_the_oldest_is_the_first_of_it() {
        let backlog = Backlog::of(2);
        assert_eq!(backlog.waiting(), Waiting { waiting: 0, capacity: 2, oldest: None });
        backlog.came();
        // The clock is real: that it goes on is all that is asked of it.
        while backlog.now() < 2_000 {
            std::hint::spin_loop();
        }
        backlog.came();
        let both = backlog.waiting();
        assert_eq!(both.waiting, 2);
        assert!(both.oldest >= Some(Duration::from_micros(1_000)), "{both:?}");
        backlog.taken();
        let one = backlog.waiting();
        assert_eq!(one.waiting, 1);
        assert!(one.oldest < both.oldest, "the second came later: {one:?}, {both:?}");
        backlog.taken();
        assert_eq!(backlog.waiting().oldest, None);
    }

    #[test]
    fn who_is_taken_before_it_is_counted_never_makes_the_count_wrap() {
        let backlog = Backlog::of(1);
        backlog.taken();
        assert_eq!(backlog.waiting().waiting, 0);
        backlog.came();
        assert_eq!(backlog.waiting().waiting, 0);
    }
}
