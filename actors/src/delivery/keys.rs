//! The idempotency table of one node: what was asked under a key, and how it was answered.
//!
//! Kept: the SHA-256 of who asked whom for what under which key, that of the message, and the answer. Keys and
//! messages themselves are not.
//!
//! * A key that is new runs. While it runs, whoever asks the same waits for the same answer.
//! * An answer is kept, in one batch with what its handler wrote, and given when that is durable. Whoever asks the
//!   same again gets it. An answer that may not be kept, or finds no room, leaves a mark: the key does not run again.
//! * Another message under the same key is refused.
//! * A run without an answer (refused, panicked, cut by its deadline) leaves nothing: the key is free again.
//! * Full is full: a new key is refused, and told when there may be room. Nothing is forgotten before its time.
//! * Actors of one type that hang leave half of the places to run to the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{DataClass, Fault, FaultKind, Guarantee, HybridTime, Mono, Now};
use rhumb_storage::Batch;
use serde::{Deserialize, Serialize};

use super::settings::DeliverySettings;
use super::{Effect, Out, Token, rows};

/// How many may wait for one key that runs.
pub const MAX_WAITING: usize = 16;
/// Keys that may run at one time.
pub const MAX_RUNNING: usize = 4_096;
/// A program may have one in so many of the keys, bytes and places to run: alone it cannot fill the table for the
/// others. As many programs together can, and nodes have no share: what they ask under keys is their programs' business.
const SHARE: usize = 4;
/// Keys that may run at one time at actors of one type: those of others still run where these hang.
pub const MAX_RUNNING_OF_A_TYPE: usize = MAX_RUNNING / 2;
/// What an entry costs besides its answer.
const ENTRY_BYTES: usize = 160;
/// Keys that one tick forgets.
const FORGOTTEN_AT_ONCE: usize = 1_024;
/// When to come again where what runs takes all places: each is free again when it ends.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The SHA-256 of caller, actor, message name and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(pub [u8; 32]);

/// Whose keys they are: those of nodes (empty) are one scope, each program has its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope(pub String);

impl Scope {
    fn is_nodes(&self) -> bool {
        self.0.is_empty()
    }
}

/// An ask with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The key.
    pub key: Key,
    /// The SHA-256 of class and message.
    pub body: [u8; 32],
    /// Whose it is.
    pub scope: Scope,
    /// The type of the actor that is asked.
    pub actors: String,
    /// The stable name of the message, for what is refused.
    pub name: String,
}

/// An answer, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its class.
    pub class: DataClass,
    /// What it rests on.
    pub guarantee: Guarantee,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// How a run ended: with an answer that may be kept here or not, or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The answer, or what happened instead.
    pub outcome: Result<Stored, Fault>,
    /// Whether the policy lets data of the answer's class be held here.
    pub may_keep: bool,
    /// What the handler wrote.
    pub writes: Batch,
}

/// An answered key on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    body: [u8; 32],
    scope: Scope,
    answered: HybridTime,
    /// None: it was answered, and the answer was not kept.
    stored: Option<Arc<Stored>>,
}

impl KeyRow {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.scope.0.len() + self.stored.as_ref().map_or(0, |stored| stored.body.len())
    }
}

#[derive(Debug)]
enum Entry {
    Running { body: [u8; 32], scope: Scope, actors: String, waiting: Vec<Token> },
    Answered(KeyRow),
}

#[derive(Debug, Default, Clone, Copy)]
struct Used {
    keys: usize,
    bytes: usize,
}

/// The idempotency table of one node.
#[derive(Debug)]
pub struct KeyTable {
    settings: DeliverySettings,
    entries: BTreeMap<Key, Entry>,
    /// Which key a token runs.
    running: BTreeMap<Token, Key>,
    /// How many of them are whose.
    running_of: BTreeMap<Scope, usize>,
    /// How many of them run at actors of which type.
    running_at: BTreeMap<String, usize>,
    by_age: BTreeSet<(HybridTime, Key)>,
    /// The same, of each program.
    by_age_of: BTreeMap<Scope, BTreeSet<(HybridTime, Key)>>,
    used: Used,
    by_scope: BTreeMap<Scope, Used>,
}

impl KeyTable {
    /// The table that these rows leave.
    #[must_use]
    pub fn recover(settings: DeliverySettings, rows: impl IntoIterator<Item = (Key, KeyRow)>) -> Self {
        let mut table = Self {
            settings,
            entries: BTreeMap::new(),
            running: BTreeMap::new(),
            running_of: BTreeMap::new(),
            running_at: BTreeMap::new(),
            by_age: BTreeSet::new(),
            by_age_of: BTreeMap::new(),
            used: Used::default(),
            by_scope: BTreeMap::new(),
        };
        for (key, row) in rows {
            table.count(&row.scope.clone(), 1, row.bytes() as isize);
            table.ages(&row.scope, (row.answered, key));
            table.entries.insert(key, Entry::Answered(row));
        }
        table
    }

    /// Somebody asks under a key. `token` is who waits, and the run's if it runs.
    pub fn asked(&mut self, now: Now, token: Token, asked: Asked, out: &mut Out) {
        let refuse = |fault, out: &mut Out| out.send(Effect::Fault(token, fault));
        let Some(entry) = self.entries.get_mut(&asked.key) else {
            return match self.room(now, &asked) {
                Ok(()) => self.run(token, asked, out),
                Err(full) => refuse(full, out),
            };
        };
        let body = match entry {
            Entry::Running { body, .. } | Entry::Answered(KeyRow { body, .. }) => *body,
        };
        if body != asked.body && !canary::sings(Canary::OtherBodyAnswered) {
            return refuse(Fault::not_sent(FaultKind::KeyReused(asked.name)), out);
        }
        match entry {
            Entry::Answered(KeyRow { stored: Some(stored), .. }) => {
                out.send(Effect::Reply(token, Arc::clone(stored)));
            }
            Entry::Answered(_) => refuse(Fault::ran(FaultKind::NotKept(asked.name)), out),
            Entry::Running { .. } if canary::sings(Canary::RunningKeyRunsAgain) => {
                self.run(token, asked, out)
            }
            Entry::Running { waiting, .. } if waiting.len() < MAX_WAITING => waiting.push(token),
            Entry::Running { .. } => {
                let full = Fault::not_sent(FaultKind::Full("the list of who waits for one key".to_owned()));
                refuse(Fault { retry_after: Some(RETRY_AFTER), ..full }, out);
            }
        }
    }

    /// A run has ended. Gives nothing where the token is of none.
    pub fn ended(&mut self, now: Now, token: Token, ended: Ended, out: &mut Out) {
        let Some(key) = self.running.remove(&token) else { return };
        let Some(Entry::Running { body, scope, actors, waiting }) = self.entries.remove(&key) else { return };
        self.count(&scope, -1, -(ENTRY_BYTES as isize));
        ends_one(&mut self.running_of, &scope);
        ends_one(&mut self.running_at, &actors);
        let all = std::iter::once(token).chain(waiting);
        let stored = match ended.outcome {
            Ok(stored) => Arc::new(stored),
            Err(fault) => return all.for_each(|token| out.send(Effect::Fault(token, fault.clone()))),
        };
        let kept = ended.may_keep && self.fits(&scope, ENTRY_BYTES + scope.0.len() + stored.body.len());
        let row = KeyRow { body, scope, answered: now.hybrid, stored: kept.then(|| Arc::clone(&stored)) };
        if canary::sings(Canary::KeyAnsweredBeforeDurable) {
            out.send_at_once(Effect::Reply(token, Arc::clone(&stored)));
        }
        let mut batch = ended.writes;
        rows::put_key(&mut batch, key, &row);
        out.persist(batch);
        self.count(&row.scope.clone(), 1, row.bytes() as isize);
        self.ages(&row.scope.clone(), (row.answered, key));
        self.entries.insert(key, Entry::Answered(row));
        all.for_each(|token| out.send(Effect::Reply(token, Arc::clone(&stored))));
    }

    /// Forgets what is older than the retention.
    pub fn tick(&mut self, now: Now, out: &mut Out) {
        let mut batch = Batch::new();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let old = self.by_age.first().copied();
            let Some((answered, key)) = old.filter(|(at, _)| self.ends(*at) <= now.hybrid) else { break };
            self.by_age.remove(&(answered, key));
            if let Some(Entry::Answered(row)) = self.entries.remove(&key) {
                self.count(&row.scope, -1, -(row.bytes() as isize));
                if let Some(own) = self.by_age_of.get_mut(&row.scope) {
                    own.remove(&(answered, key));
                    if own.is_empty() {
                        self.by_age_of.remove(&row.scope);
                    }
                }
            }
            rows::delete_key(&mut batch, key);
        }
        if !batch.is_empty() {
            out.persist(batch);
        }
    }

    /// When there is something to forget.
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Mono> {
        let (answered, _) = self.by_age.first()?;
        let wait = self.ends(*answered).millis().saturating_sub(now.hybrid.millis());
        Some(now.mono.plus(Duration::from_millis(wait)))
    }

    /// Keys that are kept or run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.keys
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.keys == 0
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.used.bytes
    }

    fn run(&mut self, token: Token, asked: Asked, out: &mut Out) {
        let Asked { key, body, scope, actors, .. } = asked;
        self.running.insert(token, key);
        *self.running_of.entry(scope.clone()).or_default() += 1;
        *self.running_at.entry(actors.clone()).or_default() += 1;
        self.count(&scope, 1, ENTRY_BYTES as isize);
        self.entries.insert(key, Entry::Running { body, scope, actors, waiting: Vec::new() });
        // That it begins tells nothing of what is kept.
        out.send_at_once(Effect::Run(token));
    }

    fn ages(&mut self, scope: &Scope, age: (HybridTime, Key)) {
        self.by_age.insert(age);
        if !scope.is_nodes() {
            self.by_age_of.entry(scope.clone()).or_default().insert(age);
        }
    }

    fn room(&self, now: Now, asked: &Asked) -> Result<(), Fault> {
        let full = |what: &str, wait| {
            let full = Fault::not_sent(FaultKind::Full(what.to_owned()));
            Err(Fault { retry_after: Some(wait), ..full })
        };
        // The first that is forgotten makes room. Of those that run most will be answered, and kept.
        let forgets = |of: Option<&BTreeSet<(HybridTime, Key)>>| {
            let oldest = of.and_then(BTreeSet::first);
            let wait = oldest.map(|(at, _)| self.ends(*at).millis().saturating_sub(now.hybrid.millis()));
            wait.map_or(RETRY_AFTER, Duration::from_millis).max(RETRY_AFTER)
        };
        if self.used.keys >= self.settings.keys {
            return full("the idempotency table", forgets(Some(&self.by_age)));
        }
        if self.running.len() >= MAX_RUNNING {
            return full("the list of keys that run", RETRY_AFTER);
        }
        if self.running_at.get(&asked.actors).is_some_and(|running| *running >= MAX_RUNNING_OF_A_TYPE) {
            return full("this actor type's share of the keys that run", RETRY_AFTER);
        }
        if asked.scope.is_nodes() {
            return Ok(());
        }
        let what = "this program's share of the idempotency table";
        let own = self.by_scope.get(&asked.scope).copied().unwrap_or_default();
        if own.keys >= (self.settings.keys / SHARE).max(1) {
            return full(what, forgets(self.by_age_of.get(&asked.scope)));
        }
        if self.running_of.get(&asked.scope).is_some_and(|running| *running >= MAX_RUNNING / SHARE) {
            return full(what, RETRY_AFTER);
        }
        Ok(())
    }

    /// Whether an answer may be kept that costs so many bytes.
    fn fits(&self, scope: &Scope, bytes: usize) -> bool {
        let (all, own) = (self.used, self.by_scope.get(scope).copied().unwrap_or_default());
        let limit = self.settings.key_bytes;
        let share = if scope.is_nodes() { limit } else { limit / SHARE };
        all.bytes + bytes <= limit && own.bytes + bytes <= share
    }

    fn ends(&self, answered: HybridTime) -> HybridTime {
        answered.plus(self.settings.keys_kept)
    }

    fn count(&mut self, scope: &Scope, keys: isize, bytes: isize) {
        let own = self.by_scope.entry(scope.clone()).or_default();
        for used in [&mut self.used, own] {
            used.keys = used.keys.checked_add_signed(keys).expect("what is counted out was counted in");
            used.bytes = used.bytes.checked_add_signed(bytes).expect("what is counted out was counted in");
        }
        if self.by_scope[scope].keys == 0 {
            self.by_scope.remove(scope);
        }
    }
}

/// One less runs.
fn ends_one<K: Ord>(running: &mut BTreeMap<K, usize>, of: &K) {
    if let Some(count) = running.get_mut(of) {
        *count -= 1;
        if *count == 0 {
            running.remove(of);
        }
    }
}
