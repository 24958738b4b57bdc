//! A node that nobody asks anything: its memory, its time on the processors; and how soon it is ready with
//! a gigabyte on its disk, after it was stopped in order.
//!
//! The gigabyte stands in the family of ranges' versions, which a start opens and does not
//! read. What a start does read, record by record, are holds and keys: those are not measured. What was just
//! written is in the machine's memory, where a start finds it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;
use rhumb::dev::DevMesh;
use rhumb_core::NodeId;
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, Family, RocksEngine, Store};

use super::{Effort, Work};
use crate::conditions::versions;
use crate::figures::{by_figure, outcome};
use crate::inside::Measured;
use crate::proc::{Cpu, resident};
use crate::sample::{Latencies, Load, Outcome, Unit, Verb};

/// A node that nobody asks anything.
pub const WORK: Work = Work {
    name: "idle-node",
    title: "An idle node: memory; processor time over 10 s",
    run: |scope| run(scope.effort).boxed_local(),
};

/// A node that is started.
pub const START: Work = Work {
    name: "start-node",
    title: "From a node's start to its readiness, after an ordered stop",
    run: |scope| start(scope.effort).boxed_local(),
};

const NODE: &str = "bench-node: what `rhumb serve` is, and five more actor types of which none is awake";
/// After how long a node that has started is idle: its ranges rest then.
const SETTLED: Duration = Duration::from_secs(12);
/// How long an idle node is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// What is on the disk: more than a start checks the blocks of.
const FULL: u64 = 1_000_000_000;
/// Bytes of a value; none of them can be compressed.
const VALUE: usize = 4_096;

fn node(mesh: &DevMesh) -> anyhow::Result<(NodeId, u32, PathBuf)> {
    let nodes = mesh.nodes();
    let node = nodes.first().context("a node")?;
    Ok((node.id(), node.pid, node.data.clone()))
}

/// What one look came to. It has no rate: `ops` is one.
fn looked(took: Duration) -> Measured {
    let mut latencies = Latencies::default();
    latencies.record_many(took.as_nanos() as u64, 1);
    Measured::of(latencies.sample(0, took.as_secs_f64()))
}

/// A node that has been up for a moment, for so long.
async fn idle(dir: &Path, long: Duration) -> anyhow::Result<Measured> {
    let mesh = crate::mesh::start(dir).await?;
    let (_, pid, _) = node(&mesh)?;
    tokio::time::sleep(SETTLED.min(long)).await;
    let (before, begin) = (Cpu::of(pid)?, Instant::now());
    tokio::time::sleep(long).await;
    let (ran, took) = (Cpu::of(pid)?.since(&before) as f64, begin.elapsed());
    let bytes = resident(pid)? as f64;
    mesh.stop().await;
    let percent = 100.0 * ran / 1e9 / took.as_secs_f64();
    Ok(looked(took).with("rss_mib", bytes / f64::from(1 << 20)).with("cpu_percent", percent))
}

/// Puts so many bytes into the store of a node that has been stopped.
fn fill(data: &Path, bytes: u64) -> anyhow::Result<()> {
    let path = hot_store(data)?;
    let engine = RocksEngine::open(&path, &RocksSettings::default(), false)?;
    let store = Store::open(engine)?;
    let mut serial = 0_u64;
    for _ in 0..bytes.div_ceil(1 << 20) {
        let mut batch = Batch::new();
        for _ in 0..(1 << 20) / VALUE {
            serial += 1;
            batch.put(Family::Mvcc, serial.to_be_bytes(), value(serial));
        }
        store.write(&batch)?;
    }
    store.sync()?;
    Ok(())
}

/// A value that no compressor makes smaller.
fn value(serial: u64) -> Vec<u8> {
    let mut word = serial;
    let mut next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 33) as u8
    };
    (0..VALUE).map(|_| next()).collect()
}

/// The directory of the hot store within a node's: the one that RocksDB has.
fn hot_store(data: &Path) -> anyhow::Result<PathBuf> {
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.join("CURRENT").exists() {
            return Ok(folder);
        }
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    anyhow::bail!("no RocksDB in {}", data.display())
}

/// Starts of a mesh whose node has been filled and stopped in order: from the spawn of its process to
/// its readiness.
async fn starts(dir: &Path, rounds: usize, bytes: u64) -> anyhow::Result<Vec<Measured>> {
    let first = crate::mesh::start(dir).await?;
    let (_, _, data) = node(&first)?;
    first.stop().await;
    tokio::task::spawn_blocking(move || fill(&data, bytes)).await??;
    // A start and an ordered stop after the filling, which was not the node's own.
    crate::mesh::start(dir).await?.stop().await;
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let begin = Instant::now();
        let mesh = crate::mesh::start(dir).await?;
        let ready = begin.elapsed();
        let (_, pid, _) = node(&mesh)?;
        let rss = resident(pid)? as f64 / f64::from(1 << 20);
        mesh.stop().await;
        measured.push(looked(ready).with("ready_ms", ready.as_secs_f64() * 1e3).with("rss_mib", rss));
    }
    Ok(measured)
}

/// Neither has a load: nobody asks anything.
const NOTHING: Load = Load { verb: Verb::Ask, concurrency: 0, payload: 0, millis: 0 };

async fn run(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let long = if effort.is_quick() { Duration::from_millis(effort.millis) } else { LOOK };
    let dir = tempfile::tempdir()?;
    let mut idled = Vec::new();
    for round in 0..effort.rounds {
        idled.push(idle(&dir.path().join(round.to_string()), long).await?);
        eprintln!("{}: round {} of {}", WORK.name, round + 1, effort.rounds);
    }
    Ok([("rss_mib", Unit::Mebibytes), ("cpu_percent", Unit::Percent)]
        .map(|(figure, unit)| told(WORK.name, "rhumb", &idled, NODE, figure, unit))
        .into())
}

async fn start(effort: Effort) -> anyhow::Result<Vec<Outcome>> {
    let bytes = if effort.is_quick() { 16_000_000 } else { FULL };
    let dir = tempfile::tempdir()?;
    let full = starts(&dir.path().join("full"), effort.rounds, bytes).await?;
    let empty = starts(&dir.path().join("empty"), effort.rounds, 0).await?;
    let note = format!(
        "{NODE}; {} MB of versions on its disk, no holds and no keys; the machine's memory has them",
        bytes / 1_000_000
    );
    let told = |system, rounds: &[Measured], note: &str| {
        told(START.name, system, rounds, note, "ready_ms", Unit::Millis)
    };
    Ok(vec![told("rhumb", &full, &note), told("rhumb-empty", &empty, NODE)])
}

fn told(work: &str, system: &str, rounds: &[Measured], note: &str, figure: &str, unit: Unit) -> Outcome {
    let all = outcome(work, system, NOTHING, rounds, note);
    // There are no operations: a look is none.
    let all = Outcome { ops_per_s: 0.0, p50_us: 0.0, p99_us: 0.0, versions: versions("rhumb"), ..all };
    by_figure(all, rounds, figure, unit)
}
