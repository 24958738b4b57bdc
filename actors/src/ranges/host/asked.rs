//! Reads and writes at a node's replicas.

use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::hot::{Inside, LetIn};
use rhumb_storage::mvcc::{KeyspaceId, Limit, Page, Snapshot, Version};

use super::Host;
use crate::ranges::catalog::META;
use crate::ranges::command::{Body, Op, Outcome, Write};
use crate::ranges::lease::RangeRefusal;
use crate::ranges::raft::{Group, NotProposed, Pressed};
use crate::ranges::replica::{RangeId, ReplicaId, Seat};
use crate::ranges::serve::{Answer, Ask, Consistency, Elsewhere};
use crate::ranges::token::Token;

/// What was read: one key's version, or a part of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rowed {
    /// One key.
    One(Option<Version>),
    /// Keys in their order.
    Many(Page),
}

/// How much of a scan is given at once.
pub type Piece = Limit;

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// When: the version of each key.
    pub at: HybridTime,
    /// By which replica.
    pub replica: Seat,
    /// What the client has seen now.
    pub token: Token,
}

/// Why nothing was read here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRead {
    /// No replica of the range is here.
    NoReplica,
    /// The leaseholder can.
    Leaseholder(Seat),
    /// It is refused.
    Refused(RangeRefusal),
    /// What is on the disk is not sound, or cannot be read.
    Unsound(String),
}

/// Why nothing was written, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotWritten {
    /// No replica of the range is here.
    NoReplica,
    /// The leaseholder can.
    Leaseholder(Seat),
    /// It is refused.
    Refused(RangeRefusal),
    /// A condition did not hold.
    Condition {
        /// Of which write, by number.
        op: usize,
        /// What the key was last written at, if it is there.
        found: Option<HybridTime>,
    },
    /// The store of the node that orders the range's writes falls behind. Nothing was proposed.
    Pressed(Pressed),
    /// The lease went to another replica, or another command came before: nothing was written, and it may be tried again.
    Void,
    /// It may be written or not.
    Unknown(String),
    /// The replica has stopped.
    Stopped(String),
}

impl<R: AsyncRuntime> Host<R> {
    /// Reads.
    ///
    /// # Errors
    /// [`NotRead`].
    pub async fn read(&self, range: RangeId, ask: Ask, piece: Piece) -> Result<Answer<Rowed>, NotRead> {
        let Some(group) = self.group(range) else {
            return Err(match self.quarantined(range) {
                Some(_) => NotRead::Refused(RangeRefusal::Quarantined),
                None => NotRead::NoReplica,
            });
        };
        self.0.loads.reads(range, &ask);
        let elsewhere = |elsewhere| match elsewhere {
            Elsewhere::Leaseholder(seat) => NotRead::Leaseholder(seat),
            Elsewhere::Refused(refusal) => NotRead::Refused(refusal),
        };
        let mut ask = ask;
        let (reading, keyspace, end, _in_use) = {
            let replica = group.replica().await;
            let moment = self.moment(replica.descriptor());
            // A scan goes to the end of the range, and says where to go on.
            let end = replica
                .descriptor()
                .to
                .clone()
                .filter(|end| ask.to.as_ref().is_some_and(|to| to > end || to.as_bytes().is_empty()));
            if end.is_some() {
                ask.to.clone_from(&end);
            }
            let reading = replica.begin(&moment, self.epoch(), ask.clone()).map_err(elsewhere)?;
            // Other reads are as of a time that no retention comes near.
            let is_old = matches!(ask.consistency, Consistency::AsOf(_));
            let in_use = is_old.then(|| replica.in_use().reads(reading.at));
            (reading, replica.descriptor().keyspace, end, in_use)
        };
        let unsound =
            |error: rhumb_storage::mvcc::ReadError| match self.read_damage(range, group.id(), &error) {
                true => NotRead::Refused(RangeRefusal::Quarantined),
                false => NotRead::Unsound(error.to_string()),
            };
        let rows = &*self.0.around.disk;
        let snapshot = Snapshot::new(rows, keyspace, reading.at, reading.threshold).map_err(unsound)?;
        let found = match &ask.to {
            None => Rowed::One(snapshot.get(&ask.from).map_err(unsound)?),
            Some(to) => {
                // A scan to the end of the keyspace names no key behind it.
                let to = Some(to).filter(|to| !to.as_bytes().is_empty());
                let mut page = snapshot.scan(&ask.from, to, piece).map_err(unsound)?;
                page.next = page.next.or(end);
                Rowed::Many(page)
            }
        };
        let replica = group.replica().await;
        let moment = self.moment(replica.descriptor());
        replica.finish(&moment, self.epoch(), reading, found).map_err(elsewhere)
    }

    /// How old what a replica here has of a range may be, in true time; none where there is none, it has nothing yet, or what it has is not
    /// to be believed.
    pub async fn behind(&self, range: RangeId) -> Option<Duration> {
        let group = self.group(range)?;
        let replica = group.replica().await;
        let has_some = replica.closed() > HybridTime::ZERO && !replica.is_quarantined();
        has_some.then(|| replica.behind(&self.moment(replica.descriptor())))
    }

    /// Writes keys of one range, all or none. It waits as long as consensus takes, and as long as its disk does: whoever has a deadline
    /// calls [`Host::write_sealed`].
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn write(&self, range: RangeId, ops: Vec<Op>) -> Result<Written, NotWritten> {
        self.write_sealed(range, ops, Duration::MAX, |_, _| ()).await
    }

    /// As [`Host::write`], for a caller that has so much time: it is not let in where the disk would take too much of it. One that gives
    /// up does not know what came of it. What is written is changed when its time is known, before it is proposed: `seal` is called
    /// in the step that takes the time, and is short.
    ///
    /// # Errors
    /// [`NotWritten`].
    pub async fn write_sealed(
        &self,
        range: RangeId,
        ops: Vec<Op>,
        within: Duration,
        seal: impl FnOnce(KeyspaceId, &mut Write) + Send,
    ) -> Result<Written, NotWritten> {
        let mut ops = ops;
        if ops.len() > 1 && canary::sings(Canary::BatchInTwo) {
            let rest = ops.split_off(1);
            self.write_at_once(range, ops, within, |_, _| ()).await?;
            return self.write_at_once(range, rest, within, seal).await.map_err(|not| match not {
                NotWritten::Condition { op, found } => NotWritten::Condition { op: op + 1, found },
                other => other,
            });
        }
        self.write_at_once(range, ops, within, seal).await
    }

    async fn write_at_once(
        &self,
        range: RangeId,
        ops: Vec<Op>,
        within: Duration,
        seal: impl FnOnce(KeyspaceId, &mut Write) + Send,
    ) -> Result<Written, NotWritten> {
        let group = self.group(range).ok_or(NotWritten::NoReplica)?;
        self.0.loads.writes(range, &ops);
        let inside = self.let_in(&group, &ops, within).await.map_err(NotWritten::Pressed)?;
        let proposed = group.propose_let_in(inside, |replica| {
            let moment = self.moment(replica.descriptor());
            let mut command = replica.propose_write(&moment, ops)?;
            if let Body::Write(write) = &mut command.body {
                seal(replica.descriptor().keyspace, write);
            }
            Ok(command)
        });
        match proposed.await {
            Ok(Outcome::Written(at)) => {
                let replica = group.replica().await;
                // All that was written with it has one token: a signature less.
                let seen = replica.applied().newest.max(at);
                let token = Token { epoch: self.epoch(), at: seen };
                match replica.descriptor().seat(replica.id()).cloned() {
                    Some(replica) => Ok(Written { at, replica, token }),
                    // It left its range since; it was written.
                    None => Err(NotWritten::Unknown("the replica left its range meanwhile".to_owned())),
                }
            }
            Ok(Outcome::ConditionFailed { op, found }) => Err(NotWritten::Condition { op, found }),
            Ok(Outcome::Outside) => Err(NotWritten::Refused(RangeRefusal::Outside)),
            Ok(_) => Err(NotWritten::Void),
            Err(NotProposed::Refused(RangeRefusal::NotLeaseholder(Some(holder)))) => {
                Err(self.at(range, Some(holder)).await)
            }
            Err(NotProposed::NotLeader(_)) => {
                let holder = self.leaseholder(range).await.map(|seat| seat.replica);
                Err(self.at(range, holder).await)
            }
            Err(NotProposed::Refused(refusal)) => Err(NotWritten::Refused(refusal)),
            Err(NotProposed::Unknown(why)) => Err(NotWritten::Unknown(why)),
            Err(NotProposed::Stopped(why)) => Err(NotWritten::Stopped(why)),
        }
    }

    /// Lets writes in where they are ordered, sooner or later, or not: once they are proposed they cannot be refused any more. By the
    /// catalog the nodes' own work goes on, that which lifts the pressure too.
    async fn let_in(&self, group: &Group<R>, ops: &[Op], within: Duration) -> Result<Inside, Pressed> {
        if group.range() == META || !group.leads() {
            return Ok(Inside::default());
        }
        let bytes =
            ops.iter().map(|op| op.key.as_bytes().len() + op.record.value.as_ref().map_or(0, Vec::len)).sum();
        let LetIn { wait, inside } = self.0.around.disk.door(bytes, within)?;
        if !wait.is_zero() {
            R::sleep(wait).await;
        }
        Ok(inside)
    }

    pub(super) async fn at(&self, range: RangeId, holder: Option<ReplicaId>) -> NotWritten {
        let not = NotWritten::Refused(RangeRefusal::NotLeaseholder(holder));
        let (Some(group), Some(holder)) = (self.group(range), holder) else { return not };
        if holder == group.id() {
            // It holds the lease, and does not lead yet.
            return NotWritten::Refused(RangeRefusal::LeaseNotInForce);
        }
        let replica = group.replica().await;
        let seat = replica.descriptor().seat(holder).cloned();
        seat.map_or(not, NotWritten::Leaseholder)
    }
}
