//! Puts that a majority of three nodes has synced, asked of the node that orders them; and how often all three disks together
//! are synced for one.

use anyhow::Context;
use futures::FutureExt;

use super::ranges::{by_load, in_turn, standing};
use super::{Scope, Work};
use crate::figures::outcome;
use crate::inside::Measured;
use crate::ranges::standing::{How, round};
use crate::ranges::{CONNECTIONS, Keeper, Order, VALUE, Verb};
use crate::sample::{Load, Outcome, Verb as Ask, median};

/// This work.
pub const WORK: Work = Work {
    name: "range-put",
    title: "Durable replicated put of 256 bytes, three nodes",
    run: |scope| run(scope).boxed_local(),
};
const LOADS: [usize; 4] = [1, 16, 64, 256];
/// The figure beside the rates.
pub(super) const SYNCS: &str = "fsyncs_a_put";

/// One round of one keeper, all its loads.
async fn once(keeper: Keeper, millis: u64) -> anyhow::Result<Vec<Measured>> {
    standing(keeper, How::near(1), async |nodes, _| {
        let mut client = nodes.client(&nodes.leaders(0..1).await?).await?;
        let mut measured = Vec::new();
        for concurrency in LOADS {
            let before = nodes.syncs().await?;
            let order = Order::Load { verb: Verb::Put, concurrency, millis };
            let sample =
                round(&mut client, order).await.with_context(|| format!("{concurrency} in flight"))?;
            let syncs = nodes.syncs().await? - before;
            measured.push(Measured::of(sample).with(SYNCS, per_put(syncs, sample.ops, sample.seconds)));
        }
        client.end().await;
        Ok(measured)
    })
    .await
}

/// Syncs are counted over the whole round; puts only after its beginning, which is a tenth of a second long.
pub(super) fn per_put(syncs: f64, puts: u64, seconds: f64) -> f64 {
    let all = puts as f64 * (seconds + 0.1) / seconds.max(0.001);
    if all > 0.0 { syncs / all } else { 0.0 }
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let millis = scope.effort.millis;
    let came = in_turn(WORK.name, &scope, async |keeper| once(keeper, millis).await).await?;
    let mut outcomes = Vec::new();
    for (number, concurrency) in LOADS.into_iter().enumerate() {
        for keeper in &came {
            let of = |number: usize| keeper.rounds.iter().map(|r| r[number].clone()).collect::<Vec<_>>();
            let syncs = |number| median(&of(number).iter().map(|one| one.figures[SYNCS]).collect::<Vec<_>>());
            let told = by_load(
                "fsyncs a put, of all three disks together:",
                LOADS.into_iter().enumerate().map(|(number, load)| (load, syncs(number))),
            );
            let load = Load { verb: Ask::Ask, concurrency, payload: VALUE, millis };
            let outcome = outcome(WORK.name, keeper.keeper.name(), load, &of(number), "");
            let note = format!("{CONNECTIONS} connections to the node that orders writes; {told}");
            outcomes.push(keeper.told(outcome, &note));
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_round_counts_for_syncs_and_for_puts() {
        assert!((per_put(330.0, 1_000, 1.0) - 0.3).abs() < 1e-9);
        assert_eq!(per_put(10.0, 0, 1.0), 0.0);
    }
}
