//! `rhumb ca sign-list`: the list of revocations, signed anew.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::authority::AuthorityFolder;
use crate::cli::cert::days;
use crate::cli::fleet::MeshDir;
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::{Event, Missed, note, told_of_missed};
use crate::identity::CRL_FILE;

/// Sign the list of revocations anew, and give it to everybody: needed where `identity.revocations` is `strict`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb ca sign-list --mesh mesh --valid 7d")]
pub struct SignList {
    #[command(flatten)]
    mesh: MeshDir,
    /// How long it is valid: 1d to 365d. The next one must be signed before.
    #[arg(long, value_name = "TIME", value_parser = list_validity)]
    valid: Duration,
}

fn list_validity(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 3600);
    days(text)
        .filter(|valid| (day..=365 * day).contains(valid))
        .ok_or_else(|| format!("{text:?} is not how long a list may be valid: expected 1d to 365d"))
}

#[derive(Debug, Serialize)]
struct Signed {
    list: PathBuf,
    number: u128,
    /// Who has not got it.
    missed: Vec<Missed>,
}

impl SignList {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let fleet = self.mesh.open()?;
        let authority = AuthorityFolder::open(&fleet.authority())?;
        let number = authority.renew_lists(self.valid)?;
        let event = Event::of("list.signed", authority.authority().certificate());
        note(&fleet.authority(), &event.because(format!("number {number}")))?;
        let missed = fleet.give_out_all(authority);
        let answer = Signed { list: fleet.authority().join(CRL_FILE), number, missed };
        let whom = if answer.missed.is_empty() { "everybody" } else { "all but these" };
        let text = format!("list {number} is signed and given to {whom}: {}", answer.list.display());
        output.answer(&answer, text + &told_of_missed(&answer.missed));
        Ok(if answer.missed.is_empty() { Done::Well } else { Done::InPart })
    }
}
