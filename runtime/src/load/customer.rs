//! One customer: asks for a hold, then leaves it or confirms it, and goes on asking what became of a
//! call whose outcome nobody told.
//!
//! * It decides: what the customer does next, and when its story has ended.
//! * It never does: take a fault of unknown outcome for a *no*, or ask again with another key.
//! * Invariant: only an answer of the service ends a story after a call may have arrived; a sale is
//!   one answer to a confirmation, nothing else.

use std::time::Duration;

use rhumb_actors::escrow::messages::{Held, HoldId, Refusal, Settled};
use rhumb_core::{Delivery, Fault, FaultKind};

use super::plan::Intent;

/// The first wait before asking again; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait before asking again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the customer does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Ask for the hold, with the same key, after so long.
    Hold {
        /// How long to wait first.
        after: Duration,
    },
    /// Confirm this hold after so long.
    Confirm {
        /// Which.
        hold: HoldId,
        /// How long to wait first.
        after: Duration,
    },
    /// The story has ended.
    End,
}

/// How a story stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The hold is asked for the first time.
    Asking,
    /// The hold was asked for, and nobody told what became of it.
    HoldUnknown,
    /// The hold is there and will be confirmed, or that is under way.
    Confirming(Held),
    /// The end: the service refused to hold.
    Refused(Refusal),
    /// The end: no service; nothing was done.
    Unserved(FaultKind),
    /// The end: held, and left to expire.
    Abandoned(Held),
    /// The end: sold.
    Sold(Held),
    /// The end: the hold had ended before it was confirmed.
    Lapsed(HoldId),
    /// The end, and a broken promise: the service answered a hold and now knows nothing of it, or
    /// says of it what cannot be.
    Broken(HoldId, String),
}

/// A customer.
#[derive(Debug, Clone)]
pub struct Customer {
    intent: Intent,
    state: State,
    tries: u32,
}

impl Customer {
    /// A customer with this intent, about to ask for a hold.
    #[must_use]
    pub fn new(intent: Intent) -> Self {
        Self { intent, state: State::Asking, tries: 0 }
    }

    /// The hold's answer, or why there is none.
    pub fn hold_answered(&mut self, answer: Result<Result<Held, Refusal>, Fault>) -> Next {
        debug_assert!(matches!(self.state, State::Asking | State::HoldUnknown));
        match answer {
            Ok(Ok(held)) => self.holds(held),
            Ok(Err(refusal)) => self.ends(match refusal {
                // The lost answer was a hold, and it is over.
                Refusal::HoldExpired(hold) | Refusal::HoldReleased(hold) => State::Lapsed(hold),
                Refusal::HoldConfirmed(hold) => {
                    State::Broken(hold, "it is confirmed, and nobody confirmed it".into())
                }
                refusal => State::Refused(refusal),
            }),
            // A fault of the first call that surely did nothing is the end. After an unknown outcome
            // it says nothing of the call before.
            Err(fault) if self.state == State::Asking && fault.delivery() != Delivery::Unknown => {
                self.ends(State::Unserved(fault.kind))
            }
            Err(_) => {
                self.state = State::HoldUnknown;
                Next::Hold { after: self.wait() }
            }
        }
    }

    /// The confirmation's answer, or why there is none.
    ///
    /// # Panics
    /// When nothing was being confirmed.
    pub fn confirm_answered(&mut self, answer: Result<Result<Settled, Refusal>, Fault>) -> Next {
        let State::Confirming(held) = self.state.clone() else {
            unreachable!("a confirmation is answered while confirming, not in {:?}", self.state)
        };
        match answer {
            Ok(Ok(_)) => self.ends(State::Sold(held)),
            Ok(Err(Refusal::HoldExpired(hold) | Refusal::HoldReleased(hold))) => {
                self.ends(State::Lapsed(hold))
            }
            // The node cannot say yet. The customer has a hold and goes on.
            Ok(Err(
                Refusal::Unproven
                | Refusal::Restored
                | Refusal::Overloaded { .. }
                | Refusal::Exhausted { .. },
            ))
            | Err(_) => Next::Confirm { hold: held.hold, after: self.wait() },
            Ok(Err(refusal)) => self.ends(State::Broken(held.hold, refusal.to_string())),
        }
    }

    /// How the story stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether a call may have arrived whose outcome nobody told.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.state, State::HoldUnknown)
            || matches!(self.state, State::Confirming(_)) && self.tries > 0
    }

    fn holds(&mut self, held: Held) -> Next {
        self.tries = 0;
        match self.intent {
            Intent::Abandon => self.ends(State::Abandoned(held)),
            Intent::Buy { think } => {
                let next = Next::Confirm { hold: held.hold.clone(), after: think };
                self.state = State::Confirming(held);
                next
            }
        }
    }

    fn ends(&mut self, state: State) -> Next {
        self.state = state;
        Next::End
    }

    fn wait(&mut self) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << self.tries.min(10)).min(LONGEST_WAIT);
        self.tries += 1;
        wait
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::HybridTime;

    use super::*;

    fn hold() -> HoldId {
        "concert/us-east/n1/a/1".parse().expect("a hold id")
    }

    /// Plays answers to one customer and tells the story: what it did next after each, and its state.
    fn check(intent: Intent, answers: &str, want: &str) {
        let held = Held { hold: hold(), qty: 1, expires: HybridTime::new(9, 0), overdrawn: 0 };
        let settled = Settled { hold: hold(), qty: 1 };
        let mut customer = Customer::new(intent);
        let mut story = Vec::new();
        for answer in answers.split_whitespace() {
            let kind = || FaultKind::Unreachable("ap".into());
            let no = match answer {
                "lost" => Err(Fault::unknown(kind())),
                "unsent" => Err(Fault::not_sent(kind())),
                "exhausted" => Ok(Refusal::Exhausted { retry_after: Duration::ZERO }),
                "unproven" => Ok(Refusal::Unproven),
                "sold_out" => Ok(Refusal::SoldOut),
                "expired" => Ok(Refusal::HoldExpired(hold())),
                "confirmed" => Ok(Refusal::HoldConfirmed(hold())),
                "forgotten" => Ok(Refusal::NoSuchHold(hold())),
                "yes" => Ok(Refusal::KeyReused),
                other => panic!("{other}?"),
            };
            let yes = answer == "yes";
            let next = if matches!(customer.state(), State::Confirming(_)) {
                customer
                    .confirm_answered(no.map(|refusal| if yes { Ok(settled.clone()) } else { Err(refusal) }))
            } else {
                customer.hold_answered(no.map(|refusal| if yes { Ok(held.clone()) } else { Err(refusal) }))
            };
            story.push(match next {
                Next::Hold { after } => format!("hold+{}", after.as_millis()),
                Next::Confirm { after, .. } => format!("confirm+{}", after.as_millis()),
                Next::End => "end".into(),
            });
        }
        let state = match customer.state() {
            State::Refused(refusal) => refusal.code().to_owned(),
            state => format!("{state:?}").split(['(', ' ']).next().expect("a name").to_lowercase(),
        };
        assert_eq!(format!("{} = {state}", story.join(" ")), want, "after {answers}");
    }

    const BUY: Intent = Intent::Buy { think: Duration::from_millis(250) };

    #[test]
    fn a_customer_buys_or_leaves() {
        check(BUY, "yes yes", "confirm+250 end = sold");
        check(Intent::Abandon, "yes", "end = abandoned");
        check(BUY, "sold_out", "end = sold_out");
        check(BUY, "yes expired", "confirm+250 end = lapsed");
    }

    #[test]
    fn a_call_that_surely_did_nothing_is_no_service() {
        check(BUY, "unsent", "end = unserved");
    }

    #[test]
    fn an_unknown_hold_is_asked_again_until_the_service_answers() {
        check(
            BUY,
            "lost unsent lost unsent yes yes",
            "hold+100 hold+200 hold+400 hold+800 confirm+250 end = sold",
        );
        check(BUY, "lost exhausted", "hold+100 end = exhausted");
        check(Intent::Abandon, "lost expired", "hold+100 end = lapsed");
    }

    #[test]
    fn an_unknown_confirmation_is_asked_again_until_the_service_answers() {
        check(BUY, "yes lost unsent yes", "confirm+250 confirm+100 confirm+200 end = sold");
        check(BUY, "yes unproven expired", "confirm+250 confirm+100 end = lapsed");
        check(
            BUY,
            "yes lost lost lost lost lost",
            "confirm+250 confirm+100 confirm+200 confirm+400 confirm+800 confirm+1000 = confirming",
        );
    }

    #[test]
    fn a_forgotten_hold_is_a_broken_promise() {
        check(BUY, "yes forgotten", "confirm+250 end = broken");
        check(BUY, "lost confirmed", "hold+100 end = broken");
    }

    #[test]
    fn thinking_is_not_unknown_but_a_lost_answer_is() {
        let held = Held { hold: hold(), qty: 1, expires: HybridTime::new(9, 0), overdrawn: 0 };
        let mut customer = Customer::new(BUY);
        assert!(!customer.is_unknown());
        customer.hold_answered(Err(Fault::unknown(FaultKind::Draining)));
        assert!(customer.is_unknown());
        customer.hold_answered(Ok(Ok(held)));
        assert!(!customer.is_unknown(), "it holds and thinks");
        customer.confirm_answered(Err(Fault::not_sent(FaultKind::Draining)));
        assert!(customer.is_unknown());
    }
}
