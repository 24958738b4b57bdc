//! Carries settings that changed while the node runs to the parts that they concern.

use std::sync::Arc;

use rhumb_actors::escrow::EscrowHandle;
use rhumb_storage::DataDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::policy::ServedPolicy;
use crate::settings::Settings;

/// Follows the settings for as long as the node lives. They were checked as a whole before they came.
pub(super) fn follow(
    mut settings: watch::Receiver<Arc<Settings>>,
    policy: ServedPolicy,
    escrow: EscrowHandle,
    dir: Arc<DataDir>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        while settings.changed().await.is_ok() {
            let now = Arc::clone(&settings.borrow_and_update());
            if let Err(error) = policy.follow(&now, dir.control()) {
                tracing::error!(%error, "the policy stays as it was");
            }
            if !escrow.configure(now.escrow.clone()).await {
                tracing::error!("the escrow actor did not take up its settings; reload them again");
            }
        }
    })
}
