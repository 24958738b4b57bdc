//! It goes on as it has been lately: an exponentially weighted moving average.

use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;

use super::{Forecaster, bounded};

const BUCKET: Duration = Duration::from_millis(250);
const BUCKETS_A_SECOND: u64 = 4;
/// After so many empty buckets nothing is left of what was.
const FORGOTTEN: u128 = 128;

/// A moving average over buckets of 250 ms, each new one counting a quarter: a step in demand is seen
/// for two thirds after a second. It falls to zero when nobody asks any more.
#[derive(Debug, Clone, Default)]
pub struct Ewma {
    bucket: Mono,
    asked: u64,
    /// Thousandths of units a second.
    smoothed: u64,
}

impl Ewma {
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
        let empty = if canary::sings(Canary::EwmaNeverFalls) { 1 } else { passed };
        for _ in 1..empty {
            self.smoothed = self.smoothed * 3 / 4;
        }
        self.bucket = self.bucket.plus(BUCKET * u32::try_from(passed).expect("at most 128"));
    }
}

impl Forecaster for Ewma {
    fn observe(&mut self, now: Mono, units: u64) {
        self.roll(now);
        self.asked = self.asked.saturating_add(units).min(MAX_SUPPLY);
    }

    fn forecast(&mut self, now: Mono, ahead: Duration) -> u64 {
        self.roll(now);
        bounded((u128::from(self.smoothed) * ahead.as_millis() + 500_000) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::super::per_second;
    use super::*;

    #[test]
    fn steady_demand_is_seen_and_forgotten() {
        let mut demand = Ewma::default();
        for ms in 0..4_000 {
            demand.observe(Mono::millis(ms), u64::from(ms % 10 < 6));
        }
        let mut rate = |ms| per_second(&mut demand, Mono::millis(ms), Duration::from_secs(4));
        let steady = rate(4_000);
        assert!((585..=600).contains(&steady), "{steady}");
        assert!(rate(5_000) < 250);
        assert_eq!(rate(20_000), 0);
        assert_eq!(rate(9_000_000), 0);
    }

    #[test]
    fn what_is_ahead_is_the_rate_times_the_time() {
        let mut demand = Ewma::default();
        (0..40).for_each(|i| demand.observe(Mono::millis(i * 250), 25));
        for (ahead, want) in [(0, 0), (100, 10), (1_000, 100), (60_000, 6_000)] {
            let units = demand.forecast(Mono::millis(10_000), Duration::from_millis(ahead));
            assert!(units.abs_diff(want) <= want / 50, "{units} within {ahead} ms, not {want}");
        }
        assert_eq!(demand.forecast(Mono::millis(10_000), Duration::MAX), MAX_SUPPLY, "bounded");
    }
}
