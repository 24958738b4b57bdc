//! Clients of a keyspace who read and write a few keys without pause, and tell all of it.
//!
//! * It decides: who does what with which key, from a seed; what an answer says of the outcome.
//! * It never does: ask again what was answered with a fault, or have more than one question of a client under way.
//! * Invariant: each operation is told once, and no value is written twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rhumb::client::kv::{Kv, KvAnswer, KvCondition, KvError, KvRefusal, KvWritten, Needs};
use rhumb_core::rng::Rng;
use rhumb_core::{Delivery, Guarantee, HybridTime, Region};
use tokio::time::{Instant, sleep};

use super::history::{Did, Operation, Outcome, Value};

/// The keys. A split falls between two of them.
pub const KEYS: [&str; 5] = ["ann", "gus", "max", "sue", "zoe"];
/// What clients are busy with otherwise, in milliseconds.
const THINK: (u64, u64) = (20, 200);

/// What all clients tell.
pub struct Book {
    begun: Instant,
    next: AtomicU64,
    told: Mutex<Told>,
}

struct Told {
    file: BufWriter<File>,
    history: Vec<Operation>,
    /// By version, what was written at it.
    versions: BTreeMap<(String, u64), Value>,
    wrong: BTreeSet<String>,
}

impl Book {
    /// A book of which each line goes to a file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        let made = File::create(file).with_context(|| file.display().to_string())?;
        let file = BufWriter::new(made);
        let told = Told { file, history: Vec::new(), versions: BTreeMap::new(), wrong: BTreeSet::new() };
        Ok(Self { begun: Instant::now(), next: AtomicU64::new(1), told: Mutex::new(told) })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn value(&self) -> Value {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Told) -> T) -> T {
        work(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, process: u32, key: &str, call_ns: u64, did: Did, outcome: Outcome) {
        let return_ns = (outcome != Outcome::Unknown).then(|| self.now());
        let told = Operation { process, key: key.to_owned(), did, call_ns, return_ns, outcome };
        self.with(|book| {
            if let Err(error) = writeln!(book.file, "{told}") {
                book.wrong.insert(format!("the history cannot be written: {error}"));
            }
            book.history.push(told);
        });
    }

    /// Something that no answer should say.
    fn wrong(&self, what: String) {
        self.with(|book| book.wrong.insert(what));
    }

    /// All that was told, and what was wrong with answers.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn close(self) -> anyhow::Result<(Vec<Operation>, Vec<String>)> {
        let mut told = self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        told.file.flush()?;
        Ok((told.history, told.wrong.into_iter().collect()))
    }
}

/// One client.
pub struct Client<'a> {
    process: u32,
    region: Region,
    kv: Kv<'a>,
    book: &'a Book,
}

impl<'a> Client<'a> {
    /// A client in a region, who reads and writes through this.
    #[must_use]
    pub fn new(process: u32, region: Region, kv: Kv<'a>, book: &'a Book) -> Self {
        Self { process, region, kv, book }
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
            match rng.below(100) {
                0..45 => drop(self.read(key).await),
                45..72 => drop(self.write(key).await),
                72..94 => self.swap(key).await,
                _ => self.delete(key).await,
            }
            sleep(Duration::from_millis(rng.between(THINK.0, THINK.1))).await;
        }
    }

    /// Reads strongly; whether it was answered.
    pub async fn read(&self, key: &str) -> bool {
        self.read_row(key).await.is_some()
    }

    /// Writes a new value; whether that was acknowledged.
    pub async fn write(&self, key: &str) -> bool {
        let (call, value) = (self.book.now(), self.book.value());
        let written = self.kv.put(key.as_bytes(), value.to_string().as_bytes()).await;
        self.came_of(key, call, Did::Write(value), written)
    }

    async fn delete(&self, key: &str) {
        let call = self.book.now();
        let deleted = self.kv.delete(key.as_bytes()).await;
        self.came_of(key, call, Did::Delete, deleted);
    }

    /// Reads, and writes a new value if nobody else did meanwhile.
    async fn swap(&self, key: &str) {
        let Some(found) = self.read_row(key).await else { return };
        let (call, new) = (self.book.now(), self.book.value());
        let condition = found.map_or(KvCondition::Absent, |(_, version)| KvCondition::Version(version));
        let written = self.kv.put_if(key.as_bytes(), new.to_string().as_bytes(), condition).await;
        // Who is refused hears what was there: that is as good as a read of it.
        if let Err(KvError::Refused(KvRefusal::Condition { found, .. })) = &written {
            let version = found.map(|version| (key.to_owned(), version.to_bits()));
            let there = version.map(|version| self.book.with(|book| book.versions.get(&version).copied()));
            match there {
                None => return self.book.tell(self.process, key, call, Did::Read(None), Outcome::Ok),
                Some(Some(value)) => {
                    return self.book.tell(self.process, key, call, Did::Read(Some(value)), Outcome::Ok);
                }
                Some(None) => {}
            }
        }
        let expected = found.map(|(value, _)| value);
        self.came_of(key, call, Did::Cas { expected, new }, written);
    }

    /// The value of a key and its version; none where it was not answered.
    async fn read_row(&self, key: &str) -> Option<Option<(Value, HybridTime)>> {
        let call = self.book.now();
        let answered = self.kv.get(key.as_bytes(), Needs::Strong).await;
        let found = answered.ok().and_then(|answer| self.row(key, &answer));
        let (did, outcome) = match found {
            Some(row) => (Did::Read(row.map(|(value, _)| value)), Outcome::Ok),
            None => (Did::Read(None), Outcome::Fail),
        };
        self.book.tell(self.process, key, call, did, outcome);
        found
    }

    /// What an answer says; none where that makes no sense.
    fn row(&self, key: &str, answer: &KvAnswer) -> Option<Option<(Value, HybridTime)>> {
        if answer.level != Guarantee::StrictSerializable {
            self.book.wrong(format!("a strong read was answered with the level {}", answer.level));
            return None;
        }
        let Some(row) = answer.rows.first() else { return Some(None) };
        let value = std::str::from_utf8(&row.value).ok().and_then(|text| text.parse().ok());
        let Some(value) = value.filter(|_| row.key == key.as_bytes()) else {
            self.book.wrong(format!("a read of {key} was answered with {row:?}"));
            return None;
        };
        self.knows(key, row.version, value);
        Some(Some((value, row.version)))
    }

    fn knows(&self, key: &str, version: HybridTime, value: Value) {
        let known = (key.to_owned(), version.to_bits());
        let before = self.book.with(|book| book.versions.insert(known, value));
        if let Some(before) = before.filter(|before| *before != value) {
            let version = version.to_bits();
            self.book
                .wrong(format!("version {version} of {key} is the value {before} and the value {value}"));
        }
    }

    /// Tells a write; whether it was acknowledged.
    fn came_of(&self, key: &str, call: u64, did: Did, written: Result<KvWritten, KvError>) -> bool {
        let outcome = match &written {
            Ok(_) => Outcome::Ok,
            Err(KvError::Refused(_)) => Outcome::Fail,
            Err(KvError::Fault(fault)) if fault.delivery() == Delivery::NotSent => Outcome::Fail,
            Err(KvError::Fault(_) | KvError::Weaker { .. }) => Outcome::Unknown,
        };
        if let (Ok(written), Did::Write(value) | Did::Cas { new: value, .. }) = (&written, did) {
            self.knows(key, written.version, value);
        }
        self.book.tell(self.process, key, call, did, outcome);
        written.is_ok()
    }
}
