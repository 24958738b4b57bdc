//! The machines of the audit log: by cases, and in a simulated world of three nodes.

mod disk;
mod keys;
mod pruned;
mod shell;
mod world;

use rhumb_core::canary::{self, Canary};
use rhumb_core::rng::Seed;
use rhumb_verify::hash::{self, Hash};

use rhumb_verify::export::Kept;
use rhumb_verify::tile::{WIDTH, all};

use self::world::{World, run, run_pruning};
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

#[test]
fn what_is_left_of_pruned_tiles_and_the_entries_behind_them_have_the_root_of_all() {
    let entries: Vec<_> = (0..70_000_u64).map(u64::to_be_bytes).collect();
    let whole = Kept::of(0, &[], &entries).expect("a log");
    let mut edge = Edge::default();
    entries.iter().for_each(|entry| drop(edge.push(hash::leaf(entry))));
    assert_eq!(whole.root(), edge.root());
    let (mut left, mut ended) = (Edge::default(), 0);
    for bundle in 0..273 {
        let leaves: Vec<_> = (bundle * WIDTH..(bundle + 1) * WIDTH).map(leaf).collect();
        ended += left.push_tile(hash::root(&leaves)).len();
        let mark = left.size();
        assert_eq!(Edge::left_of(mark, &left.levels().concat()).as_ref(), Some(&left));
        if bundle % 50 == 0 || (254..258).contains(&bundle) || bundle == 272 {
            let kept = Kept::of(mark, left.levels(), &entries[mark as usize..]).expect("a pruned log");
            assert_eq!(kept.root(), edge.root(), "from {mark} on");
            assert_eq!(kept.root_of(mark), Some(left.root()));
            assert_eq!(kept.root_of(mark - 1), None);
            let there: Vec<_> = kept.tiles().collect();
            let ends =
                |tile: &rhumb_verify::tile::Tile| (tile.number + 1) << (8 * (u32::from(tile.level) + 1));
            let asked: Vec<_> = all(70_000).filter(|tile| ends(tile) > mark).collect();
            assert_eq!(there, asked, "as the specification has it");
            assert!(there.iter().all(|tile| kept.bytes(*tile) == whole.bytes(*tile)));
        }
    }
    assert_eq!(ended, 1, "of the tiles above, one has ended");
    assert_eq!(Edge::left_of(300, &[]), None, "no mark lies within a bundle");
    assert_eq!(Edge::left_of(512, &[leaf(0)]), None, "two bundles have two hashes");
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
fn what_is_pruned_is_old_and_cosigned_and_what_is_kept_stays_provable() {
    for seed in 0..seeds() {
        run_pruning(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn every_known_bug_of_pruning_is_caught() {
    for &bug in Canary::OF_PRUNING {
        canary::let_out(Some(bug));
        let caught = (0..50).find_map(|seed| run_pruning(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run_pruning(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
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
