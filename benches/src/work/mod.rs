//! What is measured: each piece of work names its systems and its loads, and gives one outcome for each
//! pair of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use futures::future::LocalBoxFuture;
use rhumb::dev::DevMesh;

use crate::process::Side;
use crate::ranges::Keeper;
use crate::sample::{Load, Outcome, Sample};
use crate::systems::System;
use crate::tls::Tls;

pub mod audit;
pub mod durable_hold;
pub mod frozen_peer;
pub mod idle_node;
pub mod inside;
pub mod large;
pub mod range_8;
pub mod range_failover;
pub mod range_idle;
pub mod range_put;
pub mod range_read;
pub mod range_recovery;
pub mod range_wan;
pub mod remote_ask;
pub mod remote_tell;
pub mod tracing;

mod ranges;

/// All works, in the order of the report.
pub const ALL: &[Work] = &[
    remote_ask::WORK,
    remote_tell::WORK,
    frozen_peer::WORK,
    large::WORK,
    inside::LOCAL_ASK_SAME,
    inside::LOCAL_ASK_ACROSS,
    inside::LOCAL_TELL_SAME,
    inside::LOCAL_TELL_ACROSS,
    inside::NEIGHBOUR,
    inside::IDLE_ACTORS,
    durable_hold::WORK,
    range_put::WORK,
    range_read::WORK,
    range_wan::WORK,
    range_failover::WORK,
    range_8::WORK,
    range_recovery::WORK,
    range_idle::WORK,
    audit::APPEND,
    audit::PROVE,
    tracing::WORK,
    inside::HYBRID_TICK,
    inside::HYBRID_MERGE,
    idle_node::WORK,
    idle_node::START,
];

/// A work.
#[derive(Clone, Copy)]
pub struct Work {
    /// Its name, in commands and results.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    /// Measures it.
    pub run: fn(Scope) -> LocalBoxFuture<'static, anyhow::Result<Vec<Outcome>>>,
}

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Scope {
    /// How much.
    pub effort: Effort,
    /// Only these of the systems, by their names; all, if there are none.
    pub only: Vec<String>,
}

impl Scope {
    /// Those of the systems that are to be measured.
    #[must_use]
    pub fn of(&self, systems: &[System]) -> Vec<System> {
        systems.iter().copied().filter(|system| self.has(system.name())).collect()
    }

    /// Whether a system is to be measured.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

/// The names of all systems, of whatever work.
#[must_use]
pub fn system_names() -> Vec<&'static str> {
    let mut names: Vec<_> = System::value_variants().iter().map(|system| system.name()).collect();
    let others = durable_hold::KEEPERS.into_iter().chain(Keeper::ALL.map(Keeper::name));
    names.extend(others.filter(|name| *name != System::Rhumb.name()));
    names
}

/// The share of an amount that is measured to see that it runs.
const QUICK: f64 = 0.02;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Rounds of each system under each load, interleaved.
    pub rounds: usize,
    /// How long a round is, in milliseconds.
    pub millis: u64,
    /// What share of a work's amount is measured, where it has one: a gigabyte to recover, a thousand ranges.
    pub scale: f64,
}

impl Effort {
    /// The share of an amount that is measured.
    #[must_use]
    pub fn amount(self, full: u64) -> u64 {
        let share = if self.is_quick() { self.scale.min(QUICK) } else { self.scale };
        ((full as f64 * share) as u64).max(1)
    }

    /// Whether this is only to see that it runs.
    #[must_use]
    pub fn is_quick(self) -> bool {
        self.millis < 500
    }
}

/// How long a round may take: of tells it has three parts, and each may have many that come late.
const PATIENCE: Duration = Duration::from_secs(240);

/// A system with both its sides running.
struct Standing {
    system: System,
    server: Option<Side>,
    driver: Side,
    mesh: Option<DevMesh>,
}

impl Standing {
    async fn start(system: System, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join(system.name());
        std::fs::create_dir_all(&dir)?;
        let folder = dir.to_str().context("a folder whose name is text")?.to_owned();
        if matches!(system, System::Rhumb | System::RhumbApart | System::RhumbAwaited) {
            let mesh = crate::mesh::start(&dir).await?;
            let driver = Self::driver(system, &folder, "").await?;
            return Ok(Self { system, server: None, driver, mesh: Some(mesh) });
        }
        Tls::make(&dir)?;
        let mut server = Side::start(&[system.name(), "serve", &folder, ""])?;
        let address: String =
            server.said().await.with_context(|| format!("the server of {}", system.name()))?;
        let driver = Self::driver(system, &folder, &address).await?;
        Ok(Self { system, server: Some(server), driver, mesh: None })
    }

    async fn driver(system: System, dir: &str, address: &str) -> anyhow::Result<Side> {
        let mut driver = Side::start(&[system.name(), "drive", dir, address])?;
        let ready: String =
            driver.said().await.with_context(|| format!("the driver of {}", system.name()))?;
        anyhow::ensure!(ready == "ready", "the driver of {} said {ready:?}", system.name());
        Ok(driver)
    }

    async fn round(&mut self, load: Load) -> anyhow::Result<Sample> {
        self.driver.tell(&load).await?;
        self.driver.said_within(PATIENCE).await.with_context(|| format!("a round of {}", self.system.name()))
    }

    /// The process that serves.
    fn serving(&self) -> anyhow::Result<u32> {
        let pid = match (&self.server, &self.mesh) {
            (Some(server), _) => server.pid(),
            (_, Some(mesh)) => mesh.nodes().first().map(|node| node.pid),
            _ => None,
        };
        pid.filter(|pid| *pid > 1).with_context(|| format!("{} has no process", self.system.name()))
    }

    async fn stop(self) {
        self.driver.end().await;
        if let Some(server) = self.server {
            server.end().await;
        }
        if let Some(mesh) = self.mesh {
            mesh.stop().await;
        }
    }
}

/// A system while it is measured: both its sides, while there are any.
struct Measured {
    system: System,
    dir: PathBuf,
    standing: Option<Standing>,
    /// How often it was started.
    starts: usize,
    loads: Vec<Under>,
}

/// What came of a system under one load: its rounds, and why there are no more of them.
#[derive(Default)]
struct Under {
    samples: Vec<Sample>,
    failed: Option<String>,
}

impl Measured {
    fn new(system: System, dir: &Path, loads: usize) -> Self {
        let loads = std::iter::repeat_with(Under::default).take(loads).collect();
        Self { system, dir: dir.to_owned(), standing: None, starts: 0, loads }
    }

    async fn standing(&mut self) -> anyhow::Result<&mut Standing> {
        let standing = match self.standing.take() {
            Some(standing) => standing,
            None => {
                self.starts += 1;
                Standing::start(self.system, &self.dir.join(self.starts.to_string())).await?
            }
        };
        Ok(self.standing.insert(standing))
    }

    /// One more round. Under a load under which it failed a system is measured no more; for the others it is started anew. It
    /// disturbs no other.
    async fn round(&mut self, load: usize, of: &Load) {
        if self.loads[load].failed.is_some() {
            return;
        }
        let sample = match self.standing().await {
            Ok(standing) => standing.round(*of).await,
            Err(error) => Err(error),
        };
        match sample {
            Ok(sample) => self.loads[load].samples.push(sample),
            Err(error) => {
                let error = format!("{error:#}");
                eprintln!(
                    "{} failed with {} in flight of {} bytes: {error}",
                    self.system.name(),
                    of.concurrency,
                    of.payload
                );
                self.loads[load].failed = Some(error);
                if let Some(standing) = self.standing.take() {
                    standing.stop().await;
                }
            }
        }
    }

    fn outcome(&self, work: &str, load: usize, of: Load) -> Outcome {
        let (note, under) = (self.system.note(), &self.loads[load]);
        let note = match &under.failed {
            None => note.to_owned(),
            Some(why) => {
                format!("{note}; IT FAILED after {} rounds of this load: {why}", under.samples.len())
            }
        };
        Outcome::of(work, self.system.name(), of, &under.samples).noted(note)
    }
}

/// Measures systems under loads in rounds: each round has every system under every load once, so that
/// what else the machine does meets all alike.
async fn interleaved(
    work: &str,
    systems: &[System],
    loads: &[Load],
    rounds: usize,
) -> anyhow::Result<Vec<Outcome>> {
    let dir = tempfile::tempdir()?;
    let mut all = Vec::new();
    for system in systems {
        let mut one = Measured::new(*system, dir.path(), loads.len());
        // All stand before any is measured; one that does not is tried again in its first round, which says why.
        if let Err(error) = one.standing().await {
            eprintln!("{work}: {} does not start: {error:#}", system.name());
        }
        all.push(one);
    }
    for round in 0..rounds {
        for (l, load) in loads.iter().enumerate() {
            // Nobody is always the first.
            for s in 0..all.len() {
                let next = (s + round) % systems.len();
                all[next].round(l, load).await;
            }
        }
        eprintln!("{work}: round {} of {rounds}", round + 1);
    }
    let by_load = loads.iter().enumerate();
    let outcomes = by_load.flat_map(|(l, load)| all.iter().map(move |each| each.outcome(work, l, *load)));
    let outcomes = outcomes.collect();
    for standing in all.into_iter().filter_map(|each| each.standing) {
        standing.stop().await;
    }
    Ok(outcomes)
}
