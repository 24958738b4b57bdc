//! Whether a node may start at once, or has died so often lately that it waits first.
//!
//! * It decides: what counts as an abnormal end, how many of them are too many, and how long to wait.
//! * It never does: read a clock, wait, or forbid a start. The wait is bounded.
//! * Invariant: only a stop that was asked for clears the count; a life that left no word (a kill, a power
//!   cut) counts as one that failed.

use std::time::Duration;

use rhumb_core::rng::Rng;
use serde::{Deserialize, Serialize};

/// The first wait; it doubles with each further end.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Ends that are kept.
const MAX_ENDS: usize = 64;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 2_048;

/// When a start waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashSettings {
    /// So many abnormal ends within the window are too many.
    pub crashes: u64,
    /// Ends that lie further back are forgotten.
    pub window: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for CrashSettings {
    fn default() -> Self {
        Self { crashes: 3, window: Duration::from_secs(600), longest: Duration::from_secs(60) }
    }
}

/// How the last life stands, as it is kept in the data directory. Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStop {
    /// How the last life stands.
    pub state: State,
    /// Since when.
    pub at_ms: u64,
    /// Why it ended abnormally; none where it left no word, or did not.
    #[serde(default)]
    pub why: Option<String>,
    /// Of a life that runs: why the one before it ended abnormally; none where it did not.
    #[serde(default)]
    pub before: Option<String>,
    /// The abnormal ends of late, the oldest first.
    #[serde(default)]
    pub ends_ms: Vec<u64>,
}

/// How a life stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was asked to stop, and did; or there was none yet.
    #[default]
    Stopped,
    /// It began, and said nothing since.
    Running,
    /// It ended by itself.
    Failed,
}

/// A wait before a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pause {
    /// How long.
    pub(crate) wait: Duration,
    /// Abnormal ends within the window.
    pub(crate) ends: usize,
    /// The last one's reason.
    pub(crate) why: String,
}

impl LastStop {
    /// A life wants to begin: counts the end of the last one, and says whether to wait first.
    pub(crate) fn wanted(
        mut self,
        now_ms: u64,
        settings: &CrashSettings,
        rng: &mut Rng,
    ) -> (Self, Option<Pause>) {
        if self.state == State::Running {
            self = Self { why: None, before: None, ..self }.ended(now_ms);
        }
        let window = settings.window.as_millis() as u64;
        // An end in the future is one of before the clock was set back: nothing is known of it.
        self.ends_ms.retain(|end| now_ms.checked_sub(*end).is_some_and(|age| age <= window));
        let ends = self.ends_ms.len();
        let over = (ends as u64).checked_sub(settings.crashes);
        let pause = over.map(|over| Pause {
            wait: jittered(wait(over, settings.longest), rng),
            ends,
            why: self.reason(),
        });
        (self, pause)
    }

    /// It begins.
    pub(crate) fn begun(self, now_ms: u64) -> Self {
        let before = (self.state == State::Failed).then(|| self.reason());
        Self { state: State::Running, at_ms: now_ms, why: None, before, ..self }
    }

    /// It ended by itself, for this reason.
    pub(crate) fn failed(self, now_ms: u64, why: &str) -> Self {
        let why = why.chars().take(MAX_REASON).collect();
        Self { why: Some(why), before: None, ..self }.ended(now_ms)
    }

    /// It stopped as it was asked to.
    pub(crate) fn stopped(now_ms: u64) -> Self {
        Self { state: State::Stopped, at_ms: now_ms, ..Self::default() }
    }

    /// Why the last life ended abnormally.
    fn reason(&self) -> String {
        self.why.clone().unwrap_or_else(|| NO_WORD.to_owned())
    }

    fn ended(mut self, now_ms: u64) -> Self {
        self.ends_ms.push(now_ms);
        let surplus = self.ends_ms.len().saturating_sub(MAX_ENDS);
        self.ends_ms.drain(..surplus);
        Self { state: State::Failed, at_ms: now_ms, ..self }
    }
}

const NO_WORD: &str = "it left no word: it was killed, or its machine stopped";

/// Doubled with each end over the bound.
fn wait(over: u64, longest: Duration) -> Duration {
    let doubled = u32::try_from(over).ok().and_then(|over| 2u32.checked_pow(over));
    doubled.and_then(|factor| FIRST_WAIT.checked_mul(factor)).map_or(longest, |wait| wait.min(longest))
}

/// From half of it to all of it, so that nodes that died together do not start together.
fn jittered(wait: Duration, rng: &mut Rng) -> Duration {
    wait / 2 + (wait / 2).mul_f64(rng.unit())
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::*;

    const SECOND: u64 = 1_000;

    fn settings() -> CrashSettings {
        CrashSettings::default()
    }

    /// The wait of a start at a time, and the record after it.
    fn start(last: LastStop, at: u64) -> (LastStop, Option<Pause>) {
        let (last, pause) = last.wanted(at * SECOND, &settings(), &mut Seed::new(1).rng());
        (last.begun(at * SECOND), pause)
    }

    #[test]
    fn a_node_that_dies_again_and_again_waits_longer_each_time_and_never_too_long() {
        let (mut last, mut at, mut waits) = (LastStop::default(), 100, Vec::new());
        for _ in 0..14 {
            let (begun, pause) = start(last, at);
            let wait = pause.map_or(Duration::ZERO, |pause| pause.wait);
            waits.push(wait);
            at += wait.as_secs() + 1;
            last = begun.failed(at * SECOND, "the disk is read-only");
        }
        let bounds = [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60];
        for (wait, longest) in waits.iter().zip(bounds) {
            let longest = Duration::from_secs(longest);
            assert!(*wait <= longest && *wait >= longest / 2, "{waits:?}");
        }
    }

    #[test]
    fn a_life_without_a_word_counts_and_says_so() {
        let (mut last, mut pause) = (LastStop::default(), None);
        for at in 0..4 {
            (last, pause) = start(last, at);
        }
        let pause = pause.expect("three ends");
        assert_eq!((pause.ends, pause.why.as_str()), (3, NO_WORD));
        let (_, pause) = start(last.failed(5 * SECOND, "no room on the disk"), 6);
        assert_eq!(pause.expect("four ends").why, "no room on the disk");
    }

    #[test]
    fn what_runs_has_not_ended_and_tells_why_the_life_before_it_did() {
        let told = |last: &LastStop| (last.state, last.why.clone(), last.before.clone());
        let (running, _) = start(LastStop::default().failed(SECOND, "no room on the disk"), 2);
        assert_eq!(told(&running), (State::Running, None, Some("no room on the disk".to_owned())));
        let (again, _) = start(running.clone(), 3);
        assert_eq!(told(&again), (State::Running, None, Some(NO_WORD.to_owned())), "it was killed");
        let failed = running.failed(3 * SECOND, "the disk is gone");
        assert_eq!(told(&failed), (State::Failed, Some("the disk is gone".to_owned()), None));
        assert_eq!(told(&start(LastStop::stopped(4 * SECOND), 5).0), (State::Running, None, None));
    }

    #[test]
    fn a_stop_that_was_asked_for_clears_the_count_and_so_does_time() {
        let dead = LastStop { ends_ms: vec![SECOND; 9], state: State::Failed, ..LastStop::default() };
        assert!(start(dead.clone(), 2).1.is_some());
        assert_eq!(start(LastStop::stopped(2 * SECOND), 3).1, None);
        assert_eq!(start(dead.clone(), 3_600).1, None, "an hour later");
        assert_eq!(start(dead, 0).1, None, "ends in the future: the clock was set back");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut last = LastStop::default();
        for at in 0..1_000 {
            last = last.failed(at, &"x".repeat(10_000));
        }
        assert_eq!((last.ends_ms.len(), last.why.map(|why| why.len())), (MAX_ENDS, Some(MAX_REASON)));
    }
}
