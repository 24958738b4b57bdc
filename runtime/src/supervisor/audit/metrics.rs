//! What a node tells of its audit log on its page of metrics.
//!
//! It decides nothing: the log has counted. As many series as actions (64, and one for all others), log witnesses, and a
//! few fixed words.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::audit::AuditReport;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAction {
    action: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPeer {
    peer: String,
}

/// The metrics of the audit log; `faults` is how many the checks in the background have found.
pub(in crate::supervisor) fn metrics(registry: &mut Registry, report: &AuditReport, faults: usize) {
    appends(registry, report);
    for (name, help, value) in [
        ("rhumb_audit_log_entries", "Entries of the audit log, with those that were pruned", report.entries),
        ("rhumb_audit_signed_entries", "Entries under its last signed checkpoint", report.signed),
        (
            "rhumb_audit_published_entries",
            "Entries under its last checkpoint that a quorum of log witnesses has cosigned",
            report.published,
        ),
        ("rhumb_audit_mark_entries", "Entries that were pruned: the log begins behind them", report.mark),
        ("rhumb_audit_subjects", "Subjects whose keys are here", report.subjects),
        (
            "rhumb_audit_broken",
            "Whether the log signs nothing any more: its disk is an old copy, or was changed",
            u64::from(report.broken),
        ),
        (
            "rhumb_audit_accused_logs",
            "Other nodes' logs against which this node has evidence",
            report.accused,
        ),
        (
            "rhumb_audit_disbelieved_peers",
            "Nodes that show another audit key than the one that is pinned",
            report.disbelieved,
        ),
        (
            "rhumb_audit_faults",
            "What the checks of the log on this disk have found and is not sound",
            faults as u64,
        ),
    ] {
        registry.register(name, help, ConstGauge::new(value));
    }
    let mut seconds = |name, help, value: Duration| {
        registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(value.as_secs_f64()));
    };
    let help = "Since a checkpoint was published last; since the start where none was. Without new entries there is none";
    seconds("rhumb_audit_checkpoint_age", help, report.published_age);
    if let Some(oldest) = report.oldest {
        seconds("rhumb_audit_oldest_entry_age", "How old the first entry is that was not pruned", oldest);
    }
    witnesses(registry, report);
}

fn appends(registry: &mut Registry, report: &AuditReport) {
    let (appended, refused) =
        (Family::<OfAction, Counter>::default(), Family::<OfReason, Counter>::default());
    for (action, count) in &report.appended {
        appended.get_or_create(&OfAction { action: action.clone() }).inc_by(*count);
    }
    registry.register("rhumb_audit_appends", "Entries that were appended, by action", appended);
    for (reason, count) in &report.refused {
        refused.get_or_create(&OfReason { reason }).inc_by(*count);
    }
    registry.register("rhumb_audit_not_appended", "Records that are not in the audit log, by why", refused);
    for (name, help, count) in [
        (
            "rhumb_audit_folded",
            "Refusals and passages by exception that were told as a count with others of their kind",
            report.folded,
        ),
        ("rhumb_audit_missed", "Things that were seen and that there was no room to tell of", report.missed),
        ("rhumb_audit_erased_subjects", "Subjects that were erased: their keys are destroyed", report.erased),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
}

fn witnesses(registry: &mut Registry, report: &AuditReport) {
    let (lag, silent) =
        (Family::<OfPeer, Gauge>::default(), Family::<OfPeer, Gauge<f64, AtomicU64>>::default());
    for (peer, watched) in &report.witnesses {
        let label = OfPeer { peer: peer.to_string() };
        lag.get_or_create(&label).set(i64::try_from(watched.lag).unwrap_or(i64::MAX));
        silent.get_or_create(&label).set(watched.silent.as_secs_f64());
    }
    let help = "Entries of the last signed checkpoint that a log witness has not cosigned";
    registry.register("rhumb_audit_witness_lag_entries", help, lag);
    let help = "Since the last cosignature of a log witness; since the start where there was none";
    registry.register_with_unit("rhumb_audit_witness_silence", help, Unit::Seconds, silent);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use prometheus_client::encoding::text::encode;
    use rhumb_actors::audit::report::Watched;

    use super::*;

    #[test]
    fn what_was_counted_is_told_by_name() {
        let silent = Duration::from_millis(1_500);
        let report = AuditReport {
            appended: BTreeMap::from([("node.start".into(), 1), ("_other".into(), 9)]),
            refused: BTreeMap::from([("overloaded", 3)]),
            folded: 4,
            missed: 2,
            entries: 1_000,
            signed: 990,
            published: 900,
            mark: 512,
            oldest: Some(Duration::from_secs(60)),
            published_age: Duration::from_secs(7),
            witnesses: BTreeMap::from([("eu/n1".parse().expect("a node"), Watched { lag: 90, silent })]),
            broken: true,
            accused: 1,
            disbelieved: 2,
            subjects: 11,
            erased: 5,
        };
        let mut registry = Registry::default();
        metrics(&mut registry, &report, 6);
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes it");
        let mut series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        series.sort_unstable();
        expect![[r#"
            rhumb_audit_accused_logs 1
            rhumb_audit_appends_total{action="_other"} 9
            rhumb_audit_appends_total{action="node.start"} 1
            rhumb_audit_broken 1
            rhumb_audit_checkpoint_age_seconds 7.0
            rhumb_audit_disbelieved_peers 2
            rhumb_audit_erased_subjects_total 5
            rhumb_audit_faults 6
            rhumb_audit_folded_total 4
            rhumb_audit_log_entries 1000
            rhumb_audit_mark_entries 512
            rhumb_audit_missed_total 2
            rhumb_audit_not_appended_total{reason="overloaded"} 3
            rhumb_audit_oldest_entry_age_seconds 60.0
            rhumb_audit_published_entries 900
            rhumb_audit_signed_entries 990
            rhumb_audit_subjects 11
            rhumb_audit_witness_lag_entries{peer="eu/n1"} 90
            rhumb_audit_witness_silence_seconds{peer="eu/n1"} 1.5"#]]
        .assert_eq(&series.join("\n"));
    }
}
