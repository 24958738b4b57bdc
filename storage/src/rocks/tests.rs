use std::fs;

use tempfile::TempDir;

use super::wal::Found;
use super::*;
use crate::conformance::{self, Bench};
use crate::{Batch, CommitNumber, Store, keys};

impl Bench for TempDir {
    type Engine = RocksEngine;
    fn open(&self) -> RocksEngine {
        RocksEngine::open(self.path(), &settings(), true).expect("opens")
    }
}

fn settings() -> RocksSettings {
    RocksSettings { block_cache_bytes: 1 << 20, ..RocksSettings::default() }
}

fn tempdir() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn reopen(path: &Path) -> Result<Store<RocksEngine>, EngineOpenError> {
    RocksEngine::open(path, &settings(), false)
        .map(|engine| Store::open(engine).expect("the records are whole"))
}

/// A batch whose record in the log has about so many bytes.
fn put(n: u64, bytes: usize) -> Batch {
    let mut batch = Batch::new();
    // Bytes that neither repeat nor compress.
    let mut value = Vec::new();
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend(state.to_le_bytes());
    }
    batch.put(Family::Escrow, n.to_be_bytes(), value);
    batch
}

const DURABLE: u64 = 15;
const WRITTEN: u64 = 20;

/// A directory as a killed process leaves it: 20 commits of which 15 are durable, all in one log.
fn killed(bytes: usize) -> TempDir {
    let dir = tempdir();
    let store = Store::open(dir.open()).expect("opens");
    for n in 1..=WRITTEN {
        store.write(&put(n, bytes)).expect("writes");
        if n <= DURABLE {
            store.sync().expect("syncs");
        }
    }
    copied(dir.path())
}

/// A copy of a directory.
fn copied(from: &Path) -> TempDir {
    let to = tempdir();
    for entry in fs::read_dir(from).expect("reads") {
        let file = entry.expect("reads").path();
        fs::copy(&file, to.path().join(file.file_name().expect("is a file"))).expect("copies");
    }
    to
}

/// The only file with this in its name.
fn file(dir: &Path, part: &str) -> PathBuf {
    let files = fs::read_dir(dir).expect("reads").map(|entry| entry.expect("reads").path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part));
    files.filter(named).max().unwrap_or_else(|| panic!("a file with {part} in its name"))
}

/// Where each commit's record begins in the log, and its end.
fn layout(log: &Path) -> Vec<usize> {
    let bytes = fs::read(log).expect("reads");
    let mut starts = Vec::new();
    wal::read(&bytes, 0, |found| match found {
        Found::Record { offset, .. } => starts.push(offset as usize),
        Found::Damage { offset, what, .. } => panic!("{what} at {offset}"),
    });
    starts.push(bytes.len());
    starts
}

fn change(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(file).expect("reads");
    change(&mut bytes);
    fs::write(file, bytes).expect("writes");
}

/// Opens a copy of a directory after changing its log.
fn reopen_with(
    image: &TempDir,
    edit: impl FnOnce(&mut Vec<u8>),
) -> (TempDir, Result<CommitNumber, EngineOpenError>) {
    let dir = copied(image.path());
    change(&file(dir.path(), ".log"), edit);
    let opened = reopen(dir.path()).map(|store| {
        let last = store.written().0;
        for n in 1..=WRITTEN {
            let row = store.get(Family::Escrow, &n.to_be_bytes()).expect("reads");
            assert_eq!(row.is_some(), n <= last, "the rows are those of the commits");
        }
        store.written()
    });
    (dir, opened)
}

#[test]
fn rocks_conforms() {
    conformance::run(tempdir);
}

#[test]
fn what_a_killed_process_wrote_is_there() {
    let (_dir, opened) = reopen_with(&killed(2000), |_| ());
    assert_eq!(opened, Ok(CommitNumber(WRITTEN)));
}

#[test]
fn damage_to_what_was_promised_is_refused_naming_file_and_offset() {
    let image = killed(2000);
    let starts = layout(&file(image.path(), ".log"));
    for commit in [1, 2, 8, DURABLE - 1, DURABLE] {
        let start = starts[commit as usize - 1];
        // Each byte of the header, then of the batch.
        for at in (start..start + 7).chain([start + 9, start + 30, start + 1000]) {
            for mask in [0x01, 0x04, 0x80] {
                let (dir, opened) = reopen_with(&image, |log| log[at] ^= mask);
                let log = file(dir.path(), ".log");
                let refused = opened.expect_err("a promise is broken");
                let EngineOpenError::Damaged { file, offset, lost, durable, .. } = &refused else {
                    panic!("commit {commit}, byte {at}: {refused}")
                };
                let place = (*file == log, *offset as usize, lost.0, durable.0);
                // The record may be split over two blocks; then the damage is in one of its parts.
                assert!(
                    place.0 && place.1 <= at && place.1 >= start,
                    "commit {commit}, byte {at}: {refused}"
                );
                assert_eq!((lost.0, durable.0), (commit, DURABLE), "byte {at}");
                assert!(
                    refused.to_string().contains(&format!("{} is damaged at byte {offset}", log.display()))
                );
            }
        }
    }
}

#[test]
fn a_refusal_changes_nothing_on_disk() {
    let image = killed(2000);
    let starts = layout(&file(image.path(), ".log"));
    let (dir, refused) = reopen_with(&image, |log| log[starts[3] + 5] ^= 1);
    let names = |dir: &Path| {
        let names = fs::read_dir(dir).expect("reads").map(|entry| entry.expect("reads").file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(refused.is_err());
    assert_eq!(names(dir.path()), names(image.path()));
    assert_eq!(reopen(dir.path()).map(drop), refused.map(drop), "and is refused again");
}

#[test]
fn damage_to_what_was_not_promised_is_dropped_from_there_on() {
    let image = killed(2000);
    let starts = layout(&file(image.path(), ".log"));
    for commit in [DURABLE + 1, DURABLE + 3, WRITTEN] {
        let start = starts[commit as usize - 1];
        for at in [start, start + 5, start + 6, start + 500] {
            let (dir, opened) = reopen_with(&image, |log| log[at] ^= 0x04);
            assert_eq!(opened, Ok(CommitNumber(commit - 1)), "commit {commit}, byte {at}");
            // The node goes on: the numbers are given again, and nothing of the damage is left.
            let store = reopen(dir.path()).expect("opens again");
            assert_eq!(store.write(&put(commit, 10)), Ok(CommitNumber(commit)));
            assert_eq!(store.sync(), Ok(CommitNumber(commit)));
            store.write(&put(commit + 1, 10)).expect("writes");
            let killed_again = copied(dir.path());
            assert_eq!(reopen(killed_again.path()).expect("opens").written(), CommitNumber(commit + 1));
        }
    }
}

#[test]
fn a_torn_tail_opens_and_loses_only_the_last_commit() {
    let image = killed(100);
    let starts = layout(&file(image.path(), ".log"));
    let (last, end) = (starts[WRITTEN as usize - 1], starts[WRITTEN as usize]);
    for cut in (last..end).step_by(9).chain([last + 1, end - 1, end]) {
        let (_dir, opened) = reopen_with(&image, |log| log.truncate(cut));
        let expected = if cut == end { WRITTEN } else { WRITTEN - 1 };
        assert_eq!(opened, Ok(CommitNumber(expected)), "cut at {cut} of {last}..{end}");
    }
    for from in (last..end).step_by(43) {
        let (_dir, opened) = reopen_with(&image, |log| log[from..].fill(0));
        assert_eq!(opened, Ok(CommitNumber(WRITTEN - 1)), "zeros from {from}");
    }
    let (_dir, opened) = reopen_with(&image, |log| log.resize(log.len() + 100_000, 0));
    assert_eq!(opened, Ok(CommitNumber(WRITTEN)), "zeros after the end");
}

/// Why [`wal`] exists: this is what RocksDB does when it is left alone with its tolerant mode.
#[test]
fn rocksdb_alone_would_drop_promised_commits_in_silence() {
    let image = killed(100);
    let log = file(image.path(), ".log");
    let length = layout(&log)[4] + 5;
    change(&log, |log| log[length] ^= 0x40);
    let options = settings().options(false, rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    let db =
        DB::open_cf_descriptors(&options, image.path(), settings().families()).expect("opens in silence");
    let meta = db.cf_handle(Family::Meta.name()).expect("is there");
    let record = db.get_cf(meta, keys::COMMIT).expect("reads").expect("is there");
    let record = crate::commit::CommitRecord::decode(&record).expect("is whole");
    assert_eq!(record.number, CommitNumber(4), "11 durable commits are gone");
}

/// A directory with tables, closed in order.
fn with_tables() -> TempDir {
    let dir = tempdir();
    let engine = dir.open();
    let store = Store::open(engine).expect("opens");
    (1..=200).for_each(|n| _ = store.write(&put(n, 500)).expect("writes"));
    store.sync().expect("syncs");
    drop(store);
    drop(dir.open());
    dir
}

#[test]
fn a_damaged_table_is_refused_on_opening() {
    let image = with_tables();
    let tables = fs::read_dir(image.path()).expect("reads").map(|entry| entry.expect("reads").path());
    let table = tables.filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let table = table.max_by_key(|path| fs::metadata(path).expect("reads").len()).expect("there is one");
    let name = table.file_name().expect("is a file").to_os_string();
    let size = fs::metadata(&table).expect("reads").len() as usize;
    for at in [100, size / 3, size / 2, size - 60, size - 3] {
        let dir = copied(image.path());
        change(&dir.path().join(&name), |bytes| bytes[at] ^= 0x10);
        match reopen(dir.path()) {
            Err(EngineOpenError::Fault(fault)) => {
                assert_eq!(fault.cause, FaultCause::Corrupt, "byte {at}: {fault}");
                assert!(fault.to_string().contains(&*name.to_string_lossy()), "byte {at}: {fault}");
            }
            other => panic!("byte {at} of {size}: {other:?}"),
        }
    }
    // Its end: filter, index, properties and footer. Not each of their bits says something.
    for at in (size - 1_500..size).step_by(23) {
        let dir = copied(image.path());
        change(&dir.path().join(&name), |bytes| bytes[at] ^= 0x02);
        if let Err(refused) = reopen(dir.path()) {
            assert!(refused.to_string().contains(&*name.to_string_lossy()), "byte {at}: {refused}");
        }
        assert!(!dir.path().join("which-table").exists(), "byte {at}: nothing is left behind");
    }
    let dir = copied(image.path());
    change(&dir.path().join(&name), |bytes| bytes.truncate(size / 2));
    assert!(reopen(dir.path()).is_err(), "a table cut short");
    fs::remove_file(dir.path().join(&name)).expect("removes");
    assert!(reopen(dir.path()).is_err(), "a table missing");
}

#[test]
fn a_damaged_manifest_or_current_is_refused() {
    let image = with_tables();
    let manifest = file(image.path(), "MANIFEST");
    let name = manifest.file_name().expect("is a file").to_os_string();
    let records = layout(&manifest);
    let last = records[records.len() - 2];
    for at in (0..7).flat_map(|byte| [byte, last + byte]).chain([last + 9, records[1] + 4]) {
        let dir = copied(image.path());
        change(&dir.path().join(&name), |bytes| bytes[at] ^= 0x04);
        match reopen(dir.path()) {
            Err(EngineOpenError::Fault(fault)) => {
                assert_eq!(fault.cause, FaultCause::Corrupt, "byte {at}: {fault}");
                assert!(fault.to_string().contains(&*name.to_string_lossy()), "byte {at}: {fault}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
    for damage in [b"".as_slice(), b"MANIFEST-", b"MANIFEST-999999\n", b"nonsense\n"] {
        let dir = copied(image.path());
        fs::write(dir.path().join("CURRENT"), damage).expect("writes");
        assert!(reopen(dir.path()).is_err(), "CURRENT says {damage:?}");
    }
    for gone in ["CURRENT", &*name.to_string_lossy()] {
        let dir = copied(image.path());
        fs::remove_file(dir.path().join(gone)).expect("removes");
        assert!(reopen(dir.path()).is_err(), "{gone} is gone");
    }
}

#[test]
fn a_manifest_whose_last_record_was_not_written_whole_is_read_without_it() {
    const LENGTH: usize = 100;
    let image = with_tables();
    let name = file(image.path(), "MANIFEST").file_name().expect("is a file").to_os_string();
    // An edit of which so many bytes came through, and its length; what follows it.
    for (came, after, opens) in [
        (0, &b""[..], true),
        (1, b"", true),
        (LENGTH - 32, b"", true),
        (LENGTH - 31, b"", true),
        (LENGTH - 1, b"", true),
        (LENGTH, b"", false),
        (1, b"more", false),
    ] {
        let dir = copied(image.path());
        change(&dir.path().join(&name), |bytes| {
            bytes.extend([1, 2, 3, 4, LENGTH as u8, 0, 1]);
            bytes.extend(std::iter::repeat_n(7, came).chain(std::iter::repeat_n(0, LENGTH - came)));
            bytes.extend(after);
        });
        for time in ["at first", "and again"] {
            assert_eq!(reopen(dir.path()).is_ok(), opens, "{came} bytes, then {after:?}, {time}");
        }
    }
}

#[test]
fn one_flipped_bit_in_the_last_record_of_a_manifest_is_refused_or_set_right_and_never_forgets_a_table() {
    let image = with_tables();
    let manifest = file(image.path(), "MANIFEST");
    let name = manifest.file_name().expect("is a file").to_os_string();
    let records = layout(&manifest);
    let (last, end) = (records[records.len() - 2], records[records.len() - 1]);
    let whole = reopen(copied(image.path()).path()).expect("it opens").written();
    let mut set_right = 0;
    for (at, bit) in (last..end).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let dir = copied(image.path());
        change(&dir.path().join(&name), |bytes| bytes[at] ^= 1 << bit);
        // What a type becomes that is not in use may be passed over: then nothing is lost either.
        if let Ok(store) = reopen(dir.path()) {
            assert_eq!(store.written(), whole, "byte {}, bit {bit}", at - last);
            set_right += 1;
        }
    }
    println!("{set_right} of {} were set right", (end - last) * 8);
}

#[test]
fn a_directory_in_use_or_not_there_is_a_typed_fault() {
    let dir = tempdir();
    let cause = |opened: Result<RocksEngine, EngineOpenError>| match opened {
        Err(EngineOpenError::Fault(fault)) => fault.cause,
        other => panic!("{other:?}"),
    };
    assert_eq!(cause(RocksEngine::open(&dir.path().join("no"), &settings(), false)), FaultCause::Missing);
    let held = dir.open();
    assert_eq!(cause(RocksEngine::open(dir.path(), &settings(), false)), FaultCause::InUse);
    drop(held);
    assert!(RocksEngine::open(dir.path(), &settings(), false).is_ok());
}

#[test]
fn a_full_disk_is_a_typed_fault() {
    let dir = tempdir();
    let engine = dir.open();
    engine.write(Ops::new().put(Family::Escrow, b"a", b"1")).expect("there is room");
    let names = fs::read_dir(dir.path()).expect("reads").map(|entry| entry.expect("reads").file_name());
    let numbers = names.filter_map(|name| {
        let name = name.into_string().expect("is text");
        name.split(['.', '-']).filter_map(|part| part.parse::<u64>().ok()).max()
    });
    // The next log file is a device that is always full; flushing begins it.
    let highest = numbers.max().expect("RocksDB numbers its files");
    for number in highest + 1..highest + 20 {
        let link = dir.path().join(format!("{number:06}.log"));
        std::os::unix::fs::symlink("/dev/full", link).expect("links");
    }
    let failed = engine.flush().and_then(|()| {
        let large = vec![7; 1 << 20];
        engine.write(Ops::new().put(Family::Escrow, b"b", &large))
    });
    let failed = failed.expect_err("the disk is full");
    assert_eq!(failed.cause, FaultCause::NoSpace, "{failed}");
}

#[test]
fn a_place_where_nothing_can_be_made_is_a_typed_fault() {
    let dir = tempdir();
    fs::write(dir.path().join("file"), "").expect("writes");
    let opened = RocksEngine::open(&dir.path().join("file/under"), &settings(), true);
    assert!(matches!(opened, Err(EngineOpenError::Fault(_))), "{opened:?}");
}

#[test]
fn writes_of_a_log_that_was_rotated_are_still_one_history() {
    let dir = tempdir();
    let small = RocksSettings { memtable_bytes: 64 << 10, log_bytes: 1 << 20, ..settings() };
    let store = Store::open(RocksEngine::open(dir.path(), &small, true).expect("opens")).expect("opens");
    for n in 1..=300 {
        store.write(&put(n, 2000)).expect("writes");
        if n % 10 == 0 {
            store.sync().expect("syncs");
        }
    }
    let image = copied(dir.path());
    drop(store);
    assert_eq!(reopen(image.path()).expect("opens").written(), CommitNumber(300));
}

#[test]
fn an_old_log_that_a_crash_kept_from_being_deleted_is_no_hole() {
    let dir = tempdir();
    let mut first_log = None;
    // Each opening begins a new log and deletes the one before.
    for life in 0..3 {
        let store = Store::open(dir.open()).expect("opens");
        (1..=10).for_each(|n| _ = store.write(&put(life * 10 + n, 100)).expect("writes"));
        store.sync().expect("syncs");
        let log = file(dir.path(), ".log");
        first_log.get_or_insert_with(|| (log.clone(), fs::read(&log).expect("reads")));
    }
    let (log, bytes) = first_log.expect("a log");
    assert!(!log.exists(), "it was deleted, and the next one too");
    fs::write(&log, bytes).expect("writes");
    assert_eq!(reopen(dir.path()).expect("opens").written(), CommitNumber(30));
}

#[test]
fn a_recovery_that_ends_before_its_log_is_refused() {
    let dir = tempdir();
    let store = Store::open(dir.open()).expect("opens");
    (1..=5).for_each(|n| _ = store.write(&put(n, 10)).expect("writes"));
    drop(store);
    drop(dir.open());
    // A log that the manifest no longer asks for, as if the manifest had been put back.
    let image = killed(10);
    fs::remove_file(file(dir.path(), ".log")).expect("removes");
    fs::copy(file(image.path(), ".log"), dir.path().join("000001.log")).expect("copies");
    match RocksEngine::open(dir.path(), &settings(), false) {
        Err(EngineOpenError::Shortened { recovered, held, .. }) => {
            assert_eq!((recovered, held), (CommitNumber(5), CommitNumber(WRITTEN)));
        }
        other => panic!("{other:?}"),
    }
}
