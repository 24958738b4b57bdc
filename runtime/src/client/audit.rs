//! The exact audit of a pool: do its nodes' rows fit together, and do they fit what customers were
//! told?
//!
//! * It decides: the sums, and whether invariants I1–I5 hold (Rhumb's escrow protocol, "Audit").
//! * It never does: read anything, or trust a derived number where it can add up the parts itself.
//! * Invariant: sums are of 128 bits, so none wraps; every invariant that is false has a violation in
//!   words that names the nodes.
//!
//! I1: no node's available units are below zero, and each node says of them what its own row adds up
//! to. I2: nobody accepted more rights than were granted. I3: what was minted is available, held,
//! sold or on the way. I4: no more was sold than minted, and beyond it than the debt ceiling. I5: the
//! nodes' counts are those of an independent ledger of receipts. I3 alone cannot see a unit that was
//! credited twice; I5 can. I1 to I3 hold of units and of debt rights, each by itself.

use std::collections::BTreeMap;

use rhumb_actors::escrow::matrix::{acceptance, availability, debts, in_flight, of_debt};
use rhumb_actors::escrow::messages::Row;
use rhumb_core::NodeId;
use serde::Serialize;

use crate::load::receipts::Sums;

/// Which invariants hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Invariants {
    /// No node's available units are below zero.
    #[serde(rename = "I1")]
    pub i1: bool,
    /// Nobody accepted more than was granted.
    #[serde(rename = "I2")]
    pub i2: bool,
    /// What was minted is available, held, sold or on the way.
    #[serde(rename = "I3")]
    pub i3: bool,
    /// No more was sold than minted, and beyond it than the debt ceiling.
    #[serde(rename = "I4")]
    pub i4: bool,
    /// The nodes' counts are those of the receipts. Absent when there are no receipts to compare.
    #[serde(rename = "I5", skip_serializing_if = "Option::is_none")]
    pub i5: Option<bool>,
}

impl Invariants {
    /// Whether all that were checked hold.
    #[must_use]
    pub fn hold(&self) -> bool {
        self.i1 && self.i2 && self.i3 && self.i4 && self.i5.unwrap_or(true)
    }
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Units minted.
    pub minted: u128,
    /// Units sold and not given back, on debt too.
    pub sold: u128,
    /// Units sold beyond what was minted and beyond the debt ceiling.
    pub oversold: u128,
    /// Debt rights minted: the most that may be sold beyond the units.
    pub debt_ceiling: u128,
    /// Units that are sold on debt.
    pub overdrawn: u128,
    /// Units sold beyond what was minted, within the debt ceiling or not.
    pub beyond_supply: u128,
    /// Units that may be held or granted.
    pub available: u128,
    /// Units held, on debt too.
    pub held: u128,
    /// Units ever sold, on debt too.
    pub consumed: u128,
    /// Units given back after their sale.
    pub returned: u128,
    /// Rights granted and not yet accepted.
    pub in_flight: u128,
    /// Which invariants hold.
    pub invariants: Invariants,
    /// What violates those that do not, in words.
    pub violations: Vec<String>,
}

/// Audits the rows of all nodes of a pool, read in one interval without change; with receipts, also
/// against them.
#[must_use]
pub fn audit(rows: &BTreeMap<NodeId, Row>, receipts: Option<&Sums>) -> AuditReport {
    let debt_rows = debts(rows);
    let (units, debt) = (Sum::of(rows), Sum::of(&debt_rows));
    let mut violations = Vec::new();
    let mut check = |found: Vec<String>, of_debts: Vec<String>| {
        let before = violations.len();
        violations.extend(found);
        violations.extend(of_debt(of_debts));
        violations.len() == before
    };
    let invariants = Invariants {
        i1: check(availability(rows), availability(&debt_rows)),
        i2: check(acceptance(rows, rows), acceptance(&debt_rows, &debt_rows)),
        i3: check(units.conservation(), debt.conservation()),
        i4: check(overselling(&units, &debt), Vec::new()),
        i5: receipts.map(|sums| check(against(rows, sums), Vec::new())),
    };
    let sold = units.sold() + debt.sold();
    AuditReport {
        minted: units.minted,
        sold,
        oversold: sold.saturating_sub(units.minted + debt.minted),
        debt_ceiling: debt.minted,
        overdrawn: debt.sold(),
        beyond_supply: sold.saturating_sub(units.minted),
        available: units.available,
        held: units.held + debt.held,
        consumed: units.consumed + debt.consumed,
        returned: units.returned + debt.returned,
        in_flight: units.in_flight,
        invariants,
        violations,
    }
}

/// The sums of one resource over all rows.
struct Sum {
    minted: u128,
    available: u128,
    held: u128,
    consumed: u128,
    returned: u128,
    in_flight: u128,
}

impl Sum {
    fn of(rows: &BTreeMap<NodeId, Row>) -> Self {
        let sum = |of: fn(&Row) -> u64| rows.values().map(|row| u128::from(of(row))).sum::<u128>();
        Self {
            minted: sum(|row| row.minted),
            available: sum(|row| row.available),
            held: sum(|row| row.held),
            consumed: sum(|row| row.consumed),
            returned: sum(|row| row.returned),
            in_flight: in_flight(rows),
        }
    }

    fn sold(&self) -> u128 {
        self.consumed.saturating_sub(self.returned)
    }

    fn conservation(&self) -> Vec<String> {
        let found = self.available + self.held + self.consumed + self.in_flight;
        let (minted, returned) = (self.minted, self.returned);
        if minted + returned == found {
            return Vec::new();
        }
        vec![format!(
            "I3: {minted} units were minted, but {found} less {returned} returned are available, held, sold or on the way"
        )]
    }
}

fn overselling(units: &Sum, debt: &Sum) -> Vec<String> {
    let mut found = Vec::new();
    let (sold, minted) = (units.sold() + debt.sold(), units.minted);
    match debt.minted {
        0 if sold > minted => found.push(format!("I4: {sold} units were sold of {minted} minted")),
        ceiling if sold > minted + ceiling => {
            found.push(format!("I4: {sold} units were sold of {minted} minted and a debt of {ceiling}"));
        }
        _ => {}
    }
    let (consumed, returned) = (units.consumed + debt.consumed, units.returned + debt.returned);
    if returned > consumed {
        found.push(format!("I4: {returned} units were given back, but only {consumed} were ever sold"));
    }
    found
}

fn against(rows: &BTreeMap<NodeId, Row>, receipts: &Sums) -> Vec<String> {
    let mut found: Vec<String> = receipts.broken.iter().map(|what| format!("I5: {what}")).collect();
    let of = |sums: &BTreeMap<NodeId, u64>, node| sums.get(node).copied().unwrap_or(0);
    for (node, row) in rows {
        let (sold, unknown) = (of(&receipts.sold, node), of(&receipts.unknown, node));
        let consumed = row.consumed + row.debt.consumed;
        if unknown > 0 {
            found.push(format!(
                "I5: of {unknown} units of {node} the receipts do not know whether they are sold"
            ));
        } else if consumed != sold {
            found.push(format!("I5: {node} counts {consumed} units sold; the receipts say {sold}"));
        }
        let (counted, returned) = (row.returned + row.debt.returned, of(&receipts.returned, node));
        if counted != returned {
            found.push(format!("I5: {node} counts {counted} units returned; the receipts say {returned}"));
        }
        let ending = of(&receipts.expiring, node);
        let (counted, held) = (row.held + row.debt.held, of(&receipts.held, node) + unknown + ending);
        if counted < of(&receipts.held, node) || receipts.unanswered == 0 && counted > held {
            found.push(format!("I5: {node} counts {counted} units held; the receipts say {held}"));
        }
    }
    let strangers = receipts.sold.keys().filter(|node| !rows.contains_key(node));
    found.extend(
        strangers.map(|node| format!("I5: {node} sold units by the receipts, and is not of this pool")),
    );
    found
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use rhumb_actors::escrow::messages::Standing;

    use super::*;

    /// Rows as text: `us: minted=100 granted=eu:40 consumed=1 held=2 available=57`, one node a line.
    fn rows(text: &str) -> BTreeMap<NodeId, Row> {
        let node = |region: &str| NodeId::new(region, "n1").expect("valid");
        let parse = |line: &str| {
            let (name, fields) = line.trim().split_once(':').expect("a node");
            let mut row = Row { standing: Standing::Proven, ..Row::default() };
            for field in fields.split_whitespace() {
                let (key, value) = field.split_once('=').expect("a field");
                let pairs = || {
                    let pair = |p: &str| {
                        let (to, n) = p.split_once(':').expect("a pair");
                        (node(to), n.parse().expect("a number"))
                    };
                    value.split(',').map(pair).collect()
                };
                let number = || value.parse().expect("a number");
                match key {
                    "minted" => row.minted = number(),
                    "granted" => row.granted = pairs(),
                    "accepted" => row.accepted = pairs(),
                    "consumed" => row.consumed = number(),
                    "returned" => row.returned = number(),
                    "held" => row.held = number(),
                    "available" => row.available = number(),
                    "debt-minted" => row.debt.minted = number(),
                    "debt-granted" => row.debt.granted = pairs(),
                    "debt-accepted" => row.debt.accepted = pairs(),
                    "debt-consumed" => row.debt.consumed = number(),
                    "debt-returned" => row.debt.returned = number(),
                    "debt-held" => row.debt.held = number(),
                    "debt-available" => row.debt.available = number(),
                    other => panic!("{other}?"),
                }
            }
            (node(name), row)
        };
        text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }

    fn sums(text: &str) -> Sums {
        let mut sums = Sums::default();
        for word in text.split_whitespace() {
            let (what, units) = word.split_once('=').expect("a field");
            let units = units.parse().expect("a number");
            let (kind, region) = what.split_once('@').unwrap_or((what, "us"));
            let node = NodeId::new(region, "n1").expect("valid");
            match kind {
                "sold" => drop(sums.sold.insert(node, units)),
                "returned" => drop(sums.returned.insert(node, units)),
                "unknown" => drop(sums.unknown.insert(node, units)),
                "held" => drop(sums.held.insert(node, units)),
                "expiring" => drop(sums.expiring.insert(node, units)),
                "unanswered" => sums.unanswered = units,
                other => panic!("{other}?"),
            }
        }
        sums
    }

    fn check(text: &str, receipts: Option<&str>, want: Expect) {
        let report = audit(&rows(text), receipts.map(sums).as_ref());
        let i = report.invariants;
        assert_eq!(i.hold(), report.violations.is_empty(), "a violation is told exactly when one is found");
        let marks = [Some(i.i1), Some(i.i2), Some(i.i3), Some(i.i4), i.i5];
        let marks: String = marks
            .iter()
            .map(|mark| match mark {
                Some(true) => 'y',
                Some(false) => 'N',
                None => '-',
            })
            .collect();
        let AuditReport {
            minted, sold, oversold, beyond_supply, overdrawn, available, held, in_flight, ..
        } = report;
        let debt = if overdrawn > 0 {
            format!(" beyond={beyond_supply} overdrawn={overdrawn}")
        } else {
            String::new()
        };
        let head = format!(
            "{marks} minted={minted} sold={sold} oversold={oversold}{debt} available={available} held={held} in_flight={in_flight}"
        );
        let all: Vec<String> = std::iter::once(head).chain(report.violations).collect();
        want.assert_eq(&all.join("\n"));
    }

    const SOUND: &str = "
        us: minted=100 granted=eu:40 consumed=10 held=5 available=45
        eu: accepted=us:30 consumed=7 returned=2 available=25";

    #[test]
    fn sound_rows_pass() {
        check(SOUND, None, expect!["yyyy- minted=100 sold=15 oversold=0 available=70 held=5 in_flight=10"]);
        check(
            SOUND,
            Some("sold=10 sold@eu=7 returned@eu=2 held=5"),
            expect!["yyyyy minted=100 sold=15 oversold=0 available=70 held=5 in_flight=10"],
        );
    }

    #[test]
    fn what_is_sold_on_debt_is_told_and_bounded_by_the_ceiling() {
        check(
            "us: minted=10 consumed=10 available=0 debt-minted=5 debt-granted=eu:2 debt-consumed=3 debt-available=0
             eu: debt-accepted=us:2 debt-held=1 debt-available=1",
            Some("sold=13 held@eu=1"),
            expect!["yyyyy minted=10 sold=13 oversold=0 beyond=3 overdrawn=3 available=0 held=1 in_flight=0"],
        );
        check(
            "us: minted=10 consumed=10 available=0 debt-minted=2 debt-consumed=3 debt-available=0",
            None,
            expect![[r#"
                NyNN- minted=10 sold=13 oversold=1 beyond=3 overdrawn=3 available=0 held=0 in_flight=0
                I1: us/n1 has -1 units available, below zero (of debt rights)
                I3: 2 units were minted, but 3 less 0 returned are available, held, sold or on the way (of debt rights)
                I4: 13 units were sold of 10 minted and a debt of 2"#]],
        );
    }

    #[test]
    fn returns_are_counted_by_receipts_too() {
        check(
            "us: minted=10 consumed=4 returned=3 available=9",
            Some("sold=4 returned=2"),
            expect![[r#"
                yyyyN minted=10 sold=1 oversold=0 available=9 held=0 in_flight=0
                I5: us/n1 counts 3 units returned; the receipts say 2"#]],
        );
    }

    #[test]
    fn a_node_that_spends_more_than_it_has_breaks_i1() {
        check(
            "us: minted=10 consumed=11 available=0",
            None,
            expect![[r#"
                NyNN- minted=10 sold=11 oversold=1 available=0 held=0 in_flight=0
                I1: us/n1 has -1 units available, below zero
                I3: 10 units were minted, but 11 less 0 returned are available, held, sold or on the way
                I4: 11 units were sold of 10 minted"#]],
        );
        check(
            "us: minted=10 held=2 available=10",
            None,
            expect![[r#"
                NyNy- minted=10 sold=0 oversold=0 available=10 held=2 in_flight=0
                I1: us/n1 says 10 units are available; its row adds up to 8
                I3: 10 units were minted, but 12 less 0 returned are available, held, sold or on the way"#]],
        );
    }

    #[test]
    fn accepting_more_than_was_granted_breaks_i2() {
        check(
            "us: minted=10 granted=eu:4 available=6
             eu: accepted=us:5,ap:1 available=6",
            None,
            expect![[r#"
                yNNy- minted=10 sold=0 oversold=0 available=12 held=0 in_flight=0
                I2: eu/n1 accepted 1 from ap/n1, which granted it 0
                I2: eu/n1 accepted 5 from us/n1, which granted it 4
                I3: 10 units were minted, but 12 less 0 returned are available, held, sold or on the way"#]],
        );
    }

    #[test]
    fn a_donor_that_takes_back_a_grant_breaks_i2_even_when_the_sums_fit() {
        check(
            "us: minted=10 granted=eu:4,ap:1 available=5
             eu: accepted=us:5 available=5
             ap:",
            None,
            expect![[r#"
                yNNy- minted=10 sold=0 oversold=0 available=10 held=0 in_flight=1
                I2: eu/n1 accepted 5 from us/n1, which granted it 4
                I3: 10 units were minted, but 11 less 0 returned are available, held, sold or on the way"#]],
        );
    }

    #[test]
    fn a_double_credit_that_i3_cannot_see_breaks_i5() {
        check(
            "us: minted=10 consumed=3 available=7",
            Some("sold=4"),
            expect![[r#"
                yyyyN minted=10 sold=3 oversold=0 available=7 held=0 in_flight=0
                I5: us/n1 counts 3 units sold; the receipts say 4"#]],
        );
        check(
            "us: minted=10 consumed=3 held=1 available=6",
            Some("sold=3 held=2"),
            expect![[r#"
                yyyyN minted=10 sold=3 oversold=0 available=6 held=1 in_flight=0
                I5: us/n1 counts 1 units held; the receipts say 2"#]],
        );
        for held in ["held=1 available=6", "held=2 available=5", "held=3 available=4"] {
            let row = format!("us: minted=10 consumed=3 {held}");
            let report = audit(&rows(&row), Some(&sums("sold=3 held=1 expiring=2")));
            assert_eq!(report.invariants.i5, Some(true), "{held}: two holds end about now");
        }
        check(
            "us: minted=10 held=1 available=9",
            Some("sold@eu=1"),
            expect![[r#"
                yyyyN minted=10 sold=0 oversold=0 available=9 held=1 in_flight=0
                I5: us/n1 counts 1 units held; the receipts say 0
                I5: eu/n1 sold units by the receipts, and is not of this pool"#]],
        );
    }

    #[test]
    fn what_the_receipts_do_not_know_is_not_taken_for_a_proof() {
        check(
            "us: minted=10 consumed=3 held=1 available=6",
            Some("sold=3 unknown=1"),
            expect![[r#"
                yyyyN minted=10 sold=3 oversold=0 available=6 held=1 in_flight=0
                I5: of 1 units of us/n1 the receipts do not know whether they are sold"#]],
        );
        check(
            "us: minted=10 consumed=3 held=1 available=6",
            Some("sold=3 unanswered=1"),
            expect!["yyyyy minted=10 sold=3 oversold=0 available=6 held=1 in_flight=0"],
        );
    }

    #[test]
    fn the_largest_counters_do_not_wrap() {
        let max = u64::MAX;
        check(
            &format!("us: minted={max} available={max}\neu: minted={max} consumed={max}"),
            None,
            expect![
                "yyyy- minted=36893488147419103230 sold=18446744073709551615 oversold=0 available=18446744073709551615 held=0 in_flight=0"
            ],
        );
    }
}
