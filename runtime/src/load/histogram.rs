//! Durations in logarithmic buckets: bounded memory, quantiles within a known error.
//!
//! * It decides: which bucket a duration falls in, and what a quantile is.
//! * It never does: lose a sample, or take more memory with more samples.
//! * Invariant: a quantile is never below the sample it stands for, and at most 1/64 above it. Below
//!   64 µs it is exact.

use std::time::Duration;

/// Buckets in each power of two. The relative error is one over this.
const SUB: u64 = 64;
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Enough for every `u64` of microseconds.
const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// Counts of durations.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_us: 0 }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Histogram({} samples)", self.total)
    }
}

impl Histogram {
    /// Counts one duration, to the microsecond.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The duration that so many per cent of the samples do not exceed (nearest rank); none without
    /// samples.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (u128::from(self.total) * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0u128;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if *count > 0 && seen >= rank {
                return Some(Duration::from_micros(highest_in(at).min(self.max_us)));
            }
        }
        None
    }
}

/// Values below `SUB` have a bucket each; above, the top `SUB_BITS` + 1 bits choose it.
fn bucket(us: u64) -> usize {
    if us < SUB {
        return us as usize;
    }
    let shift = us.ilog2() - SUB_BITS;
    (u64::from(shift) * SUB + (us >> shift)) as usize
}

/// The largest value that falls into a bucket.
fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let top = u128::from(bucket % SUB + SUB + 1) << shift;
    u64::try_from(top - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::*;

    #[test]
    fn every_value_falls_into_the_bucket_that_covers_it() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for us in edges {
            let at = bucket(us);
            assert!(at < BUCKETS, "{us}");
            assert!(highest_in(at) >= us, "{us} is above its bucket's top {}", highest_in(at));
            assert!(at == 0 || highest_in(at - 1) < us, "{us} belongs into the bucket before");
        }
    }

    #[test]
    fn percentiles_stay_within_one_sixty_fourth_of_the_exact_ones() {
        let mut rng = Seed::new(4).child("latency").rng();
        let mut histogram = Histogram::default();
        let mut exact: Vec<u64> = (0..10_000).map(|_| rng.exponential(40_000.0) as u64).collect();
        for us in &exact {
            histogram.record(Duration::from_micros(*us));
        }
        exact.sort_unstable();
        for percent in [1, 25, 50, 90, 99, 100] {
            let want = exact[(exact.len() * percent as usize).div_ceil(100) - 1];
            let got = histogram.percentile(percent).expect("samples").as_micros() as u64;
            assert!(got >= want && got <= want + want / 64 + 1, "p{percent}: {got} for {want}");
        }
    }

    #[test]
    fn an_empty_one_has_no_percentiles_and_merging_adds() {
        let mut all = Histogram::default();
        assert_eq!(all.percentile(50), None);
        let mut one = Histogram::default();
        one.record(Duration::from_micros(7));
        all.merge(&one);
        one.record(Duration::from_secs(9));
        all.merge(&one);
        assert_eq!(all.count(), 3);
        assert_eq!(all.percentile(50), Some(Duration::from_micros(7)));
        assert_eq!(all.percentile(100), Some(Duration::from_secs(9)));
    }
}
