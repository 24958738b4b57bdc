//! Batch and range proofs, and proofs out of tiles.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;
use rhumb_verify::batch_proof::BatchProof;
use rhumb_verify::growth::Growth;
use rhumb_verify::hash::{self, Hash};
use rhumb_verify::light::Disbelieved;
use rhumb_verify::tile::{Tile, Tiled, WIDTH, all, of_level};
use rhumb_verify::tlog_proof::Unproven;
use rhumb_verify::{Policy, batch, proof};

use crate::leaves;

fn chosen(all: &[Hash], indices: impl IntoIterator<Item = u64>) -> BTreeMap<u64, Hash> {
    indices.into_iter().map(|index| (index, all[index as usize])).collect()
}

#[test]
fn every_range_of_small_trees_is_proven_and_nothing_else() {
    for n in 1..=17 {
        let mut all = leaves(n);
        let root = hash::root(&all);
        for from in 0..n {
            for to in from..=n {
                let range = chosen(&all, from..to);
                let hashes = batch::prove(&mut all[..], from..to, n).expect("in memory");
                assert_eq!(batch::verify(&range, n, &hashes, &root), Ok(()), "{from}..{to} of {n}");
                let more = [&hashes[..], &[root]].concat();
                assert!(batch::verify(&range, n, &more, &root).is_err(), "one too many");
                if let Some((_, fewer)) = hashes.split_last() {
                    assert!(batch::verify(&range, n, fewer, &root).is_err(), "one too few");
                }
                if let Some(mut entry) = range.clone().last_entry() {
                    entry.get_mut().0[0] ^= 1;
                    let mut wrong = range.clone();
                    wrong.insert(*entry.key(), *entry.get());
                    assert!(batch::verify(&wrong, n, &hashes, &root).is_err(), "another entry");
                }
            }
        }
    }
}

#[test]
fn a_claim_of_an_absurd_size_is_refused_at_once() {
    let wanted = chosen(&leaves(1), [0]);
    let root = hash::empty();
    assert!(batch::verify(&wanted, u64::MAX, &[root; 3], &root).is_err());
    assert!(batch::verify(&wanted, 0, &[], &root).is_err());
    assert!(batch::verify(&BTreeMap::new(), 0, &[], &root).is_ok(), "nothing is in the empty tree");
}

/// A policy that asks for the log's signature alone.
fn policy() -> Policy {
    Policy::parse(&format!("log {}\nquorum none\n", crate::log().key())).expect("a policy")
}

#[test]
fn many_entries_are_proved_by_one_text_and_by_no_other() {
    let mut all = leaves(20);
    let entries: BTreeMap<u64, Vec<u8>> = [3, 4, 5, 17].map(|n| (n, n.to_string().into_bytes())).into();
    let hashes = batch::prove(&mut all[..], entries.keys().copied(), 20).expect("in memory");
    let proof = BatchProof { entries, hashes, checkpoint: crate::checkpoint(&all, &[], &[]) };
    let text = proof.to_string();
    assert_eq!(text.parse(), Ok(proof.clone()));
    assert_eq!(proof.verify(&policy()).expect("proved").checkpoint.size, 20);
    let lines: Vec<&str> = text.split('\n').collect();
    for (wrong, why) in [
        (text.replacen("/1", "/2", 1), "another form"),
        (text.replacen("3 ", "03 ", 1), "no number"),
        (text.replacen("3 ", "18 ", 1), "out of order"),
        (text.replacen("\n\n", "\n", 1), "no checkpoint"),
        (text.replacen(lines[1], &format!("{}\n{}", lines[1], lines[5]), 1), "an entry behind a hash"),
        (format!("rhumb batch-proof/1\n{}", &text[text.find(lines[5]).expect("a hash")..]), "no entries"),
    ] {
        assert!(wrong.parse::<BatchProof>().is_err(), "{why}: {wrong}");
    }
    for (wrong, why) in [
        (text.replacen("3 ", "2 ", 1), "another number"),
        (text.replacen(&format!("{}\n", lines[5]), "", 1), "a hash less"),
        (text.replacen(lines[1], &lines[1].replace("Mw==", "Mg=="), 1), "another entry"),
    ] {
        let verified = wrong.parse::<BatchProof>().expect(why).verify(&policy());
        assert!(matches!(verified, Err(Unproven::Inclusion(_))), "{why}: {verified:?}");
    }
}

#[test]
fn that_a_log_grew_is_proved_by_one_text_and_by_no_other() {
    let mut all = leaves(20);
    let older = crate::checkpoint(&all[..7], &[], &[]);
    let path = crate::continued(&mut all, 7);
    let proof = Growth { old: 7, proof: path, checkpoint: crate::checkpoint(&all, &[], &[]) };
    let text = proof.to_string();
    assert_eq!(text.parse(), Ok(proof.clone()));
    assert_eq!(proof.verify(older.clone(), &policy()).expect("it grew").checkpoint.size, 20);
    let mut others = leaves(7);
    others[2] = hash::leaf(b"another");
    let rewritten = crate::checkpoint(&others, &[], &[]);
    let refused = proof.verify(rewritten, &policy());
    assert!(matches!(refused, Err(Disbelieved::NotContinued { .. })), "{refused:?}");
    for wrong in
        [text.replacen("old 7", "old -7", 1), text.replacen("old 7", "7", 1), text.replacen("\n\n", "\n", 1)]
    {
        assert!(wrong.parse::<Growth>().is_err(), "{wrong}");
    }
    let short = text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| format!("{line}\n"));
    let refused = short.collect::<String>().parse::<Growth>().expect("a form").verify(older, &policy());
    assert!(matches!(refused, Err(Disbelieved::NotContinued { .. })), "{refused:?}");
}

proptest! {
    #[test]
    fn any_batch_of_any_tree_is_proven(
        n in 1_u64..600, picks in proptest::collection::btree_set(any::<u64>(), 0..12),
    ) {
        let mut all = leaves(n);
        let picks: Vec<_> = picks.into_iter().map(|pick| pick % n).collect();
        let hashes = batch::prove(&mut all[..], picks.iter().copied(), n).expect("in memory");
        prop_assert_eq!(batch::verify(&chosen(&all, picks), n, &hashes, &hash::root(&all)), Ok(()));
    }
}

/// All tiles of a tree of these leaves.
fn tiles(leaves: &[Hash]) -> BTreeMap<Tile, Vec<Hash>> {
    let (size, mut level) = (leaves.len() as u64, leaves.to_vec());
    let mut tiles = BTreeMap::new();
    for number in 0..8 {
        for tile in all(size).filter(|tile| tile.level == number) {
            let first = (tile.number * WIDTH) as usize;
            tiles.insert(tile, level[first..first + usize::from(tile.width)].to_vec());
        }
        level = level.chunks_exact(WIDTH as usize).map(hash::root).collect();
        assert_eq!(level.len() as u64, of_level(number + 1, size));
    }
    tiles
}

#[test]
fn proofs_out_of_tiles_are_those_of_the_tree() {
    for n in [1, 2, 255, 256, 257, 511, 512, 700, 65_536, 66_000] {
        let mut all = leaves(n);
        let stored = tiles(&all);
        let mut fetched = 0;
        let mut tiled = Tiled::new(n, |tile| {
            fetched += 1;
            Ok::<_, Infallible>(stored[&tile].clone())
        });
        assert_eq!(proof::root(&mut tiled, n), Ok(hash::root(&all)));
        for i in [0, 1, n / 3, n / 2, n - 1] {
            let i = i.min(n - 1);
            assert_eq!(
                proof::prove_inclusion(&mut tiled, i, n),
                proof::prove_inclusion(&mut all[..], i, n),
                "{i} of {n}"
            );
            let old = i + 1;
            assert_eq!(proof::prove_consistency(&mut tiled, old, n), Ok(crate::continued(&mut all, old)));
        }
        assert!(fetched <= 200, "{fetched} tiles for ten proofs in a tree of {n}");
    }
}
