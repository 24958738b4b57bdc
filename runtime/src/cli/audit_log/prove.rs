//! `rhumb audit prove`: of one entry, of several, and of growth.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Args;
use rhumb_actors::audit::messages::{AuditView, Prove as AskProof, ProveBatch, READ_AT_ONCE};
use rhumb_actors::audit::read::split;
use rhumb_verify::batch_proof::BatchProof;
use rhumb_verify::growth::Growth;
use rhumb_verify::hash::{Hash, leaf};
use rhumb_verify::tlog_proof::TlogProof;
use rhumb_verify::{Checkpoint, Note, batch, proof};
use serde::Serialize;

use super::super::args::whole;
use super::super::output::{Done, Failure, Output};
use super::{RemoteLog, Whose};

/// Prove that entries are in the log, or that it only grew.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit prove 17\n  rhumb audit prove 17 --out e17.tlog-proof\n  rhumb audit prove 3 17 40 --out three.batch-proof\n  rhumb audit prove --range 100..356 --out some.batch-proof\n  rhumb audit prove --since before.checkpoint --out grown.proof\n\nThe proof of one entry (c2sp.org/tlog-proof) has the entry in its line `extra`; that of several (256 at most) has them all and one batch proof. Each has the published checkpoint with its cosignatures: `rhumb audit verify` and others' programs check it with the keys alone."
)]
pub struct Prove {
    /// The entry's number, or several.
    #[arg(required_unless_present_any = ["range", "since"], value_parser = whole::<u64>)]
    index: Vec<u64>,
    /// The entries from one number to before another.
    #[arg(long, value_name = "FROM..TO", conflicts_with = "index")]
    range: Option<Numbers>,
    /// That the log continues this checkpoint.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["index", "range"])]
    since: Option<PathBuf>,
    /// Write the proof here.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    whose: Whose,
}

/// Entries from one number to before another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Numbers(Vec<u64>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
        let range: std::ops::Range<u64> = parsed.ok_or("expected two numbers, such as 100..356")?;
        if range.is_empty() || range.end - range.start > READ_AT_ONCE {
            return Err(format!("expected 1 to {READ_AT_ONCE} entries, such as 100..356"));
        }
        Ok(Self(range.collect()))
    }
}

/// What is proved.
#[derive(Debug, Default, Serialize)]
struct Proof {
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    /// The entry, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    indices: Option<Vec<u64>>,
    /// Entries under the checkpoint that it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    old: Option<u64>,
    /// Entries under the checkpoint that it is proved by.
    size: u64,
    /// The proof, as text.
    proof: String,
    out: Option<PathBuf>,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, size, .. } = self;
        let Some(out) = &self.out else { return f.write_str(self.proof.trim_end()) };
        match (&self.index, &self.indices, &self.old) {
            (Some(index), ..) => write!(f, "entry {index} of {node} is under its checkpoint of {size}")?,
            (_, Some(all), _) => {
                write!(f, "{} entries of {node} are under its checkpoint of {size}", all.len())?
            }
            (.., old) => {
                write!(f, "the log of {node} grew from {} entries to {size}", old.unwrap_or_default())?
            }
        }
        write!(f, ": {}", out.display())
    }
}

impl Prove {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let log = self.whose.log().await?;
        let (note, checkpoint) = published(&log.view().await?)?;
        let of = (&log, &note, &checkpoint);
        let mut indices = self.range.map_or(self.index, |range| range.0);
        indices.sort_unstable();
        indices.dedup();
        let proof = match (&self.since, &indices[..]) {
            (Some(since), _) => grown(of, since).await,
            (None, [index]) => one(of, *index).await,
            (None, _) => several(of, indices).await,
        };
        log.close().await;
        let proof = proof?;
        if let Some(out) = &self.out {
            fs::write(out, &proof.proof)
                .map_err(|error| Failure::local(format!("{}: {error}", out.display())))?;
        }
        let answer = Proof { node: log.node.to_string(), size: checkpoint.size, out: self.out, ..proof };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }
}

type Of<'a> = (&'a RemoteLog, &'a Note, &'a Checkpoint);

async fn one((log, note, checkpoint): Of<'_>, index: u64) -> Result<Proof, Failure> {
    let (entry, proof) = prove(log, index, note, checkpoint).await?;
    let (index, entry) = (Some(index), Some(BASE64_STANDARD.encode(entry)));
    Ok(Proof { index, entry, proof: proof.to_string(), ..Proof::default() })
}

async fn several((log, note, checkpoint): Of<'_>, indices: Vec<u64>) -> Result<Proof, Failure> {
    let size = checkpoint.size;
    let proven = log.ask(&ProveBatch { indices: indices.clone(), size }).await?;
    let hashes = hashes(&proven.hashes)?;
    let proof = BatchProof {
        entries: indices.iter().copied().zip(proven.entries).collect(),
        hashes,
        checkpoint: note.clone(),
    };
    let leaves = proof.entries.iter().map(|(index, entry)| (*index, leaf(entry))).collect();
    batch::verify(&leaves, size, &proof.hashes, &checkpoint.root).map_err(does_not_do)?;
    if leaves.len() != indices.len() {
        return Err(Failure::local("the node gave fewer entries than it was asked for"));
    }
    Ok(Proof { indices: Some(indices), proof: proof.to_string(), ..Proof::default() })
}

async fn grown((log, note, checkpoint): Of<'_>, since: &PathBuf) -> Result<Proof, Failure> {
    let named = |why: &dyn fmt::Display| Failure::local(format!("{}: {why}", since.display()));
    let text = fs::read_to_string(since).map_err(|error| named(&error))?;
    let older = Note::parse(&text).map_err(|why| named(&why))?;
    let older: Checkpoint = older.text.parse().map_err(|why| named(&why))?;
    let old = Some(older.size);
    let proven = log.ask(&AskProof { index: None, old, size: checkpoint.size }).await?;
    let path = hashes(&proven.consistency)?;
    let continues = proof::consistency((older.size, &older.root), (checkpoint.size, &checkpoint.root), &path);
    continues.map_err(does_not_do)?;
    let proof = Growth { old: older.size, proof: path, checkpoint: note.clone() };
    Ok(Proof { old, proof: proof.to_string(), ..Proof::default() })
}

fn hashes(bytes: &[u8]) -> Result<Vec<Hash>, Failure> {
    split(bytes).ok_or_else(|| Failure::local("the node gave no proof"))
}

fn does_not_do(why: proof::NoProof) -> Failure {
    Failure::local(format!("the node's proof does not do: {why}"))
}

/// The published checkpoint.
pub(super) fn published(view: &AuditView) -> Result<(Note, Checkpoint), Failure> {
    if view.published_note.is_empty() {
        let why = "nothing is published yet: too few log witnesses have cosigned (`rhumb audit checkpoint`)";
        return Err(Failure::local(why));
    }
    let note = Note::parse(&view.published_note).map_err(Failure::local)?;
    let checkpoint = note.text.parse().map_err(Failure::local)?;
    Ok((note, checkpoint))
}

pub(super) async fn prove(
    log: &RemoteLog,
    index: u64,
    note: &Note,
    checkpoint: &Checkpoint,
) -> Result<(Vec<u8>, TlogProof), Failure> {
    let size = checkpoint.size;
    let proven = log.ask(&AskProof { index: Some(index), old: None, size }).await?;
    let path = hashes(&proven.inclusion)?;
    proof::inclusion(&leaf(&proven.entry), index, size, &path, &checkpoint.root).map_err(does_not_do)?;
    let proof = TlogProof { extra: Some(proven.entry.clone()), index, path, checkpoint: note.clone() };
    Ok((proven.entry, proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_bounded_and_not_empty() {
        assert_eq!("3..5".parse(), Ok(Numbers(vec![3, 4])));
        assert_eq!("0..256".parse::<Numbers>().map(|range| range.0.len()), Ok(256));
        for wrong in ["5..5", "5..3", "0..257", "3", "3..", "a..b", "0..18446744073709551615"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong}");
        }
    }
}
