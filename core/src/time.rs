//! Hybrid time: 48 bits of milliseconds since the Unix epoch and 16 bits of counter in one word, so
//! that it orders like a number and stays near the wall clock (Kulkarni et al., "Logical Physical
//! Clocks", 2014).
//!
//! * It decides: the next timestamp, what a peer's timestamp does to it, when one is refused.
//! * It never does: read a clock (the wall time is an argument), go back, or pass its ceiling.
//! * Invariant: timestamps handed out by one clock strictly rise, from whatever threads; none is at
//!   or past the ceiling that was made durable before it, so a restart that waits for the ceiling
//!   never hands one out twice.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

const COUNTER_BITS: u32 = 16;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;

/// How far a durable ceiling may lie ahead of the wall clock.
pub const CEILING_AHEAD: Duration = Duration::from_millis(250);
/// The largest clock offset between two nodes under which strong paths are safe, unless set.
pub const DEFAULT_MAX_OFFSET: Duration = Duration::from_millis(500);

/// A hybrid timestamp. Ordered; equal only if it is the same event's.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HybridTime(u64);

impl HybridTime {
    /// The beginning: before every other.
    pub const ZERO: Self = Self(0);

    /// A timestamp of milliseconds since the Unix epoch and a counter.
    ///
    /// # Panics
    /// When the milliseconds do not fit 48 bits (the year 10889).
    #[must_use]
    pub fn new(millis: u64, counter: u16) -> Self {
        assert!(millis < 1 << 48, "milliseconds since 1970 fit 48 bits");
        Self(millis << COUNTER_BITS | u64::from(counter))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The counter within its millisecond.
    #[must_use]
    pub fn counter(self) -> u16 {
        (self.0 & COUNTER_MASK) as u16
    }

    /// The word as it is stored and sent.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The timestamp of a stored word.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// This much later, with counter zero.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self::new(self.millis().saturating_add(millis).min((1 << 48) - 1), 0)
    }
}

impl fmt::Display for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:05}", self.millis(), self.counter())
    }
}

impl fmt::Debug for HybridTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HybridTime({self})")
    }
}

/// Time on this process's monotonic clock, since some fixed start. For timers and retransmission: it
/// does not survive a restart and no clock step moves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub Duration);

impl Mono {
    /// So many milliseconds after the start.
    #[must_use]
    pub fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// This much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The `now` that a machine is given: hybrid time for what is persisted or compared between nodes,
/// monotonic time for timers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Hybrid time: persisted deadlines, creation times.
    pub hybrid: HybridTime,
    /// Monotonic time: timers, retransmission, measured waits.
    pub mono: Mono,
}

/// Why a clock gave no timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClockRefusal {
    /// A peer's timestamp lies further ahead than clocks may differ. It was not merged.
    #[error("timestamp is {ahead:?} ahead of this node's clock, more than the {max_offset:?} allowed")]
    TooFarAhead {
        /// How far ahead.
        ahead: Duration,
        /// How far it may be.
        max_offset: Duration,
    },
    /// The durable ceiling is used up: persist a higher one, then [`HybridClock::raise_ceiling`].
    #[error("the durable ceiling of hybrid time is reached")]
    CeilingReached,
}

/// The word that a clock lives in. A trait only so that loom can stand in for the hardware.
pub trait Word {
    /// A new word.
    fn new(value: u64) -> Self;
    /// Reads it.
    fn load(&self) -> u64;
    /// Adds one, and gives the sum, which nobody else is given.
    fn next(&self) -> u64;
    /// Raises it to at least `value`.
    fn raise(&self, value: u64);
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }
    fn next(&self) -> u64 {
        self.fetch_add(1, Ordering::AcqRel) + 1
    }
    fn raise(&self, value: u64) {
        self.fetch_max(value, Ordering::AcqRel);
    }
}

/// A cache line to itself (two, since processors fetch them in pairs): every thread writes it.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<W>(W);

/// A lock-free hybrid clock.
///
/// A timestamp is one addition to one shared word, and nothing is read from that word before: with two
/// threads its line then moves once a timestamp. Only when the wall clock has overtaken the word is it
/// raised first, and when a peer's time has that is merged.
#[derive(Debug)]
pub struct HybridClock<W = AtomicU64> {
    /// The last number given to anybody. It passes the ceiling by at most the number of threads.
    last: Apart<W>,
    ceiling: W,
    /// The last ceiling that was found used up. While it is the present one, `last` stays as it is.
    spent: W,
    max_offset: Duration,
}

impl HybridClock {
    /// A clock that may hand out times below `ceiling` (which the caller has made durable), on a node
    /// whose wall clock has already passed every ceiling of its earlier lives.
    #[must_use]
    pub fn new(ceiling: HybridTime, max_offset: Duration) -> Self {
        Self::with_words(ceiling, max_offset)
    }
}

impl<W: Word> HybridClock<W> {
    /// [`HybridClock::new`], on words of the caller's choice.
    pub fn with_words(ceiling: HybridTime, max_offset: Duration) -> Self {
        Self { last: Apart(W::new(0)), ceiling: W::new(ceiling.0), spent: W::new(0), max_offset }
    }

    /// Hands out nothing at or below this any more: an earlier life may have. Also where the wall clock, which had passed it, was
    /// stepped back since.
    pub fn begin_above(&self, floor: HybridTime) {
        self.last.0.raise(floor.0);
    }

    /// The next timestamp: the wall clock if it is ahead, else one more than the last.
    ///
    /// # Errors
    /// [`ClockRefusal::CeilingReached`].
    pub fn tick(&self, wall_millis: u64) -> Result<HybridTime, ClockRefusal> {
        let ceiling = self.ceiling.load();
        if self.spent.load() == ceiling {
            return Err(ClockRefusal::CeilingReached);
        }
        // The wall clock may run ahead of a ceiling that is slow to become durable: then time
        // crawls by its counter below the ceiling, rather than stop.
        let wall = HybridTime::new(wall_millis, 0).0.min((ceiling - 1) & !COUNTER_MASK);
        let mut next = self.last.0.next();
        if next < wall {
            self.last.0.raise(wall - 1);
            next = self.last.0.next();
        }
        if next >= ceiling {
            self.spent.raise(ceiling);
            return Err(ClockRefusal::CeilingReached);
        }
        Ok(HybridTime(next))
    }

    /// Takes a time into account that was seen: all timestamps from now on are later. It takes none itself, and where the clock
    /// has passed that time it writes nothing.
    ///
    /// # Errors
    /// [`ClockRefusal::TooFarAhead`] when the remote time is more than the greatest offset ahead of
    /// the wall clock, [`ClockRefusal::CeilingReached`].
    pub fn merge(&self, wall_millis: u64, remote: HybridTime) -> Result<(), ClockRefusal> {
        let ahead = Duration::from_millis(remote.millis().saturating_sub(wall_millis));
        if ahead > self.max_offset {
            return Err(ClockRefusal::TooFarAhead { ahead, max_offset: self.max_offset });
        }
        if remote.0.saturating_add(1) >= self.ceiling.load() {
            return Err(ClockRefusal::CeilingReached);
        }
        if self.last.0.load() < remote.0 {
            self.last.0.raise(remote.0);
        }
        Ok(())
    }

    /// The ceiling to make durable next, when less than half of [`CEILING_AHEAD`] is left under the
    /// present one.
    pub fn wants_ceiling(&self, wall_millis: u64) -> Option<HybridTime> {
        let base = wall_millis.max(self.last().millis());
        let left = HybridTime(self.ceiling.load()).millis().saturating_sub(base);
        let ahead = CEILING_AHEAD.as_millis() as u64;
        (left < ahead / 2).then(|| HybridTime::new(base + ahead, 0))
    }

    /// A higher ceiling is durable.
    pub fn raise_ceiling(&self, ceiling: HybridTime) {
        self.ceiling.raise(ceiling.0);
    }

    /// The durable ceiling: every timestamp that was handed out lies below it.
    pub fn ceiling(&self) -> HybridTime {
        HybridTime(self.ceiling.load())
    }

    /// The last timestamp handed out.
    pub fn last(&self) -> HybridTime {
        HybridTime(self.last.0.load().min(self.ceiling.load().saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: HybridTime = HybridTime(u64::MAX);

    fn clock() -> HybridClock {
        HybridClock::new(FAR, DEFAULT_MAX_OFFSET)
    }

    #[test]
    fn time_follows_the_wall_clock_and_never_goes_back() {
        let clock = clock();
        let a = clock.tick(1_000).expect("below the ceiling");
        let b = clock.tick(1_000).expect("below the ceiling");
        let c = clock.tick(500).expect("below the ceiling");
        let d = clock.tick(2_000).expect("below the ceiling");
        assert!(a < b && b < c && c < d);
        assert_eq!((a.millis(), c.millis(), d), (1_000, 1_000, HybridTime::new(2_000, 0)));
    }

    #[test]
    fn what_comes_after_a_merge_is_later_than_both_sides() {
        let clock = clock();
        let local = clock.tick(1_000).expect("below the ceiling");
        let remote = HybridTime::new(1_400, 9);
        clock.merge(1_000, remote).expect("within the offset");
        let merged = clock.tick(1_000).expect("below the ceiling");
        assert!(merged > local && merged > remote);
        assert_eq!(merged.millis(), 1_400);
        clock.merge(1_000, local).expect("within the offset");
        assert_eq!(clock.last(), merged, "what was passed changes nothing");
    }

    #[test]
    fn what_reaches_the_ceiling_is_not_merged() {
        let clock = HybridClock::new(HybridTime::new(1_000, 9), DEFAULT_MAX_OFFSET);
        let before = clock.tick(900).expect("below the ceiling");
        for beyond in [HybridTime::new(1_000, 8), HybridTime::new(1_200, 0)] {
            assert_eq!(
                clock.merge(900, beyond),
                Err(ClockRefusal::CeilingReached),
                "nothing below it is later"
            );
        }
        assert_eq!(clock.last(), before);
        assert_eq!(clock.merge(900, HybridTime::new(1_000, 7)), Ok(()));
        assert_eq!(clock.tick(900), Ok(HybridTime::new(1_000, 8)));
    }

    #[test]
    fn a_timestamp_beyond_the_bound_is_refused_and_leaves_no_trace() {
        let clock = clock();
        let before = clock.tick(1_000).expect("below the ceiling");
        let refused = clock.merge(1_000, HybridTime::new(1_501, 0));
        assert!(matches!(refused, Err(ClockRefusal::TooFarAhead { .. })));
        assert_eq!(clock.last(), before);
        assert!(clock.merge(1_000, HybridTime::new(1_500, 0)).is_ok(), "the bound itself is allowed");
    }

    #[test]
    fn no_timestamp_reaches_the_ceiling() {
        let clock = HybridClock::new(HybridTime::new(1_000, 2), DEFAULT_MAX_OFFSET);
        assert_eq!(clock.tick(5_000), Ok(HybridTime::new(1_000, 0)), "held below the ceiling");
        assert_eq!(clock.tick(5_000), Ok(HybridTime::new(1_000, 1)));
        assert_eq!(clock.tick(5_000), Err(ClockRefusal::CeilingReached));
        let wanted = clock.wants_ceiling(5_000).expect("the ceiling is used up");
        assert_eq!(wanted.millis(), 5_250);
        clock.raise_ceiling(wanted);
        assert_eq!(clock.tick(5_000), Ok(HybridTime::new(5_000, 0)));
    }

    #[test]
    fn what_is_refused_uses_no_time_up() {
        let clock = HybridClock::new(HybridTime::new(1_000, 1), DEFAULT_MAX_OFFSET);
        assert_eq!(clock.tick(5_000), Ok(HybridTime::new(1_000, 0)));
        for _ in 0..1_000 {
            assert_eq!(clock.tick(5_000), Err(ClockRefusal::CeilingReached));
            assert_eq!(clock.last(), HybridTime::new(1_000, 0));
        }
        clock.raise_ceiling(HybridTime::new(1_000, 4));
        assert_eq!(clock.tick(900), Ok(HybridTime::new(1_000, 2)), "one number went with the first refusal");
    }

    #[test]
    fn a_life_begins_above_what_an_earlier_one_may_have_handed_out() {
        let floor = HybridTime::new(2_000, 7);
        let clock = HybridClock::new(HybridTime::new(3_000, 0), DEFAULT_MAX_OFFSET);
        clock.begin_above(floor);
        let first = clock.tick(1_200).expect("below the ceiling");
        assert!(
            first > floor && first < HybridTime::new(2_001, 0),
            "{first} with a wall clock that was set back"
        );
        assert_eq!(clock.tick(2_500), Ok(HybridTime::new(2_500, 0)), "and it follows the wall clock as ever");
    }

    #[test]
    fn the_counter_carries_into_the_milliseconds() {
        let clock = clock();
        clock.merge(1_000, HybridTime::new(1_000, u16::MAX)).expect("within the offset");
        assert_eq!(clock.tick(1_000), Ok(HybridTime::new(1_001, 0)));
    }

    mod under_loom {
        use super::*;

        impl Word for loom::sync::atomic::AtomicU64 {
            fn new(value: u64) -> Self {
                Self::new(value)
            }
            fn load(&self) -> u64 {
                self.load(Ordering::Acquire)
            }
            fn next(&self) -> u64 {
                self.fetch_add(1, Ordering::AcqRel) + 1
            }
            fn raise(&self, value: u64) {
                self.fetch_max(value, Ordering::AcqRel);
            }
        }

        #[test]
        fn timestamps_of_concurrent_threads_are_distinct_and_rise() {
            loom::model(|| {
                let clock = loom::sync::Arc::new(HybridClock::<loom::sync::atomic::AtomicU64>::with_words(
                    FAR,
                    DEFAULT_MAX_OFFSET,
                ));
                let other = loom::sync::Arc::clone(&clock);
                let thread = loom::thread::spawn(move || {
                    let a = other.tick(10).expect("below the ceiling");
                    other.merge(9, HybridTime::new(12, 0)).expect("within the offset");
                    let b = other.tick(9).expect("below the ceiling");
                    assert!(a < b && HybridTime::new(12, 0) < b);
                    [a, b]
                });
                let c = clock.tick(11).expect("below the ceiling");
                let d = clock.tick(10).expect("below the ceiling");
                assert!(c < d);
                let mut all: Vec<_> = thread.join().expect("no panic").into_iter().chain([c, d]).collect();
                all.sort();
                all.dedup();
                assert_eq!(all.len(), 4, "no timestamp is handed out twice");
                assert!(clock.last() >= all[3]);
            });
        }

        #[test]
        fn a_ceiling_that_is_raised_meanwhile_is_not_passed() {
            loom::model(|| {
                let clock = loom::sync::Arc::new(HybridClock::<loom::sync::atomic::AtomicU64>::with_words(
                    HybridTime::new(10, 1),
                    DEFAULT_MAX_OFFSET,
                ));
                let other = loom::sync::Arc::clone(&clock);
                let thread = loom::thread::spawn(move || [other.tick(10), other.tick(10)]);
                let mine = clock.tick(10);
                clock.raise_ceiling(HybridTime::new(10, 4));
                let last = clock.tick(10);
                let handed_out: Vec<_> =
                    thread.join().expect("no panic").into_iter().chain([mine, last]).flatten().collect();
                let distinct: std::collections::BTreeSet<_> = handed_out.iter().collect();
                assert_eq!(distinct.len(), handed_out.len());
                assert!(handed_out.iter().all(|time| *time < HybridTime::new(10, 4)));
                assert!(mine.is_err() || mine.ok() < last.ok() || last.is_err());
            });
        }
    }
}
