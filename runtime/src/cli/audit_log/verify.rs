//! `rhumb audit verify`: what is proved, by keys that the auditor brought.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::Args;
use rhumb_actors::audit::record::Record;
use rhumb_actors::audit::roots::COSIGNED;
use rhumb_verify::batch_proof::{self, BatchProof};
use rhumb_verify::export::{Export, NoExport};
use rhumb_verify::growth::{self, Growth};
use rhumb_verify::policy::Trusted;
use rhumb_verify::record::Entry;
use rhumb_verify::tlog_proof::TlogProof;
use rhumb_verify::{Checkpoint, Key, Note, Policy, hash};
use serde::Serialize;

use super::super::args::whole;
use super::super::output::{Done, Failure, Output};
use super::export::{Opened, RECORDS_FILE};

/// Verify a proof or an exported log, offline, by the keys of a policy file.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit verify --policy auditors.policy --proof e17.tlog-proof\n  rhumb audit verify --policy auditors.policy --proof some.batch-proof\n  rhumb audit verify --policy auditors.policy --proof grown.proof --since before.checkpoint\n  rhumb audit verify --policy auditors.policy --export log --since before.checkpoint\n  rhumb audit verify --policy auditors.policy --export log --seen-by log-of-eu\n  rhumb audit verify --policy auditors.policy --export log --from 51200\n\nThe policy (c2sp.org/tlog-policy) says whose signatures suffice; get its keys from somewhere else than the log. It asks nobody. A pruned log begins where its export says; an earlier checkpoint of fewer entries than that cannot be compared with it. Ends with 5 when something is not proved."
)]
pub struct Verify {
    /// Whose signatures suffice.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A proof of one entry, of several, or of growth.
    #[arg(long, value_name = "FILE", required_unless_present = "export")]
    proof: Option<PathBuf>,
    /// The folder of an exported log: everything in it is hashed again.
    #[arg(long, value_name = "DIR", conflicts_with = "proof")]
    export: Option<PathBuf>,
    /// The log must be there from this entry on: nothing from it on may have been pruned.
    #[arg(long, value_name = "INDEX", requires = "export", value_parser = whole::<u64>)]
    from: Option<u64>,
    /// The export of another node's log, with its records: what it saw this log sign must be of the entries here.
    #[arg(long, value_name = "DIR", requires = "export")]
    seen_by: Option<PathBuf>,
    /// A checkpoint that was verified before: the log must continue it.
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

#[derive(Debug, Default, Serialize)]
struct Verdict {
    proved: bool,
    /// The first entry of an exported log, all of whose entries from there on were there.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u64>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    origin: String,
    /// Entries under the checkpoint.
    size: u64,
    root: String,
    /// Who cosigned it, by the policy's names, and when (seconds since the Unix epoch).
    cosigned: BTreeMap<String, u64>,
    /// The entry that is proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<Proved>,
    /// The entries that are proved together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Proved>,
    /// Records that are those that their entries commit to.
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    /// Checkpoints of it that stand in the other log.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    /// Further ones there, of fewer entries than were pruned: they could not be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_pruned: Option<u64>,
    /// The size of the earlier checkpoint that it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Proved {
    index: u64,
    time: String,
    action: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.why {
            return write!(f, "NOT PROVED: {why}");
        }
        for Proved { index, time, action } in self.entry.iter().chain(&self.entries) {
            writeln!(f, "proved: entry {index} ({action}, {time}) is in the log {}", self.origin)?;
        }
        if self.mark.is_none() && self.entry.is_none() && self.entries.is_empty() {
            writeln!(f, "proved: the log {} only grew", self.origin)?;
        }
        match self.mark {
            None => {}
            Some(0) => writeln!(f, "proved: all {} entries are those of the log {}", self.size, self.origin)?,
            Some(mark) => writeln!(
                f,
                "proved: the entries from {mark} to before {} are those of the log {}; those before {mark} were pruned, \
                 and their hashes are in its root",
                self.size, self.origin
            )?,
        }
        if let Some(records) = self.records {
            writeln!(f, "{records} records are those that their entries commit to")?;
        }
        if let Some(seen) = self.seen {
            writeln!(f, "{seen} of its checkpoints stand in the other log, and it continues them all")?;
        }
        if let Some(pruned) = self.seen_pruned.filter(|pruned| *pruned > 0) {
            writeln!(f, "{pruned} more there are of fewer entries than were pruned, and CANNOT BE COMPARED")?;
        }
        if let Some(size) = self.continues {
            writeln!(f, "it continues the checkpoint of {size} entries that was verified before")?;
        }
        let by: Vec<_> = self.cosigned.keys().map(String::as_str).collect();
        let by = if by.is_empty() {
            "nobody: the policy asks for no log witness".to_owned()
        } else {
            by.join(", ")
        };
        write!(f, "under its checkpoint of {} entries, root {}, cosigned by {by}", self.size, self.root)
    }
}

impl Verify {
    pub(super) fn run(self, output: &Output) -> Result<Done, Failure> {
        let policy = Policy::parse(&text(&self.policy)?)
            .map_err(|why| Failure::Usage(format!("{}: {why}", self.policy.display())))?;
        let since = self.since.as_deref().map(text).transpose()?;
        let verified = match (&self.proof, &self.export) {
            (Some(proof), _) => of_proof(&text(proof)?, &policy, since.as_deref()),
            (None, Some(export)) => {
                let seen_by = self.seen_by.as_deref();
                of_export(export, &policy, self.from, since.as_deref(), seen_by)
            }
            (None, None) => return Err(Failure::Usage("give --proof FILE or --export DIR".to_owned())),
        };
        let verdict =
            verified.unwrap_or_else(|why| Verdict { proved: false, why: Some(why), ..Verdict::default() });
        output.answer(&verdict, &verdict);
        Ok(if verdict.proved { Done::Well } else { Done::False })
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::local(format!("{}: {error}", path.display())))
}

fn said(why: impl fmt::Display) -> String {
    why.to_string()
}

fn of(trusted: Trusted) -> Verdict {
    let checkpoint = trusted.checkpoint;
    Verdict {
        proved: true,
        origin: checkpoint.origin,
        size: checkpoint.size,
        root: checkpoint.root.to_string(),
        cosigned: trusted.cosigned,
        ..Verdict::default()
    }
}

fn of_proof(proof: &str, policy: &Policy, since: Option<&str>) -> Result<Verdict, String> {
    if proof.starts_with(growth::FIRST) {
        let since = since.ok_or("a proof of growth needs --since FILE: the checkpoint from which it grew")?;
        return of_growth(&proof.parse().map_err(said)?, policy, since);
    }
    if since.is_some() {
        return Err("--since is for a proof of growth or an export: this proof is of entries".to_owned());
    }
    if proof.starts_with(batch_proof::FIRST) {
        let proof: BatchProof = proof.parse().map_err(said)?;
        let trusted = proof.verify(policy).map_err(said)?;
        let entries =
            proof.entries.iter().map(|(index, entry)| proved(*index, entry)).collect::<Result<_, _>>()?;
        return Ok(Verdict { entries, ..of(trusted) });
    }
    let proof: TlogProof = proof.parse().map_err(said)?;
    let entry = proof.extra.as_ref().ok_or("the proof has no entry in its line `extra`")?;
    let trusted = proof.verify(&hash::leaf(entry), policy).map_err(said)?;
    Ok(Verdict { entry: Some(proved(proof.index, entry)?), ..of(trusted) })
}

fn proved(index: u64, entry: &[u8]) -> Result<Proved, String> {
    let entry = Entry::decode(entry).map_err(said)?;
    Ok(Proved { index, time: super::rfc3339(entry.millis()), action: entry.action })
}

fn of_growth(proof: &Growth, policy: &Policy, since: &str) -> Result<Verdict, String> {
    let older = Note::parse(since).map_err(|why| format!("the earlier checkpoint: {why}"))?;
    let trusted = proof.verify(older, policy).map_err(said)?;
    Ok(Verdict { continues: Some(proof.old), ..of(trusted) })
}

fn of_export(
    folder: &Path,
    policy: &Policy,
    from: Option<u64>,
    since: Option<&str>,
    seen_by: Option<&Path>,
) -> Result<Verdict, String> {
    let export = exported(folder, policy).map_err(said)?;
    from.map_or(Ok(()), |from| export.begins_by(from)).map_err(said)?;
    let continues = since.map(|since| continued(since, policy, &export)).transpose()?;
    let seen = seen_by.map(|other| seen(other, policy, &export)).transpose()?;
    let records = records(folder, &export)?;
    let (mark, verdict) = (Some(export.kept.mark()), of(export.trusted));
    let (seen, seen_pruned) = seen.unzip();
    Ok(Verdict { mark, seen, seen_pruned, continues, records, ..verdict })
}

/// The log in a folder, all of it hashed again.
fn exported(folder: &Path, policy: &Policy) -> Result<Export, NoExport> {
    Export::read(policy, |path| match fs::read(folder.join(path)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
}

/// The log must continue a checkpoint that was verified before. All entries are here, so its root is computed.
fn continued(since: &str, policy: &Policy, export: &Export) -> Result<u64, String> {
    let now = &export.trusted;
    let note = Note::parse(since).map_err(|why| format!("the earlier checkpoint: {why}"))?;
    let before = policy.trusts(&note).map_err(|why| format!("the earlier checkpoint: {why}"))?.checkpoint;
    if before.origin != now.checkpoint.origin {
        return Err(format!(
            "the earlier checkpoint is of {}, not of {}",
            before.origin, now.checkpoint.origin
        ));
    }
    if before.size > now.checkpoint.size {
        return Err(format!(
            "the earlier checkpoint has {} entries, and {} are here",
            before.size, now.checkpoint.size
        ));
    }
    let root = export.kept.root_of(before.size).ok_or_else(|| {
        format!(
            "the earlier checkpoint has {} entries, and the log begins with entry {}: what was pruned between them is not \
             here to be compared. A checkpoint of at least so many entries can be, and an export from before the pruning",
            before.size,
            export.kept.mark()
        )
    })?;
    if root == before.root {
        return Ok(before.size);
    }
    Err(format!(
        "the first {} entries are not those of the earlier checkpoint: THE HISTORY WAS REWRITTEN; keep both \
         checkpoints, they are the evidence",
        before.size
    ))
}

/// What another log says that this one has signed must be of the entries here. It need not be believed: each checkpoint
/// in it has this log's own signature.
fn seen(other: &Path, policy: &Policy, export: &Export) -> Result<(u64, u64), String> {
    let now = &export.trusted;
    let path = other.join(RECORDS_FILE);
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}; export that log with --records", path.display()))?;
    let (origin, mut seen, mut pruned) = (&now.checkpoint.origin, 0, 0);
    for line in text.lines() {
        let Opened { index, record, .. } = serde_json::from_str(line).map_err(said)?;
        let record = Record::parse(record.as_bytes()).map_err(|why| format!("record {index}: {why}"))?;
        if record.action != COSIGNED || record.resource != *origin {
            continue;
        }
        let note = record.details.get("note").map_or("", String::as_str);
        let note = Note::parse(note).map_err(|why| format!("record {index} of the other log: {why}"))?;
        let signed = |log: &&Key| log.name == *origin && matches!(log.verify(&note), Ok(Some(_)));
        if policy.logs().iter().find(signed).is_none() {
            return Err(format!(
                "record {index} of the other log: {origin} has not signed what stands there"
            ));
        }
        let before: Checkpoint = note.text.parse().map_err(said)?;
        if before.size > now.checkpoint.size {
            return Err(format!(
                "entry {index} of the other log has a checkpoint of {} entries, and {} are here: export it again",
                before.size, now.checkpoint.size
            ));
        }
        if before.origin == *origin && before.size < export.kept.mark() {
            pruned += 1;
            continue;
        }
        if before.origin != *origin || export.kept.root_of(before.size) != Some(before.root) {
            return Err(format!(
                "entry {index} of the other log has a checkpoint of {} entries that {origin} has signed, and those \
                 here are others: THE HISTORY WAS REWRITTEN; keep both logs, they are the evidence",
                before.size
            ));
        }
        seen += 1;
    }
    Ok((seen, pruned))
}

fn records(folder: &Path, export: &Export) -> Result<Option<u64>, String> {
    let path = folder.join(RECORDS_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut records = 0;
    for line in text.lines() {
        let opened: Opened = serde_json::from_str(line).map_err(said)?;
        let salt = BASE64_STANDARD.decode(&opened.salt).ok().and_then(|salt| <[u8; 32]>::try_from(salt).ok());
        let salt = salt.ok_or_else(|| format!("the salt of record {} has not 32 bytes", opened.index))?;
        let entry =
            export.entry(opened.index).ok_or_else(|| format!("record {} is of no entry", opened.index))?;
        let entry = Entry::decode(entry).map_err(said)?;
        entry
            .commits_to(&salt, opened.record.as_bytes())
            .map_err(|why| format!("record {}: {why}", opened.index))?;
        records += 1;
    }
    Ok(Some(records))
}

#[cfg(test)]
mod tests {
    use rhumb_actors::audit::Signing;
    use rhumb_actors::audit::record::Outcome;
    use rhumb_actors::audit::seal::SecretKey;
    use rhumb_verify::export::{CHECKPOINT, Kept};
    use rhumb_verify::note::Signer;

    use super::*;

    const ORIGIN: &str = "mesh.example/audit/eu/n1";

    fn signer() -> Signer {
        let node = "eu/n1".parse().expect("a node");
        Signing::of(&SecretKey::new([7; 32]), "mesh.example", &node).log
    }

    fn entries(count: u64, first: &str) -> Vec<Vec<u8>> {
        let entry = |number: u64| if number == 0 { first.to_owned() } else { number.to_string() };
        (0..count).map(|number| entry(number).into_bytes()).collect()
    }

    /// The checkpoint of a log of these entries, signed.
    fn checkpoint(entries: &[Vec<u8>]) -> Note {
        let kept = Kept::of(0, &[], entries).expect("a whole log");
        let (size, root) = (kept.size(), kept.root());
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root, extensions: Vec::new() }.to_string();
        let signatures = vec![signer().sign(&text, 0)];
        Note { text, signatures }
    }

    fn export(folder: &Path, entries: &[Vec<u8>]) {
        for (path, bytes) in Kept::of(0, &[], entries).expect("a whole log").files(entries) {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        fs::write(folder.join(CHECKPOINT), checkpoint(entries).to_string()).expect("written");
    }

    /// Another log, which has seen this checkpoint.
    fn saw(folder: &Path, note: &str) {
        let record = Record::told(COSIGNED, "node us/n1", Outcome::Done).on(ORIGIN).with("note", note);
        let record = String::from_utf8(record.bytes().expect("a record")).expect("text");
        let line = serde_json::to_string(&Opened { index: 9, salt: String::new(), record }).expect("JSON");
        fs::write(folder.join(RECORDS_FILE), line + "\n").expect("written");
    }

    #[test]
    fn a_root_that_a_log_denies_stands_in_anothers_with_its_signature() {
        let (log, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let policy = format!("log {}\nquorum none\n", signer().key());
        let policy = Policy::parse(&policy).expect("a policy");
        let verified = || of_export(log.path(), &policy, None, None, Some(other.path()));
        let why = |verified: Result<Verdict, String>| verified.expect_err("not proved");
        export(log.path(), &entries(300, "paid"));
        saw(other.path(), &checkpoint(&entries(270, "paid")).to_string());
        assert_eq!(verified().expect("it continues it").seen, Some(1));
        saw(other.path(), &checkpoint(&entries(301, "paid")).to_string());
        assert!(why(verified()).contains("export it again"));
        // The first entry is another one now, and everything above it fits.
        export(log.path(), &entries(300, "not paid"));
        saw(other.path(), &checkpoint(&entries(270, "paid")).to_string());
        let told = why(verified());
        assert!(told.contains("entry 9 of the other log") && told.contains("REWRITTEN"), "{told}");
        // What the log never signed speaks against the other one.
        let forged = checkpoint(&entries(270, "paid")).to_string().replacen("\n270\n", "\n271\n", 1);
        saw(other.path(), &forged);
        assert!(why(verified()).contains("has not signed what stands there"));
    }
}
