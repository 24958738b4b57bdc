//! A message that follows an actor that has moved, and one that waits until somebody acts for it.
//!
//! * It decides: whom to ask who owns an actor now.
//! * It never does: send a message again that anybody may have taken, or wait past the deadline of its call.

use std::sync::Arc;

use bytes::Bytes;
use rhumb_actors::remote::{Addressed, Remote};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use rhumb_transport::{Reply, Request};
use tokio::time::{Instant, timeout};

use super::address::{MeshAddr, class_of};
use super::asking::{Waits, headers, send_again, understood, unpacked};
use super::owners::Owners;
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

/// Finds the owner of an actor of whom nobody has been the owner, until there is one or nobody waits any more. A node looks at what
/// it has read, and a program asks one: no message is made again, and none is paid for.
pub(super) async fn found_at_last<A: Addressed>(
    to: &MeshAddr<A>,
    until: Instant,
    fault: Fault,
) -> Result<(Mesh, NodeId), Fault> {
    let (mesh, mut fault) = (to.mesh()?, fault);
    let mut readings = mesh.owners().map(Owners::readings);
    let mut pauses = mesh.resilience().pauses();
    while may_be_found(&fault) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // Not all look at once, and who was told when to look does not look sooner.
        let wait = (pauses.failed() + fault.retry_after.unwrap_or_default()).min(left);
        match &mut readings {
            Some(readings) => drop(timeout(wait, readings.changed()).await),
            None => tokio::time::sleep(wait).await,
        }
        match to.found(until).await {
            Ok(found) => return Ok(found),
            Err(again) => fault = again,
        }
    }
    Err(fault)
}

/// Whether an owner may be found later: nobody is, or nobody could be asked.
fn may_be_found(fault: &Fault) -> bool {
    use FaultKind::{Deadline, Draining, Full, Overloaded, Shut, Unowned, Unreachable};
    matches!(
        fault.kind,
        Unowned(_) | Unreachable(_) | Deadline(_) | Draining | Full(_) | Overloaded(_) | Shut(_)
    )
}

/// Asks whoever acts for an actor now, where this node did when the question came to it and has refused it since.
pub(super) async fn ask_elsewhere<A: Addressed, M: Remote>(
    to: &MeshAddr<A>,
    mesh: &Mesh,
    call: &Arc<CallState>,
    fault: Fault,
    retried: bool,
) -> Result<(M::Reply, DataClass), Fault> {
    let (Some(body), Some(me)) = (call.left.get().cloned(), mesh.node().cloned()) else { return Err(fault) };
    to.doubt(&fault);
    let waits = |fault: &Fault| retried && matches!(fault.kind, FaultKind::Unowned(_));
    let mut reply = if has_moved(&fault) {
        followed::<A, M>(to, mesh, &me, call, body.clone(), fault, Waits::Yes).await
    } else {
        Err(fault)
    };
    if let Err(fault) = &reply
        && waits(fault)
    {
        let (_, owner) = found_at_last(to, call.deadline, fault.clone()).await?;
        reply = sent_to::<A, M>(to, mesh, &owner, call, body.clone()).await;
    }
    if let (true, Err(fault)) = (retried, &reply) {
        mesh.resilience().called();
        let again = (&**call, body, M::IDEMPOTENT);
        reply = send_again::<A, M>(to, mesh, &me, again, fault.clone()).await;
    }
    unpacked::<M>(mesh, call, reply?)
}

/// Sends a question to the owner of its actor, and where that says that it has moved to the next.
pub(super) async fn sent_to<A: Addressed, M: Remote>(
    to: &MeshAddr<A>,
    mesh: &Mesh,
    owner: &NodeId,
    call: &CallState,
    body: Bytes,
) -> Result<Reply, Fault> {
    match at::<M>(mesh, owner, call, body.clone(), Waits::Yes).await {
        Err(fault) if has_moved(&fault) => {
            followed::<A, M>(to, mesh, owner, call, body, fault, Waits::Yes).await
        }
        answered => answered,
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
        let id = call.to.shown();
        let owner = if Some(&asked) == mesh.node() {
            mesh.owner_of(&class, &id).await
        } else {
            mesh.locate_by(&asked, &class, &id, left).await
        };
        let owner = match owner {
            Ok(owner) if owner != asked => owner,
            Ok(_) => return Err(not_followed(&fault, &format!("{asked} owns it again"))),
            // Nobody does for now: who waits for an owner may wait for this one.
            Err(unowned) if matches!(unowned.kind, FaultKind::Unowned(_)) => return Err(unowned),
            Err(why) => {
                return Err(not_followed(&fault, &format!("{asked} was asked where it is: {}", why.kind)));
            }
        };
        match at::<M>(mesh, &owner, call, body.clone(), waits).await {
            Err(again) if has_moved(&again) => (asked, fault) = (owner, again),
            answered => {
                to.is_at(mesh, owner);
                return answered;
            }
        }
    }
    Err(not_followed(&fault, "it moved each time that it was followed"))
}

/// The fault of a message for an actor that has moved and was not found where it is: nobody took it.
fn not_followed(fault: &Fault, why: &str) -> Fault {
    let said = match &fault.kind {
        FaultKind::Moved(said) => said.clone(),
        other => other.to_string(),
    };
    let what = format!("{said}; it could not be followed: {why}");
    Fault { retry_after: fault.retry_after, ..Fault::not_sent(FaultKind::Moved(what)) }
}

/// Sends a message to a node, this one or another, and gives what comes of it.
async fn at<M: Remote>(
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

#[cfg(test)]
mod tests {
    use rhumb_core::Delivery;

    use super::*;
    use crate::mesh::owners::AGAIN;

    #[test]
    fn what_could_not_be_followed_says_so_and_was_not_sent() {
        let moved = Fault::not_sent(FaultKind::Moved("another node owns it: us/n1".to_owned()));
        let fault = not_followed(&Fault { retry_after: Some(AGAIN), ..moved }, "it moved each time");
        assert_eq!((fault.delivery(), fault.retry_after), (Delivery::NotSent, Some(AGAIN)));
        let said = "the actor is owned elsewhere: another node owns it: us/n1; it could not be followed: it moved each time";
        assert_eq!(fault.kind.to_string(), said);
        assert!(has_moved(&fault));
    }
}
