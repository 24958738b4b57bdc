//! What becomes of a service that is asked for twice what it can do. `make overload` runs it.
//!
//! Without arguments of its own it is a node that hosts an actor whose every question burns 200 µs. As
//! `overload measure DATA` it is the customers: an open loop, which asks at its rate whether it is answered or not.
//!
//! * It never does: assert. It prints what it measured, and whether that is within the bars of the issue.

#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::{Directory, READY_FILE};
use rhumb::prelude::*;
use rhumb::seed::Seed;
use rhumb_tests::overload::{Burn, Burner, burners, listeners};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Actors that are asked.
const ACTORS: usize = 64;
/// How long each measurement lasts; the first fifth of it does not count.
const LASTS: Duration = Duration::from_secs(8);
/// Askers of the closed loop that finds the peak.
const AT_ONCE: [usize; 4] = [2, 4, 8, 16];

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    answered: Vec<Duration>,
    refused: usize,
    failed: usize,
    lasted: Duration,
    /// What the node, and these customers, ran on a core meanwhile.
    cpu: [Duration; 2],
}

/// How long all threads of a process have run on a core so far.
fn ran(process: &str) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.filter_map(of).sum())
}

/// The node, and what both sides had run when a measurement began.
struct Cpu {
    node: String,
    before: [Duration; 2],
}

impl Cpu {
    /// Of the one node of a `rhumb dev` with this data directory.
    fn of(data: &Path) -> anyhow::Result<Self> {
        let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join(READY_FILE))?)?;
        let node = ready["regions"][0]["pid"].to_string();
        Ok(Self { node, before: Default::default() })
    }

    fn begins(&mut self) {
        self.before = [ran(&self.node), ran("self")];
    }

    fn since(&self) -> [Duration; 2] {
        [ran(&self.node) - self.before[0], ran("self") - self.before[1]]
    }
}

impl Measured {
    fn count(&mut self, outcome: Result<(), Fault>, took: Duration) {
        match outcome {
            Ok(()) => self.answered.push(took),
            Err(Fault { kind: FaultKind::Overloaded(_), .. }) => self.refused += 1,
            Err(_) => self.failed += 1,
        }
    }

    /// Answers a second.
    fn goodput(&self) -> f64 {
        self.answered.len() as f64 / self.lasted.as_secs_f64()
    }

    fn p(&self, percent: usize) -> Duration {
        let mut took = self.answered.clone();
        took.sort_unstable();
        took.get((took.len() * percent / 100).min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    fn told(&self, what: &str) {
        println!(
            "{what:<34} {:>7.0} answers/s  p50 {:>6} µs  p99 {:>6} µs  refused {:>6}  failed {:>4}  core: node {:>3.0} %, customers {:>3.0} %",
            self.goodput(),
            self.p(50).as_micros(),
            self.p(99).as_micros(),
            self.refused,
            self.failed,
            self.cpu[0].as_secs_f64() / LASTS.as_secs_f64() * 100.0,
            self.cpu[1].as_secs_f64() / LASTS.as_secs_f64() * 100.0,
        );
    }
}

/// So many ask, each again as soon as it is answered.
async fn closed(actors: &[MeshAddr<Burner>], at_once: usize, lasts: Duration) -> Measured {
    let begun = Instant::now();
    let (counts_from, until) = (begun + lasts / 5, begun + lasts);
    let asker = |first: usize| async move {
        let (mut mine, mut next) = (Measured::default(), first);
        while Instant::now() < until {
            let asked = Instant::now();
            let outcome = actors[next % actors.len()].ask(Burn {}).await;
            if asked >= counts_from {
                mine.count(outcome, asked.elapsed());
            }
            next += 1;
        }
        mine
    };
    let all = futures::future::join_all((0..at_once).map(|nth| asker(nth * 7))).await;
    let mut sum = Measured { lasted: lasts * 4 / 5, ..Measured::default() };
    for mine in all {
        sum.answered.extend(mine.answered);
        sum.refused += mine.refused;
        sum.failed += mine.failed;
    }
    sum
}

/// So many are asked a second, at times drawn as of a Poisson process, answered or not.
async fn open(actors: &[MeshAddr<Burner>], a_second: f64, lasts: Duration) -> Measured {
    let (done, mut ended) = mpsc::channel(100_000);
    let (begun, mut rng) = (Instant::now(), Seed::new(1).rng());
    let (counts_from, until) = (begun + lasts / 5, begun + lasts);
    let mut due = begun;
    let mut nth = 0;
    while due < until {
        due += Duration::from_secs_f64(rng.exponential(1.0 / a_second));
        until_due(due).await;
        let (actor, done, asked) = (actors[nth % actors.len()].clone(), done.clone(), due);
        nth += 1;
        tokio::spawn(async move {
            let outcome = actor.ask(Burn {}).await;
            // From when it was due: a generator that falls behind must not hide how long answers take.
            let took = asked.elapsed();
            if asked >= counts_from {
                done.send((outcome, took)).await.ok();
            }
        });
    }
    drop(done);
    let mut sum = Measured { lasted: lasts * 4 / 5, ..Measured::default() };
    while let Some((outcome, took)) = ended.recv().await {
        sum.count(outcome, took);
    }
    sum
}

/// Waits until then. A timer wakes within two milliseconds, which is longer than what is measured.
async fn until_due(due: Instant) {
    if let Some(early) = due.checked_sub(Duration::from_millis(3)) {
        sleep_until(early).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

async fn measure(data: &Path) -> anyhow::Result<ExitCode> {
    let client = Arc::new(MeshClient::new(&data.join("client"), Directory::read(data)?)?);
    let mesh = client.mesh();
    let actors: Vec<MeshAddr<Burner>> = (0..ACTORS).map(|key| mesh.actor(key)).collect();
    for actor in &actors {
        actor.ask(Burn {}).await?;
    }
    let mut cpu = Cpu::of(data)?;
    let mut peak = 0.0_f64;
    for at_once in AT_ONCE {
        cpu.begins();
        let mut measured = closed(&actors, at_once, LASTS).await;
        measured.cpu = cpu.since();
        measured.told(&format!("{at_once} at once, as fast as answered"));
        peak = peak.max(measured.goodput());
    }
    cpu.begins();
    let mut alone = open(&actors, peak / 10.0, LASTS).await;
    alone.cpu = cpu.since();
    alone.told("a tenth of the peak, open loop");
    cpu.begins();
    let mut twice = open(&actors, peak * 2.0, LASTS).await;
    twice.cpu = cpu.since();
    twice.told("twice the peak, open loop");
    client.close().await;
    let (kept, longer) = (twice.goodput() / peak, twice.p(99).as_secs_f64() / alone.p(99).as_secs_f64());
    println!("goodput at twice the peak: {:.0} % of it (bar: at least 90 %)", kept * 100.0);
    println!("p99 of what is let in: {longer:.1} times that at a tenth of the peak (bar: at most 3)");
    Ok(if kept >= 0.9 && longer <= 3.0 { ExitCode::SUCCESS } else { ExitCode::from(5) })
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("measure") {
        let data = arguments.next().ok_or_else(|| anyhow::anyhow!("overload measure DATA"))?;
        // On one thread, links and all: who waits for the next moment to ask would keep the core from another one, and
        // what it has asked would leave in bursts of milliseconds.
        let runtime = Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(measure(Path::new(&data)));
    }
    let node = rhumb::cli::serve::node_program(|node| node.host(burners()).host(listeners()));
    Ok(Runtime::new()?.block_on(node))
}
