//! Clients of a range: what they do with its keys, on any node, and what they are told.
//!
//! Each does one thing at a time: it reads and writes keys, several at one moment, too, strongly and otherwise, with all that it has seen
//! in a token. What is strong is checked as a history in the end, all else as it comes, and in the end. Keys that are one client's own it
//! writes once, and reads when all is well again: nobody has overwritten what was lost of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::Mutex;
use rhumb_core::rng::Rng;
use rhumb_core::{Guarantee, HybridTime};
use rhumb_histories::{Account, Did, Dids, Ended, Operation, Outcome, Reading, Value, linear};
use rhumb_storage::mvcc::{Limit, Record, UserKey, Version};

use super::catalog::SPACE;
use super::net::{self, BEGIN_MS, MS, Net, SECOND};
use super::sim::{self, SimRuntime};
use super::world::{HEALING, STORY, Tally};
use crate::ranges::host::{NotRead, NotWritten, Rowed, Written};
use crate::ranges::{Answer, Ask, Condition, Consistency, Op, Token};

/// Keys that all clients read and write.
pub(super) const KEYS: usize = 3;
pub(super) const CLIENTS: u32 = 4;
/// How often clients pause, in some stories, and how long.
pub(super) const PAUSED_EVERY: u64 = 8 * SECOND;
pub(super) const PAUSED: u64 = 4_500 * MS;
/// How long a client waits.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How far back in milliseconds it is read what was: some of it is older than what is kept.
const BACK: u64 = 2_300;
/// Times that are read again, wherever that is.
const TIMES: usize = 4;
/// How long the checker may think about keys that hang together.
const CHECK_WITHIN: Duration = Duration::from_secs(600);
/// Clients stop so long before the end, so that replicas can come together, and have read their own keys again by so long before it.
const REST: u64 = 5 * SECOND;
const READ_AGAIN: u64 = SECOND;

/// What all clients of a story tell.
#[derive(Default)]
pub(super) struct Told {
    account: Account,
    pub(super) tally: Tally,
    next: Value,
    pub(super) healed: bool,
    /// Every so often clients do nothing for a while, so that ranges rest.
    pub(super) pauses: bool,
    /// Reads and writes since everything healed.
    pub(super) served: (usize, usize),
    /// Clients that have read their own keys in the end.
    pub(super) done: u32,
    /// Times that were asked for last.
    times: Vec<HybridTime>,
    pub(super) broken: Option<String>,
}

pub(super) type Telling = Arc<Mutex<Told>>;

impl Told {
    fn fresh(&mut self) -> Value {
        self.next += 1;
        self.next
    }

    /// A time as of which is read: one that was read as of before, or a new one.
    fn time(&mut self, rng: &mut Rng) -> HybridTime {
        if let Some(again) = rng.pick(&self.times).copied().filter(|_| rng.chance(0.6)) {
            return again;
        }
        let at = HybridTime::new(BEGIN_MS + sim::now() / MS - rng.between(0, BACK), 0);
        let at = self.account.edge(at, rng);
        self.times.push(at);
        let more = self.times.len().saturating_sub(TIMES);
        self.times.drain(..more);
        at
    }

    fn must(&mut self, may_be: Result<(), String>) {
        if let Err(why) = may_be {
            self.broken.get_or_insert(why);
        }
    }

    /// Whether what clients saw can have been.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.account.close()?;
        linear::check(self.account.history(), CHECK_WITHIN).map_err(|anomaly| anomaly.to_string())
    }

    /// All that was told: nobody tells more.
    pub(super) fn history(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.account).into_history()
    }
}

/// From a time of the world until now, in nanoseconds.
fn since(call: u64) -> (u64, u64) {
    (call * 1_000, sim::now() * 1_000)
}

/// Whether clients pause at this moment, in stories in which they do.
pub(super) fn paused() -> bool {
    sim::now() % PAUSED_EVERY < PAUSED
}

pub(super) fn key(number: usize) -> UserKey {
    UserKey::new((number as u16).to_be_bytes()).expect("short")
}

/// A key's name in a history.
fn name(number: usize) -> String {
    number.to_string()
}

fn number(key: &UserKey) -> usize {
    usize::from(u16::from_be_bytes(key.as_bytes().try_into().expect("two bytes")))
}

fn value(version: &Version) -> Value {
    let bytes = version.record.value.as_deref().expect("a version that is given out has a value");
    Value::from_be_bytes(bytes.try_into().expect("eight bytes"))
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

/// A write of one key.
#[derive(Debug, Clone, Copy)]
struct Put {
    key: usize,
    /// None: it is deleted.
    value: Option<Value>,
    /// What it is to be, if that is asked: at this version, or not there.
    is: Option<Option<(HybridTime, Value)>>,
}

impl Put {
    fn op(&self) -> Op {
        let record = self.value.map_or_else(Record::deleted, |value| Record::put(value.to_be_bytes()));
        let condition = self.is.map(|is| is.map_or(Condition::Absent, |(at, _)| Condition::Version(at)));
        Op { key: key(self.key), condition, record }
    }

    fn did(&self) -> (String, Did) {
        let did = match (self.value, self.is) {
            (Some(new), Some(is)) => Did::Cas { expected: is.map(|(_, value)| value), new },
            (Some(value), None) => Did::Write(value),
            (None, None) => Did::Delete,
            (None, Some(_)) => unreachable!("nobody deletes under a condition"),
        };
        (name(self.key), did)
    }
}

/// One client.
pub(super) struct Client {
    pub(super) me: u32,
    pub(super) net: net::Shared,
    pub(super) told: Telling,
    pub(super) rng: Rng,
    /// What it saw last of each key, with its version.
    pub(super) saw: BTreeMap<usize, (HybridTime, Value)>,
    /// All that it has seen, and the version of each key.
    pub(super) token: Option<Token>,
    pub(super) least: BTreeMap<usize, HybridTime>,
    /// As of which time it has seen, but by a strong read, that a key is not there.
    pub(super) gone: BTreeMap<usize, HybridTime>,
}

impl Client {
    pub(super) async fn goes_on(mut self) {
        // Keys that it writes once, and deletes once: what is collected of them must not come back.
        let first = KEYS + self.me as usize * 1_000;
        let mut own = first..;
        let mut written = VecDeque::new();
        while sim::now() < STORY + HEALING - REST {
            self.sleeps(5 * MS, 120 * MS).await;
            while self.told.lock().pauses && paused() && sim::now() < STORY {
                self.sleeps(50 * MS, 500 * MS).await;
            }
            if self.rng.chance(0.2) {
                let put = if self.rng.below(10) < written.len() as u64 {
                    let key = written.pop_front().expect("there are some");
                    Put { key, value: None, is: None }
                } else {
                    let key = own.next().expect("it has no end");
                    written.push_back(key);
                    Put { key, value: Some(self.told.lock().fresh()), is: None }
                };
                self.write(vec![put]).await;
                continue;
            }
            let key = self.rng.below(KEYS as u64) as usize;
            match self.rng.below(20) {
                0..6 => _ = self.read(key, None, Consistency::Strong).await,
                6..8 => self.scan().await,
                8..11 => self.reads_otherwise(key).await,
                11..15 => {
                    let value = Some(self.told.lock().fresh());
                    self.write(vec![Put { key, value, is: None }]).await;
                }
                15 => self.write(vec![Put { key, value: None, is: None }]).await,
                16..18 => {
                    let put = self.put_if(key);
                    self.write(vec![put]).await;
                }
                _ => self.batch().await,
            }
        }
        self.reads_again(first..own.start).await;
    }

    /// Reads all of its own keys when all is well.
    async fn reads_again(&mut self, own: Range<usize>) {
        let count = own.len();
        for key in own {
            while !self.read(key, None, Consistency::Strong).await {
                if sim::now() > STORY + HEALING - READ_AGAIN {
                    let why = format!("everything is well, and key {key} of client {} is not read", self.me);
                    return self.told.lock().must(Err(why));
                }
                self.sleeps(5 * MS, 20 * MS).await;
            }
        }
        let mut told = self.told.lock();
        told.tally.own += count;
        told.done += 1;
    }

    async fn sleeps(&mut self, least: u64, most: u64) {
        let us = self.rng.between(least, most);
        SimRuntime::sleep(Duration::from_micros(us)).await;
    }

    /// A new value for a key that is as it saw it last.
    fn put_if(&self, key: usize) -> Put {
        Put { key, value: Some(self.told.lock().fresh()), is: Some(self.saw.get(&key).copied()) }
    }

    /// Several keys at one moment, some under a condition, some deleted.
    async fn batch(&mut self) {
        let mut keys: Vec<usize> = (0..KEYS).collect();
        self.rng.shuffle(&mut keys);
        keys.truncate(self.rng.between(2, KEYS as u64) as usize);
        let puts = keys.into_iter().map(|key| match self.rng.below(10) {
            0..4 => self.put_if(key),
            4 => Put { key, value: None, is: None },
            _ => Put { key, value: Some(self.told.lock().fresh()), is: None },
        });
        let puts = puts.collect();
        self.write(puts).await;
    }

    async fn scan(&mut self) {
        let from = self.rng.below(KEYS as u64 - 1) as usize;
        self.read(from, Some(KEYS), Consistency::Strong).await;
    }

    async fn reads_otherwise(&mut self, key: usize) {
        let consistency = match self.rng.below(3) {
            0 => Consistency::Bounded(Duration::from_millis(self.rng.between(1_000, 4_000))),
            1 => Consistency::Eventual,
            _ => Consistency::AsOf(self.told.lock().time(&mut self.rng)),
        };
        let to = self.rng.chance(0.3).then_some(KEYS);
        self.read(key, to, consistency).await;
    }

    /// Reads a key, or all from one on up to another one, of one range; whether it was answered.
    async fn read(&mut self, from: usize, to: Option<usize>, consistency: Consistency) -> bool {
        let call = sim::now();
        let count = self.net.lock().nodes.len();
        let mut node = self.rng.below(count as u64) as usize;
        let token = self.token.filter(|_| self.rng.chance(0.7));
        for hop in 0..4 {
            let Some(host) = self.net.lock().nodes[node].host.clone() else { return false };
            let ask = Ask {
                from: key(from),
                to: to.map(key),
                consistency,
                token,
                nearest_only: false,
                fallback: hop > 0,
            };
            let piece = Limit { rows: KEYS, bytes: 1 << 20 };
            let Some(range) = host.range_of(SPACE, &key(from)) else {
                node = (node + 1) % count;
                continue;
            };
            let reads = sim::stoppable(async move { host.read(range, ask, piece).await });
            let answered = on(node, reads, PATIENCE).await;
            let is_answered = matches!(answered, Some(Ok(_)));
            match answered {
                Some(Ok(answer)) => self.was_shown(call, (from, to), consistency, token.is_some(), answer),
                Some(Err(NotRead::Leaseholder(seat))) => {
                    node = Net::number(&seat.node);
                    SimRuntime::sleep(Duration::from_millis(2)).await;
                    continue;
                }
                Some(Err(NotRead::Unsound(why))) => net::fails(&self.net, node, "does not read", &why),
                Some(Err(NotRead::NoReplica | NotRead::Refused(_))) => self.told.lock().tally.refused += 1,
                None => {}
            }
            SimRuntime::sleep(Duration::from_millis(2)).await;
            return is_answered;
        }
        false
    }

    fn was_shown(
        &mut self,
        call: u64,
        (from, to): (usize, Option<usize>),
        consistency: Consistency,
        has_token: bool,
        answer: Answer<Rowed>,
    ) {
        let reading = reading(consistency, call, &answer);
        let (rows, end) = match answer.value {
            Rowed::One(found) => (found.into_iter().map(|found| (from, found)).collect(), from + 1),
            Rowed::Many(page) => {
                let rows: Vec<_> = page.rows.into_iter().map(|(key, found)| (number(&key), found)).collect();
                // It may end where its range does.
                let end = |next: UserKey| (from..KEYS).find(|at| key(*at) >= next);
                (rows, page.next.and_then(end).or(to).unwrap_or_default())
            }
        };
        let rows: BTreeMap<usize, Version> = rows.into_iter().collect();
        let mut told = self.told.lock();
        let mut saw = Dids::new();
        for key in from..end {
            let found = rows.get(&key);
            let version = found.map(|found| found.at);
            if let Some(found) = found {
                let known = told.account.knows(&name(key), found.at, value(found));
                told.must(known);
            }
            saw.push((name(key), Did::Read(found.map(value))));
            let goes_by = |seen: &BTreeMap<usize, HybridTime>| {
                let goes = has_token && reading.as_of.is_none();
                seen.get(&key).copied().filter(|_| goes).unwrap_or_default()
            };
            let reading = Reading { seen: goes_by(&self.least), gone: goes_by(&self.gone), ..reading };
            let (me, replica) = (self.me, answer.replica.replica);
            let may_be = told.account.shown(&name(key), version, reading);
            told.must(may_be.map_err(|why| {
                format!("a read of key {key} {consistency:?} by client {me} at replica {replica} {why}")
            }));
            let seen = match found {
                Some(found) => Some((&mut self.least, found.at)),
                None if answer.level == Guarantee::StrictSerializable => None,
                None => Some((&mut self.gone, answer.at)),
            };
            if let Some((seen, at)) = seen {
                let known = seen.entry(key).or_default();
                *known = at.max(*known);
            }
        }
        self.token = Some(self.token.map_or(answer.token, |token| token.and(answer.token)));
        match answer.level {
            Guarantee::StrictSerializable => {
                for (key, found) in &rows {
                    self.saw.insert(*key, (found.at, value(found)));
                }
                told.tally.read += 1;
                told.tally.scans += usize::from(saw.len() > 1);
                told.served.0 += usize::from(told.healed);
                told.account.tell(self.me, since(call), saw, Outcome::Ok);
            }
            Guarantee::Eventual => told.tally.weaker.1 += 1,
            _ if matches!(consistency, Consistency::Bounded(_)) => told.tally.weaker.0 += 1,
            _ => told.tally.weaker.2 += 1,
        }
    }

    /// Writes all of these at one moment, or nothing.
    async fn write(&mut self, puts: Vec<Put>) {
        let call = sim::now();
        let count = self.net.lock().nodes.len();
        let mut node = self.rng.below(count as u64) as usize;
        let dids: Dids = puts.iter().map(Put::did).collect();
        self.told.lock().account.begins(self.me, dids);
        let mut answered = Some(Err(NotWritten::NoReplica));
        for _ in 0..4 {
            let Some(host) = self.net.lock().nodes[node].host.clone() else { break };
            let ops: Vec<Op> = puts.iter().map(Put::op).collect();
            let Some(range) = host.range_of(SPACE, &ops[0].key) else {
                node = (node + 1) % count;
                continue;
            };
            answered = on(node, async move { host.write(range, ops).await }, PATIENCE).await;
            let Some(Err(NotWritten::Leaseholder(seat))) = &answered else { break };
            node = Net::number(&seat.node);
            SimRuntime::sleep(Duration::from_millis(2)).await;
        }
        let ended = match answered {
            Some(Ok(written)) => self.has_written(&puts, &written),
            Some(Err(NotWritten::Unknown(_) | NotWritten::Stopped(_))) | None => {
                self.told.lock().tally.unknown += 1;
                Ended::Unknown
            }
            Some(Err(NotWritten::Condition { op: place, found })) => {
                self.saw.remove(&puts[place].key);
                Ended::Because { place, found }
            }
            Some(Err(NotWritten::Pressed(_))) => {
                self.told.lock().tally.pressed += 1;
                Ended::Not
            }
            Some(Err(_)) => {
                self.told.lock().tally.refused += 1;
                Ended::Not
            }
        };
        {
            let mut told = self.told.lock();
            let may_be = told.account.ends(self.me, since(call), ended);
            told.must(may_be);
        }
        SimRuntime::sleep(Duration::from_millis(2)).await;
    }

    fn has_written(&mut self, puts: &[Put], written: &Written) -> Ended {
        let mut told = self.told.lock();
        told.tally.written += 1;
        told.tally.batches += usize::from(puts.len() > 1);
        told.served.1 += usize::from(told.healed);
        for put in puts {
            match put.value {
                Some(value) => drop(self.saw.insert(put.key, (written.at, value))),
                None => drop(self.saw.remove(&put.key)),
            }
            self.least.insert(put.key, written.at);
        }
        self.token = Some(self.token.map_or(written.token, |token| token.and(written.token)));
        Ended::At(written.at)
    }
}

/// A read that was begun at this time of the world, and is answered now, where an answer needs no time on its way.
fn reading<V>(consistency: Consistency, call: u64, answer: &Answer<V>) -> Reading {
    let (call_ns, now_ns) = since(call);
    let (least, bound) = match consistency {
        Consistency::Strong => (Guarantee::StrictSerializable, None),
        Consistency::Bounded(bound) => (Guarantee::Snapshot, Some(bound)),
        Consistency::AsOf(_) => (Guarantee::Snapshot, None),
        Consistency::Eventual => (Guarantee::Eventual, None),
    };
    let as_of = match consistency {
        Consistency::AsOf(time) => Some(time),
        _ => None,
    };
    let (from_ns, age, at) = (now_ns, answer.age, answer.at);
    let (seen, gone) = (HybridTime::ZERO, HybridTime::ZERO);
    Reading { least, level: answer.level, bound, from_ns, age, call_ns, as_of, at, seen, gone }
}
