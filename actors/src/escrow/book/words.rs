//! What the machine is told, and what it wants done.

use std::time::Duration;

use rhumb_core::{Mono, NodeId, PoolName, Region};

use crate::escrow::messages::{
    AttestPool, Confirm, CreatePool, Held, Hold, PeerMessage, PoolAttested, PoolCreated, PoolView, ReadRow,
    Reconciled, Refusal, Release, Return, Returned, Row, Settled, ShowPool,
};

/// Names one request of a caller, chosen by the shell, never used twice in a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What callers ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Create a pool.
    Create {
        /// As asked.
        request: CreatePool,
        /// The regions that policy lets hold the class.
        allowed: Vec<Region>,
    },
    /// This node's view of a pool.
    Show(ShowPool),
    /// This node's exact row.
    ReadRow(ReadRow),
    /// Hold units.
    Hold(Hold),
    /// Make a hold a sale.
    Confirm(Confirm),
    /// Give a hold back.
    Release(Release),
    /// Give back units of a sale.
    Return(Return),
    /// Say what a restored node had sold.
    Attest(AttestPool),
}

impl Request {
    /// The pool that it is about.
    #[must_use]
    pub fn pool(&self) -> &PoolName {
        match self {
            Self::Create { request, .. } => &request.name,
            Self::Show(show) => &show.pool,
            Self::ReadRow(read) => &read.pool,
            Self::Hold(hold) => &hold.pool,
            Self::Confirm(confirm) => &confirm.hold.pool,
            Self::Release(release) => &release.hold.pool,
            Self::Return(request) => &request.hold.pool,
            Self::Attest(attest) => &attest.pool,
        }
    }
}

/// What callers are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Request::Create`].
    Created(PoolCreated),
    /// To [`Request::Show`].
    View(Box<PoolView>),
    /// To [`Request::ReadRow`].
    Row(Box<Row>),
    /// To [`Request::Hold`].
    Held(Held),
    /// To [`Request::Confirm`] and [`Request::Release`].
    Settled(Settled),
    /// To [`Request::Return`].
    Returned(Returned),
    /// To [`Request::Attest`].
    Attested(Box<PoolAttested>),
}

/// What the machine is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A caller asks; it waits until then.
    Ask {
        /// Names the request.
        token: Token,
        /// What is asked.
        request: Request,
        /// When the caller stops waiting.
        until: Mono,
    },
    /// The caller of this request waits no longer.
    Abandoned(Token),
    /// A request handed out as [`Effect::Forward`] has come back (with whatever answer or fault).
    Forwarded {
        /// Which.
        token: Token,
        /// The refusal, if it was answered with one.
        refusal: Option<Refusal>,
    },
    /// What came of [`Effect::Read`].
    RowRead {
        /// Which node was asked.
        from: NodeId,
        /// Of which pool.
        pool: PoolName,
        /// Which reading.
        number: u64,
        /// What it said; none if it did not.
        answer: Option<Result<Answer, Refusal>>,
    },
    /// A node says something.
    Peer {
        /// Which, by its certificate.
        from: NodeId,
        /// What.
        message: PeerMessage,
    },
    /// A node can be reached.
    PeerUp(NodeId),
    /// A node cannot be reached.
    PeerDown(NodeId),
    /// A deadline has come.
    Tick,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Answer a caller.
    Reply {
        /// Which request.
        token: Token,
        /// The answer.
        answer: Result<Answer, Refusal>,
    },
    /// Ask another node in the caller's name, and give the caller whatever comes: the answer, its
    /// refusal, or the fault that there was none. Then say [`Input::Forwarded`].
    Forward {
        /// Which request.
        token: Token,
        /// Whom to ask.
        to: NodeId,
        /// What to ask it.
        request: Request,
    },
    /// Ask a node for its exact row of a pool ([`Request::ReadRow`]), then say [`Input::RowRead`]: also
    /// when nobody answers within the time.
    Read {
        /// Of which pool.
        pool: PoolName,
        /// Whom to ask.
        to: NodeId,
        /// Names the reading.
        number: u64,
        /// How long to wait for the answer.
        within: Duration,
    },
    /// A reconciliation found that units have appeared or vanished, or that rows contradict each other.
    Alarm {
        /// Of which pool.
        pool: PoolName,
        /// What it found.
        found: Reconciled,
    },
    /// Tell a node something. It may be lost.
    Peer {
        /// Which.
        to: NodeId,
        /// What.
        message: PeerMessage,
    },
}

/// Rights that nobody can sell at present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stranded {
    /// Units on this node that it may not spend: it is not proven, or not attested.
    pub here: u64,
    /// Units last known to be available on nodes that cannot be reached, or on their way there.
    pub away: u64,
}
