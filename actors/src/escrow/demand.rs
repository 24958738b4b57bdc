//! How many units are asked for here, per second, smoothed.
//!
//! * It decides: one number, from the times of requests. It never reads a clock.
//! * Invariant: integers only; the number falls to zero when nobody asks any more.

use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::limits::MAX_SUPPLY;

const BUCKET: Duration = Duration::from_millis(250);
const BUCKETS_A_SECOND: u64 = 4;
/// After so many empty buckets nothing is left of what was.
const FORGOTTEN: u128 = 128;

/// A moving average over buckets of 250 ms, each new one counting a quarter: a step in demand is seen
/// for two thirds after a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    bucket: Mono,
    asked: u64,
    /// Thousandths of units a second.
    smoothed: u64,
}

impl Demand {
    /// So many units were asked for now.
    pub(crate) fn ask(&mut self, now: Mono, units: u64) {
        self.roll(now);
        self.asked = self.asked.saturating_add(units).min(MAX_SUPPLY);
    }

    /// Units asked for, per second.
    pub(crate) fn per_second(&mut self, now: Mono) -> u64 {
        self.roll(now);
        (self.smoothed + 500) / 1_000
    }

    fn roll(&mut self, now: Mono) {
        let passed = now.since(self.bucket).as_millis() / BUCKET.as_millis();
        if passed == 0 {
            return;
        }
        let rate = self.asked * BUCKETS_A_SECOND * 1_000;
        self.smoothed = (self.smoothed * 3 + rate) / 4;
        self.asked = 0;
        if passed > FORGOTTEN {
            self.smoothed = 0;
            self.bucket = now;
            return;
        }
        for _ in 1..passed {
            self.smoothed = self.smoothed * 3 / 4;
        }
        self.bucket = self.bucket.plus(BUCKET * u32::try_from(passed).expect("at most 128"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_demand_is_seen_and_forgotten() {
        let mut demand = Demand::default();
        for ms in 0..4_000 {
            demand.ask(Mono::millis(ms), u64::from(ms % 10 < 6));
        }
        let steady = demand.per_second(Mono::millis(4_000));
        assert!((585..=600).contains(&steady), "{steady}");
        assert!(demand.per_second(Mono::millis(5_000)) < 250);
        assert_eq!(demand.per_second(Mono::millis(20_000)), 0);
        assert_eq!(demand.per_second(Mono::millis(9_000_000)), 0);
    }
}
