//! Results with figures of their own beside rates and latencies.

use std::collections::BTreeMap;

use crate::inside::Measured;
use crate::sample::{Load, Outcome, Sample, Unit, median};

/// What rounds come to, in operations a second, with the medians of their figures; the note says them too.
#[must_use]
pub fn outcome(work: &str, system: &str, load: Load, rounds: &[Measured], note: &str) -> Outcome {
    let samples: Vec<Sample> = rounds.iter().map(|round| round.sample).collect();
    let mut names: Vec<&String> = rounds.iter().flat_map(|round| round.figures.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let of = |name: &String| median(&figure(rounds, name));
    let figures: BTreeMap<String, f64> = names.into_iter().map(|name| (name.clone(), of(name))).collect();
    let told: Vec<_> = figures
        .iter()
        .map(|(name, value)| format!("{} {}", name.replace('_', " "), crate::report::number(*value)))
        .collect();
    let note = if told.is_empty() { note.to_owned() } else { format!("{note}; {}", told.join(", ")) };
    Outcome { figures, note, ..Outcome::of(work, system, load, &samples) }
}

/// The same, but what is compared is one of the figures.
#[must_use]
pub fn by_figure(outcome: Outcome, rounds: &[Measured], name: &str, unit: Unit) -> Outcome {
    let compared = Outcome::of_values(&outcome.work, &outcome.system, unit, &figure(rounds, name));
    Outcome { value: compared.value, unit, spread: compared.spread, ..outcome }
}

fn figure(rounds: &[Measured], name: &str) -> Vec<f64> {
    rounds.iter().filter_map(|round| round.figures.get(name).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Verb;

    #[test]
    fn figures_stand_beside_what_every_result_says() {
        let sample = Sample { ops: 10, failed: 0, lost: 0, seconds: 1.0, p50_us: 1.0, p99_us: 2.0 };
        let rounds = [100.0, 300.0, 200.0].map(|bytes| Measured::of(sample).with("bytes_each", bytes));
        let load = Load { verb: Verb::Ask, concurrency: 1, payload: 8, millis: 1 };
        let outcome = outcome("idle", "x", load, &rounds, "a note");
        assert_eq!((outcome.ops_per_s, outcome.figures["bytes_each"]), (10.0, 200.0));
        assert_eq!(outcome.note, "a note; bytes each 200");
        let compared = by_figure(outcome, &rounds, "bytes_each", Unit::Bytes);
        assert_eq!((compared.value, compared.spread, compared.ops_per_s), (200.0, 1.0, 10.0));
    }
}
