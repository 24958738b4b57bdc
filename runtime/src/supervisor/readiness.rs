//! Whether a node can serve, and if not, why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb_actors::escrow::{EscrowHandle, EscrowReport, Standing};
use rhumb_storage::HotStore;

use super::certificate::Own;
use super::pulse::Health;
use crate::clock::now_millis;

/// How the reason begins for which a node on a restored disk is not ready.
pub const RESTORED: &str = "restored";

/// All that readiness depends on. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) escrow: EscrowHandle,
    pub(super) store: HotStore,
    pub(super) own: Own,
    pub(super) health: Health,
    pub(super) stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// `Ok` when the node can serve.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) async fn now(&self) -> Result<(), String> {
        self.besides_escrow()?;
        standing(self.escrow.report().await.as_ref())
    }

    /// The same, from a report that there is.
    pub(super) fn with(&self, report: Option<&EscrowReport>) -> Result<(), String> {
        self.besides_escrow()?;
        standing(report)
    }

    fn besides_escrow(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping: this node finishes what is under way and takes nothing new".into());
        }
        if let Some(standstill) = self.health.stuck() {
            return Err(format!("stuck: {standstill}"));
        }
        if let Some(fault) = self.store.poisoned() {
            return Err(format!("storage: {fault}"));
        }
        let valid = self.own.credentials().verify(Duration::from_millis(now_millis()));
        valid.map_err(|error| format!("certificate: {error}: renew it"))
    }
}

fn standing(report: Option<&EscrowReport>) -> Result<(), String> {
    match report.map(|report| report.standing) {
        Some(Standing::Proven) => Ok(()),
        Some(Standing::Unproven) => {
            Err("unproven: no peer, or not every reachable one, has yet said that this disk is the latest"
                .into())
        }
        Some(Standing::Restored) => {
            Err(format!("{RESTORED}: this disk is older than a peer has seen; `rhumb pool attest` it"))
        }
        None => Err("the escrow actor does not answer".into()),
    }
}
