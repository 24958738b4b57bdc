//! Keeps the durable ceiling of hybrid time ahead of the clock.

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::time::CEILING_AHEAD;
use rhumb_storage::{Batch, CommitError, Durability, Engine, Family, HotStore, Refusal, Store};
use tokio::task::JoinHandle;

use super::halt::Halt;
use crate::clock::{NodeClock, now_millis};

/// Where the ceiling stands, below storage's prefix for clocks.
const CEILING: &[u8] = b"clock/ceiling";
/// How often the ceiling is looked at: often enough that it is raised before half of it is used up.
const LOOK_EVERY: Duration = Duration::from_millis(40);

/// Waits until the wall clock has passed the ceiling of the last life, then begins a new one under a
/// durable ceiling of its own. It waits no longer than `catch_up`. Gives the clock, and the last life's ceiling.
pub(super) async fn begin<E: Engine>(
    store: &Store<E>,
    max_offset: Duration,
    catch_up: Duration,
) -> anyhow::Result<(NodeClock, HybridTime)> {
    let last = match store.get(Family::Meta, CEILING)? {
        None => HybridTime::ZERO,
        Some(bytes) => {
            let bits =
                bytes.try_into().map_err(|_| anyhow::anyhow!("the stored clock ceiling is not 8 bytes"))?;
            HybridTime::from_bits(u64::from_be_bytes(bits))
        }
    };
    let behind = Duration::from_millis(last.millis().saturating_sub(now_millis()));
    anyhow::ensure!(
        behind <= catch_up,
        "the wall clock lies {behind:?} behind this node's last life: set it right, or it would hand out times \
         twice; a node waits {catch_up:?} at most (clock.catch_up)"
    );
    let mut said = false;
    while now_millis() <= last.millis() {
        let behind = last.millis() - now_millis();
        if behind > 1_000 && !said {
            tracing::warn!(
                behind_ms = behind,
                "the wall clock lies behind this node's last life; waiting for it"
            );
            said = true;
        }
        tokio::time::sleep(Duration::from_millis(behind.clamp(1, 1_000))).await;
    }
    let ceiling = HybridTime::new(now_millis(), 0).plus(CEILING_AHEAD);
    store.write(&batch(ceiling))?;
    store.sync()?;
    Ok((NodeClock::new(ceiling, max_offset), last))
}

/// Raises the ceiling for as long as the node lives.
pub(super) fn keep(clock: NodeClock, store: HotStore, halt: Halt) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut every = tokio::time::interval(LOOK_EVERY);
        loop {
            every.tick().await;
            let Some(ceiling) = clock.wants_ceiling() else { continue };
            match store.commit(batch(ceiling), Durability::Durable).await {
                Ok(_) => clock.raise_ceiling(ceiling),
                // Under pressure time crawls below its ceiling for a while; the next look tries again.
                Err(CommitError::Refused(Refusal::Full { .. } | Refusal::Pressed { .. })) => {}
                Err(error) => {
                    return halt.now(format!("the clock's ceiling could not be made durable: {error}"));
                }
            }
        }
    })
}

fn batch(ceiling: HybridTime) -> Batch {
    let mut batch = Batch::new();
    batch.put(Family::Meta, CEILING, ceiling.to_bits().to_be_bytes());
    batch
}
