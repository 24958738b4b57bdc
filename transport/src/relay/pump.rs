//! The relay's sockets: one listener per ordered pair of nodes, one socket per flow through it, one
//! thread for all of it, and one heap of datagrams under way.
//!
//! Each source address at a listener is a *flow* with a socket of its own towards the peer, so that
//! replies find back; a node that comes back from another port is a new flow.
//!
//! * It never does: decide a datagram's fate ([`Wan`] does).
//! * Bounds: flows per link ([`MAX_FLOWS`], the least recently used goes first); datagrams under way
//!   by each link's plan. A socket that takes no more drops the datagram, as a router would.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rhumb_core::{Mono, NodeId};
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::udp::{FlowStats, RelayError};
use super::wan::{Fate, LinkId, Wan};

/// Flows through one link at most.
pub const MAX_FLOWS: usize = 64;
/// Datagrams handed over before others get their turn.
const BATCH: usize = 64;
/// What is asked of the system for each socket's buffers; it may give less.
const SOCKET_BUFFER: usize = 4 << 20;
/// The largest UDP datagram.
const MAX_UDP: usize = 65_536;
/// How long a socket rests that failed to receive.
const REST: Duration = Duration::from_millis(10);

/// What the relay's tasks and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Told when a datagram is due before all others.
    earlier: Notify,
    start: Instant,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) wan: Wan,
    pub(super) routes: Vec<Route>,
    under_way: BinaryHeap<Reverse<Datagram>>,
    entered: u64,
    pub(super) flows: FlowStats,
}

/// One relayed pair.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) to: NodeId,
    pub(super) there: LinkId,
    pub(super) back: LinkId,
    pub(super) target: Option<SocketAddr>,
}

/// One source address at one listener.
#[derive(Debug)]
struct Flow {
    route: usize,
    listener: Arc<UdpSocket>,
    dialler: SocketAddr,
    towards: UdpSocket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// A datagram under way, ordered by when it arrives, then by when it entered.
#[derive(Debug)]
struct Datagram {
    at: Mono,
    entered: u64,
    link: LinkId,
    way: Way,
    flow: Arc<Flow>,
    bytes: Box<[u8]>,
}

impl Shared {
    #[expect(clippy::disallowed_methods, reason = "this shell owns the relay's clock")]
    pub(super) fn new(wan: Wan, routes: Vec<Route>) -> Self {
        let under_way = BinaryHeap::new();
        let state = State { wan, routes, under_way, entered: 0, flows: FlowStats::default() };
        Self { state: Mutex::new(state), earlier: Notify::new(), start: Instant::now() }
    }

    fn now(&self) -> Mono {
        Mono(self.start.elapsed())
    }

    /// A datagram came in from a dialler, or as a reply from `sender`.
    fn enter(&self, flow: &Arc<Flow>, way: Way, sender: SocketAddr, bytes: &[u8]) {
        let mut state = self.state.lock();
        let route = &state.routes[flow.route];
        if way == Way::Back && route.target != Some(sender) {
            state.flows.strangers += 1;
            return;
        }
        let link = match way {
            Way::There => route.there,
            Way::Back => route.back,
        };
        let Fate::DeliverAt(at) = state.wan.packet(self.now(), link, bytes.len()) else { return };
        let earlier = state.under_way.peek().is_none_or(|Reverse(first)| at < first.at);
        state.entered += 1;
        let entered = state.entered;
        let (flow, bytes) = (flow.clone(), bytes.into());
        state.under_way.push(Reverse(Datagram { at, entered, link, way, flow, bytes }));
        if earlier {
            self.earlier.notify_one();
        }
    }

    /// Hands over what is due, at most a batch; says when the next is due.
    fn deliver(&self) -> Option<Mono> {
        let mut state = self.state.lock();
        let now = self.now();
        for _ in 0..BATCH {
            let due = state.under_way.peek().is_some_and(|Reverse(first)| first.at <= now);
            let Some(Reverse(datagram)) = due.then(|| state.under_way.pop()).flatten() else { break };
            state.hand_over(&datagram);
        }
        state.under_way.peek().map(|Reverse(first)| first.at)
    }
}

impl State {
    fn hand_over(&mut self, datagram: &Datagram) {
        let Datagram { link, way, flow, bytes, .. } = datagram;
        let (socket, address) = match way {
            Way::There => (&flow.towards, self.routes[flow.route].target),
            Way::Back => (&*flow.listener, Some(flow.dialler)),
        };
        let Some(address) = address else { return self.wan.arrive_nowhere(*link, bytes.len()) };
        if self.wan.may_arrive(*link) && SockRef::from(socket).send_to(bytes, &address.into()).is_err() {
            return self.wan.arrive_nowhere(*link, bytes.len());
        }
        self.wan.arrive(*link, bytes.len());
    }
}

/// Starts the relay's thread: nothing of the relay runs on the caller's runtime, so that a busy or a
/// stopped one delays no datagram.
pub(super) fn spawn(
    shared: Arc<Shared>,
    listeners: Vec<std::net::UdpSocket>,
) -> Result<(oneshot::Sender<()>, JoinHandle<()>), RelayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.map_err(|error| RelayError::System("build a runtime", error))?;
    let mut tasks = JoinSet::new();
    {
        let _entered = runtime.enter();
        for (route, listener) in listeners.into_iter().enumerate() {
            let listener = UdpSocket::from_std(listener);
            let listener = listener.map_err(|error| RelayError::System("register a socket", error))?;
            tasks.spawn_on(listen(shared.clone(), route, Arc::new(listener)), runtime.handle());
        }
        tasks.spawn_on(pace(shared), runtime.handle());
    }
    let (stop, stopped) = oneshot::channel();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stopped => {}
                Some(ended) = tasks.join_next() => {
                    // No task ends by itself. Half a relay is worse than none.
                    tracing::error!(?ended, "a task of the relay ended: the relay stops");
                }
            }
        });
    };
    let thread = std::thread::Builder::new().name("wan-relay".into()).spawn(run);
    Ok((stop, thread.map_err(|error| RelayError::System("start a thread", error))?))
}

/// Hands datagrams over when they are due.
async fn pace(shared: Arc<Shared>) {
    loop {
        match shared.deliver() {
            None => shared.earlier.notified().await,
            Some(at) if at <= shared.now() => tokio::task::yield_now().await,
            Some(at) => {
                let due = tokio::time::Instant::from_std(shared.start + at.0);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = shared.earlier.notified() => {}
                }
            }
        }
    }
}

/// Receives at one listener.
async fn listen(shared: Arc<Shared>, route: usize, listener: Arc<UdpSocket>) {
    let mut flows = Flows::default();
    let mut buffer = vec![0; MAX_UDP];
    loop {
        match listener.recv_from(&mut buffer).await {
            Ok((bytes, dialler)) => match flows.of(&shared, route, &listener, dialler) {
                Ok(flow) => shared.enter(&flow, Way::There, dialler, &buffer[..bytes]),
                Err(error) => {
                    shared.state.lock().flows.refused += 1;
                    tracing::warn!(%error, "the relay could not open a flow");
                }
            },
            Err(_) => shared.rest().await,
        }
    }
}

/// Receives a flow's replies.
async fn reply(shared: Arc<Shared>, flow: Arc<Flow>) {
    let mut buffer = vec![0; MAX_UDP];
    loop {
        match flow.towards.recv_from(&mut buffer).await {
            Ok((bytes, sender)) => shared.enter(&flow, Way::Back, sender, &buffer[..bytes]),
            Err(_) => shared.rest().await,
        }
    }
}

impl Shared {
    /// Counts a failed receive, and rests, so that one which fails for ever does not spin.
    async fn rest(&self) {
        self.state.lock().flows.receive_errors += 1;
        tokio::time::sleep(REST).await;
    }
}

/// The flows of one listener, least recently used first.
#[derive(Default)]
struct Flows(Vec<(Arc<Flow>, AbortHandle)>);

impl Flows {
    fn of(
        &mut self,
        shared: &Arc<Shared>,
        route: usize,
        listener: &Arc<UdpSocket>,
        dialler: SocketAddr,
    ) -> io::Result<Arc<Flow>> {
        if let Some(at) = self.0.iter().rposition(|(flow, _)| flow.dialler == dialler) {
            self.0[at..].rotate_left(1);
        } else {
            let towards = UdpSocket::from_std(bind()?)?;
            let flow = Arc::new(Flow { route, listener: listener.clone(), dialler, towards });
            let replies = tokio::spawn(reply(shared.clone(), flow.clone())).abort_handle();
            self.0.push((flow, replies));
            shared.state.lock().flows.opened += 1;
        }
        if self.0.len() > MAX_FLOWS {
            let (_, replies) = self.0.remove(0);
            replies.abort();
            shared.state.lock().flows.evicted += 1;
        }
        Ok(self.0[self.0.len() - 1].0.clone())
    }
}

pub(super) fn bind() -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(socket)
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Datagram {}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Datagram {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.entered).cmp(&(other.at, other.entered))
    }
}
