//! Replicas here that are not to be believed: they stop, say so, and are rebuilt when their range has let them go.
//!
//! * It decides: nothing. Whoever holds the lease says who is odd, checksums say what is damaged, and the meta range's row what comes in
//!   its place.
//! * It never does: delete rows. It stops a replica, which from then on is to the others as one that is away: it answers nothing,
//!   votes for nobody, and neither leads nor holds a lease.
//! * Invariant: what is quarantined is so in the next life too, under the same number, which never comes back.
//!
//! A fault of the store itself is none of one range: its tables hold rows of all of them, votes and other ledgers. The node stops then,
//! and its disk is replaced (docs/decisions/0065).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::NodeId;
use rhumb_storage::Batch;
use rhumb_storage::mvcc::ReadError;

use super::compare::{Checked, odd_at};
use super::keep::of;
use super::{Found, Host, HostError, Word};
use crate::ranges::quarantine::Quarantine;
use crate::ranges::raft::Group;
use crate::ranges::replica::{RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::seating::Wanted;

/// How often a replica that is to stop tries to give its lease away. If nobody takes it, the others have its store's support withdrawn.
const GIVES: u32 = 20;

/// Something of a range is not as it should be, or is again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Noticed {
    /// Its replicas were compared.
    Compared(Checked),
    /// What was read or came is not what was written.
    Damaged {
        /// It came from another node: it is refused, and sent again. Else it stands on this disk.
        on_the_way: bool,
        /// What it is.
        why: String,
    },
    /// A replica here has stopped.
    Quarantined {
        /// Which.
        replica: ReplicaId,
        /// What was found.
        why: String,
    },
    /// Another replica has taken the place of one that was quarantined, and has all of the range.
    Rebuilt {
        /// That one.
        old: ReplicaId,
        /// The new one.
        new: ReplicaId,
    },
}

/// What a host knows of quarantines.
#[derive(Debug, Default)]
pub(super) struct Quarantines {
    here: Mutex<BTreeMap<RangeId, Quarantine>>,
    /// Replicas elsewhere that have said it of themselves.
    out: Mutex<BTreeSet<(RangeId, ReplicaId)>>,
}

impl<R: AsyncRuntime> Host<R> {
    pub(super) fn recall_quarantines(&self) -> Result<(), String> {
        *self.0.quarantines.here.lock() = Quarantine::all(&*self.0.around.disk)?.into_iter().collect();
        Ok(())
    }

    /// Goes on with a replica that is on this disk, unless it is quarantined. One whose log cannot be read is, from now on.
    pub(super) async fn goes_on(&self, replica: RangeReplica) -> Result<(), HostError> {
        let (range, id) = (replica.descriptor().range, replica.id());
        if self.quarantined(range) == Some(id) {
            return Ok(());
        }
        let Err(error) = self.serve(replica).await else { return Ok(()) };
        let Some(why) = self.0.around.damages.lock().remove(&range) else { return Err(error) };
        self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why: why.clone() });
        let quarantine = self.noted(range, id, why).ok_or(error)?;
        self.keeps(range, &quarantine).await.map_err(HostError::Replica)?;
        self.0.world.noticed(range, Noticed::Quarantined { replica: id, why: quarantine.why });
        Ok(())
    }

    /// The replica of a range that is quarantined here, and not let go of yet.
    #[must_use]
    pub fn quarantined(&self, range: RangeId) -> Option<ReplicaId> {
        let here = self.0.quarantines.here.lock();
        here.get(&range).filter(|there| !there.cleared).map(|there| there.replica)
    }

    /// All that are quarantined here, or are being rebuilt.
    #[must_use]
    pub fn quarantines(&self) -> Vec<(RangeId, Quarantine)> {
        self.0.quarantines.here.lock().iter().map(|(range, there)| (*range, there.clone())).collect()
    }

    /// Whether a replica has said that it is not to be believed.
    pub(super) fn is_out(&self, range: RangeId, replica: ReplicaId) -> bool {
        self.0.quarantines.out.lock().contains(&(range, replica))
    }

    /// Stops a replica here whose rows are not to be believed, if the range has a quorum without it.
    pub(super) fn quarantine(&self, range: RangeId, replica: ReplicaId, why: String) {
        self.stops(range, replica, why, false);
    }

    fn stops(&self, range: RangeId, replica: ReplicaId, why: String, in_log: bool) {
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else { return };
        let Some(quarantine) = self.noted(range, replica, why) else { return };
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            let Some(host) = of::<R>(&weak) else { return };
            group.replica().await.quarantine();
            // One whose log is damaged may have forgotten what it has acknowledged: it votes no more.
            if !in_log && !host.is_to_spare(&group).await {
                // It votes on, or there would be no quorum for good; it is found again when the others are well.
                host.0.quarantines.here.lock().remove(&range);
                host.suspects(range, true);
                return host.lets_go(&group).await;
            }
            if let Err(why) = host.keeps(range, &quarantine).await {
                return host.0.world.halt(format!("a quarantine of range {}: {why}", range.0));
            }
            let why = quarantine.why.clone();
            host.0.world.noticed(range, Noticed::Quarantined { replica, why });
            host.lets_go(&group).await;
            host.stands_still(&group).await;
        }));
    }

    /// Whether the range has a quorum without this replica, as far as is known here.
    async fn is_to_spare(&self, group: &Group<R>) -> bool {
        let seats = group.replica().await.descriptor().seats.clone();
        let voters = || seats.iter().filter(|seat| seat.votes);
        if voters().all(|seat| seat.replica != group.id()) {
            return true;
        }
        let is_well = |seat: &&Seat| seat.replica != group.id() && !self.is_out(group.range(), seat.replica);
        voters().filter(is_well).count() > voters().count() / 2
    }

    /// None: it is known.
    fn noted(&self, range: RangeId, replica: ReplicaId, why: String) -> Option<Quarantine> {
        let mut here = self.0.quarantines.here.lock();
        if here.get(&range).is_some_and(|there| there.replica == replica) {
            return None;
        }
        let quarantine = Quarantine { replica, why, at: self.0.world.now(), cleared: false };
        here.insert(range, quarantine.clone());
        Some(quarantine)
    }

    async fn keeps(&self, range: RangeId, quarantine: &Quarantine) -> Result<(), String> {
        let mut batch = Batch::new();
        quarantine.write(range, &mut batch);
        self.durably(batch).await
    }

    /// Gives the lease away, if this replica has it.
    async fn lets_go(&self, group: &Group<R>) {
        for _ in 0..GIVES {
            let (holder, seats) = {
                let replica = group.replica().await;
                (replica.lease().holder, replica.descriptor().seats.clone())
            };
            if holder != Some(group.id()) || group.stopped().is_some() {
                return;
            }
            for seat in seats.into_iter().filter(|seat| seat.votes && seat.replica != group.id()) {
                // Without a quorum nobody answers.
                let given =
                    R::timeout(self.0.settings.beat, self.give_lease(group.range(), &seat.node)).await;
                if given.is_ok_and(|given| given.is_ok()) {
                    break;
                }
            }
            R::sleep(self.0.settings.keep).await;
        }
    }

    async fn stands_still(&self, group: &Group<R>) {
        if rhumb_core::canary::sings(rhumb_core::canary::Canary::QuarantinedReads) {
            return;
        }
        let range = group.range();
        // Whoever looks after groups does not meet one that has been stopped.
        self.0.groups.lock().remove(&range);
        self.0.keys.lock().values_mut().for_each(|keys| keys.retain(|_, (_, of)| *of != range));
        group.shut_down().await;
        // What was met meanwhile was met in this one, and is not said of the next.
        self.0.around.damages.lock().remove(&range);
    }

    /// Rows of a replica here could not be read. Whether that is a damage of it alone.
    pub(super) fn read_damage(&self, range: RangeId, replica: ReplicaId, error: &ReadError) -> bool {
        match error {
            ReadError::Damaged { .. } => {
                let why = error.to_string();
                self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why: why.clone() });
                self.quarantine(range, replica, why);
                true
            }
            // Whoever stops has closed the store.
            ReadError::Fault(fault) if self.group(range).is_some() => {
                self.0.world.halt(format!("rows of range {}: {fault}", range.0));
                false
            }
            _ => false,
        }
    }

    /// What was found while a log was read, or rows of it were sent, is damaged: the replica stops.
    pub(super) fn quarantine_damaged(&self, group: &Group<R>) {
        let why = self.0.around.damages.lock().remove(&group.range());
        let Some(why) = why else { return };
        self.0.world.noticed(group.range(), Noticed::Damaged { on_the_way: false, why: why.clone() });
        self.stops(group.range(), group.id(), why, true);
    }

    /// Whether a replica that has stopped was damaged, and is quarantined now.
    pub(super) fn stopped_by_damage(&self, group: &Group<R>) -> bool {
        self.quarantine_damaged(group);
        self.quarantined(group.range()) == Some(group.id())
    }

    /// Says who is quarantined here, to all who have a replica of that range.
    pub(super) fn announce_quarantines(&self) {
        for (range, there) in self.quarantines().into_iter().filter(|(_, there)| !there.cleared) {
            let disk = &self.0.around.disk;
            let row = disk.get(rhumb_storage::Family::Raft, &RangeReplica::row_key(range)).ok().flatten();
            let Some(row) = row else { continue };
            let Ok(replica) = RangeReplica::recover(self.0.settings.range, &row) else { continue };
            let word = Word::Quarantined { range, replica: there.replica };
            let others = replica.descriptor().seats.iter().filter(|seat| seat.store != self.0.store);
            others.for_each(|seat| self.0.world.tell(&seat.node, word.clone()));
        }
    }

    /// Another node says that its replica is not to be believed.
    pub(super) async fn heard_quarantined(&self, node: &NodeId, range: RangeId, replica: ReplicaId) {
        let Some(group) = self.group(range) else { return };
        let holds = {
            let here = group.replica().await;
            if here.descriptor().seat(replica).is_none_or(|seat| seat.node != *node) {
                return;
            }
            here.permit(&self.moment(here.descriptor())).is_ok()
        };
        self.0.quarantines.out.lock().insert((range, replica));
        if holds {
            self.0.world.found(range, Found::Quarantined(replica));
        }
    }

    /// Another node, which holds or held the lease, says that a replica here is odd.
    pub(super) async fn heard_odd(&self, node: &NodeId, range: RangeId, replica: ReplicaId, index: u64) {
        let Some(group) = self.group(range) else { return };
        let of_it = group.replica().await.descriptor().seats.iter().any(|seat| seat.node == *node);
        if of_it {
            self.quarantine(range, replica, odd_at(index));
        }
    }

    /// Whether the replica of a range is one that takes the place of another and has all of the range: then that is over.
    pub(super) async fn is_rebuilt(&self, group: &Group<R>) {
        let range = group.range();
        let there = self.0.quarantines.here.lock().get(&range).cloned();
        let Some(there) = there.filter(|there| there.cleared && there.replica != group.id()) else { return };
        let wanted = self.0.wanted.lock().get(&range).cloned().unwrap_or_default();
        let votes = wanted.seats.iter().find(|seat| seat.replica == group.id()).map(|seat| seat.votes);
        let is_there = {
            let replica = group.replica().await;
            let seat = replica.descriptor().seat(group.id()).map(|seat| seat.votes);
            !replica.descriptor().is_empty() && seat.is_some() && seat == votes
        };
        if !is_there {
            return;
        }
        let mut batch = Batch::new();
        batch.delete(rhumb_storage::Family::Raft, Quarantine::row_key(range));
        if self.durably(batch).await.is_ok() {
            self.0.quarantines.here.lock().remove(&range);
            self.0.world.noticed(range, Noticed::Rebuilt { old: there.replica, new: group.id() });
        }
    }

    /// Forgets those that are cleared and have no successor here: it is wanted elsewhere, or nowhere.
    pub(super) async fn forget_quarantines(&self) {
        for (range, there) in self.quarantines().into_iter().filter(|(_, there)| there.cleared) {
            let follows = {
                let wanted = self.0.wanted.lock();
                let here = |wanted: &Wanted| wanted.seats.iter().any(|seat| seat.store == self.0.store);
                // What is wanted is not known at first.
                wanted.is_empty() || wanted.get(&range).is_some_and(here)
            };
            if follows || self.group(range).is_some() {
                continue;
            }
            let mut batch = Batch::new();
            batch.delete(rhumb_storage::Family::Raft, Quarantine::row_key(range));
            if self.durably(batch).await.is_ok() {
                let mut here = self.0.quarantines.here.lock();
                if here.get(&range) == Some(&there) {
                    here.remove(&range);
                }
            }
        }
    }

    /// The quarantine of a replica that is cleared away now, if it has one: in the same batch.
    pub(super) fn clears(&self, range: RangeId, replica: ReplicaId, batch: &mut Batch) {
        let mut here = self.0.quarantines.here.lock();
        if let Some(there) = here.get_mut(&range).filter(|there| there.replica == replica) {
            there.cleared = true;
            there.write(range, batch);
        }
    }
}
