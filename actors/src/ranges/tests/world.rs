//! Several replicas of two ranges (one is split off the other on the way) in a world that knows true time. The log is given:
//! any node may append to it, commands overtake each other on the way there and get lost, and each node comes to know of it
//! at its own pace. All else is real: clocks that differ up to the bound, and leap beyond it (then the node is frozen, as its
//! clock keeper would have it); messages of support that are lost, doubled and late; disks that stall and forget; processes
//! that stand still between the two halves of a read; crashes; transfers; a split.
//!
//! Some writes and reads are of two keys at one moment.
//!
//! Checked: a strong read shows every write to its key that was acknowledged, or shown by a strong read, before it began; a
//! bounded one all that was acknowledged before its bound, in true time; a snapshot is what the whole log makes of its time;
//! of a batch all is shown or nothing;
//! a client's session goes neither back nor behind its own writes; replicas do the same with each entry; what is closed never
//! falls. In the end everything heals, and reads and writes must be served.

mod clients;
mod collection;
mod log;
mod trouble;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, Effects, HybridClock, HybridTime, NodeId, StoreId, Ticket};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use rhumb_storage::{Batch, MemoryDisk, MemoryEngine, Store};

use crate::ranges::collect::{Progress, Use};
use crate::ranges::support::{Said, Support, SupportMessage};
use crate::ranges::{
    Command, Consistency, Descriptor, Moment, Outcome, RangeId, RangeReplica, RangeSettings, Reading,
    ReplicaId, Seat, SideClosed, Token,
};

const BEGIN_MS: u64 = 1_763_700_000_000;
const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;
const STORY: u64 = 40 * SECOND;
const SPACE: KeyspaceId = KeyspaceId(1);
const RANGES: [RangeId; 2] = [RangeId(1), RangeId(2)];
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const SPLIT_AT: &str = "d";
const SESSIONS: usize = 3;
/// How long what was can be read.
const RETENTION: Duration = Duration::from_secs(3);
/// How far a clock may be from true time that is not frozen, in milliseconds.
const TOLERANCE: u64 = 200;

fn settings() -> RangeSettings {
    RangeSettings {
        lag: Duration::from_millis(600),
        support: Duration::from_secs(2),
        ..RangeSettings::default()
    }
}

enum Event {
    Beat(usize),
    Heard { from: usize, to: usize, sent: HybridTime, message: SupportMessage },
    Synced { node: usize, life: u32, ticket: Ticket },
    Appended(RangeId, Command),
    Follow(usize),
    WantLease(usize),
    CloseBeside(usize),
    Raise(usize),
    Collect(usize),
    Closed(usize, SideClosed),
    Write { session: usize },
    Begin { session: usize },
    Finish(Box<Underway>),
    Trouble,
    Start(usize),
    Heal,
}

/// A read between its two halves.
struct Underway {
    node: usize,
    life: u32,
    range: RangeId,
    session: usize,
    keys: Vec<Looked>,
    consistency: Consistency,
    reading: Reading,
    /// The lease, if it was held here.
    held: Option<u64>,
    _in_use: Option<Use>,
    has_token: bool,
}

/// A key of a read.
#[derive(Clone, Copy)]
struct Looked {
    key: usize,
    found: Option<HybridTime>,
    /// What a strong read must show: all that was acknowledged or shown when it began.
    must: HybridTime,
    /// What the session had seen of the key when it began.
    seen: HybridTime,
}

struct Node {
    seat: usize,
    life: u32,
    up: bool,
    stopped_until: u64,
    disk_slow_until: u64,
    cut_until: u64,
    off_ms: i64,
    clock: HybridClock,
    disk: MemoryDisk,
    store: Store<MemoryEngine>,
    support: Support,
    out: Effects<Batch, Said>,
    barrier: Barrier<Said>,
    replicas: BTreeMap<RangeId, RangeReplica>,
    progress: BTreeMap<RangeId, Progress>,
}

#[derive(Default)]
struct Session {
    token: Option<Token>,
    seen: BTreeMap<usize, HybridTime>,
}

/// A write that somebody waits for.
struct Waits {
    node: usize,
    life: u32,
    session: usize,
    keys: Vec<usize>,
}

struct World {
    rng: Rng,
    /// Which writes and reads are of several keys: what else is drawn does not hang on it.
    several: Rng,
    /// A world in which clocks are as far apart as they may be, leaseholders are cut off and others are quick to follow them:
    /// where margins are needed to the last of them.
    brisk: bool,
    now: u64,
    put: u64,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    nodes: Vec<Node>,
    logs: BTreeMap<RangeId, Vec<Command>>,
    outcomes: BTreeMap<(RangeId, u64), Outcome>,
    waiting: BTreeMap<(RangeId, HybridTime), Waits>,
    /// Keys that were written at one moment.
    batches: BTreeMap<HybridTime, Vec<usize>>,
    /// By key: all that was written; what was acknowledged, and when in true time; what strong reads have shown.
    written: Vec<Vec<HybridTime>>,
    acked: Vec<Vec<(u64, HybridTime)>>,
    shown: Vec<HybridTime>,
    snapshots: Vec<(usize, HybridTime, Option<HybridTime>)>,
    sessions: Vec<Session>,
    healed: bool,
    /// Writes and followers' reads since everything healed.
    served: (usize, usize),
    tally: Tally,
}

/// What a story was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) leases: usize,
    pub(super) writes: usize,
    pub(super) strong: usize,
    pub(super) snapshots: usize,
    pub(super) splits: usize,
    pub(super) crashes: usize,
    /// Reads that were refused because of what happened between their halves.
    pub(super) given_up: usize,
    /// Versions that were collected, and reads that were refused for being older than what is kept.
    pub(super) collected: usize,
    pub(super) too_old: usize,
    /// Batches that were written, those that a condition kept from being so, and reads of several keys.
    pub(super) batches: usize,
    pub(super) not_written: usize,
    pub(super) scans: usize,
}

/// Runs a seed's story: the first promise that was broken, if one was.
pub(super) fn run(seed: u64) -> Result<Tally, String> {
    World::new(seed).run()
}

fn open(disk: &MemoryDisk) -> Store<MemoryEngine> {
    Store::open(MemoryEngine::open(disk)).expect("what a log leaves opens")
}

fn store_id(node: usize) -> StoreId {
    StoreId(node as u128 + 1)
}

fn key(number: usize) -> UserKey {
    UserKey::new(KEYS[number]).expect("short")
}

fn seats(count: usize, range: u64) -> Vec<Seat> {
    let seat = |node: usize| Seat {
        replica: ReplicaId(range * 100 + node as u64),
        node: NodeId::new(["us", "eu", "ap"][node % 3], &format!("n{node}")).expect("valid"),
        store: store_id(node),
        votes: node < 3,
    };
    (0..count).map(seat).collect()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Seed::new(seed).child("ranges").rng();
        let count = rng.between(3, 4) as usize;
        let brisk = rng.chance(0.5);
        let mut nodes: Vec<_> = (0..count).map(|node| Self::node(node, count, &mut rng)).collect();
        if brisk {
            nodes.iter_mut().for_each(|node| node.off_ms = node.off_ms.signum() * TOLERANCE as i64);
        }
        let mut world = Self {
            rng,
            several: Seed::new(seed).child("several").rng(),
            brisk,
            now: 0,
            put: 0,
            agenda: BinaryHeap::new(),
            events: BTreeMap::new(),
            nodes,
            logs: RANGES.into_iter().map(|range| (range, Vec::new())).collect(),
            outcomes: BTreeMap::new(),
            waiting: BTreeMap::new(),
            batches: BTreeMap::new(),
            written: vec![Vec::new(); KEYS.len()],
            acked: vec![Vec::new(); KEYS.len()],
            shown: vec![HybridTime::ZERO; KEYS.len()],
            snapshots: Vec::new(),
            sessions: (0..SESSIONS).map(|_| Session::default()).collect(),
            healed: false,
            served: (0, 0),
            tally: Tally::default(),
        };
        for node in 0..count {
            world.flush(node);
            let events =
                [Event::Beat(node), Event::Follow(node), Event::WantLease(node), Event::CloseBeside(node)];
            let more = [Event::Raise(node), Event::Collect(node)];
            events.into_iter().chain(more).for_each(|event| world.after(node as u64 * MS, event));
        }
        for session in 0..SESSIONS {
            world.after(SECOND, Event::Write { session });
            world.after(SECOND, Event::Begin { session });
        }
        world.after(3 * SECOND, Event::Trouble);
        world.after(STORY, Event::Heal);
        world
    }

    fn node(node: usize, count: usize, rng: &mut Rng) -> Node {
        let disk = MemoryDisk::new();
        let store = open(&disk);
        let descriptor = Descriptor {
            range: RANGES[0],
            keyspace: SPACE,
            from: UserKey::default(),
            to: None,
            seats: seats(count, 1),
        };
        let replica = RangeReplica::new(settings(), ReplicaId(100 + node as u64), descriptor);
        let mut batch = Batch::new();
        replica.write(&mut batch);
        store.write(&batch).expect("memory takes it");
        store.sync().expect("memory syncs");
        let mut out = Effects::default();
        let support =
            Support::begin(store_id(node), settings().support, [], &mut out).expect("there are no rows");
        let off_ms = rng.between(0, 2 * TOLERANCE) as i64 - TOLERANCE as i64;
        Node {
            seat: node,
            life: 0,
            up: true,
            stopped_until: 0,
            disk_slow_until: 0,
            cut_until: 0,
            off_ms,
            clock: HybridClock::new(HybridTime::from_bits(u64::MAX), settings().max_offset),
            disk,
            store,
            support,
            out,
            barrier: Barrier::default(),
            replicas: BTreeMap::from([(RANGES[0], replica)]),
            progress: BTreeMap::new(),
        }
    }

    fn run(mut self) -> Result<Tally, String> {
        let end = STORY + 15 * SECOND;
        while let Some(Reverse((when, number))) = self.agenda.pop() {
            if when > end {
                break;
            }
            self.now = self.now.max(when);
            let event = self.events.remove(&number).expect("each entry has its event");
            match self.stands_still(&event) {
                Some(until) => self.at(until, event),
                None => self.happens(event)?,
            }
        }
        self.check_snapshots()?;
        match self.served {
            (0, _) => Err(format!("everything is well, and nothing is written: {}", self.stands())),
            (_, 0) => Err("everything is well, and no follower serves".to_owned()),
            _ => Ok(self.tally),
        }
    }

    /// Why no lease is in force.
    fn stands(&self) -> String {
        let node = |node: usize| {
            let moment = self.moment(node, RANGES[0]);
            let replica = &self.nodes[node].replicas[&RANGES[0]];
            format!("\nnode {node}: {moment:?} {:?} {:?}", replica.applied(), replica.permit(&moment))
        };
        (0..self.nodes.len()).map(node).collect()
    }

    fn at(&mut self, when: u64, event: Event) {
        self.put += 1;
        self.agenda.push(Reverse((when, self.put)));
        self.events.insert(self.put, event);
    }

    fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now + wait, event);
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.between(low, high)
    }

    /// Until when an event waits because its node's process stands still.
    fn stands_still(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Beat(node) | Event::Follow(node) | Event::WantLease(node) | Event::CloseBeside(node) => {
                *node
            }
            Event::Raise(node) | Event::Collect(node) => *node,
            Event::Heard { to, .. } | Event::Closed(to, _) => *to,
            Event::Finish(read) => read.node,
            _ => return None,
        };
        Some(self.nodes[node].stopped_until).filter(|until| *until > self.now)
    }

    fn happens(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Beat(node) => self.beat(node),
            Event::Heard { from, to, sent, message } => self.heard(from, to, sent, message),
            Event::Synced { node, life, ticket } => self.synced(node, life, ticket),
            Event::Appended(range, command) => self.logs.get_mut(&range).expect("known").push(command),
            Event::Follow(node) => {
                let wait = self.between(2 * MS, if self.healed || self.brisk { 20 * MS } else { 150 * MS });
                self.after(wait, Event::Follow(node));
                return self.follow(node);
            }
            Event::WantLease(node) => self.want_lease(node),
            Event::CloseBeside(node) => self.close_beside(node),
            Event::Raise(node) => self.raise(node),
            Event::Collect(node) => return self.collect(node),
            Event::Closed(node, said) => {
                if let Some(replica) = self.nodes[node].replicas.get_mut(&said.range) {
                    replica.hear(said);
                }
            }
            Event::Write { session } => self.write(session),
            Event::Begin { session } => return self.begin(session),
            Event::Finish(read) => return self.finish(*read),
            Event::Trouble => self.trouble(),
            Event::Start(node) => self.start(node),
            Event::Heal => self.heal(),
        }
        Ok(())
    }

    // ---- clocks and messages -------------------------------------------------------------------

    fn wall(&self, node: usize) -> u64 {
        (BEGIN_MS + self.now / MS).saturating_add_signed(self.nodes[node].off_ms)
    }

    fn tick(&self, node: usize) -> HybridTime {
        self.nodes[node].clock.tick(self.wall(node)).expect("this clock has no ceiling")
    }

    /// As the clock keeper has it, who knows true time well here.
    fn frozen(&self, node: usize) -> bool {
        self.nodes[node].off_ms.unsigned_abs() > TOLERANCE
            || self.nodes[node].clock.last().millis() > self.may_show()
    }

    /// How far the hybrid time of a node that is well may have come: true time and the rest of what clocks may differ by.
    fn may_show(&self) -> u64 {
        BEGIN_MS + self.now / MS + settings().max_offset.as_millis() as u64 - TOLERANCE
    }

    fn moment(&self, node: usize, range: RangeId) -> Moment {
        let now = self.tick(node);
        let Node { support, replicas, .. } = &self.nodes[node];
        let voters = replicas[&range].descriptor().stores();
        let (frozen, supported) = (self.frozen(node), support.until(&voters));
        Moment { now, passed: now, frozen, epoch: support.epoch(), supported }
    }

    fn is_cut(&self, node: usize) -> bool {
        self.nodes[node].cut_until > self.now || !self.nodes[node].up
    }

    /// How long a message takes; none if it gets lost.
    fn way(&mut self, from: usize, to: usize) -> Option<u64> {
        let lost =
            from != to && (self.is_cut(from) || self.is_cut(to) || (!self.healed && self.rng.chance(0.05)));
        let slow = !self.healed && self.rng.chance(if self.brisk { 0.01 } else { 0.1 });
        let wait = self.between(MS, if slow { 700 * MS } else { 40 * MS });
        (!lost).then_some(wait)
    }

    fn says(&mut self, from: usize, (to, message): Said) {
        let to = to.0 as usize - 1;
        let copies = if self.rng.chance(0.05) { 2 } else { 1 };
        for _ in 0..copies {
            let sent = self.tick(from);
            if let Some(wait) = self.way(from, to) {
                self.after(wait, Event::Heard { from, to, sent, message });
            }
        }
    }

    /// Writes what support wants kept, and says what may be said.
    fn flush(&mut self, node: usize) {
        let Node { out, barrier, store, life, .. } = &mut self.nodes[node];
        let (mut said, mut tickets, life) = (Vec::new(), Vec::new(), *life);
        barrier.absorb(out, |release| match release {
            Release::Persist(ticket, batch) => {
                store.write(&batch).expect("memory takes it");
                tickets.push(ticket);
            }
            Release::Perform(what) => said.push(what),
        });
        for ticket in tickets {
            let slow = self.nodes[node].disk_slow_until.saturating_sub(self.now);
            let wait = slow + self.rng.between(MS, 15 * MS);
            self.after(wait, Event::Synced { node, life, ticket });
        }
        said.into_iter().for_each(|what| self.says(node, what));
    }

    fn synced(&mut self, node: usize, life: u32, ticket: Ticket) {
        if self.nodes[node].life != life || !self.nodes[node].up {
            return;
        }
        self.nodes[node].store.sync().expect("memory syncs");
        let mut said = Vec::new();
        self.nodes[node].barrier.durable(ticket, |what| said.push(what));
        said.into_iter().for_each(|what| self.says(node, what));
    }

    fn beat(&mut self, node: usize) {
        self.after(500 * MS, Event::Beat(node));
        if self.nodes[node].up && !self.frozen(node) {
            let (now, count) = (self.tick(node), self.nodes.len());
            let Node { support, out, .. } = &mut self.nodes[node];
            support.beat(now, (0..count).map(store_id), out);
            self.flush(node);
        }
    }

    fn heard(&mut self, from: usize, to: usize, sent: HybridTime, message: SupportMessage) {
        if !self.nodes[to].up {
            return;
        }
        // As the program has it: a time that is too far ahead is not taken, and what came with it is.
        let (wall, ahead) = (self.wall(to), settings().max_offset.as_millis() as u64 / 5);
        if sent.millis() <= (wall + ahead).max(self.may_show()) {
            self.nodes[to].clock.merge(wall, sent).ok();
        }
        let now = self.tick(to);
        let Node { support, out, .. } = &mut self.nodes[to];
        support.heard(now, store_id(from), message, out);
        self.flush(to);
    }
}
