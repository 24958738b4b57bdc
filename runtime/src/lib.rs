//! Rhumb: a runtime for services that live in many regions at once.
//!
//! The rooms below this one decide; here they are put together: a node's [`supervisor`], the [`mesh`]
//! through which its actors call those of other nodes, the [`client`] for programs outside, and the
//! program `rhumb` ([`cli`]).

pub mod authority;
pub mod client;
pub mod clock;
pub mod http;
pub mod identity;
pub mod load;
pub mod mesh;
pub mod secrets;

#[cfg(feature = "rocks")]
pub mod cli;
#[cfg(feature = "rocks")]
pub mod demo;
#[cfg(feature = "rocks")]
pub mod dev;
#[cfg(feature = "rocks")]
pub mod founding;
#[cfg(feature = "rocks")]
pub mod settings;
#[cfg(feature = "rocks")]
pub mod supervisor;

/// What `EscrowRegion` can be asked, and its answers.
pub use rhumb_actors::escrow::messages as escrow;
/// Seeded randomness.
pub use rhumb_core::rng as seed;
