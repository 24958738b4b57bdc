//! Outward: a call passes the egress gate, is measured, waits on its lane, and ends in an answer or a
//! fault that knows what may be concluded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rhumb_core::limits::MAX_KEY_BYTES;
use rhumb_core::{DataClass, Delivery, Direction, Fault, FaultKind, GateRefusal, Passage};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Link, Queued, Waiter, Wire, expiry};
use crate::asked::{Abandons, Asked, Asking, deadline_passed};
use crate::envelope::{Frame, FrameKind, MAX_HEAD, MAX_NAME_BYTES, MAX_TARGET_BYTES};
use crate::gathering::{GATHERED_BYTES, Gathering, SINCE_VERSION};
use crate::lanes::{NotQueued, Weight, any_pair, lane_of};
use crate::message::{Kind, Request};
use crate::pending::NotTaken;

impl<W: Wire> Link<W> {
    /// Asks, and gives what to wait for. `pair` chooses the lane.
    pub(crate) fn ask(self: &Arc<Self>, pair: u64, request: Request) -> Result<Asked, Fault> {
        let kind = if request.kind == Kind::Post { FrameKind::Post } else { FrameKind::Ask };
        self.begin(pair, kind, request, None)
    }

    /// Asks with what gathers until the lane's writer takes it, and gives what to wait for. Something has
    /// gathered already.
    pub(crate) fn gather(
        self: &Arc<Self>,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        if !self.gathers() {
            let what = format!("gathered tells, which {} does not know", self.peer.principal);
            return Err(Fault::not_sent(FaultKind::UnknownMessage(what)));
        }
        self.begin(pair, FrameKind::Posts, request, Some(gathering))
    }

    /// Whether the peer understands gathered tells.
    pub(crate) fn gathers(&self) -> bool {
        self.agreement.version >= SINCE_VERSION
    }

    fn begin(
        self: &Arc<Self>,
        pair: u64,
        kind: FrameKind,
        request: Request,
        gathering: Option<&Arc<Gathering>>,
    ) -> Result<Asked, Fault> {
        let expires = expiry(request.headers.deadline);
        let mut frame = self.frame(kind, request)?;
        let (waiter, answer) = oneshot::channel();
        let asking = self.take_in(frame.id, waiter)?;
        let room = if gathering.is_some() { GATHERED_BYTES } else { 0 };
        if frame.len() + room > self.node.settings.max_frame {
            if let Some(gathering) = gathering {
                frame.body = gathering.take();
            }
            let link = Arc::clone(self);
            let sending = Box::pin(async move { link.send_large(frame, expires).await });
            return Ok(Asked::sending(asking, answer, expires, sending));
        }
        self.enqueue(pair, frame, expires, gathering.cloned())?;
        Ok(Asked::queued(asking, answer, expires))
    }

    /// A pair for a call whose order matters to nobody, after the last such pair.
    pub(crate) fn any_pair(&self, last: &AtomicU64) -> u64 {
        let before = last.load(Ordering::Relaxed);
        let (waiting, _) = self.lanes[lane_of(before, self.agreement.lanes)].waiting();
        let pair = any_pair(before, waiting);
        last.store(pair, Ordering::Relaxed);
        pair
    }

    /// Tells, without waiting: queued, or a fault.
    pub(crate) fn tell(self: &Arc<Self>, pair: u64, request: Request) -> Result<(), Fault> {
        let expires = expiry(request.headers.deadline);
        let frame = self.frame(FrameKind::Tell, request)?;
        if frame.len() > self.node.settings.max_frame {
            return self.tell_large(frame, expires);
        }
        self.enqueue(pair, frame, expires, None)
    }

    /// The frame of a request, once it may leave and fits.
    fn frame(&self, kind: FrameKind, request: Request) -> Result<Frame, Fault> {
        debug_assert_eq!(kind.wants_answer(), request.kind != Kind::Tell, "asked and told as it says");
        if request.headers.deadline.is_zero() {
            return Err(deadline_passed(Delivery::NotSent));
        }
        if self.going_away.load(Ordering::Acquire) {
            return Err(Fault::not_sent(FaultKind::Draining));
        }
        self.may_leave(&request.class).map_err(|refusal| Fault::not_sent(FaultKind::Gate(refusal)))?;
        let headers = request.headers;
        let frame = Frame {
            kind,
            codec: self.agreement.codec,
            id: self.next_call(),
            deadline: headers.deadline,
            hybrid: headers.hybrid,
            guarantee: headers.guarantee,
            required: headers.required,
            trace: headers.trace,
            name: request.name,
            class: request.class,
            key: headers.idempotency_key,
            epoch: headers.epoch,
            chain: headers.chain,
            target: headers.target,
            body: request.body,
        };
        self.fits(&frame)?;
        Ok(frame)
    }

    fn fits(&self, frame: &Frame) -> Result<(), Fault> {
        let bytes = |text: Option<&str>| text.map_or(0, str::len);
        let sizes = [
            (frame.name.len(), MAX_NAME_BYTES),
            (bytes(frame.key.as_deref()), MAX_KEY_BYTES),
            (bytes(frame.target.as_deref()), MAX_TARGET_BYTES),
            (frame.head_len(), MAX_HEAD),
            (frame.len(), self.node.settings.max_large_frame),
        ];
        for (bytes, limit) in sizes {
            if bytes > limit {
                let kind = FaultKind::TooLarge { bytes: bytes as u64, limit: limit as u64 };
                return Err(Fault::not_sent(kind));
            }
        }
        Ok(())
    }

    /// The egress gate: may data of this class go where the peer's certificate says it stands?
    pub(crate) fn may_leave(&self, class: &DataClass) -> Result<(), GateRefusal> {
        let (from, to) = (&self.node.region, &self.peer.principal.region);
        self.node.gate.check(Passage { direction: Direction::Egress, class, from, to })
    }

    /// The ingress gate: may data of this class come from there?
    pub(crate) fn may_come(&self, class: &DataClass) -> Result<(), GateRefusal> {
        let (from, to) = (&self.peer.principal.region, &self.node.region);
        self.node.gate.check(Passage { direction: Direction::Ingress, class, from, to })
    }

    pub(super) fn take_in(self: &Arc<Self>, id: u64, waiter: Waiter) -> Result<Asking, Fault> {
        match self.calls.lock().insert(id, waiter) {
            Ok(()) => Ok(Asking::new(Arc::clone(self) as Arc<dyn Abandons>, id)),
            Err(NotTaken::Full) => {
                Err(Fault::not_sent(FaultKind::Full(format!("calls under way to {}", self.peer.principal))))
            }
            Err(NotTaken::Ended(reason)) => Err(Fault::not_sent(FaultKind::Unreachable(reason))),
        }
    }

    /// What gathers counts as much as it may become.
    fn enqueue(
        &self,
        pair: u64,
        frame: Frame,
        expires: Instant,
        gathering: Option<Arc<Gathering>>,
    ) -> Result<(), Fault> {
        let lane = lane_of(pair, self.agreement.lanes);
        let bytes = frame.len() + if gathering.is_some() { GATHERED_BYTES } else { 0 };
        let queued = Queued { frame, expires: Some(expires), gathering };
        match self.lanes[lane].push(queued, bytes, Weight::Call) {
            Ok(()) => Ok(()),
            Err(NotQueued::Full(_)) => {
                let what = format!("lane {lane} to {}", self.peer.principal);
                Err(Fault::not_sent(FaultKind::Full(what)))
            }
            Err(NotQueued::Closed(_)) => {
                let what = format!("the connection to {} is closing", self.peer.principal);
                Err(Fault::not_sent(FaultKind::Unreachable(what)))
            }
        }
    }
}

impl<W: Wire> Abandons for Link<W> {
    fn abandoned(&self, id: u64) -> Option<Delivery> {
        self.abandon(id)
    }
}
