//! The machines of the audit log: by cases, and in a simulated world of three nodes.

mod disk;
mod keys;
mod shell;
mod world;

use rhumb_core::canary::{self, Canary};
use rhumb_core::rng::Seed;
use rhumb_verify::hash::{self, Hash};

use self::world::{World, run};
use super::Edge;

fn leaf(number: u64) -> Hash {
    hash::leaf(&number.to_be_bytes())
}

#[test]
fn an_edge_has_the_root_of_all_leaves_and_gives_each_full_tile_once() {
    let (mut edge, mut leaves, mut tiles) = (Edge::default(), Vec::new(), Vec::new());
    for number in 0..70_000 {
        tiles.extend(edge.push(leaf(number)));
        leaves.push(leaf(number));
        let size = number + 1;
        if size.is_power_of_two() || size % 9_973 == 0 || (size % 256) < 2 && size < 2_000 {
            assert_eq!(edge.root(), hash::root(&leaves), "{size} leaves");
            assert_eq!(Edge::of(size, edge.levels().to_vec()), edge);
        }
    }
    assert_eq!(Edge::default().root(), hash::empty());
    let full: Vec<_> = rhumb_verify::tile::all(70_000).filter(|tile| tile.width == 256).collect();
    let mut given: Vec<_> = tiles.iter().map(|(tile, _)| *tile).collect();
    given.sort_unstable();
    assert_eq!(given, full);
    for (tile, hashes) in tiles.iter().filter(|(tile, _)| tile.level == 0) {
        let first = (tile.number * 256) as usize;
        assert_eq!(hashes[..], leaves[first..first + 256]);
    }
}

/// Seeds of each kind of run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_AUDIT_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(30)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_signed_is_undone() {
    for seed in 0..seeds() {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn every_known_bug_of_the_audit_log_is_caught() {
    for &bug in Canary::OF_THE_AUDIT_LOG {
        canary::let_out(Some(bug));
        let caught = (0..200).find_map(|seed| run(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
    }
}

#[test]
fn a_rewritten_history_is_caught_by_any_one_honest_witness() {
    for seed in 0..seeds() {
        for honest in 1..3 {
            let mut world = World::new(&Seed::new(seed));
            world.live(1_000);
            world.settle().unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
            world.rewrite(0);
            world.blind_all_but(honest);
            world.live(1_000);
            world
                .settle_with_a_liar()
                .unwrap_or_else(|broken| panic!("seed {seed}, n{honest} alone: {broken}"));
        }
    }
}
