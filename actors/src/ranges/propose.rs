//! The leaseholder's part: at which time a write is made, and up to which time nothing more is.
//!
//! * It decides: the timestamp of a command and what it closes, in one step; when an idle range is closed beside its log.
//! * It never does: propose without the lease in force, or close what it may still write at.
//! * Invariant: under one lease, a command writes above everything that commands of a lower order, and what was said beside
//!   the log before it, have closed. Those of a lower order that come later than it are void.

use std::collections::BTreeMap;

use rhumb_core::HybridTime;
use serde::{Deserialize, Serialize};

use super::command::{Body, Command, Op, Outcome, Write};
use super::lease::{Moment, RangeRefusal};
use super::replica::{RangeId, RangeReplica, Seat};
use rhumb_storage::mvcc::UserKey;

/// What a leaseholder closes beside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideClosed {
    /// Of which range.
    pub range: RangeId,
    /// Under which lease.
    pub lease: u64,
    /// All that was proposed under it so far; it counts from when that is applied.
    pub order: u64,
    /// Nothing is written at or below this time any more.
    pub closed: HybridTime,
    /// The range rests: nothing comes to it, and all replicas have all.
    pub rests: bool,
}

/// What a replica knows as leaseholder. It is not kept: a new life is a new lease.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// The last order that was proposed.
    order: u64,
    /// The highest time that was closed, in a command or beside the log.
    pub(super) promised: HybridTime,
    /// What was proposed and is not settled: the order, and the time if it writes.
    in_flight: BTreeMap<u64, Option<HybridTime>>,
    /// The lease is being given away.
    transferring: bool,
    /// The highest threshold that was proposed: reads below it are refused from then on.
    raised: HybridTime,
}

impl Holding {
    /// A command was applied. What it overtook is void for good, wherever it is.
    pub(super) fn settled(&mut self, command: &Command, outcome: &Outcome) {
        if *outcome == Outcome::Reseated {
            // Whatever was proposed under the old number and is not applied is void; what was closed stays closed.
            (self.order, self.transferring) = (0, false);
            return self.in_flight.clear();
        }
        if !matches!(outcome, Outcome::StaleLease(_) | Outcome::Leased(_)) {
            self.settled_to(command.order);
        }
    }

    /// All up to this order is settled.
    pub(super) fn settled_to(&mut self, order: u64) {
        self.in_flight = self.in_flight.split_off(&(order + 1));
    }
}

impl RangeReplica {
    /// Proposes writes, at the moment's time.
    ///
    /// # Errors
    /// [`RangeRefusal`]: the lease is not in force here; a key is not of the range.
    pub fn propose_write(&mut self, moment: &Moment, ops: Vec<Op>) -> Result<Command, RangeRefusal> {
        if !ops.iter().all(|op| self.descriptor().holds(&op.key)) {
            return Err(RangeRefusal::Outside);
        }
        self.propose(moment, Some(moment.now), |at| Body::Write(Write { at, ops }))
    }

    /// Proposes to split the range before this key.
    ///
    /// # Errors
    /// As [`RangeReplica::propose_write`]; the key is the range's first one.
    pub fn propose_split(
        &mut self,
        moment: &Moment,
        at: UserKey,
        right: RangeId,
        seats: Vec<Seat>,
    ) -> Result<Command, RangeRefusal> {
        if !self.descriptor().holds(&at) || at == self.descriptor().from {
            return Err(RangeRefusal::Outside);
        }
        self.propose(moment, None, |_| Body::Split { at, right, seats })
    }

    /// Proposes that nothing below a time is read any more. It is no later than what is closed: what comes behind it in the
    /// log, conditions among it, looks above it only.
    ///
    /// # Errors
    /// As [`RangeReplica::propose_write`].
    pub fn propose_threshold(
        &mut self,
        moment: &Moment,
        threshold: HybridTime,
    ) -> Result<Command, RangeRefusal> {
        let threshold = threshold.min(self.closed());
        let proposed = self.propose(moment, None, |_| Body::Threshold(threshold))?;
        self.holding.raised = self.holding.raised.max(threshold);
        Ok(proposed)
    }

    /// The earliest time that a read may begin at here: what was at an earlier one may be collected, or will be.
    pub(super) fn earliest(&self) -> HybridTime {
        self.applied().threshold.max(self.holding.raised)
    }

    /// Proposes where the range's replicas stand, and which of them vote.
    ///
    /// # Errors
    /// As [`RangeReplica::propose_write`].
    pub fn propose_reseat(&mut self, moment: &Moment, seats: Vec<Seat>) -> Result<Command, RangeRefusal> {
        self.propose(moment, None, |_| Body::Reseat(seats))
    }

    /// Proposes that the replicas are compared.
    ///
    /// # Errors
    /// As [`RangeReplica::propose_write`].
    pub fn propose_compare(&mut self, moment: &Moment) -> Result<Command, RangeRefusal> {
        self.propose(moment, None, |_| Body::Compare)
    }

    /// Closes a time beside the log, if nothing is in flight and it is news.
    #[must_use]
    pub fn close_beside(&mut self, moment: &Moment, rests: bool) -> Option<SideClosed> {
        self.permit(moment).ok()?;
        let closed = self.target(moment);
        if !self.holding.in_flight.is_empty() || closed <= self.holding.promised {
            return None;
        }
        self.holding.promised = closed;
        // What was proposed and withdrawn is waited for in vain: with nothing in flight, what is applied is all there is.
        let order = self.applied().order;
        let said =
            SideClosed { range: self.descriptor().range, lease: self.lease().seq, order, closed, rests };
        self.hear(said);
        Some(said)
    }

    /// A command that was made under this lease surely does not stand in the log, and never will.
    pub fn withdraw(&mut self, lease: u64, order: u64) {
        if self.lease().seq == lease {
            self.holding.in_flight.remove(&order);
        }
    }

    /// Whether something that was proposed is not settled.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.holding.in_flight.is_empty()
    }

    fn propose(
        &mut self,
        moment: &Moment,
        writes: Option<HybridTime>,
        body: impl FnOnce(HybridTime) -> Body,
    ) -> Result<Command, RangeRefusal> {
        self.permit(moment)?;
        let closed = self.target(moment).max(self.holding.promised);
        assert!(moment.now > closed, "hybrid time does not fall, and what is closed lags behind it");
        let order = self.applied().order.max(self.holding.order) + 1;
        self.holding.order = order;
        self.holding.promised = closed;
        self.holding.in_flight.insert(order, writes);
        Ok(Command { lease: self.lease().seq, order, closed, body: body(moment.now) })
    }

    /// What may be closed by now: so much behind the clock, and nothing below what was closed before.
    fn target(&self, moment: &Moment) -> HybridTime {
        let lag = u64::try_from(self.settings.lag.as_millis()).unwrap_or(u64::MAX);
        let behind = HybridTime::new(moment.now.millis().saturating_sub(lag), 0);
        behind.max(self.closed()).min(HybridTime::from_bits(moment.now.to_bits() - 1))
    }

    /// Whether a write at or below this time is on its way.
    pub(super) fn may_write_at(&self, at: HybridTime) -> bool {
        self.holding.in_flight.values().flatten().any(|write| *write <= at)
    }

    /// This time, and the most that another clock may be ahead.
    pub(super) fn later(&self, now: HybridTime) -> HybridTime {
        now.plus(self.settings.max_offset)
    }

    pub(super) fn transferring(&self) -> bool {
        self.holding.transferring
    }

    pub(super) fn gives_away(&mut self) {
        self.holding.transferring = true;
    }
}
