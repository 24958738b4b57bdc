//! The demo's report as text.

use std::fmt::{self, Write as _};

use super::report::{Cut, DemoReport, Kill, RegionReport};

/// Prints a report as the table and verdict that end the demo.
pub struct Table<'a>(pub &'a DemoReport);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(
            f,
            "{:<14} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
            "region", "share", "came", "held", "sold", "expired", "in", "out", "hold p50", "hold p99"
        )?;
        for region in report.regions.iter().chain([&report.total]) {
            row(f, region)?;
        }
        writeln!(f)?;
        for region in &report.regions {
            reasons(f, region)?;
        }
        events(f, report)?;
        writeln!(f)?;
        for check in &report.checks {
            let mark = if check.holds { "ok  " } else { "FAIL" };
            writeln!(f, "{mark} {:<42} {}", check.name, check.found)?;
        }
        for violation in &report.violations {
            writeln!(f, "     {violation}")?;
        }
        writeln!(f)?;
        let verdict = if report.verdict { "VERDICT: holds." } else { "VERDICT: DOES NOT HOLD." };
        write!(
            f,
            "{verdict} {} of {} seats sold, {} oversold, in {} s.",
            thousands(report.sold),
            thousands(report.seats.into()),
            report.oversold,
            report.lasted_ms / 1_000
        )
    }
}

fn row(f: &mut fmt::Formatter<'_>, region: &RegionReport) -> fmt::Result {
    let count = |n: u64| thousands(n.into());
    writeln!(
        f,
        "{:<14} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
        region.region.as_str(),
        count(region.share),
        count(region.came),
        count(region.held),
        count(region.sold),
        count(region.expired),
        count(region.moved_in),
        count(region.moved_out),
        latency(region.hold_p50_ms),
        latency(region.hold_p99_ms),
    )
}

fn latency(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{ms:.0} ms"),
    }
}

fn reasons(f: &mut fmt::Formatter<'_>, region: &RegionReport) -> fmt::Result {
    let mut line = String::new();
    for (what, by) in [("refused", &region.refused), ("no service", &region.unserved)] {
        for (reason, count) in by {
            write!(
                line,
                "{}{what}: {reason} {}",
                if line.is_empty() { "" } else { ", " },
                thousands((*count).into())
            )?;
        }
    }
    if line.is_empty() { Ok(()) } else { writeln!(f, "{:<14} {line}", region.region.as_str()) }
}

fn events(f: &mut fmt::Formatter<'_>, report: &DemoReport) -> fmt::Result {
    if let Some(Kill { region, at_ms, serving_after_kill_ms, serving_after_start_ms }) = &report.kill {
        write!(f, "{region:<14} killed at {}", seconds(*at_ms))?;
        match (serving_after_kill_ms, serving_after_start_ms) {
            (Some(kill), Some(start)) => writeln!(
                f,
                "; served again {} after the kill, {} after its start",
                seconds(*kill),
                seconds(*start)
            )?,
            _ => writeln!(f, "; did not serve again")?,
        }
    }
    if let Some(Cut { region, at_ms, for_ms, sold, held }) = &report.cut {
        writeln!(
            f,
            "{region:<14} cut off at {} for {}; meanwhile it gave {held} holds and sold {sold}",
            seconds(*at_ms),
            seconds(*for_ms)
        )?;
    }
    writeln!(
        f,
        "calls of unknown outcome: {} asked again, {} without an answer in the end",
        report.asked_again, report.unknown
    )
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

/// A number with commas between thousands.
#[must_use]
pub fn thousands(n: u128) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_table_says_it_all() {
        let text = Table(&report(|_| {})).to_string();
        expect![[""]].assert_eq(&text);
    }

    #[test]
    fn thousands_have_commas() {
        let all: Vec<String> = [0, 999, 1_000, 10_000, 1_234_567].map(thousands).into();
        assert_eq!(all.join(" "), "0 999 1,000 10,000 1,234,567");
    }
}
