//! What clients of a keyspace did, as lines that any checker reads.
//!
//! One operation a line: `process`, `op` (`read`, `write`, `cas`, `delete`), `key`, `value` (of a read what was
//! there, null for nothing; of a `cas` what was expected, or null, and what was written), `call_ns`, `return_ns`
//! (null: open-ended) and `outcome` (`ok`; `fail`: it had no effect; `unknown`).
//!
//! What is done with several keys at one moment, a batch or a scan, is as many lines, of one `process`, `call_ns`, `return_ns` and
//! `outcome`, and all with one number as their `batch`; other lines have no such field. Who does not know it checks each key by
//! itself, and finds nothing that is not so; only that a batch is one step he does not see.
//!
//! * It decides: what the bytes are, and whether lines are of one batch. What may have been is [`linear`](crate::linear)'s.
//! * It never does: ask a mesh, or believe what it says of versions and levels.
//! * Invariant: no value of a key is written twice, so that a value says which write it is.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The lines of batches that were read: what they have in common, and their keys.
pub(crate) type Batches = BTreeMap<u64, ((u32, u64, Option<u64>, Outcome), Vec<String>)>;

/// A value of a key. None is written twice.
pub type Value = u64;

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It read this.
    Read(Option<Value>),
    /// It wrote this, whatever was there.
    Write(Value),
    /// It wrote `new` where `expected` was.
    Cas {
        /// What was to be there.
        expected: Option<Value>,
        /// What it wrote.
        new: Value,
    },
    /// It deleted the key, whatever was there.
    Delete,
}

impl Did {
    /// Its word in a line.
    #[must_use]
    pub const fn op(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Cas { .. } => "cas",
            Self::Delete => "delete",
        }
    }

    /// What it wrote, if it was done.
    #[must_use]
    pub const fn writes(&self) -> Option<Value> {
        match self {
            Self::Write(value) | Self::Cas { new: value, .. } => Some(*value),
            Self::Read(_) | Self::Delete => None,
        }
    }

    /// What it had seen, if it was done.
    #[must_use]
    pub const fn saw(&self) -> Option<Value> {
        match self {
            Self::Read(value) | Self::Cas { expected: value, .. } => *value,
            Self::Write(_) | Self::Delete => None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not done, and will not be.
    Fail,
    /// It may have been done, or be done yet.
    Unknown,
}

/// One operation on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Who did it. A process does one thing at a time.
    pub process: u32,
    /// On which key.
    pub key: String,
    /// Of which batch or scan: those of one number were done at one moment.
    pub batch: Option<u64>,
    /// What.
    pub did: Did,
    /// When it was begun, on one clock for all.
    pub call_ns: u64,
    /// When its end was known; none: never.
    pub return_ns: Option<u64>,
    /// What came of it.
    pub outcome: Outcome,
}

/// As it stands in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    process: u32,
    op: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<u64>,
    value: serde_json::Value,
    call_ns: u64,
    return_ns: Option<u64>,
    outcome: Outcome,
}

impl Operation {
    /// Its line, without the end of line.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn line(&self) -> String {
        let value = match self.did {
            Did::Read(value) => json!(value),
            Did::Write(value) => json!(value),
            Did::Cas { expected, new } => json!([expected, new]),
            Did::Delete => json!(null),
        };
        let (op, key) = (self.did.op().to_owned(), self.key.clone());
        let Self { process, batch, call_ns, return_ns, outcome, .. } = *self;
        let line = Line { process, op, key, batch, value, call_ns, return_ns, outcome };
        serde_json::to_string(&line).expect("text and numbers are JSON")
    }

    /// The operation of a line.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        let Line { process, op, key, batch, value, call_ns, return_ns, outcome } =
            serde_json::from_str(line)?;
        let told = value.to_string();
        let did = match op.as_str() {
            "read" => serde_json::from_value(value).map(Did::Read).ok(),
            "write" => serde_json::from_value(value).map(Did::Write).ok(),
            "cas" => serde_json::from_value(value).map(|(expected, new)| Did::Cas { expected, new }).ok(),
            "delete" => value.is_null().then_some(Did::Delete),
            other => bail!("there is no op {other:?}; expected read, write, cas or delete"),
        };
        let did = did.with_context(|| {
            format!(
                "{told} is no value of a {op}; expected a number or null of a read, a number of a write, \
                 [number or null, number] of a cas, null of a delete"
            )
        })?;
        ensure!(outcome != Outcome::Ok || return_ns.is_some(), "what is ok has returned: expected return_ns");
        ensure!(return_ns.is_none_or(|back| back >= call_ns), "return_ns is before call_ns");
        Ok(Self { process, key, batch, did, call_ns, return_ns, outcome })
    }

    /// Whether it may be a line of its batch, beside those before it.
    pub(crate) fn is_of(&self, batches: &mut Batches) -> anyhow::Result<()> {
        let Some(batch) = self.batch else { return Ok(()) };
        let common = (self.process, self.call_ns, self.return_ns, self.outcome);
        let (first, keys) = batches.entry(batch).or_insert((common, Vec::new()));
        ensure!(
            *first == common,
            "batch {batch} has lines of several operations: expected one process, call_ns, return_ns and outcome"
        );
        ensure!(
            !keys.contains(&self.key),
            "batch {batch} has key {} twice: expected one line a key",
            self.key
        );
        keys.push(self.key.clone());
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}
