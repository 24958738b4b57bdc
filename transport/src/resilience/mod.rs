//! What keeps one slow or failing peer from taking the others down with it: pure machines, one file each.
//!
//! * They decide: whether a call is tried again ([`retry`], [`budget`]), whether a target is asked at all ([`breaker`]), which of
//!   several ([`balance`]), or a second one too ([`hedge`]), how many calls are let in ([`limit`]), and how much a node does at all ([`mode`]).
//! * They never do: read a clock or draw entropy: `now` and randomness are arguments.
//!
//! The practice is that of linkerd2-proxy and of the books on site reliability; where a formula is another's, its file
//! names the source.

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod hedge;
pub mod limit;
pub mod mode;
pub mod retry;
#[cfg(test)]
mod ties;
