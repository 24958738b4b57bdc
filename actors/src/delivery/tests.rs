//! The machines of delivery: by cases, and in a simulated world of three nodes.

mod cases;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rhumb_core::canary::{self, Canary};

use self::world::run;

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_DELIVERY_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

#[test]
fn what_is_taken_has_its_effect_once_and_in_order_and_a_key_has_one_answer() {
    for seed in 0..seeds() {
        run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}

#[test]
fn every_known_bug_of_delivery_is_caught() {
    for &bug in Canary::OF_DELIVERY {
        canary::let_out(Some(bug));
        // An assertion of a machine is an end of it as well.
        let told = |seed| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(told) => told,
            Err(_) => Err("a machine panicked".to_owned()),
        };
        let caught = (0..200).find_map(|seed| told(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<28} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run(seed), Ok(()), "seed {seed} is clean without {}", bug.name());
    }
}
