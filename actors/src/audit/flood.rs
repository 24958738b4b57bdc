//! What happens often, told seldom: the first of a kind in a minute at once, the rest as a number when the minute
//! is over. A flood of refusals cannot fill a disk.
//!
//! * It decides: what is told, and when. Of one kind there are at most two tellings a minute, and of all kinds
//!   at most two for each of [`MAX_KINDS`] and two for those beyond.
//! * It never does: forget that something happened. Kinds beyond the bound are counted as one.
//! * Invariant: the counts that were told and those that are kept add up to what happened.

use std::collections::BTreeMap;

use rhumb_core::HybridTime;

/// Kinds that are told apart within a minute.
pub const MAX_KINDS: usize = 512;
const MINUTE_MS: u64 = 60_000;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<K> {
    /// Of which kind; none: of kinds beyond [`MAX_KINDS`], taken together.
    pub kind: Option<K>,
    /// How many times, beyond those that were told before.
    pub count: u64,
    /// In which minute, counted from the Unix epoch.
    pub minute: u64,
}

/// Kinds of a minute, counted.
#[derive(Debug)]
pub struct Flood<K> {
    minute: u64,
    /// What has happened since its kind was told first in this minute.
    since: BTreeMap<Option<K>, u64>,
}

impl<K> Default for Flood<K> {
    fn default() -> Self {
        Self { minute: 0, since: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Flood<K> {
    /// Something of a kind happened. `tell` gets what is to be told now.
    pub fn happened(&mut self, now: HybridTime, kind: K, mut tell: impl FnMut(Told<K>)) {
        self.pass(now, &mut tell);
        let known = self.since.contains_key(&Some(kind.clone()));
        let room = self.since.len() - usize::from(self.since.contains_key(&None)) < MAX_KINDS;
        let kind = (known || room).then_some(kind);
        match self.since.get_mut(&kind) {
            Some(more) => *more += 1,
            None => {
                self.since.insert(kind.clone(), 0);
                tell(Told { kind, count: 1, minute: self.minute });
            }
        }
    }

    /// Time passes. `tell` gets what is to be told of a minute that is over.
    pub fn pass(&mut self, now: HybridTime, mut tell: impl FnMut(Told<K>)) {
        let minute = now.millis() / MINUTE_MS;
        if minute == self.minute {
            return;
        }
        let over = std::mem::replace(&mut self.minute, minute);
        for (kind, count) in std::mem::take(&mut self.since) {
            if count > 0 {
                tell(Told { kind, count, minute: over });
            }
        }
    }

    /// When [`Flood::pass`] has something to tell, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.since.values().any(|count| *count > 0).then(|| (self.minute + 1) * MINUTE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> HybridTime {
        HybridTime::new(seconds * 1_000, 0)
    }

    #[test]
    fn the_first_of_a_minute_is_told_at_once_and_the_rest_when_it_is_over() {
        let (mut flood, mut told) = (Flood::default(), Vec::new());
        for second in [60, 61, 62, 119, 121] {
            flood.happened(at(second), "eu", |one| told.push((second, one.count, one.minute)));
        }
        assert_eq!(told, [(60, 1, 1), (121, 3, 1), (121, 1, 2)]);
        assert_eq!(flood.next_deadline(), None, "the one of this minute is told");
        flood.happened(at(130), "eu", |_| panic!("not the first"));
        assert_eq!(flood.next_deadline(), Some(180_000));
        flood.pass(at(180), |one| told.push((180, one.count, one.minute)));
        assert_eq!(told[3..], [(180, 1, 2)]);
        assert_eq!(flood.next_deadline(), None);
    }

    #[test]
    fn a_flood_of_kinds_is_told_seldom_and_counted_whole() {
        let (mut flood, mut tellings, mut counted) = (Flood::default(), 0, 0);
        for number in 0..100_000_u64 {
            flood.happened(at(60 + number / 40_000), number % 5_000, |one| {
                tellings += 1;
                counted += one.count;
            });
        }
        flood.pass(at(120), |one| {
            tellings += 1;
            counted += one.count;
        });
        assert_eq!(counted, 100_000);
        assert!(tellings <= 2 * (MAX_KINDS + 1), "{tellings}");
    }

    #[test]
    fn a_clock_that_goes_back_loses_no_count() {
        let (mut flood, mut counted) = (Flood::default(), 0);
        for second in [300, 301, 200, 201, 301] {
            flood.happened(at(second), (), |one| counted += one.count);
        }
        flood.pass(at(900), |one| counted += one.count);
        assert_eq!(counted, 5);
    }
}
