//! Reads: what a reader asks for, whether it is answered here, and what the answer says.
//!
//! * It decides: at which time a read is made here, under which guarantee; when it has to go to the leaseholder; what an
//!   answer says of its level, age and place.
//! * It never does: call an answer fresher than it is, or serve one that a client's token has left behind.
//! * Invariant: rows are written in the order of their times. Under one lease times rise with orders, and what a later order has
//!   overtaken is void; another holder's lease begins above all that the one before it may have written at; a lease that is renewed
//!   or reseated goes on by the same clock, and what is split off goes on from what it was split from. So who has applied a write
//!   has all that its range ever writes up to then, though less is closed (docs/decisions/0040 rests on the same).
//! * A bound is held in true time: what was closed at T by the leaseholder's clock is, by this node's clock, `now − T` old and
//!   by true time at most `max_offset` more, as either clock may be half of that off.

use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Epoch, Guarantee, HybridTime, Region};
use rhumb_storage::mvcc::UserKey;

use super::lease::{Moment, Permit, RangeRefusal};
use super::replica::{Applied, RangeReplica, Seat};
use super::token::Token;

/// What a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// All that was acknowledged before it asked.
    Strong,
    /// All that was acknowledged so long before it is answered.
    Bounded(Duration),
    /// Whatever is here.
    Eventual,
    /// What was at this time.
    AsOf(HybridTime),
}

/// A read of one key, or from one key to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The key, or the first one.
    pub from: UserKey,
    /// The first key behind what is read; none of a read of one key.
    pub to: Option<UserKey>,
    /// What is needed.
    pub consistency: Consistency,
    /// What the client has seen already.
    pub token: Option<Token>,
    /// Whether a farther replica may be asked.
    pub nearest_only: bool,
    /// Whether a nearer replica has passed the read on.
    pub fallback: bool,
}

/// A read that may be made here, as of a time. It is no answer before [`RangeReplica::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The rows are read as of this time.
    pub at: HybridTime,
    /// Nothing below this time can be read.
    pub threshold: HybridTime,
    level: Guarantee,
    permit: Option<Permit>,
    ask: Ask,
    token: HybridTime,
}

/// The read is not answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewhere {
    /// The leaseholder can, and is asked with [`Ask::fallback`].
    Leaseholder(Seat),
    /// It is refused.
    Refused(RangeRefusal),
}

/// What came of a read, and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<V> {
    /// What was read.
    pub value: V,
    /// What it is.
    pub level: Guarantee,
    /// As of when.
    pub at: HybridTime,
    /// How old it may be, by this node's clock.
    pub age: Duration,
    /// In which region it was read.
    pub region: Region,
    /// By which replica.
    pub replica: Seat,
    /// Whether a nearer replica could not answer.
    pub fallback: bool,
    /// What the client has seen now. It is told the present epoch of the clock.
    pub token: Token,
}

impl RangeReplica {
    /// Whether a read is made here, and as of when. `epoch` is the clock's.
    ///
    /// # Errors
    /// [`Elsewhere`].
    pub fn begin(&self, moment: &Moment, epoch: Epoch, ask: Ask) -> Result<Reading, Elsewhere> {
        let refused = |refusal| Err(Elsewhere::Refused(refusal));
        if self.is_over() || self.descriptor().seat(self.id()).is_none() {
            return refused(RangeRefusal::Removed);
        }
        if self.is_quarantined() {
            return refused(RangeRefusal::Quarantined);
        }
        if !self.holds_all(&ask) {
            return refused(RangeRefusal::Outside);
        }
        let token = match ask.token {
            _ if canary::sings(Canary::TokenIgnored) => HybridTime::ZERO,
            Some(token) if token.epoch > epoch => return refused(RangeRefusal::LaterEpoch(token.epoch)),
            Some(token) if token.at > self.later(moment.passed) => {
                return refused(RangeRefusal::InTheFuture(token.at));
            }
            Some(token) => token.at,
            None => HybridTime::ZERO,
        };
        let closed = self.closed();
        let (at, level, permit) = match ask.consistency {
            Consistency::Strong => return self.at_the_holder(moment, ask, token),
            Consistency::Bounded(bound) => {
                let fresh = closed.plus(bound) >= self.later(moment.passed) && !moment.frozen;
                if !fresh || closed < token {
                    return self.pass_on(moment, ask, token);
                }
                (closed, Guarantee::Snapshot, None)
            }
            Consistency::AsOf(at) if at <= closed => {
                let at = if canary::sings(Canary::AsOfClosed) { closed } else { at };
                (at, Guarantee::Snapshot, None)
            }
            Consistency::AsOf(at) if at > self.later(moment.passed) => {
                return refused(RangeRefusal::InTheFuture(at));
            }
            Consistency::AsOf(_) => return self.pass_on(moment, ask, token),
            Consistency::Eventual => {
                let here = closed.max(self.applied().newest).max(self.applied().threshold);
                if here < token {
                    return self.pass_on(moment, ask, token);
                }
                (here, Guarantee::Eventual, None)
            }
        };
        let threshold = self.earliest();
        if at < threshold {
            return refused(RangeRefusal::BelowThreshold(threshold));
        }
        Ok(Reading { at, threshold, level, permit, ask, token })
    }

    /// The rows have been read. The answer, if what let the read begin still holds: the process may have stood still, and
    /// versions may have been collected.
    ///
    /// # Errors
    /// [`Elsewhere`].
    pub fn finish<V>(
        &self,
        moment: &Moment,
        epoch: Epoch,
        reading: Reading,
        value: V,
    ) -> Result<Answer<V>, Elsewhere> {
        let Reading { at, level, permit, ask, token, .. } = reading;
        if self.is_quarantined() {
            return Err(Elsewhere::Refused(RangeRefusal::Quarantined));
        }
        if let Some(permit) = permit.filter(|_| !canary::sings(Canary::LateAnswer)) {
            self.still(permit, moment).map_err(Elsewhere::Refused)?;
        }
        if !self.holds_all(&ask) {
            return Err(Elsewhere::Refused(RangeRefusal::Outside));
        }
        if let Consistency::Bounded(bound) = ask.consistency {
            // The leaseholder read at its own clock's time, which may have been long ago by now.
            let now = if permit.is_some() { moment.passed } else { self.later(moment.passed) };
            let is_late = at.plus(bound) < now || moment.frozen;
            if is_late && !canary::sings(Canary::LateBound) {
                return Err(self.leaseholder(moment, &ask, token));
            }
        }
        if at < self.applied().threshold {
            return Err(Elsewhere::Refused(RangeRefusal::BelowThreshold(self.applied().threshold)));
        }
        // Rows of one that has left are cleared away, perhaps under this read.
        let Some(replica) = self.descriptor().seat(self.id()).filter(|_| !self.is_over()).cloned() else {
            return Err(Elsewhere::Refused(RangeRefusal::Removed));
        };
        // What the leaseholder says of the present is the present; as of an earlier time it is as old as that.
        let at = match ask.consistency {
            Consistency::AsOf(asked) if canary::sings(Canary::AsOfClosed) => asked,
            _ => at,
        };
        let present = level == Guarantee::StrictSerializable;
        let age = if present { Duration::ZERO } else { between(at, moment.passed) };
        // Nothing was seen that is newer than the newest, and so one state has one token, however often it is read.
        let Applied { newest, expires, .. } = *self.applied();
        let seen = match level {
            // Where values end with time, the time itself was seen.
            _ if expires > HybridTime::ZERO => at.max(token),
            Guarantee::StrictSerializable => newest.max(token),
            _ => at.min(newest).max(token),
        };
        Ok(Answer {
            value,
            level,
            at,
            age,
            region: replica.node.region.clone(),
            replica,
            fallback: ask.fallback,
            token: Token { epoch, at: seen },
        })
    }

    /// Reads as leaseholder: now, or at a time up to now.
    fn at_the_holder(&self, moment: &Moment, ask: Ask, token: HybridTime) -> Result<Reading, Elsewhere> {
        let permit = match self.permit_to_read(moment) {
            Ok(permit) => permit,
            Err(RangeRefusal::NotLeaseholder(Some(_))) => return Err(self.leaseholder(moment, &ask, token)),
            Err(refusal) => return Err(Elsewhere::Refused(refusal)),
        };
        let (at, level) = match ask.consistency {
            Consistency::AsOf(at) => (at, Guarantee::Snapshot),
            _ => (moment.now, Guarantee::StrictSerializable),
        };
        // It is another range's, whose leaseholder has a faster clock: that is no fault of who asks.
        if at.max(token) > moment.now {
            return Err(Elsewhere::Refused(RangeRefusal::Ahead(at.max(token))));
        }
        // What is in flight may still be written at that time. A snapshot must see it; so must a strong read whose client may
        // have been shown it already, by a follower that has applied it before this replica.
        let must_see = if level == Guarantee::Snapshot { at.max(token) } else { token };
        if self.may_write_at(must_see) {
            return Err(Elsewhere::Refused(RangeRefusal::InFlight));
        }
        let threshold = self.earliest();
        if at < threshold {
            return Err(Elsewhere::Refused(RangeRefusal::BelowThreshold(threshold)));
        }
        Ok(Reading { at, threshold, level, permit: Some(permit), ask, token })
    }

    /// What cannot be served as a follower is served as leaseholder, or passed on to it.
    fn pass_on(&self, moment: &Moment, ask: Ask, token: HybridTime) -> Result<Reading, Elsewhere> {
        if self.lease().holder == Some(self.id()) {
            return self.at_the_holder(moment, ask, token);
        }
        Err(self.leaseholder(moment, &ask, token))
    }

    /// The leaseholder can, if it is known and may be asked; else what is lacking here.
    fn leaseholder(&self, moment: &Moment, ask: &Ask, token: HybridTime) -> Elsewhere {
        let holder = self.lease().holder.filter(|holder| *holder != self.id());
        let seat = holder.and_then(|holder| self.descriptor().seat(holder));
        if let Some(seat) = seat.filter(|_| !ask.nearest_only) {
            return Elsewhere::Leaseholder(seat.clone());
        }
        let behind = self.behind(moment);
        Elsewhere::Refused(match ask.consistency {
            Consistency::Bounded(bound) if behind > bound => {
                let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                RangeRefusal::StalenessBoundViolated { bound_ms: ms(bound), age_ms: ms(behind) }
            }
            Consistency::Bounded(_) if moment.frozen => RangeRefusal::Frozen,
            Consistency::Bounded(_) | Consistency::Eventual => RangeRefusal::NotReached(token),
            Consistency::Strong | Consistency::AsOf(_) => RangeRefusal::NotLeaseholder(holder),
        })
    }

    /// How old what is complete here may be, in true time.
    #[must_use]
    pub fn behind(&self, moment: &Moment) -> Duration {
        between(self.closed(), self.later(moment.passed))
    }

    fn holds_all(&self, ask: &Ask) -> bool {
        let end = self.descriptor().to.as_ref();
        // No key at the end of a scan is the end of the keyspace.
        let within = match (&ask.to, end) {
            (_, None) | (None, _) => true,
            (Some(to), Some(end)) => to <= end && !to.as_bytes().is_empty(),
        };
        self.descriptor().holds(&ask.from) && within
    }
}

fn between(earlier: HybridTime, later: HybridTime) -> Duration {
    Duration::from_millis(later.millis().saturating_sub(earlier.millis()))
}
