//! Rights move: whom this node asks for some, whom it gives some, and what it takes up.
//!
//! * It decides: when to plan, and what of the policy's plan is said to whom.
//! * It never does: grant what is not there. The ledger's own count decides, whatever the plan says.
//! * Invariant: a peer that is not in the latest plan is asked for nothing.

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Mono, NodeId};
use rhumb_storage::Batch;

use super::{Line, Pool};
use crate::escrow::levelled::{Cause, Direction, Levelled};
use crate::escrow::policy::{Move, Peer, View};
use crate::escrow::records::Right;
use crate::escrow::settings::EscrowSettings;

impl Pool {
    /// Plans whom to ask for rights and whom to give some, if it is time to, and gives.
    pub(crate) fn plan(&mut self, now: Mono, me: &NodeId, settings: &EscrowSettings, batch: &mut Batch) {
        let (last, spacing) = match self.parked.is_empty() {
            true => (self.planned, settings.level.plan_spacing),
            false => (self.asked, settings.level.ask_spacing),
        };
        if last.is_some_and(|last| now < last.plus(spacing)) {
            return;
        }
        self.planned = Some(now);
        let moves = if !self.may_spend() {
            Vec::new()
        } else if self.is_tail(settings) {
            self.gather(now, me, settings)
        } else {
            self.level(now, settings)
        };
        let debts = self.ask_for_debt(now, settings);
        self.ask(now, &moves, &debts);
        for a_move in moves {
            if let Move::Give { node, units } = a_move {
                self.give(now, &node, units, settings, batch);
            }
        }
    }

    /// Takes note of what peers are to be asked for. One who is not in the plan is asked for nothing.
    fn ask(&mut self, now: Mono, moves: &[Move], debts: &[Move]) {
        for (node, line) in &mut self.lines {
            let link = self.ledger.link(node);
            let accepted = link.units.accepted;
            let want = asked_of(moves, node);
            let need = accepted.saturating_add(want);
            // An ask that only shrinks need not be said: the peer's grant may be on its way.
            if want > 0 && (need > line.need || line.has_answered()) {
                line.news = true;
                self.asked = Some(now);
            }
            line.need = need;
            line.needed = line.needed.filter(|_| want > 0);
            let want = asked_of(debts, node);
            let need = link.more.accepted.saturating_add(want);
            if want > 0 && (need > line.debt.need || line.has_answered()) {
                line.news = true;
                self.asked = Some(now);
            }
            line.debt.need = need;
        }
    }

    /// Grants a peer rights that it has not asked for, as far as they are there to give.
    fn give(&mut self, now: Mono, to: &NodeId, units: u64, settings: &EscrowSettings, batch: &mut Batch) {
        if canary::sings(Canary::PushWithoutCheck) {
            self.ledger.grant_beyond(to, self.supply(), batch);
        }
        let demand = self.demand(now);
        // The reserve is for those who ask.
        let floor = settings.level.floor(self.sellable(settings), demand) + self.ledger.reserve_left();
        let target = self.ledger.link(to).units.granted.saturating_add(units);
        let given = self.ledger.grant(Right::Unit, to, target, floor, batch);
        self.granted(to, Cause::Push, given);
    }

    /// Rights were granted: their receiver is told, if there were any.
    pub(crate) fn granted(&mut self, to: &NodeId, cause: Cause, units: u64) {
        if units > 0 {
            self.tell(to);
            self.levelled.count(Direction::Out, cause, units);
        }
    }

    /// Takes up what a peer says it has granted, ever.
    pub(crate) fn accept(
        &mut self,
        now: Mono,
        from: &NodeId,
        granted: u64,
        settings: &EscrowSettings,
        batch: &mut Batch,
    ) {
        let before = self.ledger.link(from).units.accepted;
        if !self.ledger.accept(Right::Unit, from, granted, batch) {
            return;
        }
        self.tell(from);
        let units = self.ledger.link(from).units.accepted.saturating_sub(before);
        let tail = self.is_tail(settings);
        let Some(line) = self.lines.get_mut(from) else { return };
        let asked = units.min(line.need.saturating_sub(before));
        if let Some(told) = line.needed.take() {
            self.levelled.waits.count(now.since(told));
        }
        let unasked = if before == 0 { Cause::Split } else { Cause::Push };
        let causes = if tail {
            [(Cause::Tail, units), (unasked, 0)]
        } else {
            let pulled = if canary::sings(Canary::MovesMiscounted) { units } else { asked };
            [(Cause::Pull, pulled), (unasked, units - asked)]
        };
        for (cause, units) in causes.into_iter().filter(|(_, units)| *units > 0) {
            self.levelled.count(Direction::In, cause, units);
        }
    }

    /// What was counted of the levelling.
    pub(crate) fn levelled(&self) -> Levelled {
        let on_the_way =
            |(node, line): (&NodeId, &Line)| line.in_transit(self.ledger.link(node).units.granted);
        Levelled { in_transit: self.lines.iter().map(on_the_way).sum(), ..self.levelled.clone() }
    }

    /// The home of a tail asks all others for all they have.
    fn gather(&self, now: Mono, me: &NodeId, settings: &EscrowSettings) -> Vec<Move> {
        if self.home != *me || self.is_sold_out() {
            return Vec::new();
        }
        // Before anybody's hold stands on debt, all others must have said that they have nothing.
        let may_draw = self.ledger.pool().debt_ceiling > 0 && !self.parked.is_empty();
        let may_have = |line: &Line| {
            line.heard.is_none_or(|(_, figures)| figures.available > 0)
                || may_draw && line.fresh(now, settings.fresh).is_none()
        };
        let donors = self.lines.iter().filter(|(_, line)| may_have(line));
        donors.map(|(node, _)| Move::Ask { node: node.clone(), units: self.supply() }).collect()
    }

    fn level(&mut self, now: Mono, settings: &EscrowSettings) -> Vec<Move> {
        let peers: Vec<Peer> = self
            .lines
            .iter()
            .map(|(node, line)| Peer {
                node: node.clone(),
                known: line.known(now, settings.fresh),
                in_transit: line.in_transit(self.ledger.link(node).units.granted),
            })
            .collect();
        let view = View {
            available: self.sellable(settings),
            parked: self.wanted(),
            demand: self.demand(now),
            peers: &peers,
        };
        self.reserve_first(view, now, settings)
    }
}

/// What a plan asks of a peer.
pub(super) fn asked_of(moves: &[Move], peer: &NodeId) -> u64 {
    let asked = |a_move: &Move| match a_move {
        Move::Ask { node, units } if node == peer => Some(*units),
        _ => None,
    };
    moves.iter().find_map(asked).unwrap_or(0)
}
