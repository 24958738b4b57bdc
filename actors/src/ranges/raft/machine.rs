//! What entries do to a replica, and its snapshots.
//!
//! * It never does: let a read in between what an entry changes in memory and the rows that it writes: whoever reads takes the
//!   same lock.
//! * Invariant: the rows that an entry writes, the replica's state and the entry's place are one batch.
//!
//! A snapshot is the replica's state alone, taken in a moment. Its rows are read when they are sent: versions are never
//! rewritten, and all that later entries write is above the highest time of the state (docs/decisions/0040).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload};
use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Effects};
use rhumb_storage::{Batch, Family};
use tokio::sync::Mutex;

use super::disk::{BATCH_BYTES, Disk};
use super::types::{self, SnapshotMeta, StoredMembership, Types};
use super::wire::{self, Standing};
use super::{Change, Changes, Claims, Damage, Damages, Rest, log, rest};
use crate::ranges::command::{Body, Command, Outcome};
use crate::ranges::comparing::Extent;
use crate::ranges::records::{self, STATE};
use crate::ranges::replica::{ApplyError, Descriptor, RangeId, RangeReplica};
use crate::version::Formats;

/// Entries that become one batch, unless they are large, or one of them has to see what another has written.
const AT_ONCE: usize = 64;

/// Entries by which the log grows at most while rows are on their way to a follower.
const HELD_ENTRIES: u64 = 200_000;

/// A replica, as all see it who have to do with it.
pub(super) type Shared = Arc<Mutex<RangeReplica>>;

/// What openraft applies entries to.
pub(super) struct Machine {
    range: RangeId,
    disk: Arc<dyn Disk>,
    replica: Shared,
    applied: Option<types::Id>,
    members: StoredMembership,
    changes: Changes,
    /// What is told once it is written.
    changed: Vec<Change>,
    claims: Claims,
    /// Ranges that are begun here in the batch that comes.
    claimed: Vec<RangeId>,
    /// The last entry up to which the log could be cut.
    cut: u64,
    formats: Arc<Formats>,
    damages: Damages,
}

/// A snapshot: the state of a replica. The rows that belong to it are sent before it, or are here.
#[derive(Debug, Clone)]
pub(super) struct Image(pub(super) Vec<u8>);

/// What openraft has build a snapshot: it was taken when it was made.
pub(super) struct Taken {
    meta: SnapshotMeta,
    image: Image,
}

impl Machine {
    /// The machine of a replica, as it is on disk.
    pub(super) fn open(
        range: RangeId,
        disk: Arc<dyn Disk>,
        replica: Shared,
        changes: Changes,
        (claims, damages, formats): (Claims, Damages, Arc<Formats>),
    ) -> Result<Self, String> {
        let row = disk.get(Family::Raft, &place_key(range)).map_err(|fault| fault.to_string())?;
        let standing = row.map(|row| wire::decode::<Standing>(&row)).transpose();
        let standing = standing.inspect_err(|why| {
            Damage::of_the_log(format!("its place in the log: {why}")).found(range, &damages);
        })?;
        let members = standing.as_ref().map(Standing::membership).transpose()?.unwrap_or_default();
        let applied: Option<types::Id> = standing.and_then(|standing| standing.applied).map(Into::into);
        // What the log was before this life may be cut at once as well as later.
        let cut = applied.as_ref().map_or(0, |id| id.index);
        Ok(Self {
            range,
            disk,
            replica,
            applied,
            members,
            changes,
            changed: Vec::new(),
            claims,
            claimed: Vec::new(),
            cut,
            formats,
            damages,
        })
    }

    fn place(&self, batch: &mut Batch) {
        let standing = Standing::of(self.applied, &self.members);
        batch.put(Family::Raft, place_key(self.range), wire::encode(&standing));
    }

    /// A split begins a replica here, unless it is here already: it may have been sent its rows while this one was behind.
    fn bears(&mut self, right: RangeReplica, batch: &mut Batch) -> io::Result<()> {
        let range = right.descriptor().range;
        let key = RangeReplica::row_key(range);
        let is_mine = self.claims.lock().insert(range);
        if is_mine {
            self.claimed.push(range);
        }
        // Where it is just being begun with nothing, it is sent its rows.
        if is_mine && self.disk.get(Family::Raft, &key).map_err(io::Error::other)?.is_none() {
            right.write(batch);
            begin(right.descriptor(), batch).map_err(io::Error::other)?;
            self.changed.push(Change::Born { left: self.range, right: Box::new(right) });
        }
        self.changed.push(Change::Seen(self.range));
        Ok(())
    }

    fn tells(&mut self) {
        for range in self.claimed.drain(..) {
            self.claims.lock().remove(&range);
        }
        for change in std::mem::take(&mut self.changed) {
            match self.changes.try_send(change) {
                Err(error) if error.is_full() => self.changed.push(error.into_inner()),
                // A host that has gone finds on the disk what was changed.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Writes what so many entries have done, the replica's state and their place, and says what came of them.
    async fn written(
        &mut self,
        replica: &RangeReplica,
        batch: &mut Batch,
        owed: &mut Vec<(Option<Owed>, Option<Outcome>)>,
    ) -> io::Result<()> {
        if owed.is_empty() {
            return Ok(());
        }
        replica.write(batch);
        self.place(batch);
        self.disk.visibly(std::mem::take(batch)).await.map_err(io::Error::other)?;
        self.tells();
        for (responder, outcome) in owed.drain(..) {
            if let Some(responder) = responder {
                responder(outcome);
            }
        }
        Ok(())
    }
}

/// Writes the first place of a range's log: its replicas as if they had agreed on who they are.
pub(super) fn begin(descriptor: &Descriptor, batch: &mut Batch) -> Result<(), String> {
    let place = types::Id::new(types::Leader { term: 0, node_id: 0 }, 0);
    let voters = descriptor.seats.iter().filter(|seat| seat.votes).map(|seat| seat.replica.0);
    let seats = descriptor.seats.iter().map(|seat| (seat.replica.0, seat.clone()));
    let members = types::Membership::new(vec![voters.collect()], seats.collect::<BTreeMap<_, _>>());
    let members = members.map_err(|error| error.to_string())?;
    let standing = Standing::of(Some(place), &StoredMembership::new(Some(place), members));
    batch.put(Family::Raft, place_key(descriptor.range), wire::encode(&standing));
    log::begin(descriptor.range, &place, batch);
    Ok(())
}

type Owed = Box<dyn FnOnce(Option<Outcome>) + Send>;

fn responds<R: AsyncRuntime>(responder: ApplyResponder<Types<R>>) -> Owed {
    Box::new(move |outcome| responder.send(outcome))
}

pub(super) fn place_key(range: RangeId) -> Vec<u8> {
    [b"m".as_slice(), &range.0.to_be_bytes()].concat()
}

/// Whether what a command does depends on rows.
fn looks(command: &Command) -> bool {
    matches!(&command.body, Body::Write(write) if write.ops.iter().any(|op| op.condition.is_some()))
}

/// What the machine wants written.
fn persisted(out: &mut Effects<Batch, Infallible>, into: &mut Batch) {
    Barrier::<Infallible>::default().absorb(out, |release| {
        let Release::Persist(_, batch) = release;
        into.merge(batch);
    });
}

impl<R: AsyncRuntime> RaftStateMachine<Types<R>> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Taken;

    async fn applied_state(&mut self) -> io::Result<(Option<types::Id>, StoredMembership)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types<R>>>> + Unpin + Send,
    {
        let shared = Arc::clone(&self.replica);
        let mut replica = shared.lock().await;
        if replica.is_over() {
            return Err(io::Error::other("the replica has left its range"));
        }
        let mut batch = Batch::new();
        let mut owed = Vec::new();
        let mut out = Effects::default();
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let id = entry.log_id();
            let mut outcome = None;
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(id), members.clone());
                }
                EntryPayload::Normal(proposal) => {
                    // What it would do is not known here: the replica stops before it.
                    let read = proposal.command(&self.formats).map_err(io::Error::other)?;
                    if looks(&read.command) {
                        self.written(&replica, &mut batch, &mut owed).await?;
                    }
                    let index = replica.applied().index + 1;
                    let applied = replica.apply(&*self.disk, index, &read.command, &mut out);
                    let (came, right) = applied.map_err(|error| {
                        if matches!(error, ApplyError::Damaged { .. }) {
                            Damage::of_the_log(error.to_string()).found(self.range, &self.damages);
                        }
                        io::Error::other(error)
                    })?;
                    let came = match came {
                        // Not the number of commands here: one that has lost a command is compared too.
                        Outcome::Compared(_) => Outcome::Compared(id.index),
                        came => came,
                    };
                    #[cfg(feature = "canaries")]
                    replica.proposed_by(read.by);
                    persisted(&mut out, &mut batch);
                    match (&came, right) {
                        (_, Some(right)) => self.bears(right, &mut batch)?,
                        (Outcome::Split(_) | Outcome::Reseated, None) => {
                            self.changed.push(Change::Seen(self.range));
                        }
                        _ => {}
                    }
                    outcome = Some(came);
                }
            }
            self.applied = Some(id);
            let compares = matches!(outcome, Some(Outcome::Compared(_)));
            owed.push((responder.map(responds::<R>), outcome));
            if compares || owed.len() >= AT_ONCE || batch.bytes() >= BATCH_BYTES {
                self.written(&replica, &mut batch, &mut owed).await?;
            }
            if compares {
                let members = wire::encode(&Standing::of(self.applied, &self.members));
                self.changed.push(Change::Compares(Box::new(Extent::of(&replica, id.index, &members))));
                self.tells();
            }
        }
        self.written(&replica, &mut batch, &mut owed).await
    }

    /// The log is not cut while rows are on their way to a follower: it would lack what came meanwhile, and have to be sent all
    /// of them again. Nor does the log grow without bound for one that takes for ever.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Taken> {
        let index = self.applied.as_ref().map_or(0, |id| id.index);
        let waits = !force && index < self.cut + HELD_ENTRIES;
        if waits && self.replica.lock().await.in_use().is_sent() {
            return None;
        }
        self.cut = index;
        Some(RaftStateMachine::<Types<R>>::get_snapshot_builder(self).await)
    }

    async fn get_snapshot_builder(&mut self) -> Taken {
        // Later entries do not wait for what is built, so it is taken now.
        let image = Image(self.replica.lock().await.row());
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.members.clone() };
        Taken { meta, image }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, Image(state): Image) -> io::Result<()> {
        let shared = Arc::clone(&self.replica);
        let mut replica = shared.lock().await;
        if replica.is_over() {
            return Err(io::Error::other("the replica has left its range"));
        }
        let before = replica.descriptor().clone();
        self.formats.reads(STATE, records::format(&state)).map_err(io::Error::other)?;
        replica.receive(&state).map_err(io::Error::other)?;
        let lost = Rest::between(&before, replica.descriptor());
        (self.applied, self.members) = (meta.last_log_id, meta.last_membership.clone());
        let mut batch = Batch::new();
        replica.write(&mut batch);
        batch.delete(Family::Raft, rest::note_key(self.range));
        if let Some(lost) = &lost {
            lost.write(&mut batch);
            // Earlier states of this replica have those keys, and their rows will be gone.
            replica.in_use().ends(lost.from.clone());
        }
        self.place(&mut batch);
        let (said, heard) = futures::channel::oneshot::channel();
        self.disk.durably(batch, Box::new(move |outcome| drop(said.send(outcome)))).await;
        let outcome = heard.await.map_err(|_| io::Error::other("the batch was not taken"))?;
        outcome.map(drop).map_err(io::Error::other)?;
        self.changed.push(Change::Seen(self.range));
        self.tells();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<openraft::Snapshot<types::Leader, u64, crate::ranges::Seat, Image>>> {
        if self.applied.is_none() {
            return Ok(None);
        }
        let mut taken = RaftStateMachine::<Types<R>>::get_snapshot_builder(self).await;
        RaftSnapshotBuilder::<Types<R>>::build_snapshot(&mut taken).await.map(Some)
    }
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<Types<R>> for Taken {
    type SnapshotData = Image;

    async fn build_snapshot(
        &mut self,
    ) -> io::Result<openraft::Snapshot<types::Leader, u64, crate::ranges::Seat, Image>> {
        Ok(openraft::Snapshot { meta: self.meta.clone(), snapshot: self.image.clone() })
    }
}
