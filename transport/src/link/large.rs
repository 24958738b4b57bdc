//! Frames that are too large for a lane: as many at once as there may be. Each goes by itself, behind what goes
//! over lanes; in exchange it keeps no order with that. Of answers, whose order is nobody's, those are large that
//! would hold up a lane: pages of scans, behind which replicas would not hear in time what is committed and closed.
//!
//! * All of them take at most half of the send window, so that a lane finds room in it. One that is larger than
//!   that fills it: what goes over lanes then waits for what the peer acknowledges.
//! * Behind lanes that always have something to send nothing would leave at all. Where one has waited for
//!   [`BEHIND_AT_MOST`] the lanes take turns with large frames, until it is through.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use super::{Link, Wire};
use crate::envelope::Frame;
use crate::settings::TransportSettings;
use crate::shares::Held;

/// Bytes a second that a frame on a stream of its own must make, or it is given up: who goes slower holds places
/// and memory that others wait for.
const LEAST_RATE: usize = 64 << 10;

/// Bytes of an answer beyond which it is large: what a way of some hundred kilobytes a second carries in a fraction of one.
const LARGE_ANSWER: usize = 64 << 10;

/// How long a large frame lets everything that goes over lanes go first.
const BEHIND_AT_MOST: Duration = Duration::from_secs(2);

/// What of a connection is large and on its way from this side.
#[derive(Debug)]
pub(crate) struct Large {
    /// Places for asks and tells.
    asked: Arc<Semaphore>,
    /// Places for answers: those wait for none of the peer's answers, and no tell is refused for them.
    answered: Arc<Semaphore>,
    places: usize,
    /// Bytes of the send window for all of them.
    bytes: Semaphore,
    most: u32,
    /// How many have been behind lanes for long enough.
    waited: AtomicUsize,
}

/// One more than before, while it is there.
struct Waited<'a>(&'a AtomicUsize);

impl Large {
    pub(super) fn new(settings: &TransportSettings) -> Self {
        let places = usize::from(settings.large_streams);
        let most = u32::try_from(settings.send_window / 2).unwrap_or(u32::MAX).max(1);
        let room = || Arc::new(Semaphore::new(places));
        let bytes = Semaphore::new(most as usize);
        Self { asked: room(), answered: room(), places, bytes, most, waited: AtomicUsize::new(0) }
    }

    /// Whether none is being sent, but answers, which are owed while they are.
    pub(super) fn is_quiet(&self) -> bool {
        self.asked.available_permits() == self.places
    }

    /// Whether lanes are to take turns with large frames now.
    pub(crate) fn take_turns(&self) -> bool {
        self.waited.load(Ordering::Relaxed) > 0
    }

    /// To be polled beside the sending of one: once that has taken for long, lanes take turns with it until this is dropped.
    pub(crate) async fn behind_lanes(&self) -> Infallible {
        sleep(BEHIND_AT_MOST).await;
        self.waited.fetch_add(1, Ordering::Relaxed);
        let _waited = Waited(&self.waited);
        pending().await
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<W: Wire> Link<W> {
    /// Bytes of the largest answer that goes over a lane.
    pub(super) fn max_answer(&self) -> usize {
        self.node.settings.max_frame.min(LARGE_ANSWER)
    }

    /// Sends a call and returns when it is written. The caller's deadline ends it.
    pub(crate) async fn send_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        self.until_released().await;
        let _place = self.place(&self.large.asked, Delivery::NotSent).await?;
        self.write_in_turn(frame, expires, Delivery::NotSent).await
    }

    /// Waits for a place among those that are sent at once.
    async fn place(&self, among: &Arc<Semaphore>, so_far: Delivery) -> Result<OwnedSemaphorePermit, Fault> {
        Arc::clone(among).acquire_owned().await.map_err(|_| self.gone(so_far, "closing"))
    }

    /// Writes one that has its place, once there is room for it in the send window.
    async fn write_in_turn(
        self: &Arc<Self>,
        frame: Frame,
        expires: Instant,
        so_far: Delivery,
    ) -> Result<(), Fault> {
        let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX).min(self.large.most);
        let room = self.large.bytes.acquire_many(bytes).await;
        let _room = room.map_err(|_| self.gone(so_far, "closing"))?;
        W::write_large(self, frame, expires).await
    }

    /// Sends a tell in a task of its own, as many at once as there may be.
    pub(crate) fn tell_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let Ok(place) = Arc::clone(&self.large.asked).try_acquire_owned() else {
            let what = format!("large streams to {}", self.peer.principal);
            return Err(Fault::not_sent(FaultKind::Full(what)));
        };
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let written = timeout_at(expires, link.write_in_turn(frame, expires, Delivery::NotSent)).await;
            drop(place);
            link.quieter.notify_one();
            if !matches!(written, Ok(Ok(()))) {
                debug!(peer = %link.peer.principal, "a large tell was not written in time");
                link.node.counters.tells_lost.one();
            }
        });
        Ok(())
    }

    /// Sends an answer in a task of its own, and owes it until the peer has it. When that fails the caller is
    /// told on the lane.
    pub(super) fn reply_large(
        self: &Arc<Self>,
        id: u64,
        lane: usize,
        (frame, held): (Frame, Held),
        expires: Instant,
    ) {
        let link = Arc::clone(self);
        let until = expires.min(Instant::now() + link.patience(frame.len()));
        tokio::spawn(async move {
            let sent = timeout_at(until, async {
                let _place = link.place(&link.large.answered, Delivery::Ran).await?;
                link.write_in_turn(frame, expires, Delivery::Ran).await
            });
            let sent = sent.await;
            drop(held);
            link.settled(id);
            let fault = match sent {
                Ok(Ok(())) => return,
                Ok(Err(fault)) => fault.kind,
                Err(_) => FaultKind::Deadline("sending a large answer".to_owned()),
            };
            link.send_fault(id, lane, &Fault::ran(fault));
        });
    }

    /// How long a frame of so many bytes may be under way on a stream of its own.
    pub(crate) fn patience(&self, bytes: usize) -> Duration {
        self.node.settings.stall_limit + Duration::from_secs((bytes / LEAST_RATE) as u64)
    }

    /// A large frame is about to be written, with the time that it has left. From here on a call counts
    /// as possibly sent.
    pub(crate) fn leaving_large(&self, mut frame: Frame, expires: Instant) -> Result<Frame, Fault> {
        if frame.kind.wants_answer() && !self.calls.lock().writing(frame.id) {
            return Err(self.gone(Delivery::NotSent, "given up"));
        }
        if !frame.deadline.is_zero() {
            frame.deadline = expires.saturating_duration_since(Instant::now());
        }
        Ok(frame)
    }

    pub(crate) fn gone(&self, delivery: Delivery, why: &str) -> Fault {
        let kind = FaultKind::Unreachable(format!("connection to {}: {why}", self.peer.principal));
        Fault { kind, delivery, retry_after: None }
    }
}
