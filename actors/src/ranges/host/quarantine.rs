//! Replicas here that are not to be believed and have stopped: they say so, and are rebuilt when their range has let them go. Until
//! they may stop they are [`doubts`](super::doubts).
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
use rhumb_storage::mvcc::ReadError;
use rhumb_storage::{Batch, Family};

use super::compare::{Checked, odd_at};
use super::keep::of;
use super::{Found, Host, HostError, Supporting, Word};
use crate::ranges::quarantine::Quarantine;
use crate::ranges::raft::{Damage, Group};
use crate::ranges::replica::{RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::seating::Wanted;

/// How often a replica that is not to be believed tries to give its lease away.
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
    /// Replicas here that are not to be believed and have not stopped, and what was found.
    pub(super) doubted: Mutex<BTreeMap<RangeId, (ReplicaId, String)>>,
    /// Replicas elsewhere that have said it of themselves.
    pub(super) out: Mutex<BTreeMap<(RangeId, ReplicaId), IsOut>>,
    /// Ranges whose leases are being given away.
    giving: Mutex<BTreeSet<RangeId>>,
    /// Held by who changes a row on the disk.
    pub(super) writing: tokio::sync::Mutex<()>,
}

/// A replica elsewhere has said that it is not to be believed.
#[derive(Debug, Clone, Copy)]
pub(super) struct IsOut {
    /// Whether it has stopped, or may.
    pub(super) stopped: bool,
    /// Where the log ended here when that was heard.
    pub(super) at: u64,
    /// Rounds of the timer since then in which its store was heard of.
    pub(super) silent: u32,
}

impl IsOut {
    /// It was heard just now.
    pub(super) fn new(stopped: bool, at: u64) -> Self {
        Self { stopped, at, silent: 0 }
    }
}

impl<R: AsyncRuntime> Host<R> {
    /// Knows again what is quarantined. Where that cannot be read, whichever replica of the range is here is.
    pub(super) async fn recall_quarantines(&self) -> Result<(), String> {
        let disk = &self.0.around.disk;
        for (range, read) in Quarantine::all(&**disk)? {
            let why = match read {
                Ok(there) => {
                    self.0.quarantines.here.lock().insert(range, there);
                    continue;
                }
                Err(why) => format!("its quarantine cannot be read: {why}"),
            };
            self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why: why.clone() });
            let row =
                disk.get(Family::Raft, &RangeReplica::row_key(range)).map_err(|fault| fault.to_string())?;
            if let Some(row) = row {
                let replica = RangeReplica::recover(self.0.settings.range, &row)?.id();
                self.noted(range, replica, why.clone());
                self.0.world.noticed(range, Noticed::Quarantined { replica, why });
            }
            self.keeps(range).await?;
        }
        Ok(())
    }

    /// Goes on with a replica that is on this disk, unless it is quarantined. One whose log cannot be read is, from now on.
    pub(super) async fn goes_on(&self, replica: RangeReplica) -> Result<(), HostError> {
        let (range, id) = (replica.descriptor().range, replica.id());
        if self.quarantined(range) == Some(id) {
            return Ok(());
        }
        let Err(error) = self.serve(replica).await else { return Ok(()) };
        let Some(Damage { why, .. }) = self.0.around.damages.lock().remove(&range) else { return Err(error) };
        self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why: why.clone() });
        let quarantine = self.noted(range, id, why).ok_or(error)?;
        self.keeps(range).await.map_err(HostError::Replica)?;
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
        self.0.quarantines.out.lock().contains_key(&(range, replica))
    }

    /// Whether a replica that is not to be believed has stopped, or may.
    pub(super) fn has_stopped(&self, range: RangeId, replica: ReplicaId) -> bool {
        self.0.quarantines.out.lock().get(&(range, replica)).is_some_and(|is| is.stopped)
    }

    /// Stops a replica here.
    pub(super) fn stops(&self, range: RangeId, replica: ReplicaId, why: String) {
        let Some(group) = self.group(range).filter(|group| group.id() == replica) else { return };
        let Some(quarantine) = self.noted(range, replica, why) else { return };
        let weak = Arc::downgrade(&self.0);
        drop(R::spawn(async move {
            let Some(host) = of::<R>(&weak) else { return };
            group.replica().await.quarantine();
            if let Err(why) = host.keeps(range).await {
                return host.0.world.halt(format!("a quarantine of range {}: {why}", range.0));
            }
            let why = quarantine.why.clone();
            host.0.world.noticed(range, Noticed::Quarantined { replica, why });
            host.lets_go(&group).await;
            host.stands_still(&group).await;
        }));
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

    /// Has the disk say what is known here of a range. One at a time: the row says what was known last.
    async fn keeps(&self, range: RangeId) -> Result<(), String> {
        let _one = self.0.quarantines.writing.lock().await;
        let there = self.0.quarantines.here.lock().get(&range).cloned();
        let mut batch = Batch::new();
        match there {
            Some(there) => there.write(range, &mut batch),
            None => {
                batch.delete(Family::Raft, Quarantine::row_key(range));
            }
        }
        self.durably(batch).await
    }

    /// Forgets a quarantine that is over. Whether it is forgotten: another one may have come in its place.
    async fn forgets(&self, range: RangeId, over: &Quarantine) -> bool {
        {
            let mut here = self.0.quarantines.here.lock();
            if here.get(&range) != Some(over) {
                return false;
            }
            here.remove(&range);
        }
        let forgotten = self.keeps(range).await.is_ok();
        if !forgotten {
            self.0.quarantines.here.lock().entry(range).or_insert_with(|| over.clone());
        }
        forgotten
    }

    /// Gives the lease away, if this replica has it. If nobody takes it all leases of this store lapse: it is supported however well this
    /// replica is, and the others would wait for good. Where none of them could take it either, one that votes on tries again later:
    /// other ranges would lose their leaseholder for nothing.
    pub(super) async fn lets_go(&self, group: &Group<R>) {
        let range = group.range();
        if !self.0.quarantines.giving.lock().insert(range) {
            return;
        }
        for _ in 0..GIVES {
            if !self.has_lease(group).await || group.stopped().is_some() {
                break;
            }
            let seats = group.replica().await.descriptor().seats.clone();
            for seat in seats.into_iter().filter(|seat| seat.votes && seat.replica != group.id()) {
                // Without a quorum nobody answers.
                let given = R::timeout(self.0.settings.beat, self.give_lease(range, &seat.node)).await;
                if given.is_ok_and(|given| given.is_ok()) {
                    break;
                }
            }
            R::sleep(self.0.settings.keep).await;
        }
        let stops = self.quarantined(range) == Some(group.id());
        if self.has_lease(group).await && (stops || self.could_be_taken(group).await) {
            {
                let Supporting { machine, out, .. } = &mut *self.0.supporting.lock();
                machine.lapse(out);
            }
            self.flush();
        }
        self.0.quarantines.giving.lock().remove(&range);
    }

    /// Whether another replica could take a lease from this one, as far as is known here: it is heard of, as are most of those that vote.
    async fn could_be_taken(&self, group: &Group<R>) -> bool {
        let range = group.range();
        let seats = group.replica().await.descriptor().seats.clone();
        let now = self.0.world.now();
        let supporting = self.0.supporting.lock();
        let is_mine = |seat: &Seat| seat.replica == group.id();
        let is_there = |seat: &&&Seat| {
            let heard = supporting.machine.promised(seat.store).until >= now;
            is_mine(seat) || heard && !self.has_stopped(range, seat.replica)
        };
        let voters: Vec<_> = seats.iter().filter(|seat| seat.votes).collect();
        let there: Vec<_> = voters.iter().filter(is_there).collect();
        let takes = there.iter().any(|seat| !is_mine(seat) && !self.is_out(range, seat.replica));
        takes && there.len() > voters.len() / 2
    }

    /// Whether a replica has the lease, and it has not lapsed.
    pub(super) async fn has_lease(&self, group: &Group<R>) -> bool {
        let lease = *group.replica().await.lease();
        lease.holder == Some(group.id()) && lease.epoch == self.0.supporting.lock().machine.epoch()
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
                if self.quarantine(range, replica, why.clone()) {
                    self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why });
                }
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

    /// What was found while a log was read is damaged: the replica stops. It may have forgotten what it has acknowledged, and votes no
    /// more, whoever needs it. One of which only rows are, which were sent, stops as others do whose rows are.
    pub(super) fn quarantine_damaged(&self, group: &Group<R>) {
        let (range, damage) = (group.range(), self.0.around.damages.lock().remove(&group.range()));
        let Some(Damage { why, rows_alone }) = damage else { return };
        if rows_alone && !self.quarantine(range, group.id(), why.clone()) {
            return;
        }
        self.0.world.noticed(range, Noticed::Damaged { on_the_way: false, why: why.clone() });
        if !rows_alone {
            self.stops(range, group.id(), why);
        }
    }

    /// Whether a replica that has stopped was damaged, and is quarantined now.
    pub(super) fn stopped_by_damage(&self, group: &Group<R>) -> bool {
        self.quarantine_damaged(group);
        self.quarantined(group.range()) == Some(group.id())
    }

    /// Says who is quarantined here, to all who have a replica of that range, or are to have one: since it has stopped others may have
    /// come.
    pub(super) fn announce_quarantines(&self) {
        for (range, there) in self.quarantines().into_iter().filter(|(_, there)| !there.cleared) {
            let disk = &self.0.around.disk;
            let row = disk.get(Family::Raft, &RangeReplica::row_key(range)).ok().flatten();
            let Some(row) = row else { continue };
            let Ok(replica) = RangeReplica::recover(self.0.settings.range, &row) else { continue };
            let word = Word::Quarantined { range, replica: there.replica };
            let wanted = self.0.wanted.lock().get(&range).cloned().unwrap_or_default();
            let seats = replica.descriptor().seats.iter().chain(&wanted.seats).chain(&wanted.leaving);
            let others = seats.filter(|seat| seat.store != self.0.store).map(|seat| &seat.node);
            others
                .collect::<BTreeSet<_>>()
                .into_iter()
                .for_each(|node| self.0.world.tell(node, word.clone()));
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
        let at = group.last().unwrap_or_default();
        self.0.quarantines.out.lock().insert((range, replica), IsOut::new(true, at));
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
        if self.forgets(range, &there).await {
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
            self.forgets(range, &there).await;
        }
    }

    /// The quarantine of a replica that is cleared away now, if it has one: in the same batch. Whoever calls holds `writing`.
    pub(super) fn clears(&self, range: RangeId, replica: ReplicaId, batch: &mut Batch) {
        let mut here = self.0.quarantines.here.lock();
        if let Some(there) = here.get_mut(&range).filter(|there| there.replica == replica) {
            there.cleared = true;
            there.write(range, batch);
        }
    }
}
