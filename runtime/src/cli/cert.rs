//! `rhumb cert issue`, `renew`, `rollout`, `rollback`, `status`, `revoke`.

mod renew;
mod revoke;
mod rollback;
mod rollout;
mod status;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use rhumb_core::{Principal, Region, Role};
use rhumb_transport::Certificate;
use rhumb_transport::identity::Holder;
use rhumb_transport::issue::Validity;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{Done, Failure, Output};
use crate::authority::{AUTHORITY_FILE, AuthorityFault, AuthorityFolder, Place};
use crate::clock::now_millis;
use crate::fleet::{Event, note};
use crate::identity::{CA_FILE, IDENTITY_FILE};
pub use renew::Renew;
pub use revoke::Revoke;
pub use rollback::Rollback;
pub use rollout::Rollout;
pub use status::Status;

/// Days that a certificate may be valid at most.
const MAX_DAYS: u64 = 825;
const DAY: u64 = 24 * 3600;

/// Certificates of nodes, clients and operators.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Issue a certificate with a new key.
    Issue(Issue),
    /// Say whose certificates these are, how long they are valid, and what is wrong with them.
    Status(Status),
    /// Revoke a certificate.
    Revoke(Revoke),
    /// Renew the certificates of a mesh.
    Renew(Renew),
    /// Renew one node's certificate first, watch it, and go on with the others only if it does well.
    Rollout(Rollout),
    /// Go back to the certificate before.
    Rollback(Rollback),
}

impl CertCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Issue(issue) => issue.run(output),
            Self::Status(status) => status.run(output),
            Self::Revoke(revoke) => revoke.run(output),
            Self::Renew(renew) => renew.run(output),
            Self::Rollout(rollout) => rollout.run(output).await,
            Self::Rollback(rollback) => rollback.run(output),
        }
    }
}

impl From<AuthorityFault> for Failure {
    fn from(fault: AuthorityFault) -> Self {
        match fault {
            AuthorityFault::Exists(_)
            | AuthorityFault::Identity(_)
            | AuthorityFault::Somebody { .. }
            | AuthorityFault::OtherAuthority { .. }
            | AuthorityFault::Forgets { .. }
            | AuthorityFault::NotIssued(_)
            | AuthorityFault::Unreadable { .. }
            | AuthorityFault::WouldNotDo { .. }
            | AuthorityFault::Issue(_) => Self::Usage(fault.to_string()),
            fault => Self::local(fault),
        }
    }
}

/// A region and a name in it: `eu-central/n1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The region.
    pub region: Region,
    /// The name.
    pub name: String,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (region, name) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is not REGION/NAME, such as eu-central/n1"))?;
        let region = Region::new(region).map_err(|e| e.to_string())?;
        // Every name is a DNS label, as a region's is.
        let name = Region::new(name)
            .map_err(|_| format!("{name:?} is no name: use lower-case letters, digits and hyphens"))?;
        Ok(Self { region, name: name.to_string() })
    }
}

impl Named {
    /// As whom it is certified.
    #[must_use]
    pub fn principal(&self, role: Role) -> Principal {
        Principal { role, region: self.region.clone(), name: self.name.clone() }
    }
}

/// How long a certificate is to be valid: `24h` to `825d`.
pub(super) fn validity(text: &str) -> Result<Duration, String> {
    let valid = days(text).filter(|valid| (24 * 3600..=MAX_DAYS * DAY).contains(&valid.as_secs()));
    valid.ok_or_else(|| {
        format!("{text:?} is not how long a certificate may be valid: expected 24h to {MAX_DAYS}d")
    })
}

/// A number of days or hours: `90d`, `36h`.
pub(super) fn days(text: &str) -> Option<Duration> {
    let (number, each) = match text.strip_suffix('d') {
        Some(number) => (number, DAY),
        None => (text.strip_suffix('h')?, 3600),
    };
    number.parse::<u64>().ok()?.checked_mul(each).map(Duration::from_secs)
}

/// A certificate, as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) path: PathBuf,
    pub(super) holder: String,
    pub(super) spiffe_id: Option<String>,
    pub(super) serial: String,
    pub(super) issuer: String,
    pub(super) not_before: String,
    pub(super) not_after: String,
    pub(super) days_left: i64,
    pub(super) fingerprint: String,
}

impl Shown {
    pub(super) fn of(path: &Path, certificate: &Certificate) -> Self {
        let spiffe_id = match &certificate.holder {
            Holder::Member(domain, principal) => Some(domain.spiffe_id(principal)),
            Holder::Authority(_) => None,
        };
        Self {
            path: path.to_owned(),
            holder: certificate.holder.to_string(),
            spiffe_id,
            serial: certificate.serial.to_string(),
            issuer: certificate.issuer.clone(),
            not_before: date(certificate.not_before),
            not_after: date(certificate.not_after),
            days_left: certificate.left(now()).div_euclid(DAY as i64),
            fingerprint: certificate.fingerprint(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.path.display(), self.holder)?;
        writeln!(f, "  serial      {}", self.serial)?;
        writeln!(f, "  SHA-256     {}", self.fingerprint)?;
        writeln!(f, "  issued by   {}", self.issuer)?;
        let left =
            if self.days_left < 0 { "past".to_owned() } else { format!("{} days left", self.days_left) };
        write!(f, "  valid       {} to {}, {left}", self.not_before, self.not_after)
    }
}

/// A moment in seconds since the Unix epoch, as RFC 3339 writes it.
pub(super) fn date(seconds: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}

fn now() -> i64 {
    (now_millis() / 1000) as i64
}

/// Issue a certificate.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("whom").args(["node", "client", "operator"]).required(true),
    after_help = "Examples:\n  rhumb cert issue --ca mesh/ca --node eu-central/n1 --out mesh/nodes/eu-central-n1/identity --renew\n  rhumb cert issue --ca mesh/ca --client eu-central/shop --valid 30d --out mesh/clients/eu-central-shop\n\nWhat lies below clients/ or operators/ of the mesh is renewed and told with it; what lies elsewhere is yours to look after."
)]
pub struct Issue {
    /// The authority's folder.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// For this node.
    #[arg(long, value_name = "REGION/NAME")]
    node: Option<Named>,
    /// For this client: it may call.
    #[arg(long, value_name = "REGION/NAME")]
    client: Option<Named>,
    /// For this operator: it may also administer.
    #[arg(long, value_name = "REGION/NAME")]
    operator: Option<Named>,
    /// How long it is valid, from now (less five minutes, for clocks that differ): 24h to 825d.
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = validity)]
    valid: Duration,
    /// The folder for it: identity.pem (certificate and key), ca.pem and crl.pem.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The folder has a certificate of the same holder in the same mesh: put the new one in its place.
    #[arg(long)]
    renew: bool,
}

impl Issue {
    fn run(self, output: &Output) -> Result<Done, Failure> {
        let who = match (&self.node, &self.client, &self.operator) {
            (Some(node), ..) => node.principal(Role::Node),
            (_, Some(client), _) => client.principal(Role::Client),
            (.., Some(operator)) => operator.principal(Role::Operator),
            _ => return Err(Failure::Usage("say --node, --client or --operator".to_owned())),
        };
        let authority = AuthorityFolder::open(&self.ca)?;
        let place = if self.renew { Place::Renewed } else { Place::New };
        let certificate = authority.issue(&who, Validity::for_the_next(self.valid), &self.out, place)?;
        let event = if self.renew { Event::renewed(&certificate) } else { Event::issued(&certificate) };
        note(&self.ca, &event)?;
        let shown = Shown::of(&self.out.join(IDENTITY_FILE), &certificate);
        let text = shown.to_string();
        output.answer(&shown, text);
        if self.renew {
            output.note("a running node takes it up within 10 s, or at once on SIGHUP");
        }
        Ok(Done::Well)
    }
}

/// The file with the certificate of a folder; a file is that itself.
fn certificate_file(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let mut known = [IDENTITY_FILE, AUTHORITY_FILE, CA_FILE].iter().map(|name| path.join(name));
    known.find(|file| file.is_file()).with_context(|| {
        format!("{} has none of {IDENTITY_FILE}, {AUTHORITY_FILE} and {CA_FILE}", path.display())
    })
}

/// The folder of a file, and its name there.
pub(super) fn folder_and_name(file: &Path) -> anyhow::Result<(&Path, &str)> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is not the name of a file", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_days_or_hours_within_bounds() {
        for (text, hours) in [("24h", 24), ("90d", 2160), ("825d", 19_800), ("36h", 36)] {
            assert_eq!(validity(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        for bad in ["", "d", "23h", "826d", "1.5d", "90", "90m", "-1d", "99999999999999999999d"] {
            assert!(validity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_is_certified_is_a_region_and_a_name() {
        let named: Named = "eu-central/n1".parse().expect("valid");
        assert_eq!(named.principal(Role::Node).to_string(), "node eu-central/n1");
        for bad in ["n1", "eu-central/", "EU/n1", "eu-central/n 1", "eu-central/n1/x", "/n1"] {
            assert!(bad.parse::<Named>().is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_shown_as_dates() {
        assert_eq!(date(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
