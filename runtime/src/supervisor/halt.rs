//! The one way in which a node that cannot go on stops: said once, heard by the supervisor.

use tokio::sync::watch;

/// Asks the process to stop, with a reason. Cloneable; the first reason stands.
#[derive(Clone)]
pub struct Halt {
    reason: watch::Sender<Option<String>>,
}

impl Default for Halt {
    fn default() -> Self {
        Self { reason: watch::channel(None).0 }
    }
}

impl Halt {
    /// Stop now, for this reason.
    pub fn now(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.reason.send_if_modified(|stands| {
            let first = stands.is_none();
            if first {
                tracing::error!(%reason, "this node cannot go on and stops");
                *stands = Some(reason);
            }
            first
        });
    }

    /// Waits until somebody asks for the stop; gives the reason.
    pub async fn asked(&self) -> String {
        let mut changes = self.reason.subscribe();
        let reason = changes.wait_for(Option::is_some).await;
        reason.ok().and_then(|r| r.clone()).unwrap_or_default()
    }
}
