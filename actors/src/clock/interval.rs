//! Intervals of time, and what several of them agree on.
//!
//! * It decides: the smallest interval that must contain true time if so many of the given ones do (Marzullo, "Maintaining
//!   the time in a distributed system", 1984: the M-intersection of n intervals of which f may be wrong).
//! * It never does: look for what *most* of them have in common. Two liars beside three that are right can overlap all
//!   three at a place where true time is not; the search for the largest agreement would answer with that place.
//! * Invariant: if true time lies in at least `needed` of the intervals, it lies in what is agreed. Of h sources that were
//!   heard, where f of all may be wrong, that is h − f of them, and not a majority of all: of three sources two may have been
//!   heard, one of which lies, and what both have in common is then not where true time is.

use rhumb_core::canary::{self, Canary};

/// From a lowest to a highest number of microseconds, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    low: i64,
    high: i64,
}

impl Interval {
    /// From the lower of the two to the higher.
    #[must_use]
    pub fn between(a: i64, b: i64) -> Self {
        Self { low: a.min(b), high: a.max(b) }
    }

    /// The lowest number in it.
    #[must_use]
    pub fn low(self) -> i64 {
        self.low
    }

    /// The highest number in it.
    #[must_use]
    pub fn high(self) -> i64 {
        self.high
    }

    /// The number in its middle.
    #[must_use]
    pub fn middle(self) -> i64 {
        self.low.midpoint(self.high)
    }

    /// Half of its width, rounded up.
    #[must_use]
    pub fn half_width(self) -> i64 {
        let width = self.high.saturating_sub(self.low);
        width / 2 + width % 2
    }

    /// Wider by this much at both ends.
    #[must_use]
    pub fn grown(self, by: i64) -> Self {
        Self { low: self.low.saturating_sub(by), high: self.high.saturating_add(by) }
    }

    /// Later by this much.
    #[must_use]
    pub fn shifted(self, by: i64) -> Self {
        Self { low: self.low.saturating_add(by), high: self.high.saturating_add(by) }
    }

    /// What both contain.
    #[must_use]
    pub fn meet(self, other: Self) -> Option<Self> {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        (low <= high).then_some(Self { low, high })
    }

    /// Whether it contains this number.
    #[must_use]
    pub fn contains(self, number: i64) -> bool {
        (self.low..=self.high).contains(&number)
    }

    /// How far from zero its farthest number is.
    #[must_use]
    pub fn farthest(self) -> i64 {
        self.high.max(self.low.saturating_neg()).max(0)
    }

    /// How far from zero its nearest number is.
    #[must_use]
    pub fn nearest(self) -> i64 {
        self.low.max(self.high.saturating_neg()).max(0)
    }
}

/// The smallest interval that contains every number which at least `needed` of the intervals contain; none if there is
/// no such number.
#[must_use]
pub fn agreed(intervals: &[Interval], needed: usize) -> Option<Interval> {
    // Ends sort behind beginnings at one number: intervals that touch there agree on it.
    let mut edges: Vec<(i64, bool)> =
        intervals.iter().flat_map(|interval| [(interval.low, false), (interval.high, true)]).collect();
    edges.sort_unstable();
    let needed =
        if canary::sings(Canary::LargestAgreement) { most(&edges).max(needed) } else { needed.max(1) };
    let (mut over, mut low, mut high) = (0, None, None);
    for (at, ends) in edges {
        if ends {
            if over >= needed {
                high = Some(at);
            }
            over -= 1;
        } else {
            over += 1;
            if over >= needed && low.is_none() {
                low = Some(at);
            }
        }
    }
    Some(Interval { low: low?, high: high? })
}

/// How many intervals at most contain one number.
fn most(edges: &[(i64, bool)]) -> usize {
    let (mut over, mut most) = (0, 0);
    for (_, ends) in edges {
        if *ends {
            over -= 1
        } else {
            over += 1
        }
        most = most.max(over);
    }
    most
}
