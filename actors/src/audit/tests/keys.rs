//! The keys of subjects on a disk that crashes, of which somebody keeps a copy after every sync.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::effects::{Effects, Release};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, Ticket};
use rhumb_storage::memory::Tear;
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};

use crate::audit::keys::{Effect, Fresh, KeyRows, Keys, NoKey, Token};
use crate::audit::seal::{KeyId, SecretKey, WrappedBy, open, seal, unwrap, wrapped_by};

const JURISDICTIONS: [&str; 2] = ["eu", "us"];
const SUBJECTS: u64 = 12;

type Who = (&'static str, String);

/// One life of the node.
struct Life {
    store: Store<MemoryEngine>,
    keys: Keys,
    out: Effects<Batch, Effect>,
    barrier: Barrier<Effect>,
    written: Option<Ticket>,
    /// Work that the shell has been given and not done yet.
    work: Vec<Effect>,
}

struct World {
    rng: Rng,
    memory: MemoryDisk,
    life: Option<Life>,
    /// Files of wrapping keys: what is made or destroyed is so for good.
    files: BTreeMap<WrappedBy, SecretKey>,
    made: u64,
    /// Every row of a key that ever came to a disk, whatever became of it.
    copies: BTreeSet<(KeyId, Vec<u8>)>,
    /// What seals for somebody, once that is durable.
    known: BTreeMap<Who, (KeyId, SecretKey)>,
    /// Keys given out whose rows are not durable yet.
    given: Vec<(Who, (KeyId, SecretKey))>,
    wishes: BTreeMap<Token, (Who, Vec<KeyId>)>,
    erased: BTreeSet<KeyId>,
    /// Keys that were brought, until it is told that they are kept.
    brought: BTreeMap<Token, (Who, (KeyId, SecretKey))>,
    tokens: u64,
}

fn rows(store: &Store<MemoryEngine>) -> KeyRows {
    let read = |letter: &[u8]| {
        let mut rows = Vec::new();
        store
            .scan(Family::Audit, letter, |key, value| {
                rows.push((key[1..].to_vec(), value.to_vec()));
                true
            })
            .expect("the disk is sound");
        rows
    };
    KeyRows { keys: read(b"k"), turns: read(b"g") }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: Seed::new(seed).child("keys").rng(),
            memory: MemoryDisk::tearing(Tear::LoseAll),
            life: None,
            files: BTreeMap::new(),
            made: 0,
            copies: BTreeSet::new(),
            known: BTreeMap::new(),
            given: Vec::new(),
            wishes: BTreeMap::new(),
            brought: BTreeMap::new(),
            erased: BTreeSet::new(),
            tokens: 0,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let store = Store::open(MemoryEngine::open(&self.memory)).expect("the disk is sound");
        let files = self.files.iter().map(|(by, key)| (by.clone(), key.clone()));
        let keys = Keys::recover(100, &rows(&store), files).expect("the rows are sound");
        let (out, barrier) = (Effects::default(), Barrier::default());
        let mut life = Life { store, keys, out, barrier, written: None, work: Vec::new() };
        for jurisdiction in JURISDICTIONS {
            life.keys.begin(jurisdiction, &mut life.out);
        }
        self.life = Some(life);
        self.perform();
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("it runs")
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.rng.u64().to_be_bytes()));
        bytes
    }

    fn somebody(&mut self) -> Who {
        let jurisdiction = *self.rng.pick(&JURISDICTIONS).expect("some");
        (jurisdiction, format!("customer {}", self.rng.below(SUBJECTS)))
    }

    fn act(&mut self) -> Result<(), String> {
        match self.rng.below(10) {
            0..3 => self.of(),
            3 => self.bring(),
            4 => self.erase(),
            5..7 => self.work(),
            7..9 => self.sync()?,
            _ if self.rng.chance(0.2) => self.crash(),
            _ => {}
        }
        self.perform();
        Ok(())
    }

    fn of(&mut self) {
        let who = self.somebody();
        let id = KeyId(self.bytes()[..16].try_into().expect("16 bytes"));
        let fresh = Fresh { id, key: SecretKey::new(self.bytes()) };
        let life = self.life();
        match life.keys.of(who.0, &who.1, fresh, &mut life.out) {
            Ok(key) => self.given.push((who, key)),
            Err(NoKey::NoWrappingKey(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// A key that another node has drawn, under a name that only it has.
    fn bring(&mut self) {
        let id = KeyId(self.bytes()[..16].try_into().expect("16 bytes"));
        let fresh = Fresh { id, key: SecretKey::new(self.bytes()) };
        self.tokens += 1;
        let (token, who) = (Token(self.tokens), (JURISDICTIONS[0], format!("customer of key {id}")));
        let brought = (who.clone(), (id, fresh.key.clone()));
        let life = self.life();
        match life.keys.keep(token, who.0, &who.1, fresh, &mut life.out) {
            Ok(()) => drop(self.brought.insert(token, brought)),
            Err(NoKey::NoWrappingKey(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// It is told that a key is kept: from now on it is, whatever happens.
    fn kept(&mut self, token: Token) {
        let (who, key) = self.brought.remove(&token).expect("told once");
        self.known.insert(who, key);
    }

    fn erase(&mut self) {
        let kept: Vec<Who> =
            self.known.keys().filter(|(_, name)| name.starts_with("customer of key")).cloned().collect();
        let who = match self.rng.chance(0.3) {
            true => self.rng.pick(&kept).cloned().unwrap_or_else(|| self.somebody()),
            false => self.somebody(),
        };
        self.tokens += 1;
        let token = Token(self.tokens);
        let of = |known: &(Who, (KeyId, SecretKey))| (known.0 == who).then_some(known.1.0);
        let mut ids: Vec<KeyId> = self.given.iter().filter_map(of).collect();
        ids.extend(self.known.remove(&who).map(|(id, _)| id));
        // Whoever was wished away before, and not told yet, is wished away again.
        let before = self.wishes.values().filter(|(whom, _)| *whom == who).flat_map(|(_, ids)| ids.clone());
        ids.extend(before.collect::<Vec<_>>());
        self.given.retain(|(whom, _)| *whom != who);
        self.wishes.insert(token, (who.clone(), ids));
        let life = self.life();
        life.keys.erase(token, who.0, &who.1, &mut life.out);
    }

    /// The shell does one of the things that it was given to do.
    fn work(&mut self) {
        let pending = self.life().work.len() as u64;
        if pending == 0 {
            return;
        }
        let one = self.rng.below(pending) as usize;
        match self.life().work.remove(one) {
            Effect::Make(by) => {
                self.made += 1;
                let fresh = SecretKey::new(self.bytes());
                let key = self.files.entry(by.clone()).or_insert(fresh).clone();
                let life = self.life();
                life.keys.made(&by, key, &mut life.out);
            }
            Effect::Destroy(by) => {
                self.files.remove(&by);
                let life = self.life();
                life.keys.destroyed(&by, &mut life.out);
            }
            Effect::Erased { .. } | Effect::Kept { .. } => unreachable!("that is told, not done"),
        }
    }

    fn perform(&mut self) {
        let life = self.life();
        for jurisdiction in JURISDICTIONS {
            while life.keys.step(jurisdiction, &mut life.out) {}
        }
        let mut releases = Vec::new();
        life.barrier.absorb(&mut life.out, |release| releases.push(release));
        for release in releases {
            match release {
                Release::Persist(ticket, batch) => {
                    let life = self.life();
                    life.store.write(&batch).expect("the disk is sound");
                    life.written = Some(ticket);
                    let keys = rows(&life.store).keys;
                    let id = |bytes: Vec<u8>| KeyId(bytes.try_into().expect("an id"));
                    self.copies.extend(keys.into_iter().map(|(key, value)| (id(key), value)));
                }
                Release::Perform(effect) => self.performed(effect),
            }
        }
    }

    fn performed(&mut self, effect: Effect) {
        match effect {
            Effect::Erased { token } => {
                let (_, ids) = self.wishes.remove(&token).expect("told once");
                self.erased.extend(ids);
            }
            Effect::Kept { token } => self.kept(token),
            work => self.life().work.push(work),
        }
    }

    fn sync(&mut self) -> Result<(), String> {
        let life = self.life();
        life.store.sync().expect("the disk is sound");
        let mut done = Vec::new();
        if let Some(ticket) = life.written.take() {
            life.barrier.durable(ticket, |effect| done.push(effect));
        }
        self.known.extend(std::mem::take(&mut self.given));
        done.into_iter().for_each(|effect| self.performed(effect));
        self.check()
    }

    fn crash(&mut self) {
        self.life = None;
        let mut rng = Seed::new(self.rng.u64()).rng();
        self.memory.crash(&mut rng);
        // Who was not told may be erased or not, and asks again.
        self.given.clear();
        self.brought.clear();
        self.start();
        let lost: Vec<Who> = std::mem::take(&mut self.wishes).into_values().map(|(who, _)| who).collect();
        for who in lost {
            self.known.remove(&who);
        }
    }

    fn check(&mut self) -> Result<(), String> {
        for (id, wrapped) in &self.copies {
            let by = wrapped_by(wrapped).expect("it was wrapped");
            if self.erased.contains(id)
                && self.files.get(&by).is_some_and(|key| unwrap(key, *id, wrapped).is_ok())
            {
                return Err(format!("{id} was erased, and an old copy of the disk gives it: {by:?}"));
            }
        }
        let life = self.life.as_ref().expect("it runs");
        for ((jurisdiction, subject), (id, key)) in &self.known {
            if life.keys.id(jurisdiction, subject) != Some(*id) || life.keys.key(*id) != Some(key) {
                return Err(format!("the key of {subject} in {jurisdiction} is gone, and nobody erased it"));
            }
        }
        let lost = life.keys.lost();
        if lost.is_empty() { Ok(()) } else { Err(format!("keys cannot be unwrapped: {lost:?}")) }
    }
}

fn run(seed: u64) -> Result<(), String> {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.act()?;
    }
    for _ in 0..60 {
        world.work();
        world.perform();
        world.sync()?;
        world.perform();
    }
    world.crash();
    world.sync()?;
    match world.wishes.len() {
        0 => Ok(()),
        waiting => Err(format!("{waiting} who wished to be erased were never told")),
    }
}

fn seeds() -> u64 {
    super::seeds() * 4
}

#[test]
fn who_is_erased_is_in_no_copy_of_the_disk_and_nobody_else_is() {
    for seed in 0..seeds() {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn every_known_bug_of_the_keys_is_caught() {
    for &bug in Canary::OF_THE_AUDIT_KEYS {
        canary::let_out(Some(bug));
        let caught = (0..50).find_map(|seed| run(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
    }
}

#[test]
fn an_older_copy_of_the_disk_has_lost_its_keys_by_an_erasure_and_says_so() {
    let mut world = World::new(1);
    let settle = |world: &mut World| {
        for _ in 0..20 {
            world.work();
            world.perform();
            world.sync().expect("sound");
        }
    };
    settle(&mut world);
    let key = |world: &mut World, subject: &str| {
        let fresh = Fresh {
            id: KeyId(world.bytes()[..16].try_into().expect("16")),
            key: SecretKey::new(world.bytes()),
        };
        let life = world.life();
        life.keys.of("eu", subject, fresh, &mut life.out).expect("a key")
    };
    let (stays, goes) = (key(&mut world, "who stays"), key(&mut world, "who goes"));
    let record = b"bought a ticket";
    let bodies = [&stays, &goes].map(|(id, key)| seal(key, *id, &[5; 32], record));
    settle(&mut world);
    let copy = world.memory.snapshot();
    world.wishes.insert(Token(1), (("eu", "who goes".into()), vec![goes.0]));
    let life = world.life();
    life.keys.erase(Token(1), "eu", "who goes", &mut life.out);
    settle(&mut world);
    assert!(world.erased.contains(&goes.0));

    let opened = |world: &World, id: KeyId, which: usize| {
        let keys = &world.life.as_ref().expect("it runs").keys;
        keys.key(id).and_then(|key| open(key, &bodies[which].0, &bodies[which].1).ok()).is_some()
    };
    assert!(opened(&world, stays.0, 0) && !opened(&world, goes.0, 1));
    world.life = None;
    world.memory.restore(&copy);
    world.start();
    assert!(!opened(&world, stays.0, 0) && !opened(&world, goes.0, 1), "the copy's wrapping key is gone");
    let lost: Vec<KeyId> = world.life().keys.lost().keys().copied().collect();
    assert_eq!(lost, BTreeSet::from([stays.0, goes.0]).into_iter().collect::<Vec<_>>());
}
