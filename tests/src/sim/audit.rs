//! The auditor: sees every node's rows after every event and checks the matrix of patterns.md §1.2.
//!
//! * It decides: whether rows, in memory and on disk, keep I1 to I4, and whether "sold out" is true.
//! * It never does: ask a node. It is shown rows; what a node says of itself is compared with them.
//! * Invariant: a row on disk is one that was reported durable, so every check against it holds at any
//!   crash.

use std::collections::BTreeMap;

use rhumb_actors::escrow::{Row, Standing};
use rhumb_core::NodeId;

use super::plan::MAX_NODES;
use super::violation::{Checked, Invariant, demand};

/// One resource in one node's row of one pool, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Column {
    /// Minted there.
    pub minted: u64,
    /// Rights granted to each node.
    pub granted: [u64; MAX_NODES],
    /// Rights accepted from each node.
    pub accepted: [u64; MAX_NODES],
    /// Units sold there.
    pub consumed: u64,
    /// Units given back after sale.
    pub returned: u64,
    /// Units held there.
    pub held: u64,
    /// Units that the node says may be held or granted.
    pub available: u64,
}

impl Column {
    /// What the formula of patterns.md §1.2 says is available.
    fn formula(&self) -> i128 {
        let sum = |all: &[u64]| all.iter().map(|n| i128::from(*n)).sum::<i128>();
        i128::from(self.minted) + sum(&self.accepted) - sum(&self.granted) - i128::from(self.consumed)
            + i128::from(self.returned)
            - i128::from(self.held)
    }

    /// Whether each cumulative number is at least what it was.
    fn at_least(&self, before: &Self) -> bool {
        let pairs = |now: &[u64], was: &[u64]| now.iter().zip(was).all(|(now, was)| now >= was);
        self.minted >= before.minted
            && self.consumed >= before.consumed
            && self.returned >= before.returned
            && pairs(&self.granted, &before.granted)
            && pairs(&self.accepted, &before.accepted)
    }

    /// Whether anything was spent since.
    fn spent_since(&self, before: &Self) -> bool {
        self.consumed > before.consumed
            || self.returned > before.returned
            || self.minted > before.minted
            || self.held > before.held
            || self.granted.iter().zip(&before.granted).any(|(now, was)| now > was)
    }

    /// Units sold and not given back.
    fn sold(&self) -> u64 {
        self.consumed.saturating_sub(self.returned)
    }
}

/// One node's row of one pool, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Units.
    pub units: Column,
    /// Debt rights.
    pub debt: Column,
    /// Units that are not for the node's own customers.
    pub reserved: u64,
    /// Whether the node says that it may spend.
    pub proven: bool,
}

impl Counters {
    /// The numbers of a row, with nodes by their place in the founding list.
    #[must_use]
    pub fn of(row: &Row, nodes: &[NodeId]) -> Self {
        let column = |of: &BTreeMap<NodeId, u64>| {
            let mut numbers = [0; MAX_NODES];
            for (number, node) in numbers.iter_mut().zip(nodes) {
                *number = of.get(node).copied().unwrap_or(0);
            }
            numbers
        };
        Self {
            units: Column {
                minted: row.minted,
                granted: column(&row.granted),
                accepted: column(&row.accepted),
                consumed: row.consumed,
                returned: row.returned,
                held: row.held,
                available: row.available,
            },
            debt: Column {
                minted: row.debt.minted,
                granted: column(&row.debt.granted),
                accepted: column(&row.debt.accepted),
                consumed: row.debt.consumed,
                returned: row.debt.returned,
                held: row.debt.held,
                available: row.debt.available,
            },
            reserved: row.reserved,
            proven: row.standing == Standing::Proven,
        }
    }

    /// Units sold and not given back, on debt or not.
    #[must_use]
    pub fn sold(&self) -> u64 {
        self.units.sold() + self.debt.sold()
    }

    /// Units ever sold.
    fn ever_sold(&self) -> u64 {
        self.units.consumed + self.debt.consumed
    }

    /// Units held, on debt or not.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.units.held + self.debt.held
    }

    /// Whether anything is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held() > 0
    }

    /// Whether the node's own customers can have something, on debt where that is to be drawn.
    #[must_use]
    pub fn is_for_sale(&self, draws_debt: bool) -> bool {
        self.units.available > self.reserved || draws_debt && self.debt.available > 0
    }

    fn columns(&self) -> [&Column; 2] {
        [&self.units, &self.debt]
    }

    fn at_least(&self, before: &Self) -> bool {
        self.units.at_least(&before.units) && self.debt.at_least(&before.debt)
    }

    fn spent_since(&self, before: &Self) -> bool {
        self.units.spent_since(&before.units) || self.debt.spent_since(&before.debt)
    }
}

/// What the auditor knows of one node's row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// As the node has it in memory; of a node that is down, what is certainly on its disk.
    pub present: Counters,
    /// What is certainly on its disk.
    pub durable: Counters,
    /// What is perhaps on its disk: the same, or the row after the step of which a part is durable.
    pub perhaps: Counters,
    /// Units sold there and not given back, by the disk that was lost when an old copy was put in its
    /// place; nothing once an operator has spoken.
    pub sold_before: u64,
    /// Units ever sold there, by the same disk.
    pub ever_before: u64,
    /// The disk is an old copy and no operator has attested it yet.
    pub suspended: bool,
    /// An operator has been asked to attest it: from now on its numbers may jump.
    pub attesting: bool,
}

/// The rows of one pool.
#[derive(Debug)]
pub struct Audit {
    nodes: usize,
    rows: [Seen; MAX_NODES],
    /// Units and debt rights that exist, once somebody has minted them.
    minted: Option<(u64, u64)>,
    /// Those of the bodies that creators ask for.
    bodies: Vec<(u64, u64)>,
    /// The part of the supply that one node holds for the others.
    reserve: Option<Reserved>,
    /// What its home granted each node when it minted the pool.
    split: Option<[u64; MAX_NODES]>,
}

/// A reserve, as the plan has it.
#[derive(Debug, Clone, Copy)]
pub struct Reserved {
    /// Which node holds it.
    pub holder: usize,
    /// How many units.
    pub units: u64,
    /// Whether that node gives units that nobody asked for: those do not come out of the reserve.
    pub gives: bool,
    /// Below so many unsold units there is no reserve any more: the tail.
    pub tail: u64,
    /// The holder runs on an attested disk: what of its grants was the first split, nobody knows.
    pub vague: bool,
}

impl Audit {
    /// The books of a pool that nobody has minted, in a mesh of so many nodes.
    #[must_use]
    pub fn new(nodes: usize, bodies: Vec<(u64, u64)>, reserve: Option<Reserved>) -> Self {
        Self { nodes, rows: [Seen::default(); MAX_NODES], minted: None, bodies, reserve, split: None }
    }

    /// What the pool's home granted each node when it minted it.
    #[must_use]
    pub fn split(&self) -> [u64; MAX_NODES] {
        self.split.unwrap_or_default()
    }

    /// What is known of a node's row.
    #[must_use]
    pub fn row(&self, node: usize) -> &Seen {
        &self.rows[node]
    }

    /// Units and debt rights that exist.
    #[must_use]
    pub fn minted(&self) -> Option<(u64, u64)> {
        self.minted
    }

    /// All that may be sold, on debt too.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.minted.map_or(0, |(supply, debt)| supply + debt)
    }

    /// Units sold and not given back, by the present rows; of a node with an old disk, what its lost one
    /// knew.
    #[must_use]
    pub fn sold(&self) -> u64 {
        let lost = |row: &Seen| row.suspended && !row.present.proven;
        self.live().map(|row| if lost(row) { row.sold_before } else { row.present.sold() }).sum()
    }

    /// Rights of either kind that one node has granted another and the other has not accepted.
    #[must_use]
    pub fn in_flight(&self, from: usize, to: usize) -> i128 {
        let [from_row, to_row] = [self.rows[from].present, self.rows[to].present];
        let columns = from_row.columns().into_iter().zip(to_row.columns());
        columns.map(|(from_row, to_row)| on_the_way(from_row, to_row, from, to)).sum()
    }

    /// A node's row changed in memory.
    ///
    /// # Errors
    /// The promise that the change breaks.
    pub fn changed(&mut self, node: usize, now: Counters) -> Checked {
        let was = self.rows[node];
        self.rows[node].present = now;
        if self.split.is_none() && now.units.minted > 0 && !was.suspended {
            self.split = Some(now.units.granted);
        }
        self.check_row(node, &was, &now)?;
        self.check_reserve(node, &was, &now)?;
        self.check_pairs(node, &now)?;
        self.check_sums()
    }

    /// What was handed to the disk became durable: certainly this row, perhaps that.
    pub fn durable(&mut self, node: usize, certain: Counters, perhaps: Counters) {
        (self.rows[node].durable, self.rows[node].perhaps) = (certain, perhaps);
    }

    /// A node went down: what it has is what is on its disk.
    pub fn crashed(&mut self, node: usize) {
        self.rows[node].present = self.rows[node].durable;
        if self.live().all(|row| row.present == Counters::default() && !row.suspended) {
            // It was minted and nobody was told.
            (self.minted, self.split) = (None, None);
        }
    }

    /// A node has read its disk again.
    ///
    /// # Errors
    /// [`Invariant::Acknowledged`] when what was durable is not there.
    pub fn recovered(&mut self, node: usize, now: Counters) -> Checked {
        let row = &mut self.rows[node];
        let durable = row.durable;
        (row.present, row.durable, row.perhaps) = (now, now, now);
        demand(row.suspended || now.at_least(&durable), Invariant::Acknowledged, || {
            format!("node {node} had {durable:?} durable and came back with {now:?}")
        })?;
        self.check_pairs(node, &now)?;
        self.check_sums()
    }

    /// An old copy of a node's disk was put back.
    pub fn restored(&mut self, node: usize) {
        let row = &mut self.rows[node];
        (row.suspended, row.attesting) = (true, false);
        row.sold_before = row.sold_before.max(row.durable.sold());
        row.ever_before = row.ever_before.max(row.durable.ever_sold());
        if let Some(reserve) = self.reserve.as_mut().filter(|reserve| reserve.holder == node) {
            reserve.vague = true;
        }
    }

    /// An operator begins to attest a restored node.
    pub fn attesting(&mut self, node: usize) {
        self.rows[node].attesting = true;
    }

    /// A restored node was attested.
    pub fn attested(&mut self, node: usize) {
        (self.rows[node].suspended, self.rows[node].attesting) = (false, false);
        self.rows[node].sold_before = 0;
    }

    /// A node is about to say that everything is sold.
    ///
    /// # Errors
    /// [`Invariant::SoldOutIsTrue`] when it is not.
    pub fn sold_out(&self, node: usize) -> Checked {
        // What the node has got back itself it knows; of others it may not have heard yet.
        let ever: u64 = self.live().map(|row| row.present.ever_sold().max(row.ever_before)).sum();
        let own = self.rows[node].present;
        let returned = own.units.returned + own.debt.returned;
        let all = self.minted.is_some_and(|(supply, debt)| ever >= supply + debt + returned);
        demand(all, Invariant::SoldOutIsTrue, || {
            format!(
                "node {node} says sold out when {ever} of {:?} were ever sold and {returned} returned to it",
                self.minted
            )
        })
    }

    fn live(&self) -> impl Iterator<Item = &Seen> {
        self.rows[..self.nodes].iter()
    }

    fn check_row(&self, node: usize, was: &Seen, now: &Counters) -> Checked {
        let before = &was.present;
        for (column, kind) in now.columns().into_iter().zip(["units", "debt rights"]) {
            demand(column.formula() == i128::from(column.available), Invariant::Available, || {
                format!(
                    "node {node} says {} {kind} are available, its counters say {}: {now:?}",
                    column.available,
                    column.formula()
                )
            })?;
        }
        let idle = was.suspended && !was.attesting || !now.proven && !was.suspended;
        demand(!idle || !now.spent_since(before), Invariant::Standing, || {
            format!("node {node} may not spend and went from {before:?} to {now:?}")
        })?;
        demand(!was.suspended || was.attesting || !now.proven, Invariant::Standing, || {
            format!("node {node} runs on an old disk and says that it is proven: {now:?}")
        })?;
        demand(was.suspended || now.at_least(before), Invariant::Monotone, || {
            format!("node {node} went from {before:?} to {now:?}")
        })
    }

    /// The reserve shrinks by what its holder grants, and by nothing else: what it says of it, and what it
    /// holds for its own customers, is compared with the plan and the granted columns. Units that it gave
    /// unasked did not come out of the reserve, but cannot be told from the others.
    fn check_reserve(&self, node: usize, was: &Seen, now: &Counters) -> Checked {
        let Some(reserve) = self.reserve.filter(|reserve| reserve.holder == node) else {
            return demand(now.reserved == 0, Invariant::Reserve, || {
                format!("node {node} has none: {now:?}")
            });
        };
        let Some((supply, _)) = self.minted.filter(|_| !was.suspended && *now != Counters::default()) else {
            return Ok(());
        };
        let home = now.units.minted > 0 && !reserve.vague;
        let split = if home { self.split() } else { [0; MAX_NODES] };
        let granted: u64 =
            now.units.granted.iter().zip(split).map(|(all, first)| all.saturating_sub(first)).sum();
        let least = reserve.units.saturating_sub(granted);
        let most = if reserve.gives || reserve.vague { reserve.units } else { least };
        // No node can know of more sales than there ever were.
        let ever: u64 = self.live().map(|row| row.present.units.consumed.max(row.ever_before)).sum();
        let tail = supply.saturating_sub(ever) < reserve.tail;
        let right = (least..=most).contains(&now.reserved) || tail && now.reserved == 0;
        demand(right, Invariant::Reserve, || {
            format!("node {node} says {} are reserved and not {least} to {most}: {now:?}", now.reserved)
        })?;
        let holds = now.units.held > was.present.units.held;
        demand(tail || !holds || now.units.available >= least, Invariant::Reserve, || {
            format!("node {node} holds units of its reserve of {least}: {now:?}")
        })
    }

    fn check_pairs(&self, node: usize, now: &Counters) -> Checked {
        for (peer, seen) in self.rows[..self.nodes].iter().enumerate().filter(|(peer, _)| *peer != node) {
            for (at, column) in now.columns().into_iter().enumerate() {
                let granted = seen.perhaps.columns()[at].granted[node];
                demand(
                    seen.suspended || column.accepted[peer] <= granted,
                    Invariant::AcceptedIsGranted,
                    || {
                        format!(
                            "node {node} accepted {} from {peer}, which has durably granted {granted}",
                            column.accepted[peer]
                        )
                    },
                )?;
                let (granted, accepted) = (column.granted[peer], seen.present.columns()[at].accepted[node]);
                let own = self.rows[node].suspended;
                demand(own || accepted <= granted, Invariant::AcceptedIsGranted, || {
                    format!("node {peer} accepted {accepted} from {node}, which has granted {granted}")
                })?;
            }
        }
        Ok(())
    }

    fn check_sums(&mut self) -> Checked {
        let sum = |of: fn(&Counters) -> u64| self.live().map(|row| of(&row.present)).sum::<u64>();
        let minted = (sum(|row| row.units.minted), sum(|row| row.debt.minted));
        if self.minted.is_none() && minted.0 > 0 {
            self.minted = Some(minted);
        }
        let rows = &self.rows[..self.nodes];
        let asked_for = minted == (0, 0) || self.bodies.contains(&minted);
        let kept = minted == self.minted.unwrap_or_default() || rows.iter().any(|row| row.suspended);
        demand(asked_for && kept, Invariant::MintedOnce, || {
            format!("{minted:?} are minted, {:?} were, and {:?} were asked for", self.minted, self.bodies)
        })?;
        let (sold, most) = (self.sold(), self.most());
        demand(sold <= most, Invariant::NeverOversold, || format!("{sold} of {most} are sold"))?;
        for (at, (minted, kind)) in [(minted.0, "units"), (minted.1, "debt rights")].into_iter().enumerate() {
            let found = self.placed(at);
            demand(found == i128::from(minted), Invariant::Conservation, || {
                format!("{found} {kind} are available, held, sold or in flight of {minted} minted")
            })?;
        }
        Ok(())
    }

    /// What is available, held, sold or in flight, of one resource.
    fn placed(&self, at: usize) -> i128 {
        let mut placed = 0;
        for (from, row) in self.rows[..self.nodes].iter().enumerate() {
            let column = row.present.columns()[at];
            placed += i128::from(column.available) + i128::from(column.held) + i128::from(column.consumed);
            placed -= i128::from(column.returned);
            for (to, other) in self.rows[..self.nodes].iter().enumerate().filter(|(to, _)| *to != from) {
                placed += on_the_way(column, other.present.columns()[at], from, to);
            }
        }
        placed
    }
}

fn on_the_way(from_row: &Column, to_row: &Column, from: usize, to: usize) -> i128 {
    i128::from(from_row.granted[to]) - i128::from(to_row.accepted[from])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Counters {
        with(Column { minted: 10, available: 10, ..Column::default() })
    }

    fn with(units: Column) -> Counters {
        Counters { units, proven: true, ..Counters::default() }
    }

    fn granted(n: u64) -> Counters {
        let mut row = home();
        row.units.granted[1] = n;
        row.units.available -= n;
        row
    }

    fn accepted(n: u64) -> Counters {
        let mut row = with(Column { available: n, ..Column::default() });
        row.units.accepted[0] = n;
        row
    }

    /// The home's row with so many sold, held and left.
    fn sold(consumed: u64, held: u64, available: u64) -> Counters {
        with(Column { consumed, held, available, ..home().units })
    }

    fn minted() -> Audit {
        let mut audit = Audit::new(2, vec![(10, 0)], None);
        audit.changed(0, home()).expect("minting is fine");
        audit
    }

    fn broken(found: Checked) -> Invariant {
        found.expect_err("a broken promise").invariant
    }

    #[test]
    fn a_grant_that_is_not_durable_may_not_be_accepted() {
        let mut audit = minted();
        audit.changed(0, granted(4)).expect("granting is fine");
        assert_eq!(broken(audit.changed(1, accepted(4))), Invariant::AcceptedIsGranted);
        audit.durable(0, granted(4), granted(4));
        audit.changed(1, accepted(4)).expect("now it is durable");
        assert_eq!(broken(audit.changed(1, accepted(5))), Invariant::AcceptedIsGranted);
    }

    #[test]
    fn what_was_durable_must_come_back() {
        let mut audit = minted();
        audit.changed(0, granted(4)).expect("granting is fine");
        audit.durable(0, granted(4), granted(4));
        audit.crashed(0);
        assert_eq!(broken(audit.recovered(0, home())), Invariant::Acknowledged);
    }

    #[test]
    fn counters_that_fall_appear_or_contradict_each_other_are_found() {
        assert_eq!(
            broken(minted().changed(0, with(Column { minted: 20, available: 20, ..Column::default() }))),
            Invariant::MintedOnce
        );
        assert_eq!(broken(minted().changed(0, sold(0, 0, 11))), Invariant::Available);
        let mut audit = minted();
        audit.changed(0, sold(3, 0, 7)).expect("selling is fine");
        assert_eq!(broken(audit.changed(0, home())), Invariant::Monotone);
    }

    #[test]
    fn an_unproven_or_restored_node_may_not_spend() {
        let spent = Counters { proven: false, ..sold(0, 1, 9) };
        assert_eq!(broken(minted().changed(0, spent)), Invariant::Standing);
        let mut audit = minted();
        audit.restored(0);
        assert_eq!(broken(audit.changed(0, home())), Invariant::Standing, "it calls itself proven");
        audit.attesting(0);
        audit.changed(0, sold(2, 0, 8)).expect("numbers may jump now");
    }

    #[test]
    fn sold_out_is_said_only_of_what_is_sold() {
        let mut audit = minted();
        audit.changed(0, sold(9, 1, 0)).expect("fine");
        assert_eq!(broken(audit.sold_out(1)), Invariant::SoldOutIsTrue, "one is only held");
        audit.changed(0, sold(10, 0, 0)).expect("fine");
        audit.sold_out(1).expect("all are sold");
    }

    #[test]
    fn sold_out_counts_what_came_back() {
        let mut audit = minted();
        audit.changed(0, sold(10, 0, 0)).expect("fine");
        let back = with(Column { consumed: 10, returned: 1, available: 1, ..home().units });
        audit.changed(0, back).expect("fine");
        assert_eq!(broken(audit.sold_out(0)), Invariant::SoldOutIsTrue, "one came back to it");
    }

    #[test]
    fn debt_is_a_column_of_its_own() {
        let mut audit = Audit::new(2, vec![(10, 3)], None);
        let debt = |consumed, available| Column { minted: 3, consumed, available, ..Column::default() };
        audit.changed(0, Counters { debt: debt(0, 3), ..home() }).expect("minting is fine");
        audit.changed(0, Counters { debt: debt(2, 1), ..sold(10, 0, 0) }).expect("debt is allowed");
        assert_eq!(audit.sold(), 12);
        let beyond = Counters { debt: debt(4, 0), ..sold(10, 0, 0) };
        assert_eq!(broken(audit.changed(0, beyond)), Invariant::Available);
    }

    /// The home holds four units for the other node.
    fn reserving(gives: bool) -> Audit {
        let reserve = Reserved { holder: 0, units: 4, gives, tail: 0, vague: false };
        let mut audit = Audit::new(2, vec![(10, 0)], Some(reserve));
        audit.changed(0, Counters { reserved: 4, ..home() }).expect("minting is fine");
        audit
    }

    #[test]
    fn a_reserve_that_is_held_at_its_holder_is_found() {
        let mut audit = reserving(false);
        let kept = |row: Counters| Counters { reserved: 4, ..row };
        audit.changed(0, kept(sold(0, 6, 4))).expect("its own units are for sale");
        assert_eq!(broken(audit.changed(0, kept(sold(0, 7, 3)))), Invariant::Reserve);
    }

    #[test]
    fn a_reserve_is_what_the_granted_columns_leave_of_it() {
        for (gives, reserved, right) in
            [(false, 3, true), (false, 0, false), (false, 4, false), (true, 4, true), (true, 2, false)]
        {
            let found = reserving(gives).changed(0, Counters { reserved, ..granted(1) });
            assert_eq!(found.is_ok(), right, "gives: {gives}, {reserved} reserved: {found:?}");
        }
    }
}
