//! A simulated world of three nodes, each with a key table, an inbox and an outbox: a heap of timed events, a
//! network that loses, delays and duplicates, disks that forget what was not synced, handlers that fail, and crashes
//! at any step. It knows what was taken, answered and given up, and holds the machines to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{
    Barrier, DataClass, Fault, FaultKind, Guarantee, HybridTime, Incarnation, Mono, NodeId, Now, Ticket,
};
use rhumb_storage::memory::Tear;
use rhumb_storage::{Batch, MemoryDisk, MemoryEngine, Store};

use crate::delivery::keys::{Asked, Ended, Key, KeyTable, Scope, Stored};
use crate::delivery::rows::{self, FAMILY, Row};
use crate::delivery::{
    Arrived, DeliverySettings, Effect, Inbox, Letter, LetterId, Out, Outbox, Sending, Token, Verdict,
};

const NODES: usize = 3;
const ACTORS: u64 = 3;
const STREAMS: u64 = 2;
const EPOCH_MS: u64 = 1_700_000_000_000;
/// How long a node waits for a verdict.
const PATIENCE_MS: u64 = 400;

fn settings() -> DeliverySettings {
    DeliverySettings {
        attempts: 3,
        retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(500),
        letters: 40,
        ..DeliverySettings::default()
    }
}

/// What a handler is to do.
enum Work {
    /// Append a letter's number to its actor's row.
    Letter { source: NodeId, id: LetterId, letter: u64, actor: u64 },
    /// Append a run's number to its key's row, and answer it.
    Ask { key: u64, run: u64 },
}

/// One life of a node.
struct Life {
    store: Store<MemoryEngine>,
    keys: KeyTable,
    inbox: Inbox,
    outbox: Outbox,
    out: Out,
    barrier: Barrier<Effect>,
    written: Option<Ticket>,
    syncing: bool,
    last_token: u64,
    /// What each token waits for.
    tells: BTreeMap<Token, u64>,
    asks: BTreeMap<Token, usize>,
    verdicts: BTreeMap<Token, (usize, LetterId, u64, Sending)>,
    /// Which attempt of a letter counts.
    attempts: BTreeMap<LetterId, u64>,
    work: BTreeMap<Token, Work>,
}

struct Node {
    memory: MemoryDisk,
    /// Counts lives; an event of an earlier one is nobody's.
    number: u64,
    life: Option<Life>,
}

/// When, in which order of what happens then, to which node in which of its lives, and where the event lies.
type Due = (u64, u64, usize, u64, usize);

#[derive(Clone)]
enum Event {
    Tell,
    Ask(usize),
    Tick,
    Sync,
    Crash,
    Start,
    Handled(Token),
    Arrives { from: usize, sending: Sending, attempt: u64 },
    Verdict { id: LetterId, attempt: u64, verdict: Verdict },
    Overdue { id: LetterId, attempt: u64 },
}

/// A customer's ask, repeated until it is answered.
#[derive(Clone)]
struct Ask {
    node: usize,
    key: u64,
    body: u8,
    answered: bool,
}

/// What is known of a letter.
#[derive(Clone)]
struct Told {
    from: usize,
    actor: u64,
    stream: u64,
    taken: bool,
    died: bool,
}

/// What happened and must stay so.
#[derive(Default)]
struct Known {
    letters: BTreeMap<u64, Told>,
    asks: Vec<Ask>,
    /// The body that each run ran with, by its number.
    runs: BTreeMap<u64, u8>,
    /// The answer that a key was given.
    answers: BTreeMap<u64, u64>,
    /// Letters that runs of a letter's handler have enclosed.
    enclosed: BTreeMap<u64, Vec<u64>>,
}

pub(super) struct World {
    rng: Rng,
    now_ms: u64,
    order: u64,
    events: BinaryHeap<Reverse<Due>>,
    pending: Vec<Option<Event>>,
    nodes: Vec<Node>,
    known: Known,
    last_number: u64,
    faults: bool,
    violation: Option<String>,
}

fn node_id(node: usize) -> NodeId {
    format!("r{node}/n1").parse().expect("a node")
}

fn number_of(node: &NodeId) -> usize {
    (0..NODES).find(|number| node_id(*number) == *node).expect("a node of this world")
}

/// What nobody will ever take, and whose handler always fails.
fn is_refused(letter: u64) -> bool {
    letter.is_multiple_of(13)
}

fn is_poison(letter: u64) -> bool {
    letter.is_multiple_of(11)
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|number| u64::from_be_bytes(number.try_into().expect("8 bytes"))).collect()
}

/// Lives with faults, heals, and is checked. `Err` says what was broken.
pub(super) fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(&Seed::new(seed));
    world.live(4_000);
    world.settle()
}

impl World {
    fn new(seed: &Seed) -> Self {
        let node = |_| Node { memory: MemoryDisk::tearing(Tear::Prefix), number: 0, life: None };
        let mut world = Self {
            rng: seed.child("delivery world").rng(),
            now_ms: 0,
            order: 0,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            nodes: (0..NODES).map(node).collect(),
            known: Known::default(),
            last_number: 0,
            faults: true,
            violation: None,
        };
        (0..NODES).for_each(|node| world.start(node));
        world
    }

    fn live(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        for node in 0..NODES {
            for _ in 0..ms / 40 {
                let at = self.rng.below(ms);
                self.after(at, node, Event::Tell);
            }
            for _ in 0..ms / 800 {
                let at = self.rng.below(ms);
                self.after(at, node, Event::Crash);
            }
        }
        for number in 0..(ms / 60) as usize {
            // A key is asked at its own node, now and then by two customers, who do not always say the same.
            let key = self.rng.below(ms / 120);
            let ask =
                Ask { node: key as usize % NODES, key, body: self.rng.chance(0.15).into(), answered: false };
            self.known.asks.push(ask);
            let at = self.rng.below(ms);
            self.after(at, key as usize % NODES, Event::Ask(number));
        }
        self.until(end);
    }

    /// Heals everything, and demands that all that was taken is done or given up.
    fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        self.until(self.now_ms + 60_000);
        if let Some(broken) = self.violation.take() {
            return Err(broken);
        }
        for node in 0..NODES {
            let left: usize =
                self.life(node).outbox.report().bound.values().map(|(letters, _)| letters).sum();
            if left > 0 {
                self.breaks(format!("n{node} has no progress: {left} letters are left"));
            }
        }
        self.check_letters();
        self.check_keys();
        self.violation.take().map_or(Ok(()), Err)
    }

    fn life(&self, node: usize) -> &Life {
        self.nodes[node].life.as_ref().expect("all nodes run in the end")
    }

    fn row(&self, node: usize, actor: &str) -> Vec<u64> {
        let row = self.life(node).store.get(FAMILY, &rows::actor_key(actor, b"list")).expect("a sound disk");
        numbers(&row.unwrap_or_default())
    }

    fn check_letters(&mut self) {
        let dead: Vec<BTreeSet<u64>> = (0..NODES)
            .map(|node| {
                self.life(node).outbox.dead().map(|(_, dead)| numbers(&dead.letter.body)[0]).collect()
            })
            .collect();
        let mut done: BTreeMap<u64, usize> = BTreeMap::new();
        for (node, actor) in (0..NODES).flat_map(|node| (0..ACTORS).map(move |actor| (node, actor))) {
            let row = self.row(node, &format!("test/{actor}"));
            let mut last: BTreeMap<(usize, u64), u64> = BTreeMap::new();
            for number in row {
                let told = self.known.letters[&number].clone();
                *done.entry(number).or_default() += 1;
                let before = last.insert((told.from, told.stream), number).unwrap_or(0);
                if before > number {
                    self.breaks(format!(
                        "letter {number} had its effect after {before}, which was told later"
                    ));
                }
            }
        }
        self.check_enclosed(&done);
        for (number, told) in self.known.letters.clone() {
            let (times, died) = (done.get(&number).copied().unwrap_or(0), dead[told.from].contains(&number));
            if times > 1 {
                self.breaks(format!("letter {number} had its effect {times} times"));
            }
            if told.taken && times == 0 && !died {
                self.breaks(format!("letter {number} was taken, had no effect, and is no dead letter"));
            }
            if times == 1 && died || told.died != died {
                self.breaks(format!("letter {number} is dead: {died}, was said to be: {}", told.died));
            }
            if died != (told.taken || died) && (is_refused(number) || is_poison(number)) {
                self.breaks(format!("letter {number} cannot be delivered, and is no dead letter"));
            }
        }
    }

    /// A letter that a handler enclosed is done or given up if the letter that it handled is done by that run, and was
    /// never told otherwise.
    fn check_enclosed(&mut self, done: &BTreeMap<u64, usize>) {
        for (of, enclosed) in self.known.enclosed.clone() {
            let told = |number: &&u64| done.contains_key(number) || self.known.letters[number].died;
            let (times, runs) = (enclosed.iter().filter(told).count(), done.get(&of).copied().unwrap_or(0));
            if times > runs {
                self.breaks(format!("the handler of letter {of} told {times} times, and ran {runs} times"));
            }
        }
    }

    fn check_keys(&mut self) {
        for ask in self.known.asks.clone() {
            let row = self.row(ask.node, &format!("key/{}", ask.key));
            let answer = self.known.answers.get(&ask.key).copied();
            if row.len() > 1 || answer.is_some_and(|answer| row != [answer]) {
                self.breaks(format!("key {} was answered {answer:?} and had the effects {row:?}", ask.key));
            }
            if !ask.answered {
                self.breaks(format!("whoever asked key {} was never answered", ask.key));
            }
        }
    }

    fn now(&self) -> Now {
        Now { hybrid: HybridTime::new(EPOCH_MS + self.now_ms, 0), mono: Mono::millis(self.now_ms) }
    }

    fn after(&mut self, ms: u64, node: usize, event: Event) {
        self.order += 1;
        let life = self.nodes[node].number;
        self.pending.push(Some(event));
        self.events.push(Reverse((self.now_ms + ms, self.order, node, life, self.pending.len() - 1)));
    }

    fn until(&mut self, end: u64) {
        while let Some(Reverse((at, ..))) = self.events.peek()
            && *at <= end
            && self.violation.is_none()
        {
            let Reverse((at, _, node, life, event)) = self.events.pop().expect("it was seen");
            let event = self.pending[event].take().expect("once");
            self.now_ms = at;
            let of_the_world = matches!(
                event,
                Event::Tell | Event::Ask(_) | Event::Crash | Event::Start | Event::Arrives { .. }
            );
            if of_the_world || life == self.nodes[node].number {
                self.happen(node, event);
            }
        }
        self.now_ms = self.now_ms.max(end);
    }

    fn happen(&mut self, node: usize, event: Event) {
        match event {
            Event::Crash if !self.faults => return,
            Event::Crash => return self.crash(node),
            Event::Start => return self.start(node),
            // A customer asks again until it is answered.
            Event::Ask(number) if !self.known.asks[number].answered => {
                let wait = 200 + self.rng.below(200);
                self.after(wait, node, Event::Ask(number));
            }
            _ => {}
        }
        let now = self.now();
        let Some(mut life) = self.nodes[node].life.take() else { return };
        match event {
            Event::Tell => self.tell(node, &mut life),
            Event::Ask(number) => self.ask(&mut life, number),
            Event::Tick => {
                life.outbox.tick(now, &mut life.out);
                life.keys.tick(now, &mut life.out);
            }
            Event::Sync => self.sync(node, &mut life),
            Event::Handled(token) => self.handled(node, &mut life, token),
            Event::Arrives { from, sending, attempt } => {
                let token = life.token();
                let (id, floor, after) = (sending.id, sending.floor, sending.after);
                life.verdicts.insert(token, (from, id, attempt, sending));
                let arrived = Arrived { source: node_id(from), id, floor, after };
                life.inbox.arrived(token, arrived, &mut life.out);
            }
            Event::Verdict { id, attempt, verdict } => life.answered(now, id, attempt, verdict),
            Event::Overdue { id, attempt } => life.answered(now, id, attempt, Verdict::Unreachable),
            Event::Crash | Event::Start => unreachable!("these are done"),
        }
        self.perform(node, &mut life);
        let deadlines = [life.outbox.next_deadline(now), life.keys.next_deadline(now)];
        if let Some(due) = deadlines.into_iter().flatten().min() {
            let wait = due.since(now.mono).as_millis() as u64;
            if wait < 1_000 {
                self.after(wait.max(1), node, Event::Tick);
            }
        }
        self.nodes[node].life = Some(life);
    }

    fn tell(&mut self, node: usize, life: &mut Life) {
        let (number, letter) = self.letter(node);
        let token = life.token();
        life.tells.insert(token, number);
        life.outbox.tell(self.now(), token, letter, &mut life.out);
    }

    fn letter(&mut self, node: usize) -> (u64, Letter) {
        self.last_number += 1;
        let number = self.last_number;
        let (to, actor) = (self.rng.below(NODES as u64) as usize, self.rng.below(ACTORS));
        let stream = self.rng.below(STREAMS);
        let told = Told { from: node, actor, stream, taken: false, died: false };
        self.known.letters.insert(number, told);
        let letter = Letter {
            to: node_id(to),
            target: format!("test/{actor}"),
            shown: format!("test#{actor}"),
            stream: stream.to_string(),
            name: "test.Append".to_owned(),
            class: DataClass::control(),
            body: number.to_be_bytes().to_vec(),
            key: None,
            within_ms: 5_000,
            written: self.now().hybrid,
        };
        (number, letter)
    }

    fn ask(&mut self, life: &mut Life, number: usize) {
        let ask = &self.known.asks[number];
        let (mut key, mut body) = ([0; 32], [0; 32]);
        key[..8].copy_from_slice(&ask.key.to_be_bytes());
        body[0] = ask.body;
        let asked = Asked {
            key: Key(key),
            body,
            scope: Scope::default(),
            actors: "t".into(),
            name: "test.Run".to_owned(),
        };
        let token = life.token();
        life.asks.insert(token, number);
        let now = self.now();
        life.keys.asked(now, token, asked, &mut life.out);
    }

    /// The handler of a letter or an ask has come to its end.
    fn handled(&mut self, node: usize, life: &mut Life, token: Token) {
        let mut writes = Batch::new();
        let mut append = |actor: String, number: u64| {
            let key = rows::actor_key(&actor, b"list");
            let mut row = life.store.get(FAMILY, &key).expect("a sound disk").unwrap_or_default();
            row.extend(number.to_be_bytes());
            writes.put(FAMILY, key, row);
        };
        let fails = self.faults && self.rng.chance(0.15);
        match life.work.remove(&token).expect("it was begun") {
            Work::Letter { source, id, letter, actor } => {
                let outcome = match letter {
                    _ if is_refused(letter) => Err(Verdict::Never("unknown".to_owned())),
                    _ if is_poison(letter) => Err(Verdict::Failed("panicked".to_owned())),
                    _ if fails => Err(Verdict::Busy(None)),
                    _ => {
                        append(format!("test/{actor}"), letter);
                        Ok(())
                    }
                };
                if outcome.is_ok() && self.rng.chance(0.2) {
                    let (number, enclosed) = self.letter(node);
                    self.known.enclosed.entry(letter).or_default().push(number);
                    life.outbox.enclose(vec![enclosed], &mut writes);
                }
                life.inbox.ended(&source, id, outcome, writes, &mut life.out);
                life.outbox.begin(self.now(), &mut life.out);
            }
            Work::Ask { key, run } => {
                let outcome = if fails {
                    Err(Fault::ran(FaultKind::Panicked("test.Run".to_owned())))
                } else {
                    append(format!("key/{key}"), run);
                    let body = run.to_be_bytes().to_vec();
                    Ok(Stored { class: DataClass::control(), guarantee: Guarantee::STRONGEST, body })
                };
                let ended = Ended { outcome, may_keep: true, writes };
                life.keys.ended(self.now(), token, ended, &mut life.out);
            }
        }
    }

    fn perform(&mut self, node: usize, life: &mut Life) {
        let mut released = Vec::new();
        life.barrier.absorb(&mut life.out, |release| released.push(release));
        for release in released {
            match release {
                Release::Persist(ticket, batch) => {
                    life.store.write(&batch).expect("the disk is sound");
                    life.written = Some(ticket);
                }
                Release::Perform(effect) => self.does(node, life, effect),
            }
        }
        if life.written.is_some() && !life.syncing {
            life.syncing = true;
            let wait = 1 + self.rng.below(20);
            self.after(wait, node, Event::Sync);
        }
    }

    fn sync(&mut self, node: usize, life: &mut Life) {
        life.store.sync().expect("the disk is sound");
        life.syncing = false;
        let mut done = Vec::new();
        if let Some(ticket) = life.written.take() {
            life.barrier.durable(ticket, |effect| done.push(effect));
        }
        done.into_iter().for_each(|effect| self.does(node, life, effect));
    }

    fn does(&mut self, node: usize, life: &mut Life, effect: Effect) {
        match effect {
            Effect::Run(token) => {
                let ask = &self.known.asks[life.asks[&token]];
                let (key, body) = (ask.key, ask.body);
                if life
                    .work
                    .values()
                    .any(|work| matches!(work, Work::Ask { key: other, .. } if *other == key))
                {
                    self.breaks(format!("key {key} runs twice at a time"));
                }
                self.last_number += 1;
                self.known.runs.insert(self.last_number, body);
                life.work.insert(token, Work::Ask { key, run: self.last_number });
                self.handles(node, token);
            }
            Effect::Reply(token, stored) => self.replied(life.asks[&token], numbers(&stored.body)[0]),
            Effect::Fault(token, fault) => {
                if let Some(number) = life.asks.get(&token) {
                    // Another message under this key: that is an answer.
                    self.known.asks[*number].answered |= matches!(fault.kind, FaultKind::KeyReused(_));
                }
            }
            Effect::Taken(token) => {
                let number = life.tells[&token];
                self.known.letters.get_mut(&number).expect("it was told").taken = true;
            }
            Effect::Send(sending) => self.send(node, life, sending),
            Effect::Deliver(source, id, token) => {
                let (.., sending) = &life.verdicts[&token];
                let letter = numbers(&sending.letter.body)[0];
                let actor = self.known.letters[&letter].actor;
                life.work.insert(token, Work::Letter { source, id, letter, actor });
                self.handles(node, token);
            }
            Effect::Answer(token, verdict) => {
                let (from, id, attempt, _) = life.verdicts[&token].clone();
                self.post(from, |_| Event::Verdict { id, attempt, verdict: verdict.clone() });
            }
            Effect::Died(_, dead) => {
                let number = numbers(&dead.letter.body)[0];
                self.known.letters.get_mut(&number).expect("it was told").died = true;
                if !is_refused(number) && !is_poison(number) {
                    self.breaks(format!("letter {number} was given up without a reason: {}", dead.reason));
                }
            }
            Effect::NoRoom(id) => self.breaks(format!("there is no room for the dead letter {id}")),
        }
    }

    fn handles(&mut self, node: usize, token: Token) {
        let wait = 1 + self.rng.below(60);
        self.after(wait, node, Event::Handled(token));
    }

    fn send(&mut self, node: usize, life: &mut Life, sending: Sending) {
        let (id, to) = (sending.id, number_of(&sending.letter.to));
        let attempt = life.attempts.entry(id).or_default();
        *attempt += 1;
        let attempt = *attempt;
        self.after(PATIENCE_MS, node, Event::Overdue { id, attempt });
        self.post(to, |_| Event::Arrives { from: node, sending: sending.clone(), attempt });
    }

    fn replied(&mut self, number: usize, run: u64) {
        let Ask { key, body, .. } = self.known.asks[number];
        self.known.asks[number].answered = true;
        if self.known.runs[&run] != body {
            self.breaks(format!("key {key} was given the answer to another message"));
        }
        let first = *self.known.answers.entry(key).or_insert(run);
        if first != run {
            self.breaks(format!("key {key} was answered {first}, and then {run}"));
        }
    }

    /// Carries something to a node, or not, or twice.
    fn post(&mut self, to: usize, event: impl Fn(usize) -> Event) {
        let lost = self.faults && self.rng.chance(0.1);
        let twice = self.faults && self.rng.chance(0.1);
        for copy in 0..usize::from(!lost) + usize::from(twice) {
            let wait = 5 + self.rng.below(if self.faults { 150 } else { 20 });
            self.after(wait, to, event(copy));
        }
    }

    fn crash(&mut self, node: usize) {
        let place = &mut self.nodes[node];
        if place.life.take().is_none() {
            return;
        }
        place.number += 1;
        let mut rng = Seed::new(self.order).child("crash").rng();
        place.memory.crash(&mut rng);
        let wait = self.rng.below(300);
        self.after(wait, node, Event::Start);
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].number += 1;
        let epoch = Incarnation(EPOCH_MS + self.now_ms + self.nodes[node].number);
        let store = Store::open(MemoryEngine::open(&self.nodes[node].memory)).expect("the disk is sound");
        let (mut keys, mut letters, mut dead, mut inbox) = (vec![], vec![], vec![], Inbox::default());
        let taken_up = store.scan(FAMILY, b"", |key, value| {
            match rows::read(key, value).expect("what was written is read") {
                Some(Row::Key(key, row)) => keys.push((key, row)),
                Some(Row::Letter(id, letter)) => letters.push((id, letter)),
                Some(Row::Dead(id, letter)) => dead.push((id, letter)),
                Some(Row::Settled(source, id)) => inbox.recover_settled(source, id),
                Some(Row::Floor(source, floor)) => inbox.recover_floor(source, floor),
                None => {}
            }
            true
        });
        taken_up.expect("the disk is sound");
        // The queue of dead letters may say what its alarm had no time to.
        for (_, dead) in &dead {
            let number = numbers(&dead.letter.body)[0];
            self.known.letters.get_mut(&number).expect("it was told").died = true;
        }
        let mut life = Life {
            store,
            keys: KeyTable::recover(settings(), keys),
            inbox,
            outbox: Outbox::recover(settings(), epoch, letters, dead),
            out: Out::default(),
            barrier: Barrier::default(),
            written: None,
            syncing: false,
            last_token: 0,
            tells: BTreeMap::new(),
            asks: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            attempts: BTreeMap::new(),
            work: BTreeMap::new(),
        };
        life.outbox.begin(self.now(), &mut life.out);
        self.perform(node, &mut life);
        self.nodes[node].life = Some(life);
    }

    fn breaks(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}

impl Life {
    fn token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    /// A verdict, or that none came in time: the first of both counts.
    fn answered(&mut self, now: Now, id: LetterId, attempt: u64, verdict: Verdict) {
        if self.attempts.get(&id) == Some(&attempt) {
            *self.attempts.get_mut(&id).expect("it was found") += 1_000_000;
            self.outbox.answered(now, id, verdict, &mut self.out);
        }
    }
}
