//! What goes through a node's delivery: tells that must arrive, and asks under a key to actors of this node.
//!
//! * It decides: whether a letter may be kept here, and that it goes with the batch of the call within which it is
//!   told, where that has one.
//! * It never does: say that a letter is taken before it is durable, unless it is with the answer of that call.

use std::sync::Arc;

use rhumb_actors::delivery::Letter;
use rhumb_actors::remote::{Addressed, Remote};
use rhumb_core::{DataClass, Fault, FaultKind, GateRefusal, NodeId, Now};
use rhumb_topology::policy::Use;
use rhumb_transport::{Answer, Request};
use tokio::time::timeout_at;

use super::address::{MeshAddr, Said};
use super::asking::{Waits, deadline, headers, not_hosted, outgoing, same_class};
use super::body::{pack, unpack_reply};
use super::dispatch::Incoming;
use super::{Mesh, Whereabouts, dispatch, registry};
use crate::delivery::Delivery;
use crate::host::call::{self, CallState};
use crate::telemetry;

/// Bytes that the name of a stream may have.
const MAX_STREAM: usize = 200;

/// Tells for sure: returns when the letter is durable here.
pub(super) async fn tell<A, M>(to: &MeshAddr<A>, message: M, said: Said, stream: String) -> Result<(), Fault>
where
    A: Addressed,
    M: Remote,
{
    let within = call::within();
    let until = deadline::<M>(&said, within.as_deref());
    let allowed = said.within.unwrap_or(M::DEADLINE);
    if said.epoch.is_some() || said.required.is_some() {
        let why = "a durable tell outlives epochs and has no answer: it says neither .epoch nor .requiring";
        return Err(Fault::not_sent(FaultKind::Handler(why.to_owned())));
    }
    let (mesh, owner) = to.found(until).await?;
    if mesh.moving(A::TYPE).is_some() {
        return Err(dispatch::not_kept(A::TYPE));
    }
    let call = outgoing::<A, M>(&mesh, to.id(), &message, said, within.clone(), until, Waits::No)?;
    let ready = mesh.delivery().ok_or_else(no_outbox).and_then(|delivery| {
        mesh.may_hold(&call.class)?;
        Ok((delivery, letter(&mesh, &call, &message, owner, stream, allowed)?))
    });
    drop(message);
    let taken = match (ready, within.as_ref().and_then(|within| within.staged.as_ref())) {
        (Err(fault), _) => Err(fault),
        (Ok((delivery, letter)), Some(staged)) => {
            delivery.has_room(&letter.to).and_then(|()| staged.letter(letter))
        }
        (Ok((delivery, letter)), None) => {
            timeout_at(until, delivery.tell(letter)).await.unwrap_or_else(|_| {
                Err(Fault::unknown(FaultKind::Deadline("waiting for the outbox to be durable".to_owned())))
            })
        }
    };
    call.went(taken.as_ref().map(|_| ()));
    taken
}

fn letter<M: Remote>(
    mesh: &Mesh,
    call: &CallState,
    message: &M,
    to: NodeId,
    stream: String,
    within: std::time::Duration,
) -> Result<Letter, Fault> {
    if stream.len() > MAX_STREAM {
        let (bytes, limit) = (stream.len() as u64, MAX_STREAM as u64);
        return Err(Fault::not_sent(FaultKind::TooLarge { bytes, limit }));
    }
    let body = pack(M::NAME, message)?;
    let limit = crate::delivery::staged::MAX_WRITES;
    if body.len() > limit {
        let (bytes, limit) = (body.len() as u64, limit as u64);
        return Err(Fault::not_sent(FaultKind::TooLarge { bytes, limit }));
    }
    Ok(Letter {
        to,
        target: call.to.target(),
        shown: call.to.shown().to_string(),
        stream,
        name: M::NAME.to_owned(),
        key: call.key.clone(),
        class: call.class.clone(),
        body: body.to_vec(),
        within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        written: mesh.now().hybrid,
    })
}

fn no_outbox() -> Fault {
    let why =
        "a durable tell needs an outbox, and only a node has one: ask, with an idempotency key".to_owned();
    Fault::not_sent(FaultKind::Unauthorized(why))
}

/// Whether an ask of this call goes through the idempotency table, if its actor is of this node.
pub(super) fn is_kept<M: Remote>(mesh: &Mesh, call: &CallState) -> bool {
    call.key.is_some() && !M::IDEMPOTENT && mesh.delivery().is_some()
}

/// Asks an actor of this node under a key: encoded, for the message is compared and the answer is kept.
pub(super) async fn ask_kept<A: Addressed, M: Remote>(
    mesh: &Mesh,
    message: M,
    call: &Arc<CallState>,
) -> Result<(M::Reply, DataClass), Fault> {
    let home = mesh.hosted().and_then(|hosts| hosts.home(call.to.kind).cloned());
    let home = home.ok_or_else(|| not_hosted(mesh, call.to.kind))?;
    same_class(A::TYPE, home.class(), A::CLASS)?;
    let body = pack(M::NAME, &message)?;
    let request = Request::ask(M::NAME, call.class.clone(), body, headers(call));
    let (answer, answered) = Answer::here();
    {
        let _within = call.asked.as_ref().map(|span| span.context().attach());
        dispatch::deliver(mesh, Incoming { from: None, request, answer, staged: None });
    }
    let reply = timeout_at(call.deadline, answered).await;
    let reply = reply.unwrap_or_else(|_| {
        let what = format!("waiting for {} to answer {}", call.to.shown(), M::NAME);
        Err(Fault::unknown(FaultKind::Deadline(what)))
    })?;
    call.met(reply.guarantee);
    let decoded =
        telemetry::working_for(call.asked.as_ref(), || mesh.decoding(|| unpack_reply(M::NAME, &reply.body)))?;
    Ok((decoded, reply.class))
}

impl Mesh {
    /// From now on asks with keys are answered once, and letters are taken.
    pub(crate) fn delivers(&self, delivery: Delivery) {
        assert!(self.inner.delivery.set(delivery).is_ok(), "a mesh is given its delivery once");
    }

    /// This node's delivery; none of a program that only calls.
    pub(crate) fn delivery(&self) -> Option<&Delivery> {
        self.inner.delivery.get()
    }

    /// The present time here.
    ///
    /// # Panics
    /// In a program that only calls: it has no clock in the mesh.
    pub(crate) fn now(&self) -> Now {
        self.inner.clock.as_ref().expect("a node has a clock").now()
    }

    /// Whether data of this class may be kept on this node.
    pub(crate) fn may_hold(&self, class: &DataClass) -> Result<(), Fault> {
        let Whereabouts::Known(places) = &self.inner.places else { return Err(no_outbox()) };
        let region = self.region();
        places.policy.load().permits(region, Use::Hold, class).map_err(|reason| {
            let (from, to) = (region.clone(), region.clone());
            Fault::not_sent(FaultKind::Gate(GateRefusal { class: class.clone(), from, to, reason }))
        })
    }

    /// Asks the service of another node that serves `M`. It has its place in the order when this returns.
    ///
    /// # Errors
    /// It was not sent.
    pub(crate) fn begin_node<M: Remote>(
        &self,
        to: &NodeId,
        message: &M,
        class: DataClass,
        within: std::time::Duration,
    ) -> Result<impl Future<Output = Result<M::Reply, Fault>> + Send + use<M>, Fault> {
        let body = pack(M::NAME, message)?;
        let request = Request::ask(M::NAME, class, body, self.headers(within));
        let sent = self.carry(to, registry::fnv(M::NAME.bytes()), request)?;
        let mesh = self.clone();
        Ok(async move {
            let reply = sent.answer().await?;
            unpack_reply(M::NAME, mesh.received(&reply))
        })
    }

    /// Runs the handler of a message whose turn delivery has found.
    pub(crate) fn deliver_staged(&self, incoming: Incoming) {
        dispatch::deliver(self, incoming);
    }
}
