//! Inward: a frame is decoded, passes the ingress gate, and goes to its handler or to whoever waits
//! for it. Nothing here waits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use hashbrown::hash_map::Entry;
use rhumb_core::{DataClass, Fault, FaultKind, Guarantee, HybridTime};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{End, Link, Queued, Wire, succession};
use crate::answer::{Answer, Owed, Returns};
use crate::control::WireFault;
use crate::envelope::{FIXED, Frame, FrameError, FrameKind};
use crate::gathering;
use crate::lanes::{NotQueued, Weight};
use crate::message::{Arrival, Headers, Kind, Reply, Request};
use crate::shares::Held;

impl<W: Wire> Link<W> {
    /// Takes up one frame that came over a lane, or in answer to whom `lane` is used.
    pub(crate) fn take_up(self: &Arc<Self>, lane: usize, bytes: Bytes) -> Result<(), End> {
        let open = self.open.read();
        if !*open {
            return Ok(());
        }
        match Frame::decode(bytes) {
            Ok(frame) if !self.may_be_said(&frame) => {
                return Err(End::Protocol(format!("a frame of kind {:?} that was not agreed", frame.kind)));
            }
            Ok(frame) => match frame.kind {
                FrameKind::Ask | FrameKind::Post | FrameKind::Posts | FrameKind::Tell => {
                    self.called(lane, frame)?;
                }
                FrameKind::Reply | FrameKind::Fault => self.answered(frame),
                FrameKind::Taken => self.were_taken(&frame)?,
            },
            Err(FrameError::Broken(broken)) => return Err(broken.into()),
            Err(FrameError::Message { kind, id, name, reason }) => {
                self.not_understood(lane, kind, id, name, reason);
            }
        }
        Ok(())
    }

    /// A peer calls.
    fn called(self: &Arc<Self>, lane: usize, frame: Frame) -> Result<(), End> {
        let expires = Instant::now() + frame.deadline;
        let answer = if frame.kind.wants_answer() {
            let Some(answer) = self.owe(frame.id, lane, expires)? else { return Ok(()) };
            answer
        } else {
            Answer::to_nobody()
        };
        let taken_up = frame.trace.is_some_and(|trace| trace.is_sampled()).then(Instant::now);
        match self.may_be_delivered(&frame).and_then(|()| self.holds(&frame)) {
            Ok(held) => {
                let answer = answer.holding(held);
                let request = request(frame);
                if let Some(reply) = succession::answer_to(&request) {
                    answer.reply(reply);
                    return Ok(());
                }
                let arrival = taken_up.map(|at| Arrival { at, gate: at.elapsed() });
                self.deliver(Request { arrival, ..request }, answer);
            }
            Err(why) => {
                if frame.kind.wants_answer() {
                    self.node.counters.refused_for(&why);
                } else {
                    debug!(peer = %self.peer.principal, message = &*frame.name, %why, "a tell was turned away");
                    self.node.counters.tells_refused.one();
                }
                answer.fault(Fault::not_sent(why));
            }
        }
        Ok(())
    }

    fn may_be_delivered(&self, frame: &Frame) -> Result<(), FaultKind> {
        if self.node.draining.load(Ordering::Acquire) {
            return Err(FaultKind::Draining);
        }
        self.may_come(&frame.class).map_err(FaultKind::Gate)?;
        if frame.codec != self.agreement.codec {
            let reason = format!("codec {}, agreed was {}", frame.codec, self.agreement.codec);
            return Err(FaultKind::Decode { name: frame.name.to_string(), reason });
        }
        Ok(())
    }

    /// Counts a message among what its sender makes this node hold, until it is handled.
    fn holds(&self, frame: &Frame) -> Result<Held, FaultKind> {
        let held = self.shares.inward.hold(frame.len());
        held.ok_or_else(|| FaultKind::Full(format!("bytes of calls under way from {}", self.peer.principal)))
    }

    /// Hands a message over. A panic there loses that message (its answer says so as it is dropped),
    /// not the connection and everyone else's calls with it.
    fn deliver(&self, request: Request, answer: Answer) {
        let name = request.name.clone();
        let deliver = AssertUnwindSafe(|| self.node.inbound.deliver(&self.peer, request, answer));
        if catch_unwind(deliver).is_err() {
            error!(message = &*name, "delivering a message panicked");
            self.node.counters.deliveries_panicked.one();
        }
    }

    /// Notes that an answer is owed; `None` when no more may be.
    fn owe(self: &Arc<Self>, id: u64, lane: usize, expires: Instant) -> Result<Option<Answer>, End> {
        let mut all = self.owed.lock();
        // What was taken stays owed until a lane has said so.
        if all.len() + self.unsaid.load(Ordering::Relaxed) >= self.node.settings.in_flight {
            drop(all);
            let full = FaultKind::Full(format!("node {}", self.node.region));
            self.node.counters.refused_for(&full);
            self.send_fault(id, lane, &Fault::not_sent(full));
            return Ok(None);
        }
        match all.entry(id) {
            Entry::Vacant(entry) => {
                let owed = Owed { link: Arc::clone(self) as Arc<dyn Returns>, id, lane, expires };
                let (answer, cancelled) = Answer::to_peer(owed);
                entry.insert(cancelled);
                Ok(Some(answer))
            }
            Entry::Occupied(_) => Err(End::Protocol(format!("call {id} was used twice"))),
        }
    }

    /// An answer has come.
    fn answered(&self, frame: Frame) {
        let Some(waiter) = self.calls.lock().answered(frame.id) else {
            debug!(call = frame.id, "answer to a call that nobody waits for");
            self.node.counters.answers_unwanted.one();
            return;
        };
        let answer = match (frame.kind, self.may_come(&frame.class)) {
            (_, Err(refusal)) => Err(Fault::ran(FaultKind::Gate(refusal))),
            (FrameKind::Fault, _) => Err(fault(&frame.body)),
            _ if frame.codec != self.agreement.codec => {
                let reason = format!("codec {}, agreed was {}", frame.codec, self.agreement.codec);
                Err(Fault::ran(FaultKind::Decode { name: "the answer".to_owned(), reason }))
            }
            _ => Ok(Reply {
                class: frame.class,
                body: frame.body,
                hybrid: frame.hybrid,
                guarantee: frame.guarantee,
                trace: frame.trace,
            }),
        };
        if waiter.send(answer).is_err() {
            // The waiter has gone in this moment.
            self.node.counters.answers_unwanted.one();
        }
        self.quieter();
    }

    /// Whether the agreed version knows such frames.
    fn may_be_said(&self, frame: &Frame) -> bool {
        self.gathers() || !matches!(frame.kind, FrameKind::Posts | FrameKind::Taken)
    }

    /// Posts were taken: many answers in one.
    fn were_taken(&self, frame: &Frame) -> Result<(), End> {
        if !gathering::are_ids(&frame.body) {
            let bytes = frame.body.len();
            return Err(End::Protocol(format!("{bytes} bytes are not the ids of calls that were taken")));
        }
        let passes = self.may_come(&frame.class);
        let waiters: Vec<_> = {
            let mut calls = self.calls.lock();
            gathering::taken(&frame.body).map(|id| calls.answered(id)).collect()
        };
        for waiter in waiters {
            let answer = match &passes {
                Ok(()) => Ok(taken(frame.hybrid)),
                Err(refusal) => Err(Fault::ran(FaultKind::Gate(refusal.clone()))),
            };
            if waiter.is_none_or(|waiter| waiter.send(answer).is_err()) {
                self.node.counters.answers_unwanted.one();
            }
        }
        self.quieter();
        Ok(())
    }

    fn not_understood(
        self: &Arc<Self>,
        lane: usize,
        kind: Option<FrameKind>,
        id: u64,
        name: String,
        reason: String,
    ) {
        warn!(peer = %self.peer.principal, call = id, reason, "a message was not understood");
        let what = FaultKind::Decode { name, reason };
        match kind {
            Some(FrameKind::Ask | FrameKind::Post | FrameKind::Posts) => {
                self.node.counters.refused_for(&what);
                self.send_fault(id, lane, &Fault::not_sent(what));
            }
            Some(FrameKind::Reply | FrameKind::Fault) => {
                let waiter = self.calls.lock().answered(id);
                if waiter.is_none_or(|waiter| waiter.send(Err(Fault::unknown(what))).is_err()) {
                    self.node.counters.answers_unwanted.one();
                }
                self.quieter();
            }
            Some(FrameKind::Tell | FrameKind::Taken) | None => self.node.counters.not_understood.one(),
        }
    }

    /// The peer gives up on calls.
    pub(crate) fn cancelled(&self, ids: &[u64]) {
        let owed = self.owed.lock();
        for cancelled in ids.iter().filter_map(|id| owed.get(id)) {
            cancelled.cancel();
        }
    }

    fn send_reply(self: &Arc<Self>, id: u64, lane: usize, reply: Reply) {
        if let Err(refusal) = self.may_leave(&reply.class) {
            return self.send_fault(id, lane, &Fault::ran(FaultKind::Gate(refusal)));
        }
        if self.gathers() && reply == taken(reply.hybrid) {
            if !self.lanes[lane % self.lanes.len()].taken(id, reply.hybrid) {
                debug!(call = id, "answer after the end of the connection");
            }
            return;
        }
        self.push(lane, self.reply(id, reply), Weight::Answer);
    }

    /// A large answer stays owed until the peer has it.
    fn send_large_reply(self: &Arc<Self>, id: u64, lane: usize, expires: Instant, reply: Reply) {
        let wanted = self.owed.lock().get(&id).is_some_and(|caller| !caller.is_raised());
        if !wanted {
            self.node.counters.answers_too_late.one();
            return self.settled(id);
        }
        match self.large_reply(id, reply) {
            Ok(large) => self.reply_large(id, lane, large, expires),
            Err(why) => {
                self.settled(id);
                self.send_fault(id, lane, &Fault::ran(why));
            }
        }
    }

    fn large_reply(&self, id: u64, reply: Reply) -> Result<(Frame, Held), FaultKind> {
        self.may_leave(&reply.class).map_err(FaultKind::Gate)?;
        let frame = self.reply(id, reply);
        let (bytes, limit) = (frame.len(), self.node.settings.max_large_frame);
        if bytes > limit {
            return Err(FaultKind::TooLarge { bytes: bytes as u64, limit: limit as u64 });
        }
        let full = || FaultKind::Full(format!("bytes of answers that {} has not read", self.peer.principal));
        Ok((frame, self.shares.outward.hold(bytes).ok_or_else(full)?))
    }

    fn reply(&self, id: u64, reply: Reply) -> Frame {
        let Reply { class, body, hybrid, guarantee, trace } = reply;
        let frame = Frame::answer(FrameKind::Reply, self.agreement.codec, id, class, body);
        Frame { hybrid, guarantee, trace, ..frame }
    }

    /// An answer is not owed any more.
    pub(super) fn settled(&self, id: u64) {
        self.owed.lock().remove(&id);
        self.quieter();
    }

    pub(crate) fn send_fault(self: &Arc<Self>, id: u64, lane: usize, fault: &Fault) {
        let body = WireFault::encode(fault).unwrap_or_else(|error| {
            // Texts are cut to what fits, so this cannot be; the peer then says that it was no fault.
            warn!(%error, "a fault could not be encoded");
            Bytes::new()
        });
        let frame = Frame::answer(FrameKind::Fault, self.agreement.codec, id, DataClass::control(), body);
        self.push(lane, frame, Weight::Fault);
    }

    fn push(self: &Arc<Self>, lane: usize, frame: Frame, weight: Weight) {
        let (id, bytes) = (frame.id, frame.len());
        let lane_index = lane % self.lanes.len();
        match self.lanes[lane_index].push(Queued { frame, expires: None, gathering: None }, bytes, weight) {
            Ok(()) => {}
            // It is told nothing more.
            Err(NotQueued::Full(_)) if weight == Weight::Fault => self.unread.notify_one(),
            Err(NotQueued::Full(_)) => {
                let what = format!("lane {lane_index} for answers of {}", self.node.region);
                self.send_fault(id, lane_index, &Fault::ran(FaultKind::Full(what)));
            }
            // The connection is ending; the caller's side tells it so.
            Err(NotQueued::Closed(_)) => debug!(call = id, "answer after the end of the connection"),
        }
    }
}

impl<W: Wire> Returns for Link<W> {
    fn give_back(self: Arc<Self>, id: u64, lane: usize, expires: Instant, answer: Result<Reply, Fault>) {
        let answer = match answer {
            Ok(reply) if answer_len(&reply) > self.max_answer() => {
                return self.send_large_reply(id, lane, expires, reply);
            }
            small => small,
        };
        let owed = self.owed.lock().remove(&id);
        match (owed, answer) {
            (Some(caller), Ok(reply)) if !caller.is_raised() => self.send_reply(id, lane, reply),
            (Some(caller), Err(fault)) if !caller.is_raised() => self.send_fault(id, lane, &fault),
            // Cancelled, or the connection has ended and the caller has been told by its own side.
            _ => self.node.counters.answers_too_late.one(),
        }
        self.quieter();
    }
}

fn request(frame: Frame) -> Request {
    let kind = match frame.kind {
        FrameKind::Ask => Kind::Ask,
        FrameKind::Post => Kind::Post,
        FrameKind::Posts => Kind::Posts,
        _ => Kind::Tell,
    };
    let headers = Headers {
        deadline: frame.deadline,
        hybrid: frame.hybrid,
        trace: frame.trace,
        guarantee: frame.guarantee,
        required: frame.required,
        idempotency_key: frame.key,
        epoch: frame.epoch,
        chain: frame.chain,
        target: frame.target,
    };
    Request { name: frame.name, class: frame.class, body: frame.body, headers, kind, arrival: None }
}

/// Bytes of the frame of an answer.
fn answer_len(reply: &Reply) -> usize {
    FIXED + 3 + reply.class.as_str().len() + reply.body.len()
}

/// The answer that says nothing but *taken*.
fn taken(hybrid: HybridTime) -> Reply {
    let (class, guarantee) = (DataClass::control(), Guarantee::STRONGEST);
    Reply { class, body: Bytes::new(), hybrid, guarantee, trace: None }
}

fn fault(body: &[u8]) -> Fault {
    WireFault::decode(body).unwrap_or_else(|error| {
        let reason = error.to_string();
        Fault::unknown(FaultKind::Decode { name: "a fault".to_owned(), reason })
    })
}
