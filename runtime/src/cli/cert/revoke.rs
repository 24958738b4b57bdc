//! `rhumb cert revoke`: what was lost or stolen is believed no more.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgGroup, Args};
use rhumb_transport::Certificate;
use rhumb_transport::identity::Serial;
use serde::Serialize;

use super::certificate_file;
use crate::authority::{AuthorityFault, AuthorityFolder, Revoked, not_issued};
use crate::cli::fleet::MeshDir;
use crate::cli::output::{Done, Failure, Output};
use crate::fleet::{Event, Fleet, Missed, note, told_of_missed};
use crate::identity::CRL_FILE;

/// Revoke a certificate: it is added to the authority's crl.pem.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("where").args(["ca", "mesh"]).required(true),
    after_help = "Examples:\n  rhumb cert revoke --mesh mesh mesh/clients/eu-central-app\n  rhumb cert revoke --ca mesh/ca 4f0a17c2…\n\nWith --mesh the list is put into everybody's identity folder, with --ca alone copy crl.pem into that of every\nnode: each takes it up within 10 s, or at once on SIGHUP, and closes the connections of what was revoked."
)]
pub struct Revoke {
    /// The authority's folder.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// The mesh's folder: that of `rhumb mesh init`, or the data directory of `rhumb dev`.
    #[arg(long, value_name = "DIR")]
    mesh: Option<PathBuf>,
    /// A program that takes a changed identity folder to its machine: called with the holder and the folder.
    #[arg(long, value_name = "PROGRAM", requires = "mesh")]
    deliver: Option<PathBuf>,
    /// The certificate: its serial number, its file, or its folder.
    #[arg(value_name = "SERIAL|PATH")]
    which: String,
}

#[derive(Debug, Serialize)]
struct RevokeAnswer {
    serial: String,
    holder: String,
    again: bool,
    list: PathBuf,
    number: u128,
    revoked: usize,
    /// Who has not got the list.
    missed: Vec<Missed>,
}

impl RevokeAnswer {
    fn of(done: Revoked, ca: &Path, missed: Vec<Missed>) -> Self {
        Self {
            serial: done.certificate.serial,
            holder: done.certificate.holder,
            again: done.again,
            list: ca.join(CRL_FILE),
            number: done.number,
            revoked: done.revoked,
            missed,
        }
    }
}

impl fmt::Display for RevokeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.again { "was revoked before" } else { "is revoked" };
        write!(f, "{} {} {what}: ", self.holder, self.serial)?;
        write!(f, "list {} in {} names {}", self.number, self.list.display(), self.revoked)?;
        f.write_str(&told_of_missed(&self.missed))
    }
}

impl Revoke {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let (serial, named) = self.serial()?;
        let fleet = match &self.mesh {
            Some(mesh) => Some(MeshDir { mesh: mesh.clone(), deliver: self.deliver.clone() }.open()?),
            None => None,
        };
        let ca = fleet.as_ref().map(Fleet::authority).or(self.ca).unwrap_or_default();
        let authority = AuthorityFolder::open(&ca)?;
        let done = authority.revoke(&serial);
        let done = done.map_err(|fault| match fault {
            // As it was given: a serial number may be written with zeros in front, and without.
            AuthorityFault::NotIssued(_) if !named => Failure::Usage(not_issued(&self.which)),
            fault => fault.into(),
        })?;
        if !done.again {
            let (holder, serial) = (done.certificate.holder.clone(), Some(done.certificate.serial.clone()));
            let detail = Some(format!("list {}", done.number));
            note(&ca, &Event { event: "certificate.revoked", holder, serial, detail })?;
        }
        // Also when it was revoked before: an earlier command may have been cut short.
        let missed = fleet.as_ref().map(|fleet| fleet.give_out_all(authority)).unwrap_or_default();
        let answer = RevokeAnswer::of(done, &ca, missed);
        output.answer(&answer, &answer);
        output.note(match (&fleet, answer.missed.is_empty()) {
            (None, _) => "copy it into the identity folder of every node: each takes it up within 10 s",
            (Some(_), true) => {
                "it is in everybody's identity folder: a running node takes it up within 10 s, or at once on SIGHUP"
            }
            (Some(_), false) => "those go on believing it: run the same again when they can be reached",
        });
        Ok(if answer.missed.is_empty() { Done::Well } else { Done::InPart })
    }

    /// The serial number that is meant, and whether a file names it.
    fn serial(&self) -> Result<(Serial, bool), Failure> {
        let path = Path::new(&self.which);
        if !path.exists() {
            let parsed = self.which.parse();
            let serial =
                parsed.map_err(|error| Failure::Usage(format!("{path:?} is no file, and {error}")))?;
            return Ok((serial, false));
        }
        let file = certificate_file(path)?;
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let all = Certificate::all_of(&bytes).with_context(|| file.display().to_string())?;
        Ok((all[0].serial.clone(), true))
    }
}
