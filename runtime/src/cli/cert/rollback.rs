//! `rhumb cert rollback`: one generation back.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Shown;
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::roll_back;
use crate::identity::IDENTITY_FILE;

/// Go back to the certificate that was in force before, if peers would still take it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb cert rollback mesh/nodes/eu-central-n1/identity\n\nA running node takes it up within 10 s, or at once on SIGHUP; one on another machine, once the folder is there."
)]
pub struct Rollback {
    /// The identity folder.
    dir: PathBuf,
    /// Why, for those who read the node's log later.
    #[arg(long, value_name = "TEXT", default_value = "rhumb cert rollback")]
    why: String,
}

#[derive(Debug, Serialize)]
struct RollbackAnswer {
    from: u64,
    to: u64,
    #[serde(flatten)]
    certificate: Shown,
}

impl Rollback {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let back = roll_back(&self.dir, &self.why).map_err(|error| Failure::Usage(format!("{error:#}")))?;
        let certificate = Shown::of(&self.dir.join(IDENTITY_FILE), &back.certificate);
        let text = format!("generation {} takes the place of {}\n{certificate}", back.to, back.from);
        output.answer(&RollbackAnswer { from: back.from, to: back.to, certificate }, text);
        output.note("its node takes it up within 10 s, or at once on SIGHUP; on another machine, once the folder is there");
        Ok(Done::Well)
    }
}
