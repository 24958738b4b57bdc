//! `rhumb snapshot`: what keyspaces were at a time, held and copied out.

mod file;

use std::fmt;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use rhumb_actors::ranges::messages::{KvRead, KvRefusal, KvRow, MAX_ROWS, Needs};
use rhumb_actors::ranges::snapshots::{CreateSnapshot, ExportSnapshot, Held, RemoveSnapshot};
use rhumb_storage::mvcc::{KeyspaceId, UserKey, VersionKey};
use serde::Serialize;
use tempfile::NamedTempFile;

use self::file::{Manifest, Writer, verify};
use super::args::duration;
use super::connect::{Connect, ask_in_time};
use super::keyspace::listed;
use super::output::{Done, Failure, Output, rfc3339};
use crate::client::MeshClient;
use crate::client::kv::{Kv, nearest_first};

/// Snapshots of keyspaces: a consistent state at one time, held until it is removed or ends.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Hold what a keyspace is now.
    Create(Create),
    /// List what is held of keyspaces.
    Ls(Ls),
    /// Show a snapshot.
    Show(Named),
    /// Copy a snapshot into a file, with a manifest and hashes.
    Export(Export),
    /// Hold a snapshot no longer.
    Rm(Named),
    /// Check a file that was exported, without any node.
    Verify(Verify),
}

/// Hold what a keyspace is now.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb snapshot create profiles monday --keep 7d\n\nAll that was acknowledged before is in it, over all ranges as of one time, which `rhumb kv get --as-of` reads too. While it is held nothing that was written since is collected either. Ends with 5 while a node that has a replica has not said that it goes by it."
)]
pub struct Create {
    /// The keyspace.
    keyspace: String,
    /// The snapshot's name.
    name: String,
    /// For how long it is held.
    #[arg(long, value_parser = duration, value_name = "TIME", default_value = "1d")]
    keep: Duration,
    #[command(flatten)]
    connect: Connect,
}

/// List what is held of keyspaces.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb snapshot ls profiles")]
pub struct Ls {
    /// Of this one alone.
    keyspace: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

/// Which snapshot, and who is asked.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb snapshot show profiles monday\n  rhumb snapshot rm profiles monday"
)]
pub struct Named {
    /// The keyspace.
    keyspace: String,
    /// The snapshot's name.
    name: String,
    #[command(flatten)]
    connect: Connect,
}

/// Copy a snapshot into a file, with a manifest and hashes.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb snapshot export profiles monday --out profiles.snapshot\n\nValues of personal classes stay sealed: who was erased stays erased in it. The policy must let the region of the operator's certificate hold the class, for a file holds it; that it was exported is in the audit log. The file stands under its name only when it is whole and synced."
)]
pub struct Export {
    #[command(flatten)]
    of: Named,
    /// The file. One that is there is left alone.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Check a file that was exported, without any node.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rhumb snapshot verify profiles.snapshot\n\nEvery record is read, and compared with its checksum, the order, the manifest and its SHA-256. Ends with 5 when something is not as it was written. The hash shows that the file is whole; compare it with one that came another way to know whose it is."
)]
pub struct Verify {
    /// The file.
    file: PathBuf,
}

#[derive(Debug, Serialize)]
struct Shown {
    keyspace: String,
    snapshot: String,
    /// The time that it is of, as `--as-of` takes it.
    at: u64,
    at_ms: u64,
    until_ms: u64,
    /// Nodes with a replica that have not said that they go by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending: Option<Vec<String>>,
}

impl Shown {
    fn of(keyspace: &str, held: &Held) -> Self {
        Self {
            keyspace: keyspace.to_owned(),
            snapshot: held.name.clone(),
            at: held.at.to_bits(),
            at_ms: held.at.millis(),
            until_ms: held.until.millis(),
            pending: None,
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keyspace, snapshot, at, pending, .. } = self;
        let (of, until) = (rfc3339(self.at_ms), rfc3339(self.until_ms));
        write!(f, "{keyspace:<24} {snapshot:<24} as of {at} ({of}), held until {until}")?;
        match pending.as_deref() {
            None | Some([]) => Ok(()),
            Some(pending) => write!(f, "; {} did not say yet that they go by it", pending.join(", ")),
        }
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    snapshots: Vec<Shown>,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.snapshots.is_empty() {
            return f.write_str("there is no snapshot");
        }
        f.write_str(&self.snapshots.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }
}

#[derive(Debug, Serialize)]
struct Filed {
    file: PathBuf,
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(flatten)]
    manifest: Option<Manifest>,
}

impl fmt::Display for Filed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.manifest {
            Some(Manifest { keyspace, snapshot, rows, sealed, sha256, at, .. }) => write!(
                f,
                "{file}: whole: {rows} rows of {keyspace}, {sealed} of them sealed, snapshot {snapshot} as of {at}, SHA-256 {sha256}"
            ),
            None => write!(f, "{file}: NOT WHOLE: {}", self.why.as_deref().unwrap_or_default()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Removed {
    keyspace: String,
    snapshot: String,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is held no longer", self.snapshot, self.keyspace)
    }
}

impl SnapshotCommand {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        match self {
            Self::Create(create) => create.run(output).await,
            Self::Ls(Ls { keyspace, connect }) => {
                let snapshots = held(&connect, keyspace.as_deref()).await?;
                let all = Listed { snapshots };
                output.answer(&all, &all);
                Ok(Done::Well)
            }
            Self::Show(Named { keyspace, name, connect }) => {
                let all = held(&connect, Some(&keyspace)).await?;
                let shown = all.into_iter().find(|shown| shown.snapshot == name);
                let none = || KvRefusal::Invalid(format!("there is no snapshot {name} of {keyspace}"));
                let shown = shown.ok_or_else(none)?;
                output.answer(&shown, &shown);
                Ok(Done::Well)
            }
            Self::Export(export) => export.run(output).await,
            Self::Rm(Named { keyspace, name, connect }) => {
                let client = connect.operator().await?;
                let message = RemoveSnapshot { keyspace: keyspace.clone(), name: name.clone() };
                let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
                client.close().await;
                asked.answer??;
                let removed = Removed { keyspace, snapshot: name };
                output.answer(&removed, &removed);
                Ok(Done::Well)
            }
            Self::Verify(Verify { file }) => {
                let opened = std::fs::File::open(&file)
                    .map_err(|error| Failure::local(format!("{} cannot be read: {error}", file.display())))?;
                let filed = match verify(BufReader::new(opened)) {
                    Ok(manifest) => Filed { file, whole: true, why: None, manifest: Some(manifest) },
                    Err(why) => Filed { file, whole: false, why: Some(why.to_string()), manifest: None },
                };
                output.answer(&filed, &filed);
                Ok(if filed.whole { Done::Well } else { Done::False })
            }
        }
    }
}

async fn held(connect: &Connect, of: Option<&str>) -> Result<Vec<Shown>, Failure> {
    let spaces = listed(connect).await?;
    if let Some(name) = of.filter(|name| !spaces.iter().any(|space| space.name == **name)) {
        return Err(KvRefusal::NoSuchKeyspace(name.to_owned()).into());
    }
    let now = crate::client::now_ms();
    let spaces = spaces.iter().filter(|space| of.is_none_or(|name| space.name == name));
    let shown = spaces.flat_map(|space| {
        let held = space.held.iter().filter(move |held| held.until.millis() > now);
        held.map(|held| Shown::of(&space.name, held))
    });
    Ok(shown.collect())
}

impl Create {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let client = self.connect.operator().await?;
        let Self { keyspace, name, keep, .. } = self;
        let message = CreateSnapshot { keyspace: keyspace.clone(), name, keep };
        let asked = ask_in_time(&client, &nearest_first(&client, None), &message).await;
        client.close().await;
        let taken = asked.answer??;
        let pending: Vec<String> = taken.pending.iter().map(ToString::to_string).collect();
        let done = if pending.is_empty() { Done::Well } else { Done::False };
        let shown = Shown { pending: Some(pending), ..Shown::of(&keyspace, &taken.held) };
        output.answer(&shown, &shown);
        Ok(done)
    }
}

impl Export {
    async fn run(self, output: &Output) -> Result<Done, Failure> {
        let Self { of: Named { keyspace, name, connect }, out } = self;
        if out.exists() {
            let why = format!("{} is there already: give another --out", out.display());
            return Err(Failure::Usage(why));
        }
        let client = connect.operator().await?;
        let written = export(&client, &keyspace, name, &out).await;
        client.close().await;
        let filed = Filed { file: out, whole: true, why: None, manifest: Some(written?) };
        output.answer(&filed, &filed);
        Ok(Done::Well)
    }
}

async fn export(client: &MeshClient, keyspace: &str, name: String, out: &Path) -> Result<Manifest, Failure> {
    let message = ExportSnapshot { keyspace: keyspace.to_owned(), name: name.clone() };
    let may = ask_in_time(client, &nearest_first(client, None), &message).await.answer??;
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fresh = NamedTempFile::new_in(folder).map_err(Failure::local)?;
    let mut writer = Writer::begin(BufWriter::new(fresh)).map_err(Failure::local)?;
    let kv = Kv::open(client, keyspace, None).await?;
    let mut from = Some(Vec::new());
    while let Some(first) = from {
        let asks = kv.asks(Needs::AsOf(may.held.at));
        let page = KvRead { from: first, to: Some(Vec::new()), limit: MAX_ROWS, as_stored: true, ..asks };
        let answer = kv.read(page).await?;
        for row in answer.rows {
            let (key, sealed) = (key_of(may.id, &row)?, row.sealed_under.is_some());
            writer.row(&key, &row.value, sealed).map_err(Failure::local)?;
        }
        from = answer.next;
    }
    let manifest = Manifest {
        keyspace: keyspace.to_owned(),
        id: may.id,
        class: may.class.to_string(),
        snapshot: name,
        at: may.held.at.to_bits(),
        rows: 0,
        sealed: 0,
        sha256: String::new(),
    };
    let (manifest, file) = writer.end(manifest).map_err(Failure::local)?;
    let file = file.into_inner().map_err(|error| Failure::local(error.into_error()))?;
    file.as_file().sync_all().map_err(Failure::local)?;
    file.persist_noclobber(out).map_err(|refused| Failure::local(refused.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(Failure::local)?;
    Ok(manifest)
}

/// The key that a row has on disks.
fn key_of(keyspace: u32, row: &KvRow) -> Result<Vec<u8>, Failure> {
    let key = UserKey::new(row.key.clone()).map_err(Failure::local)?;
    Ok(VersionKey { keyspace: KeyspaceId(keyspace), key, at: row.version }.encode())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rhumb_core::HybridTime;

    use super::*;

    #[test]
    fn a_snapshot_says_for_people_when_it_is_of_and_until_when_it_is_held() {
        let (at, until) = (HybridTime::new(1_795_374_708_847, 1), HybridTime::new(1_795_461_108_000, 0));
        let shown = Shown::of("profiles", &Held { name: "monday".to_owned(), at, until });
        expect!["profiles                 monday                   as of 117661676918996993 (2026-11-22T19:11:48.847Z), held until 2026-11-23T19:11:48Z"]
            .assert_eq(&shown.to_string());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("none.snapshot");
        let verify = SnapshotCommand::Verify(Verify { file: file.clone() });
        let ended = verify.run(&Output::new(super::super::output::Format::Json)).await;
        let why = ended.expect_err("it is not there").message();
        assert!(why.starts_with(&format!("{} cannot be read: ", file.display())), "{why}");
    }
}
