//! Histories: what clients of a keyspace saw, as lines that any checker reads, and whether it could have been.
//!
//! The simulated mesh with real openraft under it (`actors/src/ranges/host/tests`) and meshes of real processes (`rhumb-tests`) are
//! judged by the same checks, which are calibrated here, on histories that are known to be wrong.
//!
//! * It decides: what stands in a line ([`operation`]); what clients have told, as it comes ([`account`]); whether what is strong has an
//!   order ([`linear`]; its heart is porcupine-rs, which is not ours), and whether all else may be ([`levels`]).
//! * It never does: ask a mesh, or a clock. Times are given; [`mod@file`] alone touches the world.
//! * Invariant: what may be is never called wrong; where that is not known it is said so.

pub mod account;
pub mod file;
pub mod levels;
pub mod linear;
pub mod operation;

#[cfg(test)]
mod sound;

pub use account::{Account, Dids, Ended};
pub use levels::Reading;
pub use operation::{Did, Operation, Outcome, Value};
