//! What a node reads and writes by.
//!
//! * It decides: in which format something is written that other nodes read; whether one that was read is known.
//! * It never does: let the version fall that it writes by.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rhumb_core::canary::{self, Canary};
use rhumb_core::{ClusterVersion, Knows};
use thiserror::Error;

/// Something is written in a format that this build does not know. It is not guessed what it means.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{what} is of format {format}, and this build knows {knows}: the mesh was raised above it; start a build that knows \
     cluster version {format}"
)]
pub struct UnknownFormat {
    /// What.
    pub what: &'static str,
    /// Its format.
    pub format: ClusterVersion,
    /// What this build knows.
    pub knows: Knows,
}

/// The mesh is at a version that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the mesh is at cluster version {version}, or this node has promised to know it, and this build knows {knows}: start \
     a build that knows cluster version {version}"
)]
pub struct UnknownVersion {
    /// That one.
    pub version: ClusterVersion,
    /// What this build knows.
    pub knows: Knows,
}

/// What a node reads and writes by. Cheap to ask: each command that is proposed asks.
#[derive(Debug)]
pub struct Formats {
    knows: Knows,
    active: AtomicU32,
    /// Commands that were proposed here, by format, from the oldest known one on.
    written: Vec<AtomicU64>,
}

impl Formats {
    /// Those of a node that knows these versions and has not seen yet which one is active: it writes the oldest.
    #[must_use]
    pub fn new(knows: Knows) -> Self {
        let written = (knows.oldest.0..=knows.newest.0).map(|_| AtomicU64::new(0)).collect();
        Self { knows, active: AtomicU32::new(knows.oldest.0), written }
    }

    /// What the build knows.
    #[must_use]
    pub fn knows(&self) -> Knows {
        self.knows
    }

    /// The version that the node has seen.
    #[must_use]
    pub fn active(&self) -> ClusterVersion {
        ClusterVersion(self.active.load(Ordering::Acquire))
    }

    /// The node has seen this version. One below what it has seen before changes nothing.
    ///
    /// # Errors
    /// [`UnknownVersion`]: this build must not go on.
    pub fn saw(&self, version: ClusterVersion) -> Result<(), UnknownVersion> {
        if !self.knows.has(version) {
            return Err(UnknownVersion { version, knows: self.knows });
        }
        self.active.fetch_max(version.0, Ordering::AcqRel);
        Ok(())
    }

    /// The format in which something is written now that other nodes read.
    #[must_use]
    pub fn writes(&self) -> ClusterVersion {
        if canary::sings(Canary::FormatBeforeVersion) {
            return self.knows.newest;
        }
        self.active()
    }

    /// A command is proposed in a format.
    pub(crate) fn wrote(&self, format: ClusterVersion) {
        let at = format.0.saturating_sub(self.knows.oldest.0) as usize;
        if let Some(count) = self.written.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many commands were proposed here, by format.
    pub fn written(&self) -> impl Iterator<Item = (ClusterVersion, u64)> {
        (self.knows.oldest.0..)
            .zip(&self.written)
            .map(|(format, count)| (ClusterVersion(format), count.load(Ordering::Relaxed)))
    }

    /// Whether a format that was read is known here.
    ///
    /// # Errors
    /// [`UnknownFormat`].
    pub fn reads(&self, what: &'static str, format: ClusterVersion) -> Result<(), UnknownFormat> {
        // What was written before the oldest version that this build writes by is read for ever.
        match format <= self.knows.newest {
            true => Ok(()),
            false => Err(UnknownFormat { what, format, knows: self.knows }),
        }
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self::new(Knows::here())
    }
}

/// The format of versioned bytes: their first number, which counts from 0.
pub(crate) fn format_of(bytes: &[u8]) -> ClusterVersion {
    // One byte holds numbers up to 250; a longer number is one that nobody has used yet.
    ClusterVersion(bytes.first().map_or(0, |first| u32::from(*first)) + 1)
}

/// The format of versioned bytes, if there is code here that reads it. Whether a node may read it [`Formats::reads`] says.
///
/// # Errors
/// [`UnknownFormat`].
pub(crate) fn readable(what: &'static str, bytes: &[u8]) -> Result<ClusterVersion, UnknownFormat> {
    let format = format_of(bytes);
    let newest = Knows::RELEASE.newest.0 + u32::from(cfg!(feature = "canaries"));
    match format.0 <= newest {
        true => Ok(format),
        false => Err(UnknownFormat { what, format, knows: Knows::here() }),
    }
}
