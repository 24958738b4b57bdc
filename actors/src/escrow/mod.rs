//! `EscrowRegion`: sells units of a pool in many regions at once and never one too many.
//!
//! * It decides: hold, confirm, release, expire, grant, accept, level, and whether this node's disk
//!   may be believed at all. Rights are cumulative counters that only rise.
//! * It never does: take back a grant that was not acknowledged, use floats for units, say "sold out"
//!   of what it merely cannot reach, or run an idempotency key twice.
//! * Invariants (patterns.md §1.2): I1 what is available is never below zero; I2 a node never accepts
//!   more than was granted to it; I3 minted = available + held + sold + in flight, over all nodes;
//!   I4 sold never exceeds minted; I5 the counters equal an independent ledger of receipts.
//!
//! In reading order: [`messages`] is what can be asked; [`policy`] the settings and the levelling
//! plan, as values; `records` what is on disk; `holds`, `keys` and `ledger` one node's tables;
//! `custody` whether the disk is the latest; `pool` one pool with its queue; [`book`] the machine
//! that a shell (or the simulated world) drives.

pub mod messages;
pub mod policy;

pub(crate) mod records;

pub(crate) mod custody;
pub(crate) mod demand;
pub(crate) mod holds;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod pool;

pub mod book;

mod actor;

#[cfg(test)]
mod tests;

pub use actor::{Answered, EscrowHandle, EscrowRegion, EscrowReport, Outcome, PoolReport, Sake, World};
pub use book::{Answer, Book, Effect, Input, Out, Request, Stranded, Token};
pub use messages::{
    AttestPool, Confirm, CreatePool, Figures, Held, Hold, HoldId, Key, Level, PeerMessage, PoolAttested,
    PoolCreated, PoolSpec, PoolView, ReadRow, Refusal, Release, Row, Settled, ShowPool, Standing, Tallies,
};
pub use policy::{EscrowSettings, LevelPolicy};
pub use records::RecoverError;
