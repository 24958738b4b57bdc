//! Looks whether the data directory still stands, for as long as the node lives.
//!
//! Who removes or replaces it under a running node leaves it writing to files that have no name: syncs
//! succeed, and all of it is gone with the process. So the store is condemned, nothing more is
//! acknowledged, and the node stops and says why.

use std::time::Duration;

use rhumb_storage::{Footing, HotStore};
use tokio::task::{JoinHandle, spawn_blocking};

/// How often it is looked at. What is acknowledged in between is lost with the directory.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Watches a data directory, and condemns its store when a part of it is lost.
pub(super) fn watch(footing: Footing, store: HotStore) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let looked = footing.clone();
            // A file system that does not answer keeps this waiting; the watchdog sees it by its syncs.
            if let Ok(Err(lost)) = spawn_blocking(move || looked.check()).await {
                store.condemn(lost);
                return std::future::pending().await;
            }
        }
    })
}
