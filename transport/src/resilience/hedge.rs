//! When a question that is not answered yet is asked a second time, of somebody else (Dean, Barroso, "The tail at scale",
//! 2013): after nineteen of twenty of the last ones were answered. The first answer counts, and the other is cancelled.
//!
//! * It decides: after what time, and whether there may be one more. A budget bounds them, so that when everything is slow
//!   there is not twice the load.
//! * It never does: hedge before it has seen enough to know what is slow.

use std::time::Duration;

use rhumb_core::Mono;

use super::budget::{BudgetSettings, RetryBudget};

/// Nothing is late sooner.
const SOONEST: Duration = Duration::from_millis(1);
/// Answers that are remembered.
const SAMPLES: usize = 128;
/// Answers without which nothing is known.
const LEAST: usize = 20;

/// The hedges of questions of one kind.
#[derive(Debug)]
pub struct Hedges {
    took: Vec<Duration>,
    next: usize,
    budget: RetryBudget,
}

impl Hedges {
    /// None yet.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        Self { took: Vec::new(), next: 0, budget: RetryBudget::new(settings) }
    }

    /// A question is asked that may be hedged: after what time; never, while too little is known.
    pub fn asked(&mut self, now: Mono) -> Option<Duration> {
        self.budget.called(now);
        if self.took.len() < LEAST {
            return None;
        }
        let mut took = self.took.clone();
        let nth = took.len() * 95 / 100;
        Some((*took.select_nth_unstable(nth).1).max(SOONEST))
    }

    /// Whether one is asked a second time now. If so, it is paid for.
    pub fn hedges(&mut self, now: Mono) -> bool {
        self.budget.retries(now)
    }

    /// One was answered after this time.
    pub fn answered(&mut self, took: Duration) {
        if self.took.len() < SAMPLES {
            self.took.push(took);
        } else {
            self.took[self.next] = took;
        }
        self.next = (self.next + 1) % SAMPLES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_waits_until_nineteen_of_twenty_were_answered_and_forgets_what_is_old() {
        let mut hedges = Hedges::new(BudgetSettings::default());
        (1..LEAST as u64).for_each(|took| hedges.answered(ms(took)));
        assert_eq!(hedges.asked(Mono::default()), None, "it knows too little");
        (LEAST as u64..=100).for_each(|took| hedges.answered(ms(took)));
        assert_eq!(hedges.asked(Mono::default()), Some(ms(96)));
        (0..SAMPLES).for_each(|_| hedges.answered(ms(7)));
        assert_eq!(hedges.asked(Mono::default()), Some(ms(7)));
        (0..SAMPLES).for_each(|_| hedges.answered(Duration::ZERO));
        assert_eq!(hedges.asked(Mono::default()), Some(SOONEST));
    }

    #[test]
    fn there_are_no_more_than_a_share_of_what_was_asked() {
        let mut hedges = Hedges::new(BudgetSettings { share: 0.1, least: 0 });
        let second = |nth: u64| Mono::millis(nth * 10);
        let made = (0..900).filter(|nth| {
            hedges.asked(second(*nth));
            hedges.hedges(second(*nth))
        });
        assert_eq!(made.count(), 90);
    }
}
