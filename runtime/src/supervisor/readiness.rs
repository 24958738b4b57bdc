//! Whether a node can serve, and if not, why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb_actors::backlog::Waiting;
use rhumb_actors::escrow::{EscrowHandle, Standing};
use rhumb_storage::HotStore;
use tokio::sync::watch;

use super::certificate::Own;
use super::pulse::Health;
use crate::clock::now_millis;

/// How the reason begins for which a node on a restored disk is not ready.
pub const RESTORED: &str = "restored";

/// An escrow actor whose first message has waited for so long does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// All that readiness depends on, none of which needs anybody's answer: a probe never waits, however busy
/// the node is. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) escrow: EscrowHandle,
    /// As the escrow last told it.
    pub(super) standing: watch::Receiver<Standing>,
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
    pub(super) fn now(&self) -> Result<(), String> {
        self.besides_escrow()?;
        answers(self.escrow.waiting())?;
        standing(*self.standing.borrow())
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

fn answers(mailbox: Waiting) -> Result<(), String> {
    match mailbox.oldest {
        Some(wait) if wait >= ANSWERS_WITHIN => {
            let waiting = mailbox.waiting;
            Err(format!(
                "the escrow actor does not answer: {waiting} messages wait, the first for {wait:.1?}"
            ))
        }
        _ => Ok(()),
    }
}

fn standing(standing: Standing) -> Result<(), String> {
    match standing {
        Standing::Proven => Ok(()),
        Standing::Unproven => {
            Err("unproven: no peer, or not every reachable one, has yet said that this disk is the latest"
                .into())
        }
        Standing::Restored => {
            Err(format!("{RESTORED}: this disk is older than a peer has seen; `rhumb pool attest` it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_serves_only_while_its_disk_is_proven_and_its_escrow_takes_what_comes() {
        assert_eq!(standing(Standing::Proven), Ok(()));
        for (state, why) in [(Standing::Unproven, "unproven: "), (Standing::Restored, "restored: ")] {
            assert!(standing(state).is_err_and(|told| told.starts_with(why)));
        }
        let waits = |ms| Waiting { waiting: 7, capacity: 9, oldest: Some(Duration::from_millis(ms)) };
        assert_eq!((answers(Waiting::default()), answers(waits(999))), (Ok(()), Ok(())));
        assert_eq!(
            answers(waits(1_500)),
            Err("the escrow actor does not answer: 7 messages wait, the first for 1.5s".into())
        );
    }
}
