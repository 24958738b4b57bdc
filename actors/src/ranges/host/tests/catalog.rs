//! What the meta range would say in the world: where replicas are wanted. Here all see it, sooner or later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::rng::Rng;
use rhumb_core::{DataClass, NodeId, Region, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};

use super::comparing;
use super::net::{self, RETENTION, SECOND, node_id};
use super::sim::{self, SimRuntime};
use super::versions;
use crate::placement::messages::Placement;
use crate::ranges::catalog::{Change, Keyspace, Next, Place, RangeRow, changed};
use crate::ranges::host::{Found, Host};
use crate::ranges::lifecycle::Life;
use crate::ranges::messages::Lifetimes;
use crate::ranges::raft::Group;
use crate::ranges::splitting::Decided;
use crate::ranges::{RangeId, ReplicaId, Seat};

pub(super) const SPACE: KeyspaceId = KeyspaceId(1);
/// How long a replica that a split begins may be missing, in microseconds.
const SPLIT_COMES_WITHIN: u64 = 3 * SECOND;
/// How often a node looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The rows.
#[derive(Debug, Clone)]
pub(super) struct Catalog {
    pub(super) space: Keyspace,
    next: Next,
}

impl Catalog {
    /// One range, on these seats.
    pub(super) fn of(range: RangeId, seats: Vec<Seat>) -> Self {
        let row = RangeRow::created(range, seats);
        let (class, lifetimes) = (DataClass::read("inventory").expect("valid"), Lifetimes::default());
        let space = Keyspace {
            id: SPACE.0,
            name: "a".to_owned(),
            class,
            replication: 0,
            ranges: vec![row],
            lifetimes,
            life: Life::default(),
            held: Vec::new(),
            purged: false,
            placement: Placement::default(),
        };
        Self { space, next: Next { keyspace: SPACE.0 + 1, range: range.0 + 1, replica: 1_000 } }
    }

    /// Whether it was taken.
    pub(super) fn change(&mut self, change: &Change) -> bool {
        match changed(&self.space, self.next, change) {
            Ok(Some((space, next))) => {
                (self.space, self.next) = (space, next);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// What a leaseholder has found.
    pub(super) fn found(&mut self, range: RangeId, found: Found) {
        let change = match found {
            Found::Begun => Change::Begun(range),
            Found::Left(replicas) => Change::Left { range, replicas },
            Found::Quarantined(replica) => Change::Rebuild { range, replica },
        };
        self.change(&change);
    }

    /// Whether nothing is on its way. What was planned may never have come to be.
    pub(super) fn is_settled(&self) -> bool {
        self.space.ranges.iter().all(|row| row.leaving.is_empty())
    }
}

/// A node follows it, as long as it lives.
pub(super) async fn follow(net: net::Shared, me: usize, host: Host<SimRuntime>) {
    let mut missing: BTreeMap<RangeId, u64> = BTreeMap::new();
    loop {
        versions::look(&mut net.lock(), me);
        let catalog = net.lock().catalog.clone();
        let held: Vec<_> =
            catalog.iter().flat_map(|catalog| &catalog.space.held).map(|held| held.at).collect();
        let rows =
            catalog.iter().flat_map(|Catalog { space, .. }| space.ranges.iter().map(move |row| (space, row)));
        let rows: Vec<_> = rows.collect();
        for (space, row) in rows {
            host.want(row.range, space.wanted(row));
            host.hold(row.range, held.clone());
            host.retain(row.range, RETENTION);
            let mine = row.seats.iter().find(|seat| seat.store == host.store());
            if let Some(replica) = host.quarantined(row.range).filter(|replica| row.left.contains(replica)) {
                if !clears(&net, me, &host, row.range, replica).await {
                    return;
                }
                continue;
            }
            match (host.group(row.range), mine) {
                (Some(group), _) if row.left.contains(&group.id()) => {
                    if !clears(&net, me, &host, row.range, group.id()).await {
                        return;
                    }
                }
                (None, Some(seat)) if row.begun => {
                    let since = *missing.entry(row.range).or_insert_with(sim::now);
                    // The replica that it is split from brings it, unless that one was sent what came after the split.
                    if !row.joined.contains(&seat.replica) && sim::now() < since + SPLIT_COMES_WITHIN {
                        continue;
                    }
                    let all = row.seats.iter().chain(&row.leaving).cloned().collect();
                    if let Err(error) = host.join(row.range, SPACE, all).await {
                        return net::fails(&net, me, "does not begin a replica", &error);
                    }
                }
                _ => drop(missing.remove(&row.range)),
            }
        }
        SimRuntime::sleep(LOOK_EVERY).await;
    }
}

/// Clears a replica away: whether the node can go on.
async fn clears(
    net: &net::Shared,
    me: usize,
    host: &Host<SimRuntime>,
    range: RangeId,
    replica: ReplicaId,
) -> bool {
    let cleared = host.clear(range, replica).await;
    if let Err(error) = &cleared {
        net::fails(net, me, "does not clear a replica", error);
        return false;
    }
    net.lock().cleared += 1;
    true
}

/// Somebody wants a replica elsewhere.
pub(super) fn moves(net: &net::Shared, rng: &mut Rng) -> bool {
    let mut net = net.lock();
    let stores = stores(&net);
    let Some(catalog) = &mut net.catalog else { return false };
    let Some(row) = rng.pick(&catalog.space.ranges).cloned() else { return false };
    // Some are taken back while they are under way.
    if let (Some(coming), Some(leaving), true) = (row.seats.last(), row.leaving.first(), rng.chance(0.7)) {
        let (from, to, store) = (coming.node.clone(), leaving.node.clone(), leaving.store);
        // A disk that is gone takes nobody back.
        let is_there = stores.iter().any(|(_, there)| *there == store);
        return is_there && catalog.change(&Change::Move { range: row.range, from, to, store });
    }
    let Some(from) = rng.pick(&row.seats).map(|seat| seat.node.clone()) else { return false };
    let free = free(&row, stores);
    let Some((to, store)) = rng.pick(&free).cloned() else { return false };
    catalog.change(&Change::Move { range: row.range, from, to, store })
}

fn stores(net: &net::Net) -> Vec<(NodeId, StoreId)> {
    net.nodes.iter().enumerate().map(|(number, node)| (node_id(number), node.store)).collect()
}

/// The disks on which a range is not.
fn free(row: &RangeRow, stores: Vec<(NodeId, StoreId)>) -> Vec<(NodeId, StoreId)> {
    let is_free = |node: &NodeId| row.seats.iter().chain(&row.leaving).all(|seat| seat.node != *node);
    stores.into_iter().filter(|(node, _)| is_free(node)).collect()
}

/// Somebody wants a learner more or less, or has one vote in a voter's stead.
pub(super) fn reseats(net: &net::Shared, rng: &mut Rng) -> bool {
    let mut net = net.lock();
    let stores = stores(&net);
    let Some(catalog) = &mut net.catalog else { return false };
    let Some(row) = rng.pick(&catalog.space.ranges).cloned() else { return false };
    let mut places: Vec<Place> = row
        .seats
        .iter()
        .map(|seat| Place { node: seat.node.clone(), store: seat.store, votes: seat.votes })
        .collect();
    let learner = places.iter().position(|place| !place.votes);
    let voter = places.iter().position(|place| place.votes);
    match (rng.below(3), learner, voter) {
        (0, Some(learner), _) => drop(places.remove(learner)),
        (1, Some(learner), Some(voter)) => (places[learner].votes, places[voter].votes) = (true, false),
        _ => {
            let free = free(&row, stores);
            let Some((node, store)) = rng.pick(&free).cloned() else { return false };
            places.push(Place { node, store, votes: false });
        }
    }
    catalog.change(&Change::Places { range: row.range, places })
}

/// A node's power is cut, and its disk does not outlive it. It comes back with an empty one: its replicas are replaced, each under a new number. Not
/// before all that is wanted stands where it is wanted, so that others have what was acknowledged.
pub(super) fn loses_disk(net: &net::Shared, node: usize) -> bool {
    let settled = {
        let net = net.lock();
        let stores = stores(&net);
        let rows = net.catalog.iter().flat_map(|catalog| &catalog.space.ranges);
        let of = |row: &RangeRow| {
            row.begun
                && row.leaving.is_empty()
                && row.seats.iter().all(|seat| stores.contains(&(seat.node.clone(), seat.store)))
        };
        net.catalog.is_some() && rows.clone().all(of)
    };
    let is_well = !net.lock().spoiled || comparing::is_well(net);
    if !settled || !is_well || !stands(net) {
        return false;
    }
    net::crash(net, node);
    let mut net = net.lock();
    let (old, fresh) = (net.nodes[node].store, StoreId(net.nodes[node].store.0 + 100));
    net.nodes[node].store = fresh;
    net.nodes[node].disk = rhumb_storage::MemoryDisk::new();
    let Some(catalog) = &mut net.catalog else { return false };
    let ranges: Vec<_> = catalog
        .space
        .ranges
        .iter()
        .filter(|row| row.seats.iter().any(|seat| seat.store == old))
        .map(|row| row.range)
        .collect();
    for range in ranges {
        let (from, to) = (node_id(node), node_id(node));
        catalog.change(&Change::Move { range, from, to, store: fresh });
    }
    true
}

/// Whether every range stands where it is wanted, in consensus and for leases, as its leader knows.
fn stands(net: &net::Shared) -> bool {
    let rows: Vec<_> = net.lock().catalog.iter().flat_map(|catalog| catalog.space.ranges.clone()).collect();
    rows.iter().all(|row| misplaced(net, row).is_none())
}

/// What of a range does not stand where it is wanted, as its leader knows; where nobody leads it, that.
pub(super) fn misplaced(net: &net::Shared, row: &RangeRow) -> Option<String> {
    let hosts: Vec<_> = net.lock().nodes.iter().filter_map(|node| node.host.clone()).collect();
    let leads = hosts.iter().filter_map(|host| host.group(row.range)).find(Group::leads);
    let Some(group) = leads else { return Some(format!("nobody leads {:?}", row.range)) };
    let found = Arc::new(parking_lot::Mutex::new(None));
    let (at, of) = (Arc::clone(&found), group.clone());
    sim::spawn_as(net::NOBODY, async move {
        let seats = of.replica().await.descriptor().seats.clone();
        *at.lock() = Some(seats);
    });
    sim::run_until(sim::now() + net::MS);
    let seats = found.lock().take()?;
    let by_number =
        |seats: &[Seat]| seats.iter().map(|seat| (seat.replica, seat.votes)).collect::<BTreeMap<_, _>>();
    let (wanted, here, members) = (by_number(&row.seats), by_number(&seats), group.members());
    let voters: BTreeSet<_> =
        wanted.iter().filter(|(_, votes)| **votes).map(|(replica, _)| *replica).collect();
    let well =
        wanted == here && members.voters == voters && members.all.iter().copied().eq(wanted.keys().copied());
    (!well)
        .then(|| format!("{:?} is wanted at {wanted:?} and stands at {here:?} with {members:?}", row.range))
}

/// Where most is written, if that was said.
pub(super) fn home(net: &net::Shared) -> Option<Region> {
    net.lock().catalog.as_ref()?.space.placement.home.clone()
}

/// A range whose lease is not where most is written, although a replica votes there.
pub(super) fn away(net: &net::Shared) -> Option<String> {
    let home = home(net)?;
    let at_home: Vec<_> = {
        let net = net.lock();
        let nodes = net.nodes.iter().enumerate().filter(|(number, _)| node_id(*number).region == home);
        nodes.filter_map(|(number, node)| Some((number, node.host.clone()?))).collect()
    };
    let rows: Vec<_> = net.lock().catalog.iter().flat_map(|catalog| catalog.space.ranges.clone()).collect();
    let could =
        |row: &&RangeRow| row.begun && row.seats.iter().any(|seat| seat.votes && seat.node.region == home);
    rows.iter().filter(could).map(|row| row.range).find_map(|range| {
        let held = Arc::new(AtomicBool::new(false));
        for (number, host) in &at_home {
            let (host, held) = (host.clone(), Arc::clone(&held));
            sim::spawn_as(*number, async move {
                held.fetch_or(host.holds(range).await, Ordering::Relaxed);
            });
        }
        sim::run_until(sim::now() + net::MS);
        (!held.load(Ordering::Relaxed)).then(|| format!("the lease of {range:?} is not in {home}"))
    })
}

/// Whoever holds a range's lease does something with it: splits the first range, or gives the lease away.
pub(super) fn with_the_lease(net: &net::Shared, rng: &mut Rng, range: RangeId, at: Option<UserKey>) {
    let hosts: Vec<(usize, Host<SimRuntime>)> = {
        let net = net.lock();
        let nodes = net.nodes.iter().enumerate();
        nodes.filter_map(|(number, node)| Some((number, node.host.clone()?))).collect()
    };
    let to: NodeId = node_id(rng.below(hosts.len().max(1) as u64) as usize);
    for (node, host) in hosts {
        let (net, to, at) = (Arc::clone(net), to.clone(), at.clone());
        sim::spawn_as(node, async move {
            if !host.holds(range).await {
                return;
            }
            let Some(at) = at else { return drop(host.give_lease(range, &to).await) };
            let Some(group) = host.group(range) else { return };
            let seats = group.replica().await.descriptor().seats.clone();
            let right = {
                let mut net = net.lock();
                let Some(catalog) = &mut net.catalog else { return };
                catalog.change(&Change::Split { left: range, seats });
                let planned =
                    catalog.space.ranges.iter().rfind(|row| row.parent == Some(range) && !row.begun);
                planned.map(|row| (row.range, row.seats.clone()))
            };
            let Some((right, seats)) = right else { return };
            if host.split(range, at, right, seats).await.is_ok() {
                was_split(&mut net.lock(), range, right);
            }
        });
    }
}

/// A leaseholder's range is to be split: a number is planned, which may get lost or come late, and the rest is as ever.
pub(super) async fn splits(net: net::Shared, me: usize, range: RangeId, decided: Decided) {
    let way = net.lock().way(me, me);
    let Some(way) = way else { return };
    SimRuntime::sleep(way).await;
    let Some(host) = net.lock().nodes[me].host.clone() else { return };
    let Some(group) = host.group(range) else { return };
    let seats = group.replica().await.descriptor().seats.clone();
    let right = {
        let mut net = net.lock();
        let Some(catalog) = &mut net.catalog else { return };
        if !catalog.change(&Change::Split { left: range, seats }) {
            return;
        }
        catalog.space.ranges.last().map(|row| (row.range, row.seats.clone()))
    };
    let Some((right, seats)) = right else { return };
    if host.split(range, decided.at, right, seats).await.is_ok() {
        let mut net = net.lock();
        *net.by_themselves.entry(decided.why).or_default() += 1;
        was_split(&mut net, range, right);
    }
}

fn was_split(net: &mut net::Net, left: RangeId, right: RangeId) {
    net.split += 1;
    net.last_split.extend([(left, sim::now()), (right, sim::now())]);
}
