//! What commands share that look after the certificates of a whole mesh: where it is kept, and how its nodes
//! are asked how they stand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::output::Failure;
use crate::client::{Ask, MeshClient};
use crate::fleet::{Delivery, Fleet};
use crate::mesh::status::{AskStatus, MeshStatus};

/// How long the asked node waits for each of the others.
const WITHIN: Duration = Duration::from_secs(2);
/// What is left to it for gathering.
const WAY_BACK: Duration = Duration::from_secs(1);
/// How long a node may take to answer a dial, before the next is dialled.
const DIAL_WITHIN: Duration = Duration::from_secs(6);

/// A mesh, as its operator keeps it.
#[derive(Debug, Clone, Args)]
pub(super) struct MeshDir {
    /// The mesh's folder: that of `rhumb mesh init`, or the data directory of `rhumb dev`.
    #[arg(long, value_name = "DIR")]
    pub(super) mesh: PathBuf,
    /// A program that takes a changed identity folder to its machine: called with the holder (`node
    /// eu-central/n1`) and the folder. Without it the folders must be those that the nodes read.
    #[arg(long, value_name = "PROGRAM")]
    pub(super) deliver: Option<PathBuf>,
}

impl MeshDir {
    pub(super) fn open(&self) -> Result<Fleet, Failure> {
        let fleet = Fleet::open(&self.mesh, Delivery(self.deliver.clone()));
        fleet.map_err(|error| Failure::Usage(format!("{error:#}")))
    }
}

/// Where the nodes of a mesh answer, and who asks.
#[derive(Debug, Clone, Args)]
pub(super) struct Asking {
    /// A node's QUIC address. May be given more than once; otherwise those in the mesh's settings.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// The folder with an operator's certificate; otherwise the first in the mesh's folder.
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
}

impl Asking {
    /// Who looks at this mesh.
    pub(super) fn about(&self, fleet: &Fleet) -> Result<Watcher, Failure> {
        let addresses = match self.endpoint.as_slice() {
            [] => fleet.addresses().map_err(|error| Failure::Usage(format!("{error:#}; say --endpoint")))?,
            given => given.to_vec(),
        };
        let identity = self.identity.as_deref().or_else(|| fleet.operator()).map(Path::to_owned);
        let identity =
            identity.ok_or_else(|| Failure::Usage("the mesh has no operator: say --identity".to_owned()))?;
        Ok(Watcher { addresses, identity })
    }
}

/// Asks a mesh again and again how it stands.
#[derive(Debug)]
pub(super) struct Watcher {
    addresses: Vec<String>,
    identity: PathBuf,
}

impl Watcher {
    /// How the mesh stands, as the first node tells it that answers. Each time over a connection of its own,
    /// with the certificate that is in the folder then.
    pub(super) async fn look(&self) -> Result<MeshStatus, Failure> {
        let mut last = Failure::local("there is no node to ask");
        for address in &self.addresses {
            let dialled = MeshClient::connect(&self.identity, std::slice::from_ref(address));
            let client = match tokio::time::timeout(DIAL_WITHIN, dialled).await {
                Ok(Ok(client)) => client,
                Ok(Err(error)) => {
                    last = error.into();
                    continue;
                }
                Err(_) => {
                    last = Failure::local(format!("{address} does not answer"));
                    continue;
                }
            };
            let question = AskStatus { mesh: true, within_ms: WITHIN.as_millis() as u64 };
            let node = client.nodes().into_iter().next();
            let Some(node) = node else { continue };
            let answer = client.ask(&node, &question, WITHIN + WAY_BACK).await;
            client.close().await;
            match answer {
                Ok(text) => return serde_json::from_str(&text).map_err(Failure::local),
                Err(fault) => last = fault.into(),
            }
        }
        Err(last)
    }
}
