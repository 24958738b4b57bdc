//! What tests are made of: the deterministic world ([`sim`]), clusters of processes ([`cluster`]), and disks
//! that lose their power under them ([`powercut`]), and faults for half an hour ([`soak`]).
//!
//! The simulated world keeps its bytes in memory, and tests of real clusters run the real program, or one
//! of this crate's own that hosts the shop of [`orders`], a [`counter`] that moves and a [`clerk`] in each region, [`targets`] for hostile bytes, or what is asked for too much
//! ([`overload`]); RocksDB is
//! linked for the sake of [`entries`], the ways in which bytes come from outside. The customers of those (`bin/customer.rs`) are a program of their own.

pub mod chaos;
pub mod clerk;
pub mod cluster;
pub mod counter;
pub mod entries;
pub mod exposition;
pub mod orders;
pub mod otlp;
pub mod overload;
pub mod peak;
pub mod powercut;
pub mod sim;
pub mod soak;
pub mod spire;
pub mod targets;
