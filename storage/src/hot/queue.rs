//! What waits to be committed: a bounded queue, and the rule of who is refused. No threads in here.

use std::collections::VecDeque;

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

/// Everything taken and not yet completed, in order.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) unwritten: VecDeque<Waiting>,
    pub(super) unsynced: VecDeque<Written>,
    pub(super) closing: bool,
    pub(super) pressure: Pressure,
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
    /// under *orange* only durable batches pass, under *red* none.
    pub(super) fn admit(
        &self,
        settings: &HotSettings,
        bytes: usize,
        durability: Durability,
    ) -> Result<(), Refusal> {
        let &HotSettings { max_waiting, max_waiting_bytes, retry_after, .. } = settings;
        if self.closing {
            return Err(Refusal::Closed);
        }
        if bytes > max_waiting_bytes {
            return Err(Refusal::TooLarge { bytes, limit: max_waiting_bytes });
        }
        let pressed = match self.pressure {
            Pressure::Green | Pressure::Yellow => false,
            Pressure::Orange => durability == Durability::Buffered,
            Pressure::Red => true,
        };
        if pressed {
            return Err(Refusal::Pressed { level: self.pressure, retry_after });
        }
        let share = if self.pressure == Pressure::Green { 1 } else { 4 };
        let full = self.outstanding >= max_waiting.div_ceil(share)
            || (self.outstanding > 0 && self.outstanding_bytes + bytes > max_waiting_bytes / share);
        if full { Err(Refusal::Full { retry_after }) } else { Ok(()) }
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.outstanding += 1;
        self.outstanding_bytes += waiting.batch.bytes();
        self.unwritten.push_back(waiting);
    }

    /// Takes what becomes one write: everything, up to a bound of bytes, and at least one batch.
    pub(super) fn drain(&mut self, max_bytes: usize) -> Vec<Waiting> {
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(next) = self.unwritten.front() {
            bytes += next.batch.bytes();
            if bytes > max_bytes && !group.is_empty() {
                break;
            }
            group.extend(self.unwritten.pop_front());
        }
        group
    }

    /// A batch of so many bytes was completed.
    pub(super) fn completed(&mut self, bytes: usize) {
        self.outstanding -= 1;
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

    fn settings() -> HotSettings {
        HotSettings { max_waiting: 8, max_waiting_bytes: 100, ..HotSettings::default() }
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
        assert_eq!(queue.admit(&settings(), 1, Durability::Durable), Err(full.clone()), "by number");
        let group = queue.drain(usize::MAX);
        assert_eq!(queue.admit(&settings(), 1, Durability::Durable), Err(full.clone()), "still not complete");
        group.iter().for_each(|w| queue.completed(w.batch.bytes()));
        assert_eq!(queue.admit(&settings(), 100, Durability::Durable), Ok(()));
        queue.push(waiting(60));
        assert_eq!(queue.admit(&settings(), 41, Durability::Durable), Err(full), "by bytes");
        assert_eq!(queue.admit(&settings(), 40, Durability::Durable), Ok(()));
        let too_large = Refusal::TooLarge { bytes: 101, limit: 100 };
        assert_eq!(queue.admit(&settings(), 101, Durability::Durable), Err(too_large));
    }

    #[test]
    fn each_level_of_pressure_refuses_more() {
        let mut queue = Queue::default();
        (0..2).for_each(|_| queue.push(waiting(1)));
        let mut admitted = |pressure| {
            queue.pressure = pressure;
            [Durability::Durable, Durability::Buffered].map(|d| queue.admit(&settings(), 1, d).is_ok())
        };
        assert_eq!(admitted(Pressure::Green), [true, true]);
        assert_eq!(admitted(Pressure::Yellow), [false, false], "2 wait, a quarter of 8 may");
        queue.drain(usize::MAX).iter().for_each(|w| queue.completed(w.batch.bytes()));
        let mut admitted = |pressure| {
            queue.pressure = pressure;
            [Durability::Durable, Durability::Buffered].map(|d| queue.admit(&settings(), 1, d).is_ok())
        };
        assert_eq!(admitted(Pressure::Yellow), [true, true]);
        assert_eq!(admitted(Pressure::Orange), [true, false]);
        assert_eq!(admitted(Pressure::Red), [false, false]);
    }

    #[test]
    fn a_write_takes_everything_up_to_its_bound_and_at_least_one() {
        let mut queue = Queue::default();
        [30, 30, 30].into_iter().for_each(|bytes| queue.push(waiting(bytes)));
        assert_eq!(queue.drain(60).len(), 2);
        assert_eq!(queue.drain(1).len(), 1);
        assert!(queue.drain(60).is_empty());
    }
}
