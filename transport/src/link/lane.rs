//! One lane, outward: what waits on it, and who writes it.
//!
//! * It decides: that answers which only say *taken* leave in as few frames as they fit in, ahead of what
//!   waits; and that what has gathered under one head takes no more in once something has come after it.
//! * It never does: write.
//! * Invariant: what one side sends over a lane is taken up in the order in which it was pushed.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use rhumb_core::{DataClass, HybridTime, wakes};

use super::Queued;
use crate::envelope::{Frame, FrameKind};
use crate::gathering;
use crate::lanes::{LaneQueue, NotQueued, Weight};

/// One lane, outward.
#[derive(Debug)]
pub(crate) struct Lane {
    outward: Mutex<Outward>,
    codec: u8,
    /// How many posts were taken of which no lane of the link has said so yet.
    unsaid: Arc<AtomicUsize>,
}

/// What waits on a lane, and who writes it.
#[derive(Debug)]
struct Outward {
    queue: LaneQueue<Queued>,
    /// Posts of the peer's that were taken. They count as under way until they leave here.
    taken: Vec<u64>,
    /// When the last of them was.
    at: HybridTime,
    writer: Option<Waker>,
}

impl Outward {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.taken.is_empty()
    }

    /// Nothing waits: ready only where nothing will.
    fn waits(&mut self, writer: &Context<'_>) -> Poll<()> {
        if self.queue.is_closed() {
            return Poll::Ready(());
        }
        self.writer = Some(writer.waker().clone());
        Poll::Pending
    }
}

impl Lane {
    pub(super) fn new(capacity: usize, capacity_bytes: usize, codec: u8, unsaid: Arc<AtomicUsize>) -> Self {
        let queue = LaneQueue::new(capacity, capacity_bytes);
        let outward = Outward { queue, taken: Vec::new(), at: HybridTime::ZERO, writer: None };
        Self { outward: Mutex::new(outward), codec, unsaid }
    }

    /// Appends a frame, and wakes the writer.
    pub(crate) fn push(&self, queued: Queued, bytes: usize, weight: Weight) -> Result<(), NotQueued<()>> {
        let writer = {
            let mut outward = self.outward.lock();
            if let Some(gathering) = outward.queue.last().and_then(|last| last.gathering.as_ref()) {
                gathering.seal();
            }
            outward.queue.push(queued, bytes, weight).map_err(NotQueued::without)?;
            outward.writer.take()
        };
        writer.into_iter().for_each(wakes::wake);
        Ok(())
    }

    /// A post of the peer's was taken, and wakes the writer. False when the lane says nothing more.
    pub(super) fn taken(&self, id: u64, at: HybridTime) -> bool {
        let writer = {
            let mut outward = self.outward.lock();
            if outward.queue.is_closed() {
                return false;
            }
            outward.taken.push(id);
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            outward.at = outward.at.max(at);
            outward.writer.take()
        };
        writer.into_iter().for_each(wakes::wake);
        true
    }

    /// Takes no more; the writer learns of it.
    pub(super) fn close(&self) {
        let writer = {
            let mut outward = self.outward.lock();
            outward.queue.close();
            outward.writer.take()
        };
        writer.into_iter().for_each(Waker::wake);
    }

    /// Takes no more, and gives what will never be written.
    pub(super) fn clear(&self) -> Vec<Queued> {
        self.close();
        let mut unsent = Vec::new();
        let mut outward = self.outward.lock();
        self.said(&mut outward.taken);
        outward.queue.take(usize::MAX, &mut unsent);
        // Who goes on gathering must not put more into what will not leave.
        unsent.iter().filter_map(|queued| queued.gathering.as_ref()).for_each(|gathering| gathering.seal());
        unsent
    }

    /// Waits for something to write: up to about so many bytes. False when there is nothing and will be
    /// nothing more.
    pub(crate) async fn next(&self, max_bytes: usize, batch: &mut Vec<Queued>) -> bool {
        poll_fn(|task| {
            let mut outward = self.outward.lock();
            self.answer_together(&mut outward, batch);
            outward.queue.take(max_bytes, batch);
            if batch.is_empty() { outward.waits(task).map(|()| false) } else { Poll::Ready(true) }
        })
        .await
    }

    fn answer_together(&self, outward: &mut Outward, batch: &mut Vec<Queued>) {
        let at = outward.at;
        batch.extend(outward.taken.chunks(gathering::MAX_TAKEN).map(|taken| {
            let body = gathering::ids(taken);
            let answer = Frame::answer(FrameKind::Taken, self.codec, 0, DataClass::control(), body);
            Queued { frame: Frame { hybrid: at, ..answer }, expires: None, gathering: None }
        }));
        self.said(&mut outward.taken);
    }

    /// What was taken is said, or nobody is there to be told.
    fn said(&self, taken: &mut Vec<u64>) {
        self.unsaid.fetch_sub(taken.len(), Ordering::Relaxed);
        taken.clear();
    }

    /// Waits until [`Lane::next`] need not.
    pub(crate) async fn ready(&self) {
        poll_fn(|task| {
            let mut outward = self.outward.lock();
            if outward.is_empty() { outward.waits(task) } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Messages and bytes that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let outward = self.outward.lock();
        (outward.queue.len() + outward.taken.len(), outward.queue.bytes() + 8 * outward.taken.len())
    }
}
