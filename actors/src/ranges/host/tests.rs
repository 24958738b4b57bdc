//! A node's replicas, with real openraft under them, in a simulated world.

mod behind;
mod catalog;
mod clients;
mod comparing;
mod doubts;
mod faults;
mod feeding;
mod leads;
mod lifecycle;
mod net;
mod pressed;
mod replay;
mod rows;
mod sim;
mod versions;
mod watch;
mod world;

use self::replay::Story;
use self::world::Tally;

/// A seed's story.
fn story(seed: u64) -> Story {
    Story::of(|telling| world::run(seed, telling))
}

/// What there was of it, or the first promise that is broken. An assertion of a machine is one too.
fn run(seed: u64) -> Result<Tally, String> {
    story(seed).ended
}

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_CONSENSUS_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(24)
}

#[test]
fn reads_and_writes_are_linearizable_while_nodes_crash_and_are_cut_off() {
    let Some(all) = replay::all("consensus", seeds(), story) else { return };
    println!("{all:?}");
    assert!(all.crashes > 10 && all.cuts > 10 && all.leases > seeds() as usize, "{all:?}");
    assert!(all.still.0 > 20 && all.still.1 > 5 && all.crowded_out > 10 && all.full > 5, "{all:?}");
    assert!(all.disks_stood > 5, "{all:?}");
    assert!(all.not_taken > 10 && all.homes > 2, "{all:?}");
    assert!(all.snapshots > 10 && all.splits > 0 && all.moves > 0 && all.cleared > 0, "{all:?}");
    assert!(all.collected > 1_000 && all.rested > 10, "{all:?}");
    assert!(all.compared > 50 && all.refused_on_the_way > 0, "{all:?}");
    assert!(all.spoiled > 4 && all.rebuilt > 4, "{all:?}");
    assert!(all.reseated > 10 && all.disks > 0, "{all:?}");
    assert!(all.fed.0 > 50 && all.fed.1 > 0, "{all:?}");
    // Without the feature there is no next build to upgrade to.
    let next = cfg!(feature = "canaries");
    assert!(!next || (all.upgraded > 10 && all.refused_builds > 0), "{all:?}");
    assert!(all.by_themselves.0 > 0 && all.by_themselves.1 > 0, "{all:?}");
    assert!(
        all.written > 500 && all.read > 500 && all.refused > 0 && all.pressed > 0 && all.unknown > 0,
        "{all:?}"
    );
    assert!(all.batches > 100 && all.scans > 100 && all.own > 1_000, "{all:?}");
    assert!(all.weaker.0 > 50 && all.weaker.1 > 50 && all.weaker.2 > 50, "{all:?}");
}

#[test]
fn one_seed_is_one_story() {
    for seed in 0..3 {
        let (first, second) = (story(seed), story(seed));
        assert_eq!(first.ended, second.ended, "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
    }
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_consensus_is_caught() {
    use rhumb_core::canary::Canary;

    // Those of reads are of the ranges' own world, and are seen with real openraft, too.
    let of_reads = [Canary::TokenIgnored, Canary::ClosedBeforeApply, Canary::AsOfClosed];
    for &bug in Canary::OF_CONSENSUS.iter().chain(&of_reads) {
        let (seed, broken) = caught(bug).unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
    }
}

/// Bugs that few stories show, and where they did when that was last looked for: looked at first, to save minutes.
#[cfg(feature = "canaries")]
const SHOWN_AT: [(rhumb_core::canary::Canary, u64); 5] = {
    use rhumb_core::canary::Canary;
    [
        (Canary::VoteNotSynced, 228),
        (Canary::LeaseWithoutVote, 311),
        (Canary::RestsForGood, 167),
        (Canary::LateBound, 89),
        (Canary::CollectedComesBack, 80),
    ]
};

/// What a seed's story breaks with a bug. One that breaks a promise without it, too, shows nothing of it.
#[cfg(feature = "canaries")]
fn breaks(seed: u64, bug: rhumb_core::canary::Canary) -> Option<String> {
    rhumb_core::canary::let_out(Some(bug));
    let broken = run(seed).err().filter(|broken| !broken.starts_with(world::SPOILED));
    rhumb_core::canary::let_out(None);
    broken.filter(|_| run(seed).is_ok())
}

/// A seed whose story breaks a promise with this bug: canaries are out in one thread, and stories of two run side by side.
#[cfg(feature = "canaries")]
fn caught(bug: rhumb_core::canary::Canary) -> Option<(u64, String)> {
    use std::sync::atomic::{AtomicBool, Ordering};

    let known = SHOWN_AT.iter().find(|(of, _)| *of == bug);
    if let Some(caught) = known.and_then(|(_, seed)| Some((*seed, breaks(*seed, bug)?))) {
        return Some(caught);
    }
    let found = AtomicBool::new(false);
    let looks = |first: u64| {
        let mut seeds = (first..800).step_by(2).take_while(|_| !found.load(Ordering::Relaxed));
        let caught = seeds.find_map(|seed| Some((seed, breaks(seed, bug)?)));
        found.fetch_or(caught.is_some(), Ordering::Relaxed);
        caught
    };
    std::thread::scope(|scope| {
        let looking: Vec<_> = (0..2)
            .map(|first| {
                scope.spawn({
                    let looks = &looks;
                    move || looks(first)
                })
            })
            .collect();
        looking.into_iter().filter_map(|looks| looks.join().expect("it does not panic")).min()
    })
}
