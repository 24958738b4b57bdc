//! Tells the service manager how the node stands, for as long as it lives.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::notify;
use super::readiness::Readiness;

/// How often readiness is asked until the node is ready, and after that.
const UNTIL_READY: Duration = Duration::from_millis(100);
const AFTER_THAT: Duration = Duration::from_secs(5);
/// By how much a start is extended while the node waits for its peers.
const STILL_STARTING: Duration = Duration::from_secs(30);

/// Says `READY=1` as soon as the node can serve, and how it stands whenever that changes.
pub(super) fn keep(readiness: Readiness) -> JoinHandle<()> {
    tokio::spawn(async move {
        if !notify::is_heard() {
            return std::future::pending().await;
        }
        let mut was_ready = false;
        loop {
            let now = readiness.now();
            if readiness.stopping.load(Ordering::Acquire) {
                // From here on the stages of the stop are told.
                return std::future::pending().await;
            }
            if now.is_ok() && !was_ready {
                was_ready = true;
                notify::ready();
            }
            if !was_ready {
                notify::extend(STILL_STARTING);
            }
            let text = now.err().map_or_else(|| "serving".to_owned(), |why| format!("not ready: {why}"));
            notify::status_until_stop(&text);
            tokio::time::sleep(if was_ready { AFTER_THAT } else { UNTIL_READY }).await;
        }
    })
}
