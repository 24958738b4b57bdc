//! What clients of a keyspace saw, as lines that any checker reads, and whether it could have been.
//!
//! One operation a line: `process`, `op` (`read`, `write`, `cas`, `delete`), `key`, `value` (of a read what was
//! there, null for nothing; of a `cas` what was expected, or null, and what was written), `call_ns`, `return_ns`
//! (null: open-ended) and `outcome` (`ok`; `fail`: it had no effect; `unknown`).
//!
//! What is done with several keys at one moment, a batch or a scan, is as many lines, of one `process`, `call_ns`, `return_ns` and
//! `outcome`, and all with one number as their `batch`; other lines have no such field. Who does not know it checks each key by
//! itself, and finds nothing that is not so; only that a batch is one step he does not see.
//!
//! * It decides: what the bytes are, and whether lines are of one batch. What may have been is [`linear`](super::linear)'s.
//! * It never does: ask a mesh, or believe what it says of versions and levels.
//! * Invariant: no value of a key is written twice, so that a value says which write it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

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
    fn is_of(&self, batches: &mut Batches) -> anyhow::Result<()> {
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

    /// What it wrote, if it did.
    #[must_use]
    pub fn writes(&self) -> Option<Value> {
        match self.did {
            Did::Write(value) | Did::Cas { new: value, .. } => Some(value),
            Did::Read(_) | Did::Delete => None,
        }
    }

    /// What it had seen, if it did what it says.
    #[must_use]
    pub fn saw(&self) -> Option<Value> {
        match self.did {
            Did::Read(value) | Did::Cas { expected: value, .. } => value,
            Did::Write(_) | Did::Delete => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

/// Reads a file of lines.
///
/// # Errors
/// It cannot be read, or a line, by its number, is no operation, or none of the batch that it says.
pub fn read(file: &Path) -> anyhow::Result<Vec<Operation>> {
    let opened = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let mut batches = BTreeMap::new();
    let parsed = BufReader::new(opened).lines().zip(1..).map(|(line, number)| {
        let parsed = Operation::parse(&line?).and_then(|one| one.is_of(&mut batches).map(|()| one));
        parsed.with_context(|| format!("{}:{number}", file.display()))
    });
    parsed.collect()
}

/// The lines of batches that were read: what they have in common, and their keys.
type Batches = BTreeMap<u64, ((u32, u64, Option<u64>, Outcome), Vec<String>)>;

/// A history that may be, with one of everything.
#[cfg(test)]
pub(super) mod sound {
    use super::*;

    pub(crate) fn op(process: u32, did: Did, call_ns: u64, return_ns: u64) -> Operation {
        on("k", process, did, call_ns, return_ns)
    }

    pub(crate) fn on(key: &str, process: u32, did: Did, call_ns: u64, return_ns: u64) -> Operation {
        let (key, return_ns, outcome) = (key.to_owned(), Some(return_ns), Outcome::Ok);
        Operation { process, key, batch: None, did, call_ns, return_ns, outcome }
    }

    /// Of the keys `l` and `m`.
    pub(crate) fn both(batch: u64, process: u32, dids: [Did; 2], call: u64, back: u64) -> [Operation; 2] {
        let [l, m] = dids;
        let line = |key, did| Operation { batch: Some(batch), ..on(key, process, did, call, back) };
        [line("l", l), line("m", m)]
    }

    pub(crate) fn refused(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Fail, ..operation }
    }

    pub(crate) fn unknown(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Unknown, return_ns: None, ..operation }
    }

    pub(crate) fn swap(expected: Option<Value>, new: Value) -> Did {
        Did::Cas { expected, new }
    }

    pub(crate) fn history() -> Vec<Operation> {
        let of_one = [
            op(1, Did::Read(None), 0, 4),
            op(1, Did::Write(1), 5, 10),
            unknown(op(2, Did::Write(2), 8, 0)),
            op(3, Did::Read(Some(1)), 12, 14),
            op(3, Did::Read(Some(2)), 20, 24),
            op(1, swap(Some(2), 3), 30, 34),
            refused(op(2, Did::Write(4), 35, 36)),
            unknown(op(4, swap(Some(1), 5), 36, 0)),
            op(3, Did::Read(Some(3)), 40, 44),
            unknown(op(5, Did::Delete, 45, 0)),
            op(3, Did::Read(Some(3)), 46, 48),
            op(3, Did::Read(None), 50, 54),
            op(1, swap(None, 6), 60, 64),
            op(1, Did::Delete, 66, 68),
            op(2, Did::Write(7), 70, 80),
            op(3, Did::Read(None), 71, 79),
            op(3, Did::Read(Some(7)), 81, 84),
        ];
        let of_two = [
            both(1, 1, [Did::Read(None), Did::Read(None)], 85, 86),
            both(2, 1, [swap(None, 1), Did::Write(2)], 86, 88),
            both(3, 2, [Did::Write(3), Did::Write(4)], 87, 0).map(unknown),
            both(4, 3, [Did::Read(Some(1)), Did::Read(Some(2))], 88, 90),
            both(5, 4, [Did::Write(5), swap(Some(9), 6)], 88, 90).map(refused),
            both(6, 3, [Did::Read(Some(3)), Did::Read(Some(4))], 91, 92),
            // Nobody saw what it wrote, and nobody that it deleted.
            both(7, 5, [Did::Write(7), Did::Delete], 92, 0).map(unknown),
            both(8, 3, [Did::Read(Some(3)), Did::Read(Some(4))], 93, 94),
        ];
        of_one.into_iter().chain(of_two.into_iter().flatten()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_comes_back_from_its_lines() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let history = sound::history();
        let lines: Vec<String> = history.iter().map(Operation::line).collect();
        std::fs::write(&file, lines.join("\n") + "\n").expect("written");
        assert_eq!(read(&file).expect("read"), history);
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
        let swap = json!({"process": 1, "op": "cas", "key": "k", "value": [2, 3], "call_ns": 30, "return_ns": 34,
                          "outcome": "ok"});
        assert_eq!(json(&lines[5]), swap);
        assert!(lines[7].contains("\"return_ns\":null"), "{}", lines[7]);
        // Of a batch each key has a line.
        let half = json!({"process": 1, "op": "cas", "key": "l", "batch": 2, "value": [null, 1], "call_ns": 86,
                          "return_ns": 88, "outcome": "ok"});
        assert_eq!(json(&lines[19]), half);
    }

    #[test]
    fn what_is_no_history_is_refused_with_the_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let lines: Vec<String> = sound::history().iter().map(Operation::line).collect();
        let check = |second: String, says: &str| {
            std::fs::write(&file, format!("{}\n{second}", lines[19])).expect("written");
            let bad = format!("{:#}", read(&file).expect_err(says));
            assert!(bad.contains("history.jsonl:2") && bad.contains(says), "{bad}");
        };
        check(lines[1].replace("write", "append"), "expected read, write, cas or delete");
        check(lines[20].replace("\"call_ns\":86", "\"call_ns\":85"), "expected one process, call_ns");
        check(lines[20].replace("\"key\":\"m\"", "\"key\":\"l\""), "has key l twice");
    }
}
