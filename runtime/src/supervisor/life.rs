//! Where the crash record is kept: `last-stop.json` in the node's data directory.
//!
//! * It decides nothing: [`LastStop`] does.
//! * It never does: write into a directory that is not this node's; that is why it begins to write only
//!   when the control store has said whose it is, and not into what stands in that directory's place later.
//! * Invariant: the record on the disk is a whole one, the last or the one before it, also after the machine
//!   lost its power.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_core::rng::Seed;

use super::crashes::{CrashSettings, LastStop};
use super::notify;
use crate::clock::now_millis;

/// The record's name in a data directory.
pub const LAST_STOP_FILE: &str = "last-stop.json";

/// This life of the node. Cloneable; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Life {
    file: PathBuf,
    now: Arc<Mutex<Now>>,
}

#[derive(Debug, Default)]
struct Now {
    last: LastStop,
    /// The directory that is this node's, by device and inode: the record may be written there.
    ours: Option<(u64, u64)>,
}

impl Life {
    /// A life on this data directory.
    pub(super) fn on(data: &Path) -> Self {
        Self { file: data.join(LAST_STOP_FILE), now: Arc::default() }
    }

    /// Waits, if the node has died too often lately, and says why.
    pub(super) async fn pause(&self, settings: &CrashSettings) {
        let (last, pause) = read(&self.file).wanted(now_millis(), settings, &mut Seed::from_entropy().rng());
        self.now.lock().last = last;
        let Some(pause) = pause else { return };
        tracing::warn!(
            wait = ?pause.wait,
            ends = pause.ends,
            within = ?settings.window,
            last = %pause.why,
            "this node has ended abnormally too often: it waits before it starts (SIGTERM ends the wait)"
        );
        notify::status(&format!("waits {:?} after {} abnormal ends: {}", pause.wait, pause.ends, pause.why));
        notify::extend(pause.wait);
        tokio::time::sleep(pause.wait).await;
    }

    /// The directory is this node's, and the life begins.
    pub(super) fn begun(&self) {
        self.turn(true, |last| last.begun(now_millis()));
    }

    /// The node cannot go on, or could not start.
    pub(super) fn failed(&self, why: &str) {
        self.turn(false, |last| last.failed(now_millis(), why));
    }

    /// The directory is this node's, although the start failed before it began.
    pub(super) fn failed_at_home(&self, why: &str) {
        self.turn(true, |last| last.failed(now_millis(), why));
    }

    /// The node stopped as it was asked to.
    pub(super) fn stopped(&self) {
        self.turn(false, |_| LastStop::stopped(now_millis()));
    }

    fn turn(&self, ours: bool, with: impl FnOnce(LastStop) -> LastStop) {
        let mut now = self.now.lock();
        let stands = stands(&self.file);
        if ours && now.ours.is_none() {
            now.ours = stands;
        }
        if now.ours.is_none() {
            return;
        }
        now.last = with(std::mem::take(&mut now.last));
        if now.ours != stands {
            let file = self.file.display();
            return tracing::warn!(%file, "the crash record was not written: its directory is gone, or another one");
        }
        if let Err(error) = write(&self.file, &now.last) {
            tracing::warn!(file = %self.file.display(), %error, "the crash record was not written");
        }
    }
}

/// How long the next start of a node on this data directory will wait, at the most.
pub(crate) fn pause_ahead(data: &Path, settings: &CrashSettings) -> std::time::Duration {
    let wanted = read(&data.join(LAST_STOP_FILE)).wanted(now_millis(), settings, &mut Seed::new(0).rng());
    wanted.1.map_or(std::time::Duration::ZERO, |pause| pause.wait)
}

fn read(file: &Path) -> LastStop {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return LastStop::default(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the crash record cannot be read; it begins anew");
            return LastStop::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "the crash record is not one; it begins anew");
        LastStop::default()
    })
}

fn write(file: &Path, last: &LastStop) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut record = File::create(&new)?;
    record.write_all(serde_json::to_string_pretty(last)?.as_bytes())?;
    record.sync_all()?;
    fs::rename(&new, file)?;
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// The directory of the record, as it is now.
fn stands(file: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(file.parent()?).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_written_only_where_the_directory_is_ours() {
        let data = tempfile::tempdir().expect("a directory");
        let file = data.path().join(LAST_STOP_FILE);
        let life = Life::on(data.path());
        life.failed("not ours");
        life.stopped();
        assert!(!file.exists());
        life.begun();
        assert_eq!(read(&file).state, super::super::crashes::State::Running);
        life.failed("the disk is gone");
        assert_eq!(read(&file).why.as_deref(), Some("the disk is gone"));
        life.stopped();
        assert!(read(&file).ends_ms.is_empty());
    }

    #[test]
    fn a_directory_that_took_the_place_of_ours_is_left_alone() {
        let place = tempfile::tempdir().expect("a directory");
        let data = place.path().join("data");
        fs::create_dir(&data).expect("a directory");
        let life = Life::on(&data);
        life.begun();
        fs::rename(&data, place.path().join("moved")).expect("renames");
        life.failed("its directory is gone");
        fs::create_dir(&data).expect("a directory");
        life.failed("another directory");
        assert_eq!(fs::read_dir(&data).expect("reads").count(), 0);
        let before = read(&place.path().join("moved").join(LAST_STOP_FILE));
        assert_eq!(before.state, super::super::crashes::State::Running, "as it was left");
    }

    #[test]
    fn what_is_no_record_begins_anew() {
        let data = tempfile::tempdir().expect("a directory");
        let file = data.path().join(LAST_STOP_FILE);
        std::fs::write(&file, "{").expect("writes");
        assert_eq!(read(&file), LastStop::default());
    }
}
