//! Measures Rhumb beside its peers, in one run.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rhumb_benches::holds::Holder;
use rhumb_benches::systems::System;
use rhumb_benches::work::inside::Within;
use rhumb_benches::work::{Effort, durable_hold, idle_node, inside, remote_ask, tracing};
use rhumb_benches::{figures, paced, report};

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
    /// What is measured within one process.
    #[command(hide = true)]
    Probe { system: Within },
    /// One side of a durable hold.
    #[command(hide = true)]
    Hold { holder: Holder, dir: PathBuf, address: String },
    /// Asks at a fixed rate.
    #[command(hide = true)]
    Pace { dir: PathBuf },
    /// Takes spans.
    #[command(hide = true)]
    Collector { dir: PathBuf },
}

impl Part {
    fn run(self) -> anyhow::Result<()> {
        let many = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
        match self {
            Self::Peer { system, role, dir, address } => match role.as_str() {
                "serve" => system.serve(&dir),
                _ => system.drive(&dir, &address),
            },
            Self::Probe { system } => system.probe(),
            Self::Hold { holder, dir, address } => holder.run(&dir, &address),
            Self::Pace { dir } => many()?.block_on(paced::drive(&dir)),
            Self::Collector { .. } => many()?.block_on(paced::collect()),
        }
    }
}

/// Works whose results have figures of their own.
const WITH_FIGURES: [&str; 7] =
    [durable_hold::NAME, "local", "neighbour", "idle-actors", tracing::NAME, "hybrid-time", idle_node::NAME];

async fn with_figures(name: &str, effort: Effort) -> anyhow::Result<Vec<figures::Row>> {
    match name {
        durable_hold::NAME => durable_hold::run(effort).await,
        "local" => inside::local(effort).await,
        "neighbour" => inside::neighbour(effort).await,
        "idle-actors" => inside::idle_actors(effort).await,
        tracing::NAME => tracing::run(effort).await,
        "hybrid-time" => inside::hybrid_time(effort).await,
        _ => idle_node::run(effort).await,
    }
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    if let Some(part) = bench.side {
        return part.run();
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
    for name in WITH_FIGURES {
        if bench.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let rows = runtime.block_on(with_figures(name, effort))?;
        figures::json(&bench.out, name, &rows)?;
        print!("{}", figures::table(&rows));
    }
    Ok(())
}
