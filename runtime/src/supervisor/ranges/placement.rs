//! The shell of `PlacementActor`: plans that are asked for, and ranges that are mended.
//!
//! * It decides: nothing. The planner of `rhumb-topology` says where replicas should stand, and
//!   [`mend`](rhumb_actors::placement::mend) which rows are changed. Only who holds the lease of the meta range mends.
//! * It never does: change a row under a policy that does not let the class be held there, or mend before that stands in the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::placement::mend::{self, Known, Mend};
use rhumb_actors::placement::messages::{
    ApplyPlacement, Placement, PlacementView, PlanPlacement, RangePlaces, SeatView,
};
use rhumb_actors::ranges::catalog::{self, Change, Keyspace, META, Place, RangeRow};
use rhumb_actors::ranges::feeding::{self, Stand};
use rhumb_actors::ranges::messages::{KvRefusal, ListRanges, RangeView};
use rhumb_actors::ranges::raft::{Distances, Fed, Feeding};
use rhumb_actors::ranges::{RangeId, Seat};
use rhumb_core::{DataClass, NodeId, Region, StoreId};
use rhumb_topology::RegionMap;
use rhumb_topology::placement::{self, Chosen, Ground, NoPlan, Plan, Wish};
use tokio::time::Instant;

use super::catalog::CreateEnded;
use super::plan::Ended;
use super::serve::{Answer, control};
use super::{Ranges, not_now};
use crate::mesh::registry::Call;
use crate::metrics::exposition::Page;

/// How often it is looked whether something is to be mended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A node that is not connected for less has not been away.
const AWAY_AFTER: Duration = Duration::from_secs(5);
/// What could not be mended is tried again after this.
const REST: Duration = Duration::from_secs(30);
/// For so long a change of what is wanted is waited for here, once it is in the meta range.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How long another node may take to say which replicas it has.
const SAYS_WITHIN: Duration = Duration::from_secs(1);

/// What this node knows of the placement of replicas.
#[derive(Debug, Default)]
pub(super) struct Placing {
    map: RegionMap,
    /// Since when nodes are not connected.
    away: Mutex<BTreeMap<NodeId, Instant>>,
    /// Keyspaces that could not be mended, until when they rest.
    resting: Mutex<BTreeMap<String, Instant>>,
    /// What was mended, by its outcome.
    mended: Mutex<BTreeMap<&'static str, u64>>,
    /// What learners were fed.
    fed: Arc<Fed>,
}

impl Placing {
    fn lost(&self) -> BTreeMap<NodeId, Duration> {
        let away = self.away.lock();
        let lost = away.iter().map(|(node, since)| (node.clone(), since.elapsed()));
        lost.filter(|(_, since)| *since >= AWAY_AFTER).collect()
    }

    /// By what learners are fed: by the distances of plans, which are the same on all nodes.
    pub(super) fn feeding(&self, feeds: bool) -> Feeding {
        let map = self.map.clone();
        let distances: Distances = Arc::new(move |from: &Region, to: &Region| map.rtt(from, to).ok());
        Feeding { distances: feeds.then_some(distances), fed: Arc::clone(&self.fed) }
    }

    fn mended(&self, outcome: &'static str) {
        *self.mended.lock().entry(outcome).or_default() += 1;
    }
}

impl Ranges {
    /// Notes which nodes are away, and mends what is to be mended. It does not end.
    pub(super) async fn tend(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.note_away();
            let Ok(host) = self.host() else { continue };
            if !host.holds(META).await {
                continue;
            }
            let nodes = self.0.parts.founding.nodes().to_vec();
            let mends = self.known(|known| mend::mends(known, &nodes));
            self.0.placing.resting.lock().retain(|_, until| *until > Instant::now());
            for mend in mends {
                let rests = self.0.placing.resting.lock().contains_key(&mend.keyspace);
                if !rests && !self.mend(&mend).await {
                    let until = Instant::now() + REST;
                    self.0.placing.resting.lock().insert(mend.keyspace, until);
                }
            }
        }
    }

    fn note_away(&self) {
        let links = self.0.parts.mesh.transport().map(|transport| transport.links()).unwrap_or_default();
        let mut away = self.0.placing.away.lock();
        for link in links {
            match link.state {
                rhumb_transport::LinkState::Connected => drop(away.remove(&link.peer)),
                _ => drop(away.entry(link.peer).or_insert_with(Instant::now)),
            }
        }
    }

    /// Changes the row of a keyspace, as leaseholder of the meta range: whether it was.
    async fn mend(&self, Mend { keyspace, change, why }: &Mend) -> bool {
        let log = &self.0.parts.log;
        let record = Record::told("placement.mend", format!("node {}", self.0.parts.me), Outcome::Begun)
            .on(format!("keyspace {keyspace}"))
            .with("reason", why.clone());
        if let Err(error) = log.append(record.clone(), None).await {
            tracing::warn!(keyspace, %error, "not mended: it cannot be logged");
            return false;
        }
        let (outcome, word, record) = match self.planned(keyspace, change).await {
            Ok(_) => {
                tracing::warn!(keyspace, why, "replicas are wanted elsewhere");
                (Outcome::Done, "done", record)
            }
            Err(CreateEnded::Refused(refusal)) => {
                tracing::warn!(keyspace, why, %refusal, "not mended; it is tried again");
                (Outcome::Refused, "refused", record.with("why", refusal.to_string()))
            }
            Err(CreateEnded::At(_) | CreateEnded::Unknown(_)) => {
                let why = "the lease of the meta range moved; who holds it mends it";
                (Outcome::Failed, "failed", record.with("why", why))
            }
        };
        self.0.placing.mended(word);
        if let Err(error) = log.append(Record { outcome, ..record }, None).await {
            tracing::warn!(keyspace, %error, "how a mend ended cannot be logged");
        }
        outcome == Outcome::Done
    }

    /// Something of what is known of the mesh.
    fn known<T>(&self, what: impl FnOnce(&Known<'_>) -> T) -> T {
        let keyspaces = self.0.keyspaces.read().clone();
        let (stores, lost) = (self.stores(), self.0.placing.lost());
        let policy = self.0.parts.policy.snapshots();
        let policy = policy.load();
        let distances = |from: &Region, to: &Region| self.0.placing.map.rtt(from, to).ok();
        what(&Known {
            keyspaces: &keyspaces,
            stores: &stores,
            lost: &lost,
            distances: &distances,
            policy: &policy,
            replace_after: self.0.parts.replace_after,
        })
    }

    fn stores(&self) -> BTreeMap<NodeId, StoreId> {
        let founders = self.0.founders.read();
        founders.iter().map(|(node, founder)| (node.clone(), founder.store)).collect()
    }

    /// The places of a new range. `seats` are those of the meta range: nodes may not have said yet which disks they have.
    pub(super) fn places_of_new(
        &self,
        seats: &[Seat],
        class: &DataClass,
        wish: &Wish,
    ) -> Result<Vec<Place>, KvRefusal> {
        self.known(|known| {
            let stores = with(seats, known);
            let known = Known { stores: &stores, ..*known };
            let nodes: Vec<_> = stores.keys().cloned().collect();
            let sites = mend::sites(&known, &nodes);
            let ground = Ground { sites: &sites, distances: known.distances, policy: known.policy, class };
            let plan = placement::plan(&ground, wish).map_err(refusal)?;
            Ok(mend::places(&known, &plan))
        })
    }

    // ---- asked for -------------------------------------------------------------------------------

    pub(super) async fn plans_placement(self, call: Call<PlanPlacement>) -> Answer<PlacementView> {
        let until = Instant::now() + call.within.mul_f32(0.9);
        let PlanPlacement { about, keyspace, replication, placement } = call.message;
        let seats = match self.meta_seats().await {
            Ok(seats) => seats,
            Err(refusal) => return control(Err(refusal)),
        };
        let planned = match (about, keyspace) {
            (Some(class), None) => {
                let wish = placement.unwrap_or_default().wish(replication);
                self.view(&seats, &class, None, &wish).map(|(view, _)| (view, None))
            }
            (None, Some(name)) => self.space(&name).and_then(|space| {
                let replication = if replication == 0 { space.replication } else { replication };
                let wish = placement.as_ref().unwrap_or(&space.placement).wish(replication);
                self.view(&seats, &space.class, Some(&space), &wish).map(|(view, _)| (view, Some(space)))
            }),
            _ => {
                let why = "a plan is for a class or for a keyspace: expected one of the two";
                Err(KvRefusal::Invalid(why.to_owned()))
            }
        };
        control(match planned {
            Ok((view, Some(space))) => Ok(self.as_it_stands(view, &space, until).await),
            Ok((view, None)) => Ok(view),
            Err(refusal) => Err(refusal),
        })
    }

    /// A range that stands as planned by its row does so once its replicas do: those that come have to be there, and those that have
    /// left to be cleared away.
    async fn as_it_stands(&self, view: PlacementView, space: &Keyspace, until: Instant) -> PlacementView {
        if !view.ranges.iter().any(|range| range.as_planned) {
            return view;
        }
        let said = self.replicas_of_all(until).await;
        let stands = |range: RangePlaces| {
            let row = space.row(RangeId(range.range)).filter(|_| range.as_planned);
            RangePlaces { as_planned: row.is_some_and(|row| are_there(row, &said)), ..range }
        };
        PlacementView { ranges: view.ranges.into_iter().map(stands).collect(), ..view }
    }

    /// The replicas of all nodes that say so in time.
    async fn replicas_of_all(&self, until: Instant) -> Vec<RangeView> {
        let within = until.saturating_duration_since(Instant::now()).min(SAYS_WITHIN);
        let asked = self.0.parts.founding.nodes().iter().map(|node| async move {
            if *node == self.0.parts.me {
                return self.range_views().await.unwrap_or_default();
            }
            let (mesh, control) = (&self.0.parts.mesh, DataClass::control());
            let asked = mesh.ask_node(node, &ListRanges {}, control, within).await;
            asked.ok().and_then(|(said, _)| said.ok()).unwrap_or_default()
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    pub(super) async fn applies_placement(self, call: Call<ApplyPlacement>) -> Answer<PlacementView> {
        let record = Record::told("placement.apply", "", Outcome::Begun)
            .on(format!("keyspace {}", call.message.keyspace));
        control(self.told_of(&call.from, record, self.apply(&call.message, call.within)).await?)
    }

    async fn apply(&self, asked: &ApplyPlacement, within: Duration) -> Ended<PlacementView> {
        let until = Instant::now() + within.mul_f32(0.9);
        let seats = match self.meta_seats().await {
            Ok(seats) => seats,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let made = self.space(&asked.keyspace).and_then(|space| {
            let (replication, placement) = wished(&space, asked);
            let (_, places) = self.view(&seats, &space.class, Some(&space), &placement.wish(replication))?;
            Ok((space, Change::Wish { replication, placement }, places))
        });
        let (space, wish, places) = match made {
            Ok(made) => made,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let ranges: Vec<_> = space.ranges.iter().filter(|row| row.begun).map(|row| row.range).collect();
        let moves = ranges.into_iter().map(|range| Change::Places { range, places: places.clone() });
        let mut after = space;
        for change in std::iter::once(wish).chain(moves) {
            let row = match self.plan(&after.name, &change, until).await? {
                Ok(row) => row,
                Err(refusal) => return Ok(Err(refusal)),
            };
            match catalog::decode(&row) {
                Ok(space) => after = space,
                Err(why) => return Ok(Err(KvRefusal::Unsound(why))),
            }
        }
        self.sees_wish(&after, until.min(Instant::now() + SEEN_WITHIN)).await;
        // The leaseholders do the rest. What is answered is the plan, beside where replicas stand by now.
        let wish = after.placement.wish(after.replication);
        Ok(match self.view(&seats, &after.class, Some(&after), &wish) {
            Ok((view, _)) => Ok(self.as_it_stands(view, &after, until).await),
            Err(refusal) => Err(refusal),
        })
    }

    /// Waits until this node goes by what was wished: whoever asks next here is told of it.
    async fn sees_wish(&self, after: &Keyspace, until: Instant) {
        let wish = |space: &Keyspace| (space.replication, space.placement.clone());
        while self.space(&after.name).is_ok_and(|seen| wish(&seen) != wish(after)) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn meta_seats(&self) -> Result<Vec<Seat>, KvRefusal> {
        let none = || not_now("there is no meta range here yet");
        let group = self.host()?.group(META).ok_or_else(none)?;
        let seats = group.replica().await.descriptor().seats.clone();
        Ok(seats)
    }

    fn space(&self, name: &str) -> Result<Keyspace, KvRefusal> {
        let space = self.0.keyspaces.read().get(name).cloned();
        space.ok_or_else(|| KvRefusal::NoSuchKeyspace(name.to_owned()))
    }

    fn view(
        &self,
        seats: &[Seat],
        class: &DataClass,
        space: Option<&Keyspace>,
        wish: &Wish,
    ) -> Result<(PlacementView, Vec<Place>), KvRefusal> {
        let nodes = self.0.parts.founding.nodes().to_vec();
        self.known(|known| {
            let stores = with(seats, known);
            let known = &Known { stores: &stores, ..*known };
            let sites = mend::sites(known, &nodes);
            let ground = Ground { sites: &sites, distances: known.distances, policy: known.policy, class };
            let plan = placement::plan(&ground, wish).map_err(refusal)?;
            let places = mend::places(known, &plan);
            let rows = space.iter().flat_map(|space| space.ranges.iter().map(move |row| (*space, row)));
            let rows = rows.filter(|(_, row)| row.begun);
            let ranges = rows.map(|(space, row)| stands(known, &nodes, space, row, &places)).collect();
            let fed = if self.0.parts.feeds { fed(&plan, known) } else { BTreeMap::new() };
            Ok((self.told(plan, &fed, class, space, ranges), places))
        })
    }

    fn told(
        &self,
        plan: Plan,
        fed: &BTreeMap<NodeId, NodeId>,
        class: &DataClass,
        space: Option<&Keyspace>,
        ranges: Vec<RangePlaces>,
    ) -> PlacementView {
        let seat = |Chosen { node, role, why }| SeatView { node, role: role.to_string(), why };
        let learner = |chosen: Chosen| match fed.get(&chosen.node) {
            Some(feeder) => Chosen { why: format!("{}; fed by {feeder}", chosen.why), ..chosen },
            None => chosen,
        };
        let rejected = plan.rejected.into_iter().map(|other| SeatView {
            node: other.node,
            role: other.role.to_string(),
            why: other.why,
        });
        PlacementView {
            node: self.0.parts.me.clone(),
            class: class.clone(),
            keyspace: space.map(|space| space.name.clone()),
            policy: plan.policy,
            seats: plan.voters.into_iter().chain(plan.learners.into_iter().map(learner)).map(seat).collect(),
            leaseholder: seat(plan.leaseholder),
            may_lose: plan.may_lose,
            survives: plan.survives,
            rejected: rejected.collect(),
            ranges,
        }
    }

    /// What this node tells of ranges that lack a replica, and of what it mended.
    pub(super) fn tell_placement(&self, page: &mut Page) {
        let nodes = self.0.parts.founding.nodes().to_vec();
        let missing: Vec<_> = self.known(|known| {
            let spaces = known.keyspaces.values();
            let of = |space: &Keyspace| {
                let rows = space.ranges.iter().filter(|row| row.begun);
                let lacks = rows.filter(|row| !mend::missing(known, &nodes, space, row).is_empty());
                (space.name.clone(), lacks.count() as u64)
            };
            spaces.map(of).collect()
        });
        let missing: Vec<_> = missing.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        let help = "Ranges of a keyspace with a replica that cannot be counted on, as this node sees it";
        page.gauges("rhumb_ranges_under_replicated", help, "keyspace", &missing);
        let mended: Vec<_> =
            self.0.placing.mended.lock().iter().map(|(word, count)| (*word, *count)).collect();
        let help = "Rows of keyspaces that this node changed to mend ranges, by how that ended";
        page.counters("rhumb_placement_mends", help, "outcome", &mended);
        let fed = &self.0.placing.fed;
        let help = "Entries that learners of ranges led here got from another replica";
        page.counter("rhumb_range_fed_entries", help, fed.entries() as f64);
        let help = "Bytes of entries that learners of ranges led here got from another replica";
        page.counter("rhumb_range_fed_bytes", help, fed.bytes() as f64);
        let help = "Times that another replica did not pass entries on, so that they were sent from here";
        page.counter("rhumb_range_feeds_failed", help, fed.failed() as f64);
        let help = "Bytes of entries that replicas here passed on to learners of ranges led elsewhere";
        page.counter("rhumb_range_passed_on_bytes", help, fed.passed_on() as f64);
    }
}

/// The disks that nodes have said, and those of the meta range's seats where they have not said it yet.
fn with(seats: &[Seat], known: &Known<'_>) -> BTreeMap<NodeId, StoreId> {
    let founded = seats.iter().map(|seat| (seat.node.clone(), seat.store));
    founded.chain(known.stores.iter().map(|(node, store)| (node.clone(), *store))).collect()
}

/// By whom learners are fed where all stands as it is planned.
fn fed(plan: &Plan, known: &Known<'_>) -> BTreeMap<NodeId, NodeId> {
    let stand = |votes: bool| {
        move |Chosen { node, .. }: &Chosen| Stand { who: node.clone(), region: node.region.clone(), votes }
    };
    let voters = plan.voters.iter().map(stand(true));
    let all: Vec<_> = voters.chain(plan.learners.iter().map(stand(false))).collect();
    feeding::tree(&plan.leaseholder.node, &all, known.distances)
}

fn wished(space: &Keyspace, asked: &ApplyPlacement) -> (u32, Placement) {
    let replication = if asked.replication == 0 { space.replication } else { asked.replication };
    (replication, asked.placement.clone().unwrap_or_else(|| space.placement.clone()))
}

/// How a range stands beside its plan.
fn stands(
    known: &Known<'_>,
    nodes: &[NodeId],
    space: &Keyspace,
    row: &RangeRow,
    places: &[Place],
) -> RangePlaces {
    let on = |votes: bool| {
        let seats = row.seats.iter().filter(move |seat| seat.votes == votes);
        seats.map(|seat| seat.node.clone()).collect::<Vec<_>>()
    };
    let is_planned =
        |seat: &Seat| places.iter().any(|place| place.store == seat.store && place.votes == seat.votes);
    RangePlaces {
        range: row.range.0,
        voters: on(true),
        learners: on(false),
        as_planned: row.leaving.is_empty()
            && row.seats.len() == places.len()
            && row.seats.iter().all(is_planned),
        missing: mend::missing(known, nodes, space, row),
    }
}

/// Whether the replicas of a range that nodes say they have are those of its row, and vote as it says. A node that has not answered has none.
fn are_there(row: &RangeRow, said: &[RangeView]) -> bool {
    let wanted: BTreeSet<_> = row.seats.iter().map(|seat| (seat.replica.0, seat.votes)).collect();
    let of_it = said.iter().filter(|view| view.range == row.range.0);
    of_it.map(|view| (view.replica, view.votes)).collect::<BTreeSet<_>>() == wanted
}

fn refusal(none: NoPlan) -> KvRefusal {
    match none {
        NoPlan::NotAllowed(why) => KvRefusal::NotAllowed(why),
        NoPlan::Impossible(why) => KvRefusal::Invalid(why),
    }
}

#[cfg(test)]
mod tests {
    use rhumb_actors::ranges::ReplicaId;

    use super::*;

    fn seat(replica: u64, votes: bool) -> Seat {
        let node = format!("eu/n{replica}").parse().expect("a node");
        Seat { replica: ReplicaId(replica), node, store: StoreId(u128::from(replica)), votes }
    }

    fn view(range: u64, replica: u64, votes: bool) -> RangeView {
        RangeView {
            range,
            keyspace: "profiles".to_owned(),
            replica,
            node: seat(replica, votes).node,
            leads: false,
            leaseholder: false,
            votes,
            applied: 0,
            closed_ms: 0,
            nodes: Vec::new(),
            threshold_ms: 0,
            collected: 0,
            condition: String::new(),
            feeds: Vec::new(),
        }
    }

    #[test]
    fn replicas_stand_as_planned_when_those_that_come_are_there_and_those_that_left_are_gone() {
        let row = RangeRow::created(RangeId(2), vec![seat(1, true), seat(2, false)]);
        let (voter, learner) = (view(2, 1, true), view(2, 2, false));
        let there = vec![voter.clone(), learner.clone(), view(3, 7, true)];
        assert!(are_there(&row, &there), "another range's do not count");
        let left = view(2, 3, true);
        assert!(!are_there(&row, &[there.clone(), vec![left]].concat()), "one that left is not cleared away");
        assert!(!are_there(&row, &[voter]), "one that comes is not there, or its node does not say so");
        assert!(!are_there(&row, &[view(2, 1, false), learner]), "it does not vote yet");
    }
}
