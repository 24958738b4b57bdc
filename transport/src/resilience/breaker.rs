//! A circuit breaker: a target that fails is left alone for a while, then asked once.
//!
//! As linkerd's unified breaker: it trips on a run of failures, or when too few of the calls of the last window
//! succeeded, counted exactly over a ring of buckets and not before there were enough. Refusals for want of room count
//! against that share and not against the run, for a busy target is not a dead one; and a probe that is refused so has
//! failed. What is told and taken counts for that share and does not end a run: a mailbox takes what its handler never
//! answers.
//!
//! * It decides: whether a call is made, is the probe, or is refused.
//! * Invariant: while it is shut, at most one call is under way through it.

use std::time::Duration;

use rhumb_core::Mono;

const BUCKETS: usize = 10;

/// When a breaker trips, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// So many failures in a row.
    pub run: u32,
    /// Or a smaller share of successes than this, 0 to 1.
    pub least_success: f64,
    /// Among at least so many calls.
    pub least_calls: u32,
    /// Within this time.
    pub window: Duration,
    /// How long it is shut at first; twice as long each time that the probe fails.
    pub shut: Duration,
    /// How long at most.
    pub longest: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            run: 7,
            least_success: 0.5,
            least_calls: 20,
            window: Duration::from_secs(10),
            shut: Duration::from_secs(1),
            longest: Duration::from_secs(10),
        }
    }
}

/// How a call went, as far as its target's health goes. A typed refusal of a handler is a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Went {
    /// It was answered.
    Well,
    /// It was taken, and nobody waits for an answer: what was told says nothing of those that are.
    Taken,
    /// It could not be reached, did not answer in time, or broke down.
    Badly,
    /// It had no room.
    Refused,
}

impl Went {
    fn is_well(self) -> bool {
        matches!(self, Self::Well | Self::Taken)
    }
}

/// Why a breaker tripped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tripped {
    /// A run of failures.
    Run,
    /// Too few successes.
    Share,
    /// The probe failed.
    Probe,
}

/// Whether a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Yes.
    Open,
    /// Yes, and whether the breaker opens depends on it.
    Probe,
    /// No; not before so long.
    Shut(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open { run: u32 },
    Shut { until: Mono, times: u32 },
    Probing { since: Mono, times: u32 },
}

/// The breaker of one target.
#[derive(Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    /// Calls and successes, by bucket of the window.
    buckets: [(u32, u32); BUCKETS],
    newest: u64,
}

impl Breaker {
    /// An open one.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Open { run: 0 }, buckets: [(0, 0); BUCKETS], newest: 0 }
    }

    /// Whether a call may be made. Every call that may must be reported to [`Breaker::went`].
    pub fn passage(&mut self, now: Mono) -> Passage {
        match self.state {
            State::Open { .. } => Passage::Open,
            State::Shut { until, .. } if now < until => Passage::Shut(until.since(now)),
            State::Shut { times, .. } => {
                self.state = State::Probing { since: now, times };
                Passage::Probe
            }
            // A probe of which nothing was heard for the longest time counts no more.
            State::Probing { since, times } if now.since(since) >= self.settings.longest => {
                self.state = State::Probing { since: now, times };
                Passage::Probe
            }
            State::Probing { .. } => Passage::Shut(self.settings.shut),
        }
    }

    /// How a call went. Gives the reason if the breaker trips; then it draws a number from 0 to 1, once.
    pub fn went(
        &mut self,
        now: Mono,
        passage: Passage,
        went: Went,
        draw: impl FnOnce() -> f64,
    ) -> Option<Tripped> {
        match (self.state, passage) {
            (State::Probing { .. }, Passage::Probe) if went.is_well() => {
                self.reset();
                None
            }
            (State::Probing { times, .. }, Passage::Probe) => {
                self.shut(now, times + 1, draw());
                Some(Tripped::Probe)
            }
            (State::Open { run }, _) => {
                let tripped = self.count(now, run, went)?;
                self.shut(now, 0, draw());
                Some(tripped)
            }
            // A call from before it tripped.
            _ => None,
        }
    }

    /// A call that was let through says nothing of the target: its asker has gone, or it never left. If it was the
    /// probe, the next call is.
    pub fn said_nothing(&mut self, now: Mono, passage: Passage) {
        if let (State::Probing { times, .. }, Passage::Probe) = (self.state, passage) {
            self.state = State::Shut { until: now, times };
        }
    }

    /// Something else has shown that the target is well, or that it is another one now: what was counted is void.
    pub fn reset(&mut self) {
        self.buckets = [(0, 0); BUCKETS];
        self.state = State::Open { run: 0 };
    }

    /// Whether a call would be let through now, if only as the probe.
    #[must_use]
    pub fn would_pass(&self, now: Mono) -> bool {
        match self.state {
            State::Open { .. } => true,
            State::Shut { until, .. } => now >= until,
            State::Probing { since, .. } => now.since(since) >= self.settings.longest,
        }
    }

    /// Whether calls are let through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    fn count(&mut self, now: Mono, run: u32, went: Went) -> Option<Tripped> {
        let run = match went {
            Went::Well => 0,
            Went::Badly => run + 1,
            Went::Taken | Went::Refused => run,
        };
        self.state = State::Open { run };
        let bucket = self.bucket(now);
        bucket.0 += 1;
        bucket.1 += u32::from(went.is_well());
        if went.is_well() {
            return None;
        }
        let (calls, well) =
            self.buckets.iter().fold((0, 0), |(calls, well), bucket| (calls + bucket.0, well + bucket.1));
        let settings = &self.settings;
        if run >= settings.run.max(1) {
            return Some(Tripped::Run);
        }
        let few = f64::from(well) < f64::from(calls) * settings.least_success;
        (few && calls >= settings.least_calls).then_some(Tripped::Share)
    }

    fn bucket(&mut self, now: Mono) -> &mut (u32, u32) {
        let width = (self.settings.window / BUCKETS as u32).max(Duration::from_millis(1));
        let number = (now.0.as_micros() / width.as_micros()) as u64;
        let number = number.max(self.newest);
        for passed in (self.newest + 1..=number).take(BUCKETS) {
            self.buckets[passed as usize % BUCKETS] = (0, 0);
        }
        if number - self.newest >= BUCKETS as u64 {
            self.buckets = [(0, 0); BUCKETS];
        }
        self.newest = number;
        &mut self.buckets[number as usize % BUCKETS]
    }

    /// Half of the time is fixed and half is drawn, so that those who watch one target do not all probe it at once.
    fn shut(&mut self, now: Mono, times: u32, drawn: f64) {
        let whole = self.settings.shut.saturating_mul(1 << times.min(20)).min(self.settings.longest);
        let wait = whole / 2 + (whole / 2).mul_f64(drawn);
        self.state = State::Shut { until: now.plus(wait), times };
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::*;

    /// Plays a story: `ok`, `bad`, `full` and `taken` are calls, `+MS` lets time pass; gives what became of each call.
    fn play(story: &str) -> String {
        let mut breaker = Breaker::new(BreakerSettings::default());
        let (mut now, mut rng, mut told) = (0, Seed::new(1).rng(), Vec::new());
        for word in story.split_whitespace() {
            if let Some(ms) = word.strip_prefix('+') {
                now += ms.parse::<u64>().expect("milliseconds");
                continue;
            }
            let (word, times) =
                word.split_once('*').map_or((word, 1), |(w, n)| (w, n.parse().expect("a number")));
            for _ in 0..times {
                let passage = breaker.passage(Mono::millis(now));
                let went = match word {
                    "ok" => Went::Well,
                    "bad" => Went::Badly,
                    "full" => Went::Refused,
                    "taken" => Went::Taken,
                    other => panic!("{other}?"),
                };
                told.push(match passage {
                    Passage::Shut(_) => "shut".to_owned(),
                    passage => match breaker.went(Mono::millis(now), passage, went, || rng.unit()) {
                        None => format!("{passage:?}"),
                        Some(tripped) => format!("{passage:?}:{tripped:?}"),
                    },
                });
            }
        }
        told.dedup();
        told.join(" ")
    }

    #[test]
    fn a_run_of_failures_trips_it_and_one_probe_opens_it() {
        assert_eq!(play("ok bad*7 ok +400 ok +700 ok ok"), "Open Open:Run shut Probe Open");
        assert_eq!(play("bad*6 ok bad*6 ok"), "Open", "a success ends the run");
        assert_eq!(play("bad*6 taken*9 bad ok"), "Open Open:Run shut", "what a mailbox takes does not");
        assert_eq!(play("bad*7 +1000 taken ok"), "Open Open:Run Probe Open", "nothing else may be sent");
    }

    #[test]
    fn a_probe_that_fails_shuts_it_for_longer() {
        assert_eq!(play("bad*7 +1000 bad +900 ok +1100 ok ok"), "Open Open:Run Probe:Probe shut Probe Open");
        assert_eq!(
            play("bad*7 +1000 full +900 ok"),
            "Open Open:Run Probe:Probe shut",
            "no room is no success"
        );
    }

    #[test]
    fn too_few_successes_trip_it_and_old_ones_do_not_count() {
        assert_eq!(play("full*20 ok"), "Open Open:Share shut");
        assert_eq!(play("full*19"), "Open", "not among so few");
        assert_eq!(play("ok*30 +11000 full*20 ok"), "Open Open:Share shut", "what was well is long ago");
        assert_eq!(play("ok*30 +5000 full*20 ok"), "Open", "three of five are well");
    }

    #[test]
    fn while_one_probes_the_others_are_refused() {
        let (mut breaker, mut rng) = (Breaker::new(BreakerSettings::default()), Seed::new(2).rng());
        for _ in 0..7 {
            breaker.went(Mono::millis(0), Passage::Open, Went::Badly, || rng.unit());
        }
        let now = Mono::millis(1_000);
        assert_eq!(breaker.passage(now), Passage::Probe);
        assert!(matches!(breaker.passage(now), Passage::Shut(_)));
        assert_eq!(
            breaker.went(now, Passage::Open, Went::Badly, || rng.unit()),
            None,
            "an old call is no probe"
        );
        breaker.said_nothing(now, Passage::Open);
        assert!(matches!(breaker.passage(now), Passage::Shut(_)), "nor does it give up the probe");
        breaker.said_nothing(now, Passage::Probe);
        assert_eq!(breaker.passage(now), Passage::Probe, "the next is the probe");
        assert_eq!(breaker.passage(Mono::millis(11_000)), Passage::Probe, "the probe was lost");
        breaker.reset();
        assert!(breaker.is_open());
    }

    #[test]
    fn half_of_the_time_that_it_is_shut_is_drawn() {
        for (drawn, want) in [(0.0, 500), (0.5, 750), (1.0, 1_000)] {
            let mut breaker = Breaker::new(BreakerSettings::default());
            for _ in 0..7 {
                breaker.went(Mono::millis(0), Passage::Open, Went::Badly, || drawn);
            }
            assert_eq!(breaker.passage(Mono::millis(0)), Passage::Shut(Duration::from_millis(want)));
        }
    }

    #[test]
    fn it_is_never_shut_for_longer_than_it_may_be() {
        let (mut breaker, mut rng) = (Breaker::new(BreakerSettings::default()), Seed::new(3).rng());
        let mut now = Mono::millis(0);
        for _ in 0..7 {
            breaker.went(now, Passage::Open, Went::Badly, || rng.unit());
        }
        for _ in 0..40 {
            let Passage::Shut(wait) = breaker.passage(now) else { panic!("it is shut") };
            assert!(wait <= Duration::from_secs(10), "{wait:?}");
            now = now.plus(wait);
            let probe = breaker.passage(now);
            assert_eq!(probe, Passage::Probe);
            breaker.went(now, probe, Went::Badly, || rng.unit());
        }
    }
}
