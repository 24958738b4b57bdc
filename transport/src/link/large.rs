//! Frames that are too large for a lane: as many at once as there may be. Each goes by itself, so that
//! it delays nothing; in exchange it keeps no order with what goes over lanes.

use std::sync::Arc;
use std::time::Duration;

use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Link, Wire};
use crate::envelope::Frame;
use crate::shares::Held;

/// Bytes a second that a frame on a stream of its own must make, or it is given up: who goes slower holds places
/// and memory that others wait for.
const LEAST_RATE: usize = 64 << 10;

impl<W: Wire> Link<W> {
    /// Sends a call and returns when it is written. The caller's deadline ends it.
    pub(crate) async fn send_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        self.until_released().await;
        let permit = Arc::clone(&self.large).acquire_owned().await;
        let _permit = permit.map_err(|_| self.gone(Delivery::NotSent, "closing"))?;
        W::write_large(self, frame, expires).await
    }

    /// Sends a tell in a task of its own, as many at once as there may be.
    pub(crate) fn tell_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let Ok(permit) = Arc::clone(&self.large).try_acquire_owned() else {
            let what = format!("large streams to {}", self.peer.principal);
            return Err(Fault::not_sent(FaultKind::Full(what)));
        };
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let written = timeout_at(expires, W::write_large(&link, frame, expires)).await;
            drop(permit);
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
                let permit = Arc::clone(&link.large).acquire_owned().await;
                let _permit = permit.map_err(|_| link.gone(Delivery::Ran, "closing"))?;
                W::write_large(&link, frame, expires).await
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
