//! Ledgers in a range, in a simulated world: who writes them, what is acknowledged, and what becomes of it when the one
//! who did is lost.

mod world;

use self::world::Tally;

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_SUCCESSION_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[test]
fn no_unit_is_sold_twice_and_no_acknowledged_hold_is_lost_whoever_writes() {
    let mut sum = Tally::default();
    for seed in 0..seeds() {
        let tally = world::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        sum.add(&tally);
    }
    println!("{sum:?}");
    for count in [sum.lost, sum.successions, sum.deposed, sum.unsettled, sum.late, sum.settled_elsewhere] {
        assert!(count > 10, "the world has not tried it: {sum:?}");
    }
}

#[test]
fn one_seed_is_one_story() {
    assert_eq!(world::run(5), world::run(5));
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_succession_is_caught() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use rhumb_core::canary::{self, Canary};

    for &bug in Canary::OF_SUCCESSION {
        canary::let_out(Some(bug));
        let caught = (0..200).find_map(|seed| match catch_unwind(AssertUnwindSafe(|| world::run(seed))) {
            Ok(Ok(_)) => None,
            Ok(Err(broken)) => Some((seed, broken)),
            Err(_) => Some((seed, "an assertion of the machine".to_owned())),
        });
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(world::run(seed).err(), None, "seed {seed} is clean without {}", bug.name());
    }
}
