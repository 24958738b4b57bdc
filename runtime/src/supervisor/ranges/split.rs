//! Ranges that are split: because somebody wants it, or by themselves.
//!
//! * It decides: who is asked; that no range is split by itself while that is under way with it.
//! * It never does: plan a split where the lease is not held, or split a range by itself before that stands in the audit log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::RangeId;
use rhumb_actors::ranges::catalog::{self, Change, Keyspace};
use rhumb_actors::ranges::messages::{KvRefusal, SplitDone, SplitRange};
use rhumb_actors::ranges::splitting::{Decided, Rejected};
use rhumb_core::Fault;
use rhumb_storage::mvcc::UserKey;
use tokio::time::Instant;

use super::plan::{AGAIN_AFTER, Ended, Not, PLAN_WITHIN, came_of};
use super::{Ranges, not_now};
use crate::mesh::registry::Call;
use crate::metrics::exposition::Page;

/// What this node has done of splits.
#[derive(Debug, Default)]
pub(super) struct Splits {
    /// How many, by what they were for.
    done: Mutex<BTreeMap<&'static str, u64>>,
    /// Ranges that are being split by themselves.
    under_way: Mutex<BTreeSet<RangeId>>,
}

impl Splits {
    fn done(&self, why: &'static str) {
        *self.done.lock().entry(why).or_default() += 1;
    }
}

impl Ranges {
    pub(super) async fn splits(self, call: Call<SplitRange>) -> super::serve::Answer<SplitDone> {
        let class = call.message.class.clone();
        if super::pools::is_of_pool(&call.message.keyspace) {
            let why = format!("keyspace {} is a pool's own, and is one range", call.message.keyspace);
            return Ok((Err(KvRefusal::NotAllowed(why)), class));
        }
        let record = Record::told("range.split", "", Outcome::Begun)
            .on(format!("keyspace {}", call.message.keyspace))
            .with("class", class.to_string());
        let (from, by_node) = (call.from.clone(), call.from.node.is_some());
        let message = if by_node { call.message } else { SplitRange { hops: 0, ..call.message } };
        let answer = self.told_of(&from, record, self.split(&message, call.within)).await?;
        Ok((answer, class))
    }

    /// Splits a range that somebody wants split.
    async fn split(&self, message: &SplitRange, within: Duration) -> Ended<SplitDone> {
        let until = Instant::now() + within.mul_f32(0.95);
        let space = match self.keyspace(&message.keyspace, &message.class) {
            Ok(space) => space,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let at = match UserKey::new(message.at.clone()) {
            Ok(at) if !at.as_bytes().is_empty() => at,
            Ok(_) => {
                return Ok(Err(KvRefusal::Invalid("a range is not split before the empty key".to_owned())));
            }
            Err(error) => return Ok(Err(KvRefusal::Invalid(error.to_string()))),
        };
        loop {
            let (left, to) = self.locate(&space, &at, until).await;
            let to = match left {
                None => to,
                Some(left) => match self.split_here(&space, left, &at).await? {
                    Ok(done) => {
                        self.0.splits.done("told");
                        return Ok(Ok(done));
                    }
                    Err(Not::Refused(refusal)) => return Ok(Err(refusal)),
                    Err(Not::At(node)) => vec![node],
                    Err(Not::Again) => Vec::new(),
                },
            };
            let next = SplitRange { hops: message.hops + 1, ..message.clone() };
            if let Some(outcome) = self.pass_on(&to, &next, message.hops, &space.class, until).await {
                return outcome;
            }
            if Instant::now() + AGAIN_AFTER >= until {
                return Ok(Err(not_now("no replica that could split the range was reached")));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Splits a range whose lease is held here.
    async fn split_here(
        &self,
        space: &Keyspace,
        left: RangeId,
        at: &UserKey,
    ) -> Result<Result<SplitDone, Not>, Fault> {
        let host = match self.host() {
            Ok(host) => host,
            Err(refusal) => return Ok(Err(Not::Refused(refusal))),
        };
        // Whoever does not hold the lease plans nothing.
        if !host.holds(left).await {
            return Ok(Err(host
                .leaseholder(left)
                .await
                .map_or(Not::Again, |seat| Not::at(seat.node, &self.0.parts.me))));
        }
        // Nor does one that cannot put it into the log: what is planned once is never planned again.
        let Some(group) = host.group(left).filter(|group| group.leads()) else { return Ok(Err(Not::Again)) };
        let descriptor = group.replica().await.descriptor().clone();
        if descriptor.from == *at {
            let why = format!("range {} begins with that key already: there is nothing to split", left.0);
            return Ok(Err(Not::Refused(KvRefusal::Invalid(why))));
        }
        if !descriptor.holds(at) {
            return Ok(Err(Not::Again));
        }
        let change = Change::Split { left, seats: descriptor.seats };
        let row = match self.plan(&space.name, &change, Instant::now() + PLAN_WITHIN).await? {
            Ok(row) => catalog::decode::<Keyspace>(&row),
            Err(refusal) => return Ok(Err(Not::Refused(refusal))),
        };
        // The newest one is this plan's.
        let planned = row.ok().and_then(|row| row.ranges.into_iter().next_back());
        let Some(right) = planned else { return Ok(Err(Not::Again)) };
        self.0.classes.write().insert(right.range, space.class.clone());
        match host.split(left, at.clone(), right.range, right.seats).await {
            Ok(()) => Ok(Ok(SplitDone { left: left.0, right: right.range.0 })),
            Err(not) => came_of(not, &self.0.parts.me),
        }
    }

    // ---- by themselves ---------------------------------------------------------------------------

    /// A range whose lease is held here is to be split. What does not come to be is decided anew by whoever holds the lease then.
    pub(super) fn splits_by_itself(&self, range: RangeId, decided: Decided) {
        if !self.0.splits.under_way.lock().insert(range) {
            return;
        }
        let here = self.clone();
        self.0.parts.runtime.spawn(async move {
            here.split_by_itself(range, &decided).await;
            here.0.splits.under_way.lock().remove(&range);
        });
    }

    async fn split_by_itself(&self, range: RangeId, decided: &Decided) {
        let Some((space, _)) = self.of_range(range) else { return };
        if super::pools::is_of_pool(&space.name) {
            // What a ledger writes is one batch, and a batch is atomic within one range.
            return;
        }
        let (log, why) = (&self.0.parts.log, decided.why.word());
        let record = Record::told("range.split", format!("node {}", self.0.parts.me), Outcome::Begun)
            .on(format!("keyspace {}", space.name))
            .with("class", space.class.to_string())
            .with("range", range.0.to_string())
            .with("for", why)
            .with("reason", decided.reason.clone());
        if let Err(error) = log.append(record.clone(), None).await {
            return tracing::warn!(range = range.0, %error, "not split: it cannot be logged");
        }
        let (outcome, record) = match self.split_here(&space, range, &decided.at).await {
            Ok(Ok(done)) => {
                self.0.splits.done(why);
                tracing::info!(range = range.0, right = done.right, why, "the range was split by itself");
                (Outcome::Done, record.with("right", done.right.to_string()))
            }
            Ok(Err(Not::Refused(refusal))) => (Outcome::Refused, record.with("why", refusal.to_string())),
            Ok(Err(Not::At(_) | Not::Again)) => {
                let why = "the lease moved, or something else came between; it is decided anew";
                (Outcome::Refused, record.with("why", why))
            }
            Err(fault) => (Outcome::Failed, record.with("why", fault.to_string())),
        };
        if let Err(error) = log.append(Record { outcome, ..record }, None).await {
            tracing::warn!(range = range.0, %error, "how the split of a range ended cannot be logged");
        }
    }

    /// What this node tells of splits.
    pub(super) fn tell_splits(&self, page: &mut Page) {
        let done: Vec<_> = self.0.splits.done.lock().iter().map(|(why, count)| (*why, *count)).collect();
        page.counters("rhumb_range_splits", "Ranges that were split by this node, by what for", "why", &done);
        let rejected = self.host().map(|host| host.not_split()).unwrap_or_default();
        let rejected: Vec<_> = rejected.iter().map(|(why, count)| (Rejected::word(*why), *count)).collect();
        let help = "How often a range was larger or busier than it may be and was not split, by the reason";
        page.counters("rhumb_range_splits_rejected", help, "why", &rejected);
    }
}
