//! The lives of one actor: when an instance is made, and what follows its end.
//!
//! * It decides: the phase, and what is to be done as it changes.
//! * It never does: do it, wait, or read a clock.
//! * Invariants: at most one instance at a time; nothing of an earlier instance changes the present one;
//!   once gone, or closed, no instance is made any more.

use tokio::time::Instant;

use super::restarts::{Panics, Restarts, Verdict};

/// Counts the instances of an actor while its cell stands.
pub(super) type Instance = u32;

/// Where in its life an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is no instance.
    Asleep,
    /// An instance is about to be made.
    Waking,
    /// An instance runs.
    Awake,
    /// The instance was asked to go: it has been idle, room is needed, its parent begins anew, or the
    /// node stops.
    Leaving,
    /// The instance panicked, or its child gave up, and must go.
    Broken,
    /// It panicked, and a new instance waits for its time.
    Pausing,
    /// It panicked too often and rests.
    Resting(Instant),
    /// The cell was taken out of its home.
    Gone,
}

/// What becomes of a message that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// It may wait, and an instance must be made for it.
    Wake,
    /// It may wait, and the instance is told of it.
    Poke,
    /// It may wait.
    Wait,
    /// The actor rests until then.
    Rests(Instant),
    /// The cell has gone.
    Gone,
}

/// How an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// It panicked.
    pub(super) panicked: bool,
    /// It went because it was asked to.
    pub(super) asked: bool,
    /// It took at least one message.
    pub(super) took_any: bool,
    /// Something waits for it.
    pub(super) waited_for: bool,
}

/// What follows the end of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it sleeps.
    Sleep,
    /// A new instance at once.
    Wake,
    /// After this long, [`Life::paused`] says what next.
    Pause(std::time::Duration),
    /// It has given up, until then.
    Rest(Instant),
}

/// The lives of one actor.
#[derive(Debug)]
pub(super) struct Life {
    phase: Phase,
    instance: Instance,
    closed: bool,
    panics: Option<Box<Panics>>,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Asleep, instance: 0, closed: false, panics: None }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The present instance, or the last one.
    pub(super) fn instance(&self) -> Instance {
        self.instance
    }

    /// A message comes. Nothing changes yet: see [`Life::wakes`].
    pub(super) fn comes(&self, now: Instant) -> Entry {
        match self.phase {
            _ if self.closed => Entry::Gone,
            Phase::Gone => Entry::Gone,
            Phase::Resting(until) if now < until => Entry::Rests(until),
            Phase::Asleep | Phase::Resting(_) => Entry::Wake,
            Phase::Awake => Entry::Poke,
            Phase::Waking | Phase::Leaving | Phase::Broken | Phase::Pausing => Entry::Wait,
        }
    }

    /// An instance is about to be made.
    pub(super) fn wakes(&mut self) {
        debug_assert!(matches!(self.phase, Phase::Asleep | Phase::Resting(_)), "one instance at a time");
        self.phase = Phase::Waking;
        self.instance = self.instance.wrapping_add(1);
    }

    /// The instance was made.
    pub(super) fn made(&mut self) {
        if self.phase == Phase::Waking {
            self.phase = if self.closed { Phase::Leaving } else { Phase::Awake };
        }
    }

    /// Asks the instance to go. True if it is to be told.
    pub(super) fn leaves(&mut self) -> bool {
        let awake = self.phase == Phase::Awake;
        if awake {
            self.phase = Phase::Leaving;
        }
        awake
    }

    /// The instance was asked to go and stays: its own `stopping` said so.
    pub(super) fn stays(&mut self) {
        if self.phase == Phase::Leaving && !self.closed {
            self.phase = Phase::Awake;
        }
    }

    /// This instance cannot go on. True if it is to be told.
    pub(super) fn breaks(&mut self, instance: Instance) -> bool {
        let present = instance == self.instance && matches!(self.phase, Phase::Awake | Phase::Leaving);
        if present {
            self.phase = Phase::Broken;
        }
        present
    }

    /// The instance has ended. One that took nothing and was not asked to go (it stopped as it started)
    /// counts as one that panicked: else it would be made again without end.
    pub(super) fn ended(&mut self, end: End, now: Instant, policy: &Restarts) -> Next {
        let failed = end.panicked || self.phase == Phase::Broken;
        if self.closed {
            self.phase = Phase::Gone;
            return Next::Sleep;
        }
        if failed || (!end.took_any && !end.asked && end.waited_for) {
            return match self.panics.get_or_insert_default().panicked(now, policy) {
                Verdict::Again(after) => {
                    self.phase = Phase::Pausing;
                    Next::Pause(after)
                }
                Verdict::GiveUp => {
                    let until = now.checked_add(policy.rest).unwrap_or(now + LONGEST_REST);
                    self.phase = Phase::Resting(until);
                    Next::Rest(until)
                }
            };
        }
        self.phase = Phase::Asleep;
        if end.waited_for { Next::Wake } else { Next::Sleep }
    }

    /// The pause after a panic is over. True if an instance is to be made.
    pub(super) fn paused(&mut self, waited_for: bool) -> bool {
        if self.phase == Phase::Pausing {
            self.phase = if self.closed { Phase::Gone } else { Phase::Asleep };
        }
        self.phase == Phase::Asleep && waited_for
    }

    /// The node stops. True if an instance is to be told.
    pub(super) fn closes(&mut self) -> bool {
        self.closed = true;
        match self.phase {
            Phase::Awake => {
                self.phase = Phase::Leaving;
                true
            }
            Phase::Asleep | Phase::Resting(_) | Phase::Pausing => {
                self.phase = Phase::Gone;
                false
            }
            Phase::Waking | Phase::Leaving | Phase::Broken | Phase::Gone => false,
        }
    }

    /// What would have run the actor is no more.
    pub(super) fn lost(&mut self) {
        self.closed = true;
        self.phase = Phase::Gone;
    }

    /// Takes the cell out if nobody needs it: no instance, and no panic that still counts.
    pub(super) fn goes(&mut self, now: Instant, policy: &Restarts) -> bool {
        let over = match self.phase {
            Phase::Asleep => self.panics.as_deref().is_none_or(|panics| panics.are_old(now, policy)),
            Phase::Resting(until) => now >= until,
            _ => false,
        };
        if over {
            self.phase = Phase::Gone;
        }
        over
    }
}

/// Instead of a rest that is longer than time itself.
const LONGEST_REST: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POLICY: Restarts = Restarts {
        intensity: 1,
        within: Duration::from_secs(60),
        first: Duration::from_millis(10),
        longest: Duration::from_secs(5),
        rest: Duration::from_secs(30),
    };

    fn end(panicked: bool, asked: bool, took_any: bool, waited_for: bool) -> End {
        End { panicked, asked, took_any, waited_for }
    }

    fn awake() -> Life {
        let mut life = Life::new();
        life.wakes();
        life.made();
        life
    }

    #[test]
    fn what_comes_waits_wakes_or_is_turned_away_by_the_phase() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        for (phase, entry) in [
            (Phase::Asleep, Entry::Wake),
            (Phase::Waking, Entry::Wait),
            (Phase::Awake, Entry::Poke),
            (Phase::Leaving, Entry::Wait),
            (Phase::Broken, Entry::Wait),
            (Phase::Pausing, Entry::Wait),
            (Phase::Resting(until), Entry::Rests(until)),
            (Phase::Resting(now), Entry::Wake),
            (Phase::Gone, Entry::Gone),
        ] {
            let mut life = Life { phase, ..Life::new() };
            assert_eq!(life.comes(now), entry, "{phase:?}");
            life.closes();
            assert_eq!(life.comes(now), Entry::Gone, "{phase:?}, closed");
        }
    }

    #[test]
    fn what_follows_an_end_is_by_how_it_came() {
        let now = Instant::now();
        for (how, next) in [
            (end(false, true, true, false), Next::Sleep),
            (end(false, true, true, true), Next::Wake),
            (end(false, false, true, true), Next::Wake),
            (end(false, false, false, false), Next::Sleep),
            // It stopped as it started: made again at once it would never end.
            (end(false, false, false, true), Next::Pause(POLICY.first)),
            (end(true, false, true, true), Next::Pause(POLICY.first)),
        ] {
            assert_eq!(awake().ended(how, now, &POLICY), next, "{how:?}");
        }
    }

    #[test]
    fn one_panic_too_many_is_a_rest_and_the_rest_ends() {
        let (mut life, now) = (awake(), Instant::now());
        assert_eq!(life.ended(end(true, false, true, false), now, &POLICY), Next::Pause(POLICY.first));
        assert!(life.paused(true));
        life.wakes();
        life.made();
        let until = now + POLICY.rest;
        assert_eq!(life.ended(end(true, false, true, false), now, &POLICY), Next::Rest(until));
        assert!(!life.goes(now, &POLICY));
        assert!(life.goes(until, &POLICY));
    }

    #[test]
    fn a_cell_stays_while_a_panic_still_counts() {
        let (mut life, now) = (awake(), Instant::now());
        life.ended(end(true, false, true, false), now, &POLICY);
        assert!(!life.paused(false), "nobody waits");
        assert!(!life.goes(now, &POLICY), "or a poison message a minute would never give up");
        assert!(life.goes(now + POLICY.within, &POLICY));
    }

    #[test]
    fn an_earlier_instance_breaks_nothing() {
        let (mut life, now) = (awake(), Instant::now());
        let first = life.instance();
        assert!(life.breaks(first));
        life.ended(end(true, false, true, true), now, &POLICY);
        life.paused(true);
        life.wakes();
        life.made();
        assert!(!life.breaks(first), "a future of the first instance panics late");
        assert_eq!(life.phase(), Phase::Awake);
        assert!(life.breaks(life.instance()));
    }

    #[test]
    fn closed_makes_no_instance_any_more() {
        let now = Instant::now();
        let mut life = awake();
        assert!(life.closes() && life.phase() == Phase::Leaving);
        life.stays();
        assert_eq!(life.phase(), Phase::Leaving, "an actor may not refuse the stop of its node");
        assert_eq!(life.ended(end(false, true, true, true), now, &POLICY), Next::Sleep);
        assert_eq!(life.phase(), Phase::Gone);

        let mut waking = Life::new();
        waking.wakes();
        assert!(!waking.closes());
        waking.made();
        assert_eq!(waking.phase(), Phase::Leaving);

        let mut pausing = awake();
        pausing.ended(end(true, false, true, true), now, &POLICY);
        pausing.closes();
        assert!(!pausing.paused(true));
        let mut lost = awake();
        lost.lost();
        assert_eq!(lost.comes(now), Entry::Gone);
    }

    #[test]
    fn a_rest_longer_than_time_is_no_panic() {
        let policy = Restarts { intensity: 0, rest: Duration::MAX, ..POLICY };
        let now = Instant::now();
        assert!(
            matches!(awake().ended(end(true, false, true, true), now, &policy), Next::Rest(until) if until > now)
        );
    }
}
