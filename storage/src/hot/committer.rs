//! The shell of the hot store: its two threads.

#![expect(
    clippy::disallowed_methods,
    reason = "a shell: it measures and waits in real time, and decides nothing by it"
)]

use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::queue::{Done, Queue, Waiting, Written};
use super::stats::Tally;
use super::turns::Turn;
use super::{CommitError, Durability, HotSettings, Left, Refusal, Stats, Turns};
use crate::batch::Batch;
use crate::commit::CommitNumber;
use crate::engine::Engine;
use crate::fault::{FaultCause, StorageFault};
use crate::store::Store;

type OnPoison = Box<dyn FnOnce(StorageFault) + Send>;

pub(super) struct Inner {
    pub(super) store: Store<Arc<dyn Engine>>,
    settings: HotSettings,
    queue: Mutex<Queue>,
    /// Something waits to be written, or the store is closing.
    to_write: Condvar,
    /// Something waits to be synced, or the writer ended.
    to_sync: Condvar,
    end: Mutex<End>,
    ended: Condvar,
    tally: Tally,
    last_sync: Mutex<Option<(Instant, Duration)>>,
    write_turn: Turn,
    sync_turn: Turn,
    on_poison: Mutex<Option<OnPoison>>,
}

/// How far the threads are on their way out.
#[derive(Default)]
struct End {
    writer: bool,
    syncer: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Inner {
    pub(super) fn start(
        store: Store<Arc<dyn Engine>>,
        settings: HotSettings,
        on_poison: OnPoison,
    ) -> Result<Arc<Self>, StorageFault> {
        let queue = Queue::under(store.pressure());
        let inner = Arc::new(Self {
            store,
            settings,
            queue: Mutex::new(queue),
            to_write: Condvar::new(),
            to_sync: Condvar::new(),
            end: Mutex::default(),
            ended: Condvar::new(),
            tally: Tally::default(),
            last_sync: Mutex::default(),
            write_turn: Turn::default(),
            sync_turn: Turn::default(),
            on_poison: Mutex::new(Some(on_poison)),
        });
        inner.spawn("rhumb-write", Self::write_loop, |end| end.writer = true)?;
        inner.spawn("rhumb-sync", Self::sync_loop, |end| end.syncer = true).inspect_err(|_| inner.close())?;
        Ok(inner)
    }

    pub(super) fn offer(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), Box<Left>> {
        let mut queue = self.queue.lock();
        // Asked under the lock: whoever poisons the store empties the queue after that.
        let admitted = match self.store.poisoned() {
            Some(fault) => Err(Refusal::Poisoned(fault.clone())),
            None => queue.admit(&self.settings, batch.bytes(), durability),
        };
        if let Err(why) = admitted {
            self.tally.refused.fetch_add(1, Relaxed);
            return Err(Box::new(Left { batch, done, why }));
        }
        queue.push(Waiting { batch, durability, done });
        self.to_write.notify_one();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.to_write.notify_one();
    }

    /// Waits until both threads have ended.
    pub(super) fn await_end(&self, deadline: Instant) -> Result<CommitNumber, StorageFault> {
        let mut end = self.end.lock();
        while !(end.writer && end.syncer) {
            if self.ended.wait_until(&mut end, deadline).timed_out() {
                let late = "the disk did not take what waits in time";
                return Err(StorageFault::new(FaultCause::Io, "close the hot store", late));
            }
        }
        let threads = mem::take(&mut end.threads);
        drop(end);
        for thread in threads {
            // It has said that it ended; once it is joined, it has let go of the engine too.
            thread.join().map_err(|_| bug("a thread of the hot store panicked"))?;
        }
        self.store.poisoned().map_or_else(|| Ok(self.store.durable()), |fault| Err(fault.clone()))
    }

    pub(super) fn stats(&self) -> Stats {
        let queue = self.queue.lock();
        let (waiting, waiting_bytes) = queue.outstanding();
        Stats {
            batches: self.tally.batches.load(Relaxed),
            fenced: self.tally.fenced.load(Relaxed),
            refused: self.tally.refused.load(Relaxed),
            bytes: self.tally.bytes.load(Relaxed),
            group_sizes: self.tally.group_sizes.read(),
            sync_micros: self.tally.sync_micros.read(),
            waiting,
            waiting_bytes,
            pressure: queue.pressure,
        }
    }

    pub(super) fn last_sync(&self) -> Option<(Instant, Duration)> {
        *self.last_sync.lock()
    }

    pub(super) fn turns(&self) -> Turns {
        Turns { write: self.write_turn.read(), sync: self.sync_turn.read() }
    }

    /// Runs one of the loops on a thread of its own. Whatever ends it, even a panic of a completion,
    /// no caller is left waiting.
    fn spawn(
        self: &Arc<Self>,
        name: &str,
        work: fn(&Self) -> Result<(), StorageFault>,
        end: fn(&mut End),
    ) -> Result<(), StorageFault> {
        let inner = Arc::clone(self);
        let run = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(&inner)));
            if let Err(fault) = outcome.unwrap_or_else(|_| Err(bug("a thread of the hot store panicked"))) {
                inner.fail(fault);
            }
            end(&mut inner.end.lock());
            inner.ended.notify_all();
            // The syncer must learn that nothing more comes.
            let _queue = inner.queue.lock();
            inner.to_sync.notify_one();
            inner.to_write.notify_one();
        };
        let spawned = thread::Builder::new().name(name.into()).spawn(run);
        let thread = spawned.map_err(|error| StorageFault::io("start a thread of the hot store", &error))?;
        self.end.lock().threads.push(thread);
        Ok(())
    }

    fn write_loop(&self) -> Result<(), StorageFault> {
        let mut asked = Instant::now();
        while let Some(group) = self.next_group(&mut asked) {
            self.write(group)?;
        }
        // One more record, so that the log itself says that everything before it is durable. On a
        // poisoned store this gives the fault, and what was taken meanwhile hears of it.
        self.store.sync()?;
        self.store.write_group([&Batch::new()]).map(drop)
    }

    /// Waits for batches to write. `None` when closing and nothing waits, or when poisoned.
    fn next_group(&self, asked: &mut Instant) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        loop {
            if asked.elapsed() >= self.settings.pressure_age {
                *asked = Instant::now();
                queue.pressure = self.store.pressure();
            }
            if self.store.poisoned().is_some() || (queue.closing && queue.unwritten.is_empty()) {
                return None;
            }
            if !queue.unwritten.is_empty() {
                return Some(queue.drain(self.settings.max_group_bytes));
            }
            // Not for ever: a refused caller must see the pressure fall although nothing is taken.
            self.to_write.wait_for(&mut queue, self.settings.pressure_age);
        }
    }

    fn write(&self, group: Vec<Waiting>) -> Result<(), StorageFault> {
        let wrote = self.write_turn.during(|| self.store.write_group(group.iter().map(|w| &w.batch)));
        let wrote = match wrote {
            Ok(wrote) => wrote,
            Err(fault) => {
                self.complete(
                    group.into_iter().map(|w| (w.batch.bytes(), w.done, Err(fault.clone().into()))),
                );
                return Err(fault);
            }
        };
        self.tally.group_sizes.add(group.len() as u64);
        let number = wrote.number;
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for (Waiting { batch, durability, done }, outcome) in group.into_iter().zip(wrote.outcomes) {
            let bytes = batch.bytes();
            self.tally.count(bytes, outcome.is_ok());
            match (outcome, durability) {
                (Err(fenced), _) => now.push((bytes, done, Err(fenced.into()))),
                (Ok(()), Durability::Buffered) => now.push((bytes, done, Ok(number))),
                (Ok(()), Durability::Durable) => later.push(Written { number, bytes, done }),
            }
        }
        if !later.is_empty() {
            self.queue.lock().unsynced.extend(later);
            self.to_sync.notify_one();
        }
        self.complete(now);
        Ok(())
    }

    fn sync_loop(&self) -> Result<(), StorageFault> {
        loop {
            {
                let mut queue = self.queue.lock();
                while queue.unsynced.is_empty() {
                    if self.end.lock().writer {
                        drop(queue);
                        return self.sync_once();
                    }
                    if let Some(fault) = self.store.poisoned() {
                        return Err(fault.clone());
                    }
                    self.to_sync.wait(&mut queue);
                }
            }
            self.sync_once()?;
        }
    }

    /// One sync, for everything written before it.
    fn sync_once(&self) -> Result<(), StorageFault> {
        let started = Instant::now();
        let covered = self.sync_turn.during(|| self.store.sync())?;
        let took = started.elapsed();
        self.tally.sync_micros.add(took.as_micros() as u64);
        *self.last_sync.lock() = Some((started, took));
        let covered: Vec<_> = {
            let mut queue = self.queue.lock();
            let count = queue.unsynced.partition_point(|written| written.number <= covered);
            queue.unsynced.drain(..count).collect()
        };
        self.complete(covered.into_iter().map(|w| (w.bytes, w.done, Ok(w.number))));
        Ok(())
    }

    /// Ends the store: everything that waits hears of the fault, then the process does.
    pub(super) fn fail(&self, fault: StorageFault) {
        let fault = self.store.poisoned_by(fault);
        let (unwritten, unsynced) = {
            let mut queue = self.queue.lock();
            (mem::take(&mut queue.unwritten), mem::take(&mut queue.unsynced))
        };
        let unsynced = unsynced.into_iter().map(|w| (w.bytes, w.done));
        let all = unsynced.chain(unwritten.into_iter().map(|w| (w.batch.bytes(), w.done)));
        self.complete(all.map(|(bytes, done)| (bytes, done, Err(fault.clone().into()))));
        self.to_write.notify_all();
        self.to_sync.notify_all();
        if let Some(on_poison) = self.on_poison.lock().take() {
            on_poison(fault);
        }
    }

    fn complete(&self, outcomes: impl IntoIterator<Item = (usize, Done, Result<CommitNumber, CommitError>)>) {
        for (bytes, done, outcome) in outcomes {
            self.queue.lock().completed(bytes);
            if panic::catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
                // The others still hear of their fate; then the loops see the poison and end.
                self.store.poisoned_by(bug("the completion of a commit panicked"));
            }
        }
    }
}

fn bug(detail: &str) -> StorageFault {
    StorageFault::new(FaultCause::Io, "commit", detail)
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HotStore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
