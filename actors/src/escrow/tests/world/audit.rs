//! Invariants I1 to I5 over all nodes of a story, against the receipts kept in it.

use super::*;

impl World {
    /// I1 to I5 over all nodes that run. After a disk was lost, the matrix of a node that is not
    /// attested is not true; what was sold still may not exceed what was minted.
    pub(super) fn audit(&self) {
        for (pool, supply) in &self.supplies {
            let rows: BTreeMap<&NodeId, Row> = self
                .nodes
                .iter()
                .filter_map(|(id, node)| Some((id, node.life.as_ref()?.book.row(pool)?)))
                .collect();
            let (supply, debt) = *supply;
            let of_pool = self.receipts.iter().filter(|(hold, _)| hold.pool == *pool);
            let sold: u64 = of_pool.map(|(_, units)| units).sum();
            assert!(sold <= supply + debt, "I4: {sold} sold of {supply} and a debt of {debt}");
            let whole = rows.values().all(|row| row.standing != Standing::Restored);
            let minted: u64 = rows.values().map(|row| row.minted).sum();
            let stalled = self.nodes.values().any(|node| node.stalled);
            if !whole || stalled || rows.len() < self.nodes.len() || minted == 0 {
                continue;
            }
            audit_matrix(&rows, supply);
            let debts = rows.iter().map(|(node, row)| (*node, as_row(&row.debt))).collect();
            audit_matrix(&debts, debt);
            if !self.lost_disk {
                let net = |row: &Row| row.consumed - row.returned + row.debt.consumed - row.debt.returned;
                let counted: u64 = rows.values().map(net).sum();
                assert_eq!(counted, sold, "I5: counters and receipts differ");
            }
        }
    }

    /// The rows of a pool, for properties.
    pub(crate) fn rows(&self, label: &str) -> BTreeMap<NodeId, Row> {
        let pool = &self.pools[label];
        let row = |(id, node): (&NodeId, &Node)| Some((id.clone(), node.life.as_ref()?.book.row(pool)?));
        self.nodes.iter().filter_map(row).collect()
    }

    /// What each node counted of the levelling of a pool.
    pub(crate) fn levelled(&self, label: &str) -> BTreeMap<NodeId, Levelled> {
        let pool = &self.pools[label];
        let of = |(id, node): (&NodeId, &Node)| Some((id.clone(), node.life.as_ref()?.book.levelled(pool)));
        self.nodes.iter().filter_map(of).collect()
    }

    /// Runs one line without looking at what it gives.
    pub(crate) fn run(&mut self, line: &str) -> Vec<String> {
        self.line(line)
    }

    /// Whether there is a hold under this label.
    pub(crate) fn is_held(&self, label: &str) -> bool {
        self.held.contains_key(label)
    }

    /// Units confirmed so far.
    pub(crate) fn sold(&self) -> u64 {
        self.receipts.values().sum()
    }
}

/// Debt rights are under the same rules as units.
fn as_row(debt: &DebtRow) -> Row {
    Row {
        minted: debt.minted,
        granted: debt.granted.clone(),
        accepted: debt.accepted.clone(),
        consumed: debt.consumed,
        returned: debt.returned,
        held: debt.held,
        available: debt.available,
        ..Row::default()
    }
}

fn audit_matrix(rows: &BTreeMap<&NodeId, Row>, supply: u64) {
    let mut in_flight = 0;
    for (donor, row) in rows {
        for (receiver, granted) in &row.granted {
            let accepted = rows.get(receiver).and_then(|row| row.accepted.get(*donor)).copied().unwrap_or(0);
            assert!(accepted <= *granted, "I2: {receiver} accepted {accepted} of {granted} from {donor}");
            in_flight += granted - accepted;
        }
    }
    let spread: u64 =
        rows.values().map(|row| row.available + row.held + row.consumed - row.returned).sum::<u64>()
            + in_flight;
    let minted: u64 = rows.values().map(|row| row.minted).sum();
    assert_eq!((spread, minted), (supply, supply), "I3: what is spread and what was minted");
}
