//! How often the same may be said.
//!
//! * It decides: whether a line is written, or counted and told later as so many repeats.
//! * It never does: keep an error back wholly: of those beyond the burst, the 1st, 2nd, 4th, 8th … is
//!   written, so that their number shows in the log while they go on.
//! * Invariant: what was not written is told, once its window has ended; at most [`MAX_SITES`] places are
//!   counted at a time, and a place for which there is no room is written as if it were the first.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Places that are counted at a time.
pub(super) const MAX_SITES: usize = 1_024;

/// How much one place may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Lines within a window.
    pub(super) burst: u32,
    /// How long a window lasts, from its first line on.
    pub(super) window: Duration,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Write,
    /// It is counted.
    Hold,
}

/// So many lines of a place were not written; what they said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated<W> {
    pub(super) times: u64,
    pub(super) what: W,
}

/// What was written and held back lately, by place. `W` is what is told of a place afterwards.
#[derive(Debug)]
pub(super) struct Repeats<P, W> {
    sites: HashMap<P, Site<W>>,
}

#[derive(Debug)]
struct Site<W> {
    began: Duration,
    seen: u64,
    held: Option<Repeated<W>>,
}

impl<P: Hash + Eq, W> Repeats<P, W> {
    pub(super) fn new() -> Self {
        Self { sites: HashMap::new() }
    }

    /// A place wants to write. `now` is any time that only rises; `what` is asked for when its first line
    /// within a window is held back. What has been held back of it before and is due goes to `told`.
    pub(super) fn wants(
        &mut self,
        now: Duration,
        place: P,
        is_error: bool,
        limits: Limits,
        what: impl FnOnce() -> W,
        told: &mut Vec<Repeated<W>>,
    ) -> Verdict {
        if self.sites.len() >= MAX_SITES && !self.sites.contains_key(&place) {
            self.due(now, limits, told);
            if self.sites.len() >= MAX_SITES {
                return Verdict::Write;
            }
        }
        let fresh = || Site { began: now, seen: 0, held: None };
        let site = self.sites.entry(place).or_insert_with(fresh);
        if now >= site.began + limits.window {
            told.extend(std::mem::replace(site, fresh()).held);
        }
        site.seen += 1;
        let beyond = site.seen.saturating_sub(u64::from(limits.burst));
        if beyond == 0 || (is_error && beyond.is_power_of_two()) {
            return Verdict::Write;
        }
        site.held.get_or_insert_with(|| Repeated { times: 0, what: what() }).times += 1;
        Verdict::Hold
    }

    /// Forgets the places whose window has ended. What was held back of them goes to `told`.
    pub(super) fn due(&mut self, now: Duration, limits: Limits, told: &mut Vec<Repeated<W>>) {
        self.sites.retain(|_, site| {
            let goes_on = now < site.began + limits.window;
            if !goes_on {
                told.extend(site.held.take());
            }
            goes_on
        });
    }

    /// Forgets all places.
    pub(super) fn end(&mut self, told: &mut Vec<Repeated<W>>) {
        told.extend(self.sites.drain().filter_map(|(_, site)| site.held));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { burst: 3, window: Duration::from_secs(10) };

    /// Writes at these seconds, and gives `w` or `h` for each line, with what was told before it.
    fn run(is_error: bool, at: impl IntoIterator<Item = u64>) -> String {
        let (mut repeats, mut story) = (Repeats::new(), String::new());
        for second in at {
            let (now, mut told) = (Duration::from_secs(second), Vec::new());
            let verdict = repeats.wants(now, "here", is_error, LIMITS, || second, &mut told);
            for Repeated { times, what } in told {
                story.push_str(&format!("({times} since {what})"));
            }
            story.push(if verdict == Verdict::Write { 'w' } else { 'h' });
        }
        story
    }

    #[test]
    fn a_burst_is_written_and_the_rest_is_told_when_the_window_has_ended() {
        assert_eq!(run(false, [0, 0, 0]), "www");
        assert_eq!(run(false, [0, 1, 2, 3, 4, 9, 10, 11]), "wwwhhh(3 since 3)ww");
        assert_eq!(run(false, [0, 20, 40, 60, 80]), "wwwww", "what is rare is always written");
    }

    #[test]
    fn errors_are_never_held_back_wholly() {
        assert_eq!(run(true, [1; 12]), "wwwwwhwhhhwh");
    }

    #[test]
    fn a_place_that_falls_silent_is_told_too() {
        let (mut repeats, mut told) = (Repeats::new(), Vec::new());
        for _ in 0..10 {
            repeats.wants(Duration::ZERO, "here", false, LIMITS, || "so", &mut told);
        }
        repeats.due(Duration::from_secs(9), LIMITS, &mut told);
        assert_eq!(told, [], "its window goes on");
        repeats.due(Duration::from_secs(10), LIMITS, &mut told);
        repeats.due(Duration::from_secs(99), LIMITS, &mut told);
        assert_eq!(told, [Repeated { times: 7, what: "so" }], "once");
    }

    #[test]
    fn places_are_counted_one_by_one_and_the_end_tells_all() {
        let (mut repeats, mut told) = (Repeats::new(), Vec::new());
        for place in 0..5 {
            for _ in 0..place {
                repeats.wants(Duration::ZERO, place, false, LIMITS, || place, &mut told);
            }
        }
        repeats.end(&mut told);
        assert_eq!(told, [Repeated { times: 1, what: 4 }]);
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered_and_no_line_is_lost_beyond_it() {
        let (mut repeats, mut told) = (Repeats::new(), Vec::new());
        let mut write = |repeats: &mut Repeats<usize, ()>, second, place| {
            repeats.wants(Duration::from_secs(second), place, false, LIMITS, || (), &mut told)
        };
        for place in 0..MAX_SITES {
            write(&mut repeats, 0, place);
        }
        for _ in 0..100 {
            assert_eq!(write(&mut repeats, 1, MAX_SITES), Verdict::Write);
        }
        assert_eq!(repeats.sites.len(), MAX_SITES);
        write(&mut repeats, 11, MAX_SITES);
        assert_eq!(repeats.sites.len(), 1, "old windows make room");
    }
}
