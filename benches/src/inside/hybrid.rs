//! Hybrid time: a node's clock as it runs in production and uhlc's, each reading the wall clock for every
//! timestamp: Rhumb's the kernel's coarse one, uhlc's the exact one.
//!
//! A merge takes a timestamp into account that another clock of the same kind makes just before, one of the thread's own: what
//! the clock makes afterwards is later. The figure has both, the timestamp and its merge. The clock's end is how far its last
//! timestamp is ahead of the wall clock when the last thread has ended.

use std::sync::Barrier;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rhumb::clock::NodeClock;
use rhumb_core::HybridTime;
use uhlc::{HLC, HLCBuilder};

use super::{Measured, Order, obey};
use crate::sample::Latencies;

/// Timestamps between two looks at the time.
const RUN: usize = 4_096;

/// A clock that threads share.
trait Clock: Sync {
    /// Another clock of this kind.
    type Peer;
    fn peer(&self) -> Self::Peer;
    fn tick(&self);
    /// Takes the next timestamp of the other one into account.
    fn merge(&self, peer: &Self::Peer);
    /// How far its last timestamp is ahead of the wall clock, in milliseconds.
    fn ahead_ms(&self) -> f64;
}

/// Rhumb's.
struct Ours(NodeClock);

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// One whose ceiling is out of reach.
fn node_clock() -> NodeClock {
    NodeClock::new(HybridTime::new((1 << 48) - 1, 0), Duration::from_millis(500))
}

impl Clock for Ours {
    type Peer = NodeClock;

    fn peer(&self) -> NodeClock {
        node_clock()
    }

    fn tick(&self) {
        std::hint::black_box(self.0.hybrid());
    }

    fn merge(&self, peer: &NodeClock) {
        self.0.merge(peer.hybrid()).expect("no drift");
    }

    fn ahead_ms(&self) -> f64 {
        let last = self.0.last();
        // What stands in the counter is at most one millisecond of the word.
        let millis = last.millis() as f64 + f64::from(last.counter()) / 65_536.0;
        (millis - wall().as_secs_f64() * 1e3).max(0.0)
    }
}

struct Theirs(HLC);

impl Clock for Theirs {
    type Peer = HLC;

    fn peer(&self) -> HLC {
        HLCBuilder::new().build()
    }

    fn tick(&self) {
        std::hint::black_box(self.0.new_timestamp());
    }

    fn merge(&self, peer: &HLC) {
        self.0.update_with_timestamp(&peer.new_timestamp()).expect("no drift");
    }

    fn ahead_ms(&self) -> f64 {
        let last = self.0.new_timestamp().get_time().to_duration();
        (last.as_secs_f64() - wall().as_secs_f64()).max(0.0) * 1e3
    }
}

fn measure(clock: &impl Clock, merge: bool, threads: usize, millis: u64) -> Measured {
    let together = Barrier::new(threads);
    let run = || {
        let peer = clock.peer();
        together.wait();
        let begin = Instant::now();
        let end = begin + Duration::from_millis(millis);
        let (mut latencies, mut at) = (Latencies::default(), begin);
        while at < end {
            (0..RUN).for_each(|_| if merge { clock.merge(&peer) } else { clock.tick() });
            let now = Instant::now();
            // In tenths of nanoseconds: a timestamp takes tens of them.
            latencies.record_many((now - at).as_nanos() as u64 * 10 / RUN as u64, RUN as u64);
            at = now;
        }
        (latencies, begin.elapsed())
    };
    let (mut all, mut longest) = (Latencies::default(), Duration::ZERO);
    std::thread::scope(|scope| {
        let each: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in each {
            let (latencies, took) = thread.join().expect("no panic");
            all.add(&latencies);
            longest = longest.max(took);
        }
    });
    let ahead = clock.ahead_ms();
    let mut sample = all.sample(0, longest.as_secs_f64());
    (sample.p50_us, sample.p99_us) = (sample.p50_us / 10.0, sample.p99_us / 10.0);
    Measured::of(sample).with("ns_each", 1e9 * threads as f64 / sample.rate()).with("ahead_ms", ahead)
}

/// Obeys orders in this process, with Rhumb's clock.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn ours() -> anyhow::Result<()> {
    obey(|order| {
        let Order::Hybrid { merge, threads, millis } = order else { anyhow::bail!("only time is kept here") };
        Ok(measure(&Ours(node_clock()), merge, threads, millis))
    })
}

/// Obeys orders in this process, with uhlc's.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn theirs() -> anyhow::Result<()> {
    obey(|order| {
        let Order::Hybrid { merge, threads, millis } = order else { anyhow::bail!("only time is kept here") };
        Ok(measure(&Theirs(HLCBuilder::new().build()), merge, threads, millis))
    })
}
