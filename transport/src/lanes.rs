//! Which lane a message takes, and what waits on one.
//!
//! * It decides: the lane of a pair (always the same, so that the pair's order holds), the pair of a call whose
//!   order matters to nobody, and when a lane is full.
//! * It never does: write, or look into what waits.
//! * Invariant: what waits is bounded in number and in bytes. Answers are not counted in number (there
//!   are never more than calls that were let in), and a fault has room beyond the bounds: a caller is
//!   told. Only a peer that asks and does not read comes to the end of that room ([`MAX_FAULTS`]).

use std::collections::VecDeque;

/// The lane of a pair of sender and receiver. `pair` may be any number that is equal for messages
/// whose order matters.
#[must_use]
pub fn lane_of(pair: u64, lanes: u16) -> usize {
    // The finalizer of SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers spread.
    let mut x = pair.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) % u64::from(lanes.max(1))) as usize
}

/// Calls whose order matters to nobody that take one lane together at most.
const TOGETHER: usize = 64;

/// A pair for a call whose order matters to nobody: the last such pair for as long as something waits on its
/// lane, so that calls which are made together leave, arrive and are answered together; then another, so that
/// what one lost packet holds up is no more than that.
#[must_use]
pub fn any_pair(last: u64, waiting: usize) -> u64 {
    if (1..TOGETHER).contains(&waiting) { last } else { last.wrapping_add(1) }
}

/// What a waiting item is, as far as bounds go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// A call: bounded in number and bytes.
    Call,
    /// An answer: bounded in bytes.
    Answer,
    /// A fault: has room of its own.
    Fault,
}

/// Faults that wait on one lane at most. Who has so many unread has long stopped reading.
pub const MAX_FAULTS: usize = 16_384;

/// Why an item was not taken. It is given back.
#[derive(Debug, PartialEq, Eq)]
pub enum NotQueued<T> {
    /// The lane is full.
    Full(T),
    /// The lane takes no more.
    Closed(T),
}

impl<T> NotQueued<T> {
    /// The reason alone.
    #[must_use]
    pub fn without(self) -> NotQueued<()> {
        match self {
            Self::Full(_) => NotQueued::Full(()),
            Self::Closed(_) => NotQueued::Closed(()),
        }
    }
}

/// What waits to be written on one lane.
#[derive(Debug)]
pub struct LaneQueue<T> {
    items: VecDeque<(T, usize, Weight)>,
    bytes: usize,
    calls: usize,
    faults: usize,
    capacity: usize,
    capacity_bytes: usize,
    closed: bool,
}

impl<T> LaneQueue<T> {
    /// Room for so many calls and so many bytes.
    #[must_use]
    pub fn new(capacity: usize, capacity_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            calls: 0,
            faults: 0,
            capacity,
            capacity_bytes,
            closed: false,
        }
    }

    /// Appends an item of so many bytes.
    ///
    /// # Errors
    /// [`NotQueued`], with the item.
    pub fn push(&mut self, item: T, bytes: usize, weight: Weight) -> Result<(), NotQueued<T>> {
        if self.closed {
            return Err(NotQueued::Closed(item));
        }
        // One item always fits into an empty lane, however the bounds are set.
        let over_bytes = self.bytes > 0 && self.bytes + bytes > self.capacity_bytes;
        let full = match weight {
            Weight::Call => over_bytes || self.calls >= self.capacity,
            Weight::Answer => over_bytes,
            Weight::Fault => self.faults >= MAX_FAULTS,
        };
        if full {
            return Err(NotQueued::Full(item));
        }
        self.bytes += bytes;
        self.calls += usize::from(weight == Weight::Call);
        self.faults += usize::from(weight == Weight::Fault);
        self.items.push_back((item, bytes, weight));
        Ok(())
    }

    /// What was appended last, if it waits still.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.items.back().map(|(item, ..)| item)
    }

    /// Takes a batch out, in order, up to about so many bytes and at least one item.
    pub fn take(&mut self, max_bytes: usize, out: &mut Vec<T>) {
        let mut taken = 0;
        while taken < max_bytes {
            let Some((item, bytes, weight)) = self.items.pop_front() else { break };
            taken += bytes;
            self.bytes -= bytes;
            self.calls -= usize::from(weight == Weight::Call);
            self.faults -= usize::from(weight == Weight::Fault);
            out.push(item);
        }
    }

    /// Takes no more; what waits is still written.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// How many bytes wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it takes no more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_faults_that_nobody_reads() {
        let mut queue = LaneQueue::new(1, 1000);
        for _ in 0..MAX_FAULTS {
            queue.push((), 100, Weight::Fault).expect("a caller is told");
        }
        assert_eq!(queue.push((), 100, Weight::Fault), Err(NotQueued::Full(())));
        queue.take(1, &mut Vec::new());
        queue.push((), 100, Weight::Fault).expect("one was written");
    }

    #[test]
    fn a_pair_keeps_its_lane_and_pairs_spread_over_all() {
        let mut used = [0u32; 8];
        for pair in 0..800 {
            assert_eq!(lane_of(pair, 8), lane_of(pair, 8));
            used[lane_of(pair, 8)] += 1;
        }
        assert!(used.iter().all(|count| (60..=140).contains(count)), "{used:?}");
    }

    #[test]
    fn the_lane_of_a_pair_never_changes_between_versions() {
        // Both sides of a rolling upgrade must agree on nothing here, but a test that replays must.
        assert_eq!([lane_of(0, 8), lane_of(1, 8), lane_of(2, 8), lane_of(3, 8)], [7, 1, 6, 5]);
    }

    #[test]
    fn calls_made_together_share_a_pair_until_they_are_written_or_many() {
        let mut pair = 0;
        let pairs: Vec<_> = (0..2 * TOGETHER as u64)
            .map(|waiting| {
                pair = any_pair(pair, waiting as usize % TOGETHER);
                pair
            })
            .collect();
        assert_eq!(pairs, [[1; TOGETHER], [2; TOGETHER]].concat());
        assert_eq!([any_pair(7, 0), any_pair(7, 1), any_pair(7, TOGETHER)], [8, 7, 8]);
    }

    #[test]
    fn items_leave_in_order_in_batches_of_about_so_many_bytes() {
        let mut queue = LaneQueue::new(10, 1000);
        for item in 0..5 {
            queue.push(item, 100, Weight::Call).expect("room");
        }
        let mut out = Vec::new();
        queue.take(250, &mut out);
        assert_eq!(out, [0, 1, 2]);
        assert_eq!((queue.len(), queue.bytes()), (2, 200));
        queue.take(1000, &mut out);
        assert_eq!(out, [0, 1, 2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn calls_are_bounded_in_number_and_in_bytes() {
        let mut queue = LaneQueue::new(2, 1000);
        queue.push("a", 1, Weight::Call).expect("room");
        queue.push("b", 1, Weight::Call).expect("room");
        assert_eq!(queue.push("c", 1, Weight::Call), Err(NotQueued::Full("c")));
        queue.take(1, &mut Vec::new());
        queue.push("d", 1, Weight::Call).expect("one left");
        let mut queue = LaneQueue::new(100, 1000);
        queue.push("larger than the bound", 5000, Weight::Call).expect("an empty lane takes one");
        assert_eq!(queue.push("e", 1, Weight::Call), Err(NotQueued::Full("e")));
    }

    #[test]
    fn a_fault_has_room_where_an_answer_has_none() {
        let mut queue = LaneQueue::new(1, 1000);
        queue.push("a", 1000, Weight::Call).expect("room");
        assert_eq!(queue.push("answer", 10, Weight::Answer), Err(NotQueued::Full("answer")));
        queue.push("fault", 10, Weight::Fault).expect("a caller is told");
    }

    #[test]
    fn a_closed_lane_takes_no_more_but_gives_what_it_has() {
        let mut queue = LaneQueue::new(10, 1000);
        queue.push("a", 1, Weight::Call).expect("room");
        queue.close();
        assert_eq!(queue.push("b", 1, Weight::Fault), Err(NotQueued::Closed("b")));
        let mut out = Vec::new();
        queue.take(10, &mut out);
        assert_eq!(out, ["a"]);
    }
}
