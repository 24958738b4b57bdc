//! One proof for many entries, next to each other (a range) or not.
//!
//! A batch proof is the root's definition with holes: walking down the tree as RFC 6962 splits it, each part
//! that holds none of the entries is given as its hash, left to right, and the rest is computed. For one
//! entry it has the hashes of an inclusion proof, in the tree's order.
//!
//! * It never does: walk into a part that holds none of the entries, whatever size is claimed.
//! * Invariant: accepted only if every hash of the proof was used, and only those.

use std::collections::BTreeMap;

use crate::hash::{Hash, node, split};
use crate::proof::{NoProof, Subtrees, part};

/// The hashes that prove these entries (by number) to be in the tree of the first `size` leaves.
///
/// # Errors
/// A hash is not to be had.
///
/// # Panics
/// When one is not in it.
pub fn prove<S: Subtrees + ?Sized>(
    tree: &mut S,
    indices: impl IntoIterator<Item = u64>,
    size: u64,
) -> Result<Vec<Hash>, S::Error> {
    let mut wanted: Vec<u64> = indices.into_iter().collect();
    wanted.sort_unstable();
    wanted.dedup();
    if let Some(last) = wanted.last() {
        assert!(*last < size, "entry {last} is not in a tree of {size}");
    }
    let mut hashes = Vec::new();
    holes(tree, &wanted, 0, size, &mut hashes)?;
    Ok(hashes)
}

fn holes<S: Subtrees + ?Sized>(
    tree: &mut S,
    wanted: &[u64],
    start: u64,
    len: u64,
    out: &mut Vec<Hash>,
) -> Result<(), S::Error> {
    if wanted.is_empty() {
        out.push(part(tree, start, len)?);
        return Ok(());
    }
    if len == 1 {
        return Ok(());
    }
    let left = split(len);
    let (before, after) = wanted.split_at(wanted.partition_point(|index| *index < start + left));
    holes(tree, before, start, left, out)?;
    holes(tree, after, start + left, len - left, out)
}

/// Whether these entries, by number and leaf hash, are in the tree of this size and root.
///
/// # Errors
/// [`NoProof`].
pub fn verify(entries: &BTreeMap<u64, Hash>, size: u64, hashes: &[Hash], root: &Hash) -> Result<(), NoProof> {
    if let Some((&index, _)) = entries.last_key_value()
        && index >= size
    {
        return Err(NoProof::OutOfTree { index, size });
    }
    let entries: Vec<_> = entries.iter().map(|(index, leaf)| (*index, *leaf)).collect();
    let mut left = hashes.iter();
    let computed = fill(&entries, 0, size, &mut left).filter(|_| left.len() == 0);
    match computed {
        Some(computed) if computed == *root => Ok(()),
        Some(_) => Err(NoProof::Root),
        None => Err(NoProof::Length { got: hashes.len() }),
    }
}

fn fill(
    entries: &[(u64, Hash)],
    start: u64,
    len: u64,
    given: &mut std::slice::Iter<'_, Hash>,
) -> Option<Hash> {
    match entries {
        [] if len == 0 => Some(crate::hash::empty()),
        [] => given.next().copied(),
        [(_, leaf)] if len == 1 => Some(*leaf),
        _ => {
            let left = split(len);
            let (before, after) =
                entries.split_at(entries.partition_point(|(index, _)| *index < start + left));
            let before = fill(before, start, left, given)?;
            let after = fill(after, start + left, len - left, given)?;
            Some(node(&before, &after))
        }
    }
}
