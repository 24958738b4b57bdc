//! What `rhumb kv` prints.

use std::fmt;
use std::path::Path;

use rhumb_actors::ranges::messages::{KvAnswer, KvRow, KvWritten};
use rhumb_core::{HybridTime, Region};
use serde::Serialize;

use super::bytes::{Coded, encode};

#[derive(Debug, Serialize)]
pub(super) struct WrittenAnswer {
    pub(super) version: u64,
    region: Region,
    replica: u64,
    token: String,
}

impl From<KvWritten> for WrittenAnswer {
    fn from(KvWritten { version, region, replica, token }: KvWritten) -> Self {
        Self { version: version.to_bits(), region, replica, token: encode(&token) }
    }
}

/// A row. Bytes that are no text are told in base64, and all are where that is asked for.
#[derive(Debug, Serialize)]
pub(super) struct RowAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    version: u64,
    schema: Option<u32>,
    subject: Option<String>,
    expires_ms: Option<u64>,
    /// Of a personal class: the id of the key that it is sealed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed_under: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReadAnswer {
    pub(super) rows: Vec<RowAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_base64: Option<String>,
    /// The file that has the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    level: &'static str,
    at: u64,
    age_ms: u64,
    region: Region,
    replica: u64,
    fallback: bool,
    token: String,
    /// Rows that are left out because their subjects were erased.
    #[serde(skip_serializing_if = "is_zero")]
    erased: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl RowAnswer {
    fn of(row: KvRow, coded: Coded) -> Self {
        let ((key, key_base64), (value, value_base64)) = (coded.told(row.key), coded.told(row.value));
        let expires_ms = row.expires.map(HybridTime::millis);
        let version = row.version.to_bits();
        Self {
            key,
            key_base64,
            value,
            value_base64,
            version,
            schema: row.schema,
            subject: row.subject,
            expires_ms,
            sealed_under: row.sealed_under,
        }
    }

    /// Its value, and whether that is base64.
    pub(super) fn value(&self) -> (&str, bool) {
        match (&self.value, &self.value_base64) {
            (Some(text), _) => (text, false),
            (None, base64) => (base64.as_deref().unwrap_or_default(), true),
        }
    }
}

impl ReadAnswer {
    pub(super) fn of(answer: KvAnswer, coded: Coded) -> Self {
        let (next, next_base64) = answer.next.map(|next| coded.told(next)).unwrap_or_default();
        Self {
            rows: answer.rows.into_iter().map(|row| RowAnswer::of(row, coded)).collect(),
            next,
            next_base64,
            out: None,
            level: answer.level.word(),
            at: answer.at.to_bits(),
            age_ms: u64::try_from(answer.age.as_millis()).unwrap_or(u64::MAX),
            region: answer.region,
            replica: answer.replica,
            fallback: answer.fallback,
            token: encode(&answer.token),
            erased: answer.erased,
        }
    }

    /// Its value stands in this file, and not in the answer.
    pub(super) fn put_out(&mut self, out: &Path) {
        self.out = Some(out.display().to_string());
        for row in &mut self.rows {
            (row.value, row.value_base64) = (None, None);
        }
    }

    /// Where a scan goes on, as an argument.
    pub(super) fn goes_on(&self) -> Option<String> {
        let base64 = self.next_base64.as_ref().map(|next| format!("--base64 --from {next}"));
        self.next.as_ref().map(|next| format!("--from {next}")).or(base64)
    }

    /// What it is, for people.
    pub(super) fn worth(&self) -> String {
        let passed = if self.fallback { ", passed on by a nearer replica" } else { "" };
        let Self { level, age_ms, region, replica, erased, .. } = self;
        let out =
            if *erased > 0 { format!(", {erased} rows of erased subjects left out") } else { String::new() };
        format!("{level}, {age_ms} ms old, read in {region} by replica {replica}{passed}{out}")
    }
}

impl fmt::Display for RowAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &Option<String>, base64: &Option<String>| {
            text.clone().or_else(|| base64.clone()).unwrap_or_default()
        };
        write!(f, "{}\t{}", shown(&self.key, &self.key_base64), shown(&self.value, &self.value_base64))
    }
}
