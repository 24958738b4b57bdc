//! What a node tells of the actor types that it hosts, and of what its transport dropped.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rhumb_transport::Transport;

use crate::host::{Hosts, TypeReport};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfType {
    actor: &'static str,
}

type Read = fn(&TypeReport) -> u64;

const NOW: [(&str, &str, Read); 2] = [
    ("rhumb_actors_live", "Actors that are awake", |report| report.live),
    ("rhumb_actors_waiting", "Messages that wait in mailboxes", |report| report.waiting as u64),
];

const SO_FAR: [(&str, &str, Read); 6] = [
    ("rhumb_actors_activations", "Instances made", |report| report.activations),
    ("rhumb_actors_passivations", "Instances put to sleep", |report| report.passivations),
    ("rhumb_actors_panics", "Panics of actors", |report| report.panics),
    ("rhumb_actors_gave_up", "Actors that panicked too often", |report| report.gave_up),
    ("rhumb_actors_overflows", "Messages that a full mailbox refused or dropped", |report| report.overflows),
    ("rhumb_actors_dropped_tells", "Messages told, taken and then dropped", |report| report.dropped),
];

/// The metrics of the hosted types. As many series as types: keys are never a label.
pub(super) fn metrics(registry: &mut Registry, hosts: &Hosts) {
    let reports = hosts.report();
    for (name, help, read) in NOW {
        let family = Family::<OfType, Gauge>::default();
        for report in &reports {
            let value = i64::try_from(read(report)).unwrap_or(i64::MAX);
            family.get_or_create(&OfType { actor: report.kind }).set(value);
        }
        registry.register(name, help, family);
    }
    for (name, help, read) in SO_FAR {
        let family = Family::<OfType, Counter>::default();
        for report in &reports {
            family.get_or_create(&OfType { actor: report.kind }).inc_by(read(report));
        }
        registry.register(name, help, family);
    }
    let bytes = Family::<OfType, Gauge>::default();
    for report in &reports {
        let value = i64::try_from(report.bytes).unwrap_or(i64::MAX);
        bytes.get_or_create(&OfType { actor: report.kind }).set(value);
    }
    let help = "What actors that are awake weigh, as far as they say";
    registry.register_with_unit("rhumb_actors_footprint", help, Unit::Bytes, bytes);
    admissions(registry, &reports);
    let blocked = ConstCounter::new(hosts.times_blocked());
    registry.register("rhumb_arbiter_blocks", "Times that one message kept an arbiter for too long", blocked);
}

/// What came to the transport and went no further, and how its connections ended: what attackers leave behind.
pub(super) fn turned_back(registry: &mut Registry, transport: &Transport) {
    let ended = Family::<OfReason, Counter>::default();
    for (reason, count) in transport.ends() {
        ended.get_or_create(&OfReason { reason }).inc_by(count);
    }
    let help = "Connections with nodes and programs that have ended, by how";
    registry.register("rhumb_connections_ended", help, ended);
    let refused = Family::<OfReason, Counter>::default();
    for (reason, count) in transport.refusals() {
        refused.get_or_create(&OfReason { reason }).inc_by(count);
    }
    let help = "Asked calls that were refused before they came to a handler, by why";
    registry.register("rhumb_calls_refused", help, refused);
    let datagrams = Family::<OfKind, Counter>::default();
    for (kind, count) in transport.datagrams() {
        datagrams.get_or_create(&OfKind { kind }).inc_by(count);
    }
    let help = "Datagrams that have come, by what their first bytes say";
    registry.register("rhumb_datagrams", help, datagrams);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

/// The doors of the types that have one.
fn admissions(registry: &mut Registry, reports: &[TypeReport]) {
    let (limits, refused) = (Family::<OfType, Gauge>::default(), Family::<Refused, Counter>::default());
    let under_way = Family::<OfType, Gauge>::default();
    for (actor, door) in reports.iter().filter_map(|report| Some((report.kind, report.admission?))) {
        limits.get_or_create(&OfType { actor }).set(door.limit.into());
        under_way.get_or_create(&OfType { actor }).set(door.under_way.into());
        for (reason, count) in [("full", door.full), ("too_late", door.too_late)] {
            refused.get_or_create(&Refused { actor, reason }).inc_by(count);
        }
    }
    let help = "Questions that are let in at once, as it was learnt";
    registry.register("rhumb_actors_admission_limit", help, limits);
    registry.register(
        "rhumb_actors_admission_under_way",
        "Questions that were let in and are not answered",
        under_way,
    );
    let help = "Questions that were not let in: there was no room, or they could not be done in their time";
    registry.register("rhumb_actors_admission_refused", help, refused);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    actor: &'static str,
    reason: &'static str,
}

/// What the transport dropped: each is something that nobody else will ever tell.
pub(super) fn dropped(registry: &mut Registry, transport: &Transport) {
    let family = Family::<Dropped, Counter>::default();
    for (what, count) in transport.counts().named() {
        family.get_or_create(&Dropped { what }).inc_by(count);
    }
    registry.register(
        "rhumb_transport_dropped",
        "What was dropped without anybody being told, by kind",
        family,
    );
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    what: &'static str,
}
