//! What reads of each level must show, and with tokens, by what their clients were told.
//!
//! * It decides: whether what a read shows may be: against what was acknowledged when, by one clock that all clients share; what its
//!   client had seen; and what others as of the same and other times have shown. Whether strong ones have an order is
//!   [`linear`](crate::linear)'s.
//! * It never does: go by a node's clock, but for the age of which an answer says that it is by that.
//! * Versions of a key only rise. A key that is not there was not written yet, or deleted by then. So a state shows of each key the newest
//!   of all versions up to its time that are known, whoever was told of them, and at whatever level.
//!
//! A deletion of unknown outcome excuses that a key is not there. But it was done once at most, at one time: later than what had been
//! acknowledged when it was begun, and at none at which somebody was shown a state in which it was not done. So in the end all absences
//! that nothing else excuses must be of as many times as there are such deletions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::{Guarantee, HybridTime};

/// A read, as its client asked for it, and as it was answered.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The least level that it was asked for with.
    pub least: Guarantee,
    /// The level with which it was answered.
    pub level: Guarantee,
    /// Its bound, if it was to have one.
    pub bound: Option<Duration>,
    /// From when that counts back: from when it was asked for, or by so much earlier as clocks are beyond what bounds rest on.
    pub from_ns: u64,
    /// How old the answer is, by its own word.
    pub age: Duration,
    /// When it began.
    pub call_ns: u64,
    /// As of which time it was asked for, if it was to be as of one.
    pub as_of: Option<HybridTime>,
    /// As of which time it was answered.
    pub at: HybridTime,
    /// The version of the key that its token stands for. A read as of a time goes by none.
    pub seen: HybridTime,
    /// As of which time its token has seen that the key is not there: what it was by then is gone. Strong reads do not count, for what was
    /// on its way may come below their times. A read as of a time goes by none.
    pub gone: HybridTime,
}

/// All that clients were told of some keys.
#[derive(Debug, Default)]
pub struct Levels {
    keys: BTreeMap<String, Key>,
}

#[derive(Debug, Default)]
struct Key {
    /// What was acknowledged, when, and at which version.
    acked: Vec<(u64, HybridTime)>,
    /// All versions that somebody was told of, deletions among them.
    known: BTreeSet<HybridTime>,
    deleted: BTreeSet<HybridTime>,
    /// Deletions that are on their way, or of unknown outcome: by which write, and the newest version that was acknowledged before.
    open: Vec<(usize, HybridTime)>,
    /// What it was as of a time.
    shown: BTreeMap<HybridTime, Option<HybridTime>>,
    /// When it was shown not to be there, and nothing but an open deletion excused it.
    absent: Vec<Absent>,
}

/// A key was not there at a time, though it had been at another one: it was deleted between.
#[derive(Debug, Clone)]
struct Absent {
    since: HybridTime,
    at: HybridTime,
    words: String,
}

impl Levels {
    /// A write begins that deletes a key.
    pub fn deletes(&mut self, write: usize, key: &str) {
        let key = self.of(key);
        let newest = key.newest(|_, _| true);
        key.open.push((write, newest));
    }

    /// It was not done for sure.
    pub fn not_deleted(&mut self, write: usize, key: &str) {
        let open = &mut self.of(key).open;
        if let Some(place) = open.iter().rposition(|(of, _)| *of == write) {
            open.remove(place);
        }
    }

    /// A write of a key was acknowledged; `is_there`: it did not delete it.
    pub fn acked(&mut self, write: usize, key: &str, ns: u64, at: HybridTime, is_there: bool) {
        self.knows(write, key, at, is_there);
        self.of(key).acked.push((ns, at));
    }

    /// A write of a key was done at this version, as somebody was told; `is_there`: it did not delete it.
    pub fn knows(&mut self, write: usize, key: &str, at: HybridTime, is_there: bool) {
        if !is_there {
            self.not_deleted(write, key);
            self.of(key).deleted.insert(at);
        }
        self.found(key, at);
    }

    /// Somebody was told that a key has this version.
    pub fn found(&mut self, key: &str, version: HybridTime) {
        self.of(key).known.insert(version);
    }

    /// A write at this version was acknowledged, which was only to be done if a key was in this one.
    ///
    /// # Errors
    /// Why it cannot have been.
    pub fn was(&mut self, key: &str, was: Option<HybridTime>, before: HybridTime) -> Result<(), String> {
        let key = self.of(key);
        key.known.extend(was);
        key.showed(was, just_before(before))
    }

    /// Whether a key may have been shown like this.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&mut self, key: &str, found: Option<HybridTime>, reading: Reading) -> Result<(), String> {
        let Reading { least, level, bound, from_ns, age, call_ns, as_of, at, seen, gone } = reading;
        if !level.meets(least) {
            return Err(format!("is answered as {level}, and was asked for as {least}"));
        }
        if let Some(time) = as_of.filter(|time| *time != at) {
            return Err(format!("is answered as of {at}, and was asked for as of {time}"));
        }
        if let Some(version) = found.filter(|version| *version > at) {
            return Err(format!("shows {version} as of {at}, when that was not written yet"));
        }
        if let Some(version) = found.filter(|version| *version <= gone) {
            return Err(format!(
                "shows {version}, and as of {gone} its client's token has seen that it is gone"
            ));
        }
        if let Some(bound) = bound.filter(|bound| age > *bound) {
            return Err(format!("is {age:?} old by its own word, and its bound is {bound:?}"));
        }
        let key = self.of(key);
        key.known.extend(found);
        if let Some(bound) = bound {
            let ago = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
            let due = key.newest(|ns, _| ns.saturating_add(ago) <= from_ns);
            let why = || format!("{due} was acknowledged before its bound of {bound:?}");
            key.must_show(found, due, at, why)?;
        }
        if level == Guarantee::StrictSerializable {
            let due = key.newest(|ns, _| ns < call_ns);
            key.must_show(found, due, at, || format!("{due} was acknowledged before it began"))?;
        }
        key.must_show(found, seen, at, || format!("its client's token has seen {seen}"))?;
        if level == Guarantee::Snapshot { key.showed(found, at) } else { Ok(()) }
    }

    /// In the end: whether all that was shown is of one history, which has all that was acknowledged.
    ///
    /// # Errors
    /// The first key that has two.
    pub fn agree(&self) -> Result<(), String> {
        self.keys.iter().try_for_each(|(name, key)| key.agrees().map_err(|why| format!("key {name} {why}")))
    }

    fn of(&mut self, key: &str) -> &mut Key {
        self.keys.entry(key.to_owned()).or_default()
    }
}

impl Key {
    /// The newest version of those that were acknowledged.
    fn newest(&self, among: impl Fn(u64, HybridTime) -> bool) -> HybridTime {
        let all = self.acked.iter().filter(|(ns, at)| among(*ns, *at)).map(|(_, at)| *at);
        all.max().unwrap_or_default()
    }

    /// A read as of a time at or after the version `least` shows this.
    fn must_show(
        &mut self,
        found: Option<HybridTime>,
        least: HybridTime,
        at: HybridTime,
        why: impl Fn() -> String,
    ) -> Result<(), String> {
        let words = || format!("shows {found:?} as of {at}, and {}", why());
        if found.is_some_and(|found| found < least) {
            return Err(words());
        }
        if found.is_some() || least == HybridTime::ZERO || self.was_deleted(least, at) {
            return Ok(());
        }
        if self.open.is_empty() {
            return Err(words());
        }
        self.absent.push(Absent { since: least, at, words: words() });
        Ok(())
    }

    fn was_deleted(&self, since: HybridTime, at: HybridTime) -> bool {
        self.deleted.iter().any(|deleted| (since..=at).contains(deleted))
    }

    /// It was this as of that time: the same as whenever else it is looked at as of it.
    fn showed(&mut self, found: Option<HybridTime>, at: HybridTime) -> Result<(), String> {
        match *self.shown.entry(at).or_insert(found) {
            before if before == found => Ok(()),
            before => Err(format!("shows {found:?} as of {at}, and elsewhere it was {before:?} then")),
        }
    }

    fn agrees(&self) -> Result<(), String> {
        let mut absent = self.absent.clone();
        let mut last = (HybridTime::ZERO, None);
        for (&at, &found) in &self.shown {
            let (then, was) = last;
            let least = self.known.range(..=at).next_back().copied().unwrap_or_default();
            let words =
                || format!("as of {at} is {found:?}, as of {then} it was {was:?}, and {least} is known");
            if found.is_some_and(|found| found > at || found < least) {
                return Err(words());
            }
            // Where it was there it was not deleted by then.
            let since = if was.is_some() { least.max(then) } else { least };
            if found.is_none() && since > HybridTime::ZERO {
                absent.push(Absent { since, at, words: words() });
            }
            if let Some(version) = found
                && (Some(version) < was || (version <= then && Some(version) != was))
            {
                return Err(format!("was {was:?} as of {then}, and {found:?} as of {at}"));
            }
            last = (at, found);
        }
        self.excused(absent)
    }

    /// Whether deletions excuse all these absences. Those of unknown outcome were done as late as they can have been, the first
    /// absences' first: then they excuse as many as they can.
    fn excused(&self, mut absent: Vec<Absent>) -> Result<(), String> {
        absent.retain(|one| !self.was_deleted(one.since, one.at));
        let latest = |one: &Absent| {
            let mut latest = one.at;
            while let Some(version) = self.stood(latest) {
                latest = just_before(version);
            }
            latest
        };
        let mut absent: Vec<_> = absent.into_iter().map(|one| (latest(&one), one)).collect();
        absent.sort_by_key(|(latest, _)| *latest);
        let mut open: Vec<HybridTime> = self.open.iter().map(|(_, after)| *after).collect();
        let mut done = HybridTime::ZERO;
        for (latest, Absent { since, words, .. }) in absent {
            if done > since {
                continue;
            }
            let Some(one) = open.iter().position(|after| latest > since.max(*after)) else {
                return Err(format!("{words}, and no deletion can have come between"));
            };
            open.swap_remove(one);
            done = latest;
        }
        Ok(())
    }

    /// The version that it had, as states show which have it, from before this time on until after it.
    fn stood(&self, at: HybridTime) -> Option<HybridTime> {
        let (_, found) = self.shown.range(at..).find(|(_, found)| found.is_some())?;
        found.filter(|version| *version <= at)
    }
}

/// The last time before this one.
pub(crate) fn just_before(at: HybridTime) -> HybridTime {
    HybridTime::from_bits(at.to_bits().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn time(ms: u64) -> HybridTime {
        HybridTime::new(ms, 0)
    }

    /// Versions 10, 20 and 30 were acknowledged at 10, 20 and 30 ms; 40 is a deletion.
    fn told() -> Levels {
        let mut levels = Levels::default();
        levels.deletes(1, "k");
        for (ms, is_there) in [(10, true), (20, true), (30, true), (40, false)] {
            levels.acked(1, "k", ms * MS, time(ms), is_there);
        }
        levels
    }

    /// A read of this level at a time, with no token, which begins long after.
    fn read(level: Guarantee, at: u64) -> Reading {
        let (at, seen) = (time(at), HybridTime::ZERO);
        let (bound, age, call_ns) = (None, Duration::ZERO, 1_000 * MS);
        let (as_of, gone) = (None, HybridTime::ZERO);
        Reading { least: level, level, bound, from_ns: call_ns, age, call_ns, as_of, at, seen, gone }
    }

    fn bounded(ms: u64, from: u64) -> Reading {
        let bound = Some(Duration::from_millis(ms));
        Reading { bound, from_ns: from * MS, ..read(Guarantee::Serializable, 100) }
    }

    #[test]
    fn a_bounded_read_shows_what_was_acknowledged_before_its_bound() {
        let mut levels = told();
        for (found, ms, from, may) in [
            (Some(20), 10, 35, true),
            (Some(20), 5, 34, true),
            (Some(20), 5, 35, false),
            (Some(10), 5, 26, false),
            (None, 5, 9, true),
            (None, 5, 60, true),
            (Some(30), 5, 60, false),
            (Some(50), 5, 60, true),
        ] {
            let judged = levels.judge("k", found.map(time), bounded(ms, from));
            assert_eq!(judged.is_ok(), may, "{found:?} within {ms} at {from}: {judged:?}");
        }
        // However far back its bound counts, what an answer says of itself is its own word.
        let beyond = bounded(5, 30);
        assert_eq!(levels.judge("k", Some(time(30)), beyond), Ok(()));
        let old = Reading { age: Duration::from_millis(6), ..beyond };
        assert!(levels.judge("k", Some(time(30)), old).is_err());
        let mut none_deleted = Levels::default();
        none_deleted.acked(1, "k", 10 * MS, time(10), true);
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_err());
        none_deleted.deletes(1, "k");
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_ok());
        none_deleted.not_deleted(1, "k");
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_err());
    }

    #[test]
    fn a_token_sees_what_it_has_seen() {
        let mut levels = told();
        for (found, least, may) in [
            (Some(20), 20, true),
            (Some(10), 20, false),
            (None, 40, true),
            (None, 0, true),
            (None, 50, false),
        ] {
            let seen = Reading { seen: time(least), ..read(Guarantee::Eventual, 100) };
            let judged = levels.judge("k", found.map(time), seen);
            assert_eq!(judged.is_ok(), may, "{found:?} after {least}: {judged:?}");
        }
    }

    #[test]
    fn an_answer_is_no_weaker_than_what_was_asked_for_and_a_strong_one_shows_what_was_acknowledged_before() {
        let mut levels = told();
        let weaker = Reading { level: Guarantee::Eventual, ..read(Guarantee::Snapshot, 45) };
        assert!(levels.judge("k", None, weaker).is_err());
        let stronger = Reading { least: Guarantee::Eventual, ..read(Guarantee::StrictSerializable, 45) };
        assert_eq!(levels.judge("k", None, stronger), Ok(()));
        assert!(levels.judge("k", Some(time(30)), stronger).is_err());
        let begun = Reading { call_ns: 30 * MS, ..stronger };
        assert_eq!(levels.judge("k", Some(time(20)), begun), Ok(()), "30 was acknowledged as it began");
        assert!(levels.judge("k", Some(time(10)), begun).is_err());
    }

    #[test]
    fn a_read_is_as_of_the_time_that_was_asked_for_and_shows_nothing_of_later_ones() {
        let mut levels = told();
        for level in [Guarantee::Eventual, Guarantee::Snapshot, Guarantee::StrictSerializable] {
            let began = Reading { call_ns: 10 * MS, ..read(level, 30) };
            assert_eq!(levels.judge("k", Some(time(30)), began), Ok(()));
            let later = Reading { at: just_before(time(30)), ..began };
            assert!(levels.judge("k", Some(time(30)), later).is_err(), "{level}");
        }
        let asked = |at| Reading { as_of: Some(at), ..read(Guarantee::Snapshot, 20) };
        assert_eq!(levels.judge("k", Some(time(20)), asked(time(20))), Ok(()));
        assert!(levels.judge("k", Some(time(20)), asked(time(25))).is_err());
        assert!(levels.judge("k", Some(time(20)), asked(just_before(time(20)))).is_err());
    }

    #[test]
    fn what_a_token_has_seen_to_be_gone_does_not_come_back() {
        let mut levels = told();
        let reads = |gone| Reading { gone: time(gone), ..read(Guarantee::Eventual, 100) };
        assert!(levels.judge("k", Some(time(30)), reads(45)).is_err());
        assert!(levels.judge("k", Some(time(45)), reads(45)).is_err());
        assert_eq!(levels.judge("k", Some(time(46)), reads(45)), Ok(()), "it was written since");
        assert_eq!(levels.judge("k", None, reads(45)), Ok(()));
    }

    #[test]
    fn reads_as_of_times_are_of_one_history() {
        let shown = |all: &[(u64, Option<u64>)]| {
            let mut levels = told();
            for (at, found) in all {
                levels.judge("k", found.map(time), read(Guarantee::Snapshot, *at))?;
            }
            levels.agree()
        };
        assert_eq!(shown(&[(9, None), (15, Some(10)), (15, Some(10)), (25, Some(20)), (45, None)]), Ok(()));
        // What nobody acknowledged may have been written.
        assert_eq!(shown(&[(22, Some(20)), (28, Some(27)), (29, Some(27))]), Ok(()));
        for wrong in [
            &[(15, Some(10)), (15, None)][..],
            &[(25, Some(10))],
            &[(25, None)],
            &[(15, Some(16))],
            &[(28, Some(20)), (29, Some(27))],
            &[(28, Some(27)), (29, Some(26))],
        ] {
            assert!(shown(wrong).is_err(), "{wrong:?}");
        }
    }

    /// What clients tell of a key of which the version 10 was acknowledged, in its order.
    #[derive(Debug, Clone, Copy)]
    enum Told {
        /// A deletion begins, by this write.
        Deletes(usize),
        /// It was acknowledged, at this version.
        Deleted(usize, u64),
        /// It was not, and somebody was told that it was done at this version.
        Known(usize, u64),
        Put(u64),
        /// It was put where it was in the one version, in the other one.
        Swapped(Option<u64>, u64),
        /// As of a time it was this, by the whole state then.
        Was(u64, Option<u64>),
        /// A client that had seen the one version was shown at the other one that it is not there.
        Absent(u64, u64),
        /// So was one who reads strongly.
        StronglyAbsent(u64),
        /// One who reads strongly was shown this version.
        Strongly(u64),
    }

    fn tells(all: &[Told]) -> Result<(), String> {
        let mut levels = Levels::default();
        levels.acked(9, "k", 10 * MS, time(10), true);
        for told in all {
            match *told {
                Told::Deletes(write) => levels.deletes(write, "k"),
                Told::Deleted(write, at) => levels.acked(write, "k", at * MS, time(at), false),
                Told::Known(write, at) => levels.knows(write, "k", time(at), false),
                Told::Put(at) => levels.acked(9, "k", at * MS, time(at), true),
                Told::Swapped(was, at) => {
                    levels.was("k", was.map(time), time(at))?;
                    levels.acked(9, "k", at * MS, time(at), true);
                }
                Told::Was(at, found) => {
                    levels.judge("k", found.map(time), read(Guarantee::Snapshot, at))?;
                }
                Told::Absent(seen, at) => {
                    let reading = Reading { seen: time(seen), ..read(Guarantee::Eventual, at) };
                    levels.judge("k", None, reading)?;
                }
                Told::StronglyAbsent(at) => {
                    let reading = read(Guarantee::StrictSerializable, at);
                    levels.judge("k", None, reading)?;
                }
                Told::Strongly(version) => {
                    let reading = read(Guarantee::StrictSerializable, 900);
                    levels.judge("k", Some(time(version)), reading)?;
                }
            }
        }
        levels.agree()
    }

    #[test]
    fn a_deletion_of_unknown_outcome_excuses_one_time_at_which_it_can_have_been() {
        use Told::{Absent, Deleted, Deletes, Known, Put, Strongly, StronglyAbsent, Swapped, Was};

        for may_be in [
            &[Deletes(1), Absent(10, 20), Absent(10, 30), Was(40, None)][..],
            &[Deletes(1), StronglyAbsent(20), Was(15, Some(10))],
            // Two of them.
            &[Deletes(1), Absent(10, 20), Put(30), Deletes(2), Absent(30, 40)],
            &[Deletes(1), Deletes(2), Was(20, None), Put(30), Was(40, None)],
            &[Deletes(1), Was(28, Some(27)), Was(35, None), Was(40, None)],
            &[Was(5, None), Strongly(27), Was(26, Some(10)), Was(35, Some(27))],
            // It came before what was put, and is seen only where that is not.
            &[Deletes(1), Put(30), Was(20, None), Was(25, None), Was(35, Some(30))],
            &[Deletes(1), Swapped(None, 30), Absent(10, 25)],
            // One that was on its way, and was done.
            &[Deletes(1), Absent(10, 20), Deleted(1, 15), Put(30), Deletes(2), Absent(30, 40)],
            &[Deletes(1), Absent(10, 20), Known(1, 15), Put(30), Deletes(2), Absent(30, 40)],
            // As late as may be, though states show that it was not done earlier.
            &[Deletes(1), Was(20, Some(10)), Put(40), Was(30, None), Absent(10, 35)],
        ] {
            assert_eq!(tells(may_be), Ok(()), "{may_be:?}");
        }
        for wrong in [
            // It was there, and settles what came of it: it is not done a second time.
            &[Deletes(1), Absent(10, 20), Put(30), Absent(30, 40)][..],
            &[Deletes(1), StronglyAbsent(20), Put(30), StronglyAbsent(40)],
            &[Deletes(1), Was(20, None), Put(30), Was(40, None)],
            &[Deletes(1), Swapped(None, 30), Absent(30, 40)],
            // It was begun when something newer was acknowledged.
            &[Put(30), Deletes(1), Absent(10, 20)],
            &[Deletes(1), Absent(10, 20), Put(30), Put(50), Deletes(2), Absent(30, 40)],
            &[Deletes(1), Put(30), Deletes(2), Absent(10, 20), Deleted(1, 35)],
            // A state shows that it was not done by then; so does a write that was only to be done if it was not.
            &[Deletes(1), Absent(10, 20), Was(25, Some(10))],
            &[Deletes(1), Was(25, Some(10)), Absent(10, 20)],
            &[Deletes(1), Absent(10, 20), Swapped(Some(10), 30)],
            // One that was on its way, and came later, or was done already.
            &[Deletes(1), Absent(10, 20), Deleted(1, 25)],
            &[Deletes(1), Deleted(1, 15), Put(20), Absent(20, 25)],
            &[Deletes(1), Absent(10, 20), Known(1, 25)],
            &[Deletes(1), Known(1, 15), Put(20), Absent(20, 25)],
            // It was there at the time before, in a version that nobody acknowledged; or a strong read had shown one.
            &[Was(28, Some(27)), Was(35, None)],
            &[Deletes(1), Deleted(1, 20), Was(28, Some(27)), Was(35, None)],
            &[Deletes(1), Was(28, Some(27)), Was(35, None), Put(40), Was(50, None)],
            &[Strongly(27), Was(35, Some(10))],
            &[Strongly(27), Was(35, None)],
            // A state that is another one than what a write found.
            &[Deletes(1), Was(29, None), Swapped(Some(10), 30)],
        ] {
            assert!(tells(wrong).is_err(), "{wrong:?}");
        }
    }
}
