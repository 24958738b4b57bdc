//! `rhumb pool audit`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use rhumb_actors::escrow::messages::Row;
use rhumb_core::{NodeId, PoolName};
use serde::Serialize;

use super::connect::Connect;
use super::output::{Done, Failure, Output};
use super::pool::standing;
use crate::client::audit::{AuditReport, audit};
use crate::client::now_ms;
use crate::client::survey::survey;
use crate::load::receipts::{Ledger, Sums};

/// Audit a pool.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb pool audit concert\n  rhumb pool audit concert --receipts receipts.jsonl -o json\n\nEvery node must answer. The receipts are those of all sales, as `rhumb load` writes them; without them invariant I5 is not checked."
)]
pub struct Audit {
    /// Which.
    name: PoolName,
    /// The customers' receipts, to compare with.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

/// One node's row in an audit.
#[derive(Debug, Serialize)]
struct AuditedNode {
    node: String,
    minted: u64,
    granted: BTreeMap<String, u64>,
    accepted: BTreeMap<String, u64>,
    consumed: u64,
    returned: u64,
    held: u64,
    available: u64,
    reserved: u64,
    debt: AuditedDebt,
    standing: &'static str,
}

/// A node's row of debt rights in an audit.
#[derive(Debug, Serialize)]
struct AuditedDebt {
    minted: u64,
    granted: BTreeMap<String, u64>,
    accepted: BTreeMap<String, u64>,
    consumed: u64,
    returned: u64,
    held: u64,
    available: u64,
}

#[derive(Debug, Serialize)]
struct AuditAnswer {
    pool: PoolName,
    /// Whether nothing changed while the rows were read.
    exact: bool,
    readings: u32,
    #[serde(flatten)]
    report: AuditReport,
    nodes: Vec<AuditedNode>,
}

impl Audit {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let receipts = self.receipts.as_deref().map(Ledger::read).transpose().map_err(Failure::local)?;
        if let Some(ledger) = receipts.as_ref().filter(|ledger| ledger.pool != self.name) {
            let pools = (&ledger.pool, &self.name);
            return Err(Failure::Usage(format!("the receipts are of pool {}, not of {}", pools.0, pools.1)));
        }
        let client = self.connect.client().await?;
        let begun = now_ms();
        let read = survey(&client, client.directory(), &self.name).await;
        client.close().await;
        let read = read?;
        let sums: Option<Sums> = receipts
            .map(|ledger| ledger.sums(around(begun, now_ms())))
            .transpose()
            .map_err(Failure::local)?;
        let answer = AuditAnswer {
            pool: self.name,
            exact: read.exact,
            readings: read.readings,
            report: audit(&read.rows, sums.as_ref()),
            nodes: read.rows.into_iter().map(audited).collect(),
        };
        output.answer(&answer, &answer);
        Ok(if answer.exact && answer.report.invariants.hold() { Done::Well } else { Done::False })
    }
}

/// The time of an audit, as wide as clocks may differ and a node may be late to end a hold.
fn around(begun_ms: u64, ended_ms: u64) -> RangeInclusive<u64> {
    const LATE_MS: u64 = 2_000;
    begun_ms.saturating_sub(LATE_MS)..=ended_ms + LATE_MS
}

fn audited((node, row): (NodeId, Row)) -> AuditedNode {
    let named = |of: BTreeMap<NodeId, u64>| of.into_iter().map(|(node, n)| (node.to_string(), n)).collect();
    AuditedNode {
        node: node.to_string(),
        minted: row.minted,
        granted: named(row.granted),
        accepted: named(row.accepted),
        consumed: row.consumed,
        returned: row.returned,
        held: row.held,
        available: row.available,
        reserved: row.reserved,
        debt: AuditedDebt {
            minted: row.debt.minted,
            granted: named(row.debt.granted),
            accepted: named(row.debt.accepted),
            consumed: row.debt.consumed,
            returned: row.debt.returned,
            held: row.debt.held,
            available: row.debt.available,
        },
        standing: standing(&row.standing),
    }
}

impl fmt::Display for AuditAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.report;
        writeln!(
            f,
            "pool {}: {} minted, {} sold, {} oversold, {} held, {} available, {} in flight",
            self.pool, r.minted, r.sold, r.oversold, r.held, r.available, r.in_flight
        )?;
        if r.debt_ceiling > 0 {
            writeln!(
                f,
                "debt: {} of {} used; {} sold beyond the supply",
                r.overdrawn, r.debt_ceiling, r.beyond_supply
            )?;
        }
        writeln!(f, "{:<24} {:>12} {:>12} {:>12}  standing", "node", "available", "held", "consumed")?;
        for n in &self.nodes {
            writeln!(
                f,
                "{:<24} {:>12} {:>12} {:>12}  {}",
                n.node,
                n.available,
                n.held + n.debt.held,
                n.consumed + n.debt.consumed,
                n.standing
            )?;
        }
        let i = &r.invariants;
        let marks =
            [("I1", Some(i.i1)), ("I2", Some(i.i2)), ("I3", Some(i.i3)), ("I4", Some(i.i4)), ("I5", i.i5)];
        for (name, holds) in marks {
            let word = match holds {
                Some(true) => "holds",
                Some(false) => "FALSE",
                None => "not checked (needs --receipts)",
            };
            writeln!(f, "{name} {word}")?;
        }
        for violation in &r.violations {
            writeln!(f, "{violation}")?;
        }
        match self.exact {
            true => write!(f, "exact: nothing changed between the last two of {} readings", self.readings),
            false => write!(
                f,
                "moving: the pool changed during each of {} readings, so this is not exact",
                self.readings
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use rhumb_actors::escrow::messages::Standing;

    use super::*;

    #[test]
    fn an_audit_has_the_documented_names() {
        let rows = BTreeMap::from([(
            NodeId::new("us", "n1").expect("valid"),
            Row { minted: 10, consumed: 4, available: 6, standing: Standing::Proven, ..Row::default() },
        )]);
        let answer = AuditAnswer {
            pool: PoolName::new("concert").expect("valid"),
            exact: true,
            readings: 2,
            report: audit(&rows, None),
            nodes: rows.into_iter().map(audited).collect(),
        };
        expect![[r#"{"pool":"concert","exact":true,"readings":2,"minted":10,"sold":4,"oversold":0,"debt_ceiling":0,"overdrawn":0,"beyond_supply":0,"available":6,"held":0,"consumed":4,"returned":0,"in_flight":0,"invariants":{"I1":true,"I2":true,"I3":true,"I4":true},"violations":[],"nodes":[{"node":"us/n1","minted":10,"granted":{},"accepted":{},"consumed":4,"returned":0,"held":0,"available":6,"reserved":0,"debt":{"minted":0,"granted":{},"accepted":{},"consumed":0,"returned":0,"held":0,"available":0},"standing":"proven"}]}"#]]
        .assert_eq(&serde_json::to_string(&answer).expect("serialises"));
        expect![[r#"
            pool concert: 10 minted, 4 sold, 0 oversold, 0 held, 6 available, 0 in flight
            node                        available         held     consumed  standing
            us/n1                               6            0            4  proven
            I1 holds
            I2 holds
            I3 holds
            I4 holds
            I5 not checked (needs --receipts)
            exact: nothing changed between the last two of 2 readings"#]]
        .assert_eq(&answer.to_string());
    }
}
