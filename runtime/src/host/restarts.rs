//! When an actor that panicked is made anew.
//!
//! * It decides: at once or later, or not any more: more than `intensity` panics within `within` and
//!   the actor has given up. (Erlang's restart intensity; actix's own `Supervisor` does not survive a
//!   panic at all.)
//! * It never does: wait, or read a clock.
//! * Invariant: it remembers at most `intensity` panics.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How an actor that panics is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restarts {
    /// Panics within [`Restarts::within`] after which the next one is one too many.
    pub intensity: u32,
    /// The span in which panics count together.
    pub within: Duration,
    /// How long the first restart waits; it doubles from panic to panic.
    pub first: Duration,
    /// The longest a restart waits.
    pub longest: Duration,
    /// How long an actor that has given up answers nobody, before it is tried again.
    pub rest: Duration,
}

impl Default for Restarts {
    /// Five panics in a minute, 10 ms to 5 s between restarts, half a minute of rest.
    fn default() -> Self {
        Self {
            intensity: 5,
            within: Duration::from_secs(60),
            first: Duration::from_millis(10),
            longest: Duration::from_secs(5),
            rest: Duration::from_secs(30),
        }
    }
}

/// What follows a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new instance after this long.
    Again(Duration),
    /// One panic too many.
    GiveUp,
}

/// The panics of one actor that still count.
#[derive(Debug, Default)]
pub(crate) struct Panics(VecDeque<Instant>);

impl Panics {
    /// Whether none of them counts any more.
    pub(super) fn are_old(&self, now: Instant, policy: &Restarts) -> bool {
        self.0.back().is_none_or(|last| now.duration_since(*last) >= policy.within)
    }

    /// One more panic.
    pub(crate) fn panicked(&mut self, now: Instant, policy: &Restarts) -> Verdict {
        while self.0.front().is_some_and(|at| now.duration_since(*at) >= policy.within) {
            self.0.pop_front();
        }
        if self.0.len() >= policy.intensity as usize {
            self.0.clear();
            return Verdict::GiveUp;
        }
        let doubled = policy.first.saturating_mul(1 << self.0.len().min(20));
        self.0.push_back(now);
        Verdict::Again(doubled.min(policy.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Restarts {
        Restarts { intensity: 3, within: Duration::from_secs(10), ..Restarts::default() }
    }

    #[test]
    fn each_panic_waits_twice_as_long_until_one_too_many() {
        let (mut panics, now) = (Panics::default(), clock());
        let waits: Vec<_> = (0..4).map(|_| panics.panicked(now, &policy())).collect();
        let again = |ms| Verdict::Again(Duration::from_millis(ms));
        assert_eq!(waits, [again(10), again(20), again(40), Verdict::GiveUp]);
        assert_eq!(panics.panicked(now, &policy()), again(10), "after its rest it begins anew");
    }

    #[test]
    fn panics_far_apart_do_not_add_up() {
        let (mut panics, mut now) = (Panics::default(), clock());
        for _ in 0..20 {
            assert_eq!(panics.panicked(now, &policy()), Verdict::Again(Duration::from_millis(10)));
            now += Duration::from_secs(10);
        }
    }

    #[test]
    fn no_restart_waits_longer_than_the_longest() {
        let many = Restarts { intensity: 100, ..policy() };
        let (mut panics, now) = (Panics::default(), clock());
        let last = (0..100).map(|_| panics.panicked(now, &many)).last();
        assert_eq!(last, Some(Verdict::Again(Duration::from_secs(5))));
    }

    fn clock() -> Instant {
        Instant::now()
    }
}
