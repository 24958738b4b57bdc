//! One pool on one node: its own row of the matrix of rights, and its holds (patterns.md §1.2).
//!
//! * It decides: whether units are there to hold or to grant, and merges what peers granted.
//! * It never does: take back a grant, write another node's row, or look at time other than to compare
//!   it with a deadline.
//! * Invariant I1: minted + Σ accepted − Σ granted − consumed + returned − held is never below zero.
//!   Every counter is cumulative and only rises; a change goes into the caller's batch at once.

use std::collections::BTreeMap;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{HybridTime, Incarnation, NodeId, PoolName};
use rhumb_storage::Batch;

use super::holds::Holds;
use super::messages::{Disowned, HoldId, PoolSpec, Refusal, Row, Settled};
use super::records::{
    CountsRow, HoldNumber, HoldRow, LinkRow, PoolImage, PoolRow, Records, RecoverError, Stage,
};

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
        ledger.holds = Holds::recovered(image.holds);
        if ledger.balance() < 0 {
            return Err(RecoverError::Negative(ledger.name));
        }
        Ok(ledger)
    }

    /// Mints all units here and grants each other node its share: one record each, in one batch.
    pub(crate) fn mint(&mut self, shares: &BTreeMap<NodeId, u64>, batch: &mut Batch) {
        self.counts.minted = add(self.counts.minted, self.pool.supply);
        for (node, link) in &mut self.links {
            link.granted = add(link.granted, shares.get(node).copied().unwrap_or(0));
        }
        self.changed();
        self.write(batch);
    }

    /// The bug of a home that mints again.
    pub(crate) fn mint_again(&mut self, batch: &mut Batch) {
        self.counts.minted = add(self.counts.minted, self.pool.supply);
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

    /// Holds units, if they are there.
    pub(crate) fn hold(
        &mut self,
        number: HoldNumber,
        qty: u64,
        deadline: HybridTime,
        batch: &mut Batch,
    ) -> bool {
        if self.available() < qty {
            return false;
        }
        let row = self.holds.insert(number, qty, deadline);
        batch.put_hold(&self.name, number, row);
        self.changed();
        true
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
                self.end(number, Stage::Committed, now, batch);
                self.counts.consumed = add(self.counts.consumed, settled.qty);
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
            self.counts.returned = add(self.counts.returned, qty);
            batch.put_counts(&self.name, &self.counts);
        }
        true
    }

    /// Forgets the next hold whose retention is over. Whether there was one.
    pub(crate) fn forget_next(&mut self, now: HybridTime, batch: &mut Batch) -> bool {
        let forgotten = self.holds.forget_next(now);
        if let Some(number) = forgotten {
            batch.forget_hold(&self.name, number);
        }
        forgotten.is_some()
    }

    /// Takes up what a peer says it has granted, ever. Whether that was news.
    pub(crate) fn accept(&mut self, from: &NodeId, granted: u64, batch: &mut Batch) -> bool {
        let Some(link) = self.links.get_mut(from) else { return false };
        let accepted = if canary::sings(Canary::ReceiverAdds) {
            add(link.accepted, granted)
        } else if canary::sings(Canary::ReceiverOverwrites) {
            granted
        } else {
            link.accepted.max(granted)
        };
        if accepted == link.accepted {
            return false;
        }
        link.accepted = accepted;
        batch.put_link(&self.name, from, link);
        self.changed();
        true
    }

    /// Grants a peer rights until it has been granted `target`, ever, as far as they are there beyond
    /// `floor`. How many it was.
    pub(crate) fn grant(&mut self, to: &NodeId, target: u64, floor: u64, batch: &mut Batch) -> u64 {
        let spare = self.available().saturating_sub(floor);
        let Some(link) = self.links.get_mut(to) else { return 0 };
        let mut units = target.saturating_sub(link.granted);
        if !canary::sings(Canary::GrantWithoutCheck) {
            units = units.min(spare);
        }
        if units > 0 {
            link.granted = add(link.granted, units);
            batch.put_link(&self.name, to, link);
            self.changed();
        }
        units
    }

    /// The bug of a donor that gives what it has not.
    pub(crate) fn grant_beyond(&mut self, to: &NodeId, units: u64, batch: &mut Batch) {
        let Some(link) = self.links.get_mut(to) else { return };
        link.granted = add(link.granted, units);
        batch.put_link(&self.name, to, link);
        self.changed();
    }

    /// The bug of a donor that takes back what was not acknowledged.
    pub(crate) fn take_back(&mut self, to: &NodeId, acknowledged: u64, batch: &mut Batch) {
        let Some(link) = self.links.get_mut(to) else { return };
        link.granted = acknowledged;
        batch.put_link(&self.name, to, link);
        self.changed();
    }

    /// Takes the operator's word and the peers' counts in place of what the disk says. Peers have
    /// refused this node's earlier lives before they counted, so no older grant can still arrive.
    pub(crate) fn attest(
        &mut self,
        sold: u64,
        floor: Option<Incarnation>,
        is_home: bool,
        peers: &BTreeMap<NodeId, Disowned>,
        now: HybridTime,
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let heard = peers.values().map(|said| said.consumed).max().unwrap_or(0);
        let least = self.counts.consumed.max(heard);
        if sold < least {
            return Err(Refusal::Invalid(format!(
                "{sold} sold is too few: {least} are known to be sold there"
            )));
        }
        let minted = if is_home { self.pool.supply } else { self.counts.minted };
        let mut links = self.links.clone();
        for (node, said) in peers {
            if let Some(link) = links.get_mut(node) {
                link.granted = link.granted.max(said.accepted);
                link.accepted = link.accepted.max(said.granted);
            }
        }
        let counts =
            CountsRow { minted, consumed: sold, cleared: floor, attested: Some(sold), ..self.counts.clone() };
        let left = balance(&counts, &links);
        if left < 0 {
            return Err(Refusal::Invalid(format!(
                "{sold} sold is too many: the node had rights to sell {}",
                left + i128::from(sold)
            )));
        }
        for number in self.holds.open() {
            self.end(number, Stage::Voided, now, batch);
        }
        (self.counts, self.links) = (counts, links);
        self.changed();
        self.write(batch);
        Ok(())
    }

    pub(crate) fn pool(&self) -> &PoolRow {
        &self.pool
    }

    pub(crate) fn spec(&self) -> PoolSpec {
        PoolSpec {
            name: self.name.clone(),
            class: self.pool.class.clone(),
            supply: self.pool.supply,
            weights: self.pool.weights.clone(),
            created: self.pool.created,
        }
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

    /// Units that may be held or granted now.
    pub(crate) fn available(&self) -> u64 {
        u64::try_from(self.balance()).unwrap_or(0)
    }

    /// The exact row. The caller adds what is not the ledger's: tallies and standing.
    pub(crate) fn row(&self) -> Row {
        let column = |of: fn(&LinkRow) -> u64| self.links.iter().map(|(n, l)| (n.clone(), of(l))).collect();
        Row {
            version: self.version,
            minted: self.counts.minted,
            granted: column(|link| link.granted),
            accepted: column(|link| link.accepted),
            consumed: self.counts.consumed,
            returned: self.counts.returned,
            held: self.holds.held(),
            available: self.available(),
            ..Row::default()
        }
    }

    /// I1, asserted after every step that may have changed the row.
    pub(crate) fn assert_whole(&self) {
        assert!(self.balance() >= 0, "I1: the rights of pool {} sum to {}", self.name, self.balance());
    }

    fn balance(&self) -> i128 {
        let held = if canary::sings(Canary::HoldsNotSubtracted) { 0 } else { self.holds.held() };
        balance(&self.counts, &self.links) - i128::from(held)
    }

    fn known(&self, id: &HoldId) -> Result<(HoldNumber, &HoldRow), Refusal> {
        let number = (id.incarnation, id.number);
        let row = self.holds.find(number).ok_or_else(|| Refusal::NoSuchHold(id.clone()))?;
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

/// What the counters leave before holds. 128 bits, so that no sum of 64 nodes' counters overflows.
fn balance(counts: &CountsRow, links: &BTreeMap<NodeId, LinkRow>) -> i128 {
    let sum = |of: fn(&LinkRow) -> u64| links.values().map(|link| i128::from(of(link))).sum::<i128>();
    i128::from(counts.minted) + sum(|link| link.accepted)
        - sum(|link| link.granted)
        - i128::from(counts.consumed)
        + i128::from(counts.returned)
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
