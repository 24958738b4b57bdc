//! When the cluster version is raised.
//!
//! * It decides: what every node is asked; when the row of the version changes, and to what; who holds it back, and why.
//! * It never does: raise by more than one; raise above what an operator has allowed; ask for a promise while any node does
//!   not know the version, for a promise cannot be taken back.
//! * Invariant: a raise follows promises of all nodes, whichever of them were heard when.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::{ClusterVersion, HybridTime, Knows, NodeId};
use serde::{Deserialize, Serialize};

/// The row `version` of the meta range. Every build reads and writes it in this format, whatever it knows: none could say otherwise
/// why it does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// The version of the mesh.
    pub active: ClusterVersion,
    /// Up to here an operator has allowed to raise it.
    pub allowed: ClusterVersion,
}

impl Default for VersionRow {
    /// As it is where none was written.
    fn default() -> Self {
        Self { active: ClusterVersion::FIRST, allowed: ClusterVersion::FIRST }
    }
}

/// What a node has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// What its build knows.
    pub knows: Knows,
    /// What its disk remembers: no build that does not know this version starts on it.
    pub promised: ClusterVersion,
}

/// What came of asking a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It said this.
    Said(Said),
    /// It said nothing, for this reason.
    Silent(String),
}

/// The row is to be changed, if it is still what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raise {
    /// When the row was written that was read; none: there is none.
    pub read_at: Option<HybridTime>,
    /// What it was.
    pub from: VersionRow,
    /// What it becomes.
    pub to: VersionRow,
}

/// What an operator's word makes of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// It is allowed, or done, already.
    Already,
    /// The row becomes this.
    Becomes(VersionRow),
}

/// The machine of whoever holds the lease of the meta range.
#[derive(Debug)]
pub struct Upgrade {
    nodes: BTreeSet<NodeId>,
    read: Option<(VersionRow, Option<HybridTime>)>,
    heard: BTreeMap<NodeId, Heard>,
}

impl Upgrade {
    /// One of these nodes. Nothing is known yet.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Self { nodes: nodes.into_iter().collect(), read: None, heard: BTreeMap::new() }
    }

    /// The row was read, as the leaseholder reads: it was written then.
    pub fn read(&mut self, row: VersionRow, at: Option<HybridTime>) {
        self.read = Some((row, at));
    }

    /// The lease is another node's.
    pub fn deposed(&mut self) {
        self.read = None;
        self.heard.clear();
    }

    /// What came of asking a node.
    pub fn heard(&mut self, node: NodeId, heard: Heard) {
        if self.nodes.contains(&node) {
            self.heard.insert(node, heard);
        }
    }

    /// The version that comes next, if it is allowed.
    #[must_use]
    pub fn next(&self) -> Option<ClusterVersion> {
        let (row, _) = self.read.as_ref()?;
        (row.active < row.allowed).then(|| row.active.next())
    }

    /// What all nodes are asked to promise now. None: they are only asked what they know.
    #[must_use]
    pub fn promise(&self) -> Option<ClusterVersion> {
        let next = self.next()?;
        let knows = |node: &NodeId| match self.heard.get(node) {
            Some(Heard::Said(said)) => said.knows.has(next),
            Some(Heard::Silent(_)) | None => false,
        };
        self.nodes.iter().all(knows).then_some(next)
    }

    /// The change of the row that is due.
    #[must_use]
    pub fn decide(&self) -> Option<Raise> {
        let (from, read_at) = self.read?;
        let next = self.next()?;
        let promised = |node: &NodeId| match self.heard.get(node) {
            Some(Heard::Said(said)) => said.promised >= next,
            // What is silent has promised nothing, as far as is known here.
            Some(Heard::Silent(_)) | None => canary::sings(Canary::VersionRaisedUnheard),
        };
        let to = VersionRow { active: next, ..from };
        self.nodes.iter().all(promised).then_some(Raise { read_at, from, to })
    }

    /// Why a node holds this version back, if it does.
    #[must_use]
    pub fn holds_back(&self, node: &NodeId, version: ClusterVersion) -> Option<String> {
        match self.heard.get(node) {
            None => Some("it was not asked yet".to_owned()),
            Some(Heard::Silent(why)) => Some(format!("it does not say what it knows: {why}")),
            Some(Heard::Said(said)) if !said.knows.has(version) => {
                Some(format!("its build knows {}", said.knows))
            }
            Some(Heard::Said(_)) => None,
        }
    }

    /// What was heard of a node.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<&Heard> {
        self.heard.get(node)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter()
    }
}

/// What becomes of the row when an operator allows this version; unless one is named, the newest that any node knows.
///
/// # Errors
/// Which nodes do not know it, or that the mesh is above it.
pub fn allow(row: VersionRow, upgrade: &Upgrade, named: Option<ClusterVersion>) -> Result<Allowed, String> {
    let newest = upgrade.nodes().filter_map(|node| match upgrade.of(node)? {
        Heard::Said(said) => Some(said.knows.newest),
        Heard::Silent(_) => None,
    });
    let to = named.or_else(|| newest.max().map(|newest| newest.max(row.active))).unwrap_or(row.active);
    if to < row.active {
        return Err(format!("the mesh is at cluster version {}: it never goes back to {to}", row.active));
    }
    if to <= row.allowed {
        return Ok(Allowed::Already);
    }
    let held: Vec<String> = upgrade
        .nodes()
        .filter_map(|node| Some(format!("{node}: {}", upgrade.holds_back(node, to)?)))
        .collect();
    match held.is_empty() {
        true => Ok(Allowed::Becomes(VersionRow { allowed: to, ..row })),
        false => Err(format!(
            "not every node knows cluster version {to}, so nothing was changed: {}",
            held.join("; ")
        )),
    }
}
