//! Who a data directory belongs to, and the small facts that a node needs before its hot store is
//! open: behind a trait of its own, so that what keeps them can change.

use std::fmt;

use rhumb_core::{ClusterId, Incarnation, NodeId, StoreId};

use crate::fault::StorageFault;

/// The format of data directories that this program writes. It reads no newer one.
pub const FORMAT: u32 = 1;

/// Whose directory it is. Stamped when it was made; also kept in the hot store, to tell that the two
/// belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The format of the directory.
    pub format: u32,
    /// The mesh it is part of.
    pub cluster: ClusterId,
    /// The data in it.
    pub store: StoreId,
    /// The node it serves.
    pub node: NodeId,
}

/// How far a directory's creation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The hot store may not be stamped yet: go on creating.
    Creating,
    /// Both stores are stamped.
    Ready,
}

/// The control store's one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlRecord {
    /// Whose directory it is.
    pub identity: Identity,
    /// Which life of the node on this disk; restored disks begin a new one. Only here, not in the hot
    /// store: it must survive that one's restoration.
    pub incarnation: Incarnation,
    /// How far creation got.
    pub stage: Stage,
}

/// What a node has seen last, kept so that it can start before it hears from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LastSeen {
    /// The nodes of the mesh, as settings or the meta range said.
    Topology,
    /// The signed policy.
    Policy,
    /// The cluster version that builds on this disk have to know.
    ClusterVersion,
}

impl LastSeen {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Topology => "topology",
            Self::Policy => "policy",
            Self::ClusterVersion => "cluster-version",
        }
    }
}

/// Keeps small facts. Everything it is given is durable when it returns.
pub trait ControlStore: Send + Sync + fmt::Debug {
    /// The directory's record, if it was stamped.
    ///
    /// # Errors
    /// Any fault of reading; [`FaultCause::Corrupt`](crate::FaultCause::Corrupt) when it is damaged.
    fn record(&self) -> Result<Option<Recorded>, StorageFault>;

    /// Stamps the directory.
    ///
    /// # Errors
    /// Any fault of writing.
    fn stamp(&self, record: &ControlRecord) -> Result<(), StorageFault>;

    /// What was seen last of this, as bytes of its owner's format.
    ///
    /// # Errors
    /// Any fault of reading.
    fn last_seen(&self, what: LastSeen) -> Result<Option<Vec<u8>>, StorageFault>;

    /// Remembers what was seen.
    ///
    /// # Errors
    /// Any fault of writing.
    fn remember(&self, what: LastSeen, bytes: &[u8]) -> Result<(), StorageFault>;
}

/// A stamp as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// One of this format.
    Known(ControlRecord),
    /// One that a newer program wrote.
    Newer {
        /// Its format.
        format: u32,
    },
}

const MAGIC: [u8; 4] = *b"RhId";

impl ControlRecord {
    /// Magic, format, cluster, store, incarnation and stage in big-endian order, the node as
    /// length-prefixed text, then CRC-32C of what stands before. Every format begins with the magic
    /// and its number, and ends with the checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Identity { format, cluster, store, node } = &self.identity;
        let node = node.to_string();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(format.to_be_bytes());
        bytes.extend(cluster.0.to_be_bytes());
        bytes.extend(store.0.to_be_bytes());
        bytes.extend(self.incarnation.0.to_be_bytes());
        bytes.push(match self.stage {
            Stage::Creating => 0,
            Stage::Ready => 1,
        });
        bytes.push(u8::try_from(node.len()).expect("a node id is two names of at most 63 bytes"));
        bytes.extend(node.as_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes
    }

    /// The stamp of these bytes, or `None` when they are damaged.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Recorded> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body).to_be_bytes() != *crc {
            return None;
        }
        let rest = body.strip_prefix(&MAGIC)?;
        let (format, rest) = rest.split_first_chunk::<4>()?;
        let format = u32::from_be_bytes(*format);
        if format > FORMAT {
            return Some(Recorded::Newer { format });
        }
        let (cluster, rest) = rest.split_first_chunk::<16>()?;
        let (store, rest) = rest.split_first_chunk::<16>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (&[stage, length], node) = rest.split_first_chunk::<2>()?;
        let node = (node.len() == usize::from(length)).then_some(node)?;
        let identity = Identity {
            format,
            cluster: ClusterId(u128::from_be_bytes(*cluster)),
            store: StoreId(u128::from_be_bytes(*store)),
            node: std::str::from_utf8(node).ok()?.parse().ok()?,
        };
        let stage = match stage {
            0 => Stage::Creating,
            1 => Stage::Ready,
            _ => return None,
        };
        Some(Recorded::Known(Self {
            identity,
            incarnation: Incarnation(u64::from_be_bytes(*incarnation)),
            stage,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> ControlRecord {
        ControlRecord {
            identity: Identity {
                format: FORMAT,
                cluster: ClusterId(1),
                store: StoreId(2),
                node: NodeId::new("us-east", "n1").expect("valid"),
            },
            incarnation: Incarnation(3),
            stage: Stage::Ready,
        }
    }

    #[test]
    fn a_stamp_reads_back_and_no_flipped_bit_passes() {
        let bytes = record().encode();
        assert_eq!(ControlRecord::decode(&bytes), Some(Recorded::Known(record())));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ControlRecord::decode(&flipped), None, "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert_eq!(ControlRecord::decode(&bytes[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn a_newer_format_is_known_as_such_whatever_follows() {
        let mut bytes = [MAGIC.as_slice(), &(FORMAT + 1).to_be_bytes(), b"who knows"].concat();
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        assert_eq!(ControlRecord::decode(&bytes), Some(Recorded::Newer { format: FORMAT + 1 }));
    }
}
