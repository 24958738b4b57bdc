//! A learner that is fed by a near voter; directly, while that one is away or does not reach it; and by it again.
//!
//! In the stories of [`world`](super::world) learners are fed among all other trouble. Here it is looked whether they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::rng::Seed;

use super::catalog::Catalog;
use super::comparing::{hosts, puts};
use super::net::{self, MS, NOBODY, RANGE, SECOND, node_id, store_id};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::world::{descriptor, key};
use crate::ranges::catalog::{Change, Place};
use crate::ranges::raft::RaftSettings;

/// Writes of one part of the story.
const WRITES: usize = 30;
/// The node that leads.
const LEADS: usize = 1;
/// The one that votes, near the learner's.
const NEAR: usize = 0;
/// The learner's.
const LEARNS: usize = 3;

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
            return Err(format!("not within 20 s: {what}"));
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

/// Whether the learner has all that the leader has.
fn has_all(net: &net::Shared) -> bool {
    let all = hosts(net);
    let applied = |node: usize| {
        let host = all.iter().find(|(number, _)| *number == node);
        host.and_then(|(_, host)| host.group(RANGE)).and_then(|group| group.applied())
    };
    applied(LEADS).is_some() && applied(LEADS) <= applied(LEARNS)
}

fn fed(net: &net::Shared) -> (u64, u64) {
    let fed = Arc::clone(&net.lock().feeding.fed);
    (fed.entries(), fed.failed())
}

fn story(seed: u64) -> Result<(), String> {
    sim::begin(seed);
    let net = net::of(4, Seed::new(seed).child("feeding").rng());
    net.lock().feeding.distances = Some(net::distances());
    net.lock().raft = raft();
    (0..4).for_each(|node| net::start(&net, node, raft()));
    sim::run_until(100 * MS);
    for (node, host) in hosts(&net).into_iter().take(3) {
        sim::spawn_as(node, async move { host.create(descriptor(3)).await.expect("it is new") });
    }
    let place = |node: usize| Place { node: node_id(node), store: store_id(node), votes: node != LEARNS };
    let mut catalog = Catalog::of(RANGE, descriptor(3).seats);
    catalog.change(&Change::Begun(RANGE));
    let learns = Change::Places { range: RANGE, places: (0..4).map(place).collect() };
    assert!(catalog.change(&learns), "a learner is planned");
    net.lock().catalog = Some(catalog);
    writes(&net)?;
    until(&net, "the learner has what was written", has_all)?;
    until(&net, "the one that is far away leads", |net| {
        for (node, host) in hosts(net) {
            sim::spawn_as(node, async move {
                if node != LEADS && host.holds(RANGE).await {
                    drop(host.give_lease(RANGE, &node_id(LEADS)).await);
                }
            });
        }
        leads(net, LEADS)
    })?;
    // The first ones may go directly: whoever feeds has to have been heard of.
    let feeds = |net: &net::Shared, part: &str| {
        let (before, _) = fed(net);
        writes(net)?;
        until(net, "the learner has it, as it is fed", has_all)?;
        match fed(net).0 - before {
            enough if enough >= WRITES as u64 / 2 => Ok(()),
            few => Err(format!("{part}: only {few} entries of {WRITES} were fed")),
        }
    };
    feeds(&net, "in the beginning")?;

    net::crash(&net, NEAR);
    writes(&net)?;
    until(&net, "the learner has it, as the feeder is down", has_all)?;
    let (_, failed) = fed(&net);
    net::start(&net, NEAR, raft());
    sim::run_until(sim::now() + 8 * SECOND);
    feeds(&net, "when it is back")?;

    net.lock().cut.extend([(NEAR, LEARNS), (LEARNS, NEAR)]);
    writes(&net)?;
    until(&net, "the learner has it, as the feeder does not reach it", has_all)?;
    if fed(&net).1 <= failed {
        return Err("it was fed over a way that is cut".to_owned());
    }
    net.lock().cut.clear();
    sim::run_until(sim::now() + 8 * SECOND);
    feeds(&net, "when they reach each other")?;
    same_rows(&net)
}

#[test]
fn a_learner_is_fed_by_a_near_voter_and_directly_where_that_fails() {
    for seed in 0..4 {
        let ended = story(seed);
        sim::begin(0);
        assert_eq!(ended, Ok(()), "seed {seed}");
    }
}
