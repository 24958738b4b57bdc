//! How long to wait before the next attempt to connect.
//!
//! * It decides: the next delay, which doubles from failure to failure up to a bound, and is drawn
//!   at random from the upper half of that span so that peers do not come back in step.
//! * It never does: wait, or draw entropy (its generator is given).
//! * Invariant: a delay is at least half the minimum and at most the maximum.

use std::time::Duration;

use rhumb_core::rng::Rng;

/// Delays between attempts.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: Rng,
}

impl Backoff {
    /// Delays from about `min` to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration, rng: Rng) -> Self {
        Self { min, max: max.max(min), failures: 0, rng }
    }

    /// The delay after one more failure.
    pub fn failed(&mut self) -> Duration {
        let span = self.min.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.rng.between(micros / 2, micros))
    }

    /// An attempt held: begin again at the minimum.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::*;

    fn backoff(seed: u64) -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(5), Seed::new(seed).rng())
    }

    #[test]
    fn delays_double_within_their_bounds_and_begin_again_after_a_success() {
        for seed in 0..50 {
            let mut backoff = backoff(seed);
            for failure in 0..40u32 {
                let span = Duration::from_millis(100 << failure.min(6)).min(Duration::from_secs(5));
                let delay = backoff.failed();
                assert!(delay >= span / 2 && delay <= span, "failure {failure}: {delay:?} of {span:?}");
            }
            backoff.succeeded();
            assert!(backoff.failed() <= Duration::from_millis(100));
        }
    }

    #[test]
    fn peers_that_fail_together_do_not_come_back_together() {
        let delays: std::collections::BTreeSet<_> = (0..20).map(|seed| backoff(seed).failed()).collect();
        assert!(delays.len() > 15, "jitter spreads them: {delays:?}");
    }
}
