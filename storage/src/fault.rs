//! What may go wrong with a disk. A fault knows its cause, so that an operator is told what to do and
//! a program need not read prose.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::commit::CommitNumber;

/// The kinds of trouble that call for different action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultCause {
    /// No space is left: free some, then restart.
    NoSpace,
    /// The file system does not let this process write (or read) there.
    Denied,
    /// Another process, or another handle of this one, has it open.
    InUse,
    /// A file or directory that must be there is not.
    Missing,
    /// Bytes on disk are not what was written.
    Corrupt,
    /// The store was closed, or its disk went away under it.
    Closed,
    /// Any other input or output error of the operating system or the engine.
    Io,
}

impl fmt::Display for FaultCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoSpace => "no space left",
            Self::Denied => "not permitted",
            Self::InUse => "in use",
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
            Self::Closed => "closed",
            Self::Io => "input/output error",
        })
    }
}

/// Why an engine could not do what it was asked. After one of a write or a sync the store is poisoned:
/// stop, restart, recover.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{doing}: {cause}: {detail}")]
pub struct StorageFault {
    /// What kind of trouble.
    pub cause: FaultCause,
    /// What was being done, such as `sync the write-ahead log`.
    pub doing: String,
    /// What the engine or the operating system said.
    pub detail: String,
}

impl StorageFault {
    /// A fault of its parts.
    pub fn new(cause: FaultCause, doing: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { cause, doing: doing.into(), detail: detail.into() }
    }

    /// A fault of an operating-system error.
    pub fn io(doing: impl Into<String>, error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FaultCause::NoSpace,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => FaultCause::Denied,
            io::ErrorKind::NotFound => FaultCause::Missing,
            io::ErrorKind::WouldBlock => FaultCause::InUse,
            _ => FaultCause::Io,
        };
        Self::new(cause, doing, error.to_string())
    }
}

/// Why an engine did not open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EngineOpenError {
    /// The engine failed.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// What was promised durable is damaged. Nothing was changed on disk.
    #[error(
        "{} is damaged at byte {offset} ({what}): commit {lost} is lost although {} names {durable} as durable \
         at byte {named_at}; do not start this node from this directory: restore it or replace the node",
        file.display(), named_in.display()
    )]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// The first commit that is lost.
        lost: CommitNumber,
        /// The highest commit that a later record calls durable.
        durable: CommitNumber,
        /// The file of that record.
        named_in: PathBuf,
        /// Where that record stands, in bytes.
        named_at: u64,
    },
    /// The engine came back with less than its log holds.
    #[error(
        "recovery of {} ended at commit {recovered}, but its log holds commit {held}: do not start this node \
         from this directory: restore it or replace the node",
        path.display()
    )]
    Shortened {
        /// The engine's directory.
        path: PathBuf,
        /// The last commit that the engine shows.
        recovered: CommitNumber,
        /// The last commit that its log holds.
        held: CommitNumber,
    },
}
