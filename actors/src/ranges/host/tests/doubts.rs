//! Replicas that stop for their rows: two of three in the same moment, of which one stops and is rebuilt, and then the other; one that stops
//! while it is noted that it is rebuilt; one that was let stop and asks again; one that is split while it is doubted; one with a row whose key cannot be read, beside another range's; one that has lost a command. And rows beside them that cannot be read, with which a node starts.

use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_core::HybridTime;
use rhumb_core::rng::Seed;
use rhumb_storage::mvcc::VersionKey;
use rhumb_storage::{Batch, Family, MemoryEngine, Store};

use super::catalog::{self, SPACE};
use super::clients::key;
use super::comparing::{begins, hosts, now, reads, well, wrong};
use super::net::{self, MS, NOBODY, RANGE, SECOND, node_id};
use super::sim::{self, SimRuntime};
use crate::ranges::collect::Progress;
use crate::ranges::host::{Host, Noticed, Word};
use crate::ranges::quarantine::Quarantine;
use crate::ranges::{RangeId, RangeReplica, ReplicaId};

/// What each of the two has that its checksum does not match.
const KEYS: [usize; 2] = [3, 4];

fn story(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let sound = (seed % 3) as usize;
    let two: Vec<_> = hosts(&net).into_iter().filter(|(node, _)| *node != sound).collect();
    net.lock().spoiled = true;
    let mut old = Vec::new();
    for ((_, host), number) in two.iter().zip(KEYS) {
        let (row, mut value) = wrong(host, &key(number)).pop().ok_or("the key is not there")?;
        value[3] ^= 1;
        let spoils = host.clone();
        now(async move { spoils.spoil(Family::Mvcc, vec![(row, value)]).await });
        old.push(host.group(RANGE).ok_or("a node has no replica")?.id());
    }
    sim::run_until(sim::now() + 30 * MS);
    for ((_, host), number) in two.iter().zip(KEYS) {
        assert_eq!(reads(host, &key(number)), None, "its checksum says so");
    }
    assert_eq!(two.iter().map(|(_, host)| host.doubted().len()).sum::<usize>(), 2, "in one moment");
    let since = sim::now();
    while sim::now() < since + 25 * SECOND {
        sim::run_until(sim::now() + 20 * MS);
        well(&net)?;
        let stopped = hosts(&net).iter().filter(|(_, host)| host.quarantined(RANGE).is_some()).count();
        if stopped > 1 {
            return Err("two replicas of three have stopped at the same time".to_owned());
        }
    }
    for ((node, host), old) in two.iter().zip(old) {
        let new = host.group(RANGE).map(|group| group.id());
        if new.is_none() || new == Some(old) {
            return Err(format!("replica {old} of node {node} is not rebuilt: {new:?} is there"));
        }
        let values: Vec<_> = KEYS.iter().map(|number| reads(host, &key(*number))).collect();
        if values != [Some(7), Some(7)] {
            return Err(format!("node {node} shows {values:?}, and 7 was written"));
        }
    }
    Ok(())
}

/// A replica is rebuilt, and the one that takes its place stops while the node still writes that it is there.
fn again(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let (node, host) = hosts(&net).swap_remove((seed % 3) as usize);
    let number = |not: ReplicaId| host.group(RANGE).map(|group| group.id()).filter(|id| *id != not);
    let old = host.group(RANGE).ok_or("it has no replica")?.id();
    net.lock().spoiled = true;
    host.stops(RANGE, old, "a test".to_owned());
    let votes = |host: Host<SimRuntime>| async move {
        let Some(group) = host.group(RANGE).filter(|group| group.id() != old) else { return false };
        let replica = group.replica().await;
        replica.descriptor().seat(group.id()).is_some_and(|seat| seat.votes)
    };
    let since = sim::now();
    while now(votes(host.clone())) != Some(true) {
        sim::run_until(sim::now() + MS);
        well(&net)?;
        if sim::now() > since + 20 * SECOND {
            return Err(format!("replica {old} is not rebuilt"));
        }
    }
    let new = number(old).ok_or("it is gone again")?;
    net.lock().nodes[node].slow_until = sim::now() + 600 * MS;
    sim::run_until(sim::now() + 500 * MS);
    host.stops(RANGE, new, "the same test".to_owned());
    sim::run_until(sim::now() + 20 * SECOND);
    well(&net)?;
    let last = number(new).filter(|id| *id != old);
    let rebuilt = net.lock().noticed.iter().any(|(_, at, _, noticed)| {
        *at == node && last.is_some_and(|last| *noticed == Noticed::Rebuilt { old: new, new: last })
    });
    if rebuilt { Ok(()) } else { Err(format!("replica {new} is not rebuilt: {last:?} is there")) }
}

#[test]
fn a_replica_that_stops_while_it_is_noted_that_it_is_rebuilt_is_rebuilt_again() {
    for seed in 0..4 {
        again(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// A row whose key cannot be read stands where a range begins, behind the last one of the range before it.
fn unreadable(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let mut rng = Seed::new(seed).child("unreadable").rng();
    catalog::with_the_lease(&net, &mut rng, RANGE, Some(key(10)));
    sim::run_until(sim::now() + 5 * SECOND);
    let right = {
        let net = net.lock();
        let rows = net.catalog.iter().flat_map(|catalog| &catalog.space.ranges);
        rows.filter(|row| row.begun && row.parent == Some(RANGE)).map(|row| row.range).next()
    };
    let right = right.ok_or("it is not split")?;
    let all = hosts(&net);
    let (node, host) = &all[(seed % 3) as usize];
    let number = |range| host.group(range).map(|group| group.id());
    let (left_before, right_before) = (number(RANGE), number(right));
    let at = HybridTime::from_bits(u64::MAX);
    let mut row = VersionKey { keyspace: SPACE, key: key(10), at }.encode();
    row.truncate(row.len() - 3);
    net.lock().spoiled = true;
    let (spoils, there) = (host.clone(), (row.clone(), b"no record".to_vec()));
    now(async move { spoils.spoil(Family::Mvcc, vec![there]).await });
    sim::run_until(sim::now() + 25 * SECOND);
    well(&net)?;
    if number(RANGE) != left_before {
        return Err(format!("replica {left_before:?} has no such row, and became {:?}", number(RANGE)));
    }
    if number(right).is_none() || number(right) == right_before {
        return Err(format!("replica {right_before:?} on node {node} is not rebuilt: {:?}", number(right)));
    }
    if host.rows(Family::Mvcc).iter().any(|(key, _)| *key == row) {
        return Err("the row is not cleared away".to_owned());
    }
    Ok(())
}

#[test]
fn a_row_whose_key_cannot_be_read_is_of_the_range_around_it_and_is_cleared_with_it() {
    for seed in 0..3 {
        unreadable(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// Whoever holds the lease of the range, and the others.
fn holder(net: &net::Shared) -> Result<(Placed, Vec<Placed>), String> {
    let holds = |host: Host<SimRuntime>| async move { host.holds(RANGE).await };
    let (mut holders, others): (Vec<_>, Vec<_>) =
        hosts(net).into_iter().partition(|(_, host)| now(holds(host.clone())) == Some(true));
    Ok((holders.pop().ok_or("nobody holds the lease")?, others))
}

type Placed = (usize, Host<SimRuntime>);

/// A replica is let stop, does not hear it, and asks again when the others are away.
fn asks_again(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let ((node, host), others) = holder(&net)?;
    let (_, odd) = others.first().ok_or("nobody follows")?;
    let group = host.group(RANGE).ok_or("it has no replica")?;
    let replica = odd.group(RANGE).ok_or("it has no replica")?.id();
    let seats = {
        let group = group.clone();
        now(async move { group.replica().await.descriptor().seats.clone() }).ok_or("it is busy")?
    };
    if !host.lets_stop(&group, &seats, replica) {
        return Err("the range has a quorum without it, and it may not stop".to_owned());
    }
    // Nothing is compared meanwhile either, by which it would be known to be well.
    for (other, _) in &others {
        net.lock().cut.extend([(node, *other), (*other, node)]);
    }
    sim::run_until(sim::now() + 5 * SECOND);
    well(&net)?;
    if host.lets_stop(&group, &seats, replica) {
        return Err("it may stop, and of three replicas one is heard of".to_owned());
    }
    Ok(())
}

#[test]
fn a_replica_that_was_let_stop_is_judged_anew_when_it_asks_again() {
    for seed in 0..3 {
        asks_again(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// A replica that is not to be believed, and is needed by its range, is split: so is what begins with its rows.
fn halves(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let (_, others) = holder(&net)?;
    let [(_, odd), (away, gone)] = <[Placed; 2]>::try_from(others).map_err(|_| "there are three")?;
    drop(gone);
    let number = |range| odd.group(range).map(|group| group.id());
    let old = number(RANGE).ok_or("it has no replica")?;
    net.lock().spoiled = true;
    net::crash(&net, away);
    sim::run_until(sim::now() + 3 * SECOND);
    let doubts = odd.clone();
    now(async move { doubts.quarantine(RANGE, old, "a test".to_owned()) });
    sim::run_until(sim::now() + SECOND);
    if odd.doubted().len() != 1 {
        return Err(format!("it is to vote on, and to be doubted: {:?}", odd.doubted()));
    }
    let is_out = |range, replica| hosts(&net).iter().any(|(_, host)| host.is_out(range, replica));
    sim::run_until(sim::now() + 6 * SECOND);
    if !is_out(RANGE, old) {
        return Err("it says so again and again, and nobody knows it any more".to_owned());
    }
    let mut rng = Seed::new(seed).child("halves").rng();
    catalog::with_the_lease(&net, &mut rng, RANGE, Some(key(10)));
    sim::run_until(sim::now() + 4 * SECOND);
    well(&net)?;
    let right = {
        let net = net.lock();
        let rows = net.catalog.iter().flat_map(|catalog| &catalog.space.ranges);
        rows.filter(|row| row.begun && row.parent == Some(RANGE)).map(|row| row.range).next()
    };
    let right = right.ok_or("it is not split")?;
    let half = number(right).ok_or("its right half is not there")?;
    if !odd.doubted().iter().any(|(range, replica, _)| (*range, *replica) == (right, half)) {
        return Err(format!(
            "replica {old} is not to be believed, and its right half is: {:?}",
            odd.doubted()
        ));
    }
    let raft = net.lock().raft;
    net::start(&net, away, raft);
    sim::run_until(sim::now() + 25 * SECOND);
    well(&net)?;
    for (range, before) in [(RANGE, old), (right, half)] {
        if number(range).is_none() || number(range) == Some(before) {
            return Err(format!("replica {before} is not rebuilt: {:?} is there", number(range)));
        }
    }
    Ok(())
}

/// Gives the lease to another node. What came of it.
fn gives(from: &Host<SimRuntime>, to: usize) -> Option<Result<ReplicaId, String>> {
    let (given, from) = (Arc::new(Mutex::new(None)), from.clone());
    let at = Arc::clone(&given);
    sim::spawn_as(NOBODY, async move {
        let gave = from.give_lease(RANGE, &node_id(to)).await;
        *at.lock() = Some(gave.map_err(|not| format!("{not:?}")));
    });
    sim::run_until(sim::now() + SECOND);
    given.lock().take()
}

/// A replica was doubted, and its node has started again since: it knows nothing of that.
fn goes_stale(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let ((node, host), others) = holder(&net)?;
    let (other, follows) = others.first().cloned().ok_or("nobody follows")?;
    let replica = host.group(RANGE).ok_or("it has no replica")?.id();
    let hears = follows.clone();
    now(async move { hears.heard(&node_id(node), Word::Doubted { range: RANGE, replica }).await });
    if !follows.is_out(RANGE, replica) {
        return Err("what it says is not heard".to_owned());
    }
    sim::run_until(sim::now() + 8 * SECOND);
    well(&net)?;
    if follows.is_out(RANGE, replica) {
        return Err(format!(
            "replica {replica} says nothing of the kind, and is not given the lease for good"
        ));
    }
    let there = gives(&host, other);
    let back = gives(&follows, node);
    if there.is_none_or(|given| given.is_err()) || back != Some(Ok(replica)) {
        return Err(format!("the lease does not come back to replica {replica}: {back:?}"));
    }
    well(&net)
}

#[test]
fn a_doubt_that_is_not_said_again_is_forgotten() {
    for seed in 0..3 {
        goes_stale(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// Whoever holds the lease is not to be believed, and nobody else is there.
fn keeps(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let ((_, host), others) = holder(&net)?;
    let others: Vec<_> = others.into_iter().map(|(node, _)| node).collect();
    let number = || host.group(RANGE).map(|group| group.id());
    let old = number().ok_or("it has no replica")?;
    net.lock().spoiled = true;
    others.iter().for_each(|other| net::crash(&net, *other));
    sim::run_until(sim::now() + 4 * SECOND);
    let epoch = || host.0.supporting.lock().machine.epoch();
    let (before, doubts) = (epoch(), host.clone());
    now(async move { doubts.quarantine(RANGE, old, "a test".to_owned()) });
    sim::run_until(sim::now() + 15 * SECOND);
    well(&net)?;
    if epoch() != before {
        return Err("all leases of its store have lapsed, and nobody can take one".to_owned());
    }
    let raft = net.lock().raft;
    others.iter().for_each(|other| net::start(&net, *other, raft));
    sim::run_until(sim::now() + 30 * SECOND);
    well(&net)?;
    if number().is_none() || number() == Some(old) {
        return Err(format!("replica {old} is not rebuilt: {:?} is there", number()));
    }
    Ok(())
}

#[test]
fn leases_do_not_lapse_for_one_that_nobody_can_take() {
    for seed in 0..3 {
        keeps(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn what_is_split_off_from_a_replica_that_is_not_to_be_believed_is_not_believed_either() {
    for seed in 0..3 {
        halves(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// A replica has applied a command less than it should have.
fn lost(seed: u64) -> Result<(), String> {
    let net = begins(seed)?;
    let (node, host) = hosts(&net).swap_remove((seed % 3) as usize);
    let old = host.group(RANGE).ok_or("it has no replica")?.id();
    net::crash(&net, node);
    drop(host);
    let raft = {
        let mut net = net.lock();
        net.spoiled = true;
        let store = Store::open(MemoryEngine::open(&net.nodes[node].disk)).expect("it opens");
        let row =
            store.get(Family::Raft, &RangeReplica::row_key(RANGE)).expect("it reads").ok_or("no state")?;
        let mut replica = RangeReplica::recover(net::settings().range, &row)?;
        replica.loses_a_command();
        let mut batch = Batch::new();
        replica.write(&mut batch);
        store.write(&batch).expect("memory takes it");
        store.sync().expect("memory is durable");
        net.raft
    };
    net::start(&net, node, raft);
    sim::run_until(sim::now() + 20 * SECOND);
    well(&net)?;
    let new = hosts(&net).into_iter().find(|(one, _)| *one == node).and_then(|(_, host)| host.group(RANGE));
    let new = new.map(|group| group.id());
    let rebuilt = net.lock().noticed.iter().any(|(_, at, _, noticed)| {
        *at == node && new.is_some_and(|new| *noticed == Noticed::Rebuilt { old, new })
    });
    if rebuilt { Ok(()) } else { Err(format!("replica {old} is not rebuilt: {new:?} is there")) }
}

#[test]
fn a_replica_that_has_lost_a_command_is_found_and_rebuilt() {
    for seed in 0..3 {
        lost(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

/// Rows on a node's disk, which are of no use to anybody, take the place of others while it is down.
fn starts_with(net: &net::Shared, node: usize, keys: &[Vec<u8>]) {
    net::crash(net, node);
    let raft = {
        let mut net = net.lock();
        net.spoiled = true;
        let store = Store::open(MemoryEngine::open(&net.nodes[node].disk)).expect("it opens");
        let mut batch = Batch::new();
        for key in keys {
            batch.put(Family::Raft, key.clone(), vec![0xc5, 1, 2, 3]);
        }
        store.write(&batch).expect("memory takes it");
        store.sync().expect("memory is durable");
        net.raft
    };
    net::start(net, node, raft);
}

#[test]
fn a_node_starts_with_rows_beside_its_replica_that_cannot_be_read() {
    for seed in 0..3 {
        let net = begins(seed).expect("all is well");
        let (node, host) = hosts(&net).swap_remove((seed % 3) as usize);
        let old = host.group(RANGE).expect("it has a replica").id();
        drop(host);
        starts_with(&net, node, &[Progress::row_key(RANGE)]);
        sim::run_until(sim::now() + 10 * SECOND);
        well(&net).expect("it looks at all of its rows again");
        let host = hosts(&net).swap_remove(node).1;
        assert_eq!(host.group(RANGE).map(|group| group.id()), Some(old), "its rows are what they were");
        assert!(host.collected(RANGE) > 0, "and are collected");
        drop(host);
        // Of whichever replica it was said: the one that is here is not believed.
        starts_with(&net, node, &[Quarantine::row_key(RANGE), Quarantine::row_key(RangeId(999))]);
        sim::run_until(sim::now() + 20 * SECOND);
        well(&net).expect("it starts");
        let host = hosts(&net).swap_remove(node).1;
        let new = host.group(RANGE).map(|group| group.id());
        assert!(new.is_some() && new != Some(old), "replica {old} is rebuilt: {new:?}");
        assert!(host.quarantines().is_empty(), "{:?}", host.quarantines());
    }
}

#[test]
fn of_two_replicas_that_are_found_wrong_at_once_one_stops_after_the_other() {
    for seed in 0..6 {
        story(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}
