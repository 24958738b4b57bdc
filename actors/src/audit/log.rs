//! The machine of one node's audit log.

mod prune;

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::effects::Effects;
use rhumb_core::{Mono, Now};
use rhumb_storage::Batch;
use rhumb_verify::checkpoint::nonce_line;
use rhumb_verify::hash::{self, Hash};
use rhumb_verify::note::{Key, Note, Signature};
use rhumb_verify::proof::{self, Subtrees};
use rhumb_verify::record::Entry;
use rhumb_verify::tile::Tiled;
use rhumb_verify::{Checkpoint, Policy};

use super::edge::Edge;
use super::rows::{self, Rows, Unsound};
use super::witness::NotCosigned;

pub use prune::{Cosigned, MAX_PRUNED, Prunable};

/// Demands for a fresh checkpoint that one checkpoint answers.
pub const MAX_NONCES: usize = 16;
/// Seven years, with the two leap days that they may have.
const RETENTION: Duration = Duration::from_secs(2_557 * 24 * 3_600);

/// Who waits for an entry to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// How a log goes about its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// The time between two checkpoints while entries come.
    pub interval: Duration,
    /// The time after which a log witness that has not answered is asked again.
    pub ask_again: Duration,
    /// How old an entry is before it is pruned.
    pub retention: Duration,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), ask_again: Duration::from_secs(5), retention: RETENTION }
    }
}

/// What a log wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The entry is durable, under this number.
    Appended {
        /// Whose.
        token: Token,
        /// Its number.
        index: u64,
    },
    /// Sign this checkpoint as the log, and say so by [`Log::signed`].
    Sign {
        /// Its text.
        text: String,
    },
    /// Ask a log witness to cosign, with a proof from the tree of `old` entries.
    Ask {
        /// Which, by its key's name.
        witness: String,
        /// What it cosigned last, as far as is known.
        old: u64,
        /// The checkpoint's size.
        size: u64,
        /// The checkpoint with the log's signature.
        note: String,
    },
    /// This checkpoint is durable and cosigned as the policy asks.
    Published {
        /// With all signatures.
        note: String,
    },
    /// The log begins with this entry: what was before is gone, durably.
    Pruned {
        /// The first entry that is there.
        mark: u64,
    },
    /// A log witness has cosigned more than this log has, or what it has not: the disk below is an old copy,
    /// or was changed. Nothing is signed any more.
    Broken {
        /// What is known of it.
        why: String,
    },
}

/// What is known of a log witness.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Watching {
    /// The size that it cosigned last, as far as is known.
    size: u64,
    /// When it was asked for the present checkpoint, until it has answered.
    asked: Option<Mono>,
    /// Its cosignature of the present checkpoint.
    cosignature: Option<Signature>,
    /// What it has cosigned last in this life of the node, by a signature that verified.
    verified: Option<Cosigned>,
}

/// How a log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogStatus {
    /// Entries, durable or about to be.
    pub entries: u64,
    /// Entries under the last signed checkpoint.
    pub signed: u64,
    /// Entries under the last one that is cosigned as the policy asks.
    pub published: u64,
    /// The number of the first entry that was not pruned.
    pub mark: u64,
    /// What each log witness has cosigned, by its key's name.
    pub witnesses: BTreeMap<String, u64>,
    /// The same of its last cosignature that came in this life of the node, where one has.
    pub verified: BTreeMap<String, Option<Cosigned>>,
    /// Why nothing is signed any more.
    pub broken: Option<String>,
}

/// The audit log of one node.
#[derive(Debug)]
pub struct Log {
    key: Key,
    /// None: too few log witnesses are known, so nothing is published.
    policy: Option<Policy>,
    settings: LogSettings,
    edge: Edge,
    /// The edge of the tree of what was pruned.
    left: Edge,
    /// The text that is being signed.
    signing: Option<String>,
    /// The last signed checkpoint.
    checkpoint: Option<(Checkpoint, Note)>,
    made: Option<Mono>,
    published: u64,
    watching: BTreeMap<String, (Key, Watching)>,
    nonces: Vec<Vec<u8>>,
    broken: Option<String>,
    other_key: bool,
}

impl Log {
    /// The log on this disk. `witnesses` are those that are asked, `policy` says which suffice; without one
    /// nothing is published.
    ///
    /// # Errors
    /// [`Unsound`]: what is there is not what was signed.
    pub fn recover(
        key: Key,
        policy: impl Into<Option<Policy>>,
        witnesses: impl IntoIterator<Item = Key>,
        settings: LogSettings,
        rows: &impl Rows,
    ) -> Result<Self, Unsound> {
        let (edge, left) = (rows::edge(rows)?, rows::left(rows)?);
        let checkpoint = checkpoint(rows, rows::SIGNED)?;
        if let Some((signed, _)) = &checkpoint {
            let have = edge.size();
            let same = signed.size <= have && root_of(rows, signed.size)? == signed.root;
            if !same || signed.origin != key.name {
                return Err(Unsound::NotSigned { size: signed.size, have });
            }
        }
        // What was signed with another key is signed anew: the entries are those. The log witnesses refuse it until
        // operators of theirs replace the key that they have pinned.
        let by_key = |(_, note): &(Checkpoint, Note)| matches!(key.verify(note), Ok(Some(_)));
        let (checkpoint, other_key) = match checkpoint {
            Some(last) if !by_key(&last) => (None, true),
            last => (last, false),
        };
        let published = checkpoint_size(rows, rows::PUBLISHED)?;
        if left.size() > published {
            return Err(Unsound::NoMark);
        }
        let watching =
            witnesses.into_iter().map(|key| (key.name.clone(), (key, Watching::default()))).collect();
        Ok(Self {
            key,
            policy: policy.into(),
            settings,
            edge,
            left,
            signing: None,
            checkpoint,
            made: None,
            published,
            watching,
            nonces: Vec::new(),
            broken: None,
            other_key,
        })
    }

    /// Whether what was signed last in an earlier life was signed with another key than this one's.
    #[must_use]
    pub fn has_other_key(&self) -> bool {
        self.other_key
    }

    /// Appends an entry, and the sealed body of what it commits to.
    pub fn append(&mut self, token: Token, entry: &Entry, body: &[u8], out: &mut Effects<Batch, Effect>) {
        let (index, bytes) = (self.edge.size(), entry.encode());
        let tiles = self.edge.push(hash::leaf(&bytes));
        let mut batch = Batch::new();
        rows::put_entry(&mut batch, index, &bytes, body, &tiles);
        rows::put_partial(&mut batch, &self.edge, &tiles);
        out.persist(batch);
        out.send(Effect::Appended { token, index });
    }

    /// More log witnesses are known: those that were stay, and `policy` says which suffice now.
    pub fn watched_by(&mut self, policy: Option<Policy>, witnesses: impl IntoIterator<Item = Key>) {
        self.policy = policy;
        for key in witnesses {
            self.watching.entry(key.name.clone()).or_insert_with(|| (key, Watching::default()));
        }
    }

    /// A log witness has another key from now on.
    pub fn rekeyed(&mut self, policy: Option<Policy>, witness: Key) {
        self.policy = policy;
        self.watching.insert(witness.name.clone(), (witness, Watching::default()));
    }

    /// Has the next checkpoint answer a demand. False when it answers enough others already.
    pub fn demand(&mut self, nonce: Vec<u8>) -> bool {
        let room = self.nonces.len() < MAX_NONCES || self.nonces.contains(&nonce);
        if room && !self.nonces.contains(&nonce) {
            self.nonces.push(nonce);
        }
        room
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now, out: &mut Effects<Batch, Effect>) {
        if self.broken.is_some() {
            return;
        }
        if self.wants_checkpoint() && self.next_checkpoint().is_none_or(|due| due <= now.mono) {
            self.sign(now, out);
        }
        self.ask(now, out);
    }

    /// When [`Log::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, now: Now) -> Option<Mono> {
        if self.broken.is_some() {
            return None;
        }
        let checkpoint = self.wants_checkpoint().then(|| self.next_checkpoint().unwrap_or(now.mono));
        let again =
            |watching: &Watching| watching.asked.map_or(now.mono, |at| at.plus(self.settings.ask_again));
        let ask = self.to_ask().map(|(_, watching)| again(watching)).min();
        checkpoint.into_iter().chain(ask).min()
    }

    /// The log's signature of a checkpoint has come.
    ///
    /// # Panics
    /// When it is not the signature of what was to be signed: the shell signs nothing else.
    pub fn signed(&mut self, now: Now, signature: Signature, out: &mut Effects<Batch, Effect>) {
        let text = self.signing.take().expect("a checkpoint was to be signed");
        let note = Note { text, signatures: vec![signature] };
        assert!(matches!(self.key.verify(&note), Ok(Some(_))), "the log's own signature verifies");
        let checkpoint: Checkpoint = note.text.parse().expect("this machine made it");
        let mut batch = Batch::new();
        rows::put_note(&mut batch, rows::SIGNED, &note.to_string());
        out.persist(batch);
        self.checkpoint = Some((checkpoint, note));
        for (_, watching) in self.watching.values_mut() {
            (watching.asked, watching.cosignature) = (None, None);
        }
        self.publish(out);
        self.ask(now, out);
    }

    /// A log witness has answered.
    pub fn answered(
        &mut self,
        now: Now,
        witness: &str,
        text: &str,
        answer: Result<Signature, NotCosigned>,
        out: &mut Effects<Batch, Effect>,
    ) {
        let present = self.checkpoint.as_ref().filter(|(_, note)| note.text == text).map(|(c, _)| c.size);
        let (Some(size), Some((key, watching))) = (present, self.watching.get_mut(witness)) else { return };
        match answer {
            Ok(signature) => {
                let note = Note { text: text.to_owned(), signatures: vec![signature.clone()] };
                if let Ok(Some(signed)) = key.verify(&note) {
                    (watching.size, watching.cosignature) = (size, Some(signature));
                    let millis = signed.at.unwrap_or(0).saturating_mul(1_000);
                    watching.verified = Some(Cosigned { size, millis, came: now.mono });
                    self.publish(out);
                }
            }
            // What it cosigned was pruned since, if that is still what it has: it is asked anew, and not at once.
            Err(NotCosigned::Conflict { size: theirs }) if (1..self.left.size()).contains(&theirs) => {
                watching.size = 0;
            }
            Err(NotCosigned::Conflict { size: theirs }) if theirs <= size => {
                (watching.size, watching.asked) = (theirs, None);
                self.ask(now, out);
            }
            Err(NotCosigned::Conflict { size: theirs }) if theirs > self.edge.size() => {
                let why =
                    format!("{witness} has cosigned {theirs} entries, and {} are here", self.edge.size());
                self.breaks(why, out);
            }
            Err(NotCosigned::NotContinued(why)) => self.breaks(format!("{witness}: {why}"), out),
            // It is asked again in time.
            Err(_) => {}
        }
    }

    /// Its public key, whose name is its origin.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The last signed checkpoint with its log's signature, a note.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        self.checkpoint.as_ref().map(|(_, note)| note.to_string())
    }

    /// The text of the checkpoint that is to be cosigned.
    #[must_use]
    pub fn present(&self) -> Option<String> {
        self.checkpoint.as_ref().map(|(_, note)| note.text.clone())
    }

    /// The number of the first entry that was not pruned.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.left.size()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        LogStatus {
            entries: self.edge.size(),
            signed: self.checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size),
            published: self.published,
            mark: self.left.size(),
            verified: self.watching.iter().map(|(name, (_, known))| (name.clone(), known.verified)).collect(),
            witnesses: self
                .watching
                .iter()
                .map(|(name, (_, watching))| (name.clone(), watching.size))
                .collect(),
            broken: self.broken.clone(),
        }
    }

    fn wants_checkpoint(&self) -> bool {
        let size = self.checkpoint.as_ref().map(|(checkpoint, _)| checkpoint.size);
        self.signing.is_none() && (size != Some(self.edge.size()) || !self.nonces.is_empty())
    }

    fn next_checkpoint(&self) -> Option<Mono> {
        self.made.map(|made| made.plus(self.settings.interval))
    }

    fn sign(&mut self, now: Now, out: &mut Effects<Batch, Effect>) {
        let text = Checkpoint {
            origin: self.key.name.clone(),
            size: self.edge.size(),
            root: self.edge.root(),
            extensions: self.nonces.drain(..).map(|nonce| nonce_line(&nonce)).collect(),
        }
        .to_string();
        (self.made, self.signing) = (Some(now.mono), Some(text.clone()));
        if canary::sings(Canary::SignBeforeDurable) {
            out.send_at_once(Effect::Sign { text });
        } else {
            out.send(Effect::Sign { text });
        }
    }

    /// Log witnesses that have not cosigned the present checkpoint.
    fn to_ask(&self) -> impl Iterator<Item = (&String, &Watching)> {
        let present = self.checkpoint.is_some();
        let missing = move |watching: &Watching| present && watching.cosignature.is_none();
        self.watching.iter().map(|(name, (_, w))| (name, w)).filter(move |(_, w)| missing(w))
    }

    fn ask(&mut self, now: Now, out: &mut Effects<Batch, Effect>) {
        let Some((checkpoint, note)) = &self.checkpoint else { return };
        let note = note.to_string();
        for (name, (_, watching)) in &mut self.watching {
            let due = watching.asked.is_none_or(|at| at.plus(self.settings.ask_again) <= now.mono);
            if watching.cosignature.is_none() && due {
                watching.asked = Some(now.mono);
                let (witness, old, size) = (name.clone(), watching.size, checkpoint.size);
                out.send(Effect::Ask { witness, old, size, note: note.clone() });
            }
        }
    }

    /// Publishes the present checkpoint if those who cosigned it suffice.
    fn publish(&mut self, out: &mut Effects<Batch, Effect>) {
        let Some((checkpoint, note)) = &self.checkpoint else { return };
        let mut note = note.clone();
        note.signatures.extend(self.watching.values().filter_map(|(_, w)| w.cosignature.clone()));
        if self.policy.as_ref().is_none_or(|policy| policy.trusts(&note).is_err()) {
            return;
        }
        self.published = checkpoint.size;
        let note = note.to_string();
        let mut batch = Batch::new();
        rows::put_note(&mut batch, rows::PUBLISHED, &note);
        out.persist(batch);
        out.send(Effect::Published { note });
    }

    fn breaks(&mut self, why: String, out: &mut Effects<Batch, Effect>) {
        if self.broken.is_none() {
            self.broken = Some(why.clone());
            out.send_at_once(Effect::Broken { why });
        }
    }
}

/// The tree of the first `size` entries on a disk.
pub fn tree<R: Rows>(rows: &R, size: u64) -> impl Subtrees<Error = Unsound> + use<'_, R> {
    Tiled::new(size, move |tile| rows::any_tile(rows, tile))
}

/// The root of the first `size` entries on a disk, made of entries and full tiles alone.
///
/// # Errors
/// [`Unsound`].
pub fn root_of(rows: &impl Rows, size: u64) -> Result<Hash, Unsound> {
    proof::root(&mut Tiled::new(size, |tile| rows::made_tile(rows, tile)), size)
}

fn checkpoint(rows: &impl Rows, key: &[u8]) -> Result<Option<(Checkpoint, Note)>, Unsound> {
    let Some(bytes) = rows.row(key)? else { return Ok(None) };
    let wrong = |error: &dyn std::fmt::Display| Unsound::Checkpoint(error.to_string());
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(&error))?;
    let note = Note::parse(text).map_err(|error| wrong(&error))?;
    let checkpoint = note.text.parse().map_err(|error| wrong(&error))?;
    Ok(Some((checkpoint, note)))
}

fn checkpoint_size(rows: &impl Rows, key: &[u8]) -> Result<u64, Unsound> {
    Ok(checkpoint(rows, key)?.map_or(0, |(checkpoint, _)| checkpoint.size))
}
