//! The ranges of a node: where their shell meets the disk, the mesh and whoever reads and writes.
//!
//! * It decides: when replicas start (a node whose disk is not proven starts none, nor one whose disk was put back), who founds the meta range, which keyspaces
//!   of the meta range have a replica here, and which node a call goes on to.
//! * It never does: found a meta range where one may be, or keep a replica of a class that the policy does not let this region
//!   hold.

mod bounds;
mod carry;
mod catalog;
mod erasing;
mod failover;
mod for_actors;
mod integrity;
mod lifecycle;
mod lifetimes;
mod locate;
pub(crate) mod old_copy;
mod passing;
mod placement;
mod plan;
mod pools;
mod reads;
mod rejoin;
mod route;
mod serve;
mod snapshots;
mod split;
mod staleness;
mod subjects;
mod tokens;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use rhumb_actors::audit::AuditHandle;
use rhumb_actors::escrow::messages::Standing;
use rhumb_actors::ranges::catalog::{Founder, Keyspace, META, RangeRow};
use rhumb_actors::ranges::host::{Host, HostSettings};
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::ranges::raft::disk::HotDisk;
use rhumb_actors::ranges::raft::{Around, Disk, RaftSettings, TokioRuntime};
use rhumb_actors::ranges::splitting::SplitSettings;
use rhumb_actors::ranges::subjects::Subjects;
use rhumb_actors::ranges::{RangeId, RangeSettings, TokenKey, TokenKeys};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{ClusterId, DataClass, NodeId, StoreId};
use rhumb_storage::{DataDir, HotStore};
use rhumb_topology::Founding;
use tokio::sync::watch;

pub(super) use carry::TimeIsGood;
use carry::{Carrier, Classes, RangeWorld};
use locate::Hints;
pub(super) use pools::{Acts, Unread};
pub(super) use serve::serve;

use super::halt::Halt;
use super::policy::ServedPolicy;
use crate::clock::NodeClock;
use crate::mesh::Mesh;
use crate::mesh::owners::Owners;

const NOT_PROVEN: &str = "the node's ranges have not started: its disk is not proven yet, see `rhumb status`";
const OLD_COPY: &str = "the node's ranges do not start: its disk was put back, and their replicas have forgotten how they voted \
                        since. Stop the node, run `rhumb mesh new-ranges` where its disk is, and start it again";

/// How long whoever is refused for the moment is told to wait.
const A_MOMENT: std::time::Duration = std::time::Duration::from_millis(200);

/// What a node's ranges are made of.
pub(super) struct Parts {
    pub(super) me: NodeId,
    /// Which store the ranges of this disk are: [`old_copy::store_id`].
    pub(super) store_id: StoreId,
    pub(super) cluster: ClusterId,
    pub(super) founding: Founding,
    pub(super) max_offset: std::time::Duration,
    /// How long other stores' support lasts.
    pub(super) support: std::time::Duration,
    /// When ranges are split without being told to.
    pub(super) splits: SplitSettings,
    /// After how long a replica whose node is away is replaced.
    pub(super) replace_after: Option<std::time::Duration>,
    /// How often the replicas of a range are compared.
    pub(super) compare_every: Option<std::time::Duration>,
    /// Whether learners are fed by nearer replicas than the leader.
    pub(super) feeds: bool,
    /// The data directory.
    pub(super) data: std::path::PathBuf,
    pub(super) tokens: [u8; 32],
    pub(super) store: HotStore,
    /// Its control store remembers the cluster version. Its lock ends with the node, whoever still holds this.
    pub(super) dir: Weak<DataDir>,
    pub(super) mesh: Mesh,
    /// What this node may act by, as the mesh asks it.
    pub(super) owners: Owners,
    pub(super) clock: NodeClock,
    pub(super) policy: ServedPolicy,
    pub(super) log: AuditHandle,
    pub(super) halt: Halt,
    /// Whether the disk is the one that the mesh knows.
    pub(super) standing: watch::Receiver<Standing>,
    pub(super) time_is_good: TimeIsGood,
    /// The one thread on which all of it runs: consensus, and what it is asked.
    pub(super) runtime: tokio::runtime::Handle,
}

struct Inner {
    parts: Parts,
    disk: Arc<dyn Disk>,
    host: OnceLock<Host<TokioRuntime>>,
    /// The replicas here are an older copy, of which nobody has said what becomes of it.
    is_old_copy: AtomicBool,
    tokens: tokens::Tokens,
    classes: Classes,
    keyspaces: RwLock<BTreeMap<String, Keyspace>>,
    /// Those that are purged, whose rows are cleared away.
    purged: RwLock<Vec<Keyspace>>,
    founders: RwLock<BTreeMap<NodeId, Founder>>,
    /// Where replicas of the meta range are wanted, once one was replaced.
    meta: RwLock<Option<RangeRow>>,
    /// Which range a key that is not here is of, as another node has said, and until when that is believed.
    hints: Mutex<Hints>,
    nearness: passing::Nearness,
    /// Ranges of which something is just being told to the meta range.
    telling: Mutex<BTreeSet<RangeId>>,
    staleness: staleness::Staleness,
    /// The keys of the subjects of personal values.
    subjects: Mutex<Subjects>,
    /// Condemned keys are just being destroyed.
    destroying: tokio::sync::Mutex<()>,
    drawn: Mutex<Rng>,
    splits: split::Splits,
    /// The catalog here has been read as it was when this node started, or later.
    caught_up: AtomicBool,
    /// It has been read as it was at some time, be it at its beginning. On a new disk nothing is, until its replica has been sent
    /// what stands there.
    catalog_read: AtomicBool,
    failover: failover::Failover,
    placing: placement::Placing,
    version: version::Version,
    integrity: integrity::Integrity,
}

/// The ranges of this node. Clones are one.
#[derive(Clone)]
pub(super) struct Ranges(Arc<Inner>);

impl Ranges {
    /// The ranges of this node. Nothing runs before [`Ranges::spawned`].
    pub(super) fn new(parts: Parts) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(HotDisk::new(parts.store.clone()));
        let key = TokenKey::from_seed(parts.cluster, &parts.tokens);
        let keys = TokenKeys::new(parts.cluster, [key.public()]);
        let classes = BTreeMap::from([(META, DataClass::control())]);
        Self(Arc::new(Inner {
            disk,
            host: OnceLock::new(),
            is_old_copy: AtomicBool::new(false),
            tokens: tokens::Tokens::new(key, keys),
            classes: Arc::new(RwLock::new(classes)),
            keyspaces: RwLock::default(),
            purged: RwLock::default(),
            founders: RwLock::default(),
            meta: RwLock::default(),
            hints: Mutex::default(),
            nearness: passing::Nearness::default(),
            telling: Mutex::default(),
            staleness: staleness::Staleness::default(),
            subjects: Mutex::default(),
            destroying: tokio::sync::Mutex::default(),
            drawn: Mutex::new(Seed::from_entropy().child("subjects").rng()),
            splits: split::Splits::default(),
            caught_up: AtomicBool::new(false),
            catalog_read: AtomicBool::new(false),
            failover: failover::Failover::new(&parts),
            placing: placement::Placing::default(),
            version: version::Version::new(&parts),
            integrity: integrity::Integrity::default(),
            parts,
        }))
    }

    /// Starts what is on the disk once the disk is proven, then follows the meta range. It does not end.
    async fn keep(self) {
        match self.proven().await {
            Ok(true) => {}
            Ok(false) => return std::future::pending().await,
            Err(why) => return self.0.parts.halt.now(format!("ranges: {why}")),
        }
        let Parts { mesh, clock, halt, time_is_good, max_offset, store_id, .. } = &self.0.parts;
        let support = self.0.parts.support;
        let range = RangeSettings { max_offset: *max_offset, support, ..RangeSettings::default() };
        let beat = support / 3;
        let (splits, compare_every) = (self.0.parts.splits, self.0.parts.compare_every);
        let settings = HostSettings { range, beat, splits, compare_every, ..HostSettings::default() };
        let carry = Arc::new(Carrier { mesh: mesh.clone(), classes: Arc::clone(&self.0.classes) });
        let around = Around {
            disk: Arc::clone(&self.0.disk),
            carry,
            raft: RaftSettings::within(support),
            claims: Arc::default(),
            formats: Arc::clone(&self.0.version.formats),
            damages: Arc::default(),
            feeding: self.0.placing.feeding(self.0.parts.feeds),
        };
        let world = RangeWorld {
            mesh: mesh.clone(),
            clock: clock.clone(),
            halt: halt.clone(),
            time_is_good: Arc::clone(time_is_good),
            ranges: Arc::downgrade(&self.0),
        };
        self.recall_keys().await;
        // Replicas ask each other under their class from the first moment on.
        if let Err(why) = self.read_catalog() {
            return halt.now(format!("ranges: {why}"));
        }
        if let Err(why) = self.follow_version().await {
            return halt.now(format!("the cluster version: {why}"));
        }
        match Host::start(*store_id, settings, around, Arc::new(world)).await {
            Ok(host) if host.quarantined(META).is_some() => {
                return halt.now(
                    "the replica of the meta range here is quarantined, and the node goes by what stands there: replace its disk \
                     (`rhumb mesh new-disk`)"
                        .to_owned(),
                );
            }
            Ok(host) => drop(self.0.host.set(host)),
            Err(error) => return halt.now(format!("ranges: {error}")),
        }
        tokio::select! {
            () = self.follow() => {}
            () = self.watch() => {}
            () = self.fails_over() => {}
            () = self.tend() => {}
            () = self.raises() => {}
            () = self.forgets_what_is_aside() => {}
        }
    }

    /// Waits until the disk is proven. Whether replicas may start then; not where they are an older copy of themselves.
    async fn proven(&self) -> anyhow::Result<bool> {
        let Parts { store, standing, .. } = &self.0.parts;
        let mut standing = standing.clone();
        loop {
            let stands = *standing.borrow_and_update();
            match stands {
                Standing::Unproven => {}
                Standing::Proven => break,
                Standing::Restored => {
                    tracing::warn!(
                        "this disk is an older copy of itself: its ranges do not start before it is attested"
                    );
                    old_copy::note(store).await?;
                }
            }
            if standing.changed().await.is_err() {
                return Ok(false);
            }
        }
        let is_old = old_copy::is_noted(store)?;
        if is_old {
            self.0.is_old_copy.store(true, Ordering::Relaxed);
            tracing::error!("{OLD_COPY}");
        }
        Ok(!is_old)
    }

    /// [`Ranges::keep`], on the thread of ranges.
    pub(super) fn spawned(&self) -> tokio::task::JoinHandle<()> {
        self.0.parts.runtime.spawn(self.clone().keep())
    }

    /// The node stops.
    pub(super) async fn stop(&self) {
        if let Some(host) = self.0.host.get() {
            host.stop().await;
        }
    }

    fn host(&self) -> Result<&Host<TokioRuntime>, KvRefusal> {
        self.0.host.get().ok_or_else(|| not_now(if self.is_old_copy() { OLD_COPY } else { NOT_PROVEN }))
    }

    /// Whether the replicas here do not start because the disk was put back.
    fn is_old_copy(&self) -> bool {
        self.0.is_old_copy.load(Ordering::Relaxed)
    }
}

fn not_now(why: impl ToString) -> KvRefusal {
    KvRefusal::NotNow { why: why.to_string(), retry_after: A_MOMENT }
}
