//! Thresholds that leaseholders raise in the world, and what replicas collect below them.

use rhumb_core::HybridTime;
use rhumb_storage::{Batch, Family};

use super::{BEGIN_MS, Event, MS, Node, RETENTION, World};
use crate::ranges::RangeId;
use crate::ranges::collect::Progress;

/// Versions that go in one step: few, so that much happens between two.
const STEP: usize = 2;

impl World {
    /// Whether a time is younger than the retention, in true time.
    pub(super) fn is_young(&self, at: HybridTime) -> bool {
        at.millis() + RETENTION.as_millis() as u64 >= BEGIN_MS + self.now / MS
    }

    pub(super) fn raise(&mut self, node: usize) {
        let wait = self.between(50 * MS, 400 * MS);
        self.after(wait, Event::Raise(node));
        if !self.nodes[node].up {
            return;
        }
        let ranges: Vec<_> = self.nodes[node].replicas.keys().copied().collect();
        for range in ranges {
            let moment = self.moment(node, range);
            let replica = self.nodes[node].replicas.get_mut(&range).expect("it is one of its");
            let Some(threshold) = replica.threshold_due(&moment, RETENTION, &[]) else { continue };
            if let Ok(command) = replica.propose_threshold(&moment, threshold) {
                self.append(node, range, command);
            }
        }
    }

    pub(super) fn collect(&mut self, node: usize) -> Result<(), String> {
        let wait = self.between(2 * MS, 60 * MS);
        self.after(wait, Event::Collect(node));
        if !self.nodes[node].up {
            return Ok(());
        }
        let Node { replicas, progress, store, .. } = &mut self.nodes[node];
        for (range, replica) in replicas.iter() {
            let known = progress.entry(*range).or_default();
            let Some(step) = known.step(replica) else { continue };
            let garbage = step.look(store, STEP).map_err(|error| error.to_string())?;
            let mut batch = Batch::new();
            self.tally.collected += known.stepped(*range, &step, garbage, &mut batch);
            store.write(&batch).expect("memory takes it");
        }
        Ok(())
    }

    /// A new life goes on where the last one was, as far as its disk knows.
    pub(super) fn recover_progress(&mut self, node: usize) {
        let Node { replicas, progress, store, .. } = &mut self.nodes[node];
        let read = |range: &RangeId| {
            let row = store.get(Family::Raft, &Progress::row_key(*range)).expect("memory reads")?;
            Some((*range, Progress::read(&row).expect("what was written is read")))
        };
        *progress = replicas.keys().filter_map(read).collect();
    }
}
