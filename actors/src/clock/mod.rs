//! `ClockKeeper`: how far a node's wall clock may be from true time, and whether that still bears strong paths.
//!
//! * It decides: what several sources of time agree on, which of them are outliers, how far true time may lie from
//!   the wall clock now, whether strong paths stand or are frozen, and when a clock may be reset.
//! * It never does: read a clock, let hybrid time go back over a restart, believe a minority of the sources, hand out
//!   a bound below the one `max_offset` that all nodes share, or turn a foreign time into a hybrid one.
//! * Invariants: while more than half of the set sources are right and the node's own rate is within its bound, true
//!   time lies within [`ClockKeeper::bounds`]; a node with sources that is not frozen is within
//!   [`ClockSettings::tolerance`] of true time and has handed out no time further ahead than the rest of `max_offset`, so
//!   that no two of them differ by more, in wall clocks or in hybrid ones.
//!
//! In reading order: [`interval`] is what sources agree on (Marzullo); [`source`] what one of them said; [`drift`] how
//! fast the node's own clock runs; [`peers`] what a node sees of other nodes' clocks; [`standing`] what comes of it;
//! [`keeper`] the machine; [`foreign`] times that were not made by hybrid clocks, at a gateway.
//!
//! The measured bound only takes away: protocols rest on `max_offset`, and a node that may be further off stops.

pub mod drift;
pub mod foreign;
pub mod interval;
pub mod keeper;
pub mod peers;
pub mod source;
pub mod standing;

#[cfg(test)]
mod tests;

pub use foreign::{ForeignTime, LEAPS_KNOWN_UNTIL, LeapSecond, Order, SMEAR_MOST, Smeared};
pub use interval::Interval;
pub use keeper::{ClockKeeper, Effect, EpochRow, Input, Kernel, Out, ResetRefusal};
pub use source::Sample;
pub use standing::{ClockReport, Doubt, Freeze, PeerReport, SourceReport, Standing, Verdict};

use std::time::Duration;

use rhumb_core::time::DEFAULT_MAX_OFFSET;
use rhumb_core::{HybridTime, Mono};

/// The node's own clocks, read at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The monotonic clock.
    pub mono: Mono,
    /// The wall clock, in microseconds since the Unix epoch.
    pub wall: i64,
    /// The last hybrid time that was handed out.
    pub hybrid: HybridTime,
}

/// What a keeper goes by. `max_offset` is the same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockSettings {
    /// The largest offset between two nodes' clocks under which strong paths are safe.
    pub max_offset: Duration,
    /// How much faster or slower than true time the monotonic clock may run, in parts per million.
    pub max_drift_ppm: u32,
    /// The sources of time, by name. Without any, only peers are compared.
    pub sources: Vec<String>,
    /// How many other nodes there are to compare with.
    pub peers: usize,
}

impl Default for ClockSettings {
    fn default() -> Self {
        Self { max_offset: DEFAULT_MAX_OFFSET, max_drift_ppm: 200, sources: Vec::new(), peers: 0 }
    }
}

impl ClockSettings {
    /// How far two nodes' clocks may be seen to differ: 80 % of the bound, the rest is for what happens between two
    /// looks.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.max_offset * 4 / 5
    }

    /// How far one node's clock may be from true time: half of what two may differ.
    #[must_use]
    pub fn tolerance(&self) -> Duration {
        self.limit() / 2
    }

    /// How many sources may be wrong: fewer than half of those that are set.
    #[must_use]
    pub fn faulty(&self) -> usize {
        self.sources.len().saturating_sub(1) / 2
    }
}

/// A duration in whole microseconds, rounded up.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// So many microseconds as a duration; none below zero.
pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
