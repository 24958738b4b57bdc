//! Proofs that a log only grew, to hand to somebody: the older size, the consistency proof and the newer checkpoint in
//! one text, as c2sp.org/tlog-witness has a log ask for a cosignature.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::decimal;
use crate::handed::{NotHanded, split, wrong};
use crate::hash::Hash;
use crate::light::{Disbelieved, Follower};
use crate::note::Note;
use crate::policy::{Policy, Trusted};
use crate::proof::MAX_HASHES;

/// What the first line begins with.
pub const FIRST: &str = "old ";

/// That a log continues an older checkpoint of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// Entries of the older tree.
    pub old: u64,
    /// From there to the checkpoint.
    pub proof: Vec<Hash>,
    /// The newer checkpoint, with its signatures.
    pub checkpoint: Note,
}

impl Growth {
    /// Whether the checkpoint continues an older one; the policy must trust both.
    ///
    /// # Errors
    /// [`Disbelieved`].
    pub fn verify(&self, older: Note, policy: &Policy) -> Result<Trusted, Disbelieved> {
        let mut follower = Follower::new(policy.clone());
        follower.next(older, &[], None)?;
        follower.next(self.checkpoint.clone(), &self.proof, None).cloned()
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST}{}", self.old)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

impl FromStr for Growth {
    type Err = NotHanded;

    fn from_str(text: &str) -> Result<Self, NotHanded> {
        let (mut lines, checkpoint) = split(text)?;
        let old = lines.next().and_then(|(line, _)| decimal(line.strip_prefix(FIRST)?));
        let old = old.ok_or(wrong(1, "`old` and a number"))?;
        let hash = |(line, at): (&str, usize)| {
            line.parse()
                .ok()
                .filter(|_| at <= MAX_HASHES + 1)
                .ok_or(wrong(at, "a hash of the consistency proof"))
        };
        Ok(Self { old, proof: lines.map(hash).collect::<Result<_, _>>()?, checkpoint })
    }
}
