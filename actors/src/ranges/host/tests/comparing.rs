//! Rows that are made wrong behind all checksums: the comparison of replicas finds them, and the replica is rebuilt.
//!
//! In the stories of [`world`](super::world) rows of a key that no client reads are made wrong among all other trouble: until it is found,
//! nobody can promise what is read. Here clients read the key itself, at the replica that is wrong.

use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::rng::{Rng, Seed};
use rhumb_storage::Family;
use rhumb_storage::mvcc::{Limit, Record, UserKey, VersionKey};

use super::catalog::{Catalog, SPACE};
use super::clients::{key, on};
use super::net::{self, MS, NOBODY, RANGE, SECOND};
use super::sim::{self, SimRuntime};
use super::world::descriptor;
use crate::ranges::comparing::Verdict;
use crate::ranges::host::{Host, Noticed, Rowed};
use crate::ranges::raft::RaftSettings;
use crate::ranges::{Ask, Consistency, Op, RangeId, ReplicaId};

/// A key that no client of a story reads or writes.
const QUIET: usize = 60_000;
/// How long something takes at most that is tried again and again.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn hosts(net: &net::Shared) -> Vec<(usize, Host<SimRuntime>)> {
    let net = net.lock();
    let nodes = net.nodes.iter().enumerate();
    nodes.filter_map(|(number, node)| Some((number, node.host.clone()?))).collect()
}

/// Writes a key wherever that can be done: until it is written.
pub(super) async fn puts(net: net::Shared, key: UserKey, value: u64) {
    puts_record(net, key, Record::put(value.to_be_bytes())).await;
}

async fn puts_record(net: net::Shared, key: UserKey, record: Record) {
    loop {
        for (node, host) in hosts(&net) {
            let Some(range) = host.range_of(SPACE, &key) else { continue };
            let op = Op { key: key.clone(), condition: None, record: record.clone() };
            let written = on(node, async move { host.write(range, vec![op]).await }, PATIENCE).await;
            if written.is_some_and(|written| written.is_ok()) {
                return;
            }
        }
        SimRuntime::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn writes_quiet_key(net: &net::Shared) {
    sim::spawn_as(NOBODY, puts(Arc::clone(net), key(QUIET), 1));
}

/// Whether nothing is wrong as far as a story has made it so: all nodes run and have room, none has a replica that is not to be believed, and all
/// have the same under the quiet key. Of three replicas two that are wrong, or one that is and one whose disk is lost, are more than is
/// promised.
pub(super) fn is_well(net: &net::Shared) -> bool {
    if !all_run(net) {
        return false;
    }
    let all = hosts(net);
    let values: Vec<_> = all.iter().flat_map(|(_, host)| wrong(host, &key(QUIET))).collect();
    let believed = |host: &Host<SimRuntime>| host.quarantines().is_empty() && host.doubted().is_empty();
    all.len() == net.lock().nodes.len()
        && all.iter().all(|(_, host)| believed(host))
        && values.len() >= 3
        && values.iter().all(|(_, value)| *value == values[0].1)
}

/// Whether no node stands still or lacks room: what is to be written there is written at once.
fn all_run(net: &net::Shared) -> bool {
    net.lock().nodes.iter().all(|node| node.still_until.is_none() && !node.full)
}

/// Makes the quiet key wrong on a node, where that is to be and nothing is wrong yet.
pub(super) fn spoils(net: &net::Shared, rng: &mut Rng) -> bool {
    if !net.lock().spoiled || !rng.chance(0.2) {
        return false;
    }
    let Some((node, host)) = rng.pick(&hosts(net)).cloned().filter(|_| all_run(net)) else { return false };
    let row = wrong(&host, &key(QUIET)).pop();
    let Some((row, _)) = row.filter(|_| is_well(net)) else { return false };
    let value = Record::put(rng.below(u64::MAX).to_be_bytes()).encode(&row);
    sim::spawn_as(node, async move { host.spoil(Family::Mvcc, vec![(row, value)]).await });
    true
}

/// The rows of a key on a node.
pub(super) fn wrong(host: &Host<SimRuntime>, key: &UserKey) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = host.rows(Family::Mvcc).into_iter();
    rows.filter(|(row, _)| VersionKey::decode(row).is_ok_and(|version| version.key == *key)).collect()
}

/// Waits for something of a future that a node runs.
pub(super) fn now<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let found = Arc::new(Mutex::new(None));
    let at = Arc::clone(&found);
    sim::spawn_as(NOBODY, async move { *at.lock() = Some(work.await) });
    sim::run_until(sim::now());
    found.lock().take()
}

/// Three nodes and a range that is written, until all is well with it.
pub(super) fn begins(seed: u64) -> Result<net::Shared, String> {
    sim::begin(seed);
    let rng = Seed::new(seed).child("comparing");
    let net = net::of(3, rng.child("net").rng());
    let raft = RaftSettings {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(800),
        snapshot_after: 5_000,
        forgives: false,
    };
    (0..3).for_each(|node| net::start(&net, node, raft));
    sim::run_until(100 * MS);
    for (node, host) in hosts(&net) {
        sim::spawn_as(node, async move { host.create(descriptor(3)).await.expect("it is new") });
    }
    net.lock().raft = raft;
    net.lock().catalog = Some(Catalog::of(RANGE, descriptor(3).seats));
    for number in 0..20 {
        sim::spawn_as(NOBODY, puts(Arc::clone(&net), key(number), 7));
    }
    // Writes go on, and now and then a node does not hear of them for a while: its comparisons come late.
    let writer = Arc::clone(&net);
    sim::spawn_as(NOBODY, async move {
        for value in 0.. {
            puts(Arc::clone(&writer), key(100 + value % 5), value as u64).await;
            SimRuntime::sleep(Duration::from_millis(60)).await;
        }
    });
    let mut cuts = rng.child("cuts").rng();
    while sim::now() < 16 * SECOND {
        sim::run_until(sim::now() + 2_500 * MS);
        well(&net)?;
        let mut net = net.lock();
        net.cut.clear();
        let away = cuts.below(3) as usize;
        if cuts.chance(0.7) {
            net.cut.extend([(away, (away + 1) % 3), (away, (away + 2) % 3)]);
            net.cut.extend([((away + 1) % 3, away), ((away + 2) % 3, away)]);
        }
    }
    net.lock().cut.clear();
    sim::run_until(sim::now() + 4 * SECOND);
    well(&net)?;
    Ok(net)
}

/// One of a range's followers becomes wrong. What is promised of that and does not come, if something.
fn story(seed: u64) -> Result<(), String> {
    is_found(&begins(seed)?)
}

/// A bit of the last entry of a node's log flips while the node is down.
fn entry_story(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let node = (seed % 3) as usize;
    let host = net.lock().nodes[node].host.clone().ok_or("it is not up")?;
    let old = host.group(RANGE).ok_or("it has no replica")?.id();
    let prefix = [b"l".as_slice(), &RANGE.0.to_be_bytes()].concat();
    let mut entries = host.rows(Family::Raft).into_iter().filter(|(row, _)| row.starts_with(&prefix));
    let (row, mut value) = entries.next_back().ok_or("its log is empty")?;
    let at = value.len() / 2;
    value[at] ^= 4;
    net.lock().spoiled = true;
    sim::spawn_as(node, async move { host.spoil(Family::Raft, vec![(row, value)]).await });
    sim::run_until(sim::now() + 30 * MS);
    net::crash(&net, node);
    let raft = net.lock().raft;
    net::start(&net, node, raft);
    sim::run_until(sim::now() + 20 * SECOND);
    well(&net)?;
    let noticed = net.lock().noticed.clone();
    let found = noticed
        .iter()
        .any(|(_, at, _, what)| *at == node && matches!(what, Noticed::Damaged { on_the_way: false, .. }));
    let new = net.lock().nodes[node].host.as_ref().and_then(|host| host.group(RANGE)).map(|group| group.id());
    let rebuilt = new.is_some_and(|new| {
        noticed.iter().any(|(_, at, _, what)| *at == node && *what == Noticed::Rebuilt { old, new })
    });
    if !found || !rebuilt {
        return Err(format!("found: {found}; replica {old} became {new:?}, rebuilt: {rebuilt}"));
    }
    let host = net.lock().nodes[node].host.clone().ok_or("it is not up")?;
    if reads(&host, &key(3)) == Some(7) {
        Ok(())
    } else {
        Err("it does not show what was written".to_owned())
    }
}

pub(super) fn well(net: &net::Shared) -> Result<(), String> {
    let net = net.lock();
    let halted = net.nodes.iter().find_map(|node| node.halted.clone());
    net.broken.clone().or(halted).map_or(Ok(()), Err)
}

fn is_found(net: &net::Shared) -> Result<(), String> {
    let all = hosts(net);
    let follows = all.iter().find(|(_, host)| {
        let host = host.clone();
        now(async move { host.holds(RANGE).await }) == Some(false)
    });
    let (node, host) = follows.cloned().ok_or("nobody follows")?;
    let group = host.group(RANGE).ok_or("a node has no replica")?;
    let old = group.id();
    let (row, before) = wrong(&host, &key(3)).pop().ok_or("the key is not there")?;
    let spoiled = Record::put(666_u64.to_be_bytes()).encode(&row);
    net.lock().spoiled = true;
    let (spoils, there) = (host.clone(), (row.clone(), spoiled.clone()));
    now(async move { spoils.spoil(Family::Mvcc, vec![there]).await });
    sim::run_until(sim::now() + 30 * MS);
    assert_eq!(wrong(&host, &key(3)), [(row.clone(), spoiled)], "it is wrong, and no checksum says so");
    let since = sim::now();
    while sim::now() < since + 20 * SECOND {
        sim::run_until(sim::now() + 50 * MS);
        well(net)?;
        let noticed = net.lock().noticed.clone();
        let quarantined = noticed.iter().any(|(_, at, range, noticed)| {
            *at == node
                && *range == RANGE
                && matches!(noticed, Noticed::Quarantined { replica, .. } if *replica == old)
        });
        let seen = reads(&host, &key(3));
        if quarantined && seen == Some(666) {
            return Err("a replica that is quarantined answers, and what it says is wrong".to_owned());
        }
    }
    let noticed = net.lock().noticed.clone();
    let odd = noticed.iter().any(|(_, _, _, noticed)| {
        matches!(noticed, Noticed::Compared(checked) if checked.verdict == Verdict::Odd([old].into()))
    });
    if !odd {
        return Err("the comparison does not find the replica that is wrong".to_owned());
    }
    let rebuilt = |new: ReplicaId| {
        let is = |noticed: &Noticed| *noticed == Noticed::Rebuilt { old, new };
        noticed.iter().any(|(_, at, _, noticed)| *at == node && is(noticed))
    };
    let new = host.group(RANGE).map(|group| group.id());
    if !new.is_some_and(|new| new != old && rebuilt(new)) {
        return Err(format!("replica {old} is not rebuilt: replica {new:?} is there"));
    }
    if wrong(&host, &key(3)) != [(row, before)] || reads(&host, &key(3)) != Some(7) {
        return Err("what was rebuilt is not what the others have".to_owned());
    }
    Ok(())
}

/// What a node's replica shows of a key, whoever else knows better.
pub(super) fn reads(host: &Host<SimRuntime>, key: &UserKey) -> Option<u64> {
    let ask = Ask {
        from: key.clone(),
        to: None,
        consistency: Consistency::Eventual,
        token: None,
        nearest_only: true,
        fallback: false,
    };
    let (host, range): (_, RangeId) = (host.clone(), RANGE);
    let piece = Limit { rows: 1, bytes: 1 << 20 };
    let answer = now(async move { host.read(range, ask, piece).await })?.ok()?;
    let Rowed::One(version) = answer.value else { return None };
    Some(u64::from_be_bytes(version?.record.value?.try_into().ok()?))
}

#[test]
fn a_row_that_becomes_wrong_behind_its_checksum_is_found_and_the_replica_rebuilt() {
    for seed in 0..4 {
        story(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn who_asks_while_a_comparison_is_under_way_hears_of_that_one() {
    let net = begins(0).expect("all is well");
    // So many bytes that they are hashed in several steps.
    for number in 0..8 {
        let record = Record::put(vec![7; 128 << 10]);
        sim::spawn_as(NOBODY, puts_record(Arc::clone(&net), key(200 + number), record));
    }
    sim::run_until(sim::now() + 5 * SECOND);
    let holds = |host: Host<SimRuntime>| async move { host.holds(RANGE).await };
    let holder = hosts(&net).into_iter().find(|(_, host)| now(holds(host.clone())) == Some(true));
    let (node, host) = holder.expect("somebody holds the lease");
    let checked = Arc::new(Mutex::new(Vec::new()));
    let check = |host: Host<SimRuntime>| {
        let checked = Arc::clone(&checked);
        sim::spawn_as(node, async move {
            let found = host.check(RANGE, 5 * PATIENCE).await.expect("it is compared");
            checked.lock().push((found.round.index, found.verdict));
        });
    };
    check(host.clone());
    while host.under_way(RANGE).is_none() {
        sim::run_until(sim::now() + MS);
        assert!(checked.lock().is_empty(), "it takes a while");
    }
    check(host.clone());
    sim::run_until(sim::now() + 5 * SECOND);
    well(&net).expect("all is well");
    let checked = checked.lock().clone();
    assert_eq!(checked.len(), 2, "both are answered");
    assert!(checked[0] == checked[1] && checked[0].1 == Verdict::Same, "{checked:?}");
}

#[test]
fn an_entry_of_a_log_that_is_not_what_was_written_has_its_replica_rebuilt() {
    for seed in 0..3 {
        entry_story(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_the_comparison_is_caught() {
    use rhumb_core::canary::{Canary, let_out};

    for &bug in Canary::OF_THE_COMPARISON {
        let caught = std::thread::spawn(move || {
            let_out(Some(bug));
            (0..20).find_map(|seed| story(seed).err().map(|broken| (seed, broken)))
        });
        let caught = caught.join().expect("it does not panic");
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
    }
}
