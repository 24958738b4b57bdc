//! The state that a range's log makes of a replica, and how.
//!
//! * It decides: whether a command takes effect, by the applied state alone; what it then writes.
//! * It never does: look at a clock. Two replicas that have applied the same entries are the same.
//! * Invariants: entries are applied in their order, each once; what is applied is one batch with the rows that it writes;
//!   the closed timestamp never falls, and nothing is written at or below it (that would be a bug, and asserts: an answer
//!   that was given would have been wrong).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, NodeId, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, ReadError, Rows, Snapshot, UserKey, VersionKey};
use rhumb_storage::{Batch, Family};
use serde::{Deserialize, Serialize};

use super::collect::InUse;
use super::command::{Body, Command, Condition, Op, Outcome, Write};
use super::lease::Lease;
use super::propose::{Holding, SideClosed};
use super::{Out, RangeSettings, records};

/// A range, by the number that the mesh gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RangeId(pub u64);

/// A replica of a range on one disk, by a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a replica of a range stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Its disk.
    pub store: StoreId,
    /// Whether it votes. Learners follow and are read.
    pub votes: bool,
}

/// What a range is: which keys, and where its replicas stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub range: RangeId,
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// Its first key.
    pub from: UserKey,
    /// The first key behind it; none: it has no end.
    pub to: Option<UserKey>,
    /// Its replicas.
    pub seats: Vec<Seat>,
}

impl Descriptor {
    /// Whether a key is of the range.
    #[must_use]
    pub fn holds(&self, key: &UserKey) -> bool {
        *key >= self.from && self.to.as_ref().is_none_or(|to| key < to)
    }

    /// The descriptor of a replica that has nothing yet, and gets all of it from another one: it holds no key.
    #[must_use]
    pub fn empty(range: RangeId, keyspace: KeyspaceId, seats: Vec<Seat>) -> Self {
        let (from, to) = (UserKey::default(), Some(UserKey::default()));
        Self { range, keyspace, from, to, seats }
    }

    /// Whether it is [`Descriptor::empty`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.as_ref() == Some(&self.from)
    }

    /// The stores of those that vote.
    #[must_use]
    pub fn stores(&self) -> Vec<StoreId> {
        self.seats.iter().filter(|seat| seat.votes).map(|seat| seat.store).collect()
    }

    /// The seat of a replica.
    #[must_use]
    pub fn seat(&self, replica: ReplicaId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.replica == replica)
    }
}

/// What the log has made, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The last entry that was applied.
    pub index: u64,
    /// The lease.
    pub lease: Lease,
    /// The last order that took effect under it.
    pub order: u64,
    /// No later entry writes at or below it.
    pub closed: HybridTime,
    /// The highest time that was written.
    pub newest: HybridTime,
    /// Nothing below it is read.
    pub threshold: HybridTime,
    /// When the last of all values expires that have an expiry.
    pub expires: HybridTime,
    /// Who has proposed the last command, where that was said: in the format after the last one.
    #[cfg(feature = "canaries")]
    pub by: Option<ReplicaId>,
}

/// One replica.
#[derive(Debug)]
pub struct RangeReplica {
    pub(super) settings: RangeSettings,
    id: ReplicaId,
    descriptor: Descriptor,
    applied: Applied,
    /// The highest closed timestamp that was known here in this life: the log's, or one that came beside it.
    closed: HybridTime,
    /// What the leaseholder said beside the log, by its lease, until the log has come so far.
    beside: BTreeMap<u64, SideClosed>,
    pub(super) holding: Holding,
    pub(super) in_use: InUse,
    /// It has left its range and is cleared away.
    over: bool,
    /// What it holds is not to be believed.
    quarantined: bool,
}

/// Why an entry cannot be applied. The replica stops: it would differ from the others.
pub type ApplyError = ReadError;

impl RangeReplica {
    /// A replica with an empty log.
    #[must_use]
    pub fn new(settings: RangeSettings, id: ReplicaId, descriptor: Descriptor) -> Self {
        let applied = Applied {
            index: 0,
            lease: Lease::nobodys(),
            order: 0,
            closed: HybridTime::ZERO,
            newest: HybridTime::ZERO,
            threshold: HybridTime::ZERO,
            expires: HybridTime::ZERO,
            #[cfg(feature = "canaries")]
            by: None,
        };
        Self::with(settings, id, descriptor, applied)
    }

    /// A replica as its row has it.
    ///
    /// # Errors
    /// What is wrong with the row.
    pub fn recover(settings: RangeSettings, row: &[u8]) -> Result<Self, String> {
        let (id, descriptor, applied) = records::read(row)?;
        Ok(Self::with(settings, id, descriptor, applied))
    }

    fn with(settings: RangeSettings, id: ReplicaId, descriptor: Descriptor, applied: Applied) -> Self {
        let closed = applied.closed;
        let (holding, in_use) = (Holding::default(), InUse::from(applied.threshold));
        Self {
            settings,
            id,
            descriptor,
            applied,
            closed,
            beside: BTreeMap::new(),
            holding,
            in_use,
            over: false,
            quarantined: false,
        }
    }

    /// Who has proposed the last command, where that was said.
    #[cfg(feature = "canaries")]
    pub(super) fn proposed_by(&mut self, by: Option<ReplicaId>) {
        self.applied.by = by.or(self.applied.by);
    }

    /// It has left its range: nothing that its log says counts from here on.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// Whether it has left its range.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What it holds is not to be believed: from here on it answers no read and proposes nothing but to give its lease away.
    pub fn quarantine(&mut self) {
        self.quarantined = true;
    }

    /// Whether what it holds is not to be believed.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.quarantined && !canary::sings(Canary::QuarantinedReads)
    }

    /// Loses a command, for tests.
    #[cfg(test)]
    pub(super) fn loses_a_command(&mut self) {
        self.applied.index -= 1;
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its range.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// What its log has made of it.
    #[must_use]
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The lease, as far as it is known here.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.applied.lease
    }

    /// Up to which time the rows here are complete. It never falls in one life.
    #[must_use]
    pub fn closed(&self) -> HybridTime {
        self.closed
    }

    /// The row of this replica's state, in the family `Raft`.
    #[must_use]
    pub fn row_key(range: RangeId) -> Vec<u8> {
        records::key(range)
    }

    /// Writes its state, as it must be before its first entry.
    pub fn write(&self, batch: &mut Batch) {
        batch.put(Family::Raft, records::key(self.descriptor.range), records::write(self));
    }

    /// Its row.
    pub(super) fn row(&self) -> Vec<u8> {
        records::write(self)
    }

    /// Goes on from another replica's state, which a snapshot brought: its rows are here. It stays itself, and what was
    /// closed stays closed.
    pub(super) fn receive(&mut self, row: &[u8]) -> Result<(), String> {
        let (_, descriptor, applied) = records::read(row)?;
        if descriptor.range != self.descriptor.range {
            return Err(format!("a snapshot of range {} came to replica {}", descriptor.range.0, self.id));
        }
        if applied.index < self.applied.index {
            return Err(format!(
                "a snapshot ends at command {}, and {} is applied",
                applied.index, self.applied.index
            ));
        }
        let lease = self.applied.lease.seq;
        (self.descriptor, self.applied) = (descriptor, applied);
        self.closed = self.closed.max(self.applied.closed);
        match self.applied.lease.seq == lease {
            true => self.holding.settled_to(self.applied.order),
            false => self.holding = Holding::default(),
        }
        self.catch_up();
        Ok(())
    }

    /// Applies the next entry. With a split comes the replica that it begins: `rows` hold its keys already. The states of both
    /// are written by the caller ([`RangeReplica::write`]), in one batch with what is pushed here, once for all entries of it.
    ///
    /// # Errors
    /// [`ApplyError`]: rows that are not what was written, or that cannot be read.
    ///
    /// # Panics
    /// When `index` is not the next one, or the entry breaks what was closed.
    pub fn apply<R: Rows + ?Sized>(
        &mut self,
        rows: &R,
        index: u64,
        command: &Command,
        out: &mut Out<Infallible>,
    ) -> Result<(Outcome, Option<Self>), ApplyError> {
        assert_eq!(index, self.applied.index + 1, "entries are applied in their order, each once");
        let mut batch = Batch::new();
        let mut right = None;
        let outcome = match self.void(command) {
            Some(outcome) => outcome,
            None => self.take_effect(rows, command, &mut batch, &mut right)?,
        };
        self.applied.index = index;
        self.closed = self.closed.max(self.applied.closed);
        self.catch_up();
        if !batch.is_empty() {
            out.persist(batch);
        }
        self.holding.settled(command, &outcome);
        Ok((outcome, right))
    }

    /// The leaseholder closes a time beside the log. It counts from when everything is applied that it had proposed by
    /// then, under the same lease.
    pub fn hear(&mut self, said: SideClosed) {
        let known = self.beside.get(&said.lease);
        if said.range == self.descriptor.range && known.is_none_or(|known| known.closed < said.closed) {
            // One lease behind the present one, and a few to come: what is older can count no more.
            self.beside.insert(said.lease, said);
            while self.beside.len() > 4 {
                self.beside.pop_first();
            }
        }
        self.catch_up();
    }

    fn catch_up(&mut self) {
        let present = self.applied.lease.seq;
        self.beside.retain(|lease, _| *lease >= present);
        let Some(said) = self.beside.get(&present) else { return };
        if said.order <= self.applied.order || canary::sings(Canary::ClosedBeforeApply) {
            self.closed = self.closed.max(said.closed);
        }
    }

    /// Why a command is void, if it is.
    fn void(&mut self, command: &Command) -> Option<Outcome> {
        let present = self.applied.lease.seq;
        if let Body::Lease(lease) = &command.body {
            if canary::sings(Canary::LeaseStartIsClosed) {
                self.applied.closed = self.applied.closed.max(lease.start);
            }
            return (command.lease != present).then_some(Outcome::StaleLease(present));
        }
        if command.lease != present {
            return Some(Outcome::StaleLease(present));
        }
        let overtaken = command.order <= self.applied.order;
        (overtaken && !canary::sings(Canary::OvertakenApplies)).then_some(Outcome::Overtaken)
    }

    fn take_effect<R: Rows + ?Sized>(
        &mut self,
        rows: &R,
        command: &Command,
        batch: &mut Batch,
        right: &mut Option<Self>,
    ) -> Result<Outcome, ApplyError> {
        if let Body::Lease(lease) = command.body {
            assert!(
                lease.holder == self.applied.lease.holder || lease.start >= self.applied.closed,
                "another holder's lease begins above what was closed before it"
            );
            (self.applied.lease, self.applied.order) = (lease, 0);
            self.holding = Holding::default();
            return Ok(Outcome::Leased(lease.holder.expect("somebody took it")));
        }
        let outcome = match &command.body {
            Body::Write(write) => self.write_rows(rows, write, batch)?,
            Body::Split { at, right: range, seats } => self.split(at, *range, seats, right),
            Body::Threshold(threshold) => {
                self.applied.threshold = self.applied.threshold.max(*threshold);
                Outcome::Raised(self.applied.threshold)
            }
            Body::Reseat(seats) => self.reseat(seats),
            Body::Compare => Outcome::Compared(self.applied.index + 1),
            Body::Lease(_) => unreachable!("leases are above"),
        };
        // Under a lease of a new number orders begin anew.
        let order = if outcome == Outcome::Reseated { 0 } else { command.order };
        self.applied.order = self.applied.order.max(order);
        self.applied.closed = self.applied.closed.max(command.closed);
        if let Some(right) = right {
            right.begins_with(self);
        }
        Ok(outcome)
    }

    fn write_rows<R: Rows + ?Sized>(
        &mut self,
        rows: &R,
        write: &Write,
        batch: &mut Batch,
    ) -> Result<Outcome, ApplyError> {
        if !write.ops.iter().all(|op| self.descriptor.holds(&op.key)) {
            return Ok(Outcome::Outside);
        }
        assert!(
            write.at > self.closed && write.at > self.applied.lease.start,
            "a write at {} comes after {} was closed, under a lease from {} on",
            write.at,
            self.closed,
            self.applied.lease.start
        );
        let snapshot = Snapshot::new(rows, self.descriptor.keyspace, write.at, HybridTime::ZERO)?;
        for (number, op) in write.ops.iter().enumerate() {
            let Some(condition) = op.condition else { continue };
            let found = snapshot.get(&op.key)?.map(|version| version.at);
            let holds = match condition {
                Condition::Absent => found.is_none(),
                Condition::Version(at) => found == Some(at),
            };
            if !holds {
                if canary::sings(Canary::BatchHalfWritten) {
                    self.put_rows(write, &write.ops[..number], batch);
                }
                return Ok(Outcome::ConditionFailed { op: number, found });
            }
        }
        self.put_rows(write, &write.ops, batch);
        Ok(Outcome::Written(write.at))
    }

    fn put_rows(&mut self, write: &Write, ops: &[Op], batch: &mut Batch) {
        for op in ops {
            let version =
                VersionKey { keyspace: self.descriptor.keyspace, key: op.key.clone(), at: write.at };
            let row = version.encode();
            let record = op.record.encode(&row);
            batch.put(Family::Mvcc, row, record);
            self.applied.expires = self.applied.expires.max(op.record.header.expires.unwrap_or_default());
        }
        self.applied.newest = self.applied.newest.max(write.at);
    }

    /// Two majorities of voters that differ by one share a store: what one of them was asked for a lease, the other has heard.
    fn reseat(&mut self, seats: &[Seat]) -> Outcome {
        let voters = |seats: &[Seat]| {
            let voting = seats.iter().filter(|seat| seat.votes);
            voting.map(|seat| (seat.replica, seat.store)).collect::<BTreeSet<_>>()
        };
        let (before, after) = (voters(&self.descriptor.seats), voters(seats));
        let places: BTreeSet<_> = seats.iter().map(|seat| seat.store).collect();
        let names: BTreeSet<_> = seats.iter().map(|seat| seat.replica).collect();
        let holder = self.applied.lease.holder.zip(Some(self.applied.lease.store));
        let twice = places.len() != seats.len() || names.len() != seats.len();
        let far = before.symmetric_difference(&after).count() > 1;
        if twice || far || !holder.is_some_and(|holder| after.contains(&holder)) {
            return Outcome::NotSeated;
        }
        self.descriptor.seats = seats.to_vec();
        self.applied.lease.seq += 1;
        self.applied.order = 0;
        Outcome::Reseated
    }

    fn split(&mut self, at: &UserKey, range: RangeId, seats: &[Seat], right: &mut Option<Self>) -> Outcome {
        let stores = |seats: &[Seat]| seats.iter().map(|seat| (seat.store, seat.votes)).collect::<Vec<_>>();
        if !self.descriptor.holds(at)
            || *at == self.descriptor.from
            || stores(seats) != stores(&self.descriptor.seats)
        {
            return Outcome::Outside;
        }
        let mine = self.descriptor.seats.iter().position(|seat| seat.replica == self.id);
        let to = self.descriptor.to.replace(at.clone());
        if let Some(mine) = mine {
            let descriptor = Descriptor {
                range,
                keyspace: self.descriptor.keyspace,
                from: at.clone(),
                to,
                seats: seats.to_vec(),
            };
            *right = Some(Self::new(self.settings, seats[mine].replica, descriptor));
        }
        Outcome::Split(range)
    }

    /// The right-hand range goes on where the left-hand one stood: the same store holds its lease, and what was closed for
    /// its keys stays closed. Its rows are no better than those that they were a part of.
    fn begins_with(&mut self, left: &Self) {
        let holder = left.applied.lease.holder.and_then(|holder| {
            let at = left.descriptor.seats.iter().position(|seat| seat.replica == holder)?;
            self.descriptor.seats.get(at).map(|seat| seat.replica)
        });
        self.applied = Applied {
            index: 0,
            order: 0,
            lease: Lease { holder, ..left.applied.lease },
            ..left.applied.clone()
        };
        self.closed = left.closed.max(left.applied.closed);
        self.holding.promised = left.holding.promised.max(left.applied.closed);
        self.in_use = left.in_use.of_the_right();
        self.quarantined = left.quarantined;
        if canary::sings(Canary::SplitForgetsClosed) {
            self.applied.closed = HybridTime::ZERO;
            self.closed = HybridTime::ZERO;
            self.holding.promised = HybridTime::ZERO;
        }
    }
}
