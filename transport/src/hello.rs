//! What two ends of a fresh connection tell each other before anything else, and whether they may
//! speak at all.
//!
//! Both sides judge the other's HELLO by the same pure function over the same two inputs, so they
//! come to the same agreement without a further word; HELLO_ACK is the acceptor's own HELLO.
//!
//! * It decides: version, codec and lanes of a connection, or the typed refusal.
//! * It never does: trust a HELLO about who the peer is; that is what its certificate says.
//! * Invariant: the agreement is symmetric.

use std::fmt;

use rhumb_core::{ClusterId, NodeId, Principal, Role};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::codec::{Bincode, Codec, decode, encode};
use crate::settings::MAX_LANES;

/// The protocol versions that this program speaks, lowest and highest.
///
/// Version 2 has frames of many posts, and answers to many: [`crate::gathering`].
pub const VERSIONS: (u16, u16) = (1, 2);
/// Bytes of a HELLO at most.
pub const MAX_HELLO_BYTES: usize = 256 << 10;

const MAGIC: &[u8; 4] = b"RHLO";

/// A message that a node understands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManifestEntry {
    /// The stable name.
    pub name: String,
    /// The version since which it has its present fields.
    pub version: u32,
    /// A fingerprint of its schema.
    pub fingerprint: u64,
}

/// What one side says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions, lowest and highest.
    pub versions: (u16, u16),
    /// The mesh; `None` for a caller that does not know it.
    pub cluster: Option<ClusterId>,
    /// The node, for nodes.
    pub node: Option<NodeId>,
    /// SHA-256 of the founding node list, for nodes.
    pub founding: Option<[u8; 32]>,
    /// A random number of the process: a restarted peer has another.
    pub boot: u64,
    /// Codecs, by number.
    pub codecs: Vec<u8>,
    /// Lanes that it would use.
    pub lanes: u16,
    /// Messages that it understands.
    pub manifest: Vec<ManifestEntry>,
    /// Its region's signing key.
    pub public_key: Vec<u8>,
    /// Which life of the node on its disk.
    pub incarnation: u64,
    /// The program's version.
    pub build: String,
}

/// What both sides use on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The protocol version.
    pub version: u16,
    /// The codec of bodies.
    pub codec: u8,
    /// Lanes in each direction.
    pub lanes: u16,
}

/// Why a HELLO does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum HelloRefusalKind {
    /// No protocol version in common.
    Version = 0x10,
    /// Another mesh.
    Cluster = 0x11,
    /// Another founding node list.
    Founding = 0x12,
    /// No codec in common.
    Codec = 0x13,
    /// The HELLO names another node than the certificate.
    Identity = 0x14,
    /// The peer is this node.
    Itself = 0x15,
    /// The bytes are not a HELLO.
    Malformed = 0x16,
    /// The node is about to stop.
    Draining = 0x17,
    /// As many connections as may be.
    Busy = 0x18,
}

impl HelloRefusalKind {
    const ALL: [Self; 9] = [
        Self::Version,
        Self::Cluster,
        Self::Founding,
        Self::Codec,
        Self::Identity,
        Self::Itself,
        Self::Malformed,
        Self::Draining,
        Self::Busy,
    ];

    /// The kind of a connection's close code.
    #[must_use]
    pub fn of(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| u64::from(*kind as u32) == code)
    }
}

/// A refusal with what was wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct HelloRefusal {
    /// Which rule.
    pub kind: HelloRefusalKind,
    /// For humans.
    pub detail: String,
}

impl HelloRefusal {
    pub(crate) fn new(kind: HelloRefusalKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// Judges the peer's HELLO against this side's own and the peer's certificate.
///
/// # Errors
/// The first rule that does not hold.
pub fn judge(own: &Hello, peer: &Hello, who: &Principal) -> Result<Agreement, HelloRefusal> {
    use HelloRefusalKind as Kind;
    let version = own.versions.1.min(peer.versions.1);
    if version < own.versions.0.max(peer.versions.0) {
        let ((a, b), (c, d)) = (own.versions, peer.versions);
        let detail = format!("the peer speaks protocol versions {c} to {d}, this node {a} to {b}");
        return Err(HelloRefusal::new(Kind::Version, detail));
    }
    identity(own, peer, who)?;
    if let (Some(ours), Some(theirs)) = (own.cluster, peer.cluster)
        && ours != theirs
    {
        let detail = format!("the peer belongs to cluster {theirs}, this node to {ours}");
        return Err(HelloRefusal::new(Kind::Cluster, detail));
    }
    if let (Some(ours), Some(theirs)) = (own.founding, peer.founding)
        && ours != theirs
    {
        let detail = format!(
            "the peer's founding node list has hash {}, this node's {}: settings of the two differ",
            Short(&theirs),
            Short(&ours)
        );
        return Err(HelloRefusal::new(Kind::Founding, detail));
    }
    let codec = own.codecs.iter().copied().filter(|codec| peer.codecs.contains(codec)).max();
    let codec = codec.ok_or_else(|| {
        let detail = format!("the peer knows codecs {:?}, this node {:?}", peer.codecs, own.codecs);
        HelloRefusal::new(Kind::Codec, detail)
    })?;
    Ok(Agreement { version, codec, lanes: own.lanes.min(peer.lanes).clamp(1, MAX_LANES) })
}

/// A node says which one it is, and it is the one of its certificate; nobody else says so.
fn identity(own: &Hello, peer: &Hello, who: &Principal) -> Result<(), HelloRefusal> {
    let certified = match who.role {
        Role::Node => NodeId::new(who.region.as_str(), &who.name).ok(),
        Role::Client | Role::Operator => None,
    };
    if peer.node != certified {
        let said = peer.node.as_ref().map_or_else(|| "no node".to_owned(), |node| format!("node {node}"));
        let detail = format!("the peer says it is {said}, its certificate says {who}");
        return Err(HelloRefusal::new(HelloRefusalKind::Identity, detail));
    }
    if certified.is_some() && (peer.cluster.is_none() || peer.founding.is_none()) {
        let detail = "a node must name its cluster and its founding node list";
        return Err(HelloRefusal::new(HelloRefusalKind::Malformed, detail));
    }
    if peer.node.is_some() && peer.node == own.node {
        let detail = format!("the peer at that address is this node itself, {who}");
        return Err(HelloRefusal::new(HelloRefusalKind::Itself, detail));
    }
    Ok(())
}

/// The first 8 bytes of a hash.
struct Short<'a>(&'a [u8; 32]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// HELLO of protocol version 1 as it is sent, after the magic and the version range, which every
/// version must be able to read.
#[derive(Serialize, Deserialize)]
struct HelloV1 {
    cluster: Option<u128>,
    node: Option<(String, String)>,
    founding: Option<[u8; 32]>,
    boot: u64,
    codecs: Vec<u8>,
    lanes: u16,
    manifest: Vec<(String, u32, u64)>,
    public_key: Vec<u8>,
    incarnation: u64,
    build: String,
}

impl Hello {
    /// The codecs that this program knows.
    #[must_use]
    pub fn codecs() -> Vec<u8> {
        vec![Bincode::ID]
    }

    /// The bytes on the control stream.
    ///
    /// # Errors
    /// [`HelloRefusalKind::Malformed`] when it is too large, which a manifest can make it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, HelloRefusal> {
        let entry = |e: &ManifestEntry| (e.name.clone(), e.version, e.fingerprint);
        let wire = HelloV1 {
            cluster: self.cluster.map(|id| id.0),
            node: self.node.as_ref().map(|n| (n.region.to_string(), n.name.to_string())),
            founding: self.founding,
            boot: self.boot,
            codecs: self.codecs.clone(),
            lanes: self.lanes,
            manifest: self.manifest.iter().map(entry).collect(),
            public_key: self.public_key.clone(),
            incarnation: self.incarnation,
            build: self.build.clone(),
        };
        let malformed = |why: String| HelloRefusal::new(HelloRefusalKind::Malformed, why);
        let body = encode(&wire).map_err(|e| malformed(e.to_string()))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.versions.0.to_be_bytes());
        bytes.extend_from_slice(&self.versions.1.to_be_bytes());
        bytes.extend_from_slice(&body);
        match bytes.len() {
            len if len <= MAX_HELLO_BYTES => Ok(bytes),
            len => Err(malformed(format!("HELLO of {len} bytes is over {MAX_HELLO_BYTES}"))),
        }
    }

    /// Reads a HELLO.
    ///
    /// # Errors
    /// [`HelloRefusalKind::Version`] when the peer speaks only versions this program cannot read,
    /// [`HelloRefusalKind::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HelloRefusal> {
        let malformed = |why: String| HelloRefusal::new(HelloRefusalKind::Malformed, why);
        let Some((head, body)) = bytes.split_at_checked(8).filter(|(head, _)| head.starts_with(MAGIC)) else {
            return Err(malformed("the first message is not a HELLO".to_owned()));
        };
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let versions = (number(4), number(6));
        if versions.0 > VERSIONS.1 || versions.1 < VERSIONS.0 || versions.0 > versions.1 {
            let (low, high) = versions;
            let detail = format!(
                "the peer speaks protocol versions {low} to {high}, this program {} to {}",
                VERSIONS.0, VERSIONS.1
            );
            return Err(HelloRefusal::new(HelloRefusalKind::Version, detail));
        }
        let wire: HelloV1 = decode(body).map_err(|e| malformed(format!("HELLO {e}")))?;
        let node = match wire.node {
            Some((region, name)) => {
                Some(NodeId::new(&region, &name).map_err(|e| malformed(format!("HELLO: {e}")))?)
            }
            None => None,
        };
        let entry = |(name, version, fingerprint)| ManifestEntry { name, version, fingerprint };
        Ok(Self {
            versions,
            cluster: wire.cluster.map(ClusterId),
            node,
            founding: wire.founding,
            boot: wire.boot,
            codecs: wire.codecs,
            lanes: wire.lanes,
            manifest: wire.manifest.into_iter().map(entry).collect(),
            public_key: wire.public_key,
            incarnation: wire.incarnation,
            build: wire.build,
        })
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::Region;

    use super::*;

    fn node(name: &str) -> Hello {
        Hello {
            versions: VERSIONS,
            cluster: Some(ClusterId(7)),
            node: Some(NodeId::new("us-east", name).expect("valid")),
            founding: Some([3; 32]),
            boot: 5,
            codecs: vec![1],
            lanes: 8,
            manifest: vec![ManifestEntry { name: "ping".into(), version: 1, fingerprint: 9 }],
            public_key: vec![1, 2, 3],
            incarnation: 4,
            build: "0.1.0".into(),
        }
    }

    fn who(role: Role, name: &str) -> Principal {
        Principal { role, region: Region::new("us-east").expect("valid"), name: name.into() }
    }

    fn refused(change: impl FnOnce(&mut Hello)) -> HelloRefusalKind {
        let mut peer = node("n2");
        change(&mut peer);
        judge(&node("n1"), &peer, &who(Role::Node, "n2")).expect_err("must be refused").kind
    }

    #[test]
    fn both_sides_come_to_the_same_agreement() {
        let (mut a, mut b) = (node("n1"), node("n2"));
        a.lanes = 4;
        b.codecs = vec![2, 1];
        let at_a = judge(&a, &b, &who(Role::Node, "n2")).expect("agreed");
        let at_b = judge(&b, &a, &who(Role::Node, "n1")).expect("agreed");
        assert_eq!(at_a, at_b);
        assert_eq!(at_a, Agreement { version: 2, codec: 1, lanes: 4 });
        b.versions = (1, 1);
        let older = judge(&a, &b, &who(Role::Node, "n2")).expect("agreed");
        assert_eq!(older.version, 1, "the highest that both speak");
    }

    #[test]
    fn what_does_not_fit_is_refused_by_kind() {
        use HelloRefusalKind as Kind;
        assert_eq!(refused(|h| h.versions = (3, 4)), Kind::Version);
        assert_eq!(refused(|h| h.cluster = Some(ClusterId(8))), Kind::Cluster);
        assert_eq!(refused(|h| h.cluster = None), Kind::Malformed);
        assert_eq!(refused(|h| h.founding = Some([4; 32])), Kind::Founding);
        assert_eq!(refused(|h| h.codecs = vec![2]), Kind::Codec);
        assert_eq!(refused(|h| h.node = NodeId::new("us-east", "n3").ok()), Kind::Identity);
        assert_eq!(refused(|h| h.node = None), Kind::Identity);
        let itself = judge(&node("n1"), &node("n1"), &who(Role::Node, "n1"));
        assert_eq!(itself.expect_err("refused").kind, Kind::Itself);
    }

    #[test]
    fn a_client_need_not_know_the_cluster_but_must_not_claim_to_be_a_node() {
        let mut client = node("n2");
        (client.node, client.cluster, client.founding) = (None, None, None);
        judge(&node("n1"), &client, &who(Role::Client, "load")).expect("agreed");
        let claimed = judge(&node("n1"), &node("n2"), &who(Role::Client, "n2"));
        assert_eq!(claimed.expect_err("refused").kind, HelloRefusalKind::Identity);
        client.cluster = Some(ClusterId(8));
        let other = judge(&node("n1"), &client, &who(Role::Operator, "ops"));
        assert_eq!(other.expect_err("refused").kind, HelloRefusalKind::Cluster);
    }

    #[test]
    fn a_hello_reads_back_what_was_written() {
        let bytes = node("n1").to_bytes().expect("small");
        assert_eq!(Hello::from_bytes(&bytes).expect("whole"), node("n1"));
    }

    #[test]
    fn the_version_of_a_later_protocol_is_read_whatever_follows_it() {
        let later = [b"RHLO".as_slice(), &[0, 9, 0, 10], b"whatever version nine says"].concat();
        assert_eq!(Hello::from_bytes(&later).expect_err("refused").kind, HelloRefusalKind::Version);
    }

    #[test]
    fn damaged_hellos_are_refused_and_never_panic() {
        let bytes = node("n1").to_bytes().expect("small");
        for cut in 0..bytes.len() {
            assert!(Hello::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let _ = Hello::from_bytes(&damaged);
        }
    }

    #[test]
    fn every_refusal_has_a_close_code_of_its_own() {
        for kind in HelloRefusalKind::ALL {
            assert_eq!(HelloRefusalKind::of(u64::from(kind as u32)), Some(kind));
        }
        assert_eq!(HelloRefusalKind::of(0), None);
    }
}
