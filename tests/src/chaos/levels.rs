//! Reads that are not strong, and tokens: what they must show, by what their clients were told.
//!
//! * It decides: whether what such a read shows may be: against what was acknowledged when, by the clock of the process in which all
//!   clients are; what its client had seen; and what other reads as of the same and other times have shown.
//! * It never does: go by a node's clock, but for the age of which an answer says that it is by that.
//! * Versions of a key only rise. A key that is not there was not written yet, or deleted by then.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::HybridTime;

/// A read, as its client asked for it, and as it was answered.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Its bound, if it was to have one: of clocks that are right.
    pub bound: Option<Duration>,
    /// When it began.
    pub call_ns: u64,
    /// As of which time it was answered.
    pub at: HybridTime,
    /// Whether what it shows is the whole state of that time.
    pub is_snapshot: bool,
    /// The version of the key that its token stands for. A read as of a time goes by none.
    pub seen: HybridTime,
}

/// All that clients were told of some keys.
#[derive(Debug, Default)]
pub struct Levels {
    /// What was acknowledged, when, and at which version.
    acked: BTreeMap<String, Vec<(u64, HybridTime)>>,
    deleted: BTreeMap<String, Vec<HybridTime>>,
    /// Deletions that are on their way, or of unknown outcome.
    open: BTreeMap<String, usize>,
    shown: BTreeMap<(String, HybridTime), Option<HybridTime>>,
}

impl Levels {
    /// A deletion of a key begins.
    pub fn deletes(&mut self, key: &str) {
        *self.open.entry(key.to_owned()).or_default() += 1;
    }

    /// One that began was not done for sure.
    pub fn not_deleted(&mut self, key: &str) {
        if let Some(open) = self.open.get_mut(key) {
            *open -= 1;
        }
    }

    /// A write of a key was acknowledged; `is_there`: it did not delete it.
    pub fn acked(&mut self, key: &str, ns: u64, at: HybridTime, is_there: bool) {
        self.acked.entry(key.to_owned()).or_default().push((ns, at));
        if !is_there {
            self.not_deleted(key);
            self.deleted.entry(key.to_owned()).or_default().push(at);
        }
    }

    /// Whether a key may have been shown like this.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&mut self, key: &str, found: Option<HybridTime>, reading: Reading) -> Result<(), String> {
        let Reading { bound, call_ns, at, is_snapshot, seen } = reading;
        if let Some(bound) = bound {
            let ago = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
            let all = self.acked.get(key).into_iter().flatten();
            let due = all.filter(|(ns, _)| ns.saturating_add(ago) <= call_ns).map(|(_, at)| *at).max();
            let due = due.unwrap_or_default();
            if self.is_behind(key, found, due, at) {
                return Err(format!(
                    "shows {found:?}, and {due} was acknowledged before its bound of {bound:?}"
                ));
            }
        }
        if self.is_behind(key, found, seen, at) {
            return Err(format!("shows {found:?}, and its client's token has seen {seen}"));
        }
        if !is_snapshot {
            return Ok(());
        }
        match *self.shown.entry((key.to_owned(), at)).or_insert(found) {
            before if before == found => Ok(()),
            before => Err(format!("shows {found:?} as of {at}, and elsewhere it was {before:?} then")),
        }
    }

    /// Whether a key cannot have been this at a time at or after the version `least`.
    fn is_behind(&self, key: &str, found: Option<HybridTime>, least: HybridTime, at: HybridTime) -> bool {
        let was_deleted = || {
            let in_time = |deleted: &HybridTime| (least..=at).contains(deleted);
            let known = self.deleted.get(key).is_some_and(|all| all.iter().any(in_time));
            known || self.open.get(key).is_some_and(|open| *open > 0)
        };
        match found {
            Some(found) => found < least,
            None => least > HybridTime::ZERO && !was_deleted(),
        }
    }

    /// In the end: whether all that was shown as of times is of one history, which has all that was acknowledged.
    ///
    /// # Errors
    /// The first key that has two.
    pub fn agree(&self) -> Result<(), String> {
        let mut last: Option<(&String, HybridTime, Option<HybridTime>)> = None;
        for ((key, at), found) in &self.shown {
            let acked = self.acked.get(key).into_iter().flatten().map(|(_, acked)| *acked);
            let least = acked.filter(|acked| acked <= at).max().unwrap_or_default();
            let from_later = found.is_some_and(|found| found > *at);
            if from_later || self.is_behind(key, *found, least, *at) {
                return Err(format!("{key} as of {at} shows {found:?}, and {least} was acknowledged"));
            }
            let before = last.filter(|(before, ..)| *before == key);
            if let (Some((_, then, was)), Some(version)) = (before, found)
                && (Some(*version) < was || (*version <= then && Some(*version) != was))
            {
                return Err(format!("{key} was {was:?} as of {then}, and {found:?} as of {at}"));
            }
            last = Some((key, *at, *found));
        }
        Ok(())
    }
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
        levels.deletes("k");
        for (ms, is_there) in [(10, true), (20, true), (30, true), (40, false)] {
            levels.acked("k", ms * MS, time(ms), is_there);
        }
        levels
    }

    fn bounded(ms: u64, call: u64) -> Reading {
        let (bound, at, seen) = (Some(Duration::from_millis(ms)), time(100), HybridTime::ZERO);
        Reading { bound, call_ns: call * MS, at, is_snapshot: false, seen }
    }

    #[test]
    fn a_bounded_read_shows_what_was_acknowledged_before_its_bound() {
        let mut levels = told();
        for (found, ms, call, may) in [
            (Some(20), 10, 35, true),
            (Some(20), 5, 34, true),
            (Some(20), 5, 35, false),
            (Some(10), 5, 26, false),
            (None, 5, 9, true),
            (None, 5, 60, true),
            (Some(30), 5, 60, false),
            (Some(50), 5, 60, true),
        ] {
            let judged = levels.judge("k", found.map(time), bounded(ms, call));
            assert_eq!(judged.is_ok(), may, "{found:?} within {ms} at {call}: {judged:?}");
        }
        let mut none_deleted = Levels::default();
        none_deleted.acked("k", 10 * MS, time(10), true);
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_err());
        none_deleted.deletes("k");
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_ok());
        none_deleted.not_deleted("k");
        assert!(none_deleted.judge("k", None, bounded(5, 20)).is_err());
    }

    #[test]
    fn a_token_sees_what_it_has_seen() {
        let mut levels = told();
        let seen =
            |seen| Reading { bound: None, call_ns: 0, at: time(100), is_snapshot: false, seen: time(seen) };
        for (found, least, may) in [
            (Some(20), 20, true),
            (Some(10), 20, false),
            (None, 40, true),
            (None, 0, true),
            (None, 50, false),
        ] {
            let judged = levels.judge("k", found.map(time), seen(least));
            assert_eq!(judged.is_ok(), may, "{found:?} after {least}: {judged:?}");
        }
    }

    #[test]
    fn reads_as_of_times_are_of_one_history() {
        let as_of = |at| {
            let (at, seen) = (time(at), HybridTime::ZERO);
            Reading { bound: None, call_ns: 0, at, is_snapshot: true, seen }
        };
        let shown = |all: &[(u64, Option<u64>)]| {
            let mut levels = told();
            for (at, found) in all {
                levels.judge("k", found.map(time), as_of(*at))?;
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
}
