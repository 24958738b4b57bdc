//! Which versions nobody can need any more.
//!
//! * It decides: the threshold, below which nothing is read from now on; and what may be deleted under it: of each key,
//!   all that is older than its newest version at or below the threshold, and that one too if it says that the key is not
//!   there.
//! * It never does: lower a threshold, delete an intent, or delete a deletion while something that it deletes remains.
//! * Invariant: what is read as of a time at or above the threshold is the same before and after.
//!
//! The order is: the threshold is raised and made durable on the replicas; from then on reads below it are refused; then
//! versions are deleted, in batches that all replicas apply alike.

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};

use super::key::{self, KeyspaceId, UserKey};
use super::read::{ReadError, Rows, decoded, opened};

/// Rows that are looked at for each that may be found: a step ends where little is to be found, too.
const LOOKED_AT: usize = 64;

/// What keeps versions from being collected. Each may be empty: then it keeps nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Protected<'a> {
    /// The times at which active readers read.
    pub readers: &'a [HybridTime],
    /// The times at which exports read.
    pub exports: &'a [HybridTime],
    /// Up to which times replicas have applied that lag behind.
    pub replicas: &'a [HybridTime],
    /// The times of intents that are not decided.
    pub intents: &'a [HybridTime],
}

impl Protected<'_> {
    /// The highest threshold that takes nothing from anybody: the retention's end, or what is protected below that.
    #[must_use]
    pub fn watermark(&self, now: HybridTime, retention: Duration) -> HybridTime {
        let ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let retained = HybridTime::new(now.millis().saturating_sub(ms), 0);
        if canary::sings(Canary::GcAboveWatermark) {
            return retained;
        }
        let all = [self.readers, self.exports, self.replicas, self.intents];
        if canary::sings(Canary::GcOfEmptySets) && all.iter().all(|set| set.is_empty()) {
            return now;
        }
        all.into_iter().flatten().copied().fold(retained, HybridTime::min)
    }
}

/// Below which nothing is read from now on. It only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(HybridTime);

impl Threshold {
    /// As it is kept.
    #[must_use]
    pub fn at(at: HybridTime) -> Self {
        Self(at)
    }

    /// The earliest time that can be read.
    #[must_use]
    pub fn get(self) -> HybridTime {
        self.0
    }

    /// Raises it to this watermark. Whether it is higher than it was.
    pub fn raise(&mut self, watermark: HybridTime) -> bool {
        let raised = watermark > self.0;
        self.0 = self.0.max(watermark);
        raised
    }
}

/// Versions that may be deleted, in one batch or several, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Rows of the family `Mvcc`.
    pub rows: Vec<Vec<u8>>,
    /// Where to go on, if the limit was reached.
    pub next: Option<UserKey>,
}

/// Finds at most `limit` versions of keys from `from` on (itself included) to `to` (itself not) that nobody can need who
/// reads at or above the threshold. It may end before it has found so many: [`Garbage::next`] says whether it has.
///
/// # Errors
/// [`ReadError`] of storage or of damage. Intents do not stop it.
pub fn collect<R: Rows + ?Sized>(
    rows: &R,
    keyspace: KeyspaceId,
    (from, to): (&UserKey, Option<&UserKey>),
    threshold: Threshold,
    limit: usize,
) -> Result<Garbage, ReadError> {
    let within = key::of_keyspace(keyspace);
    let end = to.map(|to| key::prefix(keyspace, to));
    let mut found = Finding {
        keyspace,
        threshold,
        limit,
        looked_at: 0,
        seen: Vec::new(),
        key: Vec::new(),
        last: None,
        garbage: Garbage::default(),
    };
    let mut failed = None;
    rows.walk(&key::prefix(keyspace, from), &mut |row, value| {
        if !row.starts_with(&within) || end.as_ref().is_some_and(|end| row >= end.as_slice()) {
            return false;
        }
        match found.meet(row, value) {
            Ok(goes_on) => goes_on,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(found.finish()),
    }
}

/// A collection on its way.
struct Finding {
    keyspace: KeyspaceId,
    threshold: Threshold,
    limit: usize,
    looked_at: usize,
    /// The key of the last row, as a row without its time.
    seen: Vec<u8>,
    /// The key that is looked at, once its newest version at or below the threshold has been met, as a row without its time.
    key: Vec<u8>,
    /// That version, if it says that the key is not there. It goes behind all that is older.
    last: Option<Vec<u8>>,
    garbage: Garbage,
}

impl Finding {
    /// Takes a row in. Whether there is room for more.
    fn meet(&mut self, row: &[u8], value: &[u8]) -> Result<bool, ReadError> {
        let is_older = !self.key.is_empty() && key::of_row(row) == self.key;
        if !is_older {
            self.garbage.rows.extend(self.last.take());
        }
        let (key, at) = decoded(self.keyspace, row)?;
        self.looked_at += 1;
        // Only between two keys: a step that began again with the same key would never get past it.
        let is_next = key::of_row(row) != self.seen;
        let tired = is_next && self.looked_at > self.limit.saturating_mul(LOOKED_AT);
        if self.garbage.rows.len() >= self.limit || tired {
            self.last = None;
            self.garbage.next = Some(key);
            return Ok(false);
        }
        if is_next {
            self.seen = key::of_row(row).to_vec();
        }
        if at > self.threshold.get() {
            return Ok(true);
        }
        let record = opened(self.keyspace, at, row, value)?;
        if record.header.intent.is_some() {
            return Ok(true);
        }
        if is_older {
            self.garbage.rows.push(row.to_vec());
            return Ok(true);
        }
        self.key = key::of_row(row).to_vec();
        if record.live(self.threshold.get()).is_none() {
            if canary::sings(Canary::DeletionBeforeDeleted) {
                self.garbage.rows.push(row.to_vec());
            } else {
                self.last = Some(row.to_vec());
            }
        }
        Ok(true)
    }

    fn finish(mut self) -> Garbage {
        self.garbage.rows.extend(self.last.take());
        self.garbage
    }
}
