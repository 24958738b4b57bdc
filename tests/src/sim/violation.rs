//! What a run can be found guilty of.

use std::fmt;

/// A promise of the escrow, as the simulated world checks it. I1 to I5 are those of patterns.md §1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// What is available is never below zero, and is what the counters say.
    Available,
    /// Nobody has accepted more than its donor has durably granted.
    AcceptedIsGranted,
    /// Minted = available + held + sold + in flight.
    Conservation,
    /// Sold and held never exceed what was minted and the debt ceiling.
    NeverOversold,
    /// The counters are what customers' receipts say.
    Receipts,
    /// Counters only rise.
    Monotone,
    /// A pool is minted once, in one shape, and its shares sum to it.
    MintedOnce,
    /// One idempotency key is one hold, and one hold has one key.
    OneKeyOneHold,
    /// A hold ends once, in one way.
    OneEnd,
    /// What was acknowledged survives crashes.
    Acknowledged,
    /// One customer has no more than the pool lets one have.
    CustomerLimit,
    /// The holder of a reserve does not sell it to its own customers.
    Reserve,
    /// A hold is settled by who was told of it, and by nobody who guesses.
    Secret,
    /// A hold does not expire before its time.
    NotBeforeItsTime,
    /// Sold out means that every unit is sold.
    SoldOutIsTrue,
    /// A key is refused when its retention is over, and not before.
    Retention,
    /// A node that is not proven, or whose disk is old, spends nothing.
    Standing,
    /// A machine stops only on a restored disk.
    NoHalt,
    /// What was asked is answered in time.
    Answered,
    /// Once the world has healed, all that can be sold is sold.
    Progress,
    /// A reconciliation that calls itself exact finds no drift where there is none.
    Reconciled,
    /// Debt is drawn where no unit is to be had.
    DebtLast,
    /// What a node says of itself is so.
    Honest,
    /// What is asked for under one key is demand once.
    Demand,
    /// A forecast is what its definition says.
    Forecast,
    /// Who levels keeps to its policy.
    Levelling,
    /// What is counted of levelling is what moved.
    Counted,
    /// A risk is what the Poisson distribution says.
    Advice,
    /// The machine found itself at fault.
    Assertion,
}

impl Invariant {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Available => "I1 available is never below zero",
            Self::AcceptedIsGranted => "I2 nobody accepts more than was durably granted",
            Self::Conservation => "I3 no unit appears or vanishes",
            Self::NeverOversold => "I4 sold and held never exceed minted",
            Self::Receipts => "I5 counters are what receipts say",
            Self::Monotone => "counters only rise",
            Self::MintedOnce => "a pool is minted once",
            Self::OneKeyOneHold => "one key is one hold",
            Self::OneEnd => "a hold ends once",
            Self::Acknowledged => "what was acknowledged survives",
            Self::CustomerLimit => "one customer has no more than the limit",
            Self::Reserve => "the reserve is for the other nodes",
            Self::Secret => "who only guesses settles nothing",
            Self::NotBeforeItsTime => "a hold does not expire early",
            Self::SoldOutIsTrue => "sold out is true",
            Self::Retention => "an old key is refused",
            Self::Standing => "unproven and restored nodes spend nothing",
            Self::NoHalt => "a healthy machine does not halt",
            Self::Answered => "what was asked is answered",
            Self::Progress => "after healing everything sells",
            Self::Reconciled => "no reconciliation raises an alarm",
            Self::DebtLast => "debt is drawn last",
            Self::Honest => "what a node says of itself is so",
            Self::Demand => "one key is one demand",
            Self::Forecast => "a forecast is what it is defined as",
            Self::Levelling => "who levels keeps to its policy",
            Self::Counted => "what is counted of levelling is what moved",
            Self::Advice => "a risk is what it is defined as",
            Self::Assertion => "the machine's own assertion",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a check finds.
pub type Checked = Result<(), Violation>;

/// Finds the invariant broken unless the condition holds; the words are made only then.
pub(crate) fn demand(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}
