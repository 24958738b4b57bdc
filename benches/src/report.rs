//! Results as text and JSON.

use std::fmt::Write;
use std::path::Path;

use crate::sample::Outcome;

/// A table for people.
#[must_use]
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    writeln!(
        text,
        "{:<14} {:<16} {:>5} {:>8} {:>12} {:>10} {:>10} {:>7} {:>7} {:>7}",
        "work", "system", "conc", "bytes", "ops/s", "p50 µs", "p99 µs", "spread", "failed", "lost"
    )
    .ok();
    for o in outcomes {
        writeln!(
            text,
            "{:<14} {:<16} {:>5} {:>8} {:>12.0} {:>10.1} {:>10.1} {:>6.0}% {:>7} {:>7}",
            o.work,
            o.system,
            o.concurrency,
            o.payload,
            o.ops_per_s,
            o.p50_us,
            o.p99_us,
            o.spread * 100.0,
            o.failed,
            o.lost
        )
        .ok();
    }
    text
}

/// Writes `NAME.json` into a folder.
///
/// # Errors
/// It cannot be written.
pub fn json(folder: &Path, name: &str, outcomes: &[Outcome]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(outcomes)?)?)
}
