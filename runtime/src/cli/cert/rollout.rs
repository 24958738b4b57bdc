//! `rhumb cert rollout`: one node first.

use std::time::Duration;

use clap::Args;
use rhumb_core::{Mono, NodeId};
use serde::Serialize;
use tokio::time::Instant;

use super::validity;
use crate::cli::args::duration;
use crate::cli::fleet::{Asking, MeshDir, Watcher};
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::{Bake, Event, Fleet, Limits, Member, Verdict, note, roll_back};

/// Between two questions to the mesh.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Renew one node's certificate and watch it: whether its peers take it, its connections stay, and its calls go
/// well. Then renew the other nodes, one after the other. A node that does badly goes back to its old certificate,
/// and nothing more is renewed.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb cert rollout --mesh mesh --canary eu-central/n1 --bake 10m\n\nEnds with 5 when a node did badly and was rolled back; the answer and the log say why."
)]
pub struct Rollout {
    #[command(flatten)]
    mesh: MeshDir,
    /// The node that is first.
    #[arg(long, value_name = "REGION/NODE")]
    canary: NodeId,
    /// How long it is watched once all peers have seen its new certificate.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    bake: Duration,
    /// How long it may take until then, and how long a connection may be gone.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    grace: Duration,
    /// Connections that may be turned away over certificates, anywhere.
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_refused: u64,
    /// Calls of the node in a hundred that may end in a fault.
    #[arg(long, value_name = "N", default_value_t = 5)]
    max_faults: u64,
    /// How long the new certificates are valid, 24h to 825d; otherwise as long as the present ones are.
    #[arg(long, value_name = "TIME", value_parser = validity)]
    valid: Option<Duration>,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Serialize)]
struct RolloutAnswer {
    canary: String,
    well: bool,
    renewed: Vec<String>,
    /// The node that did badly and is back at its old certificate.
    rolled_back: Option<String>,
    why: Option<String>,
    /// Nodes that keep their old certificates.
    left: Vec<String>,
}

impl Rollout {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let fleet = self.mesh.open()?;
        let unknown = || Failure::Usage(format!("{} is no node of this mesh", self.canary));
        fleet.node(&self.canary).ok_or_else(unknown)?;
        let watcher = self.asking.about(&fleet)?;
        let others = fleet.nodes().filter(|node| **node != self.canary);
        let mut left: Vec<NodeId> = [&self.canary].into_iter().chain(others).cloned().collect();
        let mut answer = RolloutAnswer {
            canary: self.canary.to_string(),
            well: true,
            renewed: Vec::new(),
            rolled_back: None,
            why: None,
            left: Vec::new(),
        };
        while answer.well && !left.is_empty() {
            let node = left.remove(0);
            let Some(member) = fleet.node(&node) else { continue };
            match self.renew(&fleet, member, &node, &watcher).await? {
                None => answer.renewed.push(node.to_string()),
                Some(why) => {
                    answer.well = false;
                    (answer.rolled_back, answer.why) = (Some(node.to_string()), Some(why));
                }
            }
        }
        answer.left = left.iter().map(ToString::to_string).collect();
        output.answer(&answer, told(&answer));
        Ok(if answer.well { Done::Well } else { Done::False })
    }

    /// Renews one node and watches it. Why it was rolled back, if it was.
    async fn renew(
        &self,
        fleet: &Fleet,
        member: &Member,
        node: &NodeId,
        watcher: &Watcher,
    ) -> Result<Option<String>, Failure> {
        let begun = Instant::now();
        let now = || Mono(begun.elapsed());
        let is_canary = *node == self.canary;
        let before = watcher.look().await?;
        let issued = fleet.renew(member, self.valid).map_err(|error| Failure::Usage(format!("{error:#}")))?;
        let limits = Limits {
            // What the canary has shown need not be shown by the others for as long.
            bake: if is_canary { self.bake } else { Duration::ZERO },
            grace: self.grace,
            turned_away: self.max_refused,
            faults_percent: self.max_faults,
        };
        let mut bake = Bake::begin(node, issued.serial.to_string(), &before, limits, now());
        let verdict = match fleet.deliver(member) {
            Err(error) => Verdict::Bad(format!("{error:#}")),
            Ok(()) => loop {
                let seen = watcher.look().await.ok();
                match bake.look(seen.as_ref(), now()) {
                    Verdict::Wait => tokio::time::sleep(LOOK_EVERY).await,
                    known => break known,
                }
            },
        };
        let Verdict::Bad(why) = verdict else {
            note(&fleet.authority(), &Event::of("certificate.rolled_out", &issued))?;
            return Ok(None);
        };
        tracing::error!(%node, why, "the new certificate does badly: the node goes back to its old one");
        let back = roll_back(&member.folder, &why)?;
        note(&fleet.authority(), &Event::of("certificate.rolled_back", &back.certificate).because(&why))?;
        fleet.deliver(member)?;
        Ok(Some(why))
    }
}

fn told(answer: &RolloutAnswer) -> String {
    let mut text = match answer.renewed.as_slice() {
        [] => "nothing is renewed".to_owned(),
        renewed => format!("renewed: {}", renewed.join(", ")),
    };
    if let (Some(node), Some(why)) = (&answer.rolled_back, &answer.why) {
        text.push_str(&format!("\n{node} is back at its old certificate: {why}"));
    }
    if !answer.left.is_empty() {
        text.push_str(&format!("\nnot touched: {}", answer.left.join(", ")));
    }
    text
}
