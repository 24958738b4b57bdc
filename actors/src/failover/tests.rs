//! Failover: by cases, and in a simulated world.

mod cases;
mod world;

use self::world::Tally;

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_FAILOVER_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(300)
}

#[test]
fn never_two_act_as_one_node_and_who_comes_back_acts_again() {
    let mut sum = Tally::default();
    for seed in 0..seeds() {
        let tally = world::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        sum.fences += tally.fences;
        sum.aways += tally.aways;
        sum.returns += tally.returns;
        sum.suspicions += tally.suspicions;
        sum.overtaken += tally.overtaken;
        sum.expired += tally.expired;
        sum.handled += tally.handled;
        sum.moved += tally.moved;
        sum.redirected += tally.redirected;
        sum.refused += tally.refused;
        sum.ended += tally.ended;
    }
    println!("{sum:?}");
    let Tally { fences, aways, returns, suspicions, overtaken, expired, .. } = sum;
    let Tally { handled, moved, redirected, refused, ended, .. } = sum;
    let of_actors = [handled, moved, redirected, refused, ended];
    for count in [fences, aways, returns, suspicions, overtaken, expired].into_iter().chain(of_actors) {
        assert!(count > 10, "the world has not tried it: {sum:?}");
    }
}

#[test]
fn one_seed_is_one_story() {
    assert_eq!(world::run(3), world::run(3));
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_failover_is_caught() {
    use rhumb_core::canary::{self, Canary};

    for &bug in Canary::OF_FAILOVER {
        canary::let_out(Some(bug));
        let caught = (0..400).find_map(|seed| world::run(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(world::run(seed).err(), None, "seed {seed} is clean without {}", bug.name());
    }
}
