//! What all clients tell of their reads and writes, as it comes: one account, which is judged when it is closed.
//!
//! * It decides: which operations there were and which of them are one batch, what a refusal says of a key, and whether a value that
//!   somebody was shown, at whatever level, is one that a client wrote to that key, once, at one version, and was not told that it did not.
//! * It never does: leave out what it is told.
//! * Invariant: whatever is in its history was told; what is known only later comes into it later. A write whose version is known was
//!   done, and all of it at that version.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::HybridTime;
use rhumb_core::rng::Rng;

use crate::levels::{Levels, Reading, just_before};
use crate::operation::{Did, Operation, Outcome, Value};

/// Keys, and what is done with each, at one moment.
pub type Dids = Vec<(String, Did)>;

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was acknowledged: all of it was done at this version.
    At(HybridTime),
    /// It was not done, and will not be.
    Not,
    /// It was not done, as the key at this place is not what it was to be. Those before it are.
    Because {
        /// At which place.
        place: usize,
        /// The version that the key has, if it is there.
        found: Option<HybridTime>,
    },
    /// It may have been done, or be done yet.
    Unknown,
}

/// What all clients have told.
#[derive(Debug, Default)]
pub struct Account {
    history: Vec<Operation>,
    batches: u64,
    /// All that were begun, in this order.
    writes: Vec<Write>,
    /// What each process writes at this moment.
    under_way: BTreeMap<u32, usize>,
    /// Which write a value of a key is of.
    values: BTreeMap<(String, Value), usize>,
    /// What was written at a version, as far as somebody was told; none: the key was deleted.
    versions: BTreeMap<(String, HybridTime), Option<Value>>,
    /// The times of all these.
    times: BTreeSet<HybridTime>,
    /// Whose version nobody knows yet.
    refused: Vec<Refused>,
    levels: Levels,
}

/// A write that was begun.
#[derive(Debug)]
struct Write {
    dids: Dids,
    /// It was not done, and will not be.
    was_refused: bool,
    /// At which version it was done, as far as somebody was told.
    version: Option<HybridTime>,
}

/// A write that was not done because of what a key was.
#[derive(Debug)]
struct Refused {
    process: u32,
    times: (u64, u64),
    dids: Dids,
    place: usize,
    found: Option<HybridTime>,
}

impl Account {
    /// Something was done at one moment, from `times.0` to `times.1`, and came to this.
    pub fn tell(&mut self, process: u32, times: (u64, u64), dids: Dids, outcome: Outcome) {
        let (call_ns, back) = times;
        // What may have been done may be done at any later time.
        let return_ns = (outcome != Outcome::Unknown).then_some(back);
        self.batches += u64::from(dids.len() > 1);
        let batch = (dids.len() > 1).then_some(self.batches);
        let line = |(key, did)| Operation { process, key, batch, did, call_ns, return_ns, outcome };
        self.history.extend(dids.into_iter().map(line));
    }

    /// A key has this value at this version, as everybody has to be told.
    ///
    /// # Errors
    /// Nobody wrote that, or it was refused; somebody was told otherwise.
    pub fn knows(&mut self, key: &str, version: HybridTime, value: Value) -> Result<(), String> {
        match self.values.get(&(key.to_owned(), value)) {
            Some(write) => self.is_at(*write, version),
            None => Err(format!("version {version} of key {key} is the value {value}, which nobody wrote")),
        }
    }

    /// A write was done at this version: all of it, and at no other one.
    fn is_at(&mut self, write: usize, version: HybridTime) -> Result<(), String> {
        let Write { dids, was_refused, version: known } = &mut self.writes[write];
        if *was_refused {
            return Err(format!("a write of {dids:?} was refused, and is there at version {version}"));
        }
        let before = *known.get_or_insert(version);
        if before != version {
            return Err(format!("a write of {dids:?} is there at version {before} and at version {version}"));
        }
        self.times.insert(version);
        for (key, did) in dids.iter() {
            let value = did.writes();
            self.levels.knows(write, key, version, value.is_some());
            let before = *self.versions.entry((key.clone(), version)).or_insert(value);
            if before != value {
                return Err(format!("version {version} of key {key} is {before:?} and {value:?}"));
            }
        }
        Ok(())
    }

    /// A time as of which to read: this one or, in three cases of ten, the next one of a version that is known, or the last one before that.
    /// Where `<` stands for `<=`, it is these that show it.
    pub fn edge(&self, at: HybridTime, rng: &mut Rng) -> HybridTime {
        let (is_edge, is_before) = (rng.chance(0.3), rng.chance(0.5));
        let next = self.times.range(at..).next().filter(|_| is_edge);
        next.map_or(at, |version| if is_before { just_before(*version) } else { *version })
    }

    /// A key was shown in this version to somebody who read it.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn shown(&mut self, key: &str, version: Option<HybridTime>, reading: Reading) -> Result<(), String> {
        self.levels.judge(key, version, reading)
    }

    /// A process begins to write these.
    pub fn begins(&mut self, process: u32, dids: Dids) {
        let write = self.writes.len();
        for (key, did) in &dids {
            match did.writes() {
                Some(value) => drop(self.values.insert((key.clone(), value), write)),
                None => self.levels.deletes(write, key),
            }
        }
        self.writes.push(Write { dids, was_refused: false, version: None });
        self.under_way.insert(process, write);
    }

    /// What came of what it began last, from `times.0` to `times.1`.
    ///
    /// # Errors
    /// Why it may not be.
    ///
    /// # Panics
    /// It has begun nothing.
    pub fn ends(&mut self, process: u32, times: (u64, u64), ended: Ended) -> Result<(), String> {
        let write = self.under_way.remove(&process).expect("it was begun");
        let dids = self.writes[write].dids.clone();
        match ended {
            Ended::At(version) => {
                let may_be = self.was_done(write, times.1, version);
                self.tell(process, times, dids, Outcome::Ok);
                may_be
            }
            Ended::Not => {
                self.tell(process, times, dids, Outcome::Fail);
                self.was_not_done(write)
            }
            Ended::Unknown => {
                self.tell(process, times, dids, Outcome::Unknown);
                Ok(())
            }
            Ended::Because { place, found } => {
                let may_be = self.was_not_done(write);
                if matches!(dids.get(place), Some((_, Did::Cas { .. }))) {
                    let is_so = self.was_refused(Refused { process, times, dids, place, found });
                    return may_be.and(is_so);
                }
                let words = format!("a write of {dids:?} was refused for what is at place {place}");
                self.tell(process, times, dids, Outcome::Fail);
                Err(words)
            }
        }
    }

    fn was_not_done(&mut self, write: usize) -> Result<(), String> {
        let Write { dids, was_refused, version } = &mut self.writes[write];
        *was_refused = true;
        deleted(dids).for_each(|key| self.levels.not_deleted(write, key));
        let is_there =
            |version| Err(format!("a write of {dids:?} was refused, and is there at version {version}"));
        version.map_or(Ok(()), is_there)
    }

    fn was_done(&mut self, write: usize, ns: u64, version: HybridTime) -> Result<(), String> {
        let dids = self.writes[write].dids.clone();
        let mut may_be = Ok(());
        for (key, did) in &dids {
            // What it was to be it was up to then: that is as good as a state of that time.
            let was = match did {
                Did::Cas { expected: Some(value), .. } => self.version_of(key, *value).map(Some),
                Did::Cas { expected: None, .. } => Some(None),
                _ => None,
            };
            may_be = may_be.and(was.map_or(Ok(()), |was| self.levels.was(key, was, version)));
            self.levels.acked(write, key, ns, version, *did != Did::Delete);
        }
        may_be.and(self.is_at(write, version))
    }

    fn version_of(&self, key: &str, value: Value) -> Option<HybridTime> {
        let write = self.values.get(&(key.to_owned(), value))?;
        self.writes[*write].version
    }

    /// Who is refused hears what is there: that is as good as a read of it, as soon as anybody knows what was written then.
    fn was_refused(&mut self, refused: Refused) -> Result<(), String> {
        let Refused { process, times, ref dids, place, found } = refused;
        let (key, did) = &dids[place];
        found.into_iter().for_each(|version| self.levels.found(key, version));
        let there = match found.map(|version| self.versions.get(&(key.clone(), version)).copied()) {
            None => None,
            Some(Some(there)) => there,
            Some(None) => {
                self.refused.push(refused);
                return Ok(());
            }
        };
        if found.is_some() && there.is_none() {
            let words =
                format!("a write was refused for the version {found:?} of key {key}, which deleted it");
            self.tell(process, times, refused.dids, Outcome::Fail);
            return Err(words);
        }
        let mut reads = held(dids, place);
        reads.push((key.clone(), Did::Read(there)));
        let is_so = matches!(did, Did::Cas { expected, .. } if *expected == there);
        let words = format!("a write was refused because key {key} is {there:?}, as it was to be");
        self.tell(process, times, reads, Outcome::Ok);
        if is_so { Err(words) } else { Ok(()) }
    }

    /// All that was told, so far.
    #[must_use]
    pub fn history(&self) -> &[Operation] {
        &self.history
    }

    /// All that was told, and nothing more is.
    #[must_use]
    pub fn into_history(mut self) -> Vec<Operation> {
        self.settle().ok();
        self.history
    }

    /// Nothing more is told: whether all that was shown otherwise than strongly is of one history. Of what is strong
    /// [`linear::check`](crate::linear::check) says whether it can have been.
    ///
    /// # Errors
    /// Why not.
    pub fn close(&mut self) -> Result<(), String> {
        self.settle().and(self.levels.agree())
    }

    /// What was refused, by all that is known.
    fn settle(&mut self) -> Result<(), String> {
        let mut may_be = Ok(());
        for refused in std::mem::take(&mut self.refused) {
            may_be = may_be.and(self.was_refused(refused));
        }
        for Refused { process, times, dids, place, .. } in std::mem::take(&mut self.refused) {
            // Nobody knows what was there; but what was before it.
            match held(&dids, place) {
                none if none.is_empty() => self.tell(process, times, dids, Outcome::Fail),
                reads => self.tell(process, times, reads, Outcome::Ok),
            }
        }
        may_be
    }
}

fn deleted(dids: &[(String, Did)]) -> impl Iterator<Item = &str> {
    dids.iter().filter(|(_, did)| *did == Did::Delete).map(|(key, _)| key.as_str())
}

/// What keys before this place were, as they were to be so.
fn held(dids: &[(String, Did)], place: usize) -> Dids {
    let held = dids[..place].iter().filter_map(|(key, did)| match did {
        Did::Cas { expected, .. } => Some((key.clone(), Did::Read(*expected))),
        _ => None,
    });
    held.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rhumb_core::Guarantee;

    use super::*;
    use crate::linear;
    use crate::sound::swap;

    const LONG: Duration = Duration::from_secs(600);

    fn time(ms: u64) -> HybridTime {
        HybridTime::new(ms, 0)
    }

    fn dids(all: &[(&str, Did)]) -> Dids {
        all.iter().map(|(key, did)| ((*key).to_owned(), *did)).collect()
    }

    /// A process writes these, from the one time to the other.
    fn writes(
        account: &mut Account,
        process: u32,
        times: (u64, u64),
        all: &[(&str, Did)],
        ended: Ended,
    ) -> Result<(), String> {
        account.begins(process, dids(all));
        account.ends(process, times, ended)
    }

    /// One writes the keys `k` and `l`: the values 1 and 2 at version 10.
    fn begun() -> Account {
        let mut account = Account::default();
        let wrote = [("k", Did::Write(1)), ("l", Did::Write(2))];
        writes(&mut account, 1, (0, 10), &wrote, Ended::At(time(10))).expect("it may be");
        account
    }

    /// A read of this level as of a time, with no token, which begins long after.
    fn read(level: Guarantee, at: u64) -> Reading {
        let (seen, gone) = (HybridTime::ZERO, HybridTime::ZERO);
        let (bound, age, call_ns) = (None, Duration::ZERO, 1_000);
        let (as_of, at) = (None, time(at));
        Reading { least: level, level, bound, from_ns: call_ns, age, call_ns, as_of, at, seen, gone }
    }

    #[test]
    fn who_is_refused_has_read_what_was_there_and_what_was_before_it() {
        let refused = |found| {
            let mut account = begun();
            let wrote = [("k", swap(Some(1), 3)), ("m", Did::Write(4)), ("l", swap(Some(9), 5))];
            let ended = Ended::Because { place: 2, found };
            writes(&mut account, 2, (20, 30), &wrote, ended).map(|()| account)
        };
        let lines = |account: &Account| -> Vec<_> {
            account.history().iter().skip(2).map(|one| (one.key.clone(), one.did, one.outcome)).collect()
        };
        let held = ("k".to_owned(), Did::Read(Some(1)), Outcome::Ok);
        let reads = |value| [held.clone(), ("l".to_owned(), Did::Read(value), Outcome::Ok)];
        let (there, gone) = (refused(Some(time(10))).expect("so"), refused(None).expect("so"));
        assert_eq!(lines(&there), reads(Some(2)));
        assert_eq!(lines(&gone), reads(None));
        assert_eq!(linear::check(there.history(), LONG), Ok(()));
        assert!(linear::check(gone.history(), LONG).is_err(), "nobody deleted it");
        // What it was may be known later; if it never is, what was before it is known.
        let mut later = refused(Some(time(15))).expect("so");
        assert!(lines(&later).is_empty(), "nobody knows what it was");
        let mut never = refused(Some(time(15))).expect("so");
        later.begins(3, dids(&[("l", Did::Write(7))]));
        later.knows("l", time(15), 7).expect("nobody knew");
        assert_eq!((later.close(), never.close()), (Ok(()), Ok(())));
        assert_eq!(lines(&later), reads(Some(7)));
        assert_eq!(lines(&never), [held]);
    }

    #[test]
    fn a_refusal_for_what_is_so_cannot_be() {
        let refuses = |expected, found| {
            let ended = Ended::Because { place: 0, found };
            writes(&mut begun(), 2, (20, 30), &[("k", swap(expected, 3))], ended)
        };
        assert_eq!(refuses(Some(2), Some(time(10))), Ok(()));
        assert_eq!(refuses(None, Some(time(10))), Ok(()));
        assert!(refuses(Some(1), Some(time(10))).is_err());
        assert!(refuses(None, None).is_err());
        // Nor can one for a key that was to be nothing, or was not written.
        for place in 0..2 {
            let ended = Ended::Because { place, found: None };
            assert!(writes(&mut begun(), 2, (20, 30), &[("k", Did::Delete)], ended).is_err());
        }
        // Nor one for a version at which it was deleted.
        let mut account = begun();
        writes(&mut account, 1, (12, 15), &[("k", Did::Delete)], Ended::At(time(15))).expect("it may be");
        let ended = Ended::Because { place: 0, found: Some(time(15)) };
        assert!(writes(&mut account, 2, (20, 30), &[("k", swap(Some(1), 3))], ended).is_err());
    }

    #[test]
    fn a_version_is_one_value() {
        let mut account = begun();
        account.begins(2, dids(&[("k", Did::Write(3))]));
        assert_eq!(account.knows("k", time(10), 1), Ok(()));
        assert!(account.knows("k", time(10), 3).is_err());
        let at = Ended::At(time(10));
        assert!(writes(&mut begun(), 2, (20, 30), &[("l", Did::Write(7))], at).is_err());
        assert!(writes(&mut begun(), 2, (20, 30), &[("l", Did::Delete)], at).is_err());
    }

    #[test]
    fn a_value_that_is_shown_was_written_to_its_key_once() {
        let shown = |key: &str, version, value| {
            let mut account = begun();
            account.begins(2, dids(&[("k", Did::Write(3)), ("m", Did::Write(4))]));
            account.knows("m", time(20), 4).expect("it is on its way");
            account.knows(key, time(version), value)
        };
        assert_eq!((shown("l", 10, 2), shown("k", 20, 3)), (Ok(()), Ok(())));
        for (wrong, key, version, value) in [
            ("nobody wrote it", "k", 15, 9),
            ("it was written to another key", "k", 10, 2),
            ("it was acknowledged at another version", "l", 15, 2),
            ("it is there already at another version", "m", 25, 4),
            ("what was written with it is there already at another version", "k", 25, 3),
        ] {
            assert!(shown(key, version, value).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_refused_is_shown_to_nobody_before_or_after() {
        let conditions = Ended::Because { place: 0, found: Some(time(10)) };
        for (ended, may_be) in [
            (Ended::Unknown, true),
            (Ended::At(time(20)), true),
            (Ended::At(time(25)), false),
            (Ended::Not, false),
            (conditions, false),
        ] {
            let wrote = [("k", swap(Some(9), 3)), ("m", Did::Write(4))];
            let mut before = begun();
            before.begins(2, dids(&wrote));
            before.knows("m", time(20), 4).expect("it is on its way");
            let ends = before.ends(2, (15, 30), ended);
            assert_eq!(ends.is_ok(), may_be, "{ended:?}: {ends:?}");
            let mut after = begun();
            writes(&mut after, 2, (15, 30), &wrote, ended).expect("nobody was shown it");
            let shown = after.knows("m", time(20), 4);
            assert_eq!(shown.is_ok(), may_be, "{ended:?}: {shown:?}");
        }
    }

    #[test]
    fn a_state_that_shows_a_part_of_what_was_written_at_one_moment_shows_all_of_it() {
        // One whose outcome is not known deletes `l`. A state shows the one key, and the other one as it was before, or in one other.
        let story = |level, k: (u64, u64), l: Option<u64>| {
            let mut account = begun();
            let wrote = [("k", Did::Write(3)), ("l", Did::Delete), ("m", Did::Write(4))];
            writes(&mut account, 2, (20, 30), &wrote, Ended::Unknown).expect("it may be");
            account.knows("k", time(k.0), k.1).expect("it may be");
            account.shown("k", Some(time(k.0)), read(level, 25)).expect("it may be");
            account.shown("l", l.map(time), read(Guarantee::Snapshot, 25)).expect("it may be");
            account.close()
        };
        for level in [Guarantee::Snapshot, Guarantee::Eventual, Guarantee::StrictSerializable] {
            assert_eq!(story(level, (20, 3), None), Ok(()));
            assert!(story(level, (20, 3), Some(10)).is_err(), "{level}: half of it");
        }
        assert_eq!(story(Guarantee::Snapshot, (10, 1), Some(10)), Ok(()), "it was not done by then");
        // So with what was put, where nobody has been shown the key itself.
        let mut account = begun();
        let wrote = [("k", Did::Write(3)), ("m", Did::Write(4))];
        writes(&mut account, 2, (20, 30), &wrote, Ended::Unknown).expect("it may be");
        account.knows("k", time(20), 3).expect("it may be");
        account.shown("m", None, read(Guarantee::Snapshot, 20)).expect("nothing is closed yet");
        assert!(account.close().is_err());
        // And a deletion whose time is known excuses no absence at another one.
        let gone = |at| {
            let mut account = begun();
            let wrote = [("k", Did::Write(3)), ("l", Did::Delete)];
            writes(&mut account, 2, (20, 30), &wrote, Ended::Unknown).expect("it may be");
            account.shown("l", None, read(Guarantee::Snapshot, at)).expect("a deletion is open");
            account.knows("k", time(20), 3).expect("it may be");
            account.close()
        };
        assert_eq!(gone(20), Ok(()));
        assert!(gone(15).is_err());
    }

    #[test]
    fn what_a_refusal_says_of_a_key_every_state_shows() {
        let story = |found| {
            let mut account = begun();
            let ended = Ended::Because { place: 0, found: Some(time(15)) };
            writes(&mut account, 2, (20, 30), &[("k", swap(Some(1), 3))], ended).expect("it may be");
            account
                .shown("k", Some(time(found)), read(Guarantee::Snapshot, 17))
                .expect("nothing is closed yet");
            account.close()
        };
        assert_eq!(story(15), Ok(()));
        assert!(story(10).is_err());
    }

    #[test]
    fn times_at_which_something_was_written_and_the_last_ones_before_are_read_as_of() {
        let (account, mut rng) = (begun(), rhumb_core::rng::Seed::new(1).rng());
        let mut drawn = |at| -> BTreeSet<_> { (0..100).map(|_| account.edge(time(at), &mut rng)).collect() };
        assert_eq!(drawn(5), BTreeSet::from([time(5), just_before(time(10)), time(10)]));
        assert_eq!(drawn(11), BTreeSet::from([time(11)]), "nothing was written after that");
    }

    #[test]
    fn what_was_done_under_a_condition_says_what_was_before_it() {
        // One that was deleted by somebody who does not know it, and put where it was not: it is not deleted a second time.
        let story = |then| {
            let mut account = begun();
            writes(&mut account, 2, (20, 30), &[("k", Did::Delete)], Ended::Unknown).expect("it may be");
            let was = if then { None } else { Some(1) };
            let swaps = [("k", swap(was, 3))];
            writes(&mut account, 1, (40, 50), &swaps, Ended::At(time(50))).expect("it may be");
            let reading = Reading { seen: time(50), ..read(Guarantee::Eventual, 70) };
            account.shown("k", None, reading).expect("a deletion is open");
            account.close()
        };
        assert_eq!(story(false), Ok(()), "it may have been deleted since");
        assert!(story(true).is_err());
    }
}
