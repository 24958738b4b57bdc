//! The page of metrics, in two forms.
//!
//! * It decides: which form a scraper gets, and what the classic form of an OpenMetrics page is.
//! * It never does: measure. It is given numbers and writes them down.
//! * Invariant: both forms tell the same samples; the classic one leaves out exemplars, units and the
//!   end mark, which it has no words for.
//!
//! Sources: OpenMetrics 1.0.0 (<https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>),
//! and Prometheus's "Exposition formats", text format 0.0.4.
//! `prometheus-client` writes OpenMetrics only, and its histograms share a lock; what it cannot write is
//! written here.

use std::fmt::{self, Write as _};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::durations::{Exemplar, Steps};

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A form of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Classic,
}

impl Form {
    /// The form that an `Accept` header asks for (RFC 9110, section 12.5.1): OpenMetrics where it is
    /// named and nothing that the classic form satisfies is preferred to it. Everybody else reads the
    /// classic one.
    #[must_use]
    pub fn asked(accept: &str) -> Self {
        let (mut open, mut classic) = (0, 0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut weight, mut version) = (1000, None);
            for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
                match name.to_ascii_lowercase().as_str() {
                    "q" => weight = thousandths(value),
                    "version" => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            match kind.as_str() {
                OPEN_METRICS if version.is_none_or(|v| v == "1.0.0" || v == "0.0.1") => {
                    open = open.max(weight)
                }
                "text/plain" | "text/*" => classic = classic.max(weight),
                _ => {}
            }
        }
        if open > 0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    /// Its media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// An OpenMetrics page in this form.
    #[must_use]
    pub fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Classic => classic(&open_metrics),
        }
    }
}

/// A weight such as `0.75`, in thousandths. What is none weighs nothing.
fn thousandths(text: &str) -> u32 {
    let weight = text.trim().parse::<f64>().unwrap_or(0.0);
    if (0.0..=1.0).contains(&weight) { (weight * 1000.0) as u32 } else { 0 }
}

/// A page that is being written, as OpenMetrics.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Everything in a registry.
    ///
    /// # Errors
    /// [`fmt::Error`] when a metric cannot be written.
    pub(crate) fn registry(&mut self, registry: &Registry) -> fmt::Result {
        let mut text = String::new();
        encode(&mut text, registry)?;
        self.text.push_str(text.strip_suffix("# EOF\n").unwrap_or(&text));
        Ok(())
    }

    /// A counter without labels; `name` is without `_total`.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "counter");
        writeln!(self.text, "{name}_total {value:?}").ok();
    }

    /// Counters by one label; `name` is without `_total`. Without any, there is nothing to tell.
    pub(crate) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        if values.is_empty() {
            return;
        }
        self.head(name, help, "counter");
        for (of, value) in values {
            writeln!(self.text, "{name}_total{{{label}=\"{}\"}} {value}", Quoted(of)).ok();
        }
    }

    /// A gauge without labels.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, help, "gauge");
        writeln!(self.text, "{name} {value:?}").ok();
    }

    /// Gauges by one label. Without any, there is nothing to tell.
    pub(crate) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        if values.is_empty() {
            return;
        }
        self.head(name, help, "gauge");
        for (of, value) in values {
            writeln!(self.text, "{name}{{{label}=\"{}\"}} {value}", Quoted(of)).ok();
        }
    }

    /// Begins a family of histograms of seconds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str) {
        self.head(name, help, "histogram");
    }

    /// One histogram of the family that was begun last.
    pub(crate) fn steps(&mut self, name: &str, labels: &[(&str, &str)], steps: &Steps) {
        let mut own = String::new();
        for (label, value) in labels {
            write!(own, "{label}=\"{}\",", Quoted(value)).ok();
        }
        let mut count = 0;
        for (i, (bound, more)) in steps.buckets.iter().enumerate() {
            count += more;
            let bound = bound_text(*bound);
            write!(self.text, "{name}_bucket{{{own}le=\"{bound}\"}} {count}").ok();
            if let Some(Exemplar { trace_id, took, at_ms }) = steps.exemplars.get(i).copied().flatten() {
                let (took, at) = (took.as_secs_f64(), at_ms as f64 / 1e3);
                write!(self.text, " # {{trace_id=\"{trace_id:032x}\"}} {took:?} {at:?}").ok();
            }
            self.text.push('\n');
        }
        let own = own.trim_end_matches(',');
        let own = if own.is_empty() { String::new() } else { format!("{{{own}}}") };
        writeln!(self.text, "{name}_count{own} {count}\n{name}_sum{own} {:?}", steps.sum).ok();
    }

    /// The page.
    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}").ok();
        if let Some(unit) = ["seconds", "bytes"].iter().find(|unit| name.ends_with(&format!("_{unit}"))) {
            writeln!(self.text, "# UNIT {name} {unit}").ok();
        }
    }
}

/// The upper bound of a bucket, without an exponent and always with a point: it is compared as a text.
fn bound_text(bound: f64) -> String {
    if !bound.is_finite() {
        return "+Inf".to_owned();
    }
    let text = bound.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// The value of a label, as it stands between quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

/// The classic form of an OpenMetrics page. A counter's family is called as its sample is, `…_total`; an
/// info is a gauge; what is not known is untyped. Times are in milliseconds.
#[must_use]
pub fn classic(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    // The family that was begun last, and what HELP says of one that has not begun.
    let mut begun: Option<(&str, String)> = None;
    let mut before: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => match &begun {
                Some((of, family)) if *of == name => classic_help(&mut page, family, help),
                _ => before = Some((name, help)),
            },
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let (family, kind) = classic_family(name, kind);
                if let Some((_, help)) = before.take().filter(|(of, _)| *of == name) {
                    classic_help(&mut page, &family, help);
                }
                writeln!(page, "# TYPE {family} {kind}").ok();
                begun = Some((name, family));
            }
            (Some("#"), ..) | (Some(""), None, ..) => {}
            _ => classic_sample(&mut page, line, begun.as_ref().map_or("", |(name, _)| *name)),
        }
    }
    page
}

fn classic_help(page: &mut String, family: &str, help: &str) {
    // OpenMetrics escapes quotes there, the classic form does not.
    writeln!(page, "# HELP {family} {}", help.replace("\\\"", "\"")).ok();
}

fn classic_family(name: &str, kind: &str) -> (String, &'static str) {
    match kind {
        "counter" => (format!("{name}_total"), "counter"),
        "info" => (format!("{name}_info"), "gauge"),
        "histogram" => (name.to_owned(), "histogram"),
        "summary" => (name.to_owned(), "summary"),
        "gauge" | "stateset" => (name.to_owned(), "gauge"),
        _ => (name.to_owned(), "untyped"),
    }
}

fn classic_sample(page: &mut String, line: &str, family: &str) {
    let (series, rest) = line.split_at(end_of_series(line));
    // When a series began is a sample of OpenMetrics only.
    let name = series.split('{').next().unwrap_or_default();
    if name.strip_prefix(family) == Some("_created") {
        return;
    }
    let plain = rest.split(" # ").next().unwrap_or_default();
    let mut words = plain.split_whitespace();
    let Some(value) = words.next() else { return };
    write!(page, "{series} {value}").ok();
    if let Some(seconds) = words.next().and_then(|at| at.parse::<f64>().ok()) {
        write!(page, " {}", (seconds * 1e3).round() as i64).ok();
    }
    page.push('\n');
}

/// Where the name of a sample and its labels end. A label's value may hold anything, quotes and braces
/// among it.
fn end_of_series(line: &str) -> usize {
    let Some(open) = line.find(['{', ' ']).filter(|at| line[*at..].starts_with('{')) else {
        return line.find(' ').unwrap_or(line.len());
    };
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '}' if !quoted => return open + at + 1,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use prometheus_client::metrics::counter::ConstCounter;
    use prometheus_client::registry::Unit;

    use super::*;

    fn page() -> String {
        let mut registry = Registry::default();
        registry.register("made", "Things \"made\"", ConstCounter::new(3_u64));
        registry.register_with_unit("written", "Bytes", Unit::Bytes, ConstCounter::new(7_u64));
        let mut page = Page::default();
        page.registry(&registry).expect("it can be written");
        page.gauge("warm_seconds", "Since it is warm", 1.5);
        page.counters("odd", "By what", "what", &[("a\"b{c} # d\\", 2)]);
        let sampled = Exemplar { trace_id: 0xabc, took: Duration::from_millis(3), at_ms: 1_700_000_000_250 };
        let steps = Steps {
            buckets: vec![(0.0025, 0), (f64::INFINITY, 1)],
            sum: 0.003,
            exemplars: vec![None, Some(sampled)],
        };
        page.histogram("took_seconds", "How long");
        page.steps("took_seconds", &[("method", "a.B")], &steps);
        page.finish()
    }

    #[test]
    fn both_forms_tell_the_same_and_the_classic_one_in_its_own_words() {
        expect![[r##"
            # HELP made Things "made".
            # TYPE made counter
            made_total 3
            # HELP written_bytes Bytes.
            # TYPE written_bytes counter
            # UNIT written_bytes bytes
            written_bytes_total 7
            # HELP warm_seconds Since it is warm.
            # TYPE warm_seconds gauge
            # UNIT warm_seconds seconds
            warm_seconds 1.5
            # HELP odd By what.
            # TYPE odd counter
            odd_total{what="a\"b{c} # d\\"} 2
            # HELP took_seconds How long.
            # TYPE took_seconds histogram
            # UNIT took_seconds seconds
            took_seconds_bucket{method="a.B",le="0.0025"} 0
            took_seconds_bucket{method="a.B",le="+Inf"} 1 # {trace_id="00000000000000000000000000000abc"} 0.003 1700000000.25
            took_seconds_count{method="a.B"} 1
            took_seconds_sum{method="a.B"} 0.003
            # EOF
        "##]]
        .assert_eq(&page());
        expect![[r##"
            # HELP made_total Things "made".
            # TYPE made_total counter
            made_total 3
            # HELP written_bytes_total Bytes.
            # TYPE written_bytes_total counter
            written_bytes_total 7
            # HELP warm_seconds Since it is warm.
            # TYPE warm_seconds gauge
            warm_seconds 1.5
            # HELP odd_total By what.
            # TYPE odd_total counter
            odd_total{what="a\"b{c} # d\\"} 2
            # HELP took_seconds How long.
            # TYPE took_seconds histogram
            took_seconds_bucket{method="a.B",le="0.0025"} 0
            took_seconds_bucket{method="a.B",le="+Inf"} 1
            took_seconds_count{method="a.B"} 1
            took_seconds_sum{method="a.B"} 0.003
        "##]]
        .assert_eq(&classic(&page()));
    }

    #[test]
    fn exemplars_units_and_beginnings_are_left_out_and_times_are_milliseconds() {
        let open = "# TYPE c counter\n# HELP c Says \\\"so\\\".\nc_total{a=\"} # {\"} 1 2.5 # {trace_id=\"ab\"} 1 2\n\
                    c_created 1.0\n# TYPE b info\nb_info{v=\"1\"} 1\n# TYPE u unknown\nu 1 # {} 1\n# EOF\n";
        let want = "# TYPE c_total counter\n# HELP c_total Says \"so\".\nc_total{a=\"} # {\"} 1 2500\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                    # TYPE u untyped\nu 1\n";
        assert_eq!(classic(open), want);
    }

    #[test]
    fn bounds_are_told_as_they_are_compared() {
        for (bound, text) in [(6.4e-5, "0.000064"), (1.0, "1.0"), (2.5, "2.5"), (f64::INFINITY, "+Inf")] {
            assert_eq!(bound_text(bound), text);
        }
    }

    #[test]
    fn the_form_is_negotiated() {
        use Form::{Classic, OpenMetrics};
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, form) in [
            (prometheus, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", OpenMetrics),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.5", OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.9", Classic),
            ("application/openmetrics-text;q=0", Classic),
            ("application/openmetrics-text;q=much", Classic),
            ("application/openmetrics-text;version=2.0.0", Classic),
            ("text/html,*/*;q=0.8", Classic),
            ("*/*", Classic),
            ("", Classic),
        ] {
            assert_eq!(Form::asked(accept), form, "{accept:?}");
        }
    }
}
