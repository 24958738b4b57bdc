use super::*;
use crate::memory::{Injection, MemoryDisk, MemoryEngine};

fn store(disk: &MemoryDisk) -> Store<MemoryEngine> {
    Store::open(MemoryEngine::open(disk)).expect("a memory disk opens")
}

fn put(key: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Escrow, key, "x");
    batch
}

#[test]
fn a_fenced_batch_of_a_group_is_left_out_alone() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    let (mut newer, mut stale) = (put("newer"), put("stale"));
    newer.fence(b"r", Epoch(2));
    stale.fence(b"r", Epoch(1));
    let group = store.write_group([&put("free"), &newer, &stale]).expect("a healthy store writes");
    assert_eq!(group.number, CommitNumber(1));
    assert_eq!(group.outcomes[0], Ok(()));
    assert_eq!(group.outcomes[1], Ok(()));
    let refused = group.outcomes[2].clone().expect_err("an earlier batch of the group raised the epoch");
    assert_eq!((refused.given, refused.known), (Epoch(1), Epoch(2)));
    assert_eq!(disk.writes(), 1, "a group is one write");
    assert!(store.get(Family::Escrow, b"newer").expect("reads").is_some());
    assert!(store.get(Family::Escrow, b"stale").expect("reads").is_none());
}

#[test]
fn a_fenced_batch_raises_nothing() {
    let store = store(&MemoryDisk::new());
    store.write(Batch::new().fence(b"b", Epoch(9))).expect("no epoch is known yet");
    let refused = store.write(Batch::new().fence(b"a", Epoch(7)).fence(b"b", Epoch(8)));
    assert!(matches!(refused, Err(WriteError::Fenced(_))));
    assert_eq!(store.epoch(b"a"), None);
    assert_eq!(store.written(), CommitNumber(1), "a refused batch is no commit");
}

#[test]
fn every_commit_names_the_last_number_known_durable() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    let record = || {
        let bytes = store.get(Family::Meta, keys::COMMIT).expect("reads").expect("is written");
        let CommitRecord { number, durable } = CommitRecord::decode(&bytes).expect("is whole");
        (number.0, durable.0)
    };
    store.write(&put("a")).expect("writes");
    assert_eq!(record(), (1, 0));
    store.write(&put("b")).expect("writes");
    assert_eq!(record(), (2, 0));
    store.sync().expect("syncs");
    store.write(&put("c")).expect("writes");
    assert_eq!(record(), (3, 2));
}

#[test]
fn a_failed_sync_is_never_retried() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    store.write(&put("a")).expect("writes");
    disk.inject(Injection::FailSync);
    let fault = store.sync().expect_err("was told to fail");
    let syncs = disk.syncs();
    assert_eq!(store.sync(), Err(fault.clone()));
    assert_eq!(store.write(&put("b")), Err(fault.clone().into()));
    assert_eq!(store.get(Family::Escrow, b"a"), Err(fault.clone()));
    assert_eq!(store.poisoned(), Some(&fault));
    assert_eq!(store.durable(), CommitNumber(0));
    assert_eq!(disk.syncs(), syncs, "the engine was not asked again");
}

#[test]
fn a_failed_write_poisons_too() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    disk.inject(Injection::FailWrite);
    let fault = store.write(&put("a")).expect_err("was told to fail");
    assert_eq!(store.write(&put("a")), Err(fault));
    assert_eq!(store.written(), CommitNumber(0));
}

#[test]
fn a_damaged_record_of_storages_own_is_refused_by_name() {
    for (key, value) in [(keys::COMMIT, b"nonsense".as_slice()), (b"fence/r", b"123456789012")] {
        let engine = MemoryEngine::open(&MemoryDisk::new());
        engine.write(Ops::new().put(Family::Meta, key, value)).expect("writes");
        let refused = Store::open(engine).expect_err("it is damaged").to_string();
        assert!(refused.contains(&key.escape_ascii().to_string()), "{refused}");
    }
}

#[cfg(feature = "canaries")]
#[test]
fn the_canary_no_sync_loses_what_was_called_durable() {
    let disk = MemoryDisk::tearing(crate::memory::Tear::LoseAll);
    let first = store(&disk);
    first.write(&put("a")).expect("writes");
    canary::let_out(Some(Canary::NoSync));
    assert_eq!(first.sync(), Ok(CommitNumber(1)));
    canary::let_out(None);
    disk.crash(&mut rhumb_core::rng::Seed::new(1).rng());
    assert_eq!(store(&disk).written(), CommitNumber(0));
}
