//! The clock keeper: by cases, by properties, and in a simulated world that knows true time.

mod agreement;
mod cases;
mod foreign;
mod world;

use self::world::run;

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_CLOCK_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(150)
}

#[test]
fn true_time_is_within_the_bounds_and_who_may_be_too_far_off_is_frozen() {
    for seed in 0..seeds() {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_the_clock_is_caught() {
    use rhumb_core::canary::{self, Canary};

    for &bug in Canary::OF_THE_CLOCK {
        canary::let_out(Some(bug));
        let caught = (0..400).find_map(|seed| run(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
    }
}
