//! The engine on RocksDB. It touches files.
//!
//! * It decides: how RocksDB is set up, and (by `recovery`) whether its log may be recovered from.
//! * It never does: sync on its own account, recycle log files, or open what lost a promise.
//! * Invariant: a write is one record of the log; `sync` covers every write that returned before it.
//!
//! What is checked on opening, in order: our own scan of manifest and log (`wal`); RocksDB's own checks, set
//! to be strict when the scan found the log whole and to stop at the damage when it may be dropped;
//! then that RocksDB came back with every commit that the log holds; then the blocks of all tables, up
//! to a bound.

mod manifest;
mod open;
mod recovery;
mod settings;
mod tables;
mod wal;

use std::fmt;
use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use crate::batch::Family;
use crate::engine::{Engine, Ops, Pressure};
use crate::fault::{EngineOpenError, FaultCause, StorageFault};

pub use settings::RocksSettings;

/// Reads a log as a start does, for tests that make some up; gives how far anything was found in it.
#[doc(hidden)]
#[must_use]
pub fn read_log(log: &[u8], number: u64) -> u64 {
    let mut furthest = 0;
    wal::read(log, number, |found| {
        let at = match found {
            wal::Found::Damage { offset, .. } => offset,
            wal::Found::Record { offset, bytes } => {
                let _ = wal::commit_in(&bytes);
                offset
            }
        };
        furthest = furthest.max(at);
    });
    furthest
}

/// An open RocksDB.
pub struct RocksEngine {
    db: DB,
    path: PathBuf,
    write: WriteOptions,
    settings: RocksSettings,
}

impl RocksEngine {
    /// Opens the engine in a directory, which is created only if that is allowed.
    ///
    /// # Errors
    /// [`EngineOpenError`]: damage to what was promised, a directory in use or not there, any fault.
    pub fn open(path: &Path, settings: &RocksSettings, create: bool) -> Result<Self, EngineOpenError> {
        open::open(path, settings, create)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the memory tables of all families to tables on disk, so that the log can be dropped.
    ///
    /// # Errors
    /// Any fault.
    pub fn flush(&self) -> Result<(), StorageFault> {
        let families = Family::ALL.map(|family| self.family(family));
        let options = rocksdb::FlushOptions::default();
        self.db.flush_cfs_opt(&families, &options).map_err(|error| self.fault("flush", &error))
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is opened with the engine")
    }

    fn property(&self, family: Family, name: &str) -> u64 {
        // A property that this version does not know counts as no pressure.
        self.db.property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0)
    }

    fn fault(&self, doing: &str, error: &rocksdb::Error) -> StorageFault {
        fault(doing, &self.path, error)
    }
}

impl Engine for RocksEngine {
    fn write(&self, ops: &Ops<'_>) -> Result<(), StorageFault> {
        let mut batch = WriteBatch::default();
        let families = Family::ALL.map(|family| self.family(family));
        for op in ops.iter() {
            let family = families[op.family.index()];
            match op.value {
                Some(value) => batch.put_cf(family, op.key, value),
                None => batch.delete_cf(family, op.key),
            }
        }
        self.db.write_opt(batch, &self.write).map_err(|error| self.fault("write", &error))
    }

    fn sync(&self) -> Result<(), StorageFault> {
        self.db.flush_wal(true).map_err(|error| self.fault("sync the log", &error))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.db.get_cf(self.family(family), key).map_err(|error| self.fault("read", &error))
    }

    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(rocksdb::PrefixRange(prefix));
        let from = IteratorMode::From(prefix, Direction::Forward);
        for row in self.db.iterator_cf_opt(self.family(family), options, from) {
            let (key, value) = row.map_err(|error| self.fault("scan", &error))?;
            if !f(&key, &value) {
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
        let from = IteratorMode::From(from, Direction::Forward);
        for row in self.db.iterator_cf_opt(self.family(family), ReadOptions::default(), from) {
            let (key, value) = row.map_err(|error| self.fault("walk", &error))?;
            if !f(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn pressure(&self) -> Pressure {
        let stopped = self.property(Family::Meta, "rocksdb.is-write-stopped") > 0;
        let delayed = self.property(Family::Meta, "rocksdb.actual-delayed-write-rate") > 0;
        let worst = Family::ALL.map(|family| {
            self.settings.pressure_of(
                self.property(family, "rocksdb.estimate-pending-compaction-bytes"),
                self.property(family, "rocksdb.num-files-at-level0"),
                self.property(family, "rocksdb.num-immutable-mem-table"),
            )
        });
        let floor = match (stopped, delayed) {
            (true, _) => Pressure::Red,
            (false, true) => Pressure::Orange,
            (false, false) => Pressure::Green,
        };
        worst.into_iter().fold(floor, Pressure::max)
    }
}

impl fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksEngine").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A fault of what RocksDB says. It has a kind for corruption only; the rest stands in its words.
fn fault(doing: &str, path: &Path, error: &rocksdb::Error) -> StorageFault {
    let said = error.to_string();
    let has = |needle: &str| said.contains(needle);
    let cause = if error.kind() == rocksdb::ErrorKind::Corruption {
        FaultCause::Corrupt
    } else if has("No space left") || has("Disk quota exceeded") || has("NoSpace") {
        FaultCause::NoSpace
    } else if has("Permission denied") || has("Read-only file system") || has("Operation not permitted") {
        FaultCause::Denied
    } else if has("lock hold by current process") || has("Resource temporarily unavailable") {
        FaultCause::InUse
    } else if has("create_if_missing is false") || has("No such file or directory") {
        FaultCause::Missing
    } else {
        FaultCause::Io
    };
    StorageFault::new(cause, format!("{doing} in {}", path.display()), said)
}

#[cfg(test)]
mod tests;
