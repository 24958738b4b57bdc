//! Entries that a learner gets from another replica than the leader: the leader's part of it, and the feeder's.
//!
//! * It decides: whether a feeder is asked now. Who may be one [`feeding`](crate::ranges::feeding) says.
//! * It never does: pass on an entry that the leader has not named by its id, say of a learner what that one has not said itself, wait for
//!   ever, or take rows along: the states of replicas come from the leader.
//! * Invariant: whatever becomes of what was to be passed on, the leader sends it itself as if it had never asked.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{AsyncRuntime, Instant, RaftMetrics};
use parking_lot::Mutex;
use rhumb_core::Region;
use rhumb_core::canary::{self, Canary};

use super::Around;
use super::group::NEAR;
use super::log::Log;
use super::machine::Shared;
use super::network;
use super::types::{self, Types};
use super::wire::{self, Answered, Asked, Ballot, Id, Line, Named};
use crate::ranges::RangeSettings;
use crate::ranges::feeding::{self, Stand};
use crate::ranges::replica::{RangeId, ReplicaId, Seat};

/// Of the support's time, a feeder waits at most one in so many parts for entries that it has not got yet.
const WAITS: u32 = 6;
/// Of the support's time, a learner has at most so many parts of that for its answer to a feeder, besides what the bytes take.
const ANSWERS: u32 = 4;
/// For so many times the support's time a learner is sent to directly, once it was not fed.
const RESTS: u32 = 3;

/// How far one region is from another, there and back; none where that is not known.
pub type Distances = Arc<dyn Fn(&Region, &Region) -> Option<Duration> + Send + Sync>;

/// What a node's replicas feed each other by. Clones count together.
#[derive(Clone, Default)]
pub struct Feeding {
    /// How far regions are from each other. None: nobody is fed.
    pub distances: Option<Distances>,
    /// What was fed.
    pub fed: Arc<Fed>,
}

/// What was fed, and what was not, since the start.
#[derive(Debug, Default)]
pub struct Fed {
    entries: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    passed_on: AtomicU64,
}

impl Fed {
    /// Entries that replicas which lead here had others pass on.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Their bytes, which were not sent from here.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How often nothing came of it.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Bytes of entries that were passed on from here for leaders elsewhere.
    #[must_use]
    pub fn passed_on(&self) -> u64 {
        self.passed_on.load(Ordering::Relaxed)
    }
}

// ---- the leader's part -------------------------------------------------------------------------

/// Who feeds whom, as a replica says that leads.
pub(super) struct Feeds<R: AsyncRuntime> {
    me: ReplicaId,
    feeding: Feeding,
    support: Duration,
    /// What is known of the others, once consensus runs.
    metrics: OnceLock<WatchReceiverOf<Types<R>, RaftMetrics<Types<R>>>>,
    tree: Mutex<Tree>,
    /// Who was not fed, by whom, and until when it rests.
    resting: Mutex<BTreeMap<ReplicaId, (ReplicaId, R::Instant)>>,
}

/// The tree, and of which membership.
#[derive(Default)]
struct Tree {
    of: Option<types::Id>,
    feeders: BTreeMap<ReplicaId, Seat>,
}

impl Tree {
    fn follow(&mut self, members: &types::StoredMembership, me: ReplicaId, feeding: &Feeding) {
        let Some(distances) = feeding.distances.as_deref().filter(|_| self.of != *members.log_id()) else {
            return;
        };
        let stand = |(id, seat): (&u64, &Seat)| Stand {
            who: ReplicaId(*id),
            region: seat.node.region.clone(),
            votes: members.voter_ids().any(|voter| voter == *id),
        };
        let all: Vec<_> = members.nodes().map(stand).collect();
        let tree = feeding::tree(&me, &all, distances);
        let seat = |feeder: ReplicaId| members.get_node(&feeder.0).cloned();
        self.feeders =
            tree.into_iter().filter_map(|(learner, feeder)| Some((learner, seat(feeder)?))).collect();
        self.of = *members.log_id();
    }
}

impl<R: AsyncRuntime> Feeds<R> {
    pub(super) fn new(me: ReplicaId, feeding: Feeding, settings: RangeSettings) -> Self {
        let (metrics, tree, resting) = (OnceLock::new(), Mutex::default(), Mutex::default());
        Self { me, feeding, support: settings.support, metrics, tree, resting }
    }

    /// Consensus runs, and this is what it tells of itself.
    pub(super) fn know(&self, metrics: WatchReceiverOf<Types<R>, RaftMetrics<Types<R>>>) {
        self.metrics.set(metrics).ok();
    }

    /// Who feeds a replica now: one that has answered lately and has nearly all of the log. None: nobody.
    pub(super) fn feeder(&self, learner: ReplicaId) -> Option<Seat> {
        self.feeding.distances.as_ref()?;
        let metrics = self.metrics.get()?.borrow_watched();
        let feeder = {
            let mut tree = self.tree.lock();
            tree.follow(&metrics.membership_config, self.me, &self.feeding);
            tree.feeders.get(&learner)?.clone()
        };
        let (now, id) = (R::Instant::now(), feeder.replica.0);
        let heard = metrics.heartbeat.as_ref()?.get(&id).copied().flatten()?.into_inner();
        let has = metrics.replication.as_ref()?.get(&id).cloned().flatten()?;
        let rests = self
            .resting
            .lock()
            .get(&learner)
            .is_some_and(|(by, until)| *by == feeder.replica && now < *until);
        let is_well = now < heard + self.support && has.index + NEAR >= metrics.last_log_index?;
        (is_well && !rests).then_some(feeder)
    }

    /// A learner was fed these entries.
    pub(super) fn fed(&self, entries: usize, bytes: usize) {
        self.feeding.fed.entries.fetch_add(entries as u64, Ordering::Relaxed);
        self.feeding.fed.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A learner was not fed, as far as is known: it is sent to directly for a while.
    pub(super) fn failed(&self, learner: ReplicaId, feeder: ReplicaId) {
        self.feeding.fed.failed.fetch_add(1, Ordering::Relaxed);
        let until = R::Instant::now() + self.support * RESTS;
        self.resting.lock().insert(learner, (feeder, until));
    }
}

// ---- the feeder's part -------------------------------------------------------------------------

/// What passes entries on. Clones are one.
#[derive(Clone)]
pub(super) struct Feeder {
    pub(super) range: RangeId,
    pub(super) me: ReplicaId,
    pub(super) around: Around,
    pub(super) settings: RangeSettings,
    pub(super) replica: Shared,
    pub(super) log: Log,
    /// What is passed on leaves in the order in which that was asked for.
    pub(super) order: Arc<tokio::sync::Mutex<()>>,
}

/// What is to be passed on.
pub(super) struct Feed {
    pub(super) to: ReplicaId,
    pub(super) vote: Ballot,
    pub(super) previous: Option<Id>,
    pub(super) named: Named,
    pub(super) commit: Option<Id>,
}

impl Feeder {
    /// Passes entries on, and says what the learner answers.
    pub(super) async fn feeds<R: AsyncRuntime>(&self, feed: Feed) -> Answered {
        self.passes_on::<R>(feed).await.unwrap_or_else(Answered::NotFed)
    }

    async fn passes_on<R: AsyncRuntime>(&self, feed: Feed) -> Result<Answered, String> {
        let waits = self.settings.support / WAITS;
        let answer = R::timeout(waits, self.sends(feed)).await;
        let answer = answer.map_err(|_| "the entries are not here yet")??;
        if canary::sings(Canary::FeederAnswers) {
            return Ok(Answered::Appended);
        }
        match wire::decode(&answer.await?)? {
            answered @ (Answered::Appended
            | Answered::AppendedUpTo(_)
            | Answered::Conflict
            | Answered::HigherVote(_)) => Ok(answered),
            other => Err(format!("{other:?} answers entries")),
        }
    }

    /// They are on their way, and this is the answer when it comes.
    async fn sends(&self, feed: Feed) -> Result<BoxFuture<'static, Result<Bytes, String>>, String> {
        let _in_order = self.order.lock().await;
        let Feed { to, vote, previous, named, commit } = feed;
        let entries = self.log.named(&named).await?;
        let seat = self.replica.lock().await.descriptor().seat(to).filter(|seat| !seat.votes).cloned();
        let seat = seat.ok_or_else(|| format!("replica {to} is not known here as one without a vote"))?;
        let lines = entries.iter().map(Line::from).collect();
        let question = wire::encode(&Asked::Append { vote, previous, lines, commit });
        self.around.feeding.fed.passed_on.fetch_add(question.len() as u64, Ordering::Relaxed);
        let within = self.settings.support / WAITS * ANSWERS + network::under_way(question.len());
        Ok(self.around.carry.ask(&seat, self.range, self.me, question, within))
    }
}
