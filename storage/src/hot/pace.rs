//! How long what waits for the disk will take: by this the door refuses what would not be done in time. No clock in here: a time is
//! how long after the store's start it is.
//!
//! * It decides: how long the disk takes for a turn, and how many of them stand before what comes now.
//! * It never does: keep out what comes where nothing waits. A disk that was slow is tried again.

use std::time::Duration;

use super::HotSettings;

/// Turns that are remembered.
const REMEMBERED: usize = 4;

/// How long they are remembered.
const RECENT: Duration = Duration::from_secs(10);

/// A share of the time that its caller has is left to what was let in for all that is not the disk: half of it.
const SHARE: u32 = 2;

/// How long the disk takes for a turn: for writing what waits and syncing it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last ones ended, and how long they took.
    last: [Option<(Duration, Duration)>; REMEMBERED],
    ended: usize,
    /// When the one under way began.
    since: Option<Duration>,
}

impl Pace {
    /// A turn begins, unless one is under way.
    pub(super) fn begins(&mut self, now: Duration) {
        self.since.get_or_insert(now);
    }

    /// The turn has ended; the next one begins where there is more to do.
    pub(super) fn ends(&mut self, now: Duration, goes_on: bool) {
        if let Some(since) = self.since.take() {
            self.last[self.ended % REMEMBERED] = Some((now, now.saturating_sub(since)));
            self.ended = self.ended.wrapping_add(1);
        }
        self.since = goes_on.then_some(now);
    }

    /// Nothing is under way after all.
    pub(super) fn rests(&mut self) {
        self.since = None;
    }

    /// The longest of the last few turns and the one under way.
    fn turn(&self, now: Duration) -> Duration {
        let under_way = self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        let last = self.last.iter().flatten();
        let recent = last.filter(|(ended, _)| now.saturating_sub(*ended) <= RECENT).map(|(_, took)| *took);
        recent.fold(under_way, Duration::max)
    }
}

/// What waits for the disk, or will.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) batches: usize,
    pub(super) bytes: usize,
}

impl Load {
    fn is_nothing(self) -> bool {
        self.batches == 0
    }
}

/// How long it takes until something of so many bytes is done that comes now, if it is too long for who has so much time.
///
/// `taken` is what the store has taken and not completed, `inside` what was let in and has not ended. Some of that is in both: so much
/// the earlier it is refused.
pub(super) fn too_late(
    pace: &Pace,
    settings: &HotSettings,
    (taken, inside): (Load, Load),
    bytes: usize,
    (now, within): (Duration, Duration),
) -> Option<Duration> {
    if taken.is_nothing() && inside.is_nothing() {
        return None;
    }
    let takes = pace.turn(now).saturating_mul(turns(settings, (taken, inside), bytes));
    (takes > within / SHARE).then_some(takes)
}

/// The turn that is under way, and those that take what waits and what comes. What is let in is written twice: as an entry of its
/// range's log, and as what the entry does.
fn turns(settings: &HotSettings, (taken, inside): (Load, Load), bytes: usize) -> u32 {
    let batches = taken.batches.saturating_add(inside.batches).saturating_add(1);
    let twice = inside.bytes.saturating_add(bytes).saturating_mul(2);
    let by_number = batches.div_ceil(settings.max_waiting.max(1));
    let by_bytes = taken.bytes.saturating_add(twice).div_ceil(settings.max_group_bytes.max(1));
    u32::try_from(by_number.max(by_bytes)).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Load = Load { batches: 0, bytes: 0 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn settings() -> HotSettings {
        HotSettings { max_waiting: 8, max_waiting_bytes: 200, max_group_bytes: 100, ..HotSettings::default() }
    }

    /// A disk whose last turns took so long, one after the other.
    fn took(turns: &[u64]) -> (Pace, Duration) {
        let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
        for took in turns {
            pace.begins(now);
            now += ms(*took);
            pace.ends(now, false);
        }
        (pace, now)
    }

    #[test]
    fn a_turn_takes_as_long_as_the_longest_of_the_last_few_or_the_one_under_way() {
        let (mut pace, now) = took(&[5, 90, 10, 20, 30]);
        assert_eq!(pace.turn(now), ms(90));
        pace.begins(now);
        pace.begins(now + ms(50));
        assert_eq!(pace.turn(now + ms(95)), ms(95), "it began when it began first");
        pace.ends(now + ms(95), true);
        let now = now + ms(95);
        assert_eq!(pace.turn(now + ms(100)), ms(100), "the next one began at once");
        pace.rests();
        assert_eq!(pace.turn(now + ms(100)), ms(95));
        let (pace, now) = took(&[90, 10, 10, 10, 10]);
        assert_eq!(pace.turn(now), ms(10), "a long one is forgotten");
        assert_eq!((pace.turn(now + RECENT), pace.turn(now + RECENT + ms(50))), (ms(10), Duration::ZERO));
    }

    #[test]
    fn what_waits_takes_as_many_turns_as_its_number_or_its_bytes_need() {
        let load = |batches, bytes| Load { batches, bytes };
        let turns = |taken, inside, bytes| turns(&settings(), (taken, inside), bytes);
        assert_eq!(turns(NOTHING, NOTHING, 1), 2, "the one under way and its own");
        assert_eq!(turns(load(3, 3), load(4, 4), 1), 2);
        assert_eq!(turns(load(4, 4), load(4, 4), 1), 3, "by number");
        assert_eq!(turns(load(1, 20), load(1, 30), 10), 2);
        assert_eq!(turns(load(1, 21), load(1, 30), 10), 3, "by bytes, and what is let in is written twice");
        assert_eq!(turns(load(1, usize::MAX), load(1, usize::MAX), usize::MAX), u32::MAX, "no end of it");
    }

    #[test]
    fn what_would_not_be_done_in_half_of_its_time_is_too_late_but_for_what_comes_where_nothing_waits() {
        let (pace, now) = took(&[500]);
        let late =
            |taken, inside, within| too_late(&pace, &settings(), (taken, inside), 1, (now, ms(within)));
        let one = Load { batches: 1, bytes: 1 };
        assert_eq!(late(one, NOTHING, 2_000), None);
        assert_eq!(late(one, NOTHING, 1_999), Some(ms(1_000)), "what the store has taken");
        assert_eq!(late(NOTHING, one, 1_999), Some(ms(1_000)), "what was let in and is not there yet");
        assert_eq!(late(NOTHING, NOTHING, 0), None, "a disk that was slow is tried again");
        let many = Load { batches: 32, bytes: 32 };
        assert_eq!(late(NOTHING, many, 5_000), Some(ms(3_000)));
        assert_eq!(late(NOTHING, Load { batches: 31, ..many }, 5_000), None);
        assert_eq!(late(many, many, u64::MAX), None, "who has no deadline");
    }
}
