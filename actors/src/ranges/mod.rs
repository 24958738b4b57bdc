//! `RangeReplica`: one replica of one range of a keyspace: who may serve which read of it, and what its log does to it.
//!
//! * It decides: whether this replica holds the lease at this moment; at which time a write is made; up to which time the
//!   replica's rows are complete (closed); whether a read may be served here, at which time, and what the answer says.
//! * It never does: agree with other replicas on the log (consensus does, and who leads it has no say in who may read),
//!   read a clock, or serve a read that it cannot prove fresh enough.
//! * Invariants: at any moment at most one replica serves strong reads of a key, and it has applied every write that was
//!   acknowledged before; no write is applied at or below a closed timestamp that was applied before it; a bounded read is
//!   not older than its bound in true time, while clocks are within `max_offset` of each other.
//!
//! In reading order: [`command`] is what stands in the log; [`support`] what stores promise each other, on which leases
//! rest; [`replica`] the state that the log makes, and how; [`lease`] who may hold it and what a moment is; [`propose`] the
//! leaseholder's part; [`serve`] reads; [`collect`] deletes what nobody can read any more; [`comparing`] finds replicas that differ, [`quarantine`] is what stands on the disk of one, and [`span`] says which rows are whose; [`splitting`]
//! says when a range becomes two by itself; [`sealing`] has the bytes of personal values and [`subjects`] their keys; [`token`] what clients carry between
//! regions; `records` what is on disk; [`raft`] agrees on the log, and [`feeding`] says who passes it on; [`host`] serves a node's replicas; [`catalog`] is what the
//! meta range holds, [`lifecycle`] how keyspaces end, [`snapshots`] what operators hold of them, and [`messages`] what can be asked over the mesh.
//!
//! A shell writes what [`replica::RangeReplica::apply`] pushes before it lets the next read in, and keeps the time between
//! the two calls of a read as short as it can: the second looks at the clock again.

pub mod catalog;
pub mod collect;
pub mod command;
pub mod comparing;
pub mod feeding;
pub mod homing;
pub mod host;
pub mod lease;
pub mod lifecycle;
pub mod messages;
pub mod propose;
pub mod quarantine;
pub mod raft;
pub mod replica;
pub mod sealing;
pub mod seating;
pub mod serve;
pub mod snapshots;
pub mod span;
pub mod splitting;
pub mod subjects;
pub mod support;
pub mod token;

mod records;
pub mod resting;

#[cfg(test)]
mod tests;

pub use command::{Body, Command, Condition, Op, Outcome, Write};
pub use lease::{Lease, Moment, Permit, RangeRefusal, Witness};
pub use propose::SideClosed;
pub use replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
pub use serve::{Answer, Ask, Consistency, Elsewhere, Reading};
pub use support::{Support, SupportMessage};
pub use token::{SignedToken, Token, TokenError, TokenKey, TokenKeys};

use std::time::Duration;

use rhumb_core::Effects;
use rhumb_core::time::DEFAULT_MAX_OFFSET;
use rhumb_storage::Batch;

/// What ranges go by: the same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeSettings {
    /// The largest offset between two nodes' clocks.
    pub max_offset: Duration,
    /// How long a store's support lasts.
    pub support: Duration,
    /// How far closed timestamps stay behind the leaseholder's clock.
    pub lag: Duration,
}

impl Default for RangeSettings {
    fn default() -> Self {
        Self { max_offset: DEFAULT_MAX_OFFSET, support: Duration::from_secs(3), lag: Duration::from_secs(3) }
    }
}

impl RangeSettings {
    /// The shortest retention: a read as of a time that has just been closed has this long to be made.
    #[must_use]
    pub fn least_retention(&self) -> Duration {
        self.max_offset + self.lag + Duration::from_secs(10)
    }
}

/// Where the machines of this folder push what they want done; `E` is what a machine says to others.
pub type Out<E> = Effects<Batch, E>;
