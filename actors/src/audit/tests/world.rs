//! A simulated world of three nodes, each with a log and a log witness of the other two: a heap of timed
//! events, a network that loses, delays and duplicates, disks that forget what was not synced, and crashes at
//! any step. It knows what was acknowledged, signed and cosigned, and holds the machines to it.

mod pruned;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use rhumb_core::effects::{Effects, Release};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, HybridTime, Mono, Now, Ticket};
use rhumb_storage::memory::Tear;
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};
use rhumb_verify::hash::{Hash, sha256};
use rhumb_verify::note::{Algorithm, Key, Note, Signature, Signer};
use rhumb_verify::proof::prove_consistency;
use rhumb_verify::record::{Entry, commitment};
use rhumb_verify::{Checkpoint, Policy};
use ring::signature::Ed25519KeyPair;

use crate::audit::log::{self, Log, LogSettings, Token, root_of, tree};
use crate::audit::record::Salts;
use crate::audit::rows::{self, Rows, Unsound};
use crate::audit::witness::{self, AddCheckpoint, NotCosigned, Witness};

pub(super) use self::pruned::run_pruning;

const NODES: usize = 3;
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A store as the log reads it.
struct Disk(Store<MemoryEngine>);

impl Rows for Disk {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unsound> {
        self.0.get(Family::Audit, key).map_err(|fault| Unsound::Disk(fault.to_string()))
    }
}

impl Disk {
    fn notes(&self, letter: &[u8]) -> Vec<(String, String)> {
        let mut notes = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("notes are text");
        self.0
            .scan(Family::Audit, letter, |key, value| {
                notes.push((text(&key[1..]), text(value)));
                true
            })
            .expect("the disk is sound");
        notes
    }
}

/// One life of a node.
struct Life {
    disk: Disk,
    log: Log,
    witness: Witness,
    log_out: Effects<Batch, log::Effect>,
    witness_out: Effects<Batch, witness::Effect>,
    log_barrier: Barrier<log::Effect>,
    witness_barrier: Barrier<witness::Effect>,
    /// The last tickets written and not yet synced, of log and witness.
    written: (Option<Ticket>, Option<Ticket>),
    syncing: bool,
    salts: Salts,
}

struct Node {
    memory: MemoryDisk,
    /// Counts lives; an event of an earlier one is nobody's.
    number: u64,
    life: Option<Life>,
    blind: bool,
}

/// When something happens, in which order of what happens then, to which node in which of its lives, and
/// where the event itself lies.
type Due = (u64, u64, usize, u64, usize);

#[derive(Clone)]
enum Event {
    Append,
    Tick,
    /// Looks whether something is old enough to be pruned.
    Prune,
    Sync,
    Crash,
    Start,
    Signed(Signature),
    Asked {
        from: usize,
        asked: AddCheckpoint,
    },
    Answered {
        from: usize,
        text: String,
        answer: Result<Signature, NotCosigned>,
    },
}

/// What happened and must stay so.
#[derive(Default)]
struct Known {
    /// Entries that were acknowledged, by node and number.
    acknowledged: BTreeMap<(usize, u64), Vec<u8>>,
    /// Which entry a token is of.
    tokens: BTreeMap<Token, (usize, Vec<u8>)>,
    /// What acknowledged entries commit to.
    commitments: BTreeSet<Hash>,
    /// What was signed, by node.
    signed: BTreeSet<(usize, u64, Hash)>,
    /// What was cosigned, by witness and log.
    cosigned: BTreeMap<(usize, usize), Vec<(u64, Hash)>>,
    published: BTreeMap<usize, u64>,
    /// What is to be pruned when the entry is durable that says so.
    to_prune: BTreeMap<Token, Vec<Hash>>,
    /// From where on a log has its entries, by node.
    marks: BTreeMap<usize, u64>,
    alarms: BTreeSet<usize>,
    broken: BTreeSet<usize>,
}

pub(super) struct World {
    rng: Rng,
    now_ms: u64,
    order: u64,
    events: BinaryHeap<Reverse<Due>>,
    pending: Vec<Option<Event>>,
    nodes: Vec<Node>,
    known: Known,
    last_token: u64,
    faults: bool,
    /// How old entries are when they are pruned, where they are.
    retention: Option<Duration>,
    liar: Option<usize>,
    violation: Option<String>,
}

fn origin(node: usize) -> String {
    format!("mesh.example/audit/n{node}")
}

fn signer(node: usize, algorithm: Algorithm) -> Signer {
    let name = if algorithm == Algorithm::Ed25519 { origin(node) } else { format!("n{node}.example") };
    let pair = Ed25519KeyPair::from_seed_unchecked(&sha256(&[name.as_bytes()]).0).expect("32 bytes");
    Signer::new(&name, algorithm, pair)
}

fn key(node: usize, algorithm: Algorithm) -> Key {
    signer(node, algorithm).key().clone()
}

fn witness_of(name: &str) -> usize {
    (0..NODES).find(|node| name == format!("n{node}.example")).expect("a node")
}

fn others(node: usize) -> impl Iterator<Item = usize> {
    (0..NODES).filter(move |other| *other != node)
}

/// One of the two other nodes has to have cosigned.
fn policy(node: usize) -> Policy {
    let line = |other: usize| format!("witness w{other} {}\n", key(other, Algorithm::Cosignature));
    let witnesses: String = others(node).map(line).collect();
    let names: Vec<_> = others(node).map(|other| format!("w{other}")).collect();
    let log = key(node, Algorithm::Ed25519);
    let text = format!("log {log}\n{witnesses}group others any {}\nquorum others\n", names.join(" "));
    Policy::parse(&text).expect("a policy")
}

/// Lives, crashes, heals; with every third seed somebody rewrites its log then. `Err` says what was broken.
pub(super) fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(&Seed::new(seed));
    world.live(5_000);
    world.settle()?;
    if seed.is_multiple_of(3) {
        world.rewrite(seed as usize % NODES);
        world.live(1_000);
        world.settle_with_a_liar()?;
    }
    Ok(())
}

impl World {
    pub(super) fn new(seed: &Seed) -> Self {
        Self::of(seed, None)
    }

    /// A world whose logs are pruned of what is older than this.
    fn pruning(seed: &Seed, retention: Duration) -> Self {
        Self::of(seed, Some(retention))
    }

    fn of(seed: &Seed, retention: Option<Duration>) -> Self {
        let node =
            |_| Node { memory: MemoryDisk::tearing(Tear::LoseAll), number: 0, life: None, blind: false };
        let mut world = Self {
            rng: seed.child("audit world").rng(),
            now_ms: 0,
            order: 0,
            events: BinaryHeap::new(),
            pending: Vec::new(),
            nodes: (0..NODES).map(node).collect(),
            known: Known::default(),
            last_token: 0,
            faults: true,
            retention,
            liar: None,
            violation: None,
        };
        for node in 0..NODES {
            world.start(node);
        }
        world
    }

    /// Lets so many milliseconds pass, with entries, faults and crashes.
    pub(super) fn live(&mut self, ms: u64) {
        self.faults = true;
        let end = self.now_ms + ms;
        for node in 0..NODES {
            for _ in 0..ms / if self.retention.is_some() { 8 } else { 40 } {
                let at = self.rng.below(ms);
                self.after(at, node, Event::Append);
            }
            if self.liar.is_none() {
                for _ in 0..ms / 1_000 {
                    let at = self.rng.below(ms);
                    self.after(at, node, Event::Crash);
                }
            }
        }
        self.until(end);
    }

    /// Heals everything, and demands that all entries are published.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        let end = self.now_ms + 30_000;
        self.until(end);
        for node in 0..NODES {
            let Some(life) = &self.nodes[node].life else { break };
            let status = life.log.status();
            if status.published != status.entries || status.broken.is_some() {
                self.violation.get_or_insert(format!("n{node} has no progress: {status:?}"));
            }
            self.check(node);
        }
        self.violation.take().map_or(Ok(()), Err)
    }

    /// Whether somebody noticed.
    pub(super) fn settle_with_a_liar(&mut self) -> Result<(), String> {
        self.faults = false;
        let end = self.now_ms + 30_000;
        self.until(end);
        let liar = self.liar.expect("somebody lies");
        let noticed = self.known.alarms.contains(&liar) && self.known.broken.contains(&liar);
        let missed = || "nobody noticed".to_owned();
        self.violation.take().or_else(|| (!noticed).then(missed)).map_or(Ok(()), Err)
    }

    /// A node's operator changes an entry of the past, and everything that follows from it.
    pub(super) fn rewrite(&mut self, node: usize) {
        self.liar = Some(node);
        let life = self.nodes[node].life.take().expect("it runs");
        let size = life.log.status().entries;
        let entry = |index| life.disk.row(&rows::entry_key(index)).expect("sound").expect("there");
        let entries: Vec<_> = (0..size).map(entry).collect();
        let cosigned = life.disk.notes(b"w");
        self.nodes[node].memory = MemoryDisk::tearing(Tear::LoseAll);
        let store = Store::open(MemoryEngine::open(&self.nodes[node].memory)).expect("an empty disk");
        let mut edge = crate::audit::Edge::default();
        for (index, entry) in (0..).zip(&entries) {
            let mut entry = Entry::decode(entry).expect("an entry");
            if index == size / 2 {
                entry.commitment = commitment(&[9; 32], b"nothing happened here");
            }
            let bytes = entry.encode();
            let tiles = edge.push(rhumb_verify::hash::leaf(&bytes));
            let mut batch = Batch::new();
            rows::put_entry(&mut batch, index, &bytes, &[], &tiles);
            store.write(&batch).expect("the disk is sound");
        }
        for (origin, note) in cosigned {
            let mut batch = Batch::new();
            rows::put_note(&mut batch, rows::witnessed_key(&origin), &note);
            store.write(&batch).expect("the disk is sound");
        }
        store.sync().expect("the disk is sound");
        drop(store);
        self.known.acknowledged.retain(|(of, _), _| *of != node);
        self.known.signed.retain(|(of, ..)| *of != node);
        self.start(node);
    }

    /// All log witnesses but this node's cosign nothing any more.
    pub(super) fn blind_all_but(&mut self, honest: usize) {
        for (number, node) in self.nodes.iter_mut().enumerate() {
            node.blind = number != honest;
        }
    }

    fn now(&self) -> Now {
        let hybrid = HybridTime::new(EPOCH_MS + self.now_ms, 0);
        Now { hybrid, mono: Mono::millis(self.now_ms) }
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
            // What the world does to a node is not of one of its lives.
            let of_the_world =
                matches!(event, Event::Append | Event::Crash | Event::Start | Event::Asked { .. });
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
            _ => {}
        }
        let now = self.now();
        let Some(mut life) = self.nodes[node].life.take() else { return };
        match event {
            Event::Append => self.append(node, &mut life),
            Event::Tick => life.log.tick(now, &mut life.log_out),
            Event::Prune => self.look_for_old(node, &mut life),
            Event::Sync => self.sync(node, &mut life),
            Event::Signed(signature) => life.log.signed(now, signature, &mut life.log_out),
            Event::Asked { from, asked } => {
                let token = witness::Token(from as u64);
                life.witness.asked(now.hybrid, token, asked, &mut life.witness_out);
            }
            Event::Answered { from, text, answer } => {
                let name = key(from, Algorithm::Cosignature).name;
                life.log.answered(now, &name, &text, answer, &mut life.log_out);
            }
            Event::Crash | Event::Start => unreachable!("these are done"),
        }
        self.perform(node, &mut life);
        while !life.log_out.is_empty() {
            self.perform(node, &mut life);
        }
        if let Some(due) = life.log.next_deadline(self.now()) {
            let wait = due.since(self.now().mono).as_millis() as u64;
            self.after(wait.max(1), node, Event::Tick);
        }
        self.nodes[node].life = Some(life);
    }

    fn append(&mut self, node: usize, life: &mut Life) {
        self.last_token += 1;
        let token = Token(self.last_token);
        let salt = life.salts.draw();
        // Few records and many entries: what hides that two are alike is their salt.
        let record = format!("record {} of n{node}", self.last_token % 7);
        let commitment = commitment(&salt, record.as_bytes());
        let time = self.now().hybrid.to_bits();
        let entry = Entry { time, action: "test.act".to_owned(), commitment };
        self.known.tokens.insert(token, (node, entry.encode()));
        life.log.append(token, &entry, record.as_bytes(), &mut life.log_out);
    }

    fn perform(&mut self, node: usize, life: &mut Life) {
        let (mut log, mut witness) = (Vec::new(), Vec::new());
        life.log_barrier.absorb(&mut life.log_out, |release| log.push(release));
        life.witness_barrier.absorb(&mut life.witness_out, |release| witness.push(release));
        for release in log {
            match release {
                Release::Persist(ticket, batch) => {
                    life.disk.0.write(&batch).expect("the disk is sound");
                    life.written.0 = Some(ticket);
                }
                Release::Perform(effect) => self.does(node, life, effect),
            }
        }
        for release in witness {
            match release {
                Release::Persist(ticket, batch) => {
                    life.disk.0.write(&batch).expect("the disk is sound");
                    life.written.1 = Some(ticket);
                }
                Release::Perform(effect) => self.witnesses(node, effect),
            }
        }
        if life.written != (None, None) && !life.syncing {
            life.syncing = true;
            let wait = 1 + self.rng.below(20);
            self.after(wait, node, Event::Sync);
        }
    }

    fn sync(&mut self, node: usize, life: &mut Life) {
        life.disk.0.sync().expect("the disk is sound");
        life.syncing = false;
        let (log, witness) = std::mem::take(&mut life.written);
        let (mut done, mut seen) = (Vec::new(), Vec::new());
        if let Some(ticket) = log {
            life.log_barrier.durable(ticket, |effect| done.push(effect));
        }
        if let Some(ticket) = witness {
            life.witness_barrier.durable(ticket, |effect| seen.push(effect));
        }
        for effect in done {
            self.does(node, life, effect);
        }
        for effect in seen {
            self.witnesses(node, effect);
        }
    }

    /// What a log wants done.
    fn does(&mut self, node: usize, life: &mut Life, effect: log::Effect) {
        match effect {
            log::Effect::Appended { token, index } => {
                let (of, entry) = self.known.tokens.remove(&token).expect("acknowledged once");
                let commits_to = Entry::decode(&entry).expect("an entry").commitment;
                if !self.known.commitments.insert(commits_to) {
                    self.breaks(format!(
                        "two entries of n{of} commit to {commits_to:?}: who sees one knows the other"
                    ));
                }
                self.known.acknowledged.insert((of, index), entry);
                if let Some(old) = self.known.to_prune.remove(&token) {
                    life.log.prune(self.now(), &old, &mut life.log_out);
                }
            }
            log::Effect::Pruned { mark } => {
                self.known.marks.insert(node, mark);
                self.is_pruned_rightly(node, mark);
            }
            log::Effect::Sign { text } => {
                let signature = signer(node, Algorithm::Ed25519).sign(&text, 0);
                let said: Checkpoint = text.parse().expect("a checkpoint");
                self.known.signed.insert((node, said.size, said.root));
                let wait = self.rng.below(6);
                self.after(wait, node, Event::Signed(signature));
            }
            log::Effect::Ask { witness, old, size, note } => {
                let proof = prove_consistency(&mut tree(&life.disk, size), old.min(size), size);
                let asked = AddCheckpoint { old, proof: proof.expect("the disk is sound"), note };
                self.send(witness_of(&witness), Event::Asked { from: node, asked });
            }
            log::Effect::Published { note } => {
                let note = Note::parse(&note).expect("a note");
                let trusted = policy(node).trusts(&note);
                match trusted {
                    Ok(trusted) => drop(self.known.published.insert(node, trusted.checkpoint.size)),
                    Err(why) => self.breaks(format!("n{node} published what is not trusted: {why}")),
                }
            }
            log::Effect::Broken { why } => {
                self.known.broken.insert(node);
                if self.liar != Some(node) {
                    self.breaks(format!("n{node} gave up its log: {why}"));
                }
            }
        }
    }

    /// What a log witness wants done.
    fn witnesses(&mut self, node: usize, effect: witness::Effect) {
        let (to, text, answer) = match effect {
            witness::Effect::Cosign { token, text, at } => {
                if self.nodes[node].blind {
                    return;
                }
                let said: Checkpoint = text.parse().expect("a checkpoint");
                let log = token.0 as usize;
                self.known.cosigned.entry((node, log)).or_default().push((said.size, said.root));
                self.holds_one_history(node, log, &said);
                (log, text.clone(), Ok(signer(node, Algorithm::Cosignature).sign(&text, at)))
            }
            witness::Effect::Refuse { token, why } => {
                if self.nodes[node].blind {
                    return;
                }
                let log = token.0 as usize;
                let present = self.nodes[log].life.as_ref().and_then(|life| life.log.present());
                (log, present.unwrap_or_default(), Err(why))
            }
            witness::Effect::Alarm { origin: of, .. } => {
                let accused = (0..NODES).find(|node| origin(*node) == of).expect("a node");
                self.known.alarms.insert(accused);
                if self.liar != Some(accused) {
                    self.breaks(format!("n{node} accuses n{accused}, which is honest"));
                }
                return;
            }
        };
        self.send(to, Event::Answered { from: node, text, answer });
    }

    /// A liar's log has two histories: no witness may have cosigned beyond where they part in both.
    fn holds_one_history(&mut self, node: usize, log: usize, said: &Checkpoint) {
        let sizes = |given: &Vec<(u64, Hash)>| {
            given.iter().any(|(size, root)| *size == said.size && *root != said.root)
        };
        if self.known.cosigned.get(&(node, log)).is_some_and(sizes) {
            self.breaks(format!("n{node} cosigned two trees of {} entries of n{log}", said.size));
        }
        if self.liar == Some(log) {
            let before = self.known.cosigned[&(node, log)].len() > 1;
            if before {
                self.breaks(format!("n{node} cosigned a rewritten history of n{log}"));
            }
        }
    }

    fn send(&mut self, to: usize, event: Event) {
        let lost = self.faults && self.rng.chance(0.1);
        let twice = self.faults && self.rng.chance(0.1);
        for _ in 0..usize::from(!lost) + usize::from(twice) {
            let wait = 5 + self.rng.below(if self.faults { 200 } else { 20 });
            self.after(wait, to, event.clone());
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
        let store = Store::open(MemoryEngine::open(&self.nodes[node].memory)).expect("the disk is sound");
        let disk = Disk(store);
        let log = Log::recover(
            key(node, Algorithm::Ed25519),
            policy(node),
            others(node).map(|other| key(other, Algorithm::Cosignature)),
            LogSettings { retention: self.retention.unwrap_or(Duration::MAX), ..LogSettings::default() },
            &disk,
        );
        let witness = Witness::recover(
            others(node).map(|other| key(other, Algorithm::Ed25519)),
            disk.notes(b"w").into_iter().map(|(_, note)| note),
            disk.notes(b"x").into_iter().map(|(origin, _)| origin),
        );
        let (log, witness) = match (log, witness) {
            (Ok(log), Ok(witness)) => (log, witness),
            (log, witness) => {
                let why = (log.err(), witness.err());
                return self.breaks(format!("n{node} does not start: {why:?}"));
            }
        };
        self.nodes[node].life = Some(Life {
            disk,
            log,
            witness,
            log_out: Effects::default(),
            witness_out: Effects::default(),
            log_barrier: Barrier::default(),
            witness_barrier: Barrier::default(),
            written: (None, None),
            syncing: false,
            salts: Salts::new(Seed::new(self.rng.u64()).child("salts").rng()),
        });
        self.check(node);
        self.after(1, node, Event::Tick);
        if self.retention.is_some() {
            self.after(1, node, Event::Prune);
        }
    }

    /// Holds what a node's disk has to what was said of it.
    fn check(&mut self, node: usize) {
        let Some(life) = &self.nodes[node].life else { return };
        let mark = rows::mark(&life.disk).expect("the disk is sound");
        let lost = self.known.acknowledged.range((node, 0)..(node + 1, 0)).find(|((_, index), entry)| {
            let there = life.disk.row(&rows::entry_key(*index)).expect("the disk is sound");
            there.as_ref() != Some(*entry).filter(|_| *index >= mark)
        });
        let lost = lost.map(|((_, index), _)| format!("n{node} lost entry {index}, which was acknowledged"));
        let entries = life.log.status().entries;
        let undone = self.known.signed.range((node, 0, Hash([0; 32]))..(node + 1, 0, Hash([0; 32]))).find(
            |(_, size, root)| {
                *size > entries
                    || *size >= mark && root_of(&life.disk, *size).expect("the disk is sound") != *root
            },
        );
        let undone = undone.map(|(_, size, _)| format!("n{node} signed {size} entries that its log has not"));
        let remembered: BTreeMap<_, _> =
            life.witness.cosigned().map(|known| (known.origin.clone(), known.size)).collect();
        let forgot = others(node).find(|log| {
            let given =
                self.known.cosigned.get(&(node, *log)).into_iter().flatten().map(|(size, _)| *size).max();
            given.unwrap_or(0) > remembered.get(&origin(*log)).copied().unwrap_or(0)
        });
        let forgot = forgot.map(|log| format!("n{node} forgot what it cosigned of n{log}"));
        let back = self.known.marks.get(&node).is_some_and(|before| mark < *before);
        let back = back.then(|| format!("n{node} begins with entry {mark}, and began later"));
        let unsound = if mark > 0 { self.unsound(node, mark) } else { None };
        if let Some(broken) = lost.or(undone).or(forgot).or(back).or(unsound) {
            self.breaks(broken);
        }
        self.is_pruned_rightly(node, mark);
    }

    fn breaks(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }
}
