//! What pools there are, as one node knows them.

use rhumb_core::{DataClass, NodeId, PoolName};
use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::{Wire, remote};

/// The most pools in one answer.
pub const LISTED_AT_ONCE: usize = 500;

/// Which pools of a class does this node know? A pool's name and figures are data of its class, so a class
/// is asked for at a time; the answer also says which classes there are to ask for.
#[remote(crate = crate, name = "escrow.ListPools", class = by(class), idempotent,
         reply = Result<PoolList, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPools {
    /// Of which class.
    pub class: DataClass,
    /// Those whose names come after this one; all unless given.
    pub after: Option<PoolName>,
}

/// The pools of a class that a node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolList {
    /// Which node.
    pub node: NodeId,
    /// Its pools of the class, by name, [`LISTED_AT_ONCE`] at the most.
    pub pools: Vec<PoolListed>,
    /// Whether there are more after them.
    pub more: bool,
    /// The classes of all pools that the node knows.
    pub classes: Vec<DataClass>,
}

/// One pool, with the figures of the node that lists it. Units on debt are among those held and consumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolListed {
    /// Its name.
    pub pool: PoolName,
    /// Units minted, over all nodes.
    pub supply: u64,
    /// The node that minted it.
    pub home: NodeId,
    /// Units that this node may sell.
    pub available: u64,
    /// Units held here.
    pub held: u64,
    /// Units sold here.
    pub consumed: u64,
    /// Units given back here.
    pub returned: u64,
}
