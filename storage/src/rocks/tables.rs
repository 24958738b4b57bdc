//! The tables' soundness: all are read when a store is opened, and a damaged one is called by its name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use rocksdb::{DB, IteratorMode, Options, ReadOptions};

use super::{RocksEngine, RocksSettings};
use crate::batch::Family;
use crate::fault::{FaultCause, StorageFault};

/// Where one table at a time is looked at. RocksDB leaves alone what it has not named itself.
const BENCH: &str = "which-table";

/// Reads every block of every table, so that damage is met here and not under load.
pub(super) fn check(engine: &RocksEngine) -> Result<(), StorageFault> {
    let tables = engine.db.live_files().map_err(|error| engine.fault("list the tables", &error))?;
    if tables.iter().map(|table| table.size as u64).sum::<u64>() > engine.settings.verify_bytes {
        return Ok(());
    }
    for family in Family::ALL {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        for row in engine.db.iterator_cf_opt(engine.family(family), options, IteratorMode::Start) {
            row.map_err(|error| engine.fault("check the tables", &error))?;
        }
    }
    Ok(())
}

/// Says which table is damaged, where RocksDB did not: of one whose properties are it says that the manifest may
/// be, which was found sound before it was asked.
pub(super) fn blame(fault: StorageFault, path: &Path, settings: &RocksSettings) -> StorageFault {
    if fault.cause != FaultCause::Corrupt || fault.detail.contains(".sst") {
        return fault;
    }
    match damaged(path, settings.verify_bytes) {
        Ok(Some(table)) => {
            StorageFault { detail: format!("{} ({})", table.display(), fault.detail), ..fault }
        }
        Ok(None) => fault,
        Err(error) => {
            let detail = format!("{}; which table it is cannot be found out: {error}", fault.detail);
            StorageFault { detail, ..fault }
        }
    }
}

/// The first table, if all have no more than so many bytes together, that RocksDB would not take over into a
/// store of this table alone.
fn damaged(path: &Path, most: u64) -> io::Result<Option<PathBuf>> {
    let mut tables = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.path().extension() == Some(OsStr::new("sst")) {
            tables.push((entry.path(), entry.metadata()?.len()));
        }
    }
    tables.sort();
    if tables.iter().map(|(_, bytes)| bytes).sum::<u64>() > most {
        return Ok(None);
    }
    let bench = path.join(BENCH);
    for (table, _) in tables {
        let is_sound = is_taken_over(&table, &bench);
        let removed = fs::remove_dir_all(&bench);
        if !is_sound? {
            return Ok(Some(table));
        }
        removed?;
    }
    Ok(None)
}

/// Whether a repair keeps the table: it moves the name of a damaged one aside. The table's other name, and its
/// bytes, stay as they are.
fn is_taken_over(table: &Path, bench: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(bench) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir(bench)?,
    }
    let alone = bench.join(table.file_name().unwrap_or_default());
    fs::hard_link(table, &alone)?;
    let repaired = DB::repair(&Options::default(), bench);
    Ok(repaired.is_ok() && alone.exists())
}
