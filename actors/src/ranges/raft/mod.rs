//! Consensus of one range's replicas: openraft, and nothing of openraft outside of this folder.
//!
//! * It decides: nothing. openraft decides what stands in the log; [`RangeReplica`] what that does.
//! * It never does: answer a vote or acknowledge an entry before it is durable, use openraft's lease reads, or let a replica's
//!   number stand for two replicas.
//! * Invariants: what is on disk and what goes between nodes is ours and versioned (`wire`); all of one group's votes and
//!   entries are written in their order; what an entry does is one batch with the place of the entry.
//!
//! In reading order: `types` tells openraft which types are used; [`wire`] is the bytes; [`disk`] what a group needs of a
//! store; `log` its log and vote; `machine` what entries do, and snapshots; [`rest`] what is to be cleared away; `network` what replicas ask each other, and `feed` what they pass on for each other; [`group`] the
//! handle. Everything is generic in the runtime, so that the simulated world of `tests/` runs the same code.
//!
//! No log begins with an entry: whoever begins a range writes its members as if they had been agreed on at place 0, the same on all
//! of its first replicas, and a split does so for the range that it begins. A replica that begins with nothing is therefore sent
//! a snapshot first, and never applies entries to what it has not.
//!
//! Three defaults of openraft are dangerous and are not used: `pre_vote` is off and its call grants every vote, so a replica that
//! comes back from behind a cut unseats a good leader (it is on, and asked over the network); a leader restored without an
//! election after a restart may serve what it has not applied (`enable_leader_restore` is off); and `stream_append` has one
//! request under way at a time, which makes a distant follower slower than its link by far (it is pipelined here).

pub mod disk;
pub mod group;
pub mod rest;
pub mod wire;

mod feed;
mod log;
mod machine;
mod network;
mod types;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
pub use openraft::AsyncRuntime;
use openraft::{Config, SnapshotPolicy};
pub use openraft_rt_tokio::TokioRuntime;

pub use disk::{Disk, Pressed};
pub use feed::{Distances, Fed, Feeding};
pub use group::{Group, NotProposed, StartError};
pub use rest::Rest;

use super::RangeSettings;
use super::comparing::Extent;
use super::replica::{RangeId, RangeReplica, ReplicaId, Seat};
use crate::version::Formats;

/// Entries that are kept behind a snapshot, for followers that are a little late.
const KEPT_ENTRIES: u64 = 1_000;

/// Entries that are cut off at once, at least.
const PURGED_AT_ONCE: u64 = 256;

/// The times by which a group goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaftSettings {
    /// How often a leader is heard of that has nothing to say.
    pub heartbeat: Duration,
    /// How long a follower hears nothing before it asks to be elected: at least this long,
    pub election_min: Duration,
    /// and at most this long.
    pub election_max: Duration,
    /// After how many entries the log is cut, but for the last thousand.
    pub snapshot_after: u64,
    /// Whether a leader goes on when a follower has forgotten what it had acknowledged, and sends it again. A disk that an
    /// operator has put back does that. In the simulated world nobody does so, and it is a broken promise.
    pub forgives: bool,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self::within(RangeSettings::default().support)
    }
}

impl RaftSettings {
    /// Times with which a leader that dies has a successor before the support of its store has ended, so that the lease is all that is
    /// waited for. A follower stands for election when it has not heard the leader for the longest election timeout (so long openraft
    /// lets nobody disturb a leader) and then one drawn between the two: after 8 to 10 fifteenths of the support; support lasts 10 to
    /// 15. Shorter ones are bounded: openraft wants a heartbeat, half of one and a tick below the shortest.
    #[must_use]
    pub fn within(support: Duration) -> Self {
        Self {
            heartbeat: support / 10,
            election_min: support / 5,
            election_max: support / 3,
            snapshot_after: 5_000,
            forgives: true,
        }
    }
}

impl RaftSettings {
    fn config(&self) -> Config {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Config {
            cluster_name: "range".to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            // A follower that has just acknowledged an entry is not told that the leader lives.
            heartbeat_min_interval: Some(ms(self.heartbeat) / 2),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(self.election_max) * 10,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_after),
            max_in_snapshot_log_to_keep: KEPT_ENTRIES.min(self.snapshot_after),
            purge_batch_size: PURGED_AT_ONCE.min(self.snapshot_after),
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            allow_log_reversion: Some(self.forgives),
            ..Config::default()
        }
    }
}

/// What replicas ask each other goes this way.
pub trait Carry: Send + Sync + 'static {
    /// Asks a replica, on its node. `from` is who asks. Questions to one replica arrive in their order, or not at all.
    fn ask(
        &self,
        to: &Seat,
        range: RangeId,
        from: ReplicaId,
        question: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// What a replica's log did that its host has to know.
#[derive(Debug)]
pub enum Change {
    /// A split has begun this replica. Its rows are on the disk.
    Born {
        /// The range that was split.
        left: RangeId,
        /// The replica.
        right: Box<RangeReplica>,
    },
    /// What the range is has changed: its keys, or where its replicas stand.
    Seen(RangeId),
    /// This is what the replica is at a command, by which its range's replicas are compared.
    Compares(Box<Extent>),
}

/// Where changes are told.
pub type Changes = futures::channel::mpsc::Sender<Change>;

/// Ranges of which a replica is just being begun on this disk: one at a time.
pub type Claims = Arc<parking_lot::Mutex<std::collections::BTreeSet<RangeId>>>;

/// Ranges of which something on this disk is not what was written, and what. Whoever finds it says it here before it stops.
pub type Damages = Arc<parking_lot::Mutex<std::collections::BTreeMap<RangeId, Damage>>>;

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub why: String,
    /// Only rows are: the log, the vote and the place in it are sound as far as anybody knows, and the replica goes on.
    pub rows_alone: bool,
}

impl Damage {
    /// It was found of a range. What was found before stays, unless that was less.
    fn found(self, range: RangeId, damages: &Damages) {
        let mut damages = damages.lock();
        if damages.get(&range).is_none_or(|known| known.rows_alone && !self.rows_alone) {
            damages.insert(range, self);
        }
    }

    /// The replica stops, or has stopped.
    fn of_the_log(why: String) -> Self {
        Self { why, rows_alone: false }
    }
}

/// A group's surroundings.
#[derive(Clone)]
pub struct Around {
    /// Where its rows are.
    pub disk: Arc<dyn Disk>,
    /// How its replicas are asked.
    pub carry: Arc<dyn Carry>,
    /// Its times.
    pub raft: RaftSettings,
    /// What is being begun on the disk.
    pub claims: Claims,
    /// What the node reads and writes by.
    pub formats: Arc<Formats>,
    /// What of it is damaged.
    pub damages: Damages,
    /// By what learners are fed, and what was.
    pub feeding: Feeding,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_takes_the_times_of_every_support_and_leads_are_settled_before_it_ends() {
        for support in (1_000..=120_000).step_by(250).map(Duration::from_millis) {
            let times = RaftSettings::within(support);
            times.config().validate().unwrap_or_else(|error| panic!("{support:?}: {error}"));
            assert!(times.election_max + times.election_max <= support * 2 / 3, "{support:?}");
        }
    }
}
