//! Clients of a range with three to five replicas, real openraft between them, and what goes wrong meanwhile: power cuts at any
//! moment, cuts of the network (one way, too), loss, slow links and disks, clocks as far apart as they may be, rows that become wrong.
//!
//! Checked: what clients saw is linearizable, by a checker that is not ours; no machine asserts; no two leases of a range
//! have one number; in the end all replicas show the same, though each has collected old versions by itself; when everything heals, reads and
//! writes are served again; and in the end whoever holds a lease leads, and all replicas hear of what is closed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::HybridTime;
use rhumb_core::rng::{Rng, Seed};
use rhumb_storage::mvcc::{Limit, Record, UserKey};

use super::catalog::{self, Catalog, SPACE};
use super::comparing;
use super::history::{self, Did, Seen, Value};
use super::lifecycle::{self, Lived, Lives};
use super::net::{self, MS, NOBODY, Net, RANGE, SECOND, TOLERANCE, node_id, store_id};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::versions;
use crate::ranges::host::{Host, NotRead, NotWritten, Noticed, Rowed};
use crate::ranges::raft::RaftSettings;
use crate::ranges::splitting::{SplitSettings, Why};
use crate::ranges::{Ask, Condition, Consistency, Descriptor, Lease, Op, RangeId, ReplicaId, Seat};

const KEYS: usize = 3;
const CLIENTS: u32 = 4;
pub(super) const STORY: u64 = 30 * SECOND;
pub(super) const HEALING: u64 = 20 * SECOND;
/// How far a replica of a range that is well is behind with what is closed, at most: thrice what it usually is.
const CLOSED_WITHIN: u64 = 3 * SECOND;
/// When all is well, whoever is given the lease leads so soon.
const LEADS_WITHIN: u64 = 1_500 * MS;
/// How often clients pause, in some stories, and how long.
const PAUSED_EVERY: u64 = 7 * SECOND;
const PAUSED: u64 = 3_500 * MS;
/// How long a client waits.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// What a story was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) crashes: usize,
    pub(super) cuts: usize,
    pub(super) leases: usize,
    pub(super) written: usize,
    pub(super) read: usize,
    pub(super) refused: usize,
    /// Writes that a pressed store did not let in.
    pub(super) pressed: usize,
    pub(super) unknown: usize,
    pub(super) snapshots: usize,
    pub(super) splits: usize,
    /// Those of them that nobody asked for: for their size, for their load.
    pub(super) by_themselves: (usize, usize),
    pub(super) moves: usize,
    /// Looks at which some replica rested.
    pub(super) rested: usize,
    pub(super) cleared: usize,
    /// Learners that came, went, or changed places with a voter; disks that were lost for good.
    pub(super) reseated: usize,
    pub(super) disks: usize,
    /// Nodes that were started with another build, and builds that were refused.
    pub(super) upgraded: usize,
    pub(super) refused_builds: usize,
    /// Comparisons that found all the same, rows that were made wrong, replicas that were rebuilt, and questions that were
    /// refused because they were not what was sent.
    pub(super) compared: usize,
    pub(super) spoiled: usize,
    pub(super) rebuilt: usize,
    pub(super) refused_on_the_way: usize,
    /// Entries that learners got from others than the leader, and how often nothing came of that.
    pub(super) fed: (u64, u64),
    /// Versions that were collected in the last lives.
    pub(super) collected: u64,
    /// Of keys that expire and times that are held, in stories that have them.
    pub(super) lived: Lived,
    /// All that happened, in one number.
    pub(super) hash: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.leases += other.leases;
        self.written += other.written;
        self.read += other.read;
        self.refused += other.refused;
        self.pressed += other.pressed;
        self.unknown += other.unknown;
        self.snapshots += other.snapshots;
        self.splits += other.splits;
        self.by_themselves.0 += other.by_themselves.0;
        self.by_themselves.1 += other.by_themselves.1;
        self.moves += other.moves;
        self.rested += other.rested;
        self.cleared += other.cleared;
        self.reseated += other.reseated;
        self.disks += other.disks;
        self.upgraded += other.upgraded;
        self.refused_builds += other.refused_builds;
        self.collected += other.collected;
        self.lived.add(other.lived);
        self.compared += other.compared;
        self.spoiled += other.spoiled;
        self.rebuilt += other.rebuilt;
        self.refused_on_the_way += other.refused_on_the_way;
        self.fed.0 += other.fed.0;
        self.fed.1 += other.fed.1;
    }
}

#[derive(Default)]
struct Told {
    seen: Vec<Seen>,
    tally: Tally,
    next: Value,
    healed: bool,
    /// Every so often clients do nothing for a while, so that ranges rest.
    pauses: bool,
    /// Reads and writes since everything healed.
    served: (usize, usize),
}

type Telling = Arc<Mutex<Told>>;

fn raft(rng: &mut Rng) -> RaftSettings {
    RaftSettings {
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        // Where all are impatient for as long, several stand for election at once.
        election_max: Duration::from_millis(if rng.chance(0.5) { 430 } else { 800 }),
        // So short that followers which were away have to be sent snapshots.
        snapshot_after: if rng.chance(0.5) { 20 } else { 5_000 },
        forgives: false,
    }
}

/// In some stories ranges are split by themselves, for their size or their load: a story's range has about two thousand bytes in
/// its rows, and some forty requests a second. Leases move so often that ten seconds without a split would be most of a story.
fn splits(rng: &mut Rng) -> SplitSettings {
    let secs = Duration::from_secs;
    match rng.below(4) {
        0 => SplitSettings { at: Some(rng.between(500, 2_000)), load: None, spacing: secs(3) },
        1 => SplitSettings { at: None, load: Some(rng.between(8, 20)), spacing: secs(8) },
        _ => SplitSettings::OFF,
    }
}

/// A comparison is an entry of the log, and wakes a range that rests: in some stories they are seldom. Where rows are made wrong they are
/// so often that what is wrong in the end is found and rebuilt while all heals.
fn compares(rng: &mut Rng, spoiled: bool) -> Duration {
    let seldom = if spoiled { 4 } else { 30 };
    Duration::from_secs(rng.pick(&[2, 6, seldom]).copied().unwrap_or_default())
}

pub(super) fn descriptor(count: usize) -> Descriptor {
    let seat = |node: usize| Seat {
        replica: ReplicaId(70 + node as u64),
        node: node_id(node),
        store: store_id(node),
        votes: true,
    };
    Descriptor {
        range: RANGE,
        keyspace: SPACE,
        from: UserKey::default(),
        to: None,
        seats: (0..count).map(seat).collect(),
    }
}

pub(super) fn key(number: usize) -> UserKey {
    UserKey::new((number as u16).to_be_bytes()).expect("short")
}

/// Runs a seed's story: the first promise that was broken, if one was.
pub(super) fn run(seed: u64) -> Result<Tally, String> {
    run_with(seed, false)
}

/// The same, in which keys expire and times are held, if they are to.
pub(super) fn run_with(seed: u64, lives: bool) -> Result<Tally, String> {
    sim::begin(seed);
    let seed = Seed::new(seed).child("consensus");
    let mut rng = seed.child("story").rng();
    let count = if rng.chance(0.7) { 3 } else { 5 };
    // Nodes to which replicas may move.
    let all = count + rng.pick(&[0, 1, 2]).copied().unwrap_or_default();
    let raft = raft(&mut rng);
    let net = net::of(all, seed.child("net").rng());
    {
        let mut net = net.lock();
        net.splits = splits(&mut seed.child("splits").rng());
        let mut rng = seed.child("damage").rng();
        net.flips = if rng.chance(0.3) { 0.01 } else { 0.0 };
        net.spoiled = rng.chance(0.4);
        net.compare_every = compares(&mut seed.child("compares").rng(), net.spoiled);
        if seed.child("feeding").rng().chance(0.6) {
            net.feeding.distances = Some(net::distances());
        }
    }
    let told = Telling::default();
    told.lock().pauses = seed.child("pauses").rng().chance(0.6);
    for node in 0..all {
        net::start(&net, node, raft);
    }
    sim::run_until(100 * MS);
    for node in 0..count {
        let host = net.lock().nodes[node].host.clone().expect("it has started");
        sim::spawn_as(node, async move { host.create(descriptor(count)).await.expect("it is new") });
    }
    sim::run_until(3 * SECOND);
    net.lock().catalog = Some(Catalog::of(RANGE, descriptor(count).seats));
    for client in 0..CLIENTS {
        let rng = seed.child("client").child(client.to_be_bytes()).rng();
        sim::spawn_as(NOBODY, goes_on(client, Arc::clone(&net), Arc::clone(&told), rng));
    }
    let mut builds = seed.child("versions").rng();
    if cfg!(feature = "canaries") && builds.chance(0.3) {
        versions::begin(&net, builds.between(5 * SECOND, STORY), seed.child("raises").rng());
    }
    let mut leases = BTreeMap::new();
    let mut comes_back: BTreeMap<usize, u64> = BTreeMap::new();
    {
        let mut net = net.lock();
        net.loss = rng.pick(&[0.0, 0.01, 0.05]).copied().unwrap_or_default();
        net.slow = rng.pick(&[0.0, 0.02, 0.1]).copied().unwrap_or_default();
        net.cut_voters = rng.pick(&[0.0, 0.2]).copied().unwrap_or_default();
        net.raft = raft;
    }
    comparing::writes_quiet_key(&net);
    let lives = lives.then(|| lifecycle::begin(&net, &seed));
    let lives_on = || lives.as_ref().map_or(Ok(()), |lives| lives.look(&net));
    while sim::now() < STORY {
        sim::run_until(sim::now() + rng.between(20 * MS, 900 * MS));
        // In the later half of what clients pause nothing new goes wrong, and nodes hear each other: ranges may come to rest.
        if told.lock().pauses && sim::now() % PAUSED_EVERY > PAUSED / 2 && paused() {
            net.lock().cut.clear();
        } else {
            trouble(&net, &told, &mut rng, &mut comes_back);
        }
        upgrade(&net, &mut builds, &mut comes_back);
        comes_back.retain(|node, when| {
            let due = *when <= sim::now();
            if due && !net.lock().nodes[*node].up {
                versions::starts(&net, *node, &mut builds);
                net::start(&net, *node, raft);
            }
            !due
        });
        if comparing::spoils(&net, &mut rng) {
            told.lock().tally.spoiled += 1;
        }
        look(&net, &mut leases)?;
        lives_on()?;
        told.lock().tally.rested += usize::from(rests(&net));
    }
    heal(&net, &told, raft);
    while sim::now() < STORY + HEALING {
        sim::run_until(sim::now() + 500 * MS);
        look(&net, &mut leases)?;
        lives_on()?;
    }
    let mut told = told.lock();
    told.tally.leases = leases.len();
    told.tally.lived = lives.as_ref().map(Lives::lived).unwrap_or_default();
    {
        let net = net.lock();
        (told.tally.upgraded, told.tally.refused_builds) = versions::raised(&net)?;
        (told.tally.snapshots, told.tally.splits, told.tally.cleared) =
            (net.snapshots, net.split, net.cleared);
        let of = |why| net.by_themselves.get(&why).copied().unwrap_or_default();
        told.tally.by_themselves = (of(Why::Size), of(Why::Load));
        told.tally.fed = (net.feeding.fed.entries(), net.feeding.fed.failed());
        let collected = |host: &Host<SimRuntime>| -> u64 {
            host.groups().iter().map(|group| host.collected(group.range())).sum()
        };
        for (_, _, _, noticed) in &net.noticed {
            match noticed {
                Noticed::Compared(_) => told.tally.compared += 1,
                Noticed::Damaged { .. } => told.tally.refused_on_the_way += 1,
                Noticed::Rebuilt { .. } => told.tally.rebuilt += 1,
                Noticed::Quarantined { .. } => {}
            }
        }
        told.tally.collected = net.nodes.iter().filter_map(|node| node.host.as_ref()).map(collected).sum();
    }
    told.tally.hash = sim::trace();
    history::check(&told.seen)?;
    if told.served.0 == 0 || told.served.1 == 0 {
        return Err(format!("everything is well, and {:?} reads and writes are served", told.served));
    }
    for range in ranges(&net) {
        catalog::with_the_lease(&net, &mut rng, range, None);
    }
    sim::run_until(sim::now() + LEADS_WITHIN);
    well(&net)?;
    let rows: Vec<_> = net.lock().catalog.iter().flat_map(|catalog| catalog.space.ranges.clone()).collect();
    for row in rows.iter().filter(|row| row.begun) {
        if let Some(why) = catalog::misplaced(&net, row) {
            return Err(format!("in the end {why}"));
        }
    }
    same_rows(&net)?;
    Ok(told.tally)
}

// ---- what goes wrong ---------------------------------------------------------------------------

fn trouble(net: &net::Shared, told: &Telling, rng: &mut Rng, comes_back: &mut BTreeMap<usize, u64>) {
    let count = net.lock().nodes.len();
    let node = rng.below(count as u64) as usize;
    match rng.below(20) {
        12..14 => told.lock().tally.moves += usize::from(catalog::moves(net, rng)),
        14 => catalog::with_the_lease(net, rng, RANGE, None),
        15 => {
            let once = net.lock().split == 0;
            let at = key(1 + rng.below(KEYS as u64 - 1) as usize);
            catalog::with_the_lease(net, rng, RANGE, once.then_some(at));
        }
        17..19 => told.lock().tally.reseated += usize::from(catalog::reseats(net, rng)),
        19 => {
            let up = net.lock().nodes[node].up;
            if up && catalog::loses_disk(net, node) {
                comes_back.insert(node, sim::now() + rng.between(100 * MS, 4 * SECOND));
                versions::lost_disk(net, node);
                told.lock().tally.disks += 1;
            }
        }
        // As when a cut heals behind which all have waited for as long.
        16 => {
            let nodes: Vec<_> = net.lock().nodes.iter().map(|node| node.host.clone()).collect();
            for (node, group) in nodes
                .iter()
                .enumerate()
                .flat_map(|(node, host)| host.iter().flat_map(Host::groups).map(move |group| (node, group)))
            {
                sim::spawn_as(node, async move { group.stands().await });
            }
        }
        0..3 => {
            let up = net.lock().nodes[node].up;
            if up {
                net::crash(net, node);
                comes_back.insert(node, sim::now() + rng.between(100 * MS, 4 * SECOND));
                told.lock().tally.crashes += 1;
            }
        }
        3 => {
            // All at once: what was acknowledged is on disks.
            for node in 0..count {
                if net.lock().nodes[node].up {
                    net::crash(net, node);
                    comes_back.insert(node, sim::now() + rng.between(50 * MS, SECOND));
                    told.lock().tally.crashes += 1;
                }
            }
        }
        4..7 => {
            let both = rng.chance(0.6);
            let mut net = net.lock();
            for other in (0..count).filter(|other| *other != node) {
                net.cut.insert((node, other));
                if both {
                    net.cut.insert((other, node));
                }
            }
            told.lock().tally.cuts += 1;
        }
        7..9 => net.lock().cut.clear(),
        9 => {
            let node = &mut net.lock().nodes[node];
            node.slow_until = sim::now() + rng.between(100 * MS, 3 * SECOND);
            // Half of the slow disks fall behind.
            node.pressed_until = if node.slow_until % 2 == 0 { node.slow_until } else { 0 };
        }
        10 => {
            // Beyond what it may be off its node takes no part in leases; but for a node's clock at most.
            let mut net = net.lock();
            let alone = net.nodes.iter().all(|node| node.off_ms.unsigned_abs() <= TOLERANCE);
            let most = if alone && rng.chance(0.3) { 2 * TOLERANCE } else { TOLERANCE };
            net.nodes[node].off_ms = rng.between(0, 2 * most) as i64 - most as i64;
        }
        _ => {}
    }
}

/// In stories of two builds nodes are also stopped to be started with another one.
fn upgrade(net: &net::Shared, builds: &mut Rng, comes_back: &mut BTreeMap<usize, u64>) {
    let count = net.lock().nodes.len() as u64;
    let node = builds.below(count) as usize;
    let stops = net.lock().versions.is_some() && builds.chance(0.15) && net.lock().nodes[node].up;
    if stops {
        net::crash(net, node);
        comes_back.insert(node, sim::now() + builds.between(50 * MS, 2 * SECOND));
    }
}

fn heal(net: &net::Shared, told: &Telling, raft: RaftSettings) {
    versions::completed(net);
    let down: Vec<usize> = {
        let mut net = net.lock();
        net.cut.clear();
        (net.loss, net.slow, net.cut_voters, net.flips) = (0.0, 0.0, 0.0, 0.0);
        let nodes = net.nodes.iter_mut().enumerate();
        nodes
            .filter_map(|(number, node)| {
                (node.slow_until, node.pressed_until) = (0, 0);
                node.off_ms = node.off_ms.clamp(-(TOLERANCE as i64), TOLERANCE as i64);
                (!node.up).then_some(number)
            })
            .collect()
    };
    for node in down {
        net::start(net, node, raft);
    }
    told.lock().healed = true;
}

// ---- what is looked at from outside ------------------------------------------------------------

/// No lease is two, and nobody has stopped.
fn look(net: &net::Shared, leases: &mut BTreeMap<(RangeId, u64), Lease>) -> Result<(), String> {
    let hosts: Vec<_> = {
        let net = net.lock();
        if let Some(why) =
            net.broken.clone().or_else(|| net.nodes.iter().find_map(|node| node.halted.clone()))
        {
            return Err(why);
        }
        net.nodes.iter().filter_map(|node| node.host.clone()).collect()
    };
    for group in hosts.iter().flat_map(Host::groups) {
        let range = group.range();
        let found = Arc::new(Mutex::new(None));
        let at = Arc::clone(&found);
        sim::spawn_as(NOBODY, async move { *at.lock() = Some(*group.replica().await.lease()) });
        sim::run_until(sim::now());
        let Some(lease) = found.lock().take() else { continue };
        let known = leases.entry((range, lease.seq)).or_insert(lease);
        if *known != lease {
            return Err(format!(
                "two leases of {range:?} have number {}: {known:?} and {lease:?}",
                lease.seq
            ));
        }
    }
    Ok(())
}

fn ranges(net: &net::Shared) -> Vec<RangeId> {
    let space = net.lock().catalog.as_ref().map(|catalog| catalog.space.clone());
    space.into_iter().flat_map(|space| space.ranges).map(|row| row.range).collect()
}

/// In the end every range is led by whoever holds its lease, and every replica of it has heard of late what is closed.
fn well(net: &net::Shared) -> Result<(), String> {
    let hosts: Vec<_> = net.lock().nodes.iter().filter_map(|node| node.host.clone()).collect();
    let late = net::BEGIN_MS + (sim::now() - CLOSED_WITHIN) / MS;
    for group in hosts.iter().flat_map(Host::groups) {
        let (id, range) = (group.id(), group.range());
        let found = Arc::new(Mutex::new(None));
        let at = Arc::clone(&found);
        sim::spawn_as(NOBODY, async move {
            let (holder, closed) = {
                let replica = group.replica().await;
                (replica.lease().holder, replica.closed())
            };
            *at.lock() = Some((holder, group.leader().await, closed.millis()));
        });
        sim::run_until(sim::now() + MS);
        let Some((holder, leader, closed)) = found.lock().take() else { continue };
        if holder != leader {
            return Err(format!("in the end {leader:?} leads {range:?}, and {holder:?} holds its lease"));
        }
        if closed < late {
            let behind = net::BEGIN_MS + sim::now() / MS - closed;
            return Err(format!("in the end replica {id} of {range:?} is {behind} ms behind what is closed"));
        }
    }
    Ok(())
}

/// Whether the clockwork of some replica has stopped.
fn rests(net: &net::Shared) -> bool {
    let hosts: Vec<_> = net.lock().nodes.iter().filter_map(|node| node.host.clone()).collect();
    hosts.iter().any(|host| host.resting() > 0)
}

// ---- clients -----------------------------------------------------------------------------------

/// Whether clients pause at this moment, in stories in which they do.
fn paused() -> bool {
    sim::now() % PAUSED_EVERY < PAUSED
}

async fn goes_on(client: u32, net: net::Shared, told: Telling, mut rng: Rng) {
    // What it saw last of each key, with its version.
    let mut saw: BTreeMap<usize, (HybridTime, Value)> = BTreeMap::new();
    // Keys that it writes once, and deletes once: what is collected of them must not come back.
    let mut own = (0..).map(|number| KEYS + client as usize * 1_000 + number);
    let mut written = VecDeque::new();
    // It stops a little before the end, so that replicas can come together.
    while sim::now() < STORY + HEALING - 5 * SECOND {
        SimRuntime::sleep(Duration::from_micros(rng.between(5 * MS, 120 * MS))).await;
        while told.lock().pauses && paused() && sim::now() < STORY {
            SimRuntime::sleep(Duration::from_micros(rng.between(50 * MS, 500 * MS))).await;
        }
        let number = rng.below(KEYS as u64) as usize;
        let count = net.lock().nodes.len() as u64;
        let node = rng.below(count) as usize;
        let call = sim::now();
        if rng.chance(0.2) {
            let (number, value) = if rng.below(10) < written.len() as u64 {
                (written.pop_front().expect("there are some"), None)
            } else {
                let number = own.next().expect("it has no end");
                written.push_back(number);
                (number, Some(fresh(&told)))
            };
            let record = value.map_or_else(Record::deleted, |value| Record::put(value.to_be_bytes()));
            write(client, &net, &told, (node, number, call), (record, None, value), &mut saw).await;
            continue;
        }
        match rng.below(10) {
            0..5 => read(client, &net, &told, (node, number, call), &mut saw).await,
            5..8 => {
                let value = fresh(&told);
                let record = Record::put(value.to_be_bytes());
                write(client, &net, &told, (node, number, call), (record, None, Some(value)), &mut saw).await;
            }
            8 => {
                let deleted = (Record::deleted(), None, None);
                write(client, &net, &told, (node, number, call), deleted, &mut saw).await;
            }
            _ => {
                let value = fresh(&told);
                let condition = saw.get(&number).copied();
                let record = Record::put(value.to_be_bytes());
                let said = (record, Some(condition), Some(value));
                write(client, &net, &told, (node, number, call), said, &mut saw).await;
            }
        }
    }
}

fn fresh(told: &Telling) -> Value {
    let mut told = told.lock();
    told.next += 1;
    told.next
}

/// Does something on a node, as long as the node lives and the client waits. None: nobody knows what came of it.
pub(super) async fn on<T: Send + 'static>(
    node: usize,
    work: impl Future<Output = T> + Send + 'static,
    patience: Duration,
) -> Option<T> {
    let (said, heard) = tokio::sync::oneshot::channel();
    sim::spawn_as(node, async move {
        said.send(work.await).ok();
    });
    SimRuntime::timeout(patience, heard).await.ok()?.ok()
}

async fn read(
    client: u32,
    net: &net::Shared,
    told: &Telling,
    (mut node, number, call): (usize, usize, u64),
    saw: &mut BTreeMap<usize, (HybridTime, Value)>,
) {
    for hop in 0..4 {
        let Some(host) = net.lock().nodes[node].host.clone() else { return };
        let ask = Ask {
            from: key(number),
            to: None,
            consistency: Consistency::Strong,
            token: None,
            nearest_only: false,
            fallback: hop > 0,
        };
        let piece = Limit { rows: 1, bytes: 1 << 20 };
        let Some(range) = host.range_of(SPACE, &key(number)) else {
            node = there(net, node);
            continue;
        };
        let answered = on(node, async move { host.read(range, ask, piece).await }, PATIENCE).await;
        SimRuntime::sleep(Duration::from_millis(2)).await;
        match answered {
            Some(Ok(answer)) => {
                let Rowed::One(found) = answer.value else { panic!("one key was asked for") };
                let value = found.map(|version| {
                    let bytes = version.record.value.expect("a version that is given out has a value");
                    let value = Value::from_be_bytes(bytes.try_into().expect("eight bytes"));
                    saw.insert(number, (version.at, value));
                    value
                });
                let mut told = told.lock();
                told.tally.read += 1;
                told.served.0 += usize::from(told.healed);
                let back = Some(sim::now());
                told.seen.push(Seen { client, key: number, did: Did::Read(value), call, back });
                return;
            }
            Some(Err(NotRead::Leaseholder(seat))) => node = Net::number(&seat.node),
            Some(Err(NotRead::Unsound(why))) => panic!("{why}"),
            Some(Err(NotRead::NoReplica | NotRead::Refused(_))) => {
                told.lock().tally.refused += 1;
                return;
            }
            None => return,
        }
    }
}

/// The next node: this one has no replica of a key's range.
fn there(net: &net::Shared, node: usize) -> usize {
    (node + 1) % net.lock().nodes.len()
}

type Writing = (Record, Option<Option<(HybridTime, Value)>>, Option<Value>);

async fn write(
    client: u32,
    net: &net::Shared,
    told: &Telling,
    (mut node, number, call): (usize, usize, u64),
    (record, condition, value): Writing,
    saw: &mut BTreeMap<usize, (HybridTime, Value)>,
) {
    let expects = condition.map(|seen| seen.map(|(_, value)| value));
    let condition = condition.map(|seen| seen.map_or(Condition::Absent, |(at, _)| Condition::Version(at)));
    for _ in 0..4 {
        let Some(host) = net.lock().nodes[node].host.clone() else { return };
        let op = Op { key: key(number), condition, record: record.clone() };
        let Some(range) = host.range_of(SPACE, &key(number)) else {
            node = there(net, node);
            continue;
        };
        let answered = on(node, async move { host.write(range, vec![op]).await }, PATIENCE).await;
        SimRuntime::sleep(Duration::from_millis(2)).await;
        let back = Some(sim::now());
        let mut told = told.lock();
        let (did, back) = match answered {
            Some(Ok(written)) => {
                told.tally.written += 1;
                told.served.1 += usize::from(told.healed);
                match value {
                    Some(value) => drop(saw.insert(number, (written.at, value))),
                    None => drop(saw.remove(&number)),
                }
                match (expects, value) {
                    (Some(before), Some(after)) => (Did::Swapped(before, after), back),
                    _ => (Did::Wrote(value), back),
                }
            }
            Some(Err(NotWritten::Leaseholder(seat))) => {
                node = Net::number(&seat.node);
                continue;
            }
            Some(Err(NotWritten::Condition { .. })) => {
                saw.remove(&number);
                (Did::NotSwapped(expects.expect("it had a condition")), back)
            }
            Some(Err(NotWritten::Pressed(_))) => {
                told.tally.pressed += 1;
                return;
            }
            Some(Err(NotWritten::NoReplica | NotWritten::Refused(_) | NotWritten::Void)) => {
                told.tally.refused += 1;
                return;
            }
            Some(Err(NotWritten::Unknown(_) | NotWritten::Stopped(_))) | None => {
                told.tally.unknown += 1;
                match (expects, value) {
                    (Some(before), Some(after)) => (Did::MaybeSwapped(before, after), None),
                    _ => (Did::Maybe(value), None),
                }
            }
        };
        told.seen.push(Seen { client, key: number, did, call, back });
        return;
    }
}
