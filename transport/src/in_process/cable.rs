//! The wire of a link inside one process: two ducts, one for each direction, and the network's rules.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Delivery, Fault, Mono};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::Link;
use super::line::Line;
use super::paths::{Paths, Seat};
use crate::control::ControlMessage;
use crate::envelope::Frame;
use crate::hello::VERSIONS;
use crate::link::{End, Wire};

/// What every cable of a network looks at.
pub(crate) struct World {
    pub(crate) paths: watch::Sender<Paths>,
    begun: Instant,
    seed: Seed,
    /// The protocol version of connections that are made from now on.
    pub(crate) version: AtomicU16,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let (paths, begun) = (watch::Sender::new(Paths::default()), Instant::now());
        Self { paths, begun, seed: Seed::new(seed), version: AtomicU16::new(VERSIONS.1) }
    }

    pub(crate) fn now(&self) -> Mono {
        Mono(self.begun.elapsed())
    }

    /// Waits until what the test has said is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Paths) -> bool) {
        // The sender lives in this world, so waiting cannot fail.
        let _ = self.paths.subscribe().wait_for(|paths| wanted(paths)).await;
    }

    pub(crate) fn there_and_back(&self, one: &Seat, other: &Seat) -> Duration {
        let paths = self.paths.borrow();
        paths.delay(one, other) + paths.delay(other, one)
    }

    async fn until_time(&self, at: Option<Mono>) {
        match at {
            Some(at) => sleep_until(self.begun + at.0).await,
            None => pending().await,
        }
    }
}

/// One thing on its way.
#[derive(Debug)]
pub(crate) enum Parcel {
    /// A frame on a lane.
    Frame(usize, Bytes),
    /// A frame too large for a lane, and whom to tell that it was taken up.
    Large(Bytes, oneshot::Sender<()>),
    /// A lane has ended in order.
    LaneEnds,
    /// A word of the control stream.
    Said(ControlMessage),
    /// The other side has closed the connection.
    Close(End),
}

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Duct {
    line: Mutex<Line<Parcel>>,
    /// Something was sent.
    sent: Notify,
    /// Something has arrived.
    taken: Notify,
    /// Nobody sends any more.
    ended: watch::Sender<bool>,
}

impl Duct {
    pub(crate) fn new(lanes: u16, window: u32) -> Arc<Self> {
        Arc::new(Self {
            line: Mutex::new(Line::new(lanes.into(), window as usize)),
            sent: Notify::new(),
            taken: Notify::new(),
            ended: watch::Sender::new(false),
        })
    }
}

/// One end of a connection.
pub(crate) struct Cable {
    world: Arc<World>,
    own: Seat,
    peer: Seat,
    outward: Arc<Duct>,
    inward: Arc<Duct>,
    jitter: Mutex<Rng>,
    end: watch::Sender<Option<End>>,
}

impl Cable {
    pub(crate) fn new(
        world: &Arc<World>,
        (own, peer): (&Seat, &Seat),
        (outward, inward): (&Arc<Duct>, &Arc<Duct>),
        generation: u64,
    ) -> Self {
        let label = format!("{own:?} to {peer:?}, {generation}");
        Self {
            jitter: Mutex::new(world.seed.child(label).rng()),
            world: Arc::clone(world),
            own: own.clone(),
            peer: peer.clone(),
            outward: Arc::clone(outward),
            inward: Arc::clone(inward),
            end: watch::Sender::new(None),
        }
    }

    /// Sends, with the delay that there is now.
    pub(crate) fn send(&self, lane: Option<usize>, bytes: usize, parcel: Parcel) {
        let (delay, jitter) = {
            let paths = self.world.paths.borrow();
            (paths.delay(&self.own, &self.peer), paths.jitter())
        };
        let bound = u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX);
        let longer = Duration::from_micros(self.jitter.lock().below(bound));
        let due = self.world.now().plus(delay).plus(longer);
        self.outward.line.lock().send(due, lane, bytes, parcel);
        self.outward.sent.notify_one();
    }

    /// Waits for what arrives next, as long as nothing may.
    pub(crate) async fn receive(&self) -> Parcel {
        loop {
            self.world.until(|paths| paths.lets_arrive(&self.peer, &self.own)).await;
            let due = {
                let mut line = self.inward.line.lock();
                if let Some(parcel) = line.arrived(self.world.now()) {
                    self.inward.taken.notify_waiters();
                    return parcel;
                }
                line.next_due()
            };
            tokio::select! {
                biased;
                () = self.inward.sent.notified() => {}
                () = self.world.until_time(due) => {}
            }
        }
    }

    /// Waits until this side is not frozen and a lane may send.
    pub(crate) async fn until_may_send(&self, lane: usize) {
        loop {
            let taken = self.outward.taken.notified();
            let has_room = self.outward.line.lock().has_room(lane);
            if has_room && self.is_awake() {
                return;
            }
            if !has_room {
                taken.await;
            }
            self.until_awake().await;
        }
    }

    /// Waits until this side is not frozen.
    pub(crate) async fn until_awake(&self) {
        self.world.until(|paths| !paths.is_frozen(&self.own)).await;
    }

    /// Waits until the peer could not be heard for so long. While this side is frozen that does not
    /// count: it is not the peer's silence.
    pub(crate) async fn until_silent(&self, limit: Duration) {
        let (mut said, mut ended) = (self.world.paths.subscribe(), self.inward.ended.subscribe());
        let mut since = None;
        loop {
            let (frozen, heard) = {
                let paths = said.borrow_and_update();
                let there = !*ended.borrow_and_update();
                (paths.is_frozen(&self.own), there && paths.lets_hear(&self.peer, &self.own))
            };
            let silent = !frozen && !heard;
            since = if silent { since.or(Some(self.world.now())) } else { None };
            // Both senders live in what this cable holds, so waiting cannot fail.
            tokio::select! {
                biased;
                _ = said.changed() => {}
                _ = ended.changed() => {}
                () = self.world.until_time(since.map(|since| since.plus(limit))) => return,
            }
        }
    }

    /// Why it has ended, when it has.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or_else(|| End::Internal("the end was forgotten".to_owned()))
    }

    fn is_awake(&self) -> bool {
        !self.world.paths.borrow().is_frozen(&self.own)
    }
}

impl Wire for Cable {
    /// A frozen side ends without a word, as if it were killed.
    fn close(&self, end: &End) {
        let first = self.end.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| end.clone());
            first
        });
        if !first {
            return;
        }
        if self.is_awake() {
            self.send(None, 0, Parcel::Close(end.clone()));
        }
        self.outward.ended.send_replace(true);
    }

    async fn closed(&self) {
        self.ended().await;
    }

    fn rtt(&self) -> Duration {
        self.world.there_and_back(&self.own, &self.peer)
    }

    async fn write_large(link: &Link, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let wire = &link.wire;
        tokio::select! {
            biased;
            end = wire.ended() => return Err(link.gone(Delivery::NotSent, &end.to_string())),
            () = wire.until_awake() => {}
        }
        let frame = link.leaving_large(frame, expires)?;
        let (taken, arrived) = oneshot::channel();
        wire.send(None, frame.len(), Parcel::Large(frame.encode(), taken));
        tokio::select! {
            biased;
            arrived = arrived => arrived.map_err(|_| link.gone(Delivery::Unknown, "not taken up")),
            end = wire.ended() => Err(link.gone(Delivery::Unknown, &end.to_string())),
        }
    }
}
