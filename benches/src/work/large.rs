//! Asks with 1 MiB each way. Its figure is megabytes of answers in a second; as many go the other way.

use futures::FutureExt;

use super::{Scope, Work, interleaved};
use crate::sample::{Load, Outcome, Unit, Verb};
use crate::systems::System;

/// This work.
pub const WORK: Work =
    Work { name: "large", title: "1 MiB each way, two processes", run: |scope| run(scope).boxed_local() };

const SYSTEMS: [System; 3] = [System::Rhumb, System::QuinnStreams, System::Tonic];
const BYTES: usize = 1 << 20;

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let load =
        |concurrency| Load { verb: Verb::Ask, concurrency, payload: BYTES, millis: scope.effort.millis };
    let outcomes =
        interleaved(WORK.name, &scope.of(&SYSTEMS), &[1, 4].map(load), scope.effort.rounds).await?;
    Ok(outcomes.into_iter().map(|o| o.valued(BYTES as f64 / 1e6, Unit::Megabytes)).collect())
}
