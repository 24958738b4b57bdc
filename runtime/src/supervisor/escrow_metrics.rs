//! What a node tells of the levelling and the reconciliation of its pools, as metrics and in its status.
//!
//! It decides nothing: the machine has counted.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::escrow::levelled::{WAIT_BOUNDS_MS, Waits};
use rhumb_actors::escrow::{EscrowReport, PoolReport};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMove {
    pool: String,
    direction: &'static str,
    policy: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    pool: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

type Ratio = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The metrics of levelling and reconciliation. As many series as pools, times a few fixed words.
pub(super) fn metrics(registry: &mut Registry, report: &EscrowReport) {
    levelling(registry, &report.pools);
    reconciliation(registry, &report.pools);
    let dropped = Family::<OfReason, Counter>::default();
    for (reason, count) in [("full", report.dropped), ("contradicts", report.ignored)] {
        dropped.get_or_create(&OfReason { reason }).inc_by(count);
    }
    let help = "Messages of other nodes' escrow that were not taken up: no room in the mailbox, or it contradicts what \
                is known here. They are said again";
    registry.register("rhumb_escrow_peer_messages_dropped", help, dropped);
}

fn levelling(registry: &mut Registry, pools: &[PoolReport]) {
    let (moves, units) = (Family::<OfMove, Counter>::default(), Family::<OfMove, Counter>::default());
    let (transit, share) = (Family::<OfPool, Gauge>::default(), Family::<OfPool, Ratio>::default());
    let mut waits = Vec::new();
    for report in pools {
        let pool = report.pool.to_string();
        for ((direction, cause), moved) in &report.levelled.moved {
            let label = OfMove { pool: pool.clone(), direction: direction.name(), policy: cause.name() };
            moves.get_or_create(&label).inc_by(moved.moves);
            units.get_or_create(&label).inc_by(moved.units);
        }
        let label = OfPool { pool };
        let on_the_way = report.levelled.in_transit;
        transit.get_or_create(&label).set(i64::try_from(on_the_way).unwrap_or(i64::MAX));
        share.get_or_create(&label).set(on_the_way as f64 / report.supply.max(1) as f64);
        waits.push((label, report.levelled.waits.clone()));
    }
    let help = "Times that rights moved: asked for (pull), unasked (push), to the owner of the tail, or a first share";
    registry.register("rhumb_pool_level_moves", help, moves);
    let help = "Units that moved so";
    registry.register("rhumb_pool_level_units", help, units);
    let help = "Rights granted from here that their receiver has not acknowledged yet";
    registry.register("rhumb_pool_in_transit_units", help, transit);
    let help = "The same as a part of the pool's supply";
    registry.register("rhumb_pool_in_transit_ratio", help, share);
    let help = "From the moment at which this node tells that it needs rights until it has accepted some";
    registry.register_with_unit("rhumb_pool_level_latency", help, Unit::Seconds, Waited(waits));
}

fn reconciliation(registry: &mut Registry, pools: &[PoolReport]) {
    let outcomes = Family::<OfOutcome, Counter>::default();
    let (drift, age) = (Family::<OfPool, Gauge>::default(), Family::<OfPool, Ratio>::default());
    for report in pools {
        // Only the home of a pool reconciles it.
        let Some(last) = &report.reconciled else { continue };
        let pool = report.pool.to_string();
        let counts = report.reconciliations;
        let by_outcome = [
            ("exact", counts.exact),
            ("torn", counts.torn),
            ("incomplete", counts.incomplete),
            ("alarm", counts.alarms),
        ];
        for (outcome, count) in by_outcome {
            outcomes.get_or_create(&OfOutcome { pool: pool.clone(), outcome }).inc_by(count);
        }
        let label = OfPool { pool };
        if let Some(units) = last.drift {
            drift.get_or_create(&label).set(units);
        }
        age.get_or_create(&label).set(last.age.as_secs_f64());
    }
    let help = "Units that have appeared (above zero) or vanished, by the last reconciliation, if that was exact; told \
                by the pool's home";
    registry.register("rhumb_pool_drift_units", help, drift);
    let help = "Reconciliations: exact, torn (the pool did not rest), incomplete (a row was missing); and alarms among \
                them";
    registry.register("rhumb_pool_reconciliations", help, outcomes);
    let help = "Since the last reconciliation";
    registry.register_with_unit("rhumb_pool_reconciliation_age", help, Unit::Seconds, age);
}

/// What a pool's last reconciliation found, for the status page; null where this node is not its home.
pub(super) fn reconciled(report: &PoolReport) -> Value {
    let told = |found: &rhumb_actors::escrow::Reconciled| {
        json!({
            "exact": found.exact,
            "drift": found.drift,
            "violations": found.violations,
            "missing": found.missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "age_ms": found.age.as_millis() as u64,
        })
    };
    report.reconciled.as_ref().map_or(Value::Null, told)
}

/// Histograms that the machine has filled.
#[derive(Debug)]
struct Waited(Vec<(OfPool, Waits)>);

impl EncodeMetric for Waited {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = WAIT_BOUNDS_MS.map(|ms| Duration::from_millis(ms).as_secs_f64());
        for (label, waits) in &self.0 {
            let bounds = bounds.iter().copied().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(waits.classes).collect();
            let mut encoder = encoder.encode_family(label)?;
            encoder.encode_histogram::<NoLabelSet>(
                waits.sum.as_secs_f64(),
                waits.number(),
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use prometheus_client::encoding::text::encode;
    use rhumb_actors::escrow::levelled::{Cause, Direction, Levelled, Moved};
    use rhumb_actors::escrow::{Reconciled, Reconciliations, Row, Standing, Stranded};
    use rhumb_core::PoolName;

    use super::*;

    fn report() -> EscrowReport {
        let mut levelled = Levelled { in_transit: 25, ..Levelled::default() };
        levelled.moved.insert((Direction::In, Cause::Pull), Moved { moves: 2, units: 90 });
        levelled.waits.count(Duration::from_millis(80));
        levelled.waits.count(Duration::from_secs(20));
        let pool = PoolReport {
            pool: PoolName::new("concert").expect("valid"),
            class: rhumb_core::DataClass::control(),
            row: Row::default(),
            supply: 100,
            stranded: Stranded::default(),
            levelled,
            reconciled: Some(Reconciled { exact: true, drift: Some(-3), ..Reconciled::default() }),
            reconciliations: Reconciliations { exact: 7, torn: 1, incomplete: 0, alarms: 2 },
        };
        EscrowReport {
            standing: Standing::Proven,
            pools: vec![pool],
            witnessed: std::collections::BTreeMap::new(),
            keys: 0,
            holds: 0,
            ignored: 4,
            dropped: 5,
        }
    }

    #[test]
    fn what_was_counted_is_told_by_name() {
        let mut registry = Registry::default();
        metrics(&mut registry, &report());
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes it");
        let mut series: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("le=\"0.0")).collect();
        series.sort_unstable();
        expect![[r#"
            rhumb_escrow_peer_messages_dropped_total{reason="contradicts"} 4
            rhumb_escrow_peer_messages_dropped_total{reason="full"} 5
            rhumb_pool_drift_units{pool="concert"} -3
            rhumb_pool_in_transit_ratio{pool="concert"} 0.25
            rhumb_pool_in_transit_units{pool="concert"} 25
            rhumb_pool_level_latency_seconds_bucket{le="+Inf",pool="concert"} 2
            rhumb_pool_level_latency_seconds_bucket{le="0.1",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="0.25",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="0.5",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="1.0",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="10.0",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="2.5",pool="concert"} 1
            rhumb_pool_level_latency_seconds_bucket{le="5.0",pool="concert"} 1
            rhumb_pool_level_latency_seconds_count{pool="concert"} 2
            rhumb_pool_level_latency_seconds_sum{pool="concert"} 20.08
            rhumb_pool_level_moves_total{pool="concert",direction="in",policy="pull"} 2
            rhumb_pool_level_units_total{pool="concert",direction="in",policy="pull"} 90
            rhumb_pool_reconciliation_age_seconds{pool="concert"} 0.0
            rhumb_pool_reconciliations_total{pool="concert",outcome="alarm"} 2
            rhumb_pool_reconciliations_total{pool="concert",outcome="exact"} 7
            rhumb_pool_reconciliations_total{pool="concert",outcome="incomplete"} 0
            rhumb_pool_reconciliations_total{pool="concert",outcome="torn"} 1"#]]
        .assert_eq(&series.join("\n"));
    }

    #[test]
    fn a_status_says_null_where_another_node_reconciles() {
        let mut pool = report().pools.remove(0);
        assert_eq!(reconciled(&pool)["drift"], -3);
        pool.reconciled = None;
        assert_eq!(reconciled(&pool), Value::Null);
    }
}
