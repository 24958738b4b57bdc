//! The founding list: the nodes that a mesh was made of, stamped once with the cluster id.
//!
//! * It decides: what a valid list is, its order, and its identity (a hash that HELLO compares).
//! * It never does: hold addresses. Where a node listens may change; that it is a founder may not.
//! * Invariant: sorted by region then name, without duplicates, 1 to [`MAX_NODES`] nodes. Two lists
//!   with the same nodes are equal and hash the same, in whatever order they were written.

use std::fmt;

use rhumb_core::limits::MAX_NODES;
use rhumb_core::{NodeId, Region};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The first line of the encoding that is hashed. A new encoding gets a new line.
const DOMAIN: &str = "rhumb-founding-v1\n";

/// Why a list of nodes cannot found a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FoundingError {
    /// There is no node in it.
    #[error("the founding list is empty: name at least one node")]
    Empty,
    /// There are too many.
    #[error("the founding list has {0} nodes: at most {MAX_NODES} are supported")]
    TooMany(usize),
    /// One node is named twice.
    #[error("node {0} stands twice in the founding list: name each node once")]
    Duplicate(NodeId),
}

/// The validated, sorted founding list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<NodeId>", into = "Vec<NodeId>")]
pub struct Founding(Vec<NodeId>);

impl Founding {
    /// The founding list of these nodes, in any order.
    ///
    /// # Errors
    /// [`FoundingError`] when there is none, too many, or one twice.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, FoundingError> {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort();
        if nodes.is_empty() {
            return Err(FoundingError::Empty);
        }
        if nodes.len() > MAX_NODES {
            return Err(FoundingError::TooMany(nodes.len()));
        }
        if let Some(twice) = nodes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FoundingError::Duplicate(twice[0].clone()));
        }
        Ok(Self(nodes))
    }

    /// The nodes, sorted by region, then name.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }

    /// Whether this node is a founder.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.binary_search(node).is_ok()
    }

    /// The regions that have a node, sorted, each once.
    #[must_use]
    pub fn regions(&self) -> Vec<&Region> {
        let mut regions: Vec<&Region> = self.0.iter().map(|node| &node.region).collect();
        regions.dedup();
        regions
    }

    /// The nodes of a region, sorted by name. Empty when the region has none.
    #[must_use]
    pub fn nodes_in(&self, region: &Region) -> &[NodeId] {
        let start = self.0.partition_point(|node| node.region < *region);
        let end = self.0.partition_point(|node| node.region <= *region);
        &self.0[start..end]
    }

    /// The identity of the list: SHA-256 over `rhumb-founding-v1`, a line feed, and then each node in
    /// order as `region/name` and a line feed, in ASCII. Names are DNS labels, so no two lists encode
    /// alike.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        for node in &self.0 {
            hash.update(format!("{node}\n"));
        }
        hash.finalize().into()
    }
}

impl TryFrom<Vec<NodeId>> for Founding {
    type Error = FoundingError;
    fn try_from(nodes: Vec<NodeId>) -> Result<Self, FoundingError> {
        Self::new(nodes)
    }
}

impl From<Founding> for Vec<NodeId> {
    fn from(founding: Founding) -> Self {
        founding.0
    }
}

impl fmt::Display for Founding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, node) in self.0.iter().enumerate() {
            write!(f, "{}{node}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A founding list of `region/name` texts, for tests of this crate.
#[cfg(test)]
pub(crate) fn founding(nodes: &str) -> Founding {
    Founding::new(nodes.split_whitespace().map(|node| node.parse().expect("a node id")))
        .expect("a valid list")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_order_in_which_nodes_are_written_is_not_part_of_the_identity() {
        let one = founding("us-east/n1 eu-central/n1 us-east/n2");
        let other = founding("us-east/n2 us-east/n1 eu-central/n1");
        assert_eq!(one, other);
        assert_eq!(one.hash(), other.hash());
        assert_eq!(one.to_string(), "eu-central/n1, us-east/n1, us-east/n2");
    }

    #[test]
    fn every_node_is_part_of_the_identity() {
        let whole = founding("a/n1 b/n1 b/n2");
        for other in
            ["a/n1 b/n1", "a/n1 b/n1 b/n3", "a/n1 b/n1 c/n2", "a/n1 b/n1 b/n2 c/n1", "a/n11 b/n1 b/n2"]
        {
            assert_ne!(whole.hash(), founding(other).hash(), "{other}");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        // A changed hash would make every node of a running mesh refuse every upgraded one. Check by
        // hand: printf 'rhumb-founding-v1\neu-central/n1\nus-east/n1\nus-east/n2\n' | sha256sum
        let hash = founding("us-east/n1 us-east/n2 eu-central/n1").hash();
        expect!["27105bd62ab67689ef83d06ced42c1e8ab1d75f5e9bef8eeb5dfefe0d1a5df7e"]
            .assert_eq(&hash.map(|byte| format!("{byte:02x}")).concat());
    }

    #[test]
    fn bad_lists_are_refused_by_name() {
        let nodes = |n: usize| (0..n).map(|i| NodeId::new("r", &format!("n{i}")).expect("valid"));
        assert_eq!(Founding::new([]), Err(FoundingError::Empty));
        assert!(Founding::new(nodes(MAX_NODES)).is_ok());
        assert_eq!(Founding::new(nodes(MAX_NODES + 1)), Err(FoundingError::TooMany(MAX_NODES + 1)));
        let twice = NodeId::new("r", "n0").expect("valid");
        assert_eq!(Founding::new(nodes(2).chain([twice.clone()])), Err(FoundingError::Duplicate(twice)));
    }

    #[test]
    fn a_region_is_the_sum_of_its_nodes() {
        let list = founding("b/n2 a/n1 b/n1 c/n1");
        let names = |region: &str| {
            let region = Region::new(region).expect("valid");
            list.nodes_in(&region).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(list.regions().iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(names("b"), "b/n1 b/n2");
        assert_eq!(names("c"), "c/n1");
        assert_eq!(names("bb"), "");
        assert!(list.contains(&NodeId::new("b", "n2").expect("valid")));
        assert!(!list.contains(&NodeId::new("b", "n3").expect("valid")));
    }
}
