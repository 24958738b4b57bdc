//! The tasks of one link: a writer a lane, a reader a lane of the peer's, the control stream both
//! ways, and the watch. The first that ends in error ends the link.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, ReadExactError, RecvStream, VarInt};
use rhumb_core::Mono;
use rhumb_core::wakes::Wakes;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{info, warn};

use super::stream::{LANE, LARGE, Outgoing, read_message, write_message};
use super::{Link, certificate};
use crate::codec::{decode, encode};
use crate::control::{ControlMessage, MAX_CONTROL_BYTES};
use crate::envelope::{Deframer, Frame};
use crate::link::{End, Queued, unread};
use crate::liveness::Silence;

/// Bytes that a lane hands to QUIC at once.
const BATCH_BYTES: usize = 256 << 10;
/// Bodies up to this many bytes are copied together with their heads; larger ones go as they are.
const COPY_BYTES: usize = 4 << 10;
/// How often it is looked whether the peer is heard, for each probe.
const LOOKS: u32 = 3;
/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of frames of one lane that are taken up before the other lanes and peers have a turn: one thread serves
/// them all, and quinn hands over what is there without ever giving way.
const AT_ONCE_BYTES: usize = 128 << 10;
/// As how many bytes each frame counts beside its own.
const FRAME_COSTS: usize = 512;

impl Link {
    /// Runs the link until it ends. When this returns, [`Link::fail`] has taken effect.
    pub(crate) async fn run(self: Arc<Self>, send: Outgoing, receive: RecvStream) -> End {
        info!(peer = %self.peer.principal, generation = self.peer.generation, "connected");
        // Of the peer: its lanes, its large asks and tells, its large answers.
        let streams = u32::from(self.agreement.lanes) + 2 * u32::from(self.node.settings.large_streams);
        self.wire.set_max_concurrent_uni_streams(VarInt::from_u32(streams));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&self).speak(send));
        tasks.spawn(Arc::clone(&self).listen(receive));
        tasks.spawn(Arc::clone(&self).watch());
        tasks.spawn(Arc::clone(&self).accept_streams());
        for lane in 0..self.lanes.len() {
            tasks.spawn(Arc::clone(&self).write_lane(lane));
        }
        let end = loop {
            match tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(end))) => break end,
                Some(Err(panic)) => break End::Internal(panic.to_string()),
                None => break End::Internal("every task has ended".to_owned()),
            }
        };
        // A task that fails because the connection ended tells less than the connection does.
        let end = match (&end, self.wire.close_reason()) {
            (End::Lost(_), Some(reason)) => End::of(&reason),
            _ => end,
        };
        self.close(&end);
        tasks.shutdown().await;
        if self.superseded.load(Ordering::Acquire) {
            info!(peer = %self.peer.principal, generation = self.peer.generation, %end, "retired");
        } else {
            info!(peer = %self.peer.principal, generation = self.peer.generation, %end, "disconnected");
        }
        end
    }

    /// Writes one lane, all that waits at once.
    async fn write_lane(self: Arc<Self>, index: usize) -> Result<(), End> {
        let lost = |e: &dyn std::fmt::Display| End::Lost(format!("lane {index}: {e}"));
        let settings = &self.node.settings;
        // A peer that permits too few streams would make this wait for ever, without a word.
        let opened = timeout(settings.handshake_timeout, self.wire.open_uni()).await;
        let opened = opened.map_err(|_| End::Protocol(format!("lane {index} was not permitted")))?;
        let mut stream = Outgoing::new(opened.map_err(|e| lost(&e))?);
        stream.write_all(&[LANE, index as u8]).await.map_err(|e| lost(&e))?;
        self.until_released().await;
        let lane = &self.lanes[index];
        let (mut batch, mut takes_turns) = (Vec::new(), false);
        while lane.next(BATCH_BYTES, &mut batch).await {
            if takes_turns != self.large.take_turns() {
                takes_turns = !takes_turns;
                stream.takes_turns(takes_turns);
            }
            let mut chunks = self.seal(&mut batch);
            let written = timeout(settings.stall_limit, stream.write_all_chunks(&mut chunks)).await;
            written.map_err(|_| End::Stalled(index))?.map_err(|e| lost(&e))?;
        }
        stream.finish();
        Ok(())
    }

    /// Encodes a batch. From here on a call counts as possibly sent.
    fn seal(&self, batch: &mut Vec<Queued>) -> Vec<Bytes> {
        let copied = |frame: &Frame| frame.head_len() + frame.body.len().min(COPY_BYTES);
        let gathered =
            |queued: &Queued| queued.gathering.as_ref().map_or(0, |more| more.len().min(COPY_BYTES));
        let bytes = batch.iter().map(|queued| copied(&queued.frame) + gathered(queued)).sum();
        let (mut chunks, mut joined) = (Vec::new(), BytesMut::with_capacity(bytes));
        self.leaving(batch, |frame| {
            frame.encode_head(&mut joined);
            if frame.body.len() <= COPY_BYTES {
                joined.extend_from_slice(&frame.body);
            } else {
                chunks.push(joined.split().freeze());
                chunks.push(frame.body);
            }
        });
        if !joined.is_empty() {
            chunks.push(joined.freeze());
        }
        chunks
    }

    /// Takes the peer's streams, each into a reader of its own.
    async fn accept_streams(self: Arc<Self>) -> Result<(), End> {
        let mut readers: JoinSet<Result<(), End>> = JoinSet::new();
        loop {
            tokio::select! {
                stream = self.wire.accept_uni() => {
                    let stream = stream.map_err(|e| End::of(&e))?;
                    readers.spawn(Arc::clone(&self).read_stream(stream));
                }
                Some(ended) = readers.join_next() => {
                    ended.map_err(|panic| End::Internal(panic.to_string()))??;
                }
            }
        }
    }

    async fn read_stream(self: Arc<Self>, mut stream: RecvStream) -> Result<(), End> {
        let mut kind = [0];
        match stream.read_exact(&mut kind).await {
            Ok(()) => {}
            Err(ReadExactError::ReadError(ReadError::Reset(_))) => return Ok(()),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        match kind[0] {
            LANE => self.read_lane(stream).await,
            LARGE => self.read_large(stream).await,
            other => Err(End::Protocol(format!("a stream of kind {other}"))),
        }
    }

    /// Reads one lane of the peer's until it ends between two frames.
    async fn read_lane(self: Arc<Self>, mut stream: RecvStream) -> Result<(), End> {
        let mut index = [0];
        stream.read_exact(&mut index).await.map_err(|e| End::Lost(e.to_string()))?;
        let lane = usize::from(index[0]);
        if lane >= self.lanes.len() {
            return Err(End::Protocol(format!("lane {lane}, agreed were {}", self.lanes.len())));
        }
        if self.lanes_begun.fetch_or(1 << lane, Ordering::AcqRel) & 1 << lane != 0 {
            return Err(End::Protocol(format!("lane {lane} was opened twice")));
        }
        let (mut deframer, mut at_once) = (Deframer::new(self.node.settings.max_frame), 0);
        loop {
            match stream.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => deframer.feed(&chunk.bytes),
                Ok(None) if deframer.mid_frame() => {
                    return Err(End::Protocol(format!("lane {lane} ended in the middle of a frame")));
                }
                Ok(None) => break,
                Err(ReadError::Reset(_)) => return Err(End::Protocol(format!("lane {lane} was reset"))),
                Err(error) => return Err(End::Lost(error.to_string())),
            }
            while self.take_up_some(lane, &mut deframer, &mut at_once)? {
                yield_now().await;
            }
        }
        self.lane_ended();
        Ok(())
    }

    /// Takes up whole frames, as much as may be at once. Whether there may be more.
    fn take_up_some(
        self: &Arc<Self>,
        lane: usize,
        deframer: &mut Deframer,
        at_once: &mut usize,
    ) -> Result<bool, End> {
        // Whoever is to handle them is woken once for all of them.
        let _wakes = Wakes::hold();
        while let Some(frame) = deframer.next_frame()? {
            *at_once += FRAME_COSTS + frame.len();
            self.take_up(lane, frame)?;
            if *at_once >= AT_ONCE_BYTES {
                *at_once = 0;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the control stream.
    async fn speak(self: Arc<Self>, mut stream: Outgoing) -> Result<(), End> {
        loop {
            let messages = self.what_to_say();
            if messages.is_empty() {
                self.say.notified().await;
            }
            for message in messages {
                let bytes = encode(&message).map_err(|e| End::Internal(e.to_string()))?;
                write_message(&mut stream, &bytes).await?;
            }
        }
    }

    /// Reads the control stream.
    async fn listen(self: Arc<Self>, mut stream: RecvStream) -> Result<(), End> {
        loop {
            let bytes = read_message(&mut stream, MAX_CONTROL_BYTES).await?;
            match decode::<ControlMessage>(&bytes) {
                Ok(message) => self.told(message),
                // A later version may say more; the framing holds, so the rest can be read.
                Err(error) => {
                    warn!(peer = %self.peer.principal, %error, "control message not understood");
                    self.node.counters.control_not_understood.one();
                }
            }
        }
    }

    /// Probes the peer, and ends the link when it is silent for too long, its certificate expires, or the
    /// connection ends.
    async fn watch(self: Arc<Self>) -> Result<(), End> {
        let settings = &self.node.settings;
        let now = || Mono(self.begun.elapsed());
        let look = settings.probe_interval / LOOKS;
        let mut silence = Silence::new(now(), look, settings.silence_limit);
        let mut tick = tokio::time::interval(look);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = (0..LOOKS).cycle();
        let valid_until = certificate::valid_until(&self.wire);
        loop {
            tokio::select! {
                reason = self.wire.closed() => return Err(End::of(&reason)),
                () = self.unread.notified() => return Err(unread()),
                _ = tick.tick() => {}
            }
            if let Some(silent) = silence.look(now(), self.frames_heard()) {
                return Err(End::Silent(silent));
            }
            if valid_until.is_some_and(|end| certificate::now() > end) {
                warn!(peer = %self.peer.principal, "closed: the peer's certificate has expired");
                return Err(End::Expired);
            }
            if looks.next() != Some(0) {
                continue;
            }
            // Acknowledged by the peer's QUIC, not by a message in a queue. An error means that the
            // connection has ended, which the select above reports.
            let _ = self.wire.send_datagram(Bytes::from_static(&[0]));
        }
    }

    /// Frames that were authenticated as the peer's. Datagrams are counted before they are decrypted,
    /// so their number would let anyone keep a dead peer alive.
    fn frames_heard(&self) -> u64 {
        let heard = self.wire.stats().frame_rx;
        heard.acks + heard.datagram + heard.stream + heard.ping + heard.max_data + heard.max_stream_data
    }
}
