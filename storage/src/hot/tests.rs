#![expect(clippy::disallowed_methods, reason = "tests wait in real time, and know how much they queue")]

use std::sync::mpsc;
use std::thread;

use futures::executor::block_on;
use parking_lot::{Condvar, Mutex};
use rhumb_core::Epoch;
use rhumb_core::rng::Seed;

use super::*;
use crate::memory::{Injection, MemoryDisk, MemoryEngine, Tear};
use crate::{Ops, keys};

const DEADLINE: Duration = Duration::from_secs(30);

/// A door that calls of one kind stop at while it is shut.
#[derive(Default)]
struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Default)]
struct DoorState {
    shut: bool,
    /// Calls that stand at the door.
    stopped: usize,
}

impl Door {
    fn shut(&self) {
        self.state.lock().shut = true;
    }

    fn open(&self) {
        self.state.lock().shut = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.stopped += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.shut);
        state.stopped -= 1;
    }

    fn await_stopped(&self) {
        let mut state = self.state.lock();
        let waited = self.changed.wait_while_for(&mut state, |state| state.stopped == 0, DEADLINE);
        assert!(!waited.timed_out(), "nobody came to the door");
    }
}

/// A memory engine behind doors.
struct Doored {
    engine: MemoryEngine,
    doors: Arc<Doors>,
}

#[derive(Default)]
struct Doors {
    write: Door,
    sync: Door,
}

impl Engine for Doored {
    fn write(&self, ops: &Ops<'_>) -> Result<(), StorageFault> {
        self.doors.write.pass();
        self.engine.write(ops)
    }
    fn sync(&self) -> Result<(), StorageFault> {
        self.doors.sync.pass();
        self.engine.sync()
    }
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        self.engine.get(family, key)
    }
    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.engine.scan(family, prefix, f)
    }
    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        self.engine.walk(family, from, f)
    }
    fn pressure(&self) -> Pressure {
        self.engine.pressure()
    }
}

struct Stage {
    disk: MemoryDisk,
    doors: Arc<Doors>,
    hot: HotStore,
    poison: mpsc::Receiver<StorageFault>,
    /// Syncs that opening took.
    syncs_before: u64,
}

fn stage_with(settings: HotSettings) -> Stage {
    let disk = MemoryDisk::tearing(Tear::LoseAll);
    let doors = Arc::new(Doors::default());
    let engine = Doored { engine: MemoryEngine::open(&disk), doors: Arc::clone(&doors) };
    let store = Store::open(engine).expect("a memory disk opens");
    let (told, poison) = mpsc::channel();
    let hot = HotStore::start(store, settings, move |fault| _ = told.send(fault)).expect("threads start");
    Stage { syncs_before: disk.syncs(), disk, doors, hot, poison }
}

fn stage() -> Stage {
    stage_with(HotSettings::default())
}

fn put(key: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Escrow, key.to_be_bytes(), "x");
    batch
}

type Outcomes = mpsc::Receiver<(u32, Result<CommitNumber, CommitError>)>;

impl Stage {
    /// Submits batches with these keys; outcomes arrive as they are told.
    fn submit(&self, keys: impl IntoIterator<Item = u32>, durability: Durability) -> Outcomes {
        let (told, outcomes) = mpsc::channel();
        for key in keys {
            let told = told.clone();
            let done = move |outcome| _ = told.send((key, outcome));
            self.hot.submit(put(key), durability, done).expect("there is room");
        }
        outcomes
    }

    fn close(&self) -> Result<CommitNumber, StorageFault> {
        self.hot.close(DEADLINE)
    }
}

/// Waits for a condition that another thread brings about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::yield_now();
    }
}

fn all(outcomes: &Outcomes, count: usize) -> Vec<(u32, Result<CommitNumber, CommitError>)> {
    (0..count).map(|_| outcomes.recv_timeout(DEADLINE).expect("every caller is told")).collect()
}

#[test]
fn many_callers_share_one_sync() {
    let stage = stage();
    stage.doors.sync.shut();
    let first = stage.submit([0], Durability::Durable);
    stage.doors.sync.await_stopped();
    let rest = stage.submit(1..=100, Durability::Durable);
    assert_eq!((stage.hot.stats().waiting, stage.hot.durable()), (101, CommitNumber(0)));
    stage.doors.sync.open();
    assert_eq!(all(&first, 1).len() + all(&rest, 100).len(), 101);
    assert_eq!(stage.disk.syncs() - stage.syncs_before, 2, "the first caller's, and one for a hundred");
    assert_eq!(stage.disk.writes(), 2, "what came during the first sync is one write");
    assert_eq!(stage.hot.stats().sync_micros.count(), 2);
}

#[test]
fn many_callers_share_one_write() {
    let stage = stage();
    stage.doors.write.shut();
    let first = stage.submit([0], Durability::Durable);
    stage.doors.write.await_stopped();
    let rest = stage.submit(1..=100, Durability::Durable);
    stage.doors.write.open();
    assert_eq!(all(&first, 1)[0].1, Ok(CommitNumber(1)));
    assert!(all(&rest, 100).iter().all(|(_, outcome)| *outcome == Ok(CommitNumber(2))), "one commit");
    assert_eq!(stage.disk.writes(), 2);
    let sizes = stage.hot.stats().group_sizes;
    assert_eq!((sizes.count(), sizes.sum), (2, 101));
}

#[test]
fn a_large_write_overlaps_the_sync_under_way() {
    let stage = stage();
    stage.doors.sync.shut();
    let outcomes = stage.submit([1], Durability::Durable);
    stage.doors.sync.await_stopped();
    let (told, next) = mpsc::channel();
    let mut large = put(2);
    large.put(Family::Escrow, "large", vec![0; 1 << 20]);
    let done = move |outcome| _ = told.send((2, outcome));
    stage.hot.submit(large, Durability::Durable, done).expect("there is room");
    eventually("the second is written", || stage.hot.written() == CommitNumber(2));
    assert!(stage.hot.get(Family::Escrow, &2_u32.to_be_bytes()).expect("reads").is_some());
    assert!(outcomes.try_recv().is_err() && next.try_recv().is_err(), "nobody is told before a sync");
    stage.doors.sync.open();
    assert_eq!(all(&outcomes, 1), [(1, Ok(CommitNumber(1)))]);
    assert_eq!(all(&next, 1), [(2, Ok(CommitNumber(2)))]);
}

#[test]
fn what_is_buffered_does_not_wait_for_a_sync() {
    let stage = stage();
    stage.doors.sync.shut();
    let durable = stage.submit([1], Durability::Durable);
    let buffered = stage.submit([2], Durability::Buffered);
    assert!(all(&buffered, 1)[0].1.is_ok());
    assert!(durable.try_recv().is_err());
    stage.doors.sync.open();
    assert!(all(&durable, 1)[0].1.is_ok());
}

#[test]
fn what_is_offered_here_is_written_at_once_behind_what_came_before_it() {
    let stage = stage();
    stage.doors.sync.shut();
    let first = stage.submit([1], Durability::Durable);
    stage.doors.sync.await_stopped();
    // It waits for the sync under way, and is written by who comes next.
    let second = stage.submit([2], Durability::Durable);
    let (said, heard) = mpsc::channel();
    let offered =
        stage.hot.offer_here(put(3), Box::new(move |outcome| said.send(outcome).expect("it is heard")));
    offered.expect("there is room");
    assert_eq!(heard.try_recv().expect("it was told before the offer ended"), Ok(CommitNumber(2)));
    assert_eq!(stage.hot.written(), CommitNumber(2), "one write for both");
    assert!(first.try_recv().is_err() && second.try_recv().is_err(), "no sync has ended");
    stage.doors.sync.open();
    assert_eq!(all(&first, 1), [(1, Ok(CommitNumber(1)))]);
    assert_eq!(all(&second, 1), [(2, Ok(CommitNumber(2)))]);
}

#[test]
fn a_write_that_fails_here_ends_the_store_for_all() {
    let stage = stage();
    stage.disk.inject(Injection::FailWrite);
    let (said, heard) = mpsc::channel();
    let offered =
        stage.hot.offer_here(put(1), Box::new(move |outcome| said.send(outcome).expect("it is heard")));
    offered.expect("there is room");
    assert!(matches!(heard.recv_timeout(DEADLINE), Ok(Err(CommitError::Fault(_)))));
    stage.poison.recv_timeout(DEADLINE).expect("the process hears of it");
    assert!(matches!(stage.hot.submit(put(2), Durability::Durable, |_| ()), Err(Refusal::Poisoned(_))));
}

#[test]
fn completions_come_in_the_order_of_submission() {
    let stage = stage_with(HotSettings { max_group_bytes: 64, ..HotSettings::default() });
    let outcomes = all(&stage.submit(0..2000, Durability::Durable), 2000);
    assert_eq!(outcomes.iter().map(|(key, _)| *key).collect::<Vec<_>>(), (0..2000).collect::<Vec<_>>());
    let numbers: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome.expect("commits")).collect();
    assert!(numbers.is_sorted());
}

#[test]
fn what_was_told_durable_survives_a_power_cut() {
    let stage = stage();
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let hot = stage.hot.clone();
            thread::spawn(move || {
                (0..50).for_each(|n| {
                    block_on(hot.commit(put(caller * 100 + n), Durability::Durable)).expect("commits");
                })
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().expect("no caller panics"));
    let durable = stage.hot.durable();
    stage.disk.crash(&mut Seed::new(1).rng());
    let store = Store::open(MemoryEngine::open(&stage.disk)).expect("opens after a crash");
    assert!(store.durable() >= durable);
    let mut found = 0;
    store
        .scan(Family::Escrow, b"", |_, _| {
            found += 1;
            true
        })
        .expect("scans");
    assert_eq!(found, 400);
}

#[test]
fn a_failed_sync_ends_the_store_for_everyone() {
    let stage = stage();
    stage.doors.sync.shut();
    let first = stage.submit([1], Durability::Durable);
    stage.doors.sync.await_stopped();
    let rest = stage.submit(2..=20, Durability::Durable);
    stage.disk.inject(Injection::FailSync);
    stage.doors.sync.open();
    let fault = stage.poison.recv_timeout(DEADLINE).expect("the process is told to stop");
    let mut outcomes = all(&first, 1);
    outcomes.extend(all(&rest, 19));
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == Err(CommitError::Fault(fault.clone()))));
    assert_eq!(stage.hot.submit(put(9), Durability::Durable, |_| ()), Err(Refusal::Poisoned(fault.clone())));
    assert_eq!(stage.hot.get(Family::Escrow, b"k"), Err(fault.clone()));
    assert_eq!(stage.close(), Err(fault.clone()));
    assert_eq!(stage.hot.poisoned(), Some(fault));
    assert_eq!(stage.disk.syncs(), stage.syncs_before, "no sync was tried again");
    assert!(stage.poison.try_recv().is_err(), "told once");
}

#[test]
fn a_failed_write_ends_the_store_for_everyone() {
    let stage = stage();
    stage.disk.inject(Injection::Full);
    let outcomes = stage.submit([1], Durability::Durable);
    let fault = stage.poison.recv_timeout(DEADLINE).expect("the process is told to stop");
    assert_eq!(fault.cause, FaultCause::NoSpace);
    assert_eq!(all(&outcomes, 1), [(1, Err(CommitError::Fault(fault)))]);
}

#[test]
fn a_completion_that_panics_ends_the_store_and_leaves_nobody_waiting() {
    let stage = stage();
    stage.doors.sync.shut();
    let first = stage.submit([0], Durability::Durable);
    stage.doors.sync.await_stopped();
    stage.hot.submit(put(1), Durability::Durable, |_| panic!("a bug of the caller")).expect("there is room");
    let after = stage.submit([2], Durability::Durable);
    stage.doors.sync.open();
    assert!(all(&first, 1)[0].1.is_ok());
    assert!(all(&after, 1)[0].1.is_ok(), "it was made durable by the same sync");
    assert!(stage.poison.recv_timeout(DEADLINE).is_ok());
    assert!(stage.close().is_err());
}

#[test]
fn a_full_queue_refuses_and_drains() {
    let stage = stage_with(HotSettings { max_waiting: 4, ..HotSettings::default() });
    stage.doors.sync.shut();
    let outcomes = stage.submit(0..4, Durability::Durable);
    let refused = stage.hot.submit(put(9), Durability::Durable, |_| ());
    assert_eq!(refused, Err(Refusal::Full { retry_after: HotSettings::default().retry_after }));
    assert_eq!(stage.hot.stats().refused, 1);
    let (told, fate) = mpsc::channel();
    let done = Box::new(move |result: Result<_, _>| told.send(result.is_ok()).expect("heard"));
    let left = stage.hot.offer(put(9), Durability::Durable, done).expect_err("there is no room");
    assert_eq!((left.batch, refused), (put(9), Err(left.why)), "what is offered comes back");
    stage.doors.sync.open();
    all(&outcomes, 4);
    stage.hot.offer(put(9), Durability::Durable, left.done).expect("there is room");
    assert_eq!(fate.recv_timeout(DEADLINE), Ok(true), "and can be offered again");
    assert!(all(&stage.submit([9], Durability::Durable), 1)[0].1.is_ok());
    assert_eq!(stage.hot.stats().waiting, 0);
}

/// How long something small waits at the door whose caller has time.
fn waits(stage: &Stage) -> Result<Duration, Refusal> {
    stage.hot.door(1, DEADLINE).map(|let_in| let_in.wait)
}

#[test]
fn what_would_come_too_late_is_not_let_in_be_it_behind_what_waits_or_behind_what_is_inside() {
    let stage = stage();
    let little = Duration::from_millis(100);
    let is_late = |within| matches!(stage.hot.door(1, within), Err(Refusal::Late { .. }));
    assert!(!is_late(Duration::ZERO), "nothing waits");
    stage.doors.sync.shut();
    let outcomes = stage.submit([1], Durability::Durable);
    stage.doors.sync.await_stopped();
    eventually("the sync lasts", || is_late(little));
    assert!(!is_late(DEADLINE * 1_000), "who has time is let in");
    stage.doors.sync.open();
    assert!(all(&outcomes, 1)[0].1.is_ok());
    eventually("nothing waits", || stage.hot.stats().waiting == 0);

    let first = stage.hot.door(1, little).expect("a disk that was slow is tried again");
    assert!(is_late(little), "it is behind the first one, which has brought nothing yet");
    drop(first);
    assert!(!is_late(little), "that has ended");
}

#[test]
fn pressure_is_felt_and_forgotten() {
    let stage = stage_with(HotSettings { pressure_age: Duration::from_millis(1), ..HotSettings::default() });
    stage.disk.press(Pressure::Orange);
    eventually("the pressure is seen", || stage.hot.stats().pressure == Pressure::Orange);
    let refused = stage.hot.submit(put(1), Durability::Buffered, |_| ());
    assert!(matches!(refused, Err(Refusal::Pressed { level: Pressure::Orange, .. })));
    assert!(matches!(waits(&stage), Err(Refusal::Pressed { level: Pressure::Orange, .. })), "nothing new");
    assert!(all(&stage.submit([1], Durability::Durable), 1)[0].1.is_ok());
    let (said, heard) = mpsc::channel();
    stage
        .hot
        .offer_here(put(3), Box::new(move |done| said.send(done.is_ok()).expect("somebody waits")))
        .expect("what comes of it");
    assert_eq!(heard.recv_timeout(DEADLINE), Ok(true));
    stage.disk.press(Pressure::Yellow);
    eventually("it is slowed down", || waits(&stage) == Ok(HotSettings::default().slow_by));
    stage.disk.press(Pressure::Green);
    eventually("the pressure is gone", || stage.hot.stats().pressure == Pressure::Green);
    assert_eq!(waits(&stage), Ok(Duration::ZERO));
    assert!(all(&stage.submit([2], Durability::Buffered), 1)[0].1.is_ok());
}

#[test]
fn a_fenced_caller_is_told_and_the_others_go_on() {
    let stage = stage();
    let fenced = |epoch| {
        let mut batch = put(epoch as u32);
        batch.fence(b"range", Epoch(epoch));
        block_on(stage.hot.commit(batch, Durability::Durable))
    };
    assert!(fenced(2).is_ok());
    let expected = Fenced { key: b"range".to_vec(), given: Epoch(1), known: Epoch(2) };
    assert_eq!(fenced(1), Err(CommitError::Fenced(expected)));
    assert!(fenced(3).is_ok());
    assert_eq!((stage.hot.stats().fenced, stage.hot.stats().batches), (1, 2));
}

#[test]
fn closing_finishes_what_was_taken_and_records_it() {
    let stage = stage();
    stage.doors.sync.shut();
    let outcomes = stage.submit(0..10, Durability::Durable);
    stage.doors.sync.await_stopped();
    let closer = {
        let hot = stage.hot.clone();
        thread::spawn(move || hot.close(DEADLINE))
    };
    eventually("closing has begun", || {
        stage.hot.submit(put(99), Durability::Durable, |_| ()) == Err(Refusal::Closed)
    });
    stage.doors.sync.open();
    let last = closer.join().expect("closing does not panic").expect("closes");
    assert!(all(&outcomes, 10).iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(stage.close(), Ok(last), "closing again gives the same answer");
    stage.disk.crash(&mut Seed::new(1).rng());
    let store = Store::open(MemoryEngine::open(&stage.disk)).expect("opens after a crash");
    assert_eq!(store.written(), last);
    let record = store.get(Family::Meta, keys::COMMIT).expect("reads").expect("is written");
    let record = crate::commit::CommitRecord::decode(&record).expect("is whole");
    assert_eq!(record.durable.next(), last, "the log says that all before it is durable");
}

#[test]
fn closing_in_vain_says_so() {
    let stage = stage();
    stage.doors.sync.shut();
    let outcomes = stage.submit([1], Durability::Durable);
    let fault = stage.hot.close(Duration::from_millis(1)).expect_err("the disk hangs");
    assert!(fault.to_string().contains("in time"), "{fault}");
    stage.doors.sync.open();
    assert!(all(&outcomes, 1)[0].1.is_ok());
}

#[test]
fn the_last_handle_takes_the_threads_with_it() {
    let stage = stage();
    let doors = Arc::clone(&stage.doors);
    let outcomes = stage.submit([1], Durability::Durable);
    let other = stage.hot.clone();
    drop(stage);
    assert!(block_on(other.commit(put(2), Durability::Durable)).is_ok(), "one handle is left");
    drop(other);
    assert!(all(&outcomes, 1)[0].1.is_ok());
    eventually("the engine is let go", || Arc::strong_count(&doors) == 1);
}

#[test]
fn a_condemned_store_acknowledges_nothing_more_and_says_why() {
    let stage = stage();
    stage.doors.sync.shut();
    let outcomes = stage.submit([1], Durability::Durable);
    stage.doors.sync.await_stopped();
    let gone = StorageFault::new(FaultCause::Missing, "keep the data directory", "it was removed");
    stage.hot.condemn(gone.clone());
    assert_eq!(all(&outcomes, 1)[0].1, Err(gone.clone().into()), "although its sync has begun");
    stage.doors.sync.open();
    assert!(stage.hot.submit(put(2), Durability::Durable, |_| ()).is_err());
    assert_eq!(stage.hot.poisoned(), Some(gone.clone()));
    assert_eq!(stage.close(), Err(gone));
}
