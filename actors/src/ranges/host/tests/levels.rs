//! What is promised of reads that are not strong, and of tokens, while everything goes wrong.
//!
//! * It decides: whether what such a read shows may be: against what was acknowledged when in true time, what its client had seen
//!   before it, and what other reads as of other times have shown.
//! * It never does: believe of an answer anything but the time as of which it is.
//! * Versions of a key only rise. A key that is not there was not written yet, or deleted by then.

use std::collections::BTreeMap;

use rhumb_core::rng::Rng;
use rhumb_core::{Guarantee, HybridTime};

use super::net::{BEGIN_MS, MS};
use super::sim;
use crate::ranges::Consistency;

/// How far back in milliseconds it is read what was: some of it is older than what is kept.
const BACK: u64 = 2_300;
/// Times that are read again, wherever that is.
const TIMES: usize = 4;

/// A read, as its client asked for it, and as it was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) consistency: Consistency,
    pub(super) level: Guarantee,
    pub(super) at: HybridTime,
    /// The version of the key that the token stood for which it was asked with.
    pub(super) seen: HybridTime,
}

/// All that clients were told of some keys.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// What was acknowledged: when in true time, and at which version.
    acked: BTreeMap<usize, Vec<(u64, HybridTime)>>,
    deleted: BTreeMap<usize, Vec<HybridTime>>,
    /// Deletions that are on their way, or of unknown outcome.
    open: BTreeMap<usize, usize>,
    /// What reads as of a time have shown.
    shown: BTreeMap<(usize, HybridTime), Option<HybridTime>>,
    /// Times that were asked for last.
    times: Vec<HybridTime>,
}

impl Levels {
    /// A deletion of a key begins.
    pub(super) fn deletes(&mut self, key: usize) {
        *self.open.entry(key).or_default() += 1;
    }

    /// One that began was not done for sure.
    pub(super) fn not_deleted(&mut self, key: usize) {
        *self.open.entry(key).or_default() -= 1;
    }

    /// A write was acknowledged; `is_there`: the key was not deleted by it.
    pub(super) fn acked(&mut self, key: usize, at: HybridTime, is_there: bool) {
        self.acked.entry(key).or_default().push((sim::now(), at));
        if !is_there {
            self.not_deleted(key);
            self.deleted.entry(key).or_default().push(at);
        }
    }

    /// A time as of which is read: one that was read as of before, or a new one.
    pub(super) fn time(&mut self, rng: &mut Rng) -> HybridTime {
        if let Some(again) = rng.pick(&self.times).copied().filter(|_| rng.chance(0.6)) {
            return again;
        }
        let at = HybridTime::new(BEGIN_MS + sim::now() / MS - rng.between(0, BACK), 0);
        self.times.push(at);
        let more = self.times.len().saturating_sub(TIMES);
        self.times.drain(..more);
        at
    }

    /// Whether a key may have been shown like this, just now.
    pub(super) fn judge(
        &mut self,
        key: usize,
        found: Option<HybridTime>,
        reading: Reading,
    ) -> Result<(), String> {
        let Reading { consistency, level, at, seen } = reading;
        if let Consistency::Bounded(bound) = consistency {
            let due = self.due(key, bound.as_micros() as u64);
            if self.is_behind(key, found, due, at) {
                return Err(format!("{due} was acknowledged before its bound of {bound:?}"));
            }
        }
        let is_old = matches!(consistency, Consistency::AsOf(_));
        if !is_old && self.is_behind(key, found, seen, at) {
            return Err(format!("its token has seen {seen}, and it was read {consistency:?}"));
        }
        if level == Guarantee::Snapshot { self.showed(key, at, found) } else { Ok(()) }
    }

    /// The newest version of a key that was acknowledged so long ago.
    fn due(&self, key: usize, ago: u64) -> HybridTime {
        let all = self.acked.get(&key).into_iter().flatten();
        let due = all.filter(|(when, _)| *when + ago <= sim::now()).map(|(_, at)| *at);
        due.max().unwrap_or_default()
    }

    /// Whether a key cannot have been this at a time at or after the version `least`.
    fn is_behind(&self, key: usize, found: Option<HybridTime>, least: HybridTime, at: HybridTime) -> bool {
        let was_deleted = || {
            let in_time = |deleted: &HybridTime| (least..=at).contains(deleted);
            let known = self.deleted.get(&key).is_some_and(|all| all.iter().any(in_time));
            known || self.open.get(&key).is_some_and(|open| *open > 0)
        };
        match found {
            Some(found) => found < least,
            None => least > HybridTime::ZERO && !was_deleted(),
        }
    }

    /// A read as of a time has shown this: the same as every other one as of that time.
    fn showed(&mut self, key: usize, at: HybridTime, found: Option<HybridTime>) -> Result<(), String> {
        let before = *self.shown.entry((key, at)).or_insert(found);
        if before == found {
            return Ok(());
        }
        Err(format!("as of {at} key {key} was {before:?} where it was read first, and {found:?} elsewhere"))
    }

    /// In the end: whether all that was shown as of times is of one history, which has all that was acknowledged.
    pub(super) fn agree(&self) -> Result<(), String> {
        let mut last: Option<(usize, HybridTime, Option<HybridTime>)> = None;
        for ((key, at), found) in &self.shown {
            let acked = self.acked.get(key).into_iter().flatten().map(|(_, at)| *at);
            let least = acked.filter(|acked| acked <= at).max().unwrap_or_default();
            let from_later = found.is_some_and(|found| found > *at);
            if from_later || self.is_behind(*key, *found, least, *at) {
                return Err(format!("key {key} as of {at} shows {found:?}, and {least} was acknowledged"));
            }
            let before = last.filter(|(before, ..)| before == key);
            if let (Some((_, then, was)), Some(version)) = (before, found)
                && (Some(*version) < was || (*version <= then && Some(*version) != was))
            {
                return Err(format!("key {key} was {was:?} as of {then}, and {found:?} as of {at}"));
            }
            last = Some((*key, *at, *found));
        }
        Ok(())
    }
}
