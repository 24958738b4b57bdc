//! What one round measured, and what several rounds come to.
//!
//! * It decides: medians and spreads, from samples. It reads no clock.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

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

    /// What a round of this length comes to.
    #[must_use]
    pub fn sample(&self, failed: u64, seconds: f64) -> Sample {
        let micros = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        Sample { ops: self.0.len(), failed, lost: 0, seconds, p50_us: micros(0.5), p99_us: micros(0.99) }
    }
}

/// The rounds of one system under one load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// What was done.
    pub work: String,
    /// By whom.
    pub system: String,
    /// Calls in flight.
    pub concurrency: usize,
    /// Bytes of a message's body.
    pub payload: usize,
    /// Median of the rounds' rates.
    pub ops_per_s: f64,
    /// Median of the rounds' medians.
    pub p50_us: f64,
    /// Median of the rounds' 99th percentiles.
    pub p99_us: f64,
    /// Rounds measured.
    pub rounds: usize,
    /// (highest − lowest) / median of the rates.
    pub spread: f64,
    /// Over all rounds.
    pub failed: u64,
    /// Over all rounds.
    pub lost: u64,
}

impl Outcome {
    /// What these rounds come to.
    #[must_use]
    pub fn of(work: &str, system: &str, load: Load, rounds: &[Sample]) -> Self {
        let rates: Vec<f64> = rounds.iter().map(Sample::rate).collect();
        let middle = median(&rates);
        let (low, high) = rates.iter().fold((f64::MAX, 0.0_f64), |(l, h), r| (l.min(*r), h.max(*r)));
        Self {
            work: work.to_owned(),
            system: system.to_owned(),
            concurrency: load.concurrency,
            payload: load.payload,
            ops_per_s: middle,
            p50_us: median(&rounds.iter().map(|r| r.p50_us).collect::<Vec<_>>()),
            p99_us: median(&rounds.iter().map(|r| r.p99_us).collect::<Vec<_>>()),
            rounds: rounds.len(),
            spread: if middle > 0.0 { (high - low) / middle } else { 0.0 },
            failed: rounds.iter().map(|r| r.failed).sum(),
            lost: rounds.iter().map(|r| r.lost).sum(),
        }
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
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
    }
}
