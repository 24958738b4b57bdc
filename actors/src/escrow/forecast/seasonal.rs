//! It goes as it went a season ago: the seasonal naive method (Hyndman & Athanasopoulos, "Forecasting:
//! principles and practice", 3rd ed., §5.2).

use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;

use super::{Ewma, Forecaster, bounded};

/// Slots that one season may have: a week in slots of ten minutes.
pub const MAX_SLOTS: u64 = 1_008;

/// Each slot of the season is forecast to be what the same slot was the last time. Until a whole season
/// was seen, it goes on as it has been lately ([`Ewma`]). What it saw is kept in memory only: a life of
/// the node begins without it.
#[derive(Debug, Clone)]
pub struct SeasonalNaive {
    lately: Ewma,
    slot_ms: u64,
    slots: u64,
    /// Units asked for in each slot of the last season, by the slot's place in the season.
    season: Vec<u64>,
    /// The slot that is under way, counted from time zero, and the units asked for in it.
    present: Option<(u64, u64)>,
    /// The first slot that was seen from its beginning.
    first: u64,
}

impl SeasonalNaive {
    /// A season of slots. The season is at least one slot; slots are at least a millisecond, and so long
    /// that no more than [`MAX_SLOTS`] of them are a season.
    #[must_use]
    pub fn new(season: Duration, slot: Duration) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        let slot_ms = ms(slot).max(ms(season).div_ceil(MAX_SLOTS));
        let slots = (ms(season) / slot_ms).max(1);
        Self { lately: Ewma::default(), slot_ms, slots, season: Vec::new(), present: None, first: 0 }
    }

    /// Ends the slots that are over, and begins the present one.
    fn roll(&mut self, now: Mono) {
        let slot = self.number(now);
        let Some((before, units)) = self.present else {
            (self.present, self.first) = (Some((slot, 0)), slot + 1);
            return;
        };
        if slot <= before {
            return;
        }
        if self.season.is_empty() {
            self.season = vec![0; usize::try_from(self.slots).expect("at most 1,008")];
        }
        let place = self.place(before);
        self.season[place] = units;
        // A gap of a season or more leaves nothing of what was.
        for empty in (before + 1..slot).take(self.season.len()) {
            let place = self.place(empty);
            self.season[place] = 0;
        }
        self.present = Some((slot, 0));
    }

    fn number(&self, now: Mono) -> u64 {
        u64::try_from(now.since(Mono::default()).as_millis()).unwrap_or(u64::MAX) / self.slot_ms
    }

    fn place(&self, slot: u64) -> usize {
        usize::try_from(slot % self.slots).expect("at most 1,008")
    }

    /// Units of the last season between now and so much later, each slot counting for the part of it
    /// that lies there.
    fn last_season(&self, now: Mono, ahead: Duration) -> u64 {
        let from = now.since(Mono::default()).as_millis();
        let (slot, all) = (u128::from(self.slot_ms), u128::from(self.slot_ms) * u128::from(self.slots));
        let until = from + ahead.as_millis().min(all);
        let mut units_ms = 0u128;
        let mut at = from;
        while at < until {
            let end = ((at / slot + 1) * slot).min(until);
            let late = u128::from(canary::sings(Canary::SeasonShifted));
            let place = (at / slot + late) % u128::from(self.slots);
            let place = usize::try_from(place).expect("at most 1,008");
            units_ms += u128::from(self.season[place]) * (end - at);
            at = end;
        }
        bounded((units_ms + slot / 2) / slot)
    }
}

impl Forecaster for SeasonalNaive {
    fn observe(&mut self, now: Mono, units: u64) {
        self.lately.observe(now, units);
        self.roll(now);
        if let Some((_, asked)) = &mut self.present {
            *asked = asked.saturating_add(units).min(MAX_SUPPLY);
        }
    }

    fn forecast(&mut self, now: Mono, ahead: Duration) -> u64 {
        self.roll(now);
        let seen = self.present.map_or(0, |(slot, _)| slot.saturating_sub(self.first));
        if seen < self.slots {
            return self.lately.forecast(now, ahead);
        }
        self.last_season(now, ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000;

    /// A minute in slots of ten seconds, in which 30 units a second are asked for from 20 s to 30 s and
    /// one a second otherwise.
    fn seen(seconds: u64) -> SeasonalNaive {
        let mut forecaster = SeasonalNaive::new(Duration::from_secs(60), Duration::from_secs(10));
        for second in 0..seconds {
            let units = if (20..30).contains(&(second % 60)) { 30 } else { 1 };
            forecaster.observe(Mono::millis(second * SECOND), units);
        }
        forecaster
    }

    fn ahead(forecaster: &mut SeasonalNaive, now_s: u64, ahead_s: u64) -> u64 {
        forecaster.forecast(Mono::millis(now_s * SECOND), Duration::from_secs(ahead_s))
    }

    #[test]
    fn a_rush_of_the_last_season_is_seen_before_it_comes_again() {
        // The first slot counts only if it was seen from its beginning: the season is whole at 70 s.
        let mut forecaster = seen(130);
        for (now, time, want) in [
            (130, 10, 10),
            (130, 20, 310),
            (139, 2, 31),
            (135, 10, 155),
            (140, 10, 300),
            (145, 10, 155),
            // Of the twenty seconds before, nobody asked for anything.
            (150, 10, 10),
            (150, 60, 40),
            (150, 600, 40),
        ] {
            assert_eq!(ahead(&mut forecaster.clone(), now, time), want, "{time} s ahead of {now} s");
        }
        assert_eq!(ahead(&mut forecaster, 130, 0), 0);
    }

    #[test]
    fn before_a_whole_season_it_goes_on_as_it_has_been_lately() {
        for seconds in [1, 25, 65] {
            let (mut seasonal, mut lately) = (seen(seconds), seen(seconds).lately);
            let (now, time) = (Mono::millis(seconds * SECOND), Duration::from_secs(10));
            assert_eq!(seasonal.forecast(now, time), lately.forecast(now, time), "after {seconds} s");
        }
    }

    #[test]
    fn the_latest_season_counts_and_a_silent_one_leaves_nothing() {
        let mut forecaster = seen(130);
        (130..190).for_each(|second| forecaster.observe(Mono::millis(second * SECOND), 2));
        assert_eq!(ahead(&mut forecaster, 190, 60), 120, "the rush did not come again");
        assert_eq!(ahead(&mut forecaster, 1_000, 60), 0, "nobody asked for a season");
    }

    #[test]
    fn memory_is_bounded_whatever_is_set() {
        let mut forecaster = SeasonalNaive::new(Duration::from_secs(86_400), Duration::from_millis(1));
        for hour in 0..100 {
            forecaster.observe(Mono::millis(hour * 3_600_000), u64::MAX);
        }
        assert!(forecaster.season.len() as u64 <= MAX_SLOTS);
        assert_eq!(forecaster.forecast(Mono::millis(360_000_000), Duration::MAX), MAX_SUPPLY);
        let mut short = SeasonalNaive::new(Duration::ZERO, Duration::from_secs(10));
        short.observe(Mono::millis(0), 7);
        assert_eq!(short.forecast(Mono::millis(1), Duration::ZERO), 0, "one slot is a season");
    }
}
