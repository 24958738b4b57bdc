//! The known answers of Certificate Transparency.

use rhumb_verify::hash::{self, Hash};
use rhumb_verify::proof;
use serde_json::Value;

const VECTORS: &str = include_str!("../vectors/certificate-transparency.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).expect("JSON")
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a text");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn hash(text: &Value) -> Hash {
    Hash(unhex(text).try_into().expect("32 bytes"))
}

fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().expect("a list").iter().map(hash).collect()
}

fn leaves(vectors: &Value, count: u64) -> Vec<Hash> {
    let leaves = vectors["leaves"].as_array().expect("a list");
    leaves[..count as usize].iter().map(|leaf| hash::leaf(&unhex(leaf))).collect()
}

#[test]
fn every_known_inclusion_proof_is_generated_and_verified() {
    let vectors = vectors();
    let known = vectors["incl"].as_array().expect("a list");
    assert_eq!(known.len(), 36);
    for one in known {
        let (n, i) = (one["n"].as_u64().expect("a size"), one["i"].as_u64().expect("an index"));
        let (path, root, leaf) = (hashes(&one["p"]), hash(&one["root"]), hash(&one["leaf"]));
        let mut all = leaves(&vectors, n);
        assert_eq!((all[i as usize], hash::root(&all)), (leaf, root));
        assert_eq!(proof::prove_inclusion(&mut all[..], i, n), Ok(path.clone()));
        assert_eq!(proof::inclusion(&leaf, i, n, &path, &root), Ok(()));
    }
}

#[test]
fn every_known_consistency_proof_is_generated_and_verified() {
    let vectors = vectors();
    let known = vectors["cons"].as_array().expect("a list");
    assert_eq!(known.len(), 36);
    for one in known {
        let (m, n) = (one["m"].as_u64().expect("a size"), one["n"].as_u64().expect("a size"));
        let (path, old, new) = (hashes(&one["p"]), hash(&one["r1"]), hash(&one["r2"]));
        let mut all = leaves(&vectors, n);
        assert_eq!((hash::root(&all[..m as usize]), hash::root(&all)), (old, new));
        assert_eq!(proof::prove_consistency(&mut all[..], m, n), Ok(path.clone()));
        assert_eq!(proof::consistency((m, &old), (n, &new), &path), Ok(()));
    }
}
