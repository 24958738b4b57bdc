//! A mesh under one fault after the other, for a while; `make soak` does it for as long as one likes.

use std::time::Duration;

use rhumb_core::rng::Seed;
use rhumb_tests::cluster::program;
use rhumb_tests::soak::{Options, run};

use crate::scene::full;

#[test]
fn a_mesh_sells_on_under_faults_and_its_processes_stay_as_they_are() {
    let seed = if full() { Seed::from_entropy().rng().u64() >> 32 } else { 7 };
    let lasts = Duration::from_secs(if full() { 600 } else { 45 });
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { program: program(), data: directory.path().join("soak"), lasts, rate: 20, seed };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report =
        runtime.block_on(run(&options, |_| ())).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{report}");
    assert!(report.wrong.is_empty(), "seed {seed}\n{report}");
    assert!(report.faults.len() >= 4, "too little befell it: {:?}", report.faults);
}
