//! A thousand ranges to which nobody writes and of which nobody reads: what they cost each of the three nodes that have a
//! replica of all of them.

use std::time::{Duration, Instant};

use futures::FutureExt;

use super::ranges::standing;
use super::{Scope, Work};
use crate::conditions::versions;
use crate::figures::{by_figure, outcome};
use crate::inside::Measured;
use crate::proc::{Cpu, resident};
use crate::ranges::Keeper;
use crate::ranges::mesh::Three;
use crate::ranges::standing::{How, space};
use crate::sample::{Latencies, Load, Outcome, Unit, Verb as Ask};

/// This work.
pub const WORK: Work = Work {
    name: "range-idle",
    title: "A thousand idle ranges: memory of a node; its processor time over 10 s",
    run: |scope| run(scope).boxed_local(),
};
const RANGES: u64 = 1_000;
/// How long nodes are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How long they may take until every range has a leaseholder.
const SETTLE: Duration = Duration::from_secs(180);

/// What the node costs that costs most.
async fn look(three: &Three, long: Duration) -> anyhow::Result<Measured> {
    let pids: Vec<u32> = three.mesh.nodes().iter().map(|node| node.pid).collect();
    let before: Vec<Cpu> = pids.iter().map(|pid| Cpu::of(*pid)).collect::<anyhow::Result<_>>()?;
    let begin = Instant::now();
    tokio::time::sleep(long).await;
    let took = begin.elapsed();
    let (mut percent, mut bytes) = (0.0_f64, 0);
    for (pid, before) in pids.iter().zip(&before) {
        let ran = Cpu::of(*pid)?.since(before) as f64;
        percent = percent.max(100.0 * ran / 1e9 / took.as_secs_f64());
        bytes = bytes.max(resident(*pid)?);
    }
    let mut latencies = Latencies::default();
    latencies.record_many(took.as_nanos() as u64, 1);
    let measured = Measured::of(latencies.sample(0, took.as_secs_f64()));
    Ok(measured.with("cpu_percent", percent).with("rss_mib", bytes as f64 / f64::from(1 << 20)))
}

/// Waits until every range has a leaseholder, or no longer.
async fn settle(three: &Three, ranges: usize) -> usize {
    let until = Instant::now() + SETTLE;
    loop {
        let held = three.held().await;
        if held >= ranges || Instant::now() > until {
            return held;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let ranges = usize::try_from(scope.effort.amount(RANGES))?;
    let long = if scope.effort.is_quick() { Duration::from_millis(scope.effort.millis) } else { LOOK };
    let rounds = scope.effort.rounds;
    let (held, rounds) = standing(Keeper::Rhumb, How::near(0), async |nodes, _| {
        let three = nodes.three()?;
        for number in 0..ranges {
            three.keyspace(&space(number)).await?;
            if (number + 1) % 100 == 0 {
                eprintln!("{}: {} ranges of {ranges}", WORK.name, number + 1);
            }
        }
        let held = settle(three, ranges).await;
        let mut measured = Vec::new();
        for round in 0..rounds {
            measured.push(look(three, long).await?);
            eprintln!("{}: round {} of {rounds}", WORK.name, round + 1);
        }
        Ok((held, measured))
    })
    .await?;
    let note = format!(
        "{ranges} keyspaces of one range, a replica of each on each of three nodes; {held} have a leaseholder; the node \
         that takes most"
    );
    let load = Load { verb: Ask::Ask, concurrency: 0, payload: 0, millis: 0 };
    let all = outcome(WORK.name, Keeper::Rhumb.name(), load, &rounds, &note);
    let all = Outcome { ops_per_s: 0.0, p50_us: 0.0, p99_us: 0.0, versions: versions("rhumb"), ..all };
    let figures = [("rss_mib", Unit::Mebibytes), ("cpu_percent", Unit::Percent)];
    Ok(figures.map(|(figure, unit)| by_figure(all.clone(), &rounds, figure, unit)).into())
}
