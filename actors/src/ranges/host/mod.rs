//! A node's replicas, served: the shell around [`RangeReplica`], [`Support`] and their groups.
//!
//! * It decides: nothing. Machines do; it reads the clock, keeps their timers, and passes on what they say.
//! * It never does: let a read in between what an entry changes and its rows, or say of support what is not durable.
//! * Invariant: a command's time is taken and the command is put into the log while the replica is held, so that nothing comes
//!   between them.

mod asked;
mod collect;
mod compare;
mod doubts;
mod keep;
mod quarantine;
mod seats;
mod weigh;
mod word;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::canary::{self, Canary};
use rhumb_core::{Barrier, Epoch, HybridTime, NodeId, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use rhumb_storage::{Batch, Family, StorageFault, keys};
use thiserror::Error;

pub use asked::{NotRead, NotWritten, Piece, Rowed, Written};
pub use compare::Checked;
pub use quarantine::Noticed;
pub use seats::Found;
pub use word::Word;

use super::homing::Homing;
use super::lease::Moment;
use super::raft::{Around, Changes, Group, StartError, disk, rest, wire};
use super::records;
use super::replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use super::resting::{RestSettings, Resting};
use super::seating::Wanted;
use super::splitting::{Decided, SplitSettings};
use super::support::{Said, Support};
use super::{Out, RangeSettings};

/// The world around a node's ranges.
pub trait World: Send + Sync + 'static {
    /// A hybrid time that was not handed out before, unless the clock's ceiling is used up.
    fn now(&self) -> HybridTime;

    /// What the wall clock shows. Hybrid time is behind it only where it stands at its ceiling.
    fn wall(&self) -> HybridTime;

    /// Whether the clock may be too wrong for strong paths.
    fn is_frozen(&self) -> bool;

    /// The epoch of the clock, which tokens carry: a later one once the clock was reset.
    fn epoch(&self) -> Epoch {
        Epoch(0)
    }

    /// Tells a node; it may get lost.
    fn tell(&self, to: &NodeId, word: Word);

    /// What a leaseholder has found of a range's replicas, for whoever wants them. It may be told again.
    fn found(&self, range: RangeId, found: Found);

    /// A range whose lease is held here is to be split. If nothing comes of it, it is said again.
    fn splits(&self, range: RangeId, decided: Decided);

    /// Something of a range is not as it should be, or is again. What is noticed once is said once in a life.
    fn noticed(&self, range: RangeId, noticed: Noticed);

    /// Does work that takes a while and waits for nobody, beside all else where that is possible.
    fn aside(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }

    /// The node cannot go on.
    fn halt(&self, why: String);
}

/// The times by which a host goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSettings {
    /// Those of ranges.
    pub range: RangeSettings,
    /// How often stores are asked for support.
    pub beat: Duration,
    /// How often leases are looked after, and idle ranges closed.
    pub keep: Duration,
    /// How often it is looked whether versions can be collected.
    pub collect: Duration,
    /// When ranges are split by themselves.
    pub splits: SplitSettings,
    /// When ranges rest.
    pub rests: RestSettings,
    /// How often the replicas of a range are compared; none: only when somebody wants it.
    pub compare_every: Option<Duration>,
    /// For how long a lease is held away from where most is written before it goes there.
    pub home_after: Duration,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self {
            range: RangeSettings::default(),
            beat: Duration::from_secs(1),
            keep: Duration::from_millis(200),
            collect: Duration::from_secs(1),
            splits: SplitSettings::default(),
            rests: RestSettings::default(),
            compare_every: Some(Duration::from_secs(60 * 60)),
            home_after: Duration::from_secs(30),
        }
    }
}

/// Why a host does not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// A row cannot be read.
    #[error("what stores were promised cannot be read: {0}")]
    Support(String),
    /// The store has failed.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// A replica's state cannot be read.
    #[error("the state of a replica cannot be read: {0}")]
    Replica(String),
    /// A replica does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The replica is of another disk, or of none of the range's seats.
    #[error("range {} has no seat on this store", range.0)]
    NoSeat {
        /// The range.
        range: RangeId,
    },
    /// Another replica of the range is here.
    #[error("range {} has replica {here} here already", range.0)]
    Other {
        /// The range.
        range: RangeId,
        /// That one.
        here: ReplicaId,
    },
}

/// Ranges of keyspaces by their first keys, each with the first key behind it.
type Keys = BTreeMap<KeyspaceId, BTreeMap<UserKey, (Option<UserKey>, RangeId)>>;

/// Changes of ranges that wait to be followed. What finds no room is told with the next entry.
const CHANGES: usize = 1_024;

struct Supporting {
    machine: Support,
    out: Out<Said>,
    barrier: Barrier<Said>,
}

struct Inner<R: AsyncRuntime> {
    store: StoreId,
    settings: HostSettings,
    around: Around,
    world: Arc<dyn World>,
    groups: Mutex<BTreeMap<RangeId, Group<R>>>,
    supporting: Mutex<Supporting>,
    /// Where stores are, as ranges' seats say.
    stores: Mutex<BTreeMap<StoreId, NodeId>>,
    /// Which keys are here: the ranges of a keyspace, by their first keys.
    keys: Mutex<Keys>,
    /// Where replicas are wanted, and what is being done about it.
    wanted: Mutex<BTreeMap<RangeId, Wanted>>,
    busy: Mutex<BTreeSet<RangeId>>,
    /// Leases that are wanted elsewhere.
    homing: Mutex<Homing>,
    /// What is being cleared away, by the keys of its rows.
    clearing: Mutex<BTreeSet<Vec<u8>>>,
    changes: Changes,
    /// Only the newest time that something was proposed or read at is ever used again.
    last: Mutex<HybridTime>,
    /// How long what was can be read, where it was said.
    retentions: Mutex<BTreeMap<RangeId, Duration>>,
    /// The times that are held, of ranges of which any is.
    held: Mutex<BTreeMap<RangeId, Vec<HybridTime>>>,
    /// How many versions were collected since the start.
    collected: Mutex<BTreeMap<RangeId, u64>>,
    /// What replicas know of their ranges' rest.
    resting: Mutex<BTreeMap<RangeId, Resting>>,
    /// How large and busy the ranges are whose leases are held here.
    loads: weigh::Loads,
    comparing: compare::Comparing,
    quarantines: quarantine::Quarantines,
}

/// A node's replicas. Clones are one.
pub struct Host<R: AsyncRuntime>(Arc<Inner<R>>);

impl<R: AsyncRuntime> Clone for Host<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: AsyncRuntime> Host<R> {
    /// Goes on with the replicas that are on this store.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn start(
        store: StoreId,
        settings: HostSettings,
        around: Around,
        world: Arc<dyn World>,
    ) -> Result<Self, HostError> {
        let rows = disk::rows(&*around.disk, Family::Meta, keys::SUPPORT)?;
        let mut out = Out::default();
        let machine = Support::begin(store, settings.range.support, rows, &mut out)
            .map_err(|error| HostError::Support(error.to_string()))?;
        let supporting = Mutex::new(Supporting { machine, out, barrier: Barrier::default() });
        let replicas = disk::rows(&*around.disk, Family::Raft, b"a")?;
        let (changes, changed) = futures::channel::mpsc::channel(CHANGES);
        let host = Self(Arc::new(Inner {
            keys: Mutex::default(),
            wanted: Mutex::default(),
            busy: Mutex::default(),
            homing: Mutex::new(Homing::new(settings.home_after)),
            clearing: Mutex::default(),
            changes,
            store,
            settings,
            around,
            world,
            groups: Mutex::default(),
            supporting,
            stores: Mutex::default(),
            last: Mutex::default(),
            retentions: Mutex::default(),
            held: Mutex::default(),
            collected: Mutex::default(),
            resting: Mutex::default(),
            loads: weigh::Loads::default(),
            comparing: compare::Comparing::default(),
            quarantines: quarantine::Quarantines::default(),
        }));
        host.recall_quarantines().await.map_err(HostError::Replica)?;
        for (_, row) in replicas {
            // What a later build has left is not guessed at.
            let known = host.0.around.formats.reads(records::STATE, records::format(&row));
            known.map_err(|unknown| HostError::Replica(unknown.to_string()))?;
            let replica = RangeReplica::recover(settings.range, &row).map_err(HostError::Replica)?;
            host.goes_on(replica).await?;
        }
        host.clear_the_rest().map_err(HostError::Replica)?;
        host.flush();
        host.keep();
        host.follow(changed);
        host.collect();
        host.weigh();
        host.compare();
        Ok(host)
    }

    /// This node's store.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.0.store
    }

    /// Begins a first replica of a new range that this store has a seat of: all of them are given the same descriptor. What is
    /// here already goes on.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn create(&self, descriptor: Descriptor) -> Result<(), HostError> {
        self.begin(descriptor, true).await
    }

    /// Begins a replica of a range that has begun elsewhere: it has nothing, and is sent all of it. What is here already goes on.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn join(
        &self,
        range: RangeId,
        keyspace: KeyspaceId,
        seats: Vec<Seat>,
    ) -> Result<(), HostError> {
        self.begin(Descriptor::empty(range, keyspace, seats), false).await
    }

    async fn begin(&self, descriptor: Descriptor, first: bool) -> Result<(), HostError> {
        let range = descriptor.range;
        let mine = descriptor.seats.iter().position(|seat| seat.store == self.0.store);
        let Some(mine) = mine else { return Err(HostError::NoSeat { range }) };
        let id = descriptor.seats[mine].replica;
        if self.quarantined(range).is_some() {
            return Ok(());
        }
        if let Some(group) = self.group(range) {
            let here = group.id();
            return if here == id { Ok(()) } else { Err(HostError::Other { range, here }) };
        }
        let claims = Arc::clone(&self.0.around.claims);
        if !claims.lock().insert(range) {
            return Ok(());
        }
        let begun = self.begin_claimed(descriptor, id, first).await;
        claims.lock().remove(&range);
        begun
    }

    async fn begin_claimed(
        &self,
        descriptor: Descriptor,
        id: ReplicaId,
        first: bool,
    ) -> Result<(), HostError> {
        let range = descriptor.range;
        let fails = |why: String| HostError::Start(StartError { range, replica: id, why });
        let disk = &self.0.around.disk;
        // A split may have begun it a moment ago; and what is left of another one goes first.
        let is_there = disk.get(Family::Raft, &RangeReplica::row_key(range))?.is_some();
        if is_there || rest::is_left(&**disk, range)? {
            return Ok(());
        }
        let replica = RangeReplica::new(self.0.settings.range, id, descriptor);
        let mut batch = Batch::new();
        match first {
            true => Group::<R>::begin(&replica, &mut batch).map_err(fails)?,
            false => replica.write(&mut batch),
        }
        self.durably(batch).await.map_err(fails)?;
        self.serve(replica).await
    }

    /// Makes a batch durable.
    async fn durably(&self, batch: Batch) -> Result<(), String> {
        let (said, heard) = futures::channel::oneshot::channel();
        self.0.around.disk.durably(batch, Box::new(move |outcome| drop(said.send(outcome)))).await;
        let durable = heard.await.map_err(|_| "the store is gone".to_owned())?;
        durable.map(drop).map_err(|error| error.to_string())
    }

    async fn serve(&self, replica: RangeReplica) -> Result<(), HostError> {
        let descriptor = replica.descriptor().clone();
        let (range, id) = (descriptor.range, replica.id());
        // One that was taken out of its range and not cleared away yet has none.
        if descriptor.seat(id).is_some_and(|seat| seat.store != self.0.store) {
            return Err(HostError::NoSeat { range });
        }
        let (around, changes) = (self.0.around.clone(), self.0.changes.clone());
        let group = Group::start(self.0.settings.range, replica, around, changes).await?;
        self.0.groups.lock().insert(range, group);
        self.know(&descriptor);
        Ok(())
    }

    /// Knows where a range's replicas stand and which keys it has.
    fn know(&self, descriptor: &Descriptor) {
        for seat in &descriptor.seats {
            self.0.stores.lock().insert(seat.store, seat.node.clone());
        }
        if !descriptor.is_empty() && self.group(descriptor.range).is_some() {
            let mut keys = self.0.keys.lock();
            let (to, range) = (descriptor.to.clone(), descriptor.range);
            keys.entry(descriptor.keyspace).or_default().insert(descriptor.from.clone(), (to, range));
        }
    }

    /// The range of a keyspace that has this key, if a replica of it is here. It may have been split a moment ago.
    #[must_use]
    pub fn range_of(&self, keyspace: KeyspaceId, key: &UserKey) -> Option<RangeId> {
        let keys = self.0.keys.lock();
        let (_, (to, range)) = keys.get(&keyspace)?.range(..=key.clone()).next_back()?;
        to.as_ref().is_none_or(|to| key < to).then_some(*range)
    }

    /// The replica of a range that is here.
    #[must_use]
    pub fn group(&self, range: RangeId) -> Option<Group<R>> {
        self.0.groups.lock().get(&range).cloned()
    }

    /// All replicas that are here.
    #[must_use]
    pub fn groups(&self) -> Vec<Group<R>> {
        self.0.groups.lock().values().cloned().collect()
    }

    /// Another node's replica asks one that is here.
    ///
    /// # Errors
    /// Why it is not answered.
    pub fn asked(
        &self,
        node: &NodeId,
        range: RangeId,
        between: (ReplicaId, ReplicaId),
        question: Bytes,
    ) -> impl Future<Output = Result<Bytes, String>> + Send + use<R> {
        let (group, node) = (self.group(range), node.clone());
        let sound = wire::checked(&question).map(drop);
        if let Err(why) = &sound {
            let why = format!("what came from {node}: {why}");
            self.0.world.noticed(range, Noticed::Damaged { on_the_way: true, why });
        }
        async move {
            sound?;
            let group = group.ok_or_else(|| format!("there is no replica of range {} here", range.0))?;
            group.asked(&node, between, &question).await
        }
    }

    /// Ends all replicas. Nothing is served or kept from here on.
    pub async fn stop(&self) {
        let groups = std::mem::take(&mut *self.0.groups.lock());
        self.0.stores.lock().clear();
        for group in groups.into_values() {
            group.shut_down().await;
        }
    }

    /// Whether the lease of a range is held here and in force.
    pub async fn holds(&self, range: RangeId) -> bool {
        let Some(group) = self.group(range) else { return false };
        let replica = group.replica().await;
        replica.permit(&self.moment(replica.descriptor())).is_ok()
    }

    /// What the clock has come to, also where hybrid time stands still behind it.
    fn passed(&self) -> HybridTime {
        self.0.world.now().max(self.0.world.wall())
    }

    /// The present moment of a range.
    pub(super) fn moment(&self, descriptor: &Descriptor) -> Moment {
        let voters = descriptor.stores();
        let mut last = self.0.last.lock();
        let now = self.0.world.now();
        // A clock that stands at its ceiling hands out a time again. Nothing may be written at it twice.
        let stands = now <= *last;
        *last = now.max(*last);
        let passed =
            if canary::sings(Canary::StandingClockActs) { now } else { now.max(self.0.world.wall()) };
        let supporting = self.0.supporting.lock();
        Moment {
            now,
            passed,
            frozen: stands || self.0.world.is_frozen(),
            epoch: supporting.machine.epoch(),
            supported: supporting.machine.until(&voters),
        }
    }

    /// All rows of a family that are on the disk, for tests.
    #[cfg(test)]
    fn rows(&self, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
        disk::rows(&*self.0.around.disk, family, b"").expect("memory reads")
    }

    /// Writes rows behind all that knows of them, where there is room, for tests.
    #[cfg(test)]
    pub(super) async fn spoil(&self, family: Family, rows: Vec<(Vec<u8>, Vec<u8>)>) {
        let mut batch = Batch::new();
        for (key, value) in rows {
            batch.put(family, key, value);
        }
        self.durably(batch).await.ok();
    }

    /// The seat of the leaseholder, as far as is known here.
    pub async fn leaseholder(&self, range: RangeId) -> Option<Seat> {
        let group = self.group(range)?;
        let replica = group.replica().await;
        let holder = replica.lease().holder?;
        replica.descriptor().seat(holder).cloned()
    }

    /// Whether the store of a node with a replica of a range was heard of as long ago as support lasts, at most. Of a range or node that is
    /// not known here nothing is held against it.
    pub async fn hears(&self, range: RangeId, node: &NodeId) -> bool {
        let Some(group) = self.group(range) else { return true };
        let store = {
            let replica = group.replica().await;
            replica.descriptor().seats.iter().find(|seat| seat.node == *node).map(|seat| seat.store)
        };
        let promised = |store| self.0.supporting.lock().machine.promised(store).until;
        store.is_none_or(|store| promised(store) >= self.0.world.now())
    }

    /// The epoch of the clock, which tokens carry.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.world.epoch()
    }
}
