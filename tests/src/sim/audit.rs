//! The auditor: sees every node's rows after every event and checks the matrix of patterns.md §1.2.
//!
//! * It decides: whether rows, in memory and on disk, keep I1 to I4, and whether "sold out" is true.
//! * It never does: ask a node. It is shown rows; what a node says of itself is compared with them.
//! * Invariant: a row on disk is one that was reported durable, so every check against it holds at any
//!   crash.

use rhumb_actors::escrow::{Row, Standing};
use rhumb_core::NodeId;

use super::plan::MAX_NODES;
use super::violation::{Checked, Invariant, demand};

/// One node's row of one pool, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Units minted there.
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
    /// Whether the node says that it may spend.
    pub proven: bool,
}

impl Counters {
    /// The numbers of a row, with nodes by their place in the founding list.
    #[must_use]
    pub fn of(row: &Row, nodes: &[NodeId]) -> Self {
        let mut counters = Self {
            minted: row.minted,
            consumed: row.consumed,
            returned: row.returned,
            held: row.held,
            available: row.available,
            proven: row.standing == Standing::Proven,
            ..Self::default()
        };
        for (i, node) in nodes.iter().enumerate() {
            counters.granted[i] = row.granted.get(node).copied().unwrap_or(0);
            counters.accepted[i] = row.accepted.get(node).copied().unwrap_or(0);
        }
        counters
    }

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
            || self.held > before.held
            || self.minted > before.minted
            || self.granted.iter().zip(&before.granted).any(|(now, was)| now > was)
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
    /// Units sold there by the disk that was lost when an old copy was put in its place.
    pub sold_before: u64,
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
    /// Units that exist, once somebody has minted them.
    supply: Option<u64>,
    /// Supplies of the bodies that creators ask for.
    supplies: Vec<u64>,
}

impl Audit {
    /// The books of a pool that nobody has minted, in a mesh of so many nodes.
    #[must_use]
    pub fn new(nodes: usize, supplies: Vec<u64>) -> Self {
        Self { nodes, rows: [Seen::default(); MAX_NODES], supply: None, supplies }
    }

    /// What is known of a node's row.
    #[must_use]
    pub fn row(&self, node: usize) -> &Seen {
        &self.rows[node]
    }

    /// Units that exist.
    #[must_use]
    pub fn supply(&self) -> Option<u64> {
        self.supply
    }

    /// Units sold, by the present rows; of a node with an old disk, what its lost one knew.
    #[must_use]
    pub fn sold(&self) -> u64 {
        self.live().map(|row| row.present.consumed.max(row.sold_before)).sum()
    }

    /// Rights that one node has granted another and the other has not accepted.
    #[must_use]
    pub fn in_flight(&self, from: usize, to: usize) -> i128 {
        i128::from(self.rows[from].present.granted[to]) - i128::from(self.rows[to].present.accepted[from])
    }

    /// A node's row changed in memory.
    ///
    /// # Errors
    /// The promise that the change breaks.
    pub fn changed(&mut self, node: usize, now: Counters) -> Checked {
        let was = self.rows[node];
        self.rows[node].present = now;
        self.check_row(node, &was, &now)?;
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
            self.supply = None;
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
        row.sold_before = row.sold_before.max(row.durable.consumed);
    }

    /// An operator begins to attest a restored node.
    pub fn attesting(&mut self, node: usize) {
        self.rows[node].attesting = true;
    }

    /// A restored node was attested.
    pub fn attested(&mut self, node: usize) {
        (self.rows[node].suspended, self.rows[node].attesting) = (false, false);
    }

    /// A node is about to say that everything is sold.
    ///
    /// # Errors
    /// [`Invariant::SoldOutIsTrue`] when it is not.
    pub fn sold_out(&self, node: usize) -> Checked {
        let sold = self.sold();
        demand(self.supply.is_some_and(|supply| sold >= supply), Invariant::SoldOutIsTrue, || {
            format!("node {node} says sold out when {sold} of {:?} are sold", self.supply)
        })
    }

    fn live(&self) -> impl Iterator<Item = &Seen> {
        self.rows[..self.nodes].iter()
    }

    fn check_row(&self, node: usize, was: &Seen, now: &Counters) -> Checked {
        let before = &was.present;
        demand(now.formula() == i128::from(now.available), Invariant::Available, || {
            format!(
                "node {node} says {} available, its counters say {}: {now:?}",
                now.available,
                now.formula()
            )
        })?;
        demand(now.returned == 0, Invariant::Receipts, || {
            format!(
                "node {node} counts {} units given back after sale, and nobody gave any back",
                now.returned
            )
        })?;
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

    fn check_pairs(&self, node: usize, now: &Counters) -> Checked {
        for (peer, seen) in self.rows[..self.nodes].iter().enumerate().filter(|(peer, _)| *peer != node) {
            let granted = seen.perhaps.granted[node];
            demand(seen.suspended || now.accepted[peer] <= granted, Invariant::AcceptedIsGranted, || {
                format!(
                    "node {node} accepted {} from {peer}, which has durably granted {granted}",
                    now.accepted[peer]
                )
            })?;
            let (granted, accepted) = (now.granted[peer], seen.present.accepted[node]);
            let own = self.rows[node].suspended;
            demand(own || accepted <= granted, Invariant::AcceptedIsGranted, || {
                format!("node {peer} accepted {accepted} from {node}, which has granted {granted}")
            })?;
        }
        Ok(())
    }

    fn check_sums(&mut self) -> Checked {
        let minted: u64 = self.live().map(|row| row.present.minted).sum();
        if self.supply.is_none() && minted > 0 {
            self.supply = Some(minted);
        }
        let (supply, rows) = (self.supply.unwrap_or(0), &self.rows[..self.nodes]);
        let asked_for = minted == 0 || self.supplies.contains(&minted);
        let kept = minted == supply || rows.iter().any(|row| row.suspended);
        demand(asked_for && kept, Invariant::MintedOnce, || {
            format!("{minted} units are minted, {supply} were, and {:?} were asked for", self.supplies)
        })?;
        let sold = self.sold();
        demand(sold <= supply, Invariant::NeverOversold, || format!("{sold} of {supply} are sold"))?;
        let mut units = 0;
        for (from, row) in rows.iter().enumerate() {
            let row = row.present;
            units += i128::from(row.available) + i128::from(row.held) + i128::from(row.consumed);
            units -= i128::from(row.returned);
            units +=
                (0..self.nodes).filter(|to| *to != from).map(|to| self.in_flight(from, to)).sum::<i128>();
        }
        demand(units == i128::from(minted), Invariant::Conservation, || {
            format!("{units} units are available, held, sold or in flight of {minted} minted")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Counters {
        Counters { minted: 10, available: 10, proven: true, ..Counters::default() }
    }

    fn granted(n: u64) -> Counters {
        let mut row = home();
        row.granted[1] = n;
        row.available -= n;
        row
    }

    fn accepted(n: u64) -> Counters {
        let mut row = Counters { available: n, proven: true, ..Counters::default() };
        row.accepted[0] = n;
        row
    }

    fn minted() -> Audit {
        let mut audit = Audit::new(2, vec![10]);
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
            broken(minted().changed(0, Counters { minted: 20, available: 20, ..home() })),
            Invariant::MintedOnce
        );
        assert_eq!(broken(minted().changed(0, Counters { available: 11, ..home() })), Invariant::Available);
        let mut audit = minted();
        let sold = Counters { consumed: 3, available: 7, ..home() };
        audit.changed(0, sold).expect("selling is fine");
        assert_eq!(broken(audit.changed(0, home())), Invariant::Monotone);
    }

    #[test]
    fn an_unproven_or_restored_node_may_not_spend() {
        let spent = Counters { held: 1, available: 9, proven: false, ..home() };
        assert_eq!(broken(minted().changed(0, spent)), Invariant::Standing);
        let mut audit = minted();
        audit.restored(0);
        assert_eq!(broken(audit.changed(0, home())), Invariant::Standing, "it calls itself proven");
        audit.attesting(0);
        audit.changed(0, Counters { consumed: 2, available: 8, ..home() }).expect("numbers may jump now");
    }

    #[test]
    fn sold_out_is_said_only_of_what_is_sold() {
        let mut audit = minted();
        audit.changed(0, Counters { consumed: 9, held: 1, available: 0, ..home() }).expect("fine");
        assert_eq!(broken(audit.sold_out(1)), Invariant::SoldOutIsTrue, "one is only held");
        audit.changed(0, Counters { consumed: 10, available: 0, ..home() }).expect("fine");
        audit.sold_out(1).expect("all are sold");
    }
}
