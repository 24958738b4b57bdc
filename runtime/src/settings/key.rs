//! A key of the settings: everything that is known of it, declared once.

use std::fmt;

use rhumb_core::{NodeId, NodeName};
use sha2::{Digest, Sha256};

use super::draft::Draft;
use super::keys::{SECTIONS, Section, keys};
use super::kind::{Kind, Value};

/// Stands in a key's name for a node of the region.
const NODE: &str = "*";
/// Stands in a key's name for a node of the mesh, `REGION/NODE`.
const ANY_NODE: &str = "*/*";

/// A key: its name, what it takes, what it means, and where its value goes.
pub struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) what: &'static str,
    pub(super) field: Field,
    /// Takes effect in a running node.
    pub(super) running: bool,
    /// There is no node without it.
    pub(super) needed: bool,
    /// Only ever shown as a hash.
    pub(super) secret: bool,
}

/// Where a key's value stands in the typed settings.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// Its value; of a fresh draft it is the built-in one.
    pub(super) get: fn(&Draft) -> Option<Value>,
    /// Puts a value there; the text is the last part of the key. Refuses, with the reason where there is
    /// one to tell, what does not parse.
    pub(super) set: fn(&mut Draft, &str, Value) -> Result<(), String>,
}

/// What a dotted name leads to.
pub(super) enum Lookup {
    Key(&'static Key),
    Section,
    /// It stands where the name of a node is expected, and is none.
    NotANode(String),
    Unknown,
}

impl Key {
    pub(super) const fn new(name: &'static str, kind: Kind, field: Field, what: &'static str) -> Self {
        Self { name, kind, what, field, running: false, needed: false, secret: false }
    }

    /// A running node takes up a change of it.
    pub(super) const fn running(self) -> Self {
        Self { running: true, ..self }
    }

    /// A node does not start without it.
    pub(super) const fn needed(self) -> Self {
        Self { needed: true, ..self }
    }

    /// Its value is never shown.
    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// Its name, dotted; `*` stands for a node's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether a running node takes up a change of it.
    #[must_use]
    pub fn changes_while_running(&self) -> bool {
        self.running
    }

    /// Whether its value is only ever shown as a hash.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether each node of a region has its own.
    pub(super) fn is_of_each_node(&self) -> bool {
        self.name.split('.').any(|part| part == NODE)
    }

    /// A value as it may be shown to anybody.
    pub(super) fn shown(&self, value: &Value) -> String {
        if !self.secret {
            return self.kind.show(value);
        }
        let plain = match value {
            Value::Text(text) => text.clone(),
            value => self.kind.show(value),
        };
        let hash = Sha256::digest(plain);
        let start: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{start}")
    }

    /// The variable of the environment that sets it, or a part of its name.
    pub(super) fn variable(&self) -> String {
        let parts = self.name.split('.').map(|part| match part {
            NODE => "NODE".to_owned(),
            ANY_NODE => "REGION__NODE".to_owned(),
            part => part.to_uppercase(),
        });
        format!("{PREFIX}{}", parts.collect::<Vec<_>>().join("__"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

/// How the environment's variables begin.
pub(super) const PREFIX: &str = "RHUMB__";

/// The key of a dotted name.
#[must_use]
pub fn key_of(dotted: &str) -> Option<&'static Key> {
    match lookup(SECTIONS, &dotted.split('.').collect::<Vec<_>>()) {
        Lookup::Key(key) => Some(key),
        _ => None,
    }
}

/// What these parts of a name lead to.
pub(super) fn lookup(sections: &'static [Section], parts: &[&str]) -> Lookup {
    let mut found = Lookup::Unknown;
    for key in keys(sections) {
        let mut pattern = key.name.split('.');
        let mut wrong = None;
        let leads = parts.iter().all(|part| match pattern.next() {
            Some(NODE) => {
                wrong = wrong.take().or(NodeName::new(part).err().map(|e| e.to_string()));
                true
            }
            Some(ANY_NODE) => {
                wrong = wrong.take().or(part.parse::<NodeId>().err().map(|e| e.to_string()));
                true
            }
            expected => expected == Some(part),
        });
        match (leads, wrong, pattern.next()) {
            (false, ..) => {}
            (true, Some(wrong), _) => return Lookup::NotANode(wrong),
            (true, None, None) => return Lookup::Key(key),
            (true, None, Some(_)) => found = Lookup::Section,
        }
    }
    found
}

/// The key that a variable's name (without [`PREFIX`]) sets, with its dotted name.
pub(super) fn of_variable(sections: &'static [Section], name: &str) -> Option<(&'static Key, String)> {
    keys(sections).find_map(|key| {
        let mut parts = name.split("__");
        let mut dotted = Vec::new();
        // A node's name has '-' where a variable's must have '_'.
        let name_of = |part: &str| {
            let name = part.to_lowercase().replace('_', "-");
            (name.to_uppercase().replace('-', "_") == part).then_some(name)
        };
        for pattern in key.name.split('.') {
            let part = parts.next()?;
            dotted.push(match pattern {
                NODE => NodeName::new(&name_of(part)?).ok()?.to_string(),
                ANY_NODE => NodeId::new(&name_of(part)?, &name_of(parts.next()?)?).ok()?.to_string(),
                pattern => (pattern.to_uppercase() == part).then(|| pattern.to_owned())?,
            });
        }
        parts.next().is_none().then(|| (key, dotted.join(".")))
    })
}

/// The known name that was probably meant by one that is not known.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let each = known.into_iter().map(|known| (strsim::damerau_levenshtein(wrong, known), known));
    let (distance, known) = each.min()?;
    (distance <= (wrong.len() / 3).max(1)).then_some(known)
}
