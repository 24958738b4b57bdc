//! One replica and its part of consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, ReadPolicy, TransferLeaderRequest, VoteRequest,
};
use openraft::{AsyncRuntime, Raft};
use parking_lot::RwLock;
use rhumb_core::NodeId;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::hot::Inside;
use rhumb_storage::mvcc::{KeyspaceId, UserKey, VersionKey};
use rhumb_storage::{Batch, Family};
use thiserror::Error;
use tokio::sync::MutexGuard;

use super::feed::{Feed, Feeder, Feeds};
use super::log::{self, Log};
use super::machine::{self, Image, Machine, Shared};
use super::network::Network;
use super::types::{Proposal, SnapshotMeta, Told, Types, Vote};
use super::wire::{self, Answered, Asked, Ballot};
use super::{Around, Changes, Disk, Rest, disk, rest};
use crate::ranges::RangeSettings;
use crate::ranges::collect::{Part, Positions, Progress};
use crate::ranges::command::{Command, Outcome};
use crate::ranges::lease::RangeRefusal;
use crate::ranges::records::{self, STATE};
use crate::ranges::replica::{Descriptor, RangeId, RangeReplica, ReplicaId, Seat};
use crate::ranges::seating::Members;

/// A replica does not start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("replica {replica} of range {}: {why}", range.0)]
pub struct StartError {
    /// Of which range.
    pub range: RangeId,
    /// Which replica.
    pub replica: ReplicaId,
    /// What is wrong.
    pub why: String,
}

/// Why nothing came of a proposal, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotProposed {
    /// The replica does not propose it.
    Refused(RangeRefusal),
    /// This replica does not lead; this one may. Nothing was appended.
    NotLeader(Option<ReplicaId>),
    /// It may stand in the log, or not.
    Unknown(String),
    /// The replica has stopped: its disk failed, or what it read was not sound.
    Stopped(String),
}

impl fmt::Display for NotProposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::NotLeader(Some(leader)) => write!(f, "replica {leader} leads"),
            Self::NotLeader(None) => f.write_str("no leader is known here"),
            Self::Unknown(why) => write!(f, "whether it was written is not known: {why}"),
            Self::Stopped(why) => write!(f, "the replica has stopped: {why}"),
        }
    }
}

/// Entries by which a replica may be behind that is taken among the voters.
pub(super) const NEAR: u64 = 1_000;

/// One replica, with its log. Clones are one.
pub struct Group<R: AsyncRuntime>(Arc<Parts<R>>);

struct Parts<R: AsyncRuntime> {
    raft: Raft<Types<R>, Machine>,
    replica: Shared,
    around: Around,
    id: ReplicaId,
    range: RangeId,
    settings: RangeSettings,
    /// Where those stand who may ask this one.
    seats: Arc<RwLock<BTreeMap<ReplicaId, NodeId>>>,
    ticks: Arc<AtomicBool>,
    /// Held by who wakes it.
    waking: Arc<tokio::sync::Mutex<()>>,
    feeder: Feeder,
    feeds: Arc<Feeds<R>>,
    /// The term in which it gave the lead away.
    gives: AtomicU64,
}

impl<R: AsyncRuntime> Clone for Group<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: AsyncRuntime> Group<R> {
    /// Goes on with a replica as it is on disk: its row was written before.
    ///
    /// # Errors
    /// [`StartError`]: what is on disk is not sound.
    pub async fn start(
        settings: RangeSettings,
        replica: RangeReplica,
        around: Around,
        changes: Changes,
    ) -> Result<Self, StartError> {
        let (id, range) = (replica.id(), replica.descriptor().range);
        let seats = replica.descriptor().seats.iter().map(|seat| (seat.replica, seat.node.clone()));
        let seats = Arc::new(RwLock::new(seats.collect()));
        let fails = |why: String| StartError { range, replica: id, why };
        let damages = &around.damages;
        let log = Log::open(range, Arc::clone(&around.disk), Arc::clone(damages)).map_err(fails)?;
        let in_use = replica.in_use().clone();
        let replica = Arc::new(tokio::sync::Mutex::new(replica));
        let disk = Arc::clone(&around.disk);
        let known = (Arc::clone(&around.claims), Arc::clone(damages), Arc::clone(&around.formats));
        let machine = Machine::open(range, disk, Arc::clone(&replica), changes, known);
        let machine = machine.map_err(fails)?;
        let config = around.raft.config().validate().map_err(|error| fails(error.to_string()))?;
        let feeds = Arc::new(Feeds::new(id, around.feeding.clone(), settings));
        let network =
            Network { range, me: id, around: around.clone(), settings, in_use, feeds: Arc::clone(&feeds) };
        let feeder = Feeder {
            range,
            me: id,
            around: around.clone(),
            settings,
            replica: Arc::clone(&replica),
            log: log.clone(),
            order: Arc::default(),
        };
        let raft = Raft::new(id.0, Arc::new(config), network, log, machine).await;
        let raft = raft.map_err(|error| fails(error.to_string()))?;
        feeds.know(raft.metrics());
        let ticks = Arc::new(AtomicBool::new(true));
        let waking = Arc::default();
        let parts = Parts {
            raft,
            replica,
            around,
            id,
            range,
            settings,
            seats,
            ticks,
            waking,
            feeder,
            feeds,
            gives: AtomicU64::new(0),
        };
        Ok(Self(Arc::new(parts)))
    }

    /// Writes what a replica begins from that has all of its range's log: nothing. Every first replica of a range does so.
    ///
    /// # Errors
    /// What is wrong with its seats.
    pub fn begin(replica: &RangeReplica, batch: &mut Batch) -> Result<(), String> {
        replica.write(batch);
        machine::begin(replica.descriptor(), batch)
    }

    /// These may ask this replica too, from now on.
    pub fn welcome<'a>(&self, seats: impl IntoIterator<Item = &'a Seat>) {
        let mut known = self.0.seats.write();
        for seat in seats {
            if known.get(&seat.replica) != Some(&seat.node) {
                known.insert(seat.replica, seat.node.clone());
            }
        }
    }

    /// Who takes part in the log, as far as is known here: who votes, and all.
    #[must_use]
    pub fn members(&self) -> Members {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.0.raft.metrics();
        let stored = Arc::clone(&metrics.borrow_watched().membership_config);
        let members = stored.membership();
        Members {
            voters: members.voter_ids().map(ReplicaId).collect(),
            all: members.nodes().map(|(id, _)| ReplicaId(*id)).collect(),
            settled: members.get_joint_config().len() == 1,
        }
    }

    /// Takes a replica into the log that does not vote, or says so again.
    ///
    /// # Errors
    /// Why it is not known to be one.
    pub async fn learns(&self, seat: Seat) -> Result<(), String> {
        self.wake().await;
        let added = self.0.raft.add_learner(seat.replica.0, seat, false).await;
        added.map(drop).map_err(|error| error.to_string())
    }

    /// Has these vote from now on, and nobody else take part who did vote.
    ///
    /// # Errors
    /// Why it is not known to be so.
    pub async fn vote(&self, voters: BTreeSet<ReplicaId>) -> Result<(), String> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|voter| voter.0).collect();
        self.wake().await;
        let changed = self.0.raft.change_membership(voters, false).await;
        changed.map(drop).map_err(|error| error.to_string())
    }

    /// Has a replica that does not vote take part no more.
    ///
    /// # Errors
    /// Why it is not known to be so.
    pub async fn forgets(&self, replica: ReplicaId) -> Result<(), String> {
        let forgotten = openraft::ChangeMembers::RemoveNodes(BTreeSet::from([replica.0]));
        self.wake().await;
        let changed = self.0.raft.change_membership(forgotten, false).await;
        changed.map(drop).map_err(|error| error.to_string())
    }

    /// Whether a replica has nearly all of the log, as this one, which leads, knows.
    #[must_use]
    pub fn is_near(&self, replica: ReplicaId) -> bool {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matching = metrics.replication.as_ref().and_then(|all| all.get(&replica.0).cloned().flatten());
        matching.is_some_and(|id| id.index + NEAR >= metrics.last_log_index.unwrap_or_default())
    }

    /// Which replica feeds each learner now, as this one does it, which leads; whom this does not name the leader sends to itself.
    #[must_use]
    pub fn feeds(&self) -> BTreeMap<ReplicaId, ReplicaId> {
        if !self.leads() {
            return BTreeMap::new();
        }
        let fed = |id: ReplicaId| Some((id, self.0.feeds.feeder(id)?.replica));
        self.members().all.into_iter().filter_map(fed).collect()
    }

    /// Stands for election, if nobody leads.
    pub async fn stands(&self) {
        // A group that has stopped stands for nothing.
        self.0.raft.trigger().elect(true).await.ok();
    }

    /// The replica. Nothing is applied while it is held: hold it shortly.
    pub async fn replica(&self) -> MutexGuard<'_, RangeReplica> {
        self.0.replica.lock().await
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.0.id
    }

    /// Its range.
    #[must_use]
    pub fn range(&self) -> RangeId {
        self.0.range
    }

    /// Whether it leads, as far as it knows.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.0.raft.is_leader()
    }

    /// Has its clockwork tick, or not: without it nothing is proposed to be elected, and no heartbeat is sent.
    pub fn tick(&self, ticks: bool) {
        if self.0.ticks.swap(ticks, Ordering::Relaxed) != ticks {
            self.0.raft.runtime_config().tick(ticks);
        }
    }

    /// Has its clockwork tick again. A leader that has rested hears from a quorum first that it still leads: before that nothing
    /// is appended.
    pub async fn wake(&self) {
        if self.ticks() {
            return;
        }
        let _one = self.0.waking.lock().await;
        if self.ticks() {
            return;
        }
        // Who leads no more, or reaches no quorum, learns it from what is proposed now.
        let leads = self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        R::timeout(self.0.around.raft.election_min, leads).await.ok();
        self.tick(true);
    }

    /// Whether its clockwork ticks.
    #[must_use]
    pub fn ticks(&self) -> bool {
        self.0.ticks.load(Ordering::Relaxed)
    }

    /// The last entry of the log.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        use openraft::async_runtime::watch::WatchReceiver;
        self.0.raft.metrics().borrow_watched().last_log_index
    }

    /// The last entry that was applied.
    #[must_use]
    pub fn applied(&self) -> Option<u64> {
        use openraft::async_runtime::watch::WatchReceiver;
        self.0.raft.metrics().borrow_watched().last_applied.as_ref().map(|id| id.index)
    }

    /// Whether all that take part have the log up to this entry, as this one, which leads, knows.
    #[must_use]
    pub fn all_have(&self, last: u64) -> bool {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let has = |id: &u64| {
            let matching = metrics.replication.as_ref().and_then(|all| all.get(id).cloned().flatten());
            *id == self.0.id.0 || matching.is_some_and(|id| id.index >= last)
        };
        let members = metrics.membership_config.membership();
        members.get_joint_config().len() == 1 && members.nodes().all(|(id, _)| has(id))
    }

    /// Who leads, as far as is known here.
    pub async fn leader(&self) -> Option<ReplicaId> {
        self.0.raft.current_leader().await.map(ReplicaId)
    }

    /// Why it has stopped, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.0.raft.metrics();
        let state = metrics.borrow_watched().running_state.clone();
        state.err().map(|error| error.to_string())
    }

    /// Has the leadership go to a replica, which this one leads.
    pub async fn give_lead(&self, to: ReplicaId) {
        self.wake().await;
        self.0.gives.store(self.term(), Ordering::Relaxed);
        // A group that has stopped leads nobody.
        self.0.raft.trigger().transfer_leader(to.0).await.ok();
    }

    /// Whether this one leads, and has given that away: it proposes nothing and sends no heartbeats until somebody is elected. Who was to
    /// be may have given it back at that moment.
    #[must_use]
    pub fn gives_lead(&self) -> bool {
        self.leads() && self.0.gives.load(Ordering::Relaxed) == self.term()
    }

    fn term(&self) -> u64 {
        use openraft::async_runtime::watch::WatchReceiver;
        self.0.raft.metrics().borrow_watched().current_term
    }

    /// Makes a command and puts it into the log, in one step; then waits for what comes of it. It waits as long as consensus
    /// takes: whoever calls brings a deadline. A call that is given up may have been written.
    ///
    /// # Errors
    /// [`NotProposed`].
    pub async fn propose(
        &self,
        make: impl FnOnce(&mut RangeReplica) -> Result<Command, RangeRefusal>,
    ) -> Result<Outcome, NotProposed> {
        self.propose_let_in(Inside::default(), make).await
    }

    /// As [`Group::propose`], of what was let in by the [door](Disk::door): it is inside until it has ended.
    ///
    /// # Errors
    /// [`NotProposed`].
    pub async fn propose_let_in(
        &self,
        inside: Inside,
        make: impl FnOnce(&mut RangeReplica) -> Result<Command, RangeRefusal>,
    ) -> Result<Outcome, NotProposed> {
        if !self.leads() {
            return Err(NotProposed::NotLeader(self.leader().await));
        }
        self.wake().await;
        let (responder, answer) = Told::pair(inside);
        let order = {
            let mut replica = self.0.replica.lock().await;
            let command = make(&mut replica).map_err(NotProposed::Refused)?;
            let (lease, order) = (command.lease, command.order);
            let format = self.0.around.formats.writes();
            let proposal = Proposal::of(command, format, self.0.id);
            let sent = self.0.raft.client_write_ff(proposal, Some(responder)).await;
            sent.map_err(|error| NotProposed::Stopped(error.to_string()))?;
            self.0.around.formats.wrote(format);
            (lease, order)
        };
        let lost = |_| NotProposed::Unknown("the replica stopped meanwhile".to_owned());
        match answer.await.map_err(lost)? {
            Ok(response) => {
                let outcome = response.data;
                Ok(outcome.expect("a command has an outcome"))
            }
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                let (lease, order) = order;
                self.0.replica.lock().await.withdraw(lease, order);
                Err(NotProposed::NotLeader(forward.leader_id.map(ReplicaId)))
            }
            Err(error) => Err(NotProposed::Unknown(error.to_string())),
        }
    }

    /// Another replica asks something, from a node that was recognised as this one. Where questions must be put in their order,
    /// the future is polled once in it.
    ///
    /// # Errors
    /// What is wrong with the question or who asks it, or that this replica has stopped.
    pub async fn asked(
        &self,
        node: &NodeId,
        (from, to): (ReplicaId, ReplicaId),
        question: &[u8],
    ) -> Result<Bytes, String> {
        // Another replica of the range may have stood here before: it has promised what this one knows nothing of.
        if to != self.0.id {
            return Err(format!(
                "replica {to} of range {} is not here, replica {} is",
                self.0.range.0, self.0.id
            ));
        }
        if self.0.seats.read().get(&from) != Some(node) {
            return Err(format!("replica {from} of range {} does not stand on node {node}", self.0.range.0));
        }
        let fatal = |error: RaftError<Types<R>>| error.to_string();
        let answered = match wire::decode::<Asked>(question)? {
            Asked::Append { vote, previous, lines, commit } => {
                let entries = lines.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                let rpc = AppendEntriesRequest {
                    vote: vote.into(),
                    prev_log_id: previous.map(Into::into),
                    entries,
                    leader_commit: commit.map(Into::into),
                };
                match self.0.raft.append_entries(rpc).await.map_err(fatal)? {
                    AppendEntriesResponse::Success => Answered::Appended,
                    AppendEntriesResponse::PartialSuccess(id) => {
                        Answered::AppendedUpTo(id.as_ref().map(Into::into))
                    }
                    AppendEntriesResponse::Conflict => Answered::Conflict,
                    AppendEntriesResponse::HigherVote(vote) => Answered::HigherVote((&vote).into()),
                }
            }
            Asked::Vote { vote, last, transfer, pre } => {
                let mut rpc = VoteRequest::new(vote.into(), last.map(Into::into));
                rpc.leadership_transfer = transfer;
                let answer = if pre { self.0.raft.pre_vote(rpc).await } else { self.0.raft.vote(rpc).await };
                let answer = answer.map_err(fatal)?;
                Answered::Vote {
                    vote: (&answer.vote).into(),
                    granted: answer.vote_granted,
                    last: answer.last_log_id.as_ref().map(Into::into),
                    pre,
                }
            }
            Asked::Rows(part) => {
                self.keep(part).await?;
                Answered::Kept
            }
            Asked::Snapshot { vote, standing, state } => {
                // One of an unknown format stops the replica when it is installed: nobody could send another one.
                if self.0.around.formats.reads(STATE, records::format(&state)).is_ok() {
                    let replica = RangeReplica::recover(self.0.settings, &state)?;
                    let Descriptor { keyspace, from, to, .. } = replica.descriptor();
                    self.apart(*keyspace, from, to.as_ref())?;
                }
                let last_membership = standing.membership()?;
                let meta = SnapshotMeta { last_log_id: standing.applied.map(Into::into), last_membership };
                let snapshot = openraft::Snapshot { meta, snapshot: Image(state.into()) };
                let installed = self.0.raft.install_full_snapshot(vote.into(), snapshot).await;
                let installed = installed.map_err(|error| error.to_string())?;
                Answered::Installed(Ballot::from(&installed.vote))
            }
            Asked::Lead { vote, to, last } => {
                let to = if canary::sings(Canary::LeadGoesToAll) { self.0.id.0 } else { to };
                let rpc = TransferLeaderRequest::new(Vote::from(vote), to, last.map(Into::into));
                match self.0.raft.handle_transfer_leader(rpc).await.map_err(|error| error.to_string())? {
                    Ok(()) => Answered::Leads,
                    Err(why) => Answered::DoesNotLead(why.to_string()),
                }
            }
            Asked::Feed { to, vote, previous, named, commit } => {
                // Whoever it is, it is one of the range's replicas; only one that leads has a reason to ask.
                if vote.replica != from.0 || !vote.committed {
                    return Err(format!("replica {from} asks to have entries passed on, and does not lead"));
                }
                self.0.feeder.feeds::<R>(Feed { to: ReplicaId(to), vote, previous, named, commit }).await
            }
        };
        Ok(wire::encode(&answered))
    }

    /// Keeps rows of a snapshot that are sound. They stand above all that is read here before its state comes. The replica is
    /// held until they are written: which of them it needs depends on the threshold that it has applied.
    async fn keep(&self, part: Part) -> Result<(), String> {
        let key = |row: &Vec<u8>| VersionKey::decode(row).map_err(|error| error.to_string());
        let first = key(&part.from)?;
        let to = part.to.as_ref().map(key).transpose()?.filter(|to| to.keyspace == first.keyspace);
        self.apart(first.keyspace, &first.key, to.as_ref().map(|to| &to.key))?;
        let replica = self.0.replica.lock().await;
        if replica.is_over() {
            return Err("the replica has left its range".to_owned());
        }
        let mut batch = part.received(&*self.0.around.disk, &replica)?;
        if replica.descriptor().is_empty() {
            // If it leaves before its state comes, nobody else knows what it has.
            let (keyspace, to) = (first.keyspace, to.map(|to| to.key));
            let here = Rest { range: self.0.range, keyspace, from: first.key, to };
            let before = rest::noted(&*self.0.around.disk, self.0.range)?;
            before.into_iter().fold(here, Rest::and).note(&mut batch);
        }
        self.0.around.disk.visibly(batch).await
    }

    /// Whether no replica of another range here has keys from this one on, up to that one: two would write the same rows. One that
    /// has them is behind a split, and comes to it. Nor may any of them be left of one that stood here: they are cleared first.
    fn apart(&self, keyspace: KeyspaceId, from: &UserKey, to: Option<&UserKey>) -> Result<(), String> {
        let states =
            disk::rows(&*self.0.around.disk, Family::Raft, b"a").map_err(|fault| fault.to_string())?;
        for (_, state) in states {
            let other = RangeReplica::recover(self.0.settings, &state)?;
            let there = other.descriptor();
            let apart = there.range == self.0.range
                || there.keyspace != keyspace
                || there.is_empty()
                || to.is_some_and(|to| *to <= there.from)
                || there.to.as_ref().is_some_and(|end| end <= from);
            if !apart {
                return Err(format!("range {} has not come to where it was split yet", there.range.0));
            }
        }
        let rests = rest::all(&*self.0.around.disk)?;
        match rests.iter().find(|rest| rest.meets(keyspace, from, to)) {
            Some(rest) => Err(format!("what is left of range {} here is being cleared", rest.range.0)),
            None => Ok(()),
        }
    }

    /// How far replicas are in the log, as its leader knows. None where this one does not lead.
    #[must_use]
    pub fn positions(&self) -> Option<Positions> {
        use openraft::async_runtime::watch::WatchReceiver;
        let metrics = self.0.raft.metrics();
        let metrics = metrics.borrow_watched();
        let first = metrics.purged.map_or(0, |id| id.index + 1);
        let has =
            metrics.replication.as_ref()?.iter().map(|(id, last)| (ReplicaId(*id), last.map(|id| id.index)));
        Some(Positions { first, has: has.collect() })
    }

    /// Ends its tasks.
    pub async fn shut_down(&self) {
        self.0.raft.shutdown().await.ok();
    }
}

/// Deletes the rows of consensus and of a replica's state that are on a disk.
///
/// # Errors
/// A fault of reading.
pub fn erase(disk: &dyn Disk, range: RangeId, batch: &mut Batch) -> Result<(), String> {
    let fault = |fault: rhumb_storage::StorageFault| fault.to_string();
    for (key, _) in disk::rows(disk, Family::Raft, &log::entries(range)).map_err(fault)? {
        batch.delete(Family::Raft, key);
    }
    for key in log::keys(range) {
        batch.delete(Family::Raft, key);
    }
    batch.delete(Family::Raft, machine::place_key(range));
    batch.delete(Family::Raft, rest::note_key(range));
    batch.delete(Family::Raft, Progress::row_key(range));
    batch.delete(Family::Raft, RangeReplica::row_key(range));
    Ok(())
}
