//! What the rows of all nodes of a pool add up to: the sums of Rhumb's escrow protocol ("Audit").
//!
//! * It decides: sums, and whether I1 and I2 hold, in words that name the nodes.
//! * It never does: read anything, or trust a derived number where it can add up the parts itself.
//! * Invariant: sums are of 128 bits, so none wraps.

use std::collections::BTreeMap;

use rhumb_core::NodeId;

use super::messages::{Row, Standing};

/// The rows of a pool, by node.
pub type Rows = BTreeMap<NodeId, Row>;

/// What a row's parts add up to; may be below zero in a row that is wrong.
#[must_use]
pub fn adds_up_to(row: &Row) -> i128 {
    let sum = |of: &BTreeMap<NodeId, u64>| of.values().map(|n| i128::from(*n)).sum::<i128>();
    i128::from(row.minted) + sum(&row.accepted) - sum(&row.granted) - i128::from(row.consumed)
        + i128::from(row.returned)
        - i128::from(row.held)
}

/// I1: no node's available units are below zero, and each node says of them what its row adds up to.
/// A row is of one time, so what is found is so, whenever the others were read.
#[must_use]
pub fn availability(rows: &Rows) -> Vec<String> {
    let wrong = |(node, row): (&NodeId, &Row)| {
        let derived = adds_up_to(row);
        // A restored copy spends nothing, whatever its row would allow.
        let says_zero = row.standing == Standing::Restored && row.available == 0;
        if derived < 0 {
            Some(format!("I1: {node} has {derived} units available, below zero"))
        } else if derived != i128::from(row.available) && !says_zero {
            Some(format!(
                "I1: {node} says {} units are available; its row adds up to {derived}",
                row.available
            ))
        } else {
            None
        }
    };
    rows.iter().filter_map(wrong).collect()
}

/// I2: nobody accepted more than was granted. Both only rise: when the sinks were read before the
/// sources, what is found is so, whatever changed meanwhile.
#[must_use]
pub fn acceptance(sinks: &Rows, sources: &Rows) -> Vec<String> {
    let mut found = Vec::new();
    for (to, row) in sinks {
        for (from, accepted) in &row.accepted {
            let granted = granted(sources, from, to);
            if *accepted > granted {
                found.push(format!("I2: {to} accepted {accepted} from {from}, which granted it {granted}"));
            }
        }
    }
    found
}

fn granted(rows: &Rows, from: &NodeId, to: &NodeId) -> u64 {
    rows.get(from).and_then(|row| row.granted.get(to)).copied().unwrap_or(0)
}

/// Rights granted and not yet accepted, in rows that stood so at one time.
#[must_use]
pub fn in_flight(rows: &Rows) -> u128 {
    let accepted = |from: &NodeId, to| rows.get(to).and_then(|row: &Row| row.accepted.get(from)).copied();
    let mut sum = 0;
    for (from, row) in rows {
        for (to, granted) in &row.granted {
            sum += u128::from(granted.saturating_sub(accepted(from, to).unwrap_or(0)));
        }
    }
    sum
}

/// Units too many (above zero) or too few, in rows that stood so at one time: what is available, held,
/// sold by the nodes' own receipts, and on the way, less what there is, of units and debt rights together.
/// I3, but for the counters of sold and returned units, in which I3 is an identity that no double credit
/// breaks: in their place stand the receipts, which are counted apart from the ledger.
#[must_use]
pub fn drift(rows: &Rows, minted: u64) -> i128 {
    let placed = |row: &Row| {
        i128::from(row.available) + i128::from(row.held) + i128::from(row.receipts.sold)
            - i128::from(row.receipts.returned)
    };
    let debts = debts(rows);
    let in_flight = i128::try_from(in_flight(rows) + in_flight(&debts)).unwrap_or(i128::MAX);
    rows.values().chain(debts.values()).map(placed).sum::<i128>() + in_flight - i128::from(minted)
}

/// The rows of the pool's debt rights, as rows: they are under the same rules. Receipts stay with the
/// units; they count what is sold on either.
#[must_use]
pub fn debts(rows: &Rows) -> Rows {
    let debt = |row: &Row| Row {
        minted: row.debt.minted,
        granted: row.debt.granted.clone(),
        accepted: row.debt.accepted.clone(),
        consumed: row.debt.consumed,
        returned: row.debt.returned,
        held: row.debt.held,
        available: row.debt.available,
        standing: row.standing,
        ..Row::default()
    };
    rows.iter().map(|(node, row)| (node.clone(), debt(row))).collect()
}

/// What a check of debt rows found, told as what it is.
#[must_use]
pub fn of_debt(found: Vec<String>) -> Vec<String> {
    found.into_iter().map(|what| format!("{what} (of debt rights)")).collect()
}
