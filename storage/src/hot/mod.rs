//! The hot store: commits for many callers at once.
//!
//! * It decides: which waiting batches become one write, which write a sync covers, who is refused
//!   under pressure.
//! * It never does: answer `Durable` before a sync covered the write, queue without bound, retry
//!   after a fault, or leave a caller without an answer.
//! * Invariant: durable completions come in the order of their commit numbers; every accepted batch
//!   is completed exactly once.
//!
//! Two threads, of which one works most of the time: it drains everything that waits into one write, covers
//! it by one sync, tells everybody, and begins again with what has come meanwhile. The other writes, while
//! a sync is under way, what does not wait for its end: much at once, and what wants no sync. Who offers such a batch may
//! write it himself instead, with all that came before it.

mod committer;
mod inside;
mod pace;
mod queue;
mod settings;
mod stats;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use thiserror::Error;

use crate::batch::{Batch, Family};
use crate::commit::CommitNumber;
use crate::engine::{Engine, Pressure};
use crate::fault::{FaultCause, StorageFault};
use crate::store::{Fenced, Store};

use committer::Inner;
pub use inside::{Inside, LetIn};
pub use queue::Done;
pub use settings::HotSettings;
pub use stats::{Histogram, Stats};
pub use turns::Turns;

/// How safe a batch must be before its caller hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// After a sync: it survives every crash.
    Durable,
    /// After the write: for what can be rebuilt. It is visible, and a crash may take it back.
    Buffered,
}

/// A batch was not taken. Nothing of it was written; a normal answer under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// As much waits as may wait.
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// The engine is too hard pressed for this durability.
    Pressed {
        /// How hard.
        level: Pressure,
        /// When to try again.
        retry_after: Duration,
    },
    /// It would not be done in the time that its caller has, for all that waits for the disk.
    Late {
        /// How long it would take.
        takes: Duration,
        /// When to try again.
        retry_after: Duration,
    },
    /// The batch is larger than any that is taken: split it.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// The store is closed or closing.
    Closed,
    /// The store met a fault and takes nothing more until the process is restarted.
    Poisoned(StorageFault),
}

/// Why a batch is not committed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommitError {
    /// Another writer has a higher epoch; nothing of the batch was written.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The store is poisoned. Whether the batch survives is known only after restart and recovery.
    #[error(transparent)]
    Fault(#[from] StorageFault),
    /// The batch was not taken; nothing of it was written.
    #[error("not taken by the hot store: {0:?}")]
    Refused(Refusal),
}

/// What was offered and not taken.
pub struct Left {
    /// The batch; nothing of it was written.
    pub batch: Batch,
    /// Its completion, unheard.
    pub done: Done,
    /// Why.
    pub why: Refusal,
}

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Left").field("batch", &self.batch).field("why", &self.why).finish_non_exhaustive()
    }
}

/// A handle of the hot store. Clones share it; when the last is dropped without [`HotStore::close`],
/// the threads finish what was taken and end on their own.
#[derive(Debug)]
pub struct HotStore {
    inner: Arc<Inner>,
    handles: Arc<AtomicUsize>,
}

impl HotStore {
    /// Starts committing to a store. `on_poison` is called once, from a thread of the store, with the
    /// fault that ended it: the process is to stop then.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start<E: Engine>(
        store: Store<E>,
        settings: HotSettings,
        on_poison: impl FnOnce(StorageFault) + Send + 'static,
    ) -> Result<Self, StorageFault> {
        let inner = Inner::start(store.erased(), settings, Box::new(on_poison))?;
        Ok(Self { inner, handles: Arc::new(AtomicUsize::new(1)) })
    }

    /// Takes a batch; `done` hears of its fate, once, on a thread of the store. It must be quick,
    /// must not block and must not panic: send a message from it.
    ///
    /// # Errors
    /// A [`Refusal`]; `done` is then dropped unheard. [`HotStore::offer`] gives both back.
    pub fn submit(
        &self,
        batch: Batch,
        durability: Durability,
        done: impl FnOnce(Result<CommitNumber, CommitError>) + Send + 'static,
    ) -> Result<(), Refusal> {
        self.offer(batch, durability, Box::new(done)).map_err(|left| left.why)
    }

    /// As [`HotStore::submit`], for who means to offer the batch again.
    ///
    /// # Errors
    /// The batch and its completion, with the [`Refusal`].
    pub fn offer(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), Box<Left>> {
        self.inner.offer(batch, durability, done)
    }

    /// As [`HotStore::offer`] of a durable batch, for who asked at the [door](Self::door) before he began what this comes of, and cannot
    /// be refused in the midst of it. It passes where new batches are not taken any more: up to *red*, while there is room in all of the queue.
    ///
    /// # Errors
    /// As [`HotStore::offer`].
    pub fn offer_begun(&self, batch: Batch, done: Done) -> Result<(), Box<Left>> {
        self.inner.offer_begun(batch, done)
    }

    /// What work of so many bytes meets that is not begun yet, and whose caller has so much time. Whoever lets work in that writes
    /// more than once, and cannot be refused in the midst of it, asks here first, and keeps what is given until that has ended. The
    /// engine's word on its pressure is at most [`HotSettings::pressure_age`] old.
    ///
    /// # Errors
    /// A [`Refusal`], from *orange* on: durable batches still pass there, so that what was let in comes to its end. And where it
    /// would take more than half of that time, by how long the disk took for the last few turns, and takes now. One is let in
    /// where nothing waits and nobody is inside, so that a disk that was slow is tried again.
    pub fn door(&self, bytes: usize, within: Duration) -> Result<LetIn, Refusal> {
        self.inner.door(bytes, within)
    }

    /// Takes a batch that wants no sync, and writes it on the caller's thread, behind all that was taken before it, unless a
    /// thread of the store is writing just then. It is visible when `done` was called: here, as a rule. It is taken as
    /// by [`HotStore::offer_begun`]: what it comes of is durable.
    ///
    /// # Errors
    /// As [`HotStore::offer`].
    pub fn offer_here(&self, batch: Batch, done: Done) -> Result<(), Box<Left>> {
        self.inner.offer_here(batch, done)
    }

    /// Commits a batch. It waits as long as the disk takes; callers bring their own deadline.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn commit(&self, batch: Batch, durability: Durability) -> Result<CommitNumber, CommitError> {
        let (done, outcome) = oneshot::channel();
        // A caller that no longer waits is not owed the outcome.
        self.submit(batch, durability, move |result| drop(done.send(result)))
            .map_err(CommitError::Refused)?;
        outcome.await.unwrap_or_else(|_| Err(CommitError::Fault(closed("wait for a commit"))))
    }

    /// The value of a key, as last written (perhaps not durable yet).
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.inner.store.get(family, key)
    }

    /// Gives keys with this prefix in order until `f` answers `false`. `f` must not read or write here.
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.inner.store.scan(family, prefix, f)
    }

    /// As [`HotStore::scan`], from this key on to the end of the family.
    ///
    /// # Errors
    /// A fault of reading, or the one that poisoned the store.
    pub fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.inner.store.walk(family, from, f)
    }

    /// The last commit known durable. One atomic read.
    #[must_use]
    pub fn durable(&self) -> CommitNumber {
        self.inner.store.durable()
    }

    /// The last commit written.
    #[must_use]
    pub fn written(&self) -> CommitNumber {
        self.inner.store.written()
    }

    /// The fault that poisoned the store, if one did.
    #[must_use]
    pub fn poisoned(&self) -> Option<StorageFault> {
        self.inner.store.poisoned().cloned()
    }

    /// Ends the store for a fault that was found elsewhere: all that waits hears of it, nothing more is
    /// taken, and the process is to stop, as after a fault of its own.
    pub fn condemn(&self, fault: StorageFault) {
        self.inner.fail(fault);
    }

    /// When the last sync began, and how long it took. In the completion of a durable batch that is the
    /// sync that made it durable.
    #[must_use]
    pub fn last_sync(&self) -> Option<(Instant, Duration)> {
        self.inner.last_sync()
    }

    /// What the store has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// What its threads are about. Two atomic reads: it never waits, not even for a disk that does.
    #[must_use]
    pub fn turns(&self) -> Turns {
        self.inner.turns()
    }

    /// Takes nothing more, commits what was taken, records that all of it is durable, and ends the
    /// threads. Closing again gives the same answer. Never call it from a completion.
    ///
    /// The engine itself is let go when the last handle is dropped.
    ///
    /// # Errors
    /// The fault that poisoned the store, or one that says that it did not end in time.
    #[expect(clippy::disallowed_methods, reason = "a shell: a deadline in real time")]
    pub fn close(&self, within: Duration) -> Result<CommitNumber, StorageFault> {
        self.inner.close();
        self.inner.await_end(Instant::now() + within)
    }
}

impl Clone for HotStore {
    fn clone(&self) -> Self {
        self.handles.fetch_add(1, Ordering::Relaxed);
        Self { inner: Arc::clone(&self.inner), handles: Arc::clone(&self.handles) }
    }
}

impl Drop for HotStore {
    fn drop(&mut self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.inner.close();
        }
    }
}

fn closed(doing: &str) -> StorageFault {
    StorageFault::new(FaultCause::Closed, doing, "the hot store is closed")
}

#[cfg(test)]
mod tests;
