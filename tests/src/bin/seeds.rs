//! Runs seeds of the deterministic world: one to look at, a range, or fresh ones for a while.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rhumb_core::canary::Canary;
use rhumb_core::rng::Seed;
use rhumb_tests::sim::seeds::{self, Tally};
use rhumb_tests::sim::trace::Keep;
use rhumb_tests::sim::{report, run};

/// Runs seeds of the deterministic world.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  seeds --minutes 30\n  seeds --seed 17 --trace\n  seeds --seed 17 --canary no-sync"
)]
struct Arguments {
    /// Runs this seed, and prints its trace hash.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every event of the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Lets out a known bug.
    #[arg(long, value_parser = bug)]
    canary: Option<Canary>,
    /// Runs so many seeds from `--from`.
    #[arg(long, default_value_t = 2_000)]
    count: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Runs fresh seeds for so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Threads; all cores unless given.
    #[arg(long)]
    threads: Option<usize>,
}

fn bug(name: &str) -> Result<Canary, String> {
    let all: Vec<&str> = Canary::ALL.iter().map(|canary| canary.name()).collect();
    Canary::named(name).ok_or_else(|| format!("known are {}", all.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => one(seed, &arguments),
        None => many(&arguments),
    }
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let outcome = run(seed, arguments.canary, if arguments.trace { Keep::All } else { Keep::Nothing });
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: {} events, trace {}", outcome.events, outcome.hash);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

/// A tool for people may look at the clock; what it runs may not.
#[expect(clippy::disallowed_methods, reason = "the time that fresh seeds are run for is real time")]
fn many(arguments: &Arguments) -> ExitCode {
    let threads =
        arguments.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let limit = arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let first = if limit.is_some() { Seed::from_entropy().rng().u64() >> 16 } else { arguments.from };
    let kept = seeds::kept();
    let next = |drawn: u64| match kept.get(usize::try_from(drawn).unwrap_or(usize::MAX)) {
        Some(seed) => Some(*seed),
        None if limit.is_none() && drawn >= kept.len() as u64 + arguments.count => None,
        None => Some(first + drawn - kept.len() as u64),
    };
    let over = |tally: &Tally| {
        tally.failed.len() >= 10 || limit.is_some_and(|limit| Instant::now().duration_since(began) >= limit)
    };
    let tally = seeds::sweep(threads, arguments.canary, next, over);
    let seconds = Instant::now().duration_since(began).as_secs_f64();
    for outcome in &tally.failed {
        println!("{}", report(outcome.seed, arguments.canary));
    }
    println!(
        "{} seeds from {first}, {} events in {seconds:.1} s ({:.0} seeds a second on {threads} threads): {} broke a promise",
        tally.seeds,
        tally.events,
        tally.seeds as f64 / seconds,
        tally.failed.len()
    );
    for outcome in &tally.failed {
        let what = outcome.violation.as_ref().map(|violation| violation.invariant.name()).unwrap_or_default();
        println!("keep it: echo '{} # {what}' >> tests/seeds/escrow.txt", outcome.seed);
    }
    if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
