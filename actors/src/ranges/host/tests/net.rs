//! Nodes, their disks and clocks, and the network between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::rng::Rng;
use rhumb_core::{HybridClock, HybridTime, NodeId, Region, StoreId};
use rhumb_storage::hot::LetIn;
use rhumb_storage::{
    Batch, CommitError, CommitNumber, Family, FaultCause, MemoryDisk, MemoryEngine, StorageFault, Store,
    WriteError,
};

use super::catalog::{self, Catalog};
use super::faults;
use super::sim::{self, SimRuntime};
use super::versions::{self, Build, Versions};
use super::world::STORY;
use crate::ranges::comparing::Verdict;
use crate::ranges::host::{Found, Host, HostSettings, Noticed, Word, World};
use crate::ranges::raft::wire::{self, Answered, Asked};
use crate::ranges::raft::{Around, Carry, Disk, Distances, Feeding, Pressed, RaftSettings};
use crate::ranges::resting::RestSettings;
use crate::ranges::splitting::{Decided, SplitSettings, Why};
use crate::ranges::{RangeId, RangeSettings, ReplicaId, Seat};
use crate::storage::Done;

pub(super) const BEGIN_MS: u64 = 1_763_700_000_000;
pub(super) const MS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// Whoever belongs to no node.
pub(super) const NOBODY: usize = usize::MAX;
/// The range of the world.
pub(super) const RANGE: RangeId = RangeId(7);
/// How long what was can be read in it.
pub(super) const RETENTION: Duration = Duration::from_secs(2);
/// How often ranges are compared where nothing else is said.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(2);
/// How far a clock may be from true time that is not frozen, in milliseconds.
pub(super) const TOLERANCE: u64 = 200;
/// By how much two clocks may differ, in milliseconds.
const AHEAD: u64 = 500;

pub(super) fn settings() -> HostSettings {
    HostSettings {
        range: RangeSettings {
            lag: Duration::from_millis(600),
            support: Duration::from_secs(2),
            ..RangeSettings::default()
        },
        beat: Duration::from_millis(500),
        keep: Duration::from_millis(100),
        collect: Duration::from_millis(300),
        splits: SplitSettings::OFF,
        rests: RestSettings {
            after: Duration::from_millis(400),
            said: Duration::from_millis(300),
            heard: Duration::from_millis(500),
        },
        compare_every: Some(COMPARE_EVERY),
        home_after: Duration::from_secs(3),
    }
}

pub(super) fn store_id(node: usize) -> StoreId {
    StoreId(node as u128 + 1)
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId::new(["us", "eu", "ap"][node % 3], &format!("n{node}")).expect("valid")
}

/// How far the regions of nodes are from each other: from `us` to `ap` by way of `eu`.
pub(super) fn distances() -> Distances {
    Arc::new(|from: &Region, to: &Region| {
        let way = [from.as_str(), to.as_str()];
        let ms = match way {
            [from, to] if from == to => 2,
            ["us", "ap"] | ["ap", "us"] => 200,
            _ => 90,
        };
        Some(Duration::from_millis(ms))
    })
}

/// So many messages wait for a node that stands still: what comes then is lost.
const WAITING: usize = 100;

/// One node.
pub(super) struct Node {
    pub(super) host: Option<Host<SimRuntime>>,
    pub(super) life: u32,
    pub(super) up: bool,
    pub(super) off_ms: i64,
    pub(super) clock: Arc<HybridClock>,
    pub(super) disk: MemoryDisk,
    /// Which one: a node may lose it, and get another.
    pub(super) store: StoreId,
    pub(super) slow_until: u64,
    /// Its store is pressed, in the last second less so.
    pub(super) pressed_until: u64,
    pub(super) halted: Option<String>,
    /// It stands still until then: it does not know that.
    pub(super) still_until: Option<u64>,
    /// Messages that have come since.
    waiting: usize,
    /// For how long it stands still as soon as it reads rows for a client, in the middle of that; 0: it does not.
    pub(super) stops_for: Arc<AtomicU64>,
    /// There is no room on its disk: with the next write its end begins.
    pub(super) full: bool,
    /// That write was made: all that its store says from then on is that there is no room.
    lacks_room: bool,
    /// Which build it runs, in stories in which that changes.
    pub(super) build: Build,
}

impl Node {
    /// It goes on, and what has waited for it is heard.
    pub(super) fn stood_still(&mut self) {
        (self.still_until, self.waiting) = (None, 0);
    }

    /// Whether something came to nothing for want of room.
    fn lacks_room_for(&self, why: &str) -> bool {
        self.lacks_room && why.contains(&FaultCause::NoSpace.to_string())
    }
}

/// All of them.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    /// One way each.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) loss: f64,
    pub(super) slow: f64,
    pub(super) rng: Rng,
    /// How often a node's power is cut just after it has given its vote.
    pub(super) cut_voters: f64,
    pub(super) raft: RaftSettings,
    /// The highest vote that each replica has given: the term, and for whom.
    votes: BTreeMap<ReplicaId, (u64, u64)>,
    pub(super) broken: Option<String>,
    /// Snapshots that arrived.
    pub(super) snapshots: usize,
    /// Where replicas are wanted.
    pub(super) catalog: Option<Catalog>,
    /// How often a question has one bit that is not what was sent.
    pub(super) flips: f64,
    /// Whether one had. It may arrive later.
    flipped: bool,
    /// What was noticed of ranges, by whom, and when.
    pub(super) noticed: Vec<(u64, usize, RangeId, Noticed)>,
    /// Whether rows were made wrong in this story: else nothing may be found.
    pub(super) spoiled: bool,
    /// Ranges that were split, and replicas that were cleared away.
    pub(super) split: usize,
    pub(super) cleared: usize,
    /// How often ranges are compared.
    pub(super) compare_every: Duration,
    /// When ranges are split by themselves, and how many were, by what for.
    pub(super) splits: SplitSettings,
    pub(super) by_themselves: BTreeMap<Why, usize>,
    /// When each range was split, or split off, last.
    pub(super) last_split: BTreeMap<RangeId, u64>,
    /// The cluster version, in stories in which it is raised.
    pub(super) versions: Option<Versions>,
    /// Whether learners are fed by other replicas, and what was.
    pub(super) feeding: Feeding,
    /// How often a node stood still in the middle of reading rows, and messages that found no room where one stood still.
    pub(super) stopped_reading: usize,
    pub(super) crowded_out: usize,
    /// Nodes that ended for want of room.
    pub(super) ended_for_room: usize,
    /// Times that were not taken, and came with something that was.
    pub(super) not_taken: usize,
}

pub(super) type Shared = Arc<Mutex<Net>>;

impl Net {
    pub(super) fn number(node: &NodeId) -> usize {
        node.name.as_str()[1..].parse().expect("a number")
    }

    fn wall(&self, node: usize) -> u64 {
        (BEGIN_MS + sim::now() / MS).saturating_add_signed(self.nodes[node].off_ms)
    }

    pub(super) fn tick(&self, node: usize) -> HybridTime {
        self.nodes[node].clock.tick(self.wall(node)).expect("this clock has no ceiling")
    }

    /// A node takes a time into account that came with something. As the program has it: one that is too far ahead is not taken, and what
    /// came with it is.
    fn merges(&mut self, node: usize, time: HybridTime) {
        let wall = self.wall(node);
        let may_take = time.millis() <= (wall + AHEAD / 5).max(self.may_show());
        let taken = may_take && self.nodes[node].clock.merge(wall, time).is_ok();
        self.not_taken += usize::from(!taken);
    }

    /// How far the hybrid time of a node that is well may have come: true time and the rest of what clocks may differ by.
    fn may_show(&self) -> u64 {
        BEGIN_MS + sim::now() / MS + AHEAD - TOLERANCE
    }

    /// As the clock keeper has it, who knows true time well here.
    pub(super) fn frozen(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.off_ms.unsigned_abs() > TOLERANCE || node.clock.last().millis() > self.may_show()
    }

    /// How long a message takes; none if it gets lost.
    pub(super) fn way(&mut self, from: usize, to: usize) -> Option<Duration> {
        let lost = self.cut.contains(&(from, to)) || self.rng.chance(self.loss);
        let slow = self.rng.chance(self.slow);
        let wait = self.rng.between(MS, if slow { 400 * MS } else { 20 * MS });
        (!lost).then(|| Duration::from_micros(wait))
    }

    /// Who is there to be told something: whoever stands still hears it later, and not all of it.
    fn hears(&mut self, to: usize) -> Option<Host<SimRuntime>> {
        let node = &mut self.nodes[to];
        if node.still_until.is_some() {
            node.waiting += 1;
            if node.waiting > WAITING {
                self.crowded_out += 1;
                return None;
            }
        }
        node.host.clone()
    }
}

pub(super) struct Wires {
    pub(super) net: Shared,
    pub(super) me: usize,
}

impl Carry for Wires {
    fn ask(
        &self,
        to: &Seat,
        range: RangeId,
        from: ReplicaId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let between = (from, to.replica);
        let question = flipped(&self.net, question);
        let (net, me, to) = (Arc::clone(&self.net), self.me, Net::number(&to.node));
        let (said, heard) = tokio::sync::oneshot::channel();
        let (way, sent) = {
            let mut net = net.lock();
            (net.way(me, to), net.tick(me))
        };
        if let Some(way) = way {
            sim::spawn_as(NOBODY, async move {
                SimRuntime::sleep(way).await;
                arrives(&net, (me, to), sent, range, between, question, said);
            });
        }
        let net = Arc::clone(&self.net);
        async move {
            let answered = SimRuntime::timeout(within, heard).await;
            let answered = answered.map_err(|_| "no answer in time".to_owned())?;
            let (sent, answer) = answered.map_err(|_| "no answer".to_owned())?;
            net.lock().merges(me, sent);
            answer
        }
        .boxed()
    }
}

/// Some questions come with one bit that was not sent.
fn flipped(net: &Shared, question: Bytes) -> Bytes {
    let mut net = net.lock();
    let p = net.flips;
    if p == 0.0 || !net.rng.chance(p) {
        return question;
    }
    net.flipped = true;
    let (at, bit) = (net.rng.below(question.len() as u64) as usize, net.rng.below(8));
    let mut bytes = question.to_vec();
    bytes[at] ^= 1 << bit;
    bytes.into()
}

/// An answer, and when it was sent.
type Saying = tokio::sync::oneshot::Sender<(HybridTime, Result<Bytes, String>)>;

fn arrives(
    net: &Shared,
    (from, to): (usize, usize),
    sent: HybridTime,
    range: RangeId,
    between: (ReplicaId, ReplicaId),
    question: Bytes,
    said: Saying,
) {
    let Some(host) = net.lock().hears(to) else { return };
    if let Ok(Asked::Snapshot { .. }) = wire::decode::<Asked>(&question) {
        net.lock().snapshots += 1;
    }
    let (net, node) = (Arc::clone(net), node_id(from));
    sim::spawn_as(to, async move {
        net.lock().merges(to, sent);
        let answer = host.asked(&node, range, between, question).await;
        let (way, sent) = {
            let mut net = net.lock();
            (net.way(to, from), net.tick(to))
        };
        let group = host.group(range).map(|group| group.id());
        if let (Ok(answer), Some(replica)) = (&answer, group) {
            says(&net, to, replica, answer);
        }
        let Some(way) = way else { return };
        sim::spawn_as(NOBODY, async move {
            SimRuntime::sleep(way).await;
            said.send((sent, answer)).ok();
        });
    });
}

/// A replica gives its vote: it never falls, whatever is forgotten. Some have their power cut at that moment. Who refuses tells a
/// vote too, which may not be durable yet, and which it gave nobody.
fn says(net: &Shared, node: usize, replica: ReplicaId, answer: &[u8]) {
    let Ok(Answered::Vote { vote, granted: true, pre: false, .. }) = wire::decode::<Answered>(answer) else {
        return;
    };
    let vote = (vote.term, vote.replica);
    let cut = {
        let mut net = net.lock();
        let before = net.votes.entry(replica).or_insert(vote);
        let fell = vote < *before;
        let was = *before;
        *before = vote.max(was);
        if fell {
            net.broken.get_or_insert(format!("replica {replica} had voted {was:?} and votes {vote:?}"));
        }
        let p = net.cut_voters;
        net.rng.chance(p)
    };
    if cut {
        let net = Arc::clone(net);
        sim::spawn_as(NOBODY, async move {
            if !is_running(&net, node) {
                return;
            }
            crash(&net, node);
            SimRuntime::sleep(Duration::from_millis(30)).await;
            let raft = net.lock().raft;
            if !net.lock().nodes[node].up {
                start(&net, node, raft);
            }
        });
    }
}

/// What a node's host sees of the world.
pub(super) struct Seen {
    pub(super) net: Shared,
    pub(super) me: usize,
}

impl World for Seen {
    fn now(&self) -> HybridTime {
        self.net.lock().tick(self.me)
    }

    fn is_frozen(&self) -> bool {
        self.net.lock().frozen(self.me)
    }

    fn tell(&self, to: &NodeId, word: Word) {
        let (net, me, to) = (Arc::clone(&self.net), self.me, Net::number(to));
        let (way, sent) = {
            let mut net = net.lock();
            (net.way(me, to), net.tick(me))
        };
        let Some(way) = way else { return };
        sim::spawn_as(NOBODY, async move {
            SimRuntime::sleep(way).await;
            let Some(host) = net.lock().hears(to) else { return };
            sim::spawn_as(to, async move {
                net.lock().merges(to, sent);
                host.heard(&node_id(me), word).await;
            });
        });
    }

    fn found(&self, range: RangeId, found: Found) {
        // It takes a while, and may get lost.
        let (net, me) = (Arc::clone(&self.net), self.me);
        let Some(way) = net.lock().way(me, me) else { return };
        sim::spawn_as(NOBODY, async move {
            SimRuntime::sleep(way).await;
            if let Some(catalog) = &mut net.lock().catalog {
                catalog.found(range, found);
            }
        });
    }

    fn splits(&self, range: RangeId, decided: Decided) {
        let (net, me) = (Arc::clone(&self.net), self.me);
        {
            let mut net = net.lock();
            // Clocks jump meanwhile.
            let apart = net.splits.spacing.as_micros() as u64 - SECOND;
            let soon = net.last_split.get(&range).is_some_and(|last| sim::now() < last + apart);
            if soon {
                net.broken.get_or_insert(format!("{range:?} was split a moment ago, and is to be again"));
            }
        }
        sim::spawn_as(me, catalog::splits(net, me, range, decided));
    }

    fn noticed(&self, range: RangeId, noticed: Noticed) {
        let mut net = self.net.lock();
        let may = match &noticed {
            Noticed::Compared(checked) => net.spoiled || checked.verdict == Verdict::Same,
            Noticed::Damaged { on_the_way: true, .. } => net.flipped,
            Noticed::Damaged { .. } | Noticed::Quarantined { .. } | Noticed::Rebuilt { .. } => net.spoiled,
        };
        if !may {
            let me = self.me;
            net.broken
                .get_or_insert(format!("node {me} has noticed of {range:?}, where all is well: {noticed:?}"));
        }
        net.noticed.push((sim::now(), self.me, range, noticed));
    }

    fn halt(&self, why: String) {
        let node = &mut self.net.lock().nodes[self.me];
        // Its store ends a node whose disk is full.
        if !node.lacks_room_for(&why) {
            node.halted.get_or_insert(why);
        }
    }
}

/// A disk that takes its time to sync.
pub(super) struct SlowDisk {
    store: Store<MemoryEngine>,
    net: Shared,
    me: usize,
    unsynced: Arc<Mutex<VecDeque<(CommitNumber, Done)>>>,
    stops_for: Arc<AtomicU64>,
}

impl SlowDisk {
    /// A batch becomes visible. A store that has failed once fails for ever, and its node ends.
    fn write(&self, batch: &Batch) -> Result<CommitNumber, WriteError> {
        let was_well = self.store.poisoned().is_none();
        let written = self.store.write(batch);
        if let Some(fault) = self.store.poisoned().filter(|_| was_well) {
            assert_eq!(fault.cause, FaultCause::NoSpace, "{fault}");
            self.net.lock().nodes[self.me].lacks_room = true;
            faults::ends_for_room(&self.net, self.me);
        }
        written
    }

    /// Its node may be stopped just here: it has looked whether it may read, and has not read yet.
    fn may_stand_still(&self) {
        if self.stops_for.load(Ordering::Relaxed) == 0 || !sim::can_stop() {
            return;
        }
        let lasts = self.stops_for.swap(0, Ordering::Relaxed);
        let until = (sim::now() + lasts).min(STORY);
        {
            let mut net = self.net.lock();
            net.stopped_reading += 1;
            net.nodes[self.me].still_until = Some(until);
        }
        sim::stands_still(until);
        self.net.lock().nodes[self.me].stood_still();
    }
}

fn failed(error: WriteError) -> CommitError {
    match error {
        WriteError::Fenced(fenced) => CommitError::Fenced(fenced),
        WriteError::Fault(fault) => CommitError::Fault(fault),
    }
}

impl Disk for Arc<SlowDisk> {
    fn door(&self, _: usize, _: Duration) -> Result<LetIn, Pressed> {
        let left = self.net.lock().nodes[self.me].pressed_until.saturating_sub(sim::now());
        let why = "the story says so".to_owned();
        if left > SECOND {
            return Err(Pressed { why, retry_after: Duration::from_micros(left - SECOND) });
        }
        let wait = Duration::from_micros(if left > 0 { 10 * MS } else { 0 });
        Ok(LetIn { wait, ..LetIn::default() })
    }

    fn durably(&self, batch: Batch, done: Done) -> BoxFuture<'static, ()> {
        let number = match self.write(&batch) {
            Ok(number) => number,
            Err(error) => {
                done(Err(failed(error)));
                return futures::future::ready(()).boxed();
            }
        };
        self.unsynced.lock().push_back((number, done));
        let wait = {
            let mut net = self.net.lock();
            let slow = net.nodes[self.me].slow_until.saturating_sub(sim::now());
            slow + net.rng.between(MS / 2, 12 * MS)
        };
        let disk = Self::clone(self);
        sim::spawn_as(self.me, async move {
            SimRuntime::sleep(Duration::from_micros(wait)).await;
            let covered = disk.store.sync();
            loop {
                let next = {
                    let mut unsynced = disk.unsynced.lock();
                    let due = |first: &(CommitNumber, Done)| {
                        covered.as_ref().map_or(true, |covered| first.0 <= *covered)
                    };
                    if unsynced.front().is_some_and(due) { unsynced.pop_front() } else { None }
                };
                let Some((_, done)) = next else { break };
                done(covered.clone().map_err(CommitError::Fault));
            }
        });
        futures::future::ready(()).boxed()
    }

    fn visibly(&self, batch: Batch) -> BoxFuture<'static, Result<(), String>> {
        let written = self.write(&batch).map(drop).map_err(|error| error.to_string());
        futures::future::ready(written).boxed()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.store.get(family, key)
    }

    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        if family == Family::Mvcc {
            self.may_stand_still();
        }
        self.store.walk(family, from, f)
    }
}

/// Starts a node's host on its disk. It serves when it is ready.
pub(super) fn start(net: &Shared, me: usize, raft: RaftSettings) {
    let store = {
        let mut net = net.lock();
        let node = &mut net.nodes[me];
        (node.up, node.life, node.full, node.lacks_room) = (true, node.life + 1, false, false);
        Store::open(MemoryEngine::open(&node.disk)).expect("what a log leaves opens")
    };
    let stops_for = Arc::clone(&net.lock().nodes[me].stops_for);
    let disk = SlowDisk { store, net: Arc::clone(net), me, unsynced: Arc::default(), stops_for };
    let disk = Arc::new(disk);
    let feeding = net.lock().feeding.clone();
    let around = Around {
        disk: Arc::new(disk),
        carry: Arc::new(Wires { net: Arc::clone(net), me }),
        raft,
        claims: Arc::default(),
        formats: versions::formats(&mut net.lock(), me),
        damages: Arc::default(),
        feeding,
    };
    let (net, seen) = (Arc::clone(net), Arc::new(Seen { net: Arc::clone(net), me }));
    sim::spawn_as(me, async move {
        let (settings, store) = {
            let net = net.lock();
            let (splits, compare_every) = (net.splits, Some(net.compare_every));
            (HostSettings { splits, compare_every, ..settings() }, net.nodes[me].store)
        };
        let host = Host::<SimRuntime>::start(store, settings, around, seen).await;
        let host = match host {
            Ok(host) => host,
            Err(error) => return fails(&net, me, "does not start", &error),
        };
        host.retain(RANGE, RETENTION);
        net.lock().nodes[me].host = Some(host.clone());
        catalog::follow(net, me, host).await;
    });
}

/// Something that a node does came to nothing: of a full disk, or nobody knows why.
pub(super) fn fails(net: &Shared, me: usize, what: &str, why: &dyn std::fmt::Display) {
    let why = why.to_string();
    assert!(net.lock().nodes[me].lacks_room_for(&why), "node {me} {what}: {why}");
}

/// A node's process runs: it is up, and does not stand still.
pub(super) fn is_running(net: &Shared, me: usize) -> bool {
    let node = &net.lock().nodes[me];
    node.up && node.still_until.is_none()
}

/// A node's power is cut.
pub(super) fn crash(net: &Shared, me: usize) {
    let host = {
        let mut net = net.lock();
        let node = &mut net.nodes[me];
        node.up = false;
        node.stood_still();
        node.stops_for.store(0, Ordering::Relaxed);
        node.host.take()
    };
    sim::kill(me);
    drop(host);
    let mut net = net.lock();
    let disk = net.nodes[me].disk.clone();
    disk.crash(&mut net.rng);
}

/// A world of so many nodes, none of which runs yet.
pub(super) fn of(count: usize, rng: Rng) -> Shared {
    let mut rng = rng;
    let mut node = |number: usize| Node {
        host: None,
        life: 0,
        up: false,
        off_ms: rng.between(0, 2 * TOLERANCE) as i64 - TOLERANCE as i64,
        clock: Arc::new(HybridClock::new(HybridTime::from_bits(u64::MAX), Duration::from_millis(500))),
        disk: MemoryDisk::new(),
        store: store_id(number),
        slow_until: 0,
        pressed_until: 0,
        halted: None,
        still_until: None,
        waiting: 0,
        stops_for: Arc::default(),
        full: false,
        lacks_room: false,
        build: Build::default(),
    };
    let nodes: Vec<_> = (0..count).map(&mut node).collect();
    Arc::new(Mutex::new(Net {
        nodes,
        cut: BTreeSet::new(),
        loss: 0.0,
        slow: 0.0,
        rng,
        cut_voters: 0.0,
        raft: RaftSettings::default(),
        votes: BTreeMap::new(),
        broken: None,
        snapshots: 0,
        flips: 0.0,
        flipped: false,
        noticed: Vec::new(),
        spoiled: false,
        catalog: None,
        split: 0,
        cleared: 0,
        compare_every: COMPARE_EVERY,
        splits: SplitSettings::OFF,
        by_themselves: BTreeMap::new(),
        last_split: BTreeMap::new(),
        versions: None,
        feeding: Feeding::default(),
        stopped_reading: 0,
        crowded_out: 0,
        ended_for_room: 0,
        not_taken: 0,
    }))
}
