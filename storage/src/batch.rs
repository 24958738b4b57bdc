//! What a caller wants written: puts, deletes and fences, all or nothing.

use rhumb_core::Epoch;

use crate::keys;

/// A kind of data: one column family of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Storage's own records and small facts of the node; [`keys`] says who writes which.
    Meta,
    /// Pools, rights, holds and idempotency keys.
    Escrow,
    /// Entries and checkpoints of the audit log.
    Audit,
    /// What is to be sent to other nodes until acknowledged.
    Outbox,
    /// Raft logs and votes of ranges.
    Raft,
    /// Versions of ranges' user keys.
    Mvcc,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Meta, Self::Escrow, Self::Audit, Self::Outbox, Self::Raft, Self::Mvcc];

    /// Its name on disk, which never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Escrow => "escrow",
            Self::Audit => "audit",
            Self::Outbox => "outbox",
            Self::Raft => "raft",
            Self::Mvcc => "mvcc",
        }
    }

    /// Its place in [`Family::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One put or delete. Without a value it is a delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Op {
    pub(crate) family: Family,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// A condition: refused if storage knows a higher epoch for the key, which it raises to this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) key: Vec<u8>,
    pub(crate) epoch: Epoch,
}

/// Puts, deletes and fences that take effect together or not at all. Later operations on one key win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) ops: Vec<Op>,
    pub(crate) fences: Vec<Fence>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a value under a key.
    ///
    /// # Panics
    /// When the key is one of storage's own ([`keys`]).
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.push(family, key.into(), Some(value.into()))
    }

    /// Removes a key, which need not exist.
    ///
    /// # Panics
    /// When the key is one of storage's own ([`keys`]).
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) -> &mut Self {
        self.push(family, key.into(), None)
    }

    /// Makes the whole batch depend on an epoch: if storage knows a higher one for this key, nothing
    /// of the batch is written; else this one is what storage knows from now on.
    pub fn fence(&mut self, key: &[u8], epoch: Epoch) -> &mut Self {
        self.bytes += key.len() + 8;
        self.fences.push(Fence { key: key.to_vec(), epoch });
        self
    }

    /// Appends what another batch would do after this one.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        self.bytes += other.bytes;
        self.ops.extend(other.ops);
        self.fences.extend(other.fences);
        self
    }

    /// What it writes, in order: family, key, and the value; none for a delete.
    pub fn writes(&self) -> impl Iterator<Item = (Family, &[u8], Option<&[u8]>)> {
        self.ops.iter().map(|op| (op.family, op.key.as_slice(), op.value.as_deref()))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.fences.is_empty()
    }

    /// Bytes of keys and values in it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, family: Family, key: Vec<u8>, value: Option<Vec<u8>>) -> &mut Self {
        assert!(
            family != Family::Meta || !keys::is_storages_own(&key),
            "the key {:?} of the family meta is storage's own",
            key.escape_ascii().to_string()
        );
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.ops.push(Op { family, key, value });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_batches_keep_their_order_and_their_fences() {
        let mut first = Batch::new();
        first.put(Family::Escrow, "a", "1").fence(b"range", Epoch(3));
        let mut second = Batch::new();
        second.delete(Family::Escrow, "a");
        first.merge(second);
        assert_eq!(first.ops.len(), 2);
        assert_eq!(first.ops[1].value, None);
        assert_eq!(first.fences, [Fence { key: b"range".to_vec(), epoch: Epoch(3) }]);
        assert_eq!(first.bytes(), 2 + 13 + 1);
        assert!(!first.is_empty() && Batch::new().is_empty());
    }

    #[test]
    #[should_panic(expected = "storage's own")]
    fn storages_own_keys_cannot_be_written_by_a_batch() {
        Batch::new().put(Family::Meta, keys::COMMIT, "forged");
    }

    #[test]
    fn the_same_key_in_another_family_is_free() {
        assert!(!Batch::new().put(Family::Escrow, keys::COMMIT, "mine").is_empty());
    }
}
