//! The keys under which records are sealed: one for each subject, wrapped under a key of its jurisdiction that
//! lies outside the store and outside every copy of it.
//!
//! | key | value |
//! |---|---|
//! | `k` id | a subject's key, wrapped (`seal`) |
//! | `g` jurisdiction | which generation of the jurisdiction's key wraps, and which is on its way in or out |
//!
//! Erasing a subject takes more than forgetting its key's row: older copies of the disk have the row. So the
//! jurisdiction gets a new wrapping key, under which all other subjects' keys are wrapped again, and the old
//! one is destroyed; what is in older copies can then be unwrapped by nobody.
//!
//! * It decides: which key seals, when a wrapping key is made and destroyed, and when a subject is erased.
//! * It never does: draw a key, touch a file, or destroy a wrapping key that a remaining subject's key is
//!   wrapped under on the disk.
//! * Invariant: once an erasure is told, no state that the disk has ever had gives the subject's key together
//!   with wrapping keys that still exist.

use std::collections::{BTreeMap, HashMap};

use rhumb_core::canary::{self, Canary};
use rhumb_core::effects::Effects;
use rhumb_storage::{Batch, Family};
use thiserror::Error;

use super::seal::{KeyId, SecretKey, Unopened, WrappedBy, unwrap, wrap, wrapped_by};

const FAMILY: Family = Family::Audit;
/// Keys that are wrapped again in one batch.
const AT_ONCE: usize = 256;
/// Bytes of a subject at most.
pub const MAX_SUBJECT: usize = 256;
/// Bytes of a name under which a key is kept at most.
pub const MAX_NAME: usize = 1_024;

/// Who waits for an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What is drawn for a new subject.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// The id of its key.
    pub id: KeyId,
    /// Its key.
    pub key: SecretKey,
}

/// What the keys want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make this wrapping key, durably, and say so by [`Keys::made`]. If it is there already, it is that one.
    Make(WrappedBy),
    /// Destroy this wrapping key, durably, and say so by [`Keys::destroyed`].
    Destroy(WrappedBy),
    /// The subject is erased for good.
    Erased {
        /// Whose wish it was.
        token: Token,
    },
    /// The key that was brought is on the disk.
    Kept {
        /// Who brought it.
        token: Token,
    },
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoKey {
    /// The jurisdiction has no wrapping key yet.
    #[error("jurisdiction {0} has no wrapping key yet: it is being made")]
    NoWrappingKey(String),
    /// There are as many subjects as the node keeps.
    #[error("the node keeps the keys of {0} subjects and no more: raise `audit.max_subjects`")]
    TooMany(usize),
    /// The subject's name is none.
    #[error("a subject is named by 1 to {MAX_SUBJECT} bytes, not by {0}")]
    Subject(usize),
}

/// Rows of keys that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnsoundKeys {
    /// A row is not in its form.
    #[error("the key {0} of the audit log cannot be read: {1}")]
    Row(KeyId, Unopened),
    /// A row's name or form is none.
    #[error("the audit log has a row of keys that is none")]
    Name,
}

/// How a jurisdiction's wrapping key stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turn {
    /// What wraps. 0: none yet.
    present: u32,
    /// What is to wrap instead, from the beginning of an erasure until all is wrapped under it.
    next: Option<u32>,
    /// What is to be destroyed.
    old: Option<u32>,
    /// Somebody was erased after the next one had begun to wrap: once more, then.
    again: bool,
}

impl Turn {
    const BYTES: usize = 13;

    fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        for number in [self.present, self.next.unwrap_or(0), self.old.unwrap_or(0)] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.push(u8::from(self.again));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let some = |number| (number > 0).then_some(number);
        Some(Self { present: number(0), next: some(number(4)), old: some(number(8)), again: bytes[12] == 1 })
    }
}

#[derive(Debug)]
struct Subject {
    name: String,
    key: SecretKey,
    by: WrappedBy,
}

/// What is under way in a jurisdiction.
#[derive(Debug, Default)]
struct Jurisdiction {
    turn: Turn,
    by_subject: HashMap<String, KeyId>,
    /// Who waits for the turn under way, and who for the one after it.
    waiting: (Vec<Token>, Vec<Token>),
}

/// The keys of one node.
#[derive(Debug)]
pub struct Keys {
    max_subjects: usize,
    jurisdictions: BTreeMap<String, Jurisdiction>,
    subjects: BTreeMap<KeyId, Subject>,
    wrapping: BTreeMap<WrappedBy, SecretKey>,
    lost: BTreeMap<KeyId, WrappedBy>,
}

/// The rows of keys, as they are on a disk.
#[derive(Debug, Clone, Default)]
pub struct KeyRows {
    /// Rows that begin with `k`, without it.
    pub keys: Vec<(Vec<u8>, Vec<u8>)>,
    /// Rows that begin with `g`, without it.
    pub turns: Vec<(Vec<u8>, Vec<u8>)>,
}

fn key_row(id: KeyId) -> Vec<u8> {
    [b"k", &id.0[..]].concat()
}

fn turn_row(jurisdiction: &str) -> Vec<u8> {
    [b"g", jurisdiction.as_bytes()].concat()
}

impl Keys {
    /// The keys on a disk, with the wrapping keys that exist. A key that is wrapped under none of those is
    /// [lost](Keys::lost).
    ///
    /// # Errors
    /// [`UnsoundKeys`].
    pub fn recover(
        max_subjects: usize,
        rows: &KeyRows,
        wrapping: impl IntoIterator<Item = (WrappedBy, SecretKey)>,
    ) -> Result<Self, UnsoundKeys> {
        let wrapping: BTreeMap<_, _> = wrapping.into_iter().collect();
        let (jurisdictions, subjects, lost) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut keys = Self { max_subjects, jurisdictions, subjects, wrapping, lost };
        for (name, value) in &rows.turns {
            let name = std::str::from_utf8(name).map_err(|_| UnsoundKeys::Name)?;
            let turn = Turn::decode(value).ok_or(UnsoundKeys::Name)?;
            keys.jurisdictions.entry(name.to_owned()).or_default().turn = turn;
        }
        for (id, wrapped) in &rows.keys {
            let id = KeyId(id.as_slice().try_into().map_err(|_| UnsoundKeys::Name)?);
            let by = wrapped_by(wrapped).map_err(|why| UnsoundKeys::Row(id, why))?;
            let Some(under) = keys.wrapping.get(&by) else {
                keys.lost.insert(id, by);
                continue;
            };
            let (key, name) = unwrap(under, id, wrapped).map_err(|why| UnsoundKeys::Row(id, why))?;
            keys.insert(id, Subject { name, key, by });
        }
        Ok(keys)
    }

    fn insert(&mut self, id: KeyId, subject: Subject) {
        let jurisdiction = self.jurisdictions.entry(subject.by.jurisdiction.clone()).or_default();
        jurisdiction.by_subject.insert(subject.name.clone(), id);
        self.subjects.insert(id, subject);
    }

    /// Begins what a jurisdiction needs, and goes on with what was under way when the node stopped.
    pub fn begin(&mut self, jurisdiction: &str, out: &mut Effects<Batch, Effect>) {
        let turn = &mut self.jurisdictions.entry(jurisdiction.to_owned()).or_default().turn;
        if turn.present == 0 && turn.next.is_none() {
            turn.next = Some(1);
            persist(jurisdiction, *turn, out);
        }
        let wanted = *turn;
        let by = |generation| WrappedBy { jurisdiction: jurisdiction.to_owned(), generation };
        out_some(out, wanted.next.map(|next| Effect::Make(by(next))));
        out_some(out, wanted.old.map(|old| Effect::Destroy(by(old))));
    }

    /// The key of a subject, made of what was drawn where there is none.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn of(
        &mut self,
        jurisdiction: &str,
        subject: &str,
        fresh: Fresh,
        out: &mut Effects<Batch, Effect>,
    ) -> Result<(KeyId, SecretKey), NoKey> {
        if subject.is_empty() || subject.len() > MAX_SUBJECT {
            return Err(NoKey::Subject(subject.len()));
        }
        let none = || NoKey::NoWrappingKey(jurisdiction.to_owned());
        let known = self.jurisdictions.get(jurisdiction).ok_or_else(none)?;
        if let Some((id, known)) =
            known.by_subject.get(subject).and_then(|id| self.subjects.get_key_value(id))
        {
            return Ok((*id, known.key.clone()));
        }
        if self.subjects.len() >= self.max_subjects {
            return Err(NoKey::TooMany(self.max_subjects));
        }
        let by = self.wraps(jurisdiction).ok_or_else(none)?;
        let Fresh { id, key } = fresh;
        let wrapped = wrap(&self.wrapping[&by], &by, id, &key, subject);
        let mut batch = Batch::new();
        batch.put(FAMILY, key_row(id), wrapped);
        out.persist(batch);
        self.insert(id, Subject { name: subject.to_owned(), key: key.clone(), by });
        Ok((id, key))
    }

    /// Keeps a key that was drawn for others too, under a name that no other key has. One that is here already is kept.
    ///
    /// # Errors
    /// [`NoKey`].
    pub fn keep(
        &mut self,
        token: Token,
        jurisdiction: &str,
        name: &str,
        Fresh { id, key }: Fresh,
        out: &mut Effects<Batch, Effect>,
    ) -> Result<(), NoKey> {
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(NoKey::Subject(name.len()));
        }
        if !self.subjects.contains_key(&id) {
            if self.subjects.len() >= self.max_subjects {
                return Err(NoKey::TooMany(self.max_subjects));
            }
            let none = || NoKey::NoWrappingKey(jurisdiction.to_owned());
            let by = self.wraps(jurisdiction).ok_or_else(none)?;
            let mut batch = Batch::new();
            batch.put(FAMILY, key_row(id), wrap(&self.wrapping[&by], &by, id, &key, name));
            out.persist(batch);
            // It may be one that an older copy of the disk had lost.
            self.lost.remove(&id);
            self.insert(id, Subject { name: name.to_owned(), key, by });
        }
        out.send(Effect::Kept { token });
        Ok(())
    }

    /// The keys whose names begin so, each with its name.
    pub fn named<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (KeyId, &'a SecretKey, &'a str)> {
        let kept = self.subjects.iter().filter(move |(_, kept)| kept.name.starts_with(prefix));
        kept.map(|(id, kept)| (*id, &kept.key, kept.name.as_str()))
    }

    /// What wraps a new key: the next wrapping key as soon as there is one.
    fn wraps(&self, jurisdiction: &str) -> Option<WrappedBy> {
        let turn = self.jurisdictions.get(jurisdiction)?.turn;
        let by = |generation| WrappedBy { jurisdiction: jurisdiction.to_owned(), generation };
        let there = |by: &WrappedBy| self.wrapping.contains_key(by);
        turn.next.map(by).filter(there).or_else(|| Some(by(turn.present)).filter(there))
    }

    /// A key, to open what is sealed under it. None: its subject was erased, or was never here.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&SecretKey> {
        self.subjects.get(&id).map(|subject| &subject.key)
    }

    /// The id of a subject's key, by which its entries are found.
    #[must_use]
    pub fn id(&self, jurisdiction: &str, subject: &str) -> Option<KeyId> {
        self.jurisdictions.get(jurisdiction)?.by_subject.get(subject).copied()
    }

    /// Erases a subject. A subject that is not here, for one because it was erased, is told erased when the
    /// turn under way is over.
    pub fn erase(
        &mut self,
        token: Token,
        jurisdiction: &str,
        subject: &str,
        out: &mut Effects<Batch, Effect>,
    ) {
        let Some(known) = self.jurisdictions.get_mut(jurisdiction) else {
            return out.send(Effect::Erased { token });
        };
        let Some(id) = known.by_subject.remove(subject) else {
            match known.turn {
                Turn { next: None, old: None, .. } => out.send(Effect::Erased { token }),
                Turn { again: true, .. } => known.waiting.1.push(token),
                _ => known.waiting.0.push(token),
            }
            return;
        };
        self.subjects.remove(&id);
        let mut batch = Batch::new();
        batch.delete(FAMILY, key_row(id));
        let begun = known.turn.next.is_some() || known.turn.old.is_some();
        if begun {
            known.turn.again = true;
            known.waiting.1.push(token);
        } else {
            known.turn.next = Some(known.turn.present + 1);
            known.waiting.0.push(token);
        }
        batch.put(FAMILY, turn_row(jurisdiction), known.turn.encode());
        out.persist(batch);
        if !begun {
            let generation = known.turn.present + 1;
            out.send(Effect::Make(WrappedBy { jurisdiction: jurisdiction.to_owned(), generation }));
        }
    }

    /// A wrapping key was made.
    pub fn made(&mut self, by: &WrappedBy, key: SecretKey, out: &mut Effects<Batch, Effect>) {
        self.wrapping.insert(by.clone(), key);
        self.step(&by.jurisdiction, out);
    }

    /// Wraps some more keys again. Call it until it says that there are no more.
    pub fn step(&mut self, jurisdiction: &str, out: &mut Effects<Batch, Effect>) -> bool {
        let Some(turn) = self.jurisdictions.get(jurisdiction).map(|known| known.turn) else { return false };
        let to = turn.next.map(|generation| WrappedBy { jurisdiction: jurisdiction.to_owned(), generation });
        let Some((to, key)) = to.and_then(|to| Some((to.clone(), self.wrapping.get(&to)?.clone()))) else {
            return false;
        };
        let behind = |subject: &&mut Subject| subject.by.jurisdiction == jurisdiction && subject.by != to;
        let mut batch = Batch::new();
        let mut wrapped = 0;
        if canary::sings(Canary::KeysNotRewrapped) {
            self.over(jurisdiction, out);
            return false;
        }
        for (id, subject) in self.subjects.iter_mut().filter(|(_, subject)| behind(subject)).take(AT_ONCE) {
            batch.put(FAMILY, key_row(*id), wrap(&key, &to, *id, &subject.key, &subject.name));
            subject.by = to.clone();
            wrapped += 1;
        }
        if wrapped > 0 {
            out.persist(batch);
        }
        if wrapped == AT_ONCE {
            return true;
        }
        self.over(jurisdiction, out);
        false
    }

    /// All is wrapped under the next key: it is the present one, and the one before is destroyed.
    fn over(&mut self, jurisdiction: &str, out: &mut Effects<Batch, Effect>) {
        let Some(known) = self.jurisdictions.get_mut(jurisdiction) else { return };
        let Some(next) = known.turn.next.take() else { return };
        let before = std::mem::replace(&mut known.turn.present, next);
        if before > 0 && !canary::sings(Canary::OldKeyStays) {
            known.turn.old = Some(before);
        }
        let turn = known.turn;
        persist(jurisdiction, turn, out);
        match turn.old {
            None => self.done(jurisdiction, out),
            Some(generation) => {
                out.send(Effect::Destroy(WrappedBy { jurisdiction: jurisdiction.to_owned(), generation }));
            }
        }
    }

    /// A wrapping key was destroyed.
    pub fn destroyed(&mut self, by: &WrappedBy, out: &mut Effects<Batch, Effect>) {
        self.wrapping.remove(by);
        let Some(known) = self.jurisdictions.get_mut(&by.jurisdiction) else { return };
        if known.turn.old == Some(by.generation) {
            known.turn.old = None;
            self.done(&by.jurisdiction, out);
        }
    }

    /// A turn is over: whoever waited for it is told, and the next one begins if somebody waits for that.
    fn done(&mut self, jurisdiction: &str, out: &mut Effects<Batch, Effect>) {
        let Some(known) = self.jurisdictions.get_mut(jurisdiction) else { return };
        let next = std::mem::take(&mut known.waiting.1);
        let erased = std::mem::replace(&mut known.waiting.0, next);
        let again = std::mem::take(&mut known.turn.again);
        if again {
            known.turn.next = Some(known.turn.present + 1);
        }
        let turn = known.turn;
        persist(jurisdiction, turn, out);
        erased.into_iter().for_each(|token| out.send(Effect::Erased { token }));
        let by = |generation| WrappedBy { jurisdiction: jurisdiction.to_owned(), generation };
        out_some(out, turn.next.map(|next| Effect::Make(by(next))));
    }

    /// Keys that cannot be unwrapped, and under what they are wrapped: that was destroyed by an erasure after
    /// this copy of the disk was made, or its file is lost.
    #[must_use]
    pub fn lost(&self) -> &BTreeMap<KeyId, WrappedBy> {
        &self.lost
    }

    /// Subjects whose keys are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }
}

fn persist(jurisdiction: &str, turn: Turn, out: &mut Effects<Batch, Effect>) {
    let mut batch = Batch::new();
    batch.put(FAMILY, turn_row(jurisdiction), turn.encode());
    out.persist(batch);
}

fn out_some(out: &mut Effects<Batch, Effect>, effect: Option<Effect>) {
    if let Some(effect) = effect {
        out.send(effect);
    }
}
