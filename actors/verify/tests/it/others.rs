//! Other people's verifiers take our proofs, and we take theirs; and whatever is changed is refused.

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use rhumb_verify::hash::{self, Hash};
use rhumb_verify::proof;
use sha2::Sha256;
use tlog_tiles::tlog;

use crate::leaves;

const SIZES: u64 = 70;

fn theirs(hash: &Hash) -> tlog::Hash {
    tlog::Hash(hash.0)
}

fn all_theirs(hashes: &[Hash]) -> Vec<tlog::Hash> {
    hashes.iter().map(theirs).collect()
}

#[test]
fn tlog_tiles_verifies_all_our_proofs() {
    for n in 1..=SIZES {
        let mut all = leaves(n);
        let root = hash::root(&all);
        for i in 0..n {
            let path = proof::prove_inclusion(&mut all[..], i, n).expect("in memory");
            tlog::check_record(&all_theirs(&path), n, theirs(&root), i, theirs(&all[i as usize]))
                .unwrap_or_else(|error| panic!("{i} of {n}: {error:?}"));
        }
        for m in 1..=n {
            let (old, path) = (hash::root(&all[..m as usize]), crate::continued(&mut all, m));
            tlog::check_tree(&all_theirs(&path), n, theirs(&root), m, theirs(&old))
                .unwrap_or_else(|error| panic!("{m} to {n}: {error:?}"));
        }
    }
}

#[test]
fn ct_merkle_has_our_roots_and_verifies_all_our_proofs() {
    let mut tree = MemoryBackedTree::<Sha256, String>::new();
    let root = |tree: &MemoryBackedTree<Sha256, String>| Hash((*tree.root().as_bytes()).into());
    let digest = |hash: &Hash| sha2::digest::Output::<Sha256>::from(hash.0);
    for n in 1..=SIZES {
        tree.push((n - 1).to_string());
        let mut all = leaves(n);
        assert_eq!(root(&tree), hash::root(&all));
        for i in 0..n {
            let path = proof::prove_inclusion(&mut all[..], i, n).expect("in memory");
            let digests: Vec<_> = path.iter().map(digest).collect();
            let path = InclusionProof::<Sha256>::from_digests(digests.iter());
            tree.root().verify_inclusion(&i.to_string(), i, &path).expect("theirs agrees");
        }
        for m in 1..n {
            let old = RootHash::<Sha256>::new(digest(&hash::root(&all[..m as usize])), m);
            let digests: Vec<_> = crate::continued(&mut all, m).iter().map(digest).collect();
            let path = ConsistencyProof::<Sha256>::from_digests(digests.iter());
            tree.root().verify_consistency(&old, &path).expect("theirs agrees");
        }
    }
}

#[test]
fn a_proof_of_anything_else_is_refused() {
    for n in 1..=24 {
        let mut all = leaves(n);
        let root = hash::root(&all);
        for i in 0..n {
            let (leaf, path) =
                (all[i as usize], proof::prove_inclusion(&mut all[..], i, n).expect("in memory"));
            assert_eq!(proof::inclusion(&leaf, i, n, &path, &root), Ok(()));
            for changed in changed(&path) {
                assert!(proof::inclusion(&leaf, i, n, &changed, &root).is_err(), "{i} of {n}");
            }
            for other in (0..n + 2).filter(|other| *other != i) {
                assert!(proof::inclusion(&leaf, other, n, &path, &root).is_err(), "{i} as {other} of {n}");
            }
            assert!(proof::inclusion(&flipped(leaf), i, n, &path, &root).is_err());
            assert!(proof::inclusion(&leaf, i, n, &path, &flipped(root)).is_err());
        }
        for m in 1..=n {
            let (old, path) = (hash::root(&all[..m as usize]), crate::continued(&mut all, m));
            let ours =
                |m, old: &Hash, n, new: &Hash, path: &[Hash]| proof::consistency((m, old), (n, new), path);
            assert_eq!(ours(m, &old, n, &root, &path), Ok(()));
            for changed in changed(&path) {
                assert!(ours(m, &old, n, &root, &changed).is_err(), "{m} to {n}");
            }
            assert!(ours(m, &flipped(old), n, &root, &path).is_err());
            assert!(ours(m, &old, n, &flipped(root), &path).is_err());
            assert!(ours(n, &old, m, &root, &path).is_err() || m == n);
        }
    }
}

#[test]
fn the_empty_tree_is_continued_by_every_other_and_by_nothing_that_is_wrong() {
    let (empty, one) = (hash::empty(), hash::root(&leaves(1)));
    let ours = |old, new, path: &[Hash]| proof::consistency(old, new, path).is_ok();
    assert!(ours((0, &empty), (0, &empty), &[]) && ours((0, &empty), (1, &one), &[]));
    assert!(!ours((0, &one), (1, &one), &[]), "an empty tree with another root");
    assert!(!ours((0, &empty), (0, &one), &[]) && !ours((0, &empty), (1, &one), &[one]));
    assert!(proof::inclusion(&one, 0, 0, &[], &one).is_err(), "nothing is in the empty tree");
}

/// Each hash flipped, one left out, one too many, two exchanged.
fn changed(path: &[Hash]) -> Vec<Vec<Hash>> {
    let mut all = vec![[path, &[hash::empty()]].concat()];
    for at in 0..path.len() {
        let mut one = path.to_vec();
        one[at] = flipped(one[at]);
        all.push(one);
        all.push([&path[..at], &path[at + 1..]].concat());
        if at > 0 {
            let mut one = path.to_vec();
            one.swap(at, at - 1);
            all.push(one);
        }
    }
    all
}

fn flipped(mut hash: Hash) -> Hash {
    hash.0[7] ^= 0x10;
    hash
}
