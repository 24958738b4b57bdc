//! A mesh founded with `rhumb mesh init`, one node a region, whose nodes are started one by one.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use super::{Ran, Serving, free_port, run, run_with};

/// The regions, in the order of their nodes.
pub const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];

/// A founded mesh. Its directory goes with it.
#[derive(Debug)]
pub struct FoundedMesh {
    directory: TempDir,
    ports: Vec<u16>,
}

impl FoundedMesh {
    /// Founds a mesh of so many regions.
    ///
    /// # Panics
    /// When it cannot be founded.
    #[must_use]
    pub fn of(nodes: usize) -> Self {
        let mesh = Self::unfounded(nodes);
        mesh.found(&[]);
        mesh
    }

    /// The places of a mesh that is yet to be founded.
    ///
    /// # Panics
    /// When there is no directory for it.
    #[must_use]
    pub fn unfounded(nodes: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, ports: (0..nodes).map(|_| free_port()).collect() }
    }

    /// Founds the mesh, with these environment variables.
    ///
    /// # Panics
    /// When it cannot be founded.
    pub fn found(&self, variables: &[(&str, &str)]) {
        let founding = ["mesh", "init", "--nodes", &self.addresses(), "mesh"];
        let ran = run_with(variables, self.directory(), &founding);
        assert_eq!(ran.code, 0, "rhumb {}: {}", founding.join(" "), ran.text);
    }

    /// Every node with its address, as `mesh init --nodes` takes it.
    #[must_use]
    pub fn addresses(&self) -> String {
        (0..self.ports.len()).map(|node| self.address(node)).collect::<Vec<_>>().join(",")
    }

    /// A node and its address: `us-east/n1=127.0.0.1:7001`.
    #[must_use]
    pub fn address(&self, node: usize) -> String {
        format!("{}/n1={}", REGIONS[node], self.admin(node))
    }

    /// Where a node listens, by QUIC and by its admin HTTP.
    #[must_use]
    pub fn admin(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.ports[node])
    }

    /// Starts a node with these environment variables.
    #[must_use]
    pub fn serve(&self, node: usize, variables: &[(&str, &str)]) -> Serving {
        let admin = self.admin(node);
        Serving::start_with(variables, self.directory(), "mesh/config", REGIONS[node], "n1", &admin)
    }

    /// Starts a node that is a program of its own, with these environment variables.
    #[must_use]
    pub fn serve_with(&self, program: &Path, node: usize, variables: &[(&str, &str)]) -> Serving {
        let admin = self.admin(node);
        let config = "mesh/config";
        Serving::start_of(program, variables, self.directory(), config, REGIONS[node], "n1", &admin)
    }

    /// The folder in which the mesh and its commands are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps the folder after the mesh has gone.
    pub fn keep(&mut self) {
        self.directory.disable_cleanup(true);
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, node: usize) -> PathBuf {
        self.directory().join(format!("mesh/nodes/{}-n1/data", REGIONS[node]))
    }

    /// The mesh's nodes and a certificate of the first region, for the commands that ask them.
    #[must_use]
    pub fn reaching(&self, role: &str) -> Vec<String> {
        let endpoints: Vec<_> = (0..self.ports.len()).map(|node| self.admin(node)).collect();
        let identity = format!("mesh/{role}s/us-east-{}", if role == "client" { "app" } else { "admin" });
        vec!["--endpoint".into(), endpoints.join(","), "--identity".into(), identity]
    }

    /// Runs a command.
    #[must_use]
    pub fn rhumb(&self, arguments: &[&str]) -> Ran {
        run(self.directory(), &[arguments, &["-o", "json"]].concat())
    }

    /// Runs a command that asks the mesh.
    #[must_use]
    pub fn ask(&self, role: &str, arguments: &[&str]) -> Ran {
        let reaching = self.reaching(role);
        let reaching: Vec<&str> = reaching.iter().map(String::as_str).collect();
        self.rhumb(&[arguments, &reaching].concat())
    }

    /// Runs a command that must succeed; gives its JSON.
    ///
    /// # Panics
    /// When it does not.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let ran = self.rhumb(arguments);
        assert_eq!(ran.code, 0, "rhumb {}: {}", arguments.join(" "), ran.text);
        ran.json
    }
}
