//! Puts to eight ranges, each a keyspace of its own, beside puts to one: the same nodes, the same client, the same number of
//! puts in flight.

use futures::FutureExt;

use super::range_put::{SYNCS, per_put};
use super::ranges::{Came, by_load, in_turn, standing};
use super::{Scope, Work};
use crate::figures::outcome;
use crate::inside::Measured;
use crate::ranges::standing::{How, round};
use crate::ranges::{CONNECTIONS, Keeper, Order, VALUE, Verb};
use crate::sample::{Load, Outcome, Verb as Ask, median};

/// This work.
pub const WORK: Work = Work {
    name: "range-8",
    title: "Durable replicated put: one range, and eight",
    run: |scope| run(scope).boxed_local(),
};
const LOADS: [usize; 2] = [64, 256];
const EIGHT: usize = 8;
const NAMES: [&str; 2] = ["rhumb", "rhumb-8"];

/// One round: for each load one range, then eight.
async fn once(millis: u64) -> anyhow::Result<Vec<[Measured; 2]>> {
    standing(Keeper::Rhumb, How::near(EIGHT + 1), async |nodes, _| {
        let mut one = nodes.client(&nodes.leaders(0..1).await?).await?;
        let mut eight = nodes.client(&nodes.leaders(1..EIGHT + 1).await?).await?;
        let mut measured = Vec::new();
        for concurrency in LOADS {
            let order = Order::Load { verb: Verb::Put, concurrency, millis };
            let mut both = Vec::new();
            for client in [&mut one, &mut eight] {
                let before = nodes.syncs().await?;
                let sample = round(client, order).await?;
                let syncs = nodes.syncs().await? - before;
                both.push(Measured::of(sample).with(SYNCS, per_put(syncs, sample.ops, sample.seconds)));
            }
            measured.push(both.try_into().expect("two"));
        }
        one.end().await;
        eight.end().await;
        Ok(measured)
    })
    .await
}

fn told(came: &Came<Vec<[Measured; 2]>>, number: usize, which: usize, millis: u64) -> Outcome {
    let of = |number: usize| came.rounds.iter().map(|r| r[number][which].clone()).collect::<Vec<_>>();
    let syncs = |number| median(&of(number).iter().map(|one| one.figures[SYNCS]).collect::<Vec<_>>());
    let syncs = LOADS.into_iter().enumerate().map(|(number, load)| (load, syncs(number)));
    let load = Load { verb: Ask::Ask, concurrency: LOADS[number], payload: VALUE, millis };
    let outcome = outcome(WORK.name, NAMES[which], load, &of(number), "");
    let ranges = if which == 0 { "one range" } else { "eight ranges, their leases where they happen to be" };
    let syncs = by_load("fsyncs a put, of all three disks together:", syncs);
    came.told(
        outcome,
        &format!("{ranges}; {CONNECTIONS} connections to each node that orders writes; {syncs}"),
    )
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let millis = scope.effort.millis;
    let ours = Scope { only: vec![Keeper::Rhumb.name().to_owned()], ..scope };
    let came = in_turn(WORK.name, &ours, async |_| once(millis).await).await?;
    let rows = (0..LOADS.len()).flat_map(|number| [(number, 0), (number, 1)]);
    Ok(rows.flat_map(|(number, which)| came.iter().map(move |c| told(c, number, which, millis))).collect())
}
