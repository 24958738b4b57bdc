//! A whole mesh on this machine: one process a node, certificates, a signed policy, and a WAN between
//! the regions.
//!
//! * It decides: ports, folders, who is started again and when.
//! * It never does: stand between a node and its own settings. Each node runs `rhumb serve` on files
//!   that one could have written by hand.
//! * Invariant: no process outlives the mesh. Each node stops when its standard input closes, which
//!   the operating system does for it however this process ends.

mod founding;
mod process;
mod wan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rhumb_core::{NodeId, Region};

pub use process::NodeProcess;
pub use wan::WanChoice;

use crate::client::directory::ReadyFile;
pub use crate::client::directory::{READY_FILE, ReadyEntry as ReadyNode};
use crate::http::probe;
use crate::supervisor::RESTORED;
use crate::telemetry::TelemetrySettings;

/// How long a node may take to become ready, RocksDB's recovery included.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long nodes may take to stop in order before they are killed.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// What a mesh on this machine consists of.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Regions and how many nodes each has.
    pub regions: Vec<(Region, usize)>,
    /// Where everything is kept.
    pub data: PathBuf,
    /// What lies between the regions.
    pub wan: WanChoice,
    /// Where the ready file is written, besides the data directory.
    pub ready_file: Option<PathBuf>,
    /// Whether a node that dies is started again.
    pub restart: bool,
    /// Where the nodes' traces go, and which.
    pub traces: TelemetrySettings,
    /// Settings of all nodes besides those of their files, as environment variables.
    pub settings: Vec<(String, String)>,
}

/// A running mesh.
pub struct DevMesh {
    options: DevOptions,
    nodes: BTreeMap<NodeId, Arc<NodeProcess>>,
    wan: Option<wan::Wan>,
    client: PathBuf,
    operator: PathBuf,
    /// Serialises writers of the ready file.
    ready: Arc<Mutex<()>>,
}

impl DevMesh {
    /// Founds the mesh where the data directory is new, and starts it; all nodes are ready when this
    /// returns.
    ///
    /// # Errors
    /// What could not be made or started; nothing is left running.
    pub async fn start(options: DevOptions, program: &Path) -> anyhow::Result<Self> {
        // Before anything is founded that could not be started.
        options.wan.has(&options.regions)?;
        std::fs::create_dir_all(&options.data)
            .with_context(|| format!("cannot make {}", options.data.display()))?;
        let data = options.data.canonicalize()?;
        let options = DevOptions { data, ..options };
        let mut founded = founding::found_or_open(&options)?;
        let wan = wan::Wan::start(&options.wan, &founded.plan).await?;
        founded.write_settings(wan.as_ref())?;
        let mut nodes = BTreeMap::new();
        for plan in &founded.plan {
            let (program, config) = (program.to_owned(), founded.config.clone());
            let node = NodeProcess::new(program, config, plan.clone(), options.settings.clone());
            nodes.insert(plan.id.clone(), Arc::new(node));
        }
        let mesh = Self {
            options,
            nodes,
            wan,
            client: founded.client,
            operator: founded.operator,
            ready: Arc::default(),
        };
        drop(founded.reserved);
        let started = mesh.start_all().await;
        if let Err(error) = started {
            mesh.stop().await;
            return Err(error);
        }
        Ok(mesh)
    }

    /// The nodes with their present processes.
    #[must_use]
    pub fn nodes(&self) -> Vec<ReadyNode> {
        self.nodes.values().map(|node| node.ready()).collect()
    }

    /// The folder with a client's certificate.
    #[must_use]
    pub fn client_identity(&self) -> &Path {
        &self.client
    }

    /// The folder with an operator's certificate.
    #[must_use]
    pub fn operator_identity(&self) -> &Path {
        &self.operator
    }

    /// The data directory of the mesh.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.options.data
    }

    /// Kills a node with SIGKILL. It stays down until it is started again.
    ///
    /// # Errors
    /// There is no such node.
    pub async fn kill(&self, node: &NodeId) -> anyhow::Result<()> {
        self.node(node)?.kill().await;
        Ok(())
    }

    /// Starts a killed node again; it is ready when this returns.
    ///
    /// # Errors
    /// It did not become ready in time.
    pub async fn start_again(&self, node: &NodeId) -> anyhow::Result<()> {
        let process = self.node(node)?;
        process.spawn()?;
        wait_ready(process).await?;
        self.write_ready()
    }

    /// Cuts a node off from the other regions, both ways. Its own region still reaches it.
    ///
    /// # Errors
    /// The mesh runs without a WAN, or there is no such node.
    pub fn cut_off(&self, node: &NodeId) -> anyhow::Result<()> {
        self.node(node)?;
        self.wan.as_ref().context("a mesh without a WAN cannot be cut")?.cut(node);
        Ok(())
    }

    /// Ends a cut.
    ///
    /// # Errors
    /// As [`DevMesh::cut_off`].
    pub fn heal(&self, node: &NodeId) -> anyhow::Result<()> {
        self.node(node)?;
        self.wan.as_ref().context("a mesh without a WAN cannot be cut")?.heal(node);
        Ok(())
    }

    /// Watches the nodes: one that dies by itself is started again with backoff. Runs until dropped.
    pub async fn watch(&self) {
        let each = self.nodes.values().map(|node| self.keep(node));
        futures::future::join_all(each).await;
    }

    /// Stops all nodes in order; those that do not stop in time are killed.
    pub async fn stop(&self) {
        let each = self.nodes.values().map(|node| node.stop(STOP_WITHIN));
        futures::future::join_all(each).await;
    }

    async fn start_all(&self) -> anyhow::Result<()> {
        for node in self.nodes.values() {
            node.spawn()?;
        }
        let each = self.nodes.values().map(|node| wait_ready(node));
        futures::future::try_join_all(each).await?;
        self.write_ready()
    }

    async fn keep(&self, node: &Arc<NodeProcess>) {
        let mut backoff = process::Backoff::default();
        // One receiver for all deaths: one that comes while the node starts again counts too.
        let mut deaths = node.deaths();
        if !node.is_running() {
            deaths.mark_changed();
        }
        while deaths.changed().await.is_ok() {
            if !self.options.restart {
                return;
            }
            let wait = backoff.after(node.lived(), node.own_pause());
            tracing::warn!(node = %node.id(), ?wait, log = %node.log().display(), "a node died and is started again");
            tokio::time::sleep(wait).await;
            let again = async {
                node.spawn()?;
                self.write_ready()?;
                wait_ready(node).await
            };
            if let Err(error) = again.await {
                tracing::error!(node = %node.id(), %error, "a node did not come back");
            }
        }
    }

    fn node(&self, id: &NodeId) -> anyhow::Result<&Arc<NodeProcess>> {
        let known = || self.nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.nodes.get(id).with_context(|| format!("there is no node {id}; there are: {}", known()))
    }

    fn write_ready(&self) -> anyhow::Result<()> {
        let _one_at_a_time = self.ready.lock();
        let text = serde_json::to_string_pretty(&ReadyFile { regions: self.nodes() })?;
        let mut files = vec![self.options.data.join(READY_FILE)];
        files.extend(self.options.ready_file.clone());
        for file in files {
            let new = file.with_extension("new");
            std::fs::write(&new, &text).with_context(|| format!("cannot write {}", new.display()))?;
            std::fs::rename(&new, &file)?;
        }
        Ok(())
    }
}

/// Waits until a node says that it is ready.
async fn wait_ready(node: &NodeProcess) -> anyhow::Result<()> {
    let asked = async {
        loop {
            anyhow::ensure!(
                node.is_running(),
                "node {} stopped while it started:\n{}",
                node.id(),
                node.last_words()
            );
            match probe::get(node.admin(), "/readyz", Duration::from_secs(1)).await {
                Ok((200, _)) => return Ok(()),
                // It runs and waits for an operator, who needs the mesh to be there.
                Ok((503, why)) if why.contains(RESTORED) => {
                    tracing::warn!(node = %node.id(), %why, "a node does not serve yet");
                    return Ok(());
                }
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let late = |_| {
        anyhow::anyhow!(
            "node {} was not ready within {READY_WITHIN:?}; see {}",
            node.id(),
            node.log().display()
        )
    };
    tokio::time::timeout(READY_WITHIN, asked).await.map_err(late)?
}
