//! What a node measures of itself, and the page on which it tells that.
//!
//! * It decides: the buckets of durations, how many series there may be, and the two forms of the page:
//!   OpenMetrics 1.0 with exemplars, and the classic text format 0.0.4.
//! * It never does: name an actor, a customer or a hold. Labels are names out of the code (methods,
//!   outcomes, actor types), out of the settings (peers), or of pools.
//! * Invariant: no lock that threads share is on the way of a call; recording one is a few atomic
//!   additions.

pub(crate) mod calls;
mod durations;
#[cfg(feature = "rocks")]
pub mod exposition;
#[cfg(feature = "rocks")]
pub(crate) mod process;

pub(crate) use durations::Durations;
#[cfg(feature = "rocks")]
pub(crate) use durations::Steps;
