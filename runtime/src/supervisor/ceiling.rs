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
/// How long a start sleeps at most before it looks at the wall clock again, which may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

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
    while let Some(wait) = wait_before(last, now_millis()) {
        if wait == LONGEST_WAIT && !said {
            tracing::warn!(ceiling = %last, "the wall clock lies behind this node's last life; waiting for it");
            said = true;
        }
        tokio::time::sleep(wait).await;
    }
    let ceiling = first_ceiling(last, now_millis());
    store.write(&batch(ceiling))?;
    store.sync()?;
    Ok((clock(last, ceiling, max_offset), last))
}

/// The first ceiling of a life whose wall clock had passed the last one's. It may have been stepped back since.
fn first_ceiling(last: HybridTime, now_ms: u64) -> HybridTime {
    HybridTime::new(now_ms, 0).max(last).plus(CEILING_AHEAD)
}

/// A clock that goes on where the last life may have ended.
fn clock(last: HybridTime, ceiling: HybridTime, max_offset: Duration) -> NodeClock {
    let clock = NodeClock::new(ceiling, max_offset);
    clock.begin_above(last);
    clock
}

/// How long is waited, at a wall clock of `now_ms`, before it is looked at again; `None` when it has passed the ceiling.
/// The clock is read once for each look: it goes on between two readings.
fn wait_before(last: HybridTime, now_ms: u64) -> Option<Duration> {
    let behind = last.millis().checked_sub(now_ms)?;
    Some(Duration::from_millis(behind.max(1)).min(LONGEST_WAIT))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_waits_until_the_wall_clock_has_passed_the_ceiling() {
        let last = HybridTime::new(5_000, 7);
        let waits =
            [0, 4_000, 4_990, 4_999, 5_000].map(|now| wait_before(last, now).map(|wait| wait.as_millis()));
        assert_eq!(waits, [Some(1_000), Some(1_000), Some(10), Some(1), Some(1)]);
        assert_eq!(wait_before(last, 5_001), None);
        assert_eq!(wait_before(last, u64::MAX), None);
    }

    #[test]
    fn a_wall_clock_that_is_stepped_back_during_a_start_takes_hybrid_time_nowhere() {
        // It had passed the last ceiling, and lies five seconds before it now.
        let now = now_millis();
        let last = HybridTime::new(now + 5_000, 3);
        let ceiling = first_ceiling(last, now);
        assert!(ceiling > last, "no ceiling is ever below an earlier one");
        let clock = clock(last, ceiling, Duration::from_millis(500));
        let (first, second) = (clock.hybrid(), clock.hybrid());
        assert!(last < first && first < second && second < ceiling, "{first} and {second} after {last}");
    }
}
