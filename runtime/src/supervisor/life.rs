//! Where the crash record is kept: `last-stop.json` in the node's data directory.
//!
//! * It decides nothing: [`LastStop`] does.
//! * It never does: write into a directory that is not this node's; that is why it begins to write only
//!   when the control store has said whose it is.
//!
//! The record is not synced: a process that dies leaves it to the operating system, and a machine that
//! loses power loses one count at most.

use std::io;
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
    /// The directory is this node's: the record may be written.
    ours: bool,
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
        now.ours |= ours;
        if !now.ours {
            return;
        }
        now.last = with(std::mem::take(&mut now.last));
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
    std::fs::write(&new, serde_json::to_string_pretty(last)?)?;
    std::fs::rename(&new, file)
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
    fn what_is_no_record_begins_anew() {
        let data = tempfile::tempdir().expect("a directory");
        let file = data.path().join(LAST_STOP_FILE);
        std::fs::write(&file, "{").expect("writes");
        assert_eq!(read(&file), LastStop::default());
    }
}
