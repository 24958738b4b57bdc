//! A replica that was away for so long that the log was cut meanwhile: what it lacks was collected, or is its range's no more.

use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::rng::Seed;
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Record, VersionKey};

use super::catalog::{self, Catalog};
use super::clients::{key, on};
use super::net::{self, MS, NOBODY, RANGE, SECOND, node_id, store_id};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::world::descriptor;
use crate::ranges::Op;
use crate::ranges::catalog::Change;
use crate::ranges::raft::RaftSettings;

/// Keys that are there when it goes, and deleted when it comes back.
const KEYS: usize = 10;
/// One that is written all the time.
const OTHER: usize = 100;

pub(super) fn raft() -> RaftSettings {
    RaftSettings {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        snapshot_after: 20,
        forgives: false,
    }
}

pub(super) fn lasts(seconds: u64) {
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

/// A range of nodes 0 to 2, and one node more if `more` says so.
pub(super) fn begun(seed: u64, more: usize) -> net::Shared {
    sim::begin(seed);
    let net = net::of(3 + more, Seed::new(seed).child("behind").rng());
    (0..3 + more).for_each(|node| net::start(&net, node, raft()));
    sim::run_until(100 * MS);
    for node in 0..3 {
        let host = net.lock().nodes[node].host.clone().expect("it has started");
        sim::spawn_as(node, async move { host.create(descriptor(3)).await.expect("it is new") });
    }
    lasts(3);
    net
}

/// Its power is cut, and it begins anew.
fn again(net: &net::Shared, node: usize) {
    net::crash(net, node);
    net::start(net, node, raft());
    lasts(8);
}

/// How often a state was sent, and what is wrong in the end.
fn run(seed: u64) -> (usize, Result<(), String>) {
    let net = begun(seed, 0);
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

/// While node 2 is away its range is split, and the right-hand part moves to node 3. It comes back and is sent the left-hand
/// part's state: what is wrong in the end.
fn splits_meanwhile(seed: u64) -> Result<(), String> {
    let net = begun(seed, 1);
    net.lock().catalog = Some(Catalog::of(RANGE, descriptor(3).seats));
    let put = Record::put(7_u64.to_be_bytes());
    (0..KEYS).for_each(|number| write(&net, number, &put));
    lasts(2);
    net::crash(&net, 2);
    lasts(6);
    let mut rng = Seed::new(seed).child("split").rng();
    catalog::with_the_lease(&net, &mut rng, RANGE, Some(key(KEYS / 2)));
    lasts(3);
    let moved = {
        let mut net = net.lock();
        let catalog = net.catalog.as_mut().expect("there is one");
        let right = catalog.space.ranges.iter().find(|row| row.range != RANGE).map(|row| row.range);
        let range = right.ok_or("it was not split")?;
        catalog.change(&Change::Move { range, from: node_id(2), to: node_id(3), store: store_id(3) })
    };
    assert!(moved, "it was not planned");
    lasts(8);
    for node in [0, 1, 0, 1] {
        again(&net, node);
        (0..45).for_each(|_| write(&net, 0, &put));
    }
    net::start(&net, 2, raft());
    lasts(15);
    let same = same_rows(&net);
    let halted = net.lock().nodes.iter().find_map(|node| node.halted.clone());
    assert!(net.lock().snapshots > 0, "it caught up from the log");
    drop(net);
    sim::begin(0);
    halted.map_or(same, Err)
}

#[test]
fn of_keys_that_a_state_from_behind_a_split_lacks_no_rows_stay() {
    for seed in 0..3 {
        assert_eq!(splits_meanwhile(seed), Ok(()), "seed {seed}");
    }
}

#[cfg(feature = "canaries")]
#[test]
fn rows_that_stay_are_noticed() {
    use rhumb_core::canary::{self, Canary};

    canary::let_out(Some(Canary::LostKeysStay));
    let noticed = splits_meanwhile(0);
    canary::let_out(None);
    assert!(noticed.expect_err("rows stayed").contains("rows of no range"));
}
