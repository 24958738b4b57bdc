//! Checkpoints: how a log stands, as text (`c2sp.org/tlog-checkpoint`).

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use thiserror::Error;

use crate::hash::{Hash, empty};

/// What an extension line begins with that answers a demand for a fresh checkpoint.
const NONCE: &str = "nonce ";
/// Bytes of a nonce at most.
pub const MAX_NONCE: usize = 64;

/// A log's size and root at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries it has.
    pub size: u64,
    /// The root of its tree.
    pub root: Hash,
    /// What else it says, a line each.
    pub extensions: Vec<String>,
}

/// Why a text is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoCheckpoint {
    /// Not three lines and more, each with something in it and an end.
    #[error("a checkpoint has an origin, a size and a root, a line each, and no empty line")]
    Lines,
    /// Its size is no number, or is written with zeros before it.
    #[error("{0:?} is no size of a tree")]
    Size(String),
    /// Its root is no hash, or is not that of the empty tree where its size is 0.
    #[error("{0:?} is no root of such a tree")]
    Root(String),
}

impl Checkpoint {
    /// Whether it answers the demand with this nonce: it was made after that.
    #[must_use]
    pub fn has_nonce(&self, nonce: &[u8]) -> bool {
        let line = nonce_line(nonce);
        self.extensions.contains(&line)
    }

    /// How many nonces it has.
    #[must_use]
    pub fn nonces(&self) -> usize {
        self.extensions.iter().filter(|line| line.starts_with(NONCE)).count()
    }
}

/// The extension line that answers a demand with this nonce.
#[must_use]
pub fn nonce_line(nonce: &[u8]) -> String {
    format!("{NONCE}{}", BASE64_STANDARD.encode(nonce))
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, self.root)?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = NoCheckpoint;

    fn from_str(text: &str) -> Result<Self, NoCheckpoint> {
        let mut lines = text.strip_suffix('\n').ok_or(NoCheckpoint::Lines)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty()).ok_or(NoCheckpoint::Lines);
        let (origin, size, root) = (line()?.to_owned(), line()?, line()?);
        let size = decimal(size).ok_or_else(|| NoCheckpoint::Size(size.to_owned()))?;
        let wrong = || NoCheckpoint::Root(root.to_owned());
        let root: Hash = root.parse().map_err(|_| wrong())?;
        if size == 0 && root != empty() {
            return Err(wrong());
        }
        let extensions: Vec<_> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(NoCheckpoint::Lines);
        }
        Ok(Self { origin, size, root, extensions })
    }
}

/// A number as the formats write it: digits, and no zero before others.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}
