//! The world of one ledger in a range: who speaks and asks there is the owner, wherever it is written.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use rhumb_actors::escrow::book::Request;
use rhumb_actors::escrow::messages::{PeerMessage, Standing};
use rhumb_actors::escrow::{Answered, Sake, World};
use rhumb_core::{DataClass, NodeId, Now, PoolName};

use super::Quorum;

pub(super) struct LedgerWorld {
    quorum: Quorum,
    of: (PoolName, NodeId),
    class: DataClass,
    opening: u64,
}

impl LedgerWorld {
    pub(super) fn new(quorum: Quorum, of: (PoolName, NodeId), class: DataClass, opening: u64) -> Self {
        Self { quorum, of, class, opening }
    }
}

impl World for LedgerWorld {
    fn now(&self) -> Now {
        self.quorum.0.parts.clock.now()
    }

    fn tell(&self, to: &NodeId, message: PeerMessage, _: Option<&Sake>) {
        let (pool, from) = &self.of;
        self.quorum.says(pool, &self.class, from, to, message);
    }

    fn forward(
        &self,
        to: NodeId,
        request: Request,
        _: DataClass,
        within: Duration,
        _: Option<&Sake>,
    ) -> BoxFuture<'static, Answered> {
        let (quorum, pool) = (self.quorum.clone(), self.of.0.clone());
        async move { quorum.ask_ledger(&pool, &to, request, within).await }.boxed()
    }

    fn last_sync(&self) -> Option<(Instant, Duration)> {
        None
    }

    fn standing(&self, _: Standing) {}

    /// The ledger ends; whoever is to write it takes it up anew from its range.
    fn halt(&self, reason: String) {
        self.quorum.close(&self.of, Some(self.opening), &reason);
    }
}
