//! How a message gets to its actor and the answer back.
//!
//! * It decides: under which class a message goes, whether the call within which it is sent lets it go,
//!   and whether its actor is of this node.
//! * It never does: send a message again whose sender does not want it, or wait past the deadline of the call within which it is sent.
//! * Invariant: a message leaves under its own class, and that is no less strict than any that its
//!   caller has seen.

use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::SpanKind;
use parking_lot::Mutex;
use rhumb_actors::remote::{Addressed, Remote};
use rhumb_core::{DataClass, Fault, FaultKind, Guarantee, NodeId};
use rhumb_transport::{Headers, Peer, Reply, Request};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::address::{MeshAddr, Said, class_of};
use super::body::{alike, pack, unpack_reply};
use super::following::{ask_elsewhere, followed, found_at_last, has_moved, may_have_moved, sent_to};
use super::resilience::Attempts;
use super::{Carried, Mesh, dispatch, durably, registry};
use crate::delivery::parcel::LETTER;
use crate::host::admission::Permit;
use crate::host::call::{self, Answers, Before, CallState, Called, MAX_CHAIN, Seen, Stage};
use crate::host::id::ActorId;
use crate::host::packed::{Asker, Packed};
use crate::telemetry::{self, What, names};

/// The longest that anybody waits for an answer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Asks, and gives the reply with its class.
pub(super) async fn ask<A, M>(
    to: &MeshAddr<A>,
    message: M,
    said: Said,
) -> Result<(M::Reply, DataClass), Fault>
where
    A: Addressed,
    M: Remote,
{
    let within = call::within();
    let deadline = deadline::<M>(&said, within.as_deref());
    let retried = (said.retried || M::RETRIED) && (M::IDEMPOTENT || M::KEYED);
    // Only the outermost call is made again: within it, each layer would multiply those of the next.
    let retried = retried && within.is_none();
    let (mesh, owner) = match to.found(deadline).await {
        Err(fault) if retried && matches!(fault.kind, FaultKind::Unowned(_)) => {
            Box::pin(found_at_last(to, deadline, fault)).await?
        }
        found => found?,
    };
    let call = outgoing::<A, M>(&mesh, to.id(), &message, said, within.clone(), deadline, Waits::Yes)?;
    let answered = if Some(&owner) == mesh.node() && durably::is_kept::<M>(&mesh, &call) {
        durably::ask_kept::<A, M>(&mesh, message, &call).await
    } else if Some(&owner) == mesh.node() {
        match ask_here::<A, M>(&mesh, message, &call).await {
            Err(fault) if call.left.get().is_some() => {
                // In a box: seldom needed.
                Box::pin(ask_elsewhere::<A, M>(to, &mesh, &call, fault, retried)).await
            }
            answered => answered,
        }
    } else {
        ask_there(to, &mesh, &owner, message, &call, retried).await
    };
    concluded(&call, within, answered).inspect_err(|fault| to.doubt(fault))
}

/// What a call comes to, for whoever made it and for the call within which it was made.
pub(super) fn concluded<T>(
    call: &CallState,
    within: Option<Arc<CallState>>,
    answered: Result<(T, DataClass), Fault>,
) -> Result<(T, DataClass), Fault> {
    let achieved = call.seen.lock().guarantee;
    let outcome = answered.and_then(|answer| match achieved.meets(call.required) {
        true => Ok(answer),
        false => Err(Fault::ran(FaultKind::Guarantee { required: call.required, achieved })),
    });
    call.went(outcome.as_ref().map(|_| ()));
    let (reply, class) = outcome?;
    if let Some(caller) = within {
        caller.got(&class, achieved);
    }
    Ok((reply, class))
}

/// The reply of another node, decoded, and its class.
pub(super) fn unpacked<M: Remote>(
    mesh: &Mesh,
    call: &CallState,
    reply: Reply,
) -> Result<(M::Reply, DataClass), Fault> {
    call.met(reply.guarantee);
    let body = mesh.received(&reply);
    let decoded = telemetry::working_for(call.asked.as_ref(), || {
        telemetry::part(names::DECODE, || mesh.decoding(|| unpack_reply(M::NAME, body)))
    })?;
    Ok((decoded, reply.class))
}

/// Tells, and waits until the mailbox has taken the message.
pub(super) async fn tell<A, M>(to: &MeshAddr<A>, message: M, mut said: Said) -> Result<(), Fault>
where
    A: Addressed,
    M: Remote,
{
    if let Some(stream) = said.durably.take() {
        return Box::pin(durably::tell(to, message, said, stream)).await;
    }
    let within = call::within();
    // Who tells waits for the mailbox only, and no longer than its own caller does.
    let (mesh, owner) = to.found(deadline::<M>(&said, within.as_deref())).await?;
    let deadline = deadline::<M>(&said, None);
    let call = outgoing::<A, M>(&mesh, to.id(), &message, said, within, deadline, Waits::No)?;
    if Some(&owner) == mesh.node() {
        let taken = here::<A, M>(&mesh, message, &call, Asker::Nobody).map(drop);
        let taken = match (taken, call.left.get().cloned()) {
            (Err(fault), Some(body)) if has_moved(&fault) => {
                let led = Box::pin(followed::<A, M>(to, &mesh, &owner, &call, body, fault, Waits::No)).await;
                led.map(|reply| {
                    mesh.received(&reply);
                })
            }
            (taken, _) => taken,
        };
        call.went(taken.as_ref().map(|_| ()));
        return taken;
    }
    let mut again = None;
    let sent = telemetry::working_for(call.asked.as_ref(), || {
        let body = packed(&mesh, &owner, message)?;
        again = may_have_moved(&mesh, A::TYPE).then(|| body.clone());
        let request = Request::post(M::NAME, call.class.clone(), body, headers(&call));
        mesh.carry_to::<M>(&owner, &call.to, request, Waits::No)
    });
    let posted = match sent {
        Ok(sent) => sent.answer().await,
        Err(fault) => Err(fault),
    };
    let posted = match (posted, again) {
        (Err(fault), Some(body)) if has_moved(&fault) => {
            Box::pin(followed::<A, M>(to, &mesh, &owner, &call, body, fault, Waits::No)).await
        }
        (posted, _) => posted,
    };
    call.went(posted.as_ref().map(|_| ()));
    let reply = posted.inspect_err(|fault| to.doubt(fault))?;
    mesh.received(&reply);
    Ok(())
}

/// Until when a caller waits: as it says, or as the message declares; and no longer than the call within
/// which it is made.
pub(super) fn deadline<M: Remote>(said: &Said, caller: Option<&CallState>) -> Instant {
    let own = said.within.unwrap_or(M::DEADLINE).min(LONGEST);
    let own = Instant::now() + own;
    caller.map_or(own, |caller| own.min(caller.deadline))
}

/// Whether whoever sends waits for the handler.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    Yes,
    No,
}

/// The call of a message that is about to be sent, if it may be.
pub(super) fn outgoing<A: Addressed, M: Remote>(
    mesh: &Mesh,
    to: &ActorId,
    message: &M,
    said: Said,
    caller: Option<Arc<CallState>>,
    deadline: Instant,
    waits: Waits,
) -> Result<Arc<CallState>, Fault> {
    let state = class_of::<A>()?;
    let class = message.class().unwrap_or(&state).clone();
    let so_far = match &caller {
        Some(caller) => caller.may_send(&class)?,
        None => Guarantee::STRONGEST,
    };
    let rests_on = said.rests_on.unwrap_or(so_far);
    rests_on_enough::<M>(rests_on)?;
    let mut required = said.required.unwrap_or_default();
    if let Some(caller) = caller.as_deref().filter(|_| waits == Waits::Yes) {
        required = required.max(caller.required);
    }
    if waits == Waits::Yes && !rests_on.meets(required) {
        // No answer to it could be good enough.
        return Err(Fault::not_sent(FaultKind::Guarantee { required, achieved: rests_on }));
    }
    let mut before = Before::Nobody;
    let (asked, trace) = mesh.watch(said.trace, || match waits {
        Waits::Yes => What::rpc(M::NAME, SpanKind::Client, &class),
        Waits::No => What::sent(M::NAME, &class),
    });
    if let Some(caller) = caller {
        // Who tells does not wait: neither the deadline nor the chain of those who do goes on.
        if waits == Waits::Yes {
            before = Before::Here(caller);
        }
    }
    let seen = Mutex::new(Seen { guarantee: rests_on, ..Seen::default() });
    let call = CallState {
        mesh: mesh.clone(),
        to: to.clone(),
        from: None,
        deadline,
        hybrid: OnceLock::new(),
        trace,
        asked,
        served: OnceLock::new(),
        class,
        answers: Answers::to(message, &state),
        required,
        key: said.key.or_else(|| message.idempotency_key()),
        epoch: said.epoch,
        before,
        seen,
        end: OnceLock::new(),
        stage: AtomicU8::new(Stage::Waiting as u8),
        staged: None,
        admitted: Mutex::default(),
        left: OnceLock::new(),
        held: None,
    };
    if call.cycles() || call.before.len() >= MAX_CHAIN {
        let fault = Fault::not_sent(FaultKind::Cycle(call.to.shown().to_string()));
        call.went(Err(&fault));
        return Err(fault);
    }
    Ok(Arc::new(call))
}

/// What a message rests on of which nothing is said: all that the call has rested on so far within which it is sent.
pub(super) fn rests_on(caller: Option<&CallState>) -> Guarantee {
    caller.map_or(Guarantee::STRONGEST, |caller| caller.seen.lock().guarantee)
}

/// Whether what a message rests on is enough for its handler.
pub(super) fn rests_on_enough<M: Remote>(achieved: Guarantee) -> Result<(), Fault> {
    let required = M::REQUIRES;
    let weaker = || Fault::not_sent(FaultKind::Guarantee { required, achieved });
    if achieved.meets(required) { Ok(()) } else { Err(weaker()) }
}

/// Puts a message into a mailbox of this node.
pub(super) fn here<A: Addressed, M: Remote>(
    mesh: &Mesh,
    message: M,
    call: &Arc<CallState>,
    asker: Asker<M>,
) -> Result<Option<Permit>, Fault> {
    let now = Instant::now();
    let hosts = mesh.hosted();
    let home = hosts.and_then(|hosts| hosts.home(call.to.kind).cloned());
    let home = home.ok_or_else(|| not_hosted(mesh, call.to.kind))?;
    same_class(A::TYPE, home.class(), A::CLASS)?;
    home.may_take(&call.to).inspect_err(|fault| call.leaves(&message, fault))?;
    if call.epoch.is_some() {
        dispatch::epoch_matches(home.epoch(&call.to), call.epoch)?;
    }
    let door = home.door().filter(|_| matches!(asker, Asker::Here(_)));
    let left = call.deadline.saturating_duration_since(now);
    let permit = door.map(|door| door.admit(M::PRIORITY, now, left)).transpose()?;
    call.is_served(call.asked.as_ref().map(|asked| {
        asked.below(match &asker {
            Asker::Nobody | Asker::HeldBack(_) => What::processed(M::NAME, &call.class),
            Asker::Here(_) | Asker::There(_) => What::rpc(M::NAME, SpanKind::Server, &call.class),
        })
    }));
    let packed = Packed { message, call: Called::Made(Arc::clone(call)), asker, work: None };
    home.local(&call.to, M::NAME, Box::new(packed), now)?;
    Ok(permit)
}

async fn ask_here<A: Addressed, M: Remote>(
    mesh: &Mesh,
    message: M,
    call: &Arc<CallState>,
) -> Result<(M::Reply, DataClass), Fault> {
    let (answer, answered) = oneshot::channel();
    let permit = here::<A, M>(mesh, message, call, Asker::Here(answer))?;
    let abandon = Abandon(call);
    let outcome = match timeout_at(call.deadline, answered).await {
        Ok(Ok(reply)) => {
            std::mem::forget(abandon);
            call.answer_class().map(|class| (reply, class))
        }
        Ok(Err(_)) => Err(call.why(M::NAME)),
        Err(_) => Err(call.deadline_passed(M::NAME)),
    };
    if let Some(permit) = permit {
        permit.ended(outcome.as_ref().err());
    }
    call.was_served(outcome.as_ref().map(|_| ()));
    outcome
}

/// Nobody waits any more, when dropped: what has not begun need not.
struct Abandon<'a>(&'a CallState);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn ask_there<A: Addressed, M: Remote>(
    to: &MeshAddr<A>,
    mesh: &Mesh,
    owner: &NodeId,
    message: M,
    call: &Arc<CallState>,
    retried: bool,
) -> Result<(M::Reply, DataClass), Fault> {
    let packed = telemetry::working_for(call.asked.as_ref(), || packed(mesh, owner, message));
    let kept = retried || may_have_moved(mesh, A::TYPE);
    let again = packed.as_ref().ok().filter(|_| kept).cloned();
    let repeats = retried && again.is_some() && repeats::<M>(mesh, owner, call);
    let mut reply = match packed.and_then(|body| send::<M>(mesh, owner, call, body)) {
        Ok(sent) => sent.answer().await,
        Err(fault) => Err(fault),
    };
    if let Some(body) = again {
        // In boxes: seldom needed.
        if let Err(fault) = reply {
            reply = if has_moved(&fault) {
                let body = body.clone();
                Box::pin(followed::<A, M>(to, mesh, owner, call, body, fault, Waits::Yes)).await
            } else {
                Err(fault)
            };
        }
        if retried {
            mesh.resilience().called();
            if let Err(fault) = reply {
                let again = (&**call, body, repeats);
                reply = Box::pin(send_again::<A, M>(to, mesh, owner, again, fault)).await;
            }
        }
    }
    if let Some(span) = &call.asked {
        mesh.reached(owner, span);
    }
    unpacked::<M>(mesh, call, reply?)
}

/// Whether a question may be made again of its actor's node though it may have run: it has the effect of once, or that
/// node keeps the answer to its key, which it says by taking letters: both rest on one table.
fn repeats<M: Remote>(mesh: &Mesh, owner: &NodeId, call: &CallState) -> bool {
    let peer = || mesh.inner.carrier.get().and_then(|carrier| carrier.peer(owner));
    let keeps = |peer: Arc<Peer>| peer.manifest.iter().any(|entry| entry.name == LETTER);
    M::IDEMPOTENT || call.key.is_some() && peer().is_some_and(keeps)
}

/// Sends a question again whose first attempt ended so, until it is answered or may be sent no more. `repeats` where it
/// may be though it may have run: what runs once because a node keeps its answer is asked of no other node.
pub(super) async fn send_again<A: Addressed, M: Remote>(
    to: &MeshAddr<A>,
    mesh: &Mesh,
    first: &NodeId,
    (call, body, repeats): (&CallState, Bytes, bool),
    fault: Fault,
) -> Result<Reply, Fault> {
    let mut attempts = Attempts::new(mesh.resilience(), repeats, call.deadline);
    let mut fault = fault;
    loop {
        to.doubt(&fault);
        attempts.failed(fault).await?;
        let found = match M::IDEMPOTENT {
            true => match to.found(call.deadline).await {
                Err(fault) if matches!(fault.kind, FaultKind::Unowned(_)) => {
                    found_at_last(to, call.deadline, fault).await.map(|(_, owner)| owner)
                }
                found => found.map(|(_, owner)| owner),
            },
            false => Ok(first.clone()),
        };
        let answered = match found {
            Ok(owner) => sent_to::<A, M>(to, mesh, &owner, call, body.clone()).await,
            Err(fault) => Err(fault),
        };
        match answered {
            Ok(reply) => {
                attempts.answered();
                return Ok(reply);
            }
            Err(failed) => fault = failed,
        }
    }
}

/// Sends a question to a node.
pub(super) fn send<M: Remote>(
    mesh: &Mesh,
    owner: &NodeId,
    call: &CallState,
    body: Bytes,
) -> Result<Carried, Fault> {
    telemetry::working_for(call.asked.as_ref(), || {
        let request = Request::ask(M::NAME, call.class.clone(), body, headers(call));
        mesh.carry_to::<M>(owner, &call.to, request, Waits::Yes)
    })
}

/// The bytes of a message, if the peer knows it and lays it out alike.
pub(super) fn packed<M: Remote>(mesh: &Mesh, owner: &NodeId, message: M) -> Result<Bytes, Fault> {
    understood::<M>(mesh, owner)?;
    telemetry::part(names::ENCODE, || pack(M::NAME, &message))
}

/// Whether the peer knows a message and lays it out alike, by what it said in its HELLO. A peer that is
/// not connected yet says so in time.
pub(super) fn understood<M: Remote>(mesh: &Mesh, owner: &NodeId) -> Result<(), Fault> {
    let Some(peer) = mesh.carrier(owner)?.peer(owner) else { return Ok(()) };
    let known = peer.manifest.iter().find(|entry| entry.name == M::NAME);
    let unknown = || Fault::not_sent(FaultKind::UnknownMessage(M::NAME.to_owned()));
    alike::<M>(known.ok_or_else(unknown)?.fingerprint).map_err(Fault::not_sent)
}

pub(super) fn headers(call: &CallState) -> Headers {
    Headers {
        hybrid: call.hybrid(),
        trace: call.trace,
        guarantee: call.seen.lock().guarantee,
        required: call.required,
        idempotency_key: call.key.clone(),
        epoch: call.epoch,
        chain: call.before.names(),
        target: Some(call.to.target().into()),
        ..Headers::within(call.deadline.saturating_duration_since(Instant::now()))
    }
}

/// What one actor is sent from here stays in order.
pub(super) fn pair(to: &ActorId) -> u64 {
    registry::fnv(to.kind.bytes().chain(to.key.bytes()))
}

/// Whether a caller believes the actor's state to be of the class that it is of. A protocol that says
/// another one would find another owner, and bind answers otherwise.
pub(super) fn same_class(kind: &str, ours: &str, theirs: &str) -> Result<(), Fault> {
    if ours == theirs {
        return Ok(());
    }
    let why = format!("the state of actors of type {kind} is of class {ours}, and the caller says {theirs}");
    Err(Fault::not_sent(FaultKind::NotHosted(why)))
}

pub(super) fn not_hosted(mesh: &Mesh, kind: &str) -> Fault {
    let node =
        mesh.node().map_or_else(|| "a program that only calls".to_owned(), |node| format!("node {node}"));
    Fault::not_sent(FaultKind::NotHosted(format!("{node} hosts no actors of type {kind}")))
}
