//! `rhumb audit certify` and `certificate`: statements that several regions sign, and whether enough of them have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rhumb_actors::audit::messages::{NextStatement, ShowAudit, State};
use rhumb_core::{NodeId, Region};
use rhumb_verify::note::Signature;
use rhumb_verify::statement::{Certificate, Statement};
use rhumb_verify::{Key, Note};
use serde::Serialize;

use super::super::args::whole;
use super::super::connect::nodes_from;
use super::super::output::{Done, Failure, Output};
use super::{RemoteLog, WITHIN, Whose};
use crate::client::{MeshClient, ask_until_known};

/// What is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The residency policy: its version, and the SHA-256 of its file.
    Policy,
    /// The log of the node that is asked: its entries, and their root.
    Checkpoint,
}

/// Have a node of each region sign one statement: a quorum certificate.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit certify policy --out policy-1.certificate\n  rhumb audit certify policy --after policy-1.certificate --out policy-2.certificate\n  rhumb audit certify checkpoint --node eu-central/n1\n\nEach node signs only what it knows to be so itself, one statement of a number, and none below one that it signed. Ends with 5 when fewer regions than needed have signed; it says why each did not."
)]
pub struct Certify {
    /// What is stated.
    #[arg(value_enum)]
    kind: Kind,
    /// How many regions must have signed; unless given, more than half of them.
    #[arg(long, value_name = "REGIONS", value_parser = whole::<usize>)]
    need: Option<usize>,
    /// The certificate that this one follows.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Write the certificate here, if enough have signed.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    whose: Whose,
}

/// What a certificate states, and who signed.
#[derive(Debug, Serialize)]
struct Certified {
    certified: bool,
    kind: String,
    subject: String,
    number: u64,
    value: String,
    previous: String,
    need: usize,
    /// The names of the keys that have signed.
    signed: BTreeSet<String>,
    /// Why others have not, by region; and why a certificate does not follow.
    why: BTreeMap<String, String>,
    /// The certificate, a note; empty where too few have signed.
    certificate: String,
}

impl Certified {
    fn of(statement: &Statement, need: usize) -> Self {
        Self {
            certified: false,
            kind: statement.kind.clone(),
            subject: statement.subject.clone(),
            number: statement.number,
            value: statement.value.to_string(),
            previous: statement.previous.to_string(),
            need,
            signed: BTreeSet::new(),
            why: BTreeMap::new(),
            certificate: String::new(),
        }
    }
}

impl fmt::Display for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, subject, number, value, need, .. } = self;
        let verdict = if self.certified { "certified" } else { "NOT CERTIFIED" };
        write!(f, "{verdict}: {kind} {subject} number {number} is {value}; {need} regions are needed")?;
        self.signed.iter().try_for_each(|name| write!(f, "\nsigned by {name}"))?;
        self.why.iter().try_for_each(|(region, why)| write!(f, "\n{region}: {why}"))?;
        if self.certificate.is_empty() { Ok(()) } else { write!(f, "\n\n{}", self.certificate.trim_end()) }
    }
}

impl Certify {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let after = self.after.as_deref().map(statement).transpose()?;
        let log = self.whose.log().await?;
        let signed = self.signed(&log, after.as_ref()).await;
        log.close().await;
        let answer = signed?;
        if let Some(out) = self.out.as_ref().filter(|_| answer.certified) {
            write(out, &answer.certificate)?;
        }
        output.answer(&answer, &answer);
        Ok(if answer.certified { Done::Well } else { Done::False })
    }

    async fn signed(&self, log: &RemoteLog, after: Option<&Statement>) -> Result<Certified, Failure> {
        let (kind, subject) = match self.kind {
            Kind::Policy => ("policy", "mesh".to_owned()),
            Kind::Checkpoint => ("checkpoint", key(&log.view().await?.key)?.name),
        };
        let previous = after.map(|after| after.hash().0.to_vec()).unwrap_or_default();
        let text = log.ask(&NextStatement { kind: kind.to_owned(), subject, previous }).await?;
        let statement: Statement = text.parse().map_err(Failure::local)?;
        let mut regions: BTreeMap<Region, Vec<NodeId>> = BTreeMap::new();
        for node in nodes_from(log.client.directory(), |_| true) {
            regions.entry(node.region.clone()).or_default().push(node);
        }
        let need = self.need.unwrap_or(regions.len() / 2 + 1);
        let (mut answer, mut keys) = (Certified::of(&statement, need), Vec::new());
        let mut note = Note { text: text.clone(), signatures: Vec::new() };
        for (region, nodes) in regions {
            match one_of(&log.client, &nodes, &text).await {
                Ok((key, signature)) => {
                    keys.push(key);
                    note.signatures.push(signature);
                }
                Err(why) => drop(answer.why.insert(region.to_string(), why)),
            }
        }
        match Certificate::check(note, &keys, need) {
            Ok(certificate) => {
                answer.certified = true;
                answer.certificate = certificate.note.to_string();
                answer.signed = certificate.signed;
            }
            Err(why) => {
                answer.signed = keys.into_iter().map(|key| key.name).collect();
                answer.why.insert("certificate".to_owned(), why.to_string());
            }
        }
        Ok(answer)
    }
}

/// The signature of one of a region's nodes, with its key; or what the last of them said.
async fn one_of(client: &MeshClient, nodes: &[NodeId], text: &str) -> Result<(Key, Signature), String> {
    let mut why = "it has no node".to_owned();
    for node in nodes {
        match signature(client, node, text).await {
            Ok(signed) => return Ok(signed),
            Err(said) => why = format!("{node}: {said}"),
        }
    }
    Err(why)
}

async fn signature(client: &MeshClient, node: &NodeId, text: &str) -> Result<(Key, Signature), String> {
    let fault = |fault: rhumb_core::Fault| fault.to_string();
    let show = ShowAudit { nonce: Vec::new() };
    let view = ask_until_known(client, node, &show, WITHIN).await.map_err(fault)?;
    let key: Key = view.map_err(|why| why.to_string())?.key.parse().map_err(|why| format!("{why}"))?;
    let state = State { text: text.to_owned() };
    let line = ask_until_known(client, node, &state, WITHIN).await.map_err(fault)?;
    let line = line.map_err(|why| why.to_string())?;
    let signature: Signature = line.trim_end().parse().map_err(|why| format!("{why}"))?;
    Ok((key, signature))
}

fn key(text: &str) -> Result<Key, Failure> {
    text.parse().map_err(Failure::local)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::local(format!("{}: {error}", path.display())))
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::local(format!("{}: {error}", path.display())))
}

fn note(path: &Path) -> Result<Note, Failure> {
    Note::parse(&read(path)?).map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))
}

fn statement(path: &Path) -> Result<Statement, Failure> {
    note(path)?.text.parse().map_err(|why| Failure::Usage(format!("{}: {why}", path.display())))
}

/// Verify a quorum certificate, offline, by the keys of a file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit certificate policy-2.certificate --keys regions.keys --need 2\n  rhumb audit certificate policy-2.certificate --keys regions.keys --need 2 --after policy-1.certificate\n\nThe file of keys has one a line, the `key` of `rhumb audit checkpoint` of a node in each region; get them from somewhere else than the mesh. With --after it must follow that certificate; of two that cannot both be, it names who signed both. It asks nobody. Ends with 5 when it is not certified, or does not follow."
)]
pub struct VerifyCertificate {
    /// The certificate.
    certificate: PathBuf,
    /// Whose signatures count, a key a line.
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// How many of them must have signed.
    #[arg(long, value_name = "REGIONS", value_parser = whole::<usize>)]
    need: usize,
    /// The certificate that it must follow.
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
}

impl VerifyCertificate {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let text = read(&self.keys)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Result<Vec<Key>, _> = lines.map(str::parse).collect();
        let keys = keys.map_err(|why| Failure::Usage(format!("{}: {why}", self.keys.display())))?;
        let (this, mut answer) = (note(&self.certificate)?, None);
        let mut checked = |note: Note| {
            let stated: Result<Statement, _> = note.text.parse();
            if let (Ok(stated), None) = (&stated, &answer) {
                answer = Some(Certified::of(stated, self.need));
            }
            Certificate::check(note, &keys, self.need).map_err(|why| why.to_string())
        };
        let certificate = checked(this);
        let after = self.after.as_deref().map(note).transpose()?.map(&mut checked);
        let follows = match (&certificate, after) {
            (Ok(this), Some(Ok(last))) => this.follows(&last).map_err(|why| why.to_string()),
            (_, Some(Err(why))) => Err(format!("the certificate before: {why}")),
            _ => Ok(()),
        };
        let Some(mut answer) = answer else {
            let why = certificate.err().unwrap_or_default();
            return Err(Failure::Usage(format!("{}: {why}", self.certificate.display())));
        };
        answer.certified = certificate.is_ok() && follows.is_ok();
        for (what, why) in [("certificate", certificate.as_ref().err()), ("after", follows.as_ref().err())] {
            if let Some(why) = why {
                answer.why.insert(what.to_owned(), why.clone());
            }
        }
        if let Ok(certificate) = certificate {
            answer.signed = certificate.signed;
        }
        output.answer(&answer, &answer);
        Ok(if answer.certified { Done::Well } else { Done::False })
    }
}
