//! Debt rights: units that may be sold beyond the supply (patterns.md §1.2, point 11).
//!
//! * It decides: when a hold may stand on debt, and whom to ask for the right to.
//! * It never does: touch debt while a unit is here, or could come from a node that has one to spare: each
//!   other node of the pool cannot be reached, or has said that it has none, in a word that came here no
//!   longer than `escrow.fresh` ago. One that can be reached and says nothing may have something.
//! * Invariant: debt rights are minted once and move as units do, so all nodes together never sell more
//!   than the ceiling beyond the supply.

use std::cmp::Reverse;

use rhumb_core::Mono;
use rhumb_core::canary::{self, Canary};

use super::{Line, Pool};
use crate::escrow::policy::Move;
use crate::escrow::records::Right;
use crate::escrow::settings::EscrowSettings;

impl Pool {
    /// Whether every unit is sold and every debt right used, by all nodes' own counts.
    pub(crate) fn is_sold_out(&self) -> bool {
        self.unsold() == 0 && self.undrawn() == 0
    }

    /// Debt rights not known to be used.
    fn undrawn(&self) -> u64 {
        let own = self.ledger.counts().of(Right::Debt);
        let drawn = |line: &Line| line.debt.consumed.saturating_sub(line.debt.returned);
        let drawn = self.lines.values().map(drawn).sum::<u64>() + (own.consumed - own.returned);
        self.ledger.pool().debt_ceiling.saturating_sub(drawn)
    }

    /// Whether a hold may stand on debt now: no unit is left for it here, and none can come.
    pub(crate) fn may_overdraw(&self, now: Mono, settings: &EscrowSettings) -> bool {
        let dry = || self.is_dry(now, settings) || canary::sings(Canary::DebtBeforeUnits);
        self.ledger.pool().debt_ceiling > 0 && self.reserved(settings) == 0 && dry()
    }

    /// Whether no other node can grant debt rights now: each has just said so, or cannot be reached.
    pub(super) fn no_debt_can_come(&self, now: Mono, settings: &EscrowSettings) -> bool {
        let none = |line: &Line| {
            line.down || line.fresh(now, settings.fresh).is_some_and(|figures| figures.debt.available == 0)
        };
        self.ledger.pool().debt_ceiling == 0 || self.lines.values().all(none)
    }

    /// Those who wait can have no units: the peers that said they have debt rights are asked for what is
    /// missing, the richest first.
    pub(super) fn ask_for_debt(&self, now: Mono, settings: &EscrowSettings) -> Vec<Move> {
        let here = self.sellable(settings).saturating_add(self.ledger.available(Right::Debt));
        let mut missing = self.wanted().saturating_sub(here);
        if missing == 0 || !self.may_spend() || !self.may_overdraw(now, settings) {
            return Vec::new();
        }
        let debt = |line: &Line| line.fresh(now, settings.fresh).map_or(0, |figures| figures.debt.available);
        let mut donors: Vec<(u64, &_)> = self.lines.iter().map(|(node, line)| (debt(line), node)).collect();
        donors.sort_by_key(|(debt, node)| (Reverse(*debt), *node));
        let mut asks = Vec::new();
        for (debt, node) in donors {
            let units = missing.min(debt);
            if units > 0 {
                asks.push(Move::Ask { node: node.clone(), units });
                missing -= units;
            }
        }
        asks
    }
}
