//! Who may hold a range's lease, and whether it is held at this moment.
//!
//! * It decides: whether the holder may serve or propose now; from when on a successor may.
//! * It never does: ask who leads the log. Leases are entries of it, and rest on the support of stores.
//! * Invariant: the times at which two leases serve do not meet. A holder serves only while its clock, and `max_offset` on
//!   top of it, is below what a quorum supports it until; a successor begins above what any of a quorum has promised, and
//!   serves only when its own clock has passed that. Two quorums share a store, and two clocks differ by less than
//!   `max_offset`: when the successor begins, the old holder's clock has passed the point at which it stopped. Hybrid time that stands
//!   at its ceiling, as the disk has stopped, does not pass it: whether a lease is in force is told by the wall clock then.

use std::collections::BTreeSet;
use std::fmt;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Epoch, HybridTime, StoreId};
use serde::{Deserialize, Serialize};

use super::command::{Body, Command};
use super::replica::{RangeReplica, ReplicaId};

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The replica that holds it; none before the first one.
    pub holder: Option<ReplicaId>,
    /// The store that it stands on.
    pub store: StoreId,
    /// The epoch of that store's support under which it was taken. Another epoch, another lease.
    pub epoch: Epoch,
    /// Its number: one more than the one before.
    pub seq: u64,
    /// The holder serves and writes above this time.
    pub start: HybridTime,
}

impl Lease {
    /// The lease of a range that nobody has held yet.
    #[must_use]
    pub fn nobodys() -> Self {
        Self { holder: None, store: StoreId(0), epoch: Epoch(0), seq: 0, start: HybridTime::ZERO }
    }
}

/// What a store says that has durably withdrawn its support from an epoch of another store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Who says it.
    pub by: StoreId,
    /// Of whom.
    pub of: StoreId,
    /// This epoch, and all below it, have its support no more.
    pub epoch: Epoch,
    /// The highest time until which it ever promised it.
    pub until: HybridTime,
}

/// What a shell knows of the present moment, read at one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// A hybrid time that was not handed out before.
    pub now: HybridTime,
    /// What the clock has come to: `now`, or the wall clock's time, where hybrid time stands at its ceiling behind it.
    pub passed: HybridTime,
    /// Whether the clock keeper has frozen strong paths.
    pub frozen: bool,
    /// The epoch of this store's support.
    pub epoch: Epoch,
    /// Until when a quorum of the range's voters supports it.
    pub supported: HybridTime,
}

/// Why a replica does not do what only a leaseholder may, or does not do it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeRefusal {
    /// The lease is another replica's, as far as is known here, or nobody's.
    NotLeaseholder(Option<ReplicaId>),
    /// The clock may be wrong by more than strong paths bear. Another try elsewhere, or later.
    Frozen,
    /// The lease is held and not in force: support is running out, or it has not begun. Another try later.
    LeaseNotInForce,
    /// The holder is giving the lease away.
    Transferring,
    /// Too few stores have withdrawn their support from the present holder.
    HolderIsSupported,
    /// A replica that does not vote, because it is coming or leaving, cannot hold the lease.
    NoVote,
    /// A key is not of this range.
    Outside,
    /// The time asked for is ahead of the clock here.
    InTheFuture(HybridTime),
    /// A token tells of a time that the clock here has not come to, by no more than clocks may differ. Another try in a moment.
    Ahead(HybridTime),
    /// What a token stands for has not come to this replica, and no other one may be asked. Another try in a moment.
    NotReached(HybridTime),
    /// Writes at or below the time asked for are on their way. Another try in a moment.
    InFlight,
    /// What was at that time may be collected.
    BelowThreshold(HybridTime),
    /// No replica at hand can answer within the bound that was asked for.
    StalenessBoundViolated {
        /// In milliseconds.
        bound_ms: u64,
        /// How old this replica's answer might be, in milliseconds.
        age_ms: u64,
    },
    /// The token tells of a later epoch of the clock than is known here.
    LaterEpoch(Epoch),
    /// This replica was taken out of its range. Another try elsewhere.
    Removed,
    /// What this replica holds is not to be believed. Another try elsewhere.
    Quarantined,
}

impl fmt::Display for RangeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeaseholder(Some(holder)) => write!(f, "replica {holder} holds the lease: ask there"),
            Self::NotLeaseholder(None) => f.write_str("nobody is known here to hold the lease: try again"),
            Self::Frozen => f.write_str("the clock here may be too wrong for strong paths: ask elsewhere, or look at the clock's sources"),
            Self::LeaseNotInForce => f.write_str("the lease is not in force at this moment: try again"),
            Self::Transferring => f.write_str("the lease is being given to another replica: try again"),
            Self::HolderIsSupported => f.write_str("the leaseholder's support has not been withdrawn by a quorum"),
            Self::NoVote => f.write_str("a replica that does not vote in its range cannot hold the lease: another one has to"),
            Self::Outside => f.write_str("a key is not of this range: look up which range it is of"),
            Self::InTheFuture(at) => write!(f, "{} is ahead of the clock here: try again later, or ask for less", at.to_bits()),
            Self::Ahead(at) => write!(f, "{} is asked for, or told of by the token, which the clock here comes to in a moment: try again", at.to_bits()),
            Self::NotReached(at) => write!(f, "what the token tells of, {}, is not here yet: try again in a moment", at.to_bits()),
            Self::InFlight => f.write_str("writes at or below that time are on their way: try again in a moment"),
            Self::BelowThreshold(threshold) => write!(f, "versions before {} may be collected: ask for that one or a later time", threshold.to_bits()),
            Self::StalenessBoundViolated { bound_ms, age_ms } => write!(
                f,
                "what is here may be {age_ms} ms old and {bound_ms} ms were asked for, and no leaseholder may be asked: ask for more"
            ),
            Self::Removed => f.write_str("this replica was taken out of its range: ask another one"),
            Self::Quarantined => f.write_str("what this replica holds differs from the others or cannot be read, and it is being rebuilt: ask another one"),
            Self::LaterEpoch(epoch) => write!(
                f,
                "the token is of epoch {epoch} of the clock, and the node that was asked has an earlier one: read without it, or have that \
                 node's clock reset too (`rhumb clock reset --node`)"
            ),
        }
    }
}

/// That the lease was in force when a read began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit(u64);

impl RangeReplica {
    /// Whether the lease is held here and in force.
    ///
    /// # Errors
    /// Why it is not.
    pub fn permit(&self, moment: &Moment) -> Result<Permit, RangeRefusal> {
        if self.is_quarantined() {
            return Err(RangeRefusal::Quarantined);
        }
        self.in_force(moment)
    }

    /// Whether the lease is held here and in force, also by one that is quarantined.
    fn in_force(&self, moment: &Moment) -> Result<Permit, RangeRefusal> {
        let lease = self.lease();
        if lease.holder != Some(self.id()) {
            return Err(RangeRefusal::NotLeaseholder(lease.holder));
        }
        if lease.epoch != moment.epoch {
            return Err(RangeRefusal::NotLeaseholder(None));
        }
        if moment.frozen {
            return Err(RangeRefusal::Frozen);
        }
        if self.transferring() {
            return Err(RangeRefusal::Transferring);
        }
        let margin =
            if canary::sings(Canary::StasisForgotten) { moment.passed } else { self.later(moment.passed) };
        if margin >= moment.supported || moment.now <= lease.start {
            return Err(RangeRefusal::LeaseNotInForce);
        }
        Ok(Permit(lease.seq))
    }

    /// As [`RangeReplica::permit`], for a read.
    pub(super) fn permit_to_read(&self, moment: &Moment) -> Result<Permit, RangeRefusal> {
        let lease = self.lease();
        if canary::sings(Canary::LeaseNotAsked) && lease.holder == Some(self.id()) {
            return Ok(Permit(lease.seq));
        }
        self.permit(moment)
    }

    /// Whether a lease that was in force still is: a process may have stood still in between.
    pub(super) fn still(&self, permit: Permit, moment: &Moment) -> Result<(), RangeRefusal> {
        let now = self.permit_to_read(moment)?;
        if now == permit { Ok(()) } else { Err(RangeRefusal::LeaseNotInForce) }
    }

    /// Proposes that this replica takes the lease, with what stores have said about the present holder's epoch. Who holds
    /// the lease in force renews it so, without them.
    ///
    /// # Errors
    /// [`RangeRefusal::HolderIsSupported`] when these are no quorum of the voters; [`RangeRefusal::NoVote`]; a store that is not
    /// supported itself; a frozen clock.
    pub fn take_lease(
        &self,
        moment: &Moment,
        me: StoreId,
        witnesses: &[Witness],
    ) -> Result<Command, RangeRefusal> {
        if self.is_quarantined() {
            return Err(RangeRefusal::Quarantined);
        }
        if !self.votes(self.id()) && !canary::sings(Canary::LeaseWithoutVote) {
            return Err(RangeRefusal::NoVote);
        }
        if moment.frozen {
            return Err(RangeRefusal::Frozen);
        }
        // Whoever takes a lease on an epoch that nobody supports yet has it taken from him, and his epoch withdrawn: three
        // that do so in turn go on for ever.
        if self.later(moment.passed) >= moment.supported {
            return Err(RangeRefusal::LeaseNotInForce);
        }
        let present = *self.lease();
        let renews = present.holder == Some(self.id()) && present.epoch == moment.epoch;
        let mut start = moment.now.max(present.start);
        if present.holder.is_some() && !renews {
            let voters: BTreeSet<_> = self.descriptor().stores().into_iter().collect();
            let counts = |witness: &&Witness| {
                witness.of == present.store && witness.epoch >= present.epoch && voters.contains(&witness.by)
            };
            let by: BTreeSet<_> = witnesses.iter().filter(counts).map(|witness| witness.by).collect();
            if by.len() <= voters.len() / 2 {
                return Err(RangeRefusal::HolderIsSupported);
            }
            let promised = witnesses.iter().filter(counts).map(|witness| witness.until).max();
            start = start.max(promised.unwrap_or_default());
        }
        let holder = Some(self.id());
        let lease = Lease { holder, store: me, epoch: moment.epoch, seq: present.seq + 1, start };
        Ok(self.command_of(lease))
    }

    /// Proposes to give the lease to another replica, whose store is in this epoch. From now on this replica serves and
    /// proposes nothing under it, whatever becomes of the proposal.
    ///
    /// # Errors
    /// Why the lease is not its to give.
    pub fn transfer_lease(
        &mut self,
        moment: &Moment,
        to: ReplicaId,
        store: StoreId,
        epoch: Epoch,
    ) -> Result<Command, RangeRefusal> {
        // One that is quarantined gives it away, and does nothing else with it.
        self.in_force(moment)?;
        if !self.votes(to) {
            return Err(RangeRefusal::NoVote);
        }
        self.gives_away();
        let seq = self.lease().seq + 1;
        Ok(self.command_of(Lease { holder: Some(to), store, epoch, seq, start: moment.now }))
    }

    /// Whoever leaves loses its vote while another one holds the lease: the lease stays with those that vote.
    fn votes(&self, replica: ReplicaId) -> bool {
        self.descriptor().seat(replica).is_some_and(|seat| seat.votes)
    }

    fn command_of(&self, lease: Lease) -> Command {
        Command { lease: lease.seq - 1, order: 0, closed: HybridTime::ZERO, body: Body::Lease(lease) }
    }
}
