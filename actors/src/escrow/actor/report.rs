//! What a node's escrow says of itself, for metrics, `rhumb status` and people.

use std::collections::BTreeMap;

use actix::prelude::*;
use rhumb_core::{NodeId, PoolName};
use tokio::sync::oneshot;

use super::EscrowRegion;
use crate::escrow::book::Stranded;
use crate::escrow::messages::{Row, Standing};

/// Say what you know of yourself.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Tell(pub(super) oneshot::Sender<EscrowReport>);

impl Handler<Tell> for EscrowRegion {
    type Result = ();

    fn handle(&mut self, Tell(reply): Tell, _: &mut Self::Context) {
        let pools = self.book.pools().map(|pool| PoolReport {
            pool: pool.clone(),
            row: self.book.row(pool).unwrap_or_default(),
            stranded: self.book.stranded(pool),
        });
        let pools = pools.collect();
        let seen = |node: &NodeId| Some((node.clone(), self.book.witnessed(node)?.1));
        let witnessed = self.book.peers().filter_map(seen).collect();
        let (keys, _) = self.book.remembered();
        let (standing, ignored) = (self.book.standing(), self.book.ignored());
        reply.send(EscrowReport { standing, pools, witnessed, keys, ignored }).ok();
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
    /// Words of peers that it took no notice of: of strangers, of earlier lives, of pools that are not known.
    pub ignored: u64,
}

/// One pool on one node.
#[derive(Debug, Clone)]
pub struct PoolReport {
    /// Which.
    pub pool: PoolName,
    /// The node's row.
    pub row: Row,
    /// Rights that nobody can spend now.
    pub stranded: Stranded,
}
