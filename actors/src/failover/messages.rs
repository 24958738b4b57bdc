//! What nodes tell each other of who is there, and what can be asked of it: the public face, versioned. All of it is class
//! `control`: names of nodes, and numbers.

use rhumb_core::NodeId;
use serde::{Deserialize, Serialize};

use super::coordinator::State;
use crate::ranges::messages::KvRefusal;
use crate::{Wire, grows, remote};

/// Beats are told under this name.
pub const BEAT: &str = "failover.Beat";

/// I am here, and this is whom I do not hear.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Nodes that are silent here.
    pub silent: Vec<NodeId>,
    /// Whether that counts: I have listened for a while, without a break.
    pub settled: bool,
}

/// All fences, read as the leaseholder of the meta range reads.
#[remote(crate = crate, name = "failover.Fences", class = "control", audience = "nodes", idempotent,
         reply = Result<Vec<FenceRead>, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFences {}

/// A node's fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct FenceRead {
    /// Whose.
    pub node: NodeId,
    /// Its row, in the catalog's bytes.
    pub row: Vec<u8>,
}

/// How do the nodes of each region stand? The leaseholder of the meta range answers.
#[remote(crate = crate, name = "region.List", class = "control", audience = "operators", idempotent,
         reply = Result<RegionList, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRegions {}

/// How the nodes stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct RegionList {
    /// Who says so: the node that coordinates.
    pub by: NodeId,
    /// The nodes, region by region.
    pub nodes: Vec<NodeStands>,
}

/// How a node stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct NodeStands {
    /// Which node.
    pub node: NodeId,
    /// How.
    pub state: State,
    /// The epoch of its fence.
    pub epoch: u64,
    /// Who says that it is silent.
    pub silent_to: Vec<NodeId>,
    /// Who hears it.
    pub heard_by: Vec<NodeId>,
}
