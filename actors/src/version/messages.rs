//! What nodes and operators ask of the cluster version: the public face, versioned. All of it is class `control`: names of nodes,
//! and numbers.

use rhumb_core::NodeId;
use serde::{Deserialize, Serialize};

use crate::ranges::messages::KvRefusal;
use crate::{Wire, remote};

/// Which cluster versions do you know? And if one is named: promise that you know it from now on, whatever starts on your disk.
#[remote(crate = crate, name = "version.Say", class = "control", audience = "nodes", idempotent,
         reply = Result<SaidVersion, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SayVersion {
    /// What is to be promised. A node that does not know it promises nothing, and says what it knows.
    pub promise: Option<u32>,
}

/// What a node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct SaidVersion {
    /// The oldest version that its build knows.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
    /// What its disk remembers.
    pub promised: u32,
}

/// At which version is the mesh, and what does each node know? The leaseholder of the meta range asks all and answers.
#[remote(crate = crate, name = "version.Show", class = "control", audience = "operators", idempotent, deadline = "6s",
         reply = Result<VersionView, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowVersion {}

/// Raise the version as far as all nodes know it, or up to this one. There is no way back to a build that does not know it.
#[remote(crate = crate, name = "version.Finalize", class = "control", audience = "operators", idempotent, deadline = "15s",
         reply = Result<VersionView, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalize {
    /// Up to this one.
    pub to: Option<u32>,
}

/// The cluster version, and what holds it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct VersionView {
    /// Who says so: the leaseholder of the meta range.
    pub by: NodeId,
    /// The version of the mesh.
    pub active: u32,
    /// Up to here an operator has allowed to raise it.
    pub allowed: u32,
    /// What each node knows.
    pub nodes: Vec<NodeKnows>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct NodeKnows {
    /// Which node.
    pub node: NodeId,
    /// What it said; none: it said nothing.
    pub said: Option<SaidVersion>,
    /// Why it holds the next version back, if it does.
    pub holds_back: Option<String>,
}
