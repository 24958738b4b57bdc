//! Whether a call that failed is made again, and when.
//!
//! * It decides: which faults may go away by themselves, how long to wait, and what may be concluded of all attempts
//!   together.
//! * It never does: make a call again that may have run, unless it is one that may be; or wait longer than its caller does.
//! * Invariant: once the outcome of an attempt was unknown, that of the call is unknown, until one ran.

use std::time::Duration;

use rhumb_core::rng::Rng;
use rhumb_core::{Delivery, Fault, FaultKind, Mono};

use super::budget::RetryBudget;
use crate::backoff::Backoff;

/// The attempts of one call.
#[derive(Debug)]
pub struct Retries {
    repeats: bool,
    unknown: bool,
    backoff: Backoff,
}

/// What follows a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The call is made again after this time.
    Again(Duration),
    /// It is not: this is its end.
    Over(Fault),
    /// It would be, and the budget is spent: this is its end.
    Spent(Fault),
}

impl Retries {
    /// Those of a call; the pauses between them are from `min` to `max`. `repeats` where it may be made again though it
    /// may have run: running twice has the effect of once, or whoever answers sees to it that it runs once.
    #[must_use]
    pub fn new(repeats: bool, min: Duration, max: Duration, rng: Rng) -> Self {
        Self { repeats, unknown: false, backoff: Backoff::new(min, max, rng) }
    }

    /// What follows this fault of the newest attempt, where its caller waits for so much longer. A retry is paid for.
    pub fn after(&mut self, now: Mono, fault: Fault, left: Duration, budget: &mut RetryBudget) -> Next {
        self.unknown |= fault.delivery == Delivery::Unknown;
        if !self.may_go_away(&fault) {
            return Next::Over(self.together(fault));
        }
        // Who was told when to come again does not come sooner, and not all come at once.
        let wait = self.backoff.failed() + fault.retry_after.unwrap_or_default();
        if wait >= left {
            return Next::Over(self.together(fault));
        }
        if !budget.retries(now) {
            return Next::Spent(self.together(fault));
        }
        Next::Again(wait)
    }

    fn may_go_away(&self, fault: &Fault) -> bool {
        let is_passing = matches!(
            fault.kind,
            FaultKind::Unreachable(_)
                | FaultKind::Deadline(_)
                | FaultKind::Full(_)
                | FaultKind::Draining
                | FaultKind::Handler(_)
                | FaultKind::Storage(_)
                | FaultKind::Failed(_)
                | FaultKind::Overloaded(_)
                | FaultKind::Shut(_)
                | FaultKind::Unowned(_)
        );
        is_passing
            && match fault.delivery {
                Delivery::NotSent => true,
                Delivery::Unknown => self.repeats,
                Delivery::Ran => false,
            }
    }

    /// What this last fault says of all attempts.
    fn together(&self, fault: Fault) -> Fault {
        match fault.delivery {
            Delivery::NotSent if self.unknown => Fault { delivery: Delivery::Unknown, ..fault },
            _ => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::rng::Seed;

    use super::super::budget::BudgetSettings;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lost() -> Fault {
        Fault::unknown(FaultKind::Unreachable("eu".into()))
    }

    fn unsent() -> Fault {
        Fault::not_sent(FaultKind::Unreachable("eu".into()))
    }

    fn retries(idempotent: bool) -> Retries {
        Retries::new(idempotent, 20 * MS, 500 * MS, Seed::new(1).rng())
    }

    /// What becomes of a call that fails like this each time, with so much time at first.
    fn play(idempotent: bool, faults: &[Fault], left: Duration) -> String {
        let (mut retries, mut left) = (retries(idempotent), left);
        let mut budget = RetryBudget::new(BudgetSettings::default());
        let mut told = Vec::new();
        for fault in faults {
            match retries.after(Mono::default(), fault.clone(), left, &mut budget) {
                Next::Again(wait) => {
                    left -= wait;
                    told.push("again".to_owned());
                }
                Next::Over(fault) => {
                    told.push(format!("over, {}", fault.delivery));
                    break;
                }
                Next::Spent(fault) => {
                    told.push(format!("spent, {}", fault.delivery));
                    break;
                }
            }
        }
        told.dedup();
        told.join("; ")
    }

    #[test]
    fn what_was_not_sent_is_sent_again_and_what_may_have_run_only_if_it_may_run_twice() {
        let long = 60_000 * MS;
        for (idempotent, faults, want) in [
            (false, vec![unsent(), unsent()], "again"),
            (false, vec![lost()], "over, unknown"),
            (true, vec![lost(), lost()], "again"),
            (true, vec![Fault::ran(FaultKind::Panicked("a".into()))], "over, ran"),
            (true, vec![Fault::ran(FaultKind::Storage("a".into()))], "over, ran"),
            (true, vec![Fault::not_sent(FaultKind::NotHosted("a".into()))], "over, not sent"),
            (false, vec![Fault::not_sent(FaultKind::Unowned("a".into())); 2], "again"),
            (true, vec![Fault::not_sent(FaultKind::Cycle("a".into()))], "over, not sent"),
        ] {
            assert_eq!(play(idempotent, &faults, long), want, "{faults:?}");
        }
    }

    #[test]
    fn an_unknown_outcome_stays_unknown_until_an_attempt_ran() {
        let refused = Fault::not_sent(FaultKind::Unauthorized("no".into()));
        let ran = Fault::ran(FaultKind::Panicked("a".into()));
        let long = 60_000 * MS;
        assert_eq!(play(true, &[lost(), refused.clone()], long), "again; over, unknown");
        assert_eq!(play(true, &[unsent(), refused], long), "again; over, not sent");
        assert_eq!(play(true, &[lost(), ran], long), "again; over, ran");
    }

    #[test]
    fn nobody_waits_longer_than_the_caller_or_comes_sooner_than_told() {
        let many = vec![unsent(); 1_000];
        assert_eq!(play(true, &many, 3_000 * MS), "again; over, not sent");
        assert_eq!(play(true, &many, 9 * MS), "over, not sent", "there is no time for one pause");
        let mut budget = RetryBudget::new(BudgetSettings::default());
        let told = Fault { retry_after: Some(700 * MS), ..unsent() };
        match retries(true).after(Mono::default(), told.clone(), 5_000 * MS, &mut budget) {
            Next::Again(wait) => assert!((710 * MS..=720 * MS).contains(&wait), "{wait:?}"),
            other => panic!("{other:?}"),
        }
        let next = retries(true).after(Mono::default(), told.clone(), 700 * MS, &mut budget);
        assert_eq!(next, Next::Over(told));
    }

    #[test]
    fn a_spent_budget_ends_the_call_with_its_last_fault() {
        let mut budget = RetryBudget::new(BudgetSettings { share: 0.0, least: 0 });
        let next = retries(true).after(Mono::default(), lost(), 1_000 * MS, &mut budget);
        assert_eq!(next, Next::Spent(lost()));
    }
}
