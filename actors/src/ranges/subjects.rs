//! The keys of the subjects of personal values, as one node has them: which are here, which may seal, which are erased.
//!
//! * It decides: whether a key may seal (a majority of the nodes that may hold the class keep it), what a node keeps, and what
//!   it destroys.
//! * It never does: draw a key, touch a disk (the audit log's [`Keys`](crate::audit::Keys) wraps and destroys them), or take
//!   a key back that was condemned.
//! * Invariants: what is sealed under a key is sealed when a majority keeps it, so that no lost disk takes it away; of a
//!   condemned key nothing is opened here from the moment on that this is known here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use rhumb_core::{DataClass, NodeId};
use serde::{Deserialize, Serialize};

use super::messages::KvRefusal;
use super::sealing::SubjectKey;
use crate::audit::seal::{KeyId, SecretKey};
use crate::{Wire, remote};

/// Before the names under which such keys are kept among the audit log's.
pub const PREFIX: &str = "kv\n";
/// The longest name of a subject.
pub const MAX_SUBJECT: usize = 255;
/// Keys that are condemned at once.
pub const AT_ONCE: usize = 256;

// ---- what nodes ask each other -----------------------------------------------------------------

/// Keep the key of a subject: what is sealed under it may come here.
#[remote(crate = crate, name = "subject.Keep", class = by(class), audience = "nodes", idempotent,
         reply = Result<(), KvRefusal>)]
#[derive(Clone, PartialEq, Eq)]
pub struct KeepKey {
    /// The class of the data.
    pub class: DataClass,
    /// The key's id.
    pub id: Vec<u8>,
    /// The key.
    pub key: Vec<u8>,
    /// Whose it is.
    pub subject: String,
}

impl fmt::Debug for KeepKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeepKey(of class {})", self.class)
    }
}

/// Hand over a key that a value here is sealed under.
#[remote(crate = crate, name = "subject.Hand", class = by(class), audience = "nodes", idempotent,
         reply = Result<Handed, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandKey {
    /// The class of the data.
    pub class: DataClass,
    /// The key's id.
    pub id: Vec<u8>,
}

/// A key, or why there is none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Handed {
    /// It is here.
    Key {
        /// The key.
        key: Vec<u8>,
        /// Whose it is.
        subject: String,
    },
    /// Its subject was erased.
    Erased,
    /// It is not here.
    NotHere,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key { .. } => "Key(..)",
            Self::Erased => "Erased",
            Self::NotHere => "NotHere",
        })
    }
}

/// Which keys of a subject are there?
#[remote(crate = crate, name = "subject.Which", class = by(class), audience = "nodes", idempotent,
         reply = Result<Vec<Vec<u8>>, KvRefusal>)]
#[derive(Clone, PartialEq, Eq)]
pub struct WhichKeys {
    /// The class of the data.
    pub class: DataClass,
    /// Whose.
    pub subject: String,
}

impl fmt::Debug for WhichKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WhichKeys(of class {})", self.class)
    }
}

/// Write in the meta range that these keys are erased. An id says nothing of whose it is.
#[remote(crate = crate, name = "subject.Condemn", class = "control", audience = "nodes", idempotent,
         reply = Result<(), KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CondemnKeys {
    /// Their ids.
    pub ids: Vec<Vec<u8>>,
}

/// Destroy these keys, which are condemned. It is answered when no copy of the disk gives them any more.
#[remote(crate = crate, name = "subject.Destroy", class = "control", audience = "nodes", idempotent,
         reply = Result<(), KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestroyKeys {
    /// Their ids.
    pub ids: Vec<Vec<u8>>,
}

/// Erase a subject: destroy the keys that its values of this class are sealed under, on all nodes. The same again goes on with
/// what was not reached.
#[remote(crate = crate, name = "subject.Erase", class = by(class), audience = "operators", idempotent,
         reply = Result<SubjectErased, KvRefusal>)]
#[derive(Clone, PartialEq, Eq)]
pub struct EraseSubject {
    /// The class of the data.
    pub class: DataClass,
    /// Whom.
    pub subject: String,
}

impl fmt::Debug for EraseSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EraseSubject(of class {})", self.class)
    }
}

/// What came of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct SubjectErased {
    /// The keys that were found and condemned.
    pub keys: Vec<String>,
    /// Nodes that have destroyed them, or never had them.
    pub done: Vec<NodeId>,
    /// Nodes that have not said so: the subject is not erased before they have.
    pub pending: Vec<NodeId>,
    /// The entry of the audit log that says so.
    pub entry: u64,
}

// ---- the machine -------------------------------------------------------------------------------

/// How a key stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is here.
    Here(SubjectKey),
    /// Its subject was erased.
    Erased,
    /// It is not here; another node may have it.
    NotHere,
}

/// What a key is drawn for.
type Whose = (DataClass, String);

struct Known {
    key: SecretKey,
    whose: Whose,
    /// A majority keeps it.
    firm: bool,
}

/// The keys of the subjects of personal values that one node knows.
#[derive(Default)]
pub struct Subjects {
    known: HashMap<KeyId, Known>,
    seals: HashMap<Whose, KeyId>,
    condemned: BTreeSet<KeyId>,
    /// Condemned ones that are on this disk, by the names that they are kept under.
    destroying: BTreeMap<KeyId, String>,
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subjects({} keys, {} condemned)", self.known.len(), self.condemned.len())
    }
}

/// The name that a key is kept under: no other key has it.
#[must_use]
pub fn name(class: &DataClass, by: &SubjectKey) -> String {
    format!("{PREFIX}{class}\n{}\n{}", by.id, by.subject)
}

/// What a name says: the class and the subject.
fn of_name(name: &str) -> Option<Whose> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '\n');
    let class = DataClass::read(parts.next()?).ok()?;
    let subject = parts.nth(1)?;
    Some((class, subject.to_owned()))
}

/// The id in a message.
///
/// # Errors
/// It is none.
pub fn id(bytes: &[u8]) -> Result<KeyId, KvRefusal> {
    let sound = bytes.try_into().map(KeyId);
    sound.map_err(|_| KvRefusal::Invalid(format!("the id of a key has 16 bytes, not {}", bytes.len())))
}

/// So many of these nodes keep a key before anything is sealed under it.
#[must_use]
pub fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// Whether a subject's name is one.
///
/// # Errors
/// What would be right.
pub fn named(subject: &str) -> Result<(), KvRefusal> {
    if (1..=MAX_SUBJECT).contains(&subject.len()) {
        return Ok(());
    }
    let why = format!("a subject of {} bytes: it takes 1 to {MAX_SUBJECT}", subject.len());
    Err(KvRefusal::Invalid(why))
}

impl Subjects {
    /// A key is on this disk, under this name. One whose name is none is left alone.
    pub fn kept(&mut self, id: KeyId, key: SecretKey, name: &str) {
        let Some(whose) = of_name(name) else { return };
        if self.condemned.contains(&id) {
            self.destroying.insert(id, name.to_owned());
            return;
        }
        self.seals.entry(whose.clone()).or_insert(id);
        self.known.entry(id).or_insert(Known { key, whose, firm: false });
    }

    /// The key that a value of this subject is sealed under, and whether a majority keeps it already; none: one is drawn.
    #[must_use]
    pub fn seals(&self, class: &DataClass, subject: &str) -> Option<(SubjectKey, bool)> {
        let id = self.seals.get(&(class.clone(), subject.to_owned()))?;
        let known = self.known.get(id)?;
        Some((SubjectKey { id: *id, key: known.key.clone(), subject: subject.to_owned() }, known.firm))
    }

    /// A majority keeps it.
    pub fn is_firm(&mut self, id: KeyId) {
        if let Some(known) = self.known.get_mut(&id) {
            known.firm = true;
        }
    }

    /// How a key of a class stands here.
    #[must_use]
    pub fn standing(&self, class: &DataClass, id: KeyId) -> Standing {
        if self.condemned.contains(&id) {
            return Standing::Erased;
        }
        match self.known.get(&id).filter(|known| known.whose.0 == *class) {
            Some(known) => {
                Standing::Here(SubjectKey { id, key: known.key.clone(), subject: known.whose.1.clone() })
            }
            None => Standing::NotHere,
        }
    }

    /// The keys of a subject that are here, those that are being destroyed too.
    #[must_use]
    pub fn of(&self, class: &DataClass, subject: &str) -> Vec<KeyId> {
        let is_whose = |whose: &Whose| whose.0 == *class && whose.1 == subject;
        let known = self.known.iter().filter(|(_, known)| is_whose(&known.whose)).map(|(id, _)| *id);
        let going = self.destroying.iter();
        let going = going.filter(|(_, name)| of_name(name).is_some_and(|whose| is_whose(&whose)));
        known.chain(going.map(|(id, _)| *id)).collect()
    }

    /// These are erased: nothing under them is opened here from now on.
    pub fn condemn(&mut self, ids: impl IntoIterator<Item = KeyId>) {
        for id in ids {
            if !self.condemned.insert(id) {
                continue;
            }
            let Some(Known { key, whose, .. }) = self.known.remove(&id) else { continue };
            if self.seals.get(&whose) == Some(&id) {
                self.seals.remove(&whose);
                let other = self.known.iter().find(|(_, other)| other.whose == whose);
                if let Some((other, _)) = other {
                    self.seals.insert(whose.clone(), *other);
                }
            }
            let (class, subject) = whose;
            self.destroying.insert(id, name(&class, &SubjectKey { id, key, subject }));
        }
    }

    /// Whether it is known here that they are erased.
    #[must_use]
    pub fn are_condemned(&self, ids: &[KeyId]) -> bool {
        ids.iter().all(|id| self.condemned.contains(id))
    }

    /// Condemned keys that are on this disk still, with their names.
    #[must_use]
    pub fn to_destroy(&self) -> Vec<(KeyId, String)> {
        self.destroying.iter().map(|(id, name)| (*id, name.clone())).collect()
    }

    /// No copy of the disk gives it any more.
    pub fn destroyed(&mut self, id: KeyId) {
        self.destroying.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> DataClass {
        DataClass::read(name).expect("valid")
    }

    fn key(number: u8, subject: &str) -> SubjectKey {
        SubjectKey { id: KeyId([number; 16]), key: SecretKey::new([number; 32]), subject: subject.to_owned() }
    }

    fn keep(subjects: &mut Subjects, of: &DataClass, by: &SubjectKey) {
        subjects.kept(by.id, by.key.clone(), &name(of, by));
    }

    #[test]
    fn a_key_seals_for_its_subject_and_class_alone() {
        let (mut subjects, personal, other) = (Subjects::default(), class("personal"), class("personal-eu"));
        let ann = key(1, "ann\nof two lines");
        keep(&mut subjects, &personal, &ann);
        assert_eq!(subjects.seals(&personal, "ann\nof two lines"), Some((ann.clone(), false)));
        subjects.is_firm(ann.id);
        assert_eq!(subjects.seals(&personal, "ann\nof two lines"), Some((ann.clone(), true)));
        assert_eq!(subjects.seals(&other, "ann\nof two lines"), None);
        assert_eq!(subjects.standing(&personal, ann.id), Standing::Here(ann.clone()));
        assert_eq!(
            subjects.standing(&other, ann.id),
            Standing::NotHere,
            "who holds another class is not handed it"
        );
    }

    #[test]
    fn a_condemned_key_opens_nothing_and_does_not_come_back() {
        let (mut subjects, personal) = (Subjects::default(), class("personal"));
        let (first, second, bob) = (key(1, "ann"), key(2, "ann"), key(3, "bob"));
        for by in [&first, &second, &bob] {
            keep(&mut subjects, &personal, by);
        }
        let mut ids = subjects.of(&personal, "ann");
        ids.sort();
        assert_eq!(ids, [first.id, second.id], "two nodes may have drawn one");
        subjects.condemn([first.id]);
        assert_eq!(subjects.standing(&personal, first.id), Standing::Erased);
        assert_eq!(subjects.seals(&personal, "ann").map(|(by, _)| by), Some(second.clone()));
        subjects.condemn(ids.clone());
        assert_eq!(subjects.seals(&personal, "ann"), None, "another one is drawn");
        assert_eq!(subjects.standing(&personal, bob.id), Standing::Here(bob.clone()));
        assert!(subjects.are_condemned(&ids) && !subjects.are_condemned(&[bob.id]));
        let names = [&first, &second].map(|by| (by.id, name(&personal, by)));
        assert_eq!(subjects.to_destroy(), names);
        assert_eq!(subjects.of(&personal, "ann").len(), 2, "until they are destroyed they are there");
        ids.iter().for_each(|id| subjects.destroyed(*id));
        assert!(subjects.to_destroy().is_empty() && subjects.of(&personal, "ann").is_empty());
        // A node that has not heard brings it once more, or it was on the disk.
        keep(&mut subjects, &personal, &first);
        assert_eq!(subjects.standing(&personal, first.id), Standing::Erased);
        assert_eq!(subjects.to_destroy(), [(first.id, name(&personal, &first))]);
    }

    #[test]
    fn two_majorities_have_a_node_in_common() {
        for nodes in 1..8 {
            assert!(2 * majority(nodes) > nodes && majority(nodes) <= nodes);
        }
    }
}
