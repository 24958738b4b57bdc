//! What an entry of a Rhumb log is: public words that name nobody, and a commitment to a record that is kept
//! apart, encrypted.
//!
//! ```text
//! 0   6  "rhumb1"
//! 6   8  hybrid time: 48 bits of milliseconds since the Unix epoch, 16 of counter (big-endian)
//! 14  1  length of the action's name
//! 15  n  the action's name: lower-case letters, digits, `.`, `_`, `-`
//!     32 commitment: SHA-256 of "rhumb record\n", 32 random bytes (the salt), and the record
//! ```
//!
//! Whoever is shown a record and its salt can check that the entry commits to them. Whoever is not learns
//! nothing of the record: without the salt its hash cannot be tried out. When record and salt are destroyed
//! the entry stays, and every proof with it.

use thiserror::Error;

use crate::hash::{Hash, sha256};
use crate::tile::MAX_ENTRY;

const MAGIC: &[u8; 6] = b"rhumb1";
const DOMAIN: &[u8] = b"rhumb record\n";
/// Bytes of a salt.
pub const SALT: usize = 32;
/// Bytes of a record at most.
pub const MAX_RECORD: usize = MAX_ENTRY;
/// Bytes of an action's name at most.
pub const MAX_ACTION: usize = 64;

/// An entry of a Rhumb log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, as hybrid time in one word.
    pub time: u64,
    /// What kind of thing was done.
    pub action: String,
    /// To what it commits.
    pub commitment: Hash,
}

/// Bytes that are no entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoEntry {
    /// They do not begin as one.
    #[error("it does not begin as an entry of a Rhumb log does")]
    Magic,
    /// They are too few or too many.
    #[error("an entry with such a name has {want} bytes, not {got}")]
    Length {
        /// What is there.
        got: usize,
        /// What should be.
        want: usize,
    },
    /// The name of the action is none.
    #[error("the action's name is none: 1 to {MAX_ACTION} of a-z, 0-9, `.`, `_` and `-`")]
    Action,
}

/// A record to which an entry does not commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the entry commits to another record: this one was changed, or is of another entry")]
pub struct OtherRecord;

/// The commitment to a record.
#[must_use]
pub fn commitment(salt: &[u8; SALT], record: &[u8]) -> Hash {
    sha256(&[DOMAIN, salt, record])
}

impl Entry {
    /// Its bytes, of which the leaf is the hash.
    ///
    /// # Panics
    /// When the action's name is none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(is_action(self.action.as_bytes()), "{:?} cannot be an action's name", self.action);
        let mut bytes = Vec::with_capacity(15 + self.action.len() + 32);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.time.to_be_bytes());
        bytes.push(self.action.len() as u8);
        bytes.extend_from_slice(self.action.as_bytes());
        bytes.extend_from_slice(&self.commitment.0);
        bytes
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NoEntry> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(NoEntry::Magic)?;
        let cut = NoEntry::Length { got: bytes.len(), want: 15 + 1 + 32 };
        let (time, rest) = rest.split_first_chunk::<8>().ok_or(cut.clone())?;
        let (length, rest) = rest.split_first().ok_or(cut)?;
        let want = 15 + usize::from(*length) + 32;
        let length = NoEntry::Length { got: bytes.len(), want };
        let (action, commitment) = rest.split_last_chunk::<32>().ok_or(length.clone())?;
        if bytes.len() != want {
            return Err(length);
        }
        let action = std::str::from_utf8(action).ok().filter(|name| is_action(name.as_bytes()));
        let action = action.ok_or(NoEntry::Action)?.to_owned();
        Ok(Self { time: u64::from_be_bytes(*time), action, commitment: Hash(*commitment) })
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(&self) -> u64 {
        self.time >> 16
    }

    /// Whether it commits to this record.
    ///
    /// # Errors
    /// [`OtherRecord`].
    pub fn commits_to(&self, salt: &[u8; SALT], record: &[u8]) -> Result<(), OtherRecord> {
        if commitment(salt, record) == self.commitment { Ok(()) } else { Err(OtherRecord) }
    }
}

fn is_action(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte);
    (1..=MAX_ACTION).contains(&name.len()) && name.iter().all(plain)
}
