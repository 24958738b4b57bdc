//! The heap of timed events: what happens next in the simulated world.
//!
//! * It decides: the order of events (by time, then by the order in which they were put in).
//! * It never does: look at a clock of the machine it runs on.
//! * Invariant: time never goes back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// True time of the simulated world, in microseconds since it began. No node can see it.
pub type Micros = u64;

/// One millisecond.
pub const MS: Micros = 1_000;
/// One second.
pub const SECOND: Micros = 1_000 * MS;

/// What is to happen, by time. The heap holds small entries; the events lie still in `slots`.
#[derive(Debug)]
pub struct Agenda<E> {
    heap: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    put: u64,
    now: Micros,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), put: 0, now: 0 }
    }
}

impl<E> Agenda<E> {
    /// Puts an event in, at this time or, if that is past, now.
    pub fn at(&mut self, when: Micros, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2³² events wait")
            }
        };
        self.put += 1;
        self.heap.push(Reverse((when.max(self.now), self.put, slot)));
    }

    /// Puts an event in, so long from now.
    pub fn after(&mut self, wait: Micros, event: E) {
        self.at(self.now.saturating_add(wait), event);
    }

    /// The next event. The time becomes its time.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((when, _, slot)) = self.heap.pop()?;
        self.now = when;
        self.free.push(slot);
        Some(self.slots[slot as usize].take().expect("each entry of the heap has its event"))
    }

    /// The present time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_in_the_order_they_were_put_in() {
        let mut agenda = Agenda::default();
        agenda.at(5, "c");
        agenda.at(2, "a");
        agenda.at(5, "d");
        agenda.at(2, "b");
        let first: Vec<_> = std::iter::from_fn(|| agenda.pop()).take(3).collect();
        assert_eq!((first, agenda.now()), (vec!["a", "b", "c"], 5));
        agenda.at(1, "late");
        assert_eq!((agenda.pop(), agenda.pop(), agenda.now()), (Some("d"), Some("late"), 5));
        assert_eq!(agenda.pop(), None);
    }
}
