//! A version's key: `v`, the keyspace, the user key escaped, the time inverted.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | `v`, for there are other rows in the family |
//! | 4 | keyspace, big-endian |
//! | any | the user key, with `00 FF` for each `00` |
//! | 2 | `00 01`, which ends it |
//! | 8 | all bits of the hybrid time, inverted, big-endian |
//!
//! Byte order is then the order of keyspaces, of user keys, and of times from the newest to the oldest. Without the escape
//! the time of a short key would be compared with the bytes of a longer one.

use std::fmt;

use rhumb_core::HybridTime;
use thiserror::Error;

/// Bytes that a user key may have.
pub const MAX_KEY_BYTES: usize = 4_096;

const VERSION: u8 = b'v';
const TIME_BYTES: usize = 8;
const ESCAPED: u8 = 0xFF;
const END: u8 = 0x01;
/// Above [`END`], below [`ESCAPED`]: past all versions of a key, before the next key.
const PAST: u8 = 0x02;

/// A keyspace, by the number that the mesh gave it. The number says nothing of its name or its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

/// A user's key. Its text form does not show it: keys are data.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey(Vec<u8>);

/// A key is longer than keys may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key of {0} bytes is too long: {MAX_KEY_BYTES} are the most")]
pub struct KeyTooLong(pub usize);

impl UserKey {
    /// A key of these bytes; none is a key as well, the first one.
    ///
    /// # Errors
    /// [`KeyTooLong`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyTooLong> {
        let bytes = bytes.into();
        if bytes.len() > MAX_KEY_BYTES { Err(KeyTooLong(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserKey({} bytes)", self.0.len())
    }
}

/// A version: which key, written when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionKey {
    /// Its keyspace.
    pub keyspace: KeyspaceId,
    /// The user's key.
    pub key: UserKey,
    /// When it was written.
    pub at: HybridTime,
}

/// Why bytes are not a version's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It is another kind of row.
    #[error("it is no version's key: its first byte is not 'v'")]
    Kind,
    /// It ends too early.
    #[error("it ends before its keyspace, its key and its time do")]
    Short,
    /// A zero byte is followed by what no key is written with.
    #[error("its key is not escaped as keys are")]
    Escape,
    /// Something follows the time.
    #[error("{0} bytes stand where a time of {TIME_BYTES} should")]
    Time(usize),
    /// The user key is longer than keys may be.
    #[error(transparent)]
    TooLong(#[from] KeyTooLong),
}

impl VersionKey {
    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        version(self.keyspace, &self.key, self.at)
    }

    /// The version of these bytes.
    ///
    /// # Errors
    /// [`KeyError`]. Bytes that are read write back as the same bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let rest = bytes.strip_prefix(&[VERSION]).ok_or(KeyError::Kind)?;
        let (keyspace, rest) = rest.split_first_chunk::<4>().ok_or(KeyError::Short)?;
        let (key, time) = unescape(rest)?;
        let time: [u8; TIME_BYTES] = time.try_into().map_err(|_| KeyError::Time(time.len()))?;
        Ok(Self {
            keyspace: KeyspaceId(u32::from_be_bytes(*keyspace)),
            key: UserKey::new(key)?,
            at: HybridTime::from_bits(!u64::from_be_bytes(time)),
        })
    }
}

/// Before every version of a keyspace.
pub(crate) fn of_keyspace(keyspace: KeyspaceId) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(keyspace.0.to_be_bytes());
    bytes
}

/// Before every version of a key, and of no other.
pub(crate) fn prefix(keyspace: KeyspaceId, key: &UserKey) -> Vec<u8> {
    let mut bytes = of_keyspace(keyspace);
    bytes.reserve(key.0.len() + 2 + TIME_BYTES);
    for byte in &key.0 {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(ESCAPED);
        }
    }
    bytes.extend([0, END]);
    bytes
}

/// A version's row.
pub(crate) fn version(keyspace: KeyspaceId, key: &UserKey, at: HybridTime) -> Vec<u8> {
    timed(prefix(keyspace, key), at)
}

/// The row of the version of this time, of a key's prefix. Older versions come behind it.
pub(crate) fn timed(mut prefix: Vec<u8>, at: HybridTime) -> Vec<u8> {
    prefix.extend((!at.to_bits()).to_be_bytes());
    prefix
}

/// Where the versions of a row's key begin to be another key's: the row without its time, and past it.
pub(crate) fn past(row: &[u8]) -> Vec<u8> {
    let mut bytes = of_row(row).to_vec();
    *bytes.last_mut().expect("a prefix ends with its end") = PAST;
    bytes
}

/// A version's row without its time.
pub(crate) fn of_row(row: &[u8]) -> &[u8] {
    &row[..row.len().saturating_sub(TIME_BYTES)]
}

fn unescape(bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), KeyError> {
    let mut key = Vec::new();
    let mut rest = bytes;
    loop {
        let zero = rest.iter().position(|byte| *byte == 0).ok_or(KeyError::Short)?;
        key.extend_from_slice(&rest[..zero]);
        match rest.get(zero + 1) {
            Some(&END) => return Ok((key, &rest[zero + 2..])),
            Some(&ESCAPED) => key.push(0),
            Some(_) => return Err(KeyError::Escape),
            None => return Err(KeyError::Short),
        }
        rest = &rest[zero + 2..];
    }
}
