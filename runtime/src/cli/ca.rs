//! `rhumb ca init`, `rotate`, `sign-list`.

mod rotate;
mod sign_list;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_transport::TrustDomain;
use rhumb_transport::issue::Validity;

use super::cert::{Shown, days};
use super::output::{Done, Failure, Output};
use crate::authority::{AUTHORITY_FILE, AuthorityFolder};
use crate::fleet::{Event, note};
pub use rotate::Rotate;
pub use sign_list::SignList;

/// A certificate authority of one's own, for development and small fleets.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority.
    Init(Init),
    /// Let a new authority take over from the present one, stage by stage.
    Rotate(Rotate),
    /// Sign the list of revocations anew.
    SignList(SignList),
}

impl CaCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Init(init) => init.run(output),
            Self::Rotate(rotate) => rotate.run(output).await,
            Self::SignList(sign) => sign.run(output),
        }
    }
}

/// How long an authority is to be valid: `30d` to `7300d`.
pub(super) fn authority_validity(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 3600);
    days(text)
        .filter(|valid| (30 * day..=7300 * day).contains(valid))
        .ok_or_else(|| format!("{text:?} is not how long an authority may be valid: expected 30d to 7300d"))
}

/// Make an authority, in a folder that has none.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb ca init --trust-domain mesh.example ca")]
pub struct Init {
    /// The folder for authority.pem (its certificate and key), ca.pem and crl.pem.
    dir: PathBuf,
    /// The mesh's name in certificates: a DNS name in lower case.
    #[arg(long, value_name = "NAME", default_value = "rhumb.internal")]
    trust_domain: TrustDomain,
    /// How long it is valid: 30d to 7300d. What it issues cannot outlive it.
    #[arg(long, value_name = "TIME", default_value = "3650d", value_parser = authority_validity)]
    valid: Duration,
}

impl Init {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let authority =
            AuthorityFolder::found(&self.dir, self.trust_domain, Validity::for_the_next(self.valid))?;
        note(&self.dir, &Event::of("authority.created", authority.authority().certificate()))?;
        let shown = Shown::of(&self.dir.join(AUTHORITY_FILE), authority.authority().certificate());
        let text = shown.to_string();
        output.answer(&shown, text);
        output.note("keep that file where few can read it: who has it can be anyone in the mesh");
        Ok(Done::Well)
    }
}
