//! Works that are measured within one process each: local asks and tells, a neighbour's backlog, idle
//! actors, hybrid time.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::dev::DevMesh;

use super::Effort;
use crate::figures::Row;
use crate::inside::rhumb::{Measure, Measurers};
use crate::inside::{Local, Measured, Order};
use crate::process::Side;
use crate::sample::{Load, Verb};

/// Longer than anything that is measured.
const PATIENCE: Duration = Duration::from_secs(300);

/// A system of which one process is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Within {
    /// This project's actors, in a node.
    Rhumb,
    /// Bare actix.
    Actix,
    /// kameo.
    Kameo,
    /// ractor.
    Ractor,
    /// This project's hybrid time.
    RhumbTime,
    /// uhlc's.
    Uhlc,
}

impl Within {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb | Self::RhumbTime => "rhumb",
            Self::Actix => "actix",
            Self::Kameo => "kameo",
            Self::Ractor => "ractor",
            Self::Uhlc => "uhlc",
        }
    }

    fn note(self) -> &'static str {
        match self {
            Self::Rhumb => {
                "in a node; called from within a call: deadline, class, chain, metrics; mailboxes bounded"
            }
            Self::Actix => "bare: send and try_send, mailbox of the same size; a backlog by do_send",
            Self::Kameo => "a current_thread runtime a thread, mailbox of the same size",
            Self::Ractor => "a current_thread runtime a thread; its mailboxes have no bound",
            Self::RhumbTime => "HybridClock, with a wall clock read a timestamp",
            Self::Uhlc => "new_timestamp and update_with_timestamp, which read the wall clock too",
        }
    }

    fn argument(self) -> &'static str {
        if self == Self::RhumbTime { "rhumb-time" } else { self.name() }
    }

    /// Obeys orders in this process.
    ///
    /// # Errors
    /// An order that cannot be obeyed.
    pub fn probe(self) -> anyhow::Result<()> {
        match self {
            Self::Rhumb => anyhow::bail!("rhumb is measured in bench-node"),
            Self::Actix => crate::inside::actix::probe(),
            Self::Kameo => crate::inside::kameo::probe(),
            Self::Ractor => crate::inside::ractor::probe(),
            Self::RhumbTime => crate::inside::hybrid::ours(),
            Self::Uhlc => crate::inside::hybrid::theirs(),
        }
    }
}

/// A process that obeys orders.
enum Obedient {
    Probe(Side),
    Node { mesh: DevMesh, client: Arc<MeshClient> },
}

impl Obedient {
    async fn start(system: Within, dir: &Path) -> anyhow::Result<Self> {
        if system == Within::Rhumb {
            std::fs::create_dir_all(dir)?;
            let mesh = crate::mesh::start(dir).await?;
            let client = Arc::new(MeshClient::new(mesh.client_identity(), Directory::read(dir)?)?);
            client.connect_all().await?;
            return Ok(Self::Node { mesh, client });
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["probe", system.argument()]);
        let mut side = Side::spawn(command.into())?;
        let ready: String = side.said().await?;
        anyhow::ensure!(ready == "ready", "{} said {ready:?}", system.name());
        Ok(Self::Probe(side))
    }

    async fn measure(&mut self, order: Order) -> anyhow::Result<Measured> {
        match self {
            Self::Probe(side) => {
                side.tell(&order).await?;
                side.said_within(PATIENCE).await
            }
            Self::Node { client, .. } => {
                let order = serde_json::to_string(&order)?;
                let measurer = client.mesh().actor::<Measurers>("here");
                let told = measurer.ask(Measure { order }).within(PATIENCE).await?;
                let told = told.map_err(|error| anyhow::anyhow!("{error}"))?;
                Ok(serde_json::from_str(&told)?)
            }
        }
    }

    async fn stop(self) {
        match self {
            Self::Probe(side) => side.end().await,
            Self::Node { mesh, client } => {
                client.close().await;
                mesh.stop().await;
            }
        }
    }
}

/// One line of the results, of every system.
struct Case {
    work: &'static str,
    concurrency: usize,
    order: Order,
}

impl Case {
    fn load(&self) -> Load {
        let verb = if let Order::Local(Local { verb, .. }) = self.order { verb } else { Verb::Ask };
        Load { verb, concurrency: self.concurrency, payload: 8, millis: 0 }
    }
}

/// Measures cases in rounds. `anew`: each round has new processes.
async fn rounds(
    name: &str,
    systems: &[Within],
    cases: &[Case],
    rounds: usize,
    anew: bool,
) -> anyhow::Result<Vec<Row>> {
    let mut measured = vec![vec![Vec::new(); cases.len()]; systems.len()];
    let dir = tempfile::tempdir()?;
    let start = |system: Within, round: usize| {
        let place = dir.path().join(format!("{}-{round}", system.name()));
        async move { Obedient::start(system, &place).await.with_context(|| system.name()) }
    };
    let mut standing = Vec::new();
    if !anew {
        for system in systems {
            standing.push(start(*system, 0).await?);
        }
    }
    for round in 0..rounds {
        for (c, case) in cases.iter().enumerate() {
            for s in 0..systems.len() {
                let s = (s + round) % systems.len();
                let told = || format!("{} of {}", case.work, systems[s].name());
                let one = if anew {
                    let mut process = start(systems[s], round).await?;
                    let one = process.measure(case.order).await;
                    process.stop().await;
                    one
                } else {
                    standing[s].measure(case.order).await
                };
                measured[s][c].push(one.with_context(told)?);
            }
        }
        eprintln!("{name}: round {} of {rounds}", round + 1);
    }
    for process in standing {
        process.stop().await;
    }
    let mut rows = Vec::new();
    for (c, case) in cases.iter().enumerate() {
        for (s, system) in systems.iter().enumerate() {
            rows.push(Row::of(case.work, system.name(), case.load(), &measured[s][c], system.note()));
        }
    }
    Ok(rows)
}

/// Local asks and tells, on one thread and across two.
///
/// # Errors
/// A system does not start, or fails.
pub async fn local(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let case = |work, verb, across, concurrency| {
        let order = Order::Local(Local { verb, across, concurrency, millis: effort.millis });
        Case { work, concurrency, order }
    };
    let cases = [
        case("local-ask-same", Verb::Ask, false, 1),
        case("local-ask-same", Verb::Ask, false, 64),
        case("local-ask-across", Verb::Ask, true, 1),
        case("local-ask-across", Verb::Ask, true, 64),
        case("local-tell-same", Verb::Tell, false, 1),
        case("local-tell-across", Verb::Tell, true, 1),
    ];
    let systems = [Within::Rhumb, Within::Actix, Within::Kameo, Within::Ractor];
    rounds("local", &systems, &cases, effort.rounds, false).await
}

/// A neighbour's ask on an arbiter with a backlog.
///
/// # Errors
/// A system does not start, or fails.
pub async fn neighbour(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let backlog = if effort.is_quick() { 10_000 } else { 1_000_000 };
    let cases = [Case { work: "neighbour", concurrency: 1, order: Order::Neighbour { backlog } }];
    rounds("neighbour", &[Within::Rhumb, Within::Actix], &cases, effort.rounds, false).await
}

/// Idle actors: bytes each, and activation.
///
/// # Errors
/// A system does not start, or fails.
pub async fn idle_actors(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let (actors, probes) = if effort.is_quick() { (20_000, 1_000) } else { (1_000_000, 20_000) };
    let cases = [Case { work: "idle-actors", concurrency: 64, order: Order::Idle { actors, probes } }];
    rounds("idle-actors", &[Within::Rhumb, Within::Actix], &cases, effort.rounds, true).await
}

/// Hybrid time.
///
/// # Errors
/// A clock fails.
pub async fn hybrid_time(effort: Effort) -> anyhow::Result<Vec<Row>> {
    let case = |work, merge, threads| Case {
        work,
        concurrency: threads,
        order: Order::Hybrid { merge, threads, millis: effort.millis },
    };
    let cases = [
        case("hybrid-tick", false, 1),
        case("hybrid-tick", false, 2),
        case("hybrid-merge", true, 1),
        case("hybrid-merge", true, 2),
    ];
    rounds("hybrid-time", &[Within::RhumbTime, Within::Uhlc], &cases, effort.rounds, false).await
}
