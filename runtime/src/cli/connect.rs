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
use crate::client::{Ask, MeshClient, ask_until_known};

/// How long a command asks before it gives up.
const WITHIN: Duration = Duration::from_secs(15);
/// How long it waits before it asks again what may have been done.
const BETWEEN: Duration = Duration::from_millis(200);

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

/// Asks the first of these nodes that a question can be sent to, and again while the answer is that nothing was done for now and it may be
/// tried again: after nodes have started, or have been lost, nobody holds the lease of the meta range for some seconds. Only what may be
/// asked twice; and where it may have been done once, a later *not now* or fault does not say that it was not.
///
/// # Panics
/// When there is no node.
pub(super) async fn ask_in_time<M, T>(client: &impl Ask, nodes: &[NodeId], message: &M) -> Asked<M::Reply>
where
    M: Remote<Reply = Result<T, KvRefusal>> + Sync,
{
    let (until, mut unknown, mut nodes) = (Instant::now() + WITHIN, None, nodes.to_vec());
    loop {
        let begun = Instant::now();
        let asked = ask_each(client, &nodes, message, until).await;
        let after = match &asked.answer {
            Ok(Err(KvRefusal::NotNow { retry_after, .. })) => *retry_after,
            Err(fault) if fault.delivery() == Delivery::Unknown => {
                unknown = Some(fault.clone());
                // It may be the one that stands still: the others first.
                nodes.sort_by_key(|node| *node == asked.node);
                BETWEEN
            }
            Err(_) if unknown.is_some() => BETWEEN,
            _ => return asked,
        };
        // A round that would not come to its end is not begun.
        if !M::IDEMPOTENT || Instant::now() + after + begun.elapsed() >= until {
            return match unknown {
                Some(fault) => Asked { answer: Err(fault), ..asked },
                None => asked,
            };
        }
        tokio::time::sleep(after).await;
    }
}

/// Asks the first of these nodes that a question can be sent to, once.
async fn ask_each<M: Remote + Sync>(
    client: &impl Ask,
    nodes: &[NodeId],
    message: &M,
    until: Instant,
) -> Asked<M::Reply> {
    let (last, first) = nodes.split_last().expect("there is a node to ask");
    let left = || until.saturating_duration_since(Instant::now()).min(M::DEADLINE);
    for node in first {
        let answer = client.ask(node, message, left()).await;
        if !matches!(&answer, Err(fault) if fault.delivery() == Delivery::NotSent) {
            return Asked { node: node.clone(), answer };
        }
    }
    Asked { node: last.clone(), answer: client.ask(last, message, left()).await }
}

/// Refuses a node that the client does not know.
pub(super) fn knows(client: &MeshClient, node: &NodeId) -> Result<(), Failure> {
    if client.directory().knows(node) {
        return Ok(());
    }
    let known: Vec<String> = client.directory().nodes().iter().map(|(node, _)| node.to_string()).collect();
    Err(Failure::Usage(format!("there is no node {node} here; there are {}", known.join(", "))))
}

/// Every node, those of the first one's choice in front.
pub(super) fn nodes_from(directory: &Directory, first: impl Fn(&NodeId) -> bool) -> Vec<NodeId> {
    let (mut nodes, others): (Vec<NodeId>, Vec<NodeId>) =
        directory.nodes().iter().map(|(node, _)| node.clone()).partition(first);
    nodes.extend(others);
    nodes
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Mutex;

    use rhumb_actors::ranges::snapshots::RemoveSnapshot;
    use rhumb_core::FaultKind;

    use super::*;

    type Reply = Result<Result<(), KvRefusal>, Fault>;

    /// Answers so, one after the other, and as the last one from then on: each after a second.
    struct Scripted(Mutex<Vec<Reply>>);

    impl Ask for Scripted {
        async fn ask<M: Remote + Sync>(&self, _: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut replies = self.0.lock().expect("no panic");
            let reply = if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() };
            let reply: Box<dyn Any> = Box::new(reply?);
            Ok(*reply.downcast().expect("only one question is asked"))
        }
    }

    async fn ended(replies: &[Reply]) -> (&'static str, Duration) {
        let client = Scripted(Mutex::new(replies.to_vec()));
        let nodes = ["eu/n1".parse().expect("a node")];
        let message = RemoveSnapshot { keyspace: "profiles".to_owned(), name: "monday".to_owned() };
        let begun = Instant::now();
        let ended = match ask_in_time(&client, &nodes, &message).await.answer {
            Ok(Ok(())) => "done",
            Ok(Err(refusal)) => refusal.code(),
            Err(fault) if fault.delivery() == Delivery::Unknown => "unknown",
            Err(_) => "fault",
        };
        (ended, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_done_is_not_called_refused_because_it_is_not_done_later() {
        let kind = || FaultKind::Deadline("waiting for the answer".to_owned());
        let (lost, unsent) = (Err(Fault::unknown(kind())), Err(Fault::not_sent(kind())));
        let retry_after = Duration::from_millis(200);
        let not_now = Ok(Err(KvRefusal::NotNow { why: "nobody holds the lease".to_owned(), retry_after }));
        let none = Ok(Err(KvRefusal::NoSuchKeyspace("profiles".to_owned())));
        for (replies, wanted) in [
            (vec![not_now.clone()], "not_now"),
            (vec![not_now.clone(), Ok(Ok(()))], "done"),
            (vec![lost.clone(), Ok(Ok(()))], "done"),
            (vec![lost.clone(), not_now], "unknown"),
            (vec![lost.clone(), unsent.clone()], "unknown"),
            (vec![lost, none], "no_such_keyspace"),
            (vec![unsent], "fault"),
        ] {
            let (ended, after) = ended(&replies).await;
            assert_eq!(ended, wanted, "{replies:?}");
            assert!(after <= WITHIN, "{after:?}: {replies:?}");
        }
    }

    /// One node stands still, the others answer.
    struct StandsStill(NodeId);

    impl Ask for StandsStill {
        async fn ask<M: Remote + Sync>(&self, to: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
            if *to == self.0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(Fault::unknown(FaultKind::Deadline("waiting for the answer".to_owned())));
            }
            let reply: Box<dyn Any> = Box::new(Ok::<(), KvRefusal>(()));
            Ok(*reply.downcast().expect("only one question is asked"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stands_still_is_not_asked_first_again() {
        let nodes = ["eu/n1", "us/n1"].map(|node| node.parse::<NodeId>().expect("a node"));
        let message = RemoveSnapshot { keyspace: "profiles".to_owned(), name: "monday".to_owned() };
        let asked = ask_in_time(&StandsStill(nodes[0].clone()), &nodes, &message).await;
        assert_eq!((asked.node, asked.answer), (nodes[1].clone(), Ok(Ok(()))));
    }
}
