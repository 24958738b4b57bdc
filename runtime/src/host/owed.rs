//! The answer to a question that came over the network.
//!
//! * It decides: what whoever asked is told.
//! * It never does: wait where the handler has answered already, or wait longer than whoever asked.
//! * Invariant: it is answered once, at the latest when it is dropped.

use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use rhumb_actors::remote::Remote;
use rhumb_core::{Fault, FaultKind};
use rhumb_transport::gathering::Refused;
use rhumb_transport::{Answer, Reply};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::timeout_at;

use super::call::CallState;
use crate::mesh::Mesh;
use crate::mesh::body::pack;
use crate::mesh::dispatch::empty_reply;
use crate::telemetry::{Served, names};

/// An answer owed over the network, and the call that it is of.
pub(crate) struct Owed<M: Remote> {
    call: Arc<CallState>,
    answer: Option<Answer>,
    message: PhantomData<fn(M)>,
}

impl<M: Remote> Owed<M> {
    pub(crate) fn new(call: Arc<CallState>, answer: Answer) -> Self {
        Self { call, answer: Some(answer), message: PhantomData }
    }

    /// Whether whoever asked has said that nobody waits any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.answer.as_ref().is_some_and(Answer::is_given_up)
    }

    /// The handler has returned. What it has answered goes at once; what it answers later is waited for.
    pub(crate) fn answered(self, mut answered: oneshot::Receiver<M::Reply>) {
        match answered.try_recv() {
            Ok(reply) => self.reply(&reply),
            Err(TryRecvError::Empty) => drop(actix::spawn(self.later(answered))),
            Err(TryRecvError::Closed) => drop(self),
        }
    }

    /// Waits for the handler's answer, and no longer than whoever asked does.
    async fn later(self, answered: oneshot::Receiver<M::Reply>) {
        let Some(answer) = &self.answer else { return };
        let cancelled = answer.cancelled();
        let outcome = tokio::select! {
            outcome = timeout_at(self.call.deadline, answered) => outcome,
            () = cancelled => {
                self.call.abandon();
                return self.give(Err(Fault::unknown(FaultKind::Abandoned)));
            }
        };
        match outcome {
            Ok(Ok(reply)) => self.reply(&reply),
            Ok(Err(_)) => drop(self),
            Err(_) => {
                let passed = self.call.deadline_passed(M::NAME);
                self.give(Err(passed));
            }
        }
    }

    fn reply(self, reply: &M::Reply) {
        let reply = self.packed(reply);
        self.give(reply);
    }

    fn packed(&self, reply: &M::Reply) -> Result<Reply, Fault> {
        let call = &*self.call;
        let class = call.answer_class()?;
        let encode = call.served.get().and_then(Served::span).map(|span| span.child(names::ENCODE));
        let body = pack(M::NAME, reply).map_err(|fault| Fault::ran(fault.kind))?;
        drop(encode);
        let (hybrid, guarantee) = (call.mesh.hybrid(), call.seen.lock().guarantee);
        Ok(Reply { class, body, hybrid, guarantee, trace: call.trace() })
    }

    fn give(mut self, outcome: Result<Reply, Fault>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<Reply, Fault>) {
        let Some(answer) = self.answer.take() else { return };
        if let Some(permit) = self.call.admitted.lock().take() {
            permit.ended(outcome.as_ref().err());
        }
        give(&self.call, answer, outcome);
    }
}

/// The answer to messages that came under one head: what of them was not taken. Given when the last handle
/// on it is dropped, at the latest by the message that holds it back in a mailbox. Where what took them in
/// ended before the last (it panicked), nobody knows, and the answer says so.
pub(crate) struct Acknowledgement {
    mesh: Mesh,
    due: Mutex<Due>,
}

struct Due {
    answer: Option<Answer>,
    refused: Refused,
    complete: bool,
}

impl Acknowledgement {
    pub(crate) fn new(mesh: Mesh, answer: Answer) -> Arc<Self> {
        let due = Due { answer: Some(answer), refused: Refused::default(), complete: false };
        Arc::new(Self { mesh, due: Mutex::new(due) })
    }

    /// The message at this position was not taken.
    pub(crate) fn refuse(&self, at: usize, fault: Fault) {
        self.due.lock().refused.note(at, fault);
    }

    /// Each message has been taken or refused.
    pub(crate) fn complete(&self) {
        self.due.lock().complete = true;
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        let due = self.due.get_mut();
        // Dropped without an answer, it says that the messages were lost.
        let Some(answer) = due.answer.take().filter(|_| due.complete) else { return };
        match due.refused.encode() {
            Ok(body) => answer.reply(Reply { body, ..empty_reply(&self.mesh) }),
            Err(fault) => answer.fault(fault),
        }
    }
}

/// Answers, as a part of the span under which the call is served.
fn give(call: &CallState, answer: Answer, outcome: Result<Reply, Fault>) {
    let within = call.served.get().and_then(Served::span).map(|span| span.context().attach());
    let fault = match outcome {
        Ok(reply) => {
            answer.reply(reply);
            None
        }
        Err(fault) => {
            answer.fault(fault.clone());
            Some(fault)
        }
    };
    drop(within);
    call.was_served(fault.as_ref().map_or(Ok(()), Err));
}

impl<M: Remote> Drop for Owed<M> {
    /// The message has ended without an answer, or its handler has: the call knows why.
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.end(Err(self.call.why(M::NAME)));
        }
    }
}
