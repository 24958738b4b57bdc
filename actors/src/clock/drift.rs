//! How fast the node's own clock runs, by what the sources have agreed on over time.
//!
//! * It decides: within which parts per million the rate certainly lies, and whether that contradicts the bound under
//!   which uncertainty grows between samples.
//! * It never does: call a clock too fast or too slow while what the sources leave open could explain it.

use std::collections::VecDeque;
use std::time::Duration;

use rhumb_core::Mono;

use super::interval::Interval;
use super::micros;

/// Agreements that are kept, and how far apart.
const KEPT: usize = 16;
const APART: Duration = Duration::from_secs(30);

/// The rate of true time against the monotonic clock, in parts per million: above zero, the node's clock is slow.
#[derive(Debug, Clone, Default)]
pub struct Drift {
    agreed: VecDeque<(Interval, Mono)>,
}

impl Drift {
    /// The sources agreed on this (true time − monotonic clock).
    pub(super) fn agreed(&mut self, base: Interval, now: Mono) {
        if self.agreed.back().is_some_and(|(_, at)| now.since(*at) < APART) {
            return;
        }
        if self.agreed.len() == KEPT {
            self.agreed.pop_front();
        }
        self.agreed.push_back((base, now));
    }

    pub(super) fn forget(&mut self) {
        self.agreed.clear();
    }

    /// Within which the rate certainly was between the oldest agreement that is kept and the newest.
    #[must_use]
    pub fn ppm(&self) -> Option<Interval> {
        let ((old, before), (new, after)) = (self.agreed.front()?, self.agreed.back()?);
        let elapsed = i128::from(micros(after.since(*before)));
        let rate = |moved: i64, up: bool| {
            let scaled = i128::from(moved) * 1_000_000;
            let floor = scaled.div_euclid(elapsed);
            i64::try_from(if up { floor + 1 } else { floor }).unwrap_or(i64::MAX)
        };
        (elapsed > 0).then(|| {
            Interval::between(
                rate(new.low().saturating_sub(old.high()), false),
                rate(new.high().saturating_sub(old.low()), true),
            )
        })
    }

    /// Parts per million that uncertainty has to grow by: the bound, or what was measured where that is certainly more.
    #[must_use]
    pub fn effective(&self, max_ppm: u32) -> u32 {
        match self.ppm() {
            Some(rate) if rate.nearest() > i64::from(max_ppm) => {
                u32::try_from(rate.farthest()).unwrap_or(u32::MAX)
            }
            _ => max_ppm,
        }
    }
}
