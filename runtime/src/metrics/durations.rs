//! A histogram of durations that all threads add to without waiting for each other.
//!
//! * It decides: which bucket a duration falls into, and which sampled trace stands for a bucket: the
//!   latest.
//! * It never does: lose a count, or wait. A trace whose bucket is being written at the same moment is
//!   left out; the count is not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// The upper bounds of the buckets in microseconds: 100 µs to 10 s, as 1, 2.5 and 5. A call within a
/// region takes the first of them, one across an ocean the middle ones.
pub(super) const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// One bucket more than bounds: what took longer.
const BUCKETS: usize = BOUNDS.len() + 1;

/// A sampled call that fell into a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exemplar {
    /// Its trace.
    pub(super) trace_id: u128,
    /// How long it took.
    pub(super) took: Duration,
    /// When it ended, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
}

/// Counts of durations by bucket.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    exemplars: [Mutex<Option<Exemplar>>; BUCKETS],
}

impl Durations {
    /// Counts one, with the trace of it, if it is sampled, and the moment at which it ended.
    pub(crate) fn record(&self, took: Duration, sampled: Option<(u128, u64)>) {
        let micros = took.as_nanos().div_ceil(1_000);
        let bucket = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        if let Some((trace_id, at_ms)) = sampled
            && let Some(mut place) = self.exemplars[bucket].try_lock()
        {
            *place = Some(Exemplar { trace_id, took, at_ms });
        }
    }

    /// How many were counted.
    #[cfg(feature = "rocks")]
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// In seconds the upper bound of the bucket that this share of all (0.99) lies in or below; none without any, or where
    /// that bucket has no bound.
    #[cfg(feature = "rocks")]
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut count = 0;
        let within = self.steps().buckets.into_iter().find(|(_, more)| {
            count += more;
            count >= wanted
        });
        within.map(|(bound, _)| bound).filter(|bound| bound.is_finite() && wanted > 0)
    }

    /// The counts at this moment. Those of one that is being recorded may be there in part.
    #[cfg(feature = "rocks")]
    pub(crate) fn steps(&self) -> Steps {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        Steps {
            buckets: bounds.zip(counts).collect(),
            sum: self.nanos.load(Ordering::Relaxed) as f64 / 1e9,
            exemplars: self.exemplars.iter().map(|exemplar| *exemplar.lock()).collect(),
        }
    }
}

/// A histogram as it is told: seconds.
#[cfg(feature = "rocks")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steps {
    /// Upper bounds, rising, the last one infinite, each with the number of values in its own bucket.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub(crate) sum: f64,
    /// A sampled call for each bucket that has one; may be shorter than the buckets.
    pub(super) exemplars: Vec<Option<Exemplar>>,
}

#[cfg(feature = "rocks")]
impl Steps {
    /// A histogram without exemplars.
    pub(crate) fn new(buckets: Vec<(f64, u64)>, sum: f64) -> Self {
        Self { buckets, sum, exemplars: Vec::new() }
    }
}

#[cfg(all(test, feature = "rocks"))]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        for (nanos, bound) in [
            (0, 0.0001),
            (100_000, 0.0001),
            (100_001, 0.00025),
            (1_000_000, 0.001),
            (9_999_999_999, 10.0),
            (10_000_000_001, f64::INFINITY),
            (u64::MAX, f64::INFINITY),
        ] {
            let durations = Durations::default();
            durations.record(Duration::from_nanos(nanos), None);
            let filled: Vec<_> = durations.steps().buckets.into_iter().filter(|(_, n)| *n > 0).collect();
            assert_eq!(filled, [(bound, 1)], "{nanos} ns");
        }
    }

    #[test]
    fn a_quantile_is_the_bound_below_which_that_share_lies() {
        let durations = Durations::default();
        assert_eq!(durations.quantile(0.99), None, "of nothing");
        (0..99).for_each(|_| durations.record(Duration::from_millis(2), None));
        durations.record(Duration::from_millis(400), None);
        assert_eq!((durations.quantile(0.99), durations.quantile(1.0)), (Some(0.0025), Some(0.5)));
        (0..9).for_each(|_| durations.record(Duration::from_secs(60), None));
        assert_eq!(durations.quantile(0.99), None, "longer than the last bound");
    }

    #[test]
    fn the_latest_sampled_call_stands_for_its_bucket() {
        let durations = Durations::default();
        durations.record(Duration::from_millis(3), Some((7, 1)));
        durations.record(Duration::from_millis(4), Some((8, 2)));
        durations.record(Duration::from_millis(5), None);
        let steps = durations.steps();
        let found: Vec<_> = steps.exemplars.iter().flatten().copied().collect();
        assert_eq!(found, [Exemplar { trace_id: 8, took: Duration::from_millis(4), at_ms: 2 }]);
        assert!((steps.sum - 0.012).abs() < 1e-9, "{}", steps.sum);
    }

    #[test]
    fn threads_that_record_at_once_lose_nothing() {
        let durations = Durations::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let durations = &durations;
                scope.spawn(move || {
                    for micros in 0..10_000 {
                        durations.record(Duration::from_micros(micros), Some((thread, micros)));
                    }
                });
            }
        });
        assert_eq!(durations.steps().buckets.iter().map(|(_, count)| count).sum::<u64>(), 40_000);
    }
}
