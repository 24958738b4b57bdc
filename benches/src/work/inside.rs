//! Works that are measured within one process each: local asks and tells, a neighbour's backlog, idle
//! actors, hybrid time.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::dev::DevMesh;

use super::{Effort, Scope, Work};
use crate::figures::{by_figure, outcome};
use crate::inside::rhumb::{Measure, Measurers};
use crate::inside::{Local, Measured, Order};
use crate::process::Side;
use crate::sample::{Load, Outcome, Unit, Verb};

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
    /// This project's audit log.
    RhumbAudit,
    /// The rows that it writes, without it.
    Batches,
    /// This project's tiles.
    RhumbTiles,
    /// ct-merkle.
    CtMerkle,
}

impl Within {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rhumb | Self::RhumbTime | Self::RhumbAudit | Self::RhumbTiles => "rhumb",
            Self::Actix => "actix",
            Self::Kameo => "kameo",
            Self::Ractor => "ractor",
            Self::Uhlc => "uhlc",
            Self::Batches => "batches",
            Self::CtMerkle => "ct-merkle",
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
            Self::RhumbTime => "a node's clock, which reads the kernel's coarse wall clock a timestamp",
            Self::RhumbAudit => {
                "the audit actor, storage and RocksDB of a node, no mesh: a record is sealed, hashed, put into tiles; a \
                 checkpoint is signed each second"
            }
            Self::Batches => {
                "entry, body and count of the same sizes through the same storage: no actor, no seal, no hash, no tile"
            }
            Self::RhumbTiles => {
                "from tiles in RocksDB, which the machine's memory has; rows with bytes verify"
            }
            Self::CtMerkle => "the whole tree in memory; rows with bytes verify",
            Self::Uhlc => "new_timestamp and update_with_timestamp, which read the exact wall clock",
        }
    }

    fn argument(self) -> &'static str {
        match self {
            Self::RhumbTime => "rhumb-time",
            Self::RhumbAudit => "rhumb-audit",
            Self::RhumbTiles => "rhumb-tiles",
            _ => self.name(),
        }
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
            Self::RhumbAudit => crate::audit::append::ours(),
            Self::Batches => crate::audit::append::batches(),
            Self::RhumbTiles => crate::audit::prove::ours(),
            Self::CtMerkle => crate::audit::prove::theirs(),
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
pub(super) struct Case {
    pub(super) concurrency: usize,
    pub(super) order: Order,
}

impl Case {
    fn load(&self) -> Load {
        let tells = matches!(self.order, Order::Local(Local { tells: true, .. }));
        let verb = if tells { Verb::Tell } else { Verb::Ask };
        Load { verb, concurrency: self.concurrency, payload: 8, millis: 0 }
    }
}

/// Measures cases in rounds: for each case and system, what its rounds measured. `anew`: each round has
/// new processes.
pub(super) async fn rounds(
    name: &str,
    systems: &[Within],
    cases: &[Case],
    rounds: usize,
    anew: bool,
) -> anyhow::Result<Vec<Vec<Vec<Measured>>>> {
    let mut measured = vec![vec![Vec::new(); systems.len()]; cases.len()];
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
                let one = if anew {
                    let mut process = start(systems[s], round).await?;
                    let one = process.measure(case.order).await;
                    process.stop().await;
                    one
                } else {
                    standing[s].measure(case.order).await
                };
                measured[c][s].push(one.with_context(|| systems[s].name())?);
            }
        }
        eprintln!("{name}: round {} of {rounds}", round + 1);
    }
    for process in standing {
        process.stop().await;
    }
    Ok(measured)
}

/// An outcome for each case and system.
pub(super) fn outcomes(
    work: &str,
    systems: &[Within],
    cases: &[Case],
    measured: &[Vec<Vec<Measured>>],
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (case, measured) in cases.iter().zip(measured) {
        for (system, rounds) in systems.iter().zip(measured) {
            outcomes.push(outcome(work, system.name(), case.load(), rounds, system.note()));
        }
    }
    outcomes
}

/// The outcomes, each with one of its figures to compare.
pub(super) fn compared(
    outcomes: Vec<Outcome>,
    measured: &[Vec<Vec<Measured>>],
    figure: &str,
    unit: Unit,
) -> Vec<Outcome> {
    let rounds = measured.iter().flatten();
    outcomes
        .into_iter()
        .zip(rounds)
        .map(|(outcome, rounds)| by_figure(outcome, rounds, figure, unit))
        .collect()
}

const ACTORS: [Within; 4] = [Within::Rhumb, Within::Actix, Within::Kameo, Within::Ractor];
const BESIDE_ACTIX: [Within; 2] = [Within::Rhumb, Within::Actix];

/// Asks on one thread.
pub const LOCAL_ASK_SAME: Work = Work {
    name: "local-ask-same",
    title: "Local ask, one arbiter",
    run: |scope| local(LOCAL_ASK_SAME.name, scope, false, false).boxed_local(),
};

/// Asks from one thread to another.
pub const LOCAL_ASK_ACROSS: Work = Work {
    name: "local-ask-across",
    title: "Local ask, across arbiters",
    run: |scope| local(LOCAL_ASK_ACROSS.name, scope, false, true).boxed_local(),
};

/// Tells on one thread.
pub const LOCAL_TELL_SAME: Work = Work {
    name: "local-tell-same",
    title: "Local tell, one arbiter",
    run: |scope| local(LOCAL_TELL_SAME.name, scope, true, false).boxed_local(),
};

/// Tells from one thread to another.
pub const LOCAL_TELL_ACROSS: Work = Work {
    name: "local-tell-across",
    title: "Local tell, across arbiters",
    run: |scope| local(LOCAL_TELL_ACROSS.name, scope, true, true).boxed_local(),
};

async fn local(name: &str, scope: Scope, tells: bool, across: bool) -> anyhow::Result<Vec<Outcome>> {
    let Effort { rounds: number, millis, .. } = scope.effort;
    // These take nanoseconds: half a round has a million of them.
    let millis = millis / 2;
    let case =
        |concurrency| Case { concurrency, order: Order::Local(Local { tells, across, concurrency, millis }) };
    let cases = [case(1), case(64)];
    let cases = if tells { &cases[..1] } else { &cases[..] };
    let measured = rounds(name, &ACTORS, cases, number, false).await?;
    Ok(outcomes(name, &ACTORS, cases, &measured))
}

/// A neighbour's ask on an arbiter with a backlog.
pub const NEIGHBOUR: Work = Work {
    name: "neighbour",
    title: "An ask on an arbiter behind a neighbour's backlog of a million",
    run: |scope| neighbour(scope.effort).boxed_local(),
};

async fn neighbour(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let backlog = if effort.is_quick() { 10_000 } else { 1_000_000 };
    let cases = [Case { concurrency: 1, order: Order::Neighbour { backlog } }];
    let measured = rounds(NEIGHBOUR.name, &BESIDE_ACTIX, &cases, effort.rounds, false).await?;
    let all = outcomes(NEIGHBOUR.name, &BESIDE_ACTIX, &cases, &measured);
    Ok(compared(all, &measured, "ms", Unit::Millis))
}

/// Idle actors: bytes each, and then the time from a new one's first message to its answer.
pub const IDLE_ACTORS: Work = Work {
    name: "idle-actors",
    title: "A million idle live actors: bytes each; activation",
    run: |scope| idle_actors(scope.effort).boxed_local(),
};

async fn idle_actors(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let (actors, probes) = if effort.is_quick() { (20_000, 1_000) } else { (1_000_000, 20_000) };
    let cases = [Case { concurrency: 64, order: Order::Idle { actors, probes } }];
    let measured = rounds(IDLE_ACTORS.name, &BESIDE_ACTIX, &cases, effort.rounds, true).await?;
    let all = outcomes(IDLE_ACTORS.name, &BESIDE_ACTIX, &cases, &measured);
    // The rate is of those that were made 64 at a time, the latencies are of one after the other.
    let made = all.iter().map(|o| Outcome { p50_us: 0.0, p99_us: 0.0, ..o.clone() }).collect();
    let bytes = compared(made, &measured, "bytes_each", Unit::Bytes);
    let one = all.into_iter().map(|o| Outcome { concurrency: 1, ops_per_s: 0.0, ..o }).collect();
    Ok([bytes, compared(one, &measured, "activation_us", Unit::Micros)].concat())
}

const CLOCKS: [Within; 2] = [Within::RhumbTime, Within::Uhlc];

/// The next timestamp.
pub const HYBRID_TICK: Work = Work {
    name: "hybrid-tick",
    title: "Hybrid time: tick, on one thread and on two",
    run: |scope| hybrid(HYBRID_TICK.name, scope.effort, false).boxed_local(),
};

/// The next timestamp after another clock's.
pub const HYBRID_MERGE: Work = Work {
    name: "hybrid-merge",
    title: "Hybrid time: merge, on one thread and on two",
    run: |scope| hybrid(HYBRID_MERGE.name, scope.effort, true).boxed_local(),
};

async fn hybrid(name: &str, effort: Effort, merge: bool) -> anyhow::Result<Vec<Outcome>> {
    let case = |threads| Case {
        concurrency: threads,
        order: Order::Hybrid { merge, threads, millis: effort.millis },
    };
    let cases = [case(1), case(2)];
    let measured = rounds(name, &CLOCKS, &cases, effort.rounds, false).await?;
    Ok(outcomes(name, &CLOCKS, &cases, &measured))
}
