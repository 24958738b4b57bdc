//! One message to all actors of a type that are awake in some regions.

use bytes::Bytes;
use opentelemetry::KeyValue;
use rhumb_actors::remote::{Accepts, Addressed, Remote};
use rhumb_core::{Fault, NodeId, Region};
use rhumb_transport::{Headers, Request};

use super::address::Said;
use super::asking::{Waits, deadline, headers, outgoing, understood};
use super::body::{pack, unpack_reply};
use super::{Mesh, dispatch};
use crate::host::call::{self, CallState};
use crate::host::id::{ActorId, Target};
use crate::telemetry::names;

/// What became of a broadcast on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The node.
    pub node: NodeId,
    /// How many mailboxes took the message, and how many refused it.
    pub outcome: Result<(u64, u64), Fault>,
}

impl Mesh {
    /// Tells all actors of a type that are awake in these regions, each at its node directly. Wakes
    /// none. One answer for each node of the regions; a region without a node has none. Nodes take it
    /// from nodes only.
    pub async fn broadcast<A, M>(&self, regions: &[Region], message: M) -> Vec<Broadcast>
    where
        A: Addressed + Accepts<M>,
        M: Remote,
    {
        let id = ActorId::new(A::TYPE, None, "");
        let caller = call::within();
        let until = deadline::<M>(&Said::default(), None);
        let ready = outgoing::<A, M>(self, &id, &message, Said::default(), caller, until, Waits::No)
            .and_then(|call| match pack(M::NAME, &message) {
                Ok(body) => Ok((call, body)),
                Err(fault) => {
                    call.went(Err(&fault));
                    Err(fault)
                }
            });
        let one = async |node: NodeId| {
            let outcome = match &ready {
                Ok((call, body)) => self.broadcast_to::<M>(&node, call, body.clone()).await,
                Err(fault) => Err(fault.clone()),
            };
            Broadcast { node, outcome }
        };
        let all = futures::future::join_all(self.nodes_in(regions).into_iter().map(one)).await;
        if let Ok((call, _)) = &ready {
            told(call, &all);
        }
        all
    }

    async fn broadcast_to<M: Remote>(
        &self,
        node: &NodeId,
        call: &CallState,
        body: Bytes,
    ) -> Result<(u64, u64), Fault> {
        let headers = Headers { target: Some(Target::all(call.to.kind).into()), ..headers(call) };
        let request = Request::ask(M::NAME, call.class.clone(), body, headers);
        if Some(node) == self.node() {
            return dispatch::broadcast_here(self, request).await;
        }
        understood::<M>(self, node)?;
        let reply = self.carry_to::<M>(node, &call.to, request, Waits::No)?.answer().await?;
        unpack_reply(M::NAME, self.received(&reply))
    }
}

/// Says in the call's span what became of the message: how many mailboxes took and refused it, and the
/// first fault of a node.
fn told(call: &CallState, all: &[Broadcast]) {
    if let Some(span) = &call.asked {
        let counts = all.iter().filter_map(|one| one.outcome.as_ref().ok());
        let (taken, refused) =
            counts.fold((0, 0), |sums, (taken, refused)| (sums.0 + *taken as i64, sums.1 + *refused as i64));
        span.set(KeyValue::new(names::BROADCAST_TAKEN, taken));
        span.set(KeyValue::new(names::BROADCAST_REFUSED, refused));
    }
    let fault = all.iter().find_map(|one| one.outcome.as_ref().err());
    call.went(fault.map_or(Ok(()), Err));
}
