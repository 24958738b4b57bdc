//! A replica that was away for so long that the log was cut meanwhile, and what it lacks was collected.

use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::rng::Seed;
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Record, VersionKey};

use super::net::{self, MS, NOBODY, RANGE, SECOND};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::world::{descriptor, key, on};
use crate::ranges::Op;
use crate::ranges::raft::RaftSettings;

/// Keys that are there when it goes, and deleted when it comes back.
const KEYS: usize = 10;
/// One that is written all the time.
const OTHER: usize = 100;

fn raft() -> RaftSettings {
    RaftSettings {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        snapshot_after: 20,
        forgives: false,
    }
}

fn lasts(seconds: u64) {
    sim::run_until(sim::now() + seconds * SECOND);
}

/// Writes a key, wherever that can be done.
fn write(net: &net::Shared, number: usize, record: &Record) {
    let written = Arc::new(Mutex::new(false));
    let (done, net, record) = (Arc::clone(&written), Arc::clone(net), record.clone());
    sim::spawn_as(NOBODY, async move {
        for node in (0..3).cycle() {
            let host = net.lock().nodes[node].host.clone();
            if let Some(host) = host {
                let op = Op { key: key(number), condition: None, record: record.clone() };
                let wrote = async move { host.write(RANGE, vec![op]).await.is_ok() };
                if on(node, wrote, Duration::from_secs(1)).await == Some(true) {
                    break;
                }
            }
            SimRuntime::sleep(Duration::from_millis(10)).await;
        }
        *done.lock() = true;
    });
    let until = sim::now() + 30 * SECOND;
    while !*written.lock() {
        assert!(sim::now() < until, "nobody writes");
        sim::run_until(sim::now() + 5 * MS);
    }
}

/// Its power is cut, and it begins anew.
fn again(net: &net::Shared, node: usize) {
    net::crash(net, node);
    net::start(net, node, raft());
    lasts(8);
}

/// How often a state was sent, and what is wrong in the end.
fn run(seed: u64) -> (usize, Result<(), String>) {
    sim::begin(seed);
    let net = net::of(3, Seed::new(seed).child("behind").rng());
    (0..3).for_each(|node| net::start(&net, node, raft()));
    sim::run_until(100 * MS);
    for node in 0..3 {
        let host = net.lock().nodes[node].host.clone().expect("it has started");
        sim::spawn_as(node, async move { host.create(descriptor(3)).await.expect("it is new") });
    }
    lasts(3);
    let put = Record::put(7_u64.to_be_bytes());
    (0..KEYS).for_each(|number| write(&net, number, &put));
    lasts(2);
    net::crash(&net, 2);
    (0..KEYS).for_each(|number| write(&net, number, &Record::deleted()));
    (0..60).for_each(|_| write(&net, OTHER, &put));
    lasts(6);
    // Whoever leads keeps the log for who is away; whoever follows cuts it. Both do both, by and by.
    for node in [0, 1, 0, 1] {
        again(&net, node);
        (0..45).for_each(|_| write(&net, OTHER, &put));
    }
    net::start(&net, 2, raft());
    lasts(15);
    let halted = net.lock().nodes.iter().find_map(|node| node.halted.clone());
    let same = halted.map_or_else(|| same_rows(&net), Err).and_then(|()| {
        let host = net.lock().nodes[2].host.clone().expect("it serves");
        let rows = host.rows(Family::Mvcc);
        let keys = rows.iter().map(|(row, _)| VersionKey::decode(row).expect("a version").key);
        match keys.filter(|found| *found != key(OTHER)).count() {
            0 => Ok(()),
            left => Err(format!("{left} versions of keys are left that were deleted")),
        }
    });
    let snapshots = net.lock().snapshots;
    drop(net);
    sim::begin(0);
    (snapshots, same)
}

#[test]
fn a_replica_that_was_away_is_sent_rows_and_nothing_comes_back_that_was_deleted() {
    let mut sent = 0;
    for seed in 0..5 {
        let (snapshots, same) = run(seed);
        assert_eq!(same, Ok(()), "seed {seed}");
        sent += snapshots;
    }
    assert!(sent > 0, "it always caught up from the log");
}

#[cfg(feature = "canaries")]
#[test]
fn what_comes_back_is_noticed() {
    use rhumb_core::canary::{self, Canary};

    canary::let_out(Some(Canary::CollectedComesBack));
    let noticed = (0..5).any(|seed| run(seed).1.is_err());
    canary::let_out(None);
    assert!(noticed, "a key that was deleted came back on a replica");
}
