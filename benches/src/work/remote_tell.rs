//! Tells between two processes on one machine, that an actor's handler counts. Its figure is how many
//! were handled in a second, from the first that is told until the other side says that all have been.
//!
//! Beside it: `failed`, of which the sender was told, and `lost`, of which nobody was. Rhumb's senders share one
//! `Teller` through a channel, as tonic's share 16 streams (one sender has one of them); what a tell costs that is waited for alone is
//! `rhumb-awaited`: with one sender a way there and back.

use futures::FutureExt;

use super::{Scope, Work, interleaved};
use crate::sample::{Load, Outcome, Verb};
use crate::systems::{OTHERWISE, System};

/// This work.
pub const WORK: Work = Work {
    name: "remote-tell",
    title: "Remote tell, through a mailbox",
    run: |scope| run(scope).boxed_local(),
};

const SYSTEMS: [System; 9] = [
    System::Rhumb,
    System::RhumbApart,
    System::RhumbAwaited,
    System::QuinnFramed,
    System::Tonic,
    System::Ractor,
    System::Kameo,
    System::Telepathy,
    System::Coerce,
];

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let load =
        |(concurrency, payload)| Load { verb: Verb::Tell, concurrency, payload, millis: scope.effort.millis };
    let loads = [(1, 64), (256, 64), (256, 1_024)].map(load);
    let systems = [scope.of(&SYSTEMS), scope.of(&OTHERWISE)].concat();
    let outcomes = interleaved(WORK.name, &systems, &loads, scope.effort.rounds).await?;
    Ok(outcomes.into_iter().map(waits).collect())
}

/// What whoever tells waits for.
fn waits(o: Outcome) -> Outcome {
    let waits = match o.system.as_str() {
        "rhumb" | "rhumb-apart" => {
            "a teller: each tell waits for room in a window of 512, and its sender learns what became of it"
        }
        "rhumb-awaited" => "each tell waits until the mailbox has it",
        "quinn-framed" => "written in batches of 64 KiB, counted by the loop; its senders are one",
        "tonic" | "tonic-one" => "messages of 16 client streams, counted by the service",
        _ => "each tell waits for nothing but its own queue",
    };
    let note = format!("{}; {waits}", o.note);
    o.noted(note)
}
