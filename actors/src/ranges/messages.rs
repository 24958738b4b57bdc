//! What a node's ranges can be asked over the mesh, the answers, and the typed refusals: the public face, versioned.
//!
//! Messages about data carry the class of the keyspace, by which both gates judge them; those about keyspaces and nodes are
//! class `control`, and hold no key and no value.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use rhumb_core::{DataClass, Guarantee, HybridTime, NodeId, Region, StoreId};
use serde::{Deserialize, Serialize};

use super::lifecycle::Life;
use super::snapshots::Held;
use crate::placement::messages::Placement;
use crate::{Wire, grows, remote};

/// Bytes of keys and values in one write, and in one answer: a frame has 1 MiB.
pub const MAX_BYTES: usize = 256 << 10;
/// Writes in one batch.
pub const MAX_OPS: usize = 256;
/// Rows in one answer to a scan.
pub const MAX_ROWS: u64 = 1_000;
/// How far back it can be read what was, in a keyspace that does not say it.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// What nodes tell each other is told under this name.
pub const RANGE_WORD: &str = "range.Word";

// ---- between nodes -----------------------------------------------------------------------------

/// A replica asks another one.
#[remote(crate = crate, name = "range.Consent", class = by(class), audience = "nodes", reply = Result<Bytes, String>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// The class of the range's data: questions hold entries.
    pub class: DataClass,
    /// Of which range.
    pub range: u64,
    /// Who asks.
    pub from: u64,
    /// Which replica is asked: another one may stand there by now.
    pub to: u64,
    /// The question.
    pub question: Bytes,
}

/// What a node tells another of its stores and ranges.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeWord {
    /// The word.
    pub word: Vec<u8>,
}

/// Who are you, and is there a meta range?
#[remote(crate = crate, name = "range.Introduce", class = "control", audience = "nodes", idempotent,
         reply = Result<Introduced, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduce {}

/// I am.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Introduced {
    /// The disk.
    pub store: StoreId,
    /// Whether it has a replica of the meta range, or ever had one.
    pub has_meta: bool,
    /// The public key of its tokens.
    pub tokens: Vec<u8>,
}

/// Here is your seat in the meta range: begin your replica.
#[remote(crate = crate, name = "range.Found", class = "control", audience = "nodes", idempotent, reply = Result<(), KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its seats: replica, node, store.
    pub seats: Vec<(u64, NodeId, StoreId)>,
}

/// This node has a seat in the meta range and lost the disk with its replica: here is the new one. The node of the leaseholder
/// has the old replica replaced; whoever asks begins the new one.
#[remote(crate = crate, name = "range.Rejoin", class = "control", audience = "nodes", idempotent,
         reply = Result<Rejoined, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejoin {
    /// The node. One passes it on for another one.
    pub node: NodeId,
    /// Its new disk.
    pub store: StoreId,
    /// The public key of its tokens.
    pub tokens: Vec<u8>,
    /// How often it was passed on.
    pub hops: u32,
}

/// The seats of the meta range, the new one among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Rejoined {
    /// Replica, node, store, and whether it votes.
    pub seats: Vec<(u64, NodeId, StoreId, bool)>,
}

// ---- keyspaces ---------------------------------------------------------------------------------

/// Create a keyspace. The same again is the same answer; another body under the same name is refused.
#[remote(crate = crate, name = "keyspace.Create", class = "control", audience = "operators", idempotent,
         reply = Result<KeyspaceView, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateKeyspace {
    /// Its name.
    pub name: String,
    /// The class of its data.
    pub class: DataClass,
    /// How many replicas; 0: three, or as many as there may be.
    pub replication: u32,
    /// For how long things are kept.
    pub lifetimes: Lifetimes,
    /// What is wanted of where its replicas stand.
    pub placement: Placement,
}

/// For how long things of a keyspace are kept. None: it is not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Lifetimes {
    /// How far back it can be read what was.
    pub retention: Option<Duration>,
    /// How long values are there that do not say it themselves.
    pub ttl: Option<Duration>,
}

impl Lifetimes {
    /// How far back it can be read what was.
    #[must_use]
    pub fn retention(&self) -> Duration {
        self.retention.unwrap_or(RETENTION)
    }
}

impl fmt::Display for Lifetimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |time: Option<Duration>| time.map_or("none".to_owned(), |time| format!("{time:?}"));
        write!(f, "--retention {} and --ttl {}", said(self.retention), said(self.ttl))
    }
}

/// Which keyspaces are there?
#[remote(crate = crate, name = "keyspace.List", class = "control", audience = "everyone", idempotent,
         reply = Result<Vec<KeyspaceView>, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListKeyspaces {}

/// A keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KeyspaceView {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The class of its data.
    pub class: DataClass,
    /// How many replicas were asked for; 0: it was not said.
    pub replication: u32,
    /// The numbers of its ranges.
    pub ranges: Vec<u64>,
    /// Where its replicas stand.
    pub nodes: Vec<NodeId>,
    /// For how long things are kept, as it was said.
    pub lifetimes: Lifetimes,
    /// Where it is in its life.
    pub life: Life,
    /// What is held of it, what has ended among it.
    pub held: Vec<Held>,
    /// What is wanted of where its replicas stand, as it was said.
    pub placement: Placement,
}

/// Which replicas are on your node?
#[remote(crate = crate, name = "range.List", class = "control", audience = "operators", idempotent,
         reply = Result<Vec<RangeView>, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRanges {}

/// A replica on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct RangeView {
    /// Its range.
    pub range: u64,
    /// Its keyspace; `meta` for the meta range.
    pub keyspace: String,
    /// Its number.
    pub replica: u64,
    /// Its node.
    pub node: NodeId,
    /// Whether it leads the log.
    pub leads: bool,
    /// Whether it holds the lease, and it is in force.
    pub leaseholder: bool,
    /// Whether it votes.
    pub votes: bool,
    /// The commands that it has applied.
    pub applied: u64,
    /// Up to when its rows are complete, milliseconds since the Unix epoch.
    pub closed_ms: u64,
    /// All nodes that have a replica.
    pub nodes: Vec<NodeId>,
    /// From when on can be read what was, milliseconds since the Unix epoch.
    pub threshold_ms: u64,
    /// Versions that were collected here since the node's start.
    pub collected: u64,
    /// What is wrong with it: `suspect`, `quarantined` or `rebuilding`, and why; empty: nothing is known to be.
    pub condition: String,
    /// Of one that leads: the learners that get their entries from another replica now, and from which.
    pub feeds: Vec<(u64, u64)>,
}

/// Split the range that has this key before it: the right-hand one begins with it. The message carries a key, so it is of the
/// keyspace's class.
#[remote(crate = crate, name = "range.Split", class = by(class), audience = "operators",
         reply = Result<SplitDone, KvRefusal>)]
#[derive(Clone, PartialEq, Eq)]
pub struct SplitRange {
    /// The class of the keyspace's data.
    pub class: DataClass,
    /// Which keyspace.
    pub keyspace: String,
    /// The first key of the right-hand range.
    pub at: Vec<u8>,
    /// How often it was passed on. Whoever is no node says 0.
    pub hops: u32,
}

impl fmt::Debug for SplitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SplitRange({} at a key of {} bytes)", self.keyspace, self.at.len())
    }
}

/// A range was split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct SplitDone {
    /// The left-hand range.
    pub left: u64,
    /// The right-hand one, which is new.
    pub right: u64,
}

/// Give a range's lease to the replica of a node.
#[remote(crate = crate, name = "range.TransferLease", class = "control", audience = "operators", idempotent,
         reply = Result<u64, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferLease {
    /// Which range.
    pub range: u64,
    /// Which node.
    pub to: NodeId,
    /// How often it was passed on. Whoever is no node says 0.
    pub hops: u32,
}

/// Move a replica of a range from one node to another one. The same again tells how far it is.
#[remote(crate = crate, name = "range.Move", class = "control", audience = "operators", idempotent,
         reply = Result<Moved, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveReplica {
    /// Which range.
    pub range: u64,
    /// From which node.
    pub from: NodeId,
    /// To which node.
    pub to: NodeId,
}

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Moved {
    /// The old replica has left its range, and the new one votes.
    Done,
    /// It goes on by itself.
    Underway,
}

/// Compare the replicas of a range.
#[remote(crate = crate, name = "range.Check", class = "control", audience = "operators", idempotent,
         reply = Result<RangeChecked, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckRange {
    /// Which range.
    pub range: u64,
    /// How often it was passed on. Whoever is no node says 0.
    pub hops: u32,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct RangeChecked {
    /// The place in its log of the command after which its replicas were compared.
    pub index: u64,
    /// Its replicas: number, node, and what it is, as a hash; none: it has not answered in time.
    pub replicas: Vec<(u64, NodeId, Option<String>)>,
    /// Those that differ from most voters: each is quarantined and rebuilt.
    pub odd: Vec<u64>,
    /// Whether there are differences and no majority of the voters is the same: nothing is done then.
    pub undecided: bool,
}

/// Change a keyspace's row in the meta range. One node asks it of the one that holds the lease of that.
#[remote(crate = crate, name = "range.Plan", class = "control", audience = "nodes", idempotent,
         reply = Result<Vec<u8>, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRange {
    /// Which keyspace.
    pub keyspace: String,
    /// What: a change, in the catalog's bytes.
    pub change: Vec<u8>,
}

/// Which range has this key?
#[remote(crate = crate, name = "range.Where", class = by(class), audience = "nodes", idempotent,
         reply = Result<RangeBounds, KvRefusal>)]
#[derive(Clone, PartialEq, Eq)]
pub struct WhereIs {
    /// The class of the keyspace's data.
    pub class: DataClass,
    /// Which keyspace.
    pub keyspace: String,
    /// The key.
    pub key: Vec<u8>,
}

impl fmt::Debug for WhereIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WhereIs({}, a key of {} bytes)", self.keyspace, self.key.len())
    }
}

/// A range and its keys.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct RangeBounds {
    /// The range.
    pub range: u64,
    /// Its first key.
    pub from: Vec<u8>,
    /// The first key behind it; none: it has no end.
    pub to: Option<Vec<u8>>,
}

impl fmt::Debug for RangeBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RangeBounds({})", self.range)
    }
}

// ---- keys and values ---------------------------------------------------------------------------

/// What a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Needs {
    /// All that was acknowledged before it asked.
    Strong,
    /// All that was acknowledged so long before it is answered.
    Bounded(Duration),
    /// Whatever is there.
    Eventual,
    /// What was at this time.
    AsOf(HybridTime),
}

/// Read a key, or keys in their order.
#[remote(crate = crate, name = "kv.Read", class = by(class), audience = "everyone", idempotent,
         reply = Result<KvAnswer, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvRead {
    /// The class of the keyspace's data.
    pub class: DataClass,
    /// Which keyspace.
    pub keyspace: String,
    /// The key, or the first one.
    pub from: Vec<u8>,
    /// Of a scan: the first key that is not read any more; empty: to the end.
    pub to: Option<Vec<u8>>,
    /// Of a scan: so many rows at most.
    pub limit: u64,
    /// What is needed.
    pub needs: Needs,
    /// What the client has seen.
    pub token: Vec<u8>,
    /// Whether a farther replica may not be asked.
    pub nearest_only: bool,
    /// Whether a nearer replica has passed it on. Whoever is no node says no.
    pub fallback: bool,
    /// How often it was passed on. Whoever is no node says 0.
    pub hops: u32,
    /// Rows are given as they stand on disks: each value is a whole record, sealed if it is.
    pub as_stored: bool,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KvRow {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// When it was written.
    pub version: HybridTime,
    /// The version of its schema, if one was given.
    pub schema: Option<u32>,
    /// Whom it is about, if that was said.
    pub subject: Option<String>,
    /// From when on it reads as absent.
    pub expires: Option<HybridTime>,
    /// Of a personal class: the id of the subject's key, which says nothing of who that is.
    pub sealed_under: Option<String>,
}

impl fmt::Debug for KvRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvRow({} bytes at {})", self.value.len(), self.version)
    }
}

/// What came of a read, and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KvAnswer {
    /// The key's row, if it is there; of a scan, rows in their order.
    pub rows: Vec<KvRow>,
    /// Of a scan: where to go on.
    pub next: Option<Vec<u8>>,
    /// What the answer is.
    pub level: Guarantee,
    /// As of when.
    pub at: HybridTime,
    /// How old it may be.
    pub age: Duration,
    /// In which region it was read.
    pub region: Region,
    /// By which replica.
    pub replica: u64,
    /// Whether a nearer replica could not answer.
    pub fallback: bool,
    /// What the client has seen now: to be given with its next calls, wherever they go.
    pub token: Vec<u8>,
    /// Rows that are left out because their subjects were erased.
    pub erased: u64,
}

/// Under which condition a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum KvCondition {
    /// It is not there.
    Absent,
    /// It was last written then.
    Version(HybridTime),
}

/// One write.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KvOp {
    /// Of which key.
    pub key: Vec<u8>,
    /// The value; none: the key is deleted.
    pub value: Option<Vec<u8>>,
    /// Under which condition.
    pub condition: Option<KvCondition>,
    /// The version of the value's schema.
    pub schema: Option<u32>,
    /// Whom the value is about.
    pub subject: Option<String>,
    /// For how long it is there; none: until it is deleted.
    pub lasts: Option<Duration>,
}

impl fmt::Debug for KvOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.value.as_ref().map(Vec::len);
        f.debug_struct("KvOp").field("bytes", &bytes).field("condition", &self.condition).finish()
    }
}

/// Write keys of one keyspace: all, or none.
#[remote(crate = crate, name = "kv.Write", class = by(class), audience = "everyone", reply = Result<KvWritten, KvRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvWrite {
    /// The class of the keyspace's data.
    pub class: DataClass,
    /// Which keyspace.
    pub keyspace: String,
    /// What: one at most of each key.
    pub ops: Vec<KvOp>,
    /// How often it was passed on. Whoever is no node says 0.
    pub hops: u32,
}

/// It was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KvWritten {
    /// When: the version of each of its keys.
    pub version: HybridTime,
    /// In which region it was proposed.
    pub region: Region,
    /// By which replica.
    pub replica: u64,
    /// What the client has seen now.
    pub token: Vec<u8>,
}

/// Why nothing was read or written. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum KvRefusal {
    /// There is no such keyspace.
    NoSuchKeyspace(String),
    /// It is there, and is another one.
    Exists {
        /// Its class.
        class: DataClass,
        /// How many replicas were asked for.
        replication: u32,
        /// For how long things are kept.
        lifetimes: Lifetimes,
        /// What is wanted of where its replicas stand.
        placement: Placement,
    },
    /// The call came under another class than the keyspace's.
    WrongClass(DataClass),
    /// The policy does not let it be so.
    NotAllowed(String),
    /// A condition did not hold.
    Condition {
        /// Of which write, by number.
        op: u64,
        /// What the key was last written at, if it is there.
        found: Option<HybridTime>,
    },
    /// No replica at hand can answer within the bound that was asked for, and the leaseholder was not to be asked, or not reached.
    StalenessBoundViolated {
        /// In milliseconds.
        bound_ms: u64,
        /// How old the youngest answer might be of the replicas that were asked, in milliseconds.
        age_ms: u64,
        /// When to ask again, where the leaseholder was not reached; none: it was not to be asked.
        retry_after: Option<Duration>,
    },
    /// What was asked for lies ahead of the clock, or too far behind it.
    Time(String),
    /// The token is none of this mesh.
    Token(String),
    /// It cannot be done now, and may be tried again.
    NotNow {
        /// Why.
        why: String,
        /// When.
        retry_after: Duration,
    },
    /// The question makes no sense: says what was wrong and what would be right.
    Invalid(String),
    /// What is on the disk is not sound. The node stops, unless it is a sealed value alone.
    Unsound(String),
    /// The value is there and its subject was erased: nobody can read it.
    Erased,
    /// The keyspace is archived or deleted.
    NotActive(Life),
    /// The node that orders the range's writes cannot keep up. Other ranges' may.
    Overloaded {
        /// By what.
        why: String,
        /// When it may be better.
        retry_after: Duration,
    },
}

impl KvRefusal {
    /// A short stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchKeyspace(_) => "no_such_keyspace",
            Self::Exists { .. } => "exists",
            Self::WrongClass(_) => "wrong_class",
            Self::NotAllowed(_) => "not_allowed",
            Self::Condition { .. } => "condition_failed",
            Self::StalenessBoundViolated { .. } => "staleness_bound_violated",
            Self::Time(_) => "time",
            Self::Token(_) => "token",
            Self::NotNow { .. } => "not_now",
            Self::Invalid(_) => "invalid",
            Self::Unsound(_) => "unsound",
            Self::Erased => "erased",
            Self::Overloaded { .. } => "overloaded",
            Self::NotActive(Life::Archived) => "archived",
            Self::NotActive(_) => "deleted",
        }
    }

    /// When it may make sense to ask again, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        let after = match self {
            Self::NotNow { retry_after, .. } | Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::StalenessBoundViolated { retry_after, .. } => *retry_after,
            _ => None,
        };
        after.and_then(|after| u64::try_from(after.as_millis()).ok())
    }
}

impl fmt::Display for KvRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchKeyspace(name) => {
                write!(
                    f,
                    "there is no keyspace {name}; `rhumb keyspace create {name} --class CLASS` makes one"
                )
            }
            Self::Exists { class, replication, lifetimes, placement } => {
                let said = if *replication == 0 { "none".to_owned() } else { replication.to_string() };
                write!(
                    f,
                    "it is there already, of class {class} and with --replication {said}, {lifetimes}, {placement}"
                )
            }
            Self::WrongClass(class) => write!(f, "the keyspace's class is {class}: ask under that one"),
            Self::NotAllowed(why) => f.write_str(why),
            Self::Condition { found: Some(found), .. } => {
                write!(f, "the key was last written at {}; nothing was written", found.to_bits())
            }
            Self::Condition { found: None, .. } => f.write_str("the key is not there; nothing was written"),
            Self::StalenessBoundViolated { bound_ms, age_ms, retry_after: None } => write!(
                f,
                "what is at hand may be {age_ms} ms old and {bound_ms} ms were asked for: ask for more, or let the \
                 leaseholder be asked"
            ),
            Self::StalenessBoundViolated { bound_ms, age_ms, retry_after: Some(after) } => write!(
                f,
                "what is at hand may be {age_ms} ms old and {bound_ms} ms were asked for, and the leaseholder was not \
                 reached: ask again in {after:?}, or ask for more"
            ),
            Self::Time(why) | Self::Token(why) | Self::Invalid(why) | Self::Unsound(why) => f.write_str(why),
            Self::Overloaded { why, retry_after } => {
                write!(f, "{why}, and nothing new is written; ask again in {retry_after:?}")
            }
            Self::NotNow { why, retry_after } => write!(f, "{why}; ask again in {retry_after:?}"),
            Self::NotActive(Life::Archived) => {
                f.write_str("the keyspace is archived: it is read, and written again once it is restored")
            }
            Self::NotActive(_) => f.write_str(
                "the keyspace is deleted: within its retention it can be restored (`rhumb keyspace restore`)",
            ),
            Self::Erased => f.write_str(
                "the subject of its value was erased, and nobody can read it: the key may be deleted or written again",
            ),
        }
    }
}
