//! Times that were not made by hybrid clocks: of legacy systems, and of clocks that smear leap seconds. A gateway takes
//! them in; they stay what they are.
//!
//! * It decides: between which two moments of Unix time a foreign time lies, and whether one certainly came before
//!   another.
//! * It never does: give out a hybrid time. A foreign time has no way into a strong path, and that is the compiler's
//!   business:
//!
//! ```compile_fail,E0277
//! use rhumb_actors::clock::ForeignTime;
//! use rhumb_core::HybridTime;
//! fn strong_path(_: HybridTime) {}
//! let sold = ForeignTime::legacy(1_700_000_000_000, std::time::Duration::from_secs(1));
//! strong_path(sold.into());
//! ```
//!
//! Nor has it an order, which would have to invent one where two of them overlap:
//!
//! ```compile_fail,E0369
//! use rhumb_actors::clock::ForeignTime;
//! let second = std::time::Duration::from_secs(1);
//! let (sold, paid) = (ForeignTime::legacy(1_000, second), ForeignTime::legacy(2_000, second));
//! assert!(sold < paid);
//! ```
//!
//! What it is for: to be stored as what it is, shown, and compared where that can be answered.
//!
//! ```
//! use rhumb_actors::clock::{ForeignTime, Order};
//! let second = std::time::Duration::from_secs(1);
//! let (sold, paid) = (ForeignTime::legacy(1_000, second), ForeignTime::legacy(4_000, second));
//! assert_eq!(sold.against(paid), Order::Before);
//! assert_eq!(sold.against(sold), Order::Unknown);
//! ```

use std::time::Duration;

use super::interval::Interval;
use super::micros;

/// Half of a smear, in microseconds: it lasts from noon to noon.
const HALF_DAY: i64 = 43_200 * SECOND;
const SECOND: i64 = 1_000_000;

/// Which of two came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first, for certain.
    Before,
    /// The second, for certain.
    After,
    /// They may have been at one time.
    Unknown,
}

/// A moment as a foreign clock told it: somewhere between two moments of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForeignTime(Interval);

impl ForeignTime {
    /// A legacy system's time in milliseconds since the Unix epoch, which may be wrong by this much either way: its
    /// clock's error, and the grain that it counts in.
    #[must_use]
    pub fn legacy(unix_millis: i64, error: Duration) -> Self {
        let at = unix_millis.saturating_mul(1_000);
        Self(Interval::between(at, at).grown(micros(error)))
    }

    /// The earliest it can be, in microseconds of Unix time.
    #[must_use]
    pub fn earliest(self) -> i64 {
        self.0.low()
    }

    /// The latest it can be, in microseconds of Unix time.
    #[must_use]
    pub fn latest(self) -> i64 {
        self.0.high()
    }

    /// Which of the two came first.
    #[must_use]
    pub fn against(self, other: Self) -> Order {
        if self.latest() < other.earliest() {
            Order::Before
        } else if other.latest() < self.earliest() {
            Order::After
        } else {
            Order::Unknown
        }
    }
}

/// A leap second, as a table of them has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeapSecond {
    /// The midnight that follows it, in seconds of Unix time.
    pub midnight: i64,
    /// Whether a second is put in (as all were so far) rather than left out.
    pub inserted: bool,
}

/// A clock that spreads a leap second over the 24 hours from the noon before to the noon after, evenly, as large clouds'
/// time servers do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Smeared {
    leaps: Vec<LeapSecond>,
}

/// The midnights that leap seconds were put in before, in days since 1970 (IERS, leap-seconds.list).
const LEAPS: [i64; 27] = [
    912, 1_096, 1_461, 1_826, 2_191, 2_557, 2_922, 3_287, 3_652, 4_199, 4_564, 4_929, 5_660, 6_574, 7_305,
    7_670, 8_217, 8_582, 8_947, 9_496, 10_043, 10_592, 13_149, 14_245, 15_522, 16_617, 17_167,
];
/// Until when, in seconds of Unix time, it is known that there are no others: 28 June 2026 (the same, after Bulletin C 70).
pub const LEAPS_KNOWN_UNTIL: i64 = 20_632 * 86_400;
/// How far a smeared clock can be from Unix time at most: half of the leap second.
pub const SMEAR_MOST: Duration = Duration::from_millis(500);

impl Smeared {
    /// A smeared clock that knows of all leap seconds up to [`LEAPS_KNOWN_UNTIL`]. After that it may be off by
    /// [`SMEAR_MOST`] besides its own error.
    #[must_use]
    pub fn iers() -> Self {
        let leap = |day: i64| LeapSecond { midnight: day * 86_400, inserted: true };
        Self::new(LEAPS.map(leap).to_vec())
    }

    /// A smeared clock that knows of these leap seconds.
    #[must_use]
    pub fn new(leaps: Vec<LeapSecond>) -> Self {
        Self { leaps }
    }

    /// What the smeared clock shows when Unix time is `unix` microseconds. In a second that is put in, Unix time shows
    /// one second twice: `again` says that it is the second time.
    #[must_use]
    pub fn shows(&self, unix: i64, again: bool) -> i64 {
        let Some((noon, day)) = self.smear(unix) else { return unix };
        let midnight = noon + HALF_DAY;
        let passed = unix - noon + if unix >= midnight || again { day - 2 * HALF_DAY } else { 0 };
        noon + scaled(passed, 2 * HALF_DAY, day)
    }

    /// The moment at which a smeared clock showed this many microseconds, give or take its error. Within the leap second
    /// itself Unix time cannot tell two moments apart, and neither does the answer.
    #[must_use]
    pub fn read(&self, shown: i64, error: Duration) -> ForeignTime {
        let exact = match self.smear(shown) {
            None => Interval::between(shown, shown),
            Some((noon, day)) => {
                let (passed, leap) = (scaled(shown - noon, day, 2 * HALF_DAY), day - 2 * HALF_DAY);
                let (before, after) = (noon + passed, noon + passed - leap);
                if passed < HALF_DAY + leap.min(0) {
                    Interval::between(before, before)
                } else if passed >= HALF_DAY + leap.max(0) {
                    Interval::between(after, after)
                } else {
                    Interval::between(after, before)
                }
            }
        };
        // One microsecond for what the division left.
        ForeignTime(exact.grown(micros(error).saturating_add(1)))
    }

    /// The smear that a moment lies in: the noon at which it begins, and how many microseconds it lasts.
    fn smear(&self, at: i64) -> Option<(i64, i64)> {
        self.leaps.iter().find_map(|leap| {
            let noon = leap.midnight.saturating_mul(SECOND).saturating_sub(HALF_DAY);
            let day = 2 * HALF_DAY + if leap.inserted { SECOND } else { -SECOND };
            (noon..noon.saturating_add(2 * HALF_DAY)).contains(&at).then_some((noon, day))
        })
    }
}

fn scaled(number: i64, by: i64, over: i64) -> i64 {
    let scaled = i128::from(number) * i128::from(by) / i128::from(over);
    i64::try_from(scaled).expect("a part of a day is a part of a day")
}
