//! The vocabulary of Rhumb: what every room speaks of and none of them owns.
//!
//! * It decides: the rules of ids, hybrid time, guarantee levels and durability ordering; how a body
//!   becomes bytes, and when two builds' layouts of it are the same.
//! * It never does: read a clock, draw entropy, await, or see a socket, file or thread (the one
//!   exception is [`rng::Seed::from_entropy`], for shells).
//! * Invariant: nothing here imports another room.

pub mod blob;
pub mod canary;
pub mod class;
pub mod codec;
pub mod consistent;
pub mod effects;
pub mod epoch;
pub mod fault;
pub mod gate;
pub mod guarantee;
pub mod ids;
pub mod limits;
pub mod priority;
pub mod rng;
pub mod time;
pub mod version;
pub mod wakes;
pub mod wire;

pub use blob::Blob;
pub use class::DataClass;
pub use consistent::Consistent;
pub use effects::{Barrier, Effects, Ticket};
pub use epoch::{Epoch, Incarnation};
pub use fault::{Delivery, Fault, FaultKind};
pub use gate::{Direction, Gate, GateRefusal, Passage, Principal, Role};
pub use guarantee::Guarantee;
pub use ids::{ClusterId, NameError, NodeId, NodeName, PoolName, Region, StoreId};
pub use priority::Priority;
pub use time::{HybridClock, HybridTime, Mono, Now};
pub use version::{ClusterVersion, Knows};
pub use wire::Wire;
