//! Soaks a mesh of three regions, with faults, and says whether what its processes use stays flat.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rhumb_core::rng::Seed;
use rhumb_tests::cluster::program;
use rhumb_tests::soak::{Options, run};
use tokio::time::Instant;

/// Soaks a mesh of three regions, with faults.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  soak --minutes 30 --seed 7")]
struct Arguments {
    /// For how long.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Customers a second, over all regions.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// Of the faults and the customers; a fresh one unless given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the mesh is kept, a folder that is not there yet; a temporary one unless given.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir()?;
    let data = arguments.data.unwrap_or_else(|| temporary.path().join("soak"));
    let seed = arguments.seed.unwrap_or_else(|| Seed::from_entropy().rng().u64() >> 32);
    let lasts = Duration::from_secs(arguments.minutes * 60);
    println!("seed {seed}, {} minutes, {} customers a second", arguments.minutes, arguments.rate);
    let options = Options { program: program(), data, lasts, rate: arguments.rate, seed };
    let began = Instant::now();
    let report = run(&options, |line| println!("{:>7.1} s  {line}", began.elapsed().as_secs_f64())).await?;
    println!("\n{report}");
    Ok(if report.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
