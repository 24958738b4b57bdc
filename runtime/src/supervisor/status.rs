//! What a node tells of itself and of the mesh, to whoever asks over QUIC (`rhumb status`) or its admin
//! HTTP.
//!
//! * It decides: what is gathered, and that a node which does not answer in time is told as such.
//! * It never does: tell of a pool over QUIC. Its figures are of the pool's class, and this is `control`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use rhumb_storage::Pressure;
use rhumb_transport::{LinkState, LinkStatus};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::clock;
use super::report::Report;
use crate::clock::now_millis;
use crate::fleet::renew_at;
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::mesh::status::{
    AskStatus, Blocked, CertificateStatus, HostedType, Link, MeshStatus, NodeStatus, Silent, StoreStatus,
};
use crate::metrics::calls::over_a_certificate;

/// Questions about the whole mesh that are gathered for at once.
const AT_ONCE: usize = 8;
/// For how long an answer about this node alone is as good as a new one.
const FRESH: Duration = Duration::from_millis(100);
/// What is kept of the asked time for the way back.
const WAY_BACK: Duration = Duration::from_millis(200);

/// Where questions find the report, once the node has one. Cloneable; all clones are one.
#[derive(Clone)]
pub(super) struct Desk {
    report: Arc<OnceLock<Arc<Report>>>,
    room: Arc<Semaphore>,
    /// The last answer about this node alone, and when it was gathered.
    last: Arc<Mutex<Option<(Instant, String)>>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { report: Arc::default(), room: Arc::new(Semaphore::new(AT_ONCE)), last: Arc::default() }
    }
}

impl Desk {
    /// The node's own status, gathered at most once in [`FRESH`]: whoever asks more often is told the same again.
    async fn own(&self, report: &Report) -> Result<String, Fault> {
        let mut last = self.last.lock().await;
        if let Some((gathered, status)) = &*last
            && gathered.elapsed() < FRESH
        {
            return Ok(status.clone());
        }
        let status = text(&report.own_status())?;
        *last = Some((Instant::now(), status.clone()));
        Ok(status)
    }

    /// From now on questions are answered.
    pub(super) fn open(&self, report: Arc<Report>) {
        self.report.set(report).ok();
    }

    async fn answer(&self, question: &AskStatus, within: Duration) -> Result<String, Fault> {
        let starting = || Fault::not_sent(FaultKind::Handler("the node is still starting".into()));
        let report = self.report.get().ok_or_else(starting)?;
        if !question.mesh {
            return self.own(report).await;
        }
        let full = |_| Fault::not_sent(FaultKind::Full("questions about the mesh".into()));
        let _room = self.room.try_acquire().map_err(full)?;
        let asked = Duration::from_millis(question.within_ms);
        text(&report.mesh_status(asked.min(within.saturating_sub(WAY_BACK))).await)
    }
}

/// Serves [`AskStatus`].
pub(super) fn serve(registry: &mut Registry, desk: Desk) -> Result<(), ServedTwice> {
    registry.serve(move |call: Call<AskStatus>| {
        let desk = desk.clone();
        async move { Ok((desk.answer(&call.message, call.within).await?, DataClass::control())) }
    })
}

fn text(status: &impl serde::Serialize) -> Result<String, Fault> {
    serde_json::to_string(status).map_err(|error| Fault::ran(FaultKind::Handler(error.to_string())))
}

impl Report {
    /// What is known without asking anybody; whether it is ready is put in by [`NodeStatus::with`].
    pub(super) fn of_itself(&self) -> NodeStatus {
        let settings = self.settings.now();
        let calls = self.mesh.calls();
        let ended = calls.ended_so_far();
        NodeStatus {
            node: settings.me.to_string(),
            cluster: settings.cluster.to_string(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_version: self.ranges.version().0.0,
            knows_version: self.ranges.version().1.newest.0,
            mode: self.mesh.modes().borrow().name().to_owned(),
            mode_for: self.mesh.does_less_for().map(str::to_owned),
            pid: std::process::id(),
            uptime_ms: millis(self.begun.elapsed()),
            incarnation: self.incarnation.0,
            durable_commit: self.store.durable().0,
            hybrid_time: self.clock.last().to_string(),
            policy_version: self.policy.version(),
            settings_digest: digest(&settings),
            links: self.transport.links().iter().map(link).collect(),
            actors: hosted(self),
            store: self.store_status(),
            clock: clock::status(&self.clock, settings.max_offset),
            behind_ms: self.ranges.behind(),
            damaged: self.ranges.damaged(),
            certificate: self.certificate_status(),
            guests: self.transport.guests_by_issuer(),
            turned_away: calls.turned_away_so_far(),
            calls: ended.0,
            faults: ended.1,
            ..NodeStatus::default()
        }
    }

    fn own_status(&self) -> NodeStatus {
        self.of_itself().with(self.readiness.now())
    }

    /// Asks all other nodes at once. None is waited for longer than `within`.
    async fn mesh_status(&self, within: Duration) -> MeshStatus {
        let settings = self.settings.now();
        let others = settings.founding.nodes().iter().filter(|node| **node != settings.me);
        let others = join_all(others.map(|node| self.other_status(node, within))).await;
        let own = self.own_status();
        let mut status = MeshStatus { asked: own.node.clone(), nodes: vec![own], silent: Vec::new() };
        for other in others {
            match other {
                Ok(node) => status.nodes.push(*node),
                Err(silent) => status.silent.push(silent),
            }
        }
        status
    }

    async fn other_status(&self, node: &NodeId, within: Duration) -> Result<Box<NodeStatus>, Silent> {
        let question = AskStatus { mesh: false, within_ms: millis(within) };
        let before = now_millis();
        let answer = self.mesh.ask_node(node, &question, DataClass::control(), within).await;
        let after = now_millis();
        let silent =
            |why: String| Silent { node: node.to_string(), why, for_ms: self.silent_for(node).map(millis) };
        let (text, _) = answer.map_err(|fault| silent(fault.to_string()))?;
        let mut status: NodeStatus =
            serde_json::from_str(&text).map_err(|error| silent(format!("its answer is not one: {error}")))?;
        // Cristian's algorithm: the peer read its clock somewhere between the two readings here.
        let middle = before.midpoint(after);
        status.offset_ms = Some(status.clock.wall_ms as i64 - middle as i64);
        status.offset_error_ms = Some(after.saturating_sub(before).div_ceil(2));
        Ok(Box::new(status))
    }

    /// How long there has been no connection to a peer.
    fn silent_for(&self, node: &NodeId) -> Option<Duration> {
        let links = self.transport.links();
        let link = links.iter().find(|link| link.peer == *node)?;
        matches!(link.state, LinkState::Down(_) | LinkState::Connecting).then_some(link.since)
    }

    fn store_status(&self) -> StoreStatus {
        let stats = self.store.stats();
        StoreStatus {
            durable_commit: self.store.durable().0,
            syncs: stats.sync_micros.count(),
            sync_p99_us: stats.sync_micros.quantile(0.99),
            waiting: stats.waiting,
            refused: stats.refused,
            pressure: pressure(stats.pressure).to_owned(),
        }
    }

    fn certificate_status(&self) -> CertificateStatus {
        let (certificate, left) = self.own.certificate();
        let (credentials, told) = (self.own.credentials(), self.own.told());
        let lists = credentials.trust().lists().iter();
        CertificateStatus {
            renew_at: renew_at(&certificate),
            refused: told.refused,
            generation: told.generation,
            authorities: credentials.trust().authorities().map(|authority| authority.fingerprint()).collect(),
            lists: lists
                .map(|list| (list.issuer().to_owned(), u64::try_from(list.number).unwrap_or(u64::MAX)))
                .collect(),
            serial: certificate.serial.to_string(),
            fingerprint: certificate.fingerprint(),
            issuer: certificate.issuer,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            expires_s: left,
            age_s: (now_millis() / 1_000) as i64 - certificate.not_before,
        }
    }
}

fn hosted(report: &Report) -> crate::mesh::status::Actors {
    let hosts = &report.hosts;
    let own = [
        ("AuditLogger", report.audit.waiting()),
        ("EscrowRegion", report.escrow.waiting()),
        ("StorageActor", report.storage.waiting()),
    ];
    let own = own.map(|(kind, mailbox)| HostedType {
        kind: kind.to_owned(),
        live: 1,
        activations: 1,
        waiting: mailbox.waiting,
        fullest: mailbox.waiting,
        capacity: mailbox.capacity,
        oldest_ms: mailbox.oldest.map(millis),
        ..HostedType::default()
    });
    let types = hosts.report().into_iter().map(|of| HostedType {
        kind: of.kind.to_owned(),
        live: of.live,
        waiting: of.waiting,
        fullest: of.fullest,
        capacity: of.capacity,
        oldest_ms: of.oldest.map(millis),
        activations: of.activations,
        panics: of.panics,
        gave_up: of.gave_up,
        overflows: of.overflows,
    });
    let blocked = hosts.blocked().into_iter().map(|of| Blocked {
        arbiter: of.arbiter,
        work: of.work,
        lasting_ms: millis(of.lasting),
    });
    crate::mesh::status::Actors { types: own.into_iter().chain(types).collect(), blocked: blocked.collect() }
}

fn link(link: &LinkStatus) -> Link {
    let (state, why) = match &link.state {
        LinkState::Connecting => ("connecting", None),
        LinkState::Connected => ("connected", link.last_error.as_ref().map(ToString::to_string)),
        LinkState::Draining => ("draining", None),
        LinkState::Down(why) => ("down", Some(why.clone())),
    };
    Link {
        node: link.peer.to_string(),
        up: link.state == LinkState::Connected,
        state: state.to_owned(),
        why,
        refused: link.last_error.as_ref().and_then(over_a_certificate).map(str::to_owned),
        rtt_ms: link.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
        lost_packets: link.lost_packets,
        connections: link.generation,
        since_ms: millis(link.since),
        serial: link.certificate.as_ref().map(|shown| shown.serial.to_string()),
        issuer: link.certificate.as_ref().map(|shown| shown.issuer.clone()),
        draining: link.draining.iter().map(|shown| shown.issuer.clone()).collect(),
    }
}

fn pressure(level: Pressure) -> &'static str {
    match level {
        Pressure::Green => "green",
        Pressure::Yellow => "yellow",
        Pressure::Orange => "orange",
        Pressure::Red => "red",
    }
}

/// The first 8 bytes of a hash over every key and its value, secrets as their hashes: nodes that run with
/// the same settings tell the same, but for what is each node's own.
fn digest(settings: &crate::settings::Settings) -> String {
    let mut hash = Sha256::new();
    let of_the_mesh = settings.entries().iter().filter(|(name, _)| !name.starts_with("nodes."));
    for (name, entry) in of_the_mesh {
        hash.update(format!("{name}={}\n", entry.to_shown().value));
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
