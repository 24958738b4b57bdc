//! How long it takes until every pending ask has a typed fault, when the process that serves is stopped
//! in the midst of them. Nobody gives an ask a deadline of their own: what is measured is what a system
//! does by itself. Its figure is milliseconds from the stop to the last fault; at [`CAP`] the round is
//! cut off. `failed` are the faults, each an error of the type that the system gives to whoever asks; `lost` are the asks
//! that had none by then.
//!
//! Each round has systems of its own, and all of a round's are frozen at once: nobody computes anything
//! meanwhile.

use futures::FutureExt;
use futures::future::join_all;

use super::{Scope, Standing, Work};
use crate::sample::{Load, Outcome, Sample, Unit, Verb};
use crate::systems::System;

/// This work.
pub const WORK: Work = Work {
    name: "frozen-peer",
    title: "Frozen peer, until all of 64 asks have a fault",
    run: |scope| run(scope).boxed_local(),
};

const SYSTEMS: [System; 6] =
    [System::Rhumb, System::Tonic, System::Ractor, System::Kameo, System::Telepathy, System::Coerce];
const PENDING: usize = 64;
/// A fault that has not come by then does not come, for whoever waits.
const CAP: u64 = 15_000;

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let systems = scope.of(&SYSTEMS);
    let mut samples = vec![Vec::new(); systems.len()];
    for round in 0..scope.effort.rounds {
        // One that fails does not leave the others frozen.
        let frozen = join_all(systems.iter().map(|system| freeze(*system))).await;
        for (all, sample) in samples.iter_mut().zip(frozen) {
            all.push(sample?);
        }
        eprintln!("{}: round {} of {}", WORK.name, round + 1, scope.effort.rounds);
    }
    Ok(systems.iter().zip(&samples).map(|(system, samples)| outcome(*system, samples)).collect())
}

async fn freeze(system: System) -> anyhow::Result<Sample> {
    let dir = tempfile::tempdir()?;
    let mut standing = Standing::start(system, dir.path()).await?;
    let pid = standing.serving()?;
    let load = Load { verb: Verb::Freeze { pid }, concurrency: PENDING, payload: 64, millis: CAP };
    let sample = standing.round(load).await;
    // It is ended in order, and whatever the round said.
    crate::process::signal(pid, crate::process::Freezing::Continue)?;
    standing.stop().await;
    sample
}

fn outcome(system: System, samples: &[Sample]) -> Outcome {
    let millis: Vec<_> = samples.iter().map(|sample| sample.seconds * 1e3).collect();
    let lost: u64 = samples.iter().map(|sample| sample.lost).sum();
    let by_default = match system {
        System::Rhumb => "; a fault is a `Fault`",
        System::Tonic => "; by default: no keep-alive, no timeout; a fault is a `Status`",
        System::Ractor => "; a fault is a `RactorErr`",
        System::Kameo => "; its network timeout; a fault is a `RemoteSendError`",
        System::Telepathy => "; it has no ask, and no fault: nothing tells those who wait",
        System::Coerce => "; a fault is an `ActorRefErr`",
        _ => "",
    };
    let never =
        if lost > 0 { format!("; {lost} asks had no fault in {} s", CAP / 1_000) } else { String::new() };
    let outcome = Outcome::of_values(WORK.name, system.name(), Unit::Millis, &millis);
    Outcome {
        concurrency: PENDING,
        payload: 64,
        at_least: samples.iter().any(|sample| sample.lost > 0),
        failed: samples.iter().map(|sample| sample.failed).sum(),
        lost,
        note: format!("{}{by_default}{never}", system.note()),
        ..outcome
    }
}
