//! Makes a call again that failed.
//!
//! * It decides nothing: [`rhumb_transport::resilience::retry`] does.
//! * It never does: encode the message anew, or extend the deadline: each attempt carries what is left of it.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use rhumb_actors::remote::Remote;
use rhumb_core::{Fault, NodeId};
use rhumb_transport::Reply;

use super::super::Mesh;
use super::super::asking::send;
use crate::host::call::CallState;

/// Makes a call again whose first attempt ended so, until it is answered or may be made no more.
pub(in crate::mesh) async fn again<M: Remote>(
    mesh: &Mesh,
    owner: &NodeId,
    call: &CallState,
    body: Bytes,
    fault: Fault,
) -> Result<Reply, Fault> {
    let (resilience, mut fault) = (mesh.resilience(), fault);
    let mut retries = resilience.retries(M::IDEMPOTENT);
    loop {
        let wait = resilience.wait(&mut retries, fault, call.deadline)?;
        tokio::time::sleep(wait).await;
        let answered = match send::<M>(mesh, owner, call, body.clone()) {
            Ok(sent) => sent.answer().await,
            Err(fault) => Err(fault),
        };
        match answered {
            Ok(reply) => {
                resilience.counts.answered.fetch_add(1, Ordering::Relaxed);
                return Ok(reply);
            }
            Err(failed) => fault = failed,
        }
    }
}
