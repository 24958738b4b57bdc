//! What a key's value may be: how it is written, read, bounded and shown.
//!
//! * It decides: whether a written value is of a kind and in its range.
//! * It never does: convert one kind into another. A duration without a unit is refused.

use std::time::Duration;

use toml::de::DeValue;

use super::units::{duration, duration_text, size, size_text};

/// What a key takes, with its bounds (both are allowed values).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number of something.
    Count { least: u64, most: u64, of: &'static str },
    /// A time span, written with its unit.
    Span { least: Duration, most: Duration },
    /// Bytes, written with their unit.
    Size { least: u64, most: u64 },
    /// A share of a whole: a fraction from 0 to 1, to the millionth.
    Share,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text of this form, such as the example.
    Text { form: &'static str, example: &'static str },
    /// A list of texts of this form. In a variable they are separated by commas.
    Texts { form: &'static str },
    /// The word `off`, or a value of another kind.
    Off { or: &'static Kind },
}

/// What stands for nothing where a value may be left out.
pub(super) const OFF: &str = "off";

/// A value that was read.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Span(Duration),
    Text(String),
    Texts(Vec<String>),
}

/// A value as it stands in a layer.
pub(super) enum Written<'a> {
    /// In a file.
    Toml(&'a DeValue<'a>),
    /// In the environment.
    Variable(&'a str),
}

pub(super) const fn count(least: u64, most: u64, of: &'static str) -> Kind {
    Kind::Count { least, most, of }
}

pub(super) const fn millis(least: u64, most: u64) -> Kind {
    Kind::Span { least: Duration::from_millis(least), most: Duration::from_millis(most) }
}

pub(super) const fn bytes(least: u64, most: u64) -> Kind {
    Kind::Size { least, most }
}

impl Kind {
    /// The value, if what is written is one of this kind and in its range.
    pub(super) fn read(&self, written: &Written<'_>) -> Option<Value> {
        match self {
            Self::Count { least, most, .. } => {
                written.number().filter(|n| (least..=most).contains(&n)).map(Value::Number)
            }
            Self::Span { least, most } => {
                let span = duration(written.text()?)?;
                (least..=most).contains(&&span).then_some(Value::Span(span))
            }
            Self::Size { least, most } => {
                let size = size(written.text()?)?;
                (least..=most).contains(&&size).then_some(Value::Number(size))
            }
            Self::Share => written.share().map(Value::Number),
            Self::Choice(words) => {
                let text = written.text()?;
                words.contains(&text).then(|| Value::Text(text.to_owned()))
            }
            Self::Text { .. } => {
                let text = written.text()?;
                (!text.is_empty()).then(|| Value::Text(text.to_owned()))
            }
            Self::Texts { .. } => written.texts().map(Value::Texts),
            Self::Off { .. } if written.text() == Some(OFF) => Some(Value::Text(OFF.to_owned())),
            Self::Off { or } => or.read(written),
        }
    }

    /// What would be right, in words.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Count { least, most, of } => format!("a whole number of {of} from {least} to {most}"),
            Self::Span { least, most } => {
                format!("a duration from \"{}\" to \"{}\"", duration_text(*least), duration_text(*most))
            }
            Self::Size { least, most } => {
                format!("a size from \"{}\" to \"{}\"", size_text(*least), size_text(*most))
            }
            Self::Share => "a share from 0 to 1, such as 0.01".to_owned(),
            Self::Choice(words) => {
                let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                words.join(" or ")
            }
            Self::Text { form, example } => format!("{form}, such as \"{example}\""),
            Self::Texts { form } => format!("a list of {form}, each in quotes"),
            Self::Off { or } => format!("{}, or \"{OFF}\"", or.expected()),
        }
    }

    /// The same of an environment's variable, which has no lists and no quotes.
    pub(super) fn expected_of_variable(&self) -> String {
        match self {
            Self::Texts { form } => format!("{form}, with commas between them and no quotes"),
            _ => self.expected(),
        }
    }

    /// A value of this kind as it stands in a file.
    pub(super) fn show(&self, value: &Value) -> String {
        match (self, value) {
            (Self::Off { or }, Value::Number(_) | Value::Span(_)) => or.show(value),
            (Self::Size { .. }, Value::Number(bytes)) => format!("\"{}\"", size_text(*bytes)),
            (Self::Share, Value::Number(millionths)) => share_text(*millionths),
            (_, Value::Number(number)) => number.to_string(),
            (_, Value::Span(span)) => format!("\"{}\"", duration_text(*span)),
            (_, Value::Text(text)) => quoted(text),
            (_, Value::Texts(texts)) => {
                let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("[{}]", texts.join(", "))
            }
        }
    }
}

impl Written<'_> {
    fn number(&self) -> Option<u64> {
        match self {
            Self::Toml(DeValue::Integer(n)) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
            Self::Toml(_) => None,
            Self::Variable(text) => text.parse().ok(),
        }
    }

    /// A fraction in millionths. Digits, and no exponent: what is written is what is meant.
    fn share(&self) -> Option<u64> {
        let text = match self {
            Self::Toml(DeValue::Float(number)) => number.as_str(),
            Self::Toml(DeValue::Integer(number)) => number.as_str(),
            Self::Toml(_) => return None,
            Self::Variable(text) => text,
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 6 {
            return None;
        }
        let millionths =
            whole.parse::<u64>().ok()?.checked_mul(1_000_000)? + format!("{part:0<6}").parse::<u64>().ok()?;
        (millionths <= 1_000_000).then_some(millionths)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Variable(text) => Some(text),
        }
    }

    fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Toml(value) => {
                let each = value.as_array()?.iter().map(|one| Some(one.get_ref().as_str()?.to_owned()));
                each.collect()
            }
            Self::Variable("") => Some(Vec::new()),
            Self::Variable(text) => Some(text.split(',').map(|one| one.trim().to_owned()).collect()),
        }
    }

    /// What was found, in words and not at length.
    pub(super) fn found(&self) -> String {
        let value = match self {
            Self::Variable(text) => return shortened(text),
            Self::Toml(value) => value,
        };
        match value {
            DeValue::String(text) => shortened(text),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

/// Millionths as a fraction, with no more digits than it needs.
fn share_text(millionths: u64) -> String {
    let digits = format!("{:06}", millionths % 1_000_000);
    let part = digits.trim_end_matches('0');
    format!("{}.{}", millionths / 1_000_000, if part.is_empty() { "0" } else { part })
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_fraction_of_at_most_six_digits_and_is_shown_as_it_reads() {
        for (text, shown) in [
            ("0.01", "0.01"),
            ("1", "1.0"),
            ("1.0", "1.0"),
            ("0", "0.0"),
            ("0.000001", "0.000001"),
            ("0.50", "0.5"),
        ] {
            let value = Kind::Share.read(&Written::Variable(text)).expect(text);
            assert_eq!(Kind::Share.show(&value), shown);
            assert!(Kind::Share.read(&Written::Variable(shown)).is_some_and(|again| again == value));
        }
        for bad in ["", "1.1", "2", "-0.1", "1e-2", ".5", "0.", "0.0000001", "1%", "nan"] {
            assert!(Kind::Share.read(&Written::Variable(bad)).is_none(), "{bad}");
        }
    }
}
