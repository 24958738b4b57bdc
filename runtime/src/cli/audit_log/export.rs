//! `rhumb audit export`.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::{Args, ValueEnum};
use rhumb_actors::audit::Edge;
use rhumb_actors::audit::messages::{AuditRefusal, EntryView, Mark};
use rhumb_actors::audit::read::split;
use rhumb_verify::export::{CHECKPOINT, Kept};
use rhumb_verify::{Checkpoint, Note};
use serde::Serialize;

use super::super::args::whole;
use super::super::output::{Done, Failure, Output};
use super::prove::{prove, published};
use super::sealed::{Recipients, Target};
use super::{RemoteLog, Shown, Whose, decoded};

/// The records of an exported log, with their salts.
pub(super) const RECORDS_FILE: &str = "records.jsonl";
/// How often an export is begun anew because the log was pruned under it.
const PRUNED_UNDER: usize = 5;

/// In which form entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ExportFormat {
    /// A folder in the layout of c2sp.org/tlog-tiles: checkpoint, tiles, bundles of entries. It can be verified.
    #[default]
    Tiles,
    /// A file with an object a line.
    Json,
    /// A file with a line an entry.
    Csv,
    /// A folder with a c2sp.org/tlog-proof an entry.
    TlogProof,
}

/// Write a log, or a part of it, to files.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb audit export --out log\n  rhumb audit export --format csv --out log.csv --from 100\n  rhumb audit export --out log --records\n  rhumb audit export --out log.tar.age --records --encrypt age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n\nTiles are of the whole published log, so that anybody can verify them: `rhumb audit verify --export log --policy FILE`. Of a pruned log they begin with the first entry that is there, which the file `minimum-index` says, and have the hashes of what was before. Records (with --records) are personal data, and are written as they are: keep them as such, or encrypt them. With --encrypt there is one file, which `age --decrypt` opens: of a form that is a folder (tiles, tlog-proof) a tar archive. What is not encrypted is written nowhere."
)]
pub struct Export {
    /// The form.
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
    /// The file or folder, which must not be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// From this number on, from the first one that was not pruned unless given; tiles are of everything.
    #[arg(long, value_parser = whole::<u64>)]
    from: Option<u64>,
    /// Also the records that can be opened.
    #[arg(long)]
    records: bool,
    /// Encrypt it to this recipient (age1…), or to those of a file, one a line. May be given more than once.
    #[arg(long, value_name = "RECIPIENT")]
    encrypt: Vec<String>,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Debug, Serialize)]
struct Exported {
    node: String,
    out: PathBuf,
    /// Entries that were written.
    entries: u64,
    /// Records that were.
    records: u64,
    /// Records that were asked for and are not what was sealed.
    changed: u64,
    /// The number of the first of them.
    from: u64,
    /// The first entry of the log that was not pruned.
    mark: u64,
    /// Entries under the published checkpoint.
    size: u64,
    /// It is encrypted.
    encrypted: bool,
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, entries, records, size, .. } = self;
        write!(
            f,
            "{}: {entries} entries and {records} records of {node}, whose published checkpoint has {size}",
            self.out.display()
        )?;
        if self.mark > 0 {
            write!(f, "; it begins with entry {}, and those before were pruned", self.mark)?;
        }
        if self.changed > 0 {
            write!(f, "; {} records are not what was sealed: `rhumb audit fsck` names them", self.changed)?;
        }
        Ok(())
    }
}

/// What is exported of a log.
struct Taken {
    mark: Mark,
    note: Note,
    checkpoint: Checkpoint,
    from: u64,
    views: Vec<EntryView>,
}

/// A record and its salt, as they stand in [`RECORDS_FILE`].
#[derive(Debug, Serialize, serde::Deserialize)]
pub(super) struct Opened {
    pub(super) index: u64,
    /// 32 bytes in base64.
    pub(super) salt: String,
    /// The record's bytes, which are JSON, as a text.
    pub(super) record: String,
}

impl Export {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        if self.out.exists() {
            return Err(Failure::Usage(format!("{} is there already", self.out.display())));
        }
        let to = (!self.encrypt.is_empty()).then(|| Recipients::of(&self.encrypt)).transpose()?;
        let log = self.whose.log().await?;
        let taken = self.taken(&log).await?;
        let Taken { mark, note, checkpoint, from, views } = &taken;
        let folder = matches!(self.format, ExportFormat::Tiles | ExportFormat::TlogProof);
        let mut proofs = Vec::new();
        if self.format == ExportFormat::TlogProof {
            // Before anything is written: the log may be pruned meanwhile.
            for view in views {
                proofs.push((view.index, prove(&log, view.index, note, checkpoint).await?.1));
            }
        }
        let mut target = Target::begin(&self.out, folder, to.as_ref())?;
        match self.format {
            ExportFormat::Tiles => tiles(&mut target, &taken)?,
            ExportFormat::Json => self.lines(&mut target, views, |view| {
                let shown = Shown::of(view)?;
                serde_json::to_string(&Json { shown, entry: BASE64_STANDARD.encode(&view.entry) })
                    .map_err(Failure::local)
            })?,
            ExportFormat::Csv => self.lines(&mut target, views, csv)?,
            ExportFormat::TlogProof => {
                for (index, proof) in proofs {
                    target.put(&format!("{index}.tlog-proof"), proof.to_string())?;
                }
            }
        }
        target.finish()?;
        log.close().await;
        let answer = Exported {
            node: log.node.to_string(),
            entries: views.len() as u64,
            records: views.iter().filter(|view| !view.record.is_empty()).count() as u64,
            changed: views.iter().filter(|view| view.changed).count() as u64,
            from: *from,
            mark: mark.mark,
            size: checkpoint.size,
            encrypted: to.is_some(),
            out: self.out,
        };
        output.answer(&answer, &answer);
        Ok(Done::Well)
    }

    /// What there is to export. A log that is pruned while it is read is read again from its new beginning.
    async fn taken(&self, log: &RemoteLog) -> Result<Taken, Failure> {
        let mut tries = 0;
        loop {
            // The mark first: what is published after it is of at least so many entries.
            let mark = log.mark().await?;
            let (note, checkpoint) = published(&log.view().await?)?;
            let whole = self.format == ExportFormat::Tiles;
            let from = self.from.filter(|_| !whole).unwrap_or(mark.mark);
            let mut views = Vec::new();
            let read = log.entries((from, checkpoint.size), self.records, "", |view| {
                decoded(&view)?;
                views.push(view);
                Ok(())
            });
            match read.await {
                Ok(end) if end < checkpoint.size && from <= end => {
                    return Err(Failure::local(format!(
                        "{} gave its entries only to {end}, and its checkpoint is of {}: nothing was written",
                        log.node, checkpoint.size
                    )));
                }
                Ok(_) => return Ok(Taken { mark, note, checkpoint, from, views }),
                Err(Failure::NotAudited(AuditRefusal::Pruned { .. }))
                    if from == mark.mark && tries < PRUNED_UNDER =>
                {
                    tries += 1;
                }
                Err(why) => return Err(why),
            }
        }
    }

    fn lines(
        &self,
        target: &mut Target,
        views: &[EntryView],
        line: impl Fn(&EntryView) -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        let head =
            if self.format == ExportFormat::Csv { "index,time,action,commitment,record\n" } else { "" };
        let mut text = head.to_owned();
        for view in views {
            writeln!(text, "{}", line(view)?).ok();
        }
        target.put("", text)
    }
}

/// The whole log in C2SP's layout, and the records beside it.
fn tiles(target: &mut Target, taken: &Taken) -> Result<(), Failure> {
    let Taken { mark, note, checkpoint, views, .. } = taken;
    let entries: Vec<&[u8]> = views.iter().map(|view| view.entry.as_slice()).collect();
    let left = split(&mark.edge).and_then(|hashes| Edge::left_of(mark.mark, &hashes));
    let kept = left.and_then(|left| Kept::of(mark.mark, left.levels(), &entries));
    let kept = kept.filter(|kept| kept.size() == checkpoint.size && kept.root() == checkpoint.root);
    let kept = kept.ok_or_else(|| {
        Failure::local(
            "the node's entries, and the hashes of those that it pruned, are not those that its checkpoint is of",
        )
    })?;
    for (path, bytes) in kept.files(&entries) {
        target.put(&path, bytes)?;
    }
    let opened = views.iter().filter(|view| !view.record.is_empty());
    let mut records = String::new();
    for view in opened {
        let opened = Opened {
            index: view.index,
            salt: BASE64_STANDARD.encode(&view.salt),
            record: String::from_utf8_lossy(&view.record).into_owned(),
        };
        writeln!(records, "{}", serde_json::to_string(&opened).map_err(Failure::local)?).ok();
    }
    if !records.is_empty() {
        target.put(RECORDS_FILE, records)?;
    }
    // Last, so that a folder with a checkpoint has all that it is of.
    target.put(CHECKPOINT, note.to_string())
}

#[derive(Serialize)]
struct Json {
    #[serde(flatten)]
    shown: Shown,
    /// The entry, in base64.
    entry: String,
}

fn csv(view: &EntryView) -> Result<String, Failure> {
    let shown = Shown::of(view)?;
    let record = shown.record.as_ref().map_or(String::new(), ToString::to_string);
    // RFC 4180: a field with commas or quotes stands in quotes, and its own are doubled.
    let record = format!("\"{}\"", record.replace('"', "\"\""));
    Ok(format!("{},{},{},{},{record}", shown.index, shown.time, shown.action, shown.commitment))
}
