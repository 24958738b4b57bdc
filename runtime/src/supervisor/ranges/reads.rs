//! Reads of keyspaces whose class is marked (`audit_reads`): each is in the audit log before its answer leaves.
//!
//! * It decides: what is told of a read: who, of which keyspace, at which level, which keys and under which subjects' keys.
//! * It never does: tell a key, a value or a subject's name: a key stands there as a hash, a subject as the id of its key. Who
//!   guesses a key can see whether it is this one; who a subject was nobody can say once it is erased.

use rhumb_actors::audit::record::Record;
use rhumb_actors::ranges::messages::{KvAnswer, KvRead};
use rhumb_core::{Fault, FaultKind, NodeId};
use rhumb_transport::Peer;
use sha2::{Digest, Sha256};

use super::Ranges;
use crate::mesh::told;

/// Under which action a read stands in the log.
const ACTION: &str = "data.read";

impl Ranges {
    /// Tells of a read that is answered, if its class says so.
    ///
    /// # Errors
    /// It is not in the log, and is not shown.
    pub(super) async fn told_of_read(
        &self,
        reader: &Reader<'_>,
        asked: &KvRead,
        answer: &KvAnswer,
    ) -> Result<(), Fault> {
        let policy = self.0.parts.policy.snapshots();
        if !policy.load().audits_reads(&asked.class) {
            return Ok(());
        }
        let record = record(reader.told(&self.0.parts.me), asked, answer);
        let who = record.actor.clone();
        self.0.parts.log.append(record, Some(&who)).await.map(drop).map_err(|why| {
            Fault::ran(FaultKind::Storage(format!(
                "a read of class {} is not shown without its entry in the audit log: {why}",
                asked.class
            )))
        })
    }
}

/// Who reads.
pub(super) enum Reader<'a> {
    /// Somebody over the mesh.
    Peer(&'a Peer),
    /// An actor of this node, where it is known which.
    Here(Option<String>),
}

impl Reader<'_> {
    fn told(&self, me: &NodeId) -> Record {
        match self {
            Self::Peer(from) => told::once(ACTION, from),
            Self::Here(actor) => {
                let record = told::once_here(ACTION, me);
                actor.iter().fold(record, |record, actor| record.with("by", actor))
            }
        }
    }
}

fn record(told: Record, asked: &KvRead, answer: &KvAnswer) -> Record {
    let space = &asked.keyspace;
    let mut keys: Vec<String> = answer.rows.iter().map(|row| key_hash(space, &row.key)).collect();
    if asked.to.is_none() && keys.is_empty() {
        // That it is not there was read too.
        keys.push(key_hash(space, &asked.from));
    }
    let mut subjects: Vec<&str> = answer.rows.iter().filter_map(|row| row.sealed_under.as_deref()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    told.on(format!("keyspace {space}"))
        .with("class", asked.class.as_str())
        .with("message", "kv.Read")
        .with("level", answer.level.to_string())
        .with("rows", answer.rows.len().to_string())
        .with("keys", keys.join(","))
        .with("subject_keys", subjects.join(","))
}

/// 64 bits of a hash of a key, by which its reads are found.
fn key_hash(keyspace: &str, key: &[u8]) -> String {
    let hash = Sha256::new_with_prefix(b"rhumb key of\0").chain_update(keyspace).chain_update([0]);
    hash.chain_update(key).finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
