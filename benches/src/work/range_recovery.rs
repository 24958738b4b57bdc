//! A node of three is killed with a gigabyte of a keyspace on its disk, and started again: how long until it answers reads from
//! its own replica, strong reads and writes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;

use super::ranges::standing;
use super::{Scope, Work};
use crate::conditions::versions;
use crate::figures::{by_figure, outcome};
use crate::inside::Measured;
use crate::ranges::standing::{How, done, space};
use crate::ranges::{Keeper, Order, drive, rhumb};
use crate::sample::{Latencies, Load, Outcome, Unit, Verb as Ask};

/// This work.
pub const WORK: Work = Work {
    name: "range-recovery",
    title: "From the start of a node that was killed with a gigabyte of a keyspace, until it serves",
    run: |scope| run(scope).boxed_local(),
};
/// Bytes of values.
const FULL: u64 = 1_000_000_000;
/// Of one value.
const EACH: u64 = 4_096;
/// How long it may take until it knows the keyspace.
const WITHIN: Duration = Duration::from_secs(120);
const SERVES: &str = "serves_ms";

/// Waits until a node serves a keyspace. At first it knows of none.
async fn served(dir: &Path, target: &str) -> anyhow::Result<()> {
    let until = Instant::now() + WITHIN;
    let clients = loop {
        match rhumb::spaces(dir, target).await {
            Ok(clients) => break clients,
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    drive::until_served(&**clients.first().context("a client")?).await
}

/// Kills one node after the other and starts it again; each that is killed has not been for the longest.
async fn all(rounds: usize, bytes: u64) -> anyhow::Result<Vec<Measured>> {
    standing(Keeper::Rhumb, How::near(1), async |nodes, dir| {
        let mut client = nodes.client(&nodes.leaders(0..1).await?).await?;
        done(&mut client, Order::Fill { keys: bytes / EACH, bytes: EACH as usize }).await?;
        client.end().await;
        let three = nodes.three()?;
        let mut measured = Vec::new();
        for round in 0..rounds {
            let ids: Vec<_> = three.mesh.nodes().iter().map(|node| node.id()).collect();
            let node = &ids[round % ids.len()];
            three.mesh.kill(node).await?;
            // The others go on without it.
            three.holder_without(&space(0), node).await?;
            let begin = Instant::now();
            three.mesh.start_again(node).await?;
            let ready = begin.elapsed();
            served(dir, &format!("{}@{node}", space(0))).await?;
            let serves = begin.elapsed();
            let mut latencies = Latencies::default();
            latencies.record_many(serves.as_nanos() as u64, 1);
            let sample = latencies.sample(0, serves.as_secs_f64());
            let ms = |took: Duration| took.as_secs_f64() * 1e3;
            measured.push(Measured::of(sample).with("ready_ms", ms(ready)).with(SERVES, ms(serves)));
            eprintln!("{}: round {} of {rounds}", WORK.name, round + 1);
        }
        Ok(measured)
    })
    .await
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let bytes = scope.effort.amount(FULL);
    let rounds = all(scope.effort.rounds, bytes).await?;
    let note = format!(
        "one of three nodes, killed with SIGKILL, {} MB of values of {EACH} bytes on its disk; until it answers a read \
         within 5 s from its own replica, a strong read and a put",
        bytes / 1_000_000
    );
    let load = Load { verb: Ask::Ask, concurrency: 0, payload: 0, millis: 0 };
    let all = outcome(WORK.name, Keeper::Rhumb.name(), load, &rounds, &note);
    let all = Outcome { ops_per_s: 0.0, p50_us: 0.0, p99_us: 0.0, versions: versions("rhumb"), ..all };
    Ok(vec![by_figure(all, &rounds, SERVES, Unit::Millis)])
}
