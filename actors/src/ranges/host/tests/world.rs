//! Clients of a range with three to five replicas, real openraft between them, and what goes wrong meanwhile: power cuts at any
//! moment, processes that stand still for a while, cuts of the network (one way, too), loss, slow links and disks, disks that stand still or are full, clocks as
//! far apart as they may be, rows that become wrong.
//!
//! Checked: what clients saw is linearizable, batches and scans among it, by a checker that is not ours; bounded reads are as fresh as they
//! must be, a token's reads see what it has seen, and reads as of one time are the same everywhere; no machine asserts; no two leases of a range
//! have one number; in the end all replicas show the same, though each has collected old versions by itself; when everything heals, reads and
//! writes are served again, and keys that were written once are as they were left; and in the end whoever holds a lease leads, and all replicas
//! hear of what is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::rng::{Rng, Seed};
use rhumb_storage::mvcc::UserKey;

use super::catalog::{self, Catalog, SPACE};
use super::clients::{CLIENTS, Client, KEYS, PAUSED, PAUSED_EVERY, Telling, key, paused};
use super::comparing;
use super::faults::{self, Faults};
use super::lifecycle::{self, Lived, Lives};
use super::net::{self, MS, NOBODY, RANGE, SECOND, TOLERANCE, node_id, store_id};
use super::rows::same_rows;
use super::sim::{self, SimRuntime};
use super::versions;
use crate::ranges::host::{Host, Noticed};
use crate::ranges::raft::RaftSettings;
use crate::ranges::splitting::{SplitSettings, Why};
use crate::ranges::{Descriptor, Lease, RangeId, ReplicaId, Seat};

pub(super) const STORY: u64 = 30 * SECOND;
pub(super) const HEALING: u64 = 20 * SECOND;
/// How far a replica of a range that is well is behind with what is closed, at most: thrice what it usually is.
const CLOSED_WITHIN: u64 = 3 * SECOND;
/// When all is well, whoever is given the lease leads so soon.
const LEADS_WITHIN: u64 = 1_500 * MS;
/// So long it takes, when all is well, until leases are where most is written, in microseconds.
const HOME_WITHIN: u64 = 10 * SECOND;
/// What a broken promise begins with that may be no more than what a row was made wrong for: a voter can be begun from a wrong one.
pub(super) const SPOILED: &str = "rows were made wrong, and ";

/// What a story was made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) crashes: usize,
    pub(super) cuts: usize,
    /// Processes that stood still, and those that did so in the middle of reading rows; messages for which there was no room there.
    pub(super) still: (usize, usize),
    pub(super) crowded_out: usize,
    /// Nodes that ended because their disks were full, and disks that stood still.
    pub(super) full: usize,
    pub(super) disks_stood: usize,
    /// Times that were not taken though what they came with was.
    pub(super) not_taken: usize,
    /// Stories of a keyspace with a home, where its leases were in the end.
    pub(super) homes: usize,
    pub(super) leases: usize,
    pub(super) written: usize,
    pub(super) read: usize,
    /// Of both, those of several keys at one moment.
    pub(super) batches: usize,
    pub(super) scans: usize,
    /// Keys that nobody but one client writes, and which it read in the end.
    pub(super) own: usize,
    /// Reads that were answered as bounded, eventual, and as of a time.
    pub(super) weaker: (usize, usize, usize),
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
        self.still.0 += other.still.0;
        self.still.1 += other.still.1;
        self.crowded_out += other.crowded_out;
        self.full += other.full;
        self.disks_stood += other.disks_stood;
        self.not_taken += other.not_taken;
        self.homes += other.homes;
        self.leases += other.leases;
        self.written += other.written;
        self.read += other.read;
        self.batches += other.batches;
        self.scans += other.scans;
        self.own += other.own;
        self.weaker.0 += other.weaker.0;
        self.weaker.1 += other.weaker.1;
        self.weaker.2 += other.weaker.2;
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

/// Runs a seed's story: the first promise that was broken, if one was.
pub(super) fn run(seed: u64, told: &Telling) -> Result<Tally, String> {
    run_with(seed, false, told)
}

/// The same, in which keys expire and times are held, if they are to.
pub(super) fn run_with(seed: u64, lives: bool, told: &Telling) -> Result<Tally, String> {
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
    told.lock().pauses = seed.child("pauses").rng().chance(0.7);
    for node in 0..all {
        net::start(&net, node, raft);
    }
    sim::run_until(100 * MS);
    for node in 0..count {
        let host = net.lock().nodes[node].host.clone().expect("it has started");
        sim::spawn_as(node, async move { host.create(descriptor(count)).await.expect("it is new") });
    }
    sim::run_until(3 * SECOND);
    let mut catalog = Catalog::of(RANGE, descriptor(count).seats);
    let mut home = seed.child("home").rng();
    if home.chance(0.3) {
        catalog.space.placement.home = Some(node_id(home.below(all as u64) as usize).region);
    }
    net.lock().catalog = Some(catalog);
    for client in 0..CLIENTS {
        let rng = seed.child("client").child(client.to_be_bytes()).rng();
        let (net, told) = (Arc::clone(&net), Arc::clone(told));
        let (saw, least, gone) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let client = Client { me: client, net, told, rng, saw, token: None, least, gone };
        sim::spawn_as(NOBODY, client.goes_on());
    }
    let mut builds = seed.child("versions").rng();
    if cfg!(feature = "canaries") && builds.chance(0.3) {
        // So early that nodes are started with the old build afterwards, too.
        versions::begin(&net, builds.between(4 * SECOND, STORY * 3 / 4), seed.child("raises").rng());
    }
    let mut faults = Faults::of(&seed);
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
        // In the later part of what clients pause nothing new goes wrong, and nodes hear each other: ranges may come to rest.
        if told.lock().pauses && sim::now() % PAUSED_EVERY > PAUSED / 3 && paused() {
            net.lock().cut.clear();
        } else {
            trouble(&net, told, &mut rng, &mut comes_back);
            faults.befall(&net, told);
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
        look(&net, told, &mut leases)?;
        lives_on()?;
        told.lock().tally.rested += usize::from(rests(&net));
    }
    heal(&net, told, raft);
    while sim::now() < STORY + HEALING {
        sim::run_until(sim::now() + 500 * MS);
        look(&net, told, &mut leases)?;
        lives_on()?;
    }
    let until = sim::now() + HOME_WITHIN;
    while let Some(why) = catalog::away(&net) {
        if sim::now() > until {
            return Err(format!("in the end {why}"));
        }
        sim::run_until(sim::now() + 500 * MS);
        look(&net, told, &mut leases)?;
    }
    {
        let mut told = told.lock();
        told.tally.leases = leases.len();
        told.tally.homes = usize::from(catalog::home(&net).is_some());
        told.tally.lived = lives.as_ref().map(Lives::lived).unwrap_or_default();
        {
            let net = net.lock();
            (told.tally.upgraded, told.tally.refused_builds) = versions::raised(&net)?;
            (told.tally.snapshots, told.tally.splits, told.tally.cleared) =
                (net.snapshots, net.split, net.cleared);
            told.tally.still.1 = net.stopped_reading;
            (told.tally.crowded_out, told.tally.full) = (net.crowded_out, net.ended_for_room);
            told.tally.not_taken = net.not_taken;
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
            told.tally.collected =
                net.nodes.iter().filter_map(|node| node.host.as_ref()).map(collected).sum();
        }
        told.tally.hash = sim::trace();
        told.check()?;
        if told.served.0 == 0 || told.served.1 == 0 {
            return Err(format!("everything is well, and {:?} reads and writes are served", told.served));
        }
        if told.done < CLIENTS {
            return Err(format!("only {} clients have read their own keys in the end", told.done));
        }
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
    look(&net, told, &mut leases)?;
    let spoiled = net.lock().spoiled;
    same_rows(&net).map_err(|why| if spoiled { format!("{SPOILED}{why}") } else { why })?;
    Ok(told.lock().tally)
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
            node.pressed_until = if node.slow_until.is_multiple_of(2) { node.slow_until } else { 0 };
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
    faults::over(net);
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
fn look(
    net: &net::Shared,
    told: &Telling,
    leases: &mut BTreeMap<(RangeId, u64), Lease>,
) -> Result<(), String> {
    if let Some(why) = told.lock().broken.take() {
        return Err(why);
    }
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
