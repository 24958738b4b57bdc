//! Bytes across restarts.
//!
//! * It decides: when bytes count as durable, which epoch may write, what a store does after a fault,
//!   and whether a data directory may be opened at all.
//! * It never does: look into the bytes it keeps, answer "durable" before a sync covered them, retry
//!   a failed sync, or open a directory whose identity or history it cannot vouch for.
//! * Invariant: what was reported durable is there after any crash, and every recovery shows a prefix
//!   of the commits, in their order.
//!
//! In reading order: a [`Batch`] is what callers want written; an [`Engine`] keeps bytes; a [`Store`]
//! numbers commits and checks fences over an engine, without threads (the simulated world uses it as
//! it is); [`mvcc`] is how versions of ranges' keys are laid out, read and collected; a [`HotStore`] commits for many callers at once; a [`DataDir`] is a node's directory with
//! its two stores and their identity.

pub mod batch;
pub mod commit;
pub mod conformance;
pub mod control;
pub mod data_dir;
pub mod engine;
pub mod fault;
pub mod hot;
pub mod keys;
pub mod memory;
pub mod mvcc;
#[cfg(feature = "rocks")]
pub mod rocks;
pub mod sled;
pub mod store;

pub use batch::{Batch, Family};
pub use commit::CommitNumber;
pub use control::{ControlStore, Identity};
pub use data_dir::{DataDir, DataDirError, Expect, Footing};
pub use engine::{Engine, Ops, Pressure};
pub use fault::{EngineOpenError, FaultCause, StorageFault};
pub use hot::{CommitError, Durability, HotStore, Refusal};
pub use memory::{MemoryDisk, MemoryEngine};
#[cfg(feature = "rocks")]
pub use rocks::RocksEngine;
pub use store::{Fenced, OpenError, Store, WriteError};

/// The CRC-32C of bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}
