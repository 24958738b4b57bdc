//! `rhumb cert status`: whose certificates these are, and what is wrong with them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rhumb_transport::identity::Age;
use rhumb_transport::{Certificate, Trust};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use super::{Shown, certificate_file, folder_and_name, now};
use crate::cli::output::{Done, Failure, Output};
use crate::clock::now_millis;
use crate::identity::{CA_FILE, CRL_FILE};
use crate::secrets::{Files, SecretError, Secrets};

/// Look at certificates. Ends with 5 when one of them would not do, with 3 when one cannot be looked at.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb cert status mesh/ca mesh/nodes/*/identity\n  rhumb cert status server.pem --ca mesh/ca/ca.pem -o json"
)]
pub struct Status {
    /// Folders with a certificate, or PEM files.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The authorities that they must chain to; otherwise ca.pem (and crl.pem) beside each.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Looked {
    #[serde(flatten)]
    shown: Shown,
    /// `not_yet_valid`, `fresh`, `wearing` (less than a fifth of its life is left), `expired`.
    age: &'static str,
    /// The permission bits of the file, where it holds a key.
    key_mode: Option<String>,
    /// Whether a peer that believes these authorities would take it; none for an authority's own.
    believed: Option<bool>,
    problems: Vec<String>,
}

/// What nobody can look at.
#[derive(Debug, Serialize)]
struct Unreadable {
    path: PathBuf,
    why: String,
}

#[derive(Debug, Serialize)]
struct StatusAnswer {
    well: bool,
    certificates: Vec<Looked>,
    unreadable: Vec<Unreadable>,
}

impl fmt::Display for StatusAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked = self.certificates.iter().map(ToString::to_string);
        let not = self.unreadable.iter();
        let not = not.map(|Unreadable { path, why }| format!("{}\n  FAULT       {why}", path.display()));
        f.write_str(&looked.chain(not).collect::<Vec<_>>().join("\n"))
    }
}

impl Status {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let (mut certificates, mut unreadable) = (Vec::new(), Vec::new());
        for path in self.paths {
            match look(&path, self.ca.as_deref()) {
                Ok(looked) => certificates.extend(looked),
                Err(error) => unreadable.push(Unreadable { path, why: format!("{error:#}") }),
            }
        }
        let sound = certificates.iter().all(|looked| looked.problems.is_empty());
        let answer = StatusAnswer { well: sound && unreadable.is_empty(), certificates, unreadable };
        output.answer(&answer, &answer);
        Ok(match (answer.well, sound) {
            (true, _) => Done::Well,
            (_, true) => Done::InPart,
            (_, false) => Done::False,
        })
    }
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shown.fmt(f)?;
        if let Some(mode) = &self.key_mode {
            write!(f, "\n  key         mode {mode}")?;
        }
        if self.age == "wearing" {
            write!(f, "\n  note        less than a fifth of its life is left: renew it")?;
        }
        if self.problems.is_empty() {
            return write!(f, "\n  well");
        }
        self.problems.iter().try_for_each(|problem| write!(f, "\n  PROBLEM     {problem}"))
    }
}

/// Looks at what is in a folder, or at a file.
fn look(path: &Path, ca: Option<&Path>) -> anyhow::Result<Vec<Looked>> {
    let file = certificate_file(path)?;
    let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let certificates = Certificate::all_of(&bytes).with_context(|| file.display().to_string())?;
    let has_key = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY-----");
    let key = has_key.then(|| KeyFile::look(&file)).transpose()?;
    let believed = believed(&file, &bytes, ca);
    // A chain belongs to its leaf; without a key, a file is a heap of certificates.
    let shown = if key.is_some() { &certificates[..1] } else { &certificates[..] };
    Ok(shown.iter().map(|it| judge(&file, it, key.as_ref(), believed.as_ref())).collect())
}

fn judge(
    file: &Path,
    certificate: &Certificate,
    key: Option<&KeyFile>,
    believed: Option<&Result<(), String>>,
) -> Looked {
    let age = certificate.age(now());
    let mut problems = Vec::new();
    match age {
        Age::NotYetValid => problems.push("it is not valid yet".to_owned()),
        Age::Expired => problems.push("it has expired".to_owned()),
        Age::Fresh | Age::Wearing => {}
    }
    let of_member = believed.filter(|_| certificate.holder.member().is_some());
    // That it is not valid now is told already.
    if let Some(Err(error)) = of_member.filter(|_| problems.is_empty()) {
        problems.push(error.clone());
    }
    problems.extend(key.and_then(|key| key.problem.clone()));
    Looked {
        shown: Shown::of(file, certificate),
        age: age_code(age),
        key_mode: key.map(|key| key.mode.clone()),
        believed: of_member.map(Result::is_ok),
        problems,
    }
}

/// A file with a key: its mode, and what is wrong with that.
struct KeyFile {
    mode: String,
    problem: Option<String>,
}

impl KeyFile {
    fn look(file: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let mode = format!("{:04o}", fs::metadata(file)?.mode() & 0o7777);
        let (folder, name) = folder_and_name(file)?;
        match Files::of(folder).read(name) {
            // Root looks after other users' nodes: theirs is the key, and they run what reads it.
            Ok(_) | Err(SecretError::Owner { expected: 0, .. }) => Ok(Self { mode, problem: None }),
            Err(error @ (SecretError::Exposed { .. } | SecretError::Owner { .. })) => {
                Ok(Self { mode, problem: Some(error.to_string()) })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a peer would take the chain in a file; `None` where it is not known what peers believe.
fn believed(file: &Path, chain: &[u8], ca: Option<&Path>) -> Option<Result<(), String>> {
    let beside = file.with_file_name(CA_FILE);
    let ca = match ca {
        Some(ca) => ca,
        None if beside.is_file() => &beside,
        None => return None,
    };
    let read = || -> anyhow::Result<()> {
        let authorities = fs::read(ca).with_context(|| format!("cannot read {}", ca.display()))?;
        let revoked = fs::read(ca.with_file_name(CRL_FILE)).ok();
        let trust = Trust::from_pem(&authorities, revoked.as_deref())
            .with_context(|| ca.parent().unwrap_or(ca).display().to_string())?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        Ok(trust.verify(&chain?, Duration::from_millis(now_millis()))?)
    };
    Some(read().map_err(|error| format!("{error:#}")))
}

fn age_code(age: Age) -> &'static str {
    match age {
        Age::NotYetValid => "not_yet_valid",
        Age::Fresh => "fresh",
        Age::Wearing => "wearing",
        Age::Expired => "expired",
    }
}
