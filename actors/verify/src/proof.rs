//! Inclusion and consistency proofs: verified as RFC 9162, sections 2.1.3.2 and 2.1.4.2, write it down,
//! step by step, and generated from whatever has the hashes of complete subtrees.
//!
//! * Invariant: a proof is accepted only if every hash of it was used, and only those.

use thiserror::Error;

use crate::hash::{Hash, empty, node, split};

/// The most hashes that a proof between two sizes of a tree of fewer than 2^64 leaves can have.
pub const MAX_HASHES: usize = 64;

/// Why a proof is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoProof {
    /// The entry would be beyond the end of the tree.
    #[error("entry {index} is not in a tree of {size}")]
    OutOfTree {
        /// The entry.
        index: u64,
        /// The tree.
        size: u64,
    },
    /// The older tree would be larger than the newer.
    #[error("a tree of {new} does not continue one of {old}")]
    Shrunk {
        /// Its size before.
        old: u64,
        /// Its size now.
        new: u64,
    },
    /// The number of hashes is not the one that the sizes ask for.
    #[error("the proof has {got} hashes, not as many as the tree's size asks for")]
    Length {
        /// How many it has.
        got: usize,
    },
    /// What it computes is not the older root.
    #[error("the proof leads to another older root: the tree was rewritten")]
    OldRoot,
    /// What it computes is not the root.
    #[error("the proof leads to another root")]
    Root,
    /// An older root that is not the root of nothing.
    #[error("the older tree is empty and its root is not that of the empty tree")]
    NotEmpty,
}

/// Whether the entry with this leaf hash is number `index` of the tree of this size and root.
///
/// # Errors
/// [`NoProof`].
pub fn inclusion(leaf: &Hash, index: u64, size: u64, path: &[Hash], root: &Hash) -> Result<(), NoProof> {
    if index >= size {
        return Err(NoProof::OutOfTree { index, size });
    }
    let short = NoProof::Length { got: path.len() };
    let (mut fnr, mut sn, mut hash) = (index, size - 1, *leaf);
    for sibling in path {
        if sn == 0 {
            return Err(short);
        }
        if fnr & 1 == 1 || fnr == sn {
            hash = node(sibling, &hash);
            while fnr & 1 == 0 && fnr != 0 {
                fnr >>= 1;
                sn >>= 1;
            }
        } else {
            hash = node(&hash, sibling);
        }
        fnr >>= 1;
        sn >>= 1;
    }
    match (sn, hash == *root) {
        (0, true) => Ok(()),
        (0, false) => Err(NoProof::Root),
        _ => Err(short),
    }
}

/// Whether the tree of the newer size and root continues that of the older.
///
/// # Errors
/// [`NoProof`].
pub fn consistency(
    (old, old_root): (u64, &Hash),
    (new, new_root): (u64, &Hash),
    path: &[Hash],
) -> Result<(), NoProof> {
    let length = NoProof::Length { got: path.len() };
    if old > new {
        return Err(NoProof::Shrunk { old, new });
    }
    if old == 0 && *old_root != empty() || new == 0 && *new_root != empty() {
        return Err(NoProof::NotEmpty);
    }
    if old == 0 || old == new {
        let same = old != new || old_root == new_root;
        let proven = if same { Ok(()) } else { Err(NoProof::OldRoot) };
        return if path.is_empty() { proven } else { Err(length) };
    }
    // A complete older tree is the first hash of the path, which is then left out.
    let whole = old.is_power_of_two().then_some(*old_root);
    let mut path = whole.into_iter().chain(path.iter().copied());
    let first = path.next().ok_or(length)?;
    let (mut fnr, mut sn) = (old - 1, new - 1);
    while fnr & 1 == 1 {
        fnr >>= 1;
        sn >>= 1;
    }
    let (mut older, mut newer) = (first, first);
    for sibling in path {
        if sn == 0 {
            return Err(length);
        }
        if fnr & 1 == 1 || fnr == sn {
            older = node(&sibling, &older);
            newer = node(&sibling, &newer);
            while fnr & 1 == 0 && fnr != 0 {
                fnr >>= 1;
                sn >>= 1;
            }
        } else {
            newer = node(&newer, &sibling);
        }
        fnr >>= 1;
        sn >>= 1;
    }
    match (sn, older == *old_root, newer == *new_root) {
        (0, true, true) => Ok(()),
        (0, false, _) => Err(NoProof::OldRoot),
        (0, true, false) => Err(NoProof::Root),
        _ => Err(length),
    }
}

/// Has the hashes of the complete subtrees of one tree: level 0 are the leaves, and number `n` of level
/// `l` covers the leaves from `n * 2^l` on, `2^l` of them.
pub trait Subtrees {
    /// Why one is not to be had.
    type Error;

    /// The hash of a complete subtree.
    ///
    /// # Errors
    /// It is not to be had.
    fn subtree(&mut self, level: u32, number: u64) -> Result<Hash, Self::Error>;
}

/// The Merkle tree hash of the leaves from `start` on, so many of them. `start` is where RFC 6962 splits a
/// tree, which makes every part of it complete but the last ones.
///
/// # Errors
/// A hash is not to be had.
///
/// # Panics
/// When such a part does not begin at `start`.
pub fn part<S: Subtrees + ?Sized>(tree: &mut S, start: u64, len: u64) -> Result<Hash, S::Error> {
    if len == 0 {
        return Ok(empty());
    }
    if len.is_power_of_two() {
        let level = len.trailing_zeros();
        assert!(start.is_multiple_of(len), "no part of a tree begins at {start} and has {len} leaves");
        return tree.subtree(level, start >> level);
    }
    let left = split(len);
    let right = part(tree, start + left, len - left)?;
    Ok(node(&part(tree, start, left)?, &right))
}

/// The root of the tree's first `size` leaves.
///
/// # Errors
/// A hash is not to be had.
pub fn root<S: Subtrees + ?Sized>(tree: &mut S, size: u64) -> Result<Hash, S::Error> {
    part(tree, 0, size)
}

/// Proves that leaf `index` is in the tree of the first `size` leaves (RFC 6962, section 2.1.1).
///
/// # Errors
/// A hash is not to be had.
///
/// # Panics
/// When it is not in it.
pub fn prove_inclusion<S: Subtrees + ?Sized>(
    tree: &mut S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, S::Error> {
    assert!(index < size, "entry {index} is not in a tree of {size}");
    let (mut start, mut len, mut path) = (0, size, Vec::new());
    while len > 1 {
        let left = split(len);
        if index < start + left {
            path.push(part(tree, start + left, len - left)?);
            len = left;
        } else {
            path.push(part(tree, start, left)?);
            (start, len) = (start + left, len - left);
        }
    }
    path.reverse();
    Ok(path)
}

/// Proves that the tree of the first `new` leaves continues that of the first `old` (RFC 6962, section
/// 2.1.2).
///
/// # Errors
/// A hash is not to be had.
///
/// # Panics
/// When `old` is greater than `new`.
pub fn prove_consistency<S: Subtrees + ?Sized>(
    tree: &mut S,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, S::Error> {
    assert!(old <= new, "a tree of {new} does not continue one of {old}");
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut len, mut path) = (0, new, Vec::new());
    // The part in which the older tree ends, as long as it does not end with it.
    while start + len != old {
        let left = split(len);
        if old <= start + left {
            path.push(part(tree, start + left, len - left)?);
            len = left;
        } else {
            path.push(part(tree, start, left)?);
            (start, len) = (start + left, len - left);
        }
    }
    if start > 0 {
        path.push(part(tree, start, len)?);
    }
    path.reverse();
    Ok(path)
}

/// A tree that is a list of leaf hashes.
impl Subtrees for [Hash] {
    type Error = std::convert::Infallible;

    fn subtree(&mut self, level: u32, number: u64) -> Result<Hash, Self::Error> {
        let (first, len) = ((number << level) as usize, 1_usize << level);
        Ok(crate::hash::root(&self[first..first + len]))
    }
}
