//! Ranges: by cases, and in a simulated world of several replicas.

mod cases;
mod collecting;
mod splitting;
mod tokens;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::Tally;

/// The first promise of a seed's story that is broken. An assertion of a machine is one too.
fn run(seed: u64) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| world::run(seed))).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        Err(words.or_else(|| panic.downcast_ref::<&str>().map(|&words| words.to_owned())).unwrap_or_default())
    })
}

/// Seeds of a run. `make check-full` sets more.
fn seeds() -> u64 {
    std::env::var("RHUMB_RANGE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

/// Seeds that once failed.
const KEPT: [u64; 3] = [18, 275, 668];

#[test]
fn reads_are_as_fresh_as_they_say_and_what_is_closed_stays_as_it_was() {
    let mut least = [usize::MAX; 4];
    let mut sums = [0; 8];
    for seed in KEPT.into_iter().chain(0..seeds()) {
        let tally = run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        let Tally { leases, writes, strong, snapshots, splits, crashes, given_up, collected, .. } = tally;
        let Tally { too_old, batches, not_written, scans, .. } = tally;
        for (least, now) in least.iter_mut().zip([leases, writes, strong, snapshots]) {
            *least = now.min(*least);
        }
        for (sum, now) in
            sums.iter_mut().zip([splits, crashes, given_up, collected, too_old, batches, not_written, scans])
        {
            *sum += now;
        }
    }
    println!(
        "each at least {least:?} leases, writes, strong reads, snapshots; in all {sums:?} splits, crashes, given up, \
         collected, too old, batches, batches that were not written, scans"
    );
    assert!(
        least.iter().all(|count| *count > 0) && sums.iter().all(|count| *count > 10),
        "{least:?} {sums:?}"
    );
}

#[cfg(feature = "canaries")]
#[test]
fn every_known_bug_of_ranges_is_caught() {
    use rhumb_core::canary::{self, Canary};

    for &bug in Canary::OF_THE_RANGES {
        canary::let_out(Some(bug));
        let caught = (0..400).find_map(|seed| run(seed).err().map(|broken| (seed, broken)));
        canary::let_out(None);
        let (seed, broken) = caught.unwrap_or_else(|| panic!("{} was not caught", bug.name()));
        println!("{:<24} seed {seed:>3}: {broken}", bug.name());
        assert_eq!(run(seed).err(), None, "seed {seed} is clean without {}", bug.name());
    }
}
