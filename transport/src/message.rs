//! What is said to a peer and what comes back, before it is bytes and after it was.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rhumb_core::{ClusterId, DataClass, Epoch, Guarantee, HybridTime, NodeId, Principal};
use tokio::time::Instant;

use crate::hello::ManifestEntry;

/// Whether an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller waits for a reply or a fault.
    Ask,
    /// Nobody waits.
    Tell,
    /// The caller waits until the receiver's mailbox has taken the message, or refused it: a tell that
    /// learns *full*. On the way it is an ask.
    Post,
    /// Many posts under one head: the body is of [`gathering`](crate::gathering), and so is the answer's.
    Posts,
}

impl Kind {
    /// This kind where somebody waits: what is told becomes an ask.
    pub(crate) fn answered(self) -> Self {
        match self {
            Self::Ask | Self::Tell => Self::Ask,
            Self::Post | Self::Posts => self,
        }
    }
}

/// How a message came in. Measured only of one whose trace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When its frame was taken up.
    pub at: Instant,
    /// How long it took until the ingress gate had let it pass.
    pub gate: Duration,
}

/// W3C trace context in binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace (16 bytes).
    pub trace_id: u128,
    /// The caller's span (8 bytes); 0 if it has none that is kept: then the callee's is the first.
    pub span_id: u64,
    /// Trace flags; bit 0 is *sampled*.
    pub flags: u8,
}

impl TraceContext {
    /// The flag of a trace that is kept.
    pub const SAMPLED: u8 = 1;

    /// Whether whoever began the trace keeps it.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

/// What every call carries without the caller's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// How much time remains. On arrival it counts from the arrival: clocks are not compared.
    pub deadline: Duration,
    /// The caller's hybrid time.
    pub hybrid: HybridTime,
    /// The caller's trace, if it is traced.
    pub trace: Option<TraceContext>,
    /// The guarantee of the chain of calls so far.
    pub guarantee: Guarantee,
    /// The guarantee that the caller requires.
    pub required: Guarantee,
    /// The idempotency key, where the message has one.
    pub idempotency_key: Option<String>,
    /// The epoch that the caller believes in, where it matters.
    pub epoch: Option<Epoch>,
    /// The addresses of the callers, outermost first.
    pub chain: Vec<String>,
    /// Which actor of the receiving node is meant, `TYPE/KEY` or `TYPE@REGION/KEY`, in at most
    /// [`MAX_TARGET_BYTES`](crate::envelope::MAX_TARGET_BYTES); `None` for the node itself.
    pub target: Option<ByteString>,
}

impl Headers {
    /// Headers with this much time and otherwise nothing said.
    #[must_use]
    pub fn within(deadline: Duration) -> Self {
        Self {
            deadline,
            hybrid: HybridTime::ZERO,
            trace: None,
            guarantee: Guarantee::STRONGEST,
            required: Guarantee::Eventual,
            idempotency_key: None,
            epoch: None,
            chain: Vec::new(),
            target: None,
        }
    }
}

/// A message on its way to a handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The stable name of the message, never a Rust path.
    pub name: ByteString,
    /// The class of the data in it.
    pub class: DataClass,
    /// The encoded message.
    pub body: Bytes,
    /// What goes with it.
    pub headers: Headers,
    /// Whether an answer is wanted.
    pub kind: Kind,
    /// How it came in, where that was measured; `None` on its way out.
    pub arrival: Option<Arrival>,
}

impl Request {
    /// A question.
    #[must_use]
    pub fn ask(name: impl Into<ByteString>, class: DataClass, body: Bytes, headers: Headers) -> Self {
        Self { name: name.into(), class, body, headers, kind: Kind::Ask, arrival: None }
    }

    /// A message without an answer.
    #[must_use]
    pub fn tell(name: impl Into<ByteString>, class: DataClass, body: Bytes, headers: Headers) -> Self {
        Self { name: name.into(), class, body, headers, kind: Kind::Tell, arrival: None }
    }

    /// A message that is answered, emptily, as soon as the receiver's mailbox has taken it.
    #[must_use]
    pub fn post(name: impl Into<ByteString>, class: DataClass, body: Bytes, headers: Headers) -> Self {
        Self { name: name.into(), class, body, headers, kind: Kind::Post, arrival: None }
    }
}

/// A handler's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The class of the data in the answer, which need not be the question's.
    pub class: DataClass,
    /// The encoded answer.
    pub body: Bytes,
    /// The callee's hybrid time.
    pub hybrid: HybridTime,
    /// The guarantee that was achieved.
    pub guarantee: Guarantee,
    /// The callee's span.
    pub trace: Option<TraceContext>,
}

/// What this node says of itself in HELLO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The mesh.
    pub cluster: ClusterId,
    /// The node, as its certificate names it; `None` for a program that only calls.
    pub node: Option<NodeId>,
    /// SHA-256 of the founding node list.
    pub founding_hash: [u8; 32],
    /// The messages that this node understands.
    pub manifest: Vec<ManifestEntry>,
    /// The region's signing key (Ed25519), public part.
    pub public_key: Vec<u8>,
    /// Which life of the node on its disk.
    pub incarnation: u64,
    /// The program's version, for humans.
    pub build: String,
}

/// A verified peer, as one connection generation knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who its certificate says it is.
    pub principal: Principal,
    /// The node, where it is one.
    pub node: Option<NodeId>,
    /// Counts this node's connections with that peer, from 1. Order holds only within one.
    pub generation: u64,
    /// Where the bytes come from (a relay's address, if there is one between).
    pub address: SocketAddr,
    /// The messages that the peer understands.
    pub manifest: Vec<ManifestEntry>,
    /// The signing key of the peer's region.
    pub public_key: Vec<u8>,
    /// Which life of the peer on its disk.
    pub incarnation: u64,
    /// The peer's program version.
    pub build: String,
}
