//! `rhumb cert rollout`: one node first.

use std::collections::VecDeque;
use std::time::Duration;

use clap::Args;
use rhumb_core::{Mono, NodeId};
use rhumb_transport::Certificate;
use serde::Serialize;
use tokio::time::Instant;

use super::validity;
use crate::authority::{AuthorityFolder, Lock};
use crate::cli::args::{duration, whole};
use crate::cli::fleet::{Asking, MeshDir, Watcher};
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::{Bake, Before, Event, Fleet, Given, Limits, Member, Verdict, note, roll_back_to};
use crate::generations::Generations;

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
    /// How often somebody who dials the node may refuse its certificate.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = whole::<u64>)]
    max_refused: u64,
    /// Calls of the node in a hundred that may end in a fault.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<u64>)]
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
    /// The node that did badly.
    bad: Option<String>,
    /// The same, if it is back at its old certificate.
    rolled_back: Option<String>,
    /// Why it did badly; or why the next node could not be renewed.
    why: Option<String>,
    /// Why it could not go back: it is left with the bad certificate.
    stuck: Option<String>,
    /// Nodes that keep their old certificates.
    left: Vec<String>,
    /// Nodes whose certificates are believed no more: nobody has named them.
    passed_over: Vec<String>,
}

/// How it went with one node.
enum Went {
    Well,
    /// Its certificate is believed no more, and it is not the canary, which is named.
    PassedOver,
    /// Nothing was changed.
    Nowhere(Failure),
    /// It did badly. Why it did, and why it could not go back, if it could not.
    Badly {
        why: String,
        stuck: Option<String>,
    },
}

impl Rollout {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let fleet = self.mesh.open()?;
        let unknown = || Failure::Usage(format!("{} is no node of this mesh", self.canary));
        fleet.node(&self.canary).ok_or_else(unknown)?;
        let watcher = self.asking.about(&fleet)?;
        let others = fleet.nodes().filter(|node| **node != self.canary);
        let mut left: VecDeque<NodeId> = [&self.canary].into_iter().chain(others).cloned().collect();
        let mut answer = RolloutAnswer {
            canary: self.canary.to_string(),
            well: true,
            renewed: Vec::new(),
            bad: None,
            rolled_back: None,
            why: None,
            stuck: None,
            left: Vec::new(),
            passed_over: Vec::new(),
        };
        while answer.well
            && let Some(node) = left.pop_front()
        {
            let Some(member) = fleet.node(&node) else { continue };
            match self.renew(&fleet, member, &node, &watcher).await? {
                Went::Well => answer.renewed.push(node.to_string()),
                Went::PassedOver => answer.passed_over.push(node.to_string()),
                Went::Nowhere(failure) if answer.renewed.is_empty() => return Err(failure),
                Went::Nowhere(failure) => {
                    (answer.well, answer.why) = (false, Some(failure.message()));
                    left.push_front(node);
                }
                Went::Badly { why, stuck } => {
                    (answer.well, answer.bad, answer.why) = (false, Some(node.to_string()), Some(why));
                    answer.rolled_back = answer.bad.clone().filter(|_| stuck.is_none());
                    answer.stuck = stuck;
                }
            }
        }
        answer.left = left.iter().map(ToString::to_string).collect();
        output.answer(&answer, told(&answer));
        Ok(if answer.well { Done::Well } else { Done::False })
    }

    /// Renews one node and watches it.
    async fn renew(
        &self,
        fleet: &Fleet,
        member: &Member,
        node: &NodeId,
        watcher: &Watcher,
    ) -> Result<Went, Failure> {
        if self.passes_over(&AuthorityFolder::open(&fleet.authority())?, fleet, member)? {
            return Ok(Went::PassedOver);
        }
        let before = match self.before(node, watcher).await {
            Ok(before) => before,
            Err(failure) => return Ok(Went::Nowhere(failure)),
        };
        let old = before.serial().to_owned();
        let issued = match self.issue(fleet, member) {
            Ok(Some(issued)) => issued,
            Ok(None) => return Ok(Went::PassedOver),
            Err(error) => return Ok(Went::Nowhere(Failure::Usage(format!("{error:#}")))),
        };
        let generation = Generations::of(&member.folder).current();
        let given = Given { serial: issued.serial.to_string(), generation };
        let verdict = match delivered(fleet, member).await {
            Err(error) => Verdict::Bad(format!("{error:#}")),
            Ok(()) => self.watch(before, given, watcher).await,
        };
        let Verdict::Bad(why) = verdict else {
            note(&fleet.authority(), &Event::of("certificate.rolled_out", &issued))?;
            return Ok(Went::Well);
        };
        tracing::error!(%node, why, "the new certificate does badly: the node goes back to its old one");
        let stuck = undo(fleet, member, &old, &why).await.err().map(|error| format!("{error:#}"));
        if let Some(stuck) = &stuck {
            tracing::error!(%node, stuck, "the node could not go back: it is left with a bad certificate");
        }
        Ok(Went::Badly { why, stuck })
    }

    /// Issues a node's certificate anew; none where it was revoked while the node was waited for.
    fn issue(&self, fleet: &Fleet, member: &Member) -> anyhow::Result<Option<Certificate>> {
        let authority = AuthorityFolder::open(&fleet.authority())?;
        if self.passes_over(&authority, fleet, member)? {
            return Ok(None);
        }
        fleet.renew(&authority, member, self.valid).map(Some)
    }

    fn passes_over(
        &self,
        authority: &AuthorityFolder,
        fleet: &Fleet,
        member: &Member,
    ) -> anyhow::Result<bool> {
        let is_named = member.node.as_ref() == Some(&self.canary);
        Ok(!is_named && fleet.out(authority, member)?.is_some())
    }

    /// How a node stands, as soon as it answers.
    async fn before(&self, node: &NodeId, watcher: &Watcher) -> Result<Before, Failure> {
        let until = Instant::now() + self.grace;
        loop {
            if let Some(before) = Before::of(node, &watcher.look().await?) {
                return Ok(before);
            }
            if Instant::now() >= until {
                let why = format!(
                    "{node} has not answered for {:?}: what cannot be watched is not renewed",
                    self.grace
                );
                return Err(Failure::local(why));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Watches a node that has got its new certificate, until it is known whether that is good.
    async fn watch(&self, before: Before, given: Given, watcher: &Watcher) -> Verdict {
        let is_canary = before.node() == self.canary.to_string();
        let begun = Instant::now();
        let now = || Mono(begun.elapsed());
        let limits = Limits {
            // What the canary has shown need not be shown by the others for as long.
            bake: if is_canary { self.bake } else { Duration::ZERO },
            grace: self.grace,
            turned_away: self.max_refused,
            faults_percent: self.max_faults,
        };
        let mut bake = Bake::begin(before, given, limits, now());
        loop {
            let seen = watcher.look().await.ok();
            match bake.look(seen.as_ref(), now()) {
                Verdict::Wait => tokio::time::sleep(LOOK_EVERY).await,
                known => return known,
            }
        }
    }
}

/// Takes a folder to where it is used: for minutes, and not on a thread that others wait for.
async fn delivered(fleet: &Fleet, member: &Member) -> anyhow::Result<()> {
    let (fleet, member) = (fleet.clone(), member.clone());
    tokio::task::spawn_blocking(move || fleet.deliver(&member)).await?
}

/// Takes a node back to the certificate that it had shown.
async fn undo(fleet: &Fleet, member: &Member, serial: &str, why: &str) -> anyhow::Result<()> {
    let back = {
        // Nobody puts a later list of revocations there meanwhile.
        let _lock = Lock::take(&fleet.authority())?;
        roll_back_to(&member.folder, serial, why)?
    };
    delivered(fleet, member).await?;
    Ok(note(&fleet.authority(), &Event::of("certificate.rolled_back", &back.certificate).because(why))?)
}

fn told(answer: &RolloutAnswer) -> String {
    let mut text = match answer.renewed.as_slice() {
        [] => "nothing is renewed".to_owned(),
        renewed => format!("renewed: {}", renewed.join(", ")),
    };
    let why = answer.why.as_deref().unwrap_or("no reason");
    match (&answer.bad, &answer.stuck) {
        (None, _) if answer.well => {}
        (None, _) => text.push_str(&format!("\nthe next could not be: {why}")),
        (Some(node), None) => text.push_str(&format!("\n{node} is back at its old certificate: {why}")),
        (Some(node), Some(stuck)) => {
            text.push_str(&format!("\n{node} does badly with its new certificate: {why}"));
            text.push_str(&format!("\nit could not go back, mend it now: {stuck}"));
        }
    }
    if !answer.left.is_empty() {
        text.push_str(&format!("\nnot touched: {}", answer.left.join(", ")));
    }
    if !answer.passed_over.is_empty() {
        text.push_str(&format!("\nrevoked, not renewed: {}", answer.passed_over.join(", ")));
    }
    text
}
