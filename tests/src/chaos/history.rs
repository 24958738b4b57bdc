//! What clients of a keyspace saw, as lines that any checker reads, and whether it could have been.
//!
//! One operation a line: `process`, `op` (`read`, `write`, `cas`, `delete`), `key`, `value` (of a read what was
//! there, null for nothing; of a `cas` what was expected, or null, and what was written), `call_ns`, `return_ns`
//! (null: open-ended) and `outcome` (`ok`; `fail`: it had no effect; `unknown`).
//!
//! * It decides: whether the operations of each key have an order in which each stands between its call and its
//!   return ([`check`]; the checker is porcupine-rs, which is not ours), and at which one they no longer have.
//! * It never does: ask a mesh, or believe what it says of versions and levels.
//! * Invariant: no value of a key is written twice, so that a value says which write it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use porcupine_rs::{CheckResult, Model, check_operations_timeout};
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
        let Self { process, call_ns, return_ns, outcome, .. } = *self;
        let line = Line { process, op, key, value, call_ns, return_ns, outcome };
        serde_json::to_string(&line).expect("text and numbers are JSON")
    }

    /// The operation of a line.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(line: &str) -> anyhow::Result<Self> {
        let Line { process, op, key, value, call_ns, return_ns, outcome } = serde_json::from_str(line)?;
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
        Ok(Self { process, key, did, call_ns, return_ns, outcome })
    }

    /// What it wrote, if it did.
    fn writes(&self) -> Option<Value> {
        match self.did {
            Did::Write(value) | Did::Cas { new: value, .. } => Some(value),
            Did::Read(_) | Did::Delete => None,
        }
    }

    /// What it had seen, if it did what it says.
    fn saw(&self) -> Option<Value> {
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
/// It cannot be read, or a line, by its number, is no operation.
pub fn read(file: &Path) -> anyhow::Result<Vec<Operation>> {
    let opened = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let parsed = BufReader::new(opened).lines().zip(1..).map(|(line, number)| {
        Operation::parse(&line?).with_context(|| format!("{}:{number}", file.display()))
    });
    parsed.collect()
}

/// Why a history cannot have been, or is not known to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// The operations of a key have no order.
    NoOrder {
        /// Which key.
        key: String,
        /// Until this one returned they had one.
        shown_by: Box<Operation>,
        /// The last ones of the key before it, in the order of their calls.
        before: Vec<Operation>,
    },
    /// A value was written twice: nothing can be said.
    Twice {
        /// Of which key.
        key: String,
        /// Which.
        value: Value,
    },
    /// The checker did not come to an end.
    NotKnown {
        /// With which key.
        key: String,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrder { key, shown_by, before } => {
                write!(f, "key {key} is not linearizable. Before:")?;
                before.iter().try_for_each(|one| write!(f, "\n  {one}"))?;
                write!(f, "\nand then this cannot be:\n  {shown_by}")
            }
            Self::Twice { key, value } => write!(f, "value {value} of key {key} was written twice"),
            Self::NotKnown { key } => write!(f, "the checker came to no end with key {key}"),
        }
    }
}

/// Whether each key is a register.
///
/// # Errors
/// [`Anomaly`], of the first key that has one.
pub fn check(history: &[Operation], within: Duration) -> Result<(), Anomaly> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in history {
        keys.entry(&one.key).or_default().push(one);
    }
    for (key, of_key) in keys {
        let key = key.to_owned();
        if let Some(value) = twice(&of_key) {
            return Err(Anomaly::Twice { key, value });
        }
        match verdict(&of_key, u64::MAX, within) {
            CheckResult::Ok => {}
            CheckResult::Unknown => return Err(Anomaly::NotKnown { key }),
            CheckResult::Illegal => {
                let (shown_by, before) = first_wrong(&of_key, within);
                return Err(Anomaly::NoOrder { key, shown_by: Box::new(shown_by), before });
            }
        }
    }
    Ok(())
}

fn twice(of_key: &[&Operation]) -> Option<Value> {
    let mut written: Vec<_> = of_key.iter().filter_map(|one| one.writes()).collect();
    written.sort_unstable();
    written.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// A register, and what is done to it for sure.
#[derive(Debug, Clone)]
struct Register;

#[derive(Debug, Clone, Copy)]
enum Step {
    Read(Option<Value>),
    Set(Option<Value>),
    Cas(Option<Value>, Value),
}

impl Model for Register {
    type State = Option<Value>;
    type Op = Step;
    type Metadata = ();

    fn init() -> Self::State {
        None
    }

    fn step(state: &Self::State, op: &Step) -> (bool, Self::State) {
        match *op {
            Step::Read(value) => (*state == value, *state),
            Step::Set(value) => (true, value),
            Step::Cas(expected, new) => (*state == expected, Some(new)),
        }
    }
}

/// Whether what a key's clients had seen by a time has an order.
///
/// Of what may have been done, a value that somebody saw was written before he had it: by then it is done. One that nobody
/// saw is as if it was never written, for whatever followed it did not ask what was there. So only deletions stay open-ended,
/// of which nobody can say whose absence he saw: one that never ran is one that runs behind all others.
fn verdict(of_key: &[&Operation], until: u64, within: Duration) -> CheckResult {
    let ended = |one: &Operation| one.return_ns.filter(|back| *back <= until && one.outcome == Outcome::Ok);
    let mut seen: BTreeMap<Value, u64> = BTreeMap::new();
    for one in of_key {
        if let (Some(value), Some(back)) = (one.saw(), ended(one)) {
            seen.entry(value).and_modify(|first| *first = back.min(*first)).or_insert(back);
        }
    }
    let steps = of_key.iter().filter(|one| one.outcome != Outcome::Fail && one.call_ns <= until);
    let steps = steps.filter_map(|one| {
        let back = match (ended(one), one.did) {
            (Some(back), _) => back,
            (None, Did::Read(_)) => return None,
            (None, Did::Write(value) | Did::Cas { new: value, .. }) => (*seen.get(&value)?).max(one.call_ns),
            (None, Did::Delete) => u64::MAX,
        };
        let step = match one.did {
            Did::Read(value) => Step::Read(value),
            Did::Write(value) => Step::Set(Some(value)),
            Did::Cas { expected, new } => Step::Cas(expected, new),
            Did::Delete => Step::Set(None),
        };
        let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        Some(porcupine_rs::Operation::<Register> {
            client_id: Some(one.process),
            call_time: time(one.call_ns),
            return_time: time(back),
            op: step,
            metadata: None,
        })
    });
    check_operations_timeout(&steps.collect::<Vec<_>>(), within)
}

/// Operations that are shown before the one that is wrong.
const SHOWN: usize = 12;

/// The operation until whose return the others had an order, and the last ones before. What has an order has one at each
/// earlier time, so halving finds it.
fn first_wrong(of_key: &[&Operation], within: Duration) -> (Operation, Vec<Operation>) {
    let mut ends: Vec<&Operation> =
        of_key.iter().copied().filter(|one| one.outcome == Outcome::Ok && one.return_ns.is_some()).collect();
    ends.sort_by_key(|one| one.return_ns);
    let until = |one: &&Operation| one.return_ns.unwrap_or(u64::MAX);
    let sound = ends.partition_point(|one| verdict(of_key, until(one), within) != CheckResult::Illegal);
    let wrong = ends[sound.min(ends.len() - 1)];
    // Whatever wrote what was seen is shown too, however long ago, or though it was refused.
    let source = |one: &Operation| one.writes().is_some() && one.writes() == wrong.saw();
    let mut before: Vec<Operation> = of_key
        .iter()
        .copied()
        .filter(|one| one.call_ns <= until(&wrong) && *one != wrong)
        .filter(|one| one.outcome != Outcome::Fail || source(one))
        .cloned()
        .collect();
    before.sort_by_key(|one| one.call_ns);
    let skipped = before.len().saturating_sub(SHOWN);
    let shown = before.iter().enumerate().filter(|(number, one)| *number >= skipped || source(one));
    (wrong.clone(), shown.map(|(_, one)| one.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn op(process: u32, did: Did, call_ns: u64, return_ns: u64) -> Operation {
        let key = "k".to_owned();
        Operation { process, key, did, call_ns, return_ns: Some(return_ns), outcome: Outcome::Ok }
    }

    fn refused(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Fail, ..operation }
    }

    fn unknown(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Unknown, return_ns: None, ..operation }
    }

    fn swap(expected: Option<Value>, new: Value) -> Did {
        Did::Cas { expected, new }
    }

    /// One of everything, as it may be.
    fn sound() -> Vec<Operation> {
        vec![
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
        ]
    }

    #[test]
    fn what_may_be_is_found_to_be_so_and_comes_back_from_its_lines() {
        assert_eq!(check(&sound(), LONG), Ok(()));
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("history.jsonl");
        let lines: Vec<String> = sound().iter().map(Operation::line).collect();
        std::fs::write(&file, lines.join("\n") + "\n").expect("written");
        assert_eq!(read(&file).expect("read"), sound());
        let swap = json!({"process": 1, "op": "cas", "key": "k", "value": [2, 3], "call_ns": 30, "return_ns": 34,
                          "outcome": "ok"});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&lines[5]).expect("JSON"), swap);
        assert!(lines[7].contains("\"return_ns\":null"), "{}", lines[7]);
        std::fs::write(&file, format!("{}\n{}", lines[0], lines[1].replace("write", "append")))
            .expect("written");
        let bad = format!("{:#}", read(&file).expect_err("no op"));
        assert!(
            bad.contains("history.jsonl:2") && bad.contains("expected read, write, cas or delete"),
            "{bad}"
        );
    }

    /// The sound history, and after it what must not be.
    fn anomaly(more: Vec<Operation>) -> Anomaly {
        let all: Vec<_> = sound().into_iter().chain(more.clone()).collect();
        check(&all, LONG).expect_err(&format!("not seen: {more:?}"))
    }

    #[test]
    fn each_anomaly_is_refused_and_the_operation_that_shows_it_is_named() {
        // Each last one cannot be after those before it.
        let stale_read = vec![op(1, Did::Write(10), 100, 110), op(2, Did::Read(Some(7)), 120, 130)];
        let lost_write = vec![op(1, Did::Write(10), 100, 110), op(2, swap(Some(7), 11), 120, 130)];
        let after_its_refusal =
            vec![refused(op(1, Did::Write(10), 100, 110)), op(2, Did::Read(Some(10)), 120, 130)];
        let goes_back = vec![
            unknown(op(1, Did::Write(10), 100, 0)),
            op(2, Did::Read(Some(10)), 110, 120),
            op(2, Did::Read(Some(7)), 130, 140),
        ];
        let both_swap = vec![op(1, swap(Some(7), 10), 100, 110), op(2, swap(Some(7), 11), 100, 112)];
        let before_it_was_written =
            vec![op(2, Did::Read(Some(10)), 100, 110), op(1, Did::Write(10), 120, 130)];
        let out_of_nothing = vec![op(2, Did::Read(Some(99)), 100, 110)];
        // The one deletion that may have been was seen already.
        let comes_and_goes = vec![op(1, Did::Read(None), 100, 110), op(1, Did::Read(Some(7)), 120, 130)];
        let shown = [
            (stale_read, 1),
            (lost_write, 1),
            (after_its_refusal, 1),
            (goes_back, 2),
            (both_swap, 1),
            (before_it_was_written, 0),
            (out_of_nothing, 0),
            (comes_and_goes, 0),
        ];
        for (more, wrong) in shown {
            match anomaly(more.clone()) {
                Anomaly::NoOrder { shown_by, .. } => assert_eq!(*shown_by, more[wrong], "{more:?}"),
                other => panic!("{other}"),
            }
        }
        let twice = anomaly(vec![op(1, Did::Write(7), 100, 110)]);
        assert_eq!(twice, Anomaly::Twice { key: "k".to_owned(), value: 7 });
    }

    #[test]
    fn keys_are_apart_and_many_open_ends_are_no_burden() {
        let mut all = sound();
        all.extend(sound().into_iter().map(|one| Operation { key: "l".to_owned(), ..one }));
        for n in 0..400 {
            all.push(unknown(op(9, Did::Write(1_000 + n), 200 + n, 0)));
        }
        for n in 0..8 {
            all.push(unknown(op(8, Did::Delete, 300 + n, 0)));
        }
        all.push(op(1, Did::Read(Some(1_020)), 700, 710));
        all.push(op(1, Did::Read(None), 711, 720));
        assert_eq!(check(&all, LONG), Ok(()));
        all.push(op(1, Did::Read(Some(1_020)), 721, 730));
        let Err(Anomaly::NoOrder { key, before, .. }) = check(&all, LONG) else { panic!("not seen") };
        assert_eq!(key, "k");
        assert!(before.iter().any(|one| one.did == Did::Write(1_020)), "{before:?}");
    }
}
