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
//! * Full is full: a new key is refused. Nothing is forgotten before its time.

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
/// A program may have one in so many of the keys and bytes: it cannot fill the table for the others.
const SHARE: usize = 4;
/// What an entry costs besides its answer.
const ENTRY_BYTES: usize = 160;
/// Keys that one tick forgets.
const FORGOTTEN_AT_ONCE: usize = 1_024;
/// When to come again to a table that is full.
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
    Running { body: [u8; 32], scope: Scope, waiting: Vec<Token> },
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
    by_age: BTreeSet<(HybridTime, Key)>,
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
            by_age: BTreeSet::new(),
            used: Used::default(),
            by_scope: BTreeMap::new(),
        };
        for (key, row) in rows {
            table.count(&row.scope.clone(), 1, row.bytes() as isize);
            table.by_age.insert((row.answered, key));
            table.entries.insert(key, Entry::Answered(row));
        }
        table
    }

    /// Somebody asks under a key. `token` is who waits, and the run's if it runs.
    pub fn asked(&mut self, token: Token, asked: Asked, out: &mut Out) {
        let refuse = |fault, out: &mut Out| out.send(Effect::Fault(token, fault));
        let Some(entry) = self.entries.get_mut(&asked.key) else {
            return match self.room(&asked.scope) {
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
        let Some(Entry::Running { body, scope, waiting }) = self.entries.remove(&key) else { return };
        self.count(&scope, -1, -(ENTRY_BYTES as isize));
        self.runs_no_more(&scope);
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
        self.by_age.insert((row.answered, key));
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
        let Asked { key, body, scope, .. } = asked;
        self.running.insert(token, key);
        *self.running_of.entry(scope.clone()).or_default() += 1;
        self.count(&scope, 1, ENTRY_BYTES as isize);
        self.entries.insert(key, Entry::Running { body, scope, waiting: Vec::new() });
        // That it begins tells nothing of what is kept.
        out.send_at_once(Effect::Run(token));
    }

    fn runs_no_more(&mut self, scope: &Scope) {
        if let Some(running) = self.running_of.get_mut(scope) {
            *running -= 1;
            if *running == 0 {
                self.running_of.remove(scope);
            }
        }
    }

    fn room(&self, scope: &Scope) -> Result<(), Fault> {
        let full = |what: &str| {
            let full = Fault::not_sent(FaultKind::Full(what.to_owned()));
            Err(Fault { retry_after: Some(RETRY_AFTER), ..full })
        };
        if self.used.keys >= self.settings.keys || self.running.len() >= MAX_RUNNING {
            return full("the idempotency table");
        }
        let own = self.by_scope.get(scope).copied().unwrap_or_default();
        let running = self.running_of.get(scope).copied().unwrap_or_default();
        let has_its_share = own.keys >= (self.settings.keys / SHARE).max(1) || running >= MAX_RUNNING / SHARE;
        if !scope.is_nodes() && has_its_share {
            return full("this program's share of the idempotency table");
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
