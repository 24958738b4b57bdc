//! The closed loop that drives every system alike: so many tasks, each of which asks again as soon as
//! it has been answered.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sample::{Latencies, Load, Sample};

/// Somebody who can ask the system under test.
pub trait Caller: Send + Sync + 'static {
    /// Asks once, with a body of so many bytes, and waits for the answer.
    fn ask(&self, payload: usize) -> impl Future<Output = anyhow::Result<()>> + Send;
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
    let tasks: Vec<_> = (0..load.concurrency)
        .map(|number| {
            let caller = Arc::clone(&callers[number % callers.len()]);
            tokio::spawn(async move { one(&*caller, load.payload, begin, end).await })
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

async fn one<C: Caller>(caller: &C, payload: usize, begin: Instant, end: Instant) -> (Latencies, u64) {
    let (mut latencies, mut failed) = (Latencies::default(), 0);
    let mut at = Instant::now();
    while at < end {
        let answered = caller.ask(payload).await;
        let now = Instant::now();
        if at >= begin {
            match answered {
                Ok(()) => latencies.record((now - at).as_nanos() as u64),
                Err(_) => failed += 1,
            }
        }
        at = now;
    }
    (latencies, failed)
}
