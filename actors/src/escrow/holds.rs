//! The holds of one pool on the node that owns them.
//!
//! * It decides: how a hold ends. Each step is one-way and durable, and only the owner takes it.
//! * It never does: read a clock, or count a unit twice.
//! * Invariant: the held sums are the sums over rows in the stage `Held`, a deadline stands in the
//!   queue for exactly those, and a customer has what their holds and sales add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};

use super::customers::Customers;
use super::messages::{CustomerTag, KEY_RETENTION};
use super::records::{CustomerRow, HoldMore, HoldNumber, HoldRow, ReturnRow, Right, Stage};

/// One pool's holds on one node.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    rows: BTreeMap<HoldNumber, HoldRow>,
    deadlines: BTreeSet<(HybridTime, HoldNumber)>,
    /// Those that ended without a sale.
    ended: BTreeSet<(HybridTime, HoldNumber)>,
    /// Those that were sold: they are remembered for as long as they may be returned, and longer.
    sold: BTreeSet<(HybridTime, HoldNumber)>,
    held: u64,
    held_debt: u64,
    customers: Customers,
}

/// A hold that was forgotten, and what its customer is remembered to have since.
pub(crate) type Forgotten = (HoldNumber, Option<(CustomerTag, CustomerRow)>);

impl Holds {
    pub(crate) fn recovered(
        rows: BTreeMap<HoldNumber, HoldRow>,
        customers: BTreeMap<CustomerTag, CustomerRow>,
    ) -> Self {
        let mut holds = Self { customers: Customers::recovered(customers), ..Self::default() };
        for (number, row) in rows {
            holds.index(number, &row);
            holds.rows.insert(number, row);
        }
        holds
    }

    /// A new hold.
    pub(crate) fn insert(
        &mut self,
        number: HoldNumber,
        qty: u64,
        deadline: HybridTime,
        more: HoldMore,
    ) -> &HoldRow {
        let row = HoldRow { qty, deadline, stage: Stage::Held, ended: None, more };
        self.index(number, &row);
        let before = self.rows.insert(number, row);
        assert!(before.is_none(), "hold number {number:?} was given out twice");
        &self.rows[&number]
    }

    /// Ends a hold that is held.
    pub(crate) fn end(&mut self, number: HoldNumber, stage: Stage, now: HybridTime) -> &HoldRow {
        let row = self.rows.get_mut(&number).expect("the caller has just looked at this hold");
        assert_eq!(row.stage, Stage::Held, "hold {number:?} ends twice");
        self.deadlines.remove(&(row.deadline, number));
        self.held = self.held.checked_sub(row.part(Right::Unit)).expect("the held sum covers every hold");
        self.held_debt =
            self.held_debt.checked_sub(row.part(Right::Debt)).expect("the held sum covers every hold");
        row.stage = stage;
        row.ended = Some(now);
        if stage == Stage::Committed {
            self.sold.insert((now, number));
        } else {
            self.customers.give_back(row.more.customer, row.qty);
            self.ended.insert((now, number));
        }
        row
    }

    /// Gives back a part of a sale.
    pub(crate) fn give_back(&mut self, number: HoldNumber, part: ReturnRow) -> &HoldRow {
        let row = self.rows.get_mut(&number).expect("the caller has just looked at this hold");
        assert_eq!(row.stage, Stage::Committed, "only of a sale units come back");
        row.more.returns.push(part);
        assert!(row.returned() <= row.qty, "more comes back of {number:?} than was sold");
        self.customers.give_back(row.more.customer, part.qty);
        row
    }

    /// Forgets a hold that ended longer than the retention ago; one that was sold, when it can be
    /// returned no more for that long.
    pub(crate) fn forget_next(&mut self, now: HybridTime, returns: Duration) -> Option<Forgotten> {
        let over =
            |(at, number): &(HybridTime, HoldNumber), kept| (now > at.plus(kept)).then_some((*at, *number));
        if let Some((at, number)) = self.ended.first().and_then(|first| over(first, KEY_RETENTION)) {
            self.ended.remove(&(at, number));
            self.rows.remove(&number);
            return Some((number, None));
        }
        let (at, number) = self.sold.first().and_then(|first| over(first, KEY_RETENTION + returns))?;
        self.sold.remove(&(at, number));
        let row = self.rows.remove(&number).expect("what is in the queue is remembered");
        let left = row.qty - row.returned();
        if canary::sings(Canary::ForgottenSaleFrees) && left > 0 {
            self.customers.give_back(row.more.customer, left);
            return Some((number, None));
        }
        let kept = self.customers.keep(row.more.customer, left);
        Some((number, kept))
    }

    pub(crate) fn find(&self, number: HoldNumber) -> Option<&HoldRow> {
        self.rows.get(&number)
    }

    /// The next hold to expire.
    pub(crate) fn next_deadline(&self) -> Option<HybridTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next hold whose time has come.
    pub(crate) fn due(&self, now: HybridTime) -> Option<HoldNumber> {
        self.deadlines.first().filter(|(deadline, _)| now >= *deadline).map(|(_, number)| *number)
    }

    /// When the next ended hold may be forgotten.
    pub(crate) fn next_forgotten(&self, returns: Duration) -> Option<HybridTime> {
        let ended = self.ended.first().map(|(at, _)| at.plus(KEY_RETENTION));
        let sold = self.sold.first().map(|(at, _)| at.plus(KEY_RETENTION + returns));
        ended.into_iter().chain(sold).min()
    }

    /// What a customer has: held, or bought and not given back.
    pub(crate) fn of_customer(&self, customer: CustomerTag) -> u64 {
        self.customers.has(customer)
    }

    /// Every hold that is held.
    pub(crate) fn open(&self) -> Vec<HoldNumber> {
        self.deadlines.iter().map(|(_, number)| *number).collect()
    }

    /// Units held on rights of one kind.
    pub(crate) fn held(&self, right: Right) -> u64 {
        match right {
            Right::Unit => self.held,
            Right::Debt => self.held_debt,
        }
    }

    /// How many holds are remembered.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn index(&mut self, number: HoldNumber, row: &HoldRow) {
        let add = |sum: u64, units| sum.checked_add(units).expect("held units are at most what was minted");
        match row.ended {
            None => {
                self.deadlines.insert((row.deadline, number));
                self.held = add(self.held, row.part(Right::Unit));
                self.held_debt = add(self.held_debt, row.part(Right::Debt));
                self.customers.take(row.more.customer, row.qty);
            }
            Some(ended) if row.stage == Stage::Committed => {
                self.sold.insert((ended, number));
                self.customers.take(row.more.customer, row.qty - row.returned());
            }
            Some(ended) => {
                self.ended.insert((ended, number));
            }
        }
    }
}
