//! A log witness: what this node has cosigned of other nodes' logs (`c2sp.org/tlog-witness`).

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, effects::Effects};
use rhumb_storage::Batch;
use rhumb_verify::note::{Key, NoNote};
use rhumb_verify::proof::{NoProof, consistency};
use rhumb_verify::{Checkpoint, Hash, Note};
use thiserror::Error;

use super::rows;

/// Hashes of a proof at most, by the specification.
pub const MAX_PROOF: usize = 63;

/// Who waits for an answer of the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A checkpoint to be cosigned, and the proof that it continues the one of `old` entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the log believes was cosigned last.
    pub old: u64,
    /// From there to the checkpoint.
    pub proof: Vec<Hash>,
    /// The checkpoint with the log's signature.
    pub note: String,
}

/// Why a checkpoint is not cosigned. The numbers are those that the specification answers over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotCosigned {
    /// It is no note, or no checkpoint (400).
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Its log is not watched here (404).
    #[error("the log {0} is not watched here")]
    Unknown(String),
    /// Its log has not signed it, or its signature does not verify (403).
    #[error("the log {0} has not signed it")]
    NotSigned(String),
    /// Another size was cosigned last (409): prove from there.
    #[error("the last checkpoint that was cosigned has {size} entries")]
    Conflict {
        /// That size.
        size: u64,
    },
    /// It does not continue what was cosigned (422). If its log signed both, it lies.
    #[error("it does not continue what was cosigned: {0}")]
    NotContinued(NoProof),
}

/// What a witness wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Sign this text as a cosignature, as of that second, and give it to whoever waits.
    Cosign {
        /// Who.
        token: Token,
        /// The checkpoint's text.
        text: String,
        /// Seconds since the Unix epoch.
        at: u64,
    },
    /// Refuse.
    Refuse {
        /// Whom.
        token: Token,
        /// Why.
        why: NotCosigned,
    },
    /// A log has signed a checkpoint and not shown that it continues the one that was cosigned. Of one size,
    /// both cannot be true; otherwise it is for the log to show how they can. Both are durable by now.
    Alarm {
        /// The log.
        origin: String,
        /// The one that was cosigned.
        cosigned: String,
        /// The one that came.
        contradicts: String,
    },
}

/// The log witness of one node.
#[derive(Debug)]
pub struct Witness {
    /// The logs that it watches, by origin.
    logs: BTreeMap<String, Key>,
    cosigned: BTreeMap<String, (Checkpoint, String)>,
    /// Logs against which there is evidence. The first is kept; a log that lies on does not fill the disk.
    accused: BTreeSet<String>,
}

impl Witness {
    /// A witness of these logs that cosigned those checkpoints before, and has evidence against those
    /// origins, as its rows say.
    ///
    /// # Errors
    /// [`rows::Unsound::Checkpoint`]: a witness that has forgotten what it cosigned must not cosign.
    pub fn recover(
        logs: impl IntoIterator<Item = Key>,
        notes: impl IntoIterator<Item = String>,
        accused: impl IntoIterator<Item = String>,
    ) -> Result<Self, rows::Unsound> {
        let mut cosigned = BTreeMap::new();
        for note in notes {
            let read =
                Note::parse(&note).map_err(|error: NoNote| rows::Unsound::Checkpoint(error.to_string()))?;
            let read: Checkpoint =
                read.text.parse().map_err(|error| rows::Unsound::Checkpoint(format!("{error}")))?;
            cosigned.insert(read.origin.clone(), (read, note));
        }
        let logs = logs.into_iter().map(|key| (key.name.clone(), key)).collect();
        Ok(Self { logs, cosigned, accused: accused.into_iter().collect() })
    }

    /// Watches another log from now on. A log that is watched already keeps its key.
    pub fn watch(&mut self, log: Key) {
        self.logs.entry(log.name.clone()).or_insert(log);
    }

    /// A log has another key from now on. What was cosigned under the one before binds it all the same.
    pub fn rekeyed(&mut self, log: Key) {
        self.logs.insert(log.name.clone(), log);
    }

    /// The size and root that were cosigned last, by origin.
    pub fn cosigned(&self) -> impl Iterator<Item = &Checkpoint> {
        self.cosigned.values().map(|(checkpoint, _)| checkpoint)
    }

    /// What was cosigned last of a log: its checkpoint, and that with the log's signature.
    #[must_use]
    pub fn last(&self, origin: &str) -> Option<(&Checkpoint, &str)> {
        self.cosigned.get(origin).map(|(checkpoint, note)| (checkpoint, note.as_str()))
    }

    /// Logs against which there is evidence, by origin.
    pub fn accused(&self) -> impl Iterator<Item = &str> {
        self.accused.iter().map(String::as_str)
    }

    /// A log asks for a cosignature.
    pub fn asked(
        &mut self,
        now: HybridTime,
        token: Token,
        asked: AddCheckpoint,
        out: &mut Effects<Batch, Effect>,
    ) {
        match self.judge(&asked) {
            Ok(checkpoint) => self.cosign(now, token, checkpoint, asked.note, out),
            Err(why) => {
                self.keep_evidence(&asked, &why, out);
                out.send(Effect::Refuse { token, why });
            }
        }
    }

    fn judge(&self, asked: &AddCheckpoint) -> Result<Checkpoint, NotCosigned> {
        let unreadable = |error: &dyn std::fmt::Display| NotCosigned::Unreadable(error.to_string());
        let note = Note::parse(&asked.note).map_err(|error| unreadable(&error))?;
        let new: Checkpoint = note.text.parse().map_err(|error| unreadable(&error))?;
        let log = self.logs.get(&new.origin).ok_or_else(|| NotCosigned::Unknown(new.origin.clone()))?;
        if !matches!(log.verify(&note), Ok(Some(_))) {
            return Err(NotCosigned::NotSigned(new.origin));
        }
        if asked.old > new.size || asked.proof.len() > MAX_PROOF {
            return Err(NotCosigned::Unreadable(
                "more entries before than now, or too long a proof".to_owned(),
            ));
        }
        let empty = rhumb_verify::hash::empty();
        let (size, root) =
            self.cosigned.get(&new.origin).map_or((0, empty), |(last, _)| (last.size, last.root));
        if asked.old != size {
            return Err(NotCosigned::Conflict { size });
        }
        if !canary::sings(Canary::WitnessSkipsProof) {
            let proven = consistency((size, &root), (new.size, &new.root), &asked.proof);
            proven.map_err(NotCosigned::NotContinued)?;
        }
        Ok(new)
    }

    fn cosign(
        &mut self,
        now: HybridTime,
        token: Token,
        checkpoint: Checkpoint,
        note: String,
        out: &mut Effects<Batch, Effect>,
    ) {
        let text = checkpoint.to_string();
        let cosign = Effect::Cosign { token, text, at: now.millis() / 1_000 };
        if canary::sings(Canary::CosignBeforePersist) {
            out.send_at_once(cosign.clone());
        }
        let mut batch = Batch::new();
        rows::put_note(&mut batch, rows::witnessed_key(&checkpoint.origin), &note);
        out.persist(batch);
        self.cosigned.insert(checkpoint.origin.clone(), (checkpoint, note));
        if !canary::sings(Canary::CosignBeforePersist) {
            out.send(cosign);
        }
    }

    /// What its log signed and cannot be true beside what was cosigned is kept.
    fn keep_evidence(&mut self, asked: &AddCheckpoint, why: &NotCosigned, out: &mut Effects<Batch, Effect>) {
        if !matches!(why, NotCosigned::NotContinued(_)) {
            return;
        }
        let Some(new) = Note::parse(&asked.note).ok().and_then(|note| note.text.parse::<Checkpoint>().ok())
        else {
            return;
        };
        let Some((last, cosigned)) = self.cosigned.get(&new.origin) else { return };
        if !self.accused.insert(new.origin.clone()) {
            return;
        }
        let mut batch = Batch::new();
        rows::put_note(&mut batch, rows::evidence_key(&new.origin), &format!("{cosigned}\n{}", asked.note));
        out.persist(batch);
        out.send(Effect::Alarm {
            origin: last.origin.clone(),
            cosigned: cosigned.clone(),
            contradicts: asked.note.clone(),
        });
    }
}
