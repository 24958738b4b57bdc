//! `EscrowRegion`: sells units of a pool in many regions at once and never one too many.
//!
//! * It decides: hold, confirm, release, expire, return, grant, accept, level, and whether this node's disk
//!   may be believed at all. Rights are cumulative counters that only rise.
//! * It never does: take back a grant that was not acknowledged, use floats for units, say "sold out"
//!   of what it merely cannot reach, or run an idempotency key twice.
//! * Invariants (patterns.md §1.2), of units and of debt rights alike: I1 what is available is never
//!   below zero; I2 a node never accepts more than was granted to it; I3 minted = available + held +
//!   sold + in flight, over all nodes; I4 sold never exceeds minted and the debt ceiling; I5 the counters equal an independent ledger of receipts.
//!
//! In reading order: [`messages`] is what can be asked; [`settings`] how long it waits and how much
//! it remembers; [`policy`] the levelling plan, as a value; [`forecast`] what demand it plans by; [`matrix`] what rows add up to; [`levelled`]
//! what is counted of levelling; `records` what is on disk; `holds`, `keys` and `ledger` one node's tables;
//! `custody` whether the disk is the latest; `reconcile` whether units appeared or vanished; `pool` one pool with its queue; [`book`] the machine
//! that a shell (or the simulated world) drives; [`tenure`] who writes its rows, where they stand in a range.

pub mod advise;
pub mod forecast;
pub mod levelled;
pub mod matrix;
pub mod messages;
pub mod policy;
pub mod settings;

pub(crate) mod records;

pub(crate) mod custody;
pub(crate) mod customers;
pub(crate) mod holds;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod pool;
pub(crate) mod reconcile;

pub mod book;
pub mod tenure;

mod actor;

#[cfg(test)]
mod tests;

pub use actor::{
    Answered, EscrowHandle, EscrowRegion, EscrowReport, Keeps, Outcome, PoolReport, Sake, World,
};
pub use book::{Answer, Book, Effect, Input, Out, Request, Stranded, Token};
pub use messages::{
    AttestPool, Confirm, CreatePool, CustomerTag, DebtRow, Durability, Figures, Held, Hold, HoldId, Key,
    Level, PeerMessage, PoolAttested, PoolCreated, PoolSpec, PoolView, ReadRow, Receipts, Reconciled,
    Refusal, Release, Reserve, Return, Returned, Row, Settled, ShowPool, Standing, Tallies,
};
pub use policy::{Initiative, LevelPolicy};
pub use reconcile::Reconciliations;
pub use records::RecoverError;
pub use settings::EscrowSettings;

/// Reads records as a node does that starts; for tests that make some up.
///
/// # Errors
/// Why they are none.
#[doc(hidden)]
pub fn read_records(records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<(), String> {
    records::Image::read(records).map(drop).map_err(|error| error.to_string())
}
