//! Where delivery keeps its rows: the node's hot store behind its storage actor, or a disk in memory for tests.

use std::collections::BTreeMap;

use rhumb_actors::delivery::rows::FAMILY;
use rhumb_actors::storage::{Done, StorageHandle};
use rhumb_storage::{Batch, CommitError, HotStore, MemoryDisk, MemoryEngine, Store};

/// Rows, or why there are none.
pub(crate) type Found = Result<BTreeMap<Vec<u8>, Vec<u8>>, String>;

/// Where rows are.
pub(crate) trait Disk: Send + Sync {
    /// Makes a batch durable, then calls. Batches become durable in the order in which they come.
    fn write(&self, batch: Batch, done: Done) -> Result<(), String>;
    /// The rows with this prefix, as last written.
    fn rows(&self, prefix: &[u8]) -> Found;
}

/// The node's own store. It is read directly; what is written goes with all other batches of the node.
pub(crate) struct Hot {
    pub(crate) storage: StorageHandle,
    pub(crate) store: HotStore,
}

impl Disk for Hot {
    fn write(&self, batch: Batch, done: Done) -> Result<(), String> {
        self.storage.write(batch, done).map_err(str::to_owned)
    }

    fn rows(&self, prefix: &[u8]) -> Found {
        let mut found = BTreeMap::new();
        let scanned = self.store.scan(FAMILY, prefix, |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            true
        });
        scanned.map(|()| found).map_err(|fault| fault.to_string())
    }
}

/// A disk in memory, synced at every write.
pub(crate) struct Memory(Store<MemoryEngine>);

impl Memory {
    pub(crate) fn open(disk: &MemoryDisk) -> anyhow::Result<Self> {
        Ok(Self(Store::open(MemoryEngine::open(disk))?))
    }
}

impl Disk for Memory {
    fn write(&self, batch: Batch, done: Done) -> Result<(), String> {
        let written = self.0.write(&batch).map_err(CommitError::from_write);
        done(written.and_then(|number| self.0.sync().map(|_| number).map_err(CommitError::Fault)));
        Ok(())
    }

    fn rows(&self, prefix: &[u8]) -> Found {
        let mut found = BTreeMap::new();
        let scanned = self.0.scan(FAMILY, prefix, |key, value| {
            found.insert(key.to_vec(), value.to_vec());
            true
        });
        scanned.map(|()| found).map_err(|fault| fault.to_string())
    }
}

/// What a write may end with, as a commit does.
trait FromWrite {
    fn from_write(error: rhumb_storage::WriteError) -> Self;
}

impl FromWrite for CommitError {
    fn from_write(error: rhumb_storage::WriteError) -> Self {
        match error {
            rhumb_storage::WriteError::Fenced(fenced) => Self::Fenced(fenced),
            rhumb_storage::WriteError::Fault(fault) => Self::Fault(fault),
        }
    }
}
