//! A reset: an operator has a node forget what it knows of its clock (sources, peers, drift), under a new epoch, which
//! clients learn from their tokens.
//!
//! * It decides: for how long times of the present epoch are waited for.
//! * It never does: let hybrid time go back, or begin an epoch before every time of the one before has passed by what its
//!   sources agree on. The machine refuses that ([`ResetRefusal`]); meanwhile no higher ceiling is made durable and strong
//!   paths are refused, so that the times to wait for come no nearer to now.

use std::time::Duration;

use rhumb_actors::audit::AuditHandle;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::clock::ResetRefusal;
use rhumb_core::{DataClass, Epoch, Fault, FaultKind};
use rhumb_storage::{Batch, CommitError, Durability, HotStore, Refusal};
use tokio::time::sleep;

use super::Watch;
use crate::clock::keeping::Reset;
use crate::mesh::clock::{ClockReset, ResetClock};
use crate::mesh::registry::{Call, Registry, ServedTwice};
use crate::supervisor::audit;

/// How long a reset waits besides twice the offset that clocks may have: what the ceiling lies ahead, and what the sources
/// leave open.
const BESIDES: Duration = Duration::from_secs(2);
/// How often it is looked whether the times have passed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Serves [`ResetClock`].
pub(in crate::supervisor) fn serve(
    registry: &mut Registry,
    watch: &Watch,
    log: &AuditHandle,
    store: &HotStore,
) -> Result<(), ServedTwice> {
    let (watch, log, store) = (watch.clone(), log.clone(), store.clone());
    registry.serve(move |call: Call<ResetClock>| {
        let (watch, log, store) = (watch.clone(), log.clone(), store.clone());
        // In a task: who asked may go, and it is not left half done.
        let resets = async move { reset(&watch, &log, &store, call).await };
        async move {
            let done = tokio::spawn(resets).await;
            let done =
                done.unwrap_or_else(|panic| Err(Fault::unknown(FaultKind::Panicked(panic.to_string()))));
            Ok((done?, DataClass::control()))
        }
    })
}

async fn reset(
    watch: &Watch,
    log: &AuditHandle,
    store: &HotStore,
    call: Call<ResetClock>,
) -> Result<Result<ClockReset, String>, Fault> {
    let (before, to) = (watch.clock.epoch(), Epoch(call.message.epoch));
    if before >= to {
        return Ok(Ok(ClockReset { before: before.0, epoch: before.0, waited_ms: 0 }));
    }
    let keeping = watch.clock.keeping();
    let keeping =
        keeping.ok_or_else(|| Fault::not_sent(FaultKind::Handler("this clock has no keeper".into())))?;
    let record = Record::told("clock.reset", "", Outcome::Begun)
        .on(format!("node {}", watch.me))
        .with("epoch", to.to_string());
    let begun = audit::begin(log, &call.from, record).await?;
    let began = watch.clock.mono();
    let next = match keeping.hold() {
        Err(refusal) => Err(refusal.to_string()),
        // Somebody else asked meanwhile, and it is done.
        Ok(_held) if watch.clock.epoch() >= to => Ok(watch.clock.epoch()),
        Ok(_held) => match passes(watch, to).await {
            Err(refusal) => Err(refusal.to_string()),
            Ok(Reset { batch, epoch }) => kept(store, batch).await.map(|()| {
                watch.tell(watch.clock.has_reset(epoch));
                epoch
            }),
        },
    };
    let waited_ms = watch.clock.mono().since(began).as_millis() as u64;
    match next {
        Ok(epoch) => {
            tracing::warn!(by = %call.from.principal, %before, %epoch, "this node's clock was reset");
            begun.ended(Outcome::Done, Some(format!("epoch {before} became {epoch}"))).await?;
            Ok(Ok(ClockReset { before: before.0, epoch: epoch.0, waited_ms }))
        }
        Err(why) => {
            begun.ended(Outcome::Refused, Some(why.clone())).await?;
            Ok(Err(why))
        }
    }
}

/// Makes a new epoch durable, however long the store is under pressure: what the keeper has begun is not taken back. Any other
/// failure stops the node, as that of a ceiling does.
async fn kept(store: &HotStore, batch: Batch) -> Result<(), String> {
    loop {
        match store.commit(batch.clone(), Durability::Durable).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Refused(Refusal::Full { .. } | Refusal::Pressed { .. })) => {
                sleep(LOOK_EVERY).await
            }
            Err(error) => return Err(format!("the new epoch could not be made durable: {error}")),
        }
    }
}

/// Waits until the times of the present epoch have passed.
async fn passes(watch: &Watch, to: Epoch) -> Result<Reset, ResetRefusal> {
    let until = watch.clock.mono().plus(watch.clock.max_offset() * 2 + BESIDES);
    loop {
        let (became, begun) = watch.clock.reset(to);
        watch.tell(became);
        match begun {
            Err(ResetRefusal::TooEarly(_)) if watch.clock.mono() < until => sleep(LOOK_EVERY).await,
            ended => return ended,
        }
    }
}
