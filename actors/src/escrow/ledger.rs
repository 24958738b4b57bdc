//! One pool on one node: its own rows of the matrix of rights, and its holds (patterns.md §1.2). There are
//! two resources in it, units and debt rights, under the same rules.
//!
//! * It decides: whether units are there to hold or to grant, and merges what peers granted.
//! * It never does: take back a grant, write another node's row, or look at time other than to compare
//!   it with a deadline.
//! * Invariant I1, for either resource: minted + Σ accepted − Σ granted − consumed + returned − held is
//!   never below zero. Every counter is cumulative and only rises; a change goes into the caller's
//!   batch at once.

pub(crate) mod attest;
pub(crate) mod returns;

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, Incarnation, NodeId, PoolName};
use rhumb_storage::Batch;

use super::holds::Holds;
use super::messages::{CustomerTag, DebtRow, HoldId, PoolSpec, Refusal, Reserve, Row, Settled};
use super::records::{
    CountsRow, HoldMore, HoldNumber, HoldRow, LinkRow, PoolImage, PoolRow, Records, RecoverError, Right,
    Stage, Sums,
};

/// What a hold takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) qty: u64,
    pub(crate) deadline: HybridTime,
    pub(crate) secret: u64,
    pub(crate) customer: Option<CustomerTag>,
    /// Units here that are not for it: the reserve.
    pub(crate) reserved: u64,
    /// Whether debt rights may stand in for units that are not here.
    pub(crate) overdraw: bool,
}

/// One node's row of one pool.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: PoolName,
    pool: PoolRow,
    counts: CountsRow,
    links: BTreeMap<NodeId, LinkRow>,
    holds: Holds,
    version: u64,
}

impl Ledger {
    /// A pool that this node has not known before, with no rights in it.
    pub(crate) fn new(name: PoolName, pool: PoolRow, others: Vec<NodeId>, life: Incarnation) -> Self {
        let links = others.into_iter().map(|node| (node, LinkRow::default())).collect();
        let version = first_version(life);
        Self { name, pool, counts: CountsRow::default(), links, holds: Holds::default(), version }
    }

    pub(crate) fn recovered(
        name: PoolName,
        image: PoolImage,
        others: Vec<NodeId>,
        life: Incarnation,
    ) -> Result<Self, RecoverError> {
        let pool = image.pool.ok_or_else(|| RecoverError::NoPool(name.clone()))?;
        let mut ledger = Self::new(name, pool, others, life);
        ledger.counts = image.counts;
        ledger.links.extend(image.links);
        ledger.holds = Holds::recovered(image.holds, image.customers);
        if ledger.balance(Right::Unit).min(ledger.balance(Right::Debt)) < 0 {
            return Err(RecoverError::Negative(ledger.name));
        }
        Ok(ledger)
    }

    /// Mints all units and debt rights here, and grants each other node its share of units: one record
    /// each, in one batch. Debt rights stay until somebody needs them.
    pub(crate) fn mint(&mut self, shares: &BTreeMap<NodeId, u64>, batch: &mut Batch) {
        self.counts.units.minted = add(self.counts.units.minted, self.pool.supply);
        self.counts.more.debt.minted = add(self.counts.more.debt.minted, self.pool.debt_ceiling);
        for (node, link) in &mut self.links {
            link.units.granted = add(link.units.granted, shares.get(node).copied().unwrap_or(0));
        }
        self.changed();
        self.write(batch);
    }

    /// The bug of a home that mints again.
    pub(crate) fn mint_again(&mut self, batch: &mut Batch) {
        self.counts.units.minted = add(self.counts.units.minted, self.pool.supply);
        self.changed();
        batch.put_counts(&self.name, &self.counts);
    }

    /// Writes everything but the holds.
    pub(crate) fn write(&self, batch: &mut Batch) {
        batch.put_pool(&self.name, &self.pool);
        batch.put_counts(&self.name, &self.counts);
        for (node, link) in &self.links {
            batch.put_link(&self.name, node, link);
        }
    }

    /// Holds units, if they are there; those that are missing stand on debt, where that is allowed.
    pub(crate) fn hold(&mut self, number: HoldNumber, order: Order, batch: &mut Batch) -> Option<&HoldRow> {
        let here = self.available(Right::Unit).saturating_sub(order.reserved);
        let debt = order.qty.saturating_sub(here);
        if debt > 0 && (!order.overdraw || debt > self.available(Right::Debt)) {
            return None;
        }
        self.changed();
        let more = HoldMore { secret: order.secret, debt, customer: order.customer, ..HoldMore::default() };
        let row = self.holds.insert(number, order.qty, order.deadline, more);
        batch.put_hold(&self.name, number, row);
        Some(row)
    }

    /// Makes a hold a sale. Again: the same answer.
    pub(crate) fn confirm(
        &mut self,
        id: &HoldId,
        now: HybridTime,
        batch: &mut Batch,
    ) -> Result<(Settled, bool), Refusal> {
        let (number, row) = self.known(id)?;
        let settled = Settled { hold: id.clone(), qty: row.qty };
        match row.stage {
            Stage::Held => {
                let parts = [Right::Unit, Right::Debt].map(|right| (right, row.part(right)));
                self.end(number, Stage::Committed, now, batch);
                for (right, units) in parts {
                    let sums = self.counts.of_mut(right);
                    sums.consumed = add(sums.consumed, units);
                }
                batch.put_counts(&self.name, &self.counts);
                Ok((settled, true))
            }
            Stage::Committed => Ok((settled, false)),
            Stage::Released => Err(Refusal::HoldReleased(id.clone())),
            Stage::Expired | Stage::Voided => Err(Refusal::HoldExpired(id.clone())),
        }
    }

    /// Gives a hold's units back. Again: the same answer.
    pub(crate) fn release(
        &mut self,
        id: &HoldId,
        now: HybridTime,
        batch: &mut Batch,
    ) -> Result<(Settled, bool), Refusal> {
        let (number, row) = self.known(id)?;
        let settled = Settled { hold: id.clone(), qty: row.qty };
        match row.stage {
            Stage::Held => {
                self.end(number, Stage::Released, now, batch);
                Ok((settled, true))
            }
            Stage::Released => Ok((settled, false)),
            Stage::Committed => Err(Refusal::HoldConfirmed(id.clone())),
            Stage::Expired | Stage::Voided => Err(Refusal::HoldExpired(id.clone())),
        }
    }

    /// Ends the next hold whose time has come. Whether there was one.
    pub(crate) fn expire_next(&mut self, now: HybridTime, batch: &mut Batch) -> bool {
        let Some(number) = self.holds.due(now) else { return false };
        let qty = self.end(number, Stage::Expired, now, batch);
        if canary::sings(Canary::DoubleCreditOnExpiry) {
            self.counts.units.returned = add(self.counts.units.returned, qty);
            batch.put_counts(&self.name, &self.counts);
        }
        true
    }

    /// Ends this hold if its time has come. Whether it had.
    pub(crate) fn expire_if_due(&mut self, id: &HoldId, now: HybridTime, batch: &mut Batch) -> bool {
        let Ok((number, row)) = self.known(id) else { return false };
        if row.stage != Stage::Held || row.deadline > now {
            return false;
        }
        self.end(number, Stage::Expired, now, batch);
        true
    }

    /// Forgets the next hold whose retention is over. Whether there was one.
    pub(crate) fn forget_next(&mut self, now: HybridTime, returns: Duration, batch: &mut Batch) -> bool {
        let Some((number, kept)) = self.holds.forget_next(now, returns) else { return false };
        batch.forget_hold(&self.name, number);
        if let Some((customer, row)) = kept {
            batch.put_customer(&self.name, &customer, &row);
        }
        true
    }

    /// Takes up what a peer says it has granted, ever. Whether that was news.
    pub(crate) fn accept(&mut self, right: Right, from: &NodeId, granted: u64, batch: &mut Batch) -> bool {
        let Some(link) = self.links.get_mut(from) else { return false };
        let flow = link.of_mut(right);
        let accepted = if canary::sings(Canary::ReceiverAdds) {
            add(flow.accepted, granted)
        } else if canary::sings(Canary::ReceiverOverwrites) {
            granted
        } else {
            flow.accepted.max(granted)
        };
        if accepted == flow.accepted {
            return false;
        }
        flow.accepted = accepted;
        batch.put_link(&self.name, from, link);
        self.changed();
        true
    }

    /// Grants a peer rights until it has been granted `target`, ever, as far as they are there beyond
    /// `floor`. How many it was.
    pub(crate) fn grant(
        &mut self,
        right: Right,
        to: &NodeId,
        target: u64,
        floor: u64,
        batch: &mut Batch,
    ) -> u64 {
        let spare = self.available(right).saturating_sub(floor);
        let Some(link) = self.links.get_mut(to) else { return 0 };
        let flow = link.of_mut(right);
        let mut units = target.saturating_sub(flow.granted);
        if !canary::sings(Canary::GrantWithoutCheck) {
            units = units.min(spare);
        }
        if units > 0 {
            flow.granted = add(flow.granted, units);
            batch.put_link(&self.name, to, link);
            self.changed();
        }
        units
    }

    /// Notes that units which were granted came out of the reserve, as far as there is one left.
    pub(crate) fn drew_on_reserve(&mut self, units: u64, batch: &mut Batch) {
        let whole = units > 0 && canary::sings(Canary::ReserveCountedAsDrawn);
        let drawn = if whole { self.reserve_left() } else { units.min(self.reserve_left()) };
        if drawn > 0 {
            self.counts.more.from_reserve = add(self.counts.more.from_reserve, drawn);
            batch.put_counts(&self.name, &self.counts);
        }
    }

    /// Units of the pool's reserve that were not granted yet, if this node holds it.
    pub(crate) fn reserve_left(&self) -> u64 {
        let here = |reserve: &&Reserve| !self.links.contains_key(&reserve.node);
        let reserve = self.pool.more.reserve.as_ref().filter(here);
        reserve.map_or(0, |reserve| reserve.units.saturating_sub(self.counts.more.from_reserve))
    }

    /// The bug of a donor that gives what it has not.
    pub(crate) fn grant_beyond(&mut self, to: &NodeId, units: u64, batch: &mut Batch) {
        let Some(link) = self.links.get_mut(to) else { return };
        link.units.granted = add(link.units.granted, units);
        batch.put_link(&self.name, to, link);
        self.changed();
    }

    /// The bug of a donor that takes back what was not acknowledged.
    pub(crate) fn take_back(&mut self, to: &NodeId, acknowledged: u64, batch: &mut Batch) {
        let Some(link) = self.links.get_mut(to) else { return };
        link.units.granted = acknowledged;
        batch.put_link(&self.name, to, link);
        self.changed();
    }

    pub(crate) fn name(&self) -> &PoolName {
        &self.name
    }

    pub(crate) fn pool(&self) -> &PoolRow {
        &self.pool
    }

    pub(crate) fn spec(&self) -> PoolSpec {
        self.pool.spec(&self.name)
    }

    pub(crate) fn link(&self, node: &NodeId) -> LinkRow {
        self.links.get(node).copied().unwrap_or_default()
    }

    /// The row is whole since this restoration.
    pub(crate) fn cleared(mut self, floor: Option<Incarnation>) -> Self {
        self.counts.cleared = floor;
        self
    }

    pub(crate) fn counts(&self) -> &CountsRow {
        &self.counts
    }

    pub(crate) fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Rights of one kind that may be used or granted now.
    pub(crate) fn available(&self, right: Right) -> u64 {
        u64::try_from(self.balance(right)).unwrap_or(0)
    }

    /// The exact row. The caller adds what is not the ledger's: tallies, standing, and what is reserved.
    pub(crate) fn row(&self) -> Row {
        let column = |of: fn(&LinkRow) -> u64| self.links.iter().map(|(n, l)| (n.clone(), of(l))).collect();
        let (units, debt) = (self.counts.of(Right::Unit), self.counts.of(Right::Debt));
        Row {
            version: self.version,
            minted: units.minted,
            granted: column(|link| link.units.granted),
            accepted: column(|link| link.units.accepted),
            consumed: units.consumed,
            returned: units.returned,
            held: self.holds.held(Right::Unit),
            available: self.available(Right::Unit),
            debt: DebtRow {
                minted: debt.minted,
                granted: column(|link| link.more.granted),
                accepted: column(|link| link.more.accepted),
                consumed: debt.consumed,
                returned: debt.returned,
                held: self.holds.held(Right::Debt),
                available: self.available(Right::Debt),
            },
            ..Row::default()
        }
    }

    /// I1, asserted after every step that may have changed the row.
    pub(crate) fn assert_whole(&self) {
        for right in [Right::Unit, Right::Debt] {
            let balance = self.balance(right);
            assert!(balance >= 0, "I1: the rights ({right:?}) of pool {} sum to {balance}", self.name);
        }
    }

    fn balance(&self, right: Right) -> i128 {
        let forgotten = right == Right::Debt && canary::sings(Canary::DebtForgotten);
        let spent = if forgotten {
            Sums { minted: self.counts.of(right).minted, ..Sums::default() }
        } else {
            *self.counts.of(right)
        };
        let held =
            if forgotten || canary::sings(Canary::HoldsNotSubtracted) { 0 } else { self.holds.held(right) };
        rights(&spent, &self.links, right) - i128::from(spent.consumed) + i128::from(spent.returned)
            - i128::from(held)
    }

    fn known(&self, id: &HoldId) -> Result<(HoldNumber, &HoldRow), Refusal> {
        let number = (id.incarnation, id.number);
        let told = |row: &&HoldRow| row.more.secret == id.secret || canary::sings(Canary::SecretNotAsked);
        let row = self.holds.find(number).filter(told).ok_or_else(|| Refusal::NoSuchHold(id.clone()))?;
        Ok((number, row))
    }

    fn end(&mut self, number: HoldNumber, stage: Stage, now: HybridTime, batch: &mut Batch) -> u64 {
        let row = self.holds.end(number, stage, now);
        batch.put_hold(&self.name, number, row);
        let qty = row.qty;
        self.changed();
        qty
    }

    fn changed(&mut self) {
        self.version += 1;
    }
}

/// All rights of one kind that a node was ever minted or granted, less those it granted on. 128 bits, so
/// that no sum of 64 nodes' counters overflows.
fn rights(sums: &Sums, links: &BTreeMap<NodeId, LinkRow>, right: Right) -> i128 {
    let flows = links.values().map(|link| link.of(right));
    i128::from(sums.minted)
        + flows.map(|flow| i128::from(flow.accepted) - i128::from(flow.granted)).sum::<i128>()
}

/// Counters are at most a few times the supply, which is far below 64 bits.
fn add(counter: u64, units: u64) -> u64 {
    counter.checked_add(units).expect("a cumulative counter of units fits 64 bits")
}

/// Versions of different lives never meet: lives are milliseconds, and a row changes far less often
/// than a million times in one.
fn first_version(life: Incarnation) -> u64 {
    life.0 << 20
}
