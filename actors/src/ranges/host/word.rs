//! What nodes tell each other of their stores and ranges: it may get lost, and comes again.

use rhumb_core::StoreId;
use serde::{Deserialize, Serialize};

use crate::ranges::comparing::Digest;
use crate::ranges::propose::SideClosed;
use crate::ranges::replica::{RangeId, ReplicaId};
use crate::ranges::support::SupportMessage;

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Of support.
    Support {
        /// Whose word it is.
        from: StoreId,
        /// For which store it is meant.
        to: StoreId,
        /// The word.
        said: SupportMessage,
    },
    /// Of ranges that have been closed beside their logs.
    Closed(Vec<SideClosed>),
    /// What a replica is at a command, as a hash.
    Compared {
        /// The range.
        range: RangeId,
        /// The replica.
        replica: ReplicaId,
        /// The command.
        index: u64,
        /// The hash.
        digest: Digest,
    },
    /// This replica, which is yours, was another thing at that command than most others.
    Odd {
        /// The range.
        range: RangeId,
        /// The replica.
        replica: ReplicaId,
        /// The command.
        index: u64,
    },
    /// Replicas differ, and no majority says which of them is right; or it is not so any more.
    Suspect {
        /// The range.
        range: RangeId,
        /// The command.
        index: u64,
        /// Whether it is so.
        is: bool,
    },
    /// My replica is not to be believed and has stopped.
    Quarantined {
        /// The range.
        range: RangeId,
        /// The replica.
        replica: ReplicaId,
    },
    /// My replica is not to be believed, and votes until it may stop.
    Doubted {
        /// The range.
        range: RangeId,
        /// The replica.
        replica: ReplicaId,
    },
    /// This replica, which is yours, may stop: the range has a quorum without it.
    MayStop {
        /// The range.
        range: RangeId,
        /// The replica.
        replica: ReplicaId,
    },
}
