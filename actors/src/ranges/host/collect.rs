//! What a host does about old versions: it proposes thresholds for the ranges it leads, and collects below those that its
//! replicas have applied.
//!
//! * It never does: look at more of a range in one go than a step, or take the next one without a pause.
//! * A range whose retention nobody has said has its threshold left where it is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use openraft::AsyncRuntime;
use rhumb_core::HybridTime;
use rhumb_storage::{Batch, Family, StorageFault};

use super::Host;
use super::keep::of;
use crate::ranges::collect::{Lagging, Progress, STEP};
use crate::ranges::raft::Group;
use crate::ranges::replica::RangeId;

/// Between two steps, of one range or of two, of which the first has found as much as it may.
const SHORT: Duration = Duration::from_millis(5);
/// Between two steps of which the first has found little: it has looked at many rows.
const LONG: Duration = Duration::from_millis(20);

impl<R: AsyncRuntime> Host<R> {
    /// How long what was can be read in a range. A shorter one takes what is older; a longer one lets more come together from
    /// now on.
    pub fn retain(&self, range: RangeId, retention: Duration) {
        self.0.retentions.lock().insert(range, retention);
    }

    /// What was at these times can be read, however long ago they were: no threshold rises above one of them. It is said before
    /// [`Host::retain`] is of a range that is new here.
    pub fn hold(&self, range: RangeId, held: Vec<HybridTime>) {
        let mut all = self.0.held.lock();
        match held.is_empty() {
            true => drop(all.remove(&range)),
            false => drop(all.insert(range, held)),
        }
    }

    /// How many versions of a range were collected here since the start.
    #[must_use]
    pub fn collected(&self, range: RangeId) -> u64 {
        self.0.collected.lock().get(&range).copied().unwrap_or_default()
    }

    /// Begins the timers of collection.
    pub(super) fn collect(&self) {
        let (raises, steps) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        drop(R::spawn(async move {
            let mut lagging = BTreeMap::new();
            while let Some(host) = of::<R>(&raises) {
                for group in host.groups() {
                    host.raise(&group, lagging.entry(group.range()).or_default()).await;
                }
                lagging.retain(|range, _| host.group(*range).is_some());
                let wait = host.0.settings.collect;
                drop(host);
                R::sleep(wait).await;
            }
        }));
        drop(R::spawn(async move {
            let mut progress = BTreeMap::new();
            while let Some(host) = of::<R>(&steps) {
                let mut rests = true;
                for group in host.groups() {
                    match host.step(&group, &mut progress).await {
                        Ok(None) => {}
                        Ok(Some(found)) => {
                            rests = false;
                            R::sleep(if found < STEP { LONG } else { SHORT }).await;
                        }
                        // A store that has failed stops the node by itself; one that is full is full of more than this.
                        Err(NotCollected::Unwritten(why)) => {
                            tracing::debug!(range = group.range().0, why, "not collected");
                        }
                        // Whoever stops has closed the store.
                        Err(NotCollected::Unsound(_)) if host.group(group.range()).is_none() => {}
                        Err(NotCollected::Unsound(why)) => {
                            let range = group.range().0;
                            return host.0.world.halt(format!("old versions of range {range}: {why}"));
                        }
                    }
                }
                progress.retain(|range, _| host.group(*range).is_some());
                let wait = if rests { host.0.settings.collect } else { SHORT };
                drop(host);
                R::sleep(wait).await;
            }
        }));
    }

    /// Proposes a threshold where it is due.
    async fn raise(&self, group: &Group<R>, lagging: &mut Lagging) {
        let retention = self.0.retentions.lock().get(&group.range()).copied();
        let (Some(retention), Some(positions)) = (retention, group.positions()) else {
            *lagging = Lagging::default();
            return;
        };
        let protected = {
            let replica = group.replica().await;
            if replica.rests() {
                return;
            }
            let moment = self.moment(replica.descriptor());
            let mut protected = lagging.looked(moment.now, retention, &positions);
            protected.extend(self.0.held.lock().get(&group.range()).into_iter().flatten());
            if replica.threshold_due(&moment, retention, &protected).is_none() {
                return;
            }
            protected
        };
        let (host, group) = (self.clone(), group.clone());
        // Whoever looks after thresholds does not wait for consensus.
        drop(R::spawn(async move {
            let proposed = group.propose(|replica| {
                let moment = host.moment(replica.descriptor());
                // Somebody may have begun to read meanwhile.
                let threshold = replica.watermark(&moment, retention, &protected);
                replica.propose_threshold(&moment, threshold)
            });
            proposed.await
        }));
    }

    /// Looks at the next part of a replica's rows, if one is to be looked at, and deletes what nobody needs. How many versions
    /// went.
    async fn step(
        &self,
        group: &Group<R>,
        progress: &mut BTreeMap<RangeId, Progress>,
    ) -> Result<Option<usize>, NotCollected> {
        let (range, disk) = (group.range(), &self.0.around.disk);
        let known = match progress.entry(range) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let row = disk.get(Family::Raft, &Progress::row_key(range))?;
                let read = row.map(|row| Progress::read(&row)).transpose().unwrap_or_else(|why| {
                    tracing::warn!(
                        range = range.0,
                        why,
                        "how far the range was collected cannot be read: all of it is looked at again"
                    );
                    None
                });
                new.insert(read.unwrap_or_default())
            }
        };
        let Some(step) = known.step(&*group.replica().await) else { return Ok(None) };
        let garbage = match step.look(&**disk, STEP) {
            Ok(garbage) => garbage,
            Err(error) if self.read_damage(range, group.id(), &error) => return Ok(None),
            Err(error) => return Err(NotCollected::Unsound(error.to_string())),
        };
        let (mut next, mut batch) = (known.clone(), Batch::new());
        let gone = next.stepped(range, &step, garbage, &mut batch);
        disk.visibly(batch).await.map_err(NotCollected::Unwritten)?;
        *known = next;
        *self.0.collected.lock().entry(range).or_default() += gone as u64;
        Ok(Some(gone))
    }
}

/// Why nothing was collected.
enum NotCollected {
    /// Rows that are not what was written, or that cannot be read.
    Unsound(String),
    /// It cannot be written now.
    Unwritten(String),
}

impl From<StorageFault> for NotCollected {
    fn from(fault: StorageFault) -> Self {
        Self::Unsound(fault.to_string())
    }
}
