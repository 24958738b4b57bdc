//! `rhumb clock reset`: nodes forget what they know of their clocks, under a new epoch.
//!
//! * It decides: to which epoch, and in which order: one node after the other.
//! * It never does: judge whether a node may. Each does that itself, by what its sources of time agree on.

use std::fmt;
use std::time::Duration;

use clap::Args;
use rhumb_core::{FaultKind, NodeId};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{OTHERS_WITHIN, known};
use crate::cli::connect::{Connect, nodes_from};
use crate::cli::output::{Done, Failure, Output};
use crate::cli::status::{Table, gathered};
use crate::client::{Ask, MeshClient};
use crate::mesh::clock::{ClockReset, ResetClock};
use crate::mesh::status::{NodeStatus, Silent};

/// How long a node's sources have to agree anew before the next node is reset, and how often it is looked.
const STANDS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a node has to be reset: twice the offset that clocks may have, and some seconds.
const RESET_WITHIN: Duration = Duration::from_secs(14);

/// Have nodes forget what they know of their clocks, under a new epoch that clients learn from their tokens.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb clock reset\n  rhumb clock reset --node us-east/n1\n\nFor after a time service was replaced, or a virtual machine moved: what was learned of the old clock counts no more. Each node refuses strong paths until all times that it has handed out have passed, by what its sources of time agree on, and then until they agree anew; without sources (clock.sources) it refuses. Nodes are reset one after the other, each when strong paths of the one before stand again; at one that does not within 30 s it ends. All are to have one epoch: a node of an earlier one refuses tokens of a later one until it is reset too, as one on a new disk (--node). A node that does not answer may have a later epoch than the one that --node comes to: say it again then. Ends with 5 unless every node that was to be reset was, and every other one has said its epoch."
)]
pub struct Reset {
    /// Only this node; all nodes unless given.
    #[arg(long, value_name = "REGION/NODE")]
    node: Option<NodeId>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct ResetAnswer {
    epoch: u64,
    nodes: Vec<NodeReset>,
    silent: Vec<Silent>,
    /// Why that may not be the epoch of all.
    unsure: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct NodeReset {
    node: String,
    /// The epoch before, and now.
    before: Option<u64>,
    epoch: Option<u64>,
    /// For how long strong paths were refused until the new epoch stood.
    waited_ms: Option<u64>,
    /// Why it was not reset.
    why: Option<String>,
}

impl fmt::Display for ResetAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nodes = Table::new(&["node", "epoch", "was", "waited", ""]);
        for node in &self.nodes {
            let waited = node.waited_ms.map(|waited| format!("{waited} ms"));
            let epochs = [node.epoch, node.before].map(|epoch| known(epoch.map(|epoch| epoch.to_string())));
            let [now, before] = epochs;
            nodes.row(vec![
                node.node.clone(),
                now,
                before,
                known(waited),
                node.why.clone().unwrap_or_default(),
            ]);
        }
        for silent in &self.silent {
            let none = || "-".to_owned();
            nodes.row(vec![silent.node.clone(), none(), none(), none(), silent.why.clone()]);
        }
        let mut text = String::new();
        nodes.write(&mut text);
        f.write_str(text.trim_end())?;
        self.unsure.iter().try_for_each(|why| write!(f, "\n{why}"))
    }
}

impl Reset {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let answer = self.reset(&client).await;
        client.close().await;
        let answer = answer?;
        output.answer(&answer, &answer);
        let named = |silent: &Silent| self.named(&silent.node);
        let reset = answer.nodes.iter().all(|node| node.why.is_none());
        let well = reset && !answer.silent.iter().any(named) && answer.unsure.is_none();
        Ok(if well { Done::Well } else { Done::False })
    }

    async fn reset(&self, client: &MeshClient) -> Result<ResetAnswer, Failure> {
        let home = nodes_from(client.directory(), |node| node.region == *client.region());
        let status = gathered(client, home, OTHERS_WITHIN).await?;
        let all = status.nodes.iter().map(|node| &node.node).chain(status.silent.iter().map(|of| &of.node));
        if let Some(only) = &self.node
            && !all.clone().any(|node| self.named(node))
        {
            let all: Vec<_> = all.cloned().collect();
            return Err(Failure::Usage(format!(
                "there is no node {only} here; there are {}",
                all.join(", ")
            )));
        }
        let named = |node: &str| self.named(node);
        let highest = status.nodes.iter().map(|node| node.clock.epoch).max().unwrap_or_default();
        // One node alone comes to the epoch of the others, if it is behind them.
        let behind = |node: &NodeStatus| named(&node.node) && node.clock.epoch < highest;
        let epoch = highest + u64::from(self.node.is_none() || !status.nodes.iter().any(behind));
        let mut nodes: Vec<NodeReset> = Vec::new();
        for node in status.nodes.iter().filter(|node| named(&node.node)) {
            let id: NodeId = node.node.parse().map_err(Failure::local)?;
            if let Some(before) = nodes.last().filter(|before| before.why.is_some()) {
                // One that refuses strong paths is enough.
                let why = Some(format!("not reset: {} came first", before.node));
                nodes.push(NodeReset { node: node.node.clone(), why, ..NodeReset::default() });
                continue;
            }
            let asked = ResetClock { epoch };
            let done = client.ask(&id, &asked, RESET_WITHIN).await;
            let of = |done: Option<ClockReset>, why| NodeReset {
                node: node.node.clone(),
                before: done.as_ref().map(|done| done.before),
                epoch: done.as_ref().map(|done| done.epoch),
                waited_ms: done.as_ref().map(|done| done.waited_ms),
                why,
            };
            nodes.push(match done {
                Ok(Ok(done)) => {
                    let why = stands(client, &id).await;
                    of(Some(done), why)
                }
                Ok(Err(why)) => of(None, Some(why)),
                // Who may not reset one may reset none.
                Err(fault) if matches!(fault.kind, FaultKind::Unauthorized(_)) => return Err(fault.into()),
                Err(fault) => of(None, Some(fault.to_string())),
            });
        }
        let others = status.silent.iter().filter(|silent| !self.named(&silent.node));
        let unsure = unsure(epoch, &others.map(|silent| silent.node.as_str()).collect::<Vec<_>>());
        Ok(ResetAnswer { epoch, nodes, silent: status.silent, unsure })
    }

    fn named(&self, node: &str) -> bool {
        self.node.as_ref().is_none_or(|only| only.to_string() == node)
    }
}

/// What is said where one node alone was reset and these others did not say which epoch they have.
fn unsure(epoch: u64, silent: &[&str]) -> Option<String> {
    if silent.is_empty() {
        return None;
    }
    Some(format!(
        "{} did not answer and may have a later epoch than {epoch}: say this again when all nodes answer",
        silent.join(", ")
    ))
}

/// Waits until strong paths of a node stand again. Gives why they do not.
async fn stands(client: &MeshClient, node: &NodeId) -> Option<String> {
    let until = Instant::now() + STANDS_WITHIN;
    loop {
        let status = gathered(client, vec![node.clone()], OTHERS_WITHIN).await.ok();
        let own = status.iter().flat_map(|status| &status.nodes).find(|of| of.node == node.to_string());
        let frozen = match own {
            Some(of) => of.clock.frozen.as_ref().map(|frozen| frozen.message.clone()),
            None => Some("it does not answer".to_owned()),
        };
        let why = frozen?;
        if Instant::now() > until {
            return Some(format!("it has the new epoch, and strong paths are refused: {why}"));
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_answer_may_have_a_later_epoch() {
        assert_eq!(unsure(3, &[]), None);
        let silent = vec![Silent { node: "us/n1".to_owned(), why: "cut off".to_owned(), for_ms: None }];
        let unsure = unsure(3, &["us/n1"]);
        let answer = ResetAnswer { epoch: 3, nodes: Vec::new(), silent, unsure };
        let text = answer.to_string();
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("us/n1 did not answer and may have a later epoch than 3"), "{text}");
    }
}
