//! The disk under a memory engine: what is visible, and how to take back what was not synced.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_core::rng::Rng;

use crate::batch::Family;
use crate::engine::{Ops, Pressure};
use crate::fault::{FaultCause, StorageFault};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a power cut may leave of writes that were not synced. A write itself is all or nothing: its
/// log record is checksummed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tear {
    /// A random prefix of them. Sectors may reach a real disk in any order, but recovery stops at the
    /// first log record that is not whole, so a prefix is what a log leaves.
    #[default]
    Prefix,
    /// None of them.
    LoseAll,
    /// Any subset of them, in order: stricter than a log, for callers that must not count on order.
    Subset,
}

/// A fault that the disk is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// The next write fails; whether it took effect is left to the next crash.
    FailWrite,
    /// The next sync fails. As on Linux, the pages then count as clean: later syncs claim success
    /// and save nothing, until the disk is opened again.
    FailSync,
    /// Every write fails for want of space, until [`MemoryDisk::heal`].
    Full,
}

/// One write that a crash may take back.
#[derive(Debug)]
struct Unsynced {
    /// What stood before, per operation in order.
    undo: Vec<(Family, Vec<u8>, Option<Vec<u8>>)>,
}

/// What stands on a disk for certain: a copy of it, as a backup tool would take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskImage {
    families: [Rows; Family::ALL.len()],
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    families: [Rows; Family::ALL.len()],
    unsynced: Vec<Unsynced>,
    tear: Tear,
    fail_write: bool,
    fail_sync: bool,
    full: bool,
    /// A sync failed under this generation: nothing more becomes durable.
    pages_lost: bool,
    pressure: Pressure,
    generation: u64,
    syncs: u64,
    writes: u64,
}

pub(super) type Shared = Mutex<Inner>;

/// A disk in memory. Clones are handles of the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    inner: Arc<Shared>,
}

impl MemoryDisk {
    /// An empty disk that tears as a log does.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk with this way to tear.
    #[must_use]
    pub fn tearing(tear: Tear) -> Self {
        let disk = Self::new();
        disk.inner.lock().tear = tear;
        disk
    }

    /// A power cut. What was synced stays, of the rest what [`Tear`] allows; the open engine is dead.
    pub fn crash(&self, rng: &mut Rng) {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        inner.heal();
        let tear = inner.tear;
        let written = inner.unsynced.len() as u64;
        match tear {
            Tear::Prefix => inner.keep_prefix(rng.below(written + 1) as usize),
            Tear::LoseAll => inner.keep_prefix(0),
            Tear::Subset => inner.keep_subset(rng),
        }
    }

    /// A copy of what stands on the disk for certain.
    #[must_use]
    pub fn snapshot(&self) -> DiskImage {
        let inner = self.inner.lock();
        let mut families = inner.families.clone();
        for write in inner.unsynced.iter().rev() {
            for (family, key, before) in write.undo.iter().rev() {
                set(&mut families, *family, key.clone(), before.clone());
            }
        }
        DiskImage { families }
    }

    /// Puts an older copy in place of what is there; the open engine is dead.
    pub fn restore(&self, image: &DiskImage) {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        inner.heal();
        inner.unsynced.clear();
        inner.families = image.families.clone();
    }

    /// Arms a fault.
    pub fn inject(&self, injection: Injection) {
        let mut inner = self.inner.lock();
        match injection {
            Injection::FailWrite => inner.fail_write = true,
            Injection::FailSync => inner.fail_sync = true,
            Injection::Full => inner.full = true,
        }
    }

    /// Disarms every fault. Pages lost by a failed sync stay lost.
    pub fn heal(&self) {
        let mut inner = self.inner.lock();
        (inner.fail_write, inner.fail_sync, inner.full) = (false, false, false);
    }

    /// Says how hard its engine is pressed.
    pub fn press(&self, pressure: Pressure) {
        self.inner.lock().pressure = pressure;
    }

    /// Syncs that succeeded so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// Writes that succeeded so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.inner.lock().writes
    }

    /// Writes that a crash might take back now.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.inner.lock().unsynced.len()
    }

    pub(super) fn begin(&self) -> (Arc<Shared>, u64) {
        let mut inner = self.inner.lock();
        inner.generation += 1;
        inner.pages_lost = false;
        (Arc::clone(&self.inner), inner.generation)
    }
}

impl Inner {
    pub(super) fn write(&mut self, ops: &Ops<'_>) -> Result<(), StorageFault> {
        let failed = mem::take(&mut self.fail_write);
        if self.full {
            let detail = "the memory disk was told to be full";
            return Err(StorageFault::new(FaultCause::NoSpace, "write to the memory disk", detail));
        }
        let undo = ops.iter().map(|op| {
            let value = op.value.map(<[u8]>::to_vec);
            let before = set(&mut self.families, op.family, op.key.to_vec(), value);
            (op.family, op.key.to_vec(), before)
        });
        let undo = undo.collect();
        self.unsynced.push(Unsynced { undo });
        if failed {
            let detail = "the memory disk was told to fail a write";
            return Err(StorageFault::new(FaultCause::Io, "write to the memory disk", detail));
        }
        self.writes += 1;
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageFault> {
        if mem::take(&mut self.fail_sync) {
            self.pages_lost = true;
            let detail = "the memory disk was told to fail a sync";
            return Err(StorageFault::new(FaultCause::Io, "sync the memory disk", detail));
        }
        if !self.pages_lost {
            self.unsynced.clear();
        }
        self.syncs += 1;
        Ok(())
    }

    pub(super) fn family(&self, family: Family) -> &Rows {
        &self.families[family.index()]
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn pressure(&self) -> Pressure {
        self.pressure
    }

    fn heal(&mut self) {
        (self.fail_write, self.fail_sync, self.full, self.pages_lost) = (false, false, false, false);
    }

    /// Takes back all unsynced writes but the first so many; those are durable from now on.
    fn keep_prefix(&mut self, keep: usize) {
        for write in self.unsynced.drain(..).skip(keep).rev() {
            undo(&mut self.families, write);
        }
    }

    /// Takes back all unsynced writes, then does a random subset of them again.
    fn keep_subset(&mut self, rng: &mut Rng) {
        let writes: Vec<_> =
            self.unsynced.drain(..).rev().map(|write| undo(&mut self.families, write)).collect();
        for redo in writes.into_iter().rev() {
            if rng.chance(0.5) {
                for (family, key, value) in redo {
                    set(&mut self.families, family, key, value);
                }
            }
        }
    }
}

/// Takes one write back, and gives what would do it again.
fn undo(families: &mut [Rows], write: Unsynced) -> Vec<(Family, Vec<u8>, Option<Vec<u8>>)> {
    let mut redo: Vec<_> = write
        .undo
        .into_iter()
        .rev()
        .map(|(family, key, before)| {
            let after = set(families, family, key.clone(), before);
            (family, key, after)
        })
        .collect();
    redo.reverse();
    redo
}

/// Puts or removes a row, and gives what stood there before.
fn set(families: &mut [Rows], family: Family, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let rows = &mut families[family.index()];
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    }
}
