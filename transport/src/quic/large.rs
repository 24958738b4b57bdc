//! Frames that are too large for a lane. Each has a stream of its own, so that it delays nothing; in
//! exchange it keeps no order with what goes over lanes.

use std::sync::Arc;

use quinn::RecvStream;
use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::close::End;
use super::link::Link;
use super::stream::{LARGE, Outgoing};
use crate::envelope::{Deframer, Frame};
use crate::lanes::lane_of;

impl Link {
    /// Sends a call and returns when it is written. The caller's deadline ends it.
    pub(crate) async fn send_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let permit = Arc::clone(&self.large).acquire_owned().await;
        let permit = permit.map_err(|_| self.gone(Delivery::NotSent, "closing"))?;
        self.write_large(frame, expires, permit).await
    }

    /// Sends a tell in a task of its own, as many at once as there may be.
    pub(crate) fn tell_large(self: &Arc<Self>, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let Ok(permit) = Arc::clone(&self.large).try_acquire_owned() else {
            let what = format!("large streams to {}", self.peer.principal);
            return Err(Fault::not_sent(FaultKind::Full(what)));
        };
        let link = Arc::clone(self);
        tokio::spawn(async move {
            let written = timeout_at(expires, link.write_large(frame, expires, permit)).await;
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
                let permit = permit.map_err(|_| link.gone(Delivery::Ran, "closing"))?;
                link.write_large(frame, expires, permit).await
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

    async fn write_large(
        &self,
        mut frame: Frame,
        expires: Instant,
        _permit: OwnedSemaphorePermit,
    ) -> Result<(), Fault> {
        let opened = self.connection.open_uni().await;
        let mut stream = Outgoing::new(opened.map_err(|e| self.gone(Delivery::NotSent, &e.to_string()))?);
        if frame.kind.wants_answer() && !self.calls.lock().writing(frame.id) {
            return Err(self.gone(Delivery::NotSent, "given up"));
        }
        if !frame.deadline.is_zero() {
            frame.deadline = expires.saturating_duration_since(Instant::now());
        }
        let mut head = bytes::BytesMut::with_capacity(1 + frame.head_len());
        head.extend_from_slice(&[LARGE]);
        frame.encode_head(&mut head);
        let mut chunks = [head.freeze(), frame.body];
        let written = stream.write_all_chunks(&mut chunks).await;
        written.map_err(|e| self.gone(Delivery::Unknown, &e.to_string()))?;
        stream.finish_and_arrive().await;
        Ok(())
    }

    /// Reads the one frame of a large stream of the peer.
    pub(crate) async fn read_large(self: Arc<Self>, mut stream: RecvStream) -> Result<(), End> {
        let mut deframer = Deframer::new(self.node.settings.max_large_frame);
        loop {
            match stream.read_chunk(1 << 16, true).await {
                Ok(Some(chunk)) => deframer.feed(&chunk.bytes),
                // Cut short or reset: the sender gave it up, and nobody here has seen any of it.
                Ok(None) | Err(quinn::ReadError::Reset(_)) => return Ok(()),
                Err(error) => return Err(End::Lost(error.to_string())),
            }
            if let Some(frame) = deframer.next_frame()? {
                let lane = lane_of(frame.len() as u64, self.agreement.lanes);
                return self.take_up(lane, frame);
            }
        }
    }

    fn gone(&self, delivery: Delivery, why: &str) -> Fault {
        let kind = FaultKind::Unreachable(format!("connection to {}: {why}", self.peer.principal));
        Fault { kind, delivery, retry_after: None }
    }
}
