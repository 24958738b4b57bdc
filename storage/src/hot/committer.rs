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

use parking_lot::{Condvar, Mutex, MutexGuard};
use rhumb_core::wakes::Wakes;

use super::inside::{Insiders, LetIn};
use super::queue::{Comes, Done, Queue, Task, Waiting, Written};
use super::stats::Tally;
use super::turns::Turn;
use super::{CommitError, Durability, HotSettings, Left, Refusal, Stats, Turns};
use crate::batch::Batch;
use crate::commit::CommitNumber;
use crate::engine::Engine;
use crate::fault::{FaultCause, StorageFault};
use crate::store::Store;

/// One writes or syncs; the other writes meanwhile what does not wait for the sync to end.
const THREADS: usize = 2;

type OnPoison = Box<dyn FnOnce(StorageFault) + Send>;

pub(super) struct Inner {
    pub(super) store: Store<Arc<dyn Engine>>,
    settings: HotSettings,
    queue: Mutex<Queue>,
    /// What was let in by the door, and has not ended.
    insiders: Arc<Insiders>,
    /// Times are told to the queue as how long after this they are.
    begun: Instant,
    /// There is something to do.
    work: Condvar,
    /// Locked after the queue.
    pressure_asked: Mutex<Instant>,
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
    ended: usize,
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
            insiders: Arc::default(),
            begun: Instant::now(),
            work: Condvar::new(),
            pressure_asked: Mutex::new(Instant::now()),
            end: Mutex::default(),
            ended: Condvar::new(),
            tally: Tally::default(),
            last_sync: Mutex::default(),
            write_turn: Turn::default(),
            sync_turn: Turn::default(),
            on_poison: Mutex::new(Some(on_poison)),
        });
        for _ in 0..THREADS {
            inner.spawn().inspect_err(|_| inner.close())?;
        }
        Ok(inner)
    }

    pub(super) fn offer(&self, batch: Batch, durability: Durability, done: Done) -> Result<(), Box<Left>> {
        self.call(&mut *self.taken(batch, durability, Comes::Anew(durability), done)?);
        Ok(())
    }

    pub(super) fn offer_begun(&self, batch: Batch, done: Done) -> Result<(), Box<Left>> {
        self.call(&mut *self.taken(batch, Durability::Durable, Comes::Begun, done)?);
        Ok(())
    }

    pub(super) fn door(&self, bytes: usize, within: Duration) -> Result<LetIn, Refusal> {
        if let Some(fault) = self.store.poisoned() {
            return Err(Refusal::Poisoned(fault.clone()));
        }
        // Counted in under the lock: of many that come at one moment each sees those before it.
        let queue = self.queue.lock();
        let times = (self.begun.elapsed(), within);
        let wait = queue.door(&self.settings, bytes, self.insiders.load(), times)?;
        Ok(LetIn { wait, inside: Insiders::enter(&self.insiders, bytes) })
    }

    /// As [`Inner::offer`] of what wants no sync; what waits is written by the caller, unless somebody else is writing.
    pub(super) fn offer_here(&self, batch: Batch, done: Done) -> Result<(), Box<Left>> {
        let mut queue = self.taken(batch, Durability::Buffered, Comes::Here, done)?;
        let Some(group) = queue.write_here(self.settings.max_group_bytes, self.begun.elapsed()) else {
            self.call(&mut queue);
            return Ok(());
        };
        drop(queue);
        // As on a thread of the store: whatever ends it, nobody is left waiting.
        let wrote = panic::catch_unwind(AssertUnwindSafe(|| self.write(group)));
        if let Err(fault) = wrote.unwrap_or_else(|_| Err(bug("a write of the hot store panicked"))) {
            self.fail(fault);
        }
        self.call(&mut self.queue.lock());
        Ok(())
    }

    fn taken(
        &self,
        batch: Batch,
        durability: Durability,
        comes: Comes,
        done: Done,
    ) -> Result<MutexGuard<'_, Queue>, Box<Left>> {
        let mut queue = self.queue.lock();
        // Asked under the lock: whoever poisons the store empties the queue after that.
        let admitted = match self.store.poisoned() {
            Some(fault) => Err(Refusal::Poisoned(fault.clone())),
            None => queue.admit(&self.settings, batch.bytes(), comes),
        };
        if let Err(why) = admitted {
            self.tally.refused.fetch_add(1, Relaxed);
            return Err(Box::new(Left { batch, done, why }));
        }
        queue.push(Waiting { batch, durability, done });
        Ok(queue)
    }

    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.work.notify_one();
    }

    /// Waits until both threads have ended.
    pub(super) fn await_end(&self, deadline: Instant) -> Result<CommitNumber, StorageFault> {
        let mut end = self.end.lock();
        while end.ended < THREADS {
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
            inside: self.insiders.load().batches,
            pressure: queue.pressure,
        }
    }

    pub(super) fn last_sync(&self) -> Option<(Instant, Duration)> {
        *self.last_sync.lock()
    }

    pub(super) fn turns(&self) -> Turns {
        Turns { write: self.write_turn.read(), sync: self.sync_turn.read() }
    }

    /// Starts one of the threads. Whatever ends it, even a panic, no caller is left waiting.
    fn spawn(self: &Arc<Self>) -> Result<(), StorageFault> {
        let inner = Arc::clone(self);
        let run = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| inner.work()));
            if let Err(fault) = outcome.unwrap_or_else(|_| Err(bug("a thread of the hot store panicked"))) {
                inner.fail(fault);
            }
            inner.end.lock().ended += 1;
            inner.ended.notify_all();
            // The other must learn that nothing more comes.
            let _queue = inner.queue.lock();
            inner.work.notify_all();
        };
        let spawned = thread::Builder::new().name("rhumb-commit".into()).spawn(run);
        let thread = spawned.map_err(|error| StorageFault::io("start a thread of the hot store", &error))?;
        self.end.lock().threads.push(thread);
        Ok(())
    }

    /// Does what is to be done, until the store is closed or poisoned. Who has written goes on to sync:
    /// between the two nobody is woken.
    fn work(&self) -> Result<(), StorageFault> {
        while let Some(task) = self.next_task() {
            match task {
                Task::Write(group) => self.write(group)?,
                Task::Sync => self.sync()?,
                Task::Close => return self.note_the_end(),
            }
        }
        self.store.poisoned().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Waits for something to do. `None` when the store is closed, or poisoned.
    fn next_task(&self) -> Option<Task> {
        let mut queue = self.queue.lock();
        loop {
            self.feel_pressure(&mut queue);
            if self.store.poisoned().is_some() || queue.closed {
                return None;
            }
            if let Some(task) = queue.next(self.settings.max_group_bytes, self.begun.elapsed()) {
                self.call(&mut queue);
                return Some(task);
            }
            if mem::replace(&mut queue.watched, true) {
                self.work.wait(&mut queue);
            } else {
                // Not for ever: a refused caller must see the pressure fall although nothing is taken.
                self.work.wait_for(&mut queue, self.settings.pressure_age);
                queue.watched = false;
            }
            queue.called = false;
        }
    }

    /// Wakes a thread if there is something to do, and none is on its way.
    fn call(&self, queue: &mut Queue) {
        if !queue.called && queue.has_task() {
            queue.called = self.work.notify_one();
        }
    }

    /// Asks how hard the engine is pressed, if its last word is old.
    fn feel_pressure(&self, queue: &mut Queue) {
        let mut asked = self.pressure_asked.lock();
        if asked.elapsed() >= self.settings.pressure_age {
            *asked = Instant::now();
            queue.pressure = self.store.pressure();
        }
    }

    fn write(&self, group: Vec<Waiting>) -> Result<(), StorageFault> {
        let wrote = self.write_turn.during(|| self.store.write_group(group.iter().map(|w| &w.batch)));
        let wrote = match wrote {
            Ok(wrote) => wrote,
            Err(fault) => {
                let failed = |w: Waiting| (w.batch.bytes(), w.done, Err(fault.clone().into()));
                self.complete(group.into_iter().map(failed).collect());
                return Err(fault);
            }
        };
        self.tally.group_sizes.add(group.len() as u64);
        let number = wrote.number;
        let (mut now, mut later) = (Vec::new(), Vec::with_capacity(group.len()));
        for (Waiting { batch, durability, done }, outcome) in group.into_iter().zip(wrote.outcomes) {
            let bytes = batch.bytes();
            self.tally.count(bytes, outcome.is_ok());
            match (outcome, durability) {
                (Err(fenced), _) => now.push((bytes, done, Err(fenced.into()))),
                (Ok(()), Durability::Buffered) => now.push((bytes, done, Ok(number))),
                (Ok(()), Durability::Durable) => later.push(Written { number, bytes, done }),
            }
        }
        self.complete(now);
        self.queue.lock().written(later);
        Ok(())
    }

    /// One sync, for everything written before it.
    fn sync(&self) -> Result<(), StorageFault> {
        let started = Instant::now();
        let covered = self.sync_turn.during(|| self.store.sync())?;
        let took = started.elapsed();
        self.tally.sync_micros.add(took.as_micros() as u64);
        *self.last_sync.lock() = Some((started, took));
        let covered = self.queue.lock().covered(covered);
        self.complete(covered.into_iter().map(|w| (w.bytes, w.done, Ok(w.number))).collect());
        // Not before: completions come in the order of their commits.
        self.queue.lock().synced(self.begun.elapsed());
        Ok(())
    }

    /// One more record, so that the log itself says that everything before it is durable.
    fn note_the_end(&self) -> Result<(), StorageFault> {
        self.store.sync()?;
        self.store.write_group([&Batch::new()])?;
        self.sync()
    }

    /// Ends the store: everything that waits hears of the fault, then the process does.
    pub(super) fn fail(&self, fault: StorageFault) {
        let fault = self.store.poisoned_by(fault);
        let (unsynced, unwritten) = self.queue.lock().take();
        let unsynced = unsynced.into_iter().map(|w| (w.bytes, w.done));
        let all = unsynced.chain(unwritten.into_iter().map(|w| (w.batch.bytes(), w.done)));
        self.complete(all.map(|(bytes, done)| (bytes, done, Err(fault.clone().into()))).collect());
        self.work.notify_all();
        if let Some(on_poison) = self.on_poison.lock().take() {
            on_poison(fault);
        }
    }

    /// Tells everybody of these what became of their batch. Who is woken by it is woken when all are told.
    fn complete(&self, outcomes: Vec<(usize, Done, Result<CommitNumber, CommitError>)>) {
        if outcomes.is_empty() {
            return;
        }
        self.queue.lock().completed(outcomes.len(), outcomes.iter().map(|(bytes, ..)| bytes).sum());
        let _wakes = Wakes::hold();
        for (_, done, outcome) in outcomes {
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
