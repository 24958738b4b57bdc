//! The control store on sled. It touches files; it decides nothing.
//!
//! sled's own flush ends with sync_file_range(2), which makes neither a file's length nor its name durable and
//! does not empty the disk's cache: a power cut could take back what was flushed. So a write here ends with a
//! sync of sled's file of our own, and an opening with one of the directories.
//!
//! After one that failed nothing is written any more: a later sync may succeed although what the first was to cover
//! is lost (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

use std::fs::File;
use std::path::Path;
use std::sync::OnceLock;

use crate::control::{ControlRecord, ControlStore, LastSeen, Recorded};
use crate::fault::{FaultCause, StorageFault};

const RECORD: &[u8] = b"record";
/// Where sled keeps everything, in its directory.
const LOG: &str = "db";
/// Small state only: sled's default cache of a gigabyte is not for it.
const CACHE_BYTES: u64 = 1 << 20;

/// The control store in a directory of its own.
#[derive(Debug)]
pub struct SledControl {
    db: ::sled::Db,
    /// The file that `db` writes, to be synced.
    log: File,
    /// The first write or sync that failed.
    failed: OnceLock<StorageFault>,
}

impl SledControl {
    /// Opens the directory, or makes it.
    ///
    /// # Errors
    /// Any fault; [`FaultCause::InUse`] when another process has it open.
    pub fn open(path: &Path) -> Result<Self, StorageFault> {
        let config = ::sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let doing = format!("open the control store {}", path.display());
        let db = config.open().map_err(|error| fault(&doing, &error))?;
        let synced = File::open(path.join(LOG)).and_then(|log| {
            log.sync_all()?;
            super::data_dir::sync_names(path)?;
            Ok(log)
        });
        let log = synced.map_err(|error| StorageFault::io(doing, &error))?;
        Ok(Self { db, log, failed: OnceLock::new() })
    }

    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        let found = self.db.get(key).map_err(|error| fault("read the control store", &error))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    fn write(&self, key: &[u8], value: &[u8]) -> Result<(), StorageFault> {
        if let Some(failed) = self.failed.get() {
            return Err(failed.clone());
        }
        self.write_once(key, value).inspect_err(|fault| {
            // The first stands.
            self.failed.set(fault.clone()).ok();
        })
    }

    fn write_once(&self, key: &[u8], value: &[u8]) -> Result<(), StorageFault> {
        let doing = "write the control store";
        self.db.insert(key, value).map_err(|error| fault(doing, &error))?;
        self.db.flush().map_err(|error| fault(doing, &error))?;
        self.log.sync_all().map_err(|error| StorageFault::io(doing, &error))
    }
}

impl ControlStore for SledControl {
    fn record(&self) -> Result<Option<Recorded>, StorageFault> {
        let Some(bytes) = self.read(RECORD)? else { return Ok(None) };
        let damaged = || {
            let detail = "the checksum of its record does not match; restore the node from its peers";
            StorageFault::new(FaultCause::Corrupt, "read the control store", detail)
        };
        ControlRecord::decode(&bytes).map(Some).ok_or_else(damaged)
    }

    fn stamp(&self, record: &ControlRecord) -> Result<(), StorageFault> {
        self.write(RECORD, &record.encode())
    }

    fn last_seen(&self, what: LastSeen) -> Result<Option<Vec<u8>>, StorageFault> {
        self.read(what.name().as_bytes())
    }

    fn remember(&self, what: LastSeen, bytes: &[u8]) -> Result<(), StorageFault> {
        self.write(what.name().as_bytes(), bytes)
    }
}

fn fault(doing: &str, error: &::sled::Error) -> StorageFault {
    match error {
        // sled gives its lock's refusal no kind of its own.
        ::sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StorageFault::new(FaultCause::InUse, doing, error.to_string())
        }
        ::sled::Error::Io(error) => StorageFault::io(doing, error),
        ::sled::Error::Corruption { .. } => {
            let detail = "its bytes are not what was written: put the folder back from a copy of this data directory \
                          that was made under the present policy";
            StorageFault::new(FaultCause::Corrupt, doing, detail)
        }
        _ => StorageFault::new(FaultCause::Io, doing, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_sync_that_failed_nothing_is_written_any_more() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut control = SledControl::open(folder.path()).expect("opened");
        control.remember(LastSeen::Policy, b"1").expect("written");
        // A pipe cannot be synced.
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        let log = std::mem::replace(&mut control.log, std::os::fd::OwnedFd::from(writer).into());
        let first = control.remember(LastSeen::Policy, b"2").expect_err("it is not synced");
        control.log = log;
        assert_eq!(control.remember(LastSeen::Policy, b"3").expect_err("nor is this"), first);
    }
}
