//! The face of a network to those who are joined to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rhumb_core::{Fault, FaultKind, NodeId, Principal};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::member::Member;
use super::network::Network;
use super::paths::Seat;
use crate::asked::Asked;
use crate::counts::TransportCounts;
use crate::gathering::Gathering;
use crate::link::{LinkStatus, expiry};
use crate::message::{Peer, Reply, Request};

/// How long a member that leaves waits for its connections to have ended.
const LEAVE_WAIT: Duration = Duration::from_secs(3);

/// A node's place in a network: what [`crate::Transport`] is over QUIC. A handle: clones are the same
/// port. It is joined until [`Port::leave`].
#[derive(Clone)]
pub struct Port {
    network: Network,
    member: Arc<Member>,
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.member.principal())
    }
}

impl Port {
    pub(crate) fn new(network: Network, member: Arc<Member>) -> Self {
        Self { network, member }
    }

    /// Asks a peer (or posts to it) and waits for its answer, at most until the deadline in the headers.
    /// Order as for [`crate::Transport::ask`].
    ///
    /// # Errors
    /// A [`Fault`]; its delivery says whether the handler may have run.
    pub async fn ask(&self, to: &NodeId, pair: u64, request: Request) -> Result<Reply, Fault> {
        self.begin(to, pair, request)?.await
    }

    /// As [`Port::ask`]; what is given is waited for. When this returns, the message has its place in the
    /// order.
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn begin(&self, to: &NodeId, pair: u64, mut request: Request) -> Result<Asked, Fault> {
        request.kind = request.kind.answered();
        self.member.link_to(to)?.ask(pair, request)
    }

    /// As [`Transport::gather`](crate::Transport::gather).
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn gather(
        &self,
        to: &NodeId,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        self.member.link_to(to)?.gather(pair, request, gathering)
    }

    /// Whether a peer is connected that knows gathered messages.
    #[must_use]
    pub fn gathers(&self, to: &NodeId) -> bool {
        self.member.link_to(to).is_ok_and(|link| link.gathers())
    }

    /// Tells a peer, without waiting: `Ok` means queued. Order as for [`Port::ask`].
    ///
    /// # Errors
    /// A [`Fault`] before anything was sent; among them that the lane is full.
    pub fn tell(&self, to: &NodeId, pair: u64, mut request: Request) -> Result<(), Fault> {
        request.kind = crate::message::Kind::Tell;
        self.member.link_to(to)?.tell(pair, request)
    }

    /// The other nodes and the connections with them, in order of their ids.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.member.links()
    }

    /// A connected peer, as it described itself.
    #[must_use]
    pub fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.member.link(&Seat::Node(node.clone())).map(|link| Arc::clone(&link.peer))
    }

    /// What was dropped without anyone being told.
    #[must_use]
    pub fn counts(&self) -> TransportCounts {
        self.member.node.counters.counts()
    }

    /// Waits until a peer is connected, also one that has yet to join. False when that took longer
    /// than `limit`.
    pub async fn connected(&self, node: &NodeId, limit: Duration) -> bool {
        timeout(limit, self.member.until_connected(node)).await.is_ok()
    }

    /// The network that it is joined to.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Prepares to leave: tells peers to send no more, answers what is under way, closes connections in
    /// order. What is not done within `limit` fails.
    pub async fn drain(&self, limit: Duration) {
        self.member.node.draining.store(true, Ordering::Release);
        let deadline = Instant::now() + limit;
        let mut drains = JoinSet::new();
        for link in self.member.all_links() {
            drains.spawn(async move { link.drain(deadline).await });
        }
        while let Some(drained) = drains.join_next().await {
            if let Err(panic) = drained {
                warn!(%panic, "a connection was not drained");
            }
        }
    }

    /// The node stops: calls under way fail (to avoid that, drain first), and its peers are told, unless
    /// it is frozen: then they find it silent, as if it were killed. Not to be waited for inside
    /// [`crate::Inbound`].
    pub async fn leave(&self) {
        leave(&self.network, &self.member).await;
    }
}

async fn leave(network: &Network, member: &Arc<Member>) {
    network.unseat(member);
    if timeout(LEAVE_WAIT, member.until_alone()).await.is_err() {
        warn!(member = %member.principal(), "left before its connections had ended");
    }
}

/// A program that only calls, and may ask every node: what [`crate::Client`] is over QUIC. A handle:
/// clones are the same. It leaves when the last one is dropped.
#[derive(Clone)]
pub struct ClientPort {
    inner: Arc<Joined>,
}

struct Joined {
    network: Network,
    member: Arc<Member>,
    next_pair: AtomicU64,
}

impl fmt::Debug for ClientPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientPort({})", self.inner.member.principal())
    }
}

impl ClientPort {
    pub(crate) fn new(network: Network, member: Arc<Member>) -> Self {
        Self { inner: Arc::new(Joined { network, member, next_pair: AtomicU64::new(0) }) }
    }

    /// Asks a node (or posts to it) and waits, at most until the deadline in the headers; the first time
    /// also for the connection. Calls that are under way together keep no order among themselves.
    ///
    /// # Errors
    /// A [`Fault`]; its delivery says whether the handler may have run.
    pub async fn ask(&self, to: &NodeId, request: Request) -> Result<Reply, Fault> {
        let pair = self.inner.next_pair.fetch_add(1, Ordering::Relaxed);
        self.ask_in_order(to, pair, request).await
    }

    /// As [`Transport::gather`](crate::Transport::gather).
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn gather(
        &self,
        to: &NodeId,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        self.inner.member.link_to(to)?.gather(pair, request, gathering)
    }

    /// Whether a node is connected that knows gathered messages.
    #[must_use]
    pub fn gathers(&self, to: &NodeId) -> bool {
        self.inner.member.link_to(to).is_ok_and(|link| link.gathers())
    }

    /// Asks, in the order of calls with the same `pair`, within one connection.
    ///
    /// # Errors
    /// As for [`ClientPort::ask`].
    pub async fn ask_in_order(&self, to: &NodeId, pair: u64, mut request: Request) -> Result<Reply, Fault> {
        request.kind = request.kind.answered();
        let member = &self.inner.member;
        if member.was_connected(to) == Some(false) {
            let expires = expiry(request.headers.deadline);
            if timeout_at(expires, member.until_connected(to)).await.is_err() {
                return Err(Fault::not_sent(FaultKind::Deadline(format!("connecting to {to}"))));
            }
            request.headers.deadline = expires.saturating_duration_since(Instant::now());
        }
        member.link_to(to)?.ask(pair, request)?.await
    }

    /// A connected node, as it described itself.
    #[must_use]
    pub fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        self.inner.member.link(&Seat::Node(node.clone())).map(|link| Arc::clone(&link.peer))
    }

    /// Waits until a node is connected. False when that took longer than `limit`.
    pub async fn connected(&self, node: &NodeId, limit: Duration) -> bool {
        timeout(limit, self.inner.member.until_connected(node)).await.is_ok()
    }

    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        self.inner.member.principal()
    }

    /// Stops: calls under way fail, and the nodes are told.
    pub async fn leave(&self) {
        leave(&self.inner.network, &self.inner.member).await;
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.network.unseat(&self.member);
    }
}
