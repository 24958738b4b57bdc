//! One connection takes over from another of the same pair, and no call is lost: the new one is made first,
//! then the old one drains.
//!
//! * It decides: from when on the new connection's lanes are written. That is when the peer has taken up
//!   everything that this side sent over the lanes of the old one, so that messages of one pair keep their
//!   order; or when the old one ends, or does not show it in time.
//! * It never does: dial, or end a call that is under way.
//!
//! What shows it is a *fence*: a question on each lane that the peer's link answers itself. A build that does
//! not know of it answers that it knows no such message, which shows the same.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rhumb_core::{DataClass, Guarantee, HybridTime};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::{Link, Queued, Wire};
use crate::envelope::{Frame, FrameKind};
use crate::lanes::Weight;
use crate::message::{Reply, Request};

/// The name of the question.
pub(crate) const FENCE: &str = "rhumb.Fence";
/// How long a new connection waits for what was sent over the old one. A peer that is silent for so long is
/// taken to be gone.
const FENCED_WITHIN: Duration = Duration::from_secs(2);
/// How long calls that are under way on an old connection may still take. Hardly any has more time.
const RETIRED_WITHIN: Duration = Duration::from_secs(30);

impl<W: Wire> Link<W> {
    /// Lets nothing out over the lanes until [`Link::release`].
    pub(crate) fn hold(&self) {
        self.held.send_replace(true);
    }

    fn release(&self) {
        self.held.send_replace(false);
    }

    /// Waits while nothing may be let out.
    pub(crate) async fn until_released(&self) {
        // The sender lives in this link, so waiting cannot fail.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }

    /// Whether the peer was told that it may dial anew.
    pub(crate) fn expects_successor(&self) -> bool {
        self.succession.load(Ordering::Acquire)
    }

    /// Another connection has taken this one's place: its end is no news to anybody.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Ordering::Release);
    }

    /// Lets the successor speak as soon as that keeps the order, and, where this side dialled both, ends the
    /// old connection once all calls on it have their answers.
    pub(crate) async fn give_way(self: Arc<Self>, successor: Arc<Self>, retire: bool) {
        let fenced = timeout(FENCED_WITHIN, self.fenced());
        tokio::select! {
            fenced = fenced => if fenced != Ok(true) {
                debug!(peer = %self.peer.principal, "the old connection did not show what the peer has taken up");
            },
            () = self.wire.closed() => {}
        }
        successor.release();
        if retire {
            self.drain(Instant::now() + RETIRED_WITHIN).await;
        }
    }

    /// Waits until the peer has taken up what was sent before on all lanes. False when that cannot be asked.
    async fn fenced(self: &Arc<Self>) -> bool {
        let mut fences = Vec::new();
        for lane in 0..self.lanes.len() {
            let id = self.next_call();
            let (waiter, answer) = oneshot::channel();
            let Ok(asking) = self.take_in(id, waiter) else { return false };
            let frame = self.fence(id);
            let bytes = frame.len();
            let queued = Queued { frame, expires: Some(Instant::now() + FENCED_WITHIN), gathering: None };
            // It is in addition to what callers have room for.
            if self.lanes[lane].push(queued, bytes, Weight::Fault).is_err() {
                return false;
            }
            fences.push((asking, answer));
        }
        for (_asking, answer) in fences {
            // Any answer will do; no answer means that the connection has ended.
            if answer.await.is_err() {
                return false;
            }
        }
        true
    }

    fn fence(&self, id: u64) -> Frame {
        let class = DataClass::control();
        let blank = Frame::answer(FrameKind::Ask, self.agreement.codec, id, class, Bytes::new());
        Frame { deadline: FENCED_WITHIN, name: ByteString::from_static(FENCE), ..blank }
    }
}

/// The answer to a fence, if the request is one.
pub(super) fn answer_to(request: &Request) -> Option<Reply> {
    (*request.name == *FENCE).then(|| Reply {
        class: DataClass::control(),
        body: Bytes::new(),
        hybrid: HybridTime::ZERO,
        guarantee: Guarantee::Eventual,
        trace: None,
    })
}
