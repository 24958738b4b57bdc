//! What a node counts of the levelling of one pool: how often rights move, how many, how long a node in
//! need waits for them, and how many are on their way.
//!
//! * It decides: which class a wait falls into.
//! * It never does: bear on any decision. It is for people, and begins anew with each life.
//! * Invariant: its size is fixed.

use std::collections::BTreeMap;
use std::time::Duration;

/// Upper bounds of the classes of [`Waits`], in milliseconds. What is longer has a class of its own.
pub const WAIT_BOUNDS_MS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// How long something took, in classes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many took at most [`WAIT_BOUNDS_MS`] and longer than the bound before it; the last is of
    /// those that took longer than any.
    pub classes: [u64; WAIT_BOUNDS_MS.len() + 1],
    /// All of them together.
    pub sum: Duration,
}

impl Waits {
    /// Counts one.
    pub fn count(&mut self, wait: Duration) {
        let class = WAIT_BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < wait);
        self.classes[class] += 1;
        self.sum = self.sum.saturating_add(wait);
    }

    /// How many there were.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// Which way rights moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Granted to another node.
    Out,
    /// Accepted from another node.
    In,
}

impl Direction {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// Why rights moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The receiver had asked.
    Pull,
    /// The donor gave them unasked.
    Push,
    /// They gather at the home that owns the tail.
    Tail,
    /// The receiver's first: its share of the first split, most often.
    Split,
}

impl Cause {
    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Tail => "tail",
            Self::Split => "split",
        }
    }
}

/// Moves of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// How many.
    pub moves: u64,
    /// Units in them.
    pub units: u64,
}

/// The levelling of one pool, as one node counted it since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levelled {
    /// From the moment at which a node tells its need until rights are accepted.
    pub waits: Waits,
    /// Rights that moved.
    pub moved: BTreeMap<(Direction, Cause), Moved>,
    /// Rights granted from here that no peer has acknowledged yet.
    pub in_transit: u64,
}

impl Levelled {
    /// Counts a move.
    pub(crate) fn count(&mut self, direction: Direction, cause: Cause, units: u64) {
        let moved = self.moved.entry((direction, cause)).or_default();
        moved.moves += 1;
        moved.units = moved.units.saturating_add(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_falls_into_the_class_whose_bound_it_does_not_pass() {
        let mut waits = Waits::default();
        for ms in [0, 5, 6, 10, 10_000, 10_001, 3_600_000] {
            waits.count(Duration::from_millis(ms));
        }
        assert_eq!(waits.classes, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((waits.number(), waits.sum), (7, Duration::from_millis(3_620_022)));
    }
}
