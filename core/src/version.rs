//! The cluster version: which formats the nodes of a mesh may write, and which ones a build can read.
//!
//! * It decides: which cluster versions this build knows.
//! * It never does: know a later one outside of tests. The next version of the tests is compiled in with the feature `canaries`
//!   alone, which only the test rooms ask for (docs/decisions/0067).
//!
//! A format's number is the cluster version from which on it is written.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A version of the mesh as a whole. It only rises, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterVersion(pub u32);

impl ClusterVersion {
    /// The first one, in which every mesh begins.
    pub const FIRST: Self = Self(1);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for ClusterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which cluster versions a build knows: all their formats it can read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knows {
    /// The oldest.
    pub oldest: ClusterVersion,
    /// The newest.
    pub newest: ClusterVersion,
}

impl Knows {
    /// Those that this release was made with. A release with a new format raises `newest`.
    pub const RELEASE: Self = Self { oldest: ClusterVersion::FIRST, newest: ClusterVersion(1) };

    /// Those that this process knows: the release's.
    #[must_use]
    pub fn here() -> Self {
        match next::is_known() {
            true => Self { newest: Self::RELEASE.newest.next(), ..Self::RELEASE },
            false => Self::RELEASE,
        }
    }

    /// Whether it knows this one.
    #[must_use]
    pub fn has(&self, version: ClusterVersion) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }
}

impl fmt::Display for Knows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "cluster version {}", self.newest);
        }
        write!(f, "cluster versions {} to {}", self.oldest, self.newest)
    }
}

#[cfg(feature = "canaries")]
mod next {
    use std::sync::atomic::{AtomicBool, Ordering};

    static KNOWN: AtomicBool = AtomicBool::new(false);

    pub(super) fn is_known() -> bool {
        KNOWN.load(Ordering::Relaxed)
    }

    /// Makes this process the next build, which knows one version more, for good. Whether it is.
    #[must_use]
    pub fn become_next_build() -> bool {
        KNOWN.store(true, Ordering::Relaxed);
        true
    }
}

#[cfg(feature = "canaries")]
pub use next::become_next_build;

#[cfg(not(feature = "canaries"))]
mod next {
    pub(super) const fn is_known() -> bool {
        false
    }
}

/// Makes this process the next build: it never is in a build without the feature `canaries`.
#[cfg(not(feature = "canaries"))]
#[must_use]
pub const fn become_next_build() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_knows_what_its_release_was_made_with() {
        let here = Knows::here();
        assert_eq!(here, Knows::RELEASE);
        assert!(here.has(ClusterVersion::FIRST) && !here.has(here.newest.next()));
        assert_eq!(here.to_string(), "cluster version 1");
        let next = Knows { newest: here.newest.next(), ..here };
        assert!(next.has(here.newest) && next.has(here.newest.next()) && !next.has(ClusterVersion(0)));
        assert_eq!(next.to_string(), "cluster versions 1 to 2");
    }
}
