//! How old what this node answers is, and whether its replicas are too far behind.
//!
//! * It decides: when the replicas of a keyspace here are behind ([`Staleness::looked`]): for [`PATIENCE`] further than three
//!   times what they are behind when all is well. Reads within a bound then go to the leaseholder, or are refused.
//! * It never does: hold a read back, or name a key. A read is counted once, by the node that was asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rhumb_actors::ranges::RangeSettings;
use rhumb_actors::ranges::catalog::META;
use rhumb_actors::ranges::messages::{KvAnswer, KvRefusal, Needs};
use rhumb_core::{Guarantee, HybridTime};
use tokio::time::Instant;

use super::Ranges;
use crate::metrics::Steps;
use crate::metrics::exposition::Page;
use crate::telemetry::{Span, names};

/// How often replicas are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For how long they may be behind before anybody is told: as long as one that was down needs to catch up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The upper bounds of the ages' buckets, in milliseconds. A replica nearby is 3 to 4 s behind when all is well.
const BOUNDS_MS: [u64; 14] =
    [0, 100, 500, 1_000, 2_000, 3_000, 3_500, 4_000, 5_000, 7_500, 10_000, 30_000, 60_000, 600_000];

const AGES: &str = "rhumb_kv_read_age_seconds";

/// Ages of answers, by bucket.
#[derive(Debug, Default)]
struct Ages {
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_ms: AtomicU64,
}

impl Ages {
    fn record(&self, age: Duration) {
        let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn steps(&self) -> Steps {
        let bounds = BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        Steps::new(bounds.zip(counts).collect(), self.sum_ms.load(Ordering::Relaxed) as f64 / 1e3)
    }
}

/// How far the replicas of a keyspace here are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lag {
    /// The one that is furthest.
    worst: Duration,
    /// Since when that is too much.
    since: Option<Instant>,
    /// Whether it has been told.
    told: bool,
}

/// The replicas of a keyspace are behind, or no longer.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Behind(String, Duration),
    Well(String),
}

/// What is known here of the age of answers.
#[derive(Debug, Default)]
pub(super) struct Staleness {
    /// By level, the weakest first.
    ages: [Ages; Guarantee::ALL.len()],
    fallbacks: AtomicU64,
    violated: AtomicU64,
    lags: Mutex<BTreeMap<String, Lag>>,
}

impl Staleness {
    /// A read that this node was asked for has ended so. One as of an older time is as old as was asked for: that is no staleness.
    pub(super) fn read(&self, needs: Needs, outcome: &Result<KvAnswer, KvRefusal>) {
        match outcome {
            Ok(answer) => {
                if !matches!(needs, Needs::AsOf(_)) {
                    self.ages[answer.level as usize].record(answer.age);
                }
                self.fallbacks.fetch_add(u64::from(answer.fallback), Ordering::Relaxed);
            }
            Err(KvRefusal::StalenessBoundViolated { .. }) => {
                self.violated.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {}
        }
    }

    /// How far the replicas of each keyspace are behind now.
    fn looked(&self, now: Instant, worst: BTreeMap<String, Duration>, bound: Duration) -> Vec<Became> {
        let mut lags = self.lags.lock();
        let mut became = Vec::new();
        lags.retain(|name, _| worst.contains_key(name));
        for (name, worst) in worst {
            let before = lags.get(&name).copied();
            let since = (worst > bound).then(|| before.and_then(|before| before.since).unwrap_or(now));
            let told = since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
            match (before.is_some_and(|before| before.told), told) {
                (false, true) => became.push(Became::Behind(name.clone(), worst)),
                (true, false) => became.push(Became::Well(name.clone())),
                _ => {}
            }
            lags.insert(name, Lag { worst, since, told });
        }
        became
    }

    /// The keyspaces whose replicas here are behind, and how far.
    fn behind(&self) -> Vec<(String, Duration)> {
        let lags = self.lags.lock();
        lags.iter().filter(|(_, lag)| lag.told).map(|(name, lag)| (name.clone(), lag.worst)).collect()
    }

    fn metrics(&self, registry: &mut Registry, page: &mut Page) {
        page.histogram(AGES, "How old answers to reads of keyspaces may have been, by their level");
        for (level, ages) in Guarantee::ALL.into_iter().zip(&self.ages) {
            page.steps(AGES, &[("level", level.word())], &ages.steps());
        }
        let fallbacks = self.fallbacks.load(Ordering::Relaxed);
        let help = "Reads that no near replica could answer: the leaseholder did";
        page.counter("rhumb_kv_read_fallbacks", help, fallbacks as f64);
        let violated = self.violated.load(Ordering::Relaxed);
        let help = "Reads that were refused because nothing at hand was fresh enough";
        page.counter("rhumb_kv_staleness_refused", help, violated as f64);
        let lags = self.lags.lock();
        let family = Family::<OfKeyspace, Gauge<f64, AtomicU64>>::default();
        for (name, lag) in &*lags {
            family.get_or_create(&OfKeyspace { keyspace: name.clone() }).set(lag.worst.as_secs_f64());
        }
        let help = "How far the closed timestamp of a keyspace's replica here is behind the clock, the worst of them";
        registry.register_with_unit("rhumb_range_behind", help, Unit::Seconds, family);
        let told = lags.values().filter(|lag| lag.told).count();
        page.gauge("rhumb_ranges_stale", "Keyspaces whose replicas here are too far behind", told as f64);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKeyspace {
    keyspace: String,
}

/// What a read was, for its span.
pub(super) fn shown(answer: &KvAnswer) {
    if let Some(span) = Span::current() {
        span.set(KeyValue::new(names::GUARANTEE, answer.level.word()));
        let age = i64::try_from(answer.age.as_millis()).unwrap_or(i64::MAX);
        span.set(KeyValue::new(names::AGE_MS, age));
    }
}

impl Ranges {
    /// Looks at how far replicas here are behind. It does not end.
    pub(super) async fn watch(&self) {
        let begun = Instant::now();
        let usual = RangeSettings::default().lag + self.0.parts.max_offset;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let worst = self.lags(begun.elapsed()).await;
            for became in self.0.staleness.looked(Instant::now(), worst, 3 * usual) {
                match became {
                    Became::Behind(keyspace, by) => tracing::error!(
                        keyspace,
                        ?by,
                        "replicas here are too far behind: reads within a bound go to the leaseholder, or are refused"
                    ),
                    Became::Well(keyspace) => tracing::info!(keyspace, "replicas here have caught up"),
                }
            }
        }
    }

    async fn lags(&self, up: Duration) -> BTreeMap<String, Duration> {
        let Ok(host) = self.host() else { return BTreeMap::new() };
        let mut worst = BTreeMap::<String, Duration>::new();
        for group in host.groups() {
            let (keyspace, closed) = {
                let replica = group.replica().await;
                (replica.descriptor().keyspace.0, replica.closed())
            };
            let name = match group.range() {
                META => Some("meta".to_owned()),
                _ => {
                    let spaces = self.0.keyspaces.read();
                    spaces.values().find(|space| space.id == keyspace).map(|space| space.name.clone())
                }
            };
            let behind = self.0.parts.clock.hybrid().millis().saturating_sub(closed.millis());
            // Of one that has heard of nothing yet nobody knows more.
            let behind = if closed == HybridTime::ZERO { up } else { Duration::from_millis(behind) };
            if let Some(name) = name {
                let of = worst.entry(name).or_default();
                *of = behind.max(*of);
            }
        }
        worst
    }

    /// What this node tells of the age of its answers, of ranges that were split, and of who is there.
    pub(in crate::supervisor) fn metrics(&self, registry: &mut Registry, page: &mut Page) {
        self.0.staleness.metrics(registry, page);
        self.tell_splits(page);
        if let Ok(host) = self.host() {
            let (all, rest) = (host.groups().len() as f64, host.resting() as f64);
            page.gauge("rhumb_range_replicas", "Replicas of ranges here", all);
            page.gauge(
                "rhumb_range_replicas_resting",
                "Replicas here whose consensus rests, for nothing happens",
                rest,
            );
        }
        self.tell_failover(page);
        self.tell_version(page);
        self.tell_placement(page);
        self.tell_integrity(page);
    }

    /// The keyspaces whose replicas here are too far behind, with how far in milliseconds.
    pub(in crate::supervisor) fn behind(&self) -> BTreeMap<String, u64> {
        let ms = |by: Duration| u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.0.staleness.behind().into_iter().map(|(name, by)| (name, ms(by))).collect()
    }
}

#[cfg(test)]
mod tests {
    use rhumb_core::Region;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn replicas_are_behind_when_they_are_it_for_a_while_and_it_is_told_once() {
        let (staleness, begun) = (Staleness::default(), Instant::now());
        let look = |at: u64, lag: u64| {
            let worst = BTreeMap::from([("profiles".to_owned(), secs(lag))]);
            staleness.looked(begun + secs(at), worst, secs(10))
        };
        assert_eq!(look(0, 40), []);
        assert_eq!(look(9, 40), [], "one that was down catches up");
        assert_eq!(look(9, 10), []);
        assert_eq!(look(10, 11), []);
        assert_eq!(look(19, 12), [], "it was well in between");
        assert_eq!(look(20, 13), [Became::Behind("profiles".to_owned(), secs(13))]);
        assert_eq!(staleness.behind(), [("profiles".to_owned(), secs(13))]);
        assert_eq!(look(21, 14), [], "once");
        assert_eq!(look(22, 3), [Became::Well("profiles".to_owned())]);
        assert_eq!(staleness.behind(), []);
        assert_eq!(look(23, 40), []);
        assert_eq!(staleness.looked(begun + secs(90), BTreeMap::new(), secs(10)), [], "it has moved away");
    }

    #[test]
    fn what_was_asked_for_as_of_an_older_time_is_not_stale() {
        let staleness = Staleness::default();
        let answer = Ok(KvAnswer {
            rows: Vec::new(),
            next: None,
            level: Guarantee::Snapshot,
            at: HybridTime::ZERO,
            age: Duration::from_secs(3_600),
            region: Region::new("us").expect("valid"),
            replica: 1,
            fallback: false,
            token: Vec::new(),
            erased: 0,
        });
        let counted =
            || staleness.ages[Guarantee::Snapshot as usize].steps().buckets.iter().any(|(_, n)| *n > 0);
        staleness.read(Needs::AsOf(HybridTime::ZERO), &answer);
        assert!(!counted());
        staleness.read(Needs::Bounded(Duration::from_secs(4_000)), &answer);
        assert!(counted());
    }

    #[test]
    fn an_age_falls_into_the_first_bucket_that_holds_it() {
        for (ms, bound) in [(0, 0.0), (1, 0.1), (3_500, 3.5), (3_501, 4.0), (600_001, f64::INFINITY)] {
            let ages = Ages::default();
            ages.record(Duration::from_millis(ms));
            let filled: Vec<_> = ages.steps().buckets.into_iter().filter(|(_, count)| *count > 0).collect();
            assert_eq!(filled, [(bound, 1)], "{ms} ms");
        }
    }
}
