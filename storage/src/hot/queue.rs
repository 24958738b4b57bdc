//! What waits to be committed: a bounded queue, and the rule of who is refused. No threads in here.

use std::collections::VecDeque;
use std::time::Duration;

use super::pace::{Load, Pace, too_late};
use super::{CommitError, Durability, HotSettings, Refusal};
use crate::batch::Batch;
use crate::commit::CommitNumber;
use crate::engine::Pressure;

/// Hears of a batch's fate, once.
pub type Done = Box<dyn FnOnce(Result<CommitNumber, CommitError>) + Send>;

/// A batch that was taken.
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) durability: Durability,
    pub(super) done: Done,
}

/// A batch that was written and waits for a sync.
pub(super) struct Written {
    pub(super) number: CommitNumber,
    pub(super) bytes: usize,
    pub(super) done: Done,
}

/// What wants to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comes {
    /// A batch that whoever brings it can do without.
    Anew(Durability),
    /// What comes of work that was let in, and cannot be refused in the midst of it.
    Begun,
    /// As that, brought by who writes it at once if nobody else is writing, and wants no sync.
    Here,
}

impl Comes {
    fn is_begun(self) -> bool {
        matches!(self, Self::Begun | Self::Here)
    }
}

/// Bytes that wait while a sync is under way from which on they are written meanwhile.
const OVERLAP_BYTES: usize = 64 << 10;

/// What a thread of the store is to do.
pub(super) enum Task {
    /// Write these as one commit.
    Write(Vec<Waiting>),
    /// Sync all that was written.
    Sync,
    /// Nothing more comes: have the log say that all of it is durable.
    Close,
}

/// Everything taken and not yet completed, in order; and who does something about it.
#[derive(Default)]
pub(super) struct Queue {
    unwritten: VecDeque<Waiting>,
    unwritten_bytes: usize,
    /// How many of the unwritten want no sync.
    unwritten_buffered: usize,
    unsynced: VecDeque<Written>,
    writing: bool,
    syncing: bool,
    pub(super) closing: bool,
    /// The last task was given out.
    pub(super) closed: bool,
    /// A thread was woken, and has not looked yet.
    pub(super) called: bool,
    /// A thread sees to it that the pressure is asked for, although nothing is done.
    pub(super) watched: bool,
    pub(super) pressure: Pressure,
    pace: Pace,
    /// Of all batches taken and not yet completed.
    outstanding: usize,
    outstanding_bytes: usize,
}

impl Queue {
    /// An empty queue before an engine that is pressed like this.
    pub(super) fn under(pressure: Pressure) -> Self {
        Self { pressure, ..Self::default() }
    }

    /// Whether a batch of so many bytes is taken now. Under *yellow* the queue is a quarter as long,
    /// under *orange* only durable batches pass, under *red* none. What was begun passes up to *red*, and has the whole queue: what
    /// comes anew leaves three quarters of it free. What is written at once by who brings it needs no room.
    pub(super) fn admit(&self, settings: &HotSettings, bytes: usize, comes: Comes) -> Result<(), Refusal> {
        let &HotSettings { max_waiting, max_waiting_bytes, retry_after, .. } = settings;
        if self.closing {
            return Err(Refusal::Closed);
        }
        if bytes > max_waiting_bytes {
            return Err(Refusal::TooLarge { bytes, limit: max_waiting_bytes });
        }
        let pressed = match self.pressure {
            Pressure::Green | Pressure::Yellow => false,
            Pressure::Orange => comes == Comes::Anew(Durability::Buffered),
            Pressure::Red => true,
        };
        if pressed {
            return Err(Refusal::Pressed { level: self.pressure, retry_after });
        }
        let share = if self.pressure == Pressure::Green || comes.is_begun() { 1 } else { 4 };
        let full = self.outstanding >= max_waiting.div_ceil(share)
            || (self.outstanding > 0 && self.outstanding_bytes + bytes > max_waiting_bytes / share);
        // It is gone from the queue in a moment, and does not wait for a sync to make room.
        let at_once = comes == Comes::Here
            && !self.writing
            && self.unwritten_bytes.saturating_add(bytes) <= settings.max_group_bytes;
        if full && !at_once { Err(Refusal::Full { retry_after }) } else { Ok(()) }
    }

    /// What work of so many bytes meets that nobody has begun yet, whose caller has so much time: it can still be refused, other
    /// than what comes of it later. `inside` was let in before, and has not ended. Under *yellow* it is slowed down, under *orange*
    /// refused; and always where it would not be done in time.
    pub(super) fn door(
        &self,
        settings: &HotSettings,
        bytes: usize,
        inside: Load,
        (now, within): (Duration, Duration),
    ) -> Result<Duration, Refusal> {
        self.admit(settings, bytes, Comes::Anew(Durability::Buffered))?;
        let taken = Load { batches: self.outstanding, bytes: self.outstanding_bytes };
        if let Some(takes) = too_late(&self.pace, settings, (taken, inside), bytes, (now, within)) {
            return Err(Refusal::Late { takes, retry_after: settings.retry_after });
        }
        Ok(if self.pressure == Pressure::Green { Duration::ZERO } else { settings.slow_by })
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.outstanding += 1;
        self.outstanding_bytes += waiting.batch.bytes();
        self.unwritten_bytes += waiting.batch.bytes();
        self.unwritten_buffered += usize::from(waiting.durability == Durability::Buffered);
        self.unwritten.push_back(waiting);
    }

    /// Whether there is something to do that nobody does.
    pub(super) fn has_task(&self) -> bool {
        self.is_to_write() || self.is_to_sync() || self.is_over()
    }

    /// Gives out what is to be done next.
    pub(super) fn next(&mut self, max_bytes: usize, now: Duration) -> Option<Task> {
        if self.is_to_write() {
            self.writing = true;
            self.pace.begins(now);
            Some(Task::Write(self.drain(max_bytes)))
        } else if self.is_to_sync() {
            self.syncing = true;
            self.pace.begins(now);
            Some(Task::Sync)
        } else if self.is_over() {
            self.closed = true;
            Some(Task::Close)
        } else {
            None
        }
    }

    /// Gives out what waits to who has just brought something that wants no sync, if nobody is writing: his is in it, or
    /// behind more than one write takes.
    pub(super) fn write_here(&mut self, max_bytes: usize, now: Duration) -> Option<Vec<Waiting>> {
        if self.writing || self.unwritten.is_empty() {
            return None;
        }
        self.writing = true;
        self.pace.begins(now);
        Some(self.drain(max_bytes))
    }

    /// What comes while a sync is under way is written when that has ended, in one piece, by who syncs it:
    /// written piece by piece it would not be durable any sooner. Unless it is so much that writing it takes
    /// long, or somebody waits for no sync.
    fn is_to_write(&self) -> bool {
        let now = if self.syncing {
            self.unwritten_bytes >= OVERLAP_BYTES || self.unwritten_buffered > 0
        } else {
            self.unsynced.is_empty()
        };
        now && !self.writing && !self.unwritten.is_empty()
    }

    fn is_to_sync(&self) -> bool {
        !self.syncing && !self.unsynced.is_empty()
    }

    fn is_over(&self) -> bool {
        let idle = !self.writing && !self.syncing && self.unwritten.is_empty() && self.unsynced.is_empty();
        self.closing && !self.closed && idle
    }

    /// Takes what becomes one write: everything, up to a bound of bytes, and at least one batch.
    fn drain(&mut self, max_bytes: usize) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut group = Vec::with_capacity(self.unwritten.len());
        while let Some(next) = self.unwritten.front() {
            if bytes + next.batch.bytes() > max_bytes && !group.is_empty() {
                break;
            }
            bytes += next.batch.bytes();
            self.unwritten_buffered -= usize::from(next.durability == Durability::Buffered);
            group.extend(self.unwritten.pop_front());
        }
        self.unwritten_bytes -= bytes;
        group
    }

    /// A write has ended; these wait for a sync now.
    pub(super) fn written(&mut self, durable: Vec<Written>) {
        self.writing = false;
        self.unsynced.extend(durable);
        if !self.syncing && self.unsynced.is_empty() {
            self.pace.rests();
        }
    }

    /// What is durable, since everything up to this commit is.
    pub(super) fn covered(&mut self, number: CommitNumber) -> Vec<Written> {
        let count = self.unsynced.partition_point(|written| written.number <= number);
        self.unsynced.drain(..count).collect()
    }

    /// A sync has ended, and everybody was told.
    pub(super) fn synced(&mut self, now: Duration) {
        self.syncing = false;
        self.pace.ends(now, self.writing || !self.unsynced.is_empty() || !self.unwritten.is_empty());
    }

    /// Everything that waits, in order.
    pub(super) fn take(&mut self) -> (VecDeque<Written>, VecDeque<Waiting>) {
        (self.unwritten_bytes, self.unwritten_buffered) = (0, 0);
        (std::mem::take(&mut self.unsynced), std::mem::take(&mut self.unwritten))
    }

    /// So many batches of so many bytes were completed.
    pub(super) fn completed(&mut self, batches: usize, bytes: usize) {
        self.outstanding -= batches;
        self.outstanding_bytes -= bytes;
    }

    pub(super) fn outstanding(&self) -> (usize, usize) {
        (self.outstanding, self.outstanding_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;

    const DURABLE: Comes = Comes::Anew(Durability::Durable);
    const ALL: [Comes; 3] = [DURABLE, Comes::Anew(Durability::Buffered), Comes::Begun];

    fn settings() -> HotSettings {
        HotSettings { max_waiting: 8, max_waiting_bytes: 100, ..HotSettings::default() }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn waiting(bytes: usize) -> Waiting {
        let mut batch = Batch::new();
        batch.put(Family::Escrow, "k", vec![0; bytes - 1]);
        Waiting { batch, durability: Durability::Durable, done: Box::new(|_| ()) }
    }

    #[test]
    fn what_was_completed_makes_room() {
        let mut queue = Queue::default();
        (0..8).for_each(|_| queue.push(waiting(10)));
        let full = Refusal::Full { retry_after: settings().retry_after };
        assert_eq!(queue.admit(&settings(), 1, DURABLE), Err(full.clone()), "by number");
        let group = queue.drain(usize::MAX);
        assert_eq!(queue.admit(&settings(), 1, DURABLE), Err(full.clone()), "still not complete");
        group.iter().for_each(|w| queue.completed(1, w.batch.bytes()));
        assert_eq!(queue.admit(&settings(), 100, DURABLE), Ok(()));
        queue.push(waiting(60));
        assert_eq!(queue.admit(&settings(), 41, DURABLE), Err(full), "by bytes");
        assert_eq!(queue.admit(&settings(), 40, DURABLE), Ok(()));
        let too_large = Refusal::TooLarge { bytes: 101, limit: 100 };
        assert_eq!(queue.admit(&settings(), 101, DURABLE), Err(too_large));
    }

    #[test]
    fn each_level_of_pressure_refuses_more() {
        let mut queue = Queue::default();
        (0..2).for_each(|_| queue.push(waiting(1)));
        let mut admitted = |pressure| {
            queue.pressure = pressure;
            ALL.map(|comes| queue.admit(&settings(), 1, comes).is_ok())
        };
        assert_eq!(admitted(Pressure::Green), [true, true, true]);
        assert_eq!(admitted(Pressure::Yellow), [false, false, true], "2 wait, a quarter of 8 may");
        assert_eq!(admitted(Pressure::Orange), [false, false, true]);
        queue.drain(usize::MAX).iter().for_each(|w| queue.completed(1, w.batch.bytes()));
        let mut admitted = |pressure| {
            queue.pressure = pressure;
            ALL.map(|comes| queue.admit(&settings(), 1, comes).is_ok())
        };
        assert_eq!(admitted(Pressure::Yellow), [true, true, true]);
        assert_eq!(admitted(Pressure::Orange), [true, false, true]);
        assert_eq!(admitted(Pressure::Red), [false, false, false]);
    }

    #[test]
    fn what_comes_during_a_sync_is_written_after_it_unless_it_is_much_or_wants_none() {
        let mut queue = Queue::default();
        let is_write =
            |task: Option<Task>, many| matches!(task, Some(Task::Write(group)) if group.len() == many);
        let is_sync = |task: Option<Task>| matches!(task, Some(Task::Sync));
        let written = |queue: &mut Queue, number| {
            queue.written(vec![Written { number: CommitNumber(number), bytes: 10, done: Box::new(|_| ()) }]);
        };
        queue.push(waiting(10));
        assert!(
            is_write(queue.next(usize::MAX, ms(0)), 1) && queue.next(usize::MAX, ms(0)).is_none(),
            "one writes"
        );
        written(&mut queue, 1);
        queue.push(waiting(OVERLAP_BYTES - 1));
        assert!(is_sync(queue.next(usize::MAX, ms(0))), "what is written is synced before more is");
        assert!(!queue.has_task(), "it waits for the sync");
        queue.push(waiting(1));
        assert!(is_write(queue.next(usize::MAX, ms(0)), 2), "now it is much");
        written(&mut queue, 2);
        queue.push(Waiting { durability: Durability::Buffered, ..waiting(1) });
        assert!(is_write(queue.next(usize::MAX, ms(0)), 1), "it wants no sync");
        queue.written(Vec::new());
        assert!(queue.next(usize::MAX, ms(0)).is_none(), "one syncs");
        assert_eq!(queue.covered(CommitNumber(1)).len(), 1);
        queue.synced(ms(0));
        assert!(is_sync(queue.next(usize::MAX, ms(0))));
        assert_eq!(queue.covered(CommitNumber(2)).len(), 1);
        queue.closing = true;
        assert!(queue.next(usize::MAX, ms(0)).is_none(), "not before the sync has ended");
        queue.synced(ms(0));
        assert!(
            matches!(queue.next(usize::MAX, ms(0)), Some(Task::Close))
                && queue.next(usize::MAX, ms(0)).is_none()
        );
    }

    #[test]
    fn a_write_takes_everything_up_to_its_bound_and_at_least_one() {
        let mut queue = Queue::default();
        [30, 30, 30].into_iter().for_each(|bytes| queue.push(waiting(bytes)));
        assert_eq!(queue.drain(60).len(), 2);
        assert_eq!(queue.drain(1).len(), 1);
        assert!(queue.drain(60).is_empty());
    }

    /// What something of one byte meets at the door, with nothing inside, whose caller has a second.
    fn at_the_door(queue: &Queue, now: u64) -> Result<Duration, Refusal> {
        let settings = HotSettings { max_group_bytes: 10, ..settings() };
        queue.door(&settings, 1, Load::default(), (ms(now), ms(1_000)))
    }

    fn late(takes: u64) -> Result<Duration, Refusal> {
        Err(Refusal::Late { takes: ms(takes), retry_after: settings().retry_after })
    }

    #[test]
    fn the_door_is_shut_while_what_waits_takes_too_long_and_open_where_nothing_does() {
        let mut queue = Queue::default();
        assert_eq!(at_the_door(&queue, 0), Ok(Duration::ZERO));
        queue.push(waiting(10));
        assert_eq!(queue.next(usize::MAX, ms(100)).map(drop), Some(()));
        assert_eq!(
            at_the_door(&queue, 266),
            Ok(Duration::ZERO),
            "3 turns of 166 ms: it, what waits and what comes"
        );
        assert_eq!(at_the_door(&queue, 267), late(501), "a write that lasts");
        let written = Written { number: CommitNumber(1), bytes: 10, done: Box::new(|_| ()) };
        queue.written(vec![written]);
        assert_eq!(queue.next(usize::MAX, ms(300)).map(drop), Some(()));
        assert_eq!(at_the_door(&queue, 400), late(900), "the sync of what was written before");
        queue.push(waiting(10));
        queue.covered(CommitNumber(1)).iter().for_each(|written| queue.completed(1, written.bytes));
        queue.synced(ms(500));
        assert_eq!(at_the_door(&queue, 500), late(1_200), "as long as the last one");
        queue.drain(usize::MAX).iter().for_each(|gone| queue.completed(1, gone.batch.bytes()));
        assert_eq!(at_the_door(&queue, 500), Ok(Duration::ZERO), "nothing waits");
    }

    #[test]
    fn what_wants_no_sync_is_no_turn_of_the_disk() {
        let mut queue = Queue::default();
        queue.push(Waiting { durability: Durability::Buffered, ..waiting(10) });
        let group = queue.write_here(usize::MAX, ms(0)).unwrap_or_default();
        assert_eq!(group.len(), 1);
        assert_eq!(at_the_door(&queue, 200), late(600), "it lasts");
        group.iter().for_each(|gone| queue.completed(1, gone.batch.bytes()));
        queue.written(Vec::new());
        queue.push(waiting(10));
        assert_eq!(at_the_door(&queue, 900), Ok(Duration::ZERO), "it is over");
    }

    #[test]
    fn what_is_written_at_once_needs_no_room_unless_somebody_writes_or_it_is_more_than_one_write() {
        let settings = HotSettings { max_group_bytes: 30, ..settings() };
        let mut queue = Queue::default();
        (0..8).for_each(|_| queue.push(waiting(1)));
        let full = Err(Refusal::Full { retry_after: settings.retry_after });
        assert_eq!(queue.admit(&settings, 1, Comes::Begun), full, "it waits for a sync");
        assert_eq!(queue.admit(&settings, 22, Comes::Here), Ok(()));
        assert_eq!(queue.admit(&settings, 23, Comes::Here), full, "not all of it would be written");
        queue.writing = true;
        assert_eq!(queue.admit(&settings, 1, Comes::Here), full, "it is not written at once");
    }
}
