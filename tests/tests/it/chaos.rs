//! A short story of chaos; `make chaos` tells long ones, of one seed after the other.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rhumb_core::rng::Seed;
use rhumb_histories::file::read;
use rhumb_histories::linear::check;
use rhumb_tests::chaos::clients::KEYS;
use rhumb_tests::chaos::mesh::Seen;
use rhumb_tests::chaos::schedule::{Fault, Kinds};
use rhumb_tests::chaos::{Options, places, run};
use rhumb_tests::cluster::{alone, eventually};
use rhumb_tests::powercut::dies_with_us;

use crate::scene::full;

#[test]
fn what_clients_see_under_chaos_is_linearizable_and_the_mesh_is_well_afterwards() {
    let seed = if full() { Seed::from_entropy().rng().u64() >> 40 } else { SEED };
    let lasts = Duration::from_secs(if full() { 75 } else { 34 });
    let _alone = alone();
    let mut folder = tempfile::tempdir().expect("a directory");
    let (history, data) = places(folder.path(), seed);
    let options = Options { data, history: history.clone(), lasts, seed, kinds: Kinds::Each };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let report =
        runtime.block_on(run(&options, |_| ())).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{report}");
    folder.disable_cleanup(!report.wrong.is_empty());
    assert!(report.wrong.is_empty(), "seed {seed}, {}\n{report}", history.display());
    // Each fault befell the mesh, and did what it is there for.
    assert!(Fault::ALL.iter().all(|fault| report.faults.contains_key(fault)), "{report}");
    for seen in [Seen::DiskLost, Seen::EndedForRoom, Seen::Froze] {
        assert!(report.seen.contains_key(&seen), "not once {seen:?}: {report}");
    }
    let answered = report.done("read") + report.done("write");
    assert!(answered >= 50, "{report}");
    // Several keys at one moment, and reads of every level.
    assert!(report.done("batch") >= 4 && report.done("scan") >= 10, "{report}");
    // In every way at rest, where all must be answered; and under chaos, where a slow machine sees quorums for moments only.
    let at_rest = u32::try_from(KEYS.len() * report.regions).expect("a few");
    let under_chaos = ["bounded", "eventual", "as of"]
        .map(|how| report.answered.get(how).map_or(0, |all| all.saturating_sub(at_rest)));
    assert!(under_chaos.iter().sum::<u32>() >= 9, "{under_chaos:?} were answered: {report}");
    assert!(under_chaos.iter().all(|times| *times >= 1), "{under_chaos:?} were answered: {report}");
    // The file is the history, for any checker.
    let told = read(&history).expect("lines");
    assert_eq!(told.len(), report.operations.values().map(|times| *times as usize).sum::<usize>());
    assert_eq!(check(&told, Duration::from_secs(60)), Ok(()));
}

/// Any will do: all kinds of faults are in all stories of this kind.
const SEED: u64 = 2;

#[test]
fn a_process_that_stands_still_does_not_outlive_who_started_it() {
    let [preload, (parent, _)] = dies_with_us();
    // A shell starts one, freezes it and is killed: as somebody kills a program under which nodes are frozen.
    let script = format!("{parent}=$$ {}='{}' sleep 600 & echo $!; wait", preload.0, preload.1);
    let mut shell =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("there is a shell");
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("a line");
    let pid = line.trim();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim().chars().next()
    };
    let command = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    eventually("it sleeps", || command().trim() == "sleep" && state() == Some('S'));
    let sent = Command::new("kill").args(["-s", "STOP", pid]).status().expect("kill runs");
    assert!(sent.success());
    eventually("it stands still", || state() == Some('T'));
    shell.kill().expect("it is there");
    shell.wait().expect("it ends");
    // Whoever inherits it may not have asked yet what became of it.
    eventually("it is gone", || matches!(state(), None | Some('Z' | 'X')));
}
