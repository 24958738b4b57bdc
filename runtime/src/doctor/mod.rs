//! `rhumb doctor`: whether this machine is fit for a node, and what to do where it is not.
//!
//! * It decides: of what was found, what is well, what is a warning and what fails (`judge`).
//! * It never does: change anything, but for one file that it writes, measures and removes again.
//! * Invariant: whatever is not well says what was found, what would be right, and what to do.
//!
//! [`gather`](Facts::gather) touches the machine; judging is pure.

mod gather;
mod judge;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rhumb_transport::identity::Age;
use serde::Serialize;

use crate::clock::discipline::Discipline;
pub use gather::Asked;

/// What was found on a machine. What is not known there, or was not asked about, is none.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What the settings say, or their faults, where settings were named.
    pub settings: Option<Result<Wants, Vec<String>>>,
    /// `net.core.rmem_max` and `net.core.wmem_max`, in bytes.
    pub udp: Option<(u64, u64)>,
    /// How many files a process may have open: its soft and its hard limit.
    pub files: Option<(u64, u64)>,
    /// The kernel's word on the clock.
    pub clock: Option<Discipline>,
    /// How long syncs of appended blocks took.
    pub disk: Option<Result<Syncs, Unmeasured>>,
    /// Bytes that are free for the data, and bytes that there are.
    pub space: Option<(u64, u64)>,
    /// Bytes of memory that programs can have, and bytes that there are.
    pub memory: Option<(u64, u64)>,
    /// The node's certificate, or why it cannot be used.
    pub certificate: Option<Result<Certified, String>>,
    /// The data directory.
    pub data: Option<(PathBuf, DataDirectory)>,
    /// The node's addresses: what for, which, and whether it can have it.
    pub ports: Vec<(&'static str, SocketAddr, Port)>,
}

/// What the settings want of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Bytes of each buffer of the UDP socket.
    pub socket_buffer: u64,
    /// How far clocks may differ.
    pub max_offset: Duration,
    /// Bytes of the caches and tables in memory.
    pub memory: u64,
    /// Bytes of the write-ahead log.
    pub log: u64,
}

impl Default for Wants {
    /// Those of a node without settings of its own.
    fn default() -> Self {
        let (rocks, transport) =
            (rhumb_storage::rocks::RocksSettings::default(), rhumb_transport::TransportSettings::default());
        Self::of(&rocks, &transport, rhumb_core::time::DEFAULT_MAX_OFFSET)
    }
}

/// How long syncs took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syncs {
    /// How many were measured.
    pub count: usize,
    /// Half of them took at most this long.
    pub p50: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
}

/// Why syncs were not measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmeasured {
    /// The folder cannot be written to, for this reason.
    Denied(String),
    /// They did not end; this says for how long they were waited for.
    Stuck(String),
}

/// A node's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Whose it is.
    pub holder: String,
    /// Whose it must be.
    pub expected: String,
    /// How old it is.
    pub age: Age,
    /// Seconds that it has left.
    pub left: i64,
    /// Why a peer would refuse it, if one would.
    pub refused: Option<String>,
}

/// A node's data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataDirectory {
    /// It is not there, or there is nothing in it.
    Empty,
    /// One of its stores is not there.
    Lacks(&'static str),
    /// It is there, and nobody has it open.
    Free,
    /// A process has it open.
    InUse,
    /// Its lock cannot be looked at.
    Closed,
}

/// Whether an address can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// It can.
    Free,
    /// Somebody has it.
    InUse,
    /// It cannot, for this reason.
    Denied(String),
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// A node runs, but not as it should.
    Warn,
    /// A node does not start, or is not safe.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What is right.
    pub right: String,
    /// What to do, where it is not well.
    pub advice: Option<String>,
}

impl Facts {
    /// Every check that these facts allow.
    #[must_use]
    pub fn judge(&self) -> Vec<Check> {
        judge::all(self)
    }
}
