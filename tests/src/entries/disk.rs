//! What a node finds on its disk.

use rhumb_storage::rocks::read_log;

/// Escrow's records: `KEY = VALUE` pairs, each with its length in a byte before it.
pub(super) fn records(bytes: &[u8]) {
    let mut rest = bytes;
    let mut part = || {
        let (length, after) = rest.split_first()?;
        let (part, after) = after.split_at_checked(usize::from(*length)).unwrap_or((after, &[]));
        rest = after;
        Some(part.to_vec())
    };
    let pairs = std::iter::from_fn(|| Some((part()?, part().unwrap_or_default())));
    // Whatever stands on a disk, the reason why it is not taken names the record.
    if let Err(why) = rhumb_actors::escrow::read_records(pairs) {
        assert!(why.len() < 4096, "a reason is for people: {} bytes", why.len());
    }
}

/// RocksDB's write-ahead log, as our own scan reads it before RocksDB may.
pub(super) fn log(bytes: &[u8]) {
    // The number of the log stands in each of its records.
    let number = bytes.get(7..11).map_or(0, |number| u32::from_le_bytes(number.try_into().expect("4 bytes")));
    for number in [0, number] {
        let covered = read_log(bytes, number.into());
        assert!(covered <= bytes.len() as u64, "nothing is found beyond the end");
    }
}
