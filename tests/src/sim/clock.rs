//! A node's clocks: a wall clock that drifts and is stepped, the hybrid time above it, and a
//! monotonic clock that drifts but is never stepped.
//!
//! * It decides: what a node believes the time is.
//! * It never does: let hybrid time go back within or between the lives of one disk; production keeps
//!   a durable ceiling for that, the simulation keeps the clock itself.

use std::time::Duration;

use rhumb_core::time::DEFAULT_MAX_OFFSET;
use rhumb_core::{HybridClock, HybridTime, Mono, Now};

use super::agenda::Micros;

/// What a right wall clock shows at the beginning of every world, in milliseconds since 1970.
pub const BEGINNING_MS: u64 = 1_763_700_000_000;

const MILLION: i64 = 1_000_000;

/// The clocks of one node.
#[derive(Debug)]
pub struct Clock {
    /// How fast it runs, in parts per million above true time.
    drift_ppm: i64,
    /// How far the wall clock was stepped, in microseconds.
    stepped: i64,
    /// True time at which the present life began.
    began: Micros,
    hybrid: HybridClock,
}

impl Clock {
    /// A clock with this drift that is right at the beginning.
    #[must_use]
    pub fn new(drift_ppm: i64) -> Self {
        Self { drift_ppm, stepped: 0, began: 0, hybrid: fresh() }
    }

    /// A new life begins: its monotonic time is zero now.
    pub fn restart(&mut self, at: Micros) {
        self.began = at;
    }

    /// The disk is an older one, and with it the ceiling of hybrid time.
    pub fn forget(&mut self) {
        self.hybrid = fresh();
    }

    /// The wall clock is stepped by so many microseconds.
    pub fn step(&mut self, micros: i64) {
        self.stepped = self.stepped.saturating_add(micros);
    }

    /// Sets the wall clock to show, at this true time, the given milliseconds.
    pub fn set(&mut self, at: Micros, wall_ms: u64) {
        self.stepped += (wall_ms as i64 - self.wall_ms(at) as i64) * 1_000;
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall_ms(&self, at: Micros) -> u64 {
        let micros = at as i64 + self.drifted(at) + self.stepped;
        BEGINNING_MS.saturating_add_signed(micros.div_euclid(1_000))
    }

    /// The present time, as a machine is given it. Hybrid time ticks.
    pub fn now(&self, at: Micros) -> Now {
        let hybrid = self.hybrid.tick(self.wall_ms(at)).expect("this clock has no ceiling");
        Now { hybrid, mono: self.mono(at) }
    }

    /// A message came with its sender's time. One that is too far ahead is not taken; what its sender says is judged without it.
    pub fn hear(&self, at: Micros, remote: HybridTime) {
        self.hybrid.merge(self.wall_ms(at), remote).ok();
    }

    /// The last hybrid time given out.
    #[must_use]
    pub fn last(&self) -> HybridTime {
        self.hybrid.last()
    }

    /// Time since this life began, by the monotonic clock.
    #[must_use]
    pub fn mono(&self, at: Micros) -> Mono {
        let lived = at.saturating_sub(self.began) as i64;
        Mono(Duration::from_micros((lived + lived * self.drift_ppm / MILLION) as u64))
    }

    /// True time at which the monotonic clock will show this or a little more.
    #[must_use]
    pub fn when(&self, mono: Mono) -> Micros {
        let lived = i64::try_from(mono.0.as_micros()).unwrap_or(i64::MAX / MILLION / 2);
        let lived = lived.min(i64::MAX / MILLION / 2);
        self.began + (lived * MILLION / (MILLION + self.drift_ppm)) as u64 + 2
    }

    fn drifted(&self, at: Micros) -> i64 {
        at as i64 * self.drift_ppm / MILLION
    }
}

fn fresh() -> HybridClock {
    HybridClock::new(HybridTime::from_bits(u64::MAX), DEFAULT_MAX_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_moves_the_wall_clock_and_neither_of_the_others_back() {
        let mut clock = Clock::new(500);
        let before = clock.now(10_000_000);
        clock.step(-3_000_000);
        let after = clock.now(10_001_000);
        assert!(clock.wall_ms(10_001_000) < before.hybrid.millis());
        assert!(after.hybrid > before.hybrid && after.mono > before.mono);
    }

    #[test]
    fn an_alarm_rings_when_the_monotonic_clock_has_reached_it() {
        for drift in [-2_000, 0, 777] {
            let mut clock = Clock::new(drift);
            clock.restart(5_000_000);
            for ms in [0, 1, 999, 86_400_000] {
                let at = clock.when(Mono::millis(ms));
                assert!(clock.mono(at) >= Mono::millis(ms), "drift {drift}, {ms} ms");
                assert!(clock.mono(at - at.min(5_004)) <= Mono::millis(ms));
            }
        }
    }

    #[test]
    fn a_clock_can_be_set_right() {
        let mut clock = Clock::new(-300);
        clock.step(77_123_456);
        clock.set(9_000_000, BEGINNING_MS + 9_000);
        assert_eq!(clock.wall_ms(9_000_000), BEGINNING_MS + 9_000);
    }
}
