//! The audit log of one node, and what it knows as a log witness of the others' logs.
//!
//! * [`Log`] decides: the order of entries, what stands in tiles, when a checkpoint is made, who is asked to
//!   cosign it, and when it counts as published. It never does: sign what is not durable, answer for an entry
//!   that is not, reuse a number, or prune what others have not cosigned. Invariant: every checkpoint that it ever has signed is of one growing tree.
//! * [`Witness`] decides: whether it cosigns another node's checkpoint. It never does: cosign before what it
//!   cosigned is durable, go back, or cosign two trees of which one does not continue the other. What
//!   contradicts is kept as evidence and told.
//! * [`Keys`] decides: under which key a record is sealed, and when a subject is erased. It never does: destroy a
//!   key that somebody else's depends on. Invariant: what was erased can be opened from no copy of the disk.
//! * [`Peers`] decides: whose keys are believed. It never does: take another key for a node whose key it has.
//! * [`Roots`](roots::Roots) decides: which checkpoints of others are told of here, so that a log cannot deny them.
//! * [`Statements`](statements::Statements) decides: what this node signs together with other regions. It never does:
//!   sign two statements of one number.
//! * [`Flood`] decides: what of many like things is told. `record` and `seal` say the bytes of records and bodies.
//!
//! Formats and proofs are [`rhumb_verify`]'s; entries, records and salts are those of its `record`
//! (`docs/decisions/0020-entries-and-records.md`).

pub mod edge;
pub mod flood;
pub mod keys;
pub mod log;
pub mod messages;
pub mod peers;
pub mod read;
pub mod record;
pub mod report;
pub mod roots;
pub mod rows;
pub mod seal;
pub mod statements;
pub mod witness;

mod actor;
mod machines;
mod observed;

#[cfg(test)]
mod tests;

pub use actor::{AuditHandle, AuditLogger, Looked, NotAppended, NotErased, NotKept, Shared, World};
pub use edge::Edge;
pub use flood::Flood;
pub use keys::Keys;
pub use log::Log;
pub use machines::{AuditSettings, Machines, Signing, Unrecovered};
pub use observed::Observed;
pub use peers::Peers;
pub use report::AuditReport;
pub use witness::Witness;
