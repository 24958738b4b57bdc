//! What the machines know, for whoever asks.

use std::time::Duration;

use rhumb_core::Mono;
use rhumb_verify::record::SALT;
use rhumb_verify::{Checkpoint, Hash, Note};
use zeroize::Zeroizing;

use super::super::messages::AuditView;
use super::super::report::{AuditReport, Bounded, Watched};
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

/// What the shell counts since it started.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) appended: Bounded,
    pub(super) erased: u64,
    /// When it started, and when a checkpoint was published last.
    pub(super) begun: Mono,
    pub(super) published: Option<Mono>,
}

impl AuditLogger {
    pub(super) fn report(&self) -> AuditReport {
        let (machines, counted, now) = (&self.machines, &self.counted, self.world.now());
        let log = machines.log.status();
        let since = |at: Option<Mono>| now.mono.since(at.unwrap_or(counted.begun));
        let witnesses = log.verified.iter().filter_map(|(name, cosigned)| {
            let lag = log.signed.saturating_sub(cosigned.map_or(0, |cosigned| cosigned.size));
            let silent = since(cosigned.map(|cosigned| cosigned.came));
            Some((machines.peers.of_witness(name)?, Watched { lag, silent }))
        });
        let oldest = self.pruning.oldest.map(|at| now.hybrid.millis().saturating_sub(at));
        AuditReport {
            appended: counted.appended.counted(),
            refused: self.observations.refused_so_far(),
            folded: self.observations.folded_so_far(),
            missed: self.observations.missed_so_far(),
            entries: log.entries,
            signed: log.signed,
            published: log.published,
            mark: log.mark,
            oldest: oldest.map(Duration::from_millis),
            published_age: since(counted.published),
            witnesses: witnesses.collect(),
            broken: log.broken.is_some(),
            accused: machines.witness.accused().count() as u64,
            disbelieved: machines.peers.refused().count() as u64,
            subjects: machines.keys.len() as u64,
            erased: counted.erased,
        }
    }

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
