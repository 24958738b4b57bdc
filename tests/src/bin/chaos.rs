//! Tells stories of chaos, one seed after the other: a mesh of real processes under faults, and whether what its clients saw
//! was linearizable and the mesh well afterwards.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use rhumb_core::rng::Seed;
use rhumb_histories::file::read;
use rhumb_histories::linear::check;
use rhumb_tests::chaos::schedule::Kinds;
use rhumb_tests::chaos::{Options, places, run};
use tokio::time::Instant;

/// How long the checker may think about keys of a file that hang together.
const CHECK_WITHIN: Duration = Duration::from_secs(600);
/// So many stories that do not hold are enough.
const ENOUGH: usize = 5;

/// Tells stories of chaos, one seed after the other.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  chaos --minutes 30\n  chaos --seed 7 --stories 1\n  chaos --each --seconds 30 --stories 1\n  chaos --check target/chaos/7.jsonl\n\nA seed draws the same faults again, and the same intents of clients; what comes of them is real, and may differ."
)]
struct Arguments {
    /// For how long stories are begun.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// So many stories at most.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    stories: Option<u64>,
    /// Of the first story, those of the next ones follow; a fresh one unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds of faults in a story.
    #[arg(long, default_value_t = 75, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
    /// Every kind of fault in every story; else each story has kinds of its own, so that more mixtures come to be.
    #[arg(long)]
    each: bool,
    /// Where histories are written, and the nodes' data and logs of stories that do not hold are kept.
    #[arg(long, default_value = "target/chaos")]
    out: PathBuf,
    /// Checks a history that was written, and nothing else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minutes", "stories", "seed", "seconds", "each", "out"])]
    check: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.check {
        return checked(file);
    }
    // Who is interrupted drops the mesh, and with it its processes.
    tokio::select! {
        told = stories(&arguments) => told,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            println!("interrupted");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn checked(file: &Path) -> anyhow::Result<ExitCode> {
    let history = read(file)?;
    match check(&history, CHECK_WITHIN) {
        Ok(()) => println!("{} lines: linearizable", history.len()),
        Err(anomaly) => {
            println!("{} lines: {anomaly}", history.len());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn stories(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&arguments.out).with_context(|| arguments.out.display().to_string())?;
    let out = arguments.out.canonicalize()?;
    let first = arguments.seed.unwrap_or_else(|| Seed::from_entropy().rng().u64() >> 40);
    let (begun, ends) = (Instant::now(), Duration::from_secs(arguments.minutes * 60));
    let (mut told, mut failed) = (0, Vec::new());
    for seed in (first..).take(usize::try_from(arguments.stories.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)) {
        if told > 0 && begun.elapsed() + Duration::from_secs(arguments.seconds) > ends {
            break;
        }
        let holds = story(arguments, &out, seed).await?;
        told += 1;
        if !holds {
            failed.push(seed);
        }
        if failed.len() >= ENOUGH {
            break;
        }
    }
    println!("\n{told} stories from seed {first}, {} do not hold", failed.len());
    for seed in &failed {
        let (history, data) = places(&out, *seed);
        println!("seed {seed}: history {}, data and logs {}", history.display(), data.display());
        let each = if arguments.each { " --each" } else { "" };
        println!("  again: chaos --seed {seed} --stories 1 --seconds {}{each}", arguments.seconds);
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn story(arguments: &Arguments, out: &Path, seed: u64) -> anyhow::Result<bool> {
    let (history, data) = places(out, seed);
    ensure!(!data.exists(), "{} is there, of an earlier story: move it away, or give --out", data.display());
    println!("\nseed {seed}, {} seconds", arguments.seconds);
    let kinds = if arguments.each { Kinds::Each } else { Kinds::Drawn };
    let lasts = Duration::from_secs(arguments.seconds);
    let options = Options { data: data.clone(), history, lasts, seed, kinds };
    let begun = Instant::now();
    let report = run(&options, |line| println!("{:>7.1} s  {line}", begun.elapsed().as_secs_f64())).await?;
    println!("\nseed {seed}, history {}\n{report}", options.history.display());
    let holds = report.wrong.is_empty();
    if holds {
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
    }
    Ok(holds)
}
