//! Asks whichever node answers best, where any will do.
//!
//! * It decides nothing: [`rhumb_transport::resilience`] chooses the node, holds questions back from those that fail, and
//!   says whether one is made again.
//! * It never does: make a question again that may have run at one node, unless running it twice has the effect of once:
//!   another node knows nothing of its key. Nor from within a call: that is left to whoever made it.
//! * Invariant: it ends at its deadline at the latest, all attempts together.

use std::time::Duration;

use rhumb_actors::remote::Remote;
use rhumb_core::{Fault, FaultKind, NodeId};
use rhumb_transport::resilience::breaker::Went;
use tokio::time::Instant;

use super::{Ask, MeshClient};
use crate::host::call;
use crate::mesh::resilience::Attempts;

impl MeshClient {
    /// Asks the better of two of its nodes that are drawn: by how long they took lately and how much is under way there,
    /// those of the program's own region first. Those that fail are left out, but never more than half of all. For what
    /// every node can answer. Within the deadline and the client's budget it is asked again, of whichever is best then,
    /// where it was not sent, or may be sent twice because it is `idempotent`. Actors are asked by address:
    /// [`MeshClient::mesh`].
    ///
    /// # Errors
    /// The fault of all attempts together; its delivery says whether a node may have run it.
    pub async fn ask_any<M: Remote + Sync>(
        &self,
        message: &M,
        deadline: Duration,
    ) -> Result<M::Reply, Fault> {
        let (until, nodes) = (Instant::now() + deadline, self.nodes());
        let retried = (M::IDEMPOTENT || M::KEYED) && call::current().is_none();
        if !retried {
            return self.ask_best(&nodes, message, until).await;
        }
        self.resilience().called();
        let mut fault = match self.ask_best(&nodes, message, until).await {
            Ok(reply) => return Ok(reply),
            Err(fault) => fault,
        };
        let mut attempts = Attempts::new(self.resilience(), M::IDEMPOTENT, until);
        loop {
            attempts.failed(fault).await?;
            match self.ask_best(&nodes, message, until).await {
                Ok(reply) => {
                    attempts.answered();
                    return Ok(reply);
                }
                Err(failed) => fault = failed,
            }
        }
    }

    /// One attempt: of the best; where that does not know the message, of the next.
    async fn ask_best<M: Remote + Sync>(
        &self,
        nodes: &[NodeId],
        message: &M,
        until: Instant,
    ) -> Result<M::Reply, Fault> {
        let mut left = nodes.to_vec();
        for (node, peer) in nodes.iter().filter_map(|node| Some((node, self.peer(node)?))) {
            self.resilience().meets(node, peer.generation);
        }
        loop {
            let Some((at, weighed)) = self.resilience().choose(self.region(), &left, M::NAME) else {
                return Err(Fault::not_sent(FaultKind::Unreachable("there is no node to ask".to_owned())));
            };
            let answered = self.ask_one(&left[at], message, until).await;
            weighed.went(answered.as_ref().err());
            match answered {
                Err(Fault { kind: FaultKind::UnknownMessage(_), .. }) if left.len() > 1 => {
                    drop(left.swap_remove(at));
                }
                ended => return ended,
            }
        }
    }

    async fn ask_one<M: Remote + Sync>(
        &self,
        node: &NodeId,
        message: &M,
        until: Instant,
    ) -> Result<M::Reply, Fault> {
        // It was chosen with its breakers in view.
        let passing = self.resilience().pass(node, M::NAME, M::DEADLINE, Went::Well, true)?;
        let began = Instant::now();
        let answered = self.ask(node, message, until.saturating_duration_since(began)).await;
        if let Some(passing) = passing {
            let now = Instant::now();
            passing.went(now, now.saturating_duration_since(began), answered.as_ref().err());
        }
        answered
    }
}
