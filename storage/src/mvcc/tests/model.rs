//! What is read and collected, against a model that keeps every version in a list and looks at all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rhumb_core::HybridTime;

use super::{ALL, SPACE, at, key, store, write};
use crate::batch::{Batch, Family};
use crate::memory::MemoryEngine;
use crate::mvcc::{Limit, Protected, Record, Snapshot, Threshold, UserKey, gc};
use crate::store::Store;

/// One write: which key, what (none: a deletion), when it expires after that.
#[derive(Debug, Clone)]
struct Write {
    key: usize,
    value: Option<u8>,
    lives: Option<u64>,
}

const KEYS: [&[u8]; 6] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"a\xff"];

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write =
        (0..KEYS.len(), prop::option::weighted(0.7, any::<u8>()), prop::option::weighted(0.2, 1u64..30));
    let write =
        write.prop_map(|(key, value, lives)| Write { key, value, lives: lives.filter(|_| value.is_some()) });
    prop::collection::vec(write, 0..60)
}

fn record(write: &Write, time: u64) -> Record {
    let mut record = write.value.map_or_else(Record::deleted, |value| Record::put([value]));
    record.header.expires = write.lives.map(|lives| at(time + lives));
    record
}

/// By definition: what each key is as of a time. The write of number n is made at time n + 1.
fn model(writes: &[Write], time: u64) -> BTreeMap<Vec<u8>, u8> {
    let mut state = BTreeMap::new();
    for (number, write) in writes.iter().enumerate().take(time as usize) {
        let made = number as u64 + 1;
        let expired = write.lives.is_some_and(|lives| made + lives <= time);
        match write.value.filter(|_| !expired) {
            Some(value) => _ = state.insert(KEYS[write.key].to_vec(), value),
            None => _ = state.remove(KEYS[write.key]),
        }
    }
    state
}

fn read(store: &Store<MemoryEngine>, time: u64, threshold: Threshold) -> BTreeMap<Vec<u8>, u8> {
    let snapshot = Snapshot::new(store, SPACE, at(time), threshold.get()).expect("not below the threshold");
    let page = snapshot.scan(&key(""), None, ALL).expect("sound");
    let scanned: BTreeMap<_, _> = page
        .rows
        .iter()
        .map(|(name, version)| (name.as_bytes().to_vec(), version.record.value.as_ref().expect("live")[0]))
        .collect();
    for name in KEYS {
        let got =
            snapshot.get(&key(name)).expect("sound").map(|version| version.record.value.expect("live")[0]);
        assert_eq!(got.as_ref(), scanned.get(name), "a point read is what the scan says");
    }
    scanned
}

fn written(writes: &[Write]) -> Store<MemoryEngine> {
    let store = store();
    for (number, made) in writes.iter().enumerate() {
        let time = number as u64 + 1;
        write(&store, SPACE, &key(KEYS[made.key]), time, &record(made, time));
    }
    store
}

/// Collects in steps of `limit`, and checks after each that all who may read see what the model has.
fn collected(writes: &[Write], readers: &[u64], retention: u64, limit: usize) -> Result<(), String> {
    let (store, end) = (written(writes), writes.len() as u64 + 1);
    let readers: Vec<HybridTime> = readers.iter().map(|reader| at(reader % end)).collect();
    let protected = Protected { readers: &readers, ..Protected::default() };
    let mut threshold = Threshold::default();
    threshold.raise(protected.watermark(at(end), Duration::from_millis(retention)));
    let seen_by = |time: u64| match read_at(&store, time) {
        seen if seen == model(writes, time) => Ok(()),
        seen => Err(format!("as of {time}, above {threshold:?}: {seen:?}, not {:?}", model(writes, time))),
    };
    let retained = end.saturating_sub(retention);
    let mut from = key("");
    loop {
        let found = gc::collect(&store, SPACE, (&from, None), threshold, limit).expect("sound");
        if found.rows.len() > limit + 1 {
            return Err(format!("{} rows at once, {limit} were asked for", found.rows.len()));
        }
        for row in found.rows {
            let mut batch = Batch::new();
            batch.delete(Family::Mvcc, row);
            store.write(&batch).expect("memory takes it");
            // Whoever reads, and whoever reads within the retention.
            readers.iter().try_for_each(|reader| seen_by(reader.millis()))?;
            (retained..=end).try_for_each(seen_by)?;
        }
        match found.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

fn read_at(store: &Store<MemoryEngine>, time: u64) -> BTreeMap<Vec<u8>, u8> {
    read(store, time, Threshold::default())
}

proptest! {
    #[test]
    fn reads_as_of_any_time_are_the_models(writes in writes()) {
        let store = written(&writes);
        for time in 0..=writes.len() as u64 + 30 {
            prop_assert_eq!(read_at(&store, time), model(&writes, time), "as of {}", time);
        }
    }

    #[test]
    fn scans_of_parts_in_pages_are_the_models(
        writes in writes(),
        (from, to) in (0..KEYS.len(), prop::option::of(0..KEYS.len())),
        rows in 1usize..4,
    ) {
        let (store, time) = (written(&writes), writes.len() as u64);
        let snapshot = Snapshot::new(&store, SPACE, at(time), HybridTime::ZERO).expect("not collected");
        let to = to.map(|to| key(KEYS[to]));
        let (mut found, mut start) = (Vec::new(), Some(key(KEYS[from])));
        while let Some(from) = start {
            let page = snapshot.scan(&from, to.as_ref(), Limit { rows, bytes: 1_000 }).expect("sound");
            found.extend(page.rows.into_iter().map(|(name, _)| name));
            start = page.next;
        }
        let within = |name: &UserKey| *name >= key(KEYS[from]) && to.as_ref().is_none_or(|to| name < to);
        let meant: Vec<_> = model(&writes, time).into_keys().map(key).filter(within).collect();
        prop_assert_eq!(found, meant);
    }

    #[test]
    fn a_collection_takes_nothing_from_anybody(
        writes in writes(),
        readers in prop::collection::vec(0u64..60, 0..3),
        retention in 0u64..40,
        limit in 1usize..6,
    ) {
        if let Err(broken) = collected(&writes, &readers, retention, limit) {
            prop_assert!(false, "{broken}");
        }
    }

    #[test]
    fn a_collection_leaves_nothing_that_nobody_needs(writes in writes()) {
        let (store, end) = (written(&writes), writes.len() as u64 + 31);
        let threshold = Threshold::at(at(end));
        let found = gc::collect(&store, SPACE, (&key(""), None), threshold, usize::MAX).expect("sound");
        for row in found.rows {
            let mut batch = Batch::new();
            batch.delete(Family::Mvcc, row);
            store.write(&batch).expect("memory takes it");
        }
        let mut left = 0;
        store.walk(Family::Mvcc, b"", |_, _| { left += 1; true }).expect("memory walks");
        prop_assert_eq!(left, model(&writes, end).len());
    }
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_collection_is_caught() {
    use rhumb_core::canary::{self, Canary};
    use rhumb_core::rng::Seed;

    let story = |seed: u64| {
        let mut rng = Seed::new(seed).child("versions").rng();
        let drawn = (0..rng.between(1, 50)).map(|_| Write {
            key: rng.below(3) as usize,
            value: rng.chance(0.6).then_some(1),
            lives: None,
        });
        let writes: Vec<_> = drawn.collect();
        let readers: Vec<_> = (0..rng.below(3)).map(|_| rng.u64()).collect();
        collected(&writes, &readers, rng.below(20), rng.between(1, 4) as usize)
    };
    for &bug in Canary::OF_THE_VERSIONS {
        canary::let_out(Some(bug));
        let caught = (0..300).find_map(|seed| story(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(story(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
    }
}
