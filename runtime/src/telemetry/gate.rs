//! The gate, with a span around what it decides of a call that is kept.

use std::sync::Arc;

use rhumb_core::{Direction, Fault, FaultKind, Gate, GateRefusal, Passage};

use super::names;
use super::span::Span;

/// A gate that says so when it was asked for the sake of the span that this thread works for. What comes
/// in has no such span yet: its gate is told of with its arrival.
pub(crate) struct TracedGate(pub(crate) Arc<dyn Gate>);

impl Gate for TracedGate {
    fn check(&self, passage: Passage<'_>) -> Result<(), GateRefusal> {
        let span = match passage.direction {
            Direction::Egress => Span::current(),
            Direction::Ingress => None,
        };
        let Some(span) = span else { return self.0.check(passage) };
        let asked = span.child(names::EGRESS_GATE);
        let decided = self.0.check(passage);
        if let Err(refusal) = &decided {
            asked.went(Err(&Fault::not_sent(FaultKind::Gate(refusal.clone()))));
        }
        decided
    }
}
