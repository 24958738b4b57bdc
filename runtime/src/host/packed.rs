//! A message on its way from whoever sends it to the handler: one box all the way.
//!
//! * It decides: whether the handler still runs, when its turn has come.
//! * Invariant: it ends in its handler or in a refusal; who asked learns which.

use std::any::Any;
use std::sync::Arc;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Handler};
use rhumb_actors::remote::{Hosted, Remote};
use rhumb_core::Fault;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::arbiters::Listed;
use super::call::{Called, Load, Scope};
use super::mailbox::Waits;
use super::owed::{Acknowledgement, Owed};

/// A message on its way into an actor of type `A`, whatever it is.
pub(crate) trait Deliver<A: Actor>: Waits + Send {
    /// Runs the handler. May panic with it.
    fn run(self: Box<Self>, actor: &mut A, context: &mut A::Context, load: Arc<dyn Load>, now: Instant);
    /// Ends without the handler.
    fn refuse(self: Box<Self>, fault: Fault);
    /// What it is, for whoever watches the arbiter.
    fn work(&self) -> Listed;
    /// Whether somebody learns of it when it is refused.
    fn is_asked(&self) -> bool;
}

/// A message with its call and the one who waits for the answer. The same box from the asker to the
/// handler: asks within a node encode nothing.
pub(crate) struct Packed<M: Remote> {
    pub(crate) message: M,
    pub(crate) call: Called,
    pub(crate) asker: Asker<M>,
    pub(crate) work: Option<Listed>,
}

/// Who learns what became of a message.
pub(crate) enum Asker<M: Remote> {
    /// Nobody: it was told.
    Nobody,
    /// Nobody, but its sender is told of it, and of those before it, only when its turn comes: the mailbox
    /// is rather full.
    HeldBack(Arc<Acknowledgement>),
    /// An actor or program of this process.
    Here(OneshotSender<M::Reply>),
    /// Whoever asked over the network.
    There(Owed<M>),
}

impl<M: Remote> Waits for Packed<M> {
    fn coalesces(&self) -> Option<u64> {
        // Who waits for an answer is not replaced by somebody else's newer question.
        match self.asker {
            Asker::Nobody | Asker::HeldBack(_) => self.message.coalesce_key(),
            Asker::Here(_) | Asker::There(_) => None,
        }
    }
}

impl<M: Remote> Asker<M> {
    /// Whether somebody waits. Whoever told was told that the message was taken: that has no deadline
    /// any more.
    fn waits(&self, call: &Called, now: Instant) -> bool {
        let gone = match self {
            Self::Nobody | Self::HeldBack(_) => return true,
            Self::Here(answer) => answer.is_closed(),
            Self::There(owed) => owed.is_cancelled(),
        };
        let Called::Made(call) = call else { return true };
        if gone {
            call.abandon();
        } else if now >= call.deadline {
            call.fail(call.deadline_passed(M::NAME));
        } else {
            return true;
        }
        false
    }
}

impl<A, M> Deliver<A> for Packed<M>
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    fn run(self: Box<Self>, actor: &mut A, context: &mut A::Context, load: Arc<dyn Load>, now: Instant) {
        let work = Deliver::<A>::work(&*self);
        let Self { message, call, asker, .. } = *self;
        if !asker.waits(&call, now) || !call.begins() {
            return;
        }
        let (answer, later) = match asker {
            Asker::Nobody => (None, None),
            Asker::HeldBack(acknowledged) => {
                drop(acknowledged);
                (None, None)
            }
            Asker::Here(answer) => (Some(answer), None),
            Asker::There(owed) => {
                let (answer, answered) = oneshot::channel();
                (Some(answer), Some((answered, owed)))
            }
        };
        let scope = Scope::enter(call.clone(), load, work);
        actor.handle(message, context).handle(context, answer);
        drop(scope);
        call.handled();
        if let Some((answered, owed)) = later {
            owed.answered(answered);
        }
    }

    fn refuse(self: Box<Self>, fault: Fault) {
        if let (Asker::Here(_), Called::Made(call)) = (&self.asker, &self.call) {
            call.leaves(&self.message, &fault);
        }
        // Whoever asked is told as the asker is dropped.
        self.call.fail(fault);
    }

    fn work(&self) -> Listed {
        self.work.expect("it was listed when it was let in")
    }

    fn is_asked(&self) -> bool {
        !matches!(self.asker, Asker::Nobody | Asker::HeldBack(_))
    }
}

/// Makes what an asker packed into what an actor of type `A` takes: the same box.
pub(crate) fn unpack<A, M>(packed: Box<dyn Any + Send>, work: Listed) -> Option<Box<dyn Deliver<A>>>
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    let mut packed = packed.downcast::<Packed<M>>().ok()?;
    packed.work = Some(work);
    Some(packed)
}

impl<A: Actor> Waits for Box<dyn Deliver<A>> {
    fn coalesces(&self) -> Option<u64> {
        (**self).coalesces()
    }
}
