//! Who and where: the founding list of nodes, the homes of names, the shares of a supply, the
//! distances between regions, the residency policy, and where replicas should stand within it.
//!
//! * It decides: which node owns a name, how units are split, what class of data may go where.
//! * It never does: open a socket or file, read a clock or draw entropy. Text and bytes, keys and the
//!   time are arguments.
//! * Invariant: every answer is a pure function of its inputs, the same on every node. What the
//!   policy does not name is refused.

pub mod founding;
pub mod home;
pub mod matrix;
pub mod placement;
pub mod policy;
pub mod share;

pub use founding::{Founding, FoundingError};
pub use home::{order_among, owner, owner_among, pool_home};
pub use matrix::{LatencyMatrix, MatrixError, RegionMap};
pub use policy::{
    OperatorKey, OperatorKeys, OperatorPublicKey, Policy, PolicyErrors, PolicySnapshot, SignedPolicy,
};
pub use share::{ShareError, split, split_over_nodes};
