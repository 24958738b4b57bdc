//! A budget of retries: so many a second, and a share of the calls that were made. When everything fails, retries
//! are a fifth more load, not a multiple of it.
//!
//! The rule is finagle's `RetryBudget` (as in linkerd and tower): within the last ten seconds, retries may be at most
//! `share` of the calls and `least` a second besides.

use std::time::Duration;

use rhumb_core::Mono;

/// How long calls and retries count.
pub const WINDOW: Duration = Duration::from_secs(10);
const SLOTS: usize = 10;
/// What one retry costs. Balances are whole numbers.
const RETRY: i64 = 1_000;

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetSettings {
    /// Retries for each call, 0 to 1.
    pub share: f64,
    /// Retries a second however few calls there are.
    pub least: u32,
}

impl Default for BudgetSettings {
    fn default() -> Self {
        Self { share: 0.2, least: 10 }
    }
}

/// A budget of retries.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    deposit: i64,
    reserve: i64,
    /// What was paid in and taken out, by second.
    slots: [i64; SLOTS],
    /// The second of the newest slot.
    second: u64,
}

impl RetryBudget {
    /// A budget that nothing was paid into yet: its reserve is there.
    #[must_use]
    pub fn new(settings: BudgetSettings) -> Self {
        let deposit = (settings.share.clamp(0.0, 1.0) * RETRY as f64) as i64;
        let reserve = i64::from(settings.least) * SLOTS as i64 * RETRY;
        Self { deposit, reserve, slots: [0; SLOTS], second: 0 }
    }

    /// A call is made for the first time.
    pub fn called(&mut self, now: Mono) {
        *self.slot(now) += self.deposit;
    }

    /// Whether a call may be made again. If so, it is paid for.
    pub fn retries(&mut self, now: Mono) -> bool {
        let slot = self.slot(now);
        let taken = *slot - RETRY;
        let balance: i64 = self.slots.iter().sum::<i64>() + self.reserve;
        let enough = balance >= RETRY;
        if enough {
            *self.slot(now) = taken;
        }
        enough
    }

    /// The slot of this second; those that lie too far back are emptied.
    fn slot(&mut self, now: Mono) -> &mut i64 {
        let second = now.0.as_secs().max(self.second);
        for passed in (self.second + 1..=second).take(SLOTS) {
            self.slots[passed as usize % SLOTS] = 0;
        }
        // After a long pause each slot was emptied once, wherever that began.
        if second - self.second >= SLOTS as u64 {
            self.slots = [0; SLOTS];
        }
        self.second = second;
        &mut self.slots[second as usize % SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many retries are let through at that time.
    fn spend(budget: &mut RetryBudget, at: u64, tries: usize) -> usize {
        (0..tries).filter(|_| budget.retries(Mono::millis(at))).count()
    }

    #[test]
    fn retries_are_a_share_of_the_calls_and_a_few_besides() {
        let mut budget = RetryBudget::new(BudgetSettings::default());
        assert_eq!(spend(&mut budget, 500, 1_000), 100, "ten a second for ten seconds");
        for call in 0..1_000 {
            budget.called(Mono::millis(1_000 + call));
        }
        assert_eq!(spend(&mut budget, 2_500, 1_000), 200, "a fifth of a thousand");
        assert_eq!(spend(&mut budget, 9_900, 10), 0, "nothing is left within ten seconds");
        assert_eq!(spend(&mut budget, 10_100, 1_000), 100, "those of the first second are forgotten");
    }

    #[test]
    fn what_was_paid_in_is_worth_nothing_ten_seconds_later() {
        let mut budget = RetryBudget::new(BudgetSettings { share: 0.2, least: 0 });
        for _ in 0..1_000 {
            budget.called(Mono::millis(3_000));
        }
        assert_eq!(spend(&mut budget, 13_100, 10), 0);
        budget.called(Mono::millis(100_000));
        assert_eq!(spend(&mut budget, 100_001, 10), 0, "a fifth of a call is no retry");
    }

    #[test]
    fn when_everything_fails_the_load_grows_by_the_share_alone() {
        let mut budget = RetryBudget::new(BudgetSettings { share: 0.2, least: 0 });
        let (mut calls, mut retries) = (0, 0);
        for ms in 0..60_000 {
            budget.called(Mono::millis(ms));
            calls += 1;
            retries += spend(&mut budget, ms, 3);
        }
        assert!(retries * 100 <= calls * 20 + 100, "{retries} retries of {calls} calls");
        assert!(retries * 100 >= calls * 19, "{retries} retries of {calls} calls");
    }
}
