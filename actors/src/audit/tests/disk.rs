//! What a log finds of itself on a disk, sound or not.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::effects::{Effects, Release};
use rhumb_core::{Barrier, HybridTime, Mono, Now};
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};
use rhumb_verify::checkpoint::nonce_line;
use rhumb_verify::hash::Hash;
use rhumb_verify::note::{Algorithm, Signer};
use rhumb_verify::record::Entry;
use rhumb_verify::{Key, Note, Policy};
use ring::signature::Ed25519KeyPair;

use crate::audit::log::{Effect, Log, LogSettings, MAX_NONCES, Token};
use crate::audit::read;
use crate::audit::rows::{self, Rows, Unsound};

const ENTRIES: u64 = 600;

/// Rows that a test can change.
#[derive(Clone)]
pub(super) struct Kept(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows for Kept {
    fn row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Unsound> {
        Ok(self.0.get(key).cloned())
    }
}

impl Kept {
    pub(super) fn flipped(&self, key: &[u8], byte: usize) -> Self {
        let mut kept = self.clone();
        kept.0.get_mut(key).expect("it is there")[byte] ^= 4;
        kept
    }

    pub(super) fn without(&self, key: &[u8]) -> Self {
        let mut kept = self.clone();
        kept.0.remove(key).expect("it was there");
        kept
    }

    pub(super) fn log(&self) -> Result<Log, Unsound> {
        let key = signer().key().clone();
        let policy = Policy::parse(&format!("log {key}\nquorum none\n")).expect("a policy");
        let settings = LogSettings { retention: Duration::from_secs(60), ..LogSettings::default() };
        Log::recover(key, policy, [], settings, self)
    }
}

pub(super) fn signer() -> Signer {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes");
    Signer::new("mesh.example/audit/n0", Algorithm::Ed25519, pair)
}

pub(super) fn now(ms: u64) -> Now {
    Now { hybrid: HybridTime::new(ms, 0), mono: Mono::millis(ms) }
}

/// A log as it runs on a disk without faults.
pub(super) struct Running {
    pub(super) log: Log,
    out: Effects<Batch, Effect>,
    barrier: Barrier<Effect>,
    store: Store<MemoryEngine>,
    published: Vec<String>,
}

impl Running {
    pub(super) fn new() -> Self {
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("an empty disk");
        let log = Kept(BTreeMap::new()).log().expect("an empty log");
        Self { log, out: Effects::default(), barrier: Barrier::default(), store, published: Vec::new() }
    }

    pub(super) fn append(&mut self, entries: u64) {
        for number in 0..entries {
            let commitment = Hash([number as u8; 32]);
            let entry = Entry { time: number << 16, action: "test.act".to_owned(), commitment };
            self.log.append(Token(number), &entry, b"sealed", &mut self.out);
            self.settle(now(0));
        }
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.log.tick(now(ms), &mut self.out);
        self.settle(now(ms));
    }

    /// Prunes what is old; gives how many bundles have gone.
    pub(super) fn prune(&mut self, ms: u64) -> u64 {
        let Some(prunable) = self.log.prunable(now(ms)) else { return 0 };
        let old = read::old(&self.kept(), &prunable).expect("it is sound");
        let pruned = self.log.prune(now(ms), &old, &mut self.out);
        self.settle(now(ms));
        pruned
    }

    fn settle(&mut self, now: Now) {
        while !self.out.is_empty() {
            let mut released = Vec::new();
            self.barrier.absorb(&mut self.out, |release| released.push(release));
            let (mut effects, mut last) = (Vec::new(), None);
            for release in released {
                match release {
                    Release::Persist(ticket, batch) => {
                        self.store.write(&batch).expect("the disk is sound");
                        last = Some(ticket);
                    }
                    Release::Perform(effect) => effects.push(effect),
                }
            }
            // Only now has the barrier all that waits for the last batch.
            if let Some(ticket) = last {
                self.barrier.durable(ticket, |effect| effects.push(effect));
            }
            for effect in effects {
                match effect {
                    Effect::Sign { text } => self.log.signed(now, signer().sign(&text, 0), &mut self.out),
                    Effect::Published { note } => self.published.push(note),
                    Effect::Appended { .. } | Effect::Pruned { .. } => {}
                    effect => panic!("{effect:?}"),
                }
            }
        }
    }

    pub(super) fn kept(&self) -> Kept {
        let mut rows = BTreeMap::new();
        let all = self.store.scan(Family::Audit, b"", |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            true
        });
        all.expect("the disk is sound");
        Kept(rows)
    }
}

/// A log of some entries, all of them under a signed checkpoint.
fn kept() -> Kept {
    let mut running = Running::new();
    running.append(ENTRIES);
    running.tick(1_000);
    running.kept()
}

#[test]
fn a_log_goes_on_where_it_was() {
    let kept = kept();
    let status = kept.log().expect("it is sound").status();
    assert_eq!((status.entries, status.signed, status.published), (ENTRIES, ENTRIES, ENTRIES));
    for number in 0..2 {
        assert_eq!(rows::check_tile(&kept, 0, number), Ok(()));
    }
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let kept = kept();
    for number in [0, 255, 300, 511] {
        let (changed, tile) = (kept.flipped(&rows::entry_key(number), 20), number / 256);
        let path = format!("tile/0/00{tile}");
        assert_eq!(rows::check_tile(&changed, 0, tile), Err(Unsound::OtherHash { path, number }));
    }
    let changed = kept.flipped(&rows::tile_key(0, 1), 32 * 9);
    let path = "tile/0/001".to_owned();
    assert_eq!(rows::check_tile(&changed, 0, 1), Err(Unsound::OtherHash { path, number: 256 + 9 }));
    // What is hashed again at a start shows at once: the last entries, the tiles, the checkpoint.
    let unsigned = Unsound::NotSigned { size: ENTRIES, have: ENTRIES };
    assert_eq!(changed.log().err(), Some(unsigned.clone()));
    assert_eq!(kept.flipped(&rows::entry_key(599), 20).log().err(), Some(unsigned));
    assert!(kept.flipped(rows::SIGNED, 40).log().is_err());
}

#[test]
fn a_tile_that_has_not_come_to_its_end_spares_work_and_is_checked() {
    let kept = kept();
    let (key, path) = (rows::tile_key(1, 0), "tile/1/000.p/2".to_owned());
    let (without, full) = (kept.without(&key), kept.without(&rows::tile_key(0, 1)));
    for (size, index) in [(ENTRIES, 0), (ENTRIES, 599), (513, 512), (512, 0), (300, 7), (256, 255), (255, 0)]
    {
        let proof = read::inclusion(&kept, index, size);
        assert_eq!(proof, read::inclusion(&without, index, size), "{index} of {size}");
        if size < 512 {
            assert_eq!(proof, read::inclusion(&full, index, size), "{index} of {size}");
        }
    }
    let changed = kept.flipped(&key, 33);
    let fault = Unsound::OtherHash { path, number: 1 }.to_string();
    let check = |rows: &Kept, bundle| read::check_bundle(rows, bundle).expect("the disk answers").1;
    assert_eq!(check(&changed, 2), [fault], "with the last bundle");
    assert_eq!((check(&kept, 2), check(&without, 2), check(&changed, 0)), (vec![], vec![], vec![]));
    assert!(changed.log().is_ok(), "what can be made anew stops nobody");
}

#[test]
fn what_is_missing_is_named() {
    let kept = kept();
    assert_eq!(kept.without(&rows::entry_key(590)).log().err(), Some(Unsound::Hole(590)));
    assert_eq!(
        kept.without(&rows::tile_key(0, 0)).log().err(),
        Some(Unsound::NoTile("tile/0/000".to_owned()))
    );
    assert_eq!(
        kept.without(rows::COUNT).log().err(),
        Some(Unsound::NotSigned { size: ENTRIES, have: 0 }),
        "a log that forgot its entries signs nothing"
    );
    let mut short = kept.clone();
    short.0.insert(rows::COUNT.to_vec(), vec![1, 2]);
    assert_eq!(short.log().err(), Some(Unsound::NoCount));
}

#[test]
fn a_demand_is_answered_by_the_next_checkpoint_and_only_so_many_are() {
    let mut running = Running::new();
    running.tick(0);
    assert_eq!(running.published.len(), 1, "an empty log has a checkpoint too");
    running.tick(2_000);
    assert_eq!(running.published.len(), 1, "and no second one without news");
    let nonce = |number: usize| vec![number as u8; 8];
    for number in 0..MAX_NONCES {
        assert!(running.log.demand(nonce(number)));
    }
    assert!(!running.log.demand(nonce(MAX_NONCES)), "it answers enough already");
    assert!(running.log.demand(nonce(3)), "the same demand takes no more room");
    running.tick(4_000);
    let fresh = running.published.last().expect("published");
    assert!((0..MAX_NONCES).all(|number| fresh.contains(&nonce_line(&nonce(number)))), "{fresh}");
    running.append(1);
    running.tick(6_000);
    assert!(!running.published.last().expect("published").contains("nonce"), "each is answered once");
}

#[test]
fn one_flipped_bit_in_a_cosignature_is_found_and_named() {
    let kept = kept();
    let note = String::from_utf8(kept.0[rows::SIGNED].clone()).expect("text");
    let text = Note::parse(&note).expect("a note").text;
    let cosigner = |name: &str, seed: u8| {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes");
        Signer::new(name, Algorithm::Cosignature, pair)
    };
    let (eu, us) = (cosigner("n1.eu.mesh.example/witness", 1), cosigner("n1.us.mesh.example/witness", 2));
    let published = format!("{note}{}{}", eu.sign(&text, 1_700_000_000), us.sign(&text, 1_700_000_001));
    let witnesses = [eu.key().clone(), us.key().clone()];
    let check = |published: &[u8], witnesses: &[Key]| {
        let mut changed = kept.clone();
        changed.0.insert(rows::PUBLISHED.to_vec(), published.to_vec());
        read::check_signed(&changed, signer().key(), witnesses).expect("the disk answers")
    };
    assert_eq!(check(published.as_bytes(), &witnesses), [""; 0]);
    for byte in note.len()..published.len() {
        for bit in 0..8 {
            let mut changed = published.clone().into_bytes();
            changed[byte] ^= 1 << bit;
            let faults = check(&changed, &witnesses);
            let named = faults.iter().any(|fault| fault.starts_with("the last published checkpoint: "));
            assert!(named, "byte {byte}, bit {bit}: {faults:?}");
        }
    }
    // Who replaced a key keeps the one before: what that cosigned is no fault.
    let replaced = cosigner("n1.us.mesh.example/witness", 3).key().clone();
    let anew = [witnesses[0].clone(), replaced.clone()];
    let faults = check(published.as_bytes(), &anew);
    assert!(faults[0].contains("of no key of n1.us.mesh.example/witness"), "{faults:?}");
    assert_eq!(check(published.as_bytes(), &[&anew[..], &witnesses[1..]].concat()), [""; 0]);
    let faults = check(published.as_bytes(), &witnesses[..1]);
    assert!(faults[0].contains("no log witness has that name"), "{faults:?}");
}
