//! Inward: a frame is decoded, passes the ingress gate, and goes to its handler or to whoever waits
//! for it. Nothing here waits.

use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rhumb_core::{DataClass, Fault, FaultKind};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::answer::{Answer, Owed};
use super::close::End;
use super::link::{Link, Queued};
use crate::codec::{decode, encode};
use crate::control::WireFault;
use crate::envelope::{Frame, FrameError, FrameKind};
use crate::lanes::{NotQueued, Weight};
use crate::message::{Headers, Kind, Reply, Request};

impl Link {
    /// Takes up one frame that came over a lane, or in answer to whom `lane` is used.
    pub(crate) fn take_up(self: &Arc<Self>, lane: usize, bytes: Bytes) -> Result<(), End> {
        let open = self.open.read();
        if !*open {
            return Ok(());
        }
        match Frame::decode(bytes) {
            Ok(frame) => match frame.kind {
                FrameKind::Ask | FrameKind::Tell => self.called(lane, frame)?,
                FrameKind::Reply | FrameKind::Fault => self.answered(frame),
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
        let answer = match frame.kind {
            FrameKind::Ask => match self.owe(frame.id, lane, expires)? {
                Some(answer) => answer,
                None => return Ok(()),
            },
            _ => Answer::to_nobody(),
        };
        if self.node.draining.load(Ordering::Acquire) {
            answer.fault(Fault::not_sent(FaultKind::Draining));
        } else if let Err(refusal) = self.may_come(&frame.class) {
            answer.fault(Fault::not_sent(FaultKind::Gate(refusal)));
        } else if frame.codec != self.agreement.codec {
            let reason = format!("codec {}, agreed was {}", frame.codec, self.agreement.codec);
            answer.fault(Fault::not_sent(FaultKind::Decode { name: frame.name, reason }));
        } else {
            self.deliver(request(frame), answer);
        }
        Ok(())
    }

    /// Hands a message over. A panic there loses that message (its answer says so as it is dropped),
    /// not the connection and everyone else's calls with it.
    fn deliver(&self, request: Request, answer: Answer) {
        let name = request.name.clone();
        let deliver = AssertUnwindSafe(|| self.node.inbound.deliver(&self.peer, request, answer));
        if catch_unwind(deliver).is_err() {
            error!(message = name, "delivering a message panicked");
        }
    }

    /// Notes that an answer is owed; `None` when no more may be.
    fn owe(self: &Arc<Self>, id: u64, lane: usize, expires: Instant) -> Result<Option<Answer>, End> {
        let owed = Owed { link: Arc::clone(self), id, lane, expires };
        let mut all = self.owed.lock();
        if all.len() >= self.node.settings.in_flight {
            drop(all);
            let what = format!("node {}", self.node.region);
            self.send_fault(id, lane, &Fault::not_sent(FaultKind::Full(what)));
            return Ok(None);
        }
        match all.entry(id) {
            Entry::Vacant(entry) => {
                let cancelled = Arc::new(AtomicBool::new(false));
                entry.insert(Arc::clone(&cancelled));
                Ok(Some(Answer::to_peer(owed, cancelled)))
            }
            Entry::Occupied(_) => Err(End::Protocol(format!("call {id} was used twice"))),
        }
    }

    /// An answer has come.
    fn answered(&self, frame: Frame) {
        let Some(waiter) = self.calls.lock().answered(frame.id) else {
            debug!(call = frame.id, "answer to a call that nobody waits for");
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
        // The waiter may have gone in this moment; then nobody wants to know.
        let _ = waiter.send(answer);
        self.quieter.notify_one();
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
            Some(FrameKind::Ask) => self.send_fault(id, lane, &Fault::not_sent(what)),
            Some(FrameKind::Reply | FrameKind::Fault) => {
                if let Some(waiter) = self.calls.lock().answered(id) {
                    let _ = waiter.send(Err(Fault::unknown(what)));
                }
                self.quieter.notify_one();
            }
            Some(FrameKind::Tell) | None => {}
        }
    }

    /// The peer gives up on calls.
    pub(crate) fn cancelled(&self, ids: &[u64]) {
        let owed = self.owed.lock();
        for cancelled in ids.iter().filter_map(|id| owed.get(id)) {
            cancelled.store(true, Ordering::Relaxed);
        }
    }

    /// A handler has answered.
    pub(crate) fn answer(owed: Owed, answer: Result<Reply, Fault>) {
        let Owed { link, id, lane, expires } = owed;
        // Not there: the connection has ended, and the caller has been told by its own side.
        let Some(cancelled) = link.owed.lock().remove(&id) else { return };
        if !cancelled.load(Ordering::Relaxed) {
            match answer {
                Ok(reply) => link.send_reply(id, lane, expires, reply),
                Err(fault) => link.send_fault(id, lane, &fault),
            }
        }
        link.quieter.notify_one();
    }

    fn send_reply(self: &Arc<Self>, id: u64, lane: usize, expires: Instant, reply: Reply) {
        if let Err(refusal) = self.may_leave(&reply.class) {
            return self.send_fault(id, lane, &Fault::ran(FaultKind::Gate(refusal)));
        }
        let mut frame = Frame::answer(FrameKind::Reply, self.agreement.codec, id, reply.class, reply.body);
        frame.hybrid = reply.hybrid;
        frame.guarantee = reply.guarantee;
        frame.trace = reply.trace;
        let (bytes, limit) = (frame.len(), self.node.settings.max_large_frame);
        if bytes > limit {
            let kind = FaultKind::TooLarge { bytes: bytes as u64, limit: limit as u64 };
            return self.send_fault(id, lane, &Fault::ran(kind));
        }
        if bytes > self.node.settings.max_frame {
            return self.reply_large(id, lane, frame, expires);
        }
        self.push(lane, frame, Weight::Answer);
    }

    pub(crate) fn send_fault(self: &Arc<Self>, id: u64, lane: usize, fault: &Fault) {
        let body = encode(&WireFault::from(fault)).unwrap_or_else(|error| {
            // Only an absurdly long reason could be too large.
            warn!(%error, "a fault could not be encoded");
            Bytes::new()
        });
        let frame = Frame::answer(FrameKind::Fault, self.agreement.codec, id, DataClass::control(), body);
        self.push(lane, frame, Weight::Fault);
    }

    fn push(self: &Arc<Self>, lane: usize, frame: Frame, weight: Weight) {
        let (id, bytes) = (frame.id, frame.len());
        let lane_index = lane % self.lanes.len();
        let lane = &self.lanes[lane_index];
        let pushed = lane.queue.lock().push(Queued { frame, expires: None }, bytes, weight);
        match pushed {
            Ok(()) => lane.wake.notify_one(),
            Err(NotQueued::Full(_)) => {
                let what = format!("lane {lane_index} for answers of {}", self.node.region);
                self.send_fault(id, lane_index, &Fault::ran(FaultKind::Full(what)));
            }
            // The connection is ending; the caller's side tells it so.
            Err(NotQueued::Closed(_)) => debug!(call = id, "answer after the end of the connection"),
        }
    }
}

fn request(frame: Frame) -> Request {
    let kind = if frame.kind == FrameKind::Ask { Kind::Ask } else { Kind::Tell };
    let headers = Headers {
        deadline: frame.deadline,
        hybrid: frame.hybrid,
        trace: frame.trace,
        guarantee: frame.guarantee,
        required: frame.required,
        idempotency_key: frame.key,
        epoch: frame.epoch,
        chain: frame.chain,
    };
    Request { name: frame.name, class: frame.class, body: frame.body, headers, kind }
}

fn fault(body: &[u8]) -> Fault {
    match decode::<WireFault>(body) {
        Ok(fault) => fault.into(),
        Err(error) => {
            let reason = error.to_string();
            Fault::unknown(FaultKind::Decode { name: "a fault".to_owned(), reason })
        }
    }
}
