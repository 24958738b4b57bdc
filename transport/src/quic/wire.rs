//! A QUIC connection as the wire of a link, and the streams of frames that are too large for a lane.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream};
use rhumb_core::{Delivery, Fault};
use tokio::time::{Instant, timeout_at};

use super::Link;
use super::close::ABANDONED;
use super::stream::{LARGE, Outgoing};
use crate::envelope::{Deframer, Frame};
use crate::lanes::lane_of;
use crate::link::{End, Wire};

/// Packets' worth of a large frame that are taken from the connection at once.
const AT_ONCE: usize = 32;

impl Wire for Connection {
    fn close(&self, end: &End) {
        Connection::close(self, end.code(), end.to_string().as_bytes());
    }

    async fn closed(&self) {
        Connection::closed(self).await;
    }

    fn rtt(&self) -> Duration {
        Connection::rtt(self)
    }

    async fn write_large(link: &Link, frame: Frame, expires: Instant) -> Result<(), Fault> {
        let opened = link.wire.open_uni().await;
        let mut stream = Outgoing::new(opened.map_err(|e| link.gone(Delivery::NotSent, &e.to_string()))?);
        stream.goes_behind_lanes();
        let frame = link.leaving_large(frame, expires)?;
        let mut head = BytesMut::with_capacity(1 + frame.head_len());
        head.extend_from_slice(&[LARGE]);
        frame.encode_head(&mut head);
        let mut chunks = [head.freeze(), frame.body];
        let written = async {
            let written = stream.write_all_chunks(&mut chunks).await;
            written.map_err(|e| link.gone(Delivery::Unknown, &e.to_string()))?;
            stream.finish_and_arrive().await;
            Ok(())
        };
        tokio::select! {
            biased;
            written = written => written,
            never = link.large.behind_lanes() => match never {},
        }
    }
}

impl Link {
    /// Reads the one frame of a large stream of the peer.
    pub(crate) async fn read_large(self: Arc<Self>, mut stream: RecvStream) -> Result<(), End> {
        let settings = &self.node.settings;
        let mut deframer = Deframer::new(settings.max_large_frame);
        let mut waiting = self.shares.large.nothing();
        let until = Instant::now() + self.patience(settings.max_large_frame);
        let mut chunks: [Bytes; AT_ONCE] = Default::default();
        loop {
            let next = until.min(Instant::now() + settings.stall_limit);
            let come = match timeout_at(next, stream.read_chunks(&mut chunks)).await {
                Ok(Ok(Some(come))) => &mut chunks[..come],
                // Cut short or reset: the sender gave it up, and nobody here has seen any of it.
                Ok(Ok(None) | Err(quinn::ReadError::Reset(_))) => {
                    self.node.counters.large_abandoned.one();
                    return Ok(());
                }
                Ok(Err(error)) => return Err(End::Lost(error.to_string())),
                Err(_) => return self.abandons(&mut stream),
            };
            if !waiting.up_to(deframer.set_aside_for(come.iter().map(Bytes::len).sum())) {
                return self.abandons(&mut stream);
            }
            come.iter_mut().for_each(|chunk| deframer.feed(&mem::take(chunk)));
            if let Some(frame) = deframer.next_frame()? {
                if deframer.mid_frame() {
                    return Err(End::Protocol("a stream for one frame has more than that".to_owned()));
                }
                drop(waiting);
                let lane = lane_of(frame.len() as u64, self.agreement.lanes);
                return self.take_up(lane, frame);
            }
            if !waiting.up_to(deframer.set_aside_for(0)) {
                return self.abandons(&mut stream);
            }
        }
    }

    /// It comes too slowly, or too much of all senders' waits already.
    fn abandons(&self, stream: &mut RecvStream) -> Result<(), End> {
        self.node.counters.large_abandoned.one();
        // An error says that the stream has ended already.
        let _ = stream.stop(ABANDONED);
        Ok(())
    }
}
