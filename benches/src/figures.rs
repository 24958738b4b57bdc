//! Results with figures of their own beside rates and latencies.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::inside::Measured;
use crate::sample::{Load, Outcome, Sample, median};

/// A result: what every result says, and more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Rate and latencies.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What a reader must know to compare.
    pub note: String,
    /// Medians of everything else, by name.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
}

impl Row {
    /// What rounds come to. The spread is that of the rates; that of a figure, its name and `_spread`.
    #[must_use]
    pub fn of(work: &str, system: &str, load: Load, rounds: &[Measured], note: &str) -> Self {
        let samples: Vec<Sample> = rounds.iter().map(|round| round.sample).collect();
        let mut figures = BTreeMap::new();
        for name in rounds.iter().flat_map(|round| round.figures.keys()) {
            let values: Vec<f64> = rounds.iter().filter_map(|round| round.figures.get(name).copied()).collect();
            let middle = median(&values);
            let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
            figures.insert(name.clone(), middle);
            let spread = if middle == 0.0 { 0.0 } else { (high - low) / middle };
            figures.insert(format!("{name}_spread"), spread);
        }
        Self { outcome: Outcome::of(work, system, load, &samples), note: note.to_owned(), figures }
    }

    /// A line that only says something: why there is no figure.
    #[must_use]
    pub fn missing(work: &str, system: &str, load: Load, why: &str) -> Self {
        Self::of(work, system, load, &[], why)
    }
}

/// A table for people.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "{:<18} {:<18} {:>5} {:>12} {:>11} {:>11} {:>7} {:>6}  figures",
        "work", "system", "conc", "ops/s", "p50 µs", "p99 µs", "spread", "failed"
    )
    .ok();
    for row in rows {
        let o = &row.outcome;
        if o.rounds == 0 {
            writeln!(text, "{:<18} {:<18} {:>5} not measured: {}", o.work, o.system, o.concurrency, row.note).ok();
            continue;
        }
        let own = row.figures.iter().filter(|(name, _)| !name.ends_with("_spread"));
        let own: Vec<_> = own.map(|(name, value)| format!("{name}={value:.2}")).collect();
        writeln!(
            text,
            "{:<18} {:<18} {:>5} {:>12.0} {:>11.2} {:>11.2} {:>6.0}% {:>6}  {}",
            o.work,
            o.system,
            o.concurrency,
            o.ops_per_s,
            o.p50_us,
            o.p99_us,
            o.spread * 100.0,
            o.failed,
            own.join(" ")
        )
        .ok();
    }
    text
}

/// Writes `NAME.json` into a folder.
///
/// # Errors
/// It cannot be written.
pub fn json(folder: &Path, name: &str, rows: &[Row]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(rows)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Verb;

    #[test]
    fn figures_stand_beside_what_every_result_says() {
        let sample = Sample { ops: 10, failed: 0, lost: 0, seconds: 1.0, p50_us: 1.0, p99_us: 2.0 };
        let round = |bytes| Measured::of(sample).with("bytes_each", bytes);
        let load = Load { verb: Verb::Ask, concurrency: 1, payload: 8, millis: 1 };
        let row = Row::of("idle", "x", load, &[round(100.0), round(300.0), round(200.0)], "");
        let json = serde_json::to_value(&row).expect("JSON");
        assert_eq!((&json["ops_per_s"], &json["bytes_each"]), (&10.0.into(), &200.0.into()));
        assert_eq!(json["bytes_each_spread"], 1.0);
    }
}
