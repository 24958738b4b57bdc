//! The actix system of a node, on threads of its own, so that a node runs from any tokio program.

use std::sync::Arc;

use actix::prelude::*;
use rhumb_actors::escrow::book::Book;
use rhumb_actors::escrow::{EscrowHandle, EscrowRegion, World};
use rhumb_actors::storage::{StorageActor, StorageHandle};
use rhumb_core::{Gate, Region};
use rhumb_storage::HotStore;
use tokio::sync::oneshot;

/// A node's actors, running.
pub(super) struct Actors {
    escrow: EscrowHandle,
    storage: StorageHandle,
    arbiters: [(&'static str, ArbiterHandle); 1],
    system: System,
}

impl Actors {
    /// Starts the system and its actors. Storage is on escrow's arbiter: it only hands batches on to the
    /// threads of the store, and another arbiter would be another wake-up for each of them.
    pub(super) async fn start(
        store: HotStore,
        book: Book,
        region: Region,
        gate: Arc<dyn Gate>,
        world: Arc<dyn World>,
    ) -> anyhow::Result<Self> {
        let (started, ready) = oneshot::channel();
        std::thread::Builder::new().name("rhumb-actors".into()).spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let here = Arbiter::new().handle();
                let (wait, writes) = (EscrowRegion::backlog(), StorageActor::backlog());
                let counts = Arc::clone(&writes);
                let storage = StorageActor::start_in_arbiter(&here, |_| StorageActor::new(store, counts));
                let storage = StorageHandle::new(storage, writes);
                let (to, counts) = (storage.clone(), Arc::clone(&wait));
                let escrow = EscrowRegion::start_in_arbiter(&here, move |_| {
                    EscrowRegion::new(book, region, to, counts, gate, world)
                });
                let actors = Self {
                    escrow: EscrowHandle::new(escrow, wait),
                    storage,
                    arbiters: [("the escrow arbiter", here)],
                    system: System::current(),
                };
                started.send(actors).ok();
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actors' system ended");
            }
        })?;
        Ok(ready.await?)
    }

    /// The node's escrow.
    pub(super) fn escrow(&self) -> EscrowHandle {
        self.escrow.clone()
    }

    /// The node's storage.
    pub(super) fn storage(&self) -> StorageHandle {
        self.storage.clone()
    }

    /// Their threads.
    pub(super) fn arbiters(&self) -> &[(&'static str, ArbiterHandle)] {
        &self.arbiters
    }

    /// Stops the system and all actors in it.
    pub(super) fn stop(&self) {
        self.system.stop();
    }
}
