//! What every engine must do, as one suite. It asserts, so it is called from tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rhumb_core::Epoch;

use crate::batch::{Batch, Family};
use crate::commit::CommitNumber;
use crate::engine::{Engine, Ops, Pressure};
use crate::store::{Fenced, Store, WriteError};

/// A disk that an engine can be opened on again and again.
pub trait Bench {
    /// The engine under test.
    type Engine: Engine;
    /// Opens the disk. The engine opened before was dropped.
    fn open(&self) -> Self::Engine;
}

/// Runs the whole suite, each part on a fresh disk.
///
/// # Panics
/// When the engine does not conform.
pub fn run<B: Bench>(fresh: impl Fn() -> B) {
    what_is_put_is_there_until_it_is_deleted(&fresh().open());
    families_do_not_see_each_other(&fresh().open());
    later_operations_of_one_write_win(&fresh().open());
    scans_follow_byte_order_and_the_prefix(&fresh().open());
    a_scan_stops_when_told(&fresh().open());
    a_walk_begins_anywhere_and_does_not_leave_its_family(&fresh().open());
    empty_and_large_keys_and_values_are_kept(&fresh().open());
    writes_are_never_seen_in_part(fresh().open());
    what_was_synced_is_there_after_reopening(&fresh());
    a_store_goes_on_counting_after_reopening(&fresh());
    fences_survive_reopening(&fresh());
    assert_eq!(fresh().open().pressure(), Pressure::Green, "a new engine is not pressed");
}

fn rows<E: Engine>(engine: &E, family: Family, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    engine
        .scan(family, prefix, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            true
        })
        .expect("the engine scans");
    rows
}

fn write<E: Engine>(engine: &E, build: impl FnOnce(&mut Ops<'static>)) {
    let mut ops = Ops::new();
    build(&mut ops);
    engine.write(&ops).expect("the engine writes");
}

fn value<E: Engine>(engine: &E, family: Family, key: &[u8]) -> Option<Vec<u8>> {
    engine.get(family, key).expect("the engine reads")
}

fn what_is_put_is_there_until_it_is_deleted<E: Engine>(engine: &E) {
    assert_eq!(value(engine, Family::Escrow, b"a"), None);
    write(engine, |ops| _ = ops.put(Family::Escrow, b"a", b"1"));
    assert_eq!(value(engine, Family::Escrow, b"a"), Some(b"1".to_vec()));
    write(engine, |ops| _ = ops.put(Family::Escrow, b"a", b"2"));
    assert_eq!(value(engine, Family::Escrow, b"a"), Some(b"2".to_vec()));
    write(engine, |ops| _ = ops.delete(Family::Escrow, b"a").delete(Family::Escrow, b"never there"));
    assert_eq!(value(engine, Family::Escrow, b"a"), None);
}

fn families_do_not_see_each_other<E: Engine>(engine: &E) {
    write(engine, |ops| {
        for family in Family::ALL {
            ops.put(family, b"k", family.name().as_bytes());
        }
    });
    for family in Family::ALL {
        assert_eq!(value(engine, family, b"k"), Some(family.name().as_bytes().to_vec()));
    }
    write(engine, |ops| _ = ops.delete(Family::Raft, b"k"));
    assert_eq!(value(engine, Family::Raft, b"k"), None);
    assert!(value(engine, Family::Mvcc, b"k").is_some());
}

fn later_operations_of_one_write_win<E: Engine>(engine: &E) {
    write(engine, |ops| {
        ops.put(Family::Audit, b"a", b"1").delete(Family::Audit, b"a").put(Family::Audit, b"b", b"1");
        ops.put(Family::Audit, b"b", b"2").delete(Family::Audit, b"c").put(Family::Audit, b"c", b"3");
    });
    let expected = [(b"b".to_vec(), b"2".to_vec()), (b"c".to_vec(), b"3".to_vec())];
    assert_eq!(rows(engine, Family::Audit, b""), expected);
}

fn scans_follow_byte_order_and_the_prefix<E: Engine>(engine: &E) {
    write(engine, |ops| {
        for key in [b"b\xff".as_slice(), b"a", b"b", b"b\x00", b"c", b"\xff\xff", b"\xff"] {
            ops.put(Family::Outbox, key, b"");
        }
    });
    let keys = |prefix| rows(engine, Family::Outbox, prefix).into_iter().map(|(k, _)| k).collect::<Vec<_>>();
    assert_eq!(keys(b"b"), [b"b".to_vec(), b"b\x00".to_vec(), b"b\xff".to_vec()]);
    assert_eq!(keys(b"\xff"), [b"\xff".to_vec(), b"\xff\xff".to_vec()], "a prefix without successor");
    assert_eq!(keys(b"").len(), 7);
    assert_eq!(keys(b"bb"), [b""; 0]);
}

fn a_scan_stops_when_told<E: Engine>(engine: &E) {
    write(engine, |ops| _ = ops.put(Family::Raft, b"1", b"").put(Family::Raft, b"2", b""));
    let mut seen = 0;
    let scanned = engine.scan(Family::Raft, b"", &mut |_, _| {
        seen += 1;
        false
    });
    assert_eq!((scanned, seen), (Ok(()), 1));
}

fn a_walk_begins_anywhere_and_does_not_leave_its_family<E: Engine>(engine: &E) {
    write(engine, |ops| {
        for key in [b"a".as_slice(), b"b", b"b\x00", b"c", b"\xff"] {
            ops.put(Family::Mvcc, key, b"").put(Family::Raft, key, b"");
        }
    });
    let walked = |from: &[u8], stop: usize| {
        let mut keys = Vec::new();
        let walked = engine.walk(Family::Mvcc, from, &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < stop
        });
        assert_eq!(walked, Ok(()));
        keys
    };
    assert_eq!(walked(b"b", 9), [b"b".as_slice(), b"b\x00", b"c", b"\xff"]);
    assert_eq!(walked(b"aa", 2), [b"b".as_slice(), b"b\x00"], "from the next key, until told");
    assert_eq!(walked(b"", 9).len(), 5);
    assert_eq!(walked(b"\xff\x00", 9), [b""; 0]);
}

fn empty_and_large_keys_and_values_are_kept<E: Engine>(engine: &E) {
    let large = vec![0xa5; 300_000];
    let mut ops = Ops::new();
    ops.put(Family::Mvcc, b"", b"").put(Family::Mvcc, b"large", &large).put(
        Family::Mvcc,
        &large[..9000],
        b"x",
    );
    engine.write(&ops).expect("the engine writes");
    assert_eq!(value(engine, Family::Mvcc, b""), Some(Vec::new()), "empty is not absent");
    assert_eq!(value(engine, Family::Mvcc, b"large"), Some(large.clone()));
    assert_eq!(value(engine, Family::Mvcc, &large[..9000]), Some(b"x".to_vec()));
}

fn writes_are_never_seen_in_part<E: Engine>(engine: E) {
    let engine = Arc::new(engine);
    let done = Arc::new(AtomicBool::new(false));
    let (writer, finished) = (Arc::clone(&engine), Arc::clone(&done));
    let thread = thread::spawn(move || {
        for n in 0..500_u32 {
            let bytes = n.to_be_bytes();
            let mut ops = Ops::new();
            ops.put(Family::Escrow, b"x", &bytes).put(Family::Escrow, b"y", &bytes);
            writer.write(&ops).expect("the engine writes");
        }
        finished.store(true, Ordering::Release);
    });
    while !done.load(Ordering::Acquire) {
        let rows = rows(&*engine, Family::Escrow, b"");
        assert!(rows.windows(2).all(|pair| pair[0].1 == pair[1].1), "a scan shows one moment");
        assert!(rows.is_empty() || rows.len() == 2, "a write is all or nothing");
    }
    thread.join().expect("the writer does not panic");
}

fn what_was_synced_is_there_after_reopening<B: Bench>(bench: &B) {
    let engine = bench.open();
    write(&engine, |ops| _ = ops.put(Family::Meta, b"a", b"1").put(Family::Mvcc, b"b", b"2"));
    engine.sync().expect("the engine syncs");
    drop(engine);
    let engine = bench.open();
    assert_eq!(value(&engine, Family::Meta, b"a"), Some(b"1".to_vec()));
    assert_eq!(value(&engine, Family::Mvcc, b"b"), Some(b"2".to_vec()));
}

fn a_store_goes_on_counting_after_reopening<B: Bench>(bench: &B) {
    let store = Store::open(bench.open()).expect("an empty store opens");
    assert_eq!((store.written(), store.durable()), (CommitNumber(0), CommitNumber(0)));
    for n in 1..=3 {
        assert_eq!(store.write(Batch::new().put(Family::Escrow, "n", [n])), Ok(CommitNumber(n.into())));
    }
    assert_eq!(store.durable(), CommitNumber(0), "written is not durable");
    assert_eq!(store.sync(), Ok(CommitNumber(3)));
    drop(store);
    let store = Store::open(bench.open()).expect("a store that was closed opens");
    assert_eq!((store.written(), store.durable()), (CommitNumber(3), CommitNumber(3)));
    assert_eq!(store.write(&Batch::new()).ok(), Some(CommitNumber(4)));
}

fn fences_survive_reopening<B: Bench>(bench: &B) {
    let store = Store::open(bench.open()).expect("an empty store opens");
    store.write(Batch::new().fence(b"range/1", Epoch(5))).expect("no epoch is known yet");
    store.sync().expect("the store syncs");
    drop(store);
    let store = Store::open(bench.open()).expect("a store that was closed opens");
    assert_eq!(store.epoch(b"range/1"), Some(Epoch(5)));
    let refused = store.write(Batch::new().put(Family::Mvcc, "k", "stale").fence(b"range/1", Epoch(4)));
    let expected = Fenced { key: b"range/1".to_vec(), given: Epoch(4), known: Epoch(5) };
    assert_eq!(refused, Err(WriteError::Fenced(expected)));
    assert_eq!(store.get(Family::Mvcc, b"k"), Ok(None), "nothing of a fenced batch is written");
    assert!(store.write(Batch::new().fence(b"range/1", Epoch(5))).is_ok(), "the same epoch may write on");
}
