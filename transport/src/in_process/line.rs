//! What is on its way in one direction of a connection.
//!
//! * It decides: when an item arrives, and whether a lane may send more.
//! * It never does: look into an item, or know what time it is.
//! * Invariant: items of one lane arrive in the order in which they were sent, whatever delays were set
//!   meanwhile; those that arrive at the same time do so in the order in which they were sent.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rhumb_core::Mono;

/// Items of type `T` on their way.
#[derive(Debug)]
pub(crate) struct Line<T> {
    on_the_way: BinaryHeap<Reverse<Sent<T>>>,
    lanes: Vec<Lane>,
    /// Bytes of one lane that may be on their way before it has to wait.
    window: usize,
    sent: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    last: Mono,
    bytes: usize,
}

#[derive(Debug)]
struct Sent<T> {
    due: Mono,
    number: u64,
    lane: Option<usize>,
    bytes: usize,
    item: T,
}

impl<T> Line<T> {
    pub(crate) fn new(lanes: usize, window: usize) -> Self {
        Self { on_the_way: BinaryHeap::new(), lanes: vec![Lane::default(); lanes], window, sent: 0 }
    }

    /// Sends an item on a lane, or beside all lanes, that arrives at that time or, behind others of its
    /// lane, with them.
    pub(crate) fn send(&mut self, mut due: Mono, lane: Option<usize>, bytes: usize, item: T) {
        if let Some(lane) = lane.map(|lane| &mut self.lanes[lane]) {
            due = due.max(lane.last);
            (lane.last, lane.bytes) = (due, lane.bytes + bytes);
        }
        self.sent += 1;
        self.on_the_way.push(Reverse(Sent { due, number: self.sent, lane, bytes, item }));
    }

    /// Whether a lane may send more.
    pub(crate) fn has_room(&self, lane: usize) -> bool {
        self.lanes[lane].bytes < self.window
    }

    /// When the next item arrives.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        self.on_the_way.peek().map(|Reverse(sent)| sent.due)
    }

    /// Takes out the next item that has arrived.
    pub(crate) fn arrived(&mut self, now: Mono) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(sent) = self.on_the_way.pop()?;
        if let Some(lane) = sent.lane {
            self.lanes[lane].bytes -= sent.bytes;
        }
        Some(sent.item)
    }
}

impl<T> Sent<T> {
    fn at(&self) -> (Mono, u64) {
        (self.due, self.number)
    }
}

impl<T> PartialEq for Sent<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at() == other.at()
    }
}

impl<T> Eq for Sent<T> {}

impl<T> PartialOrd for Sent<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Sent<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at().cmp(&other.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &mut Line<&'static str>, now: u64) -> Vec<&'static str> {
        std::iter::from_fn(|| line.arrived(Mono::millis(now))).collect()
    }

    #[test]
    fn nothing_arrives_before_its_time() {
        let mut line = Line::new(1, 100);
        line.send(Mono::millis(5), Some(0), 1, "a");
        assert_eq!((line.next_due(), all(&mut line, 4)), (Some(Mono::millis(5)), vec![]));
        assert_eq!((all(&mut line, 5), line.next_due()), (vec!["a"], None));
    }

    #[test]
    fn a_lane_keeps_its_order_when_the_way_becomes_shorter_and_others_overtake() {
        let mut line = Line::new(2, 100);
        line.send(Mono::millis(50), Some(0), 1, "slow");
        line.send(Mono::millis(10), Some(0), 1, "behind it");
        line.send(Mono::millis(10), Some(1), 1, "another lane");
        line.send(Mono::millis(10), None, 1, "beside all lanes");
        assert_eq!(all(&mut line, 10), ["another lane", "beside all lanes"]);
        assert_eq!(all(&mut line, 50), ["slow", "behind it"]);
    }

    #[test]
    fn a_lane_waits_for_its_window_alone() {
        let mut line = Line::new(2, 100);
        line.send(Mono::millis(1), Some(0), 99, "a");
        assert!(line.has_room(0));
        line.send(Mono::millis(2), Some(0), 99, "b");
        assert!(!line.has_room(0) && line.has_room(1));
        assert_eq!(all(&mut line, 1), ["a"]);
        assert!(line.has_room(0));
    }
}
