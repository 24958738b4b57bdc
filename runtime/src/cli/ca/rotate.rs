//! `rhumb ca rotate`: a new authority takes over, stage by stage, and every stage waits for the one before.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::time::Instant;

use super::authority_validity;
use crate::cli::args::duration;
use crate::cli::fleet::{Asking, MeshDir, Watcher};
use crate::cli::output::{Done, Failure, Output};
use crate::client::PROGRAMS_LOOK_EVERY;
use crate::fleet::{
    Fleet, Missed, NotYet, PassedOver, Rotor, Stage, Stray, activated_everywhere, prepared_everywhere,
    retired_everywhere, told_of_missed,
};
use crate::mesh::status::MeshStatus;

/// Between two questions to the mesh.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The stages of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StageArg {
    /// Make a new authority; all believe both.
    Prepare,
    /// Issue every certificate anew, by the new authority.
    Activate,
    /// Believe the old authority no more.
    Retire,
}

impl From<StageArg> for Stage {
    fn from(stage: StageArg) -> Self {
        match stage {
            StageArg::Prepare => Self::Prepare,
            StageArg::Activate => Self::Activate,
            StageArg::Retire => Self::Retire,
        }
    }
}

/// Let a new authority take over from the present one. Each stage refuses to begin before the one before has
/// reached every node; run again, it goes on where it was interrupted. What was revoked is not issued anew.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb ca rotate --mesh mesh --stage prepare\n  rhumb ca rotate --mesh mesh --stage activate\n  rhumb ca rotate --mesh mesh --stage retire\n\nEnds with 3 when a stage has not reached every node in time, and names those that are behind: run it again."
)]
pub struct Rotate {
    #[command(flatten)]
    mesh: MeshDir,
    /// Which stage.
    #[arg(long, value_enum)]
    stage: StageArg,
    /// How long the new authority is valid, 30d to 7300d; otherwise as long as the present one was.
    #[arg(long, value_name = "TIME", value_parser = authority_validity)]
    valid: Option<Duration>,
    /// Do not ask the nodes: the operator has made sure that the stage before has reached all of them.
    #[arg(long)]
    confirmed: bool,
    /// Everybody whose certificate lies in no folder of this mesh has been given the new ca.pem and crl.pem (before
    /// activate), or a new certificate (before retire).
    #[arg(long)]
    others_told: bool,
    /// How long to wait for all nodes to say that they have got it.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Serialize)]
struct RotateAnswer {
    stage: &'static str,
    /// The authority that takes over, or has.
    authority: String,
    fingerprint: String,
    /// Moves that were left to be made.
    moves: usize,
    /// Whether every node has said that it has got it; null where none was asked.
    reached: Option<bool>,
    behind: Vec<Behind>,
    /// Whose folder was not delivered.
    missed: Vec<Missed>,
    /// Who has a certificate of the authority that is to go, and no folder in this mesh.
    others: Vec<Stray>,
    /// Whose certificate is believed no more: it is left as it is, and not waited for.
    passed_over: Vec<PassedOver>,
}

#[derive(Debug, Serialize)]
struct Behind {
    node: String,
    why: String,
}

impl From<NotYet> for Behind {
    fn from(NotYet { who, why }: NotYet) -> Self {
        Self { node: who, why }
    }
}

impl Rotate {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let fleet = self.mesh.open()?;
        let stage = Stage::from(self.stage);
        let rotor = Rotor::of(&fleet, self.valid);
        let watcher = if self.confirmed { None } else { Some(self.asking.about(&fleet)?) };
        self.others_know(&rotor)?;
        if let Some(watcher) = &watcher {
            self.may_begin(&fleet, &rotor, watcher).await?;
        }
        // It may deliver for minutes: not on a thread that others wait for.
        let moves = {
            let (fleet, valid) = (fleet.clone(), self.valid);
            tokio::task::spawn_blocking(move || Rotor::of(&fleet, valid).run(stage)).await
        };
        let (made, missed) =
            moves.map_err(Failure::local)?.map_err(|error| Failure::Usage(format!("{error:#}")))?;
        let delivered = Instant::now();
        let coming = rotor.coming()?;
        let behind = match &watcher {
            Some(watcher) => Some(self.reached(&fleet, &rotor, watcher).await?),
            None => None,
        };
        if watcher.is_some() && stage == Stage::Prepare && !made.is_empty() {
            // Programs do not say what they believe. One that dials later than this does so by what its folder has.
            tokio::time::sleep_until(delivered + PROGRAMS_LOOK_EVERY).await;
        }
        let answer = RotateAnswer {
            stage: stage.as_str(),
            authority: coming.holder.to_string(),
            fingerprint: coming.fingerprint(),
            moves: made.len(),
            reached: behind.as_ref().map(Vec::is_empty),
            behind: behind.into_iter().flatten().map(Behind::from).collect(),
            missed,
            others: rotor.strays()?,
            passed_over: rotor.passed_over()?,
        };
        output.answer(&answer, told(&answer));
        let well = answer.behind.is_empty() && answer.missed.is_empty();
        Ok(if well { Done::Well } else { Done::InPart })
    }

    /// Whether those know of the stage before whose folders nobody reaches from here.
    fn others_know(&self, rotor: &Rotor<'_>) -> Result<(), Failure> {
        let stand = rotor.stand()?;
        let (needs, meanwhile) = match self.stage {
            StageArg::Activate if stand.previous.is_none() => ("the new ca.pem and crl.pem", "prepare"),
            StageArg::Retire if stand.next.is_none() => ("a certificate of the new authority", "activate"),
            _ => return Ok(()),
        };
        let others = rotor.strays()?;
        if self.others_told || others.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = others.iter().map(ToString::to_string).collect();
        Err(Failure::Usage(format!(
            "no folder of this mesh has the certificates of {}: these could connect no more. Give them {needs} (ca/ has \
             had it since {meanwhile}), or move their folders below clients/ or operators/ of the mesh; then say \
             --others-told",
            listed.join(", ")
        )))
    }

    /// Whether the stage before has reached every node. The first has none before it.
    async fn may_begin(&self, fleet: &Fleet, rotor: &Rotor<'_>, watcher: &Watcher) -> Result<(), Failure> {
        let stand = rotor.stand()?;
        let needed = match self.stage {
            StageArg::Prepare => return Ok(()),
            // What is not prepared here is refused with its reason by the stage itself.
            StageArg::Activate if stand.next.is_none() && stand.previous.is_none() => return Ok(()),
            StageArg::Retire if stand.next.is_some() || stand.previous.is_none() => return Ok(()),
            StageArg::Activate => Stage::Prepare,
            StageArg::Retire => Stage::Activate,
        };
        let behind = behind(needed, fleet, rotor, &watcher.look().await?)?;
        if behind.is_empty() {
            return Ok(());
        }
        let listed: Vec<String> = behind.iter().map(ToString::to_string).collect();
        Err(Failure::Usage(format!(
            "{} has not reached every node: {}; wait for them, or say --confirmed if you know better",
            needed.as_str(),
            listed.join("; ")
        )))
    }

    /// Waits until every node says that it has got this stage. Who has not at the end is given.
    async fn reached(
        &self,
        fleet: &Fleet,
        rotor: &Rotor<'_>,
        watcher: &Watcher,
    ) -> Result<Vec<NotYet>, Failure> {
        let deadline = Instant::now() + self.wait;
        loop {
            let seen = watcher.look().await;
            let late = Instant::now() >= deadline;
            match seen {
                Ok(seen) => {
                    let behind = behind(self.stage.into(), fleet, rotor, &seen)?;
                    if behind.is_empty() || late {
                        return Ok(behind);
                    }
                }
                Err(failure) if late => return Err(failure),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Who has not got a stage yet.
fn behind(stage: Stage, fleet: &Fleet, rotor: &Rotor<'_>, seen: &MeshStatus) -> Result<Vec<NotYet>, Failure> {
    let (coming, out) = (rotor.coming()?, rotor.passed_over()?);
    let nodes = fleet.nodes().filter(|node| !out.iter().any(|one| one.is_node(node)));
    Ok(match stage {
        Stage::Prepare => prepared_everywhere(nodes, seen, &coming.fingerprint()),
        Stage::Activate => activated_everywhere(nodes, seen, &coming.holder.to_string()),
        Stage::Retire => retired_everywhere(nodes, seen, &coming.fingerprint()),
    })
}

fn told(answer: &RotateAnswer) -> String {
    let mut text = format!("{}: {} moves made, {}", answer.stage, answer.moves, answer.authority);
    text.push_str(match answer.reached {
        Some(true) => "; every node has got it",
        Some(false) => "; these nodes have not got it yet:",
        None => "; no node was asked",
    });
    for Behind { node, why } in &answer.behind {
        text.push_str(&format!("\n  {node}: {why}"));
    }
    text.push_str(&told_of_missed(&answer.missed));
    if !answer.others.is_empty() {
        let others: Vec<String> = answer.others.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\nnot in this mesh's folders, and yours to tell: {}", others.join(", ")));
    }
    for PassedOver { holder, why, .. } in &answer.passed_over {
        text.push_str(&format!("\n{holder}: {why}, left as it is"));
    }
    text
}
