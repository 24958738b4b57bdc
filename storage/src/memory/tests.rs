use rhumb_core::rng::Seed;

use super::*;
use crate::conformance::{self, Bench};
use crate::{Batch, Store};

impl Bench for MemoryDisk {
    type Engine = MemoryEngine;
    fn open(&self) -> MemoryEngine {
        MemoryEngine::open(self)
    }
}

fn store(disk: &MemoryDisk) -> Store<MemoryEngine> {
    Store::open(MemoryEngine::open(disk)).expect("a memory disk opens")
}

/// Writes `n` under the key `n`.
fn write(store: &Store<MemoryEngine>, n: u8) {
    let mut batch = Batch::new();
    batch.put(Family::Escrow, [n], [n]).put(Family::Escrow, "last", [n]);
    store.write(&batch).expect("a healthy store writes");
}

fn present(store: &Store<MemoryEngine>) -> Vec<u8> {
    let mut found = Vec::new();
    store
        .scan(Family::Escrow, b"", |key, _| {
            found.extend((key.len() == 1).then(|| key[0]));
            true
        })
        .expect("a healthy store scans");
    found
}

#[test]
fn memory_conforms() {
    conformance::run(MemoryDisk::new);
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = MemoryDisk::new();
        let first = store(&disk);
        (0..3).for_each(|n| write(&first, n));
        first.sync().expect("a healthy store syncs");
        (3..6).for_each(|n| write(&first, n));
        disk.crash(&mut Seed::new(seed).rng());
        let again = store(&disk);
        let found = present(&again);
        assert_eq!(found, (0..found.len() as u8).collect::<Vec<_>>(), "a prefix");
        assert!(found.len() >= 3, "what was synced is there");
        assert_eq!(again.durable().0, found.len() as u64, "the commit number goes with the rows");
        let last = again.get(Family::Escrow, b"last").expect("a healthy store reads");
        assert_eq!(last, found.last().map(|n| vec![*n]), "overwritten values go back too");
        kept.insert(found.len());
    }
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6], "every tear happens");
}

#[test]
fn a_process_crash_keeps_everything_written() {
    let disk = MemoryDisk::new();
    let first = store(&disk);
    (0..3).for_each(|n| write(&first, n));
    let second = store(&disk);
    assert_eq!(present(&second), [0, 1, 2]);
    disk.crash(&mut Seed::new(1).rng());
    assert_eq!(present(&store(&disk)), [0, 1, 2], "opening synced what it showed");
}

#[test]
fn the_strict_adversary_keeps_any_subset() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let disk = MemoryDisk::tearing(Tear::Subset);
        let first = store(&disk);
        (0..2).for_each(|n| write(&first, n));
        disk.crash(&mut Seed::new(seed).rng());
        seen.insert(present(&store(&disk)));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec![], vec![0], vec![0, 1], vec![1]]);
}

#[test]
fn an_engine_of_before_a_crash_is_dead() {
    let disk = MemoryDisk::new();
    let first = store(&disk);
    disk.crash(&mut Seed::new(1).rng());
    let fault = first.sync().expect_err("its disk is gone");
    assert_eq!(fault.cause, FaultCause::Closed);
    let second = store(&disk);
    write(&second, 1);
    assert!(first.get(Family::Escrow, &[1]).is_err());
}

#[test]
fn after_a_failed_sync_a_retried_one_lies() {
    let disk = MemoryDisk::tearing(Tear::LoseAll);
    let engine = MemoryEngine::open(&disk);
    engine.write(Ops::new().put(Family::Escrow, b"a", b"1")).expect("a healthy disk writes");
    disk.inject(Injection::FailSync);
    assert!(engine.sync().is_err());
    engine.sync().expect("the kernel says yes");
    disk.crash(&mut Seed::new(1).rng());
    assert_eq!(MemoryEngine::open(&disk).get(Family::Escrow, b"a"), Ok(None), "and kept nothing");
}

#[test]
fn a_full_disk_is_a_typed_fault() {
    let disk = MemoryDisk::new();
    let store = store(&disk);
    disk.inject(Injection::Full);
    let mut batch = Batch::new();
    batch.put(Family::Escrow, "a", "1");
    let Err(crate::WriteError::Fault(fault)) = store.write(&batch) else { panic!("the disk is full") };
    assert_eq!(fault.cause, FaultCause::NoSpace);
    disk.heal();
    assert_eq!(store.write(&batch), Err(fault.into()), "the store is poisoned for ever");
}

#[test]
fn a_restored_image_is_what_was_durable_when_it_was_taken() {
    let disk = MemoryDisk::new();
    let first = store(&disk);
    write(&first, 0);
    first.sync().expect("a healthy store syncs");
    write(&first, 1);
    let image = disk.snapshot();
    write(&first, 2);
    first.sync().expect("a healthy store syncs");
    disk.restore(&image);
    let restored = store(&disk);
    assert_eq!(present(&restored), [0]);
    assert_eq!(restored.durable().0, 1, "the number tells peers that it is old");
}
