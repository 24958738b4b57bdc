//! Replicas that begin, move and end: what a host does when a range's log, or whoever wants its replicas elsewhere, says so.
//!
//! * It decides: nothing. [`seating`](crate::ranges::seating) says which step comes next.
//! * It never does: clear away a replica that may still be of its range: only one that is said to have left.
//! * Invariant: a replica that is cleared away begins never again: its number is gone from the disk before its rows are, and what
//!   is left of them is cleared at the next start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::AsyncRuntime;
use rhumb_core::{HybridTime, NodeId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey, VersionKey};
use rhumb_storage::{Batch, Family};

use super::{Host, HostError, NotWritten};
use crate::ranges::command::{Command, Outcome};
use crate::ranges::homing::Look;
use crate::ranges::lease::{Moment, RangeRefusal};
use crate::ranges::raft::{Change, Group, NotProposed, Rest, StartError, group, rest};
use crate::ranges::replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::seating::{self, Step, Wanted};
use crate::ranges::span::Span;

/// Rows that are cleared in one batch.
const CLEARED_AT_ONCE: usize = 1_000;
/// Between two batches of them.
const CLEARS_EVERY: Duration = Duration::from_millis(5);
/// How often the holder of the lease of a range that a split has begun stands for election, so that somebody leads soon.
const STANDS: u32 = 10;

/// What a leaseholder has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The range has begun.
    Begun,
    /// These have left the range.
    Left(Vec<ReplicaId>),
    /// This one has said that it is not to be believed.
    Quarantined(ReplicaId),
}

impl<R: AsyncRuntime> Host<R> {
    /// Where replicas of a range are wanted, from now on.
    pub fn want(&self, range: RangeId, wanted: Wanted) {
        if let Some(group) = self.group(range) {
            group.welcome(wanted.seats.iter().chain(&wanted.leaving));
        }
        self.0.wanted.lock().insert(range, wanted);
    }

    /// Follows what logs do to ranges.
    pub(super) fn follow(&self, mut changed: futures::channel::mpsc::Receiver<Change>) {
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            while let Some(change) = changed.next().await {
                let Some(inner) = weak.upgrade() else { return };
                let host = Self(inner);
                match change {
                    Change::Compares(extent) => host.hashes(extent.descriptor.range, *extent),
                    Change::Born { left, right } => host.born(left, *right).await,
                    Change::Seen(range) => host.seen(range).await,
                }
            }
        }));
    }

    async fn seen(&self, range: RangeId) {
        let Some(group) = self.group(range) else { return };
        let descriptor = group.replica().await.descriptor().clone();
        group.welcome(&descriptor.seats);
        self.know(&descriptor);
        // It may have lost keys.
        self.sweep();
    }

    async fn born(&self, left: RangeId, replica: RangeReplica) {
        let (range, id) = (replica.descriptor().range, replica.id());
        let holder = replica.lease().holder == Some(id);
        if self.group(range).is_some() {
            return;
        }
        let doubt = self.inherited(left, &replica);
        if let Err(error) = self.serve(replica).await {
            return self.0.world.halt(format!("the replica that a split has begun does not start: {error}"));
        }
        if let Some(why) = doubt {
            self.quarantine(range, id, why);
        }
        if !holder {
            return;
        }
        let (weak, wait) = (Arc::downgrade(&self.0), self.0.settings.keep);
        drop(R::spawn(async move {
            for _ in 0..STANDS {
                let Some(inner) = weak.upgrade() else { return };
                let group = Self(inner).group(range);
                let Some(group) = group else { return };
                if group.leader().await.is_some() {
                    return;
                }
                group.stands().await;
                R::sleep(wait).await;
            }
        }));
    }

    /// Takes the next step towards where replicas are wanted, if one is to be taken.
    pub(super) async fn seat(&self, group: &Group<R>) {
        let range = group.range();
        let Some(wanted) = self.0.wanted.lock().get(&range).cloned() else { return };
        let (here, since) = {
            let replica = group.replica().await;
            (replica.descriptor().seats.clone(), replica.lease().start)
        };
        let near = |replica| group.is_near(replica) && !self.is_out(range, replica);
        let step = seating::next(&wanted, &here, &group.members(), self.0.store, near)
            .or_else(|| self.homewards(range, &wanted, &here, since, near));
        let Some(step) = step else { return };
        if let Step::Vote(voters) = &step
            && wanted.leaving.iter().any(|old| wanted.seats.iter().any(|new| new.store == old.store))
            && !self.are_well(group, &here, &wanted, voters)
        {
            // With a voter less there would be no quorum.
            return;
        }
        if !self.0.busy.lock().insert(range) {
            return;
        }
        let (host, group) = (self.clone(), group.clone());
        // Whoever keeps leases does not wait for consensus.
        drop(R::spawn(async move {
            let taken = host.take(&group, step.clone()).await;
            if let Err(why) = taken {
                tracing::debug!(range = range.0, ?step, why, "not taken; it is tried again");
            }
            host.0.busy.lock().remove(&range);
        }));
    }

    /// The step of a leaseholder that gives its lease to who is where most is written, if it is to.
    fn homewards(
        &self,
        range: RangeId,
        wanted: &Wanted,
        here: &[Seat],
        since: HybridTime,
        near: impl Fn(ReplicaId) -> bool,
    ) -> Option<Step> {
        let home = wanted.home.as_ref()?;
        let now = self.0.world.now();
        let mut homing = self.0.homing.lock();
        for seat in here.iter().filter(|seat| seat.node.region == *home) {
            let promised = self.0.supporting.lock().machine.promised(seat.store);
            homing.saw(now, seat.store, (promised.until >= now).then_some(promised.epoch));
        }
        let look = Look { now, range, wanted, here, me: self.0.store, since };
        let there = homing.next(&look, |seat| near(seat.replica))?;
        tracing::info!(range = range.0, %home, to = %there[0].node, "the lease goes home");
        Some(Step::Give(there))
    }

    /// Whether most of these are heard of, and have nearly all of the log. Those that have stopped do not count; one that leaves for
    /// another disk, or is doubted, votes on.
    fn are_well(
        &self,
        group: &Group<R>,
        here: &[Seat],
        wanted: &Wanted,
        voters: &BTreeSet<ReplicaId>,
    ) -> bool {
        let now = self.0.world.now();
        let supporting = self.0.supporting.lock();
        let heard = |seat: &Seat| supporting.machine.promised(seat.store).until >= now;
        let is_rebuilt = |voter: ReplicaId| {
            let follows = |old: &Seat| wanted.seats.iter().any(|new| new.store == old.store);
            wanted.leaving.iter().any(|old| old.replica == voter && follows(old))
        };
        let is_out = |voter: ReplicaId| is_rebuilt(voter) || self.has_stopped(group.range(), voter);
        let is_well = |voter: &&ReplicaId| {
            let seat = here.iter().find(|seat| seat.replica == **voter);
            let mine = **voter == group.id();
            !is_out(**voter) && seat.is_some_and(|seat| mine || heard(seat) && group.is_near(**voter))
        };
        voters.iter().filter(is_well).count() > voters.len() / 2
    }

    /// Whether all replicas of a range stand where they are wanted, as far as this one knows, which leads.
    pub(super) fn is_seated(&self, group: &Group<R>, descriptor: &Descriptor) -> bool {
        let wanted = self.0.wanted.lock().get(&group.range()).cloned();
        let next = wanted.and_then(|wanted| {
            let near = |replica| group.is_near(replica);
            seating::next(&wanted, &descriptor.seats, &group.members(), self.0.store, near)
        });
        next.is_none() && !self.0.busy.lock().contains(&group.range())
    }

    async fn take(&self, group: &Group<R>, step: Step) -> Result<(), String> {
        let range = group.range();
        match step {
            Step::Begun => self.0.world.found(range, Found::Begun),
            Step::Left(left) => self.0.world.found(range, Found::Left(left)),
            Step::Learn(seat) => group.learns(seat).await?,
            Step::Vote(voters) => group.vote(voters).await?,
            Step::Forget(replica) => group.forgets(replica).await?,
            Step::Give(seats) => {
                let mut why = "nobody stays".to_owned();
                for seat in seats {
                    match self.give_lease(range, &seat.node).await {
                        Ok(_) => return Ok(()),
                        Err(not) => why = format!("{not:?}"),
                    }
                }
                return Err(why);
            }
            Step::Reseat(seats) => {
                let made =
                    |replica: &mut RangeReplica, moment: &Moment| replica.propose_reseat(moment, seats);
                let outcome = self.command(group, made).await.map_err(|not| format!("{not:?}"))?;
                if outcome != Outcome::Reseated {
                    return Err(format!("{outcome:?}"));
                }
            }
        }
        Ok(())
    }

    /// Proposes a command at the present moment.
    async fn command(
        &self,
        group: &Group<R>,
        make: impl FnOnce(&mut RangeReplica, &Moment) -> Result<Command, RangeRefusal>,
    ) -> Result<Outcome, NotWritten> {
        let proposed = group.propose(|replica| {
            let moment = self.moment(replica.descriptor());
            make(replica, &moment)
        });
        match proposed.await {
            Ok(outcome) => Ok(outcome),
            Err(NotProposed::Refused(RangeRefusal::NotLeaseholder(Some(holder)))) => {
                Err(self.at(group.range(), Some(holder)).await)
            }
            Err(NotProposed::NotLeader(_)) => {
                let holder = self.leaseholder(group.range()).await.map(|seat| seat.replica);
                Err(self.at(group.range(), holder).await)
            }
            Err(NotProposed::Refused(refusal)) => Err(NotWritten::Refused(refusal)),
            Err(NotProposed::Unknown(why)) => Err(NotWritten::Unknown(why)),
            Err(NotProposed::Stopped(why)) => Err(NotWritten::Stopped(why)),
        }
    }

    /// Splits a range that this node holds the lease of before a key.
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn split(
        &self,
        range: RangeId,
        at: UserKey,
        right: RangeId,
        seats: Vec<Seat>,
    ) -> Result<(), NotWritten> {
        let group = self.group(range).ok_or(NotWritten::NoReplica)?;
        let made =
            |replica: &mut RangeReplica, moment: &Moment| replica.propose_split(moment, at, right, seats);
        match self.command(&group, made).await? {
            Outcome::Split(_) => Ok(()),
            Outcome::Outside => Err(NotWritten::Refused(RangeRefusal::Outside)),
            _ => Err(NotWritten::Void),
        }
    }

    /// Gives the lease of a range that this node holds to another node's replica, and the lead with it.
    ///
    /// # Errors
    /// [`NotWritten`]; a node that has no replica that votes, or is not heard of, is [`RangeRefusal::LeaseNotInForce`].
    pub async fn give_lease(&self, range: RangeId, to: &NodeId) -> Result<ReplicaId, NotWritten> {
        let group = self.group(range).ok_or(NotWritten::NoReplica)?;
        let seat = {
            let replica = group.replica().await;
            replica.descriptor().seats.iter().find(|seat| seat.node == *to && seat.votes).cloned()
        };
        let seat = seat.ok_or(NotWritten::Refused(RangeRefusal::LeaseNotInForce))?;
        let promised = self.0.supporting.lock().machine.promised(seat.store);
        if promised.until < self.0.world.now() {
            return Err(NotWritten::Refused(RangeRefusal::LeaseNotInForce));
        }
        if self.is_out(range, seat.replica) {
            return Err(NotWritten::Refused(RangeRefusal::Quarantined));
        }
        // One that lacks more than it can catch up with at once could not lead.
        if seat.replica != group.id() && group.leads() && !group.is_near(seat.replica) {
            return Err(NotWritten::Refused(RangeRefusal::LeaseNotInForce));
        }
        if seat.replica == group.id() {
            let holds = self.holds(range).await;
            let holder = group.replica().await.lease().holder;
            return if holds { Ok(seat.replica) } else { Err(self.at(range, holder).await) };
        }
        let made = |replica: &mut RangeReplica, moment: &Moment| {
            replica.transfer_lease(moment, seat.replica, seat.store, promised.epoch)
        };
        match self.command(&group, made).await? {
            Outcome::Leased(replica) => {
                group.give_lead(replica).await;
                Ok(replica)
            }
            _ => Err(NotWritten::Void),
        }
    }

    /// Clears away a replica that has left its range, with all of its rows.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn clear(&self, range: RangeId, replica: ReplicaId) -> Result<(), HostError> {
        let fails = |why: String| HostError::Start(StartError { range, replica, why });
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else {
            if self.quarantined(range) != Some(replica) {
                return Ok(());
            }
            let row = self.0.around.disk.get(Family::Raft, &RangeReplica::row_key(range))?;
            let row = row.ok_or_else(|| fails("its state is not there".to_owned()))?;
            let state = RangeReplica::recover(self.0.settings.range, &row).map_err(fails)?;
            return self.clear_state(range, replica, state.descriptor()).await.map_err(fails);
        };
        // Whoever looks after groups does not meet one that has been stopped.
        self.0.groups.lock().remove(&range);
        self.0.wanted.lock().remove(&range);
        let descriptor = {
            let mut replica = group.replica().await;
            replica.end();
            replica.descriptor().clone()
        };
        if let Some(keys) = self.0.keys.lock().get_mut(&descriptor.keyspace) {
            keys.retain(|_, (_, of)| *of != range);
        }
        group.shut_down().await;
        // Its rows, or a part of them, may be on their way to a follower.
        while group.replica().await.in_use().is_walked() {
            R::sleep(self.0.settings.keep).await;
        }
        self.clear_state(range, replica, &descriptor).await.map_err(fails)
    }

    /// Deletes what a replica is, and notes that its rows are to be cleared: one batch.
    async fn clear_state(
        &self,
        range: RangeId,
        replica: ReplicaId,
        descriptor: &Descriptor,
    ) -> Result<(), String> {
        let mut batch = Batch::new();
        group::erase(&*self.0.around.disk, range, &mut batch)?;
        let rest = match descriptor.is_empty() {
            true => rest::noted(&*self.0.around.disk, range)?,
            false => Some(Rest::of(descriptor)),
        };
        if let Some(rest) = rest {
            rest.write(&mut batch);
        }
        let one = self.0.quarantines.writing.lock().await;
        self.clears(range, replica, &mut batch);
        self.durably(batch).await?;
        drop(one);
        self.sweep();
        Ok(())
    }

    /// As [`Host::clear_the_rest`]; what cannot be read is read again later.
    pub(super) fn sweep(&self) {
        if let Err(why) = self.clear_the_rest() {
            tracing::warn!(why, "what is left of ranges that are no more here cannot be read");
        }
    }

    /// Clears what is left of replicas and keys that are no more here, beside all else. What cannot be cleared is tried again.
    pub(super) fn clear_the_rest(&self) -> Result<(), String> {
        for rest in rest::all(&*self.0.around.disk)? {
            if !self.0.clearing.lock().insert(rest.key()) {
                continue;
            }
            let host = self.clone();
            drop(R::spawn(async move {
                if let Err(why) = host.clear_rows(&rest).await {
                    let range = rest.range.0;
                    tracing::warn!(
                        range,
                        why,
                        "rows of a range that are no more here are not cleared away yet"
                    );
                }
                host.0.clearing.lock().remove(&rest.key());
            }));
        }
        Ok(())
    }

    /// Whether a row whose key cannot be read stands among those of a range that is here.
    fn has_row(&self, keyspace: KeyspaceId, row: &[u8]) -> bool {
        let keys = self.0.keys.lock();
        let of = |(from, (to, _)): (&UserKey, &(Option<UserKey>, RangeId))| {
            Span::of(keyspace, from, to.as_ref()).holds(row)
        };
        keys.get(&keyspace).is_some_and(|keys| keys.iter().any(of))
    }

    async fn clear_rows(&self, rest: &Rest) -> Result<(), String> {
        // Since it was read somebody may have cleared it, and new rows may have come.
        let noted = self.0.around.disk.get(Family::Raft, &rest.key()).map_err(|fault| fault.to_string())?;
        if noted.is_none() {
            return Ok(());
        }
        // They, or a part of them, may be on their way to a follower.
        while let Some(group) = self.group(rest.range)
            && group.replica().await.in_use().is_walked()
        {
            R::sleep(self.0.settings.keep).await;
        }
        let (keyspace, span) = (rest.keyspace, Span::of(rest.keyspace, &rest.from, rest.to.as_ref()));
        let mut next = Some(span.first().to_vec());
        while let Some(from) = next.take() {
            let (mut batch, mut rows) = (Batch::new(), 0);
            let walked = self.0.around.disk.walk(Family::Mvcc, &from, &mut |row, _| {
                if !span.holds(row) {
                    return false;
                }
                if rows == CLEARED_AT_ONCE {
                    next = Some(row.to_vec());
                    return false;
                }
                rows += 1;
                // A range that was split from it may stand here still.
                let stays = match VersionKey::decode(row) {
                    Ok(version) => self.range_of(keyspace, &version.key).is_some(),
                    Err(_) => self.has_row(keyspace, row),
                };
                if !stays {
                    batch.delete(Family::Mvcc, row);
                }
                true
            });
            walked.map_err(|fault| fault.to_string())?;
            if next.is_none() {
                batch.delete(Family::Raft, rest.key());
                return self.durably(batch).await;
            }
            self.0.around.disk.visibly(batch).await?;
            R::sleep(CLEARS_EVERY).await;
        }
        Ok(())
    }
}
