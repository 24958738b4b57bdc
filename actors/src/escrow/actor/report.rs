//! What a node's escrow says of itself, for metrics, `rhumb status` and people.

use std::collections::BTreeMap;

use actix::prelude::*;
use rhumb_core::{DataClass, NodeId, PoolName};
use tokio::sync::oneshot;

use super::EscrowRegion;
use crate::escrow::book::Stranded;
use crate::escrow::levelled::Levelled;
use crate::escrow::messages::{Reconciled, Row, Standing};
use crate::escrow::reconcile::Reconciliations;

/// Say what you know of yourself.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tell(pub(super) oneshot::Sender<EscrowReport>);

impl Handler<Tell> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, Tell(reply): Tell, _: &mut Self::Context) {
        let now = self.world.now().mono;
        let pools = self.book.pools().map(|pool| {
            let (reconciled, reconciliations) = self.book.reconciled(pool, now);
            PoolReport {
                pool: pool.clone(),
                class: self.book.class_of(pool).cloned().unwrap_or_else(DataClass::control),
                row: self.book.row(pool).unwrap_or_default(),
                supply: self.book.supply(pool),
                stranded: self.book.stranded(pool),
                levelled: self.book.levelled(pool),
                reconciled,
                reconciliations,
            }
        });
        let pools = pools.collect();
        let seen = |node: &NodeId| Some((node.clone(), self.book.witnessed(node)?.1));
        let witnessed = self.book.peers().filter_map(seen).collect();
        let (keys, holds) = self.book.remembered();
        let (standing, ignored) = (self.book.standing(), self.book.ignored());
        reply.send(EscrowReport { standing, pools, witnessed, keys, holds, ignored, dropped: 0 }).ok();
    }
}

/// What a node's escrow knows of itself.
#[derive(Debug, Clone)]
pub struct EscrowReport {
    /// Whether the node may spend.
    pub standing: Standing,
    /// Its pools.
    pub pools: Vec<PoolReport>,
    /// The highest commit of each peer's disk that this node has durably seen.
    pub witnessed: BTreeMap<NodeId, u64>,
    /// Idempotency keys that it remembers.
    pub keys: usize,
    /// Holds that it remembers, sales among them.
    pub holds: usize,
    /// Messages of peers that were passed over because they contradict what is known here.
    pub ignored: u64,
    /// Messages of peers for which the mailbox had no room. Peers say them again.
    pub dropped: u64,
}

/// One pool on one node.
#[derive(Debug, Clone)]
pub struct PoolReport {
    /// Which.
    pub pool: PoolName,
    /// The class of its data.
    pub class: DataClass,
    /// The node's row.
    pub row: Row,
    /// Units that were minted, over all nodes.
    pub supply: u64,
    /// Rights that nobody can spend now.
    pub stranded: Stranded,
    /// What was counted of the levelling.
    pub levelled: Levelled,
    /// What the last reconciliation found: at the pool's home.
    pub reconciled: Option<Reconciled>,
    /// How often reconciliations came to what.
    pub reconciliations: Reconciliations,
}
