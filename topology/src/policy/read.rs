//! Reading single values of a parsed policy file, each with its place in the text.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::Region;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml::value::{Datetime, Offset};

use super::parse::PolicyError;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Walks the parsed tables, and keeps what it finds wrong.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) now_ms: Option<u64>,
    pub(super) errors: Vec<PolicyError>,
    /// The jurisdictions, by name.
    pub(super) regions: BTreeMap<String, BTreeSet<Region>>,
}

/// A fault was found and kept; what depends on it is left out.
#[derive(Debug)]
pub(super) struct Faulty;

/// Reads one value of an expected type, or keeps a fault where it is not.
impl Reader<'_> {
    pub(super) fn required<'t, 'i>(
        &mut self,
        path: &str,
        table: &'t DeTable<'i>,
        at: usize,
        key: &str,
    ) -> Result<&'t Value<'i>, Faulty> {
        table.get(key).ok_or_else(|| self.fault(at, format!("{}{key} is missing", dotted(path))))
    }

    pub(super) fn table<'t, 'i>(
        &mut self,
        path: &str,
        value: &'t Value<'i>,
    ) -> Result<&'t DeTable<'i>, Faulty> {
        value.get_ref().as_table().ok_or_else(|| self.fault(start(value), format!("{path}: write a table")))
    }

    pub(super) fn string(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        at: usize,
        key: &str,
    ) -> Result<(usize, String), Faulty> {
        let value = self.required(path, table, at, key)?;
        match value.get_ref().as_str() {
            Some(text) => Ok((start(value), text.to_owned())),
            None => Err(self.fault(start(value), format!("{path}.{key}: write a text in quotes"))),
        }
    }

    pub(super) fn strings(&mut self, path: &str, value: &Value<'_>) -> Vec<(usize, String)> {
        let Some(array) = value.get_ref().as_array() else {
            self.fault(start(value), format!("{path}: write a list such as [\"eu-central\"]"));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for value in array.iter() {
            match value.get_ref().as_str() {
                Some(text) => texts.push((start(value), text.to_owned())),
                None => drop(self.fault(start(value), format!("{path}: write a text in quotes"))),
            }
        }
        texts
    }

    pub(super) fn only(&mut self, path: &str, table: &DeTable<'_>, known: &[&str]) {
        for (key, _) in table {
            if !known.contains(&key.get_ref().as_ref()) {
                let what =
                    format!("{}{} is not known here: use {}", dotted(path), key.get_ref(), known.join(", "));
                self.fault(key.span().start, what);
            }
        }
    }

    pub(super) fn fault(&mut self, at: usize, what: String) -> Faulty {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.matches('\n').count() + 1;
        self.errors.push(PolicyError { line, column: before[line_start..].chars().count() + 1, what });
        Faulty
    }
}

pub(super) fn start(value: &Value<'_>) -> usize {
    value.span().start
}

fn dotted(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}.") }
}

/// Milliseconds since the Unix epoch of a date-time with an offset, or none if it has a part too few,
/// is no real day, or lies before 1970.
pub(super) fn unix_ms(at: &Datetime) -> Option<u64> {
    let (date, time) = (at.date?, at.time?);
    let minutes = match at.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => minutes,
    };
    let month = Month::try_from(date.month).ok()?;
    let date = Date::from_calendar_date(date.year.into(), month, date.day).ok()?;
    let time = Time::from_hms_nano(time.hour, time.minute, time.second, time.nanosecond).ok()?;
    let offset = UtcOffset::from_whole_seconds(i32::from(minutes) * 60).ok()?;
    let nanos = OffsetDateTime::new_in_offset(date, time, offset).unix_timestamp_nanos();
    u64::try_from(nanos / 1_000_000).ok()
}
