//! Results for people and for programs: a table, JSON, a picture, and the tables of a document.
//!
//! * It decides: how figures are written, and what is beside what.
//! * It never does: change a figure, or keep a result of another work.

pub mod bars;
pub mod docs;
pub mod floors;
pub mod picture;

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::conditions::Conditions;
use crate::sample::Outcome;

/// A result with its conditions, as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Under which conditions.
    #[serde(flatten)]
    pub conditions: Conditions,
}

/// A table for people.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "{:<14} {:<16} {:>6} {:>8} {:>14} {:<11} {:>9} {:>9} {:>7} {:>7} {:>7} {:>9}",
        "work",
        "system",
        "flight",
        "bytes",
        "median",
        "",
        "p50 µs",
        "p99 µs",
        "spread",
        "failed",
        "lost",
        "rhumb is"
    )
    .ok();
    for o in outcomes {
        writeln!(
            text,
            "{:<14} {:<16} {:>6} {:>8} {:>14} {:<11} {:>9} {:>9} {:>6.0}% {:>7} {:>7} {:>9}",
            o.work,
            o.system,
            o.concurrency,
            o.payload,
            figure(o),
            o.unit.symbol(),
            measured(o.p50_us),
            measured(o.p99_us),
            o.spread * 100.0,
            o.failed,
            o.lost,
            ahead(o, outcomes).unwrap_or_default()
        )
        .ok();
    }
    text
}

/// What each system is made of and what is to be known of it; once for all its loads, but for what is known of one load alone.
#[must_use]
pub fn made_of(outcomes: &[Outcome]) -> Vec<String> {
    let mut told: Vec<(&str, &str)> = Vec::new();
    let mut lines = Vec::new();
    for o in outcomes {
        if told.contains(&(&*o.system, &*o.note)) {
            continue;
        }
        if told.iter().any(|(system, _)| *system == o.system) {
            lines.push(format!("{}, {} in flight, {} bytes: {}", o.system, o.concurrency, o.payload, o.note));
        } else {
            let versions = o.versions.iter().map(|(name, version)| format!("{name} {version}"));
            let all = [o.note.clone(), versions.collect::<Vec<_>>().join(", ")];
            let all: Vec<_> = all.into_iter().filter(|part| !part.is_empty()).collect();
            lines.push(format!("{}: {}", o.system, all.join(". ")));
        }
        told.push((&o.system, &o.note));
    }
    lines
}

/// The figure that is compared.
#[must_use]
pub fn figure(outcome: &Outcome) -> String {
    let least = if outcome.at_least { "> " } else { "" };
    format!("{least}{}", number(outcome.value))
}

/// A figure with three digits or all of its whole ones, in groups of three.
#[must_use]
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 3,
    };
    grouped(value, decimals)
}

/// A figure with so many decimals, its whole digits in groups of three.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && digit.is_ascii_digit() && (whole.len() - i) % 3 == 0 && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn measured(micros: f64) -> String {
    if micros > 0.0 { number(micros) } else { "–".to_owned() }
}

/// With what a system's row is compared: what is done on a connection each, at a follower or under a fault, with Rhumb's row
/// of the same.
#[must_use]
pub fn counterpart(system: &str) -> String {
    let same = ["-each", "-follower", "-killed", "-stopped", "-cut"];
    let suffix = same.into_iter().find(|suffix| system.ends_with(suffix)).unwrap_or_default();
    format!("rhumb{suffix}")
}

/// Rhumb's row that this one is compared with.
fn ours<'a>(of: &Outcome, among: &'a [Outcome]) -> Option<&'a Outcome> {
    let ours = counterpart(&of.system);
    among.iter().find(|o| {
        o.system == ours
            && (&o.work, o.concurrency, o.payload, o.unit) == (&of.work, of.concurrency, of.payload, of.unit)
    })
}

/// How many times better Rhumb is than this under the same load: below 1, worse.
#[must_use]
pub fn times(of: &Outcome, among: &[Outcome]) -> Option<f64> {
    let rhumb = ours(of, among).filter(|ours| of.system != ours.system)?;
    let (better, worse) =
        if of.unit.lower_is_better() { (of.value, rhumb.value) } else { (rhumb.value, of.value) };
    (better > 0.0 && worse > 0.0).then(|| better / worse)
}

/// The same in words.
#[must_use]
pub fn ahead(of: &Outcome, among: &[Outcome]) -> Option<String> {
    let least = if of.at_least { "> " } else { "" };
    times(of, among).map(|times| format!("{least}{}×", number(times)))
}

/// Writes `NAME.json` into a folder.
///
/// # Errors
/// It cannot be written.
pub fn json(folder: &Path, name: &str, outcomes: &[Outcome], conditions: &Conditions) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let written: Vec<_> = outcomes
        .iter()
        .map(|outcome| Written { outcome: outcome.clone(), conditions: conditions.clone() })
        .collect();
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, serde_json::to_vec_pretty(&written)?).with_context(|| path.display().to_string())
}

/// Reads what [`json`] wrote; nothing, if there is no such file.
///
/// # Errors
/// It cannot be read, or is none of this program's.
pub fn read(folder: &Path, name: &str) -> anyhow::Result<Vec<Written>> {
    let path = folder.join(format!("{name}.json"));
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{}: measure it again", path.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sample::{Load, Sample, Unit, Verb};

    pub(crate) fn outcome(system: &str, ops: u64) -> Outcome {
        let load = Load { verb: Verb::Ask, concurrency: 16, payload: 64, millis: 1_000 };
        let round = Sample { ops, failed: 0, lost: 0, seconds: 1.0, p50_us: 12.5, p99_us: 1234.0 };
        Outcome::of("remote-ask", system, load, &[round]).noted("a note")
    }

    #[test]
    fn figures_are_grouped_and_keep_three_digits() {
        let all = [0.0, 0.0123, 0.5, 1.234, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0].map(number);
        assert_eq!(all, ["0", "0.012", "0.50", "1.23", "12.3", "123", "1,234", "1,234,567", "-1,234"]);
    }

    #[test]
    fn rhumb_is_compared_under_the_same_load_and_in_the_same_unit() {
        let all = [outcome("rhumb", 300), outcome("tonic", 100)];
        assert_eq!(ahead(&all[1], &all).as_deref(), Some("3.00×"));
        assert_eq!(ahead(&all[0], &all), None);
        let other = Outcome { concurrency: 1, ..all[1].clone() };
        assert_eq!(ahead(&other, &all), None);
        let millis = |o: &Outcome| Outcome { unit: Unit::Millis, ..o.clone() };
        assert_eq!(ahead(&millis(&all[1]), &[millis(&all[0])]).as_deref(), Some("0.33×"));
    }

    #[test]
    fn a_row_is_compared_with_the_same_of_rhumb() {
        let all =
            ["etcd", "etcd-follower", "redis-each", "rhumb-awaited", "etcd-cut", "rhumb-8"].map(counterpart);
        assert_eq!(all, ["rhumb", "rhumb-follower", "rhumb-each", "rhumb", "rhumb-cut", "rhumb"]);
    }

    #[test]
    fn what_is_written_is_read_again_and_says_what_it_must() {
        let folder = tempfile::tempdir().expect("a folder");
        let conditions = Conditions { command: "make bench".into(), cores: 2, ..Conditions::default() };
        json(folder.path(), "remote-ask", &[outcome("rhumb", 300)], &conditions).expect("written");
        let again = read(folder.path(), "remote-ask").expect("read");
        assert_eq!((again[0].outcome.clone(), again[0].conditions.cores), (outcome("rhumb", 300), 2));
        let text = std::fs::read_to_string(folder.path().join("remote-ask.json")).expect("a file");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for key in
            ["work", "system", "concurrency", "payload", "ops_per_s", "p50_us", "p99_us", "rounds", "spread"]
        {
            assert!(value[0].get(key).is_some(), "{key} is missing in {text}");
        }
        assert!(read(folder.path(), "other").expect("nothing").is_empty());
    }
}
