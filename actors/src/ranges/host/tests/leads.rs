//! Who leads and cannot hold the lease: one whose disk stands still gives the lead away, one that nobody hears or whose disk is slow does
//! not; and one that has given it away does not rest.
//!
//! Where a disk stands still hybrid time does, a moment later: its ceiling is not raised.

use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_storage::mvcc::{Limit, Record};

use super::behind::{begun, lasts, raft};
use super::clients::key;
use super::net::{self, MS, NOBODY, RANGE, SECOND};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::world::descriptor;
use crate::ranges::host::Rowed;
use crate::ranges::raft::Group;
use crate::ranges::{Ask, Consistency, Op, ReplicaId};

/// How long a disk stands still: much longer than the lease of its node lasts.
const STANDS: u64 = 15 * SECOND;
/// In sooner than that another one leads, holds the lease, and writes: support lasts 2 s, and the keeper's patience 1 s.
const OTHERS_WRITE_WITHIN: u64 = 7 * SECOND;
/// The key that is written.
const KEY: usize = 1;

/// What comes of some work on a node, so far.
type Comes<T> = Arc<Mutex<Option<T>>>;

fn begins<T: Send + 'static>(node: usize, work: impl Future<Output = T> + Send + 'static) -> Comes<T> {
    let comes = Comes::default();
    let at = Arc::clone(&comes);
    sim::spawn_as(node, async move { *at.lock() = Some(work.await) });
    comes
}

fn passes(micros: u64) {
    sim::run_until(sim::now() + micros);
}

fn group(net: &net::Shared, node: usize) -> Group<SimRuntime> {
    let host = net.lock().nodes[node].host.clone().expect("it serves");
    host.group(RANGE).expect("it has a replica")
}

/// Begins to write the key at a node: whether it is written.
fn writes(net: &net::Shared, node: usize, value: u64) -> Comes<bool> {
    let host = net.lock().nodes[node].host.clone().expect("it serves");
    let op = Op { key: key(KEY), condition: None, record: Record::put(value.to_be_bytes()) };
    begins(node, async move { host.write(RANGE, vec![op]).await.is_ok() })
}

/// Writes the key at one of these nodes, within so long: which one took it.
fn written(net: &net::Shared, nodes: &[usize], value: u64, within: u64) -> Result<usize, String> {
    let until = sim::now() + within;
    while sim::now() < until {
        let tried: Vec<_> = nodes.iter().map(|node| (*node, writes(net, *node, value))).collect();
        passes(200 * MS);
        if let Some((node, _)) = tried.iter().find(|(_, comes)| *comes.lock() == Some(true)) {
            return Ok(*node);
        }
    }
    Err(format!("none of {nodes:?} writes {value}"))
}

/// What a strong read of the key comes to at a node at this moment, if it is answered.
fn strong(net: &net::Shared, node: usize) -> Option<u64> {
    let host = net.lock().nodes[node].host.clone().expect("it serves");
    let ask = Ask {
        from: key(KEY),
        to: None,
        consistency: Consistency::Strong,
        token: None,
        nearest_only: true,
        fallback: false,
    };
    let reads = async move { host.read(RANGE, ask, Limit { rows: 1, bytes: 1 << 20 }).await.ok() };
    let comes = begins(NOBODY, reads);
    sim::run_until(sim::now());
    let answer = comes.lock().take()??;
    let Rowed::One(version) = answer.value else { panic!("one key was asked for") };
    Some(u64::from_be_bytes(version?.record.value?.try_into().expect("eight bytes")))
}

/// Who leads, as a node knows.
fn leader(net: &net::Shared, node: usize) -> Option<usize> {
    let group = group(net, node);
    let comes = begins(NOBODY, async move { group.leader().await });
    sim::run_until(sim::now());
    let leader = comes.lock().take()??;
    descriptor(3).seats.iter().position(|seat| seat.replica == leader)
}

/// A range of three replicas and one that leads it, holds its lease, and has written the key.
fn led(seed: u64) -> (net::Shared, usize) {
    let net = begun(seed, 0);
    let leader = written(&net, &[0, 1, 2], 1, 10 * SECOND).expect("somebody holds the lease");
    assert!(group(&net, leader).leads() && strong(&net, leader) == Some(1));
    (net, leader)
}

/// Until the range rests with who leads it: it is compared every so often, and rests in between.
fn rests(net: &net::Shared, leader: usize) {
    let until = sim::now() + 10 * SECOND;
    while group(net, leader).ticks() {
        assert!(sim::now() < until, "it does not rest");
        passes(20 * MS);
    }
}

fn is_well(net: &net::Shared) -> Result<(), String> {
    let net = net.lock();
    net.broken.clone().or_else(|| net.nodes.iter().find_map(|node| node.halted.clone())).map_or(Ok(()), Err)
}

/// The disk of who leads stands still, in some stories while the range rests.
fn stands_still(seed: u64) -> Result<(), String> {
    let (net, old) = led(seed);
    if seed.is_multiple_of(2) {
        rests(&net, old);
    }
    let others: Vec<_> = (0..3).filter(|node| *node != old).collect();
    let since = sim::now();
    net::disk_stands(&net, old, since + STANDS);
    written(&net, &others, 2, OTHERS_WRITE_WITHIN)?;
    while sim::now() < since + STANDS {
        passes(100 * MS);
        is_well(&net)?;
        // It holds no lease, though it has not heard who does.
        if let Some(value) = strong(&net, old) {
            return Err(format!("a strong read shows {value} there, and 2 was written"));
        }
        if let Some(node) = others.iter().find(|node| leader(&net, **node) == Some(old)) {
            return Err(format!("node {node} is led by node {old}, whose disk stands still"));
        }
    }
    lasts(8);
    written(&net, &[0, 1, 2], 3, 3 * SECOND)?;
    lasts(2);
    is_well(&net)?;
    let same = same_rows(&net);
    drop(net);
    sim::begin(0);
    same
}

#[test]
fn who_leads_and_has_a_disk_that_stands_still_gives_the_lead_away_and_others_write() {
    for seed in 0..8 {
        stands_still(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[cfg(feature = "canaries")]
#[test]
fn a_lease_by_a_clock_that_stands_still_is_noticed() {
    use rhumb_core::canary::{self, Canary};

    canary::let_out(Some(Canary::StandingClockActs));
    let broken: Vec<_> = (0..8).filter_map(|seed| stands_still(seed).err()).collect();
    canary::let_out(None);
    assert!(broken.iter().any(|why| why.contains("a strong read shows 1")), "{broken:?}");
}

/// Whether a node leads on, and has not given that away, at each look for so long.
fn leads_on(net: &net::Shared, node: usize, lasts: u64, mut meanwhile: impl FnMut()) {
    let until = sim::now() + lasts;
    while sim::now() < until {
        meanwhile();
        passes(50 * MS);
        let group = group(net, node);
        assert!(group.leads() && !group.gives_lead(), "at {}", sim::now());
    }
}

#[test]
fn who_is_heard_by_nobody_or_has_a_slow_disk_gives_the_lead_to_nobody() {
    for seed in 0..3 {
        let (net, leader) = led(seed);
        let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
        // A sync takes a second at most, again and again: the lease is in force all the while.
        leads_on(&net, leader, 8 * SECOND, || {
            let node = &mut net.lock().nodes[leader];
            if node.slow_until <= sim::now() {
                node.slow_until = sim::now() + SECOND;
            }
        });
        assert_eq!(strong(&net, leader), Some(1), "seed {seed}");
        // The lease is not in force, and nobody could have it instead.
        for other in &others {
            net::crash(&net, *other);
        }
        leads_on(&net, leader, 6 * SECOND, || ());
        assert_eq!(strong(&net, leader), None, "seed {seed}");
        // Nor is anybody heard by one whose disk stands still.
        net::disk_stands(&net, leader, sim::now() + 10 * SECOND);
        leads_on(&net, leader, 10 * SECOND, || ());
        for other in &others {
            net::start(&net, *other, raft());
        }
        lasts(1);
        let took = written(&net, &[0, 1, 2], 2, 10 * SECOND);
        assert!(took.is_ok(), "seed {seed}: {took:?}");
    }
    sim::begin(0);
}

#[test]
fn who_has_given_the_lead_away_to_one_that_does_not_hear_it_does_not_rest() {
    for seed in 0..3 {
        let (net, leader) = led(seed);
        rests(&net, leader);
        let gives = group(&net, leader);
        let next = (leader + 1) % 3;
        net.lock().cut.insert((leader, next));
        let to: ReplicaId = group(&net, next).id();
        let given = begins(leader, async move { gives.give_lead(to).await });
        passes(100 * MS);
        assert!(given.lock().is_some() && group(&net, leader).gives_lead());
        net.lock().cut.clear();
        // It proposes nothing any more, and nobody stands for election as long as it says that the range rests.
        let took = written(&net, &[0, 1, 2], 2, 10 * SECOND);
        assert!(took.is_ok(), "seed {seed}: {took:?}");
    }
    sim::begin(0);
}
