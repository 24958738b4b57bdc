//! Asks a second time, of somebody else, what is not answered as soon as the others were.
//!
//! * It decides nothing: [`rhumb_transport::resilience::hedge`] does.
//! * Invariant: the first answer counts; who is slower is told that nobody waits for it any more.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rhumb_core::Fault;
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
            Err(_) => second.await,
        },
        outcome = &mut second => match outcome {
            Ok(reply) => {
                resilience.counts.hedges_won.fetch_add(1, Ordering::Relaxed);
                noted(Ok(reply))
            }
            Err(_) => noted(first.await),
        },
    }
}
