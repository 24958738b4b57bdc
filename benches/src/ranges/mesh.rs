//! Three of Rhumb's nodes, a region each, whose program is `bench-node`; their keyspaces, and who holds whose lease.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rhumb::client::directory::Directory;
use rhumb::client::{Ask, MeshClient};
use rhumb::dev::{DevMesh, WanChoice};
use rhumb_actors::placement::messages::Placement;
use rhumb_actors::ranges::messages::{CreateKeyspace, Lifetimes, ListRanges, RangeView};
use rhumb_core::NodeId;
use tokio::time::sleep;

use super::{Between, page};

/// Regions, one node each.
pub const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-southeast"];
/// A class that every region may hold.
const CLASS: &str = "inventory";
/// What the meta range is called.
const META: &str = "meta";
const SOON: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_secs(10);

/// A mesh of three.
pub struct Three {
    /// The nodes.
    pub mesh: DevMesh,
    operator: MeshClient,
}

/// Relays between the regions that add a tenth of a millisecond to a round trip, so that a node can be cut off.
fn wan(dir: &Path) -> anyhow::Result<WanChoice> {
    let mut matrix = format!("from,{}\n", REGIONS.join(","));
    for region in REGIONS {
        matrix += &format!("{region},{}\n", ["0.1"; REGIONS.len()].join(","));
    }
    let file = dir.join("wan.csv");
    std::fs::write(&file, matrix)?;
    Ok(WanChoice::File(file))
}

impl Three {
    /// Starts it in a folder, with this between its nodes.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn start(dir: &Path, between: Between, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let wan = match between {
            Between::Nothing => WanChoice::Off,
            Between::Relays => wan(dir)?,
            Between::Wan => WanChoice::Published,
        };
        let mesh = crate::mesh::start_in(&REGIONS, dir, wan, settings).await?;
        let operator = MeshClient::new(mesh.operator_identity(), Directory::read(mesh.data())?)?;
        Ok(Self { mesh, operator })
    }

    /// Creates a keyspace of three replicas.
    ///
    /// # Errors
    /// It cannot be created.
    pub async fn keyspace(&self, name: &str) -> anyhow::Result<()> {
        let (name, class, lifetimes) = (name.to_owned(), CLASS.parse()?, Lifetimes::default());
        let placement = Placement::default();
        let create = CreateKeyspace { name, class, replication: 3, lifetimes, placement };
        let node = self.mesh.nodes().first().context("a node")?.id();
        let until = Instant::now() + SOON;
        loop {
            let why = match self.operator.ask(&node, &create, DEADLINE).await {
                Ok(Ok(_)) => return Ok(()),
                // Not all nodes may have introduced themselves yet; creating it again is the same answer.
                Ok(Err(refusal)) => refusal.to_string(),
                Err(fault) => fault.to_string(),
            };
            anyhow::ensure!(Instant::now() < until, "no keyspace {}: {why}", create.name);
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The replicas of keyspaces that these nodes tell of.
    async fn replicas(&self, nodes: &[NodeId]) -> Vec<RangeView> {
        let mut all = Vec::new();
        for node in nodes {
            if let Ok(Ok(views)) = self.operator.ask(node, &ListRanges {}, DEADLINE).await {
                all.extend(views);
            }
        }
        all
    }

    fn ids(&self) -> Vec<NodeId> {
        self.mesh.nodes().iter().map(|node| node.id()).collect()
    }

    async fn holder_among(&self, name: &str, nodes: &[NodeId]) -> anyhow::Result<NodeId> {
        let until = Instant::now() + SOON;
        loop {
            let mut all = self.replicas(nodes).await;
            all.retain(|view| view.keyspace == name);
            let holds = all.iter().find(|view| view.leads && view.leaseholder);
            if let Some(view) = holds.filter(|_| all.len() >= nodes.len()) {
                return Ok(view.node.clone());
            }
            anyhow::ensure!(Instant::now() < until, "nobody holds the lease of {name}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who holds a keyspace's lease in force, and leads its log.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn holder(&self, name: &str) -> anyhow::Result<NodeId> {
        self.holder_among(name, &self.ids()).await
    }

    /// The same, while a node is down.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn holder_without(&self, name: &str, down: &NodeId) -> anyhow::Result<NodeId> {
        let up: Vec<_> = self.ids().into_iter().filter(|id| id != down).collect();
        self.holder_among(name, &up).await
    }

    /// Of how many keyspaces' ranges somebody holds the lease in force.
    pub async fn held(&self) -> usize {
        let all = self.replicas(&self.ids()).await;
        all.iter().filter(|view| view.leaseholder && view.keyspace != META).count()
    }

    /// Another node than this one, the first by name.
    ///
    /// # Errors
    /// There is no other one.
    pub fn other(&self, than: &NodeId) -> anyhow::Result<NodeId> {
        self.ids().into_iter().find(|id| id != than).context("another node")
    }

    /// The process of a node.
    ///
    /// # Errors
    /// There is no such node.
    pub fn pid(&self, id: &NodeId) -> anyhow::Result<u32> {
        let node = self.mesh.nodes().into_iter().find(|node| node.id() == *id);
        Ok(node.with_context(|| format!("there is no node {id}"))?.pid)
    }

    /// How often all nodes together have synced their logs, and how many seconds that took.
    ///
    /// # Errors
    /// A node does not say.
    pub async fn syncs(&self) -> anyhow::Result<(f64, f64)> {
        let (mut count, mut seconds) = (0.0, 0.0);
        for node in self.mesh.nodes() {
            let admin: SocketAddr = node.admin.trim_start_matches("http://").parse()?;
            let page = page::read(admin).await?;
            count += page::sum(&page, "rhumb_store_sync_duration_seconds_count");
            seconds += page::sum(&page, "rhumb_store_sync_duration_seconds_sum");
        }
        Ok((count, seconds))
    }

    /// Kills all nodes: what they have is not needed any more.
    pub async fn end(self) {
        self.operator.close().await;
        for node in self.mesh.nodes() {
            // One that is stopped would not end by itself.
            self.mesh.kill(&node.id()).await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relays_know_every_region() {
        let folder = tempfile::tempdir().expect("a folder");
        let WanChoice::File(file) = wan(folder.path()).expect("written") else { panic!("a file") };
        let text = std::fs::read_to_string(file).expect("a file");
        let matrix = rhumb_topology::LatencyMatrix::parse(&text).expect("a matrix");
        let rtt = matrix.rtt("us-east", "ap-southeast").expect("both are there");
        assert_eq!(rtt, Duration::from_micros(100));
    }
}
