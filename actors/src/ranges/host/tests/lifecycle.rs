//! Keys that expire and times that are held, among all that goes wrong in the stories of [`world`](super::world): power cuts, processes
//! that stand still, cuts of the network, clocks that are off, lost and full disks, splits, and replicas and leases that move.
//!
//! Checked: what is read as of a time is what the key was then; a value is read up to its expiry and never from then on, and
//! once a strong read has found it gone none finds it again, whoever leads by then; a time that is held is read, the same from
//! everywhere, for as long as it is held; and no replica has collected above it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::HybridTime;
use rhumb_core::rng::{Rng, Seed};
use rhumb_histories::Value;
use rhumb_storage::mvcc::{Limit, Record};

use super::catalog::SPACE;
use super::clients::{key, on};
use super::net::{self, BEGIN_MS, MS, NOBODY, Net, SECOND};
use super::replay::{self, Story};
use super::sim::{self, SimRuntime};
use super::world::{self, HEALING, STORY};
use crate::ranges::catalog::Change;
use crate::ranges::host::{Host, NotRead, NotWritten, Rowed};
use crate::ranges::snapshots::Held;
use crate::ranges::{Ask, Consistency, Op, RangeRefusal};

const WRITERS: usize = 2;
const READERS: usize = 3;
const OPERATORS: usize = 2;
/// Keys that are written again and again, of each writer.
const LASTING: usize = 3;
const LASTING_FROM: usize = 40_000;
/// Keys that are written once, and expire.
const EXPIRING_FROM: usize = 50_000;
const PATIENCE: Duration = Duration::from_millis(2_500);
/// By so much clocks may differ.
const AHEAD: Duration = Duration::from_millis(500);
/// It is not written any more so long before the end, so that replicas can come together.
const ENDS: u64 = STORY + HEALING - 6 * SECOND;

/// What there was of this in a story.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lived {
    /// Reads of a value before its expiry, and of nothing from then on.
    pub(super) live: usize,
    pub(super) expired: usize,
    /// Times that were held, and reads as of one.
    pub(super) held: usize,
    pub(super) held_reads: usize,
    /// Of those, how many were of what everybody else could not read any more.
    pub(super) old_reads: usize,
}

impl Lived {
    pub(super) fn add(&mut self, other: Self) {
        self.live += other.live;
        self.expired += other.expired;
        self.held += other.held;
        self.held_reads += other.held_reads;
        self.old_reads += other.old_reads;
    }
}

/// What one writer has written to a key of its own.
#[derive(Debug, Clone, Default)]
struct Key {
    versions: Vec<(HybridTime, Value)>,
    /// On its way, or of unknown outcome: then the key is written no more.
    open: Option<Value>,
    expires: Option<HybridTime>,
    /// When a strong read had found that it had expired.
    gone: Option<u64>,
}

#[derive(Debug, Default)]
struct Book {
    keys: BTreeMap<usize, Key>,
    /// By name: the time, and what was read as of it.
    held: BTreeMap<String, (HybridTime, BTreeMap<usize, Option<Value>>)>,
    next: Value,
    broken: Option<String>,
    lived: Lived,
}

/// How a key was read.
#[derive(Debug, Clone)]
struct Asked {
    number: usize,
    consistency: Consistency,
    /// Of a time that is held: its name.
    held: Option<String>,
    call: u64,
    /// Versions that were acknowledged by then.
    known: usize,
}

/// All of it. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Lives(Arc<Mutex<Book>>);

/// It goes on beside a story.
pub(super) fn begin(net: &net::Shared, seed: &Seed) -> Lives {
    let (lives, seed) = (Lives::default(), seed.child("lives"));
    let rng = |what: &str, number: usize| seed.child(what).child(number.to_be_bytes()).rng();
    for writer in 0..WRITERS {
        sim::spawn_as(NOBODY, lives.clone().writes(Arc::clone(net), writer, rng("writer", writer)));
    }
    for reader in 0..READERS {
        sim::spawn_as(NOBODY, lives.clone().reads(Arc::clone(net), rng("reader", reader)));
    }
    for operator in 0..OPERATORS {
        sim::spawn_as(NOBODY, lives.clone().holds(Arc::clone(net), operator, rng("operator", operator)));
    }
    lives
}

impl Lives {
    /// Nothing is broken, and no replica has collected, or will, what is held.
    pub(super) fn look(&self, net: &net::Shared) -> Result<(), String> {
        if let Some(why) = &self.0.lock().broken {
            return Err(why.clone());
        }
        let hosts: Vec<_> = net.lock().nodes.iter().filter_map(|node| node.host.clone()).collect();
        for group in hosts.iter().flat_map(Host::groups) {
            let found = Arc::new(Mutex::new(None));
            let (at, of) = (Arc::clone(&found), group.clone());
            sim::spawn_as(NOBODY, async move { *at.lock() = Some(of.replica().await.applied().threshold) });
            sim::run_until(sim::now());
            let Some(threshold) = found.lock().take() else { continue };
            let above =
                self.0.lock().held.iter().find(|(_, (at, _))| *at < threshold).map(|(name, _)| name.clone());
            if let Some(name) = above {
                let (range, replica) = (group.range(), group.id());
                return Err(format!(
                    "replica {replica} of {range:?} may collect up to {threshold:?}, and {name} is held"
                ));
            }
        }
        Ok(())
    }

    /// What there was of it.
    pub(super) fn lived(&self) -> Lived {
        self.0.lock().lived
    }

    // ---- who writes ----------------------------------------------------------------------------

    async fn writes(self, net: net::Shared, writer: usize, mut rng: Rng) {
        let mut expiring = (EXPIRING_FROM..).skip(writer).step_by(WRITERS);
        let mut lasting: Vec<usize> =
            (0..LASTING).map(|number| LASTING_FROM + writer * 1_000 + number).collect();
        let mut fresh = LASTING_FROM + writer * 1_000 + LASTING;
        while sim::now() < ENDS {
            SimRuntime::sleep(Duration::from_micros(rng.between(30 * MS, 200 * MS))).await;
            let expires = rng.chance(0.5).then(|| {
                let ms = BEGIN_MS + sim::now() / MS + rng.between(500, 5_000);
                HybridTime::new(ms, 0)
            });
            let at = rng.below(LASTING as u64) as usize;
            let number = match expires {
                Some(_) => expiring.next().expect("it has no end"),
                None => lasting[at],
            };
            let value = {
                let mut book = self.0.lock();
                book.next += 1;
                let value = book.next;
                let key = book.keys.entry(number).or_default();
                (key.open, key.expires) = (Some(value), expires);
                value
            };
            let mut record = Record::put(value.to_be_bytes());
            record.header.expires = expires;
            let count = net.lock().nodes.len() as u64;
            let written = write(&net, rng.below(count) as usize, number, &record).await;
            let mut book = self.0.lock();
            let key = book.keys.get_mut(&number).expect("it is there");
            match written {
                Some(Ok(version)) => {
                    key.open = None;
                    key.versions.push((version, value));
                }
                Some(Err(())) => key.open = None,
                // It may be written later than what is written next.
                None if expires.is_none() => {
                    lasting[at] = fresh;
                    fresh += 1;
                }
                None => {}
            }
        }
    }

    // ---- who holds -----------------------------------------------------------------------------

    async fn holds(self, net: net::Shared, operator: usize, mut rng: Rng) {
        for number in 0.. {
            SimRuntime::sleep(Duration::from_micros(rng.between(500 * MS, 3 * SECOND))).await;
            if sim::now() > ENDS - 5 * SECOND {
                return;
            }
            let name = format!("held-{operator}-{number}");
            let taken = {
                let mut net = net.lock();
                let node = rng.below(net.nodes.len() as u64) as usize;
                // As the program has it: no clock of a leaseholder is ahead of this.
                let now = net.tick(node);
                let at = now.plus(AHEAD);
                let held = Held { name: name.clone(), at, until: at.plus(Duration::from_secs(3_600)) };
                // Nor does one do so whose hybrid time stands still: it cannot write to the meta range.
                let stands = net.wall(node) > now.millis();
                let frozen = stands || net.frozen(node) || net.nodes[node].still_until.is_some();
                let taken = net
                    .catalog
                    .as_mut()
                    .is_some_and(|catalog| !frozen && catalog.change(&Change::Hold { held, now }));
                taken.then_some(at)
            };
            let Some(at) = taken else { continue };
            {
                let mut book = self.0.lock();
                book.held.insert(name.clone(), (at, BTreeMap::new()));
                book.lived.held += 1;
            }
            SimRuntime::sleep(Duration::from_micros(rng.between(3 * SECOND, 12 * SECOND))).await;
            self.0.lock().held.remove(&name);
            if let Some(catalog) = &mut net.lock().catalog {
                catalog.change(&Change::Drop(name));
            }
        }
    }

    // ---- who reads -----------------------------------------------------------------------------

    async fn reads(self, net: net::Shared, mut rng: Rng) {
        while sim::now() < ENDS {
            SimRuntime::sleep(Duration::from_micros(rng.between(5 * MS, 80 * MS))).await;
            let Some(asked) = self.asks(&mut rng) else { continue };
            let count = net.lock().nodes.len() as u64;
            let node = rng.below(count) as usize;
            match read(&net, node, asked.number, asked.consistency).await {
                Some(Ok((at, found))) => self.answered(&asked, at, found),
                Some(Err(RangeRefusal::BelowThreshold(threshold))) => self.was_refused(&asked, threshold),
                _ => {}
            }
        }
    }

    fn asks(&self, rng: &mut Rng) -> Option<Asked> {
        let book = self.0.lock();
        let numbers: Vec<usize> = book.keys.keys().copied().collect();
        // Those that were written of late more often than others.
        let late = numbers.len().saturating_sub(12);
        let some = if rng.chance(0.5) { &numbers[late..] } else { &numbers[..] };
        let number = *rng.pick(some)?;
        let names: Vec<&String> = book.held.keys().collect();
        let held = if rng.chance(0.4) { rng.pick(&names).map(|name| (*name).clone()) } else { None };
        let now = BEGIN_MS + sim::now() / MS;
        let consistency = match (&held, rng.below(3)) {
            (Some(name), _) => Consistency::AsOf(book.held[name].0),
            (None, 0) => Consistency::AsOf(HybridTime::new(now - rng.between(0, 2_500), 0)),
            (None, 1) => Consistency::Bounded(Duration::from_millis(rng.between(1_000, 3_000))),
            _ => Consistency::Strong,
        };
        let known = book.keys[&number].versions.len();
        Some(Asked { number, consistency, held, call: sim::now(), known })
    }

    fn answered(&self, asked: &Asked, at: HybridTime, found: Option<Value>) {
        let mut book = self.0.lock();
        let broken = book.judged(asked, at, found).err();
        if let Some(why) = broken {
            book.broken.get_or_insert(format!("{why}: {asked:?} was answered with {found:?} as of {at:?}"));
        }
    }

    /// What is held can be read.
    fn was_refused(&self, asked: &Asked, threshold: HybridTime) {
        let mut book = self.0.lock();
        let held = asked.held.as_ref().filter(|name| book.held.contains_key(*name));
        if let Some(name) = held {
            let why = format!("{name} is held, and is collected up to {threshold:?}: {asked:?}");
            book.broken.get_or_insert(why);
        }
    }
}

impl Book {
    /// Whether this is what was written.
    fn judged(&mut self, asked: &Asked, at: HybridTime, found: Option<Value>) -> Result<(), String> {
        let key = self.keys.get_mut(&asked.number).ok_or("nobody has written it")?;
        let lives = key.expires.is_none_or(|expires| at < expires);
        if found.is_some() && !lives {
            return Err(format!("it has expired, and is read: {key:?}"));
        }
        if let Consistency::AsOf(time) = asked.consistency
            && at != time
        {
            return Err("that is as of another time".to_owned());
        }
        let strong = asked.consistency == Consistency::Strong;
        let may = |value: Option<Value>| found == value.filter(|_| lives);
        let right = if strong {
            // What was acknowledged meanwhile may have come before or after.
            let before = asked.known.checked_sub(1);
            let since = &key.versions[before.unwrap_or_default()..];
            since.iter().any(|(_, value)| may(Some(*value))) || (before.is_none() && found.is_none())
        } else {
            may(key.versions.iter().rev().find(|(version, _)| *version <= at).map(|(_, value)| *value))
        };
        let of_the_open_one = found.is_some() && found == key.open;
        if !right && !of_the_open_one {
            return Err(format!("that is not what it was: {key:?}"));
        }
        if strong && found.is_some() && key.gone.is_some_and(|gone| gone < asked.call) {
            return Err(format!("it was gone, and has come back: {key:?}"));
        }
        if key.expires.is_some() && !key.versions.is_empty() {
            if found.is_some() {
                self.lived.live += 1;
            } else if !lives {
                self.lived.expired += 1;
                if strong {
                    key.gone.get_or_insert(sim::now());
                }
            }
        }
        let Some((_, read)) = asked.held.as_ref().and_then(|name| self.held.get_mut(name)) else {
            return Ok(());
        };
        self.lived.held_reads += 1;
        let retained = BEGIN_MS + sim::now() / MS - net::RETENTION.as_millis() as u64 - 1_000;
        self.lived.old_reads += usize::from(at.millis() < retained);
        match *read.entry(asked.number).or_insert(found) {
            before if before == found => Ok(()),
            before => Err(format!("as of the same time that is held it was {before:?} before")),
        }
    }
}

/// Writes a key: when, or that it certainly was not written. None: nobody knows.
async fn write(
    net: &net::Shared,
    mut node: usize,
    number: usize,
    record: &Record,
) -> Option<Result<HybridTime, ()>> {
    for _ in 0..4 {
        let Some(host) = net.lock().nodes[node].host.clone() else { return Some(Err(())) };
        let Some(range) = host.range_of(SPACE, &key(number)) else {
            node = (node + 1) % net.lock().nodes.len();
            continue;
        };
        let op = Op { key: key(number), condition: None, record: record.clone() };
        let answered = on(node, async move { host.write(range, vec![op]).await }, PATIENCE).await;
        SimRuntime::sleep(Duration::from_millis(2)).await;
        match answered {
            Some(Ok(written)) => return Some(Ok(written.at)),
            Some(Err(NotWritten::Leaseholder(seat))) => node = Net::number(&seat.node),
            Some(Err(NotWritten::Unknown(_) | NotWritten::Stopped(_))) | None => return None,
            Some(Err(_)) => return Some(Err(())),
        }
    }
    Some(Err(()))
}

/// Reads a key: as of when, and its value. None: nobody answered.
async fn read(
    net: &net::Shared,
    mut node: usize,
    number: usize,
    consistency: Consistency,
) -> Option<Result<(HybridTime, Option<Value>), RangeRefusal>> {
    for hop in 0..4 {
        let host = net.lock().nodes[node].host.clone()?;
        let Some(range) = host.range_of(SPACE, &key(number)) else {
            node = (node + 1) % net.lock().nodes.len();
            continue;
        };
        let ask = Ask {
            from: key(number),
            to: None,
            consistency,
            token: None,
            nearest_only: false,
            fallback: hop > 0,
        };
        let piece = Limit { rows: 1, bytes: 1 << 20 };
        let reads = sim::stoppable(async move { host.read(range, ask, piece).await });
        let answered = on(node, reads, PATIENCE).await;
        SimRuntime::sleep(Duration::from_millis(2)).await;
        match answered? {
            Ok(answer) => {
                let Rowed::One(found) = answer.value else { panic!("one key was asked for") };
                let value = found.and_then(|version| version.record.value);
                let value = value.map(|bytes| Value::from_be_bytes(bytes.try_into().expect("eight bytes")));
                return Some(Ok((answer.at, value)));
            }
            Err(NotRead::Leaseholder(seat)) => node = Net::number(&seat.node),
            Err(NotRead::Unsound(why)) => {
                net::fails(net, node, "does not read", &why);
                return None;
            }
            Err(NotRead::NoReplica) => return None,
            Err(NotRead::Refused(refusal)) => return Some(Err(refusal)),
        }
    }
    None
}

/// A seed's story.
fn story(seed: u64) -> Story {
    Story::of(|telling| world::run_with(seed, true, telling))
}

/// A quarter of the seeds of other stories: these are longer.
fn seeds() -> u64 {
    super::seeds().div_ceil(4)
}

#[test]
fn values_expire_once_and_what_is_held_reads_the_same_whatever_goes_wrong() {
    let Some(all) = replay::all("lifecycle", seeds(), story) else { return };
    println!("{all:?}");
    let Lived { live, expired, held, held_reads, old_reads } = all.lived;
    assert!(live > 500 && expired > 500, "{all:?}");
    assert!(held > 20 && held_reads > 500 && old_reads > 100, "{all:?}");
    assert!(all.crashes > 10 && all.cuts > 10 && all.splits > 0 && all.moves > 0, "{all:?}");
    assert!(all.still.0 > 2 && all.still.1 > 2 && all.full > 1, "{all:?}");
    assert!(all.snapshots > 0 && all.reseated > 0 && all.disks > 0 && all.collected > 500, "{all:?}");
}

#[cfg(feature = "canaries")]
#[test]
fn what_is_collected_too_early_is_caught() {
    use rhumb_core::canary::{self, Canary};

    for bug in [Canary::GcAboveWatermark, Canary::GcAboveThreshold] {
        canary::let_out(Some(bug));
        let caught = (0..40).find_map(|seed| story(seed).ended.err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
    }
}
