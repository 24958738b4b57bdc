//! The actix system of a node, on threads of its own, so that a node runs from any tokio program.

use std::sync::Arc;

use actix::prelude::*;
use rhumb_actors::audit::{AuditHandle, AuditLogger, Shared};
use rhumb_actors::escrow::book::Book;
use rhumb_actors::escrow::{EscrowHandle, EscrowRegion, World};
use rhumb_actors::storage::{StorageActor, StorageHandle};
use rhumb_core::{Gate, Region};
use rhumb_storage::HotStore;
use tokio::sync::oneshot;

use super::audit::{AuditWorld, Recovered};

/// A node's actors, running.
pub(super) struct Actors {
    escrow: EscrowHandle,
    audit: AuditHandle,
    storage: StorageHandle,
    arbiters: [(&'static str, ArbiterHandle); 2],
    system: System,
}

impl Actors {
    /// Starts the system and its actors. Storage is on escrow's arbiter: it only hands batches on to the
    /// threads of the store, and another arbiter would be another wake-up for each of them. The audit log has an
    /// arbiter of its own: it hashes and signs.
    pub(super) async fn start(
        store: HotStore,
        book: Book,
        region: Region,
        gate: Arc<dyn Gate>,
        world: Arc<dyn World>,
        (audit, audit_world): (Recovered, AuditWorld),
    ) -> anyhow::Result<Self> {
        let (started, ready) = oneshot::channel();
        std::thread::Builder::new().name("rhumb-actors".into()).spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let here = Arbiter::new().handle();
                let reads = store.clone();
                let (wait, writes) = (EscrowRegion::backlog(), StorageActor::backlog());
                let counts = Arc::clone(&writes);
                let storage = StorageActor::start_in_arbiter(&here, |_| StorageActor::new(store, counts));
                let storage = StorageHandle::new(storage, writes);
                let (to, counts) = (storage.clone(), Arc::clone(&wait));
                let escrow = EscrowRegion::start_in_arbiter(&here, move |_| {
                    EscrowRegion::new(book, region, to, counts, gate, world)
                });
                let (there, shared) = (Arbiter::new().handle(), Shared::default());
                let (to, counts) = (storage.clone(), shared.clone());
                let Recovered { machines, signing, .. } = audit;
                let audit = AuditLogger::start_in_arbiter(&there, move |_| {
                    AuditLogger::new(machines, signing, to, reads, &counts, Arc::new(audit_world))
                });
                let actors = Self {
                    audit: AuditHandle::new(audit, shared),
                    escrow: EscrowHandle::new(escrow, wait),
                    storage,
                    arbiters: [("the escrow arbiter", here), ("the audit arbiter", there)],
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

    /// The node's audit log.
    pub(super) fn audit(&self) -> AuditHandle {
        self.audit.clone()
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
