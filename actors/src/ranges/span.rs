//! The rows of keys, by their bytes alone.
//!
//! * It decides: whether a row stands among those of some keys. One whose key cannot be read does so too, and belongs to whoever has the
//!   keys around it: it is their damage, and it is cleared with them.
//! * It never does: read a row's key.

use rhumb_core::HybridTime;
use rhumb_storage::mvcc::{KeyspaceId, UserKey, VersionKey};

use super::replica::Descriptor;

/// Bytes of a row behind its key: the time.
const TIME: usize = 8;
/// Bytes of a row before its key: its kind and its keyspace.
const BEFORE_KEY: usize = 5;

/// The rows of keys of one keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Span {
    /// The rows of keys from this one on, up to before that one, or to the end of the keyspace.
    #[must_use]
    pub fn of(keyspace: KeyspaceId, from: &UserKey, to: Option<&UserKey>) -> Self {
        let to = to.map_or_else(|| behind(keyspace), |to| before(keyspace, to));
        Self { from: before(keyspace, from), to }
    }

    /// The rows of a range.
    #[must_use]
    pub fn of_range(descriptor: &Descriptor) -> Self {
        Self::of(descriptor.keyspace, &descriptor.from, descriptor.to.as_ref())
    }

    /// Where the first one may be.
    #[must_use]
    pub fn first(&self) -> &[u8] {
        &self.from
    }

    /// Whether a row is one of them.
    #[must_use]
    pub fn holds(&self, row: &[u8]) -> bool {
        self.from.as_slice() <= row && row < self.to.as_slice()
    }
}

/// Before all versions of a key.
fn before(keyspace: KeyspaceId, key: &UserKey) -> Vec<u8> {
    let mut row = VersionKey { keyspace, key: key.clone(), at: HybridTime::ZERO }.encode();
    row.truncate(row.len() - TIME);
    row
}

/// Behind all rows of a keyspace.
fn behind(keyspace: KeyspaceId) -> Vec<u8> {
    let mut row = before(keyspace, &UserKey::default());
    row.truncate(BEFORE_KEY);
    // The first bytes that do not begin so.
    while row.pop_if(|last| *last == u8::MAX).is_some() {}
    if let Some(last) = row.last_mut() {
        *last += 1;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(keyspace: u32, key: &str, at: u64) -> Vec<u8> {
        let key = UserKey::new(key).expect("short");
        VersionKey { keyspace: KeyspaceId(keyspace), key, at: HybridTime::from_bits(at) }.encode()
    }

    #[test]
    fn a_row_whose_key_cannot_be_read_is_of_the_keys_around_it() {
        let key = |text: &str| UserKey::new(text).expect("short");
        let left = Span::of(KeyspaceId(255), &key(""), Some(&key("m")));
        let right = Span::of(KeyspaceId(255), &key("m"), None);
        for (row, is_left, is_right) in [
            (row(255, "", u64::MAX), true, false),
            (row(255, "a", 7), true, false),
            (row(255, "lzzz", 0), true, false),
            (row(255, "m", u64::MAX), false, true),
            (row(255, "m", 0), false, true),
            (row(255, "z\u{0}z", 1), false, true),
            (row(254, "z", 0), false, false),
            (row(256, "", u64::MAX), false, false),
        ] {
            assert_eq!((left.holds(&row), right.holds(&row)), (is_left, is_right), "{row:?}");
            // Without its last bytes, and with more of them, nobody can read it, and it stands where it stood.
            for odd in [row[..row.len() - 3].to_vec(), [row.as_slice(), b"more"].concat()] {
                assert!(VersionKey::decode(&odd).is_err());
                assert_eq!((left.holds(&odd), right.holds(&odd)), (is_left, is_right), "{odd:?}");
            }
        }
        let last = Span::of(KeyspaceId(u32::MAX), &key(""), None);
        assert!(last.holds(&row(u32::MAX, "z", 0)) && !last.holds(b"w"));
        let none = Span::of(KeyspaceId(1), &key(""), Some(&key("")));
        assert!(!none.holds(&row(1, "", 5)), "who has no keys has no rows");
    }
}
