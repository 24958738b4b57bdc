//! A node's transport: one UDP socket on which it listens and dials, a place for each peer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use quinn::{Connection, Endpoint};
use rhumb_core::rng::Seed;
use rhumb_core::{Fault, FaultKind, Gate, NodeId, Principal, Role};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::close::GRACEFUL;
use super::config::Tls;
use super::guests::Guests;
use super::slot::Slot;
use super::socket::{self, Datagrams};
use super::thread::LinkThread;
use super::{Link, certificate};
use crate::admission::Handshakes;
use crate::asked::Asked;
use crate::counts::{Counted, TransportCounts};
use crate::error::BindError;
use crate::gathering::Gathering;
use crate::hello::{Agreement, Hello, VERSIONS};
use crate::identity::{Certificate, Credentials, CredentialsError, Regions, TrustDomain};
use crate::inbound::Inbound;
use crate::link::{End, LinkStatus, Node};
use crate::message::{Identity, Kind, Peer, Reply, Request};
use crate::settings::TransportSettings;
use crate::tiebreak::Dialed;

/// The longest that a closed endpoint says so to peers whose packets are still on their way.
const CLOSE_WAIT: Duration = Duration::from_millis(500);
/// How long a peer may wait before it acknowledges a packet: QUIC's default (RFC 9000 §18.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// A node's transport. A handle: clones are the same transport. It runs until [`Transport::close`].
#[derive(Clone)]
pub struct Transport {
    inner: Arc<Inner>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.inner.own)
    }
}

pub(crate) struct Inner {
    pub(crate) endpoint: Endpoint,
    datagrams: Arc<Datagrams>,
    thread: LinkThread,
    pub(crate) tls: Tls,
    pub(crate) hello: Hello,
    pub(crate) own: NodeId,
    pub(crate) principal: Principal,
    pub(crate) domain: TrustDomain,
    pub(crate) regions: Regions,
    pub(crate) node: Arc<Node>,
    pub(crate) slots: RwLock<BTreeMap<NodeId, Arc<Slot>>>,
    pub(crate) guests: Mutex<Guests>,
    pub(crate) guest_number: AtomicU64,
    pub(crate) handshakes: Handshakes,
    pub(crate) stopping: watch::Sender<bool>,
    /// How long the peers that were connected when this node began to stop may still send.
    closing: Mutex<Duration>,
    pub(crate) seed: Seed,
}

impl Transport {
    /// Listens on an address (port 0: any) with a node's certificate, and lets in peers whose
    /// certificates are of the same authority and of these regions. It lives on the runtime in which it is
    /// bound, if that is one thread, and else on a thread of its own. There [`Inbound`] is called: what it
    /// does must not block.
    ///
    /// # Errors
    /// [`BindError`]: the address, the settings or the certificate cannot be used.
    pub fn bind(
        addr: SocketAddr,
        credentials: &Credentials,
        regions: Regions,
        identity: Identity,
        settings: TransportSettings,
        gate: Arc<dyn Gate>,
        inbound: Arc<dyn Inbound>,
    ) -> Result<Self, BindError> {
        settings.validate()?;
        let own = certified_node(credentials.principal(), identity.node.as_ref())?;
        let tls = Tls::new(credentials, &settings)?;
        let unbound = |source| BindError::Socket { addr, source };
        let thread = LinkThread::of_node().map_err(unbound)?;
        let (endpoint, datagrams) = {
            let _on_it = thread.handle().enter();
            socket::endpoint(addr, settings.socket_buffer, Some(tls.listening())).map_err(unbound)?
        };
        let seed = Seed::from_entropy();
        let hello = hello_of(identity, &settings, &seed);
        hello.to_bytes().map_err(|refusal| BindError::Identity(refusal.to_string()))?;
        let inner = Arc::new(Inner {
            endpoint,
            datagrams,
            thread,
            tls,
            hello,
            own,
            principal: credentials.principal().clone(),
            domain: credentials.trust_domain().clone(),
            regions,
            handshakes: Handshakes::new(settings.handshakes),
            node: Arc::new(Node::new(credentials.principal().region.clone(), gate, inbound, settings)),
            slots: RwLock::default(),
            guests: Mutex::default(),
            guest_number: AtomicU64::new(1),
            stopping: watch::Sender::new(false),
            closing: Mutex::default(),
            seed,
        });
        inner.thread.handle().spawn(Arc::clone(&inner).accept_all());
        Ok(Self { inner })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The operating system's, when the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// Keeps a peer connected: dials it (at a relay's address, if there is one between) until this
    /// node stops. Called again, it changes the address for later dials.
    pub fn add_peer(&self, peer: NodeId, addr: SocketAddr) {
        if peer == self.inner.own {
            return;
        }
        let slot = {
            let mut slots = self.inner.slots.write();
            Arc::clone(slots.entry(peer.clone()).or_insert_with(|| Arc::new(Slot::new(peer))))
        };
        if slot.set_address(addr) {
            self.inner.thread.handle().spawn(Arc::clone(&self.inner).keep(slot));
        }
    }

    /// Asks a peer (or posts to it) and waits for its answer, at most until the deadline in the headers. Messages with
    /// the same `pair` (a number made of sender and receiver) arrive in the order in which they were
    /// asked, within one connection and as long as none is too large for a lane.
    ///
    /// # Errors
    /// A [`Fault`]; its delivery says whether the handler may have run.
    pub async fn ask(&self, to: &NodeId, pair: u64, request: Request) -> Result<Reply, Fault> {
        self.begin(to, pair, request)?.await
    }

    /// As [`Transport::ask`]; what is given is waited for. When this returns, the message has its place
    /// in the order.
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn begin(&self, to: &NodeId, pair: u64, mut request: Request) -> Result<Asked, Fault> {
        request.kind = request.kind.answered();
        self.link_to(to)?.ask(pair, request)
    }

    /// Tells a peer what gathers until it is sent, in one message; the answer says what was not taken
    /// ([`Refused`](crate::gathering::Refused)). Something has gathered already. Order as for
    /// [`Transport::ask`].
    ///
    /// # Errors
    /// A [`Fault`] before anything was sent; among them that the peer does not know such messages.
    pub fn gather(
        &self,
        to: &NodeId,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        self.link_to(to)?.gather(pair, request, gathering)
    }

    /// Whether a peer is connected that knows gathered messages.
    #[must_use]
    pub fn gathers(&self, to: &NodeId) -> bool {
        self.link_to(to).is_ok_and(|link| link.gathers())
    }

    /// Tells a peer, without waiting: `Ok` means queued. Order as for [`Transport::ask`].
    ///
    /// # Errors
    /// A [`Fault`] before anything was sent; among them that the lane is full.
    pub fn tell(&self, to: &NodeId, pair: u64, mut request: Request) -> Result<(), Fault> {
        request.kind = Kind::Tell;
        self.link_to(to)?.tell(pair, request)
    }

    /// The peers and their connections, in order of their ids.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.inner.slots.read().values().map(|slot| slot.status()).collect()
    }

    /// The certificates that the clients and operators showed who are connected.
    #[must_use]
    pub fn guests(&self) -> Vec<Certificate> {
        let links: Vec<_> = self.inner.guests.lock().links().map(Arc::clone).collect();
        links.iter().filter_map(|link| certificate::of_peer(&link.wire)).collect()
    }

    /// How many clients and operators are connected, by who issued their certificates: no certificate is read
    /// for it.
    #[must_use]
    pub fn guests_by_issuer(&self) -> BTreeMap<String, u64> {
        self.inner.guests.lock().by_issuer()
    }

    /// What was dropped without anyone being told.
    #[must_use]
    pub fn counts(&self) -> TransportCounts {
        self.inner.node.counters.counts()
    }

    /// Connections that have ended, by how.
    #[must_use]
    pub fn ends(&self) -> Counted {
        self.inner.node.counters.ends()
    }

    /// Asked calls of peers that were refused before they came to a handler, by why.
    #[must_use]
    pub fn refusals(&self) -> Counted {
        self.inner.node.counters.refusals()
    }

    /// Datagrams that have come, by what their first bytes say.
    #[must_use]
    pub fn datagrams(&self) -> Counted {
        self.inner.datagrams.counted()
    }

    /// A connected peer, as its HELLO and certificate describe it.
    #[must_use]
    pub fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        let slot = self.inner.slots.read().get(node).map(Arc::clone)?;
        slot.link().map(|link| Arc::clone(&link.peer))
    }

    /// Waits until a peer is connected. False when that took longer than `limit`.
    pub async fn connected(&self, node: &NodeId, limit: Duration) -> bool {
        let slot = self.inner.slots.read().get(node).map(Arc::clone);
        match slot {
            Some(slot) => timeout(limit, slot.until(true)).await.is_ok(),
            None => false,
        }
    }

    /// Swaps what this node is certified with and believes, for every later handshake. Connections on which
    /// another certificate of this node was shown are made anew: the new one first, then the old one drains,
    /// and no call is lost. Those whose peer's certificate is not believed any more (revoked, expired, or of an
    /// authority that is none) are closed. Gives their number.
    ///
    /// # Errors
    /// [`CredentialsError`]: they are somebody else's, or cannot be used; nothing has changed.
    pub fn renew(&self, credentials: &Credentials) -> Result<usize, CredentialsError> {
        let shows_another = self.inner.tls.renew(credentials)?;
        let links = self.inner.all_links();
        let closed = links.iter().filter(|link| self.inner.close_if_disbelieved(link)).count();
        if shows_another {
            self.inner.refresh();
        }
        Ok(closed)
    }

    /// Takes no more calls and no more connections, and tells all peers so: the first half of
    /// [`Transport::drain`], which needs no time.
    pub fn refuse(&self) {
        self.inner.node.draining.store(true, Ordering::Release);
        self.inner.stopping.send_replace(true);
        let links = self.inner.all_links();
        self.inner.will_close(&links);
        for link in links {
            link.go_away();
        }
    }

    /// Prepares to stop: tells peers to send no more, answers what is under way, closes connections
    /// in order. What is not done within `limit` fails; the peers with whom that was so are given.
    pub async fn drain(&self, limit: Duration) -> Vec<Principal> {
        self.refuse();
        let deadline = Instant::now() + limit;
        let mut drains = tokio::task::JoinSet::new();
        for link in self.inner.all_links() {
            drains.spawn(async move { (!link.drain(deadline).await).then(|| link.peer.principal.clone()) });
        }
        let mut cut_short = Vec::new();
        while let Some(drained) = drains.join_next().await {
            match drained {
                Ok(peer) => cut_short.extend(peer),
                Err(panic) => warn!(%panic, "a connection was not drained"),
            }
        }
        cut_short
    }

    /// Closes every connection and the socket. Calls under way fail; to avoid that, drain first. It waits
    /// as long as packets of connected peers may still be on their way, to tell them too, half a second
    /// at most: nobody acknowledges the end of a connection, and a peer that missed it finds the silence.
    /// A peer that does not answer a dial is not waited for.
    pub async fn close(&self) {
        self.inner.node.draining.store(true, Ordering::Release);
        self.inner.stopping.send_replace(true);
        let links = self.inner.all_links();
        self.inner.will_close(&links);
        for link in links {
            link.close(&End::Lost("this node is closing".to_owned()));
        }
        self.inner.endpoint.close(GRACEFUL, b"closed");
        let wait = *self.inner.closing.lock();
        if timeout(wait, self.inner.endpoint.wait_idle()).await.is_err() {
            debug!("closed while packets of peers may still be on their way");
        }
    }

    fn link_to(&self, to: &NodeId) -> Result<Arc<Link>, Fault> {
        let unreachable = |why: String| Fault::not_sent(FaultKind::Unreachable(format!("{to}: {why}")));
        let slot = self.inner.slots.read().get(to).map(Arc::clone);
        let slot = slot.ok_or_else(|| unreachable("not a peer of this node".to_owned()))?;
        slot.link().ok_or_else(|| unreachable(slot.why_not()))
    }
}

impl Inner {
    pub(crate) fn link(
        &self,
        connection: Connection,
        hello: Hello,
        principal: Principal,
        agreement: Agreement,
        generation: u64,
    ) -> Arc<Link> {
        let peer = peer_of(&connection, hello, principal, generation);
        Link::new(Arc::clone(&self.node), peer, connection, agreement)
    }

    /// Closes a connection whose peer's certificate is not believed any more, also while it was being made:
    /// to be asked once the link has its place. Whether it was closed.
    pub(crate) fn close_if_disbelieved(&self, link: &Link) -> bool {
        let Some(end) = self.tls.disbelieves(&link.wire) else { return false };
        warn!(peer = %link.peer.principal, %end, "closed");
        link.close(&end);
        true
    }

    /// Asks for a successor of every connection.
    fn refresh(&self) {
        for (link, dialed) in self.slots.read().values().filter_map(|slot| slot.present()) {
            link.refresh(dialed);
        }
        for link in self.guests.lock().links() {
            link.refresh(Dialed::ByPeer);
        }
    }

    /// Connections that are about to be closed have to be heard of, also when they are gone by then.
    fn will_close(&self, links: &[Arc<Link>]) {
        let wait = close_wait(links.iter().map(|link| link.wire.stats().path.rtt));
        let mut closing = self.closing.lock();
        *closing = wait.max(*closing);
    }

    fn all_links(&self) -> Vec<Arc<Link>> {
        let nodes = self.slots.read();
        let guests = self.guests.lock();
        nodes.values().flat_map(|slot| slot.links()).chain(guests.links().map(Arc::clone)).collect()
    }
}

/// The peer of a greeted connection.
pub(crate) fn peer_of(
    connection: &Connection,
    hello: Hello,
    principal: Principal,
    generation: u64,
) -> Arc<Peer> {
    Arc::new(Peer {
        principal,
        node: hello.node,
        generation,
        address: connection.remote_address(),
        manifest: hello.manifest,
        public_key: hello.public_key,
        incarnation: hello.incarnation,
        build: hello.build,
    })
}

/// How long peers with these round trips may still send after this side closed: no less than three probe
/// timeouts of the slowest (RFC 9000 §10.2). A probe timeout is a round trip, four times its variation,
/// and the delay of an acknowledgement (RFC 9002 §6.2.1). The variation is not told: it is taken to be
/// three quarters of the round trip, and the delay twice, for timers of a busy machine.
fn close_wait(rtts: impl Iterator<Item = Duration>) -> Duration {
    let slowest = rtts.max();
    slowest.map_or(Duration::ZERO, |rtt| (3 * (4 * rtt + 2 * MAX_ACK_DELAY)).min(CLOSE_WAIT))
}

fn certified_node(certified: &Principal, said: Option<&NodeId>) -> Result<NodeId, BindError> {
    let node = NodeId::new(certified.region.as_str(), &certified.name).ok();
    match (certified.role, node) {
        (Role::Node, Some(node)) if said == Some(&node) => Ok(node),
        _ => {
            let said = said.map_or_else(|| "none".to_owned(), ToString::to_string);
            Err(BindError::Identity(format!("the settings name node {said}, the certificate {certified}")))
        }
    }
}

fn hello_of(identity: Identity, settings: &TransportSettings, seed: &Seed) -> Hello {
    Hello {
        versions: VERSIONS,
        cluster: Some(identity.cluster),
        node: identity.node,
        founding: Some(identity.founding_hash),
        boot: seed.child("boot").rng().u64(),
        codecs: Hello::codecs(),
        lanes: settings.lanes,
        manifest: identity.manifest,
        public_key: identity.public_key,
        incarnation: identity.incarnation,
        build: identity.build,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_waits_for_the_slowest_connected_peer_and_for_nobody_else() {
        let wait = |rtts: &[u64]| close_wait(rtts.iter().map(|rtt| Duration::from_millis(*rtt))).as_millis();
        assert_eq!(wait(&[]), 0, "peers that are down, or being dialled, are no connections");
        assert_eq!(wait(&[1, 0]), 162);
        assert_eq!(wait(&[1, 20, 5]), 390);
        assert_eq!(wait(&[250]), 500, "a peer that missed it finds the silence");
    }
}
