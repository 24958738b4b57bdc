//! A message that follows an actor that has moved, and one that waits until somebody acts for it.
//!
//! * It decides: whom to ask who owns an actor now.
//! * It never does: send a message again that anybody may have taken, or wait past the deadline of its call.

use bytes::Bytes;
use rhumb_actors::remote::{Addressed, Remote};
use rhumb_core::{Fault, FaultKind, NodeId};
use rhumb_transport::{Reply, Request};
use tokio::time::Instant;

use super::address::{MeshAddr, class_of};
use super::asking::{Waits, headers, understood};
use super::resilience::Attempts;
use super::{Mesh, dispatch};
use crate::host::call::CallState;
use crate::telemetry;

/// How often a message follows an actor that has moved: from who owned it to who does, and once more.
const HOPS: usize = 2;

/// Whether actors of a type may be elsewhere than this side believes. A program does not know which types move.
pub(super) fn may_have_moved(mesh: &Mesh, kind: &str) -> bool {
    mesh.node().is_none() || mesh.moving(kind).is_some()
}

/// Whether a node has said that another one owns the actor now, and not that the two have different policies.
pub(super) fn has_moved(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::Moved(_)) && fault.retry_after.is_some()
}

/// Finds the owner of an actor of whom nobody has been the owner, until there is one or nobody waits any more.
pub(super) async fn found_at_last<A: Addressed>(
    to: &MeshAddr<A>,
    until: Instant,
    fault: Fault,
) -> Result<(Mesh, NodeId), Fault> {
    let (mesh, mut fault) = (to.mesh()?, fault);
    mesh.resilience().called();
    let mut attempts = Attempts::new(mesh.resilience(), true, until);
    loop {
        attempts.failed(fault).await?;
        match to.found(until).await {
            Ok(found) => {
                attempts.answered();
                return Ok(found);
            }
            Err(again) => fault = again,
        }
    }
}

/// Sends a message to the owner of which a node has spoken that is it no more, and to the one of which that speaks. It has not
/// been sent to anybody before who took it.
pub(super) async fn followed<A: Addressed, M: Remote>(
    to: &MeshAddr<A>,
    mesh: &Mesh,
    asked: &NodeId,
    call: &CallState,
    body: Bytes,
    fault: Fault,
    waits: Waits,
) -> Result<Reply, Fault> {
    let (mut asked, mut fault, class) = (asked.clone(), fault, class_of::<A>()?);
    for _ in 0..HOPS {
        let left = call.deadline.saturating_duration_since(Instant::now());
        let owner = mesh.locate_by(&asked, &class, &call.to.shown(), left).await;
        let Some(owner) = owner.ok().filter(|owner| *owner != asked) else { break };
        match at::<M>(mesh, &owner, call, body.clone(), waits).await {
            Err(again) if has_moved(&again) => (asked, fault) = (owner, again),
            answered => {
                to.is_at(mesh, owner);
                return answered;
            }
        }
    }
    Err(fault)
}

/// Sends a message to a node, this one or another, and gives what comes of it.
pub(super) async fn at<M: Remote>(
    mesh: &Mesh,
    owner: &NodeId,
    call: &CallState,
    body: Bytes,
    waits: Waits,
) -> Result<Reply, Fault> {
    let (class, headers) = (call.class.clone(), headers(call));
    let request = match waits {
        Waits::Yes => Request::ask(M::NAME, class, body, headers),
        Waits::No => Request::post(M::NAME, class, body, headers),
    };
    if Some(owner) == mesh.node() {
        return dispatch::ask_here(mesh, request, call.deadline).await;
    }
    understood::<M>(mesh, owner)?;
    let sent =
        telemetry::working_for(call.asked.as_ref(), || mesh.carry_to::<M>(owner, &call.to, request, waits));
    sent?.answer().await
}
