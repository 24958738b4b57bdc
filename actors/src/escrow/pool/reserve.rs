//! The reserve: a part of the supply that one node holds for all others.
//!
//! * It decides: how much of what a node has is not for its own customers, and that the holder of the
//!   reserve is asked before nodes that have customers of their own.
//! * It never does: keep the reserve from the tail. When little is left, the rest goes to the pool's home
//!   like everything else; if the home holds it, the home sells it.
//! * Invariant: the reserve only shrinks. It is drawn on by grants, and never filled up again.

use rhumb_core::{Mono, NodeId};

use super::Pool;
use super::planning::asked_of;
use crate::escrow::policy::{Known, Move, Peer, View};
use crate::escrow::records::Right;
use crate::escrow::settings::EscrowSettings;

impl Pool {
    /// Units here that are not for customers of this node.
    pub(crate) fn reserved(&self, settings: &EscrowSettings) -> u64 {
        if self.is_tail(settings) { 0 } else { self.ledger.reserve_left() }
    }

    /// Units here that may be sold to customers of this node.
    pub(crate) fn sellable(&self, settings: &EscrowSettings) -> u64 {
        self.ledger.available(Right::Unit).saturating_sub(self.reserved(settings))
    }

    /// Asks the holder of the reserve first, and then all nodes for what it can not give.
    pub(super) fn reserve_first(&self, view: View<'_>, now: Mono, settings: &EscrowSettings) -> Vec<Move> {
        let Some((holder, reserved)) = self.reserve_elsewhere(now, settings) else {
            return settings.level.plan(view);
        };
        let known = Some(Known { available: reserved, demand: 0 });
        let alone = [Peer { node: holder.clone(), known, in_transit: 0 }];
        let drawn = asked_of(&settings.level.plan(View { peers: &alone, ..view }), &holder);
        let rest: Vec<Peer> = view.peers.iter().map(|peer| without(peer, &holder, reserved)).collect();
        let available = view.available.saturating_add(drawn);
        let mut moves = settings.level.plan(View { available, peers: &rest, ..view });
        let asked = asked_of(&moves, &holder);
        moves.retain(|a_move| !matches!(a_move, Move::Ask { node, .. } if *node == holder));
        let units = drawn.saturating_add(asked);
        moves.extend((units > 0).then_some(Move::Ask { node: holder, units }));
        moves
    }

    /// The other node that holds the reserve, and how much is left of it by its own recent word.
    fn reserve_elsewhere(&self, now: Mono, settings: &EscrowSettings) -> Option<(NodeId, u64)> {
        let reserve = self.ledger.pool().more.reserve.as_ref()?;
        let figures = self.lines.get(&reserve.node)?.fresh(now, settings.fresh)?;
        (figures.reserved > 0).then(|| (reserve.node.clone(), figures.reserved))
    }
}

/// A peer without the reserve that it holds.
fn without(peer: &Peer, holder: &NodeId, reserved: u64) -> Peer {
    let mut peer = peer.clone();
    if let Some(known) = peer.known.as_mut().filter(|_| peer.node == *holder) {
        known.available = known.available.saturating_sub(reserved);
    }
    peer
}
