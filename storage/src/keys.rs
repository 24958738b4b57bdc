//! Who writes which keys of [`Family::Meta`](crate::Family::Meta): the one place where they are
//! reserved. The other families belong to the actors they are named for.
//!
//! | key | written by | value |
//! |---|---|---|
//! | `commit` | [`Store`](crate::Store), in every commit | number of the commit, last number known durable |
//! | `fence/KEY` | [`Store`](crate::Store), for [`Batch::fence`](crate::Batch::fence) | the highest epoch seen |
//! | `store` | `DataDir`, once | identity of the data directory |
//! | `clock/…` | the clock keeper | ceiling of hybrid time; its epoch |
//! | `support/…` | the ranges | what this store promised to which other store's lease, and its own epoch |
//! | `peer/…` | the supervisor | highest durable commit number seen per store id of a peer |
//! | `mesh/…` | the supervisor | that the replicas of a disk which was put back are an older copy; which store those are that came instead |
//!
//! The first three are storage's own: a batch that names one is a bug and asserts.

/// The record of the last commit.
pub const COMMIT: &[u8] = b"commit";
/// Before every fence's key.
pub const FENCE: &[u8] = b"fence/";
/// The identity of the data directory, which must agree with the control store's.
pub const STORE: &[u8] = b"store";
/// Before every key of the clock keeper.
pub const CLOCK: &[u8] = b"clock/";
/// Before every key of the support that stores give each other.
pub const SUPPORT: &[u8] = b"support/";
/// Before every key about peers' durable numbers.
pub const PEER: &[u8] = b"peer/";
/// Before every key of the supervisor about the mesh.
pub const MESH: &[u8] = b"mesh/";

/// Whether storage itself writes this key of the family `Meta`.
#[must_use]
pub fn is_storages_own(key: &[u8]) -> bool {
    key == COMMIT || key == STORE || key.starts_with(FENCE)
}

pub(crate) fn fence(key: &[u8]) -> Vec<u8> {
    [FENCE, key].concat()
}
