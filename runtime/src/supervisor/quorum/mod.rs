//! Pools with `durability=quorum`: the rows of each owner's ledger stand in the range of its pool, and some node writes
//! them: the owner, or whoever acts in its place.
//!
//! * It decides: which ledgers this node is to write, by the fences it read last; where a request goes.
//! * It never does: rest on a fence or a clock for what is safe. A ledger's head decides who writes it
//!   ([`rhumb_actors::escrow::tenure`]), and nothing is acknowledged that the range has not.

mod create;
mod route;
mod serve;
mod world;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::ArbiterHandle;
use parking_lot::{Mutex, RwLock};
use rhumb_actors::escrow::messages::Standing;
use rhumb_actors::escrow::tenure::{spec_key, spec_of};
use rhumb_actors::escrow::{EscrowHandle, EscrowSettings, PoolReport};
use rhumb_core::{DataClass, NodeId, PoolName, Region};
use rhumb_topology::{Founding, pool_home};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub(super) use self::serve::{Desk, serve};
use super::policy::ServedPolicy;
use super::ranges::{Acts, Ranges};
use crate::clock::NodeClock;
use crate::mesh::Mesh;

/// How often it is looked at which ledgers are to be written here.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How seldom it is read at the most what a pool is that was begun and that nobody mints. Who asks for it has it read at once.
const READ_AT_LEAST: Duration = Duration::from_secs(8);

/// What it is made of.
pub(super) struct Parts {
    pub(super) me: NodeId,
    pub(super) founding: Founding,
    pub(super) settings: EscrowSettings,
    pub(super) ranges: Ranges,
    pub(super) mesh: Mesh,
    pub(super) clock: NodeClock,
    pub(super) policy: ServedPolicy,
    /// The node's own escrow: of pools whose rows are on its disk.
    pub(super) local: EscrowHandle,
    pub(super) standing: watch::Receiver<Standing>,
    /// Where ledgers run.
    pub(super) arbiter: ArbiterHandle,
}

/// A pool that has a range.
#[derive(Debug, Clone)]
struct Known {
    class: DataClass,
    /// The nodes that hold rights of it; none: it is not known yet, for it was not minted when that was read.
    owners: Option<Arc<Vec<NodeId>>>,
}

/// A ledger that is written here, or is about to be.
struct Ledger {
    opening: u64,
    /// Once its rows were read.
    handle: Option<EscrowHandle>,
    task: Option<AbortHandle>,
    /// Why its range takes no more of it, once it does not.
    refused: Arc<OnceLock<String>>,
}

/// How often it is read what a pool is, until that is known.
#[derive(Debug)]
struct Reading {
    busy: bool,
    next: Instant,
    pause: Duration,
}

impl Reading {
    fn new(now: Instant) -> Self {
        Self { busy: false, next: now, pause: LOOK_EVERY }
    }

    /// Whether it is to be read now.
    fn begins(&mut self, now: Instant, asked: bool) -> bool {
        let begins = !self.busy && (asked || now >= self.next);
        self.busy |= begins;
        begins
    }

    /// It was read, and was not minted.
    fn ended(&mut self, now: Instant) {
        self.busy = false;
        self.next = now + self.pause;
        self.pause = (self.pause * 2).min(READ_AT_LEAST);
    }
}

struct Inner {
    parts: Parts,
    known: RwLock<BTreeMap<PoolName, Known>>,
    ledgers: Mutex<BTreeMap<(PoolName, NodeId), Ledger>>,
    /// Pools of which it is not known yet what they are.
    reading: Mutex<BTreeMap<PoolName, Reading>>,
    /// Pools that are just being created.
    creating: Mutex<BTreeSet<PoolName>>,
    openings: AtomicU64,
}

/// The pools of this mesh with `durability=quorum`, as this node serves them. Clones are one.
#[derive(Clone)]
pub(super) struct Quorum(Arc<Inner>);

impl Quorum {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            known: RwLock::default(),
            ledgers: Mutex::default(),
            reading: Mutex::default(),
            creating: Mutex::default(),
            openings: AtomicU64::new(0),
        }))
    }

    /// Writes the ledgers that are this node's to write. It does not end.
    pub(super) fn spawned(&self) -> tokio::task::JoinHandle<()> {
        let here = self.clone();
        self.0.parts.ranges.spawn(async move {
            loop {
                here.look();
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// What this node's own ledgers say of themselves.
    pub(super) async fn reports(&self) -> Vec<PoolReport> {
        let own: Vec<EscrowHandle> = {
            let ledgers = self.0.ledgers.lock();
            let own = ledgers.iter().filter(|((_, owner), _)| *owner == self.0.parts.me);
            own.filter_map(|(_, ledger)| ledger.handle.clone()).collect()
        };
        let mut reports = Vec::new();
        for handle in own {
            reports.extend(handle.report().await.map(|report| report.pools).unwrap_or_default());
        }
        reports
    }

    /// Follows the meta range and the fences once.
    fn look(&self) {
        for (pool, class) in self.0.parts.ranges.pools() {
            let known = {
                let mut known = self.0.known.write();
                let new = || Known { class: class.clone(), owners: None };
                known.entry(pool.clone()).or_insert_with(new).clone()
            };
            if known.owners.is_none() {
                self.read_spec(&pool, &class, false);
            }
            let home = [pool_home(&self.0.parts.founding, &pool).clone()];
            let owners = known.owners.as_ref().map_or(&home[..], |owners| owners.as_slice());
            for owner in owners {
                self.follow(&pool, &class, owner, owners);
            }
        }
    }

    /// Begins to write a ledger, or lets it go, as the fences say.
    fn follow(&self, pool: &PoolName, class: &DataClass, owner: &NodeId, owners: &[NodeId]) {
        let acts = self.0.parts.ranges.acts(&self.order(owner, owners, class));
        let mine = acts == Acts::This(self.0.parts.me.clone());
        let may = self.0.parts.ranges.permitted();
        let of = (pool.clone(), owner.clone());
        let open = self.0.ledgers.lock().contains_key(&of);
        match (mine, open) {
            (true, false) if may => self.open(of, class.clone()),
            (false, true) => {
                self.close(&of, None, "another node acts in its owner's place, or its owner itself")
            }
            _ => {}
        }
    }

    fn open(&self, of: (PoolName, NodeId), class: DataClass) {
        let now = self.0.parts.clock.hybrid().to_bits();
        let raise = |last: u64| Some(now.max(last + 1));
        let before = self.0.openings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raise);
        let opening = now.max(before.unwrap_or_default() + 1);
        let ledger = Ledger { opening, handle: None, task: None, refused: Arc::default() };
        self.0.ledgers.lock().insert(of.clone(), ledger);
        let (here, at) = (self.clone(), of.clone());
        let task = self.0.parts.ranges.spawn(async move { here.writes(at, class, opening).await });
        if let Some(ledger) = self.0.ledgers.lock().get_mut(&of).filter(|ledger| ledger.opening == opening) {
            ledger.task = Some(task.abort_handle());
        }
    }

    /// A ledger is written here no more: that of this opening, or whichever it is.
    fn close(&self, of: &(PoolName, NodeId), opening: Option<u64>, why: &str) {
        let ledger = {
            let mut ledgers = self.0.ledgers.lock();
            let is = |ledger: &Ledger| opening.is_none_or(|opening| ledger.opening == opening);
            if !ledgers.get(of).is_some_and(is) {
                return;
            }
            ledgers.remove(of)
        };
        let Some(Ledger { handle, task, .. }) = ledger else { return };
        tracing::info!(pool = %of.0, owner = %of.1, why, "its ledger is not written here any more");
        self.0.parts.ranges.spawn(async move {
            if let Some(handle) = handle {
                handle.stop().await;
            }
            if let Some(task) = task {
                task.abort();
            }
        });
    }

    /// Reads what a pool is: its owners follow from that, for ever. At once where somebody asks for it.
    fn read_spec(&self, pool: &PoolName, class: &DataClass, asked: bool) {
        let now = Instant::now();
        let begins = {
            let mut reading = self.0.reading.lock();
            reading.entry(pool.clone()).or_insert_with(|| Reading::new(now)).begins(now, asked)
        };
        if !begins {
            return;
        }
        let (here, pool, class) = (self.clone(), pool.clone(), class.clone());
        self.0.parts.ranges.spawn(async move {
            here.learn(&pool, &class).await;
            let minted = here.known(&pool).is_some_and(|known| known.owners.is_some());
            let mut reading = here.0.reading.lock();
            if minted {
                reading.remove(&pool);
            } else if let Some(reading) = reading.get_mut(&pool) {
                reading.ended(Instant::now());
            }
        });
    }

    async fn learn(&self, pool: &PoolName, class: &DataClass) {
        let Parts { founding, ranges, .. } = &self.0.parts;
        let row = match ranges.pool_row((pool, class), spec_key(founding, pool)).await {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(why) => return tracing::debug!(%pool, %why, "what it is could not be read"),
        };
        let spec = match spec_of(pool, &row) {
            Ok(spec) => spec,
            Err(why) => return tracing::error!(%pool, why, "its row in its range cannot be read"),
        };
        let part = |node: &&NodeId| spec.weights.contains_key(&node.region);
        let owners = founding.nodes().iter().filter(part).cloned().collect();
        let known = Known { class: class.clone(), owners: Some(Arc::new(owners)) };
        self.0.known.write().insert(pool.clone(), known);
    }

    /// Who writes an owner's ledger: it; where it is away the next of the owners, and so on. Not one whose region may not
    /// hold the class any more. Nodes that go by different policies may differ: the head of the ledger judges.
    fn order(&self, owner: &NodeId, owners: &[NodeId], class: &DataClass) -> Vec<NodeId> {
        let at = owners.iter().position(|one| one == owner).unwrap_or_default();
        let policy = &self.0.parts.policy;
        let may = |node: &&NodeId| policy.permits(&node.region, rhumb_topology::policy::Use::Hold, class);
        owners[at..].iter().chain(&owners[..at]).filter(may).cloned().collect()
    }

    fn known(&self, pool: &PoolName) -> Option<Known> {
        self.0.known.read().get(pool).cloned()
    }
}

/// The regions of the mesh that may hold a class.
fn holders(parts: &Parts, class: &DataClass) -> Vec<Region> {
    let regions = parts.founding.regions().into_iter();
    let holds = |region: &&Region| parts.policy.permits(region, rhumb_topology::policy::Use::Hold, class);
    regions.filter(holds).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_nobody_mints_is_read_ever_less_often_and_at_once_when_asked_for() {
        let begun = Instant::now();
        let (mut reading, mut now, mut reads) = (Reading::new(begun), begun, 0);
        while now < begun + Duration::from_secs(60) {
            if reading.begins(now, false) {
                assert!(!reading.begins(now, true), "one at a time");
                reads += 1;
                reading.ended(now);
            }
            now += LOOK_EVERY;
        }
        assert!((8..16).contains(&reads), "{reads} readings in a minute");
        assert!(!reading.begins(now, false) && reading.begins(now, true));
    }
}
