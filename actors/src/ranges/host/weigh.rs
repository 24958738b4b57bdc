//! What a host does about how large and busy the ranges are whose leases it holds: it counts and samples their requests, walks
//! their rows, and says when one is to be split.
//!
//! * It decides: nothing. [`splitting`](crate::ranges::splitting) does.
//! * It never does: walk more of a range in one go than a part, or take the next one without a pause; sample a request where the
//!   range is not busier than it may be; weigh the meta range, which is not split.
//!
//! A request costs a look at a table and a count, as long as nothing is sampled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::AsyncRuntime;
use parking_lot::{Mutex, RwLock};
use rhumb_core::rng::Seed;
use rhumb_storage::mvcc::ReadError;

use super::Host;
use super::keep::of;
use crate::ranges::catalog::META;
use crate::ranges::command::Op;
use crate::ranges::raft::Group;
use crate::ranges::replica::RangeId;
use crate::ranges::serve::Ask;
use crate::ranges::splitting::load::{Touched, Upto};
use crate::ranges::splitting::{Decided, Rejected, Splitting, size};

/// How often ranges are weighed.
const WEIGHED_EVERY: Duration = Duration::from_secs(1);
/// Between two parts that are walked.
const PAUSE: Duration = Duration::from_millis(5);

/// One range whose lease is held here.
struct Load {
    requests: AtomicU64,
    written: AtomicU64,
    /// Of how many requests one is sampled; 0: none.
    one_in: AtomicU64,
    machine: Mutex<Splitting>,
}

/// What is known here of the size and load of ranges.
#[derive(Default)]
pub(super) struct Loads {
    held: RwLock<BTreeMap<RangeId, Arc<Load>>>,
    rejected: Mutex<BTreeMap<Rejected, u64>>,
}

impl Loads {
    /// A request of a range, and so many bytes that it writes. `touched` says of which keys, if that is asked.
    fn count<'a>(&self, range: RangeId, bytes: u64, touched: impl FnOnce() -> Option<Touched<'a>>) {
        let held = self.held.read();
        let Some(load) = held.get(&range) else { return };
        let number = load.requests.fetch_add(1, Ordering::Relaxed);
        load.written.fetch_add(bytes, Ordering::Relaxed);
        let one_in = load.one_in.load(Ordering::Relaxed);
        // Mixed, so that requests which come in turns are not met by turns.
        if one_in > 0
            && mixed(number).is_multiple_of(one_in)
            && let Some(touched) = touched()
        {
            load.machine.lock().sampled(&touched);
        }
    }

    /// A range is read.
    pub(super) fn reads(&self, range: RangeId, ask: &Ask) {
        self.count(range, 0, || {
            let to = match &ask.to {
                None => Upto::Alone,
                Some(to) if to.as_bytes().is_empty() => Upto::End,
                Some(to) => Upto::Before(to),
            };
            Some(Touched { from: &ask.from, to })
        });
    }

    /// A range is written.
    pub(super) fn writes(&self, range: RangeId, ops: &[Op]) {
        let value = |op: &Op| op.record.value.as_ref().map_or(0, Vec::len);
        let bytes: usize = ops.iter().map(|op| op.key.as_bytes().len() + value(op) + ROW).sum();
        self.count(range, bytes as u64, || {
            let keys = || ops.iter().map(|op| &op.key);
            let (from, last) = (keys().min()?, keys().max()?);
            Some(Touched { from, to: if from == last { Upto::Alone } else { Upto::Including(last) } })
        });
    }
}

/// Bytes of a row besides its key and value, about.
const ROW: usize = 32;

/// A number's bits, mixed (splitmix64).
fn mixed(number: u64) -> u64 {
    let one = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let two = (one ^ (one >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let three = (two ^ (two >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    three ^ (three >> 31)
}

impl<R: AsyncRuntime> Host<R> {
    /// How often ranges were larger or busier than they may be and were not split, by the reason.
    #[must_use]
    pub fn not_split(&self) -> BTreeMap<Rejected, u64> {
        self.0.loads.rejected.lock().clone()
    }

    /// Begins the timers.
    pub(super) fn weigh(&self) {
        if self.0.settings.splits.is_off() {
            return;
        }
        let (weighs, walks) = (Arc::downgrade(&self.0), Arc::downgrade(&self.0));
        drop(R::spawn(async move {
            while let Some(host) = of::<R>(&weighs) {
                for group in host.groups() {
                    if let Some(decided) = host.weighed(&group).await {
                        let (range, why) = (group.range().0, decided.why.word());
                        tracing::info!(range, why, reason = decided.reason, "the range is to be split");
                        host.0.world.splits(group.range(), decided);
                    }
                }
                host.0.loads.held.write().retain(|range, _| host.group(*range).is_some());
                drop(host);
                R::sleep(WEIGHED_EVERY).await;
            }
        }));
        drop(R::spawn(async move {
            while let Some(host) = of::<R>(&walks) {
                let held: Vec<_> =
                    host.0.loads.held.read().iter().map(|(id, at)| (*id, Arc::clone(at))).collect();
                let mut rests = true;
                for (range, load) in held {
                    match host.walked(&load) {
                        Ok(false) => {}
                        Ok(true) => {
                            rests = false;
                            R::sleep(PAUSE).await;
                        }
                        // Whoever stops has closed the store.
                        Err(_) if host.group(range).is_none() => {}
                        // It is in quarantine then, and is not weighed any more until it is rebuilt.
                        Err(error)
                            if host
                                .group(range)
                                .is_some_and(|at| host.read_damage(range, at.id(), &error)) =>
                        {
                            host.0.loads.held.write().remove(&range);
                        }
                        Err(error) => {
                            return host.0.world.halt(format!("the rows of range {}: {error}", range.0));
                        }
                    }
                }
                drop(host);
                R::sleep(if rests { WEIGHED_EVERY } else { PAUSE }).await;
            }
        }));
    }

    /// Weighs one range. Whether it is to be split.
    async fn weighed(&self, group: &Group<R>) -> Option<Decided> {
        let range = group.range();
        let (now, keyspace, from, to) = {
            let replica = group.replica().await;
            let descriptor = replica.descriptor();
            let moment = self.moment(descriptor);
            let weighs = range != META && !descriptor.is_empty() && replica.permit(&moment).is_ok();
            if !weighs {
                self.0.loads.held.write().remove(&range);
                return None;
            }
            (moment.now, descriptor.keyspace, descriptor.from.clone(), descriptor.to.clone())
        };
        let known = self.0.loads.held.read().get(&range).cloned();
        let load = known.unwrap_or_else(|| {
            let seed = Seed::new(range.0).child("load");
            let keys = (from.clone(), to.clone());
            let machine = Splitting::begin(self.0.settings.splits, now, keyspace, keys, seed);
            let (requests, written, one_in) = Default::default();
            let load = Arc::new(Load { requests, written, one_in, machine: Mutex::new(machine) });
            self.0.loads.held.write().insert(range, Arc::clone(&load));
            load
        });
        let under_way = {
            let wanted = self.0.wanted.lock();
            let moves = wanted.get(&range).is_none_or(|wanted| wanted.unborn || !wanted.leaving.is_empty());
            drop(wanted);
            moves || self.0.busy.lock().contains(&range)
        };
        let decided = {
            let mut machine = load.machine.lock();
            machine.has(now, &from, to.as_ref());
            machine.wrote(load.written.swap(0, Ordering::Relaxed));
            machine.counted(now, load.requests.load(Ordering::Relaxed));
            load.one_in.store(machine.samples_one_in().unwrap_or_default(), Ordering::Relaxed);
            machine.decide(now, under_way)?
        };
        match decided {
            Ok(decided) => Some(decided),
            Err(rejected) => {
                tracing::debug!(range = range.0, why = rejected.word(), "the range is not split");
                *self.0.loads.rejected.lock().entry(rejected).or_default() += 1;
                None
            }
        }
    }

    /// Walks the next part of a range, if one is to be walked.
    fn walked(&self, load: &Load) -> Result<bool, ReadError> {
        let Some(part) = load.machine.lock().walks() else { return Ok(false) };
        let found = part.look(&*self.0.around.disk, size::ROWS)?;
        load.machine.lock().walked(&part, found);
        Ok(true)
    }
}
