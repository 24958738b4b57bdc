//! Rights move between nodes: what is said of them, and what that changes here.

use rhumb_core::canary::{self, Canary};
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::{NodeId, Now, PoolName};
use rhumb_storage::Batch;

use super::{Book, Effect, Out, persist};
use crate::escrow::ledger::Ledger;
use crate::escrow::levelled::Cause;
use crate::escrow::messages::{Figures, Level, PeerMessage, PoolSpec, Reserve, Standing};
use crate::escrow::pool::Pool;
use crate::escrow::records::{PoolMore, PoolRow, Right};

/// The most units that a node can have sold ever, given back or not: more than any node lives to sell.
const MAX_EVER: u64 = 1 << 62;

impl Book {
    pub(super) fn peer(&mut self, now: Now, from: &NodeId, message: PeerMessage, out: &mut Out) {
        if *from == self.site.me || !self.site.founding.contains(from) {
            self.ignored += 1;
            return;
        }
        let mut batch = Batch::new();
        let before = self.custody.standing();
        match message {
            PeerMessage::Level(level) => self.heard(now, from, &level, out),
            PeerMessage::Disown(disown) => self.disown(now, from, &disown, out),
            PeerMessage::Disowned(said) => self.disowned(now, from, said, out),
            PeerMessage::Beat(beat) => {
                let settings = &self.site.settings;
                let answer = self.custody.beat(now.mono, from, &beat, settings, &mut batch);
                persist(batch, out);
                if let Some(witnessed) = answer {
                    out.send(Effect::Peer { to: from.clone(), message: PeerMessage::Witnessed(witnessed) });
                }
            }
            PeerMessage::Witnessed(said) => {
                self.custody.answered(from, &said, &mut batch);
                persist(batch, out);
                if self.custody.standing() != before {
                    self.beat(now, out);
                    self.standing_changed(now, out);
                }
            }
        }
    }

    fn heard(&mut self, now: Now, from: &NodeId, level: &Level, out: &mut Out) {
        let name = &level.spec.name;
        if self.custody.refuses(from, level.incarnation)
            || !is_sound(&level.figures)
            || !self.knows(now, from, &level.spec, out)
        {
            self.ignored += 1;
            return;
        }
        let Some(pool) = self.pools.get_mut(name) else { return };
        let Some(line) = pool.lines.get_mut(from) else { return };
        line.heard = Some((now.mono, level.figures));
        line.consumed = line.consumed.max(level.figures.consumed);
        line.acknowledged = line.acknowledged.max(level.accepted);
        line.returned = line.returned.max(level.figures.returned);
        line.debt.consumed = line.debt.consumed.max(level.figures.debt.consumed);
        line.debt.returned = line.debt.returned.max(level.figures.debt.returned);
        line.debt.acknowledged = line.debt.acknowledged.max(level.debt.accepted);
        pool.heard_of_tail(from, level.tail);
        if pool.standing == Standing::Restored {
            return;
        }
        let granted = pool.ledger.link(from);
        let forgot = level.accepted > granted.units.granted || level.debt.accepted > granted.more.granted;
        if forgot && !canary::sings(Canary::RestoredDiskSpends) {
            return self.found_restored(now, out);
        }
        let mut batch = Batch::new();
        pool.accept(now.mono, from, level.granted, &self.site.settings, &mut batch);
        if pool.ledger.accept(Right::Debt, from, level.debt.granted, &mut batch) {
            pool.tell(from);
        }
        persist(batch, out);
        self.give(now, from, level, out);
        self.touch(now, name, out);
    }

    /// Whether the pool is known here, as the peer says it is; one that is new is learned.
    fn knows(&mut self, now: Now, from: &NodeId, spec: &PoolSpec, out: &mut Out) -> bool {
        if let Some(pool) = self.pools.get(&spec.name) {
            return pool.ledger.spec() == *spec && pool.lines.contains_key(from);
        }
        let part = |node: &NodeId| spec.weights.contains_key(&node.region);
        let held = |reserve: &Reserve| part(&reserve.node) && reserve.units < spec.supply;
        let sound = (1..=MAX_SUPPLY).contains(&spec.supply)
            && spec.debt <= MAX_SUPPLY
            && spec.durability == self.site.durability()
            && spec.reserve.as_ref().is_none_or(held)
            && part(from)
            && part(&self.site.me);
        if !sound || self.pools.len() >= self.site.settings.max_pools {
            return false;
        }
        // A home that does not know its own pool has lost it.
        if self.site.home(&spec.name) == self.site.me {
            self.found_restored(now, out);
        }
        // It is said again: a node that is not believed yet can not tell a new pool from a lost one.
        if self.custody.standing() == Standing::Unproven {
            return false;
        }
        self.learn(spec, out);
        true
    }

    /// Takes up a pool that this node has not known.
    pub(super) fn learn(&mut self, spec: &PoolSpec, out: &mut Out) {
        let row = PoolRow {
            class: spec.class.clone(),
            supply: spec.supply,
            weights: spec.weights.clone(),
            created: spec.created,
            body: None,
            durability: self.site.durability(),
            debt_ceiling: spec.debt,
            more: PoolMore { reserve: spec.reserve.clone(), per_customer: spec.per_customer },
        };
        let others = self.site.others(&row);
        let ledger = Ledger::new(spec.name.clone(), row, others.clone(), self.custody.life());
        let ledger = ledger.cleared(self.custody.clears_new());
        let mut batch = Batch::new();
        ledger.write(&mut batch);
        out.persist(batch);
        let mut pool = Pool::new(self.site.home(&spec.name), ledger, others, &self.site.settings);
        pool.standing = self.custody.standing_in(pool.ledger.counts().cleared);
        self.pools.insert(spec.name.clone(), pool);
    }

    /// Grants a peer what it needs, as far as it is there to give.
    fn give(&mut self, now: Now, from: &NodeId, level: &Level, out: &mut Out) {
        let settings = &self.site.settings;
        let Some(pool) = self.pools.get_mut(&level.spec.name) else { return };
        let link = pool.ledger.link(from);
        let (units, debt) = (level.need > link.units.granted, level.debt.need > link.more.granted);
        if !units && !debt {
            return;
        }
        pool.tell_in_vain(from, (level.need, level.debt.need), now.mono, settings.level.ask_spacing);
        // Who asks has not heard of the tail yet: it is told, and passes its holds on.
        let owns_tail = pool.is_home() && pool.is_tail(settings);
        if !pool.may_spend() || owns_tail {
            return;
        }
        let demand = pool.demand(now.mono);
        let floor = settings.level.floor(pool.sellable(settings), demand);
        let mut batch = Batch::new();
        let units = pool.ledger.grant(Right::Unit, from, level.need, floor, &mut batch);
        pool.ledger.drew_on_reserve(units, &mut batch);
        pool.granted(from, Cause::Pull, units);
        if pool.ledger.grant(Right::Debt, from, level.debt.need, 0, &mut batch) > 0 {
            pool.tell(from);
        }
        persist(batch, out);
    }

    /// Says and asks what is due in a pool; in its tail, gives everything to its home.
    pub(super) fn level(&mut self, now: Now, name: &PoolName, out: &mut Out) {
        let (me, settings) = (&self.site.me, &self.site.settings);
        let Some(pool) = self.pools.get_mut(name) else { return };
        let mut batch = Batch::new();
        if pool.may_spend() && !pool.is_home() && pool.is_tail(settings) {
            let home = pool.home.clone();
            let units = pool.ledger.grant(Right::Unit, &home, u64::MAX, 0, &mut batch);
            pool.ledger.drew_on_reserve(units, &mut batch);
            pool.granted(&home, Cause::Tail, units);
            if pool.ledger.grant(Right::Debt, &home, u64::MAX, 0, &mut batch) > 0 {
                pool.tell(&home);
            }
        }
        if canary::sings(Canary::DonorTakesBack) {
            take_back(pool, &mut batch);
        }
        pool.plan(now.mono, me, settings, &mut batch);
        persist(batch, out);
        for (to, level) in pool.levels(now.mono, self.custody.life(), settings) {
            out.send(Effect::Peer { to, message: PeerMessage::Level(level) });
        }
    }

    /// A peer knows of something that this disk does not: it is an older one.
    pub(super) fn found_restored(&mut self, now: Now, out: &mut Out) {
        let mut batch = Batch::new();
        self.custody.restored(&mut batch);
        persist(batch, out);
        self.standing_changed(now, out);
    }
}

/// Whether a pool of any size can look so. Sums over nodes are computed of what was heard: they must not
/// overflow. What was ever sold and came back may be more than there is; what is sold can not.
fn is_sound(said: &Figures) -> bool {
    let debt = &said.debt;
    let now = [said.available, said.held, said.demand, said.reserved, debt.available, debt.held];
    let ever = [(said.consumed, said.returned), (debt.consumed, debt.returned)];
    now.into_iter().all(|units| units <= MAX_SUPPLY)
        && ever.into_iter().all(|(consumed, returned)| {
            consumed <= MAX_EVER && consumed.checked_sub(returned).is_some_and(|sold| sold <= MAX_SUPPLY)
        })
}

/// The bug of a donor that grows impatient: what was told and not acknowledged is taken back.
fn take_back(pool: &mut Pool, batch: &mut Batch) {
    let peers: Vec<(NodeId, u64)> =
        pool.lines.iter().filter(|(_, line)| line.told()).map(|(n, l)| (n.clone(), l.acknowledged)).collect();
    for (node, acknowledged) in peers {
        if pool.ledger.link(&node).units.granted > acknowledged {
            pool.ledger.take_back(&node, acknowledged, batch);
        }
    }
}
