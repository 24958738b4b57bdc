//! `rhumb region`: who is there, and under which epoch each node acts.
//!
//! * It decides: how the answer looks.
//! * It never does: judge. The node that holds the lease of the meta range does, by what all nodes tell it.

use std::fmt;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::failover::State;
use rhumb_actors::failover::messages::{ListRegions, NodeStands, RegionList};
use serde::Serialize;

use super::connect::Connect;
use super::output::{Done, Failure, Output};
use crate::client::kv::{ask, nearest_first};

/// How long the nodes have to answer: who asks how they stand may do so because nothing else is answered.
const WITHIN: Duration = Duration::from_millis(2_500);

/// Regions and how their nodes stand.
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// List the nodes of all regions: who is there, and who is fenced.
    Ls(Ls),
}

/// List the nodes of all regions: who is there, and who is fenced.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb region ls\n  rhumb region ls --check -o json\n\nThe node that holds the lease of the meta range answers, whichever node is asked. While nobody does, as a majority of its replicas is not reached, it is refused as `not_now` within 3 s. Ends with 0 also when a node is not there; with --check, with 5 then."
)]
pub struct Ls {
    /// End with code 5 unless every node is alive.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct Node {
    region: String,
    node: String,
    state: &'static str,
    epoch: u64,
    silent_to: Vec<String>,
    heard_by: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    /// The node that says so.
    by: String,
    nodes: Vec<Node>,
}

impl From<NodeStands> for Node {
    fn from(stands: NodeStands) -> Self {
        let names = |nodes: Vec<rhumb_core::NodeId>| nodes.iter().map(ToString::to_string).collect();
        Self {
            region: stands.node.region.to_string(),
            node: stands.node.to_string(),
            state: stands.state.name(),
            epoch: stands.epoch,
            silent_to: names(stands.silent_to),
            heard_by: names(stands.heard_by),
        }
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<24} {:<10} {:>6}  said by {}", "node", "state", "epoch", self.by)?;
        for Node { node, state, epoch, silent_to, .. } in &self.nodes {
            write!(f, "\n{node:<24} {state:<10} {epoch:>6}")?;
            if !silent_to.is_empty() {
                write!(f, "  silent to {}", silent_to.join(", "))?;
            }
        }
        Ok(())
    }
}

impl RegionCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Ls(ls) => ls.run(output).await,
        }
    }
}

impl Ls {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let asked = ask(&client, &nearest_first(&client, None), &ListRegions {}, WITHIN).await;
        client.close().await;
        let RegionList { by, mut nodes } = asked?;
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        let all = nodes.iter().all(|stands| stands.state == State::Alive);
        let listed = Listed { by: by.to_string(), nodes: nodes.into_iter().map(Node::from).collect() };
        output.answer(&listed, &listed);
        Ok(if self.check && !all { Done::False } else { Done::Well })
    }
}
