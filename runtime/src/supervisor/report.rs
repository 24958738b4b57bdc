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
use rhumb_actors::escrow::{EscrowHandle, EscrowReport};
use rhumb_core::Incarnation;
use rhumb_storage::HotStore;
use rhumb_transport::{LinkState, Transport};
use serde_json::json;

use super::certificate::Own;
use super::hosted;
use super::policy::ServedPolicy;
use super::readiness::Readiness;
use crate::clock::NodeClock;
use crate::host::Hosts;
use crate::http::Subject;
use crate::mesh::Mesh;
use crate::settings::{Live, Running};

/// Gathers what the parts of a node know.
pub(super) struct Report {
    pub(super) settings: Live,
    pub(super) own: Own,
    pub(super) escrow: EscrowHandle,
    pub(super) store: HotStore,
    pub(super) transport: Transport,
    pub(super) hosts: Arc<Hosts>,
    pub(super) clock: NodeClock,
    pub(super) readiness: Readiness,
    pub(super) policy: ServedPolicy,
    pub(super) mesh: Mesh,
    pub(super) incarnation: Incarnation,
    pub(super) begun: tokio::time::Instant,
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
            row.held,
            row.consumed,
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

impl Subject for Report {
    fn ready(&self) -> BoxFuture<'static, Result<(), String>> {
        let readiness = self.readiness.clone();
        async move { readiness.now().await }.boxed()
    }

    fn metrics(&self) -> BoxFuture<'static, String> {
        let mut registry = Registry::default();
        self.links(&mut registry);
        self.storage(&mut registry);
        self.certificate(&mut registry);
        hosted::metrics(&mut registry, &self.hosts);
        hosted::dropped(&mut registry, &self.transport);
        let (escrow, readiness) = (self.escrow.clone(), self.readiness.clone());
        async move {
            let report = escrow.report().await;
            let ready = i64::from(readiness.with(report.as_ref()).is_ok());
            registry.register("rhumb_node_ready", "Whether the node can serve", ConstGauge::new(ready));
            if let Some(report) = &report {
                let keys = ConstGauge::new(report.keys as u64);
                registry.register("rhumb_escrow_keys", "Idempotency keys remembered", keys);
                pools(&mut registry, report);
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
        let (status, readiness, escrow) = (self.of_itself(), self.readiness.clone(), self.escrow.clone());
        async move {
            let report = escrow.report().await;
            let mut status = json!(status.with(readiness.with(report.as_ref())));
            let report = report.as_ref();
            status["witnessed"] = json!(report.map(|report| {
                report
                    .witnessed
                    .iter()
                    .map(|(node, number)| (node.to_string(), *number))
                    .collect::<std::collections::BTreeMap<_, _>>()
            }));
            status["pools"] = json!(report.map(|report| {
                report
                    .pools
                    .iter()
                    .map(|pool| {
                        json!({
                            "pool": pool.pool.to_string(),
                            "available": pool.row.available,
                            "held": pool.row.held,
                            "consumed": pool.row.consumed,
                        })
                    })
                    .collect::<Vec<_>>()
            }));
            status
        }
        .boxed()
    }
}
