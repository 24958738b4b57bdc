//! What a group needs of a store.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_storage::mvcc::Rows;
use rhumb_storage::{Batch, Durability, Family, FaultCause, HotStore, Refusal, StorageFault};

use crate::storage::{Done, StorageHandle};

/// How long it waits before it looks again whether there is room.
const A_MOMENT: Duration = Duration::from_millis(2);

/// Where rows are.
pub trait Disk: Send + Sync + 'static {
    /// Makes a batch durable, then calls. The future ends when the batch is taken; batches become durable in the order in
    /// which they are taken. One that cannot be taken ends the store.
    fn durably(&self, batch: Batch, done: Done) -> BoxFuture<'static, ()>;

    /// Writes a batch: it is visible when the future ends, and durable with the next one that is made so.
    fn visibly(&self, batch: Batch) -> BoxFuture<'static, Result<(), String>>;

    /// A value, as last written.
    ///
    /// # Errors
    /// A fault of reading.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault>;

    /// Gives keys from this one on, in order, until `f` answers `false`.
    ///
    /// # Errors
    /// A fault of reading.
    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault>;
}

impl Rows for dyn Disk {
    fn walk(&self, from: &[u8], f: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StorageFault> {
        Disk::walk(self, Family::Mvcc, from, f)
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows with this prefix.
///
/// # Errors
/// A fault of reading.
pub fn rows(disk: &dyn Disk, family: Family, prefix: &[u8]) -> Result<Vec<Row>, StorageFault> {
    let mut rows = Vec::new();
    disk.walk(family, prefix, &mut |key, value| {
        let of_it = key.starts_with(prefix);
        if of_it {
            rows.push((key.to_vec(), value.to_vec()));
        }
        of_it
    })?;
    Ok(rows)
}

/// The node's own store. What must be durable goes with all other batches of the node.
pub struct HotDisk {
    storage: StorageHandle,
    store: HotStore,
}

impl HotDisk {
    /// The store behind this storage actor.
    #[must_use]
    pub fn new(storage: StorageHandle, store: HotStore) -> Self {
        Self { storage, store }
    }
}

impl Disk for HotDisk {
    fn durably(&self, batch: Batch, done: Done) -> BoxFuture<'static, ()> {
        let (storage, store) = (self.storage.clone(), self.store.clone());
        async move {
            loop {
                let backlog = storage.waiting();
                if backlog.waiting <= backlog.capacity / 2 {
                    break;
                }
                tokio::time::sleep(A_MOMENT).await;
            }
            if let Err(why) = storage.write(batch, done) {
                store.condemn(StorageFault::new(FaultCause::Closed, "take a range's batch", why));
            }
        }
        .boxed()
    }

    fn visibly(&self, batch: Batch) -> BoxFuture<'static, Result<(), String>> {
        let store = self.store.clone();
        async move {
            let mut batch = batch;
            loop {
                let (said, heard) = futures::channel::oneshot::channel();
                let done = Box::new(move |outcome| drop(said.send(outcome)));
                match store.offer(batch, Durability::Buffered, done) {
                    Ok(()) => {
                        let outcome = heard.await.map_err(|_| "the store is gone".to_owned())?;
                        return outcome.map(drop).map_err(|error| error.to_string());
                    }
                    Err(left) => match left.why {
                        Refusal::Full { retry_after } | Refusal::Pressed { retry_after, .. } => {
                            batch = left.batch;
                            tokio::time::sleep(retry_after.max(A_MOMENT)).await;
                        }
                        why => return Err(format!("{why:?}")),
                    },
                }
            }
        }
        .boxed()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.store.get(family, key)
    }

    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.store.walk(family, from, f)
    }
}
