//! Proofs to hand to somebody: entry's number, inclusion proof and cosigned checkpoint in one text
//! (`c2sp.org/tlog-proof`).

use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};
use thiserror::Error;

use crate::checkpoint::decimal;
use crate::handed::{NotHanded, split, wrong};
use crate::hash::Hash;
use crate::note::{MAX_NOTE, Note};
use crate::policy::{Distrusted, Policy, Trusted};
use crate::proof::{MAX_HASHES, NoProof, inclusion};

const FIRST: &str = "c2sp.org/tlog-proof@v1";

/// That some entry is in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Whatever somebody put beside it. Not signed.
    pub extra: Option<Vec<u8>>,
    /// The entry's number.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub path: Vec<Hash>,
    /// The checkpoint, with its signatures.
    pub checkpoint: Note,
}

/// Why a proof is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unproven {
    /// Its checkpoint is not trusted.
    #[error(transparent)]
    Checkpoint(#[from] Distrusted),
    /// The entry is not in the checkpoint's tree.
    #[error(transparent)]
    Inclusion(#[from] NoProof),
}

impl TlogProof {
    /// Whether the entry with this leaf hash is in a log that the policy trusts.
    ///
    /// # Errors
    /// [`Unproven`].
    pub fn verify(&self, leaf: &Hash, policy: &Policy) -> Result<Trusted, Unproven> {
        let trusted = policy.trusts(&self.checkpoint)?;
        let tree = &trusted.checkpoint;
        inclusion(leaf, self.index, tree.size, &self.path, &tree.root)?;
        Ok(trusted)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64_STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for TlogProof {
    type Err = NotHanded;

    fn from_str(text: &str) -> Result<Self, NotHanded> {
        let (lines, checkpoint) = split(text)?;
        let mut lines = lines.peekable();
        lines.next_if(|(line, _)| *line == FIRST).ok_or(wrong(1, FIRST))?;
        let extra = match lines.next_if(|(line, _)| line.starts_with("extra ") && line.len() <= MAX_NOTE) {
            None => None,
            Some((line, at)) => {
                let bytes = BASE64_STANDARD.decode(&line["extra ".len()..]);
                Some(bytes.map_err(|_| wrong(at, "extra data in base64"))?)
            }
        };
        let (line, at) = lines.next().unwrap_or(("", 2));
        let index = line.strip_prefix("index ").and_then(decimal).ok_or(wrong(at, "`index` and a number"))?;
        let hash = |(line, at): (&str, usize)| {
            let hash = line.parse().ok().filter(|_| at <= MAX_HASHES + 3);
            hash.ok_or(wrong(at, "a hash of the inclusion proof"))
        };
        let path = lines.map(hash).collect::<Result<_, _>>()?;
        Ok(Self { extra, index, path, checkpoint })
    }
}
