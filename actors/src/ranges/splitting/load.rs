//! Which key halves a range's requests: a few sampled keys, and on which side of each the requests fall.
//!
//! * It decides: which of the keys are kept, and which of them is the best one to split before, if any will do.
//! * It never does: weigh requests. A scan counts as one, however long it is.
//!
//! As CockroachDB's load-based splitting does it (`pkg/kv/kvserver/split`, the unweighted finder): a reservoir of so many first
//! keys of requests; each later request that does not come into it counts for each of them as left, right or crossing. What differs:
//! a key will do if neither side has less than a quarter, instead of a balance score below a quarter; and not all requests are
//! recorded.

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::rng::Rng;
use rhumb_storage::mvcc::UserKey;

use super::{Rejected, since};

/// Keys that are kept.
const SAMPLES: usize = 20;
/// Requests that have to be counted for a key before it is believed.
const LEAST: u64 = 100;

/// The keys of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched<'a> {
    /// The first one.
    pub from: &'a UserKey,
    /// How far it goes.
    pub to: Upto<'a>,
}

/// How far a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upto<'a> {
    /// It is of one key.
    Alone,
    /// To this key, itself included.
    Including(&'a UserKey),
    /// To before this key.
    Before(&'a UserKey),
    /// To the end of the range.
    End,
}

impl Touched<'_> {
    /// Whether it has keys on both sides of where a range would be split before this key.
    fn crosses(&self, key: &UserKey) -> bool {
        self.from < key
            && match self.to {
                Upto::Alone => false,
                Upto::Including(last) => key <= last,
                Upto::Before(end) => key < end,
                Upto::End => true,
            }
    }
}

#[derive(Debug)]
struct Sample {
    key: UserKey,
    left: u64,
    right: u64,
    crossed: u64,
}

impl Sample {
    fn counted(&self) -> u64 {
        self.left + self.right + self.crossed
    }

    /// Why the range is not split before it.
    fn rejected(&self) -> Option<Rejected> {
        let sided = self.left + self.right;
        match () {
            () if self.counted() < LEAST => Some(Rejected::Few),
            () if self.crossed * 2 > self.counted() => Some(Rejected::Crossed),
            () if self.left.min(self.right) * 4 < sided || sided == 0 => Some(Rejected::Unbalanced),
            () => None,
        }
    }

    /// The lower the better, in millionths: how far the sides are apart, and how many requests cross the key.
    fn score(&self) -> u64 {
        let apart = self.left.abs_diff(self.right) * 1_000_000 / (self.left + self.right).max(1);
        apart + self.crossed * 1_000_000 / self.counted().max(1)
    }
}

/// The best key to split before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Best {
    /// It.
    pub key: UserKey,
    /// Requests before it.
    pub left: u64,
    /// Requests from it on.
    pub right: u64,
    /// Requests on both sides.
    pub crossed: u64,
}

/// A sample of keys.
#[derive(Debug)]
pub struct Finder {
    begun: HybridTime,
    rng: Rng,
    recorded: u64,
    /// Those of several keys.
    wide: u64,
    samples: Vec<Sample>,
}

impl Finder {
    /// Begins to record.
    #[must_use]
    pub fn begin(now: HybridTime, rng: Rng) -> Self {
        Self { begun: now, rng, recorded: 0, wide: 0, samples: Vec::with_capacity(SAMPLES) }
    }

    /// For how long it has recorded.
    #[must_use]
    pub fn lasted(&self, now: HybridTime) -> Duration {
        since(self.begun, now)
    }

    /// A request.
    pub fn record(&mut self, touched: &Touched<'_>) {
        let sample = || Sample { key: touched.from.clone(), left: 0, right: 0, crossed: 0 };
        self.recorded += 1;
        self.wide += u64::from(touched.to != Upto::Alone);
        if self.samples.len() < SAMPLES {
            self.samples.push(sample());
            return;
        }
        let drawn = usize::try_from(self.rng.below(self.recorded)).unwrap_or(usize::MAX);
        if let Some(replaced) = self.samples.get_mut(drawn) {
            *replaced = sample();
            return;
        }
        for sample in &mut self.samples {
            match () {
                () if touched.crosses(&sample.key) => sample.crossed += 1,
                () if *touched.from < sample.key => sample.left += 1,
                () => sample.right += 1,
            }
        }
    }

    /// The best of the keys behind the first one of the range.
    ///
    /// # Errors
    /// Why none will do.
    pub fn best(&self, first: &UserKey) -> Result<Best, Rejected> {
        let may = self.samples.iter().filter(|sample| sample.key > *first);
        let good = may.filter(|sample| sample.rejected().is_none());
        match good.min_by_key(|sample| sample.score()) {
            Some(best) => {
                let Sample { key, left, right, crossed } = best;
                Ok(Best { key: key.clone(), left: *left, right: *right, crossed: *crossed })
            }
            None => Err(self.none()),
        }
    }

    fn none(&self) -> Rejected {
        let of = |why| self.samples.iter().filter(|sample| sample.rejected() == Some(why)).count();
        let same = |key: &UserKey| self.samples.iter().filter(|sample| sample.key == *key).count();
        let hottest = self.samples.iter().map(|sample| same(&sample.key)).max().unwrap_or_default();
        match () {
            () if of(Rejected::Few) * 2 > self.samples.len() || self.samples.is_empty() => Rejected::Few,
            () if self.wide * 2 > self.recorded && of(Rejected::Crossed) > 0 => Rejected::Crossed,
            () if hottest * 2 >= self.samples.len() => Rejected::HotKey,
            () => Rejected::Unbalanced,
        }
    }
}
