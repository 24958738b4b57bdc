//! Remote actors behind actix's own `Recipient<M>`, so that code written for local actix works across
//! regions unchanged.
//!
//! * It decides nothing: a proxy asks as its address would.
//! * It never does: lose the sender's call. A message is packed on the sender's thread, and there the
//!   call under way is taken along; so the class of the data, the deadline and the chain go on.
//! * It never does: let a later message overtake an earlier one on its way to the actor.
//! * Invariant: a send through it ends. A fault shows as `MailboxError::Closed` (actix has no other
//!   word for it) and is logged.

use std::future::IntoFuture;

use actix::dev::{Envelope, EnvelopeProxy, OneshotSender, ToEnvelope, channel};
use actix::{Actor, ActorContext, ActorState, Addr, Handler, MessageResult, Recipient};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rhumb_actors::remote::{Accepts, Addressed, Remote};

use super::MeshAddr;
use crate::host::call::{Current, Scoped, current};

/// How many messages may wait in a proxy before a sender is told that it is full.
const MAILBOX: usize = 64;
/// How many calls one proxy has under way before it takes no more out of its mailbox.
const UNDER_WAY: usize = 1_024;

/// The local stand-in of an actor. It exists only as the receiver of a `Recipient`.
pub struct Proxy<A: Addressed> {
    to: MeshAddr<A>,
    /// The call that the latest message began.
    begun: Option<BoxFuture<'static, ()>>,
}

/// The context of a proxy: it packs messages with the call within which they are sent.
#[derive(Debug, Default)]
pub struct ProxyContext(());

impl ActorContext for ProxyContext {
    fn stop(&mut self) {}
    fn terminate(&mut self) {}
    fn state(&self) -> ActorState {
        ActorState::Running
    }
}

impl<A: Addressed> Actor for Proxy<A> {
    type Context = ProxyContext;
}

impl<A: Addressed + Accepts<M>, M: Remote> Handler<M> for Proxy<A> {
    type Result = MessageResult<M>;

    fn handle(&mut self, _: M, _: &mut ProxyContext) -> MessageResult<M> {
        unreachable!("a proxy's messages are packed with their call, and forwarded")
    }
}

impl<A: Addressed + Accepts<M>, M: Remote> ToEnvelope<Proxy<A>, M> for ProxyContext {
    fn pack(message: M, answer: Option<OneshotSender<M::Reply>>) -> Envelope<Proxy<A>> {
        Envelope::with_proxy(Box::new(Forwarded { send: Some((message, answer)), within: current() }))
    }
}

struct Forwarded<M: Remote> {
    send: Option<(M, Option<OneshotSender<M::Reply>>)>,
    within: Option<Current>,
}

impl<A: Addressed + Accepts<M>, M: Remote> EnvelopeProxy<Proxy<A>> for Forwarded<M> {
    fn handle(&mut self, proxy: &mut Proxy<A>, _: &mut ProxyContext) {
        let Some((message, answer)) = self.send.take() else { return };
        let call = forward(proxy.to.clone(), message, answer);
        proxy.begun = Some(match self.within.take() {
            None => Box::pin(call),
            Some(current) => Box::pin(Scoped { current, future: Box::pin(call) }),
        });
    }
}

/// One call of a proxy, until nobody waits for its answer any more.
async fn forward<A, M>(to: MeshAddr<A>, message: M, answer: Option<OneshotSender<M::Reply>>)
where
    A: Addressed + Accepts<M>,
    M: Remote,
{
    let outcome = match answer {
        None => to.tell(message).await,
        Some(mut answer) => tokio::select! {
            // The call has its first step, and so its turn, before all that is sent after it.
            biased;
            outcome = to.ask(message).into_future() => outcome.map(|reply| drop(answer.send(reply))),
            () = answer.closed() => return,
        },
    };
    if let Err(fault) = outcome {
        tracing::warn!(to = to.id().kind(), message = M::NAME, %fault, "a proxy's call has no answer");
    }
}

/// Lets calls begin in the order in which they were sent, and go on side by side.
async fn run<A: Addressed>(mut proxy: Proxy<A>, mut sent: channel::AddressReceiver<Proxy<A>>) {
    let (mut context, mut calls) = (ProxyContext::default(), FuturesUnordered::new());
    loop {
        tokio::select! {
            biased;
            envelope = sent.next(), if calls.len() < UNDER_WAY => {
                let Some(mut envelope) = envelope else { break };
                envelope.handle(&mut proxy, &mut context);
                let Some(mut call) = proxy.begun.take() else { continue };
                if futures::poll!(&mut call).is_pending() {
                    calls.push(call);
                }
            }
            Some(()) = calls.next() => {}
        }
    }
    // Nobody can send any more; what is under way still has askers.
    while calls.next().await.is_some() {}
}

impl<A: Addressed> MeshAddr<A> {
    /// A `Recipient` of the actor, wherever it lives. Must be called within a tokio runtime, on which
    /// its calls then run.
    #[must_use]
    pub fn recipient<M: Remote>(&self) -> Recipient<M>
    where
        A: Accepts<M>,
    {
        let (sender, receiver) = channel::channel::<Proxy<A>>(MAILBOX);
        tokio::spawn(run(Proxy { to: self.clone(), begun: None }, receiver));
        Addr::new(sender).recipient()
    }
}
