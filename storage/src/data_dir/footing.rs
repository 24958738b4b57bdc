//! Whether an open data directory still stands under its path.
//!
//! * It decides: that a part which is gone, or in whose place something else stands, is lost. Open files
//!   outlive their names, so that no write or sync would ever say so.
//! * It never does: take what cannot be looked at for lost.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fault::{FaultCause, StorageFault};

/// What keeps its identity for as long as the directory is open: files that neither store replaces.
const PARTS: [&str; 6] = ["", "LOCK", "control", "control/db", "hot", "hot/IDENTITY"];

/// The parts of a data directory as they were when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footing(Vec<(PathBuf, FileId)>);

/// Device and inode.
type FileId = (u64, u64);

impl Footing {
    /// What stands there now.
    pub(super) fn of(path: &Path) -> Self {
        let parts = PARTS.iter().map(|part| if part.is_empty() { path.into() } else { path.join(part) });
        Self(parts.filter_map(|part: PathBuf| Some((part.clone(), file_id(&part).ok()?))).collect())
    }

    /// Looks whether all of it is there still. It asks the file system, which may take its time.
    ///
    /// # Errors
    /// Which part is lost, and how.
    pub fn check(&self) -> Result<(), StorageFault> {
        for (part, was) in &self.0 {
            let how = match file_id(part) {
                Ok(is) if is == *was => continue,
                Ok(_) => "something else stands in its place",
                Err(error) if is_gone(&error) => "it was removed",
                Err(_) => continue,
            };
            let detail = format!(
                "{} is not what this process has open: {how}; what is written now would be lost. Put the directory \
                 back, or replace the node",
                part.display()
            );
            return Err(StorageFault::new(FaultCause::Missing, "keep the data directory", detail));
        }
        Ok(())
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
