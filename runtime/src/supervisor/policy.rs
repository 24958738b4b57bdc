//! The residency policy of a running node: the snapshot that all gates read, and its successors.
//!
//! * It never does: take back an older version, or let a passage be judged by half of two policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use rhumb_core::{DataClass, Gate, GateRefusal, Passage, Region};
use rhumb_storage::ControlStore;
use rhumb_topology::policy::{PolicySnapshot, Use};

use super::remembered;
use crate::clock::now_millis;
use crate::settings::Settings;

/// The policy under which a node serves now. Cloneable; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct ServedPolicy {
    now: Arc<ArcSwap<PolicySnapshot>>,
    /// The latest time that was observed: what has ended stays ended under a later policy.
    latest_ms: Arc<AtomicU64>,
}

impl ServedPolicy {
    /// Serves under the settings' policy, unless the node has served under a newer one.
    pub(super) fn begin(settings: &Settings, control: &dyn ControlStore) -> anyhow::Result<Self> {
        let snapshot = compiled(settings, now_millis());
        remembered::policy(control, snapshot.version())?;
        Ok(Self { now: Arc::new(ArcSwap::from_pointee(snapshot)), latest_ms: Arc::default() })
    }

    /// The policy served under, for who asks more of it than a gate.
    pub(super) fn snapshots(&self) -> Arc<ArcSwap<PolicySnapshot>> {
        Arc::clone(&self.now)
    }

    /// Its version; none without a policy.
    pub(super) fn version(&self) -> Option<u64> {
        self.now.load().version()
    }

    /// Goes on under the settings' policy, if it is another one.
    pub(super) fn follow(&self, settings: &Settings, control: &dyn ControlStore) -> anyhow::Result<()> {
        let before = self.now.load();
        if before.policy() == settings.policy.as_ref().map(|signed| &signed.policy) {
            return Ok(());
        }
        let snapshot = compiled(settings, self.latest_ms());
        remembered::policy(control, snapshot.version())?;
        tracing::info!(before = ?before.version(), now = ?snapshot.version(), "another policy is served under");
        self.now.store(Arc::new(snapshot));
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
        self.now.load().check(passage)
    }
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
