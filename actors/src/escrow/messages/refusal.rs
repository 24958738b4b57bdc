//! Why something was not done: typed, with a stable code, and in words that say what would be right.

use std::fmt;
use std::time::Duration;

use rhumb_core::{DataClass, NodeId, PoolName, Region};
use serde::{Deserialize, Serialize};

use super::{HoldId, PoolSpec, Standing};
use crate::Wire;

/// Why something was not done. A normal answer: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Refusal {
    /// No pool of this name.
    NoSuchPool(PoolName),
    /// Every unit is sold: proven by the nodes' own counts.
    SoldOut,
    /// Nothing to hold here now; held units may come back, or rights arrive.
    Exhausted {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
    /// A pool of this name exists, and was asked for otherwise.
    PoolExists(Box<PoolSpec>),
    /// This key was used for a request with another body.
    KeyReused,
    /// This key is older than [`super::KEY_RETENTION`]: its answer is forgotten, and it is not run again.
    KeyExpired,
    /// No such hold here: it never was, its secret is another, or its retention is over. Which of them is
    /// not said.
    NoSuchHold(HoldId),
    /// The hold has expired; its units went back.
    HoldExpired(HoldId),
    /// The hold was released; its units went back.
    HoldReleased(HoldId),
    /// The hold was confirmed; the units are sold.
    HoldConfirmed(HoldId),
    /// The node has just started and its peers have not yet said that its disk is the latest.
    Unproven,
    /// The node runs on a restored disk: `rhumb pool attest` first.
    Restored,
    /// Policy does not let the class be held in this region.
    NotAllowed {
        /// The class.
        class: DataClass,
        /// Where it may not be held.
        region: Region,
        /// The rule.
        reason: String,
    },
    /// The request makes no sense: says what was wrong and what would be right.
    Invalid(String),
    /// Too much waits here already.
    Overloaded {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
    /// The hold is not a sale (yet), so nothing of it can be returned.
    #[since(2)]
    HoldNotConfirmed(HoldId),
    /// More would be returned than was sold and not returned before.
    #[since(2)]
    ReturnTooMuch {
        /// Of which sale.
        hold: HoldId,
        /// Units of it that can still be returned.
        left: u64,
    },
    /// The sale can be returned no more: it is too long ago, or older than the restored disk of its node,
    /// whose sales an operator has attested.
    #[since(2)]
    ReturnClosed {
        /// Which.
        hold: HoldId,
        /// Until when it could be, milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// The customer would hold and have bought more than one customer may.
    #[since(2)]
    CustomerLimit {
        /// The most that one customer may.
        limit: u64,
        /// What this one has.
        has: u64,
    },
    /// The node remembers as many holds and sales as it may.
    #[since(2)]
    TooManyHolds {
        /// How many.
        most: u64,
    },
    /// What an operator says was sold can not be so.
    #[since(2)]
    WrongAttestation {
        /// What was said.
        sold: u64,
        /// What is known to be sold there.
        least: u64,
        /// What the node had rights to sell.
        most: u64,
    },
    /// A restored node can not be attested now: another node, whose counts it needs, is not proven itself.
    #[since(3)]
    CannotVouch {
        /// Which node.
        node: NodeId,
        /// How that node stands in the pool.
        standing: Standing,
    },
}

impl Refusal {
    /// A short stable code, for metrics, JSON and receipts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPool(_) => "no_such_pool",
            Self::SoldOut => "sold_out",
            Self::Exhausted { .. } => "exhausted",
            Self::PoolExists(_) => "pool_exists",
            Self::KeyReused => "key_reused",
            Self::KeyExpired => "key_expired",
            Self::NoSuchHold(_) => "no_such_hold",
            Self::HoldExpired(_) => "hold_expired",
            Self::HoldReleased(_) => "hold_released",
            Self::HoldConfirmed(_) => "hold_confirmed",
            Self::Unproven => "unproven",
            Self::Restored => "restored",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::HoldNotConfirmed(_) => "hold_not_confirmed",
            Self::ReturnTooMuch { .. } => "return_too_much",
            Self::ReturnClosed { .. } => "return_closed",
            Self::CustomerLimit { .. } => "customer_limit",
            Self::TooManyHolds { .. } => "too_many_holds",
            Self::WrongAttestation { .. } => "wrong_attestation",
            Self::CannotVouch { .. } => "cannot_vouch",
        }
    }

    /// When it may make sense to ask again, where anyone knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after } | Self::Overloaded { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPool(name) => write!(f, "there is no pool {name}"),
            Self::SoldOut => f.write_str("sold out"),
            Self::Exhausted { retry_after } => {
                write!(f, "nothing to hold here now; ask again in {} ms", retry_after.as_millis())
            }
            Self::PoolExists(spec) => {
                write!(f, "pool {} exists with other terms: ", spec.name)?;
                spec.terms(f)
            }
            Self::KeyReused => f.write_str("this key was used for another request; use a new key"),
            Self::KeyExpired => {
                f.write_str("this key is older than 24 h and is not run again; use a new key")
            }
            Self::NoSuchHold(hold) => write!(f, "there is no hold {hold}"),
            Self::HoldExpired(hold) => write!(f, "hold {hold} has expired"),
            Self::HoldReleased(hold) => write!(f, "hold {hold} was released"),
            Self::HoldConfirmed(hold) => write!(f, "hold {hold} was confirmed"),
            Self::Unproven => {
                f.write_str("the node has not yet heard from a peer that its disk is the latest")
            }
            Self::Restored => f.write_str("the node runs on a restored disk; `rhumb pool attest` it first"),
            Self::NotAllowed { class, region, reason } => {
                write!(f, "class {class} may not be held in {region}: {reason}")
            }
            Self::Invalid(what) => f.write_str(what),
            Self::Overloaded { retry_after } => {
                write!(f, "too much waits here; ask again in {} ms", retry_after.as_millis())
            }
            Self::HoldNotConfirmed(hold) => {
                write!(f, "hold {hold} is not sold: release it, or confirm it before anything is returned")
            }
            Self::ReturnTooMuch { hold, left: 0 } => write!(f, "all of {hold} has been returned"),
            Self::ReturnTooMuch { hold, left } => {
                write!(f, "of {hold} {left} can be returned: give {left} at most")
            }
            Self::ReturnClosed { hold, until_ms } => {
                write!(
                    f,
                    "{hold} can be returned no more: it could until {until_ms} ms, when its time was over or its node's \
                     sales were attested"
                )
            }
            Self::CustomerLimit { limit, has } => {
                write!(
                    f,
                    "one customer may have {limit} and this one has {has}: ask for fewer, or give some back"
                )
            }
            Self::TooManyHolds { most } => {
                write!(
                    f,
                    "the node remembers {most} holds and sales, as many as it may: ask in another region, or have its \
                     operator raise `escrow.max_holds` or shorten `escrow.returns`"
                )
            }
            Self::WrongAttestation { sold, least, .. } if sold < least => {
                write!(f, "{sold} sold is too few: {least} are known to be sold there")
            }
            Self::WrongAttestation { sold, most, .. } => {
                write!(f, "{sold} sold is too many: the node had rights to sell {most}")
            }
            Self::CannotVouch { node, standing: Standing::Restored } => {
                write!(
                    f,
                    "{node} runs on a restored disk too: nobody knows what the two had granted each other, so neither \
                     is attested and what both had is stranded"
                )
            }
            Self::CannotVouch { node, .. } => {
                write!(
                    f,
                    "{node} can not say yet what it had of this node: it has not heard from a peer that its disk is the \
                     latest, or runs an older build; attest again when it is proven"
                )
            }
        }
    }
}
