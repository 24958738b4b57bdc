//! The loops that drive every system alike.
//!
//! * Asks: so many tasks, each of which asks again as soon as it has been answered.
//! * Tells: so many tasks, each of which tells its share one after the other; the round ends when the
//!   other side has told that all have arrived, or that no more do.
//! * A freeze: asks as above until the process that serves is stopped in the midst of them; the round
//!   ends when each task's last ask has its fault.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout, timeout_at};

use crate::process::{self, Freezing};
use crate::sample::{Latencies, Load, Sample};

/// Somebody who can ask and tell the system under test.
pub trait Caller: Send + Sync + 'static {
    /// Asks once, with a body of so many bytes, and waits for the answer.
    fn ask(&self, payload: usize) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// The caller that this sender of tells has: the same for all, where a system has nothing for each.
    fn sender(self: &Arc<Self>, number: u64) -> Arc<Self> {
        let _ = number;
        Arc::clone(self)
    }

    /// Whether this error of an ask is of the type that the system itself gives to whoever asks: never, where it has none or
    /// nobody looks.
    fn is_fault(error: &anyhow::Error) -> bool {
        let _ = error;
        false
    }

    /// Tells once, with a body of so many bytes; waits for whatever the system waits for.
    fn tell(&self, payload: usize) -> impl Future<Output = anyhow::Result<()>> + Send {
        let _ = payload;
        async { anyhow::bail!("this system is not told anything") }
    }

    /// Waits until it is known what became of all that were told. How many failed that nobody was told of yet.
    fn settled(&self) -> impl Future<Output = u64> + Send {
        async { 0 }
    }

    /// How many of all that were told have been handled.
    fn arrived(&self) -> impl Future<Output = anyhow::Result<u64>> + Send {
        async { anyhow::bail!("this system is not told anything") }
    }
}

/// What precedes every round and is not counted.
const WARM: Duration = Duration::from_millis(100);

/// Keeps `load.concurrency` asks in flight for `load.millis`.
pub async fn closed_loop<C: Caller>(caller: Arc<C>, load: Load) -> Sample {
    closed_loop_over(vec![caller], load).await
}

/// The same, over several callers: each has its share of the asks.
pub async fn closed_loop_over<C: Caller>(callers: Vec<Arc<C>>, load: Load) -> Sample {
    let begin = Instant::now() + WARM;
    let end = begin + Duration::from_millis(load.millis);
    let first = Arc::new(First::default());
    let tasks: Vec<_> = (0..load.concurrency)
        .map(|number| {
            let caller = Arc::clone(&callers[number % callers.len()]);
            let first = Arc::clone(&first);
            tokio::spawn(async move { one(&*caller, load.payload, begin, end, &first).await })
        })
        .collect();
    let (mut all, mut failed) = (Latencies::default(), 0);
    for task in tasks {
        let (latencies, wrong) = task.await.expect("a caller does not panic");
        all.add(&latencies);
        failed += wrong;
    }
    all.sample(failed, (Instant::now() - begin).as_secs_f64())
}

/// Of all errors of a round the first is said.
#[derive(Debug, Default)]
struct First(OnceLock<()>);

impl First {
    fn is(&self, error: &anyhow::Error) {
        if self.0.set(()).is_ok() {
            eprintln!("the first error of a round: {error:#}");
        }
    }
}

async fn one<C: Caller>(
    caller: &C,
    payload: usize,
    begin: Instant,
    end: Instant,
    first: &First,
) -> (Latencies, u64) {
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    let mut at = Instant::now();
    while at < end {
        let answered = caller.ask(payload).await;
        let now = Instant::now();
        if at >= begin {
            match answered {
                Ok(()) => latencies.record((now - at).as_nanos() as u64),
                Err(error) => {
                    first.is(&error);
                    failed += 1;
                }
            }
        }
        at = now;
    }
    (latencies, failed)
}

/// How many tells a round has: as many as come to its length at the pace of the round before, so that a
/// system which takes everything at once and delivers it later is not given more than it can deliver.
#[derive(Debug, Default)]
pub struct Pace(HashMap<(usize, usize), f64>);

impl Pace {
    /// The first guesses, which are not counted: 2,000 tells, and a tenth of a second.
    const FIRST: u64 = 2_000;

    /// How many tells take so long under this load.
    #[must_use]
    pub fn count(&self, load: Load, millis: u64) -> u64 {
        let known = self.0.get(&(load.concurrency, load.payload));
        known.map_or(Self::FIRST, |rate| (rate * millis as f64 / 1e3) as u64).clamp(Self::FIRST, 8_000_000)
    }

    /// So many were delivered a second.
    pub fn learn(&mut self, load: Load, sample: &Sample) {
        if sample.ops > 0 {
            self.0.insert((load.concurrency, load.payload), sample.rate());
        }
    }

    /// Whether anything is known of this load.
    #[must_use]
    pub fn knows(&self, load: Load) -> bool {
        self.0.contains_key(&(load.concurrency, load.payload))
    }
}

/// Tells for about `load.millis`.
///
/// # Errors
/// The other side does not say how many have arrived.
pub async fn tell_loop<C: Caller>(caller: &Arc<C>, load: Load, pace: &mut Pace) -> anyhow::Result<Sample> {
    if !pace.knows(load) {
        for millis in [0, 100] {
            let sample = tell_all(caller, load, pace.count(load, millis)).await?;
            pace.learn(load, &sample);
        }
    }
    let sample = tell_all(caller, load, pace.count(load, load.millis)).await?;
    pace.learn(load, &sample);
    Ok(sample)
}

/// Tells that nobody waits for give way to others after so many.
const SHARE: u64 = 64;

async fn tell_all<C: Caller>(caller: &Arc<C>, load: Load, count: u64) -> anyhow::Result<Sample> {
    let before = caller.arrived().await?;
    let begin = Instant::now();
    let (senders, first) = (load.concurrency as u64, Arc::new(First::default()));
    let tasks: Vec<_> = (0..senders)
        .map(|n| {
            let share = count / senders + u64::from(n < count % senders);
            let (caller, first) = (caller.sender(n), Arc::clone(&first));
            tokio::spawn(async move { tell_share(&*caller, load.payload, share, &first).await })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        failed += task.await?;
    }
    failed += caller.settled().await;
    let (arrived, last) = all_arrived(&**caller, before, count - failed).await?;
    let lost = (count - failed).saturating_sub(arrived);
    Ok(Sample { ops: arrived, failed, lost, seconds: (last - begin).as_secs_f64(), p50_us: 0.0, p99_us: 0.0 })
}

/// Tells so many; says how many of them failed.
async fn tell_share<C: Caller>(caller: &C, payload: usize, count: u64, first: &First) -> u64 {
    let mut failed = 0;
    for n in 0..count {
        if let Err(error) = caller.tell(payload).await {
            first.is(&error);
            failed += 1;
        }
        if n % SHARE == 0 {
            tokio::task::yield_now().await;
        }
    }
    failed
}

/// Without one more in this time, no more are awaited. A system may take long to answer behind all that it was told.
const STILL: Duration = Duration::from_secs(15);

/// How many have arrived since, and when that was first known: all that must, or all that do.
async fn all_arrived<C: Caller>(caller: &C, before: u64, must: u64) -> anyhow::Result<(u64, Instant)> {
    let (mut most, mut last, mut why) = (0, Instant::now(), None);
    loop {
        match timeout(STILL, caller.arrived()).await {
            Ok(Ok(arrived)) if arrived - before > most => (most, last) = (arrived - before, Instant::now()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => why = Some(error),
            Err(_) => why = Some(anyhow::anyhow!("nobody says how many have arrived")),
        }
        if most >= must {
            return Ok((most, last));
        }
        if last.elapsed() > STILL {
            return why.map_or(Ok((most, last)), Err);
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// How long the system works before it is frozen.
const BEFORE_FREEZE: Duration = Duration::from_millis(300);

/// Keeps `load.concurrency` asks in flight, stops the process, and waits for a typed fault of each, for
/// `load.millis` at most. The sample's seconds are from the stop to the last fault, `failed` are the
/// typed faults, and `lost` the asks that have none by then: that end in any other error, or not at all.
///
/// # Errors
/// The process cannot be stopped, or the system does not answer before it is.
pub async fn freeze<C: Caller>(caller: &Arc<C>, load: Load, pid: u32) -> anyhow::Result<Sample> {
    caller.ask(load.payload).await?;
    let tasks: Vec<_> = (0..load.concurrency)
        .map(|_| {
            let caller = Arc::clone(caller);
            tokio::spawn(async move {
                loop {
                    if let Err(error) = caller.ask(load.payload).await {
                        return (Instant::now(), error);
                    }
                }
            })
        })
        .collect();
    sleep(BEFORE_FREEZE).await;
    anyhow::ensure!(
        !tasks.iter().any(tokio::task::JoinHandle::is_finished),
        "an ask failed before the freeze"
    );
    process::signal(pid, Freezing::Stop)?;
    let (begin, end) = (Instant::now(), tokio::time::Instant::now() + Duration::from_millis(load.millis));
    let (mut latencies, mut last, mut lost) = (Latencies::default(), begin, 0);
    for task in tasks {
        let abort = task.abort_handle();
        match timeout_at(end, task).await {
            Ok(ended) => {
                let (at, error) = ended?;
                if !C::is_fault(&error) {
                    eprintln!("no fault of the system's own: {error:#}");
                    lost += 1;
                    continue;
                }
                if latencies.is_empty() {
                    eprintln!("the first fault: {error:#}");
                }
                latencies.record(at.saturating_duration_since(begin).as_nanos() as u64);
                last = last.max(at);
            }
            Err(_) => {
                abort.abort();
                lost += 1;
            }
        }
    }
    let last = if lost > 0 { Instant::now() } else { last };
    let sample = latencies.sample(latencies.len(), (last - begin).as_secs_f64());
    Ok(Sample { ops: 0, lost, ..sample })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Verb;

    #[test]
    fn a_round_of_tells_is_as_long_as_the_round_before_lets_expect() {
        let load = Load { verb: Verb::Tell, concurrency: 1, payload: 64, millis: 1_000 };
        let mut pace = Pace::default();
        assert_eq!((pace.knows(load), pace.count(load, 1_000)), (false, 2_000));
        let sample = Sample { ops: 50_000, failed: 0, lost: 0, seconds: 0.5, p50_us: 0.0, p99_us: 0.0 };
        pace.learn(load, &sample);
        assert_eq!((pace.count(load, 1_000), pace.count(load, 100)), (100_000, 10_000));
        pace.learn(load, &Sample { ops: 0, ..sample });
        assert_eq!(pace.count(load, 1_000), 100_000);
    }
}
