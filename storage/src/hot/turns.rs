//! What the hot store's threads are about, for whoever watches that they go on.

use std::sync::atomic::{AtomicU64, Ordering};

/// Work that a thread does now and then: odd while it is under way.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicU64);

impl Turn {
    /// Does the work.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::Release);
        let done = work();
        self.0.fetch_add(1, Ordering::Release);
        done
    }

    pub(super) fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// How often the two threads of a hot store began or ended a write or a sync. An odd number that stays
/// the same is one write or sync that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turns {
    /// Writes into the engine.
    pub write: u64,
    /// Syncs of the write-ahead log.
    pub sync: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_odd_while_its_work_is_under_way() {
        let turn = Turn::default();
        turn.during(|| assert_eq!(turn.read(), 1));
        assert_eq!(turn.read(), 2);
    }
}
