//! Names: of a hold, of a request, of a customer.
//!
//! * It decides: how each is written and read.
//! * Invariant: what is printed reads back the same; text that is not a name is refused with what one
//!   looks like.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use rhumb_core::limits::MAX_KEY_BYTES;
use rhumb_core::{Incarnation, NodeId, PoolName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{Wire, grows};

/// Names one hold for ever: the pool, the node that owns it, that node's life, a number in it, and a
/// secret that only those have who were told of the hold.
/// As text: `concert/us-east/n1/19a3f0c2b41/17/9c3e04d1a2b85f67` (life and secret in hexadecimal).
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoldId {
    /// The pool whose units are held.
    pub pool: PoolName,
    /// The only node that may confirm, release or expire it.
    pub owner: NodeId,
    /// The life of that node in which it was made.
    pub incarnation: Incarnation,
    /// Its number within that life, from 1.
    pub number: u64,
    /// Drawn by its owner: whoever settles the hold shows by it that they were told of it. 0 of a hold
    /// that was made before holds had secrets.
    #[since(2)]
    pub secret: u64,
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:x}/{}", self.pool, self.owner, self.incarnation.0, self.number)?;
        if self.secret == 0 { Ok(()) } else { write!(f, "/{:016x}", self.secret) }
    }
}

/// Text that is not a hold id, or not an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given:?} is not {kind}; expected {expected}")]
pub struct ParseIdError {
    /// What was given.
    pub given: String,
    /// What it was to be, with its article.
    pub kind: &'static str,
    /// How one looks.
    pub expected: &'static str,
}

impl FromStr for HoldId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            given: s.chars().take(120).collect(),
            kind: "a hold id",
            expected: "POOL/REGION/NODE/LIFE/NUMBER/SECRET as printed by `rhumb hold`",
        };
        let parts: Vec<&str> = s.split('/').collect();
        let (pool, region, node, life, number, secret) = match parts[..] {
            [pool, region, node, life, number] => (pool, region, node, life, number, "0"),
            [pool, region, node, life, number, secret] => (pool, region, node, life, number, secret),
            _ => return Err(bad()),
        };
        Ok(Self {
            pool: pool.parse().map_err(|_| bad())?,
            owner: NodeId::new(region, node).map_err(|_| bad())?,
            incarnation: Incarnation(u64::from_str_radix(life, 16).map_err(|_| bad())?),
            number: number.parse().map_err(|_| bad())?,
            secret: u64::from_str_radix(secret, 16).map_err(|_| bad())?,
        })
    }
}

/// An idempotency key: the same key never holds twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Key {
    /// Made by a client library: says which node remembers it and since when, so that a retry that
    /// lands anywhere finds its way home, and one that comes too late is known for it.
    /// As text: `k1:us-east/n1:1763689205123:4f2a…`.
    Made {
        /// The node that remembers it.
        home: NodeId,
        /// When it was made, milliseconds since the Unix epoch.
        created_ms: u64,
        /// Random letters and digits.
        nonce: String,
    },
    /// Given by hand. It is scoped to the region that is asked: the same text in another region is
    /// another key.
    Raw(String),
}

/// By what tells two keys apart soonest, and lies in the key itself: a node remembers hundreds of thousands of
/// keys of one home. Nothing else depends on the order.
impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (
                Self::Made { home, created_ms, nonce },
                Self::Made { home: other_home, created_ms: other_ms, nonce: other_nonce },
            ) => created_ms
                .cmp(other_ms)
                .then_with(|| nonce.cmp(other_nonce))
                .then_with(|| home.cmp(other_home)),
            (Self::Raw(text), Self::Raw(other)) => text.cmp(other),
            (Self::Made { .. }, Self::Raw(_)) => Ordering::Less,
            (Self::Raw(_), Self::Made { .. }) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { home, created_ms, nonce } => write!(f, "k1:{home}:{created_ms}:{nonce}"),
            Self::Raw(text) => f.write_str(text),
        }
    }
}

impl FromStr for Key {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let bad = |expected| ParseIdError {
            given: s.chars().take(120).collect(),
            kind: "an idempotency key",
            expected,
        };
        if s.is_empty() || s.len() > MAX_KEY_BYTES || s.chars().any(char::is_control) {
            return Err(bad("1 to 200 bytes of printable text"));
        }
        let Some(made) = s.strip_prefix("k1:") else { return Ok(Self::Raw(s.to_owned())) };
        let shape = "k1:REGION/NODE:MILLISECONDS:NONCE (or any text that does not begin with k1:)";
        let parts: Vec<&str> = made.split(':').collect();
        let [home, created, nonce] = parts[..] else { return Err(bad(shape)) };
        if nonce.is_empty() || !nonce.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(bad(shape));
        }
        Ok(Self::Made {
            home: home.parse().map_err(|_| bad(shape))?,
            created_ms: created.parse().map_err(|_| bad(shape))?,
            nonce: nonce.to_owned(),
        })
    }
}

/// A customer, as one pool knows them: 128 bits of a hash (SHA-256 over the pool's name and the
/// identity). The identity itself is hashed where it is given and goes nowhere: it is in no message, no
/// record and no log. It is a pseudonym, not a secret: who can guess an identity can hash it too.
/// It stands in records on disk too: it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct CustomerTag([u8; 16]);

impl CustomerTag {
    /// The tag of an identity (an account number, an address: whatever tells customers apart) in a pool.
    ///
    /// # Errors
    /// [`ParseIdError`] unless it is 1 to 200 bytes of printable text.
    pub fn of(pool: &PoolName, identity: &str) -> Result<Self, ParseIdError> {
        let sound = (1..=MAX_KEY_BYTES).contains(&identity.len()) && !identity.chars().any(char::is_control);
        if !sound {
            // What was given is not said: it may be personal.
            let given = format!("{} bytes", identity.len());
            return Err(ParseIdError {
                given,
                kind: "a customer",
                expected: "1 to 200 bytes of printable text",
            });
        }
        let hash = Sha256::digest(format!("rhumb-customer-v1\n{pool}\n{identity}"));
        Ok(Self(hash[..16].try_into().expect("16 of 32 bytes")))
    }

    /// Its bytes, for records.
    pub(crate) fn bytes(&self) -> [u8; 16] {
        self.0
    }

    /// The tag of bytes that a record has.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CustomerTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_equal_where_their_order_says_so_and_only_there() {
        let made = |node: &str, created_ms, nonce: &str| Key::Made {
            home: NodeId::new("us-east", node).expect("valid"),
            created_ms,
            nonce: nonce.into(),
        };
        let sorted = [
            made("n1", 1, "b"),
            made("n2", 1, "b"),
            made("n1", 1, "c"),
            made("n1", 2, "a"),
            Key::Raw("a".into()),
            Key::Raw("b".into()),
        ];
        for (i, one) in sorted.iter().enumerate() {
            for (j, other) in sorted.iter().enumerate() {
                assert_eq!((one.cmp(other), one == other), (i.cmp(&j), i == j), "{one} and {other}");
            }
        }
    }
}
