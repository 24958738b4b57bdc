//! The customers' own ledger of what the service answered them: the only witness of an audit that is
//! not the service itself.
//!
//! * It decides: what is written down of a customer's story, and what the whole ledger says was sold.
//! * It never does: take a number from a server's counters.
//! * Invariant: a sale is in it only because a confirmation was answered; before a confirmation is
//!   sent, a line says so, so that a ledger that ends early knows what it does not know.
//!
//! One JSON object a line. The first says what the ledger is of (`receipts`, `pool`, `started_ms`);
//! each other is a [`Receipt`], and the last line of a key is how its story stands.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rhumb_actors::escrow::messages::HoldId;
use rhumb_core::{NodeId, PoolName, Region};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::customer::State;

/// The version of the lines.
const VERSION: u32 = 1;

/// How a story stands, in a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Refused.
    Refused,
    /// No service, and nothing was done.
    Unserved,
    /// The hold was asked for; nobody told what became of it.
    Unknown,
    /// Held, and left to expire.
    Abandoned,
    /// Held, and a confirmation is about to be sent or was, without an answer yet.
    Confirming,
    /// Sold.
    Sold,
    /// The hold ended before it was confirmed.
    Lapsed,
    /// The service forgot a hold that it had answered, or contradicts itself.
    Broken,
}

/// What the ledger says of one customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The idempotency key, as text.
    pub key: String,
    /// The region that was asked.
    pub region: Region,
    /// How the story stands.
    pub state: Standing,
    /// Units.
    pub qty: u64,
    /// The hold, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// The node that owns the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The refusal's code, or what went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the hold was first asked for, milliseconds since the Unix epoch.
    pub asked_ms: u64,
    /// When the story came to stand so, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When the hold expires unless confirmed, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    /// Of a sale: units given back since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub returned: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(units: &u64) -> bool {
    *units == 0
}

impl Receipt {
    /// The receipt of a story that stands so.
    #[must_use]
    pub fn of(key: String, region: Region, qty: u64, asked_ms: u64, at_ms: u64, state: &State) -> Self {
        let mut receipt = Self {
            key,
            region,
            state: Standing::Unknown,
            qty,
            hold: None,
            owner: None,
            reason: None,
            asked_ms,
            at_ms,
            expires_ms: None,
            returned: 0,
        };
        match state {
            State::Asking | State::HoldUnknown => {}
            State::Refused(refusal) => receipt.ends(Standing::Refused, refusal.code().into()),
            State::Unserved(kind) => receipt.ends(Standing::Unserved, kind.to_string()),
            State::Abandoned(held) => {
                receipt.holds(Standing::Abandoned, &held.hold, Some(held.expires.millis()))
            }
            State::Confirming(held) => {
                receipt.holds(Standing::Confirming, &held.hold, Some(held.expires.millis()));
            }
            State::Sold(held) => receipt.holds(Standing::Sold, &held.hold, None),
            State::Lapsed(hold) => receipt.holds(Standing::Lapsed, hold, None),
            State::Broken(hold, why) => {
                receipt.holds(Standing::Broken, hold, None);
                receipt.reason = Some(why.clone());
            }
        }
        receipt
    }

    fn ends(&mut self, state: Standing, reason: String) {
        self.state = state;
        self.reason = Some(reason);
    }

    fn holds(&mut self, state: Standing, hold: &HoldId, expires_ms: Option<u64>) {
        self.state = state;
        self.hold = Some(hold.to_string());
        self.owner = Some(hold.owner.to_string());
        self.expires_ms = expires_ms;
    }
}

/// The first line of a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    receipts: u32,
    pool: PoolName,
    started_ms: u64,
}

/// A ledger that cannot be written or read.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file.
    #[error("receipts {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is a file already.
    #[error("receipts {0}: this file exists; give one that is not there yet, so that no ledger is lost")]
    Exists(PathBuf),
    /// No sale of the ledger has this hold, or the ledger's last line is cut off.
    #[error("receipts {path}: {what}")]
    NoSale {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A line.
    #[error("receipts {path}, line {line}: {what}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong and what would be right.
        what: String,
    },
}

/// Writes a ledger.
#[derive(Debug)]
pub struct LedgerWriter {
    file: BufWriter<File>,
    path: PathBuf,
}

impl LedgerWriter {
    /// Begins a new ledger in a file that is not there yet, so that no older one is lost.
    ///
    /// # Errors
    /// [`LedgerError::Exists`], [`LedgerError::Io`].
    pub fn create(path: &Path, pool: &PoolName, started_ms: u64) -> Result<Self, LedgerError> {
        let file = File::create_new(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => LedgerError::Exists(path.to_owned()),
            _ => LedgerError::Io { path: path.to_owned(), source },
        })?;
        let mut writer = Self { file: BufWriter::new(file), path: path.to_owned() };
        writer.line(&Header { receipts: VERSION, pool: pool.clone(), started_ms })?;
        Ok(writer)
    }

    /// Writes one receipt down.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn write(&mut self, receipt: &Receipt) -> Result<(), LedgerError> {
        self.line(receipt)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn flush(&mut self) -> Result<(), LedgerError> {
        self.file.flush().map_err(|source| LedgerError::Io { path: self.path.clone(), source })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), LedgerError> {
        let io = |source| LedgerError::Io { path: self.path.clone(), source };
        serde_json::to_writer(&mut self.file, value).map_err(|e| io(e.into()))?;
        self.file.write_all(b"\n").map_err(io)
    }
}

/// Writes down in a ledger that of a sale only so many units are still sold: the sale's receipt once
/// more, with what was given back. Written twice, it says the same.
///
/// # Errors
/// [`LedgerError`]: the file cannot be read or written, or has no receipt of this sale.
pub fn book_return(path: &Path, hold: &HoldId, left: u64, at_ms: u64) -> Result<(), LedgerError> {
    let missing = |what: String| LedgerError::NoSale { path: path.to_owned(), what };
    let name = hold.to_string();
    let ledger = Ledger::read(path)?;
    let sale = ledger
        .receipts
        .into_values()
        .find(|receipt| receipt.state == Standing::Sold && receipt.hold.as_deref() == Some(name.as_str()));
    let mut receipt = sale.ok_or_else(|| missing(format!("there is no sale of {name} in it")))?;
    let io = |source| LedgerError::Io { path: path.to_owned(), source };
    if !std::fs::read(path).map_err(io)?.ends_with(b"\n") {
        return Err(missing("its last line is cut off; end it, or take it out".to_owned()));
    }
    (receipt.returned, receipt.at_ms) = (receipt.qty.saturating_sub(left), at_ms);
    let file = File::options().append(true).open(path).map_err(io)?;
    let mut writer = LedgerWriter { file: BufWriter::new(file), path: path.to_owned() };
    writer.write(&receipt)?;
    writer.flush()
}

/// A ledger that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Of which pool.
    pub pool: PoolName,
    /// When it began, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How each customer's story stands, by key.
    pub receipts: HashMap<String, Receipt>,
}

impl Ledger {
    /// Reads a ledger. A last line that was cut off (its writer was killed) is left out.
    ///
    /// # Errors
    /// [`LedgerError`] names the file and the line.
    pub fn read(path: &Path) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { path: path.to_owned(), source };
        Self::parse(path, BufReader::new(File::open(path).map_err(io)?))
    }

    fn parse(path: &Path, text: impl BufRead) -> Result<Self, LedgerError> {
        let bad = |line, what: String| LedgerError::Line { path: path.to_owned(), line, what };
        let mut lines = whole_lines(text).enumerate();
        let head = lines.next().map(|(_, line)| line).unwrap_or(Ok(String::new()));
        let head = head.map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
        let header: Header = serde_json::from_str(&head).map_err(|e| {
            bad(
                1,
                format!("{e}; a ledger begins with {{\"receipts\":{VERSION},\"pool\":…,\"started_ms\":…}}"),
            )
        })?;
        if header.receipts != VERSION {
            return Err(bad(1, format!("format {} is unknown; expected {VERSION}", header.receipts)));
        }
        let mut receipts = HashMap::new();
        for (at, line) in lines {
            let line = line.map_err(|source| LedgerError::Io { path: path.to_owned(), source })?;
            let receipt: Receipt = serde_json::from_str(&line).map_err(|e| bad(at + 1, e.to_string()))?;
            receipts.insert(receipt.key.clone(), receipt);
        }
        Ok(Self { pool: header.pool, started_ms: header.started_ms, receipts })
    }

    /// What the ledger says in sum, at a time.
    ///
    /// # Errors
    /// The receipt whose hold or owner is not one.
    pub fn sums(&self, now_ms: RangeInclusive<u64>) -> Result<Sums, String> {
        let mut sums = Sums::default();
        let mut holders: HashMap<&str, &str> = HashMap::new();
        for receipt in self.receipts.values() {
            sums.add(receipt, now_ms.clone())?;
            let Some(hold) = receipt.hold.as_deref() else { continue };
            if let Some(other) = holders.insert(hold, &receipt.key) {
                sums.broken.push(format!("hold {hold} was given to two keys, {other} and {}", receipt.key));
            }
        }
        sums.broken.sort();
        Ok(sums)
    }
}

/// Lines that end with a line feed; a rest without one is left out.
fn whole_lines(mut text: impl BufRead) -> impl Iterator<Item = std::io::Result<String>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        match text.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {
                line.truncate(line.len() - 1);
                Some(Ok(line))
            }
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        }
    })
}

/// What a ledger says in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Units sold, by the node that owned the hold.
    pub sold: BTreeMap<NodeId, u64>,
    /// Units of those given back, by the same node.
    pub returned: BTreeMap<NodeId, u64>,
    /// Units under a confirmation without an answer, by the node that owns the hold.
    pub unknown: BTreeMap<NodeId, u64>,
    /// Units under holds that have not expired yet, by the node that owns them.
    pub held: BTreeMap<NodeId, u64>,
    /// Units under holds that expire about now, which their nodes may or may not count any more.
    pub expiring: BTreeMap<NodeId, u64>,
    /// Holds asked for without an answer.
    pub unanswered: u64,
    /// Promises that the service broke.
    pub broken: Vec<String>,
}

impl Sums {
    /// Units sold in all.
    #[must_use]
    pub fn total_sold(&self) -> u128 {
        self.sold.values().map(|units| u128::from(*units)).sum()
    }

    fn add(&mut self, receipt: &Receipt, now_ms: RangeInclusive<u64>) -> Result<(), String> {
        let owner = || {
            let text = receipt.owner.as_deref().unwrap_or_default();
            text.parse::<NodeId>().map_err(|e| format!("receipt of key {}: owner: {e}", receipt.key))
        };
        let live = receipt.expires_ms.is_some_and(|expires| expires > *now_ms.end());
        let ending = receipt.expires_ms.is_some_and(|expires| now_ms.contains(&expires));
        match receipt.state {
            Standing::Sold => {
                *self.sold.entry(owner()?).or_default() += receipt.qty;
                *self.returned.entry(owner()?).or_default() += receipt.returned;
            }
            Standing::Confirming => *self.unknown.entry(owner()?).or_default() += receipt.qty,
            Standing::Abandoned if live => *self.held.entry(owner()?).or_default() += receipt.qty,
            Standing::Abandoned if ending => *self.expiring.entry(owner()?).or_default() += receipt.qty,
            Standing::Unknown => self.unanswered += 1,
            Standing::Broken => self.broken.push(format!(
                "hold {}: {}",
                receipt.hold.as_deref().unwrap_or("?"),
                receipt.reason.as_deref().unwrap_or("?")
            )),
            Standing::Abandoned | Standing::Lapsed | Standing::Refused | Standing::Unserved => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use rhumb_actors::escrow::messages::{Held, Refusal};
    use rhumb_core::HybridTime;

    use super::*;

    const HEAD: &str = r#"{"receipts":1,"pool":"concert","started_ms":5}"#;

    fn held(number: u64) -> Held {
        let hold = format!("concert/us-east/n1/a/{number}").parse().expect("a hold id");
        Held { hold, qty: 1, expires: HybridTime::new(3_000, 0), overdrawn: 0 }
    }

    fn receipt(key: &str, state: &State) -> Receipt {
        Receipt::of(key.into(), Region::new("us-east").expect("valid"), 1, 10, 20, state)
    }

    #[test]
    fn a_receipt_is_one_line_with_stable_names() {
        let line = |state| serde_json::to_string(&receipt("k", &state)).expect("serialises");
        let lines = [
            line(State::HoldUnknown),
            line(State::Refused(Refusal::SoldOut)),
            line(State::Abandoned(held(1))),
            line(State::Sold(held(2))),
        ];
        expect![[r#"
            {"key":"k","region":"us-east","state":"unknown","qty":1,"asked_ms":10,"at_ms":20}
            {"key":"k","region":"us-east","state":"refused","qty":1,"reason":"sold_out","asked_ms":10,"at_ms":20}
            {"key":"k","region":"us-east","state":"abandoned","qty":1,"hold":"concert/us-east/n1/a/1","owner":"us-east/n1","asked_ms":10,"at_ms":20,"expires_ms":3000}
            {"key":"k","region":"us-east","state":"sold","qty":1,"hold":"concert/us-east/n1/a/2","owner":"us-east/n1","asked_ms":10,"at_ms":20}"#]]
        .assert_eq(&lines.join("\n"));
    }

    #[test]
    fn what_was_written_reads_back_and_the_last_line_of_a_key_counts() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("receipts.jsonl");
        let pool = PoolName::new("concert").expect("valid");
        let mut writer = LedgerWriter::create(&path, &pool, 5).expect("writes");
        let stories = [
            ("a", State::Confirming(held(1))),
            ("b", State::Confirming(held(2))),
            ("a", State::Sold(held(1))),
            ("c", State::Abandoned(held(3))),
            ("d", State::HoldUnknown),
        ];
        for (key, state) in stories {
            writer.write(&receipt(key, &state)).expect("writes");
        }
        writer.flush().expect("flushes");
        let ledger = Ledger::read(&path).expect("reads");
        assert_eq!((ledger.receipts.len(), ledger.started_ms), (4, 5));
        let node: NodeId = "us-east/n1".parse().expect("valid");
        let one = BTreeMap::from([(node, 1)]);
        let sums = ledger.sums(2_998..=2_999).expect("sound");
        assert_eq!((&sums.sold, &sums.unknown, &sums.held), (&one, &one, &one));
        assert_eq!((sums.unanswered, sums.total_sold()), (1, 1));
        let ending = ledger.sums(2_999..=3_000).expect("sound");
        assert!(ending.held.is_empty(), "the abandoned hold has expired, or is about to");
        assert_eq!(ending.expiring.values().sum::<u64>(), 1);
        assert!(ledger.sums(3_001..=3_002).expect("sound").expiring.is_empty(), "it has expired");
        let again = LedgerWriter::create(&path, &pool, 5);
        assert!(matches!(again, Err(LedgerError::Exists(_))), "an older ledger is not overwritten");
    }

    #[test]
    fn a_return_is_written_down_with_its_sale() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("receipts.jsonl");
        let mut writer = LedgerWriter::create(&path, &"concert".parse().expect("valid"), 5).expect("writes");
        writer.write(&Receipt { qty: 4, ..receipt("a", &State::Sold(held(1))) }).expect("writes");
        writer.flush().expect("flushes");
        for left in [3, 1, 1] {
            book_return(&path, &held(1).hold, left, 30).expect("writes");
        }
        let sums = Ledger::read(&path).expect("reads").sums(0..=0).expect("sound");
        assert_eq!((sums.total_sold(), sums.returned.values().sum::<u64>()), (4, 3));
        let unknown = book_return(&path, &held(2).hold, 0, 30).expect_err("no such sale").to_string();
        assert!(unknown.contains("there is no sale of concert/us-east/n1/a/2"), "{unknown}");
    }

    #[test]
    fn one_hold_under_two_keys_is_a_broken_promise() {
        let mut text = format!("{HEAD}\n");
        for key in ["a", "b"] {
            text += &serde_json::to_string(&receipt(key, &State::Sold(held(1)))).expect("serialises");
            text += "\n";
        }
        let ledger = Ledger::parse(Path::new("r"), text.as_bytes()).expect("reads");
        let broken = ledger.sums(0..=0).expect("sound").broken;
        assert!(broken[0].starts_with("hold concert/us-east/n1/a/1 was given to two keys"), "{broken:?}");
    }

    fn check(text: &str, want: Expect) {
        let got = match Ledger::parse(Path::new("r.jsonl"), text.as_bytes()) {
            Ok(ledger) => format!("{} receipts", ledger.receipts.len()),
            Err(error) => error.to_string(),
        };
        want.assert_eq(&got);
    }

    #[test]
    fn a_cut_off_end_is_left_out_and_any_other_damage_is_named() {
        let line = serde_json::to_string(&receipt("a", &State::HoldUnknown)).expect("serialises");
        check(&format!("{HEAD}\n{line}\n{{\"key\":"), expect!["1 receipts"]);
        check(
            &format!("{HEAD}\nx\n{line}\n"),
            expect!["receipts r.jsonl, line 2: expected value at line 1 column 1"],
        );
        check(
            &HEAD.replace('1', "2").replace("5}", "5}\n"),
            expect!["receipts r.jsonl, line 1: format 2 is unknown; expected 1"],
        );
        check(
            "",
            expect![[
                r#"receipts r.jsonl, line 1: EOF while parsing a value at line 1 column 0; a ledger begins with {"receipts":1,"pool":…,"started_ms":…}"#
            ]],
        );
    }
}
