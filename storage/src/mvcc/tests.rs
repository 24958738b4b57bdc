//! Versions: golden bytes, hostile bytes, and a naive model that everything is compared with.

mod bytes;
mod model;

use std::time::Duration;

use rhumb_core::HybridTime;

use super::{
    Intent, KeyspaceId, Limit, Page, Protected, ReadError, Record, Snapshot, Threshold, UserKey, VersionKey,
    gc,
};
use crate::batch::{Batch, Family};
use crate::memory::{MemoryDisk, MemoryEngine};
use crate::store::Store;

const SPACE: KeyspaceId = KeyspaceId(7);
const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

fn at(time: u64) -> HybridTime {
    HybridTime::new(time, 0)
}

fn key(bytes: impl Into<Vec<u8>>) -> UserKey {
    UserKey::new(bytes).expect("short")
}

fn store() -> Store<MemoryEngine> {
    Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("an empty disk opens")
}

fn write(store: &Store<MemoryEngine>, space: KeyspaceId, name: &UserKey, time: u64, record: &Record) {
    let row = VersionKey { keyspace: space, key: name.clone(), at: at(time) }.encode();
    let mut batch = Batch::new();
    batch.put(Family::Mvcc, row.clone(), record.encode(&row));
    store.write(&batch).expect("memory takes it");
}

fn scan(store: &Store<MemoryEngine>, time: u64, limit: Limit) -> Page {
    let snapshot = Snapshot::new(store, SPACE, at(time), HybridTime::ZERO).expect("nothing is collected");
    snapshot.scan(&key(""), None, limit).expect("the rows are sound")
}

fn names(page: &Page) -> Vec<&[u8]> {
    page.rows.iter().map(|(name, _)| name.as_bytes()).collect()
}

#[test]
fn a_reader_sees_the_newest_version_that_is_not_above_its_time() {
    let store = store();
    write(&store, SPACE, &key("a"), 10, &Record::put("one"));
    write(&store, SPACE, &key("a"), 20, &Record::deleted());
    write(&store, SPACE, &key("a"), 30, &Record::put("two"));
    write(&store, KeyspaceId(8), &key("a"), 15, &Record::put("another keyspace's"));
    let read = |time| {
        let snapshot = Snapshot::new(&store, SPACE, at(time), HybridTime::ZERO).expect("not collected");
        let found = snapshot.get(&key("a")).expect("sound");
        found.map(|version| (version.at.millis(), version.record.value.expect("given out with its value")))
    };
    assert_eq!(read(9), None);
    assert_eq!(read(10), Some((10, b"one".to_vec())));
    assert_eq!(read(19), Some((10, b"one".to_vec())));
    assert_eq!(read(20), None, "it was deleted");
    assert_eq!(read(99), Some((30, b"two".to_vec())));
    let snapshot = Snapshot::new(&store, SPACE, at(25), HybridTime::ZERO).expect("not collected");
    let newest = snapshot.newest(&key("a")).expect("sound").expect("a deletion is a version");
    assert_eq!((newest.at, newest.record), (at(20), Record::deleted()));
}

#[test]
fn what_has_expired_is_absent_by_the_time_of_the_read() {
    let store = store();
    let mut record = Record::put("for a while");
    record.header.expires = Some(at(50));
    write(&store, SPACE, &key("a"), 10, &record);
    assert_eq!(names(&scan(&store, 49, ALL)).len(), 1);
    assert_eq!(names(&scan(&store, 50, ALL)).len(), 0);
    assert_eq!(names(&scan(&store, 49, ALL)).len(), 1, "and is there for who reads as of before");
}

#[test]
fn a_scan_in_pages_is_the_scan_in_one() {
    let store = store();
    for number in 0..60u8 {
        for version in 0..u64::from(number % 25) {
            let record =
                if version % 5 == 4 { Record::deleted() } else { Record::put([number, version as u8]) };
            write(&store, SPACE, &key([number / 7, 0, number]), 10 * version + 10, &record);
        }
    }
    for time in [5, 10, 60, 105, 1_000] {
        let whole = scan(&store, time, ALL);
        assert_eq!(whole.next, None);
        let (mut pages, mut from) = (Vec::new(), Some(key("")));
        while let Some(start) = from {
            let snapshot = Snapshot::new(&store, SPACE, at(time), HybridTime::ZERO).expect("not collected");
            let page = snapshot.scan(&start, None, Limit { rows: 4, bytes: 17 }).expect("sound");
            assert!(page.rows.len() <= 4);
            pages.extend(page.rows);
            from = page.next;
        }
        assert_eq!(pages, whole.rows, "as of {time}");
    }
}

#[test]
fn an_intent_stops_a_reader_above_it_and_no_other() {
    let store = store();
    write(&store, SPACE, &key("a"), 10, &Record::put("one"));
    let mut intent = Record::put("perhaps");
    intent.header.intent = Some(Intent(42));
    write(&store, SPACE, &key("a"), 20, &intent);
    let read = |time| Snapshot::new(&store, SPACE, at(time), at(1)).expect("not collected").get(&key("a"));
    assert!(read(19).expect("below it").is_some());
    assert_eq!(read(20), Err(ReadError::Undecided(Intent(42))));
}

#[test]
fn nothing_is_read_below_the_threshold() {
    let store = store();
    let refused = Snapshot::new(&store, SPACE, at(9), at(10)).expect_err("below it");
    assert_eq!(refused, ReadError::BelowThreshold { at: at(9), threshold: at(10) });
    assert!(Snapshot::new(&store, SPACE, at(10), at(10)).is_ok());
}

#[test]
fn errors_tell_nothing_of_keys_or_values() {
    let store = store();
    let row = VersionKey { keyspace: SPACE, key: key("alice@example.com"), at: at(10) }.encode();
    let mut batch = Batch::new();
    batch.put(Family::Mvcc, row, "secret, and no record");
    store.write(&batch).expect("memory takes it");
    let snapshot = Snapshot::new(&store, SPACE, at(20), HybridTime::ZERO).expect("not collected");
    let error = snapshot.get(&key("alice@example.com")).expect_err("damaged");
    let told = format!("{error} {error:?} {:?} {:?}", key("alice"), Record::put("secret"));
    assert!(!told.contains("alice") && !told.contains("secret"), "{told}");
}

#[test]
fn the_watermark_is_the_least_of_all_and_right_when_they_are_empty() {
    let week = Duration::from_millis(400);
    let mark = |protected: Protected<'_>| protected.watermark(at(1_000), week).millis();
    assert_eq!(mark(Protected::default()), 600, "nobody reads, exports or lags: the retention alone");
    assert_eq!(mark(Protected { readers: &[at(700), at(550)], ..Protected::default() }), 550);
    assert_eq!(mark(Protected { exports: &[at(300)], ..Protected::default() }), 300);
    assert_eq!(mark(Protected { replicas: &[at(599)], readers: &[at(900)], ..Protected::default() }), 599);
    assert_eq!(mark(Protected { intents: &[at(20)], ..Protected::default() }), 20);
    assert_eq!(Protected::default().watermark(at(100), week).millis(), 0, "before a retention has passed");
}

#[test]
fn a_threshold_only_rises() {
    let mut threshold = Threshold::default();
    assert!(threshold.raise(at(10)));
    assert!(!threshold.raise(at(4)));
    assert_eq!(threshold.get(), at(10));
}

#[test]
fn a_collection_in_steps_never_lets_a_deleted_value_show_again() {
    let store = store();
    for version in 1..9 {
        write(&store, SPACE, &key("a"), version, &Record::put("old"));
    }
    write(&store, SPACE, &key("a"), 9, &Record::deleted());
    write(&store, SPACE, &key("b"), 3, &Record::put("kept"));
    let threshold = Threshold::at(at(20));
    let mut from = key("");
    loop {
        let found = gc::collect(&store, SPACE, (&from, None), threshold, 3).expect("sound");
        for row in &found.rows {
            let mut batch = Batch::new();
            batch.delete(Family::Mvcc, row.clone());
            store.write(&batch).expect("memory takes it");
            assert_eq!(names(&scan(&store, 20, ALL)), [b"b"], "after each deletion");
        }
        match found.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let mut left = 0;
    store
        .walk(Family::Mvcc, b"", |_, _| {
            left += 1;
            true
        })
        .expect("memory walks");
    assert_eq!(left, 1, "nothing is left of what was deleted");
}

#[test]
fn a_step_ends_where_there_is_little_to_find() {
    let store = store();
    for number in 0..200u8 {
        write(&store, SPACE, &key([number]), 1, &Record::put("live"));
    }
    write(&store, SPACE, &key([199]), 2, &Record::put("newer"));
    for time in 20..120 {
        write(&store, SPACE, &key([150]), time, &Record::put("too new to go"));
    }
    let (mut from, mut steps, mut found) = (Some(key("")), 0, Vec::new());
    while let Some(start) = from {
        let step = gc::collect(&store, SPACE, (&start, None), Threshold::at(at(9)), 1).expect("sound");
        found.extend(step.rows);
        from = step.next;
        steps += 1;
    }
    assert_eq!(found, [VersionKey { keyspace: SPACE, key: key([199]), at: at(1) }.encode()]);
    assert!((4..8).contains(&steps), "{steps} steps");
}
