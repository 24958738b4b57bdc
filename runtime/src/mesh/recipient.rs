//! Remote actors behind actix's own `Recipient<M>`, so that code written for local actix works across
//! regions unchanged.
//!
//! * It decides nothing: a proxy asks as its address would.
//! * It never does: lose the sender's call. A message is packed on the sender's thread, and there the
//!   call under way is taken along; so the class of the data, the deadline and the chain go on.
//! * Invariant: a send through it ends. A fault shows as `MailboxError::Closed` (actix has no other
//!   word for it) and is logged.

use std::sync::Arc;

use actix::dev::{Envelope, EnvelopeProxy, OneshotSender, ToEnvelope, channel};
use actix::{Actor, ActorContext, ActorState, Addr, Handler, MessageResult, Recipient};
use futures::StreamExt;
use rhumb_actors::remote::{Accepts, Addressed, Remote};

use super::MeshAddr;
use crate::host::call::{Current, Scoped, current};

/// How many messages may wait in a proxy before a sender is told that it is full.
const MAILBOX: usize = 64;
/// How many asks one proxy has under way.
const UNDER_WAY: usize = 1_024;

/// The local stand-in of an actor. It exists only as the receiver of a `Recipient`.
pub struct Proxy<A: Addressed> {
    to: MeshAddr<A>,
    under_way: Arc<tokio::sync::Semaphore>,
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
        let Ok(place) = Arc::clone(&proxy.under_way).try_acquire_owned() else {
            tracing::warn!(
                to = proxy.to.id().kind(),
                message = M::NAME,
                "a proxy has too many calls under way"
            );
            return;
        };
        let (to, scope) = (proxy.to.clone(), self.within.take());
        let forward = async move {
            let _place = place;
            let outcome = match answer {
                Some(answer) => to.ask(message).await.map(|reply| drop(answer.send(reply))),
                None => to.tell(message).await,
            };
            if let Err(fault) = outcome {
                tracing::warn!(to = to.id().kind(), message = M::NAME, %fault, "a proxy's call has no answer");
            }
        };
        match scope {
            None => drop(tokio::spawn(forward)),
            Some(current) => drop(tokio::spawn(Scoped { current, future: Box::pin(forward) })),
        }
    }
}

impl<A: Addressed> MeshAddr<A> {
    /// A `Recipient` of the actor, wherever it lives. Must be called within a tokio runtime, on which
    /// its calls then run.
    #[must_use]
    pub fn recipient<M: Remote>(&self) -> Recipient<M>
    where
        A: Accepts<M>,
    {
        let (sender, mut receiver) = channel::channel::<Proxy<A>>(MAILBOX);
        let under_way = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY));
        let mut proxy = Proxy { to: self.clone(), under_way };
        tokio::spawn(async move {
            let mut context = ProxyContext::default();
            while let Some(mut envelope) = receiver.next().await {
                envelope.handle(&mut proxy, &mut context);
            }
        });
        Addr::new(sender).recipient()
    }
}
