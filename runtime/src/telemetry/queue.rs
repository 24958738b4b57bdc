//! Where finished spans wait for the exporter.
//!
//! * It decides: which spans are dropped: those that come while the queue is full. A part of it is kept
//!   free for incidents, so that a flood of calls does not drop the one span that says why.
//! * It never does: let whoever ends a span wait.
//! * Invariant: every span that was pushed is exported, dropped or failed, and counted as that once.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::SpanData;
use parking_lot::{Condvar, Mutex};

/// What became of spans since the start. Read at any time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: u64,
    /// Came while the queue was full, or were left when the exporter had to end.
    pub dropped: u64,
    /// Not taken by the collector: it was not reached, or refused them.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct Counters {
    exported: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// One part in so many of the queue is for incidents alone.
const RESERVED: usize = 16;
/// Spans that go to the collector at once.
const BATCH: usize = 512;

/// The queue's end at which spans are pushed, and its other end. Clones are one queue.
#[derive(Clone)]
pub struct Spans(Arc<Inner>);

struct Inner {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    capacity: usize,
    counters: Counters,
}

#[derive(Default)]
struct Waiting {
    spans: VecDeque<SpanData>,
    closed: bool,
}

impl Spans {
    /// A queue in which at most so many spans wait.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Arc::new(Inner {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            capacity,
            counters: Counters::default(),
        }))
    }

    /// Takes a finished span, or drops and counts it. An incident's may take the room that is kept free.
    pub(crate) fn push(&self, span: SpanData, incident: bool) {
        let room = self.0.capacity - if incident { 0 } else { self.0.capacity / RESERVED };
        let mut waiting = self.0.waiting.lock();
        if waiting.closed || waiting.spans.len() >= room {
            drop(waiting);
            self.0.counters.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.spans.push_back(span);
        let count = waiting.spans.len();
        drop(waiting);
        // Who waits for a first one, and who waits for a batch: nobody is woken for each.
        if count == 1 || count.is_multiple_of(BATCH) {
            self.0.changed.notify_one();
        }
    }

    /// Waits for spans: gives them when there are [`BATCH`] of them, when the first has waited for `delay`,
    /// or when the queue is closed. `None` when it is closed and empty.
    #[cfg_attr(not(feature = "rocks"), expect(dead_code, reason = "the exporter is a node's"))]
    #[expect(clippy::disallowed_methods, reason = "a shell: a thread that waits in real time")]
    pub(super) fn next(&self, delay: Duration) -> Option<Vec<SpanData>> {
        let mut waiting = self.0.waiting.lock();
        while waiting.spans.is_empty() {
            if waiting.closed {
                return None;
            }
            self.0.changed.wait(&mut waiting);
        }
        let until = Instant::now() + delay;
        while waiting.spans.len() < BATCH && !waiting.closed {
            if self.0.changed.wait_until(&mut waiting, until).timed_out() {
                break;
            }
        }
        let count = waiting.spans.len().min(BATCH);
        Some(waiting.spans.drain(..count).collect())
    }

    /// Takes no more. What waits is still given out.
    pub(super) fn close(&self) {
        self.0.waiting.lock().closed = true;
        self.0.changed.notify_all();
    }

    /// Drops what waits, and counts it.
    pub(super) fn abandon(&self) {
        let left = std::mem::take(&mut self.0.waiting.lock().spans);
        self.0.counters.dropped.fetch_add(left.len() as u64, Ordering::Relaxed);
    }

    /// Everything that waits now: for tests, which have no exporter.
    #[must_use]
    pub fn take(&self) -> Vec<SpanData> {
        self.0.waiting.lock().spans.drain(..).collect()
    }

    pub(super) fn exported(&self, count: usize) {
        self.0.counters.exported.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, count: usize) {
        self.0.counters.failed.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// What became of spans so far.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SpanCounts {
            exported: read(&counters.exported),
            dropped: read(&counters.dropped),
            failed: read(&counters.failed),
        }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spans").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
