//! Hashes of a Merkle tree (RFC 6962, section 2.1; SHA-256).

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::digest::{Context, SHA256};
use thiserror::Error;

/// A SHA-256 hash. Written and read as base64, as checkpoints and proofs have it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// A text that is no hash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no hash: 32 bytes in base64, 44 characters")]
pub struct NoHash(String);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        let wrong = || NoHash(text.chars().take(64).collect());
        let bytes = if text.len() == 44 { BASE64_STANDARD.decode(text).ok() } else { None };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(wrong)
    }
}

/// SHA-256 of the parts, one after the other.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    Hash(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The hash of a leaf: of the byte 0 and the entry.
#[must_use]
pub fn leaf(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// The hash of an inner node: of the byte 1 and both children.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], &left.0, &right.0])
}

/// The root of the empty tree: the hash of nothing.
#[must_use]
pub fn empty() -> Hash {
    sha256(&[])
}

/// The largest power of two that is smaller than `n`.
///
/// # Panics
/// When `n` is below two: such a tree has no children.
#[must_use]
pub fn split(n: u64) -> u64 {
    assert!(n >= 2, "a tree of {n} leaves has no children");
    1 << (63 - (n - 1).leading_zeros())
}

/// The root of a tree of these leaves, by its definition.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
            node(&root(left), &root(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_split_where_rfc_6962_says() {
        let splits: Vec<_> = [2, 3, 4, 5, 8, 9, (1 << 63) + 1].into_iter().map(split).collect();
        assert_eq!(splits, [1, 2, 2, 4, 4, 8, 1 << 63]);
    }

    #[test]
    fn a_hash_is_read_as_it_is_written_and_nothing_else_is() {
        let hash = leaf(b"");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for wrong in ["", "AA==", "!", &"A".repeat(44), &format!("{hash} ")] {
            assert!(wrong.parse::<Hash>().is_err(), "{wrong}");
        }
    }
}
