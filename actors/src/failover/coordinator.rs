//! Who is lost, and what is to be done about it.
//!
//! * It decides: whether a node is suspected, or lost; the next change of a fence, one at a time.
//! * It never does: change a fence (a shell does, by compare-and-set, and reads all of them again), believe words that are not
//!   fresh, or confirm a loss by one observer, by one region, or by less than a majority of all that could see the node.
//!   Nor does it miss a node that was never there: one without a row, which it gets when it is heard for the first time.
//! * Invariants: an epoch is given away only after the fence was known here for the bound; so many nodes act for themselves
//!   that they are a majority.
//!
//! It runs on every node, so that whoever comes to hold the lease of the meta range has heard the others; what it decides is
//! carried out by the leaseholder alone.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, Mono, NodeId, Now};
use serde::{Deserialize, Serialize};

use super::FailoverSettings;
use super::fence::{Fence, Holder};
use super::messages::Beat;
use crate::Wire;

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum State {
    /// It acts for itself, and nobody finds it silent.
    Alive,
    /// It acts for itself, and somebody finds it silent.
    Suspected,
    /// It acts for itself as far as anybody can tell, and several observers have found it silent for long enough.
    Lost,
    /// Nobody acts as it, until every permit from before has ended.
    Fenced,
    /// Others act in its place.
    Away,
    /// Others act in its place, and most observers hear it again.
    Returning,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Alive, Self::Suspected, Self::Lost, Self::Fenced, Self::Away, Self::Returning];

    /// A short stable word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspected => "suspected",
            Self::Lost => "lost",
            Self::Fenced => "fenced",
            Self::Away => "away",
            Self::Returning => "returning",
        }
    }
}

/// A fence's row, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The fence.
    pub fence: Fence,
    /// When it was written. None: there is none yet.
    pub version: Option<HybridTime>,
}

/// A change of a fence, if it is still what was read. A node's first row is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub node: NodeId,
    /// When any of all fences was last written, as it was read: no other one may have been changed since, or too many could be.
    pub all_at: Option<HybridTime>,
    /// What was read.
    pub from: Row,
    /// What it becomes.
    pub to: Fence,
    /// Who finds the node silent.
    pub silent_to: Vec<NodeId>,
}

impl Change {
    /// Whether it is a node's first row: nobody acts as the node before.
    #[must_use]
    pub fn joins(&self) -> bool {
        self.from.version.is_none()
    }
}

/// How a node stands, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// Which node.
    pub node: NodeId,
    /// How.
    pub state: State,
    /// Its fence.
    pub fence: Fence,
    /// Who says that it is silent.
    pub silent_to: Vec<NodeId>,
    /// Who hears it.
    pub heard_by: Vec<NodeId>,
}

/// What the observers say of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    silent: Vec<NodeId>,
    hear: Vec<NodeId>,
    /// How many could see it.
    observers: usize,
}

impl Said {
    /// Several observers of several regions, and a majority of all.
    fn lost(&self) -> bool {
        if canary::sings(Canary::OneObserverConfirms) {
            return !self.silent.is_empty();
        }
        let regions: BTreeSet<_> = self.silent.iter().map(|node| &node.region).collect();
        regions.len() >= 2 && 2 * self.silent.len() > self.observers
    }

    /// More hear it than do not, of those who say anything: others may be lost themselves. A mistake here harms nobody.
    fn heard(&self) -> bool {
        self.hear.len() > self.silent.len()
    }
}

/// The machine. See the module's words.
#[derive(Debug)]
pub struct Coordinator {
    settings: FailoverSettings,
    nodes: Vec<NodeId>,
    /// The last word of each observer, this node among them, and when it came.
    words: BTreeMap<NodeId, (Mono, Beat)>,
    /// Since when a node has been found silent by enough.
    lost_since: BTreeMap<NodeId, Mono>,
    looked: Mono,
    /// The fences, and since when each is known to be so by this node's clocks. None: they were not read under this lease.
    rows: Option<BTreeMap<NodeId, (Row, Now)>>,
    /// When any of them was last written.
    all_at: Option<HybridTime>,
}

impl Coordinator {
    /// For the founding nodes.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, settings: FailoverSettings, now: Mono) -> Self {
        Self {
            settings,
            nodes: nodes.into_iter().collect(),
            words: BTreeMap::new(),
            lost_since: BTreeMap::new(),
            looked: now,
            rows: None,
            all_at: None,
        }
    }

    /// An observer, or this node, says whom it does not hear.
    pub fn heard(&mut self, now: Mono, from: &NodeId, word: Beat) {
        if self.nodes.contains(from) {
            self.words.insert(from.clone(), (now, word));
        }
    }

    /// Time goes on. To be called once a beat at least, with or without the lease.
    pub fn look(&mut self, now: Mono) {
        if now.since(self.looked) > 2 * self.settings.beat {
            // It did not run: words may wait that say otherwise.
            self.lost_since.clear();
        }
        self.looked = now;
        for node in &self.nodes {
            if self.said(now, node).lost() {
                self.lost_since.entry(node.clone()).or_insert(now);
            } else {
                self.lost_since.remove(node);
            }
        }
    }

    /// This node does not hold the lease of the meta range: what it knew of the fences may be old.
    pub fn deposed(&mut self) {
        self.rows = None;
    }

    /// The fences were read strongly, under the lease, with when any of them was last written; the answer came now.
    pub fn read(&mut self, now: Now, all_at: Option<HybridTime>, mut rows: BTreeMap<NodeId, Row>) {
        self.all_at = all_at;
        let before = self.rows.take().unwrap_or_default();
        let known = self.nodes.iter().map(|node| {
            let none = Row { fence: Fence::default(), version: None };
            let row = rows.remove(node).unwrap_or(none);
            let since = match before.get(node) {
                Some((same, since)) if *same == row => *since,
                _ => now,
            };
            (node.clone(), (row, since))
        });
        self.rows = Some(known.collect());
    }

    /// The next change, if one is due.
    #[must_use]
    pub fn decide(&self, now: Now) -> Option<Change> {
        let rows = self.rows.as_ref()?;
        let not_themselves = rows.values().filter(|(row, _)| row.fence.holder != Holder::Itself).count();
        // What waits for somebody comes first.
        let due = rows.iter().find_map(|(node, (row, since))| {
            let said = self.said(now.mono, node);
            let bound = self.settings.bound();
            let over = now.hybrid > since.hybrid.plus(bound) && now.mono > since.mono.plus(bound);
            let over = over || canary::sings(Canary::ActsBeforeFence);
            let to = match row.fence.holder {
                Holder::Nobody if over && said.heard() => row.fence.held_by(Holder::Itself),
                Holder::Nobody if over => row.fence.held_by(Holder::Others),
                Holder::Others if said.heard() => row.fence.raised(),
                _ => return None,
            };
            Some(self.changes(node, *row, to, said.silent))
        });
        let joins = || {
            let heard = |node: &NodeId| {
                self.words.get(node).is_some_and(|(came, _)| now.mono.since(*came) <= self.settings.fresh)
            };
            let new = rows.iter().find(|(node, (row, _))| row.version.is_none() && heard(node));
            let (node, (from, _)) = new?;
            Some(self.changes(node, *from, from.fence, Vec::new()))
        };
        due.or_else(joins).or_else(|| {
            // One more that does not act for itself, and the rest must be a majority.
            let may = 2 * (not_themselves + 1) < self.nodes.len();
            let was_there = |row: &Row| row.version.is_some() && row.fence.holder == Holder::Itself;
            let lost = rows.iter().find(|(node, (row, _))| was_there(row) && self.is_lost(now.mono, node));
            let (node, (row, _)) = lost.filter(|_| may)?;
            let silent_to = self.said(now.mono, node).silent;
            Some(self.changes(node, *row, row.fence.raised(), silent_to))
        })
    }

    /// How all nodes stand; of the fences what was read last under this lease.
    #[must_use]
    pub fn stands(&self, now: Mono) -> Vec<Stands> {
        let one = |node: &NodeId| {
            let said = self.said(now, node);
            let fence = self.rows.as_ref().and_then(|rows| rows.get(node)).map(|(row, _)| row.fence);
            let fence = fence.unwrap_or_default();
            let state = match fence.holder {
                Holder::Nobody => State::Fenced,
                Holder::Others if said.heard() => State::Returning,
                Holder::Others => State::Away,
                Holder::Itself if self.is_lost(now, node) => State::Lost,
                Holder::Itself if !said.silent.is_empty() => State::Suspected,
                Holder::Itself => State::Alive,
            };
            Stands { node: node.clone(), state, fence, silent_to: said.silent, heard_by: said.hear }
        };
        self.nodes.iter().map(one).collect()
    }

    /// Whether the fences were read under this lease.
    #[must_use]
    pub fn coordinates(&self) -> bool {
        self.rows.is_some()
    }

    fn changes(&self, node: &NodeId, from: Row, to: Fence, silent_to: Vec<NodeId>) -> Change {
        Change { node: node.clone(), all_at: self.all_at, from, to, silent_to }
    }

    fn is_lost(&self, now: Mono, node: &NodeId) -> bool {
        let since = self.lost_since.get(node);
        since.is_some_and(|since| now.since(*since) >= self.settings.confirm_after)
            && self.said(now, node).lost()
    }

    /// What fresh words of observers that have listened say of a node. It is no observer of itself.
    fn said(&self, now: Mono, node: &NodeId) -> Said {
        let mut said = Said { observers: self.nodes.len().saturating_sub(1), ..Said::default() };
        for (observer, (came, word)) in &self.words {
            if observer == node || !word.settled || now.since(*came) > self.settings.fresh {
                continue;
            }
            let list = if word.silent.contains(node) { &mut said.silent } else { &mut said.hear };
            list.push(observer.clone());
        }
        said
    }
}
