//! How many traces others may have this node keep that it would not keep itself.
//!
//! A program outside the mesh says with its call whether the trace is kept, and a node does as it says: a
//! decision at each hop would leave traces with holes. So it is bounded here how many of those a second
//! are taken that are not in the node's own share.
//!
//! * It decides: whether one more is taken, now.
//! * It never does: cut a trace that the node's own share keeps, or one that another node passes on.
//! * Invariant: over any time t no more than `a_second` × (t + 1) are taken.

use std::time::Duration;

/// Room for so many a second, which gathers for one second at the most.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    a_second: u32,
    /// Room, in millionths of a trace.
    room: u64,
    looked: Duration,
}

/// One trace.
const ONE: u64 = 1_000_000;

impl Allowance {
    /// So many a second; the room of a whole second is there at once.
    pub(super) fn of(a_second: u32) -> Self {
        Self { a_second, room: u64::from(a_second) * ONE, looked: Duration::ZERO }
    }

    /// Takes room for one, if there is any. `now` is any time that only rises.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.looked).min(Duration::from_secs(1));
        self.looked = self.looked.max(now);
        let most = u64::from(self.a_second) * ONE;
        // A microsecond gathers a millionth of what a second does.
        self.room = (self.room + passed.as_micros() as u64 * u64::from(self.a_second)).min(most);
        let taken = self.room >= ONE;
        if taken {
            self.room -= ONE;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(allowance: &mut Allowance, at_ms: u64, asked: u32) -> u32 {
        (0..asked).map(|_| u32::from(allowance.take(Duration::from_millis(at_ms)))).sum()
    }

    #[test]
    fn a_flood_gets_what_a_second_has_room_for_and_room_gathers_no_longer() {
        let mut allowance = Allowance::of(10);
        assert_eq!(taken(&mut allowance, 0, 1_000), 10);
        assert_eq!(taken(&mut allowance, 50, 1_000), 0);
        assert_eq!(taken(&mut allowance, 100, 1_000), 1);
        assert_eq!(taken(&mut allowance, 60_000, 1_000), 10);
        assert_eq!(taken(&mut allowance, 59_000, 1_000), 0, "a time that falls gathers nothing");
        assert_eq!(taken(&mut Allowance::of(0), 60_000, 1_000), 0);
    }

    #[test]
    fn over_a_long_time_as_many_are_taken_as_it_says() {
        let mut allowance = Allowance::of(3);
        let sum: u32 = (0..100_000).map(|ms| taken(&mut allowance, ms, 1)).sum();
        assert!((300..=303).contains(&sum), "{sum}");
    }
}
