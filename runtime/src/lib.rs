//! Rhumb: a runtime for services that live in many regions at once.
//!
//! A program declares messages ([`macro@remote`]) and actors ([`remote_actor`], [`host::Host`]), and
//! calls them by address ([`mesh::MeshAddr`]) wherever they live: `use rhumb::prelude::*`. Three ways to
//! have a mesh to call: host actors in a node of one (`supervisor::Supervisor`), call it from outside
//! ([`client`]), or have several regions inside a test ([`testing`]).
//!
//! The rooms below this one decide; here they are put together, and here stands what actix leaves to
//! be done for actors ([`host`]) and the program `rhumb` (`cli`).
//!
//! # Features
//!
//! * `rocks` (default): nodes, with their RocksDB, and the program.
//! * `client`: what is there without `rocks`, named so that a manifest says what it is for: messages,
//!   actors, the client and the mesh inside a test. It compiles no RocksDB.

// What `#[remote]` and its like write says `::rhumb`, here too.
extern crate self as rhumb;

pub mod client;
pub mod clock;
pub(crate) mod delivery;
#[cfg(feature = "rocks")]
#[doc(hidden)]
pub mod entry;
pub mod generations;
pub mod host;
pub mod identity;
pub mod mesh;
pub mod metrics;
pub mod prelude;
pub mod secrets;
pub mod telemetry;
pub mod testing;

#[cfg(feature = "rocks")]
pub mod authority;
#[cfg(feature = "rocks")]
pub mod cli;
#[cfg(feature = "rocks")]
pub mod demo;
#[cfg(feature = "rocks")]
pub mod dev;
#[cfg(feature = "rocks")]
pub mod doctor;
#[cfg(feature = "rocks")]
pub mod fleet;
#[cfg(feature = "rocks")]
pub mod founding;
#[cfg(feature = "rocks")]
pub mod http;
#[cfg(feature = "rocks")]
pub mod load;
#[cfg(feature = "rocks")]
pub mod settings;
#[cfg(feature = "rocks")]
pub mod supervisor;

/// The audit log, for a program that tells of what it does itself ([`mesh::Mesh::audit`]).
pub mod audit {
    pub use rhumb_actors::audit::record::{NoRecord, Outcome, Record};
    pub use rhumb_actors::audit::{AuditHandle, NotAppended, NotErased};
}

/// What `EscrowRegion` can be asked, and its answers.
pub use rhumb_actors::escrow::messages as escrow;
pub use rhumb_actors::{__private, Wire, grows, protocol, remote, remote_actor};
/// Values whose consistency level is part of their type.
pub use rhumb_core::consistent;
/// Seeded randomness.
pub use rhumb_core::rng as seed;
