//! What is mended, and what is told of ranges that lack a replica.
//!
//! * It decides: which change of a keyspace's row comes next, from the rows, the nodes' disks, and for how long nodes have been away.
//! * It never does: mend a range of which something is on its way; replace a replica before its node was away for
//!   [`Known::replace_after`]; or take away the last that a range has: what is mended leaves a majority of the voters as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::{DataClass, NodeId, Region, StoreId};
use rhumb_topology::PolicySnapshot;
use rhumb_topology::placement::{Disk, Distances, Ground, Plan, Role, Site, stand_in};
use rhumb_topology::policy::Use;

use super::messages::{Follows, SeatView};
use crate::ranges::Seat;
use crate::ranges::catalog::{Change, Keyspace, Place, RangeRow};

/// What is known of the mesh.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// All keyspaces.
    pub keyspaces: &'a BTreeMap<String, Keyspace>,
    /// The founding nodes with their disks, as they have said.
    pub stores: &'a BTreeMap<NodeId, StoreId>,
    /// Nodes that are not reached, and for how long.
    pub lost: &'a BTreeMap<NodeId, Duration>,
    /// How far regions are from each other.
    pub distances: Distances<'a>,
    /// The policy.
    pub policy: &'a PolicySnapshot,
    /// After how long a replica whose node is away is replaced; none: never.
    pub replace_after: Option<Duration>,
}

/// A change of a keyspace's row that is to be made, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// Of this keyspace.
    pub keyspace: String,
    /// The change.
    pub change: Change,
    /// Why.
    pub why: String,
}

/// The nodes on which replicas might stand.
#[must_use]
pub fn sites(known: &Known<'_>, nodes: &[NodeId]) -> Vec<Site> {
    let seats = || known.keyspaces.values().flat_map(Keyspace::seats);
    let site = |node: &NodeId| Site {
        node: node.clone(),
        disk: match (known.stores.contains_key(node), known.lost.get(node)) {
            (false, _) => Disk::Unknown,
            (true, Some(since)) => Disk::Lost(*since),
            (true, None) => Disk::Known,
        },
        replicas: u32::try_from(seats().filter(|seat| seat.node == *node).count()).unwrap_or(u32::MAX),
    };
    nodes.iter().map(site).collect()
}

/// What is to be mended now: one change of a range at most.
#[must_use]
pub fn mends(known: &Known<'_>, nodes: &[NodeId]) -> Vec<Mend> {
    let sites = sites(known, nodes);
    let mut mends = Vec::new();
    for space in known.keyspaces.values() {
        let ground = ground(known, &sites, &space.class);
        let rows = space.ranges.iter().filter(|row| row.begun && row.leaving.is_empty());
        let of = |row| {
            let (change, why) = new_disk(known, space, row)
                .or_else(|| replaced(known, &ground, row))
                .or_else(|| learner(known, &ground, space, row))?;
            Some(Mend { keyspace: space.name.clone(), change, why })
        };
        mends.extend(rows.filter_map(of));
    }
    mends
}

/// What is said of the seats of a range that cannot be counted on.
#[must_use]
pub fn missing(known: &Known<'_>, nodes: &[NodeId], space: &Keyspace, row: &RangeRow) -> Vec<SeatView> {
    let sites = sites(known, nodes);
    let ground = ground(known, &sites, &space.class);
    let mut missing = Vec::new();
    for seat in &row.seats {
        let why = match known.lost.get(&seat.node) {
            _ if !may(known, &seat.node.region, &space.class) => {
                format!("region {} may not hold class {} any more: move it", seat.node.region, space.class)
            }
            None if known.stores.get(&seat.node).is_some_and(|store| *store != seat.store) => {
                "its node has another disk: it is replaced there".to_owned()
            }
            None => continue,
            Some(since) => {
                let away = format!("its node has not been reached for {} s", since.as_secs());
                let after = known.replace_after;
                match (stands_in(&ground, row, seat), after) {
                    (Err(why), _) => format!("{away}, and {why}"),
                    (Ok(_), None) => format!("{away}, and ranges.replace_after is off: move it"),
                    (Ok((_, why)), Some(after)) if *since < after => {
                        format!("{away}; in {} s it is replaced, {why}", (after - *since).as_secs())
                    }
                    (Ok((_, why)), Some(_)) => format!("{away}; it is replaced, {why}"),
                }
            }
        };
        missing.push(SeatView { node: seat.node.clone(), role: role(seat).to_string(), why });
    }
    for seat in &row.leaving {
        let elsewhere = known.stores.get(&seat.node).is_some_and(|store| *store != seat.store);
        if elsewhere || known.lost.contains_key(&seat.node) {
            let why = format!(
                "replica {} is lost with its disk or its node, and counts until another one votes in its place",
                seat.replica
            );
            missing.push(SeatView { node: seat.node.clone(), role: role(seat).to_string(), why });
        }
    }
    missing
}

/// The places that a plan has, with the disks that are known.
#[must_use]
pub fn places(known: &Known<'_>, plan: &Plan) -> Vec<Place> {
    let place = |chosen: &rhumb_topology::placement::Chosen| {
        let (node, votes) = (chosen.node.clone(), chosen.role == Role::Voter);
        known.stores.get(&node).map(|store| Place { store: *store, node, votes })
    };
    plan.voters.iter().chain(&plan.learners).filter_map(place).collect()
}

fn ground<'a>(known: &Known<'a>, sites: &'a [Site], class: &'a DataClass) -> Ground<'a> {
    Ground { sites, distances: known.distances, policy: known.policy, class }
}

fn role(seat: &Seat) -> Role {
    if seat.votes { Role::Voter } else { Role::Learner }
}

fn may(known: &Known<'_>, region: &Region, class: &DataClass) -> bool {
    known.policy.permits(region, Use::Hold, class).is_ok()
}

/// A node that is reached has another disk than a replica's.
fn new_disk(known: &Known<'_>, space: &Keyspace, row: &RangeRow) -> Option<(Change, String)> {
    let (seat, store) = row.seats.iter().find_map(|seat| {
        let store = known.stores.get(&seat.node).filter(|store| **store != seat.store)?;
        let here = !known.lost.contains_key(&seat.node) && may(known, &seat.node.region, &space.class);
        here.then_some((seat, *store))
    })?;
    let node = &seat.node;
    let change = Change::Move { range: row.range, from: node.clone(), to: node.clone(), store };
    Some((change, format!("node {node} has another disk than replica {}", seat.replica)))
}

/// A replica whose node was away for too long.
fn replaced(known: &Known<'_>, ground: &Ground<'_>, row: &RangeRow) -> Option<(Change, String)> {
    let after = known.replace_after?;
    let voters = row.seats.iter().filter(|seat| seat.votes);
    let there = voters.clone().filter(|seat| !known.lost.contains_key(&seat.node)).count();
    if there <= voters.count() / 2 {
        return None;
    }
    let gone =
        row.seats.iter().filter(|seat| known.lost.get(&seat.node).is_some_and(|since| *since >= after));
    let (gone, to, why) = gone.into_iter().find_map(|gone| {
        let (to, why) = stands_in(ground, row, gone).ok()?;
        Some((gone, to, why))
    })?;
    let kept = row.seats.iter().filter(|seat| seat.replica != gone.replica && seat.node != to);
    let mut places: Vec<_> = kept.map(place).collect();
    let store = *known.stores.get(&to)?;
    places.push(Place { node: to, store, votes: gone.votes });
    let away = known.lost.get(&gone.node).map_or(0, Duration::as_secs);
    let why = format!(
        "node {} has not been reached for {away} s: replica {} is replaced, {why}",
        gone.node, gone.replica
    );
    Some((Change::Places { range: row.range, places }, why))
}

fn place(seat: &Seat) -> Place {
    Place { node: seat.node.clone(), store: seat.store, votes: seat.votes }
}

/// Who takes a replica's place: a learner that has the data already takes a voter's.
fn stands_in(ground: &Ground<'_>, row: &RangeRow, gone: &Seat) -> Result<(NodeId, String), String> {
    let reached = |seat: &&Seat| {
        let site = ground.sites.iter().find(|site| site.node == seat.node);
        site.is_some_and(|site| site.disk == Disk::Known)
            && ground.policy.permits(&seat.node.region, Use::Hold, ground.class).is_ok()
    };
    if gone.votes
        && let Some(learner) = row.seats.iter().filter(|seat| !seat.votes).find(reached)
    {
        return Ok((
            learner.node.clone(),
            format!("by the learner on {}, which votes from then on", learner.node),
        ));
    }
    let stay: Vec<_> =
        row.seats.iter().filter(|seat| seat.replica != gone.replica).map(|seat| seat.node.clone()).collect();
    let chosen = stand_in(ground, &stay, &gone.node, role(gone))?;
    Ok((chosen.node.clone(), format!("on {}: {}", chosen.node, chosen.why)))
}

/// A region that is to have a learner and has no replica.
fn learner(
    known: &Known<'_>,
    ground: &Ground<'_>,
    space: &Keyspace,
    row: &RangeRow,
) -> Option<(Change, String)> {
    if space.placement.learners == Follows::None {
        return None;
    }
    let has: BTreeSet<_> = row.seats.iter().map(|seat| &seat.node.region).collect();
    let mut free: Vec<_> = ground
        .sites
        .iter()
        .filter(|site| site.disk == Disk::Known && !has.contains(&site.node.region))
        .filter(|site| ground.policy.permits(&site.node.region, Use::Hold, ground.class).is_ok())
        .collect();
    free.sort_by_key(|site| (&site.node.region, site.replicas, &site.node));
    let site = free.first()?;
    let why = format!("region {} is to have a learner and has no replica", site.node.region);
    let (node, store) = (site.node.clone(), *known.stores.get(&site.node)?);
    let new = Place { node, store, votes: false };
    let places = row.seats.iter().map(place).chain([new]).collect();
    Some((Change::Places { range: row.range, places }, why))
}
