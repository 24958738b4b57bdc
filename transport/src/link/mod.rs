//! One connection generation with one peer: its lanes, the calls that wait, the answers owed.
//! Whatever carries the bytes (a QUIC connection, or a cable inside this process) is its [`Wire`].
//!
//! The decisions are those of [`crate::pending`] and [`crate::lanes`]. What is decided here is only
//! the order in which an end takes effect: deliveries stop, then every waiting call fails, then the
//! peer is reported gone. A new generation begins after that.

mod asking;
mod end;
mod lane;
mod large;
mod outside;
mod receive;
mod status;
mod succession;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use rhumb_core::{Delivery, Fault, FaultKind, Gate, Region};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::debug;

use crate::answer::Cancelled;
use crate::control::{ControlMessage, MAX_CANCELS};
use crate::counts::Counters;
use crate::envelope::{Frame, FrameKind, MAX_DEADLINE};
use crate::gathering::Gathering;
use crate::hello::Agreement;
use crate::inbound::Inbound;
use crate::message::{Peer, Reply};
use crate::pending::Pending;
use crate::settings::TransportSettings;
use crate::shares::{Everybody, Shares};
use crate::tiebreak::Dialed;

pub(crate) use end::{End, unread};
pub(crate) use lane::Lane;
pub(crate) use outside::Outside;
pub use status::{LinkState, LinkStatus, Waiting};

/// What carries the bytes of one link.
pub(crate) trait Wire: Sized + Send + Sync + 'static {
    /// Ends the connection. The peer is told why, if it can be.
    fn close(&self, end: &End);

    /// Waits until the connection has ended.
    fn closed(&self) -> impl Future<Output = ()> + Send;

    /// How long it takes there and back.
    fn rtt(&self) -> Duration;

    /// Sends one frame that is too large for a lane, and returns when the peer has it.
    fn write_large(
        link: &Link<Self>,
        frame: Frame,
        expires: Instant,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What all links of one transport share.
pub(crate) struct Node {
    pub(crate) region: Region,
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) inbound: Arc<dyn Inbound>,
    pub(crate) settings: TransportSettings,
    /// This node is about to stop: calls from peers are turned away.
    pub(crate) draining: AtomicBool,
    pub(crate) counters: Counters,
    /// What peers make this node hold.
    pub(crate) everybody: Everybody,
}

impl Node {
    pub(crate) fn new(
        region: Region,
        gate: Arc<dyn Gate>,
        inbound: Arc<dyn Inbound>,
        settings: TransportSettings,
    ) -> Self {
        let (draining, counters) = (AtomicBool::new(false), Counters::default());
        let everybody = Everybody::new(&settings);
        Self { region, gate, inbound, settings, draining, counters, everybody }
    }
}

/// How long a draining side waits for the end of its peer's lanes: a build that does not know of it never
/// ends them.
const LANES_END_WITHIN: Duration = Duration::from_secs(1);

/// When a call with so much time expires.
pub(crate) fn expiry(deadline: Duration) -> Instant {
    Instant::now() + deadline.min(MAX_DEADLINE)
}

/// A frame that waits on a lane.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) frame: Frame,
    /// When nobody wants it any more; `None` for answers, which are owed.
    pub(crate) expires: Option<Instant>,
    /// What becomes its body when it is written.
    pub(crate) gathering: Option<Arc<Gathering>>,
}

/// What the control stream has yet to say. Not a queue: each part coalesces.
#[derive(Debug, Default)]
pub(crate) struct ToSay {
    pub(crate) go_away: bool,
    pub(crate) lanes_done: bool,
    pub(crate) end_lanes: bool,
    pub(crate) cancels: Vec<u64>,
    pub(crate) refresh: bool,
    pub(crate) redial: bool,
}

pub(crate) type Waiter = oneshot::Sender<Result<Reply, Fault>>;

pub(crate) struct Link<W> {
    pub(crate) node: Arc<Node>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) wire: W,
    pub(crate) agreement: Agreement,
    pub(crate) begun: Instant,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) to_say: Mutex<ToSay>,
    pub(crate) say: Notify,
    pub(crate) calls: Mutex<Pending<Waiter>>,
    pub(crate) owed: Mutex<HashMap<u64, Cancelled>>,
    /// Posts that were taken, and whose lane has not said so yet.
    pub(crate) unsaid: Arc<AtomicUsize>,
    /// What the peer makes this node hold.
    pub(crate) shares: Arc<Shares>,
    pub(crate) next_call: AtomicU64,
    pub(crate) large: large::Large,
    /// Read while a message is delivered, written to when the link ends.
    pub(crate) open: RwLock<bool>,
    /// The peer has said GOAWAY.
    pub(crate) going_away: AtomicBool,
    /// The peer asks that this side's lanes end.
    pub(crate) to_end_lanes: AtomicBool,
    /// Lanes of the peer that were opened, a bit each: there are at most 64.
    pub(crate) lanes_begun: AtomicU64,
    /// Lanes of the peer that have ended in order.
    pub(crate) lanes_ended: AtomicU64,
    /// Something that a drain waits for may have happened.
    pub(crate) quieter: Notify,
    /// The peer has taken up everything that this side sent before it ended its lanes.
    pub(crate) taken_up: Notify,
    /// Nothing may leave over the lanes yet: an older connection comes first.
    pub(crate) held: watch::Sender<bool>,
    /// A newer connection has taken this one's place.
    pub(crate) superseded: AtomicBool,
    /// The peer was told that it may dial anew, and will: that connection takes over from this one in order.
    pub(crate) succession: AtomicBool,
    /// Who dialled this connection is to dial anew.
    pub(crate) redial: Notify,
    /// More faults wait for the peer than a lane has room for: it asks, and does not read.
    pub(crate) unread: Notify,
}

impl<W> fmt::Debug for Link<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} generation {})", self.peer.principal, self.peer.generation)
    }
}

impl<W: Wire> Link<W> {
    pub(crate) fn new(node: Arc<Node>, peer: Arc<Peer>, wire: W, agreement: Agreement) -> Arc<Self> {
        let settings = &node.settings;
        let unsaid = Arc::new(AtomicUsize::new(0));
        let lane = || {
            Lane::new(settings.lane_queue, settings.lane_queue_bytes, agreement.codec, Arc::clone(&unsaid))
        };
        Arc::new(Self {
            lanes: (0..agreement.lanes).map(|_| lane()).collect(),
            calls: Mutex::new(Pending::with_capacity(settings.in_flight)),
            large: large::Large::new(settings),
            shares: node.everybody.of(&peer.principal),
            unsaid,
            node,
            peer,
            wire,
            agreement,
            begun: Instant::now(),
            to_say: Mutex::default(),
            say: Notify::new(),
            owed: Mutex::default(),
            next_call: AtomicU64::new(1),
            open: RwLock::new(true),
            going_away: AtomicBool::new(false),
            to_end_lanes: AtomicBool::new(false),
            lanes_begun: AtomicU64::new(0),
            lanes_ended: AtomicU64::new(0),
            quieter: Notify::new(),
            taken_up: Notify::new(),
            held: watch::Sender::new(false),
            superseded: AtomicBool::new(false),
            succession: AtomicBool::new(false),
            redial: Notify::new(),
            unread: Notify::new(),
        })
    }

    /// The link has ended. Idempotent; when it returns, nothing of it is delivered any more and every
    /// call that waited has failed.
    pub(crate) fn fail(&self, end: &End) {
        {
            let mut open = self.open.write();
            if !std::mem::replace(&mut *open, false) {
                return;
            }
        }
        self.node.counters.ended[end.kind()].one();
        for lane in &self.lanes {
            let unsent = lane.clear();
            let told = unsent.iter().filter(|queued| queued.frame.kind == FrameKind::Tell).count();
            self.node.counters.tells_lost.add(told as u64);
        }
        let reason = format!("connection to {} lost: {end}", self.peer.principal);
        let waiting = self.calls.lock().end(&reason);
        for (waiter, delivery) in waiting {
            let kind = FaultKind::Unreachable(reason.clone());
            // Who has stopped waiting needs no fault.
            let _ = waiter.send(Err(Fault { kind, delivery, retry_after: None }));
        }
        let owed = std::mem::take(&mut *self.owed.lock());
        for cancelled in owed.into_values() {
            cancelled.cancel();
        }
        if !self.superseded.load(Ordering::Acquire) {
            self.node.inbound.disconnected(&self.peer);
        }
    }

    /// Ends the link from this side.
    pub(crate) fn close(&self, end: &End) {
        self.fail(end);
        self.wire.close(end);
    }

    /// Tells the peer that nobody waits for a call. A hint: when there are too many, it is dropped.
    pub(crate) fn cancel(&self, id: u64) {
        let mut to_say = self.to_say.lock();
        if to_say.cancels.len() < MAX_CANCELS {
            to_say.cancels.push(id);
            drop(to_say);
            self.say.notify_one();
        } else {
            self.node.counters.cancels_dropped.one();
        }
    }

    /// What waits to be written on all lanes.
    pub(crate) fn waiting(&self) -> Waiting {
        self.lanes.iter().fold(Waiting::default(), |waiting, lane| {
            let (messages, bytes) = lane.waiting();
            Waiting {
                messages: waiting.messages + messages,
                bytes: waiting.bytes + bytes,
                longest: waiting.longest.max(messages),
            }
        })
    }

    /// What the control stream has to say now.
    pub(crate) fn what_to_say(&self) -> Vec<ControlMessage> {
        let to_say = std::mem::take(&mut *self.to_say.lock());
        let mut messages = Vec::new();
        if to_say.go_away {
            messages.push(ControlMessage::GoAway);
        }
        if !to_say.cancels.is_empty() {
            messages.push(ControlMessage::Cancel(to_say.cancels));
        }
        if to_say.lanes_done {
            messages.push(ControlMessage::LanesDone);
        }
        if to_say.end_lanes {
            messages.push(ControlMessage::EndLanes);
        }
        if to_say.refresh {
            messages.push(ControlMessage::Refresh);
        }
        if to_say.redial {
            messages.push(ControlMessage::Redial);
        }
        messages
    }

    /// The peer's control stream has said something.
    pub(crate) fn told(&self, message: ControlMessage) {
        match message {
            ControlMessage::GoAway => {
                debug!(peer = %self.peer.principal, "the peer is draining");
                self.going_away.store(true, Ordering::Release);
            }
            ControlMessage::Cancel(ids) => self.cancelled(&ids),
            ControlMessage::LanesDone => self.taken_up.notify_one(),
            ControlMessage::EndLanes => {
                self.going_away.store(true, Ordering::Release);
                self.to_end_lanes.store(true, Ordering::Release);
                self.end_lanes_if_answered();
            }
            ControlMessage::Refresh => self.have_redialled(),
            ControlMessage::Redial => self.redial.notify_one(),
        }
    }

    /// What this side shows in handshakes has changed: asks for a connection that takes over from this one.
    pub(crate) fn refresh(&self, dialed: Dialed) {
        match dialed {
            // The other side must expect it, or it takes this connection for lost.
            Dialed::ByUs => {
                self.to_say.lock().refresh = true;
                self.say.notify_one();
            }
            Dialed::ByPeer => self.have_redialled(),
        }
    }

    fn have_redialled(&self) {
        self.succession.store(true, Ordering::Release);
        self.to_say.lock().redial = true;
        self.say.notify_one();
    }

    /// One call fewer is under way, or an answer fewer is owed.
    pub(crate) fn quieter(&self) {
        self.end_lanes_if_answered();
        self.quieter.notify_one();
    }

    /// Ends this side's lanes where the peer asked for it and every call of this side has its end.
    fn end_lanes_if_answered(&self) {
        if self.to_end_lanes.load(Ordering::Acquire) && self.calls.lock().is_empty() {
            self.end_lanes();
        }
    }

    fn end_lanes(&self) {
        self.lanes.iter().for_each(Lane::close);
    }

    /// A lane of the peer's has ended in order, and everything on it was taken up.
    pub(crate) fn lane_ended(&self) {
        let ended = self.lanes_ended.fetch_add(1, Ordering::AcqRel) + 1;
        if ended == self.lanes.len() as u64 {
            self.to_say.lock().lanes_done = true;
            self.say.notify_one();
            self.quieter.notify_one();
        }
    }

    /// Passes on what of a batch is still wanted, with the time that it has left. From here on a call
    /// counts as possibly sent.
    pub(crate) fn leaving(&self, batch: &mut Vec<Queued>, mut leave: impl FnMut(Frame)) {
        let now = Instant::now();
        let mut calls = self.calls.lock();
        for Queued { mut frame, expires, gathering } in batch.drain(..) {
            if let Some(gathering) = gathering {
                frame.body = gathering.take();
            }
            if let Some(expires) = expires {
                if expires <= now {
                    // An ask's caller keeps its own deadline; a tell has nobody to be told.
                    if frame.kind == FrameKind::Tell {
                        self.node.counters.tells_expired.one();
                    }
                    debug!(message = &*frame.name, "its deadline passed while it waited to be sent");
                    continue;
                }
                frame.deadline = expires - now;
            }
            if !frame.kind.wants_answer() || calls.writing(frame.id) {
                leave(frame);
            }
        }
    }

    /// Nobody waits for a call any more. Says what its caller may conclude; `None` when it was answered
    /// at the same moment.
    pub(crate) fn abandon(&self, id: u64) -> Option<Delivery> {
        let delivery = self.calls.lock().abandon(id);
        if delivery == Some(Delivery::Unknown) {
            self.cancel(id);
        }
        self.quieter();
        delivery
    }

    /// Whether nothing is under way in either direction.
    pub(crate) fn is_quiet(&self) -> bool {
        self.large.is_quiet() && self.calls.lock().is_empty() && self.owed.lock().is_empty()
    }

    /// Tells the peer to make no more calls. Saying it again does no harm.
    pub(crate) fn go_away(&self) {
        self.to_say.lock().go_away = true;
        self.say.notify_one();
    }

    /// Ends the link in order: says GOAWAY, lets what is under way end, calls no more itself, has the peer
    /// end its lanes and ends its own, waits until the peer has taken everything up, closes. What is not done
    /// at the deadline fails. Whether all of it was done.
    pub(crate) async fn drain(&self, deadline: Instant) -> bool {
        self.go_away();
        let drained = tokio::time::timeout_at(deadline, async {
            // A connection that ends meanwhile has nothing left to drain.
            tokio::select! {
                () = self.come_to_rest() => {}
                () = self.wire.closed() => {}
            }
        });
        let drained = drained.await.is_ok();
        if !drained {
            tracing::warn!(peer = %self.peer.principal, "drain was cut short by its deadline");
        }
        self.close(&End::Lost("closed by this side".to_owned()));
        drained
    }

    async fn come_to_rest(&self) {
        self.until_quiet().await;
        // What is called after the peer has ended its lanes would never be answered, and the link never quiet.
        self.calls.lock().close(&format!("the connection to {} is closing", self.peer.principal));
        self.until_quiet().await;
        // A call that the peer sent before it read GOAWAY may still be on its way: it is answered too.
        self.to_say.lock().end_lanes = true;
        self.say.notify_one();
        let ended = tokio::time::timeout(LANES_END_WITHIN, async {
            while self.lanes_ended.load(Ordering::Acquire) < self.lanes.len() as u64 {
                self.quieter.notified().await;
            }
        });
        if ended.await.is_err() {
            debug!(peer = %self.peer.principal, "the peer did not end its lanes");
        }
        self.until_quiet().await;
        self.end_lanes();
        if self.peer.node.is_some() {
            return self.taken_up.notified().await;
        }
        // A program may have its reasons to say nothing more; a stop does not wait for them.
        if tokio::time::timeout(LANES_END_WITHIN, self.taken_up.notified()).await.is_err() {
            debug!(peer = %self.peer.principal, "the program did not say that it has read everything");
        }
    }

    async fn until_quiet(&self) {
        while !self.is_quiet() {
            self.quieter.notified().await;
        }
    }

    pub(crate) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }
}
