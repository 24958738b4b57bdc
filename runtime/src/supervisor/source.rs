//! Where a node's certificate comes from, and when there is another.
//!
//! * It decides: when to look. What is taken up, [`rhumb_transport::Credentials::renewed`] decides.
//! * Invariant: nothing that was found is left out but by something that was found later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior};

use super::workload::WorkloadApi;
use crate::generations::Generations;
use crate::identity::Found;
use crate::secrets::FirstOf;
use crate::settings::{IdentitySource, Settings};

/// How often a folder is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) found: Found,
    /// Which generation of its folder it is, where it has any.
    pub(super) generation: Option<u64>,
    /// Why the folder went back, where it did.
    pub(super) why: Option<String>,
}

/// Where a node's certificate, its key and what it believes come from.
pub(super) trait Source: Send {
    /// Waits until there may be something else than before, and gives what there is. The first time it gives
    /// what there is as soon as it can.
    fn next(&mut self) -> BoxFuture<'_, Arrived>;
}

/// The source that the settings name.
pub(super) fn of(settings: &Settings, reloads: watch::Receiver<Arc<Settings>>) -> Box<dyn Source> {
    match settings.identity.source {
        IdentitySource::Files => Box::new(Folder::of(settings.node.identity.clone(), reloads)),
        IdentitySource::WorkloadApi => Box::new(WorkloadApi::at(settings.identity.socket.clone())),
    }
}

/// A folder, looked at every ten seconds and at once when settings are reloaded (SIGHUP).
pub(super) struct Folder {
    folder: PathBuf,
    secrets: Arc<FirstOf>,
    every: Interval,
    reloads: watch::Receiver<Arc<Settings>>,
    /// The generation that was found last.
    last: Option<u64>,
}

impl Folder {
    fn of(folder: PathBuf, reloads: watch::Receiver<Arc<Settings>>) -> Self {
        let secrets = Arc::new(FirstOf::environment_and(&folder));
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { folder, secrets, every, reloads, last: None }
    }
}

impl Source for Folder {
    fn next(&mut self) -> BoxFuture<'_, Arrived> {
        async move {
            loop {
                tokio::select! {
                    _ = self.every.tick() => {}
                    changed = self.reloads.changed() => if changed.is_err() {
                        // The settings are gone, and with them the node.
                        return std::future::pending().await;
                    },
                }
                let (secrets, folder, last) = (Arc::clone(&self.secrets), self.folder.clone(), self.last);
                match spawn_blocking(move || look(&secrets, &folder, last)).await {
                    Ok(arrived) => {
                        self.last = arrived.generation;
                        return arrived;
                    }
                    Err(panic) => tracing::error!(%panic, "the certificate's folder was not read"),
                }
            }
        }
        .boxed()
    }
}

fn look(secrets: &FirstOf, folder: &Path, last: Option<u64>) -> Arrived {
    let generations = Generations::of(folder);
    let found = Found::read(secrets, folder);
    let generation = generations.current();
    let left = last.filter(|last| generation.is_some_and(|now| now < *last));
    Arrived { found, generation, why: left.and_then(|left| generations.why_not(left)) }
}
