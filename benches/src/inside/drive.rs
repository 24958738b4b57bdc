//! The loops that measure actors of one process, the same for every system.
//!
//! A clock is read once for [`RUN`] asks in a row (it costs 34 ns each time, and a local ask a few
//! hundred): a latency is the mean of such a run. Tells go in bursts of [`RUN`], each closed by an ask to
//! the same actor, so that all that is counted has been handled.

use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};

use super::{Local, Measured};
use crate::inside::gate::Gate;
use crate::sample::{Latencies, Sample};

/// Messages between two looks at the clock.
pub const RUN: usize = 64;
/// What precedes every round and is not counted.
const WARM: Duration = Duration::from_millis(100);

/// Another actor, as one who asks and tells sees it.
pub trait Other {
    /// Asks with a number; the answer is the next one.
    fn ask(&self, number: u64) -> impl Future<Output = anyhow::Result<u64>>;
    /// Tells a number; done when the mailbox has taken it.
    fn tell(&self, number: u64) -> impl Future<Output = anyhow::Result<()>>;
}

/// Asks or tells as ordered.
pub async fn local(other: &impl Other, order: Local) -> Sample {
    let begin = Instant::now() + WARM;
    let end = begin + Duration::from_millis(order.millis);
    let (mut all, mut failed) = (Latencies::default(), 0);
    if order.concurrency == 1 {
        (all, failed) = one(other, order.tells, begin, end).await;
    } else {
        let mut each: FuturesUnordered<_> =
            (0..order.concurrency).map(|_| one(other, order.tells, begin, end)).collect();
        while let Some((latencies, wrong)) = each.next().await {
            all.add(&latencies);
            failed += wrong;
        }
    }
    all.sample(failed, (Instant::now() - begin).as_secs_f64())
}

async fn one(other: &impl Other, told: bool, begin: Instant, end: Instant) -> (Latencies, u64) {
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    let mut at = Instant::now();
    while at < end {
        let wrong = if told { tells(other).await } else { asks(other).await };
        let now = Instant::now();
        if at >= begin {
            let right = (RUN as u64).saturating_sub(wrong);
            latencies.record_many((now - at).as_nanos() as u64 / RUN as u64, right);
            failed += wrong;
        }
        at = now;
    }
    (latencies, failed)
}

/// How many went wrong.
async fn asks(other: &impl Other) -> u64 {
    let mut wrong = 0;
    for number in 0..RUN as u64 {
        wrong += u64::from(other.ask(number).await.ok() != Some(number + 1));
    }
    wrong
}

async fn tells(other: &impl Other) -> u64 {
    let mut wrong = 0;
    for number in 1..RUN as u64 {
        wrong += u64::from(other.tell(number).await.is_err());
    }
    wrong + u64::from(other.ask(0).await.is_err())
}

/// What a message of a backlog takes to handle: one that does nothing is no backlog.
pub const WORTH: Duration = Duration::from_micros(1);

/// Works for as long as a message of a backlog takes.
pub fn work() {
    let end = Instant::now() + WORTH;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// Two actors on one arbiter: one with a backlog, and its neighbour.
pub trait Crowd {
    /// Lets the one with the backlog wait at the gate.
    fn block(&self) -> impl Future<Output = anyhow::Result<()>>;
    /// Puts a message into its mailbox that is [`WORTH`] to handle.
    fn pile(&self) -> impl Future<Output = anyhow::Result<()>>;
    /// Asks it how many messages it has handled, after all that wait.
    fn handled(&self) -> impl Future<Output = anyhow::Result<u64>>;
    /// Asks the neighbour.
    fn neighbour(&self) -> impl Future<Output = anyhow::Result<u64>>;
}

/// Piles up a backlog while the arbiter stands still; the clock runs from when it goes on until the
/// neighbour has answered, whose question lay in its mailbox before.
///
/// # Errors
/// A message was refused, or lost.
pub async fn neighbour(crowd: &impl Crowd, gate: &Gate, backlog: u64) -> anyhow::Result<Measured> {
    crowd.neighbour().await?;
    let before = crowd.handled().await?;
    crowd.block().await?;
    gate.await_one();
    for _ in 0..backlog {
        crowd.pile().await?;
    }
    let mut asked = std::pin::pin!(crowd.neighbour());
    anyhow::ensure!(futures::poll!(&mut asked).is_pending(), "it answered while its arbiter stood still");
    let begin = Instant::now();
    gate.open();
    asked.await?;
    let took = begin.elapsed();
    let handled = crowd.handled().await? - before;
    let all = begin.elapsed();
    anyhow::ensure!(handled == backlog, "{handled} of {backlog} messages were handled");
    let mut latencies = Latencies::default();
    latencies.record_many(took.as_nanos() as u64, 1);
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let sample = latencies.sample(0, took.as_secs_f64());
    Ok(Measured::of(sample).with("ms", millis(took)).with("backlog_ms", millis(all)))
}

/// Actors that come into being when they are first asked.
pub trait Sleepers {
    /// Makes actor `number`, if need be, and asks it.
    fn rouse(&mut self, number: u64) -> impl Future<Output = anyhow::Result<()>>;
    /// Makes many of them, some at a time, and has each answer.
    fn rouse_all(&mut self, numbers: std::ops::Range<u64>) -> impl Future<Output = anyhow::Result<()>>;
}

/// Makes actors, and says how many bytes each of them takes and how long a new one takes to answer.
///
/// # Errors
/// One does not answer.
pub async fn idle(sleepers: &mut impl Sleepers, actors: u64, probes: u64) -> anyhow::Result<Measured> {
    // What the first ones bring with them is not the others' weight.
    let first = 1_000;
    sleepers.rouse_all(0..first).await?;
    let before = super::resident()?;
    let begin = Instant::now();
    sleepers.rouse_all(first..first + actors).await?;
    let made = begin.elapsed();
    let after = super::resident()?;
    let mut latencies = Latencies::default();
    for number in 0..probes {
        let at = Instant::now();
        sleepers.rouse(first + actors + number).await?;
        latencies.record_many(at.elapsed().as_nanos() as u64, 1);
    }
    let mut sample = latencies.sample(0, 1.0);
    (sample.ops, sample.seconds) = (actors, made.as_secs_f64());
    let bytes = after.saturating_sub(before) as f64 / actors as f64;
    Ok(Measured::of(sample).with("bytes_each", bytes).with("activation_us", sample.p50_us))
}
