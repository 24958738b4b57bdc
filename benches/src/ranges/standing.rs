//! Whoever keeps keys and values, standing: three nodes, who orders their writes, and a client's process.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rhumb_core::NodeId;
use tokio::process::Command;

use super::cluster::{self, Cluster};
use super::mesh::Three;
use super::{Between, Keeper, Order};
use crate::conditions::{Versions, versions};
use crate::process::{Freezing, Side, signal};
use crate::sample::Sample;

/// What befalls the node that orders writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Killed,
    /// SIGSTOP.
    Stopped,
    /// No other node reaches it, nor it them.
    CutOff,
}

/// How it is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// Keyspaces; etcd has one.
    pub spaces: usize,
    /// What lies between its nodes.
    pub between: Between,
    /// Settings of Rhumb's nodes that are not its defaults.
    pub settings: &'static [(&'static str, &'static str)],
}

/// Ranges are not split by their load: how many there are is what a work says.
pub const UNSPLIT: &[(&str, &str)] = &[("RHUMB__RANGES__SPLIT_LOAD", "off")];

impl How {
    /// So many keyspaces, and nothing between the nodes.
    #[must_use]
    pub fn near(spaces: usize) -> Self {
        Self { spaces, between: Between::Nothing, settings: UNSPLIT }
    }
}

enum Nodes {
    Rhumb(Box<Three>),
    Etcd(Cluster),
}

/// Whoever keeps keys and values, standing.
pub struct Standing {
    nodes: Nodes,
    dir: PathBuf,
}

/// The name of a keyspace.
#[must_use]
pub fn space(number: usize) -> String {
    format!("space{number}")
}

/// What a keeper is made of.
#[must_use]
pub fn versions_of(keeper: Keeper) -> Versions {
    match keeper {
        Keeper::Rhumb => versions("rhumb"),
        Keeper::Etcd => {
            let version = cluster::version().unwrap_or_else(|_| "not installed".to_owned());
            [("etcd".to_owned(), version)].into()
        }
    }
}

impl Standing {
    /// Starts it in a folder; somebody orders writes when this returns.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(keeper: Keeper, dir: &Path, how: How) -> anyhow::Result<Self> {
        let nodes = match keeper {
            Keeper::Rhumb => {
                let three = Three::start(dir, how.between, how.settings).await?;
                for number in 0..how.spaces {
                    three.keyspace(&space(number)).await?;
                }
                for number in 0..how.spaces {
                    three.holder(&space(number)).await?;
                }
                Nodes::Rhumb(Box::new(three))
            }
            Keeper::Etcd => Nodes::Etcd(Cluster::start(dir, how.between == Between::Relays).await?),
        };
        Ok(Self { nodes, dir: dir.to_owned() })
    }

    fn keeper(&self) -> Keeper {
        match self.nodes {
            Nodes::Rhumb(_) => Keeper::Rhumb,
            Nodes::Etcd(_) => Keeper::Etcd,
        }
    }

    /// Where these keyspaces' writes are ordered, as a client is told.
    ///
    /// # Errors
    /// Nobody orders them.
    pub async fn leaders(&self, spaces: std::ops::Range<usize>) -> anyhow::Result<String> {
        match &self.nodes {
            Nodes::Rhumb(three) => {
                let mut targets = Vec::new();
                for number in spaces {
                    let name = space(number);
                    targets.push(format!("{name}@{}", three.holder(&name).await?));
                }
                Ok(targets.join(","))
            }
            Nodes::Etcd(cluster) => Ok(cluster.address(cluster.leader().await?)),
        }
    }

    /// Another node, as a client of the first keyspace is told.
    ///
    /// # Errors
    /// There is none.
    pub async fn follower(&self) -> anyhow::Result<String> {
        match &self.nodes {
            Nodes::Rhumb(three) => {
                let name = space(0);
                Ok(format!("{name}@{}", three.other(&three.holder(&name).await?)?))
            }
            Nodes::Etcd(cluster) => Ok(cluster.address(Cluster::other(cluster.leader().await?))),
        }
    }

    /// Starts a client of these targets.
    ///
    /// # Errors
    /// It cannot connect.
    pub async fn client(&self, targets: &str) -> anyhow::Result<Side> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["keys", self.keeper().name()]).arg(&self.dir).arg(targets);
        let mut side = Side::spawn(command)?;
        let ready: String = side.said().await.with_context(|| format!("the client of {targets}"))?;
        anyhow::ensure!(ready == "ready", "the client said {ready:?}");
        Ok(side)
    }

    /// How often all nodes together have synced.
    ///
    /// # Errors
    /// A node does not say.
    pub async fn syncs(&self) -> anyhow::Result<f64> {
        match &self.nodes {
            Nodes::Rhumb(three) => Ok(three.syncs().await?.0),
            Nodes::Etcd(cluster) => cluster.syncs().await,
        }
    }

    /// Has a fault befall the node that orders the first keyspace's writes, which is not the one that clients of this target
    /// ask.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn befall(&mut self, fault: Fault, asked: &str) -> anyhow::Result<()> {
        let leader = self.leaders(0..1).await?;
        anyhow::ensure!(leader != asked, "{asked} orders writes meanwhile, and did not when it was chosen");
        match &mut self.nodes {
            Nodes::Rhumb(three) => {
                let leader: NodeId = three.holder(&space(0)).await?;
                match fault {
                    Fault::Killed => three.mesh.kill(&leader).await,
                    Fault::Stopped => signal(three.pid(&leader)?, Freezing::Stop),
                    Fault::CutOff => three.mesh.cut_off(&leader),
                }
            }
            Nodes::Etcd(cluster) => {
                let leader = cluster.leader().await?;
                match fault {
                    Fault::Killed => cluster.kill(leader).await,
                    Fault::Stopped => signal(cluster.pid(leader)?, Freezing::Stop),
                    Fault::CutOff => cluster.cut_off(leader),
                }
            }
        }
    }

    /// The mesh, where it is one.
    ///
    /// # Errors
    /// It is none.
    pub fn three(&self) -> anyhow::Result<&Three> {
        match &self.nodes {
            Nodes::Rhumb(three) => Ok(three),
            Nodes::Etcd(_) => anyhow::bail!("etcd is no mesh"),
        }
    }

    /// Kills its nodes: what they have is not needed any more.
    pub async fn end(self) {
        match self.nodes {
            Nodes::Rhumb(three) => three.end().await,
            Nodes::Etcd(cluster) => cluster.end().await,
        }
    }
}

/// Has a client do something, and waits until it says that it has.
///
/// # Errors
/// It could not.
pub async fn done(client: &mut Side, order: Order) -> anyhow::Result<()> {
    client.tell(&order).await?;
    let word: String = client.said_within(std::time::Duration::from_secs(600)).await?;
    anyhow::ensure!(["filled", "flows"].contains(&word.as_str()), "it said {word:?}");
    Ok(())
}

/// One round of a client.
///
/// # Errors
/// It could not.
pub async fn round(client: &mut Side, order: Order) -> anyhow::Result<Sample> {
    client.tell(&order).await?;
    client.said().await
}
