//! Asks one of several equal actors: the best of them, wherever it is.
//!
//! * It decides nothing: [`rhumb_transport::resilience::balance`] chooses, by what the others cost lately, and by which of
//!   them fail.
//! * It never does: let a question leave the regions that may hold the class of the actors' state.
//! * Invariant: each attempt is one question to one node.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;

use bytes::Bytes;
use parking_lot::Mutex;
use rhumb_actors::remote::{Accepts, Addressed, Remote};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use rhumb_transport::{Reply, Request};

use super::address::{Said, class_of};
use super::asking::{Waits, concluded, deadline, headers, outgoing, send, understood, unpacked};
use super::body::pack;
use super::resilience::{Attempts, hedged};
use super::{Mesh, dispatch};
use crate::host::call::{self, CallState};
use crate::host::id::ActorId;
use crate::telemetry::{self, names};

/// Any of the equal actors of a type, on whichever node: see [`Host::equals`](crate::host::Host::equals). Each question goes
/// to the cheaper of two that are drawn: by how long they took lately and how much is under way there. Those of the
/// asker's own region come first, unless they cost four times as much as one of another; those that fail are left out,
/// but never more than half. What is asked is encoded also where this node is the best.
pub struct AnyOf<A: ?Sized> {
    mesh: Mesh,
    marker: PhantomData<fn() -> Box<A>>,
}

impl<A: ?Sized> Clone for AnyOf<A> {
    fn clone(&self) -> Self {
        Self { mesh: self.mesh.clone(), marker: PhantomData }
    }
}

impl<A: Addressed> fmt::Debug for AnyOf<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyOf({})", A::TYPE)
    }
}

impl<A: Addressed> AnyOf<A> {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self { mesh, marker: PhantomData }
    }

    /// Asks the best of them, and waits for the answer.
    pub fn ask<M: Remote>(&self, message: M) -> AskAny<'_, A, M>
    where
        A: Accepts<M>,
    {
        AskAny { of: self, message, said: Said::default() }
    }
}

impl<A: Addressed, M: Remote> AskAny<'_, A, M> {
    /// Asks a second one, on another node, when nineteen of twenty of the last such questions were answered sooner, within
    /// the mesh's budget of hedges. The first answer counts, and the other is cancelled. Only outside of any other
    /// call, and only what is `idempotent`: anything else does not compile.
    pub fn hedged(mut self) -> Self {
        const { assert!(M::IDEMPOTENT, "only a message that is `idempotent` may be hedged") };
        self.said.hedged = true;
        self
    }
}

/// A question to any of several that is about to be asked.
#[must_use = "a question is asked when it is awaited"]
pub struct AskAny<'a, A: Addressed, M: Remote> {
    of: &'a AnyOf<A>,
    message: M,
    pub(super) said: Said,
}

impl<'a, A, M> IntoFuture for AskAny<'a, A, M>
where
    A: Addressed + Accepts<M>,
    M: Remote,
{
    type Output = Result<M::Reply, Fault>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<M::Reply, Fault>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(ask::<A, M>(&self.of.mesh, self.message, self.said).await?.0) })
    }
}

async fn ask<A: Addressed, M: Remote>(
    mesh: &Mesh,
    message: M,
    said: Said,
) -> Result<(M::Reply, DataClass), Fault> {
    let within = call::within();
    let deadline = deadline::<M>(&said, within.as_deref());
    let retried = (said.retried || M::RETRIED) && (M::IDEMPOTENT || M::KEYED) && within.is_none();
    let hedged = said.hedged && within.is_none();
    let (nodes, id) = (mesh.equals(&class_of::<A>()?), ActorId::equal(A::TYPE, None));
    let call = outgoing::<A, M>(mesh, &id, &message, said, within.clone(), deadline, Waits::Yes)?;
    let packed = telemetry::working_for(call.asked.as_ref(), || {
        telemetry::part(names::ENCODE, || pack(M::NAME, &message))
    });
    drop(message);
    let answered = match packed {
        Ok(body) => asked::<M>(mesh, &nodes, &call, body, Ways { retried, hedged }).await,
        Err(fault) => Err(fault),
    };
    concluded(&call, within, answered.and_then(|reply| unpacked::<M>(mesh, &call, reply)))
}

/// What may be done for a question besides asking it.
#[derive(Clone, Copy)]
struct Ways {
    retried: bool,
    hedged: bool,
}

async fn asked<M: Remote>(
    mesh: &Mesh,
    nodes: &[NodeId],
    call: &CallState,
    body: Bytes,
    ways: Ways,
) -> Result<Reply, Fault> {
    if !ways.retried {
        return once::<M>(mesh, nodes, call, body, ways).await;
    }
    mesh.resilience().called();
    let mut fault = match once::<M>(mesh, nodes, call, body.clone(), ways).await {
        Ok(reply) => return Ok(reply),
        Err(fault) => fault,
    };
    let mut attempts = Attempts::new(mesh.resilience(), M::IDEMPOTENT, call.deadline);
    loop {
        attempts.failed(fault).await?;
        match once::<M>(mesh, nodes, call, body.clone(), ways).await {
            Ok(reply) => {
                attempts.answered();
                return Ok(reply);
            }
            Err(failed) => fault = failed,
        }
    }
}

/// One attempt: of the best, and if it is hedged and late, of the best of the others besides.
async fn once<M: Remote>(
    mesh: &Mesh,
    nodes: &[NodeId],
    call: &CallState,
    body: Bytes,
    ways: Ways,
) -> Result<Reply, Fault> {
    let asked = Mutex::new(None);
    if !ways.hedged || nodes.len() < 2 {
        return best::<M>(mesh, nodes.to_vec(), call, body, &asked).await;
    }
    let first = best::<M>(mesh, nodes.to_vec(), call, body.clone(), &asked);
    let second = || {
        let first = asked.lock().clone();
        let others = nodes.iter().filter(|node| Some(*node) != first.as_ref()).cloned().collect();
        best::<M>(mesh, others, call, body, &asked)
    };
    hedged(mesh.resilience(), call.to.kind, first, second).await
}

/// Asks the best of these nodes; where it turns out to have none of these actors, the next. `asked` is the one.
async fn best<M: Remote>(
    mesh: &Mesh,
    nodes: Vec<NodeId>,
    call: &CallState,
    body: Bytes,
    asked: &Mutex<Option<NodeId>>,
) -> Result<Reply, Fault> {
    let mut left = nodes;
    left.iter().for_each(|node| mesh.meets(node));
    loop {
        let Some((at, weighed)) = mesh.resilience().choose(mesh.region(), &left, call.to.kind) else {
            let what = format!("no node may have actors of type {}", call.to.kind);
            return Err(Fault::not_sent(FaultKind::NotHosted(what)));
        };
        *asked.lock() = Some(left[at].clone());
        let outcome = one::<M>(mesh, &left[at], call, body.clone()).await;
        weighed.went(outcome.as_ref().err());
        match outcome {
            Err(Fault { kind: FaultKind::NotHosted(_), .. }) if left.len() > 1 => drop(left.swap_remove(at)),
            ended => return ended,
        }
    }
}

async fn one<M: Remote>(mesh: &Mesh, node: &NodeId, call: &CallState, body: Bytes) -> Result<Reply, Fault> {
    if Some(node) == mesh.node() {
        let request = Request::ask(M::NAME, call.class.clone(), body, headers(call));
        return dispatch::ask_here(mesh, request, call.deadline).await;
    }
    understood::<M>(mesh, node)?;
    send::<M>(mesh, node, call, body)?.answer().await
}
