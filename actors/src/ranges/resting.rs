//! When the clockwork of a range to which nothing happens stops: heartbeats and elections, of which a thousand idle ranges would
//! make a busy node. After CockroachDB's quiescence.
//!
//! * It decides: whether a replica's consensus ticks.
//! * It never does: rest while something is under way, or without hearing again and again that the leaseholder does.
//! * Invariants: a leaseholder says that it rests for a while before it does, and a follower rests only with all that the
//!   leaseholder has. Nothing that is promised depends on who rests: votes, leases and what is closed are what they are, and
//!   stores go on asking each other for support.

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};

/// When ranges rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestSettings {
    /// How long nothing must have happened.
    pub after: Duration,
    /// How long the leaseholder says so before it rests itself.
    pub said: Duration,
    /// How long a follower rests without hearing it again.
    pub heard: Duration,
}

impl Default for RestSettings {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { after: seconds(5), said: seconds(2), heard: seconds(3) }
    }
}

/// What a leaseholder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// It tells the others that it rests.
    pub says: bool,
    /// Its consensus ticks.
    pub ticks: bool,
}

/// What one replica knows of its range's rest. It is not kept: a new life begins awake.
#[derive(Debug, Default)]
pub struct Resting {
    /// The last entry of the log, and since when nothing has come after it.
    quiet: Option<(u64, HybridTime)>,
    /// Since when it has said that it rests.
    said: Option<HybridTime>,
    /// When it was last heard that the leaseholder rests, and the last entry then.
    heard: Option<(HybridTime, u64)>,
}

impl Resting {
    /// The leaseholder, whose log ends with entry `last`, looks whether it rests. `calm`: nothing is under way, and every replica
    /// has all of the log.
    pub fn holds(
        &mut self,
        settings: &RestSettings,
        now: HybridTime,
        last: u64,
        calm: impl FnOnce() -> bool,
    ) -> Rest {
        let awake = Rest { says: false, ticks: true };
        self.heard = None;
        let since = match self.quiet {
            Some((quiet, since)) if quiet == last => since,
            _ => {
                (self.quiet, self.said) = (Some((last, now)), None);
                return awake;
            }
        };
        if now < since.plus(settings.after) {
            return awake;
        }
        if self.said.is_none() {
            if !calm() {
                self.quiet = None;
                return awake;
            }
            self.said = Some(now);
        }
        let ticks = self.said.is_none_or(|said| now < said.plus(settings.said));
        Rest { says: true, ticks }
    }

    /// A follower, whose log ends with entry `last`, looks whether its consensus ticks. `alive`: its store supports the
    /// leaseholder's.
    pub fn follows(&mut self, settings: &RestSettings, now: HybridTime, last: u64, alive: bool) -> bool {
        (self.quiet, self.said) = (None, None);
        if canary::sings(Canary::RestsForGood) {
            return self.heard.is_none();
        }
        let rests = |(at, heard): &(HybridTime, u64)| {
            alive && *heard == last && *at <= now && now <= at.plus(settings.heard)
        };
        self.heard.take_if(|heard| !rests(heard));
        self.heard.is_none()
    }

    /// A follower hears from the leaseholder whether it rests. `last` is the last entry of its log, if it has applied all that
    /// the leaseholder has.
    pub fn hears(&mut self, now: HybridTime, rests: bool, last: Option<u64>) {
        if canary::sings(Canary::RestsForGood) && self.heard.is_some() {
            return;
        }
        self.heard = last.filter(|_| rests).map(|last| (now, last));
    }

    /// It is neither, or not sure of its time.
    pub fn wakes(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: RestSettings = RestSettings {
        after: Duration::from_millis(50),
        said: Duration::from_millis(20),
        heard: Duration::from_millis(30),
    };
    const AWAKE: Rest = Rest { says: false, ticks: true };
    const TELLS: Rest = Rest { says: true, ticks: true };
    const RESTS: Rest = Rest { says: true, ticks: false };

    fn at(ms: u64) -> HybridTime {
        HybridTime::new(1_000 + ms, 0)
    }

    #[test]
    fn a_leaseholder_says_for_a_while_that_it_rests_and_wakes_with_an_entry() {
        let mut resting = Resting::default();
        let steps = [
            (0, 7, true, AWAKE),
            (49, 7, true, AWAKE),
            (50, 7, true, TELLS),
            (69, 7, true, TELLS),
            // All had come together; with no new entry nobody can fall behind.
            (70, 7, false, RESTS),
            (500, 7, false, RESTS),
            (501, 8, true, AWAKE),
            (550, 8, true, AWAKE),
            (551, 8, true, TELLS),
        ];
        for (ms, last, calm, expected) in steps {
            assert_eq!(resting.holds(&SETTINGS, at(ms), last, || calm), expected, "at {ms}");
        }
    }

    #[test]
    fn who_is_not_calm_waits_as_long_again() {
        let mut resting = Resting::default();
        for (ms, calm, expected) in
            [(0, true, AWAKE), (50, false, AWAKE), (51, true, AWAKE), (101, true, TELLS)]
        {
            assert_eq!(resting.holds(&SETTINGS, at(ms), 7, || calm), expected, "at {ms}");
        }
    }

    #[test]
    fn a_follower_rests_while_it_hears_so_lacks_nothing_and_the_leaseholder_lives() {
        let ticks = |resting: &mut Resting, ms, last, alive| resting.follows(&SETTINGS, at(ms), last, alive);
        let heard = |rests, last| {
            let mut resting = Resting::default();
            resting.hears(at(0), rests, last);
            resting
        };
        assert!(ticks(&mut Resting::default(), 1, 7, true), "it has heard nothing");
        assert!(ticks(&mut heard(false, Some(7)), 1, 7, true), "the leaseholder is awake");
        assert!(ticks(&mut heard(true, None), 1, 7, true), "it is behind");
        assert!(ticks(&mut heard(true, Some(7)), 1, 8, true), "an entry has come");
        assert!(ticks(&mut heard(true, Some(7)), 1, 7, false), "nobody supports the leaseholder");
        let mut resting = heard(true, Some(7));
        assert!(!ticks(&mut resting, 30, 7, true));
        resting.hears(at(30), true, Some(7));
        assert!(!ticks(&mut resting, 60, 7, true));
        assert!(ticks(&mut resting, 61, 7, true), "it was not said again");
        assert!(ticks(&mut resting, 60, 7, true), "once awake it must hear it anew");
        resting.hears(at(61), true, Some(7));
        assert!(!ticks(&mut resting, 62, 7, true));
        resting.hears(at(63), false, Some(7));
        assert!(ticks(&mut resting, 63, 7, true), "the leaseholder is awake again");
    }

    #[test]
    fn who_takes_the_lease_begins_anew() {
        let mut resting = Resting::default();
        resting.hears(at(0), true, Some(7));
        assert_eq!(resting.holds(&SETTINGS, at(1), 7, || true), AWAKE);
        assert!(resting.follows(&SETTINGS, at(2), 7, true), "what it heard was another one's");
        resting.wakes();
        assert_eq!(resting.holds(&SETTINGS, at(100), 7, || true), AWAKE);
    }
}
