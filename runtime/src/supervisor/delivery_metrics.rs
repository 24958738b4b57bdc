//! What a node tells of its outbox, its dead letters and its idempotency keys.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use rhumb_core::HybridTime;

use crate::delivery::DeliveryReport;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// The metrics of delivery. As many series as nodes, and a few fixed words.
pub(super) fn metrics(registry: &mut Registry, report: &DeliveryReport, now: HybridTime) {
    let (letters, bytes) = (Family::<OfPeer, Gauge>::default(), Family::<OfPeer, Gauge>::default());
    for (peer, (count, size)) in &report.outbox.bound {
        let label = OfPeer { peer: peer.to_string() };
        letters.get_or_create(&label).set(signed(*count));
        bytes.get_or_create(&label).set(signed(*size));
    }
    registry.register("rhumb_outbox_letters", "Letters that wait for a node or are under way to it", letters);
    registry.register_with_unit("rhumb_outbox", "What these letters weigh", Unit::Bytes, bytes);
    let oldest = report.outbox.oldest.map_or(0, |written| now.millis().saturating_sub(written.millis()));
    let help = "How long the oldest letter has waited";
    registry.register_with_unit(
        "rhumb_outbox_oldest",
        help,
        Unit::Seconds,
        ConstGauge::new(oldest as f64 / 1e3),
    );
    let outcomes = Family::<OfOutcome, Counter>::default();
    let of = &report.outbox;
    for (outcome, count) in
        [("taken", of.taken), ("settled", of.settled), ("dead", of.died), ("refused", of.refused)]
    {
        outcomes.get_or_create(&OfOutcome { outcome }).inc_by(count);
    }
    let help = "Letters of this node: taken, settled by their receivers, dead, refused for want of room";
    registry.register("rhumb_outbox_events", help, outcomes);
    let twice = ConstCounter::new(report.duplicates);
    registry.register("rhumb_inbox_duplicates", "Letters that came again after they were settled", twice);
    let (count, size) = of.dead;
    registry.register(
        "rhumb_dead_letters",
        "Letters that could not be delivered",
        ConstGauge::new(signed(count)),
    );
    let help = "What dead letters weigh";
    registry.register_with_unit("rhumb_dead_letters", help, Unit::Bytes, ConstGauge::new(signed(size)));
    let (count, size) = report.keys;
    let help = "Idempotency keys that are kept or run";
    registry.register("rhumb_idempotency_keys", help, ConstGauge::new(signed(count)));
    let help = "What their answers weigh";
    registry.register_with_unit("rhumb_idempotency_keys", help, Unit::Bytes, ConstGauge::new(signed(size)));
}

fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
