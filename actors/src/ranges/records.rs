//! A replica's state on disk: one row a range in the family `Raft`, rewritten with every batch of entries that is applied.
//!
//! | key | value |
//! |---|---|
//! | `a` range | the state, with its version and a checksum (`raft::wire`) |

use rhumb_core::codec::{self, CodecError};
use rhumb_core::{ClusterVersion, HybridTime};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::raft::wire;
use super::replica::{Applied, Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use crate::version::formats::{format_of, readable};

/// What its bytes are called where they cannot be read.
pub(super) const STATE: &str = "the state of a replica";

#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Row),
    /// What only tests write: the state, and who has proposed its last command.
    #[cfg(feature = "canaries")]
    Next(Row, ReplicaId),
}

#[derive(Serialize, Deserialize)]
struct Row {
    replica: ReplicaId,
    range: RangeId,
    keyspace: u32,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    seats: Vec<Seat>,
    index: u64,
    lease: Lease,
    order: u64,
    closed: HybridTime,
    newest: HybridTime,
    threshold: HybridTime,
    expires: HybridTime,
}

pub(super) fn key(range: RangeId) -> Vec<u8> {
    [b"a".as_slice(), &range.0.to_be_bytes()].concat()
}

pub(super) fn write(replica: &RangeReplica) -> Vec<u8> {
    wire::encode(&versioned(replica, row(replica, replica.id()))).to_vec()
}

/// What is the same on all replicas that have applied the same entries.
pub(super) fn shared(replica: &RangeReplica) -> Vec<u8> {
    wire::encode(&versioned(replica, row(replica, ReplicaId(0)))).to_vec()
}

fn row(replica: &RangeReplica, id: ReplicaId) -> Row {
    let Descriptor { range, keyspace, from, to, seats } = replica.descriptor().clone();
    let Applied { index, lease, order, closed, newest, threshold, expires, .. } = replica.applied().clone();
    Row {
        replica: id,
        range,
        keyspace: keyspace.0,
        from: from.as_bytes().to_vec(),
        to: to.map(|to| to.as_bytes().to_vec()),
        seats,
        index,
        lease,
        order,
        closed,
        newest,
        threshold,
        expires,
    }
}

/// The format follows from what was applied alone: replicas that have applied the same are the same.
fn versioned(replica: &RangeReplica, row: Row) -> Versioned {
    match replica.applied() {
        #[cfg(feature = "canaries")]
        Applied { by: Some(by), .. } => Versioned::Next(row, *by),
        _ => Versioned::V1(row),
    }
}

/// The format of a state's bytes. Of bytes that are not what was written nothing is known: whoever reads them says so.
pub(super) fn format(bytes: &[u8]) -> ClusterVersion {
    wire::checked(bytes).map_or(ClusterVersion::FIRST, format_of)
}

pub(super) fn read(bytes: &[u8]) -> Result<(ReplicaId, Descriptor, Applied), String> {
    let bytes = wire::checked(bytes)?;
    readable(STATE, bytes).map_err(|error| error.to_string())?;
    #[cfg(feature = "canaries")]
    let (row, by) = match codec::decode(bytes).map_err(|error: CodecError| error.to_string())? {
        Versioned::V1(row) => (row, None),
        Versioned::Next(row, by) => (row, Some(by)),
    };
    #[cfg(not(feature = "canaries"))]
    let Versioned::V1(row) = codec::decode(bytes).map_err(|error: CodecError| error.to_string())?;
    let key = |bytes| UserKey::new(bytes).map_err(|error: rhumb_storage::mvcc::KeyTooLong| error.to_string());
    let applied = Applied {
        index: row.index,
        lease: row.lease,
        order: row.order,
        closed: row.closed,
        newest: row.newest,
        threshold: row.threshold,
        expires: row.expires,
        #[cfg(feature = "canaries")]
        by,
    };
    let descriptor = Descriptor {
        range: row.range,
        keyspace: KeyspaceId(row.keyspace),
        from: key(row.from)?,
        to: row.to.map(key).transpose()?,
        seats: row.seats,
    };
    Ok((row.replica, descriptor, applied))
}
