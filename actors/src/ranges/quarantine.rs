//! A replica that is not to be believed: what stands on its disk of that, until it is rebuilt.
//!
//! * It decides: the row.
//! * It never does: delete anything. The replica's rows stay as they are until its range has let it go, and whoever clears them has set
//!   them aside before (docs/decisions/0065).
//!
//! | key, in the family `Raft` | value |
//! |---|---|
//! | `q` range | a [`Quarantine`] |

use rhumb_core::HybridTime;
use rhumb_storage::{Batch, Family};
use serde::{Deserialize, Serialize};

use super::raft::disk::{self, Disk};
use super::raft::wire;
use super::replica::{RangeId, ReplicaId};

/// A replica that is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// Which.
    pub replica: ReplicaId,
    /// What was found.
    pub why: String,
    /// When.
    pub at: HybridTime,
    /// Its range has let it go and its rows are cleared, or are being cleared: another one takes its place.
    pub cleared: bool,
}

/// What stands on a disk of a replica in quarantine, or why it cannot be read.
pub type Kept = Result<Quarantine, String>;

impl Quarantine {
    /// The row of a range.
    #[must_use]
    pub fn row_key(range: RangeId) -> Vec<u8> {
        [b"q".as_slice(), &range.0.to_be_bytes()].concat()
    }

    /// Notes it.
    pub fn write(&self, range: RangeId, batch: &mut Batch) {
        batch.put(Family::Raft, Self::row_key(range), wire::encode(self).to_vec());
    }

    /// All that are on a disk, of each range it, or why it cannot be read. What stands under no range's number is said of none.
    ///
    /// # Errors
    /// A fault of reading.
    pub fn all(disk: &dyn Disk) -> Result<Vec<(RangeId, Kept)>, String> {
        let rows = disk::rows(disk, Family::Raft, b"q").map_err(|fault| fault.to_string())?;
        let read = |(key, row): (Vec<u8>, Vec<u8>)| {
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map(u64::from_be_bytes);
            Some((RangeId(number?), wire::decode(&row)))
        };
        Ok(rows.into_iter().filter_map(read).collect())
    }
}
