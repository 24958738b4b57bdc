//! The synchronous heart of storage, used by production and by the simulated world alike.
//!
//! * It decides: a commit's number, whether a fence lets a batch pass, what is known durable, and
//!   that the first failed write or sync is the last.
//! * It never does: start a thread, wait, retry, or sync on its own (opening excepted).
//! * Invariant: commit numbers rise by one without gaps; `durable() <= written()`; an epoch known to
//!   a fence never falls; after a fault every call gives that same fault.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rhumb_core::Epoch;
use rhumb_core::canary::{self, Canary};
use thiserror::Error;

use crate::batch::{Batch, Family};
use crate::commit::{CommitNumber, CommitRecord};
use crate::engine::{Engine, Ops, Pressure};
use crate::fault::StorageFault;
use crate::keys;

/// A batch was refused as a whole: another writer has a higher epoch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("fenced: {} was written with epoch {given}, storage knows {known}", key.escape_ascii())]
pub struct Fenced {
    /// The fence's key.
    pub key: Vec<u8>,
    /// The epoch of the batch.
    pub given: Epoch,
    /// The epoch that storage knows.
    pub known: Epoch,
}

/// Why a batch was not written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WriteError {
    /// Another writer has a higher epoch; nothing was written and the store goes on.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The store is poisoned: its fate is known only after restart and recovery.
    #[error(transparent)]
    Fault(#[from] StorageFault),
}

/// Why a store did not open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The engine failed.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// One of storage's own records is not what storage writes.
    #[error(
        "the record {key:?} is damaged ({detail}): this store is not safe to open; restore the node from its peers"
    )]
    Record {
        /// The record's key in the family `Meta`.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// What became of a group of batches that were written as one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's number, or the last one written when every batch was fenced.
    pub number: CommitNumber,
    /// For each batch in order, whether it is part of the commit.
    pub outcomes: Vec<Result<(), Fenced>>,
}

/// Numbers commits and checks fences over an engine. See the module's words.
#[derive(Debug)]
pub struct Store<E> {
    engine: E,
    /// Epochs known to fences; the lock orders writes.
    fences: Mutex<HashMap<Vec<u8>, Epoch>>,
    written: AtomicU64,
    durable: AtomicU64,
    poison: OnceLock<StorageFault>,
}

impl<E: Engine> Store<E> {
    /// Opens what an engine shows, and syncs it, so that nothing is told of it that a second crash
    /// could undo.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(engine: E) -> Result<Self, OpenError> {
        let record = read_commit(&engine)?;
        let fences = read_fences(&engine)?;
        engine.sync()?;
        Ok(Self {
            engine,
            fences: Mutex::new(fences),
            written: AtomicU64::new(record.number.0),
            durable: AtomicU64::new(record.number.0),
            poison: OnceLock::new(),
        })
    }

    /// Writes a batch as one commit: visible, not yet durable.
    ///
    /// # Errors
    /// [`WriteError::Fenced`], or the fault that poisoned the store.
    pub fn write(&self, batch: &Batch) -> Result<CommitNumber, WriteError> {
        let Group { number, mut outcomes } = self.write_group([batch])?;
        outcomes.pop().expect("one batch has one outcome")?;
        Ok(number)
    }

    /// Writes many batches as one commit. A fenced batch is left out, alone.
    ///
    /// # Errors
    /// The fault that poisoned the store: then nothing is known of any batch.
    pub fn write_group<'a>(
        &self,
        batches: impl IntoIterator<Item = &'a Batch>,
    ) -> Result<Group, StorageFault> {
        let mut known = self.fences.lock();
        self.healthy()?;
        let mut raised = HashMap::new();
        let mut ops = Ops::new();
        let mut outcomes = Vec::new();
        let mut any = false;
        for batch in batches {
            let outcome = check(&known, &mut raised, batch);
            if outcome.is_ok() {
                ops.add(batch);
                any = true;
            }
            outcomes.push(outcome);
        }
        let last = self.written();
        if !any {
            return Ok(Group { number: last, outcomes });
        }
        let number = last.next();
        let epochs: Vec<_> = raised.iter().map(|(k, e)| (keys::fence(k), encode_epoch(*e))).collect();
        for (key, value) in &epochs {
            ops.put(Family::Meta, key, value);
        }
        let record = CommitRecord { number, durable: self.durable() }.encode();
        ops.put(Family::Meta, keys::COMMIT, &record);
        self.engine.write(&ops).map_err(|fault| self.poisoned_by(fault))?;
        known.extend(raised);
        self.written.store(number.0, Ordering::Release);
        Ok(Group { number, outcomes })
    }

    /// Makes every commit written so far durable and gives the last one's number.
    ///
    /// # Errors
    /// The fault that poisoned the store.
    pub fn sync(&self) -> Result<CommitNumber, StorageFault> {
        self.healthy()?;
        let covered = self.written();
        if !canary::sings(Canary::NoSync) {
            self.engine.sync().map_err(|fault| self.poisoned_by(fault))?;
        }
        self.durable.fetch_max(covered.0, Ordering::AcqRel);
        Ok(covered)
    }

    /// The last commit known durable.
    #[must_use]
    pub fn durable(&self) -> CommitNumber {
        CommitNumber(self.durable.load(Ordering::Acquire))
    }

    /// The last commit written.
    #[must_use]
    pub fn written(&self) -> CommitNumber {
        CommitNumber(self.written.load(Ordering::Acquire))
    }

    /// The value of a key, as last written (perhaps not durable yet).
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.healthy()?;
        self.engine.get(family, key)
    }

    /// Gives keys with this prefix in order until `f` answers `false`. `f` must not write here.
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        mut f: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.healthy()?;
        self.engine.scan(family, prefix, &mut f)
    }

    /// As [`Store::scan`], from this key on to the end of the family.
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn walk(
        &self,
        family: Family,
        from: &[u8],
        mut f: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.healthy()?;
        self.engine.walk(family, from, &mut f)
    }

    /// The highest epoch that a fence knows.
    #[must_use]
    pub fn epoch(&self, fence: &[u8]) -> Option<Epoch> {
        self.fences.lock().get(fence).copied()
    }

    /// How hard the engine is pressed.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.engine.pressure()
    }

    /// The fault that poisoned the store, if one did.
    #[must_use]
    pub fn poisoned(&self) -> Option<&StorageFault> {
        self.poison.get()
    }

    /// The same store over an engine whose kind is forgotten.
    #[must_use]
    pub fn erased(self) -> Store<Arc<dyn Engine>> {
        Store {
            engine: Arc::new(self.engine),
            fences: self.fences,
            written: self.written,
            durable: self.durable,
            poison: self.poison,
        }
    }

    /// Poisons the store from outside: a thread that serves it died.
    pub(crate) fn poisoned_by(&self, fault: StorageFault) -> StorageFault {
        self.poison.get_or_init(|| fault).clone()
    }

    fn healthy(&self) -> Result<(), StorageFault> {
        self.poison.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }
}

/// Whether a batch passes its fences, given what storage knows and what earlier batches of the group
/// raise. Raises nothing unless all pass.
fn check(
    known: &HashMap<Vec<u8>, Epoch>,
    raised: &mut HashMap<Vec<u8>, Epoch>,
    batch: &Batch,
) -> Result<(), Fenced> {
    let mut mine: HashMap<Vec<u8>, Epoch> = HashMap::new();
    for fence in &batch.fences {
        let seen = [mine.get(&fence.key), raised.get(&fence.key), known.get(&fence.key)];
        match seen.into_iter().flatten().max() {
            Some(&known) if known > fence.epoch => {
                return Err(Fenced { key: fence.key.clone(), given: fence.epoch, known });
            }
            Some(&known) if known == fence.epoch => {}
            _ => _ = mine.insert(fence.key.clone(), fence.epoch),
        }
    }
    raised.extend(mine);
    Ok(())
}

fn read_commit<E: Engine>(engine: &E) -> Result<CommitRecord, OpenError> {
    let Some(bytes) = engine.get(Family::Meta, keys::COMMIT)? else {
        return Ok(CommitRecord::default());
    };
    let damaged = |detail: &str| OpenError::Record {
        key: keys::COMMIT.escape_ascii().to_string(),
        detail: detail.into(),
    };
    let record = CommitRecord::decode(&bytes).ok_or_else(|| damaged("its checksum does not match"))?;
    if record.durable >= record.number {
        return Err(damaged("it calls durable what was not written yet"));
    }
    Ok(record)
}

fn read_fences<E: Engine>(engine: &E) -> Result<HashMap<Vec<u8>, Epoch>, OpenError> {
    let mut fences = HashMap::new();
    let mut damaged = None;
    engine.scan(Family::Meta, keys::FENCE, &mut |key, value| match decode_epoch(value) {
        Some(epoch) => {
            fences.insert(key[keys::FENCE.len()..].to_vec(), epoch);
            true
        }
        None => {
            damaged = Some(key.escape_ascii().to_string());
            false
        }
    })?;
    match damaged {
        Some(key) => Err(OpenError::Record { key, detail: "its checksum does not match".into() }),
        None => Ok(fences),
    }
}

/// An epoch in big-endian order and its CRC-32C.
fn encode_epoch(epoch: Epoch) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&epoch.0.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..8]);
    bytes[8..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn decode_epoch(bytes: &[u8]) -> Option<Epoch> {
    let (epoch, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32c::crc32c(epoch).to_be_bytes()).then(|| Epoch(u64::from_be_bytes(*epoch)))
}

#[cfg(test)]
mod tests;
