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
        "calls without an answer: asked again {} times, {} still without one in the end",
        thousands(report.asked_again.into()),
        report.unknown
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
        expect![[r#"
            region           share     came     held     sold  expired       in      out  hold p50  hold p99
            ap                  20       47       45       45        0       25        0    4.0 ms    4.0 ms
            eu                  30       30       30       30        0        0        0    4.0 ms    4.0 ms
            us                  50       25       25       25        0        0       25    4.0 ms    4.0 ms
            total              100      102      100      100        0       25       25    4.0 ms    4.0 ms

            ap             refused: sold_out 1, no service: draining 1
            ap             killed at 9.00 s; served again 4.12 s after the kill, 1.12 s after its start
            eu             cut off at 20.00 s for 5.00 s; meanwhile it gave 30 holds and sold 12
            calls without an answer: asked again 0 times, 0 still without one in the end

            ok   every seat is sold                         100 of 100
            ok   no seat is sold twice                      0 oversold
            ok   the books were read at rest                yes
            ok   I1 nothing below zero                      yes
            ok   I2 none accepted more than was granted     yes
            ok   I3 every unit is somewhere                 yes
            ok   I4 no more sold than minted                yes
            ok   I5 the customers' receipts agree           100 sold by receipts
            ok   the killed region came back                ap served 1.1 s after its start
            ok   the region that was cut off sold on        eu sold 12 in 5.0 s

            VERDICT: holds. 100 of 100 seats sold, 0 oversold, in 61 s."#]]
        .assert_eq(&text);
    }

    #[test]
    fn thousands_have_commas() {
        let all: Vec<String> = [0, 999, 1_000, 10_000, 1_234_567].map(thousands).into();
        assert_eq!(all.join(" "), "0 999 1,000 10,000 1,234,567");
    }
}
