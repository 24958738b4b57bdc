//! `PlacementActor`: where the replicas of keyspaces are wanted.
//!
//! * It decides: what a plan says of a keyspace's ranges as they stand, and which of them are mended: a replica whose node has a new
//!   disk, one whose node has been away for too long, a region that is to have a learner and has none. Where a
//!   replica should stand the planner of `rhumb-topology` says, within the policy.
//! * It never does: move anything itself. It changes a keyspace's row in the meta range, and each range's leaseholder
//!   brings about what the row says ([`seating`](crate::ranges::seating)); or want a replica where it does not know that the
//!   policy lets the class be held.
//! * Invariant: a range is mended only while nothing of it is on its way, so that a voter leaves only after the one for it has come.
//!
//! The shell is `runtime/src/supervisor/ranges/placement.rs`, beside those of the ranges whose rows it changes.

pub mod mend;
pub mod messages;

#[cfg(test)]
mod tests;
