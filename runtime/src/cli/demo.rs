//! `rhumb demo`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{duration, number, whole};
use super::output::{Done, Failure, Output};
use crate::client::now_ms;
use crate::demo::progress::Progress;
use crate::demo::table::Table;
use crate::demo::{DemoOptions, Outcome, run};

/// Three regions sell one concert, one of them is killed, another cut off, and not one seat is sold
/// twice.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb demo\n  rhumb demo --seats 2000 --rate 500 --seed 7 -o json\n\nIt ends with 0 only if every check of the verdict holds."
)]
pub struct Demo {
    /// Seats for sale.
    #[arg(long, default_value_t = 10_000, value_parser = number::<u64>(4..=10_000_000))]
    seats: u64,
    /// Customers a second over all regions; twice as many in the first 5 s.
    #[arg(long, default_value_t = 1_000, value_parser = number::<u32>(1..=100_000))]
    rate: u32,
    /// The same seed makes the same customers come at the same times.
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>)]
    seed: u64,
    /// Where everything is kept: a folder that is empty or not there yet. Without it, a new one below
    /// ./.rhumb that is removed when the verdict holds.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep the folder whatever the verdict.
    #[arg(long)]
    keep: bool,
    /// After so long no more customers come, sold or not.
    #[arg(long, value_name = "TIME", default_value = "240s", value_parser = duration)]
    max_time: Duration,
}

impl Demo {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let data = self.folder()?;
        let options = DemoOptions {
            seats: self.seats,
            rate: self.rate,
            seed: self.seed,
            data: data.clone(),
            max_time: self.max_time,
        };
        let (mut int, mut term) = (
            signal(SignalKind::interrupt()).map_err(Failure::local)?,
            signal(SignalKind::terminate()).map_err(Failure::local)?,
        );
        let stop = async move {
            tokio::select! { _ = int.recv() => {} _ = term.recv() => {} }
        };
        let mut progress = Progress::new(self.seats);
        let outcome = run(&options, &mut progress, stop).await;
        drop(progress);
        let (done, holds) = match outcome {
            Err(error) => {
                output.note(format_args!("everything is kept in {}", data.display()));
                return Err(error.into());
            }
            Ok(Outcome::Stopped) => (Done::Stopped, true),
            Ok(Outcome::Played(report)) => {
                output.answer(&report, Table(&report));
                (if report.verdict { Done::Well } else { Done::False }, report.verdict)
            }
        };
        if self.data.is_none() && !self.keep && holds {
            std::fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        } else {
            output.note(format_args!("everything is kept in {}", data.display()));
        }
        Ok(done)
    }

    /// The folder for this run: new or empty.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => PathBuf::from(format!("./.rhumb/demo-{}", now_ms())),
        };
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let mut entries = std::fs::read_dir(&data).map_err(Failure::local)?;
        if entries.next().is_some() {
            let message =
                format!("--data {}: a demo needs a folder that is empty or not there yet", data.display());
            return Err(Failure::Usage(message));
        }
        Ok(data)
    }
}
