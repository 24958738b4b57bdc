//! Replicas here that are not to be believed and still vote: they ask whoever holds the range's lease whether they may stop.
//!
//! * It decides: whether a range has a quorum without one of its replicas, as its leaseholder knows it.
//! * It never does: let a replica stop that others need, or two at once: whoever holds the lease lets one stop after the other, and
//!   only once it has held the lease for so long that it has heard of those that an earlier leaseholder has let stop.
//! * Invariant: a replica is doubted from when something was found, of it or of one that it was split off from, until it stops. It
//!   answers no read, proposes nothing, and gives its lease away; its log is sound as far as anybody knows, so that it votes on
//!   (docs/decisions/0070).

use std::collections::BTreeSet;
use std::sync::Arc;

use openraft::AsyncRuntime;
use rhumb_core::NodeId;

use super::keep::of;
use super::quarantine::IsOut;
use super::{Host, Word};
use crate::ranges::raft::Group;
use crate::ranges::replica::{RangeId, RangeReplica, ReplicaId, Seat};

/// Rounds of the timer for which a lease is held before a replica may stop: by then those that have stopped have said so to its holder.
const HELD: u32 = 5;
/// Rounds of the timer in which a replica's store is heard of and the replica does not say again that it is doubted, or that it has
/// stopped, after which it is neither: its node has started again and knows nothing of a doubt, or was not told that it may stop. Where
/// one has stopped it is waited longer, as another one may stop then.
const SILENT: u32 = 10;
const SILENT_STOPPED: u32 = 60;

impl<R: AsyncRuntime> Host<R> {
    /// The rows of a replica here are not to be believed: it stops once the range has a quorum without it. Whether that is news.
    pub(super) fn quarantine(&self, range: RangeId, replica: ReplicaId, why: String) -> bool {
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else { return false };
        if self.quarantined(range) == Some(replica) {
            return false;
        }
        {
            let mut doubted = self.0.quarantines.doubted.lock();
            if doubted.get(&range).is_some_and(|(there, _)| *there == replica) {
                return false;
            }
            doubted.insert(range, (replica, why));
        }
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            let Some(host) = of::<R>(&weak) else { return };
            group.replica().await.quarantine();
            host.asks_to_stop(&group).await;
            host.lets_go(&group).await;
        }));
        true
    }

    /// What was found of the replica that a split has begun this one from, if that is not to be believed: this one's rows were a part
    /// of its rows.
    pub(super) fn inherited(&self, left: RangeId, right: &RangeReplica) -> Option<String> {
        let doubted = self.0.quarantines.doubted.lock().get(&left).map(|(_, why)| why.clone());
        let stopped = || {
            let all = self.quarantines().into_iter();
            all.filter(|(range, there)| *range == left && !there.cleared).map(|(_, there)| there.why).next()
        };
        let unknown = || right.is_quarantined().then(|| "it is not to be believed".to_owned());
        let why = doubted.or_else(stopped).or_else(unknown)?;
        Some(format!("of the replica of range {} that it was split off from it was found: {why}", left.0))
    }

    /// Those here that are not to be believed and have not stopped, and what was found.
    #[must_use]
    pub fn doubted(&self) -> Vec<(RangeId, ReplicaId, String)> {
        let doubted = self.0.quarantines.doubted.lock();
        doubted.iter().map(|(range, (replica, why))| (*range, *replica, why.clone())).collect()
    }

    /// Asks whoever holds the lease whether a replica here may stop, if it is to.
    pub(super) async fn asks_to_stop(&self, group: &Group<R>) {
        let range = group.range();
        let replica = self.0.quarantines.doubted.lock().get(&range).map(|(replica, _)| *replica);
        if replica != Some(group.id()) {
            return;
        }
        let seats = group.replica().await.descriptor().seats.clone();
        // Who had not heard of it may have given it the lease.
        if self.has_lease(group).await {
            let (host, group) = (self.clone(), group.clone());
            drop(R::spawn(async move { host.lets_go(&group).await }));
        }
        let others = seats.iter().filter(|seat| seat.store != self.0.store).map(|seat| &seat.node);
        for node in others.collect::<BTreeSet<_>>() {
            self.0.world.tell(node, Word::Doubted { range, replica: group.id() });
        }
    }

    /// Another node's replica is not to be believed, and asks whether it may stop.
    pub(super) async fn heard_doubted(&self, node: &NodeId, range: RangeId, replica: ReplicaId) {
        let Some(group) = self.group(range) else { return };
        let (seats, holds) = {
            let here = group.replica().await;
            if here.descriptor().seat(replica).is_none_or(|seat| seat.node != *node) {
                return;
            }
            let moment = self.moment(here.descriptor());
            let since = here.lease().start.plus(self.0.settings.collect * HELD);
            (here.descriptor().seats.clone(), here.permit(&moment).is_ok() && since <= moment.now)
        };
        let at = group.last().unwrap_or_default();
        {
            let mut out = self.0.quarantines.out.lock();
            let is = out.entry((range, replica)).or_insert(IsOut::new(false, at));
            (is.at, is.silent) = (at, 0);
        }
        if holds && group.leads() && self.lets_stop(&group, &seats, replica) {
            self.0.world.tell(node, Word::MayStop { range, replica });
        }
    }

    /// Whether a replica may stop: the range has a quorum without it, for leases and in consensus. From now on it counts as one that has.
    /// One that was let stop, and has not heard it, is judged anew: another one may be away by now.
    pub(super) fn lets_stop(&self, group: &Group<R>, seats: &[Seat], replica: ReplicaId) -> bool {
        let now = self.0.world.now();
        let supporting = self.0.supporting.lock();
        let mut out = self.0.quarantines.out.lock();
        let has_stopped = |one: ReplicaId| out.get(&(group.range(), one)).is_some_and(|is| is.stopped);
        let is_well = |one: &ReplicaId| {
            let heard = |seat: &Seat| supporting.machine.promised(seat.store).until >= now;
            let seat = seats.iter().find(|seat| seat.replica == *one);
            let there = || seat.is_some_and(heard) && group.is_near(*one);
            *one != replica && !has_stopped(*one) && (*one == group.id() || there())
        };
        let spares = |voters: BTreeSet<ReplicaId>| {
            !voters.contains(&replica) || voters.iter().filter(|one| is_well(one)).count() > voters.len() / 2
        };
        let voting = seats.iter().filter(|seat| seat.votes).map(|seat| seat.replica);
        let may = spares(voting.collect()) && spares(group.members().voters);
        if may {
            let at = group.last().unwrap_or_default();
            out.insert((group.range(), replica), IsOut::new(true, at));
        }
        may
    }

    /// A replica here may stop, says a node that holds or held the lease.
    pub(super) async fn heard_may_stop(&self, node: &NodeId, range: RangeId, replica: ReplicaId) {
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else { return };
        if !group.replica().await.descriptor().seats.iter().any(|seat| seat.node == *node) {
            return;
        }
        let why =
            self.0.quarantines.doubted.lock().get(&range).filter(|(there, _)| *there == replica).cloned();
        if let Some((_, why)) = why {
            self.stops(range, replica, why);
        }
    }

    /// Replicas were the same as most at a command. One that had said something else before that is another life by now, which knows
    /// nothing of it: it is well.
    pub(super) fn are_the_same(&self, range: RangeId, index: u64, same: impl Iterator<Item = ReplicaId>) {
        let mut out = self.0.quarantines.out.lock();
        for replica in same {
            if out.get(&(range, replica)).is_some_and(|is| is.at < index) {
                out.remove(&(range, replica));
            }
        }
    }

    /// What replicas elsewhere have said of themselves, and say no more although their stores are heard of, is over.
    pub(super) async fn forgets_silent(&self, group: &Group<R>) {
        let range = group.range();
        let of = (range, ReplicaId(0))..=(range, ReplicaId(u64::MAX));
        if self.0.quarantines.out.lock().range(of).next().is_none() {
            return;
        }
        let seats = group.replica().await.descriptor().seats.clone();
        let now = self.0.world.now();
        let supporting = self.0.supporting.lock();
        self.0.quarantines.out.lock().retain(|(of, replica), is| {
            let seat = seats.iter().find(|seat| *of == range && seat.replica == *replica);
            let Some(seat) = seat else { return true };
            is.silent += u32::from(supporting.machine.promised(seat.store).until >= now);
            is.silent < if is.stopped { SILENT_STOPPED } else { SILENT }
        });
    }

    /// Only those are doubted that are still here.
    pub(super) fn forget_doubts(&self) {
        let still = |range: &RangeId, replica: ReplicaId| {
            self.group(*range).is_some_and(|group| group.id() == replica)
        };
        self.0.quarantines.doubted.lock().retain(|range, (replica, _)| still(range, *replica));
    }
}
