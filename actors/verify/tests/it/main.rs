//! What others' vectors, crates and examples say of this one.

mod batches;
mod exports;
mod followers;
mod formats;
mod known;
mod others;
mod policies;
mod statements;

use rhumb_verify::hash::{self, Hash};
use rhumb_verify::note::{Algorithm, Note, Signer};
use rhumb_verify::{Checkpoint, proof};
use ring::signature::Ed25519KeyPair;

/// The leaf hashes of the entries "0", "1", …
fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| hash::leaf(n.to_string().as_bytes())).collect()
}

/// A signer whose key follows from its name.
fn signer(name: &str, algorithm: Algorithm) -> Signer {
    let seed = hash::sha256(&[name.as_bytes()]).0;
    Signer::new(name, algorithm, Ed25519KeyPair::from_seed_unchecked(&seed).expect("32 bytes"))
}

fn log() -> Signer {
    signer("mesh.example/eu", Algorithm::Ed25519)
}

fn witness(name: &str) -> Signer {
    signer(name, Algorithm::Cosignature)
}

/// The checkpoint of a log of these leaves, signed by it and cosigned by those.
fn checkpoint(leaves: &[Hash], witnesses: &[&str], extensions: &[String]) -> Note {
    let log = log();
    let checkpoint = Checkpoint {
        origin: log.key().name.clone(),
        size: leaves.len() as u64,
        root: hash::root(leaves),
        extensions: extensions.to_vec(),
    };
    let text = checkpoint.to_string();
    let mut signatures = vec![log.sign(&text, 0)];
    signatures.extend(witnesses.iter().map(|name| witness(name).sign(&text, 1_700_000_000)));
    Note { text, signatures }
}

/// The proof that a log of these leaves continues what it was when it had so many.
fn continued(leaves: &mut [Hash], old: u64) -> Vec<Hash> {
    let size = leaves.len() as u64;
    proof::prove_consistency(leaves, old, size).expect("in memory")
}
