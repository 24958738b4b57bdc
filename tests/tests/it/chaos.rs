//! A short story of chaos; `make chaos` tells long ones, of one seed after the other.

use std::time::Duration;

use rhumb_core::rng::Seed;
use rhumb_tests::chaos::history::{check, read};
use rhumb_tests::chaos::{Options, places, run};
use rhumb_tests::cluster::alone;

use crate::scene::full;

#[test]
fn what_clients_see_under_chaos_is_linearizable_and_the_mesh_is_well_afterwards() {
    let seed = if full() { Seed::from_entropy().rng().u64() >> 40 } else { SEED };
    let lasts = Duration::from_secs(if full() { 75 } else { 10 });
    let _alone = alone();
    let mut folder = tempfile::tempdir().expect("a directory");
    let (history, data) = places(folder.path(), seed);
    let options = Options { data, history: history.clone(), lasts, seed };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report =
        runtime.block_on(run(&options, |_| ())).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{report}");
    folder.disable_cleanup(!report.wrong.is_empty());
    assert!(report.wrong.is_empty(), "seed {seed}, {}\n{report}", history.display());
    // Something happened.
    let (befell, answered) =
        (report.faults.values().sum::<u32>(), report.done("read") + report.done("write"));
    assert!(befell >= 2 && answered >= 50, "{report}");
    // The file is the history, for any checker.
    let told = read(&history).expect("lines");
    assert_eq!(told.len(), report.operations.values().map(|times| *times as usize).sum::<usize>());
    assert_eq!(check(&told, Duration::from_secs(60)), Ok(()));
}

/// Kills and freezes, splits and moves within ten seconds.
const SEED: u64 = 2;
