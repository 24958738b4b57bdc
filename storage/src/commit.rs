//! The record that every commit carries: its number and the last number known durable when it was
//! written. Recovery reads it in the write-ahead log to tell a torn tail, which may be dropped, from
//! damage to what was promised, which may not.

use std::fmt;

/// The place of a commit in a store's history. Each write of a group is one commit; numbers rise by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub u64);

impl CommitNumber {
    /// The number of the commit after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("64 bits of commits are never spent"))
    }
}

impl fmt::Display for CommitNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands under [`keys::COMMIT`](crate::keys::COMMIT).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CommitRecord {
    pub(crate) number: CommitNumber,
    pub(crate) durable: CommitNumber,
}

/// Begins every commit record, so that recovery tells it from a value that only shares its key.
const MAGIC: [u8; 4] = *b"RhC1";
pub(crate) const RECORD_BYTES: usize = 4 + 8 + 8 + 4;

impl CommitRecord {
    /// Magic, number and durable number in big-endian order, then CRC-32C of what stands before.
    pub(crate) fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..12].copy_from_slice(&self.number.0.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.durable.0.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..20]);
        bytes[20..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The record of these bytes, or `None` when they are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let whole = body.starts_with(&MAGIC) && crc32c::crc32c(body) == u32::from_be_bytes(*crc);
        let word = |at: usize| CommitNumber(u64::from_be_bytes(*body[at..].first_chunk().expect("20 bytes")));
        whole.then(|| Self { number: word(4), durable: word(12) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_no_flipped_bit_passes() {
        let record = CommitRecord { number: CommitNumber(7), durable: CommitNumber(5) };
        let bytes = record.encode();
        assert_eq!(CommitRecord::decode(&bytes), Some(record));
        for bit in 0..RECORD_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(CommitRecord::decode(&flipped), None, "bit {bit}");
        }
        assert_eq!(CommitRecord::decode(&bytes[1..]), None);
    }
}
