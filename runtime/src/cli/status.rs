//! `rhumb status`: the mesh, as any of its nodes sees it.
//!
//! * It decides: whom to ask, and how the answer looks.
//! * It never does: fail because a node is down. What is known is shown; `--check` judges it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use rhumb_core::NodeId;

use super::args::duration;
use super::connect::{Connect, nodes_from};
use super::output::{Done, Failure, Output};
use crate::client::{Ask, MeshClient};
use crate::mesh::resilience::Mode;
use crate::mesh::status::{AskStatus, HostedType, Link, MeshStatus, NodeStatus, Silent};

/// What is left to the asked node for gathering, of the time that the command waits.
const WAY_BACK: Duration = Duration::from_secs(1);

/// Show the mesh as one of its nodes sees it: nodes, links, actors, disks, clocks, certificates.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb status\n  rhumb status --endpoint 127.0.0.1:7001 --identity mesh/clients/us-east-app --check\n\nEnds with 0 also when nodes are down; with --check, with 5 when a node is not ready, refuses strong paths for its clock, or does not answer."
)]
pub struct Status {
    /// Ask this node; otherwise the first that answers.
    #[arg(long, value_name = "REGION/NODE")]
    node: Option<NodeId>,
    /// End with code 5 unless every node answers, is ready and refuses no strong paths for its clock.
    #[arg(long)]
    check: bool,
    /// How long the asked node waits for each of the others.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    within: Duration,
    #[command(flatten)]
    connect: Connect,
}

impl Status {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.client().await?;
        if let Some(node) = self.node.as_ref().filter(|node| !client.directory().knows(node)) {
            return Err(Failure::Usage(format!("node {node} is not among those that this command knows")));
        }
        let nodes = match &self.node {
            Some(node) => vec![node.clone()],
            None => nodes_from(client.directory(), |node| node.region == *client.region()),
        };
        let asked = gathered(&client, nodes, self.within).await;
        client.close().await;
        let status = asked?;
        output.answer(&status, Told(&status));
        let stands = |node: &NodeStatus| node.ready && node.clock.frozen.is_none();
        let well = status.silent.is_empty() && status.nodes.iter().all(stands);
        Ok(if self.check && !well { Done::False } else { Done::Well })
    }
}

/// Asks one of these nodes after the other, until one answers.
pub(super) async fn gathered(
    client: &MeshClient,
    nodes: Vec<NodeId>,
    within: Duration,
) -> Result<MeshStatus, Failure> {
    let question = AskStatus { mesh: true, within_ms: within.as_millis() as u64 };
    let mut last = Failure::local("no node is known");
    for node in nodes {
        match client.ask(&node, &question, within + WAY_BACK).await {
            Ok(text) => return serde_json::from_str(&text).map_err(Failure::local),
            Err(fault) => last = fault.into(),
        }
    }
    Err(last)
}

/// The status for people.
struct Told<'a>(&'a MeshStatus);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(text(self.0).trim_end())
    }
}

fn text(status: &MeshStatus) -> String {
    let mut text = String::new();
    let ready = status.nodes.iter().filter(|node| node.ready).count();
    let all = status.nodes.len() + status.silent.len();
    let cluster = status.nodes.first().map_or("", |node| node.cluster.as_str());
    let version = match status.nodes.iter().map(|node| node.cluster_version).max() {
        None | Some(0) => String::new(),
        Some(version) => format!(", cluster version {version}"),
    };
    writeln!(text, "mesh {cluster}, as {} sees it: {ready} of {all} nodes ready{version}\n", status.asked)
        .ok();
    let mut nodes = Table::new(&[
        "node",
        "ready",
        "up",
        "build",
        "durable",
        "sync p99",
        "store",
        "offset",
        "certificate",
        "policy",
        "settings",
    ]);
    status.nodes.iter().for_each(|node| nodes.row(node_row(node)));
    status.silent.iter().for_each(|silent| nodes.row(silent_row(silent)));
    nodes.write(&mut text);
    for (name, why) in reasons(status) {
        writeln!(text, "\n{name}: {why}").ok();
    }
    let mut links = Table::new(&["link", "state", "rtt", "lost", "for"]);
    for node in &status.nodes {
        node.links.iter().for_each(|link| links.row(link_row(&node.node, link)));
    }
    text.push('\n');
    links.write(&mut text);
    let head =
        ["node", "actors", "live", "waiting", "fullest", "room", "oldest", "made", "panics", "gave up"];
    let mut actors = Table::new(&head);
    for (node, of) in status.nodes.iter().flat_map(|node| node.actors.types.iter().map(move |of| (node, of)))
    {
        actors.row(actors_row(&node.node, of));
    }
    if !actors.rows.is_empty() {
        text.push('\n');
        actors.write(&mut text);
    }
    text
}

fn reasons(status: &MeshStatus) -> impl Iterator<Item = (&str, String)> {
    let unready = status.nodes.iter().filter_map(|node| Some((node.node.as_str(), node.reason.clone()?)));
    let less = status.nodes.iter().filter_map(|node| Some((node.node.as_str(), does_less(node)?)));
    let frozen = status.nodes.iter().filter_map(|node| Some((node.node.as_str(), refuses(node)?)));
    let behind = status.nodes.iter().filter_map(|node| Some((node.node.as_str(), is_behind(node)?)));
    let newest = status.nodes.iter().map(|node| node.knows_version).max().unwrap_or_default();
    let older = move |node: &NodeStatus| {
        (node.knows_version < newest).then(|| {
            format!("its build knows no cluster version above {}, another one's {newest}", node.knows_version)
        })
    };
    let older = status.nodes.iter().filter_map(move |node| Some((node.node.as_str(), older(node)?)));
    let damaged =
        status.nodes.iter().flat_map(|node| node.damaged.iter().map(|one| (node.node.as_str(), one.clone())));
    unready
        .chain(frozen)
        .chain(behind)
        .chain(damaged)
        .chain(less)
        .chain(older)
        .chain(status.silent.iter().map(|silent| (silent.node.as_str(), silent.why.clone())))
}

/// That a node refuses strong paths for its clock, and why.
fn refuses(node: &NodeStatus) -> Option<String> {
    Some(format!("strong paths are refused: {}", node.clock.frozen.as_ref()?.message))
}

/// That replicas on a node are too far behind, and of which keyspaces.
fn is_behind(node: &NodeStatus) -> Option<String> {
    let each: Vec<String> =
        node.behind_ms.iter().map(|(name, ms)| format!("{name} by {}", lasting(*ms))).collect();
    (!each.is_empty()).then(|| format!("replicas are too far behind: {}", each.join(", ")))
}

/// That a node does less than all, and why.
fn does_less(node: &NodeStatus) -> Option<String> {
    let why = node.mode_for.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    (!node.mode.is_empty() && node.mode != Mode::Target.name()).then(|| format!("mode {}{why}", node.mode))
}

fn node_row(node: &NodeStatus) -> Vec<String> {
    let offset = match (node.offset_ms, node.offset_error_ms) {
        (Some(offset), Some(error)) => format!("{offset:+} ms ± {error}"),
        _ => "-".to_owned(),
    };
    vec![
        node.node.clone(),
        if node.ready { "yes" } else { "NO" }.to_owned(),
        lasting(node.uptime_ms),
        node.build.clone(),
        node.durable_commit.to_string(),
        format!("{:.1} ms", node.store.sync_p99_us as f64 / 1e3),
        node.store.pressure.clone(),
        offset,
        format!("{} d left", node.certificate.expires_s / (24 * 3_600)),
        node.policy_version.map_or_else(|| "none".to_owned(), |version| version.to_string()),
        node.settings_digest.clone(),
    ]
}

fn silent_row(silent: &Silent) -> Vec<String> {
    let since = silent.for_ms.map_or_else(|| "no answer".to_owned(), |ms| format!("gone {}", lasting(ms)));
    vec![silent.node.clone(), "NO".to_owned(), since]
}

fn actors_row(node: &str, of: &HostedType) -> Vec<String> {
    let mut row = vec![node.to_owned(), of.kind.clone()];
    row.extend([of.live, of.waiting as u64, of.fullest as u64, of.capacity as u64].map(|n| n.to_string()));
    row.push(of.oldest_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")));
    row.extend([of.activations, of.panics, of.gave_up].map(|n| n.to_string()));
    row
}

fn link_row(from: &str, link: &Link) -> Vec<String> {
    vec![
        format!("{from} → {}", link.node),
        link.state.clone(),
        link.rtt_ms.map_or_else(|| "-".to_owned(), |rtt| format!("{rtt:.1} ms")),
        link.lost_packets.to_string(),
        lasting(link.since_ms),
    ]
}

/// A time span in its two largest units.
fn lasting(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0..60 => format!("{s}s"),
        60..3_600 => format!("{}m {}s", s / 60, s % 60),
        3_600..86_400 => format!("{}h {}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// Columns as wide as what stands in them. A row may end early.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn write(&self, text: &mut String) {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let cell = |line: &Vec<String>, at: usize| line.get(at).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> =
            (0..self.head.len()).map(|at| lines().map(|line| cell(line, at)).max().unwrap_or(0)).collect();
        for line in lines() {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::mesh::status::{Actors, CertificateStatus, StoreStatus};

    #[test]
    fn a_mesh_is_shown_with_what_is_known_of_it() {
        let link = |node: &str, state: &str, rtt_ms| Link {
            node: node.into(),
            up: state == "connected",
            state: state.into(),
            rtt_ms,
            lost_packets: 3,
            since_ms: 61_000,
            ..Link::default()
        };
        let escrow = HostedType {
            kind: "EscrowRegion".into(),
            live: 1,
            activations: 1,
            waiting: 12,
            fullest: 12,
            capacity: 8_192,
            oldest_ms: Some(40),
            ..HostedType::default()
        };
        let us = NodeStatus {
            node: "us-east/n1".into(),
            cluster: "0a".into(),
            ready: true,
            uptime_ms: 3_661_000,
            build: "0.1.0".into(),
            durable_commit: 17,
            policy_version: Some(2),
            behind_ms: [("profiles".to_owned(), 14_000)].into(),
            settings_digest: "00ff".into(),
            links: vec![link("eu/n1", "connected", Some(91.26)), link("ap/n1", "down", None)],
            store: StoreStatus { sync_p99_us: 2_047, pressure: "green".into(), ..StoreStatus::default() },
            certificate: CertificateStatus { expires_s: 89 * 86_400 + 5, ..CertificateStatus::default() },
            actors: Actors { types: vec![escrow], ..Actors::default() },
            ..NodeStatus::default()
        };
        let eu = NodeStatus {
            node: "eu/n1".into(),
            offset_ms: Some(-3),
            offset_error_ms: Some(46),
            reason: Some("stopping".into()),
            ..NodeStatus::default()
        };
        let silent = Silent { node: "ap/n1".into(), why: "unreachable".into(), for_ms: Some(12_000) };
        let status = MeshStatus { asked: us.node.clone(), nodes: vec![us, eu], silent: vec![silent] };
        expect![[r#"
            mesh 0a, as us-east/n1 sees it: 1 of 3 nodes ready

            node        ready  up        build  durable  sync p99  store  offset      certificate  policy  settings
            us-east/n1  yes    1h 1m     0.1.0  17       2.0 ms    green  -           89 d left    2       00ff
            eu/n1       NO     0s               0        0.0 ms           -3 ms ± 46  0 d left     none
            ap/n1       NO     gone 12s

            eu/n1: stopping

            us-east/n1: replicas are too far behind: profiles by 14s

            ap/n1: unreachable

            link                state      rtt      lost  for
            us-east/n1 → eu/n1  connected  91.3 ms  3     1m 1s
            us-east/n1 → ap/n1  down       -        3     1m 1s

            node        actors        live  waiting  fullest  room  oldest  made  panics  gave up
            us-east/n1  EscrowRegion  1     12       12       8192  40 ms   1     0       0
        "#]]
        .assert_eq(&text(&status));
    }
}
