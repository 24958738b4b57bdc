//! The residency policy of a running node: the snapshot that all gates read, and its successors.
//!
//! * It never does: take back an older version, or let a passage be judged by half of two policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use rhumb_actors::audit::Observed;
use rhumb_core::{DataClass, Gate, GateRefusal, Passage, Region};
use rhumb_storage::ControlStore;
use rhumb_topology::policy::{Permit, PolicySnapshot, Use};
use rhumb_verify::Hash;

use super::audit::Audited;
use super::remembered;
use crate::clock::now_millis;
use crate::settings::Settings;

/// The policy under which a node serves now. Cloneable; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct ServedPolicy {
    now: Arc<ArcSwap<PolicySnapshot>>,
    /// The latest time that was observed: what has ended stays ended under a later policy.
    latest_ms: Arc<AtomicU64>,
    audited: Audited,
    /// The version served under, and the hash of its file.
    stated: Arc<ArcSwapOption<(u64, Hash)>>,
}

impl ServedPolicy {
    /// Serves under the settings' policy, unless the node has served under a newer one.
    pub(super) fn begin(settings: &Settings, control: &dyn ControlStore) -> anyhow::Result<Self> {
        let snapshot = compiled(settings, now_millis());
        remembered::policy(control, snapshot.version())?;
        Ok(Self {
            now: Arc::new(ArcSwap::from_pointee(snapshot)),
            latest_ms: Arc::default(),
            audited: Audited::default(),
            stated: Arc::new(ArcSwapOption::new(stated(settings).map(Arc::new))),
        })
    }

    /// The policy served under, for who asks more of it than a gate.
    pub(super) fn snapshots(&self) -> Arc<ArcSwap<PolicySnapshot>> {
        Arc::clone(&self.now)
    }

    /// Where what it refuses, and what only an exception permits, is told of.
    pub(super) fn audited(&self) -> Audited {
        self.audited.clone()
    }

    /// Its version; none without a policy.
    pub(super) fn version(&self) -> Option<u64> {
        self.now.load().version()
    }

    /// What this node states of the policy together with other regions: its version, and the SHA-256 of its file.
    pub(super) fn stated(&self) -> Option<(u64, Hash)> {
        self.stated.load_full().map(|stated| *stated)
    }

    /// Whether the settings' policy is another one than is served under.
    pub(super) fn differs(&self, settings: &Settings) -> bool {
        self.now.load().policy() != settings.policy.as_ref().map(|signed| &signed.policy)
    }

    /// Goes on under the settings' policy, if it is another one.
    pub(super) fn follow(&self, settings: &Settings, control: &dyn ControlStore) -> anyhow::Result<()> {
        if !self.differs(settings) {
            return Ok(());
        }
        let before = self.now.load();
        let snapshot = compiled(settings, self.latest_ms());
        remembered::policy(control, snapshot.version())?;
        tracing::info!(before = ?before.version(), now = ?snapshot.version(), "another policy is served under");
        self.now.store(Arc::new(snapshot));
        self.stated.store(stated(settings).map(Arc::new));
        Ok(())
    }

    /// Lets the policy's exceptions end.
    pub(super) fn observe(&self) {
        self.now.load().observe(self.latest_ms());
    }

    fn latest_ms(&self) -> u64 {
        let now = now_millis();
        self.latest_ms.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// Whether a region may put data of this class to this use.
    pub(super) fn permits(&self, region: &Region, to: Use, class: &DataClass) -> bool {
        self.now.load().permits(region, to, class).is_ok()
    }
}

impl Gate for ServedPolicy {
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
        let policy = self.now.load();
        let way = || format!("{} to {}", passage.from, passage.to);
        match policy.decide(passage) {
            Ok(Permit::Control | Permit::Rule) => Ok(()),
            Ok(Permit::Exception(exception)) => {
                let rule = format!("class {}, by exception: {}", exception.class, exception.reason);
                self.audited.observe(|| Observed::permitted("gate.exception", way(), rule));
                Ok(())
            }
            Err(refusal) => {
                let rule = format!("class {}: {}", refusal.class, refusal.reason);
                self.audited.observe(|| Observed::refused("gate.refused", way(), rule));
                Err(refusal)
            }
        }
    }
}

fn stated(settings: &Settings) -> Option<(u64, Hash)> {
    settings.policy.as_ref().map(|signed| (signed.policy.version, Hash(signed.digest)))
}

fn compiled(settings: &Settings, now_ms: u64) -> PolicySnapshot {
    let Some(signed) = &settings.policy else {
        tracing::warn!("settings name no policy file: all labelled data is refused");
        return PolicySnapshot::none();
    };
    let snapshot = PolicySnapshot::compile(signed.policy.clone(), settings.founding.regions(), now_ms);
    for note in snapshot.notes() {
        tracing::warn!(%note, "policy");
    }
    snapshot
}
