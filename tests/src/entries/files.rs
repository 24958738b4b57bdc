//! Files that people write, and those that auditors are sent.

use std::cell::OnceCell;
use std::fs;

use rhumb::load::requests;
use rhumb::settings::Source;
use rhumb_core::Region;
use rhumb_topology::policy::{OperatorKey, OperatorKeys, Policy, PolicySnapshot, SignedPolicy};
use rhumb_verify::batch_proof::BatchProof;
use rhumb_verify::growth::Growth;
use rhumb_verify::{Checkpoint, Key, Note, batch, hash, record};
use tempfile::TempDir;

fn regions() -> Vec<Region> {
    ["us-east", "eu-central"].map(|name| name.parse().expect("a region")).into()
}

/// A region's settings: the first part is `global.toml`, and what follows a line `----` is `us-east.toml`.
pub(super) fn settings(bytes: &[u8]) {
    thread_local! {
        static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
    }
    FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| tempfile::tempdir().expect("a folder")).path();
        let at = bytes.windows(5).position(|part| part == b"----\n");
        let (global, region) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + 5..]));
        fs::write(folder.join("global.toml"), global).expect("written");
        fs::write(folder.join("us-east.toml"), region).expect("written");
        let read = Source::new(folder, &regions()[0], None).with_variables([]).read();
        if let Err(faults) = read.check() {
            assert!(!faults.to_string().is_empty(), "what is refused is refused with reasons");
        }
    });
}

/// A policy file and its signature.
pub(super) fn policy(bytes: &[u8]) {
    let key = OperatorKey::from_seed([7; 32]);
    let keys: OperatorKeys = [key.public()].into_iter().collect();
    let text = String::from_utf8_lossy(bytes);
    let _ = SignedPolicy::verify(b"version = 1", &text, &keys);
    if let Ok(policy) = Policy::parse(&text) {
        let signed = SignedPolicy::verify(text.as_bytes(), &key.sign(text.as_bytes()), &keys);
        assert!(signed.is_ok(), "what was read can be signed");
        let snapshot = PolicySnapshot::compile(policy, regions().iter(), 1);
        assert!(!snapshot.describe().is_empty());
    }
    let _ = Policy::parse_for_signing(&text, 1);
}

/// A file of requests.
pub(super) fn requests(bytes: &[u8]) {
    let none = |region: &str| format!("there is no region {region}");
    if let Ok(listed) = requests::read(bytes, &regions(), none) {
        assert!(listed.is_sorted_by_key(|request| request.at), "times never fall");
    }
}

/// What an auditor is sent: notes, checkpoints, policies of witnesses, entries.
pub(super) fn audit(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = rhumb_verify::Policy::parse(&text);
    if let Ok(proof) = text.parse::<BatchProof>() {
        assert_eq!(proof.to_string().parse(), Ok(proof.clone()));
        let leaves = proof.entries.iter().map(|(index, entry)| (*index, hash::leaf(entry))).collect();
        let _ = batch::verify(&leaves, u64::MAX, &proof.hashes, &hash::empty());
    }
    if let Ok(proof) = text.parse::<Growth>() {
        assert_eq!(proof.to_string().parse(), Ok(proof));
    }
    let _ = text.lines().map(str::parse::<Key>).filter(Result::is_ok).count();
    let _ = text.parse::<Checkpoint>();
    if let Ok(note) = Note::parse(&text) {
        let _ = note.text.parse::<Checkpoint>();
    }
    if let Ok(entry) = record::Entry::decode(bytes) {
        assert_eq!(entry.encode(), bytes, "an entry has one form");
    }
}
