//! Measures Rhumb beside its peers, in one run.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rhumb_benches::report;
use rhumb_benches::systems::System;
use rhumb_benches::work::{Effort, remote_ask};

#[derive(Parser)]
#[command(about = "Rhumb beside its peers, measured in one run")]
struct Bench {
    /// Only this work.
    #[arg(long)]
    only: Option<String>,
    /// Only these systems.
    #[arg(long, value_enum, value_delimiter = ',')]
    systems: Vec<System>,
    /// Rounds, interleaved.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a round is.
    #[arg(long, default_value_t = 1_000)]
    millis: u64,
    /// Where results are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    #[command(subcommand)]
    side: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// One side of a measurement; started by this program itself.
    #[command(hide = true)]
    Peer { system: System, role: String, dir: PathBuf, address: String },
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    if let Some(Part::Peer { system, role, dir, address }) = bench.side {
        return match role.as_str() {
            "serve" => system.serve(&dir),
            _ => system.drive(&dir, &address),
        };
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let effort = Effort { rounds: bench.rounds, millis: bench.millis };
    for name in [remote_ask::NAME] {
        if bench.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let outcomes = runtime.block_on(remote_ask::run(effort, &bench.systems))?;
        report::json(&bench.out, name, &outcomes)?;
        print!("{}", report::table(&outcomes));
    }
    Ok(())
}
