//! What a node tells of itself: readiness, status and metrics, gathered when somebody asks.

use std::fmt::Write as _;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::escrow::{EscrowHandle, EscrowReport, Standing};
use rhumb_storage::HotStore;
use rhumb_transport::{LinkState, Transport};
use serde_json::json;

use super::certificate::Own;
use super::{escrow_metrics, hosted};
use crate::clock::NodeClock;
use crate::host::Hosts;
use crate::http::Subject;
use crate::settings::{Live, Running};

/// How the reason begins for which a node on a restored disk is not ready.
pub const RESTORED: &str = "restored";

/// Gathers what the parts of a node know.
pub(super) struct Report {
    settings: Live,
    own: Own,
    escrow: EscrowHandle,
    store: HotStore,
    transport: Transport,
    hosts: Arc<Hosts>,
    clock: NodeClock,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    pool: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

impl Report {
    pub(super) fn new(
        settings: Live,
        own: Own,
        escrow: EscrowHandle,
        store: HotStore,
        transport: Transport,
        hosts: Arc<Hosts>,
        clock: NodeClock,
    ) -> Self {
        Self { settings, own, escrow, store, transport, hosts, clock }
    }

    fn links(&self, registry: &mut Registry) {
        let up = Family::<OfPeer, Gauge>::default();
        let rtt = Family::<OfPeer, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for link in self.transport.links() {
            let label = OfPeer { peer: link.peer.to_string() };
            up.get_or_create(&label).set(i64::from(link.state == LinkState::Connected));
            if let Some(measured) = link.rtt {
                rtt.get_or_create(&label).set(measured.as_secs_f64());
            }
        }
        registry.register("rhumb_link_up", "Whether the connection to a peer is up", up);
        registry.register_with_unit("rhumb_link_rtt", "Round trip to a peer, smoothed", Unit::Seconds, rtt);
    }

    fn certificate(&self, registry: &mut Registry) {
        let left = ConstGauge::new(self.own.certificate().1);
        let help = "Time until this node's certificate ends; negative once it has";
        registry.register_with_unit("rhumb_certificate_expires", help, Unit::Seconds, left);
    }

    fn storage(&self, registry: &mut Registry) {
        let stats = self.store.stats();
        registry.register("rhumb_store_batches", "Batches committed", ConstCounter::new(stats.batches));
        let writes = ConstCounter::new(stats.group_sizes.count());
        registry.register("rhumb_store_writes", "Writes, each of all batches that waited", writes);
        let syncs = ConstCounter::new(stats.sync_micros.count());
        registry.register("rhumb_store_syncs", "Syncs of the write-ahead log", syncs);
        let p99 = ConstGauge::new(stats.sync_micros.quantile(0.99));
        registry.register("rhumb_store_sync_p99_microseconds", "99 of 100 syncs took at most this long", p99);
        let durable = ConstGauge::new(self.store.durable().0);
        registry.register("rhumb_store_durable_commit", "The highest durable commit number", durable);
    }
}

fn pools(registry: &mut Registry, report: &EscrowReport) {
    let mut gauges: Vec<(&str, &str, Family<OfPool, Gauge>)> = vec![
        ("rhumb_pool_available", "Units that may be held or granted here", Family::default()),
        ("rhumb_pool_held", "Units held here", Family::default()),
        ("rhumb_pool_sold", "Units sold here, ever", Family::default()),
        ("rhumb_pool_returned", "Units given back here after their sale, ever", Family::default()),
        ("rhumb_pool_overdrawn", "Units sold here on debt and not given back", Family::default()),
        ("rhumb_pool_debt_available", "Debt rights that may be used or granted here", Family::default()),
        ("rhumb_pool_rights_out", "Rights granted to other nodes, ever", Family::default()),
        ("rhumb_pool_rights_in", "Rights accepted from other nodes, ever", Family::default()),
        ("rhumb_pool_stranded_rights", "Rights on this disk that this node may not spend", Family::default()),
        (
            "rhumb_pool_unreachable_rights",
            "Rights at nodes that were silent lately, by their last word",
            Family::default(),
        ),
        (
            "rhumb_pool_false_refusals",
            "Holds refused though another node had units to spare",
            Family::default(),
        ),
    ];
    let refused = Family::<Refused, Gauge>::default();
    for pool in &report.pools {
        let label = OfPool { pool: pool.pool.to_string() };
        let row = &pool.row;
        let values = [
            row.available,
            row.held + row.debt.held,
            row.consumed + row.debt.consumed,
            row.returned + row.debt.returned,
            row.debt.consumed.saturating_sub(row.debt.returned),
            row.debt.available,
            row.granted.values().sum(),
            row.accepted.values().sum(),
            pool.stranded.here,
            pool.stranded.away,
            row.tallies.false_refusals,
        ];
        for ((_, _, gauge), value) in gauges.iter().zip(values) {
            gauge.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        for (code, count) in &row.tallies.refused {
            let label = Refused { pool: label.pool.clone(), code: code.clone() };
            refused.get_or_create(&label).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
    for (name, help, gauge) in gauges.drain(..) {
        registry.register(name, help, gauge);
    }
    registry.register("rhumb_pool_refusals", "Holds refused since the node started, by code", refused);
}

fn readiness(report: Option<&EscrowReport>) -> Result<(), String> {
    match report.map(|report| report.standing) {
        Some(Standing::Proven) => Ok(()),
        Some(Standing::Unproven) => {
            Err("unproven: no peer, or not every reachable one, has yet said that this disk is the latest"
                .into())
        }
        Some(Standing::Restored) => {
            Err(format!("{RESTORED}: this disk is older than a peer has seen; `rhumb pool attest` it"))
        }
        None => Err("the escrow actor does not answer".into()),
    }
}

impl Subject for Report {
    fn ready(&self) -> BoxFuture<'static, Result<(), String>> {
        let escrow = self.escrow.clone();
        async move { readiness(escrow.report().await.as_ref()) }.boxed()
    }

    fn metrics(&self) -> BoxFuture<'static, String> {
        let mut registry = Registry::default();
        self.links(&mut registry);
        self.storage(&mut registry);
        self.certificate(&mut registry);
        hosted::metrics(&mut registry, &self.hosts);
        hosted::dropped(&mut registry, &self.transport);
        let escrow = self.escrow.clone();
        async move {
            let report = escrow.report().await;
            let ready = i64::from(readiness(report.as_ref()).is_ok());
            registry.register("rhumb_node_ready", "Whether the node can serve", ConstGauge::new(ready));
            if let Some(report) = &report {
                let keys = ConstGauge::new(report.keys as u64);
                registry.register("rhumb_escrow_keys", "Idempotency keys remembered", keys);
                pools(&mut registry, report);
                escrow_metrics::metrics(&mut registry, report);
            }
            let mut text = String::new();
            if let Err(error) = encode(&mut text, &registry) {
                writeln!(text, "# {error}").ok();
            }
            text
        }
        .boxed()
    }

    fn settings(&self) -> serde_json::Value {
        let settings = self.settings.now();
        let running = Running {
            node: settings.me.clone(),
            env: self.settings.source().env().map(str::to_owned),
            settings: settings.entries().iter().map(|(name, e)| (name.clone(), e.to_shown())).collect(),
        };
        json!(running)
    }

    fn status(&self) -> BoxFuture<'static, serde_json::Value> {
        let links: Vec<_> = self
            .transport
            .links()
            .iter()
            .map(|link| {
                json!({
                    "node": link.peer.to_string(),
                    "up": link.state == LinkState::Connected,
                    "rtt_ms": link.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                })
            })
            .collect();
        let (me, durable, hybrid) =
            (self.settings.now().me.to_string(), self.store.durable().0, self.clock.last().to_string());
        let (certificate, left) = self.own.certificate();
        let certificate = json!({
            "serial": certificate.serial.to_string(),
            "fingerprint": certificate.fingerprint(),
            "issuer": certificate.issuer,
            "not_after": certificate.not_after,
            "expires_s": left,
        });
        let escrow = self.escrow.clone();
        let actors = hosted::status(&self.hosts);
        async move {
            let report = escrow.report().await;
            let ready = readiness(report.as_ref());
            json!({
                "actors": actors,
                "certificate": certificate,
                "node": me,
                "build": env!("CARGO_PKG_VERSION"),
                "ready": ready.is_ok(),
                "reason": ready.err(),
                "durable_commit": durable,
                "hybrid_time": hybrid,
                "links": links,
                "witnessed": report.as_ref().map(|report| report.witnessed.iter()
                    .map(|(node, number)| (node.to_string(), *number))
                    .collect::<std::collections::BTreeMap<_, _>>()),
                "pools": report.map(|report| report.pools.iter().map(|pool| json!({
                    "pool": pool.pool.to_string(),
                    "available": pool.row.available,
                    "held": pool.row.held + pool.row.debt.held,
                    "consumed": pool.row.consumed + pool.row.debt.consumed,
                    "returned": pool.row.returned + pool.row.debt.returned,
                    "overdrawn": pool.row.debt.consumed.saturating_sub(pool.row.debt.returned),
                    "reconciled": escrow_metrics::reconciled(pool),
                })).collect::<Vec<_>>()),
            })
        }
        .boxed()
    }
}
