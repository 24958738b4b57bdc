//! How commands find the mesh: by `--endpoint`, or by the ready file of `rhumb dev`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::remote::Remote;
use rhumb_core::{Delivery, Fault, NodeId};

use tokio::time::Instant;

use super::output::Failure;
use super::traces;
use crate::client::directory::Directory;
use crate::client::{MeshClient, ask_until_known};

/// How long a command asks before it gives up.
const WITHIN: Duration = Duration::from_secs(15);

/// Where the mesh is, and who asks.
#[derive(Debug, Clone, Args)]
pub(super) struct Connect {
    /// A node's QUIC address. May be given more than once; without it the nodes are those of the
    /// ready file in the data directory.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    endpoint: Vec<String>,
    /// The data directory of `rhumb dev`: its ready file and certificates.
    #[arg(long, value_name = "DIR", env = "RHUMB_DATA", default_value = "./.rhumb/dev")]
    data: PathBuf,
    /// The folder with the certificate to use, instead of that in the data directory.
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
}

impl Connect {
    /// A client that may call.
    pub(super) async fn client(&self) -> Result<MeshClient, Failure> {
        self.with_identity("client").await
    }

    /// A client that may also administer.
    pub(super) async fn operator(&self) -> Result<MeshClient, Failure> {
        self.with_identity("operator").await
    }

    /// A client that may call, and does so many times.
    pub(super) async fn client_of_many(&self) -> Result<MeshClient, Failure> {
        Ok(traces::watched_each(self.dial("client").await?))
    }

    async fn with_identity(&self, role: &str) -> Result<MeshClient, Failure> {
        Ok(traces::watched(self.dial(role).await?))
    }

    async fn dial(&self, role: &str) -> Result<MeshClient, Failure> {
        let identity = self.identity.clone().unwrap_or_else(|| self.data.join(role));
        if self.endpoint.is_empty() {
            Ok(MeshClient::new(&identity, Directory::read(&self.data)?)?)
        } else {
            let client = MeshClient::connect(&identity, &self.endpoint).await?;
            // It goes on with the others; whoever reads its answer should know.
            client.directory().missed().iter().for_each(|missed| say(missed));
            Ok(client)
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line speaks")]
fn say(missed: &str) {
    eprintln!("{missed}; going on without it");
}

/// Which node was asked in the end, and what came of it.
pub(super) struct Asked<R> {
    pub(super) node: NodeId,
    pub(super) answer: Result<R, Fault>,
}

/// Asks the first of these nodes that a question can be sent to.
///
/// # Panics
/// When there is no node.
pub(super) async fn ask<M: Remote + Sync>(
    client: &MeshClient,
    nodes: &[NodeId],
    message: impl Fn(&NodeId) -> M,
) -> Asked<M::Reply> {
    let (last, first) = nodes.split_last().expect("there is a node to ask");
    for node in first {
        let answer = ask_until_known(client, node, &message(node), WITHIN).await;
        if !matches!(&answer, Err(fault) if fault.delivery() == Delivery::NotSent) {
            return Asked { node: node.clone(), answer };
        }
    }
    Asked { node: last.clone(), answer: ask_until_known(client, last, &message(last), WITHIN).await }
}

/// Asks as [`ask`] does, and again while the answer is that nothing was done for now and it may be tried again: after nodes
/// have started, or have been lost, nobody holds the lease of the meta range for some seconds. Only what may be asked twice.
pub(super) async fn ask_in_time<M, T>(client: &MeshClient, nodes: &[NodeId], message: &M) -> Asked<M::Reply>
where
    M: Remote<Reply = Result<T, KvRefusal>> + Clone + Sync,
{
    let until = Instant::now() + WITHIN;
    loop {
        let asked = ask(client, nodes, |_| message.clone()).await;
        let Ok(Err(KvRefusal::NotNow { retry_after, .. })) = &asked.answer else { return asked };
        if !M::IDEMPOTENT || Instant::now() + *retry_after >= until {
            return asked;
        }
        tokio::time::sleep(*retry_after).await;
    }
}

/// Every node, those of the first one's choice in front.
pub(super) fn nodes_from(directory: &Directory, first: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    let (mut nodes, others): (Vec<NodeId>, Vec<NodeId>) =
        directory.nodes().iter().map(|(node, _)| node.clone()).partition(first);
    nodes.extend(others);
    nodes
}
