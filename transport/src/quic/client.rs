//! A program that only calls: the CLI, the load generator, a service outside the mesh.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::Endpoint;
use rhumb_core::rng::Seed;
use rhumb_core::{ClusterId, Fault, FaultKind, NodeId, Principal, Region, Role};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::debug;

use super::close::{GRACEFUL, refusal};
use super::config::Tls;
use super::greeting::{Greeted, Greeter};
use super::keep::{AGAIN_AFTER, PAUSE, after};
use super::thread::LinkThread;
use super::transport::peer_of;
use super::{Link, socket};
use crate::asked::Asked;
use crate::backoff::Backoff;
use crate::error::ConnectError;
use crate::gathering::Gathering;
use crate::hello::{Hello, VERSIONS};
use crate::identity::{Credentials, CredentialsError, Regions, TrustDomain};
use crate::link::{End, Node, Outside};
use crate::message::{Peer, Reply, Request};
use crate::settings::TransportSettings;

/// How long a closed client waits for its node to know it.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Which node a client expects at an address. Whatever it expects, the node's certificate must be of
/// the client's own trust domain, and its names must agree with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Any node of the mesh.
    AnyNode,
    /// Any node of a region.
    Region(Region),
    /// This node.
    Node(NodeId),
}

/// A client's connection. A handle: clones are the same connection. When it is lost it is dialled
/// again, until the last handle is dropped; calls meanwhile fail as not sent.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    _last: Arc<Last>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} to {})", self.inner.principal, self.inner.addr)
    }
}

struct Inner {
    endpoint: Endpoint,
    thread: LinkThread,
    addr: SocketAddr,
    expect: Expect,
    tls: Tls,
    hello: Hello,
    principal: Principal,
    domain: TrustDomain,
    node: Arc<Node>,
    link: Mutex<Result<Arc<Link>, String>>,
    generation: AtomicU64,
    /// Of the last call whose order matters to nobody.
    last_pair: AtomicU64,
    closing: watch::Sender<bool>,
}

/// Dropped with the last handle.
struct Last(Arc<Inner>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
        self.0.endpoint.close(GRACEFUL, b"closed");
    }
}

impl Client {
    /// Connects to a node with a client's or operator's certificate. A cluster that is not given is
    /// not compared. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ConnectError`]: whose refusal it was, and why. It is not tried again.
    pub async fn connect(
        addr: SocketAddr,
        expect: Expect,
        credentials: &Credentials,
        cluster: Option<ClusterId>,
        settings: TransportSettings,
    ) -> Result<Self, ConnectError> {
        let inner = Arc::new(Inner::new(addr, expect, credentials, cluster, settings)?);
        let last = Arc::new(Last(Arc::clone(&inner)));
        let limit = inner.node.settings.handshake_timeout;
        let dialling = Arc::clone(&inner);
        let greeted = inner.thread.handle().spawn(async move {
            timeout(limit, dialling.dial()).await.unwrap_or(Err(ConnectError::Timeout(limit)))
        });
        let greeted = greeted.await.map_err(|panic| ConnectError::Local(panic.to_string()))??;
        let link = inner.move_in(&greeted);
        inner.thread.handle().spawn(Arc::clone(&inner).keep(link, greeted));
        Ok(Self { inner, _last: last })
    }

    /// Asks, or posts, and waits, at most until the deadline in the headers. Calls that are under way together
    /// keep no order among themselves.
    ///
    /// # Errors
    /// A [`Fault`]; its delivery says whether the handler may have run.
    pub async fn ask(&self, request: Request) -> Result<Reply, Fault> {
        let pair = self.link()?.any_pair(&self.inner.last_pair);
        self.ask_in_order(pair, request).await
    }

    /// Asks, in the order of calls with the same `pair`, within one connection.
    ///
    /// # Errors
    /// As for [`Client::ask`].
    pub async fn ask_in_order(&self, pair: u64, request: Request) -> Result<Reply, Fault> {
        self.begin(pair, request)?.await
    }

    /// As [`Client::ask_in_order`]; what is given is waited for. When this returns, the message has its
    /// place in the order.
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn begin(&self, pair: u64, mut request: Request) -> Result<Asked, Fault> {
        request.kind = request.kind.answered();
        self.link()?.ask(pair, request)
    }

    /// As [`Transport::gather`](crate::Transport::gather).
    ///
    /// # Errors
    /// A [`Fault`]: it was not sent.
    pub fn gather(&self, pair: u64, request: Request, gathering: &Arc<Gathering>) -> Result<Asked, Fault> {
        self.link()?.gather(pair, request, gathering)
    }

    /// Whether there is a connection to a node that knows gathered messages.
    #[must_use]
    pub fn gathers(&self) -> bool {
        self.inner.link.lock().as_ref().is_ok_and(|link| link.gathers())
    }

    fn link(&self) -> Result<Arc<Link>, Fault> {
        let link = self.inner.link.lock().clone();
        link.map_err(|why| {
            let why = format!("{}: {why}", self.inner.addr);
            Fault::not_sent(FaultKind::Unreachable(why))
        })
    }

    /// The node, as its certificate and HELLO describe it; `None` while there is no connection.
    #[must_use]
    pub fn peer(&self) -> Option<Arc<Peer>> {
        self.inner.link.lock().as_ref().ok().map(|link| Arc::clone(&link.peer))
    }

    /// The smoothed round trip to the node; `None` while there is no connection.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.inner.link.lock().as_ref().ok().map(|link| link.wire.rtt())
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.link.lock().is_ok()
    }

    /// Swaps what this client is certified with and believes, for every later handshake. Where another
    /// certificate was shown, a connection is made anew and takes over from the one that there is, which drains.
    ///
    /// # Errors
    /// [`CredentialsError`]: they are somebody else's, or cannot be used; nothing has changed.
    pub fn renew(&self, credentials: &Credentials) -> Result<(), CredentialsError> {
        if self.inner.tls.renew(credentials)?
            && let Ok(link) = &*self.inner.link.lock()
        {
            link.redial.notify_one();
        }
        Ok(())
    }

    /// Closes the connection and waits a moment for the node to know it.
    pub async fn close(&self) {
        self.inner.closing.send_replace(true);
        self.inner.endpoint.close(GRACEFUL, b"closed");
        if timeout(CLOSE_WAIT, self.inner.endpoint.wait_idle()).await.is_err() {
            debug!("closed without the last acknowledgement");
        }
    }
}

impl Inner {
    fn new(
        addr: SocketAddr,
        expect: Expect,
        credentials: &Credentials,
        cluster: Option<ClusterId>,
        settings: TransportSettings,
    ) -> Result<Self, ConnectError> {
        let local = |e: &dyn fmt::Display| ConnectError::Local(e.to_string());
        settings.validate().map_err(|e| local(&e))?;
        let principal = credentials.principal().clone();
        if principal.role == Role::Node {
            return Err(local(&format!(
                "{principal} is no client: use a client's or operator's certificate"
            )));
        }
        let from: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let thread = LinkThread::of_clients().map_err(|e| local(&e))?;
        let (endpoint, _) = {
            let _on_it = thread.handle().enter();
            socket::endpoint(from, settings.socket_buffer, None).map_err(|e| local(&e))?
        };
        let node = Node::new(principal.region.clone(), Arc::new(Outside), Arc::new(Outside), settings);
        Ok(Self {
            endpoint,
            thread,
            addr,
            expect,
            tls: Tls::new(credentials, &node.settings).map_err(|e| local(&e))?,
            hello: hello(cluster, node.settings.lanes),
            principal,
            domain: credentials.trust_domain().clone(),
            node: Arc::new(node),
            link: Mutex::new(Err("not connected yet".to_owned())),
            generation: AtomicU64::new(0),
            last_pair: AtomicU64::new(0),
            closing: watch::Sender::new(false),
        })
    }

    async fn dial(&self) -> Result<Greeted, ConnectError> {
        let (name, any_node, regions) = match &self.expect {
            Expect::AnyNode => (self.domain.to_string(), true, None),
            Expect::Region(region) => (self.domain.to_string(), true, Some(region.clone())),
            Expect::Node(node) => {
                let (region, name) = (node.region.clone(), node.name.to_string());
                let dns = self.domain.dns_name(&Principal { role: Role::Node, region, name });
                (dns, false, Some(node.region.clone()))
            }
        };
        let dialling = self.tls.dialling(regions.map(|region| Regions::of([region])), any_node);
        let (config, verdict) = dialling.map_err(|e| ConnectError::Local(e.to_string()))?;
        let connecting = self.endpoint.connect_with(config, self.addr, &name);
        let connecting =
            connecting.map_err(|e| ConnectError::Dial { addr: self.addr, reason: e.to_string() })?;
        let connection = connecting.await.map_err(|e| refusal(&e, &verdict, &self.principal))?;
        let greeter =
            Greeter { own: &self.hello, principal: &self.principal, domain: &self.domain, verdict: &verdict };
        greeter.greet(connection, || {}).await
    }

    fn move_in(&self, greeted: &Greeted) -> Arc<Link> {
        let link = self.made(greeted);
        *self.link.lock() = Ok(Arc::clone(&link));
        link
    }

    /// The connection takes over from another, which then drains.
    fn succeed(&self, old: Arc<Link>, greeted: &Greeted) -> Arc<Link> {
        let link = self.made(greeted);
        link.hold();
        old.supersede();
        *self.link.lock() = Ok(Arc::clone(&link));
        tokio::spawn(old.give_way(Arc::clone(&link), true));
        link
    }

    fn made(&self, greeted: &Greeted) -> Arc<Link> {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let (hello, principal) = (greeted.hello.clone(), greeted.principal.clone());
        let peer = peer_of(&greeted.connection, hello, principal, generation);
        Link::new(Arc::clone(&self.node), peer, greeted.connection.clone(), greeted.agreement)
    }

    /// Serves a connection to its end, and those that take over from it.
    async fn serve(&self, mut link: Arc<Link>, greeted: Greeted) -> End {
        let limit = self.node.settings.handshake_timeout;
        let (mut ended, mut again) = (run(&link, greeted), None);
        loop {
            tokio::select! {
                end = &mut ended => return end_of(end),
                () = link.redial.notified() => {}
                () = after(again) => {}
            }
            let redial = async {
                tokio::time::sleep(PAUSE).await;
                timeout(limit, self.dial()).await
            };
            let dialed = tokio::select! {
                end = &mut ended => return end_of(end),
                dialed = redial => dialed,
            };
            match dialed.unwrap_or(Err(ConnectError::Timeout(limit))) {
                Ok(greeted) => {
                    link = self.succeed(link, &greeted);
                    (ended, again) = (run(&link, greeted), None);
                }
                Err(error) => {
                    debug!(%error, "no new connection; the old one stays");
                    again = Some(AGAIN_AFTER);
                }
            }
        }
    }

    /// Serves a connection to its end, then the next.
    async fn keep(self: Arc<Self>, mut link: Arc<Link>, mut greeted: Greeted) {
        let settings = &self.node.settings;
        let rng = Seed::from_entropy().rng();
        let mut backoff = Backoff::new(settings.connect_backoff_min, settings.connect_backoff_max, rng);
        let mut closing = self.closing.subscribe();
        loop {
            let end = self.serve(link, greeted).await;
            *self.link.lock() = Err(end.to_string());
            (link, greeted) = loop {
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => return,
                    () = tokio::time::sleep(backoff.failed()) => {}
                }
                let dialed = tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => return,
                    dialed = timeout(settings.handshake_timeout, self.dial()) => dialed,
                };
                match dialed.unwrap_or(Err(ConnectError::Timeout(settings.handshake_timeout))) {
                    Ok(greeted) => break (self.move_in(&greeted), greeted),
                    Err(error) => {
                        *self.link.lock() = Err(format!("not connected; the last attempt ended so: {error}"));
                    }
                }
            };
            backoff.succeeded();
        }
    }
}

/// Runs a connection in a task of its own.
fn run(link: &Arc<Link>, greeted: Greeted) -> JoinHandle<End> {
    tokio::spawn(Arc::clone(link).run(greeted.send, greeted.receive))
}

fn end_of(ended: Result<End, JoinError>) -> End {
    ended.unwrap_or_else(|panic| End::Internal(panic.to_string()))
}

fn hello(cluster: Option<ClusterId>, lanes: u16) -> Hello {
    Hello {
        versions: VERSIONS,
        cluster,
        node: None,
        founding: None,
        boot: Seed::from_entropy().rng().u64(),
        codecs: Hello::codecs(),
        lanes,
        manifest: Vec::new(),
        public_key: Vec::new(),
        incarnation: 0,
        build: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(link) = &*self.link.lock() {
            link.close(&End::Lost("the client was dropped".to_owned()));
        }
    }
}
