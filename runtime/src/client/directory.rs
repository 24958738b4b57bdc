//! Where the nodes are: the ready file that `rhumb dev` writes, or addresses given by hand.
//!
//! * It decides: which nodes a command may ask, and which one it asks first.
//! * It never does: discover. What is not written down is not there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rhumb_core::{NodeId, NodeName, Region};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The ready file's name in a data directory.
pub const READY_FILE: &str = "ready.json";

/// What `rhumb dev` writes when all nodes are ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyFile {
    /// One entry a node.
    pub regions: Vec<ReadyEntry>,
}

/// One node of a ready file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyEntry {
    /// Its region.
    pub region: Region,
    /// Its name there.
    pub node: NodeName,
    /// Its process.
    pub pid: u32,
    /// Where it answers QUIC.
    pub quic: SocketAddr,
    /// The URL of its admin HTTP.
    pub admin: String,
    /// Its data directory.
    pub data: PathBuf,
}

impl ReadyEntry {
    /// Which node it is.
    #[must_use]
    pub fn id(&self) -> NodeId {
        NodeId { region: self.region.clone(), name: self.node.clone() }
    }
}

/// Why it is not known where the nodes are.
#[derive(Debug, Error)]
pub enum DirectoryError {
    /// There is no ready file.
    #[error(
        "no mesh is known: {path} cannot be read ({source}); start one with `rhumb dev`, or give --data DIR or --endpoint HOST:PORT"
    )]
    NoReadyFile {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// The ready file is not one.
    #[error(
        "{path} is not a ready file: {source}; expected {{\"regions\":[{{\"region\":…,\"node\":…,\"pid\":…,\"quic\":…,\"admin\":…,\"data\":…}}]}}"
    )]
    BadReadyFile {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There is no node in it.
    #[error("{0} names no node")]
    Empty(PathBuf),
    /// A region without nodes, or to which none of the addresses given by hand leads.
    #[error("{0}")]
    NoSuchRegion(String),
    /// No region was given, and there is more than one.
    #[error("say which region with --region: there are {known}")]
    WhichRegion {
        /// Those there are.
        known: String,
    },
}

/// The nodes that a command may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    nodes: Vec<(NodeId, SocketAddr)>,
    /// They were given one by one: others may well be there.
    by_hand: bool,
    /// Addresses given by hand that could not be connected, and why.
    missed: Vec<String>,
}

impl Directory {
    /// These nodes, given by hand.
    #[must_use]
    pub fn of(nodes: Vec<(NodeId, SocketAddr)>) -> Self {
        Self { nodes, by_hand: true, missed: Vec::new() }
    }

    /// With addresses that could not be connected, as an error says it.
    #[must_use]
    pub(crate) fn without(self, missed: Vec<String>) -> Self {
        Self { missed, ..self }
    }

    /// Addresses given by hand that could not be connected, and why.
    #[must_use]
    pub fn missed(&self) -> &[String] {
        &self.missed
    }

    /// The nodes of the ready file in a data directory.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn read(data: &Path) -> Result<Self, DirectoryError> {
        let path = data.join(READY_FILE);
        let text = std::fs::read(&path)
            .map_err(|source| DirectoryError::NoReadyFile { path: path.clone(), source })?;
        let file: ReadyFile = serde_json::from_slice(&text)
            .map_err(|source| DirectoryError::BadReadyFile { path: path.clone(), source })?;
        if file.regions.is_empty() {
            return Err(DirectoryError::Empty(path));
        }
        let node = |entry: ReadyEntry| (entry.id(), entry.quic);
        Ok(Self { nodes: file.regions.into_iter().map(node).collect(), by_hand: false, missed: Vec::new() })
    }

    /// Every node and its address.
    #[must_use]
    pub fn nodes(&self) -> &[(NodeId, SocketAddr)] {
        &self.nodes
    }

    /// Whether this node's address is known.
    #[must_use]
    pub fn knows(&self, node: &NodeId) -> bool {
        self.nodes.iter().any(|(known, _)| known == node)
    }

    /// A node's address.
    #[must_use]
    pub fn address(&self, node: &NodeId) -> Option<SocketAddr> {
        self.nodes.iter().find(|(known, _)| known == node).map(|(_, address)| *address)
    }

    /// Every region, sorted, each once.
    #[must_use]
    pub fn regions(&self) -> Vec<Region> {
        let mut regions: Vec<Region> = self.nodes.iter().map(|(node, _)| node.region.clone()).collect();
        regions.sort();
        regions.dedup();
        regions
    }

    /// That none of these nodes is in a region, and what to do about it.
    #[must_use]
    pub fn none_in(&self, region: &str) -> String {
        let listed = |all: Vec<String>| all.join(", ");
        if self.by_hand {
            let all = listed(self.nodes.iter().map(|(node, _)| node.to_string()).collect());
            let missed = self.missed.iter().map(|missed| format!("; {missed}")).collect::<String>();
            return format!(
                "no --endpoint leads to region {region}: {all} can be asked; give the address of a node of {region} \
                 with --endpoint{missed}"
            );
        }
        let known = listed(self.regions().iter().map(ToString::to_string).collect());
        format!("region {region} has no node here; there are {known}")
    }

    /// The nodes of a region, or of the only region when none is given.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchRegion`], [`DirectoryError::WhichRegion`].
    pub fn nodes_in(&self, region: Option<&Region>) -> Result<Vec<NodeId>, DirectoryError> {
        let regions = self.regions();
        let known = || regions.iter().map(Region::as_str).collect::<Vec<_>>().join(", ");
        let region = match (region, &regions[..]) {
            (Some(region), _) => region,
            (None, [only]) => only,
            (None, _) => return Err(DirectoryError::WhichRegion { known: known() }),
        };
        let nodes: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(node, _)| node.region == *region)
            .map(|(node, _)| node.clone())
            .collect();
        if nodes.is_empty() {
            return Err(DirectoryError::NoSuchRegion(self.none_in(region.as_str())));
        }
        Ok(nodes)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn entry(region: &str, node: &str, port: u16) -> String {
        format!(
            r#"{{"region":"{region}","node":"{node}","pid":1,"quic":"127.0.0.1:{port}","admin":"http://127.0.0.1:{}","data":"d"}}"#,
            port + 100
        )
    }

    fn directory(text: &str) -> Result<Directory, DirectoryError> {
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join(READY_FILE), text).expect("writes");
        Directory::read(folder.path())
    }

    fn check(text: &str, region: Option<&str>, want: Expect) {
        let region = region.map(|name| Region::new(name).expect("valid"));
        let found = directory(text).and_then(|d| d.nodes_in(region.as_ref()));
        let text = match found {
            Ok(nodes) => nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string().replace('\n', " "),
        };
        // The directory's name is random.
        let shown = text.find(READY_FILE).map_or(text.as_str(), |at| &text[at..]);
        want.assert_eq(shown);
    }

    #[test]
    fn a_region_is_the_sum_of_its_nodes() {
        let mesh = format!(
            "{{\"regions\":[{},{},{}]}}",
            entry("us-east", "n1", 7001),
            entry("us-east", "n2", 7002),
            entry("eu-central", "n1", 7003)
        );
        check(&mesh, Some("us-east"), expect!["us-east/n1 us-east/n2"]);
        check(&mesh, Some("moon"), expect!["region moon has no node here; there are eu-central, us-east"]);
        check(&mesh, None, expect!["say which region with --region: there are eu-central, us-east"]);
        let one = format!("{{\"regions\":[{}]}}", entry("us-east", "n1", 7001));
        check(&one, None, expect!["us-east/n1"]);
    }

    #[test]
    fn a_region_that_no_endpoint_leads_to_may_well_be_there() {
        let node = NodeId::new("us-east", "n1").expect("valid");
        let given = Directory::of(vec![(node, "127.0.0.1:7001".parse().expect("an address"))]);
        let told = given.nodes_in(Some(&Region::new("eu-central").expect("valid"))).expect_err("not given");
        expect!["no --endpoint leads to region eu-central: us-east/n1 can be asked; give the address of a node of eu-central with --endpoint"]
            .assert_eq(&told.to_string());
    }

    #[test]
    fn what_is_not_a_ready_file_is_named() {
        check("{\"regions\":[]}", None, expect!["ready.json names no node"]);
        check(
            "{}",
            None,
            expect![[
                r#"ready.json is not a ready file: missing field `regions` at line 1 column 2; expected {"regions":[{"region":…,"node":…,"pid":…,"quic":…,"admin":…,"data":…}]}"#
            ]],
        );
        let missing = Directory::read(Path::new("/nonexistent")).expect_err("nothing there").to_string();
        assert!(missing.starts_with("no mesh is known: /nonexistent/ready.json"), "{missing}");
    }
}
