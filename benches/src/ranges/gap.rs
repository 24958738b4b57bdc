//! How long nothing is acknowledged when a fault befalls the node that orders writes, as a client of another node sees it.
//!
//! Every [`EVERY`] a write begins, whatever becomes of those before it, so that none that hangs hides that others go through.
//!
//! * It decides: which stretch without an acknowledgement is the fault's, and when writes go on again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::drive::Client;
use super::{Order, VALUE, key, value};
use crate::process::{Orders, say};

/// A write begins each time.
pub const EVERY: Duration = Duration::from_millis(10);
/// How long one may take.
pub const WITHIN: Duration = Duration::from_secs(10);
/// Writes that may be under way: none is begun beside these.
const UNDER_WAY: usize = 2_000;
/// Acknowledgements before the fault.
const BEFORE: usize = 100;
/// Writes go on when acknowledgements have come so long, after the fault,
const FLOWS_FOR: Duration = Duration::from_secs(3);
/// with no pause as long as this.
const PAUSE: Duration = Duration::from_millis(200);
/// A stretch that has not ended by then does not end.
pub const CAP: Duration = Duration::from_secs(30);

/// What a client saw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The longest time between two acknowledgements that follow each other, of which the second came after the fault.
    pub millis: f64,
    /// No acknowledgement came any more: it is at least this.
    pub at_least: bool,
    /// Writes that ended in an error.
    pub failed: u64,
    /// Writes that began.
    pub begun: u64,
}

/// When writes were acknowledged, from the beginning on.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: Vec<Duration>,
    failed: u64,
    begun: u64,
}

/// The longest stretch that ends after the fault, or has not ended by now, and whether that is so.
fn longest(acknowledged: &[Duration], fault: Duration, now: Duration) -> (Duration, bool) {
    let ended = acknowledged.windows(2).filter(|two| two[1] >= fault).map(|two| two[1] - two[0]).max();
    let open = now.saturating_sub(acknowledged.last().copied().unwrap_or_default());
    match ended {
        Some(ended) if ended >= open => (ended, false),
        _ => (open, true),
    }
}

/// Whether acknowledgements have come for long enough, without a pause, after the fault.
fn flows(acknowledged: &[Duration], fault: Duration, now: Duration) -> bool {
    let since = now.saturating_sub(FLOWS_FOR);
    let first = acknowledged.partition_point(|at| *at < since);
    let all = &acknowledged[first..];
    let pauses = |two: &[Duration]| two[1] - two[0] >= PAUSE;
    since >= fault
        && all.first().is_some_and(|at| *at - since < PAUSE)
        && all.last().is_some_and(|at| now - *at < PAUSE)
        && !all.windows(2).any(pauses)
}

async fn write_on<C: Client>(client: Arc<C>, begin: Instant, seen: Arc<Mutex<Seen>>) {
    let mut writes = JoinSet::new();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for serial in 0_u64.. {
        ticks.tick().await;
        while writes.try_join_next().is_some() {}
        if writes.len() >= UNDER_WAY {
            continue;
        }
        seen.lock().begun += 1;
        let (client, seen) = (Arc::clone(&client), Arc::clone(&seen));
        writes.spawn(async move {
            let written = timeout(WITHIN, client.put(&key(serial % 1_000), &value(serial, VALUE))).await;
            let at = begin.elapsed();
            let mut seen = seen.lock();
            match written {
                Ok(Ok(())) => seen.acknowledged.push(at),
                Ok(Err(_)) | Err(_) => seen.failed += 1,
            }
        });
    }
}

/// Writes, says when writes flow, waits to be told of the fault, and says what came of it.
///
/// # Errors
/// Nothing is acknowledged before the fault; another order comes.
pub async fn probe<C: Client>(client: Arc<C>, orders: &mut Orders) -> anyhow::Result<()> {
    let (begin, seen) = (Instant::now(), Arc::new(Mutex::new(Seen::default())));
    let writer = tokio::spawn(write_on(client, begin, Arc::clone(&seen)));
    while seen.lock().acknowledged.len() < BEFORE {
        anyhow::ensure!(begin.elapsed() < CAP, "{BEFORE} writes were not acknowledged within {CAP:?}");
        sleep(EVERY).await;
    }
    say(&"flows")?;
    let order: Order = orders.next().await?.context("no fault was made")?;
    anyhow::ensure!(order == Order::Faulted, "{order:?} instead of a fault");
    let fault = begin.elapsed();
    loop {
        sleep(EVERY).await;
        let (now, seen) = (begin.elapsed(), seen.lock());
        if flows(&seen.acknowledged, fault, now) || now - fault > CAP {
            let (longest, at_least) = longest(&seen.acknowledged, fault, now);
            let millis = longest.as_secs_f64() * 1e3;
            writer.abort();
            return say(&Gap { millis, at_least, failed: seen.failed, begun: seen.begun });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn the_stretch_that_counts_ends_after_the_fault() {
        let at = Duration::from_millis;
        let acknowledged = ms(&[0, 900, 1_000, 1_010, 2_500, 2_510]);
        assert_eq!(longest(&acknowledged, at(1_005), at(2_520)), (at(1_490), false));
        assert_eq!(longest(&acknowledged, at(950), at(9_000)), (at(6_490), true), "it has not ended");
        assert_eq!(longest(&acknowledged, at(2_505), at(2_520)), (at(10), false), "the fault was not felt");
        assert_eq!(longest(&[], at(1), at(30)), (at(30), true));
    }

    #[test]
    fn writes_flow_when_they_have_for_a_while_after_the_fault() {
        let at = Duration::from_millis;
        let steady: Vec<Duration> = (0..400).map(|n| at(2_000 + n * 10)).collect();
        assert!(flows(&steady, at(1_000), at(5_990)));
        assert!(!flows(&steady, at(4_000), at(5_990)), "not long enough");
        assert!(!flows(&steady, at(1_000), at(6_500)), "they have stopped");
        assert!(!flows(&steady, at(1_000), at(4_500)), "there was none when it began");
        assert!(!flows(&[], at(1_000), at(9_000)));
    }
}
