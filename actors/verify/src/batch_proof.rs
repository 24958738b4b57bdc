//! Proofs of many entries to hand to somebody: the entries, one batch proof and the cosigned checkpoint in one text.
//! There is no specification of others for it; it is made of theirs as c2sp.org/tlog-proof is.
//!
//! ```text
//! rhumb batch-proof/1
//! NUMBER ENTRY         an entry in base64, a line each, in the order of their numbers
//! HASH                 the hashes of the batch proof, in base64, a line each
//!
//! CHECKPOINT           a note
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::prelude::{BASE64_STANDARD, Engine};

use crate::batch;
use crate::checkpoint::decimal;
use crate::handed::{NotHanded, split, wrong};
use crate::hash::{Hash, leaf};
use crate::note::Note;
use crate::policy::{Policy, Trusted};
use crate::proof::MAX_HASHES;
use crate::tile::MAX_ENTRY;
use crate::tlog_proof::Unproven;

/// The first line.
pub const FIRST: &str = "rhumb batch-proof/1";
/// Entries in one proof at most.
pub const MAX_ENTRIES: usize = 4_096;

/// That some entries are in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchProof {
    /// The entries, by number.
    pub entries: BTreeMap<u64, Vec<u8>>,
    /// What [`batch::verify`] needs beside them.
    pub hashes: Vec<Hash>,
    /// The checkpoint, with its signatures.
    pub checkpoint: Note,
}

impl BatchProof {
    /// Whether all of its entries are in a log that the policy trusts.
    ///
    /// # Errors
    /// [`Unproven`].
    pub fn verify(&self, policy: &Policy) -> Result<Trusted, Unproven> {
        let trusted = policy.trusts(&self.checkpoint)?;
        let leaves = self.entries.iter().map(|(index, entry)| (*index, leaf(entry))).collect();
        let tree = &trusted.checkpoint;
        batch::verify(&leaves, tree.size, &self.hashes, &tree.root)?;
        Ok(trusted)
    }
}

impl fmt::Display for BatchProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}")?;
        for (index, entry) in &self.entries {
            writeln!(f, "{index} {}", BASE64_STANDARD.encode(entry))?;
        }
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for BatchProof {
    type Err = NotHanded;

    fn from_str(text: &str) -> Result<Self, NotHanded> {
        let (mut lines, checkpoint) = split(text)?;
        lines.next().filter(|(line, _)| *line == FIRST).ok_or(wrong(1, FIRST))?;
        let (mut entries, mut hashes) = (BTreeMap::new(), Vec::new());
        for (line, at) in lines {
            if let Some((index, entry)) = line.split_once(' ') {
                let (index, entry) = numbered(index, entry)
                    .filter(|(index, _)| entries.last_key_value().is_none_or(|(last, _)| last < index))
                    .filter(|_| hashes.is_empty() && entries.len() < MAX_ENTRIES)
                    .ok_or(wrong(at, "a number above the one before and an entry, before all hashes"))?;
                entries.insert(index, entry);
            } else {
                let room = hashes.len() < MAX_HASHES * (entries.len() + 1);
                let hash = line.parse().ok().filter(|_| room);
                hashes.push(hash.ok_or(wrong(at, "a hash of the batch proof"))?);
            }
        }
        if entries.is_empty() {
            return Err(wrong(2, "a number and an entry"));
        }
        Ok(Self { entries, hashes, checkpoint })
    }
}

fn numbered(index: &str, entry: &str) -> Option<(u64, Vec<u8>)> {
    let entry = BASE64_STANDARD.decode(entry).ok().filter(|entry| entry.len() <= MAX_ENTRY)?;
    Some((decimal(index)?, entry))
}
