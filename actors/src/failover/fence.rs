//! Fences: under which epoch a node acts, and who reads that may act by it.
//!
//! * It decides: what may follow what in a fence; for how long a reading of all fences counts; who of several nodes acts.
//! * It never does: let an epoch be held by two, count a reading from when its answer came, or let a node act of which there is no row:
//!   nobody would miss it.
//! * Invariant: between two holders of a node's fence there is an epoch that nobody holds, until the bound has passed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Epoch, NodeId, Now};
use serde::{Deserialize, Serialize};

/// How long reading two clocks may take, with a tick of the kernel's between them, in milliseconds.
const STANDS_MS: u64 = 50;

/// Who acts as a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// The node.
    Itself,
    /// Nobody: whoever did may not have heard of it yet.
    Nobody,
    /// Others, in its place.
    Others,
}

/// The fence of a node: a row of the meta range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// It only rises.
    pub epoch: Epoch,
    /// Who acts under it. One that somebody holds is held by nobody else, ever.
    pub holder: Holder,
}

impl Default for Fence {
    /// That of a node's first row.
    fn default() -> Self {
        Self { epoch: Epoch(1), holder: Holder::Itself }
    }
}

impl Fence {
    /// The next epoch, which nobody holds.
    #[must_use]
    pub fn raised(self) -> Self {
        Self { epoch: self.epoch.next(), holder: Holder::Nobody }
    }

    /// This epoch, for whoever is to hold it.
    #[must_use]
    pub fn held_by(self, holder: Holder) -> Self {
        Self { holder, ..self }
    }

    /// Whether the one may follow the other: the next epoch for nobody, or this one, which nobody held, for somebody.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        match (self.holder, next.holder) {
            (Holder::Nobody, Holder::Itself | Holder::Others) => next.epoch == self.epoch,
            (Holder::Itself | Holder::Others, Holder::Nobody) => next.epoch == self.epoch.next(),
            _ => false,
        }
    }
}

/// Who acts where several could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This one, under this epoch of its own.
    Acts(&'a NodeId, Epoch),
    /// Nobody, until it is known who acts as this one.
    Fenced(&'a NodeId),
    /// There is none.
    None,
}

/// All fences, as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<NodeId, Fence>);

impl Table {
    /// Of rows. As a node without one nobody acts, neither itself nor others: it has not been heard yet.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = (NodeId, Fence)>) -> Self {
        Self(rows.into_iter().collect())
    }

    /// A node's.
    #[must_use]
    pub fn fence(&self, node: &NodeId) -> Fence {
        self.0.get(node).copied().unwrap_or(Fence { holder: Holder::Nobody, ..Fence::default() })
    }

    /// Whether no node has a row, as before any reading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one may have been read after the other one: neither changes nor rows are ever taken back.
    fn may_follow(&self, other: &Self) -> bool {
        self.changes() >= other.changes() && self.0.len() >= other.0.len()
    }

    /// All that have a row.
    pub fn fences(&self) -> impl Iterator<Item = &Fence> {
        self.0.values()
    }

    /// Who acts, of these in their order of preference: the first in whose place no others act. If nobody may act as that
    /// one, nobody does.
    pub fn owner<'a>(&self, order: impl IntoIterator<Item = &'a NodeId>) -> Owner<'a> {
        for node in order {
            let Fence { epoch, holder } = self.fence(node);
            match holder {
                Holder::Itself => return Owner::Acts(node, epoch),
                Holder::Nobody => return Owner::Fenced(node),
                Holder::Others => {}
            }
        }
        Owner::None
    }
}

/// What a node may act by, and until when.
#[derive(Debug, Clone)]
pub struct Permits {
    lasts: Duration,
    table: Arc<Table>,
    /// By both clocks: a machine may sleep, and hybrid time may stand still.
    until: Now,
}

impl Permits {
    /// None yet.
    #[must_use]
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, table: Arc::default(), until: Now::default() }
    }

    /// All fences were read strongly: asked for at one time, answered at another one.
    pub fn read(&mut self, asked: Now, answered: Now, table: Arc<Table>) {
        let from = if canary::sings(Canary::PermitFromAnswer) { answered } else { asked };
        let until = Now { hybrid: from.hybrid.plus(self.lasts), mono: from.mono.plus(self.lasts) };
        // An earlier question may be answered later. What it has read may be newer all the same, and the other way round: a newer
        // reading than one that counts until then counts as long.
        if until.mono > self.until.mono {
            self.until = until;
        }
        if table.may_follow(&self.table) {
            self.table = table;
        }
    }

    /// What the node may act by now, while the wall clock shows this.
    #[must_use]
    pub fn at(&self, now: Now, wall_ms: u64) -> Option<&Arc<Table>> {
        let goes = now.mono < self.until.mono && !stands_still(now, wall_ms);
        let goes = goes || canary::sings(Canary::StandingClockActs);
        let goes = goes && now.hybrid < self.until.hybrid || canary::sings(Canary::ActsWithoutPermit);
        goes.then_some(&self.table)
    }

    /// What was read last, whether or not it still counts.
    #[must_use]
    pub fn last(&self) -> &Arc<Table> {
        &self.table
    }
}

/// Whether hybrid time has stopped at its ceiling, as it does when the disk has, or when the machine has slept: it is never
/// behind the wall clock otherwise.
#[must_use]
pub fn stands_still(now: Now, wall_ms: u64) -> bool {
    wall_ms > now.hybrid.millis() + STANDS_MS
}
