//! Reads, 256 in flight: such as see all that was acknowledged before, of the node that may answer them; and such as may be five
//! seconds old, of another node, which has to answer them itself.

use futures::FutureExt;

use super::ranges::{in_turn, standing};
use super::{Scope, Work};
use crate::ranges::standing::{How, done, round};
use crate::ranges::{CONNECTIONS, FILLED, Keeper, Order, VALUE, Verb};
use crate::sample::{Load, Outcome, Sample, Verb as Ask};

/// This work.
pub const WORK: Work = Work {
    name: "range-read",
    title: "Reads of replicated keys: strong, and at a follower",
    run: |scope| run(scope).boxed_local(),
};
const IN_FLIGHT: usize = 256;

/// One round of one keeper: strong reads, and a follower's.
async fn once(keeper: Keeper, millis: u64) -> anyhow::Result<[Sample; 2]> {
    standing(keeper, How::near(1), async |nodes, _| {
        let mut at_leader = nodes.client(&nodes.leaders(0..1).await?).await?;
        done(&mut at_leader, Order::Fill { keys: FILLED, bytes: VALUE }).await?;
        let load = |verb| Order::Load { verb, concurrency: IN_FLIGHT, millis };
        let strong = round(&mut at_leader, load(Verb::Strong)).await?;
        at_leader.end().await;
        let mut at_follower = nodes.client(&nodes.follower().await?).await?;
        let follower = round(&mut at_follower, load(Verb::Follower)).await?;
        at_follower.end().await;
        Ok([strong, follower])
    })
    .await
}

fn what(keeper: Keeper, verb: usize) -> &'static str {
    match (keeper, verb) {
        (Keeper::Rhumb, 0) => "strong reads at the leaseholder",
        (Keeper::Rhumb, _) => "bounded=5s at a node that does not hold the lease, and that answers itself",
        (Keeper::Etcd, 0) => "linearizable ranges of one key at the leader",
        (Keeper::Etcd, _) => "serializable ranges of one key at a follower, of no stated age",
    }
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let millis = scope.effort.millis;
    let came = in_turn(WORK.name, &scope, async |keeper| once(keeper, millis).await).await?;
    let load = Load { verb: Ask::Ask, concurrency: IN_FLIGHT, payload: VALUE, millis };
    let mut outcomes = Vec::new();
    for (verb, suffix) in ["", "-follower"].into_iter().enumerate() {
        for keeper in &came {
            let samples: Vec<Sample> = keeper.rounds.iter().map(|round| round[verb]).collect();
            let name = format!("{}{suffix}", keeper.keeper.name());
            let note = format!("{}; {CONNECTIONS} connections; {FILLED} keys", what(keeper.keeper, verb));
            outcomes.push(keeper.told(Outcome::of(WORK.name, &name, load, &samples), &note));
        }
    }
    Ok(outcomes)
}
