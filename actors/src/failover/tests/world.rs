//! A simulated world of nodes, of which each watches the others, and of the meta range, of which this world has only what
//! consensus gives: one register, read and changed at one moment by who holds its lease and reaches a majority.
//!
//! Links are cut, also one way; nodes die, freeze and come back; answers are late; clocks differ by as much as they may.

mod actors;

use std::collections::BTreeMap;
use std::sync::Arc;

use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{HybridTime, Mono, NodeId, Now};

use self::actors::{Actors, Sent};
use crate::failover::messages::Beat;
use crate::failover::{
    Change, Coordinator, FailoverSettings, Fence, Holder, Observer, Permits, Row, State, Table,
};

const SECOND: u64 = 1_000;
/// Trouble until then.
const HEALS: u64 = 90 * SECOND;
const ENDS: u64 = 140 * SECOND;
/// All clocks lie within `max_offset`.
const OFF: i64 = 250;
/// Behind true time, so that a clock may be.
const BASE: u64 = 1_000_000;

/// What a story had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) fences: usize,
    pub(super) aways: usize,
    pub(super) returns: usize,
    /// Looks at which somebody was suspected and not lost.
    pub(super) suspicions: usize,
    /// Changes that found another row than was read.
    pub(super) overtaken: usize,
    /// Looks of a node that had no permit.
    pub(super) expired: usize,
    /// Messages of actors that were handled.
    pub(super) handled: usize,
    /// Those that were handled on another node than the one before.
    pub(super) moved: usize,
    /// Messages that came to a node that knew a better one.
    pub(super) redirected: usize,
    /// Messages that nobody could take.
    pub(super) refused: usize,
    /// Instances that ended because their node may not act any more, or was fenced in between.
    pub(super) ended: usize,
}

struct Machines {
    observer: Observer,
    coordinator: Coordinator,
    permits: Permits,
}

struct Node {
    id: NodeId,
    up: bool,
    stopped_until: u64,
    off: i64,
    /// The highest that its clock has shown.
    shown: HybridTime,
    /// Its hybrid time stands still until then, for its disk has stopped.
    stuck_until: u64,
    life: u64,
    machines: Machines,
    /// Whether it holds the lease, as far as it knows.
    leads: bool,
}

#[derive(Clone)]
enum Event {
    Tick(usize, u64),
    Beat(usize, usize, Beat),
    /// A node's question is at the leaseholder.
    Asked(usize, u64, Now),
    /// All fences, as they stood.
    Read(usize, u64, Now, Arc<Table>),
    /// The same for the coordinator.
    Known(usize, u64, Option<HybridTime>, BTreeMap<NodeId, Row>),
    /// A change comes to the log.
    Applied(usize, Change),
    /// Somebody at this node has a message for an actor.
    Calls(usize),
    /// A message for an actor is at a node.
    Sent(usize, Sent),
    Trouble,
}

struct World {
    rng: Rng,
    settings: FailoverSettings,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    nodes: Vec<Node>,
    /// Which links are cut, and until when.
    cuts: BTreeMap<(usize, usize), u64>,
    /// When a node was last heard by another one, and until when it was last not heard for long.
    heard: BTreeMap<(usize, usize), (u64, u64)>,
    rows: BTreeMap<NodeId, Row>,
    all_at: Option<HybridTime>,
    lease: usize,
    lease_lost: Option<u64>,
    dead_for_ever: Option<usize>,
    actors: Actors,
    tally: Tally,
}

pub(super) fn run(seed: u64) -> Result<Tally, String> {
    World::new(seed).run()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Seed::new(seed).child("failover").rng();
        let settings = FailoverSettings::default();
        let names: &[&str] = match rng.below(3) {
            0 => &["ap/n1", "eu/n1", "us/n1"],
            1 => &["ap/n1", "eu/n1", "us/n1", "us/n2"],
            _ => &["ap/n1", "eu/n1", "sa/n1", "us/n1", "us/n2"],
        };
        let ids: Vec<NodeId> = names.iter().map(|name| name.parse().expect("a node")).collect();
        let node = |id: &NodeId| Node {
            id: id.clone(),
            up: true,
            stopped_until: 0,
            off: rng.between(0, 2 * OFF as u64) as i64 - OFF,
            shown: HybridTime::ZERO,
            stuck_until: 0,
            life: 0,
            machines: machines(id, &ids, settings, 0),
            leads: false,
        };
        let nodes: Vec<Node> = ids.iter().map(node).collect();
        let dead_for_ever = seed.is_multiple_of(3).then(|| rng.below(nodes.len() as u64) as usize);
        let actors = Actors::new(&ids);
        let mut world = Self {
            rng,
            settings,
            now: 0,
            events: BTreeMap::new(),
            sequence: 0,
            nodes,
            cuts: BTreeMap::new(),
            heard: BTreeMap::new(),
            rows: BTreeMap::new(),
            all_at: None,
            lease: 0,
            lease_lost: None,
            dead_for_ever,
            actors,
            tally: Tally::default(),
        };
        for node in 0..world.nodes.len() {
            let first = world.rng.below(SECOND);
            world.after(first, Event::Tick(node, 0));
            world.after(first + SECOND / 2, Event::Calls(node));
        }
        world.after(15 * SECOND, Event::Trouble);
        world
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + wait, self.sequence), event);
    }

    fn run(mut self) -> Result<Tally, String> {
        let mut healed = false;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            if at >= HEALS && !healed {
                healed = true;
                self.heal();
            }
            if at >= ENDS {
                break;
            }
            self.step(event)?;
            self.never_two()?;
        }
        self.ends_well()?;
        Ok(self.tally)
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        // Who is stopped does everything later; who has died since does nothing.
        if let Some((node, life)) = whose(&event) {
            let Node { up, life: present, stopped_until, .. } = self.nodes[node];
            if !up || life.is_some_and(|life| life != present) {
                return Ok(());
            }
            if stopped_until > self.now {
                self.after(stopped_until - self.now, event);
                return Ok(());
            }
        }
        match event {
            Event::Tick(node, life) => self.tick(node, life),
            Event::Beat(from, to, word) => self.beat(from, to, &word),
            Event::Asked(node, life, asked) => self.asked(node, life, asked),
            Event::Read(node, _, asked, table) => {
                let now = self.clock(node);
                self.nodes[node].machines.permits.read(asked, now, table);
            }
            Event::Known(node, _, all_at, rows) => {
                let now = self.clock(node);
                if self.nodes[node].leads {
                    self.nodes[node].machines.coordinator.read(now, all_at, rows);
                }
            }
            Event::Applied(node, change) => self.applied(node, change)?,
            Event::Calls(node) => self.calls(node)?,
            Event::Sent(node, sent) => self.takes(node, sent)?,
            Event::Trouble => self.trouble(),
        }
        Ok(())
    }

    fn clock(&mut self, node: usize) -> Now {
        let (now, this) = (self.now, &mut self.nodes[node]);
        let wall = HybridTime::new((BASE + now).saturating_add_signed(this.off), 0);
        if this.stuck_until <= now {
            this.shown = this.shown.max(wall);
        }
        Now { hybrid: this.shown, mono: Mono::millis(now) }
    }

    /// What a node may act by.
    fn permit(&mut self, node: usize) -> Option<Arc<Table>> {
        let now = self.clock(node);
        let this = &self.nodes[node];
        let wall = (BASE + self.now).saturating_add_signed(this.off);
        this.machines.permits.at(now, wall).filter(|_| this.up).cloned()
    }

    fn stands(&self, node: usize) -> bool {
        self.nodes[node].up && self.nodes[node].stopped_until <= self.now
    }

    fn link(&self, from: usize, to: usize) -> bool {
        from == to || self.cuts.get(&(from, to)).is_none_or(|until| *until <= self.now)
    }

    /// Whether consensus goes on under this leader: it hears a majority, which hears it.
    fn leads(&self, node: usize) -> bool {
        let count = self.nodes.len();
        let with = |other: &usize| self.stands(*other) && self.link(node, *other) && self.link(*other, node);
        self.stands(node) && 2 * (0..count).filter(with).count() > count
    }

    /// One who does not reach a majority loses the lease after a while, to one who does.
    fn elect(&mut self) {
        if self.leads(self.lease) && (self.now >= HEALS || !self.rng.chance(0.002)) {
            self.lease_lost = None;
            return;
        }
        let since = *self.lease_lost.get_or_insert(self.now);
        if self.now - since < 3_500 {
            return;
        }
        let able: Vec<usize> = (0..self.nodes.len()).filter(|node| self.leads(*node)).collect();
        if let Some(next) = self.rng.pick(&able) {
            (self.lease, self.lease_lost) = (*next, None);
        }
    }

    fn tick(&mut self, node: usize, life: u64) {
        self.elect();
        let jitter = self.rng.below(60);
        self.after(970 + jitter, Event::Tick(node, life));
        let now = self.clock(node);
        let word = self.nodes[node].machines.observer.look(now.mono);
        let id = self.nodes[node].id.clone();
        self.nodes[node].machines.coordinator.heard(now.mono, &id, word.clone());
        self.nodes[node].machines.coordinator.look(now.mono);
        for to in (0..self.nodes.len()).filter(|to| *to != node) {
            if self.link(node, to) && !self.rng.chance(0.05) {
                let wait = self.rng.between(5, 150);
                self.after(wait, Event::Beat(node, to, word.clone()));
            }
        }
        if self.permit(node).is_none() {
            self.tally.expired += 1;
        }
        self.looks_at_actors(node);
        if self.link(node, self.lease) {
            let wait = self.late();
            self.after(wait, Event::Asked(node, life, now));
        }
        self.coordinates(node, life, now);
    }

    fn coordinates(&mut self, node: usize, life: u64, now: Now) {
        // It learns late that the lease is another one's; reads are what the lease guards.
        let holds = self.lease == node && self.leads(node);
        let this = &mut self.nodes[node];
        if !holds && this.leads && self.rng.chance(0.7) {
            this.leads = false;
            this.machines.coordinator.deposed();
        }
        let stands = this.machines.coordinator.stands(now.mono);
        self.tally.suspicions += stands.iter().filter(|one| one.state == State::Suspected).count();
        if let Some(change) = this.machines.coordinator.decide(now) {
            let wait = self.late();
            self.after(wait, Event::Applied(node, change));
        }
        if holds {
            self.nodes[node].leads = true;
            let (rows, wait) = (self.rows.clone(), self.rng.between(1, 400));
            self.after(wait, Event::Known(node, life, self.all_at, rows));
        }
    }

    /// How long something takes.
    fn late(&mut self) -> u64 {
        if self.now < HEALS && self.rng.chance(0.1) {
            self.rng.between(500, 3_500)
        } else {
            self.rng.between(5, 300)
        }
    }

    fn beat(&mut self, from: usize, to: usize, word: &Beat) {
        let now = self.clock(to);
        let (last, gap) = self.heard.get(&(from, to)).copied().unwrap_or_default();
        let gap = if self.now - last > 3 * SECOND { self.now } else { gap };
        self.heard.insert((from, to), (self.now, gap));
        let id = self.nodes[from].id.clone();
        self.nodes[to].machines.observer.heard(now.mono, &id);
        self.nodes[to].machines.coordinator.heard(now.mono, &id, word.clone());
    }

    fn asked(&mut self, node: usize, life: u64, asked: Now) {
        if self.leads(self.lease) && self.link(self.lease, node) {
            let rows = self.rows.iter().map(|(id, row)| (id.clone(), row.fence));
            let (table, wait) = (Arc::new(Table::new(rows)), self.late());
            self.after(wait, Event::Read(node, life, asked, table));
        }
    }

    /// A change takes effect if the row is still what was read, whoever proposed it.
    fn applied(&mut self, by: usize, change: Change) -> Result<(), String> {
        if !self.leads(self.lease) {
            return Ok(());
        }
        let Change { node, all_at, from, to, .. } = change;
        let none = Row { fence: Fence::default(), version: None };
        let row = self.rows.get(&node).copied().unwrap_or(none);
        if row != from || all_at != self.all_at {
            self.tally.overtaken += 1;
            return Ok(());
        }
        if row.version.is_none() && to == row.fence {
            let version = self.version(by);
            self.rows.insert(node, Row { fence: to, version });
            return Ok(());
        }
        if !row.fence.may_become(to) {
            return Err(format!("the fence of {node} became {to:?} after {:?}", row.fence));
        }
        match (row.fence.holder, to.holder) {
            (Holder::Itself, _) => {
                self.tally.fences += 1;
                self.was_lost(&node)?;
            }
            (_, Holder::Others) => self.tally.aways += 1,
            (_, Holder::Itself) => self.tally.returns += 1,
            _ => {}
        }
        let version = self.version(by);
        self.rows.insert(node, Row { fence: to, version });
        let acting =
            self.nodes.len() - self.rows.values().filter(|r| r.fence.holder != Holder::Itself).count();
        let enough = 2 * acting > self.nodes.len();
        if enough {
            Ok(())
        } else {
            Err(format!("{acting} of {} nodes act for themselves", self.nodes.len()))
        }
    }

    /// When something is written to the register.
    fn version(&mut self, by: usize) -> Option<HybridTime> {
        let later = self.all_at.map(|at| at.plus(millis(1))).unwrap_or_default();
        self.all_at = Some(self.clock(by).hybrid.max(later));
        self.all_at
    }

    /// A node that is fenced was not heard for long, not long ago, by a majority of the others.
    fn was_lost(&self, node: &NodeId) -> Result<(), String> {
        let at = self.nodes.iter().position(|one| one.id == *node).expect("it is there");
        let missed = |to: &usize| {
            let (last, gap) = self.heard.get(&(at, *to)).copied().unwrap_or_default();
            let recently = self.now.saturating_sub(12 * SECOND);
            *to != at && (self.now - last > 3 * SECOND || gap > recently)
        };
        let count = self.nodes.len();
        let missed = (0..count).filter(missed).count();
        let enough = missed >= 2 && 2 * missed > count - 1;
        if enough {
            Ok(())
        } else {
            Err(format!("{node} is fenced, and {missed} of {count} had not heard it"))
        }
    }

    /// Of a node and those who act in its place never more than one may act at one moment.
    fn never_two(&mut self) -> Result<(), String> {
        let tables: Vec<Option<Arc<Table>>> = (0..self.nodes.len()).map(|node| self.permit(node)).collect();
        for (at, node) in self.nodes.iter().enumerate() {
            let itself = tables[at].as_ref().map(|table| table.fence(&node.id));
            let Some(itself) = itself.filter(|fence| fence.holder == Holder::Itself) else { continue };
            for (other, table) in tables.iter().enumerate().filter(|(other, _)| *other != at) {
                let fence = table.as_ref().map(|table| table.fence(&node.id));
                if let Some(fence) = fence.filter(|fence| fence.holder == Holder::Others) {
                    return Err(format!(
                        "at {} {} acts under epoch {}, and {} for it under epoch {}",
                        self.now, node.id, itself.epoch, self.nodes[other].id, fence.epoch
                    ));
                }
            }
        }
        Ok(())
    }

    fn trouble(&mut self) {
        if self.now >= HEALS {
            return;
        }
        let wait = self.rng.between(500, 8_000);
        self.after(wait, Event::Trouble);
        let count = self.nodes.len() as u64;
        let (node, other) = (self.rng.below(count) as usize, self.rng.below(count) as usize);
        let until = self.now + self.rng.between(2_000, 15_000);
        match self.rng.below(8) {
            0 => self.crash(node),
            1 => self.start(node),
            2 => self.nodes[node].stopped_until = until,
            3 | 4 => drop(self.cuts.insert((node, other), until)),
            5 => {
                if self.rng.chance(0.5) {
                    self.nodes[node].stuck_until = until;
                }
                for peer in 0..self.nodes.len() {
                    self.cuts.insert((node, peer), until);
                    if self.rng.chance(0.7) {
                        self.cuts.insert((peer, node), until);
                    }
                }
            }
            _ => self.nodes[node].off = self.rng.between(0, 2 * OFF as u64) as i64 - OFF,
        }
    }

    fn crash(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        (this.up, this.leads, this.life) = (false, false, this.life + 1);
        self.actors.died(node);
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        let ids: Vec<NodeId> = self.nodes.iter().map(|node| node.id.clone()).collect();
        let this = &mut self.nodes[node];
        this.machines = machines(&ids[node], &ids, self.settings, self.now);
        (this.up, this.stopped_until, this.stuck_until) = (true, 0, 0);
        let life = this.life;
        self.after(10, Event::Tick(node, life));
    }

    fn heal(&mut self) {
        self.cuts.clear();
        for node in 0..self.nodes.len() {
            (self.nodes[node].stopped_until, self.nodes[node].stuck_until) = (0, 0);
            match self.dead_for_ever == Some(node) {
                true => self.crash(node),
                false => self.start(node),
            }
        }
    }

    /// Who is there acts for itself and may; who is not is away.
    fn ends_well(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            let id = self.nodes[node].id.clone();
            let fence = self.rows.get(&id).map(|row| row.fence).unwrap_or_default();
            let dead = self.dead_for_ever == Some(node);
            let want = if dead { Holder::Others } else { Holder::Itself };
            if fence.holder != want {
                let stands = self.nodes[self.lease].machines.coordinator.stands(Mono::millis(self.now));
                return Err(format!(
                    "at the end the fence of {id} is {fence:?}, expected {want:?}; {} holds the lease and finds {stands:?}",
                    self.nodes[self.lease].id
                ));
            }
            if !dead && self.permit(node).is_none() {
                return Err(format!("at the end {id} has no permit"));
            }
        }
        self.all_are_served()
    }
}

fn machines(me: &NodeId, all: &[NodeId], settings: FailoverSettings, now: u64) -> Machines {
    let now = Mono::millis(now);
    Machines {
        observer: Observer::new(me, all.iter().cloned(), settings, now),
        coordinator: Coordinator::new(all.iter().cloned(), settings, now),
        permits: Permits::new(settings.permit),
    }
}

/// Who does it, and in which life, if it has to be the same.
fn whose(event: &Event) -> Option<(usize, Option<u64>)> {
    match event {
        Event::Tick(node, life) | Event::Read(node, life, ..) | Event::Known(node, life, ..) => {
            Some((*node, Some(*life)))
        }
        Event::Beat(_, to, _) | Event::Calls(to) | Event::Sent(to, _) => Some((*to, None)),
        Event::Asked(..) | Event::Applied(..) | Event::Trouble => None,
    }
}

fn millis(count: u64) -> std::time::Duration {
    std::time::Duration::from_millis(count)
}
