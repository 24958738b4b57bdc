//! What tests are made of: the deterministic world ([`sim`]).
//!
//! Nothing here links RocksDB: the simulated world keeps its bytes in memory, and tests of real
//! clusters run the real program.

pub mod cluster;
pub mod exposition;
pub mod otlp;
pub mod sim;
pub mod spire;
