//! Collection: how far a leaseholder raises its range's threshold, and what a replica deletes below the one that it has
//! applied.
//!
//! * It decides: how far the threshold may rise (to what is older than the retention, than whoever reads here, and than
//!   replicas that lag); when that is worth an entry of the log; which part of a range is looked at next.
//! * It never does: collect above the threshold that this replica has applied, or while rows of a state are on their way to
//!   a follower (docs/decisions/0040).
//! * Invariants: a read that the leaseholder has let begin is not refused for a threshold that this holder proposes later;
//!   what is read at or above the applied threshold is the same before and after each step.
//!
//! Each replica collects by itself, at its own pace: what it deletes nobody can see who may read there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::mvcc::{
    Garbage, KeyspaceId, Protected, ReadError, Record, Rows, Threshold, UserKey, VersionKey, gc,
};
use rhumb_storage::{Batch, Family};
use serde::{Deserialize, Serialize};

use super::lease::Moment;
use super::raft::wire;
use super::replica::{Descriptor, RangeId, RangeReplica, ReplicaId};

/// Versions that are deleted in one step, about.
pub const STEP: usize = 128;
/// A threshold rises by no less than the retention divided by this.
const RISES: u32 = 10;
/// Replicas that lag hold a threshold back for no longer than so many retentions: they are sent rows then.
const WAITED_FOR: u32 = 2;

// ---- what is in use ----------------------------------------------------------------------------

#[derive(Debug, Default)]
struct Used {
    /// How many read at each time.
    readers: BTreeMap<HybridTime, usize>,
    /// How many states are on their way to followers.
    sent: usize,
    /// How many steps of collection are under way.
    steps: usize,
    /// How many are hashing rows, to compare them with other replicas'.
    hashed: usize,
    /// Nothing was collected above it.
    collected: HybridTime,
    /// Where the replica's keys end, if a state that it was sent ended them earlier than before.
    end: Option<UserKey>,
}

/// What of a replica's rows is in use, and up to where they were collected. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct InUse {
    used: Arc<Mutex<Used>>,
    /// Of the ranges that this one was split off: states of them that are on their way have this one's rows.
    left: Vec<Arc<Mutex<Used>>>,
}

/// Somebody uses rows, as long as this is there.
#[derive(Debug)]
pub struct Use {
    used: Arc<Mutex<Used>>,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Read(HybridTime),
    Sent,
    Step,
    Hashed,
}

impl InUse {
    /// Of a replica whose rows may have been collected up to this threshold.
    pub(super) fn from(collected: HybridTime) -> Self {
        Self { used: Arc::new(Mutex::new(Used { collected, ..Used::default() })), left: Vec::new() }
    }

    /// Of the range that is split off.
    pub(super) fn of_the_right(&self) -> Self {
        let left = self.left.iter().chain([&self.used]).map(Arc::clone).collect();
        Self { left, ..Self::from(self.used.lock().collected) }
    }

    /// Somebody reads as of this time. Whoever asks holds the replica.
    #[must_use]
    pub fn reads(&self, at: HybridTime) -> Use {
        *self.used.lock().readers.entry(at).or_default() += 1;
        self.by(How::Read(at))
    }

    /// The rows of a state of this threshold, up to before this key, are sent: nothing is collected meanwhile. None: something
    /// that belongs to it may be gone, or is going now.
    #[must_use]
    pub fn sends(&self, threshold: HybridTime, to: Option<&UserKey>) -> Option<Use> {
        let mut used = self.used.lock();
        let lost = used.end.as_ref().is_some_and(|end| to.is_none_or(|to| end < to));
        if lost || used.collected > threshold || used.steps > 0 {
            return None;
        }
        used.sent += 1;
        drop(used);
        Some(self.by(How::Sent))
    }

    /// Rows are hashed as they are at the applied threshold: no step begins meanwhile, as the threshold may be higher then.
    /// One that is under way collects what does not count.
    #[must_use]
    pub fn hashes(&self) -> Use {
        self.used.lock().hashed += 1;
        self.by(How::Hashed)
    }

    /// Versions are collected below this threshold, unless rows are on their way to a follower, or hashed.
    fn collects(&self, threshold: HybridTime) -> Option<Use> {
        let is_used = |used: &Mutex<Used>| {
            let used = used.lock();
            used.sent > 0 || used.hashed > 0
        };
        if self.left.iter().any(|left| is_used(left)) || is_used(&self.used) {
            return None;
        }
        let mut used = self.used.lock();
        used.collected = used.collected.max(threshold);
        used.steps += 1;
        drop(used);
        Some(self.by(How::Step))
    }

    /// What is from this key on is the replica's no more, and is cleared once it is not on its way to a follower.
    pub fn ends(&self, end: UserKey) {
        self.used.lock().end = Some(end);
    }

    /// Whether rows of a state are on their way to a follower.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.used.lock().sent > 0 || self.left.iter().any(|left| left.lock().sent > 0)
    }

    /// Whether rows are on their way to a follower, or hashed: then they are not cleared away.
    #[must_use]
    pub fn is_walked(&self) -> bool {
        let walked = |used: &Mutex<Used>| used.lock().hashed > 0;
        self.is_sent() || walked(&self.used) || self.left.iter().any(|left| walked(left))
    }

    fn readers(&self) -> Vec<HybridTime> {
        self.used.lock().readers.keys().copied().collect()
    }

    fn by(&self, how: How) -> Use {
        Use { used: Arc::clone(&self.used), how }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut used = self.used.lock();
        match self.how {
            How::Sent => used.sent -= 1,
            How::Step => used.steps -= 1,
            How::Hashed => used.hashed -= 1,
            How::Read(at) => match used.readers.get_mut(&at) {
                Some(more) if *more > 1 => *more -= 1,
                _ => drop(used.readers.remove(&at)),
            },
        }
    }
}

// ---- the leaseholder's part --------------------------------------------------------------------

/// How far replicas of a range are in its log, as its leader knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// The first entry that the leader still has.
    pub first: u64,
    /// Up to which entry each has it; none: that is not known, or it has nothing.
    pub has: Vec<(ReplicaId, Option<u64>)>,
}

/// When replicas that cannot be brought up from the leader's log any more could last be, by what the leader knows.
#[derive(Debug, Default)]
pub struct Lagging {
    seen: BTreeMap<ReplicaId, HybridTime>,
}

impl Lagging {
    /// The leader looks where replicas are. Gives the times that those protect which lag.
    pub fn looked(&mut self, now: HybridTime, retention: Duration, positions: &Positions) -> Vec<HybridTime> {
        let no_earlier = before(now, retention.saturating_mul(WAITED_FOR));
        let (mut seen, mut protected) = (BTreeMap::new(), Vec::new());
        for (replica, has) in positions.has.iter().copied() {
            let lags = has.map_or(0, |last| last + 1) < positions.first;
            let last = if lags { self.seen.get(&replica).copied().unwrap_or(now) } else { now };
            if lags {
                protected.push(last.max(no_earlier));
            }
            seen.insert(replica, last);
        }
        self.seen = seen;
        protected
    }
}

impl RangeReplica {
    /// What of its rows is in use.
    #[must_use]
    pub fn in_use(&self) -> &InUse {
        &self.in_use
    }

    /// Whether nothing becomes garbage, however far the threshold rises: nothing was written since the last one, and nothing
    /// will expire.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.applied().newest.max(self.applied().expires) <= self.earliest()
    }

    /// How far the threshold may rise now, if it may by so much that it is worth an entry, and something may be garbage then.
    /// `lagging` is what [`Lagging`] gave.
    #[must_use]
    pub fn threshold_due(
        &self,
        moment: &Moment,
        retention: Duration,
        lagging: &[HybridTime],
    ) -> Option<HybridTime> {
        self.permit(moment).ok()?;
        let known = self.earliest();
        if self.rests() {
            return None;
        }
        let watermark = self.watermark(moment, retention, lagging);
        (watermark > known && watermark >= known.plus(retention / RISES)).then_some(watermark)
    }

    /// How far the threshold may rise now. What is as old as the retention by anybody's clock can still be read.
    #[must_use]
    pub fn watermark(&self, moment: &Moment, retention: Duration, lagging: &[HybridTime]) -> HybridTime {
        let readers = self.in_use.readers();
        let protected = Protected { readers: &readers, replicas: lagging, ..Protected::default() };
        let now = before(moment.now, self.settings.max_offset);
        protected.watermark(now, retention).min(self.closed())
    }
}

fn before(now: HybridTime, by: Duration) -> HybridTime {
    let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    HybridTime::new(now.millis().saturating_sub(ms), 0)
}

// ---- each replica's part -----------------------------------------------------------------------

/// How far a replica's rows were collected: kept beside its state, so that a new life goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// All of the range was looked at under this threshold.
    done: HybridTime,
    /// A round under a later one, and the key to go on from.
    round: Option<(HybridTime, Vec<u8>)>,
}

/// A part of a range that is looked at in one go. It is under way as long as this is there.
#[derive(Debug)]
pub struct Step {
    _under_way: Use,
    keyspace: KeyspaceId,
    from: UserKey,
    to: Option<UserKey>,
    threshold: HybridTime,
}

impl Progress {
    /// The row of a range's progress, in the family `Raft`.
    #[must_use]
    pub fn row_key(range: RangeId) -> Vec<u8> {
        [b"g".as_slice(), &range.0.to_be_bytes()].concat()
    }

    /// As it was kept.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn read(row: &[u8]) -> Result<Self, String> {
        wire::decode(row)
    }

    fn write(&self, range: RangeId, batch: &mut Batch) {
        batch.put(Family::Raft, Self::row_key(range), wire::encode(self).to_vec());
    }

    /// Which part of the range is looked at now, if there may be garbage: under the applied threshold, and not while rows that
    /// belong to an earlier one are on their way to a follower.
    #[must_use]
    pub fn step(&self, replica: &RangeReplica) -> Option<Step> {
        let Descriptor { keyspace, from, to, .. } = replica.descriptor();
        if replica.is_over() {
            return None;
        }
        let applied = replica.applied().threshold;
        let (threshold, from) = match &self.round {
            Some((threshold, next)) => {
                let next = UserKey::new(next.clone()).unwrap_or_else(|_| from.clone());
                (*threshold, next.max(from.clone()))
            }
            None if applied > self.done => (applied, from.clone()),
            None if canary::sings(Canary::GcAboveThreshold) => (applied, from.clone()),
            None => return None,
        };
        let under_way = replica.in_use.collects(threshold)?;
        let threshold = if canary::sings(Canary::GcAboveThreshold) { replica.closed() } else { threshold };
        Some(Step { _under_way: under_way, keyspace: *keyspace, from, to: to.clone(), threshold })
    }

    /// What was found in that part goes, and the next step goes on behind it: one batch. How many versions go.
    pub fn stepped(&mut self, range: RangeId, step: &Step, garbage: Garbage, batch: &mut Batch) -> usize {
        let gone = garbage.rows.len();
        for row in garbage.rows {
            batch.delete(Family::Mvcc, row);
        }
        match garbage.next {
            Some(next) => self.round = Some((step.threshold, next.as_bytes().to_vec())),
            None => *self = Self { done: self.done.max(step.threshold), round: None },
        }
        self.write(range, batch);
        gone
    }
}

impl Step {
    /// Looks at that part. At most about `limit` versions are found, and sixty-four times as many looked at.
    ///
    /// # Errors
    /// [`ReadError`]: the rows are not to be believed, or cannot be read.
    pub fn look<R: Rows + ?Sized>(&self, rows: &R, limit: usize) -> Result<Garbage, ReadError> {
        let threshold = Threshold::at(self.threshold);
        gc::collect(rows, self.keyspace, (&self.from, self.to.as_ref()), threshold, limit)
    }
}

// ---- rows that a follower is sent --------------------------------------------------------------

/// Whether a key may be of a range, of which a replica that has nothing yet does not know the keys.
fn may_hold(descriptor: &Descriptor, key: &UserKey) -> bool {
    descriptor.is_empty() || descriptor.holds(key)
}

/// A part of the rows of a state, as they come to a follower: all that the sender has from one row to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The first row that might be there.
    pub from: Vec<u8>,
    /// The first one behind it; none: the range has no end, and this is the last part.
    pub to: Option<Vec<u8>>,
    /// The threshold of the state: below it the sender has collected.
    pub threshold: HybridTime,
    /// Rows, each with its key.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Part {
    /// What a follower writes of it, if it is sound.
    ///
    /// It has all that was written up to its own threshold, and may have collected of that: such rows are left out. A key that
    /// the sender has no version of at the state's threshold was deleted, or had expired by then, and the sender has collected
    /// even that; here its older versions may still be. So it is written here that it is deleted then, which is so.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn received<R: Rows + ?Sized>(self, rows: &R, replica: &RangeReplica) -> Result<Batch, String> {
        let descriptor = replica.descriptor();
        let known = replica.applied().threshold;
        let (mut batch, mut there) = (Batch::new(), BTreeSet::new());
        for (row, value) in &self.rows {
            let key = VersionKey::decode(row).map_err(|error| error.to_string())?;
            if key.keyspace != descriptor.keyspace || !may_hold(descriptor, &key.key) {
                return Err("a row is not of this range".to_owned());
            }
            Record::decode(row, value).map_err(|error| error.to_string())?;
            if key.at > known {
                batch.put(Family::Mvcc, row.clone(), value.clone());
            }
            if key.at <= self.threshold {
                there.insert(key.key);
            }
        }
        if self.threshold > known && !canary::sings(Canary::CollectedComesBack) {
            for key in self.gone(rows, descriptor, there)? {
                let row = VersionKey { keyspace: descriptor.keyspace, key, at: self.threshold }.encode();
                let deleted = Record::deleted().encode(&row);
                batch.put(Family::Mvcc, row, deleted);
            }
        }
        Ok(batch)
    }

    /// Keys that have a version here at or below the threshold, and none there.
    fn gone<R: Rows + ?Sized>(
        &self,
        rows: &R,
        descriptor: &Descriptor,
        mut there: BTreeSet<UserKey>,
    ) -> Result<Vec<UserKey>, String> {
        if let Some(to) = &self.to {
            // Where a part ends between two versions of a key, the older ones come with the next.
            there.insert(VersionKey::decode(to).map_err(|error| error.to_string())?.key);
        }
        let (mut gone, mut wrong, mut last) = (Vec::new(), None, None);
        let walked = rows.walk(&self.from, &mut |row, _| {
            if self.to.as_ref().is_some_and(|to| row >= to.as_slice()) {
                return false;
            }
            let VersionKey { keyspace, key, at } = match VersionKey::decode(row) {
                Ok(version) => version,
                Err(error) => {
                    wrong = Some(error.to_string());
                    return false;
                }
            };
            if keyspace != descriptor.keyspace || !may_hold(descriptor, &key) {
                return false;
            }
            if at <= self.threshold && last.as_ref() != Some(&key) {
                // What stands at the threshold and before this part came with the one before.
                let newest = VersionKey { keyspace, key: key.clone(), at: self.threshold }.encode();
                if newest >= self.from && !there.contains(&key) {
                    gone.push(key.clone());
                }
                last = Some(key);
            }
            true
        });
        walked.map_err(|fault| fault.to_string())?;
        wrong.map_or(Ok(gone), Err)
    }
}
