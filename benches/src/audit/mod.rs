//! The audit log: appends that are durable, and proofs out of a long log. Each is measured in a process of its own.

pub mod append;
pub mod prove;
