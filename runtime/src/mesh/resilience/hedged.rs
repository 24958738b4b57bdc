//! Asks a second time, of somebody else, what is not answered as soon as the others were.
//!
//! * It decides nothing: [`rhumb_transport::resilience::hedge`] does.
//! * Invariant: the first answer counts; who is slower is told that nobody waits for it any more. `NotSent` is said only
//!   where neither was sent.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_core::{Delivery, Fault};
use rhumb_transport::Reply;
use rhumb_transport::resilience::budget::BudgetSettings;
use rhumb_transport::resilience::hedge::Hedges;
use tokio::time::{Instant, sleep};

use super::Resilience;

/// Hedges by the type of actors that is asked: as many as this build asks.
#[derive(Default)]
pub(super) struct OfTypes(ArcSwap<BTreeMap<&'static str, Arc<Mutex<Hedges>>>>);

impl OfTypes {
    fn of(&self, kind: &'static str, settings: BudgetSettings) -> Arc<Mutex<Hedges>> {
        if let Some(known) = self.0.load().get(kind) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(Mutex::new(Hedges::new(settings)));
        self.0.rcu(|types| {
            let mut more = BTreeMap::clone(types);
            more.entry(kind).or_insert_with(|| Arc::clone(&fresh));
            more
        });
        self.0.load().get(kind).map_or(fresh, Arc::clone)
    }
}

/// The first answer of a question, or of the same one asked a second time when that is late. The second is made only if
/// it is needed.
pub(in crate::mesh) async fn hedged<F>(
    resilience: &Resilience,
    kind: &'static str,
    first: impl Future<Output = Result<Reply, Fault>>,
    second: impl FnOnce() -> F,
) -> Result<Reply, Fault>
where
    F: Future<Output = Result<Reply, Fault>>,
{
    let hedges = resilience.hedges.of(kind, resilience.settings.hedges);
    let began = Instant::now();
    let late = hedges.lock().asked(resilience.at(began));
    let mut first = pin!(first);
    let noted = |outcome: Result<Reply, Fault>| {
        if outcome.is_ok() {
            hedges.lock().answered(began.elapsed());
        }
        outcome
    };
    let Some(late) = late else { return noted(first.await) };
    tokio::select! {
        outcome = &mut first => return noted(outcome),
        () = sleep(late) => {}
    }
    if !hedges.lock().hedges(resilience.at(Instant::now())) {
        return noted(first.await);
    }
    resilience.counts.hedged.fetch_add(1, Ordering::Relaxed);
    let mut second = pin!(second());
    // One that fails leaves it to the other.
    tokio::select! {
        outcome = &mut first => match outcome {
            Ok(reply) => noted(Ok(reply)),
            Err(other) => second.await.map_err(|last| after(last, &other)),
        },
        outcome = &mut second => match outcome {
            Ok(reply) => {
                resilience.counts.hedges_won.fetch_add(1, Ordering::Relaxed);
                noted(Ok(reply))
            }
            Err(other) => noted(first.await).map_err(|last| after(last, &other)),
        },
    }
}

/// What both have come to where the other failed too. It was not sent only where neither was.
fn after(last: Fault, other: &Fault) -> Fault {
    match (last.delivery, other.delivery) {
        (Delivery::NotSent, Delivery::Unknown | Delivery::Ran) => {
            Fault { delivery: Delivery::Unknown, ..last }
        }
        _ => last,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rhumb_core::rng::Seed;
    use rhumb_core::{DataClass, FaultKind, Guarantee, HybridTime};
    use tokio::time::sleep;

    use super::super::ResilienceSettings;
    use super::*;

    fn reply() -> Reply {
        let (class, guarantee) = (DataClass::control(), Guarantee::STRONGEST);
        Reply { class, body: Default::default(), hybrid: HybridTime::ZERO, guarantee, trace: None }
    }

    async fn fails(after: u64, delivery: Delivery) -> Result<Reply, Fault> {
        sleep(Duration::from_millis(after)).await;
        Err(Fault { delivery, ..Fault::not_sent(FaultKind::Draining) })
    }

    #[tokio::test(start_paused = true)]
    async fn where_both_fail_it_was_not_sent_only_if_neither_was() {
        use Delivery::{NotSent, Ran, Unknown};
        let resilience = Resilience::new(ResilienceSettings::default(), &Seed::new(1));
        let nobody = || async { Ok(reply()) };
        for _ in 0..30 {
            hedged(&resilience, "t", async { Ok(reply()) }, nobody).await.expect("answered");
        }
        for (first, second, want) in [
            (Unknown, NotSent, Unknown),
            (Ran, NotSent, Unknown),
            (NotSent, Unknown, Unknown),
            (NotSent, Ran, Ran),
            (NotSent, NotSent, NotSent),
            (Unknown, Ran, Ran),
        ] {
            // Whoever fails last is told of, and that may be either.
            for second_takes in [5, 500] {
                let before = resilience.counts.hedged.load(Ordering::Relaxed);
                let (a, b) = if second_takes == 5 { (second, first) } else { (first, second) };
                let told = hedged(&resilience, "t", fails(100, a), || fails(second_takes, b)).await;
                let told = told.expect_err("both have failed");
                let hedges = resilience.counts.hedged.load(Ordering::Relaxed) - before;
                assert_eq!((told.delivery, hedges), (want, 1), "{first:?}, then {second:?}");
            }
        }
    }
}
