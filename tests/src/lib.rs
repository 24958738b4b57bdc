//! What tests are made of: the deterministic world ([`sim`]), clusters of processes ([`cluster`]), and disks
//! that lose their power under them ([`powercut`]), and faults for half an hour ([`soak`]).
//!
//! Nothing here links RocksDB: the simulated world keeps its bytes in memory, and tests of real
//! clusters run the real program. The customers of those (`bin/customer.rs`) are a program of their own.

pub mod cluster;
pub mod exposition;
pub mod otlp;
pub mod powercut;
pub mod sim;
pub mod soak;
pub mod spire;
