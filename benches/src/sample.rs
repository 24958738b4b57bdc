//! What one round measured, and what several rounds come to.
//!
//! * It decides: medians and spreads, from samples. It reads no clock.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::conditions::{Versions, versions};

/// How a round loads a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// What is done.
    pub verb: Verb,
    /// Calls in flight.
    pub concurrency: usize,
    /// Bytes of a message's body.
    pub payload: usize,
    /// How long, in milliseconds.
    pub millis: u64,
}

/// What a caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Sends and waits for the answer.
    Ask,
    /// Sends; the round ends when the other side has told how many have arrived.
    Tell,
    /// Asks until the process that serves is frozen; the round ends when each ask has its fault.
    Freeze {
        /// The process that serves.
        pid: u32,
    },
}

/// What one round measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Operations that ended well.
    pub ops: u64,
    /// Operations that ended in an error that the caller was told.
    pub failed: u64,
    /// Messages that nobody was told of and that did not arrive.
    pub lost: u64,
    /// How long the round took.
    pub seconds: f64,
    /// Half of all answers came within this, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 answers came within this.
    pub p99_us: f64,
}

impl Sample {
    /// Operations a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.ops as f64 / self.seconds } else { 0.0 }
    }
}

/// The latencies of one round, in nanoseconds.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("bounds that hold"))
    }
}

impl Latencies {
    /// One answer came after so many nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// So many answers took so many nanoseconds each.
    pub fn record_many(&mut self, nanos: u64, answers: u64) {
        self.0.saturating_record_n(nanos.max(1), answers);
    }

    /// Takes up those of another task.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("histograms of the same bounds");
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a round of this length comes to.
    #[must_use]
    pub fn sample(&self, failed: u64, seconds: f64) -> Sample {
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Sample { ops: self.0.len(), failed, lost: 0, seconds, p50_us: micros(0.5), p99_us: micros(0.99) }
    }
}

/// In what a result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Unit {
    /// Operations in a second.
    #[serde(rename = "ops/s")]
    PerSecond,
    /// 10^6 bytes in a second.
    #[serde(rename = "MB/s")]
    Megabytes,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanos,
    /// Microseconds.
    #[serde(rename = "µs")]
    Micros,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Millis,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// 2^20 bytes.
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Hundredths of a core.
    #[serde(rename = "% of a core")]
    Percent,
}

impl Unit {
    /// As people write it.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::PerSecond => "ops/s",
            Self::Megabytes => "MB/s",
            Self::Nanos => "ns",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Bytes => "bytes",
            Self::Mebibytes => "MiB",
            Self::Percent => "% of a core",
        }
    }

    /// Whether a lower figure is the better one.
    #[must_use]
    pub fn lower_is_better(self) -> bool {
        !matches!(self, Self::PerSecond | Self::Megabytes)
    }
}

/// The rounds of one system under one load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done.
    pub work: String,
    /// By whom.
    pub system: String,
    /// Calls in flight.
    pub concurrency: usize,
    /// Bytes of a message's body.
    pub payload: usize,
    /// Median of the rounds' rates; 0 where nothing is counted by the second.
    pub ops_per_s: f64,
    /// Median of the rounds' medians; 0 where no latency is measured.
    pub p50_us: f64,
    /// Median of the rounds' 99th percentiles; likewise.
    pub p99_us: f64,
    /// Rounds measured.
    pub rounds: usize,
    /// (highest − lowest) / median of the rounds' figures.
    pub spread: f64,
    /// The figure that is compared: a median over the rounds.
    pub value: f64,
    /// Of that figure.
    pub unit: Unit,
    /// The measurement was cut off: the figure is at least this.
    pub at_least: bool,
    /// Operations that ended in an error that the caller was told, over all rounds.
    pub failed: u64,
    /// Operations of which nobody was told anything, over all rounds.
    pub lost: u64,
    /// What a reader must know to compare.
    pub note: String,
    /// Of what the system is made of.
    pub versions: Versions,
    /// Medians of what else was measured, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

impl Outcome {
    /// What these rounds come to, in operations a second.
    #[must_use]
    pub fn of(work: &str, system: &str, load: Load, rounds: &[Sample]) -> Self {
        let rates: Vec<f64> = rounds.iter().map(Sample::rate).collect();
        let outcome = Self::of_values(work, system, Unit::PerSecond, &rates);
        Self {
            concurrency: load.concurrency,
            payload: load.payload,
            ops_per_s: outcome.value,
            p50_us: median(&rounds.iter().map(|r| r.p50_us).collect::<Vec<_>>()),
            p99_us: median(&rounds.iter().map(|r| r.p99_us).collect::<Vec<_>>()),
            failed: rounds.iter().map(|r| r.failed).sum(),
            lost: rounds.iter().map(|r| r.lost).sum(),
            ..outcome
        }
    }

    /// What the figures of these rounds come to, of work that is not counted by the second.
    #[must_use]
    pub fn of_values(work: &str, system: &str, unit: Unit, rounds: &[f64]) -> Self {
        let middle = median(rounds);
        let (low, high) = rounds.iter().fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
        Self {
            work: work.to_owned(),
            system: system.to_owned(),
            concurrency: 1,
            payload: 0,
            ops_per_s: 0.0,
            p50_us: 0.0,
            p99_us: 0.0,
            rounds: rounds.len(),
            spread: if middle > 0.0 { (high - low) / middle } else { 0.0 },
            value: middle,
            unit,
            at_least: false,
            failed: 0,
            lost: 0,
            note: String::new(),
            versions: versions(system),
            figures: BTreeMap::new(),
        }
    }

    /// The same, with what a reader must know to compare.
    #[must_use]
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// The same, with another figure to compare, that is so much for each operation.
    #[must_use]
    pub fn valued(self, each: f64, unit: Unit) -> Self {
        Self { value: self.ops_per_s * each, unit, ..self }
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread_of_rounds_are_told() {
        let load = Load { verb: Verb::Ask, concurrency: 1, payload: 64, millis: 1_000 };
        let round = |ops| Sample { ops, failed: 1, lost: 0, seconds: 2.0, p50_us: ops as f64, p99_us: 9.0 };
        let outcome = Outcome::of("ask", "x", load, &[round(100), round(400), round(200)]);
        assert_eq!((outcome.ops_per_s, outcome.p50_us, outcome.failed), (100.0, 200.0, 3));
        assert_eq!(outcome.spread, 1.5);
        assert_eq!((outcome.value, outcome.unit, outcome.rounds), (100.0, Unit::PerSecond, 3));
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }
}
