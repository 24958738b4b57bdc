//! `rhumb mesh version` and `rhumb mesh finalize`: the cluster version, and the end of an upgrade.
//!
//! * It decides: how the answer looks.
//! * It never does: judge. The node that holds the lease of the meta range asks all others, and raises the version.

use std::fmt;

use clap::Args;
use rhumb_actors::version::messages::{Finalize, NodeKnows, ShowVersion, VersionView};
use serde::Serialize;

use super::args::number;
use super::connect::{Connect, ask};
use super::output::{Done, Failure, Output};
use crate::client::kv::nearest_first;

/// Show the cluster version: where the mesh is, what each node's build knows, and what holds the next one back.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb mesh version\n\nThe node that holds the lease of the meta range asks all others and answers, whichever node is asked. With --check, ends with 5 while a node holds back a version that another one knows, or that is allowed."
)]
pub struct Version {
    /// End with code 5 while a node holds the next version back.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    connect: Connect,
}

/// End an upgrade: raise the cluster version to what all nodes know. There is no way back to the old build from then on.
#[derive(Debug, Args)]
#[command(
    name = "finalize",
    after_help = "Example:\n  rhumb mesh finalize\n\nUntil then each node can be stopped and started with the old build again. Refused, and nothing changed, while a node does not answer or its build does not know the version: the refusal names them. Ends with 5 where it is allowed and not raised yet: it goes on by itself, and `rhumb mesh version` says what holds it back."
)]
pub struct FinalizeUpgrade {
    /// Up to this cluster version; otherwise the newest that any node knows.
    #[arg(long, value_name = "VERSION", value_parser = number::<u32>(1..=u32::MAX))]
    to: Option<u32>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct Node {
    node: String,
    /// None where it did not answer.
    oldest: Option<u32>,
    newest: Option<u32>,
    /// Builds on its disk have to know this version.
    promised: Option<u32>,
    /// Why it holds the next version back.
    holds_back: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    /// The node that says so.
    by: String,
    active: u32,
    /// Up to here it may be raised.
    allowed: u32,
    nodes: Vec<Node>,
}

impl From<NodeKnows> for Node {
    fn from(NodeKnows { node, said, holds_back }: NodeKnows) -> Self {
        Self {
            node: node.to_string(),
            oldest: said.as_ref().map(|said| said.oldest),
            newest: said.as_ref().map(|said| said.newest),
            promised: said.as_ref().map(|said| said.promised),
            holds_back,
        }
    }
}

impl From<VersionView> for Shown {
    fn from(VersionView { by, active, allowed, nodes }: VersionView) -> Self {
        Self { by: by.to_string(), active, allowed, nodes: nodes.into_iter().map(Node::from).collect() }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster version {}", self.active)?;
        if self.allowed > self.active {
            write!(f, ", allowed to rise to {}", self.allowed)?;
        }
        write!(f, ", said by {}\n{:<24} {:<8} {:>8}", self.by, "node", "knows", "promised")?;
        for Node { node, oldest, newest, promised, holds_back } in &self.nodes {
            let knows = oldest.zip(*newest).map_or_else(
                || "-".to_owned(),
                |(oldest, newest)| {
                    if oldest == newest { oldest.to_string() } else { format!("{oldest}-{newest}") }
                },
            );
            let promised = promised.map_or_else(|| "-".to_owned(), |promised| promised.to_string());
            write!(f, "\n{node:<24} {knows:<8} {promised:>8}")?;
            if let Some(why) = holds_back {
                write!(f, "  holds back: {why}")?;
            }
        }
        let newest = self.nodes.iter().filter_map(|node| node.newest).max().unwrap_or(self.active);
        if newest > self.allowed && self.nodes.iter().all(|node| node.holds_back.is_none()) {
            write!(f, "\nall nodes know version {newest}: `rhumb mesh finalize` raises the mesh to it")?;
        }
        Ok(())
    }
}

impl Version {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let asked = ask(&client, &nearest_first(&client, None), |_| ShowVersion {}).await;
        client.close().await;
        let shown = Shown::from(asked.answer??);
        output.answer(&shown, &shown);
        let held = shown.nodes.iter().any(|node| node.holds_back.is_some());
        Ok(if self.check && held { Done::False } else { Done::Well })
    }
}

impl FinalizeUpgrade {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let asked = ask(&client, &nearest_first(&client, None), |_| Finalize { to: self.to }).await;
        client.close().await;
        let shown = Shown::from(asked.answer??);
        output.answer(&shown, &shown);
        Ok(if shown.active < shown.allowed { Done::False } else { Done::Well })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn a_mixed_mesh_is_shown_with_who_holds_it_back() {
        let node = |name: &str, knows: Option<(u32, u32)>, holds_back: Option<&str>| Node {
            node: name.to_owned(),
            oldest: knows.map(|knows| knows.0),
            newest: knows.map(|knows| knows.1),
            promised: knows.map(|_| 1),
            holds_back: holds_back.map(str::to_owned),
        };
        let mut shown = Shown {
            by: "us-east/n1".to_owned(),
            active: 1,
            allowed: 1,
            nodes: vec![
                node("us-east/n1", Some((1, 2)), None),
                node("eu/n1", Some((1, 1)), Some("its build knows cluster version 1")),
                node("ap/n1", None, Some("it does not say what it knows: unreachable")),
            ],
        };
        expect![[r"
            cluster version 1, said by us-east/n1
            node                     knows    promised
            us-east/n1               1-2             1
            eu/n1                    1               1  holds back: its build knows cluster version 1
            ap/n1                    -               -  holds back: it does not say what it knows: unreachable"]]
        .assert_eq(&shown.to_string());
        shown.nodes.truncate(1);
        expect![[r"
            cluster version 1, said by us-east/n1
            node                     knows    promised
            us-east/n1               1-2             1
            all nodes know version 2: `rhumb mesh finalize` raises the mesh to it"]]
        .assert_eq(&shown.to_string());
        shown.allowed = 2;
        expect![[r"
            cluster version 1, allowed to rise to 2, said by us-east/n1
            node                     knows    promised
            us-east/n1               1-2             1"]]
        .assert_eq(&shown.to_string());
    }
}
