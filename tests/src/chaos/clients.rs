//! Clients of a keyspace who read and write a few keys without pause, some of them several at one moment, and tell all of it.
//!
//! * It decides: who does what with which key, from a seed; what an answer says of the outcome.
//! * It never does: ask again what was answered with a fault, or have more than one question of a client under way.
//! * Invariant: each operation is told once, and no value is written twice. Of reads that are not strong nothing is told but
//!   what [`levels`](rhumb_histories::levels) finds wrong.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use rhumb::client::kv::{Kv, KvAnswer, KvCondition, KvError, KvOp, KvRefusal, KvWritten, Needs, put};
use rhumb_core::rng::Rng;
use rhumb_core::{Delivery, Guarantee, HybridTime, Region};
use rhumb_histories::{Did, Dids, Ended, Outcome, Value};
use tokio::time::{Instant, sleep};

use super::book::{Book, Shown};

/// The keys. A split falls between two of them.
pub const KEYS: [&str; 5] = ["ann", "gus", "max", "sue", "zoe"];
/// Those that are read and written together: no split comes between them.
const PAIRS: [[&str; 2]; 2] = [["ann", "gus"], ["max", "sue"]];
/// What clients are busy with otherwise, in milliseconds.
const THINK: (u64, u64) = (20, 200);
/// Bounds of reads that have one, in milliseconds: near replicas show what is so old, and the leaseholder what is younger.
pub(super) const BOUNDS: (u64, u64) = (2_500, 8_000);

/// One client.
pub struct Client<'a> {
    process: u32,
    region: Region,
    kv: Kv<'a>,
    book: &'a Book,
    /// The newest version of each key that it has seen: its token stands for these.
    seen: RefCell<BTreeMap<&'static str, HybridTime>>,
    /// As of which time it has seen, but by a strong read, that a key is not there: its token stands for these, too.
    gone: RefCell<BTreeMap<&'static str, HybridTime>>,
}

/// A key, its value and version, if it is there.
type Row = (&'static str, Option<(Value, HybridTime)>);

/// A write of a key that was asked for.
type Put = (&'static str, Did, KvOp);

impl<'a> Client<'a> {
    /// A client in a region, who reads and writes through this.
    #[must_use]
    pub fn new(process: u32, region: Region, kv: Kv<'a>, book: &'a Book) -> Self {
        Self { process, region, kv, book, seen: RefCell::default(), gone: RefCell::default() }
    }

    /// Where it is.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Reads and writes until then.
    pub async fn run(&self, mut rng: Rng, until: Instant) {
        while Instant::now() < until {
            let key = *rng.pick(&KEYS).unwrap_or(&KEYS[0]);
            let pair = *rng.pick(&PAIRS).unwrap_or(&PAIRS[0]);
            match rng.below(100) {
                0..18 => drop(self.read(key).await),
                18..32 => drop(self.scan(pair).await),
                32..52 => self.reads_otherwise(key, &mut rng).await,
                52..64 => drop(self.write(key).await),
                64..75 => self.swap(key).await,
                75..95 => self.batch(pair, &mut rng).await,
                _ => self.delete(key).await,
            }
            sleep(Duration::from_millis(rng.between(THINK.0, THINK.1))).await;
        }
    }

    // ---- reads ---------------------------------------------------------------------------------

    /// Reads strongly; whether it was answered.
    pub async fn read(&self, key: &'static str) -> bool {
        self.rows(&[key], Needs::Strong).await.is_some()
    }

    /// Reads in each way that is not strong: those that were not answered.
    pub async fn reads_each_way(&self, key: &'static str, rng: &mut Rng) -> Vec<Needs> {
        let mut not = Vec::new();
        let bounded = Needs::Bounded(Duration::from_millis(BOUNDS.1));
        for needs in [Some(bounded), Some(Needs::Eventual), self.book.time(rng).map(Needs::AsOf)] {
            if let Some(needs) = needs
                && self.rows(&[key], needs).await.is_none()
            {
                not.push(needs);
            }
        }
        not
    }

    async fn scan(&self, pair: [&'static str; 2]) -> Option<Vec<Row>> {
        self.rows(&pair, Needs::Strong).await
    }

    async fn reads_otherwise(&self, key: &'static str, rng: &mut Rng) {
        let needs = match rng.below(3) {
            0 => Needs::Bounded(Duration::from_millis(rng.between(BOUNDS.0, BOUNDS.1))),
            1 => Needs::Eventual,
            _ => self.book.time(rng).map_or(Needs::Eventual, Needs::AsOf),
        };
        let pair = PAIRS.iter().find(|pair| pair.contains(&key)).filter(|_| rng.chance(0.3));
        match pair {
            Some(pair) => drop(self.rows(pair, needs).await),
            None => drop(self.rows(&[key], needs).await),
        }
    }

    /// What keys that lie side by side are at one moment; none where it was not answered, or an answer makes no sense.
    async fn rows(&self, keys: &[&'static str], needs: Needs) -> Option<Vec<Row>> {
        let call = self.book.now();
        let behind = |last: &&str| format!("{last}+").into_bytes();
        let answered = match keys {
            [key] => self.kv.get(key.as_bytes(), needs).await,
            [first, .., last] => self.kv.scan(first.as_bytes(), Some(&behind(last)), 100, needs).await,
            [] => return None,
        };
        let answer = answered.ok();
        let rows = answer.as_ref().and_then(|answer| self.makes_sense(keys, answer));
        let is_strong = needs == Needs::Strong;
        if let (Some(answer), Some(rows)) = (&answer, &rows) {
            self.was_shown(call, needs, answer, rows);
        }
        let level = answer.as_ref().map(|answer| answer.level);
        let (dids, outcome): (Dids, _) = match &rows {
            Some(rows) => {
                let read = |(key, row): &Row| ((*key).to_owned(), Did::Read(row.map(|(value, _)| value)));
                (rows.iter().map(read).collect(), Outcome::Ok)
            }
            None => (keys.iter().map(|key| ((*key).to_owned(), Did::Read(None))).collect(), Outcome::Fail),
        };
        // Who asked for less may be answered as strongly.
        if is_strong || level == Some(Guarantee::StrictSerializable) {
            self.book.tell(self.process, call, dids, outcome);
        }
        rows
    }

    /// What an answer says; none where that makes no sense.
    fn makes_sense(&self, keys: &[&'static str], answer: &KvAnswer) -> Option<Vec<Row>> {
        let mut found = BTreeMap::new();
        for row in &answer.rows {
            let value = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok());
            let key = keys.iter().find(|key| row.key == key.as_bytes());
            let Some((key, value)) = key.zip(value) else {
                self.book.wrong(format!("a read of {keys:?} was answered with {row:?}"));
                return None;
            };
            self.book.knows(key, row.version, value);
            found.insert(*key, (value, row.version));
        }
        if let Some(next) = &answer.next {
            self.book.wrong(format!("a scan of {keys:?}, which are of one range, goes on at {next:?}"));
            return None;
        }
        Some(keys.iter().map(|key| (*key, found.get(key).copied())).collect())
    }

    fn was_shown(&self, call_ns: u64, needs: Needs, answer: &KvAnswer, rows: &[Row]) {
        for &(key, row) in rows {
            let (process, version) = (self.process, row.map(|(_, version)| version));
            let [seen, gone] =
                [&self.seen, &self.gone].map(|of| of.borrow().get(key).copied().unwrap_or_default());
            self.book.shown(&Shown { process, key, version, call_ns, needs, answer, seen, gone });
            match version {
                Some(version) => sees(&self.seen, key, version),
                None if answer.level == Guarantee::StrictSerializable => {}
                None => sees(&self.gone, key, answer.at),
            }
        }
    }

    // ---- writes --------------------------------------------------------------------------------

    /// Writes a new value; whether that was acknowledged.
    pub async fn write(&self, key: &'static str) -> bool {
        let put = self.puts(key);
        self.writes(vec![put]).await
    }

    async fn delete(&self, key: &'static str) {
        let op = KvOp { value: None, ..put(key.as_bytes(), b"") };
        self.writes(vec![(key, Did::Delete, op)]).await;
    }

    /// Reads, and writes a new value if nobody else did meanwhile.
    async fn swap(&self, key: &'static str) {
        let Some(rows) = self.rows(&[key], Needs::Strong).await else { return };
        let swaps = rows.into_iter().map(|row| self.swaps(row)).collect();
        self.writes(swaps).await;
    }

    /// Writes two keys at one moment: some under the condition that nobody wrote the one meanwhile, or the other, or both.
    async fn batch(&self, pair: [&'static str; 2], rng: &mut Rng) {
        let mut conditions = [rng.chance(0.3), rng.chance(0.3)];
        let rows = match conditions {
            [false, false] => pair.map(|key| (key, None)).to_vec(),
            _ => match self.scan(pair).await {
                Some(rows) => rows,
                None => {
                    conditions = [false, false];
                    pair.map(|key| (key, None)).to_vec()
                }
            },
        };
        let each = rows.into_iter().zip(conditions);
        let puts = each.map(|(row, has_one)| if has_one { self.swaps(row) } else { self.puts(row.0) });
        self.writes(puts.collect()).await;
    }

    fn puts(&self, key: &'static str) -> Put {
        let value = self.book.value();
        (key, Did::Write(value), put(key.as_bytes(), value.to_string().as_bytes()))
    }

    fn swaps(&self, (key, row): Row) -> Put {
        let new = self.book.value();
        let condition = row.map_or(KvCondition::Absent, |(_, version)| KvCondition::Version(version));
        let op = KvOp { condition: Some(condition), ..put(key.as_bytes(), new.to_string().as_bytes()) };
        (key, Did::Cas { expected: row.map(|(value, _)| value), new }, op)
    }

    /// Writes all of these, or none, and tells it; whether they were acknowledged.
    async fn writes(&self, puts: Vec<Put>) -> bool {
        let call = self.book.now();
        let keys: Vec<_> = puts.iter().map(|(key, ..)| *key).collect();
        let dids: Dids = puts.iter().map(|(key, did, _)| ((*key).to_owned(), *did)).collect();
        self.book.begins(self.process, dids);
        let written = self.kv.write(puts.into_iter().map(|(_, _, op)| op).collect()).await;
        if let Ok(written) = &written {
            keys.iter().for_each(|key| sees(&self.seen, key, written.version));
        }
        self.book.ends(self.process, call, ended(&written));
        written.is_ok()
    }
}

/// A key was seen in this version, or as of this time.
fn sees(seen: &RefCell<BTreeMap<&'static str, HybridTime>>, key: &'static str, at: HybridTime) {
    let mut seen = seen.borrow_mut();
    let known = seen.entry(key).or_default();
    *known = at.max(*known);
}

fn ended(written: &Result<KvWritten, KvError>) -> Ended {
    match written {
        Ok(written) => Ended::At(written.version),
        Err(KvError::Refused(KvRefusal::Condition { op, found, .. })) => {
            Ended::Because { place: usize::try_from(*op).unwrap_or(usize::MAX), found: *found }
        }
        Err(KvError::Refused(_)) => Ended::Not,
        Err(KvError::Fault(fault)) if fault.delivery() == Delivery::NotSent => Ended::Not,
        Err(KvError::Fault(_) | KvError::Weaker { .. }) => Ended::Unknown,
    }
}
