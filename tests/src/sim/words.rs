//! What nodes told each other and what they were asked for, as it was seen on the way.
//!
//! * It decides: whether debt is drawn last, whether what a node says of itself is so, and whether what it
//!   counted of levelling is what moved.
//! * It never does: ask a machine what it heard or believes.
//! * Invariant: a word is of the life of the node that heard it, and is older than its arrival.
//!
//! Debt is drawn last: a hold stands on debt only at a node without a unit, when each other node of the
//! pool has no connection to it, or has told it within `escrow.fresh` that it has none; and who said so had
//! none when it said it. (`pool create --debt` in docs/cli.md promises this. What a word says may have
//! changed since, and its age counts from its arrival.)

use std::collections::BTreeMap;

use rhumb_actors::escrow::levelled::Direction;
use rhumb_actors::escrow::messages::{Level, PeerMessage};
use rhumb_actors::escrow::{CreatePool, Figures, Hold, Key};
use rhumb_core::PoolName;

use super::agenda::Micros;
use super::audit::Counters;
use super::plan::MAX_NODES;
use super::violation::{Checked, Invariant, demand};
use super::world::World;

/// What was heard in the present lives of nodes, of one pool.
#[derive(Debug, Clone, Default)]
struct OfPool {
    /// For each hearer and speaker, when the last word arrived, if it said that there is no unit.
    none: [[Option<Micros>; MAX_NODES]; MAX_NODES],
    /// For each node, what it was asked for under each key.
    asked: [BTreeMap<Key, u64>; MAX_NODES],
}

/// What was heard in the present lives of nodes.
#[derive(Debug, Default)]
pub struct Words {
    pools: Vec<OfPool>,
}

impl Words {
    /// Nothing yet, of so many pools.
    #[must_use]
    pub fn new(pools: usize) -> Self {
        Self { pools: vec![OfPool::default(); pools] }
    }

    /// A node begins to live, and has heard nothing.
    pub fn forget(&mut self, node: usize) {
        for pool in &mut self.pools {
            pool.none[node] = [None; MAX_NODES];
            pool.asked[node].clear();
        }
    }

    /// A node is asked for units.
    pub fn asked(&mut self, pool: usize, node: usize, hold: &Hold) {
        let units = self.pools[pool].asked[node].entry(hold.key.clone()).or_default();
        *units = (*units).max(hold.qty);
    }

    /// A word arrives. Gives what there was before it.
    fn hears(&mut self, pool: usize, node: usize, from: usize, word: Option<Micros>) -> Option<Micros> {
        std::mem::replace(&mut self.pools[pool].none[node][from], word)
    }
}

impl World {
    fn pool_named(&self, name: &PoolName) -> Option<usize> {
        self.plan.pools.iter().position(|pool| pool.bodies[0].name == *name)
    }

    /// A node is asked to hold units. What nobody may ever have of the pool is no demand.
    pub(super) fn note_demand(&mut self, node: usize, hold: &Hold) {
        let Some(pool) = self.pool_named(&hold.pool) else { return };
        let most = |body: &CreatePool| body.per_customer.unwrap_or(u64::MAX).min(body.supply + body.debt);
        if self.plan.pools[pool].bodies.iter().any(|body| hold.qty <= most(body)) {
            self.words.asked(pool, node, hold);
        }
    }

    /// What a message of a peer says of its units is heard, before the machine hears it. Gives what is to be
    /// taken back if the machine passes it over.
    pub(super) fn hear_word(
        &mut self,
        node: usize,
        from: usize,
        message: &PeerMessage,
    ) -> Option<(usize, Option<Micros>)> {
        let PeerMessage::Level(Level { spec, figures, .. }) = message else { return None };
        let (pool, now) = (self.pool_named(&spec.name)?, self.now());
        let word = (figures.available == 0).then_some(now);
        Some((pool, self.words.hears(pool, node, from, word)))
    }

    /// The machine passed over what it was told.
    pub(super) fn unhear(&mut self, node: usize, from: usize, (pool, word): (usize, Option<Micros>)) {
        self.words.hears(pool, node, from, word);
    }

    /// Debt is drawn last.
    pub(super) fn check_debt(&self, pool: usize, node: usize, was: &Counters, now: &Counters) -> Checked {
        if now.debt.held <= was.debt.held || self.audits[pool].row(node).suspended {
            return Ok(());
        }
        demand(now.units.available == 0, Invariant::DebtLast, || {
            format!("node {node} holds on debt and has units: {now:?}")
        })?;
        let Some(life) = &self.nodes[node].life else { return Ok(()) };
        // Clocks drift by a fiftieth at most.
        let fresh = self.around.settings[node].fresh.as_micros() as Micros * 21 / 20;
        let part = |peer: &usize| *peer != node && self.plan.pools[pool].has_part(&self.plan.nodes[*peer]);
        for peer in (0..self.nodes.len()).filter(part).filter(|peer| life.told_up[*peer]) {
            let word = self.words.pools[pool].none[node][peer];
            let none = word.is_some_and(|at| self.now() <= at + fresh);
            demand(none, Invariant::DebtLast, || {
                format!(
                    "node {node} holds on debt, and node {peer} can be reached and last said {word:?}: {now:?}"
                )
            })?;
        }
        Ok(())
    }

    /// What a node says of itself is so, before the step or after it, and it forecasts no more than it was
    /// ever asked for: one key is one demand.
    pub(super) fn check_said(&self, node: usize, was: &[Counters], said: &[(PoolName, Figures)]) -> Checked {
        for (name, figures) in said {
            let Some(pool) = self.pool_named(name) else { continue };
            let now = &self.audits[pool].row(node).present;
            let so = [&was[pool], now].iter().any(|row| row.units.available == figures.available);
            demand(so || !now.proven, Invariant::Honest, || {
                format!("node {node} says {figures:?} when it has {:?} and then {now:?}", was[pool])
            })?;
            let asked: u64 = self.words.pools[pool].asked[node].values().sum();
            demand(figures.demand <= asked, Invariant::Demand, || {
                format!("node {node} forecasts {} units a second and was asked for {asked}", figures.demand)
            })?;
        }
        Ok(())
    }

    /// What nodes that live have counted of levelling is what moved in this life, by the matrix.
    pub(super) fn check_levelled(&self) -> Checked {
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.was_restored) {
            let Some(life) = &node.life else { continue };
            for (pool, plan) in self.plan.pools.iter().enumerate() {
                let levelled = life.book.levelled(&plan.bodies[0].name);
                let counted = |direction: Direction| -> u64 {
                    levelled
                        .moved
                        .iter()
                        .filter(|((way, _), _)| *way == direction)
                        .map(|(_, m)| m.units)
                        .sum()
                };
                let (was, now) = (&life.first_rows[pool].units, &self.audits[pool].row(number).present.units);
                let split = if was.minted < now.minted { self.audits[pool].split() } else { [0; MAX_NODES] };
                let moved = |now: &[u64], was: &[u64]| now.iter().sum::<u64>() - was.iter().sum::<u64>();
                let out = moved(&now.granted, &was.granted) - split.iter().sum::<u64>();
                let came = moved(&now.accepted, &was.accepted);
                let right = (counted(Direction::Out), counted(Direction::In)) == (out, came);
                demand(right, Invariant::Counted, || {
                    format!("node {number} counts {levelled:?}, and {out} went out and {came} came in")
                })?;
            }
        }
        Ok(())
    }
}
