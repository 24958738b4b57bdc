//! How many calls are let in at once, learned from how long they take.
//!
//! The rule is that of Netflix's concurrency-limits ("Gradient"): where calls take longer than they do alone, they wait for
//! each other, and the limit falls by that ratio; where they do not, it grows by the square root of itself, if it is used.
//! What a call takes alone is the least that was seen. It is learned anew while the limit is not used, and where so few as
//! the rule ever lets in take much longer for a while: then it is not for each other that they wait. An average, as in
//! "Gradient2", learns the overload instead.
//!
//! What cannot be done in the time that it has is turned away at once: where calls wait for each other, one more takes
//! the pace of the last look times all that are there (Little's law); where they do not, as long as alone. Where nobody
//! is there one is let in whatever was seen: so it is found out that they take less time again.
//!
//! A call that was cut by its deadline takes at least as long as it did: that lets the limit fall, and says nothing of
//! what one takes alone.
//!
//! * It decides: whether one more is let in, by its priority, for the lowest are turned away first, and by its time.
//! * Invariant: the limit stays within its bounds; what was let in is never more than it was at that moment.

use std::time::Duration;

use rhumb_core::Priority;

/// How a limit is learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LimitSettings {
    /// Where it begins.
    pub first: u32,
    /// Never fewer.
    pub least: u32,
    /// Never more.
    pub most: u32,
    /// How much longer than alone calls may take before the limit falls: 1.5 is half again.
    pub tolerance: f64,
    /// How far each look moves the limit, 0 to 1.
    pub smoothing: f64,
    /// Calls to a look.
    pub sample: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { first: 20, least: 1, most: 10_000, tolerance: 1.5, smoothing: 0.2, sample: 100 }
    }
}

/// What becomes of one more call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// It is let in, and must be reported to [`Limit::done`].
    Admitted,
    /// There is no room for it; there may be after about this time.
    Full(Duration),
    /// It would take longer than it has time: about so long.
    TooLate(Duration),
}

/// How long a call took from when it was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Took {
    /// So long, to its answer.
    Answered(Duration),
    /// At least so long: its deadline cut it.
    Cut(Duration),
    /// It says nothing: it was dropped, or never ran.
    Unknown,
}

/// Looks in a row after which it is believed that calls take longer for good.
const LOOKS: u32 = 20;
/// The limit to which the rule falls: half of it and its root are the whole of it.
const LOWEST: f64 = 4.5;
/// How many times as long as alone calls take at that limit where they only wait for each other, and one more.
const FOR_EACH_OTHER: f64 = 4.0;

/// The share of the limit that calls of a priority may take.
fn share(priority: Priority) -> f64 {
    match priority {
        Priority::Low => 0.5,
        Priority::Normal => 0.9,
        Priority::High => 1.0,
    }
}

/// A limit on calls at once.
#[derive(Debug, Clone)]
pub struct Limit {
    settings: LimitSettings,
    limit: f64,
    under_way: u32,
    /// What a call takes alone, in seconds.
    alone: Option<f64>,
    /// Since the last look: calls, their time in seconds, the least of one, and the most that were under way.
    calls: u32,
    seconds: f64,
    fastest: f64,
    peak: u32,
    /// Of all that were under way as each of these calls was done, the sum.
    levels: u64,
    /// Looks in a row at which even the fewest took much longer than alone.
    slower: u32,
    /// What each call that is there adds to the wait of the next one, in seconds; none where they do not wait for each
    /// other.
    pace: Option<f64>,
}

impl Limit {
    /// A limit that has learned nothing.
    #[must_use]
    pub fn new(settings: LimitSettings) -> Self {
        let limit = f64::from(settings.first.clamp(settings.least, settings.most));
        Self {
            settings,
            limit,
            under_way: 0,
            alone: None,
            calls: 0,
            seconds: 0.0,
            fastest: f64::MAX,
            peak: 0,
            levels: 0,
            slower: 0,
            pace: None,
        }
    }

    /// Lets one more in that has so much time, if there is room for its priority and it can be done.
    pub fn admit(&mut self, priority: Priority, left: Duration) -> Entry {
        // The least has room for somebody of every priority.
        let room = (self.limit * share(priority)).max(1.0);
        if f64::from(self.under_way) + 1.0 > room {
            return Entry::Full(self.drains());
        }
        let takes = self.takes();
        if takes > left && self.under_way > 0 {
            return Entry::TooLate(takes);
        }
        self.under_way += 1;
        self.peak = self.peak.max(self.under_way);
        Entry::Admitted
    }

    /// How long one more would take.
    fn takes(&self) -> Duration {
        let queued = self.pace.map(|pace| pace * f64::from(self.under_way + 1));
        Duration::from_secs_f64(queued.or(self.alone).unwrap_or_default())
    }

    /// How long what is under way takes.
    fn drains(&self) -> Duration {
        let queued = self.pace.map(|pace| pace * f64::from(self.under_way));
        Duration::from_secs_f64(queued.or(self.alone).unwrap_or_default())
    }

    /// One is over.
    pub fn done(&mut self, took: Took) {
        let level = self.under_way;
        self.under_way = self.under_way.saturating_sub(1);
        let seconds = match took {
            Took::Answered(took) => took.as_secs_f64(),
            Took::Cut(after) => after.as_secs_f64(),
            Took::Unknown => return,
        };
        self.levels += u64::from(level);
        self.calls += 1;
        self.seconds += seconds;
        if matches!(took, Took::Answered(_)) {
            self.fastest = self.fastest.min(seconds);
            self.alone = self.alone.map(|alone| alone.min(seconds));
        }
        if self.calls >= self.settings.sample.max(1) {
            self.look();
        }
    }

    /// How many are let in at once.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    fn look(&mut self) {
        let now = (self.seconds / f64::from(self.calls)).max(1e-9);
        // The fastest of a look waited for nobody, or for the fewest.
        let used = f64::from(self.peak) >= self.limit / 2.0;
        let fastest = (self.fastest < f64::MAX).then_some(self.fastest);
        let alone = match (self.alone, fastest) {
            (Some(_), Some(fastest)) if !used => Some(fastest),
            (Some(alone), Some(fastest)) => Some(alone.min(fastest)),
            (alone, fastest) => alone.or(fastest),
        };
        let lowest = self.limit <= LOWEST.max(f64::from(self.settings.least));
        let is_slower = lowest && alone.is_some_and(|alone| now > alone * FOR_EACH_OTHER);
        self.slower = if is_slower { self.slower + 1 } else { 0 };
        self.alone =
            if self.slower >= LOOKS { fastest.map(|fastest| fastest / 2.0).or(alone) } else { alone };
        // Where none was answered, it is as slow as can be.
        let alone = self.alone.unwrap_or_default();
        let level = (self.levels as f64 / f64::from(self.calls)).max(1.0);
        self.levels = 0;
        self.pace = (now > alone * self.settings.tolerance).then_some(now / level);
        (self.calls, self.seconds, self.fastest, self.peak) = (0, 0.0, f64::MAX, self.under_way);
        let gradient = (self.settings.tolerance * alone / now).clamp(0.5, 1.0);
        if gradient >= 1.0 && !used {
            return;
        }
        let wanted = self.limit * gradient + self.limit.sqrt();
        let limit = self.limit + (wanted - self.limit) * self.settings.smoothing;
        self.limit = limit.clamp(f64::from(self.settings.least), f64::from(self.settings.most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn admitted(limit: &mut Limit, priority: Priority, of: usize) -> usize {
        (0..of).filter(|_| limit.admit(priority, LONG) == Entry::Admitted).count()
    }

    /// A server of one thread that takes 200 µs a call, asked so many times a second for so many seconds: how many it
    /// answered, the 99th percentile of what was let in, and the limit in the end.
    fn serve(a_second: u64, seconds: u64) -> (u64, Duration, u32) {
        let (mut limit, service) = (Limit::new(LimitSettings::default()), 200_u64);
        let (mut free_at, mut waiting) = (0_u64, std::collections::VecDeque::new());
        let (mut took, end) = (Vec::new(), seconds * 1_000_000);
        for call in 0..a_second * seconds {
            let now = call * 1_000_000 / a_second;
            while waiting.front().is_some_and(|(_, done)| *done <= now) {
                let (came, done): (u64, u64) = waiting.pop_front().expect("it was seen");
                limit.done(Took::Answered(Duration::from_micros(done - came)));
                took.push(done - came);
            }
            if limit.admit(Priority::Normal, LONG) == Entry::Admitted {
                free_at = free_at.max(now) + service;
                waiting.push_back((now, free_at));
            }
        }
        // What is learned in the first fifth is not the result.
        let mut late: Vec<_> = took[took.len() / 5..].to_vec();
        late.sort_unstable();
        let served = took.len() as u64 * 1_000_000 / end;
        (served, Duration::from_micros(late[late.len() * 99 / 100]), limit.limit())
    }

    #[test]
    fn twice_the_capacity_leaves_the_goodput_and_bounds_the_wait() {
        let (peak, _, _) = serve(4_900, 10);
        let (served, p99, limit) = serve(10_000, 10);
        assert!(served * 100 >= peak * 90, "{served} of {peak} a second");
        let (_, alone, _) = serve(1_250, 10);
        assert!(p99 <= alone * 3, "{p99:?}, and {alone:?} at a quarter of the capacity; {limit} at once");
    }

    #[test]
    fn calls_that_take_longer_for_good_are_learned() {
        let mut limit = Limit::new(LimitSettings::default());
        let mut serve = |ms: u64, calls: u32| {
            for _ in 0..calls {
                // Sixteen at once do not wait for each other.
                let admitted = admitted(&mut limit, Priority::High, 16);
                (0..admitted).for_each(|_| limit.done(Took::Answered(Duration::from_millis(ms))));
            }
            limit.limit()
        };
        assert!(serve(1, 1_000) >= 16);
        assert!(serve(20, 20_000) >= 16, "that is how long they take now");
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow_and_one_that_is_does() {
        let mut limit = Limit::new(LimitSettings::default());
        for _ in 0..10_000 {
            assert_eq!(admitted(&mut limit, Priority::Normal, 1), 1);
            limit.done(Took::Answered(Duration::from_millis(1)));
        }
        assert_eq!(limit.limit(), 20);
        for _ in 0..1_000 {
            let admitted = admitted(&mut limit, Priority::High, 1_000);
            (0..admitted).for_each(|_| limit.done(Took::Answered(Duration::from_millis(1))));
        }
        assert!(limit.limit() > 200, "{}", limit.limit());
    }

    #[test]
    fn the_lowest_are_turned_away_first() {
        let mut limit = Limit::new(LimitSettings::default());
        let counts = [Priority::Low, Priority::Normal, Priority::High]
            .map(|priority| admitted(&mut limit, priority, 100));
        assert_eq!(counts, [10, 8, 2]);
        (0..20).for_each(|_| limit.done(Took::Unknown));
        assert_eq!(limit.under_way(), 0);
    }

    #[test]
    fn the_least_has_room_for_everybody() {
        let settings = LimitSettings { first: 1, least: 1, most: 1, ..LimitSettings::default() };
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            let mut limit = Limit::new(settings);
            assert_eq!(admitted(&mut limit, priority, 2), 1, "{priority:?}");
        }
    }

    #[test]
    fn what_cannot_be_done_in_its_time_is_turned_away_at_once() {
        let mut limit = Limit::new(LimitSettings::default());
        let ms = Duration::from_millis;
        assert_eq!(limit.admit(Priority::Normal, ms(0)), Entry::Admitted, "nothing is known yet");
        limit.done(Took::Answered(ms(10)));
        // Ten at once that do not wait for each other.
        for _ in 0..20 {
            let count = admitted(&mut limit, Priority::Normal, 10);
            (0..count).for_each(|_| limit.done(Took::Answered(ms(10))));
        }
        assert_eq!(admitted(&mut limit, Priority::Normal, 10), 10);
        assert_eq!(limit.admit(Priority::Normal, ms(5)), Entry::TooLate(ms(10)));
        assert_eq!(limit.admit(Priority::Normal, ms(11)), Entry::Admitted, "the others do not matter");
        (0..11).for_each(|_| limit.done(Took::Unknown));
        // Ten at once that do: the last takes as long as all.
        for _ in 0..20 {
            let count = admitted(&mut limit, Priority::High, 10);
            (1..=count as u64).for_each(|nth| limit.done(Took::Answered(ms(10 * nth))));
        }
        let there = admitted(&mut limit, Priority::Normal, 5) as u64;
        match limit.admit(Priority::High, ms(15)) {
            Entry::TooLate(takes) => assert!(takes >= ms(8 * (there + 1)), "{takes:?} behind {there}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(limit.admit(Priority::High, ms(500)), Entry::Admitted);
    }

    #[test]
    fn whatever_was_seen_one_is_let_in_where_nobody_is_and_what_is_fast_again_is_believed() {
        let ms = Duration::from_millis;
        for slow in [Took::Answered(ms(600)), Took::Cut(ms(600))] {
            let mut limit = Limit::new(LimitSettings::default());
            for _ in 0..400 {
                let count = admitted(&mut limit, Priority::Normal, 4);
                (0..count).for_each(|_| limit.done(slow));
            }
            // Those who come have less time than that; the handler is well again.
            for _ in 0..200 {
                assert_eq!(limit.admit(Priority::Normal, ms(500)), Entry::Admitted, "after {slow:?}");
                limit.done(Took::Answered(ms(1)));
            }
            for _ in 0..2 {
                assert_eq!(limit.admit(Priority::Normal, ms(500)), Entry::Admitted, "after {slow:?}");
            }
        }
    }

    #[test]
    fn where_all_are_cut_by_their_deadlines_fewer_are_let_in() {
        let mut limit = Limit::new(LimitSettings::default());
        for _ in 0..400 {
            let count = admitted(&mut limit, Priority::High, 16);
            (0..count).for_each(|_| limit.done(Took::Cut(Duration::from_millis(600))));
        }
        assert!(limit.limit() <= 5, "{}", limit.limit());
    }
}
