//! The cluster version: which formats the nodes of a mesh write, and when they may begin to write a new one.
//!
//! * It decides: when the version is raised ([`upgrade`]); in which format a node writes what all must read ([`formats`]).
//! * It never does: raise the version before every node has promised, durably, that it knows the next one; raise it without an
//!   operator's word; lower it; guess what an unknown format means.
//! * Invariants: a format is written only by nodes that know of a cluster version in which every node reads it; from a
//!   node's promise on, no build that does not know the version opens that node's disk.
//!
//! The version is a row of the meta range, changed by compare-and-set alone. An operator allows it to be raised, which is written
//! there too. Whoever holds the lease of the meta range then asks every node: first whether it knows the next version, and
//! once all do, to promise so. A promise is in the node's control store before it is given, and a build that does not know
//! what is promised there does not start (docs/decisions/0066). A node follows the row in its own replica of the meta
//! range, and writes the new formats as soon as it has seen it: all others can read them by then, whether they have seen it or not.
//!
//! After CockroachDB's cluster versions (`pkg/clusterversion`, `pkg/upgrade`): a gate in replicated state, a promise on
//! each store before it moves, and an operator who decides when there is no way back.

pub mod formats;
pub mod messages;
pub mod upgrade;

#[cfg(test)]
mod tests;

pub use formats::{Formats, UnknownFormat, UnknownVersion};
pub use upgrade::{Allowed, Heard, Raise, Said, Upgrade, VersionRow, allow};
