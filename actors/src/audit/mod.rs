//! The audit log of one node, and what it knows as a log witness of the others' logs.
//!
//! * [`Log`] decides: the order of entries, what stands in tiles, when a checkpoint is made, who is asked to
//!   cosign it, and when it counts as published. It never does: sign what is not durable, answer for an entry
//!   that is not, or reuse a number. Invariant: every checkpoint that it ever has signed is of one growing tree.
//! * [`Witness`] decides: whether it cosigns another node's checkpoint. It never does: cosign before what it
//!   cosigned is durable, go back, or cosign two trees of which one does not continue the other. What
//!   contradicts is kept as evidence and told.
//!
//! Formats and proofs are [`rhumb_verify`]'s; entries, records and salts are those of its `record`
//! (`docs/decisions/0020-entries-and-records.md`).

pub mod edge;
pub mod log;
pub mod rows;
pub mod witness;

#[cfg(test)]
mod tests;

pub use edge::Edge;
pub use log::Log;
pub use witness::Witness;
