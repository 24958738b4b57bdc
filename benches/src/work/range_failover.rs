//! For how long nothing is acknowledged when a fault befalls the node that orders writes: killed, stopped, cut off from the
//! others. A client of another node sees it, which begins a write every ten milliseconds whatever becomes of those before.

use futures::FutureExt;

use super::ranges::{in_turn, standing};
use super::{Scope, Work};
use crate::ranges::gap::{EVERY, Gap};
use crate::ranges::standing::{Fault, How, done};
use crate::ranges::{Between, Keeper, Order, VALUE};
use crate::sample::{Outcome, Unit};

/// This work.
pub const WORK: Work = Work {
    name: "range-failover",
    title: "The node that orders writes is lost: nothing is acknowledged for so long",
    run: |scope| run(scope).boxed_local(),
};
/// Leases outlast the last word of a majority by as much as etcd waits before it elects.
const SETTINGS: &[(&str, &str)] = &[("RHUMB__RANGES__SPLIT_LOAD", "off"), ("RHUMB__RANGES__SUPPORT", "1s")];
const FAULTS: [(Fault, &str); 3] =
    [(Fault::Killed, "killed"), (Fault::Stopped, "stopped"), (Fault::CutOff, "cut")];

async fn once(keeper: Keeper, fault: Fault) -> anyhow::Result<Gap> {
    let between = if fault == Fault::CutOff { Between::Relays } else { Between::Nothing };
    standing(keeper, How { spaces: 1, between, settings: SETTINGS }, async |nodes, _| {
        let asked = nodes.follower().await?;
        let mut client = nodes.client(&asked).await?;
        done(&mut client, Order::Probe).await?;
        nodes.befall(fault, &asked).await?;
        client.tell(&Order::Faulted).await?;
        let gap = client.said().await?;
        client.end().await;
        Ok(gap)
    })
    .await
}

/// One round: every fault, each with nodes of its own.
async fn all(keeper: Keeper) -> anyhow::Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    for (fault, _) in FAULTS {
        gaps.push(once(keeper, fault).await?);
    }
    Ok(gaps)
}

fn note(keeper: Keeper, fault: Fault) -> String {
    let times = match keeper {
        Keeper::Rhumb => {
            "its nodes run with `ranges.support` 1s (3s unless set), against an election timeout of 1 s"
        }
        Keeper::Etcd => "its own settings: elections begin after 1 to 2 s, heartbeats every 100 ms",
    };
    let cut = match fault {
        Fault::CutOff => ", relays between the nodes, silence in both directions",
        _ => "",
    };
    format!("{times}{cut}; a write every {} ms", EVERY.as_millis())
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let came = in_turn(WORK.name, &scope, all).await?;
    let mut outcomes = Vec::new();
    for (number, (fault, called)) in FAULTS.into_iter().enumerate() {
        for keeper in &came {
            let gaps: Vec<Gap> = keeper.rounds.iter().map(|round| round[number]).collect();
            let millis: Vec<f64> = gaps.iter().map(|gap| gap.millis).collect();
            let name = format!("{}-{called}", keeper.keeper.name());
            let outcome = Outcome {
                payload: VALUE,
                at_least: gaps.iter().any(|gap| gap.at_least),
                failed: gaps.iter().map(|gap| gap.failed).sum(),
                ..Outcome::of_values(WORK.name, &name, Unit::Millis, &millis)
            };
            outcomes.push(keeper.told(outcome, &note(keeper.keeper, fault)));
        }
    }
    Ok(outcomes)
}
