//! What one source of time said, and where true time lies if it is right.
//!
//! * It decides: the interval of (true time − this node's monotonic clock) that a source's last samples leave.
//! * It never does: compare a source with another one, or with the wall clock. A step of the wall clock therefore
//!   changes nothing here: it changes what the wall clock is compared with.
//! * Invariant: if the source was right in each sample that is kept, true time lies in its interval, however long ago
//!   that was: the interval grows with the drift that the node's own clock may have.

use std::collections::VecDeque;
use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::canary::{self, Canary};

use super::interval::Interval;
use super::micros;

/// Samples of a source that are kept.
const KEPT: usize = 8;

/// One exchange with a clock elsewhere: asked, answered with a time, heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was asked, on the node's monotonic clock.
    pub sent: Mono,
    /// When its answer came.
    pub received: Mono,
    /// The time that it answered with, in microseconds since the Unix epoch.
    pub shown: i64,
    /// How wrong that may be, as the source says itself.
    pub error: Duration,
}

impl Sample {
    /// Where (the source's time − the monotonic clock) lies. Its answer was made at some moment between question and
    /// answer, and nothing says when: a way there may be longer than the way back.
    #[must_use]
    pub fn base(&self, drift_ppm: u32) -> Interval {
        let trip = micros(self.received.since(self.sent));
        let at = self.shown.saturating_sub(micros(self.received.0));
        let error = micros(self.error).saturating_add(growth(trip, drift_ppm)).saturating_add(1);
        let base = if canary::sings(Canary::RoundTripForgotten) {
            Interval::between(at, at).shifted(trip / 2)
        } else {
            Interval::between(at, at.saturating_add(trip))
        };
        base.grown(error)
    }
}

/// How far a clock that drifts so much may have gone astray in so many microseconds, rounded up.
pub(super) fn growth(elapsed: i64, drift_ppm: u32) -> i64 {
    if elapsed <= 0 || canary::sings(Canary::BoundWithoutDrift) {
        return 0;
    }
    let astray = i128::from(elapsed) * i128::from(drift_ppm) / 1_000_000 + 1;
    i64::try_from(astray).unwrap_or(i64::MAX)
}

/// What is kept of a source.
#[derive(Debug, Clone, Default)]
pub(super) struct Source {
    /// Where each sample put (true time − monotonic clock), and when it was heard; the newest first.
    samples: VecDeque<(Interval, Mono)>,
}

impl Source {
    pub(super) fn sampled(&mut self, sample: &Sample, drift_ppm: u32) {
        self.samples.truncate(KEPT - 1);
        self.samples.push_front((sample.base(drift_ppm), sample.received));
    }

    pub(super) fn forget(&mut self) {
        self.samples.clear();
    }

    /// True time went on for up to this long while the monotonic clock stood still.
    pub(super) fn suspended(&mut self, gap: i64) {
        for (base, _) in &mut self.samples {
            *base = Interval::between(base.low(), base.high().saturating_add(gap));
        }
    }

    /// When it was last heard.
    pub(super) fn heard(&self) -> Option<Mono> {
        self.samples.front().map(|(_, at)| *at)
    }

    /// Where (true time − monotonic clock) lies now, if it is right: what its newest sample leaves, and the older ones
    /// as far back as they do not contradict it.
    pub(super) fn base(&self, now: Mono, drift_ppm: u32) -> Option<Interval> {
        let mut grown =
            self.samples.iter().map(|(base, at)| base.grown(growth(micros(now.since(*at)), drift_ppm)));
        let mut base = grown.next()?;
        for older in grown {
            match base.meet(older) {
                Some(both) => base = both,
                None => break,
            }
        }
        Some(base)
    }
}
