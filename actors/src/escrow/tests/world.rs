//! A small interpreter: several nodes' books over a network and disks without faults of their own,
//! driven by lines such as `hold h1 us 40 ttl=5s -> held`.
//!
//! A line is a command, and after `->` what it must give. After every line the invariants I1 to I5 are
//! checked over all nodes, against receipts kept here. Time moves by `tick` alone.

mod audit;
mod lives;
mod views;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::limits::MAX_EFFECTS;
use rhumb_core::rng::Seed;
use rhumb_core::{
    Barrier, DataClass, Effects, HybridTime, Mono, NodeId, Now, PoolName, Region, StoreId, Ticket,
};
use rhumb_storage::memory::{DiskImage, Tear};
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};
use rhumb_topology::{Founding, pool_home};

use crate::escrow::levelled::Levelled;
use crate::escrow::messages::{
    AttestPool, Confirm, CreatePool, CustomerTag, DebtRow, Durability, Hold, HoldId, Key, PeerMessage,
    ReadRow, Refusal, Release as Give, Reserve, Return, Row, ShowPool, Standing,
};
use crate::escrow::policy::{Initiative, LevelPolicy};
use crate::escrow::records::Stage;
use crate::escrow::settings::EscrowSettings;
use crate::escrow::{Answer, Book, Effect, Input, Out, Reconciliations, Request, Token};

/// When every story begins: milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_763_700_000_000;
/// Steps at one moment before a story is taken to go round in circles.
const MAX_STEPS: usize = 200_000;

/// Runs a story.
pub(crate) fn check(story: &str) {
    let mut world = World::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        world.line(line);
    }
}

/// A node that runs.
struct Life {
    book: Book,
    barrier: Barrier<Effect>,
    store: Store<MemoryEngine>,
    /// Batches that wait for a disk that is stalled.
    unwritten: VecDeque<(Ticket, Batch)>,
}

struct Node {
    disk: MemoryDisk,
    store: StoreId,
    copies: BTreeMap<String, DiskImage>,
    stalled: bool,
    /// How far its wall clock is off.
    off_ms: i64,
    life: Option<Life>,
}

/// Whoever waits for an answer.
#[derive(Debug, Clone)]
enum Caller {
    /// The customer of this line.
    Label(String),
    /// Another node, in the name of a caller of its own.
    Node(NodeId, Token),
    /// A home that adds up a pool: its reading.
    Reader(NodeId, PoolName, u64),
}

#[derive(Debug, Clone)]
enum Parcel {
    Peer(NodeId, PeerMessage),
    Ask(Caller, Request, Mono),
    Answer(Token, Result<Answer, Refusal>),
    Row(NodeId, PoolName, u64, Result<Answer, Refusal>),
}

pub(crate) struct World {
    pub(crate) founding: Founding,
    pub(crate) settings: EscrowSettings,
    /// Whether the invariants are checked after every line.
    pub(crate) audited: bool,
    nodes: BTreeMap<NodeId, Node>,
    now: Mono,
    clock_ms: u64,
    latency: Duration,
    net: BTreeMap<(Mono, u64), (NodeId, Parcel)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    callers: BTreeMap<(NodeId, Token), Caller>,
    serial: u64,
    /// What was asked and answered under each label.
    asked: BTreeMap<String, Hold>,
    held: BTreeMap<String, HoldId>,
    /// Labels of holds that were held when last looked at.
    watched: BTreeSet<String>,
    pools: BTreeMap<String, PoolName>,
    /// Units and debt rights.
    supplies: BTreeMap<PoolName, (u64, u64)>,
    /// Units confirmed and not given back, by the answers of their owners.
    receipts: BTreeMap<HoldId, u64>,
    /// The last word of each node to each other, and those that will come once more.
    said: BTreeMap<(NodeId, NodeId), PeerMessage>,
    kept: BTreeMap<(NodeId, NodeId), PeerMessage>,
    /// Units an operator said were sold in lost lives.
    lost_disk: bool,
    events: Vec<String>,
    out: Out,
}

impl World {
    pub(crate) fn new() -> Self {
        // Stories tell of rights that move because somebody waits; `foresee` adds looking ahead.
        let level = LevelPolicy {
            tail_floor: 0,
            horizon: Duration::ZERO,
            low_water: Duration::ZERO,
            ..LevelPolicy::default()
        };
        let settings = EscrowSettings { level, ..EscrowSettings::default() };
        let mut world = Self {
            founding: founding("us/n1 eu/n1 ap/n1"),
            settings,
            audited: true,
            nodes: BTreeMap::new(),
            now: Mono::millis(1_000),
            clock_ms: EPOCH_MS,
            latency: Duration::ZERO,
            net: BTreeMap::new(),
            cut: BTreeSet::new(),
            callers: BTreeMap::new(),
            serial: 0,
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
            watched: BTreeSet::new(),
            pools: BTreeMap::new(),
            supplies: BTreeMap::new(),
            receipts: BTreeMap::new(),
            said: BTreeMap::new(),
            kept: BTreeMap::new(),
            lost_disk: false,
            events: Vec::new(),
            out: Effects::with_capacity(MAX_EFFECTS),
        };
        world.found();
        world
    }

    /// New, empty nodes for the whole founding list.
    pub(crate) fn found(&mut self) {
        self.nodes.clear();
        self.net.clear();
        self.callers.clear();
        for (i, id) in self.founding.nodes().iter().enumerate() {
            let disk = MemoryDisk::tearing(Tear::LoseAll);
            let node = Node {
                disk,
                store: StoreId(i as u128 + 1),
                copies: BTreeMap::new(),
                stalled: false,
                off_ms: 0,
                life: None,
            };
            self.nodes.insert(id.clone(), node);
        }
        for id in self.founding.nodes().to_vec() {
            self.start(&id);
        }
        self.settle();
    }

    fn line(&mut self, line: &str) -> Vec<String> {
        let (command, want) = line.split_once("->").unwrap_or((line, ""));
        let words: Vec<&str> = command.split_whitespace().collect();
        self.events.clear();
        let got = self.command(words[0], &words[1..]);
        self.settle();
        let mut got: Vec<String> = got.into_iter().chain(self.events.drain(..)).collect();
        got.retain(|event| !event.is_empty());
        let want = want.trim();
        if line.contains("->") {
            // `show` and `standing` give much: the story names what matters to it.
            let ok = if matches!(words[0], "show" | "view" | "moved" | "reconciled") {
                let got: BTreeSet<&str> = got.iter().flat_map(|g| g.split_whitespace()).collect();
                want.split_whitespace().all(|w| got.contains(w))
            } else {
                got.join(", ") == want
            };
            assert!(ok, "\n  {line}\n  gave: {}\n", got.join(", "));
        }
        if self.audited {
            self.audit();
        }
        got
    }

    fn command(&mut self, verb: &str, words: &[&str]) -> Vec<String> {
        let args: Vec<&str> = words.iter().copied().filter(|word| !word.contains('=')).collect();
        let option = |name: &str| {
            words.iter().find_map(|word| word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')))
        };
        match verb {
            "nodes" => {
                self.founding = founding(&args.join(" "));
                self.found();
            }
            "foresee" => {
                let initiative = self.settings.level.initiative;
                self.settings.level = LevelPolicy { tail_floor: 0, initiative, ..LevelPolicy::default() };
                self.found();
            }
            "levels" => {
                let of = |name| {
                    [Initiative::Pull, Initiative::Push, Initiative::Hybrid]
                        .map(|i| (i.name() == name).then_some(i))
                };
                self.settings.level.initiative = of(args[0]).into_iter().flatten().next().expect("a policy");
                self.found();
            }
            "reconcile" => {
                self.settings.reconcile = duration(args[0]);
                self.found();
            }
            "reconciled" => return vec![self.reconciled(args[0])],
            "moved" => return vec![self.moved(args[0])],
            "tail" => {
                self.settings.level.tail_floor = number(args[0]);
                self.found();
            }
            "returns" => {
                self.settings.returns = duration(args[0]);
                self.found();
            }
            "limit" => {
                let bound = number(args[1]) as usize;
                match args[0] {
                    "parked" => self.settings.max_parked = bound,
                    "forwards" => self.settings.max_forwards = bound,
                    "holds" => self.settings.max_holds = bound,
                    "keys" => self.settings.max_keys = bound,
                    other => panic!("no limit {other}"),
                }
                self.found();
            }
            "latency" => self.latency = duration(args[0]),
            "mint" => return self.mint(&args, &option),
            "hold" => self.hold(&args, &option),
            "again" => self.again(&args, &option),
            "confirm" | "release" | "return" => self.settle_hold(verb, &args, &option),
            "leave" => self.leave(args[0]),
            "attest" => self.attest(&args, &option),
            "tick" => self.tick(duration(args[0])),
            "cut" | "silence" => self.sever(args[0], args[1], verb == "cut"),
            "heal" => self.mend(args[0], args[1]),
            "keep" => {
                let way = (node_id(args[0]), node_id(args[1]));
                self.kept.insert(way.clone(), self.said[&way].clone());
            }
            "lie" => return vec![self.lie(args[0], args[1], args[2])],
            "keys" => {
                let life = self.node(args[0]).life.as_ref().expect("it runs");
                return vec![life.book.remembered().0.to_string()];
            }
            "late" => {
                let (from, to) = (node_id(args[0]), node_id(args[1]));
                let message = self.kept[&(from.clone(), to.clone())].clone();
                self.arrive(&to, Parcel::Peer(from, message));
            }
            "stop" => self.stop(args[0], false),
            "crash" => self.stop(args[0], true),
            "start" => self.start(&node_id(args[0])),
            "restart" => {
                self.stop(args[0], false);
                self.start(&node_id(args[0]));
            }
            "copy" => {
                let node = self.node(args[0]);
                let image = node.disk.snapshot();
                node.copies.insert(args.get(1).copied().unwrap_or("copy").to_owned(), image);
            }
            "restore" => self.restore(args[0], args.get(1).copied().unwrap_or("copy")),
            "empty" => self.empty(args[0]),
            "stall" => self.node(args[0]).stalled = true,
            "sync" => {
                self.node(args[0]).stalled = false;
                self.flush(&node_id(args[0]));
            }
            "clock" => self.set_clock(args[0], args[1]),
            "standing" => return vec![self.standing(args[0])],
            "show" => return vec![self.show(&args)],
            "read" => return vec![self.read_row(args[0])],
            "view" => return vec![self.view(&args)],
            "stage" => return vec![self.stage(args[0])],
            "sold" => return vec![self.sold().to_string()],
            other => panic!("no command {other}"),
        }
        Vec::new()
    }

    // ---- commands ------------------------------------------------------------------------------

    /// A pool of this name, with `-N` appended so that its home is where the story wants it.
    fn pool(&mut self, label: &str, home: &str) -> PoolName {
        let home = node_id(home);
        let founding = &self.founding;
        let at_home = |n: &u32| {
            let name = PoolName::new(&format!("{label}-{n}")).expect("valid");
            (*pool_home(founding, &name) == home).then_some(name)
        };
        let found = (0..1_000).find_map(|n| at_home(&n)).expect("some name has its home there");
        self.pools.entry(label.to_owned()).or_insert(found).clone()
    }

    fn mint<'a>(&mut self, args: &[&str], option: &impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
        let name = self.pool(args[0], option("home").unwrap_or("us"));
        let supply = number(args[1]);
        let region = |name: &str| Region::new(name).expect("valid");
        let weights = option("weights").unwrap_or("").split(',').filter(|w| !w.is_empty()).map(|pair| {
            let (name, weight) = pair.split_once(':').expect("REGION:WEIGHT");
            (region(name), number(weight))
        });
        let allowed = match option("allowed") {
            Some(list) => list.split(',').map(region).collect(),
            None => self.founding.regions().into_iter().cloned().collect(),
        };
        let request = CreatePool {
            name: name.clone(),
            class: DataClass::new(option("class").unwrap_or("inventory")).expect("valid"),
            supply,
            weights: weights.collect(),
            debt: option("debt").map_or(0, number),
            reserve: option("reserve").map(|reserve| {
                let (node, units) = reserve.split_once(':').expect("reserve=NODE:UNITS");
                Reserve { node: node_id(node), units: number(units) }
            }),
            per_customer: option("limit").map(number),
            durability: Durability::Local,
        };
        self.supplies.entry(name).or_insert((supply, request.debt));
        let at = option("at").unwrap_or("us");
        self.ask(at, "mint", Request::Create { request, allowed }, Duration::from_secs(5));
        Vec::new()
    }

    fn hold<'a>(&mut self, args: &[&str], option: &impl Fn(&str) -> Option<&'a str>) {
        let [label, at, qty] = args[..] else { panic!("hold LABEL NODE QTY") };
        let home = node_id(option("made").unwrap_or(at));
        let pool = option("pool").unwrap_or("concert");
        let ahead = option("ahead").map_or(0, |ahead| duration(ahead).as_millis() as u64);
        let key = match option("key") {
            Some(raw) => Key::Raw(raw.to_owned()),
            None => Key::Made { home, created_ms: self.clock_ms + ahead, nonce: label.replace('-', "x") },
        };
        let pool = self.pools.get(pool).cloned().unwrap_or_else(|| PoolName::new(pool).expect("valid"));
        let customer = option("for").map(|who| CustomerTag::of(&pool, who).expect("valid"));
        let hold = Hold {
            pool,
            customer,
            qty: number(qty),
            ttl: option("ttl").map(duration),
            key,
            hops: option("hops").map_or(0, |hops| number(hops) as u8),
        };
        self.asked.insert(label.to_owned(), hold.clone());
        let within = option("within").map_or(Duration::from_secs(5), duration);
        self.ask(at, label, Request::Hold(hold), within);
    }

    /// The same request once more, here or elsewhere, or one with the same key and another body.
    fn again<'a>(&mut self, args: &[&str], option: &impl Fn(&str) -> Option<&'a str>) {
        let (label, at) = (args[0], args[1]);
        let mut hold = self.asked[label].clone();
        if let Some(qty) = option("qty") {
            hold.qty = number(qty);
        }
        self.ask(at, label, Request::Hold(hold), Duration::from_secs(5));
    }

    fn settle_hold<'a>(&mut self, verb: &str, args: &[&str], option: &impl Fn(&str) -> Option<&'a str>) {
        let label = args[0];
        let mut hold = self.held[label].clone();
        let at = option("at").map_or_else(|| hold.owner.clone(), node_id);
        hold.secret = option("secret").map_or(hold.secret, number);
        let request = match verb {
            "confirm" => Request::Confirm(Confirm { hold }),
            "return" => {
                let key = Key::Raw(option("key").unwrap_or("by hand").to_owned());
                Request::Return(Return { hold, qty: args.get(1).map(|qty| number(qty)), key })
            }
            _ => Request::Release(Give { hold }),
        };
        self.ask(&at.to_string(), label, request, Duration::from_secs(5));
    }

    /// The customer of this line hangs up.
    fn leave(&mut self, label: &str) {
        let gone = self.callers.iter().find(|(_, caller)| matches!(caller, Caller::Label(l) if l == label));
        let (node, token) = gone.expect("the customer waits").0.clone();
        self.callers.remove(&(node.clone(), token));
        self.step(&node, Input::Abandoned(token));
    }

    fn attest<'a>(&mut self, args: &[&str], option: &impl Fn(&str) -> Option<&'a str>) {
        let pool = self.pools[option("pool").unwrap_or("concert")].clone();
        let node = node_id(args[0]);
        let request = AttestPool { pool, node, sold: number(option("sold").expect("sold=N")) };
        self.ask(option("at").unwrap_or(args[0]), "attest", Request::Attest(request), Duration::from_secs(5));
    }

    fn tick(&mut self, by: Duration) {
        let end = self.now.plus(by);
        self.settle();
        while self.now < end {
            let net = self.net.first_key_value().map(|((at, _), _)| *at);
            let deadline =
                |(id, node): (&NodeId, &Node)| node.life.as_ref()?.book.next_deadline(self.time(id));
            let books = self.nodes.iter().filter_map(deadline).min();
            let next = [net, books].into_iter().flatten().min().unwrap_or(end).max(self.now).min(end);
            // Clocks show whole milliseconds.
            let ms = next.since(self.now).as_micros().div_ceil(1_000).max(1) as u64;
            self.now = self.now.plus(Duration::from_millis(ms));
            self.clock_ms += ms;
            self.settle();
        }
    }

    fn sever(&mut self, a: &str, b: &str, noticed: bool) {
        let (a, b) = (node_id(a), node_id(b));
        self.cut.insert((a.clone(), b.clone()));
        self.cut.insert((b.clone(), a.clone()));
        if noticed {
            self.step(&a, Input::PeerDown(b.clone()));
            self.step(&b, Input::PeerDown(a));
        }
    }

    fn mend(&mut self, a: &str, b: &str) {
        let (a, b) = (node_id(a), node_id(b));
        self.cut.remove(&(a.clone(), b.clone()));
        self.cut.remove(&(b.clone(), a.clone()));
        // The connection is made anew: to a node that had not noticed the cut, this ends the old one.
        for (node, peer) in [(&a, &b), (&b, &a)] {
            self.step(node, Input::PeerDown(peer.clone()));
            self.step(node, Input::PeerUp(peer.clone()));
        }
    }

    /// A node's wall clock is off: `clock us -10m`, `clock us +1s`.
    fn set_clock(&mut self, name: &str, by: &str) {
        let (sign, by) = by.split_at(1);
        let ms = duration(by).as_millis() as i64;
        self.node(name).off_ms = if sign == "-" { -ms } else { ms };
    }

    fn ask(&mut self, at: &str, label: &str, request: Request, within: Duration) {
        let caller = Caller::Label(label.to_owned());
        let until = self.now.plus(within);
        self.arrive(&node_id(at), Parcel::Ask(caller, request, until));
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(&node_id(name)).expect("a node of the story")
    }

    fn others(&self, id: &NodeId) -> Vec<NodeId> {
        self.nodes.keys().filter(|node| *node != id).cloned().collect()
    }

    fn time(&self, at: &NodeId) -> Now {
        let ms = self.clock_ms.saturating_add_signed(self.nodes[at].off_ms);
        Now { hybrid: HybridTime::new(ms, 1), mono: self.now }
    }

    fn step(&mut self, id: &NodeId, input: Input) {
        let now = self.time(id);
        self.act(id, |book, out| book.step(now, input, out));
    }

    fn act(&mut self, id: &NodeId, act: impl FnOnce(&mut Book, &mut Out)) {
        let Some(life) = self.nodes.get_mut(id).and_then(|node| node.life.as_mut()) else { return };
        act(&mut life.book, &mut self.out);
        let mut done = Vec::new();
        let unwritten = &mut life.unwritten;
        life.barrier.absorb(&mut self.out, |release| match release {
            Release::Persist(ticket, batch) => unwritten.push_back((ticket, batch)),
            Release::Perform(effect) => done.push(effect),
        });
        for effect in done {
            self.perform(id, effect);
        }
        self.flush(id);
    }

    /// Writes what waits, unless the disk is stalled: then nothing is durable.
    fn flush(&mut self, id: &NodeId) {
        let node = self.nodes.get_mut(id).expect("a node");
        let Some(life) = node.life.as_mut().filter(|_| !node.stalled) else { return };
        let mut done = Vec::new();
        for (ticket, batch) in life.unwritten.drain(..) {
            life.store.write(&batch).expect("the disk is sound");
            let number = life.store.sync().expect("the disk is sound");
            life.book.durable(number);
            life.barrier.durable(ticket, |effect| done.push(effect));
        }
        for effect in done {
            self.perform(id, effect);
        }
    }

    fn perform(&mut self, from: &NodeId, effect: Effect) {
        match effect {
            Effect::Reply { token, answer } => {
                self.book_receipt(&answer);
                let caller = self.callers.remove(&(from.clone(), token)).expect("one answer for each ask");
                self.answer(from, caller, answer);
            }
            Effect::Forward { token, to, request } => {
                if self.cut.contains(&(from.clone(), to.clone())) || self.nodes[&to].life.is_none() {
                    let caller = self.callers.remove(&(from.clone(), token));
                    self.tell(caller, "unreachable");
                    self.step(from, Input::Forwarded { token, refusal: None });
                } else {
                    let until = self.now.plus(Duration::from_secs(5));
                    self.send(&to, Parcel::Ask(Caller::Node(from.clone(), token), request, until));
                }
            }
            Effect::Read { pool, to, number, within } => {
                let reader = Caller::Reader(from.clone(), pool.clone(), number);
                let away = self.cut.contains(&(from.clone(), to.clone())) || self.nodes[&to].life.is_none();
                if away {
                    self.step(from, Input::RowRead { from: to, pool, number, answer: None });
                } else {
                    let until = self.now.plus(within);
                    self.send(&to, Parcel::Ask(reader, Request::ReadRow(ReadRow { pool }), until));
                }
            }
            Effect::Alarm { found, .. } => {
                let drift = found.drift.map_or_else(|| found.violations.join("; "), |d| d.to_string());
                self.events.push(format!("alarm {drift}"));
            }
            Effect::Peer { to, message } => {
                if matches!(message, PeerMessage::Level(_)) {
                    self.said.insert((from.clone(), to.clone()), message.clone());
                }
                if !self.cut.contains(&(from.clone(), to.clone())) {
                    self.send(&to, Parcel::Peer(from.clone(), message));
                }
            }
        }
    }

    fn send(&mut self, to: &NodeId, parcel: Parcel) {
        self.serial += 1;
        self.net.insert((self.now.plus(self.latency), self.serial), (to.clone(), parcel));
    }

    fn answer(&mut self, from: &NodeId, caller: Caller, answer: Result<Answer, Refusal>) {
        match caller {
            Caller::Label(label) => {
                let text = self.note(&label, &answer);
                self.events.push(text);
            }
            Caller::Node(node, token) if !self.cut.contains(&(from.clone(), node.clone())) => {
                self.send(&node, Parcel::Answer(token, answer));
            }
            Caller::Reader(node, pool, number) if !self.cut.contains(&(from.clone(), node.clone())) => {
                self.send(&node, Parcel::Row(from.clone(), pool, number, answer));
            }
            Caller::Node(..) | Caller::Reader(..) => {}
        }
    }

    /// A sale counts when its owner says so, whether or not the word reaches the customer.
    fn book_receipt(&mut self, answer: &Result<Answer, Refusal>) {
        match answer {
            Ok(Answer::Settled(settled)) => {
                let life = self.nodes[&settled.hold.owner].life.as_ref().expect("it has just answered");
                if life.book.stage(&settled.hold) == Some(Stage::Committed) {
                    self.receipts.entry(settled.hold.clone()).or_insert(settled.qty);
                }
            }
            // What is left of the sale is what the owner says at any time.
            Ok(Answer::Returned(returned)) => {
                self.receipts.insert(returned.hold.clone(), returned.left);
            }
            _ => {}
        }
    }

    fn tell(&mut self, caller: Option<Caller>, what: &str) {
        match caller {
            Some(Caller::Label(_)) => self.events.push(what.to_owned()),
            Some(Caller::Node(node, token)) => {
                let caller = self.callers.remove(&(node, token));
                self.tell(caller, what);
            }
            Some(Caller::Reader(..)) | None => {}
        }
    }

    fn arrive(&mut self, to: &NodeId, parcel: Parcel) {
        if self.nodes[to].life.is_none() {
            if let Parcel::Ask(caller, ..) = parcel {
                self.tell(Some(caller), "unreachable");
            }
            return;
        }
        match parcel {
            Parcel::Peer(from, message) => self.step(to, Input::Peer { from, message }),
            Parcel::Ask(caller, request, until) => {
                self.serial += 1;
                let token = Token(self.serial);
                self.callers.insert((to.clone(), token), caller);
                self.step(to, Input::Ask { token, request, until });
            }
            Parcel::Row(from, pool, number, answer) => {
                self.step(to, Input::RowRead { from, pool, number, answer: Some(answer) });
            }
            Parcel::Answer(token, answer) => {
                let refusal = answer.as_ref().err().cloned();
                if let Some(caller) = self.callers.remove(&(to.clone(), token)) {
                    self.answer(to, caller, answer);
                }
                self.step(to, Input::Forwarded { token, refusal });
            }
        }
    }

    /// Delivers and ticks until nothing more happens at this moment.
    fn settle(&mut self) {
        for _ in 0..MAX_STEPS {
            if let Some(entry) = self.net.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, parcel) = entry.remove();
                self.arrive(&to, parcel);
                continue;
            }
            let due = |id: &NodeId, node: &Node| {
                let life = node.life.as_ref().filter(|_| !node.stalled);
                life.and_then(|life| life.book.next_deadline(self.time(id))).is_some_and(|at| at <= self.now)
            };
            let Some(id) = self.nodes.iter().find(|(id, node)| due(id, node)).map(|(id, _)| id.clone())
            else {
                return self.look_for_ends();
            };
            self.step(&id, Input::Tick);
        }
        panic!("the nodes go round in circles at one moment");
    }

    /// Reports holds that ended by themselves.
    fn look_for_ends(&mut self) {
        let mut over = Vec::new();
        for label in &self.watched {
            let hold = &self.held[label];
            let Some(life) = self.nodes.get(&hold.owner).and_then(|node| node.life.as_ref()) else {
                continue;
            };
            match life.book.stage(hold) {
                Some(Stage::Held) => {}
                stage => over.push((label.clone(), stage)),
            }
        }
        for (label, stage) in over {
            self.watched.remove(&label);
            if stage == Some(Stage::Expired) {
                self.events.push(format!("expired {label}"));
            }
        }
    }

    /// Notes an answer, and says it in the words of the stories.
    fn note(&mut self, label: &str, answer: &Result<Answer, Refusal>) -> String {
        match answer {
            Ok(Answer::Held(held)) => {
                let known = self.held.insert(label.to_owned(), held.hold.clone());
                assert!(known.is_none_or(|known| known == held.hold), "{label} was held twice");
                self.watched.insert(label.to_owned());
                let debt =
                    if held.overdrawn > 0 { format!(", {} on debt", held.overdrawn) } else { String::new() };
                format!("held at {}{debt}", held.hold.owner.region)
            }
            Ok(Answer::Settled(settled)) => {
                let life = self.nodes[&settled.hold.owner].life.as_ref().expect("it has just answered");
                match life.book.stage(&settled.hold) {
                    Some(Stage::Committed) => format!("sold {}", settled.qty),
                    _ => format!("released {}", settled.qty),
                }
            }
            Ok(Answer::Created(created)) => created
                .shares
                .iter()
                .map(|(node, share)| format!("{}={share}", short(&self.founding, node)))
                .collect::<Vec<_>>()
                .join(" "),
            Ok(Answer::Returned(returned)) => format!("returned {}, {} left", returned.qty, returned.left),
            Ok(Answer::Attested(attested)) => format!("attested, {} available", attested.row.available),
            Ok(Answer::View(view)) => {
                let others: Vec<String> = view
                    .others
                    .iter()
                    .map(|(node, (figures, age))| {
                        format!("{}={}/{}s", node.region, figures.available, age.as_secs())
                    })
                    .collect();
                format!("home={} tail={} {}", view.home.region, view.tail, others.join(" "))
            }
            Ok(Answer::Row(row)) => format!("{row:?}"),
            Err(Refusal::Invalid(why)) => format!("invalid: {why}"),
            Err(Refusal::CannotVouch { node, standing }) => {
                format!("cannot_vouch {} {}", node.region, said(standing))
            }
            Err(refusal @ Refusal::WrongAttestation { .. }) => format!("{}: {refusal}", refusal.code()),
            Err(Refusal::NotAllowed { region, .. }) => format!("not_allowed {region}"),
            Err(refusal) => refusal.code().to_owned(),
        }
    }
}

fn founding(nodes: &str) -> Founding {
    Founding::new(nodes.split_whitespace().map(node_id)).expect("a valid list")
}

/// `us` stands for `us/n1`.
fn node_id(name: &str) -> NodeId {
    let (region, node) = name.split_once('/').unwrap_or((name, "n1"));
    NodeId::new(region, node).expect("a node id")
}

fn short(founding: &Founding, node: &NodeId) -> String {
    match founding.nodes_in(&node.region).len() {
        1 => node.region.to_string(),
        _ => node.to_string(),
    }
}

fn said(standing: &Standing) -> &'static str {
    match standing {
        Standing::Unproven => "unproven",
        Standing::Proven => "proven",
        Standing::Restored => "restored",
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn duration(text: &str) -> Duration {
    let split = text.find(|c: char| !c.is_ascii_digit()).expect("a unit");
    let (n, unit) = (number(&text[..split]), &text[split..]);
    match unit {
        "ms" => Duration::from_millis(n),
        "s" => Duration::from_secs(n),
        "m" => Duration::from_secs(n * 60),
        "h" => Duration::from_secs(n * 3_600),
        other => panic!("no unit {other}"),
    }
}
