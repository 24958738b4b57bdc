//! How large a range is, and which key halves its bytes: by one walk over its rows, a part at a time.
//!
//! * It decides: which keys are remembered as marks on the way, and which of them is nearest to the middle in the end.
//! * It never does: hold more than [`MARKS`] keys, or mark a range's first key.
//! * A walk is of no one moment: what is written behind it while it goes on is not seen, and counted as written since.
//!
//! The total is not known before the end, so marks are set at every so many bytes; when they become too many every other one is
//! dropped, and the distance doubles. The mark that is chosen is off the middle by less than a sixty-fourth of the whole, or by one
//! key's versions.

use rhumb_core::HybridTime;
use rhumb_storage::mvcc::{KeyspaceId, ReadError, Rows, UserKey, VersionKey};

use crate::ranges::span::Span;

/// Keys that are remembered at most.
pub const MARKS: usize = 256;
/// Rows of a part, about.
pub const ROWS: u64 = 1_000;
/// Bytes of a part, about.
pub const BYTES: u64 = 1 << 20;
/// Of a row's key its time is the last so many bytes.
const TIME: usize = 8;

/// What a range has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// Bytes of its rows, keys and values, before they are compressed.
    pub bytes: u64,
    /// Versions of its keys.
    pub versions: u64,
    /// Where it is halved; none: it has one key, or none.
    pub middle: Option<Middle>,
    /// Whether it was told that it cannot be split.
    pub(super) told: bool,
}

/// A key that halves a range's bytes, about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Middle {
    /// The first key of the right half.
    pub key: UserKey,
    /// Bytes of the left half.
    pub before: u64,
}

/// A part of a range that is walked in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Of this keyspace.
    pub keyspace: KeyspaceId,
    /// From this key on.
    pub from: UserKey,
    /// To before this key; none: to the end of the keyspace.
    pub to: Option<UserKey>,
}

/// What was found in a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys, each with the bytes and the count of its versions.
    pub keys: Vec<(UserKey, u64, u64)>,
    /// Where the next part begins; none: this was the last one.
    pub next: Option<UserKey>,
}

impl Part {
    /// Looks at rows from its beginning on, about so many. It ends between two keys.
    ///
    /// # Errors
    /// [`ReadError`]: the rows are not to be believed, or cannot be read.
    pub fn look<R: Rows + ?Sized>(&self, rows: &R, most: u64) -> Result<Found, ReadError> {
        let span = Span::of(self.keyspace, &self.from, self.to.as_ref());
        let (mut found, mut failed) = (Found::default(), None);
        let (mut versions, mut bytes, mut last) = (0, 0, Vec::new());
        rows.walk(span.first(), &mut |row, value| {
            if !span.holds(row) {
                return false;
            }
            let size = (row.len() + value.len()) as u64;
            let key = &row[..row.len().saturating_sub(TIME)];
            if key == last
                && let Some((_, sum, count)) = found.keys.last_mut()
            {
                (*sum, *count) = (*sum + size, *count + 1);
            } else {
                let version = match VersionKey::decode(row) {
                    Ok(version) => version,
                    Err(error) => {
                        failed = Some(error.to_string());
                        return false;
                    }
                };
                if versions >= most || bytes >= BYTES {
                    found.next = Some(version.key);
                    return false;
                }
                last = key.to_vec();
                found.keys.push((version.key, size, 1));
            }
            (versions, bytes) = (versions + 1, bytes + size);
            true
        })?;
        match failed {
            Some(reason) => Err(ReadError::Damaged { keyspace: self.keyspace, at: HybridTime::ZERO, reason }),
            None => Ok(found),
        }
    }
}

/// A walk on its way.
#[derive(Debug)]
pub struct Measure {
    next: UserKey,
    bytes: u64,
    versions: u64,
    keys: u64,
    /// Keys with the bytes before each, about `apart` from each other.
    marks: Vec<Middle>,
    apart: u64,
}

impl Measure {
    /// Begins at a range's first key.
    #[must_use]
    pub fn begin(from: UserKey) -> Self {
        Self { next: from, bytes: 0, versions: 0, keys: 0, marks: Vec::new(), apart: 1 }
    }

    /// Where it goes on.
    #[must_use]
    pub fn next(&self) -> &UserKey {
        &self.next
    }

    /// What was found in the next part. The size, if that was the last one.
    pub fn met(&mut self, found: Found) -> Option<Size> {
        for (key, bytes, versions) in found.keys {
            self.mark(key);
            self.bytes += bytes;
            self.versions += versions;
            self.keys += 1;
        }
        match found.next {
            Some(next) => {
                self.next = next;
                None
            }
            None => Some(self.size()),
        }
    }

    fn mark(&mut self, key: UserKey) {
        let before = self.marks.last().map_or(0, |mark| mark.before);
        // Before the first key there is nothing.
        if self.keys == 0 || self.bytes < before.saturating_add(self.apart) {
            return;
        }
        if self.marks.len() == MARKS {
            let mut number = 0;
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.apart = (self.bytes / (MARKS as u64 / 2)).max(1);
        }
        self.marks.push(Middle { key, before: self.bytes });
    }

    fn size(&mut self) -> Size {
        let half = self.bytes / 2;
        let marks = std::mem::take(&mut self.marks);
        let middle = marks.into_iter().min_by_key(|mark| mark.before.abs_diff(half));
        Size { bytes: self.bytes, versions: self.versions, middle, told: false }
    }
}
