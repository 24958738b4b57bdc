//! Reads within a bound that no near replica meets: for how long the leaseholder is waited for, and what is said where it is not reached.
//!
//! * It decides: whether such a read goes on; that it ends in the typed refusal, with the age of the youngest that a replica which was
//!   asked has, where nothing but time was lacking.
//! * It never does: call a refusal of the policy, or of a clock that is frozen, one of age; or say an age that no replica has said.

use std::time::Duration;

use rhumb_actors::ranges::RangeRefusal;
use rhumb_actors::ranges::messages::{KvAnswer, KvRead, KvRefusal, Needs};
use rhumb_core::{Delivery, Fault, FaultKind};
use tokio::time::Instant;

use super::A_MOMENT;

/// The leaseholder may stand still. It is asked for half of the time that is left, but no less than this: by then another one may be.
const ASKED_FOR: Duration = Duration::from_millis(250);

/// A read that may be within a bound, and how fresh a replica was found that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounded {
    /// None: it is not, or the leaseholder is not to be asked.
    bound_ms: Option<u64>,
    age_ms: Option<u64>,
}

impl Bounded {
    pub(super) fn of(message: &KvRead) -> Self {
        let bound_ms = match message.needs {
            Needs::Bounded(bound) if !message.nearest_only => Some(ms(bound)),
            _ => None,
        };
        Self { bound_ms, age_ms: None }
    }

    /// Whether it is within a bound, and the leaseholder may be asked.
    pub(super) fn is_one(&self) -> bool {
        self.bound_ms.is_some()
    }

    /// A replica that was asked has what is so old.
    pub(super) fn saw(&mut self, age: Option<Duration>) {
        self.heard(age.map(ms));
    }

    fn heard(&mut self, age_ms: Option<u64>) {
        self.age_ms = self.age_ms.into_iter().chain(age_ms).min();
    }

    /// Whether a replica here is asked again that refuses so: nobody is known to hold the lease, but that may be known in a moment.
    pub(super) fn waits(&self, refusal: &RangeRefusal) -> bool {
        self.is_one() && matches!(refusal, RangeRefusal::StalenessBoundViolated { .. })
    }

    /// Up to when the leaseholder is asked.
    pub(super) fn asks_until(&self, now: Instant, until: Instant) -> Instant {
        if !self.is_one() {
            return until;
        }
        let half = until.saturating_duration_since(now) / 2;
        until.min(now + half.max(ASKED_FOR))
    }

    /// Whether the read goes on after this, while there is time.
    pub(super) fn goes_on(&mut self, outcome: &Result<Result<KvAnswer, KvRefusal>, Fault>) -> bool {
        if let Ok(Err(KvRefusal::StalenessBoundViolated { age_ms, .. })) = outcome {
            self.heard(Some(*age_ms));
        }
        self.is_one() && lacks_time(outcome)
    }

    /// What is answered in place of this, when there is no more time.
    pub(super) fn instead(
        &self,
        outcome: Result<Result<KvAnswer, KvRefusal>, Fault>,
    ) -> Result<Result<KvAnswer, KvRefusal>, Fault> {
        match (self.bound_ms, self.age_ms) {
            // Else it was a token that was lacking, or a clock.
            (Some(bound_ms), Some(age_ms)) if age_ms > bound_ms && lacks_time(&outcome) => {
                Ok(Err(KvRefusal::StalenessBoundViolated { bound_ms, age_ms, retry_after: Some(A_MOMENT) }))
            }
            _ => outcome,
        }
    }
}

/// Whether it might have ended otherwise with more time.
fn lacks_time(outcome: &Result<Result<KvAnswer, KvRefusal>, Fault>) -> bool {
    match outcome {
        Ok(Ok(_)) => false,
        Ok(Err(refusal)) => {
            matches!(refusal, KvRefusal::NotNow { .. } | KvRefusal::StalenessBoundViolated { .. })
        }
        Err(fault) => fault.delivery() != Delivery::Ran && !matches!(fault.kind, FaultKind::Gate(_)),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use rhumb_core::DataClass;

    use super::super::not_now;
    use super::*;

    fn read(needs: Needs, nearest_only: bool) -> Bounded {
        Bounded::of(&KvRead {
            class: DataClass::new("inventory").expect("valid"),
            keyspace: "profiles".to_owned(),
            from: Vec::new(),
            to: None,
            limit: 1,
            needs,
            token: Vec::new(),
            nearest_only,
            fallback: false,
            hops: 0,
            as_stored: false,
        })
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn violated(age_ms: u64) -> Result<Result<KvAnswer, KvRefusal>, Fault> {
        let retry_after = Some(A_MOMENT);
        Ok(Err(KvRefusal::StalenessBoundViolated { bound_ms: 5_000, age_ms, retry_after }))
    }

    #[test]
    fn where_the_leaseholder_is_not_reached_the_refusal_has_the_youngest_age_that_was_found() {
        let mut bounded = read(Needs::Bounded(secs(5)), false);
        let lost = [
            Ok(Err(not_now("no replica that could answer was reached"))),
            Err(Fault::unknown(FaultKind::Deadline("waiting".to_owned()))),
            Err(Fault::not_sent(FaultKind::Unreachable("eu/n1".to_owned()))),
        ];
        for lost in &lost {
            assert!(bounded.goes_on(lost));
            assert_eq!(bounded.instead(lost.clone()), *lost, "no replica was asked: nobody knows an age");
        }
        bounded.saw(Some(secs(9)));
        bounded.saw(None);
        for lost in lost {
            assert_eq!(bounded.instead(lost), violated(9_000));
        }
        // Another replica has what is younger, and a third one what is older.
        assert!(bounded.goes_on(&violated(7_000)) && bounded.goes_on(&violated(8_000)));
        assert_eq!(bounded.instead(violated(8_000)), violated(7_000));
        assert!(bounded.waits(&RangeRefusal::StalenessBoundViolated { bound_ms: 5_000, age_ms: 9_000 }));
    }

    #[test]
    fn what_no_time_would_change_is_told_as_it_is() {
        let mut bounded = read(Needs::Bounded(secs(5)), false);
        bounded.saw(Some(secs(9)));
        for told in [
            Ok(Err(KvRefusal::Time("the class may not be read there".to_owned()))),
            Err(Fault::ran(FaultKind::Storage("the disk".to_owned()))),
        ] {
            assert!(!bounded.goes_on(&told));
            assert_eq!(bounded.instead(told.clone()), told);
        }
    }

    #[test]
    fn other_reads_and_those_that_ask_nobody_farther_end_as_they_did() {
        for mut other in
            [read(Needs::Strong, false), read(Needs::Eventual, false), read(Needs::Bounded(secs(5)), true)]
        {
            other.saw(Some(secs(9)));
            let lost = Ok(Err(not_now("nobody")));
            assert!(!other.goes_on(&lost) && !other.is_one());
            assert_eq!(other.instead(lost.clone()), lost);
            let now = Instant::now();
            assert_eq!(other.asks_until(now, now + secs(4)), now + secs(4));
        }
    }

    #[test]
    fn a_leaseholder_that_stands_still_does_not_have_all_the_time() {
        let (bounded, now) = (read(Needs::Bounded(secs(5)), false), Instant::now());
        for (left, asked) in [(4_000, 2_000), (500, 250), (300, 250), (100, 100)] {
            let (left, asked) = (Duration::from_millis(left), Duration::from_millis(asked));
            assert_eq!(bounded.asks_until(now, now + left), now + asked);
        }
    }
}
