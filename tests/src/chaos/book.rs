//! What all clients tell, in one book: a history of what is strong, and what is wrong with the rest.
//!
//! * It decides: when things were, and by how much longer bounds are while a clock is beyond what they rest on. What may be is decided by
//!   [`rhumb_histories`].
//! * It never does: leave out a line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rhumb::client::kv::{KvAnswer, Needs};
use rhumb_core::rng::Rng;
use rhumb_core::{Guarantee, HybridTime};
use rhumb_histories::{Account, Dids, Ended, Operation, Outcome, Reading, Value};
use tokio::time::Instant;

use super::clients::BOUNDS;

/// So long after a clock was beyond the bound, and as long again as it was off, times that it gave out may make what is old look younger:
/// the longest bound, and a second.
const SETTLED: Duration = Duration::from_millis(BOUNDS.1 + 1_000);
/// Times that are read again, wherever that is.
const TIMES: usize = 6;

/// What all clients tell.
pub struct Book {
    begun: Instant,
    next: AtomicU64,
    beyond: Mutex<Beyond>,
    told: Mutex<Told>,
}

/// Clocks that are beyond what bounds rest on, or were a moment ago: until when that tells, and by how much they are off. What is read
/// meanwhile can be older than its bound by that, and no more: the times by which it is judged are given out by two clocks, and the rest of
/// what those differ by is within the bound.
#[derive(Debug, Default)]
struct Beyond(Vec<(u64, Duration)>);

impl Beyond {
    fn begins(&mut self, off: Duration) {
        self.0.push((u64::MAX, off));
    }

    fn ends(&mut self, now: u64, off: Duration) {
        let tells = u64::try_from((SETTLED + off).as_nanos()).unwrap_or(u64::MAX);
        if let Some(is) = self.0.iter_mut().find(|is| **is == (u64::MAX, off)) {
            is.0 = now.saturating_add(tells);
        }
    }

    /// By how much more than its bound what was asked for then may be old.
    fn more(&self, call_ns: u64) -> Duration {
        self.0.iter().filter(|(until, _)| call_ns < *until).map(|(_, off)| *off).sum()
    }
}

struct Told {
    file: BufWriter<File>,
    /// How many lines of the account are in the file.
    lines: usize,
    account: Account,
    /// The last write that was acknowledged.
    newest: Option<HybridTime>,
    /// Times as of which was read last.
    times: Vec<HybridTime>,
    /// How many reads were answered, by what they asked for.
    answered: BTreeMap<&'static str, u32>,
    wrong: BTreeSet<String>,
}

/// A key, as an answer shows it.
pub struct Shown<'a> {
    /// To whom.
    pub process: u32,
    /// Which key.
    pub key: &'static str,
    /// Its version, if it is there.
    pub version: Option<HybridTime>,
    /// When it was asked for.
    pub call_ns: u64,
    /// How.
    pub needs: Needs,
    /// The answer.
    pub answer: &'a KvAnswer,
    /// The version that the token stands for with which it was asked.
    pub seen: HybridTime,
    /// As of which time that token has seen that it is gone.
    pub gone: HybridTime,
}

/// What clients have told.
#[derive(Debug, Default)]
pub struct Closed {
    /// All that was strong.
    pub history: Vec<Operation>,
    /// How many keys were read otherwise, by how.
    pub answered: BTreeMap<&'static str, u32>,
    /// What was wrong with answers.
    pub wrong: Vec<String>,
}

impl Book {
    /// A book of which each line goes to a file.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn of(file: &Path) -> anyhow::Result<Self> {
        let made = File::create(file).with_context(|| file.display().to_string())?;
        let told = Told {
            file: BufWriter::new(made),
            lines: 0,
            account: Account::default(),
            newest: None,
            times: Vec::new(),
            answered: BTreeMap::new(),
            wrong: BTreeSet::new(),
        };
        let next = AtomicU64::new(1);
        Ok(Self { begun: Instant::now(), next, beyond: Mutex::default(), told: Mutex::new(told) })
    }

    /// Nanoseconds since the book was begun.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A value that was not written yet.
    pub fn value(&self) -> Value {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Told) -> T) -> T {
        work(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells what was read at one moment, or that it was not.
    pub fn tell(&self, process: u32, call_ns: u64, dids: Dids, outcome: Outcome) {
        let times = (call_ns, self.now());
        self.with(|book| {
            book.account.tell(process, times, dids, outcome);
            book.writes();
        });
    }

    /// Something that no answer should say.
    pub fn wrong(&self, what: String) {
        self.with(|book| book.wrong.insert(what));
    }

    /// A key has this value at this version, as everybody has to be told.
    pub fn knows(&self, key: &str, version: HybridTime, value: Value) {
        self.with(|book| {
            let known = book.account.knows(key, version, value);
            book.must(known);
        });
    }

    /// A process begins to write these.
    pub fn begins(&self, process: u32, dids: Dids) {
        self.with(|book| book.account.begins(process, dids));
    }

    /// What came of it.
    pub fn ends(&self, process: u32, call_ns: u64, ended: Ended) {
        let times = (call_ns, self.now());
        self.with(|book| {
            if let Ended::At(version) = ended {
                book.newest = book.newest.max(Some(version));
            }
            let may_be = book.account.ends(process, times, ended);
            book.must(may_be);
            book.writes();
        });
    }

    /// A clock is off by more than clocks may be, or (`over`) is right again.
    pub fn beyond(&self, off_ms: i64, over: bool) {
        let off = Duration::from_millis(off_ms.unsigned_abs());
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        if over { beyond.ends(self.now(), off) } else { beyond.begins(off) }
    }

    /// A time as of which to read: mostly one as of which was read before; none while nothing was written.
    pub fn time(&self, rng: &mut Rng) -> Option<HybridTime> {
        let (known, newest) = self.with(|book| (rng.pick(&book.times).copied(), book.newest));
        let ago = rng.between(0, 6_000);
        if let Some(again) = known.filter(|_| rng.chance(0.6)) {
            return Some(again);
        }
        let at = HybridTime::new(newest.filter(|newest| newest.millis() > ago)?.millis() - ago, 0);
        Some(self.with(|book| {
            let at = book.account.edge(at, rng);
            book.times.push(at);
            let more = book.times.len().saturating_sub(TIMES);
            book.times.drain(..more);
            at
        }))
    }

    /// A key was shown to a client: whether it may be.
    pub fn shown(&self, shown: &Shown<'_>) {
        let Shown { process, key, version, call_ns, needs, answer, seen, gone } = *shown;
        let bound = match needs {
            Needs::Bounded(bound) => Some(bound),
            _ => None,
        };
        let least = match needs {
            Needs::Strong => Guarantee::StrictSerializable,
            Needs::Eventual => Guarantee::Eventual,
            _ => Guarantee::Snapshot,
        };
        let more = self.beyond.lock().unwrap_or_else(PoisonError::into_inner).more(call_ns);
        let more = u64::try_from(more.as_nanos()).unwrap_or(u64::MAX);
        let as_of = match needs {
            Needs::AsOf(time) => Some(time),
            _ => None,
        };
        let goes_by = |seen| if as_of.is_some() { HybridTime::ZERO } else { seen };
        let reading = Reading {
            least,
            level: answer.level,
            bound,
            from_ns: call_ns.saturating_sub(more),
            age: answer.age,
            call_ns,
            as_of,
            at: answer.at,
            seen: goes_by(seen),
            gone: goes_by(gone),
        };
        let way = match needs {
            Needs::Strong => "strong",
            Needs::Bounded(_) => "bounded",
            Needs::Eventual => "eventual",
            Needs::AsOf(_) => "as of",
        };
        self.with(|book| {
            *book.answered.entry(way).or_default() += 1;
            let region = &answer.region;
            let words = |why| format!("a {way} read of {key} by process {process} in {region} {why}");
            let may_be = book.account.shown(key, version, reading).map_err(words);
            book.must(may_be);
        });
    }

    /// All that was told, and what was wrong with answers.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn close(self) -> anyhow::Result<Closed> {
        let mut told = self.told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let agrees = told.account.close();
        told.must(agrees);
        told.writes();
        told.file.flush()?;
        let Told { account, answered, wrong, .. } = told;
        Ok(Closed { history: account.into_history(), answered, wrong: wrong.into_iter().collect() })
    }
}

impl Told {
    fn must(&mut self, may_be: Result<(), String>) {
        self.wrong.extend(may_be.err());
    }

    /// Writes what is not in the file yet.
    fn writes(&mut self) {
        let told = self.account.history();
        let written = told[self.lines..].iter().try_for_each(|one| writeln!(self.file, "{one}"));
        self.lines = told.len();
        self.must(written.map_err(|error| format!("the history cannot be written: {error}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_beyond_the_bound_makes_bounds_longer_by_what_it_is_off_until_that_has_passed() {
        let (ms, ns) = (Duration::from_millis, |secs: u64| secs * 1_000_000_000);
        let mut beyond = Beyond::default();
        assert_eq!(beyond.more(ns(1)), Duration::ZERO, "all clocks are right");
        beyond.begins(ms(2_000));
        assert_eq!(beyond.more(ns(100)), ms(2_000));
        beyond.ends(ns(10), ms(2_000));
        assert_eq!(beyond.more(ns(21) - 1), ms(2_000), "what it gave out is believed for a while");
        assert_eq!(beyond.more(ns(21)), Duration::ZERO);
        // Another one, before that has passed.
        beyond.begins(ms(800));
        assert_eq!(beyond.more(ns(20)), ms(2_800));
        assert_eq!(beyond.more(ns(21)), ms(800));
    }
}
