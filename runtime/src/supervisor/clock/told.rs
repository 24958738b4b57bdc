//! What a node tells of its clock: in its status, and in its metrics.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::clock::{ClockReport, Doubt, Interval, PeerReport, SourceReport, Standing, Verdict};

use crate::clock::{NodeClock, discipline};
use crate::mesh::status::{ClockDrill, ClockKernel, ClockPeer, ClockSource, ClockStatus, ClockWord};
use crate::metrics::Durations;
use crate::metrics::exposition::Page;

/// The histograms' names.
const OFFSETS: &str = "rhumb_clock_peer_offset_distribution_seconds";
const UNCERTAINTY: &str = "rhumb_clock_uncertainty_distribution_seconds";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVerdict {
    verdict: &'static str,
}

/// How the clock stands, for an operator.
pub(in crate::supervisor) fn status(clock: &NodeClock, max_offset: Duration) -> ClockStatus {
    let wall_ms = u64::try_from(clock.wall_micros() / 1_000).unwrap_or(0);
    let max_offset_ms = max_offset.as_millis() as u64;
    let of_itself = ClockStatus { wall_ms, max_offset_ms, ..ClockStatus::default() };
    let (Some(report), Some(keeping)) = (clock.report(), clock.keeping()) else { return of_itself };
    let now = clock.mono();
    let (doubts, counts) = (doubts(&report.standing), keeping.counts());
    let p99 = |of: &Durations| of.quantile(0.99).map(|seconds| (seconds * 1e6) as u64);
    ClockStatus {
        standing: report.standing.name().to_owned(),
        frozen: report.standing.frozen().map(|freeze| word(freeze.name(), freeze.to_string())),
        doubts: doubts.iter().map(|doubt| word(doubt.name(), doubt.to_string())).collect(),
        epoch: report.epoch.0,
        offset_us: report.offset.map(Interval::middle),
        offset_error_us: report.offset.map(half),
        uncertainty_us: report.uncertainty.map(micros),
        drift_ppm: report.drift_ppm.map(|rate| (rate.low(), rate.high())),
        sources: report.sources.iter().map(source).collect(),
        peers: report.peers.iter().map(peer).collect(),
        kernel: discipline::read().map(|said| ClockKernel {
            disciplined: said.disciplined,
            max_error_us: micros(said.max_error),
            frequency_ppb: said.frequency_ppb,
        }),
        drill: keeping.drill(now).map(|drill| ClockDrill {
            ahead_ms: drill.ahead_ms,
            left_ms: drill.until.since(now).as_millis() as u64,
        }),
        freezes: counts.freezes,
        refused: counts.refused,
        offset_p99_us: p99(keeping.offsets()),
        uncertainty_p99_us: p99(keeping.uncertainty()),
        ..of_itself
    }
}

fn doubts(standing: &Standing) -> &[Doubt] {
    match standing {
        Standing::Degraded(doubts) => doubts,
        Standing::Synchronised | Standing::Frozen(_) => &[],
    }
}

fn word(kind: &str, message: String) -> ClockWord {
    ClockWord { kind: kind.to_owned(), message }
}

fn source(of: &SourceReport) -> ClockSource {
    ClockSource {
        name: of.name.clone(),
        verdict: verdict(of.verdict).to_owned(),
        offset_us: of.offset.map(Interval::middle),
        error_us: of.offset.map(half),
        age_ms: of.age.map(|age| age.as_millis() as u64),
    }
}

fn verdict(of: Verdict) -> &'static str {
    match of {
        Verdict::Agrees => "agrees",
        Verdict::Outlier => "outlier",
        Verdict::Undecided => "undecided",
        Verdict::Silent => "silent",
    }
}

fn peer(of: &PeerReport) -> ClockPeer {
    ClockPeer {
        node: of.node.to_string(),
        offset_us: of.offset.middle(),
        error_us: half(of.offset),
        age_ms: of.age.as_millis() as u64,
        off: of.off,
    }
}

fn half(of: Interval) -> u64 {
    u64::try_from(of.half_width()).unwrap_or(0)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The metrics of the clock. As many series as nodes, and a few fixed words.
pub(in crate::supervisor) fn metrics(registry: &mut Registry, page: &mut Page, clock: &NodeClock) {
    let refused = ConstCounter::new(clock.merges_refused());
    registry.register("rhumb_clock_merges_refused", "Times of peers that were too far ahead", refused);
    let (Some(report), Some(keeping)) = (clock.report(), clock.keeping()) else { return };
    let (doubts, counts) = (doubts(&report.standing), keeping.counts());
    let drifts = doubts.iter().any(|doubt| matches!(doubt, Doubt::Drifts { .. }));
    let frozen = report.standing.frozen().is_some();
    for (name, help, on) in [
        ("rhumb_clock_frozen", "Whether strong paths are refused for this node's clock", frozen),
        (
            "rhumb_clock_drifts",
            "Whether this machine's clock certainly runs faster or slower than it may",
            drifts,
        ),
    ] {
        registry.register(name, help, ConstGauge::new(u64::from(on)));
    }
    registry.register("rhumb_clock_epoch", "The epoch of this node's clock", ConstGauge::new(report.epoch.0));
    let (froze, refused) = (ConstCounter::new(counts.freezes), ConstCounter::new(counts.refused));
    registry.register("rhumb_clock_freezes", "Times that strong paths were frozen", froze);
    registry.register(
        "rhumb_clock_strong_refused",
        "Times that were asked for by strong paths and refused",
        refused,
    );
    seen(registry, &report);
    for (name, help, of) in [
        (OFFSETS, "How far other nodes' wall clocks were off from this one's", keeping.offsets()),
        (UNCERTAINTY, "How far true time may have been from this node's wall clock", keeping.uncertainty()),
    ] {
        page.histogram(name, help);
        page.steps(name, &[], &of.steps());
    }
}

fn seen(registry: &mut Registry, report: &ClockReport) {
    let seconds = |micros: i64| micros as f64 / 1e6;
    let offsets = Family::<OfPeer, Gauge<f64, AtomicU64>>::default();
    for peer in &report.peers {
        let label = OfPeer { peer: peer.node.to_string() };
        offsets.get_or_create(&label).set(seconds(peer.offset.middle()));
    }
    let help = "How far another node's wall clock is ahead of this one's";
    registry.register_with_unit("rhumb_clock_peer_offset", help, Unit::Seconds, offsets);
    let (off, help) =
        (ConstGauge::new(report.off_peers as u64), "Other nodes whose clocks certainly differ by too much");
    registry.register("rhumb_clock_peers_off", help, off);
    if let Some(uncertainty) = report.uncertainty {
        let (now, help) = (uncertainty.as_secs_f64(), "How far true time may be from this node's wall clock");
        registry.register_with_unit("rhumb_clock_uncertainty", help, Unit::Seconds, ConstGauge::new(now));
    }
    if let Some(rate) = report.drift_ppm {
        let help = "How many parts in a million true time runs faster than this machine's clock";
        registry.register("rhumb_clock_drift_ppm", help, ConstGauge::new(rate.middle()));
    }
    if !report.sources.is_empty() {
        let sources = Family::<OfVerdict, Gauge>::default();
        for known in [Verdict::Agrees, Verdict::Outlier, Verdict::Undecided, Verdict::Silent] {
            let count = report.sources.iter().filter(|source| source.verdict == known).count();
            let label = OfVerdict { verdict: verdict(known) };
            sources.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        registry.register("rhumb_clock_sources", "Sources of time, by what became of them", sources);
    }
}
