//! Carries settings that changed while the node runs to the parts that they concern.
//!
//! * It never does: go on after a write that failed. What was to be remembered may be on the disk or not.

use std::sync::Arc;

use anyhow::Context;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::escrow::EscrowHandle;
use rhumb_storage::{DataDir, StorageFault};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::halt::Halt;
use super::policy::ServedPolicy;
use crate::settings::Settings;

/// Follows the settings for as long as the node lives. They were checked as a whole before they came.
pub(super) fn follow(
    mut settings: watch::Receiver<Arc<Settings>>,
    policy: ServedPolicy,
    escrow: EscrowHandle,
    dir: Arc<DataDir>,
    halt: Halt,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            let now = Arc::clone(&settings.borrow_and_update());
            if let Err(error) = follow_policy(&now, &policy, &dir).await {
                if is_final(&error) {
                    return halt.now(format!("the policy's version could not be made durable: {error:#}"));
                }
                tracing::error!(%error, "the policy stays as it was");
            }
            if !escrow.configure(now.escrow.clone()).await {
                tracing::error!("the escrow actor did not take up its settings; reload them again");
            }
        }
    })
}

/// Goes on under another policy, if it is one: not before that is in the audit log.
async fn follow_policy(
    settings: &Arc<Settings>,
    policy: &ServedPolicy,
    dir: &Arc<DataDir>,
) -> anyhow::Result<()> {
    if !policy.differs(settings) {
        return Ok(());
    }
    let audited = policy.audited();
    let log = audited.log().context("the audit log has not begun")?;
    let version = |version: Option<u64>| version.map_or("none".to_owned(), |version| version.to_string());
    let now = settings.policy.as_ref().map(|signed| signed.policy.version);
    let signer = settings.policy.as_ref().map_or(String::new(), |signed| signed.signed_by.to_string());
    let record = |outcome| {
        Record::told("policy.change", format!("node {}", settings.me), outcome)
            .on(format!("policy version {}", version(now)))
            .with("before", version(policy.version()))
            .with("signed_by", signer.clone())
    };
    let (begun, done, failed) = (record(Outcome::Begun), record(Outcome::Done), record(Outcome::Failed));
    log.append(begun, None).await.context("the audit log")?;
    match followed(policy.clone(), Arc::clone(settings), Arc::clone(dir)).await {
        Ok(()) => drop(log.append(done, None).await.context("the audit log: the policy is in force")?),
        Err(error) => {
            log.append(failed.with("why", format!("{error:#}")), None).await.context("the audit log")?;
            return Err(error);
        }
    }
    Ok(())
}

/// Goes on under another policy. On a thread of its own: it syncs.
async fn followed(policy: ServedPolicy, now: Arc<Settings>, dir: Arc<DataDir>) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || policy.follow(&now, dir.control())).await?
}

/// Whether the disk failed; else it is the policy that was refused.
fn is_final(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<StorageFault>())
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use rhumb_storage::control::{ControlRecord, LastSeen, Recorded};
    use rhumb_storage::{ControlStore, FaultCause};

    use super::super::remembered;
    use super::*;

    /// A control store on a disk that reads and does not write.
    #[derive(Debug)]
    struct ReadOnly;

    impl ReadOnly {
        fn fault() -> StorageFault {
            StorageFault::new(FaultCause::Io, "write the control store", "Input/output error")
        }
    }

    impl ControlStore for ReadOnly {
        fn record(&self) -> Result<Option<Recorded>, StorageFault> {
            Ok(None)
        }

        fn stamp(&self, _: &ControlRecord) -> Result<(), StorageFault> {
            Err(Self::fault())
        }

        fn last_seen(&self, _: LastSeen) -> Result<Option<Vec<u8>>, StorageFault> {
            Ok(Some(7u64.to_be_bytes().to_vec()))
        }

        fn remember(&self, _: LastSeen, _: &[u8]) -> Result<(), StorageFault> {
            Err(Self::fault())
        }
    }

    #[test]
    fn a_policy_that_is_refused_leaves_the_node_as_it_was_and_a_disk_that_fails_ends_it() {
        let older = remembered::policy(&ReadOnly, Some(6)).expect_err("an older one");
        assert!(!is_final(&older), "{older}");
        let failed = remembered::policy(&ReadOnly, Some(8)).expect_err("it cannot be remembered");
        assert!(is_final(&failed), "{failed}");
        assert!(is_final(&Err::<(), _>(failed).context("reloading").expect_err("the same")));
    }
}
