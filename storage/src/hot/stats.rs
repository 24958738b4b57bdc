//! What the hot store has done, in numbers that only rise and can be read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::Pressure;

const BUCKETS: usize = 40;

/// Counts of values by power of two: bucket 0 counts zeros, bucket `i` values from 2^(i-1) to 2^i - 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Values per bucket; the last also counts everything larger.
    pub buckets: [u64; BUCKETS],
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper bound of the bucket that holds this quantile (0.5 is the median); 0 when empty.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return (1 << i) - 1;
            }
        }
        0
    }
}

/// What the hot store has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Batches committed.
    pub batches: u64,
    /// Batches fenced.
    pub fenced: u64,
    /// Batches refused before they were taken.
    pub refused: u64,
    /// Bytes of keys and values committed.
    pub bytes: u64,
    /// Batches per write; its count is the number of writes.
    pub group_sizes: Histogram,
    /// Microseconds per sync; its count is the number of syncs.
    pub sync_micros: Histogram,
    /// Batches that wait to be written or synced.
    pub waiting: usize,
    /// Bytes of those.
    pub waiting_bytes: usize,
    /// Work that was let in by the door, and has not ended.
    pub inside: usize,
    /// How hard the engine was pressed when last asked.
    pub pressure: Pressure,
}

/// A histogram that threads add to.
#[derive(Debug)]
pub(super) struct Counts {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Counts {
    pub(super) fn add(&self, value: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Histogram {
        let buckets = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        Histogram { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// What the threads of the hot store count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) batches: AtomicU64,
    pub(super) fenced: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) group_sizes: Counts,
    pub(super) sync_micros: Counts,
}

impl Tally {
    /// One batch of so many bytes was written, or fenced.
    pub(super) fn count(&self, bytes: usize, written: bool) {
        if written {
            self.batches.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        } else {
            self.fenced.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_name_the_bucket_that_holds_them() {
        let counts = Counts::default();
        assert_eq!(counts.read().quantile(0.5), 0);
        [0, 1, 5, 5, 5, 5, 5, 5, 5, 900].into_iter().for_each(|value| counts.add(value));
        let histogram = counts.read();
        assert_eq!((histogram.count(), histogram.sum), (10, 936));
        assert_eq!(histogram.quantile(0.5), 7, "5 lies in 4..=7");
        assert_eq!(histogram.quantile(0.9), 7);
        assert_eq!(histogram.quantile(1.0), 1023);
        counts.add(u64::MAX);
        assert_eq!(counts.read().buckets[BUCKETS - 1], 1);
    }
}
