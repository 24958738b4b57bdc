//! What one node hears of the others.
//!
//! * It decides: which nodes are silent here. It takes one long gap to become silent, and several beats in a row to be heard again.
//! * It never does: blame another node for what it did not hear while it did not run itself, or decide that a node is lost.
//! * Invariant: one that beats, and is heard, is never silent for more than a few beats.

use std::collections::BTreeMap;

use rhumb_core::{Mono, NodeId};

use super::FailoverSettings;
use super::messages::Beat;

#[derive(Debug, Clone, Copy)]
struct Peer {
    last: Mono,
    /// Beats in a row.
    run: u32,
    silent: bool,
}

/// One node's ears.
#[derive(Debug)]
pub struct Observer {
    settings: FailoverSettings,
    peers: BTreeMap<NodeId, Peer>,
    looked: Mono,
    /// What it does not hear says nothing before.
    settled: Mono,
}

impl Observer {
    /// Begins to listen for the others.
    #[must_use]
    pub fn new(
        me: &NodeId,
        nodes: impl IntoIterator<Item = NodeId>,
        settings: FailoverSettings,
        now: Mono,
    ) -> Self {
        let peer = Peer { last: now, run: 0, silent: false };
        let peers = nodes.into_iter().filter(|node| node != me).map(|node| (node, peer)).collect();
        Self { settings, peers, looked: now, settled: now.plus(settings.settles) }
    }

    /// A node's beat came.
    pub fn heard(&mut self, now: Mono, from: &NodeId) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        let in_a_row = now.since(peer.last) < 2 * self.settings.beat;
        peer.run = if in_a_row { peer.run.saturating_add(1) } else { 1 };
        peer.last = now;
        peer.silent &= peer.run < self.settings.clear_after;
    }

    /// Who is silent now: what this node tells all others. To be called once a beat.
    pub fn look(&mut self, now: Mono) -> Beat {
        if now.since(self.looked) > 2 * self.settings.beat {
            // It did not run, or not in time: it was deaf, and the others may have beaten.
            self.settled = self.settled.max(now.plus(self.settings.silent_after));
            self.peers.values_mut().filter(|peer| !peer.silent).for_each(|peer| peer.last = now);
        }
        self.looked = now;
        for peer in self.peers.values_mut() {
            if now.since(peer.last) > self.settings.silent_after {
                *peer = Peer { silent: true, run: 0, ..*peer };
            }
        }
        let silent = self.peers.iter().filter(|(_, peer)| peer.silent);
        Beat { silent: silent.map(|(node, _)| node.clone()).collect(), settled: now >= self.settled }
    }
}
