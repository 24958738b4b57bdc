//! A disk that was put back holds an older copy of its replicas: they have forgotten how they voted since, and what they made durable.
//!
//! * It decides: that they do not start before an operator has said what becomes of them, and as which store those stand in the mesh
//!   that come in their place.
//! * It never does: judge whether a disk is an older copy (the escrow does), or whether others still have what stands in it.
//! * Invariant: a replica that may have voted later than its disk knows never votes again under its number, unless an operator has
//!   said that it is to ([`keep`]).

use rhumb_core::StoreId;
use rhumb_storage::{Batch, CommitError, Durability, Engine, Family, HotStore, StorageFault, Store, keys};

/// The replicas of this disk are an older copy of themselves.
const NOTE: &[u8] = b"mesh/ranges-old-copy";
/// The store that the ranges of this disk are; without it they are the one of the data directory.
const STORE: &[u8] = b"mesh/ranges-store";
/// Rows that are deleted at once.
const AT_ONCE: usize = 4_096;

/// Which store the ranges of a data directory are.
///
/// # Errors
/// A fault of reading; or what stands there is no store.
pub(in crate::supervisor) fn store_id(store: &HotStore, of_directory: StoreId) -> anyhow::Result<StoreId> {
    let Some(row) = store.get(Family::Meta, STORE)? else { return Ok(of_directory) };
    let bytes = <[u8; 16]>::try_from(&row[..]);
    bytes.map(|bytes| StoreId(u128::from_be_bytes(bytes))).map_err(|_| {
        let what = String::from_utf8_lossy(STORE).into_owned();
        anyhow::anyhow!(
            "{what} has {} bytes and not 16: restore the disk, or replace it (`rhumb mesh new-disk`)",
            row.len()
        )
    })
}

/// Whether the replicas here are an older copy of which nobody has said yet what becomes of it.
pub(super) fn is_noted(store: &HotStore) -> Result<bool, StorageFault> {
    Ok(store.get(Family::Meta, NOTE)?.is_some())
}

/// The disk is an older copy of itself: what replicas it has are, too, from here on and over restarts. A disk without any, as a new
/// one, has none to speak of.
pub(super) async fn note(store: &HotStore) -> Result<(), CommitError> {
    let mut any = false;
    store.walk(Family::Raft, b"", |_, _| {
        any = true;
        false
    })?;
    if !any || is_noted(store)? {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.put(Family::Meta, NOTE, []);
    store.commit(batch, Durability::Durable).await.map(drop)
}

/// What an operator wants of a disk whose replicas are no older copy.
#[derive(Debug, thiserror::Error)]
#[error(
    "the replicas of this disk are not an older copy of themselves, as far as it knows: nothing was changed. A disk that was put back is known for that once its node has started and has heard of another one"
)]
pub(crate) struct NoOldCopy;

/// Deletes an older copy's replicas, in the store of a node that does not run; those that come in their place are of another store,
/// `drawn`. Gives how many rows went. Where it is cut off the copy is still noted, and it can be done again.
///
/// # Errors
/// [`NoOldCopy`], or a fault of the store.
pub(crate) fn forget<E: Engine>(store: &Store<E>, drawn: StoreId) -> anyhow::Result<usize> {
    noted(store)?;
    let mut rows = 0;
    for family in [Family::Mvcc, Family::Raft] {
        loop {
            let some = some_keys(store, family, b"")?;
            if some.is_empty() {
                break;
            }
            rows += some.len();
            let mut batch = Batch::new();
            for key in some {
                batch.delete(family, key);
            }
            store.write(&batch)?;
        }
    }
    let mut last = Batch::new();
    for key in some_keys(store, Family::Meta, keys::SUPPORT)? {
        last.delete(Family::Meta, key);
    }
    last.put(Family::Meta, STORE, drawn.0.to_be_bytes()).delete(Family::Meta, NOTE);
    store.write(&last)?;
    store.sync()?;
    Ok(rows)
}

/// Lets an older copy's replicas start as they are, in the store of a node that does not run.
///
/// # Errors
/// [`NoOldCopy`], or a fault of the store.
pub(crate) fn keep<E: Engine>(store: &Store<E>) -> anyhow::Result<()> {
    noted(store)?;
    let mut batch = Batch::new();
    batch.delete(Family::Meta, NOTE);
    store.write(&batch)?;
    store.sync()?;
    Ok(())
}

fn noted<E: Engine>(store: &Store<E>) -> anyhow::Result<()> {
    anyhow::ensure!(store.get(Family::Meta, NOTE)?.is_some(), NoOldCopy);
    Ok(())
}

/// The first keys with a prefix.
fn some_keys<E: Engine>(
    store: &Store<E>,
    family: Family,
    prefix: &[u8],
) -> Result<Vec<Vec<u8>>, StorageFault> {
    let mut some = Vec::new();
    store.scan(family, prefix, |key, _| {
        some.push(key.to_vec());
        some.len() < AT_ONCE
    })?;
    Ok(some)
}

#[cfg(test)]
mod tests {
    use rhumb_storage::{MemoryDisk, MemoryEngine};

    use super::*;

    const DIRECTORY: StoreId = StoreId(7);

    fn put(family: Family, key: &[u8]) -> Batch {
        let mut batch = Batch::new();
        batch.put(family, key, *b"there");
        batch
    }

    /// What a node finds that starts on this disk.
    async fn found(disk: &MemoryDisk, restored: bool) -> (bool, StoreId) {
        let store = Store::open(MemoryEngine::open(disk)).expect("opens");
        let hot = HotStore::start(store, Default::default(), |fault| panic!("{fault}")).expect("starts");
        if restored {
            note(&hot).await.expect("noted");
        }
        let found = (is_noted(&hot).expect("read"), store_id(&hot, DIRECTORY).expect("read"));
        hot.close(std::time::Duration::from_secs(5)).expect("closed");
        found
    }

    fn offline(disk: &MemoryDisk) -> Store<MemoryEngine> {
        Store::open(MemoryEngine::open(disk)).expect("opens")
    }

    /// A disk with so many versions, whose replicas are an older copy.
    async fn old_copy(versions: usize) -> MemoryDisk {
        let disk = MemoryDisk::new();
        {
            let store = offline(&disk);
            for version in 0..versions {
                store.write(&put(Family::Mvcc, format!("v{version}").as_bytes())).expect("written");
            }
            let others = [
                (Family::Raft, &b"r"[..]),
                (Family::Meta, b"support/x"),
                (Family::Escrow, b"e"),
                (Family::Meta, b"clock/c"),
            ];
            for (family, key) in others {
                store.write(&put(family, key)).expect("written");
            }
            store.sync().expect("synced");
        }
        assert_eq!(found(&disk, true).await, (true, DIRECTORY));
        assert_eq!(
            found(&disk, false).await,
            (true, DIRECTORY),
            "it stays one, whatever is attested meanwhile"
        );
        disk
    }

    #[tokio::test]
    async fn what_is_forgotten_is_gone_with_its_promises_and_comes_back_as_another_store() {
        let disk = old_copy(2 * AT_ONCE + 1).await;
        {
            let store = offline(&disk);
            assert_eq!(forget(&store, StoreId(8)).expect("done"), 2 * AT_ONCE + 2);
            let is_there = |family, key: &[u8]| store.get(family, key).expect("read").is_some();
            let gone = [(Family::Mvcc, &b"v0"[..]), (Family::Raft, b"r"), (Family::Meta, b"support/x")];
            assert!(!gone.iter().any(|(family, key)| is_there(*family, key)));
            assert!(
                is_there(Family::Escrow, b"e") && is_there(Family::Meta, b"clock/c"),
                "others' rows stay"
            );
            assert!(forget(&store, StoreId(9)).expect_err("done already").is::<NoOldCopy>());
        }
        assert_eq!(found(&disk, false).await, (false, StoreId(8)));
        // It has no replica that could be an older one.
        assert_eq!(found(&disk, true).await, (false, StoreId(8)));
    }

    #[tokio::test]
    async fn what_is_kept_starts_as_it_is() {
        let disk = old_copy(3).await;
        {
            let store = offline(&disk);
            keep(&store).expect("done");
            assert!(store.get(Family::Mvcc, b"v0").expect("read").is_some());
            assert!(keep(&store).expect_err("done already").is::<NoOldCopy>());
        }
        assert_eq!(found(&disk, false).await, (false, DIRECTORY));
    }

    #[tokio::test]
    async fn a_store_that_is_none_is_refused() {
        let disk = MemoryDisk::new();
        offline(&disk).write(&put(Family::Meta, STORE)).expect("written");
        let store = offline(&disk);
        let hot = HotStore::start(store, Default::default(), |fault| panic!("{fault}")).expect("starts");
        let refused = store_id(&hot, DIRECTORY).expect_err("five bytes").to_string();
        assert!(refused.contains("has 5 bytes and not 16"), "{refused}");
    }
}
