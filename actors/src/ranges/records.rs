//! A replica's state on disk: one row a range in the family `Raft`, rewritten with every batch of entries that is applied.
//!
//! | key | value |
//! |---|---|
//! | `a` range | the state, with its version and a checksum (`raft::wire`) |

use rhumb_core::HybridTime;
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::{Deserialize, Serialize};

use super::lease::Lease;
use super::raft::wire;
use super::replica::{Applied, Descriptor, RangeId, RangeReplica, ReplicaId, Seat};

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
    wire::encode(&row(replica, replica.id())).to_vec()
}

/// What is the same on all replicas that have applied the same entries.
pub(super) fn shared(replica: &RangeReplica) -> Vec<u8> {
    wire::encode(&row(replica, ReplicaId(0))).to_vec()
}

fn row(replica: &RangeReplica, id: ReplicaId) -> Row {
    let Descriptor { range, keyspace, from, to, seats } = replica.descriptor().clone();
    let Applied { index, lease, order, closed, newest, threshold, expires } = replica.applied().clone();
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

pub(super) fn read(bytes: &[u8]) -> Result<(ReplicaId, Descriptor, Applied), String> {
    let row: Row = wire::decode(bytes)?;
    let key = |bytes| UserKey::new(bytes).map_err(|error: rhumb_storage::mvcc::KeyTooLong| error.to_string());
    let applied = Applied {
        index: row.index,
        lease: row.lease,
        order: row.order,
        closed: row.closed,
        newest: row.newest,
        threshold: row.threshold,
        expires: row.expires,
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
