//! What all clients tell of their reads and writes, as it comes: one account, which is judged when it is closed.
//!
//! * It decides: which operations there were and which of them are one batch, what a refusal says of a key, and whether a version of a
//!   key was ever two values.
//! * It never does: leave out what it is told.
//! * Invariant: whatever is in its history was told; what is known only later comes into it later.

use std::collections::BTreeMap;

use rhumb_core::HybridTime;

use crate::levels::{Levels, Reading};
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
    /// What was written at a version, as far as somebody was told.
    versions: BTreeMap<(String, HybridTime), Value>,
    /// Whose version nobody knows yet.
    refused: Vec<Refused>,
    levels: Levels,
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
    /// Somebody was told otherwise.
    pub fn knows(&mut self, key: &str, version: HybridTime, value: Value) -> Result<(), String> {
        let before = *self.versions.entry((key.to_owned(), version)).or_insert(value);
        if before == value {
            return Ok(());
        }
        Err(format!("version {version} of key {key} is the value {before} and the value {value}"))
    }

    /// A key was shown in this version to somebody who read it.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn shown(&mut self, key: &str, version: Option<HybridTime>, reading: Reading) -> Result<(), String> {
        self.levels.judge(key, version, reading)
    }

    /// A process begins to write these.
    pub fn begins(&mut self, process: u32, dids: &[(String, Did)]) {
        deleted(dids).for_each(|key| self.levels.deletes(process, key));
    }

    /// What came of them, from `times.0` to `times.1`.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn ends(&mut self, process: u32, times: (u64, u64), dids: Dids, ended: Ended) -> Result<(), String> {
        if matches!(ended, Ended::Not | Ended::Because { .. }) {
            deleted(&dids).for_each(|key| self.levels.not_deleted(process, key));
        }
        match ended {
            Ended::At(version) => {
                let mut may_be = Ok(());
                for one in &dids {
                    may_be = may_be.and(self.was_done(process, times.1, one, version));
                }
                self.tell(process, times, dids, Outcome::Ok);
                may_be
            }
            Ended::Not => {
                self.tell(process, times, dids, Outcome::Fail);
                Ok(())
            }
            Ended::Unknown => {
                self.tell(process, times, dids, Outcome::Unknown);
                Ok(())
            }
            Ended::Because { place, found } => {
                if matches!(dids.get(place), Some((_, Did::Cas { .. }))) {
                    return self.was_refused(Refused { process, times, dids, place, found });
                }
                let words = format!("a write of {dids:?} was refused for what is at place {place}");
                self.tell(process, times, dids, Outcome::Fail);
                Err(words)
            }
        }
    }

    fn was_done(
        &mut self,
        process: u32,
        ns: u64,
        (key, did): &(String, Did),
        version: HybridTime,
    ) -> Result<(), String> {
        // What it was to be it was up to then: that is as good as a state of that time.
        let was = match did {
            Did::Cas { expected: Some(value), .. } => self.version_of(key, *value).map(Some),
            Did::Cas { expected: None, .. } => Some(None),
            _ => None,
        };
        let may_be = was.map_or(Ok(()), |was| self.levels.was(key, was, version));
        self.levels.acked(process, key, ns, version, *did != Did::Delete);
        may_be.and(did.writes().map_or(Ok(()), |value| self.knows(key, version, value)))
    }

    fn version_of(&self, key: &str, value: Value) -> Option<HybridTime> {
        let of = |bits| (key.to_owned(), HybridTime::from_bits(bits));
        let mut all = self.versions.range(of(0)..=of(u64::MAX)).rev();
        all.find(|(_, known)| **known == value).map(|((_, version), _)| *version)
    }

    /// Who is refused hears what is there: that is as good as a read of it, as soon as anybody knows what was written then.
    fn was_refused(&mut self, refused: Refused) -> Result<(), String> {
        let Refused { process, times, ref dids, place, found } = refused;
        let (key, did) = &dids[place];
        let there = match found {
            None => None,
            Some(version) => match self.versions.get(&(key.clone(), version)) {
                Some(value) => Some(*value),
                None => {
                    self.refused.push(refused);
                    return Ok(());
                }
            },
        };
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

    const LONG: Duration = Duration::from_secs(10);

    fn time(ms: u64) -> HybridTime {
        HybridTime::new(ms, 0)
    }

    fn dids(all: &[(&str, Did)]) -> Dids {
        all.iter().map(|(key, did)| ((*key).to_owned(), *did)).collect()
    }

    /// One writes the keys `k` and `l`: the values 1 and 2 at version 10.
    fn begun() -> Account {
        let mut account = Account::default();
        let wrote = dids(&[("k", Did::Write(1)), ("l", Did::Write(2))]);
        account.ends(1, (0, 10), wrote, Ended::At(time(10))).expect("it may be");
        account
    }

    #[test]
    fn who_is_refused_has_read_what_was_there_and_what_was_before_it() {
        let refused = |found| {
            let mut account = begun();
            let wrote = dids(&[("k", swap(Some(1), 3)), ("m", Did::Write(4)), ("l", swap(Some(9), 5))]);
            account.ends(2, (20, 30), wrote, Ended::Because { place: 2, found }).map(|()| account)
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
        later.knows("l", time(15), 7).expect("nobody knew");
        assert_eq!((later.close(), never.close()), (Ok(()), Ok(())));
        assert_eq!(lines(&later), reads(Some(7)));
        assert_eq!(lines(&never), [held]);
    }

    #[test]
    fn a_refusal_for_what_is_so_cannot_be() {
        let refuses = |expected, found| {
            let mut account = begun();
            let wrote = dids(&[("k", swap(expected, 3))]);
            account.ends(2, (20, 30), wrote, Ended::Because { place: 0, found })
        };
        assert_eq!(refuses(Some(2), Some(time(10))), Ok(()));
        assert_eq!(refuses(None, Some(time(10))), Ok(()));
        assert!(refuses(Some(1), Some(time(10))).is_err());
        assert!(refuses(None, None).is_err());
        // Nor can one for a key that was to be nothing, or was not written.
        for place in 0..2 {
            let ended = Ended::Because { place, found: None };
            assert!(begun().ends(2, (20, 30), dids(&[("k", Did::Delete)]), ended).is_err());
        }
    }

    #[test]
    fn a_version_is_one_value() {
        let mut account = begun();
        assert_eq!(account.knows("k", time(10), 1), Ok(()));
        assert!(account.knows("k", time(10), 2).is_err());
        assert!(account.ends(2, (20, 30), dids(&[("l", Did::Write(7))]), Ended::At(time(10))).is_err());
    }

    #[test]
    fn what_was_done_under_a_condition_says_what_was_before_it() {
        // One that was deleted by somebody who does not know it, and put where it was not: it is not deleted a second time.
        let story = |then| {
            let mut account = begun();
            let deletes = dids(&[("k", Did::Delete)]);
            account.begins(2, &deletes);
            account.ends(2, (20, 30), deletes, Ended::Unknown).expect("it may be");
            let was = if then { None } else { Some(1) };
            account.ends(1, (40, 50), dids(&[("k", swap(was, 3))]), Ended::At(time(50))).expect("it may be");
            let reading = Reading {
                least: Guarantee::Eventual,
                level: Guarantee::Eventual,
                bound: None,
                from_ns: 0,
                age: Duration::ZERO,
                call_ns: 60,
                at: time(70),
                seen: time(50),
            };
            account.shown("k", None, reading).expect("a deletion is open");
            account.close()
        };
        assert_eq!(story(false), Ok(()), "it may have been deleted since");
        assert!(story(true).is_err());
    }
}
