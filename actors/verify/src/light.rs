//! A light client: follows a log by its checkpoints and the proofs between them, and keeps nothing else.
//!
//! * It decides: whether a checkpoint continues the one that was believed last.
//! * It never does: go back, or believe a checkpoint that the policy does not trust.
//! * Invariant: all checkpoints that it ever believed are of one growing log. Where two trusted ones are
//!   not, it has both: that is the evidence.

use thiserror::Error;

use crate::hash::Hash;
use crate::note::Note;
use crate::policy::{Distrusted, Policy, Trusted};
use crate::proof::{NoProof, consistency};

/// What a client believes of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    policy: Policy,
    believed: Option<(Note, Trusted)>,
}

/// Two trusted checkpoints of one log that cannot both be true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The one that was believed.
    pub believed: Note,
    /// The one that contradicts it.
    pub contradicts: Note,
}

/// Why a checkpoint is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Disbelieved {
    /// The policy does not trust it.
    #[error(transparent)]
    Distrusted(#[from] Distrusted),
    /// It is of another log.
    #[error("it is of {got}, and {want} is followed")]
    OtherLog {
        /// Which is followed.
        want: String,
        /// Which it is of.
        got: String,
    },
    /// It does not answer the demand.
    #[error("it has not the nonce that was demanded: it may be old")]
    Stale,
    /// It is older than the one that was believed last. Old ones exist; no news.
    #[error("it is of {got} entries, and {believed} were believed already")]
    Older {
        /// The size believed last.
        believed: u64,
        /// Its size.
        got: u64,
    },
    /// It has as many entries and another root.
    #[error("another root for the same {size} entries: the log shows different people different trees")]
    Forked {
        /// How many.
        size: u64,
        /// Both.
        evidence: Box<Evidence>,
    },
    /// The proof does not lead from the one to the other. Without a proof that does, the log cannot show that
    /// it only grew.
    #[error("nothing proves that it continues what was believed: {why}")]
    NotContinued {
        /// What is wrong with the proof.
        why: NoProof,
        /// Both.
        evidence: Box<Evidence>,
    },
}

impl Follower {
    /// A client that believes nothing yet: the first checkpoint that its policy trusts, it will.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, believed: None }
    }

    /// The checkpoint that was believed last, to be kept and given to [`Follower::next`] of a new client
    /// when it starts again.
    #[must_use]
    pub fn believed(&self) -> Option<&Note> {
        self.believed.as_ref().map(|(note, _)| note)
    }

    /// What the last checkpoint says.
    #[must_use]
    pub fn trusted(&self) -> Option<&Trusted> {
        self.believed.as_ref().map(|(_, trusted)| trusted)
    }

    /// Believes the next checkpoint if it is fresh (has the nonce, where one was demanded) and the proof
    /// leads from the last one to it.
    ///
    /// # Errors
    /// [`Disbelieved`]; what was believed stays so.
    pub fn next(
        &mut self,
        note: Note,
        proof: &[Hash],
        nonce: Option<&[u8]>,
    ) -> Result<&Trusted, Disbelieved> {
        let trusted = self.policy.trusts(&note)?;
        if nonce.is_some_and(|nonce| !trusted.checkpoint.has_nonce(nonce)) {
            return Err(Disbelieved::Stale);
        }
        if let Some((last, before)) = &self.believed {
            continues(last, before, &note, &trusted, proof)?;
        }
        Ok(&self.believed.insert((note, trusted)).1)
    }
}

fn continues(
    last: &Note,
    before: &Trusted,
    note: &Note,
    after: &Trusted,
    proof: &[Hash],
) -> Result<(), Disbelieved> {
    let (before, after) = (&before.checkpoint, &after.checkpoint);
    if before.origin != after.origin {
        return Err(Disbelieved::OtherLog { want: before.origin.clone(), got: after.origin.clone() });
    }
    let evidence = || Box::new(Evidence { believed: last.clone(), contradicts: note.clone() });
    if after.size == before.size && after.root != before.root {
        return Err(Disbelieved::Forked { size: after.size, evidence: evidence() });
    }
    if after.size < before.size {
        return Err(Disbelieved::Older { believed: before.size, got: after.size });
    }
    consistency((before.size, &before.root), (after.size, &after.root), proof)
        .map_err(|why| Disbelieved::NotContinued { why, evidence: evidence() })
}
