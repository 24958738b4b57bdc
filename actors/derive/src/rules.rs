//! The rules of names, classes and durations: those of `rhumb_core`, checked before anything runs.

use std::time::Duration;

use syn::{Error, LitStr, Result};

/// Characters in a class: a DNS label, as `rhumb_core::limits::MAX_NAME_LEN`.
const MAX_CLASS: usize = 63;
/// Bytes in a name on the wire.
const MAX_NAME: usize = 120;

/// A data class.
pub(crate) fn class(text: LitStr) -> Result<LitStr> {
    let value = text.value();
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let label = value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if label && edge(value.chars().next()) && edge(value.chars().last()) && value.len() <= MAX_CLASS {
        return Ok(text);
    }
    let how = format!(
        "{value:?} is not a data class: use 1 to {MAX_CLASS} characters of a-z, 0-9, '-' and begin and end with a letter or digit, e.g. \"inventory\"; \"control\" is the mesh's own"
    );
    Err(Error::new(text.span(), how))
}

/// A name on the wire.
pub(crate) fn name(text: LitStr) -> Result<LitStr> {
    let value = text.value();
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let begins = value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    if begins && value.chars().all(inner) && value.len() <= MAX_NAME {
        return Ok(text);
    }
    let how = format!(
        "{value:?} is not a name on the wire: use 1 to {MAX_NAME} of a-z, A-Z, 0-9, '.', '_', '-' and begin with a letter, e.g. \"cart.Add\""
    );
    Err(Error::new(text.span(), how))
}

/// A duration: `500ms`, `5s`, `2m`.
pub(crate) fn duration(text: &LitStr) -> Result<Duration> {
    let value = text.value();
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    let millis = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        _ => None,
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0);
    let total = number.zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    let how = || {
        let how = format!(
            "{value:?} is not a duration: a number above 0 and its unit, e.g. \"500ms\", \"5s\", \"2m\""
        );
        Error::new(text.span(), how)
    };
    total.map(Duration::from_millis).ok_or_else(how)
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(text: &LitStr, key: &str, of: &[(&str, T)]) -> Result<T> {
    let value = text.value();
    let found = of.iter().find(|(word, _)| *word == value);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<String> = of.iter().map(|(word, _)| format!("{word:?}")).collect();
        Error::new(text.span(), format!("{value:?} is no {key}; choose among {}", words.join(", ")))
    })
}
