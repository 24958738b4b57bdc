//! What stands in a range's log, and what comes of it.

use rhumb_core::HybridTime;
use rhumb_storage::mvcc::{Record, UserKey};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::replica::{RangeId, ReplicaId, Seat};

/// One entry of the log. Every replica holds it against its own applied state, and so they all do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Under which lease it was proposed: another one in force when it is applied makes it void.
    pub lease: u64,
    /// Its place among its proposer's commands under that lease. One that a later one has overtaken is void.
    pub order: u64,
    /// No command behind it, if it is not void itself, writes at or below this time.
    pub closed: HybridTime,
    /// What it does.
    pub body: Body,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Writes keys of the range, all or none.
    Write(Write),
    /// Gives the lease to a holder.
    Lease(Lease),
    /// Ends the range before this key, and begins another one with it.
    Split {
        /// The first key of the right-hand range.
        at: UserKey,
        /// The right-hand range.
        right: RangeId,
        /// Its replicas, on the stores of this range's: each is a new one, of a number that was never used.
        seats: Vec<Seat>,
    },
    /// Nothing below this time is read any more, and versions that nobody needs then may be deleted.
    Threshold(HybridTime),
    /// Says where the range's replicas stand and which of them vote, for leases: one voter more or less at most, and the
    /// leaseholder stays one. The lease gets a new number, so that whoever takes it knows who votes.
    Reseat(Vec<Seat>),
    /// Changes nothing. Every replica hashes what it is once this is applied, and tells whoever holds the lease.
    Compare,
}

/// Writes that take effect together, at one time, if all their conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When.
    pub at: HybridTime,
    /// What: one at most of each key.
    pub ops: Vec<Op>,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Of which key.
    pub key: UserKey,
    /// Under which condition.
    pub condition: Option<Condition>,
    /// What is written. Its header names no intent.
    pub record: Record,
}

/// What must be so when a write is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The key is not there.
    Absent,
    /// The key was last written at this time.
    Version(HybridTime),
}

/// What came of a command: the same on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was written.
    Written(HybridTime),
    /// A condition did not hold; nothing was written.
    ConditionFailed {
        /// Which of its writes, by number.
        op: usize,
        /// What the key was last written at, if it is there.
        found: Option<HybridTime>,
    },
    /// A key is not of the range any more: it was split. Nothing was written; the key is of the right-hand range.
    Outside,
    /// The lease is this one's now.
    Leased(ReplicaId),
    /// The range was split.
    Split(RangeId),
    /// The threshold is at least this now.
    Raised(HybridTime),
    /// The replicas stand there now.
    Reseated,
    /// The replicas are compared as they are after this entry of the log, by its place.
    Compared(u64),
    /// Nothing was done: more than one voter would change, the leaseholder would not vote, or two would have one place.
    NotSeated,
    /// It is void: it was proposed under another lease than this one.
    StaleLease(u64),
    /// It is void: a later one of its proposer has overtaken it. It may be proposed again, at another time.
    Overtaken,
}
