//! A learner that is fed by a near voter, or by a learner that is near it and far from all voters; directly, while that one is away or does
//! not reach it; and by it again.
//!
//! In the stories of [`world`](super::world) learners are fed among all other trouble. Here it is looked whether they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::rng::Seed;

use super::catalog::Catalog;
use super::clients::key;
use super::comparing::{hosts, puts};
use super::net::{self, MS, NOBODY, RANGE, SECOND, node_id, store_id};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::world::descriptor;
use crate::ranges::Descriptor;
use crate::ranges::catalog::{Change, Place};
use crate::ranges::host::Host;
use crate::ranges::raft::RaftSettings;

/// Writes of one part of the story.
const WRITES: usize = 30;

/// Who is where: nodes are in `us`, `eu` and `ap` in turn.
struct Cast {
    nodes: usize,
    voters: [usize; 3],
    learners: &'static [usize],
    /// The node that leads.
    leads: usize,
    /// The one that feeds.
    near: usize,
    /// The one that is fed.
    learns: usize,
}

/// A learner beside a voter; who leads is far from both.
const BY_A_VOTER: Cast = Cast { nodes: 4, voters: [0, 1, 2], learners: &[3], leads: 1, near: 0, learns: 3 };

/// Two learners of a region without a voter: one is sent to over the ocean, and the other one by that.
const BY_A_LEARNER: Cast =
    Cast { nodes: 6, voters: [0, 1, 3], learners: &[2, 5], leads: 1, near: 2, learns: 5 };

fn raft() -> RaftSettings {
    RaftSettings {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        snapshot_after: 5_000,
        forgives: false,
    }
}

fn until(net: &net::Shared, what: &str, is_so: impl Fn(&net::Shared) -> bool) -> Result<(), String> {
    let since = sim::now();
    while !is_so(net) {
        if sim::now() > since + 20 * SECOND {
            return Err(format!("not within 20 s: {what}; {}", positions(net)));
        }
        sim::run_until(sim::now() + 20 * MS);
        let net = net.lock();
        if let Some(why) =
            net.broken.clone().or_else(|| net.nodes.iter().find_map(|node| node.halted.clone()))
        {
            return Err(why);
        }
    }
    Ok(())
}

/// Where each node's replica is in the log.
fn positions(net: &net::Shared) -> String {
    let told = |(node, host): (usize, Host<SimRuntime>)| {
        let Some(group) = host.group(RANGE) else { return format!("node {node} has no replica") };
        let (last, applied, leads, ticks) = (group.last(), group.applied(), group.leads(), group.ticks());
        format!("node {node}: last {last:?}, applied {applied:?}, leads {leads}, ticks {ticks}")
    };
    hosts(net).into_iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Writes for a while, so that whoever leads hears of the others.
fn writes(net: &net::Shared) -> Result<(), String> {
    let done = Arc::new(AtomicBool::new(false));
    let (says, to) = (Arc::clone(&done), Arc::clone(net));
    sim::spawn_as(NOBODY, async move {
        for number in 0..WRITES {
            puts(Arc::clone(&to), key(number), 7).await;
            SimRuntime::sleep(Duration::from_millis(60)).await;
        }
        says.store(true, Ordering::Relaxed);
    });
    until(net, "all is written", |_| done.load(Ordering::Relaxed))
}

fn leads(net: &net::Shared, node: usize) -> bool {
    let all = hosts(net);
    let host = all.iter().find(|(number, _)| *number == node);
    host.and_then(|(_, host)| host.group(RANGE)).is_some_and(|group| group.leads())
}

/// Whether learners have all that the leader has.
fn have_all(net: &net::Shared, cast: &Cast, learners: &[usize]) -> bool {
    let all = hosts(net);
    let applied = |node: usize| {
        let host = all.iter().find(|(number, _)| *number == node);
        host.and_then(|(_, host)| host.group(RANGE)).and_then(|group| group.applied())
    };
    let leader = applied(cast.leads);
    leader.is_some() && learners.iter().all(|learner| leader <= applied(*learner))
}

fn seated(cast: &Cast) -> Descriptor {
    let seats = descriptor(cast.nodes).seats.into_iter();
    let seats = seats.enumerate().filter(|(node, _)| cast.voters.contains(node)).map(|(_, seat)| seat);
    Descriptor { seats: seats.collect(), ..descriptor(0) }
}

fn fed(net: &net::Shared) -> (u64, u64) {
    let fed = Arc::clone(&net.lock().feeding.fed);
    (fed.entries(), fed.failed())
}

fn story(seed: u64, cast: &Cast) -> Result<(), String> {
    let &Cast { leads: leader, near, learns, .. } = cast;
    sim::begin(seed);
    let net = net::of(cast.nodes, Seed::new(seed).child("feeding").rng());
    net.lock().feeding.distances = Some(net::distances());
    net.lock().raft = raft();
    (0..cast.nodes).for_each(|node| net::start(&net, node, raft()));
    sim::run_until(100 * MS);
    for (node, host) in hosts(&net).into_iter().filter(|(node, _)| cast.voters.contains(node)) {
        let descriptor = seated(cast);
        sim::spawn_as(node, async move { host.create(descriptor).await.expect("it is new") });
    }
    let place = |votes| move |node: &usize| Place { node: node_id(*node), store: store_id(*node), votes };
    let voters = cast.voters.iter().map(place(true));
    let mut catalog = Catalog::of(RANGE, seated(cast).seats);
    catalog.change(&Change::Begun(RANGE));
    let places = voters.chain(cast.learners.iter().map(place(false))).collect();
    assert!(catalog.change(&Change::Places { range: RANGE, places }), "learners are planned");
    net.lock().catalog = Some(catalog);
    let all = |net: &net::Shared| have_all(net, cast, cast.learners);
    writes(&net)?;
    until(&net, "the learners have what was written", all)?;
    until(&net, "the one that is far away leads", |net| {
        for (node, host) in hosts(net) {
            sim::spawn_as(node, async move {
                if node != leader && host.holds(RANGE).await {
                    drop(host.give_lease(RANGE, &node_id(leader)).await);
                }
            });
        }
        leads(net, leader)
    })?;
    // While it did not know the learner yet, the feeder may have been asked in vain.
    sim::run_until(sim::now() + 8 * SECOND);
    // The first ones may go directly: whoever feeds has to have been heard of.
    let feeds = |net: &net::Shared, part: &str| {
        let (before, _) = fed(net);
        writes(net)?;
        until(net, "the learner has it, as it is fed", all).map_err(|why| format!("{part}: {why}"))?;
        match fed(net).0 - before {
            enough if enough >= WRITES as u64 / 2 => Ok(()),
            few => Err(format!("{part}: only {few} entries of {WRITES} were fed")),
        }
    };
    feeds(&net, "in the beginning")?;

    net::crash(&net, near);
    writes(&net)?;
    until(&net, "the learner has it, as the feeder is down", |net| have_all(net, cast, &[learns]))?;
    let (_, failed) = fed(&net);
    net::start(&net, near, raft());
    sim::run_until(sim::now() + 8 * SECOND);
    feeds(&net, "when it is back")?;

    net.lock().cut.extend([(near, learns), (learns, near)]);
    writes(&net)?;
    until(&net, "the learner has it, as the feeder does not reach it", all)?;
    if fed(&net).1 <= failed {
        return Err("it was fed over a way that is cut".to_owned());
    }
    net.lock().cut.clear();
    sim::run_until(sim::now() + 8 * SECOND);
    feeds(&net, "when they reach each other")?;

    net.lock().cut.extend([(leader, learns), (learns, leader)]);
    feeds(&net, "when nothing comes from the leader itself")?;
    net.lock().cut = [(leader, near), (near, leader)].into();
    writes(&net)?;
    until(&net, "the learner has it, as the leader does not reach the feeder", |net| {
        have_all(net, cast, &[learns])
    })?;
    net.lock().cut.clear();
    sim::run_until(sim::now() + 8 * SECOND);
    feeds(&net, "when all reach each other")?;
    same_rows(&net)
}

fn tell(cast: &Cast) {
    for seed in 0..4 {
        let ended = story(seed, cast);
        sim::begin(0);
        ended.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn a_learner_is_fed_by_a_near_voter_and_directly_where_that_fails() {
    tell(&BY_A_VOTER);
}

#[test]
fn a_learner_is_fed_by_a_learner_and_directly_where_that_fails() {
    tell(&BY_A_LEARNER);
}
