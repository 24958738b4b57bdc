//! Counts of values by their size, as far as openraft asks for them.
//!
//! openraft counts the sizes of its batches in histograms of the crate `base2histogram`, whether or not anybody looks at them.
//! That crate makes tables of all 16 precisions at its first use, 25 MiB, of which openraft needs one of 2 KiB. A node has this one
//! instead (docs/decisions/0043): the same names, written anew, without tables.
//!
//! * It decides: in which bucket a value counts: four to each power of two, so that a percentile is at most a quarter too low.
//! * It never does: take memory for buckets above the highest value that was counted.

use std::fmt;
use std::marker::PhantomData;

/// Buckets between a power of two and the next one, as a power of two.
const FINE: u32 = 2;
/// The first bucket of values that have a coarser bucket than themselves.
const EXACT: u64 = 1 << (FINE + 1);

/// How often values of each size were counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { counts: Vec::new(), of: PhantomData }
    }
}

impl<T> Histogram<T> {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value so many times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        let bucket = bucket(value);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
    }

    /// Its percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
        let below = |permille: u64| {
            let rank = (u128::from(samples) * u128::from(permille)).div_ceil(1_000).max(1);
            let mut sum = 0_u128;
            let reached = self.counts.iter().position(|count| {
                sum += u128::from(*count);
                sum >= rank
            });
            reached.map_or(0, least)
        };
        PercentileStats {
            samples,
            p0_1: below(1),
            p1: below(10),
            p5: below(50),
            p10: below(100),
            p50: below(500),
            p90: below(900),
            p99: below(990),
            p99_9: below(999),
        }
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let power = value.ilog2();
    let within = (value >> (power - FINE)) - (1 << FINE);
    (u64::from(power - FINE) * (1 << FINE) + (1 << FINE) + within) as usize
}

/// The least value of a bucket.
fn least(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let (power, within) = ((bucket >> FINE) - 1, bucket & ((1 << FINE) - 1));
    ((1 << FINE) + within) << power
}

/// So many values are at or below each of these, with the least value of the bucket they fall into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many were counted.
    pub samples: u64,
    /// One of a thousand.
    pub p0_1: u64,
    /// One of a hundred.
    pub p1: u64,
    /// Five.
    pub p5: u64,
    /// Ten.
    pub p10: u64,
    /// Half of them.
    pub p50: u64,
    /// Ninety of a hundred.
    pub p90: u64,
    /// Ninety-nine.
    pub p99: u64,
    /// All but one of a thousand.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(
            f,
            "{samples} samples, P0.1 {p0_1}, P1 {p1}, P5 {p5}, P10 {p10}, P50 {p50}, P90 {p90}, P99 {p99}, P99.9 {p99_9}"
        )
    }
}

/// The longest bar of a chart.
const WIDEST: u64 = 40;

/// Histograms one below the other: a line for each bucket that counted something.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart {
    series: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// No histogram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// And this one.
    #[must_use]
    #[allow(clippy::should_implement_trait, reason = "the name is openraft's")]
    pub fn add(mut self, name: impl ToString, histogram: Histogram) -> Self {
        self.series.push((name.to_string(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.series {
            writeln!(f, "{name}")?;
            let most = histogram.counts.iter().copied().max().unwrap_or_default().max(1);
            for (bucket, count) in histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                let wide = u128::from(*count) * u128::from(WIDEST) / u128::from(most);
                writeln!(f, "{:>20} {count:>20} {}", least(bucket), "#".repeat(wide.max(1) as usize))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_bucket_that_begins_at_or_below_it_by_less_than_a_quarter() {
        let all =
            (0..5_000).chain((3..64).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1]));
        for value in all.chain([u64::MAX]) {
            let (begins, next) = (least(bucket(value)), bucket(value) + 1);
            assert!(begins <= value && u128::from(value - begins) * 4 < u128::from(value.max(1)), "{value}");
            assert!(value == u64::MAX || bucket(value + 1) <= next, "{value}: no bucket is left out");
        }
    }

    #[test]
    fn percentiles_are_of_all_that_was_counted() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!((histogram.percentile_stats().samples, histogram.percentile_stats().p99), (0, 0));
        (1..=1_000).for_each(|value| histogram.record(value));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p0_1, stats.p50, stats.p99_9), (1_000, 1, 448, 896));
        let mut few = Histogram::<()>::new();
        few.record_n(3, 4);
        few.record(9);
        let chart = AsciiChart::new().add("few", few).to_string();
        let lines: Vec<Vec<&str>> = chart.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["few"], vec!["3", "4", &"#".repeat(40)], vec!["8", "1", &"#".repeat(10)]]);
    }
}
