//! Which of several equal targets: the cheaper of two drawn at random (Mitzenmacher, "The power of two choices in
//! randomized load balancing", 2001), by a cost that rises at once with a slow answer and falls slowly, times what is
//! under way there (peak EWMA, as in finagle and linkerd).
//!
//! * It decides: which target.
//! * It never does: leave all targets out, or let a fast failure look cheap: a failure counts as a very slow answer.

use std::time::Duration;

use rhumb_core::Mono;
use rhumb_core::rng::Rng;

/// What is assumed of a target that has answered nothing yet.
pub const UNKNOWN: Duration = Duration::from_secs(1);
/// What a failure counts as, at least.
pub const PENALTY: Duration = Duration::from_secs(5);
/// What a failure counts as, at most, whatever its target says about when to ask again.
pub const LONGEST_PENALTY: Duration = Duration::from_secs(300);
/// What a refusal for want of room counts as, at least; at most as a failure does, at least.
pub const REFUSED: Duration = Duration::from_millis(10);
/// After this time an answer counts a third (1/e) of what it did.
pub const DECAY: Duration = Duration::from_secs(10);

/// What asking one target costs.
#[derive(Debug, Clone)]
pub struct Cost {
    seconds: f64,
    at: Mono,
    pending: u32,
    known: bool,
    /// How many askers in a row have left without an answer.
    left: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { seconds: UNKNOWN.as_secs_f64(), at: Mono::default(), pending: 0, known: false, left: 0 }
    }
}

impl Cost {
    /// It is asked.
    pub fn asked(&mut self) {
        self.pending += 1;
    }

    /// It has answered, after so long.
    pub fn answered(&mut self, now: Mono, took: Duration) {
        self.pending = self.pending.saturating_sub(1);
        self.notes(now, took);
    }

    /// It failed, and may have said when to ask again.
    pub fn failed(&mut self, now: Mono, again: Option<Duration>) {
        self.pending = self.pending.saturating_sub(1);
        self.notes(now, again.unwrap_or_default().clamp(PENALTY, LONGEST_PENALTY));
    }

    /// It had no room, and said when to ask again: nothing of how long it takes, but that it is no better than that.
    pub fn refused(&mut self, now: Mono, again: Option<Duration>) {
        self.pending = self.pending.saturating_sub(1);
        let again = again.unwrap_or_default().clamp(REFUSED, PENALTY).as_secs_f64();
        let seconds = self.decayed(now).max(again);
        (self.seconds, self.at, self.known, self.left) = (seconds, now, true, 0);
    }

    /// Its asker has gone after this time: it takes at least so long, and twice that with each further one in a row,
    /// up to [`PENALTY`]. Less than it was to take says nothing; but what has been left twice and has answered nothing
    /// is no longer untried, or whoever drops his asks would choose it for ever.
    pub fn left(&mut self, now: Mono, took: Duration) {
        self.pending = self.pending.saturating_sub(1);
        let took = took.as_secs_f64();
        let doubled = took * f64::from(1_u32 << self.left.min(16));
        let costs = doubled.min(PENALTY.as_secs_f64()).max(took);
        if costs > self.decayed(now) {
            (self.seconds, self.at, self.known) = (costs, now, true);
        } else if !self.known && self.left > 0 {
            (self.at, self.known) = (now, true);
        }
        self.left = self.left.saturating_add(1);
    }

    /// It is another one now, or reached another way: nothing is known of it but what is under way.
    pub fn forget(&mut self) {
        *self = Self { pending: self.pending, ..Self::default() };
    }

    /// What asking it costs now.
    #[must_use]
    pub fn now(&self, now: Mono) -> f64 {
        self.decayed(now) * f64::from(self.pending + 1)
    }

    /// It has answered nothing yet, and is not asked now.
    #[must_use]
    pub fn is_untried(&self) -> bool {
        !self.known && self.pending == 0
    }

    /// How much is under way there.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending
    }

    fn notes(&mut self, now: Mono, took: Duration) {
        let (took, before) = (took.as_secs_f64(), self.seconds);
        let weight = (-now.since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp();
        let mean = before * weight + took * (1.0 - weight);
        // A slow answer counts in full at once; the first one replaces what was assumed.
        self.seconds = if self.known { mean.max(took) } else { took };
        (self.at, self.known, self.left) = (now, true, 0);
    }

    /// A target that nobody asks gets cheaper with time, or it would never be asked again.
    fn decayed(&self, now: Mono) -> f64 {
        let weight = (-now.since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp();
        if self.known { self.seconds * weight.max(1e-6) } else { self.seconds }
    }
}

/// One of several equal targets.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What it costs.
    pub cost: &'a Cost,
    /// It stands in the caller's own region.
    pub is_near: bool,
    /// Its breaker lets calls through.
    pub is_open: bool,
}

/// How much cheaper than the near ones a far one must be to be asked instead.
pub const SPILL: f64 = 4.0;

/// Those that may be asked: those that are open, and where these are fewer than half, the cheapest of the others
/// besides: who fails is left out, but never more than half of all, or the rest would fail under the load.
fn eligible(candidates: &[Candidate<'_>], now: Mono) -> Vec<bool> {
    let mut eligible: Vec<bool> = candidates.iter().map(|one| one.is_open).collect();
    let open = eligible.iter().filter(|open| **open).count();
    let mut shut: Vec<usize> = (0..candidates.len()).filter(|at| !eligible[*at]).collect();
    shut.sort_by(|a, b| candidates[*a].cost.now(now).total_cmp(&candidates[*b].cost.now(now)));
    for at in shut.into_iter().take(candidates.len().div_ceil(2).saturating_sub(open)) {
        eligible[at] = true;
    }
    eligible
}

/// Chooses one; `None` where there is none. Near ones come first, unless none of them may be asked or the cheapest far
/// one costs [`SPILL`] times less.
pub fn choose(candidates: &[Candidate<'_>], now: Mono, rng: &mut Rng) -> Option<usize> {
    let eligible = eligible(candidates, now);
    let with = |near: bool| -> Vec<usize> {
        (0..candidates.len()).filter(|at| candidates[*at].is_near == near && eligible[*at]).collect()
    };
    let (near, far) = (with(true), with(false));
    let cheapest = |of: &[usize]| of.iter().map(|at| candidates[*at].cost.now(now)).min_by(f64::total_cmp);
    let untried = |of: &[usize]| of.iter().copied().find(|at| candidates[*at].cost.is_untried());
    // What is assumed of one near by is no reason to go far: it is asked, and then known.
    if let Some(untried) = untried(&near) {
        return Some(untried);
    }
    let spills = match (cheapest(&near), cheapest(&far)) {
        (Some(near), Some(far)) => far * SPILL < near,
        (near, _) => near.is_none(),
    };
    let of = if spills { far } else { near };
    // What is assumed of it would keep it from ever being asked beside one that is fast.
    if let Some(untried) = untried(&of) {
        return Some(untried);
    }
    let draw = |rng: &mut Rng, below: usize| rng.below(below as u64) as usize;
    match of.len() {
        0 => None,
        1 => Some(of[0]),
        count => {
            let first = draw(rng, count);
            let second = (first + 1 + draw(rng, count - 1)) % count;
            let (first, second) = (of[first], of[second]);
            let dearer = candidates[second].cost.now(now) < candidates[first].cost.now(now);
            Some(if dearer { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::*;

    fn cost(took_ms: u64, pending: u32) -> Cost {
        let mut cost = Cost::default();
        cost.answered(Mono::millis(0), Duration::from_millis(took_ms));
        (0..pending).for_each(|_| cost.asked());
        cost
    }

    /// How often each of these is chosen, of a thousand times.
    fn shares(of: &[(Cost, bool, bool)]) -> Vec<usize> {
        let mut rng = Seed::new(7).rng();
        let candidates: Vec<_> = of
            .iter()
            .map(|(cost, is_near, is_open)| Candidate { cost, is_near: *is_near, is_open: *is_open })
            .collect();
        let mut shares = vec![0; of.len()];
        for _ in 0..1_000 {
            shares[choose(&candidates, Mono::millis(0), &mut rng).expect("one")] += 1;
        }
        shares
    }

    #[test]
    fn the_dearest_of_several_is_never_chosen_and_equals_share() {
        let shares_of =
            shares(&[(cost(10, 0), true, true), (cost(10, 0), true, true), (cost(10, 9), true, true)]);
        assert_eq!(shares_of[2], 0);
        assert!(shares_of[0] > 300 && shares_of[1] > 300, "{shares_of:?}");
    }

    #[test]
    fn near_ones_come_first_until_they_are_much_dearer_or_shut() {
        assert_eq!(shares(&[(cost(30, 0), true, true), (cost(10, 0), false, true)]), [1_000, 0]);
        assert_eq!(
            shares(&[(cost(50, 0), true, true), (cost(10, 0), false, true)]),
            [0, 1_000],
            "five times"
        );
        assert_eq!(shares(&[(cost(1, 0), true, false), (cost(10, 0), false, true)]), [0, 1_000], "shut");
        assert_eq!(
            shares(&[(cost(1, 0), true, false), (cost(10, 0), false, false)]),
            [1_000, 0],
            "all are shut"
        );
        assert_eq!(choose(&[], Mono::millis(0), &mut Seed::new(1).rng()), None);
    }

    #[test]
    fn one_that_was_never_asked_is_asked_before_the_others_near_it_and_once() {
        let (fast, mut fresh, now) = (cost(1, 0), Cost::default(), Mono::millis(0));
        let mut rng = Seed::new(7).rng();
        let at = |fresh: &Cost, is_near, rng: &mut Rng| {
            let one = |cost, is_near| Candidate { cost, is_near, is_open: true };
            choose(&[one(&fast, true), one(fresh, is_near)], now, rng)
        };
        assert_eq!(at(&fresh, true, &mut rng), Some(1));
        assert_eq!(at(&fresh, false, &mut rng), Some(0), "it is no reason to go far");
        let far_and = |fresh: &Cost, rng: &mut Rng| {
            let one = |cost, is_near| Candidate { cost, is_near, is_open: true };
            choose(&[one(&fast, false), one(fresh, true)], now, rng)
        };
        assert_eq!(far_and(&fresh, &mut rng), Some(1), "a fast one elsewhere is no reason not to ask it");
        fresh.asked();
        assert_eq!(at(&fresh, true, &mut rng), Some(0), "not all at once");
        assert_eq!(far_and(&fresh, &mut rng), Some(0), "nor here");
    }

    #[test]
    fn never_more_than_half_are_left_out() {
        let shut = |took| (cost(took, 0), true, false);
        let shares_of = shares(&[shut(1), shut(9), shut(3), (cost(2, 0), true, true)]);
        assert!(shares_of[0] > 900, "the cheapest of those that fail is asked beside the one that does not");
        assert_eq!((shares_of[1], shares_of[2]), (0, 0));
        let shares_of = shares(&[shut(1), (cost(5, 0), true, true), (cost(5, 0), true, true)]);
        assert_eq!(shares_of[0], 0, "a third is left out");
    }

    #[test]
    fn a_failure_is_dear_however_fast_it_came_and_is_forgiven_in_time() {
        let (mut failing, well) = (cost(1, 0), cost(100, 0));
        failing.asked();
        failing.failed(Mono::millis(1), None);
        let at = |ms| failing.now(Mono::millis(ms)) > well.now(Mono::millis(ms));
        assert!(at(1) && at(10_000), "no black hole");
        let again = Mono::millis(60_000);
        assert!(failing.now(again) < 0.02, "it is tried again: {}", failing.now(again));
        failing.failed(again, Some(Duration::from_secs(3_600)));
        assert!(failing.now(again) <= LONGEST_PENALTY.as_secs_f64());
        failing.forget();
        assert!(failing.is_untried(), "another one in its place is asked at once");
    }

    #[test]
    fn a_refusal_for_want_of_room_costs_what_it_says_and_who_is_left_is_not_fast() {
        let now = Mono::millis(0);
        let (mut busy, mut slow) = (cost(2, 1), cost(500, 1));
        busy.refused(now, Some(Duration::from_millis(40)));
        assert!((0.04..0.05).contains(&busy.now(now)), "no failure's price: {}", busy.now(now));
        slow.refused(now, Some(Duration::from_millis(40)));
        assert!(slow.now(now) >= 0.5, "nor does it look fast");
        let (mut fresh, mut known) = (Cost::default(), cost(100, 1));
        fresh.asked();
        fresh.left(now, Duration::from_micros(100));
        assert!(fresh.is_untried(), "nothing is known of it");
        known.left(now, Duration::from_millis(1));
        assert!(known.now(now) >= 0.1, "a hedge that was cancelled at once is no fast answer");
        let mut silent = cost(1, 1);
        silent.left(now, Duration::from_millis(300));
        assert!(silent.now(now) >= 0.3, "who let others wait is dearer");
    }

    #[test]
    fn who_drops_all_asks_of_a_hung_target_near_by_asks_another() {
        let mut rng = Seed::new(7).rng();
        for waits in [1, 50, 300, 2_000] {
            for known in [false, true] {
                // It hangs from the first ask on, or did well until then.
                let mut hung = if known { cost(1, 0) } else { Cost::default() };
                let far = cost(100, 0);
                let mut asked_far = 0;
                for nth in 0..10 {
                    let now = Mono::millis(nth * waits);
                    let one = |cost, is_near| Candidate { cost, is_near, is_open: true };
                    if choose(&[one(&hung, true), one(&far, false)], now, &mut rng) == Some(1) {
                        asked_far += 1;
                        continue;
                    }
                    hung.asked();
                    hung.left(Mono::millis((nth + 1) * waits), Duration::from_millis(waits));
                }
                // Who leaves at once of one that answers in 1 ms has waited for nothing.
                let least = if known && waits == 1 { 0 } else { 1 };
                assert!(asked_far >= least, "{waits} ms, known: {known}: the other is never chosen");
            }
        }
        let mut well = Cost::default();
        (0..3).for_each(|nth| well.left(Mono::millis(nth), Duration::from_secs(2)));
        assert!(well.now(Mono::millis(3)) >= 4.9 && well.now(Mono::millis(3)) <= PENALTY.as_secs_f64());
        well.answered(Mono::millis(100_000), Duration::from_millis(1));
        well.left(Mono::millis(100_001), Duration::from_millis(10));
        assert!(well.now(Mono::millis(100_001)) < 0.011, "an answer ends the row");
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_only_slowly() {
        let mut cost = cost(10, 0);
        cost.answered(Mono::millis(100), Duration::from_millis(500));
        assert!(cost.now(Mono::millis(100)) >= 0.5);
        cost.answered(Mono::millis(200), Duration::from_millis(10));
        assert!(cost.now(Mono::millis(200)) > 0.45, "one fast answer does not make it fast");
        for ms in 0..600 {
            cost.answered(Mono::millis(200 + ms * 100), Duration::from_millis(10));
        }
        assert!(cost.now(Mono::millis(60_200)) < 0.02, "many do");
    }
}
