//! Measures Rhumb beside its peers, in one run.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;
use rhumb_benches::conditions::Conditions;
use rhumb_benches::holds::Holder;
use rhumb_benches::paced;
use rhumb_benches::ranges::Keeper;
use rhumb_benches::report::{self, Written};
use rhumb_benches::sample::Outcome;
use rhumb_benches::systems::System;
use rhumb_benches::work::inside::Within;
use rhumb_benches::work::{self, Effort, Scope, Work};

/// As the program `rhumb` has it, and so has every peer that runs within this one.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ROUNDS: usize = 5;
const MILLIS: u64 = 1_000;

#[derive(Parser)]
#[command(about = "Rhumb beside its peers, measured in one run")]
struct Bench {
    /// Only this work; by default all.
    #[arg(long)]
    only: Option<String>,
    /// Only these systems.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(work::system_names()))]
    systems: Vec<String>,
    /// Rounds, interleaved.
    #[arg(long, default_value_t = ROUNDS)]
    rounds: usize,
    /// How long a round is.
    #[arg(long, default_value_t = MILLIS)]
    millis: u64,
    /// What share of an amount is measured, where a work has one: a gigabyte to recover, a thousand idle ranges.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// One short round of everything: whether it runs, not how fast.
    #[arg(long, conflicts_with_all = ["rounds", "millis"])]
    quick: bool,
    /// Where results are written.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// Puts all results of the output folder into this document, between its marks, and the picture beside it.
    #[arg(long, value_name = "DOCUMENT")]
    write_docs: Option<PathBuf>,
    /// Measures nothing: only reports on the results of the output folder.
    #[arg(long)]
    report: bool,
    #[command(subcommand)]
    side: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// One side of a measurement; started by this program itself.
    #[command(hide = true)]
    Peer { system: System, role: String, dir: PathBuf, address: String },
    /// What is measured within one process; started by this program itself.
    #[command(hide = true)]
    Probe { system: Within },
    /// One side of a durable hold; started by this program itself.
    #[command(hide = true)]
    Hold { holder: Holder, dir: PathBuf, address: String },
    /// A client of replicated keys and values; started by this program itself.
    #[command(hide = true)]
    Keys { keeper: Keeper, dir: PathBuf, targets: String },
    /// Asks at a fixed rate; started by this program itself.
    #[command(hide = true)]
    Pace { dir: PathBuf },
    /// Takes spans; started by this program itself.
    #[command(hide = true)]
    Collector,
}

impl Part {
    fn run(&self) -> anyhow::Result<()> {
        let many = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
        match self {
            Self::Peer { system, role, dir, address } => match role.as_str() {
                "serve" => system.serve(dir),
                _ => system.drive(dir, address),
            },
            Self::Probe { system } => system.probe(),
            Self::Hold { holder, dir, address } => holder.run(dir, address),
            Self::Keys { keeper, dir, targets } => keeper.drive(dir, targets),
            Self::Pace { dir } => many()?.block_on(paced::drive(dir)),
            Self::Collector => many()?.block_on(paced::collect()),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let bench = Bench::parse();
    if let Some(part) = &bench.side {
        // Two providers are linked, so that a system which takes the process's own must be told which.
        rustls::crypto::ring::default_provider().install_default().ok();
        return part.run();
    }
    let works: Vec<_> =
        work::ALL.iter().filter(|work| bench.only.as_ref().is_none_or(|only| only == work.name)).collect();
    let names = || work::ALL.iter().map(|work| work.name).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(!works.is_empty(), "there is no such work; there are: {}", names());
    let mut failed = Vec::new();
    for work in works.into_iter().filter(|_| !bench.report) {
        if let Err(error) = bench.measure(work) {
            eprintln!("{error:#}");
            failed.push(work.name);
        }
    }
    bench.write()?;
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

impl Bench {
    fn effort(&self) -> Effort {
        match self.quick {
            true => Effort { rounds: 1, millis: 300, scale: self.scale },
            false => Effort { rounds: self.rounds, millis: self.millis, scale: self.scale },
        }
    }

    /// Measures a work, writes its results, and shows them.
    fn measure(&self, work: &Work) -> anyhow::Result<()> {
        let conditions = Conditions::here(self.command(work));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let scope = Scope { effort: self.effort(), only: self.systems.clone() };
        let outcomes = runtime.block_on((work.run)(scope)).with_context(|| work.name)?;
        report::json(&self.out, work.name, &outcomes, &conditions)?;
        say(&format!("{conditions}\n"))?;
        say(&report::table(&outcomes))?;
        for line in report::made_of(&outcomes) {
            say(&format!("{line}\n"))?;
        }
        for (what, sentence) in report::floors::sentences(&outcomes) {
            say(&format!("{}: {sentence}\n", what.to_lowercase()))?;
        }
        for sentence in report::bars::sentences(&outcomes) {
            say(&format!("bar: {sentence}\n"))?;
        }
        for sentence in report::bars::beside(&outcomes) {
            say(&format!("beside the bars: {sentence}\n"))?;
        }
        Ok(())
    }

    /// What measures the same again.
    fn command(&self, work: &Work) -> String {
        let Effort { rounds, millis, scale } = self.effort();
        let mut command = format!("make bench ONLY={}", work.name);
        if rounds != ROUNDS {
            command += &format!(" ROUNDS={rounds}");
        }
        if millis != MILLIS {
            command += &format!(" MILLIS={millis}");
        }
        if !self.systems.is_empty() {
            command += &format!(" SYSTEMS={}", self.systems.join(","));
        }
        if scale != 1.0 {
            command += &format!(" BENCHFLAGS='--scale {scale}'");
        }
        command
    }

    /// Draws the picture of all results there are, and fills the document.
    fn write(&self) -> anyhow::Result<()> {
        let results = work::ALL
            .iter()
            .map(|work| Ok((work, report::read(&self.out, work.name)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let picture = picture(&results);
        std::fs::create_dir_all(&self.out).with_context(|| self.out.display().to_string())?;
        write(&self.out.join("performance.svg"), &picture)?;
        let Some(document) = &self.write_docs else { return Ok(()) };
        let text = std::fs::read_to_string(document).with_context(|| document.display().to_string())?;
        let tables: Vec<_> = results.into_iter().map(|(work, results)| (work.name, results)).collect();
        write(document, &report::docs::replace(&text, &tables)?)?;
        write(&document.with_extension("svg"), &picture)
    }
}

fn picture(results: &[(&Work, Vec<Written>)]) -> String {
    let outcomes = |results: &[Written]| results.iter().map(|r| r.outcome.clone()).collect::<Vec<Outcome>>();
    let all: Vec<_> = results.iter().map(|(work, results)| (work.title, outcomes(results))).collect();
    let panels: Vec<_> = all.iter().map(|(title, outcomes)| (*title, outcomes.as_slice())).collect();
    report::picture::svg(&panels)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
