//! Puts and follower reads of a mesh of three regions with the published round trips between them, one at a time, by a client
//! within the region of the node that it asks.
//!
//! The floor of a put is what nobody can do without: one round trip from the leaseholder's region to the nearest other one, and
//! a sync there. It is taken from the matrix and from what the nodes' own syncs took on the average in that round.

use std::time::Duration;

use futures::FutureExt;
use rhumb_core::NodeId;
use rhumb_topology::RegionMap;

use super::ranges::standing;
use super::{Scope, Work};
use crate::conditions::versions;
use crate::ranges::mesh::{REGIONS, Three};
use crate::ranges::standing::{How, UNSPLIT, done, round, space};
use crate::ranges::{Between, FILLED, Keeper, Order, VALUE, Verb};
use crate::sample::{Outcome, Sample, Unit};

/// This work.
pub const WORK: Work = Work {
    name: "range-wan",
    title: "Put and follower read of three regions, through the WAN relay: median",
    run: |scope| run(scope).boxed_local(),
};
/// A round is at least so long: a put takes a tenth of a second.
const AT_LEAST: u64 = 4_000;

/// What one round came to, in milliseconds; and operations that failed.
struct Round {
    put: Sample,
    floor_ms: f64,
    read: Sample,
}

/// One round trip to the nearest other region.
fn nearest(leader: &NodeId) -> anyhow::Result<Duration> {
    let map = RegionMap::default();
    let mut nearest = Duration::MAX;
    for region in REGIONS {
        let region = region.parse()?;
        if region != leader.region {
            let there_and_back =
                map.rtt(&leader.region, &region)? / 2 + map.rtt(&region, &leader.region)? / 2;
            nearest = nearest.min(there_and_back);
        }
    }
    Ok(nearest)
}

/// Counted from one look to another: the mean length of a sync, in milliseconds.
async fn mean_sync(three: &Three, before: (f64, f64)) -> anyhow::Result<f64> {
    let now = three.syncs().await?;
    let (count, seconds) = (now.0 - before.0, now.1 - before.1);
    Ok(if count > 0.0 { seconds * 1e3 / count } else { 0.0 })
}

async fn once(millis: u64) -> anyhow::Result<Round> {
    standing(Keeper::Rhumb, How { spaces: 1, between: Between::Wan, settings: UNSPLIT }, async |nodes, _| {
        let mut client = nodes.client(&nodes.leaders(0..1).await?).await?;
        done(&mut client, Order::Fill { keys: FILLED, bytes: VALUE }).await?;
        let three = nodes.three()?;
        let leader = three.holder(&space(0)).await?;
        let load = |verb| Order::Load { verb, concurrency: 1, millis };
        let before = three.syncs().await?;
        let put = round(&mut client, load(Verb::Put)).await?;
        let floor_ms = nearest(&leader)?.as_secs_f64() * 1e3 + mean_sync(three, before).await?;
        client.end().await;
        let mut client = nodes.client(&nodes.follower().await?).await?;
        let read = round(&mut client, load(Verb::Follower)).await?;
        client.end().await;
        Ok(Round { put, floor_ms, read })
    })
    .await
}

async fn run(scope: Scope) -> anyhow::Result<Vec<Outcome>> {
    let effort = scope.effort;
    let millis = if effort.is_quick() { effort.millis } else { effort.millis.max(AT_LEAST) };
    let mut rounds = Vec::new();
    for round in 0..effort.rounds {
        rounds.push(once(millis).await?);
        eprintln!("{}: round {} of {}", WORK.name, round + 1, effort.rounds);
    }
    let row = |system: &str, figure: fn(&Round) -> f64, failed: fn(&Round) -> u64, note: &str| Outcome {
        payload: VALUE,
        failed: rounds.iter().map(failed).sum(),
        versions: versions("rhumb"),
        ..Outcome::of_values(WORK.name, system, Unit::Millis, &rounds.iter().map(figure).collect::<Vec<_>>())
            .noted(note)
    };
    Ok(vec![
        row(
            "rhumb",
            |round| round.put.p50_us / 1e3,
            |round| round.put.failed,
            "the median put, asked of the leaseholder within its region",
        ),
        row(
            "floor",
            |round| round.floor_ms,
            |_| 0,
            "one round trip to the nearest other region by the matrix, and the mean sync of that round",
        ),
        row(
            "rhumb-follower",
            |round| round.read.p50_us / 1e3,
            |round| round.read.failed,
            "the median read within 5 s, asked of a node without the lease within its region",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_region_is_the_one_of_the_shortest_round_trip() {
        let from = |node: &str| nearest(&node.parse().expect("a node")).expect("the matrix has all regions");
        let (us, eu) = (from("us-east/n1"), from("eu-central/n1"));
        assert_eq!(us, eu, "they are each other's nearest");
        assert!(us > Duration::from_millis(50) && us < from("ap-southeast/n1"), "{us:?}");
    }
}
