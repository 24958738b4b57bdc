//! Answers that come later and keep the call's context.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::ActorFuture;
use actix::{Actor, AsyncContext, Message};
use rhumb_actors::remote::KeepsContext;
use rhumb_core::wakes::Wakes;
use rhumb_core::{Fault, FaultKind};

use super::call::{Current, current};

/// What a handler returns whose answer comes later: `type Result = Reply<u32>`. Within its future the
/// call's context is the current one, as in the handler: calls made there have the rest of the
/// deadline, the class, the trace and the chain. (Actix's own `ResponseFuture` loses them, and cannot
/// be used in a remote handler.)
///
/// When nobody waits any more, the future is dropped at its next suspension; see [`Reply::finish`].
pub struct Reply<T>(State<Pin<Box<dyn Future<Output = T>>>, T>);

/// As [`Reply`], with access to the actor at each step: the future is an [`ActorFuture`].
pub struct ActorReply<A: Actor, T>(State<Pin<Box<dyn ActorFuture<A, Output = T>>>, T>);

enum State<F, T> {
    Ready(T),
    Later { future: F, finish: bool },
}

impl<T: 'static> Reply<T> {
    /// An answer that is here already.
    pub fn ready(value: T) -> Self {
        Self(State::Ready(value))
    }

    /// An answer that this future gives.
    pub fn later(future: impl Future<Output = T> + 'static) -> Self {
        Self(State::Later { future: Box::pin(future), finish: false })
    }

    /// Runs to its end, also when nobody waits any more.
    #[must_use]
    pub fn finish(mut self) -> Self {
        if let State::Later { finish, .. } = &mut self.0 {
            *finish = true;
        }
        self
    }
}

impl<A: Actor, T: 'static> ActorReply<A, T> {
    /// An answer that this future gives. The actor handles other messages meanwhile.
    pub fn later(future: impl ActorFuture<A, Output = T> + 'static) -> Self {
        Self(State::Later { future: Box::pin(future), finish: false })
    }

    /// Runs to its end, also when nobody waits any more.
    #[must_use]
    pub fn finish(mut self) -> Self {
        if let State::Later { finish, .. } = &mut self.0 {
            *finish = true;
        }
        self
    }
}

impl<T> KeepsContext for Reply<T> {}
impl<A: Actor, T> KeepsContext for ActorReply<A, T> {}

impl<A, M, T> MessageResponse<A, M> for Reply<T>
where
    A: Actor,
    A::Context: AsyncContext<A>,
    M: Message<Result = T>,
    T: 'static,
{
    fn handle(self, _: &mut A::Context, answer: Option<OneshotSender<T>>) {
        match self.0 {
            State::Ready(value) => send(answer, value),
            State::Later { future, finish } => {
                actix::spawn(UnderWay::new(WithoutActor(future), answer, finish));
            }
        }
    }
}

impl<A, M, T> MessageResponse<A, M> for ActorReply<A, T>
where
    A: Actor,
    A::Context: AsyncContext<A>,
    M: Message<Result = T>,
    T: 'static,
{
    fn handle(self, context: &mut A::Context, answer: Option<OneshotSender<T>>) {
        match self.0 {
            State::Ready(value) => send(answer, value),
            State::Later { future, finish } => {
                context.spawn(UnderWay::new(WithActor(future), answer, finish));
            }
        }
    }
}

/// Who asked may have gone; then nobody wants to know.
fn send<T>(answer: Option<OneshotSender<T>>, value: T) {
    if let Some(answer) = answer {
        answer.send(value).ok();
    }
}

struct WithoutActor<T>(Pin<Box<dyn Future<Output = T>>>);
struct WithActor<A: Actor, T>(Pin<Box<dyn ActorFuture<A, Output = T>>>);

/// A handler's future until it answers, is abandoned or panics.
struct UnderWay<F, T> {
    future: F,
    answer: Option<OneshotSender<T>>,
    finish: bool,
    current: Option<Current>,
}

impl<F, T> UnderWay<F, T> {
    fn new(future: F, answer: Option<OneshotSender<T>>, finish: bool) -> Self {
        let current = current();
        if let Some(current) = &current {
            current.load.begun();
        }
        Self { future, answer, finish, current }
    }

    /// One step, as `poll` makes it.
    fn step(
        &mut self,
        task: &mut TaskContext<'_>,
        poll: impl FnOnce(&mut F, &mut TaskContext<'_>) -> Poll<T>,
    ) -> Poll<()> {
        let abandoned = self.answer.as_mut().is_some_and(|answer| answer.poll_closed(task).is_ready());
        if abandoned && !self.finish {
            return Poll::Ready(());
        }
        // Whoever is told something by it is woken when it has made its step.
        let _wakes = Wakes::hold();
        let scope = self.current.as_ref().map(Current::enter);
        if let Some(current) = &self.current {
            current.load.gauge().begin(current.work);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut self.future, task)));
        if let Some(current) = &self.current {
            current.load.gauge().end();
        }
        drop(scope);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => {
                send(self.answer.take(), value);
                Poll::Ready(())
            }
            Err(panic) => {
                if let Some(current) = &self.current {
                    let name = current.work.message().to_owned();
                    current.call.fail(Fault::ran(FaultKind::Panicked(name)));
                    current.load.panicked();
                }
                drop((self.answer.take(), panic));
                Poll::Ready(())
            }
        }
    }
}

impl<F, T> Drop for UnderWay<F, T> {
    fn drop(&mut self) {
        if let Some(current) = &self.current {
            current.load.done();
        }
    }
}

impl<F, T> Unpin for UnderWay<F, T> {}

impl<T> Future for UnderWay<WithoutActor<T>, T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<()> {
        self.step(task, |future, task| future.0.as_mut().poll(task))
    }
}

impl<A: Actor, T> ActorFuture<A> for UnderWay<WithActor<A, T>, T> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut A::Context,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        self.step(task, |future, task| future.0.as_mut().poll(actor, context, task))
    }
}
