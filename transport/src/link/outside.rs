//! What stands where a node has its gate and its handlers, in a program that only calls.

use std::sync::Arc;

use rhumb_core::{Fault, FaultKind, Gate, GateRefusal, Passage};

use crate::answer::Answer;
use crate::inbound::Inbound;
use crate::message::{Peer, Request};

/// A client stands outside the mesh: the node's gates decide in both directions, and nobody calls it.
pub(crate) struct Outside;

impl Gate for Outside {
    fn check(&self, _: Passage<'_>) -> Result<(), GateRefusal> {
        Ok(())
    }
}

impl Inbound for Outside {
    fn deliver(&self, _: &Arc<Peer>, request: Request, answer: Answer) {
        answer.fault(Fault::not_sent(FaultKind::UnknownMessage(request.name.to_string())));
    }
}
