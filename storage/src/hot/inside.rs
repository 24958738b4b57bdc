//! What was let in by the door, and has not ended: it will bring batches that the queue does not know of yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::pace::Load;

/// How much is inside.
#[derive(Debug, Default)]
pub(super) struct Insiders {
    number: AtomicUsize,
    bytes: AtomicUsize,
}

impl Insiders {
    /// One more of so many bytes, until what is given is dropped.
    pub(super) fn enter(all: &Arc<Self>, bytes: usize) -> Inside {
        all.number.fetch_add(1, Ordering::Relaxed);
        all.bytes.fetch_add(bytes, Ordering::Relaxed);
        Inside(Some((Arc::clone(all), bytes)))
    }

    pub(super) fn load(&self) -> Load {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Load { batches: read(&self.number), bytes: read(&self.bytes) }
    }
}

/// Something that was let in. Dropped, it has ended: keep it for as long as it may bring more to write, be it that its caller has
/// given up.
#[derive(Debug, Default)]
#[must_use = "what was let in is inside for as long as this is kept"]
pub struct Inside(Option<(Arc<Insiders>, usize)>);

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some((all, bytes)) = self.0.take() {
            all.number.fetch_sub(1, Ordering::Relaxed);
            all.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Work that may begin.
#[derive(Debug, Default)]
pub struct LetIn {
    /// How long it is to wait before that.
    pub wait: Duration,
    /// Its place inside.
    pub inside: Inside,
}
