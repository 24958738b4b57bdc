//! Rows that are left on a disk of keys of which no replica stands there any more, until they are cleared.
//!
//! * It never does: let rows of such keys in before they are cleared. Whoever would write them is refused, and comes again.

use rhumb_core::canary::{self, Canary};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use rhumb_storage::{Batch, Family, StorageFault};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk};
use super::wire;
use crate::ranges::replica::{Descriptor, RangeId};

/// Keys of a range that has left this disk, or that has left them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// The range.
    pub range: RangeId,
    /// Of which keyspace.
    pub keyspace: KeyspaceId,
    /// From this key on,
    pub from: UserKey,
    /// up to before this one, or to the end.
    pub to: Option<UserKey>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    keyspace: u32,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

fn prefix(range: RangeId) -> Vec<u8> {
    [b"x".as_slice(), &range.0.to_be_bytes()].concat()
}

impl Rest {
    /// All keys of a range that leaves.
    #[must_use]
    pub fn of(descriptor: &Descriptor) -> Self {
        let Descriptor { range, keyspace, from, to, .. } = descriptor.clone();
        Self { range, keyspace, from, to }
    }

    /// The keys that a range had before and has no more, if any. Ranges are only ever split: their ends come nearer.
    #[must_use]
    pub fn between(before: &Descriptor, after: &Descriptor) -> Option<Self> {
        let from = after.to.clone()?;
        let fewer = !before.is_empty() && before.to.as_ref().is_none_or(|to| from < *to);
        (fewer && !canary::sings(Canary::LostKeysStay)).then(|| Self { from, ..Self::of(before) })
    }

    /// These keys and those of another part of the same range.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let to = self.to.zip(other.to).map(|(one, other)| one.max(other));
        Self { from: self.from.min(other.from), to, ..self }
    }

    /// Notes that rows of these keys are here, of a state that has not come yet.
    pub fn note(&self, batch: &mut Batch) {
        batch.put(Family::Raft, note_key(self.range), self.row());
    }

    /// Its row, in the family `Raft`.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        [&prefix(self.range), self.from.as_bytes()].concat()
    }

    /// Notes it.
    pub fn write(&self, batch: &mut Batch) {
        batch.put(Family::Raft, self.key(), self.row());
    }

    fn row(&self) -> Vec<u8> {
        let to = self.to.as_ref().map(|to| to.as_bytes().to_vec());
        wire::encode(&Row { keyspace: self.keyspace.0, from: self.from.as_bytes().to_vec(), to }).into()
    }

    /// Whether keys from this one on, up to before that one, are among them.
    #[must_use]
    pub fn meets(&self, keyspace: KeyspaceId, from: &UserKey, to: Option<&UserKey>) -> bool {
        self.keyspace == keyspace
            && to.is_none_or(|to| self.from < *to)
            && self.to.as_ref().is_none_or(|end| from < end)
    }
}

/// Where it is noted of which keys a replica without any has rows already.
#[must_use]
pub fn note_key(range: RangeId) -> Vec<u8> {
    [b"y".as_slice(), &range.0.to_be_bytes()].concat()
}

/// The keys of which a replica without any has rows already.
///
/// # Errors
/// What cannot be read.
pub fn noted(disk: &dyn Disk, range: RangeId) -> Result<Option<Rest>, String> {
    let key = note_key(range);
    let row = disk.get(Family::Raft, &key).map_err(|fault| fault.to_string())?;
    row.map(|row| read(&key, &row)).transpose()
}

/// Whether something is left of a range.
///
/// # Errors
/// A fault of reading.
pub fn is_left(disk: &dyn Disk, range: RangeId) -> Result<bool, StorageFault> {
    Ok(!disk::rows(disk, Family::Raft, &prefix(range))?.is_empty())
}

/// All that is left.
///
/// # Errors
/// What cannot be read.
pub fn all(disk: &dyn Disk) -> Result<Vec<Rest>, String> {
    let rows = disk::rows(disk, Family::Raft, b"x").map_err(|fault| fault.to_string())?;
    rows.iter().map(|(key, row)| read(key, row)).collect()
}

fn read(key: &[u8], row: &[u8]) -> Result<Rest, String> {
    let number = key.get(1..9).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
    let range = RangeId(number.ok_or("what is left of a range is noted under no range's number")?);
    let Row { keyspace, from, to } = wire::decode(row)?;
    let key = |bytes: Vec<u8>| UserKey::new(bytes).map_err(|error| error.to_string());
    Ok(Rest { range, keyspace: KeyspaceId(keyspace), from: key(from)?, to: to.map(key).transpose()? })
}
