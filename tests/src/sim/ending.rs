//! The end of a story: the world has healed, and everything that can be sold must be.
//!
//! * It decides: when a story is over, and what is left when it should have been.
//! * It never does: forgive a unit that an able node still has, or a question without an answer.

use rhumb_actors::escrow::Standing;
use rhumb_core::NodeId;

use super::agenda::{MS, Micros, SECOND};
use super::audit::Counters;
use super::violation::{Checked, Invariant, demand};
use super::world::{Event, World};

/// How long after its time an ask may be answered: a slow sync, a stopped process.
const PATIENCE: Micros = 6 * SECOND;
/// The longest that nothing is sold while there is something to sell.
const PAUSE: Micros = 30 * SECOND;

impl World {
    pub(super) fn survey(&mut self) -> Checked {
        let now = self.now();
        self.set_clocks();
        for (node, life) in self.nodes.iter().enumerate().filter_map(|(i, n)| Some((i, n.life.as_ref()?))) {
            let late = life.asks.values().find(|ask| ask.until + PATIENCE < now);
            demand(late.is_none(), Invariant::Answered, || format!("node {node} has not answered {late:?}"))?;
        }
        let left = self.left();
        if left.is_none() {
            self.finished = true;
            return self.check_levelled();
        }
        let sold = self.audits.iter().map(|audit| audit.sold()).sum();
        if sold > self.progress.0 || self.progress.1 == 0 {
            self.progress = (sold, now);
        }
        demand(now < self.progress.1 + PAUSE, Invariant::Progress, || left.unwrap_or_default())?;
        self.agenda.after(200 * MS, Event::Survey);
        Ok(())
    }

    /// Whether a node can be expected to sell: it is there, and its disk can be proven or attested.
    pub(super) fn able(&self, node: usize) -> bool {
        self.may_be_attested(node) && !self.stuck()[node]
    }

    /// Whether all others that must be there for it are.
    pub(super) fn may_be_attested(&self, node: usize) -> bool {
        let lost = self.nodes.iter().filter(|node| node.lost).count();
        let vouched = self.nodes.len() == 1 || self.nodes.len() - lost > 1;
        !self.nodes[node].lost && vouched && !(self.nodes[node].was_restored && lost > 0)
    }

    /// For each node, whether its disk can not be attested: in some pool another node, whose disk was put
    /// back as well, can not vouch for it. Attesting goes on as long as somebody can be.
    fn stuck(&self) -> Vec<bool> {
        let (nodes, pools) = (self.nodes.len(), self.plan.pools.len());
        let mut open: Vec<Vec<bool>> = (0..pools)
            .map(|pool| (0..nodes).map(|node| self.is_to_be_attested(pool, node)).collect())
            .collect();
        loop {
            let whole = |node: usize| !open.iter().any(|of_pool| of_pool[node]);
            let vouches = |pool: usize, node: usize| {
                if self.knows(pool, node) { !open[pool][node] } else { whole(node) }
            };
            let next =
                (0..pools).flat_map(|pool| (0..nodes).map(move |node| (pool, node))).find(|(pool, node)| {
                    open[*pool][*node] && (0..nodes).all(|peer| peer == *node || vouches(*pool, peer))
                });
            let Some((pool, node)) = next else { break };
            open[pool][node] = false;
        }
        (0..nodes).map(|node| open.iter().any(|of_pool| of_pool[node])).collect()
    }

    /// Whether an operator has yet to attest a node's row of a pool, for the first time or, since it has
    /// started again before it was whole, once more.
    fn is_to_be_attested(&self, pool: usize, node: usize) -> bool {
        let (row, life) = (self.audits[pool].row(node), &self.nodes[node].life);
        let restored = life.as_ref().is_some_and(|life| life.book.standing() == Standing::Restored);
        // A row may be known and have nothing.
        row.suspended || restored && self.knows(pool, node) && !row.present.proven
    }

    /// Whether a node lives and knows a pool.
    pub(super) fn knows(&self, pool: usize, node: usize) -> bool {
        let name = &self.plan.pools[pool].bodies[0].name;
        self.nodes[node].life.as_ref().is_some_and(|life| life.book.class_of(name).is_some())
    }

    /// Whether a node can be expected to sell units of this pool: it knows the pool, or can ask its
    /// home.
    pub(super) fn sells(&self, node: usize, pool: usize) -> bool {
        let plan = &self.plan.pools[pool];
        let life = self.nodes[node].life.as_ref();
        let knows = life.is_some_and(|life| life.book.class_of(&plan.bodies[0].name).is_some());
        self.able(node) && (knows || self.able(plan.home))
    }

    /// Whether anybody can buy of a pool: where one customer may have only so much, all holds are decided
    /// at the homes of customers, which the holder of the reserve is not. When all homes are lost, what
    /// the others have stays.
    fn has_customers(&self, pool: usize) -> bool {
        let plan = &self.plan.pools[pool];
        let reserve = plan.bodies[0].reserve.as_ref().map(|reserve| &reserve.node);
        let is_home = |id: &NodeId| plan.has_part(id) && Some(id) != reserve;
        let able = |node: usize| self.able(node) && is_home(&self.plan.nodes[node]);
        plan.bodies[0].per_customer.is_none() || (0..self.nodes.len()).any(able)
    }

    /// Whether all debt of a pool is to be drawn in the end: not while a reserve is kept for nodes that
    /// nobody asks, or while a node can be reached and can not say what it has.
    fn draws_debt(&self, pool: usize) -> bool {
        let kept = |node: usize| self.audits[pool].row(node).present.reserved > 0;
        let mute = |node: usize| self.nodes[node].life.is_some() && !self.able(node);
        !(0..self.nodes.len()).any(|node| kept(node) || mute(node))
    }

    /// What is still to be sold or done, in words; nothing when the world may end.
    fn left(&self) -> Option<String> {
        for (pool, plan) in self.plan.pools.iter().enumerate() {
            if self.able(plan.home) && !self.created[pool].iter().all(|done| *done) {
                return Some(format!("creators of pool {pool} have no answer: {:?}", self.created[pool]));
            }
            let able: Vec<usize> = (0..self.nodes.len()).filter(|node| self.able(*node)).collect();
            let (buys, draws) = (self.has_customers(pool), self.draws_debt(pool));
            for &node in &able {
                let row = self.audits[pool].row(node);
                let known = row.present != Counters::default();
                let open = buys && row.present.is_for_sale(draws) || row.present.is_held();
                if open || known && !row.present.proven {
                    return Some(format!("node {node} has not sold what it has of pool {pool}: {row:?}"));
                }
                let landing =
                    able.iter().find(|to| **to != node && self.audits[pool].in_flight(node, **to) != 0);
                if let Some(to) = landing {
                    return Some(format!("rights of pool {pool} are in flight from {node} to {to}"));
                }
            }
        }
        self.not_reconciled()
    }

    /// A pool that rests and whose nodes are all there must be found to add up.
    fn not_reconciled(&self) -> Option<String> {
        if !(0..self.nodes.len()).all(|node| self.able(node)) {
            return None;
        }
        self.plan.pools.iter().enumerate().find_map(|(pool, plan)| {
            let home = &self.nodes[plan.home];
            let book = &home.life.as_ref()?.book;
            let name = &plan.bodies[0].name;
            book.class_of(name)?;
            let (_, counts) = book.reconciled(name, home.now(self.now()).mono);
            (counts.exact == 0).then(|| format!("the home of pool {pool} has not reconciled it: {counts:?}"))
        })
    }
}
