//! What the demo found: figures, checks, and the verdict.
//!
//! * It decides: whether the demo shows what it set out to show.
//! * It never does: leave a check out because it could not be made. What was not seen is not held.
//! * Invariant: the verdict is the conjunction of the checks, and every check is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_actors::escrow::messages::Row;
use rhumb_core::{NodeId, Region};
use serde::Serialize;

use super::TracedSale;
use crate::client::audit::{AuditReport, Invariants};
use crate::load::{RegionTally, Tally};

/// Everything that the verdict rests on.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// Seats for sale.
    pub seats: u64,
    /// The first split, by node.
    pub shares: &'a BTreeMap<NodeId, u64>,
    /// The node that minted the seats.
    pub home: &'a NodeId,
    /// What the customers met.
    pub tally: &'a Tally,
    /// The rows of all nodes after the sale.
    pub rows: &'a BTreeMap<NodeId, Row>,
    /// Whether they were read while nothing changed.
    pub exact: bool,
    /// The audit of those rows, against the receipts.
    pub audit: AuditReport,
    /// The kill, if it came to it.
    pub kill: Option<Kill>,
    /// The cut, if it came to it.
    pub cut: Option<Cut>,
    /// From the first customer to the end of the last story.
    pub lasted: Duration,
}

/// A region was killed and started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// Which.
    pub region: Region,
    /// When, milliseconds after the first customer.
    pub at_ms: u64,
    /// From the kill to the first hold that it served again.
    pub serving_after_kill_ms: Option<u64>,
    /// From its start to the first hold that it served again.
    pub serving_after_start_ms: Option<u64>,
}

/// A region was cut off from the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// Which.
    pub region: Region,
    /// When, milliseconds after the first customer.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
    /// Units it sold meanwhile.
    pub sold: u64,
    /// Holds it gave meanwhile.
    pub held: u64,
}

/// One region's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionReport {
    /// Which.
    pub region: Region,
    /// Its share of the first split.
    pub share: u64,
    /// Customers who came there.
    pub came: u64,
    /// Holds they were given.
    pub held: u64,
    /// Units they bought.
    pub bought: u64,
    /// Units that the region's nodes sold.
    pub sold: u64,
    /// Customers refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Customers without service, by reason; nothing was done for them.
    pub unserved: BTreeMap<String, u64>,
    /// Holds that expired.
    pub expired: u64,
    /// Rights that came in from other nodes after the first split.
    pub moved_in: u64,
    /// Rights that went out to other nodes after the first split.
    pub moved_out: u64,
    /// Median time from a customer's coming to the hold.
    pub hold_p50_ms: Option<f64>,
    /// Time from a customer's coming to the hold that one in a hundred exceeds.
    pub hold_p99_ms: Option<f64>,
}

/// One check of the verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// What the demo found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DemoReport {
    /// Whether every check holds.
    pub verdict: bool,
    /// Seats for sale.
    pub seats: u64,
    /// Seats sold.
    pub sold: u128,
    /// Seats sold beyond those.
    pub oversold: u128,
    /// Seats that may be held.
    pub available: u128,
    /// Seats held.
    pub held: u128,
    /// Seats ever sold.
    pub consumed: u128,
    /// Rights on their way.
    pub in_flight: u128,
    /// Which invariants hold.
    pub invariants: Invariants,
    /// What violates those that do not.
    pub violations: Vec<String>,
    /// The checks.
    pub checks: Vec<Check>,
    /// By region.
    pub regions: Vec<RegionReport>,
    /// All regions together.
    pub total: RegionReport,
    /// The kill.
    pub kill: Option<Kill>,
    /// The cut.
    pub cut: Option<Cut>,
    /// Calls asked again because nobody had told what became of them.
    pub asked_again: u64,
    /// Stories without an answer in the end.
    pub unknown: u64,
    /// Customers that the load generator could not play.
    pub turned_away: u64,
    /// From the first customer to the end of the last story.
    pub lasted_ms: u64,
    /// One sale across regions, followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<TracedSale>,
}

impl DemoReport {
    /// Weighs the evidence.
    #[must_use]
    pub fn new(evidence: Evidence<'_>) -> Self {
        let checks = checks(&evidence);
        let regions = regions(&evidence);
        let all = evidence.tally.total();
        let total = sum(&regions, &all);
        let Evidence { seats, audit, kill, cut, lasted, .. } = evidence;
        let AuditReport {
            sold, oversold, available, held, consumed, in_flight, invariants, violations, ..
        } = audit;
        Self {
            verdict: checks.iter().all(|check| check.holds),
            seats,
            sold,
            oversold,
            available,
            held,
            consumed,
            in_flight,
            invariants,
            violations,
            checks,
            regions,
            total,
            kill,
            cut,
            asked_again: all.asked_again,
            unknown: all.unknown,
            turned_away: all.turned_away,
            lasted_ms: ms(lasted),
            trace: None,
        }
    }
}

/// Whole milliseconds.
#[must_use]
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn checks(evidence: &Evidence<'_>) -> Vec<Check> {
    let check = |name: &str, holds, found: String| Check { name: name.into(), holds, found };
    let Evidence { seats, audit, tally, .. } = evidence;
    let i = &audit.invariants;
    let yes_no = |holds| if holds { "yes".to_owned() } else { "no".to_owned() };
    let mut checks = vec![
        check("every seat is sold", audit.sold == u128::from(*seats), format!("{} of {seats}", audit.sold)),
        check("no seat is sold twice", audit.oversold == 0, format!("{} oversold", audit.oversold)),
        check("the books were read at rest", evidence.exact, yes_no(evidence.exact)),
        check("I1 nothing below zero", i.i1, yes_no(i.i1)),
        check("I2 none accepted more than was granted", i.i2, yes_no(i.i2)),
        check("I3 every unit is somewhere", i.i3, yes_no(i.i3)),
        check("I4 no more sold than minted", i.i4, yes_no(i.i4)),
        check(
            "I5 the customers' receipts agree",
            i.i5 == Some(true),
            format!("{} sold by receipts", tally.sold),
        ),
    ];
    checks.push(match &evidence.kill {
        None => check("the killed region came back", false, "it was never killed".into()),
        Some(Kill { region, serving_after_start_ms: None, .. }) => {
            check("the killed region came back", false, format!("{region} served no hold again"))
        }
        Some(Kill { region, serving_after_start_ms: Some(after), .. }) => check(
            "the killed region came back",
            true,
            format!("{region} served {} s after its start", seconds(*after)),
        ),
    });
    checks.push(match &evidence.cut {
        None => check("the region that was cut off sold on", false, "none was cut off".into()),
        Some(Cut { region, sold, for_ms, .. }) => check(
            "the region that was cut off sold on",
            *sold > 0,
            format!("{region} sold {sold} in {} s", seconds(*for_ms)),
        ),
    });
    checks
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1_000, ms % 1_000 / 100)
}

fn regions(evidence: &Evidence<'_>) -> Vec<RegionReport> {
    let mut regions: Vec<Region> = evidence.rows.keys().map(|node| node.region.clone()).collect();
    regions.dedup();
    let nothing = RegionTally::default();
    let report = |region: Region| {
        let tally = evidence.tally.regions.get(&region).unwrap_or(&nothing);
        let (moved_in, moved_out) = moved(evidence, &region);
        let here = |(node, _): &(&NodeId, &u64)| node.region == region;
        let share = evidence.shares.iter().filter(here).map(|(_, units)| units).sum();
        let sold =
            evidence.rows.iter().filter(|(node, _)| node.region == region).map(|(_, row)| row.consumed).sum();
        RegionReport { share, sold, moved_in, moved_out, ..customers(region, tally) }
    };
    regions.into_iter().map(report).collect()
}

fn customers(region: Region, tally: &RegionTally) -> RegionReport {
    let percentile =
        |percent| tally.hold_latency.percentile(percent).map(|d| (d.as_secs_f64() * 1e5).round() / 1e2);
    RegionReport {
        region,
        share: 0,
        came: tally.came,
        held: tally.held,
        bought: tally.bought,
        sold: 0,
        refused: tally.refused.clone(),
        unserved: tally.unserved.clone(),
        expired: tally.expired(),
        moved_in: 0,
        moved_out: 0,
        hold_p50_ms: percentile(50),
        hold_p99_ms: percentile(99),
    }
}

/// Rights that came and went after the first split, which is itself made of grants of the home.
fn moved(evidence: &Evidence<'_>, region: &Region) -> (u64, u64) {
    let (mut came, mut went) = (0, 0);
    for (node, row) in evidence.rows.iter().filter(|(node, _)| node.region == *region) {
        let share = |node| evidence.shares.get(node).copied().unwrap_or(0);
        let others = evidence.shares.iter().filter(|(other, _)| *other != evidence.home);
        let home = node == evidence.home;
        let first_in = if home { 0 } else { share(node) };
        let first_out = if home { others.map(|(_, units)| units).sum() } else { 0 };
        came += row.accepted.values().sum::<u64>().saturating_sub(first_in);
        went += row.granted.values().sum::<u64>().saturating_sub(first_out);
    }
    (came, went)
}

fn sum(regions: &[RegionReport], all: &RegionTally) -> RegionReport {
    let of = |field: fn(&RegionReport) -> u64| regions.iter().map(field).sum();
    RegionReport {
        share: of(|r| r.share),
        sold: of(|r| r.sold),
        moved_in: of(|r| r.moved_in),
        moved_out: of(|r| r.moved_out),
        ..customers(Region::new("total").expect("a valid name"), all)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rhumb_actors::escrow::messages::{Held, HoldId, Refusal, Standing};
    use rhumb_core::{FaultKind, HybridTime};

    use super::*;
    use crate::client::audit::audit;
    use crate::load::customer::State;
    use crate::load::receipts::Sums;

    fn node(region: &str) -> NodeId {
        NodeId::new(region, "n1").expect("valid")
    }

    fn row(minted: u64, granted: &[(&str, u64)], accepted: &[(&str, u64)], consumed: u64) -> Row {
        let pairs =
            |of: &[(&str, u64)]| of.iter().map(|(region, n)| (node(region), *n)).collect::<BTreeMap<_, _>>();
        let (granted, accepted) = (pairs(granted), pairs(accepted));
        let available = minted + accepted.values().sum::<u64>() - granted.values().sum::<u64>() - consumed;
        Row { minted, granted, accepted, consumed, available, standing: Standing::Proven, ..Row::default() }
    }

    /// A sale of 100 seats: the home eu had 30, us 50, ap 20; ap got 25 of us and sold 45.
    pub(in crate::demo) fn report(change: impl FnOnce(&mut BTreeMap<NodeId, Row>)) -> DemoReport {
        let mut rows = BTreeMap::from([
            (node("ap"), row(0, &[], &[("eu", 20), ("us", 25)], 45)),
            (node("eu"), row(100, &[("us", 50), ("ap", 20)], &[], 30)),
            (node("us"), row(0, &[("ap", 25)], &[("eu", 50)], 25)),
        ]);
        change(&mut rows);
        let mut tally = Tally::default();
        let story = |tally: &mut Tally, region: &str, owner: &str, count: u64| {
            let region = Region::new(region).expect("valid");
            let hold: HoldId = format!("concert/{owner}/n1/a/1").parse().expect("a hold id");
            let held = Held { hold, qty: 1, expires: HybridTime::ZERO, overdrawn: 0 };
            for _ in 0..count {
                tally.came(&region);
                tally.hold_answered(&region, &State::Confirming(held.clone()), Duration::from_millis(4));
                tally.ended(&region, 1, &State::Sold(held.clone()));
            }
        };
        story(&mut tally, "ap", "ap", 45);
        story(&mut tally, "eu", "eu", 30);
        story(&mut tally, "us", "us", 25);
        for end in [State::Refused(Refusal::SoldOut), State::Unserved(FaultKind::Draining)] {
            tally.came(&Region::new("ap").expect("valid"));
            tally.ended(&Region::new("ap").expect("valid"), 1, &end);
        }
        let sums = Sums { sold: tally.sold_by.clone(), ..Sums::default() };
        let shares = BTreeMap::from([(node("ap"), 20), (node("eu"), 30), (node("us"), 50)]);
        DemoReport::new(Evidence {
            seats: 100,
            shares: &shares,
            home: &node("eu"),
            tally: &tally,
            audit: audit(&rows, Some(&sums)),
            rows: &rows,
            exact: true,
            kill: Some(Kill {
                region: node("ap").region,
                at_ms: 9_000,
                serving_after_kill_ms: Some(4_120),
                serving_after_start_ms: Some(1_120),
            }),
            cut: Some(Cut { region: node("eu").region, at_ms: 20_000, for_ms: 5_000, sold: 12, held: 30 }),
            lasted: Duration::from_secs(61),
        })
    }

    #[test]
    fn a_sound_sale_has_a_true_verdict_and_rights_moved_are_those_after_the_first_split() {
        let report = report(|_| {});
        assert!(report.verdict, "{:?}", report.checks);
        let moved: Vec<_> =
            report.regions.iter().map(|r| (r.region.as_str(), r.moved_in, r.moved_out)).collect();
        assert_eq!(moved, [("ap", 25, 0), ("eu", 0, 0), ("us", 0, 25)]);
        let total = &report.total;
        assert_eq!((total.share, total.came, total.sold, total.bought), (100, 102, 100, 100));
        assert_eq!((total.refused["sold_out"], total.unserved["draining"]), (1, 1));
        assert_eq!(report.regions[0].hold_p50_ms, Some(4.0));
    }

    #[test]
    fn one_seat_too_many_or_too_few_makes_it_false() {
        let failed = |report: DemoReport| {
            assert!(!report.verdict);
            let names = report.checks.iter().filter(|check| !check.holds).map(|check| check.name.clone());
            names.collect::<Vec<_>>().join("; ")
        };
        let double = report(|rows| rows.get_mut(&node("ap")).expect("there").consumed += 1);
        assert_eq!(
            failed(double),
            "every seat is sold; no seat is sold twice; I1 nothing below zero; I3 every unit is somewhere; \
             I4 no more sold than minted; I5 the customers' receipts agree"
        );
        let unsold = report(|rows| {
            let row = rows.get_mut(&node("us")).expect("there");
            row.consumed -= 1;
            row.available += 1;
        });
        assert_eq!(failed(unsold), "every seat is sold; I5 the customers' receipts agree");
    }

    #[test]
    fn what_did_not_happen_is_not_held() {
        let seats = report(|_| {}).seats;
        let rows = BTreeMap::new();
        let empty = BTreeMap::new();
        let nothing = DemoReport::new(Evidence {
            seats,
            shares: &empty,
            home: &node("eu"),
            tally: &Tally::default(),
            audit: audit(&rows, None),
            rows: &rows,
            exact: false,
            kill: None,
            cut: None,
            lasted: Duration::ZERO,
        });
        let failed = nothing.checks.iter().filter(|check| !check.holds).count();
        assert!(!nothing.verdict);
        assert_eq!(failed, 5, "seats, rest, receipts, kill, cut: {:?}", nothing.checks);
    }
}
