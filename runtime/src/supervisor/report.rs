//! What a node tells of itself: readiness, status and metrics, gathered when somebody asks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::audit::AuditHandle;
use rhumb_actors::escrow::{EscrowHandle, EscrowReport, PoolReport};
use rhumb_actors::storage::StorageHandle;
use rhumb_core::Incarnation;
use rhumb_storage::HotStore;
use rhumb_transport::{LinkState, LinkStatus, Transport};
use serde_json::json;

use super::audit::Findings;
use super::certificate::{EVENTS, Own};
use super::policy::ServedPolicy;
use super::ranges::Ranges;
use super::readiness::Readiness;
use super::{audit, clock, delivery_metrics, escrow_metrics, hosted};
use crate::clock::NodeClock;
use crate::fleet::renew_at;
use crate::host::Hosts;
use crate::http::Subject;
use crate::mesh::Mesh;
use crate::mesh::resilience::Mode;
use crate::metrics::exposition::Page;
use crate::metrics::{Steps, process};
use crate::settings::{Live, Running};

/// Gathers what the parts of a node know.
pub(super) struct Report {
    pub(super) settings: Live,
    pub(super) own: Own,
    pub(super) escrow: EscrowHandle,
    pub(super) storage: StorageHandle,
    pub(super) audit: AuditHandle,
    pub(super) findings: Findings,
    pub(super) store: HotStore,
    pub(super) transport: Transport,
    pub(super) hosts: Arc<Hosts>,
    pub(super) clock: NodeClock,
    pub(super) ranges: Ranges,
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
struct OfEvent {
    event: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

impl Report {
    fn links(&self, registry: &mut Registry) {
        let links = self.transport.links();
        for (name, help, read) in LINKS_NOW {
            let family = Family::<OfPeer, Gauge>::default();
            for link in &links {
                let label = OfPeer { peer: link.peer.to_string() };
                family.get_or_create(&label).set(i64::try_from(read(link)).unwrap_or(i64::MAX));
            }
            registry.register(name, help, family);
        }
        for (name, help, read) in LINKS_SO_FAR {
            let family = Family::<OfPeer, Counter>::default();
            for link in &links {
                family.get_or_create(&OfPeer { peer: link.peer.to_string() }).inc_by(read(link));
            }
            registry.register(name, help, family);
        }
        let rtt = Family::<OfPeer, Gauge<f64, AtomicU64>>::default();
        for (link, measured) in links.iter().filter_map(|link| Some((link, link.rtt?))) {
            rtt.get_or_create(&OfPeer { peer: link.peer.to_string() }).set(measured.as_secs_f64());
        }
        registry.register_with_unit("rhumb_link_rtt", "Round trip to a peer, smoothed", Unit::Seconds, rtt);
    }

    fn certificate(&self, registry: &mut Registry) {
        let (certificate, _) = self.own.certificate();
        let help = "When this node's certificate ends, since the Unix epoch";
        let ends = ConstGauge::new(certificate.not_after);
        registry.register_with_unit("rhumb_certificate_expiry_timestamp", help, Unit::Seconds, ends);
        let moments = [
            ("rhumb_identity_cert_expiration_timestamp", help, certificate.not_after),
            (
                "rhumb_identity_cert_refresh_timestamp",
                "When it is to be renewed, since the Unix epoch",
                renew_at(&certificate),
            ),
        ];
        for (name, help, at) in moments {
            registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(at));
        }
        let told = self.own.told();
        let events = Family::<OfEvent, Counter>::default();
        for event in EVENTS {
            let count = told.events.get(event).copied().unwrap_or_default();
            events.get_or_create(&OfEvent { event: event.to_owned() }).inc_by(count);
        }
        let help = "What happened to this node's certificate and to what it believes";
        registry.register("rhumb_identity_events", help, events);
        let refreshes = told.events.get("certificate.renewed").copied().unwrap_or_default();
        let help = "Renewed certificates that were taken up";
        registry.register("rhumb_identity_cert_refreshes", help, ConstCounter::new(refreshes));
        let revoked = self.mesh.calls().turned_away_so_far().get("revoked").copied().unwrap_or_default();
        let help = "Connections that were turned away because their certificate is revoked";
        registry.register("rhumb_identity_crl_rejections", help, ConstCounter::new(revoked));
    }

    fn storage(&self, registry: &mut Registry) {
        let stats = self.store.stats();
        for (name, help, count) in [
            ("rhumb_store_batches", "Batches committed", stats.batches),
            ("rhumb_store_fenced_batches", "Batches that a fence held back", stats.fenced),
            ("rhumb_store_refused_batches", "Batches refused before they were taken", stats.refused),
            ("rhumb_store_writes", "Writes, each of all batches that waited", stats.group_sizes.count()),
            ("rhumb_store_committed_bytes", "Keys and values committed", stats.bytes),
        ] {
            registry.register(name, help, ConstCounter::new(count));
        }
        for (name, help, value) in [
            (
                "rhumb_store_waiting_batches",
                "Batches that wait to be written or synced",
                stats.waiting as u64,
            ),
            ("rhumb_store_waiting_bytes", "Keys and values of those", stats.waiting_bytes as u64),
            (
                "rhumb_store_pressure_level",
                "How hard the engine is pressed: 0 not at all, 3 it takes nothing",
                stats.pressure as u64,
            ),
            ("rhumb_store_durable_commit", "The highest durable commit number", self.store.durable().0),
        ] {
            registry.register(name, help, ConstGauge::new(value));
        }
    }

    /// How long syncs took. A bucket of the store holds whole microseconds below a power of two.
    fn syncs(&self, page: &mut Page) {
        let counted = self.store.stats().sync_micros;
        let mut steps: Vec<(f64, u64)> = Vec::new();
        let mut below = 0;
        for (power, count) in (0_i32..).zip(counted.buckets) {
            match power {
                ..6 => below += count,
                6..=24 => {
                    steps.push((f64::from(power).exp2() / 1e6, count + below));
                    below = 0;
                }
                _ => below += count,
            }
        }
        steps.push((f64::INFINITY, below));
        page.histogram(SYNCS, "Syncs of the write-ahead log");
        page.steps(SYNCS, &[], &Steps::new(steps, counted.sum as f64 / 1e6));
    }
}

/// The name of the histogram of syncs.
const SYNCS: &str = "rhumb_store_sync_duration_seconds";

type ReadLink = fn(&LinkStatus) -> u64;

const LINKS_NOW: [(&str, &str, ReadLink); 4] = [
    ("rhumb_link_up", "Whether the connection to a peer is up", |link| {
        u64::from(link.state == LinkState::Connected)
    }),
    ("rhumb_link_waiting_messages", "Calls and answers that wait on all lanes to a peer", |link| {
        link.waiting.messages as u64
    }),
    ("rhumb_link_waiting_bytes", "Bytes of those", |link| link.waiting.bytes as u64),
    ("rhumb_link_longest_lane_messages", "Calls and answers on the fullest lane to a peer", |link| {
        link.waiting.longest as u64
    }),
];

const LINKS_SO_FAR: [(&str, &str, ReadLink); 4] = [
    ("rhumb_link_connections", "Connections with a peer, one after the other", |link| link.generation),
    ("rhumb_link_sent_packets", "Packets sent on the present connection", |link| link.sent_packets),
    ("rhumb_link_lost_packets", "Packets lost on the present connection", |link| link.lost_packets),
    (
        "rhumb_link_blocked",
        "Times that a window or the number of streams held back the present connection",
        |link| link.blocked,
    ),
];

type ReadPool = fn(&PoolReport) -> u64;

const POOLS_NOW: [(&str, &str, ReadPool); 6] = [
    ("rhumb_pool_available", "Units that may be held or granted here", |pool| pool.row.available),
    ("rhumb_pool_held", "Units held here", |pool| pool.row.held + pool.row.debt.held),
    ("rhumb_pool_overdrawn", "Units sold here on debt and not given back", |pool| {
        pool.row.debt.consumed.saturating_sub(pool.row.debt.returned)
    }),
    ("rhumb_pool_debt_available", "Debt rights that may be used or granted here", |pool| {
        pool.row.debt.available
    }),
    ("rhumb_pool_stranded_rights", "Rights on this disk that this node may not spend", |pool| {
        pool.stranded.here
    }),
    (
        "rhumb_pool_unreachable_rights",
        "Rights at nodes that were silent lately, by their last word",
        |pool| pool.stranded.away,
    ),
];

const POOLS_SO_FAR: [(&str, &str, ReadPool); 5] = [
    ("rhumb_pool_sold", "Units sold here", |pool| pool.row.consumed + pool.row.debt.consumed),
    ("rhumb_pool_returned", "Units given back here after their sale", |pool| {
        pool.row.returned + pool.row.debt.returned
    }),
    ("rhumb_pool_rights_out", "Rights granted to other nodes", |pool| pool.row.granted.values().sum()),
    ("rhumb_pool_rights_in", "Rights accepted from other nodes", |pool| pool.row.accepted.values().sum()),
    ("rhumb_pool_false_refusals", "Holds refused though another node had units to spare", |pool| {
        pool.row.tallies.false_refusals
    }),
];

fn pools(registry: &mut Registry, report: &EscrowReport) {
    for (name, help, read) in POOLS_NOW {
        let family = Family::<OfPool, Gauge>::default();
        for pool in &report.pools {
            let label = OfPool { pool: pool.pool.to_string() };
            family.get_or_create(&label).set(i64::try_from(read(pool)).unwrap_or(i64::MAX));
        }
        registry.register(name, help, family);
    }
    for (name, help, read) in POOLS_SO_FAR {
        let family = Family::<OfPool, Counter>::default();
        for pool in &report.pools {
            family.get_or_create(&OfPool { pool: pool.pool.to_string() }).inc_by(read(pool));
        }
        registry.register(name, help, family);
    }
    let refused = Family::<Refused, Counter>::default();
    for pool in &report.pools {
        for (code, count) in &pool.row.tallies.refused {
            let label = Refused { pool: pool.pool.to_string(), code: code.clone() };
            refused.get_or_create(&label).inc_by(*count);
        }
    }
    registry.register("rhumb_pool_refusals", "Holds refused since the node started, by code", refused);
}

impl Subject for Report {
    fn ready(&self) -> BoxFuture<'static, Result<(), String>> {
        let readiness = self.readiness.clone();
        std::future::ready(readiness.now()).boxed()
    }

    fn refuses(&self) -> Option<String> {
        let frozen = self.clock.frozen().map(|why| format!("strong paths are refused: {why}"));
        let behind = self.ranges.behind();
        let behind = (!behind.is_empty()).then(|| {
            let names: Vec<String> = behind.into_keys().collect();
            format!("replicas are too far behind: {}", names.join(", "))
        });
        let all: Vec<String> = frozen.into_iter().chain(behind).chain(self.ranges.damaged()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn metrics(&self) -> BoxFuture<'static, String> {
        let mut registry = Registry::default();
        self.links(&mut registry);
        self.storage(&mut registry);
        self.certificate(&mut registry);
        hosted::metrics(&mut registry, &self.hosts);
        hosted::dropped(&mut registry, &self.transport);
        hosted::turned_back(&mut registry, &self.transport);
        let mut page = Page::default();
        clock::metrics(&mut registry, &mut page, &self.clock);
        self.ranges.metrics(&mut registry, &mut page);
        self.syncs(&mut page);
        self.mesh.calls().write(&mut page);
        self.mesh.resilience().write(&mut page);
        let mode = *self.mesh.modes().borrow();
        let level = Mode::ALL.iter().position(|known| *known == mode).unwrap_or(0);
        let help = "How much the node does: 0 floor, 1 degraded, 2 recovery, 3 all";
        page.gauge("rhumb_node_mode", help, level as f64);
        process::write(&mut page);
        if let Some(tracer) = self.mesh.tracer() {
            let spans = tracer.spans().counts();
            let counts = [("exported", spans.exported), ("dropped", spans.dropped), ("failed", spans.failed)];
            let help = "Finished spans: taken by the collector, dropped for want of room, or not taken";
            page.counters("rhumb_trace_spans", help, "outcome", &counts);
            let held_back = ConstCounter::new(tracer.held_back());
            let help = "Traces that programs outside wanted kept, beyond telemetry.forced";
            registry.register("rhumb_traces_held_back", help, held_back);
        }
        let (escrow, readiness) = (self.escrow.clone(), self.readiness.clone());
        let (delivery, clock) = (self.mesh.delivery().cloned(), self.clock.clone());
        let (log, findings) = (self.audit.clone(), self.findings.clone());
        async move {
            let report = escrow.report().await;
            let delivered = match delivery {
                Some(delivery) => delivery.report().await,
                None => None,
            };
            if let Some(delivered) = delivered {
                delivery_metrics::metrics(&mut registry, &delivered, clock.last());
            }
            if let Some(logged) = log.report().await {
                audit::metrics(&mut registry, &logged, findings.now().1.len());
            }
            let ready = i64::from(readiness.now().is_ok());
            registry.register("rhumb_node_ready", "Whether the node can serve", ConstGauge::new(ready));
            if let Some(report) = &report {
                let keys = ConstGauge::new(report.keys as u64);
                registry.register("rhumb_escrow_keys", "Idempotency keys remembered", keys);
                let holds = ConstGauge::new(report.holds as u64);
                registry.register("rhumb_escrow_holds", "Holds remembered, sales among them", holds);
                pools(&mut registry, report);
                escrow_metrics::metrics(&mut registry, report);
            }
            if let Err(error) = page.registry(&registry) {
                tracing::error!(%error, "the page of metrics is not whole");
            }
            page.finish()
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
            let mut status = json!(status.with(readiness.now()));
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
                        let row = &pool.row;
                        json!({
                            "pool": pool.pool.to_string(),
                            "available": row.available,
                            "held": row.held + row.debt.held,
                            "consumed": row.consumed + row.debt.consumed,
                            "returned": row.returned + row.debt.returned,
                            "overdrawn": row.debt.consumed.saturating_sub(row.debt.returned),
                            "reconciled": escrow_metrics::reconciled(pool),
                        })
                    })
                    .collect::<Vec<_>>()
            }));
            status
        }
        .boxed()
    }
}
