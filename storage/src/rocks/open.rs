//! Opening: scan, judge, open, check what came back.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRecoveryMode, WriteOptions};

use super::manifest::Asked;
use super::recovery::{Damage, Judge, Verdict};
use super::wal::{self, Fate, Found};
use super::{RocksEngine, RocksSettings, fault, tables};
use crate::batch::Family;
use crate::commit::{CommitNumber, CommitRecord};
use crate::engine::Engine;
use crate::fault::{EngineOpenError, FaultCause, StorageFault};
use crate::keys;

pub(super) fn open(
    path: &Path,
    settings: &RocksSettings,
    create: bool,
) -> Result<RocksEngine, EngineOpenError> {
    if create {
        fs::create_dir_all(path).map_err(|error| io_fault("create", path, &error))?;
    }
    let oldest_log = check_manifest(path)?;
    let verdict = scan(path, oldest_log)?;
    if let Some(damage) = &verdict.damage {
        mark_end(damage).map_err(|error| io_fault("mark the damage in", &damage.file, &error))?;
    }
    // A whole log must be taken whole; a damaged one up to the damage and not further.
    let recovery = match verdict.damage {
        None => DBRecoveryMode::AbsoluteConsistency,
        Some(_) => DBRecoveryMode::PointInTime,
    };
    let options = settings.options(create, recovery);
    let db = DB::open_cf_descriptors(&options, path, settings.families())
        .map_err(|error| tables::blame(fault("open the engine", path, &error), path, settings))?;
    let mut write = WriteOptions::default();
    write.set_sync(false);
    let engine = RocksEngine { db, path: path.into(), write, settings: settings.clone() };
    check_recovered(&engine, &verdict)?;
    tables::check(&engine)?;
    Ok(engine)
}

/// Reads all log files, in the order of their numbers, and judges them. Those older than the oldest that is
/// asked for are what a crash has left of a deletion: they need not join the others, and their damage is
/// none, but nothing that they hold may be missing from what comes back.
fn scan(path: &Path, oldest_log: u64) -> Result<Verdict, EngineOpenError> {
    let (mut judge, mut left_over) = (Judge::default(), None);
    for (number, file) in logs(path)? {
        let bytes = fs::read(&file).map_err(|error| io_fault("read", &file, &error))?;
        if number >= oldest_log {
            wal::read(&bytes, number, |found| judge.see(&file, found));
        } else {
            let mut alone = Judge::default();
            wal::read(&bytes, number, |found| alone.see(&file, found));
            left_over = left_over.max(alone.verdict().ok().and_then(|verdict| verdict.held));
        }
    }
    let verdict = judge.verdict()?;
    Ok(Verdict { held: verdict.held.max(left_over), ..verdict })
}

/// Refuses a damaged manifest; gives the number of the oldest log that it asks for. A torn last record is
/// no damage: what it would have said was not relied on yet. One that ends in zeros is cut off here, for RocksDB
/// would not open it; if a bit of them makes it whole, that is set. RocksDB takes a damaged length for a torn record, and would then forget tables.
fn check_manifest(path: &Path) -> Result<u64, StorageFault> {
    // What is wrong with CURRENT itself, RocksDB says when it opens.
    let Ok(current) = fs::read_to_string(path.join("CURRENT")) else { return Ok(0) };
    let file = path.join(current.trim_end());
    let Some(number) = current.trim_end().strip_prefix("MANIFEST-").and_then(|n| n.parse().ok()) else {
        return Ok(0);
    };
    let bytes = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        read => read.map_err(|error| io_fault("read", &file, &error))?,
    };
    let (mut wrong, mut asked): (Option<(u64, &str, bool)>, _) = (None, Asked::default());
    wal::read(&bytes, number, |found| match (found, &mut wrong) {
        (Found::Damage { offset, what, torn }, None) => wrong = Some((offset, what, torn)),
        (_, Some((_, _, torn))) => *torn = false,
        (Found::Record { bytes, .. }, None) => asked.see(&bytes),
    });
    match wrong {
        None | Some((_, _, true)) => Ok(asked.oldest_log()),
        Some((offset, what, false)) => match wal::fate(&bytes[offset as usize..]) {
            Fate::Torn => {
                cut_off(&file, offset).map_err(|error| io_fault("cut the torn end off", &file, &error))?;
                Ok(asked.oldest_log())
            }
            Fate::Lost(at, bit) => {
                set_bit(&file, offset + at as u64, bit)
                    .map_err(|error| io_fault("set the bit that was lost", &file, &error))?;
                check_manifest(path)
            }
            Fate::Changed => {
                let detail = format!("{} is damaged at byte {offset} ({what})", file.display());
                Err(StorageFault::new(
                    FaultCause::Corrupt,
                    format!("open the engine in {}", path.display()),
                    detail,
                ))
            }
        },
    }
}

/// Sets one bit of a byte that is zero.
fn set_bit(file: &Path, at: u64, bit: u8) -> io::Result<()> {
    let mut file = File::options().write(true).open(file)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[bit])?;
    file.sync_all()
}

fn cut_off(file: &Path, at: u64) -> io::Result<()> {
    let file = File::options().write(true).open(file)?;
    file.set_len(at)?;
    file.sync_all()
}

/// The log files of a directory, oldest first.
fn logs(path: &Path) -> Result<Vec<(u64, PathBuf)>, StorageFault> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_fault("read", path, &error)),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| io_fault("read", path, &error))?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            let stem = file.file_stem().and_then(|stem| stem.to_str());
            logs.extend(stem.and_then(|stem| stem.parse().ok()).map(|number: u64| (number, file)));
        }
    }
    logs.sort();
    Ok(logs)
}

/// Makes damage that may be dropped one that RocksDB is known to stop at: a record whose checksum does
/// not match. Left as it is, it might be skipped in silence or read for ever. What is overwritten is
/// the header of a record that is lost either way.
fn mark_end(damage: &Damage) -> io::Result<()> {
    const FULL: u8 = 1;
    let crc_of_empty = crc32c::crc32c(&[FULL]).rotate_left(17).wrapping_add(wal::MASK);
    let mut header = (!crc_of_empty).to_le_bytes().to_vec();
    header.extend([0, 0, FULL]);
    let mut file = File::options().write(true).open(&damage.file)?;
    // A header that is cut off is the end already.
    if file.metadata()?.len() >= damage.offset + header.len() as u64 {
        file.seek(SeekFrom::Start(damage.offset))?;
        file.write_all(&header)?;
        file.sync_all()?;
    }
    Ok(())
}

/// RocksDB must have come back with every commit that the scan found before any damage.
fn check_recovered(engine: &RocksEngine, verdict: &Verdict) -> Result<(), EngineOpenError> {
    let Some(held) = verdict.held else { return Ok(()) };
    let recovered = match engine.get(Family::Meta, keys::COMMIT)? {
        None => CommitNumber::default(),
        Some(bytes) => match CommitRecord::decode(&bytes) {
            Some(record) => record.number,
            None => {
                let detail = "the checksum of the commit record does not match";
                let doing = format!("recover {}", engine.path.display());
                return Err(StorageFault::new(FaultCause::Corrupt, doing, detail).into());
            }
        },
    };
    if recovered < held {
        return Err(EngineOpenError::Shortened { path: engine.path.clone(), recovered, held });
    }
    Ok(())
}

fn io_fault(what: &str, path: &Path, error: &io::Error) -> StorageFault {
    StorageFault::io(format!("{what} {}", path.display()), error)
}
