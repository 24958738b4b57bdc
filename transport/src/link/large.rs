//! Frames that are too large for a lane: as many at once as there may be. Each goes by itself, so that
//! it delays nothing; in exchange it keeps no order with what goes over lanes.

use std::sync::Arc;

use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::{Link, Wire};
use crate::envelope::Frame;

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

    /// Sends an answer in a task of its own. When that fails the caller is told on the lane.
    pub(crate) fn reply_large(self: &Arc<Self>, id: u64, lane: usize, frame: Frame, expires: Instant) {
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let sent = timeout_at(expires, async {
                let permit = Arc::clone(&link.large).acquire_owned().await;
                let _permit = permit.map_err(|_| link.gone(Delivery::Ran, "closing"))?;
                W::write_large(&link, frame, expires).await
            });
            let sent = sent.await;
            link.quieter.notify_one();
            let fault = match sent {
                Ok(Ok(())) => return,
                Ok(Err(fault)) => fault.kind,
                Err(_) => FaultKind::Deadline("sending a large answer".to_owned()),
            };
            link.send_fault(id, lane, &Fault::ran(fault));
        });
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
