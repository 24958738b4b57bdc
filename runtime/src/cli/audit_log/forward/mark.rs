//! How far a log was passed on, in a file.
//!
//! * It decides: whether a file is of the log that is to be passed on.
//! * It never does: go on from what it cannot read, or let two commands use one file.
//! * Invariant: the file on the disk is a whole one, the last or the one before it, also after a power cut.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rhumb_verify::Hash;
use serde::{Deserialize, Serialize};

use super::super::super::output::Failure;
use super::super::follow::Place;

/// The form of the file.
const FORM: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// Which form of such a file it is.
    rhumb_audit_forward: u8,
    /// The name of the log's key.
    log: String,
    /// The number of the first entry that was not passed on.
    next: u64,
    /// The leaf of the entry before it, in base64.
    leaf: Option<String>,
}

/// The file, which nobody else uses until this is dropped.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    log: String,
    /// Closed, it is unlocked, also by the end of the process.
    _lock: File,
}

impl Mark {
    /// Takes the file for itself, and reads it. None where there is no file yet.
    ///
    /// # Errors
    /// It is another log's, somebody else uses it, or it is no such file.
    pub(super) fn open(path: &Path, log: &str) -> Result<(Self, Option<Place>), Failure> {
        let failed = |error: io::Error| Failure::local(format!("{}: {error}", path.display()));
        let wrong = |why: String| {
            Failure::Usage(format!(
                "{}: {why}; expected a file that this command wrote, or none yet",
                path.display()
            ))
        };
        let lock = File::options().create(true).truncate(false).write(true).open(beside(path, "lock"));
        let lock = lock.map_err(failed)?;
        lock.try_lock().map_err(|refused| match refused {
            TryLockError::WouldBlock => Failure::Usage(format!(
                "{}: another command passes a log on with this file; expected one that nobody uses",
                path.display()
            )),
            TryLockError::Error(error) => failed(error),
        })?;
        let mark = Self { path: path.to_owned(), log: log.to_owned(), _lock: lock };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((mark, None)),
            Err(error) => return Err(failed(error)),
        };
        let written: Written = serde_json::from_str(&text).map_err(|why| wrong(why.to_string()))?;
        if written.rhumb_audit_forward != FORM {
            return Err(wrong(format!("it has the form {}", written.rhumb_audit_forward)));
        }
        if written.log != log {
            return Err(wrong(format!("it is of the log {}, not of {log}", written.log)));
        }
        let last: Option<Hash> = written
            .leaf
            .map(|leaf| leaf.parse())
            .transpose()
            .map_err(|_| wrong("its leaf is no hash".to_owned()))?;
        if last.is_some() && written.next == 0 {
            return Err(wrong("it has a leaf before entry 0".to_owned()));
        }
        Ok((mark, Some(Place { next: written.next, last })))
    }

    /// Writes how far it has come, durably.
    ///
    /// # Errors
    /// It is not written; the file is the one before.
    pub(super) fn write(&self, place: Place) -> Result<(), Failure> {
        let leaf = place.last.map(|leaf| leaf.to_string());
        let written = Written { rhumb_audit_forward: FORM, log: self.log.clone(), next: place.next, leaf };
        self.replace(&written).map_err(|error| Failure::local(format!("{}: {error}", self.path.display())))
    }

    fn replace(&self, written: &Written) -> io::Result<()> {
        let new = beside(&self.path, "new");
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(written)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(what);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use rhumb_verify::hash::leaf;

    use super::*;

    const LOG: &str = "mesh.example/audit/eu/n1";

    #[test]
    fn it_is_read_as_it_was_written_by_one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("siem.state");
        let (mark, none) = Mark::open(&path, LOG).expect("there is none yet");
        assert_eq!(none, None);
        let places = [Place { next: 5, last: Some(leaf(b"e")) }, Place { next: 3, last: None }];
        for place in places {
            mark.write(place).expect("written");
        }
        let busy = Mark::open(&path, LOG).expect_err("it is in use").message();
        assert!(busy.contains("another command"), "{busy}");
        drop(mark);
        let (mark, read) = Mark::open(&path, LOG).expect("free");
        assert_eq!(read, Some(places[1]));
        mark.write(places[0]).expect("written");
        drop(mark);
        assert_eq!(Mark::open(&path, LOG).expect("free").1, Some(places[0]));
    }

    #[test]
    fn what_is_no_such_file_or_of_another_log_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("siem.state");
        let leaf = leaf(b"e");
        for (text, why) in [
            ("", "EOF"),
            ("{\"next\":3}", "missing field"),
            (r#"{"rhumb_audit_forward":2,"log":"x","next":3,"leaf":null}"#, "the form 2"),
            (r#"{"rhumb_audit_forward":1,"log":"x","next":3,"leaf":null}"#, "of the log x"),
            (r#"{"rhumb_audit_forward":1,"log":"mesh.example/audit/eu/n1","next":3,"leaf":"x"}"#, "no hash"),
            (
                &format!(r#"{{"rhumb_audit_forward":1,"log":"{LOG}","next":0,"leaf":"{leaf}"}}"#),
                "before entry 0",
            ),
        ] {
            fs::write(&path, text).expect("written");
            let said = Mark::open(&path, LOG).expect_err(text).message();
            assert!(said.contains(why) && said.contains("expected a file"), "{said}");
        }
    }
}
