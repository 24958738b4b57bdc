//! The right to change what an authority's folder holds.
//!
//! * It decides: who changes it now. Commands that change it wait for one another, a few seconds at most.
//! * It never does: hold back who only reads. Every file is replaced in one step.
//! * Invariant: what a change was made from is still so when it is written. Two revocations at one time make a
//!   list that names both, and a renewal puts no list into a folder that is older than the folder's own.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::{AuthorityFault, file};

/// What is locked. It holds nothing, and stays.
const LOCK_FILE: &str = "LOCK";
/// How long another command is waited for. Commands let go before they deliver or watch.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// How often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// An authority's folder that nobody else changes until this is dropped.
#[derive(Debug)]
pub struct Lock {
    /// Closed, it is unlocked, also by the end of the process.
    _file: File,
}

impl Lock {
    /// Waits until nobody else changes the folder.
    ///
    /// # Errors
    /// [`AuthorityFault::Busy`] where somebody still does after ten seconds; [`AuthorityFault::File`].
    pub fn take(folder: &Path) -> Result<Self, AuthorityFault> {
        Self::take_within(folder, WITHIN)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "another process lets go when it does: tried until a deadline"
    )]
    pub(super) fn take_within(folder: &Path, within: Duration) -> Result<Self, AuthorityFault> {
        let path = folder.join(LOCK_FILE);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let opened = opened.map_err(|source| file(&path, source))?;
        let until = std::time::Instant::now() + within;
        loop {
            match opened.try_lock() {
                Ok(()) => return Ok(Self { _file: opened }),
                Err(TryLockError::Error(source)) => return Err(file(&path, source)),
                Err(TryLockError::WouldBlock) if std::time::Instant::now() >= until => {
                    return Err(AuthorityFault::Busy(folder.to_owned()));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(TRY_EVERY),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_changes_a_folder_at_a_time() {
        let folder = tempfile::tempdir().expect("a directory");
        let held = Lock::take(folder.path()).expect("free");
        let busy = Lock::take_within(folder.path(), Duration::from_millis(30)).expect_err("held").to_string();
        assert!(busy.contains("another command is changing"), "{busy}");
        drop(held);
        Lock::take(folder.path()).expect("free again");
    }
}
