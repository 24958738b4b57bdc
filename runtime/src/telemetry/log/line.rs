//! One line of a log, in its two forms.
//!
//! * It decides: the order and the names of what stands in a line (`docs/operations/health.md` lists them).
//! * It never does: let a value break out of its line: what controls a terminal or begins a new line is
//!   written as its escape, and what is very long is cut.

use std::fmt::Write as _;

use rhumb_transport::TraceContext;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tracing::Level;

use super::redact::REDACTED;

/// The longest that a text or value may be, in bytes.
const MAX_VALUE: usize = 8 << 10;

/// A field and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) value: Shown,
}

/// A value as it may be shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shown {
    /// A number or a truth.
    Plain(Value),
    /// A text, quoted for people.
    Text(String),
    /// What somebody wrote of it, not quoted.
    Written(String),
    /// Hidden.
    Hidden,
}

impl Shown {
    /// A text that is not too long.
    pub(super) fn cut(mut text: String) -> String {
        if text.len() > MAX_VALUE {
            text.truncate(text.floor_char_boundary(MAX_VALUE));
            text.push('…');
        }
        text
    }

    fn json(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(text) | Self::Written(text) => json!(text),
            Self::Hidden => json!(REDACTED),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Plain(value) => value.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Written(text) => escaped(text),
            Self::Hidden => REDACTED.to_owned(),
        }
    }
}

/// A span that a line stands in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InSpan {
    pub(super) name: &'static str,
    pub(super) fields: Vec<Field>,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) at: OffsetDateTime,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a [Field],
    /// The outermost first.
    pub(super) spans: &'a [InSpan],
    pub(super) trace: Option<TraceContext>,
}

impl Line<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut line = format!("{} {:>5} ", self.moment(), self.level);
        for span in self.spans {
            line.push_str(span.name);
            if !span.fields.is_empty() {
                line.push('{');
                line.push_str(&fields(&span.fields));
                line.push('}');
            }
            line.push(':');
        }
        if !self.spans.is_empty() {
            line.push(' ');
        }
        write!(line, "{}: {}", self.target, escaped(self.message)).ok();
        if !self.fields.is_empty() {
            write!(line, " {}", fields(self.fields)).ok();
        }
        if let Some(trace) = self.trace {
            write!(line, " trace_id={:032x} span_id={:016x}", trace.trace_id, trace.span_id).ok();
        }
        line.push('\n');
        line
    }

    /// One JSON object.
    pub(super) fn json(&self) -> String {
        let object = |fields: &[Field]| -> Map<String, Value> {
            fields.iter().map(|field| (field.name.to_owned(), field.value.json())).collect()
        };
        let mut line = json!({
            "timestamp": self.moment(),
            "level": self.level.as_str(),
            "target": self.target,
            "message": self.message,
        });
        let more = [
            ("fields", (!self.fields.is_empty()).then(|| json!(object(self.fields)))),
            (
                "spans",
                (!self.spans.is_empty()).then(|| {
                    let span = |span: &InSpan| json!({"name": span.name, "fields": object(&span.fields)});
                    Value::Array(self.spans.iter().map(span).collect())
                }),
            ),
            ("trace_id", self.trace.map(|trace| json!(format!("{:032x}", trace.trace_id)))),
            ("span_id", self.trace.map(|trace| json!(format!("{:016x}", trace.span_id)))),
        ];
        for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            line[name] = value;
        }
        format!("{line}\n")
    }

    /// The moment as RFC 3339 writes it, in microseconds.
    fn moment(&self) -> String {
        let (date, time) = (self.at.date(), self.at.time());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.microsecond()
        )
    }
}

fn fields(fields: &[Field]) -> String {
    let each = fields.iter().map(|field| format!("{}={}", field.name, field.value.text()));
    each.collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let each = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(each).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn lines() -> String {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_000_250_000).expect("a moment");
        let field = |name, value| Field { name, value };
        let spans = [
            InSpan { name: "sale", fields: vec![field("secret", Shown::Hidden)] },
            InSpan { name: "commit", fields: Vec::new() },
        ];
        let fields = [
            field("node", Shown::Written("eu/n1\n2023 forged".to_owned())),
            field("why", Shown::Text("so \"so\"".to_owned())),
            field("left", Shown::Plain(json!(3))),
        ];
        let full = Line {
            at,
            level: Level::WARN,
            target: "rhumb::x",
            message: "it\nis \u{1b}[31mso",
            fields: &fields,
            spans: &spans,
            trace: Some(TraceContext { trace_id: 0xab, span_id: 0xc, flags: 1 }),
        };
        let bare = Line {
            message: "ready",
            fields: &[],
            spans: &[],
            trace: None,
            level: Level::INFO,
            ..full.clone()
        };
        format!("{}{}{}{}", full.text(), bare.text(), full.json(), bare.json())
    }

    #[test]
    fn a_line_is_for_people_or_for_programs_and_always_one_line() {
        expect![[r#"
            2023-11-14T22:13:20.000250Z  WARN sale{secret=[redacted]}:commit: rhumb::x: it\nis \u{1b}[31mso node=eu/n1\n2023 forged why="so \"so\"" left=3 trace_id=000000000000000000000000000000ab span_id=000000000000000c
            2023-11-14T22:13:20.000250Z  INFO rhumb::x: ready
            {"fields":{"left":3,"node":"eu/n1\n2023 forged","why":"so \"so\""},"level":"WARN","message":"it\nis \u001b[31mso","span_id":"000000000000000c","spans":[{"fields":{"secret":"[redacted]"},"name":"sale"},{"fields":{},"name":"commit"}],"target":"rhumb::x","timestamp":"2023-11-14T22:13:20.000250Z","trace_id":"000000000000000000000000000000ab"}
            {"level":"INFO","message":"ready","target":"rhumb::x","timestamp":"2023-11-14T22:13:20.000250Z"}
        "#]]
        .assert_eq(&lines());
        assert!(lines().lines().skip(2).all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }

    #[test]
    fn what_is_very_long_is_cut_between_characters() {
        let cut = Shown::cut("é".repeat(MAX_VALUE));
        assert!(cut.len() <= MAX_VALUE + '…'.len_utf8() && cut.ends_with("é…"));
        assert_eq!(Shown::cut("short".to_owned()), "short");
    }
}
