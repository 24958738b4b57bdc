//! The picture: a panel for each work and each unit of its figures, with a group of bars for each load on a logarithmic axis. It
//! takes the reader's light or dark colours.
//!
//! * It decides: where things are and what is beside them.
//! * It never does: draw a figure without its number.

use std::fmt::Write;

use super::figure;
use crate::sample::{Outcome, Unit};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 150.0;
/// How long the longest bar may be; what is right of it is for its number.
const SPAN: f64 = 560.0;
const ROW: f64 = 19.0;
const BAR: f64 = 13.0;

const STYLE: &str = "
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.load { font-weight: 600 }
.tick { font-size: 10px; fill: #57606a }
.grid { stroke: #d0d7de }
.rhumb { fill: #0969da }
.peer { fill: #8c959f }
.floor { fill: #d0d7de; stroke: #8c959f; stroke-dasharray: 3 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .tick { fill: #9198a1 }
  .grid { stroke: #3d444d }
  .rhumb { fill: #4493f8 }
  .peer { fill: #656c76 }
  .floor { fill: #3d444d; stroke: #9198a1 }
}
";

/// A work's name for people, and its outcomes.
pub type Panel<'a> = (&'a str, &'a [Outcome]);

/// The picture as SVG.
#[must_use]
pub fn svg(panels: &[Panel<'_>]) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    for (title, outcomes) in panels {
        let mut units: Vec<Unit> = outcomes.iter().map(|o| o.unit).collect();
        let mut seen = Vec::new();
        units.retain(|unit| {
            !seen.contains(unit) && {
                seen.push(*unit);
                true
            }
        });
        for unit in units {
            let shown: Vec<_> = outcomes.iter().filter(|o| o.unit == unit).collect();
            y = panel(&mut body, y, title, unit, &shown);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y:.0}\" viewBox=\"0 0 {WIDTH} {y:.0}\" role=\"img\" aria-label=\"Rhumb beside its peers\">\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

/// Draws a panel from `y` on; says where the next begins.
fn panel(body: &mut String, y: f64, title: &str, unit: Unit, shown: &[&Outcome]) -> f64 {
    let better =
        if unit.lower_is_better() { "shorter is better, log scale" } else { "longer is better, log scale" };
    writeln!(
        body,
        "<text class=\"title\" x=\"8\" y=\"{:.0}\">{}, {} ({better})</text>",
        y + 16.0,
        escape(title),
        unit.symbol()
    )
    .ok();
    let axis = Axis::over(shown);
    let (top, mut at) = (y + 28.0, y + 34.0);
    let mut bars = String::new();
    let mut loads: Vec<(usize, usize)> = Vec::new();
    for o in shown {
        if !loads.contains(&(o.concurrency, o.payload)) {
            loads.push((o.concurrency, o.payload));
        }
    }
    for load in &loads {
        writeln!(bars, "<text class=\"load\" x=\"8\" y=\"{:.0}\">{}</text>", at + 12.0, name(*load)).ok();
        at += ROW;
        for o in shown.iter().filter(|o| (o.concurrency, o.payload) == *load) {
            bar(&mut bars, at, o, &axis);
            at += ROW;
        }
        at += 6.0;
    }
    axis.grid(body, top, at, unit);
    body.push_str(&bars);
    at + 34.0
}

fn bar(body: &mut String, y: f64, o: &Outcome, axis: &Axis) {
    let class = match o.system.as_str() {
        ours if ours == "rhumb" || ours.starts_with("rhumb-") => "rhumb",
        floor if floor.starts_with("quinn-") || floor.contains("floor") => "floor",
        _ => "peer",
    };
    let long = axis.long(o.value).max(1.0);
    writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
        LEFT - 8.0,
        y + 11.0,
        escape(&o.system)
    )
    .ok();
    writeln!(
        body,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{long:.1}\" height=\"{BAR}\"/>"
    )
    .ok();
    let lost = if o.lost > 0 { format!(" ({} lost)", o.lost) } else { String::new() };
    let text =
        if o.rounds == 0 { "not measured".to_owned() } else { escape(&format!("{}{lost}", figure(o))) };
    writeln!(body, "<text x=\"{:.1}\" y=\"{:.0}\">{text}</text>", LEFT + long + 6.0, y + 11.0).ok();
}

fn name((concurrency, payload): (usize, usize)) -> String {
    let flight = format!("{concurrency} in flight");
    match payload {
        0 if concurrency <= 1 => String::new(),
        0 => flight,
        bytes if bytes >= 1 << 20 => format!("{flight}, {} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{flight}, {} KiB", bytes >> 10),
        bytes => format!("{flight}, {bytes} bytes"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A logarithmic axis over whole powers of ten.
struct Axis {
    low: i32,
    high: i32,
}

impl Axis {
    fn over(outcomes: &[&Outcome]) -> Self {
        let figures = || outcomes.iter().map(|o| o.value).filter(|v| *v > 0.0);
        let (low, high) = (figures().fold(f64::MAX, f64::min), figures().fold(0.0, f64::max));
        if high <= 0.0 {
            return Self { low: 0, high: 1 };
        }
        let low = low.log10().floor() as i32;
        // The shortest bar is to be seen.
        let low = if outcomes.iter().any(|o| o.value > 0.0 && o.value.log10() - f64::from(low) < 0.1) {
            low - 1
        } else {
            low
        };
        Self { low, high: (high.log10().ceil() as i32).max(low + 1) }
    }

    fn long(&self, value: f64) -> f64 {
        if value <= 0.0 {
            return 0.0;
        }
        SPAN * (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn grid(&self, body: &mut String, top: f64, bottom: f64, unit: Unit) {
        for power in self.low..=self.high {
            let x = LEFT + self.long(10_f64.powi(power));
            writeln!(
                body,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\"/>"
            )
            .ok();
            let text = super::grouped(10_f64.powi(power), usize::try_from(-power).unwrap_or(0));
            let unit = if power == self.high { format!(" {}", unit.symbol()) } else { String::new() };
            writeln!(
                body,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{text}{unit}</text>",
                bottom + 12.0
            )
            .ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::outcome;

    #[test]
    fn every_outcome_has_a_bar_as_long_as_it_should_be_and_its_number() {
        let outcomes =
            [outcome("rhumb", 100_000), outcome("tonic", 2_000), outcome("quinn-framed", 1_000_000)];
        let picture = svg(&[("Asks", &outcomes), ("Nothing", &[])]);
        assert_eq!(picture.matches("<rect").count(), 3);
        assert!(picture.contains(">100,000</text>") && picture.contains("Asks, ops/s (longer is better,"));
        assert!(!picture.contains("Nothing"));
        let axis = Axis::over(&outcomes.iter().collect::<Vec<_>>());
        assert_eq!((axis.low, axis.high), (3, 6));
        assert!((axis.long(1e6) - SPAN).abs() < 1e-9 && axis.long(1e3).abs() < 1e-9 && axis.long(0.0) == 0.0);
    }

    #[test]
    fn a_second_unit_has_a_panel_of_its_own() {
        let bytes = Outcome { unit: Unit::Bytes, value: 1_310.0, ..outcome("rhumb", 0) };
        let micros = Outcome { unit: Unit::Micros, value: 21.5, ..outcome("rhumb", 0) };
        let picture = svg(&[("Idle", &[bytes, micros])]);
        assert!(picture.contains("Idle, bytes (") && picture.contains("Idle, µs ("), "{picture}");
        assert!(picture.contains(">1,310</text>") && picture.contains(">21.5</text>"), "{picture}");
    }

    #[test]
    fn all_rows_of_rhumb_are_drawn_as_its_own() {
        let all = ["rhumb", "rhumb-apart", "rhumb-each", "tonic"].map(|system| outcome(system, 1));
        let picture = svg(&[("Asks", &all)]);
        assert_eq!(picture.matches("rect class=\"rhumb\"").count(), 3);
        assert_eq!(picture.matches("rect class=\"peer\"").count(), 1);
    }

    #[test]
    fn a_figure_of_nothing_and_one_that_was_cut_off_are_drawn() {
        let outcomes = [
            Outcome { at_least: true, unit: Unit::Millis, value: 15_000.0, ..outcome("coerce", 0) },
            Outcome { unit: Unit::Millis, value: 0.0, lost: 3, ..outcome("kameo", 0) },
        ];
        let picture = svg(&[("Frozen <peer>", &outcomes)]);
        assert!(picture.contains("&gt; 15,000") && picture.contains("0 (3 lost)"));
        assert!(picture.contains("Frozen &lt;peer&gt;, ms (shorter is better,"));
    }
}
