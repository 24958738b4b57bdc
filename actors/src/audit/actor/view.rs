//! What the machines know, for whoever asks.

use rhumb_verify::record::SALT;
use rhumb_verify::{Checkpoint, Hash, Note};
use zeroize::Zeroizing;

use super::super::messages::AuditView;
use super::super::seal::{self, Unopened};
use super::AuditLogger;

/// A body, looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It was opened: the salt and the record.
    Opened([u8; SALT], Zeroizing<Vec<u8>>),
    /// Its key is not here.
    Shut,
    /// It is not what was sealed.
    Changed(Unopened),
}

/// How many entries a published checkpoint is of.
fn size(note: &str) -> u64 {
    let checkpoint = Note::parse(note).ok().and_then(|note| note.text.parse::<Checkpoint>().ok());
    checkpoint.map_or(0, |checkpoint| checkpoint.size)
}

impl AuditLogger {
    pub(super) fn view(&self) -> AuditView {
        let machines = &self.machines;
        let log = machines.log.status();
        let cosigned = machines.witness.cosigned().map(|seen| (seen.origin.clone(), seen.size)).collect();
        let policy = machines.peers.policy_text(machines.log.key(), machines.settings.quorum);
        AuditView {
            node: machines.me.to_string(),
            key: machines.log.key().to_string(),
            policy: policy.unwrap_or_default(),
            entries: log.entries,
            signed: log.signed,
            published: machines.published.as_deref().map_or(0, size),
            witnesses: log.witnesses,
            cosigned,
            accused: machines.witness.accused().map(str::to_owned).collect(),
            refused: machines.peers.refused().map(ToString::to_string).collect(),
            broken: log.broken,
            checkpoint: machines.log.checkpoint().unwrap_or_default(),
            published_note: machines.published.clone().unwrap_or_default(),
            subjects: machines.keys.len() as u64,
            lost_keys: machines.keys.lost().len() as u64,
            missed: self.observations.missed_so_far(),
            checked: 0,
            faults: Vec::new(),
        }
    }

    pub(super) fn looked(&self, commits_to: &Hash, body: &[u8]) -> Looked {
        let id = match seal::sealed_under(body) {
            Ok(id) => id,
            Err(why) => return Looked::Changed(why),
        };
        let Some(key) = self.machines.keys.key(id) else { return Looked::Shut };
        match seal::open(key, commits_to, body) {
            Ok((salt, record)) => Looked::Opened(salt, record),
            Err(why) => Looked::Changed(why),
        }
    }
}
