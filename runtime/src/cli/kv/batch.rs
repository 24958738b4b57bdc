//! Several writes at once: all, or none.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use rhumb_actors::ranges::messages::{KvCondition, KvOp};
use rhumb_core::HybridTime;
use serde::Deserialize;

use super::super::args::duration;
use super::super::output::Failure;
use super::Where;
use super::bytes::{Coded, decode, read_text};
use crate::client::kv::put;

/// Write several keys, 256 at most: all, or none.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb kv batch profiles --put ann=1 --put bob=2 --del carl\n  rhumb kv batch profiles --ops ops.jsonl\n\nA line of --ops is an object: `key` (or `key_base64`), `value` (or `value_base64`) or `\"delete\": true`, and what is wanted of `\"if_absent\": true`, `if_version`, `expires` (such as \"1h\"), `schema` and `subject`:\n  {\"key\": \"ann\", \"value\": \"2\", \"if_version\": 117677203963904000}\n  {\"key\": \"carl\", \"delete\": true}"
)]
#[group(required = true, multiple = true, args = ["puts", "dels", "lines"])]
pub struct Batch {
    #[command(flatten)]
    pub(super) at: Where,
    /// A key and its value. In base64 the key is without padding.
    #[arg(long = "put", value_name = "KEY=VALUE")]
    puts: Vec<KeyValue>,
    /// A key to delete.
    #[arg(long = "del", value_name = "KEY")]
    dels: Vec<String>,
    /// Further writes, an object of JSON a line, each with its own condition, expiry and subject; `-`: standard input.
    #[arg(long = "ops", value_name = "FILE|-")]
    lines: Option<PathBuf>,
    #[command(flatten)]
    coded: Coded,
    /// Only if no key of `--put` is there.
    #[arg(long)]
    if_absent: bool,
    /// Whom the values of `--put` are about. Of a personal class it must be said.
    #[arg(long)]
    subject: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyValue(String, String);

impl FromStr for KeyValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE, such as ann=1"))?;
        Ok(Self(pair.0.to_owned(), pair.1.to_owned()))
    }
}

/// One write, as a line says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    if_absent: bool,
    if_version: Option<u64>,
    expires: Option<String>,
    schema: Option<u32>,
    subject: Option<String>,
}

/// The bytes of a text, or of base64; none where there is neither.
fn bytes(what: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("{what} and {what}_base64: expected one of them")),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => {
            decode(&base64).map(Some).map_err(|why| format!("{what}_base64 is no base64: {why}"))
        }
        (None, None) => Ok(None),
    }
}

impl Line {
    fn op(self) -> Result<KvOp, String> {
        let key = bytes("key", self.key, self.key_base64)?.ok_or("it has no key")?;
        let value = match (bytes("value", self.value, self.value_base64)?, self.delete) {
            (Some(_), true) => return Err("a value, and \"delete\": expected one of them".to_owned()),
            (None, false) => return Err("neither a value nor \"delete\": true".to_owned()),
            (value, _) => value,
        };
        let condition = match (self.if_absent, self.if_version) {
            (true, Some(_)) => return Err("if_absent and if_version: expected one of them".to_owned()),
            (true, None) => Some(KvCondition::Absent),
            (false, version) => version.map(|bits| KvCondition::Version(HybridTime::from_bits(bits))),
        };
        let lasts: Option<Duration> = self.expires.as_deref().map(duration).transpose()?;
        Ok(KvOp { key, value, condition, schema: self.schema, subject: self.subject, lasts })
    }
}

/// What is wrong, without the place, which counts from the beginning of the one line that was read.
fn unplaced(error: &serde_json::Error) -> String {
    let (said, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    said.strip_suffix(&place).unwrap_or(&said).to_owned()
}

/// The writes of lines. Empty ones are none.
fn written(text: &str) -> Result<Vec<KvOp>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let op = |(at, line): (usize, &str)| {
        let read = serde_json::from_str::<Line>(line).map_err(|error| unplaced(&error));
        read.and_then(Line::op).map_err(|why| format!("line {}: {why}", at + 1))
    };
    lines.map(op).collect()
}

impl Batch {
    /// What is to be written.
    pub(super) fn ops(&self) -> Result<Vec<KvOp>, Failure> {
        let condition = self.if_absent.then_some(KvCondition::Absent);
        let read = |what: &str, text: &str| self.coded.read(what, text);
        let mut ops = Vec::new();
        for KeyValue(key, value) in &self.puts {
            let (key, value) = (read("the key of --put", key)?, read("the value of --put", value)?);
            ops.push(KvOp { condition, subject: self.subject.clone(), ..put(&key, &value) });
        }
        for key in &self.dels {
            ops.push(KvOp { value: None, ..put(&read("--del", key)?, b"") });
        }
        if let Some(file) = &self.lines {
            let more = written(&read_text(file)?);
            ops.extend(more.map_err(|why| Failure::Usage(format!("{}: {why}", file.display())))?);
        }
        Ok(ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_one_write() {
        let text = r#"
            {"key": "ann", "value": "one", "if_absent": true, "expires": "1h", "schema": 2, "subject": "ann"}
            {"key_base64": "AP8=", "value_base64": "_w", "if_version": 7}

            {"key": "carl", "delete": true}
        "#;
        let base = |key: &[u8], value: &[u8]| put(key, value);
        let ann = KvOp {
            condition: Some(KvCondition::Absent),
            lasts: Some(Duration::from_secs(3_600)),
            schema: Some(2),
            subject: Some("ann".to_owned()),
            ..base(b"ann", b"one")
        };
        let condition = Some(KvCondition::Version(HybridTime::from_bits(7)));
        let second = KvOp { condition, ..base(&[0, 255], &[255]) };
        let third = KvOp { value: None, ..base(b"carl", b"") };
        assert_eq!(written(text), Ok(vec![ann, second, third]));
    }

    #[test]
    fn a_line_that_says_no_write_is_refused_by_its_number_with_what_is_wrong() {
        for (line, why) in [
            (r#"{"value": "1"}"#, "it has no key"),
            (r#"{"key": "a"}"#, "neither a value nor \"delete\": true"),
            (
                r#"{"key": "a", "value": "1", "delete": true}"#,
                "a value, and \"delete\": expected one of them",
            ),
            (r#"{"key": "a", "key_base64": "YQ", "value": "1"}"#, "key and key_base64: expected one of them"),
            (
                r#"{"key": "a", "value": "1", "if_absent": true, "if_version": 7}"#,
                "if_absent and if_version: expected one of them",
            ),
        ] {
            assert_eq!(written(&format!("{line}\n")), Err(format!("line 1: {why}")));
        }
        for (line, part) in [
            (r#"{"key": "a", "value": "1", "expires": "soon"}"#, "line 1: "),
            (r#"{"key": "a", "value_base64": "%"}"#, "line 1: value_base64 is no base64: "),
            (r#"{"key": "a""#, "line 1: EOF while parsing an object"),
            (
                "{\"key\": \"a\", \"value\": \"1\"}\n{\"key\": \"a\", \"valeu\": \"1\"}",
                "line 2: unknown field `valeu`",
            ),
        ] {
            let why = written(line).expect_err(line);
            assert!(why.starts_with(part), "{line}: {why}");
            assert!(!why.contains(" at line "), "{line}: {why}");
        }
    }
}
