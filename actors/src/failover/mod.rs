//! `FailoverCoordinator`: which nodes are lost, and who acts for them meanwhile.
//!
//! * It decides: whether this node hears another one ([`observer`]); whether a node is lost, by what several observers of
//!   several regions say ([`coordinator`]); under which epoch a node acts, or others act for it, and when the one may begin after
//!   the other has ended ([`fence`]); which node acts for an actor, and what a node may begin of it ([`acting`]).
//! * It never does: decide who leads a range (consensus does, without waiting for it); take one observer's word for a loss,
//!   for a link may be cut one way; let anybody act before the fence's bound has passed; return to an old epoch.
//! * Invariants: of a node and those who act for it at most one acts at any moment, while clocks are within `max_offset` of each
//!   other; epochs only rise; a majority of the nodes always acts for itself.
//!
//! A fence is a row of the meta range, changed by compare-and-set alone. Each node reads all of them again and again, as the
//! leaseholder of the meta range reads, and may act by what it has read for [`FailoverSettings::permit`] from when it asked. A node
//! that is not reached therefore stops by itself. Whoever holds the lease of the meta range coordinates: it first sees to it
//! that nobody acts, under the next epoch, and gives the epoch away when every permit from before has ended.
//!
//! After the epochs of CockroachDB's Store Liveness (`pkg/kv/kvserver/storeliveness/doc.go`), with readings of the register
//! in place of support: what a node may do elsewhere is in a few rows that all must agree on.

pub mod acting;
pub mod coordinator;
pub mod fence;
pub mod messages;
pub mod observer;

#[cfg(test)]
mod tests;

pub use acting::{Begins, Term, Turn, Whose, Why};
pub use coordinator::{Change, Coordinator, Row, Stands, State};
pub use fence::{Fence, Holder, Owner, Permits, Table, stands_still};
pub use observer::Observer;

use std::time::Duration;

use rhumb_core::time::DEFAULT_MAX_OFFSET;

/// What failover goes by: the same on all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailoverSettings {
    /// How often a node tells all others that it is there, and what it does not hear.
    pub beat: Duration,
    /// A node that was not heard for so long is silent.
    pub silent_after: Duration,
    /// So many beats in a row make a silent node one that is heard.
    pub clear_after: u32,
    /// How long a majority has to find a node silent before it is lost.
    pub confirm_after: Duration,
    /// An observer that has just begun, or that did not run for a while, says nothing that counts for so long.
    pub settles: Duration,
    /// A word that is older does not count.
    pub fresh: Duration,
    /// For how long a node may act by what it has read of the fences, from when it asked.
    pub permit: Duration,
    /// The largest offset between two nodes' clocks.
    pub max_offset: Duration,
}

impl Default for FailoverSettings {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(1),
            silent_after: Duration::from_secs(3),
            clear_after: 5,
            confirm_after: Duration::from_secs(2),
            settles: Duration::from_secs(10),
            fresh: Duration::from_secs(3),
            permit: Duration::from_secs(3),
            max_offset: DEFAULT_MAX_OFFSET,
        }
    }
}

impl FailoverSettings {
    /// How long nobody acts after a fence is known, by both clocks of who knows it: the longest permit from before it, and the
    /// offset of hybrid clocks twice, for one counts the permit and another one this.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.permit + 2 * self.max_offset
    }
}
