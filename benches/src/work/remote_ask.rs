//! Asks between two processes on one machine, of 64 bytes and answered with the same.

use futures::FutureExt;

use super::{Scope, Work, interleaved};
use crate::sample::{Load, Outcome, Verb};
use crate::systems::{OTHERWISE, System};

/// This work.
pub const WORK: Work =
    Work { name: "remote-ask", title: "Remote ask, two processes", run: |scope| run(scope).boxed_local() };

const SYSTEMS: [System; 9] = [
    System::Rhumb,
    System::RhumbApart,
    System::QuinnFramed,
    System::QuinnStreams,
    System::Tonic,
    System::Ractor,
    System::Kameo,
    System::Telepathy,
    System::Coerce,
];

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let load = |concurrency| Load { verb: Verb::Ask, concurrency, payload: 64, millis: scope.effort.millis };
    let systems = [scope.of(&SYSTEMS), scope.of(&OTHERWISE)].concat();
    interleaved(WORK.name, &systems, &[1, 16, 256].map(load), scope.effort.rounds).await
}
