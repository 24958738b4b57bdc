//! Settings of a running node: read anew on demand, heard of by whom they concern.
//!
//! * It decides: which of the changed keys a running node takes up, and which wait for its next start.
//! * It never does: take up a part of settings that have a fault. Then nothing changes at all.
//! * Invariant: what [`Live::now`] gives is what the node runs with: a key that cannot change while
//!   running keeps the value of the start.

use std::fmt;
use std::sync::Arc;

use rhumb_core::NodeName;
use tokio::sync::watch;

use super::fault::{Fault, Faults, Place};
use super::key::Key;
use super::layer::Entry;
use super::source::{Source, Unsure};
use super::{Entries, Settings};

/// The settings that a node runs with. Cloneable; all clones are one.
#[derive(Clone)]
pub struct Live {
    source: Arc<Source>,
    now: watch::Sender<Arc<Settings>>,
}

impl Live {
    /// Reads the settings of a node for its start.
    ///
    /// # Errors
    /// Every fault of every layer.
    pub fn load(source: Source, node: Option<&NodeName>) -> Result<Self, Faults> {
        let settings = source.load(node)?;
        Ok(Self { source: Arc::new(source), now: watch::Sender::new(Arc::new(settings)) })
    }

    /// What the node runs with.
    #[must_use]
    pub fn now(&self) -> Arc<Settings> {
        Arc::clone(&self.now.borrow())
    }

    /// Hears of every reload that had no fault, also of one that changed no key: what the settings
    /// point to (a certificate, a policy) may have changed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Settings>> {
        self.now.subscribe()
    }

    /// The layers that are read.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads all layers anew and takes up what may change in a running node.
    ///
    /// # Errors
    /// Every fault of every layer; then nothing was changed.
    pub fn reload(&self) -> Result<Reloaded, Faults> {
        let before = self.now();
        let new = self.source.load(Some(&before.me.name))?;
        let differences = differences(&before.entries, &new.entries);
        let (applied, waiting): (Vec<_>, _) = differences.into_iter().partition(|d| d.key.running);
        let mut entries = new.entries;
        for stays in &waiting {
            match &stays.left {
                Some(entry) => entries.insert(stays.name.clone(), entry.clone()),
                None => entries.remove(&stays.name),
            };
        }
        // What is new must also go with what stays as it was.
        let after = self.source.assemble(before.me.clone(), entries, &Unsure::default());
        let after = after.map_err(|faults| self.source.faults(faults))?;
        if let Some(older) = older_policy(&before, &after) {
            return Err(self.source.faults(vec![older]));
        }
        self.now.send_replace(Arc::new(after));
        Ok(Reloaded { applied, waiting })
    }
}

fn older_policy(before: &Settings, after: &Settings) -> Option<Fault> {
    let (old, new) = (before.policy.as_ref()?.policy.version, after.policy.as_ref()?.policy.version);
    let place = after.entries.get("policy.file").and_then(|entry| entry.place.clone());
    let what = format!(
        "policy.file: the policy has version {new}, but this node serves under version {old}: an older policy is \
         not taken back; sign one with a higher version"
    );
    (new < old).then(|| Fault::new(place.unwrap_or_else(|| Place::whole("policy.toml")), what))
}

/// What a reload did.
#[derive(Debug)]
pub struct Reloaded {
    /// Changed, and taken up.
    pub applied: Vec<Difference>,
    /// Changed, but only a start takes it up.
    pub waiting: Vec<Difference>,
}

/// A key whose value is not the same on two sides.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Its dotted name.
    pub name: String,
    /// The key.
    pub key: &'static Key,
    /// One side; none where it is not set.
    pub left: Option<Entry>,
    /// The other.
    pub right: Option<Entry>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |side: &Option<Entry>| side.as_ref().map_or_else(|| "not set".to_owned(), Entry::shown);
        write!(f, "{}: {} → {}", self.name, shown(&self.left), shown(&self.right))
    }
}

/// The keys whose values differ, in the order of their names. Where a value was set does not matter.
#[must_use]
pub fn differences(left: &Entries, right: &Entries) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, entry) in left {
        let other = right.get(name);
        if other.is_none_or(|other| other.value != entry.value) {
            let (left, right) = (Some(entry.clone()), other.cloned());
            found.push(Difference { name: name.clone(), key: entry.key, left, right });
        }
    }
    for (name, entry) in right.iter().filter(|(name, _)| !left.contains_key(*name)) {
        found.push(Difference { name: name.clone(), key: entry.key, left: None, right: Some(entry.clone()) });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
