//! An engine in memory with the crash semantics of a disk, for the simulated world.
//!
//! * It decides: what a power cut leaves of writes that were not synced.
//! * It never does: start a thread, draw entropy of its own, or read a clock.
//! * Invariant: what was synced survives every crash; an engine opened before a crash, or before a
//!   later opening, can touch the disk no more.
//!
//! A [`MemoryDisk`] survives its engines. Dropping an engine and opening another is a process crash:
//! all that was written is still in the operating system's cache. [`MemoryDisk::crash`] is a power
//! cut.

mod disk;

use std::sync::Arc;

pub use disk::{DiskImage, Injection, MemoryDisk, Tear};

use crate::batch::Family;
use crate::engine::{Engine, Ops, Pressure};
use crate::fault::{FaultCause, StorageFault};

/// The engine of a [`MemoryDisk`], from one opening to the next or to a crash.
#[derive(Debug)]
pub struct MemoryEngine {
    disk: Arc<disk::Shared>,
    generation: u64,
}

impl MemoryEngine {
    /// Opens a disk. An engine opened earlier is shut out from now on, like a process that was killed.
    #[must_use]
    pub fn open(disk: &MemoryDisk) -> Self {
        let (disk, generation) = disk.begin();
        Self { disk, generation }
    }

    fn disk(&self, doing: &str) -> Result<parking_lot::MutexGuard<'_, disk::Inner>, StorageFault> {
        let inner = self.disk.lock();
        if inner.generation() != self.generation {
            let gone = "the disk crashed or was opened again since this engine was opened";
            return Err(StorageFault::new(FaultCause::Closed, doing, gone));
        }
        Ok(inner)
    }
}

impl Engine for MemoryEngine {
    fn write(&self, ops: &Ops<'_>) -> Result<(), StorageFault> {
        self.disk("write to the memory disk")?.write(ops)
    }

    fn sync(&self) -> Result<(), StorageFault> {
        self.disk("sync the memory disk")?.sync()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        Ok(self.disk("read the memory disk")?.family(family).get(key).cloned())
    }

    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        // The lock stands for the moment that a scan shows; that is why `f` must not write here.
        let inner = self.disk("scan the memory disk")?;
        for (key, value) in inner.family(family).range(prefix.to_vec()..) {
            if !key.starts_with(prefix) || !f(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        let inner = self.disk("walk the memory disk")?;
        for (key, value) in inner.family(family).range(from.to_vec()..) {
            if !f(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        self.disk.lock().pressure()
    }
}

#[cfg(test)]
mod tests;
