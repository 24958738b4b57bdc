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

    /// Within which the rate certainly was from one of the agreements that are kept to the newest: from that one of which it is
    /// told most exactly. The first one after a start or a reset may be as wide as a source that lies is far off.
    #[must_use]
    pub fn ppm(&self) -> Option<Interval> {
        let (new, after) = self.agreed.back()?;
        let since = self.agreed.iter().filter_map(|(old, before)| rate(*old, *new, after.since(*before)));
        since.min_by_key(|rate| rate.high().saturating_sub(rate.low()))
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
/// The rate at which one agreement came to be the other, so long after it.
fn rate(old: Interval, new: Interval, elapsed: Duration) -> Option<Interval> {
    let elapsed = i128::from(micros(elapsed));
    let rate = |moved: i64, up: bool| {
        let floor = (i128::from(moved) * 1_000_000).div_euclid(elapsed);
        i64::try_from(if up { floor + 1 } else { floor }).unwrap_or(i64::MAX)
    };
    (elapsed > 0).then(|| {
        Interval::between(
            rate(new.low().saturating_sub(old.high()), false),
            rate(new.high().saturating_sub(old.low()), true),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_agreement_that_is_wide_hides_no_later_ones() {
        let mut drift = Drift::default();
        let at = |seconds: u64| Mono(Duration::from_secs(seconds));
        drift.agreed(Interval::between(-30_000_000, 1_000), at(0));
        assert_eq!(drift.ppm(), None, "one says nothing of a rate");
        drift.agreed(Interval::between(2_000, 4_000), at(60));
        assert_eq!(drift.ppm().map(Interval::high), Some(500_067), "it may have come from far");
        // 60 µs in a second, and a millisecond either way.
        drift.agreed(Interval::between(5_600, 7_600), at(120));
        assert_eq!(drift.ppm(), Some(Interval::between(26, 94)));
    }
}
