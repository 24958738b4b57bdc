//! What `AuditLogger` can be asked over the mesh, its answers and its typed refusals.
//!
//! Nodes ask for cosignatures; operators read, prove, check and erase. All of it is class `control`, but what a
//! record says of somebody: bodies are shown to operators of the log's own region alone.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rhumb_core::{NodeId, Region};
use rhumb_verify::proof::NoProof;
use serde::{Deserialize, Serialize};

use super::witness::NotCosigned;
use crate::{Wire, grows, remote};

/// The most entries in one answer.
pub const READ_AT_ONCE: u64 = 256;
/// Bytes of entries and bodies in one answer, roughly: a frame has 1 MiB.
pub const READ_BYTES: usize = 512 << 10;

/// Cosign a checkpoint: it continues what was cosigned, as the proof shows.
#[remote(crate = crate, name = "audit.Cosign", class = "control", audience = "nodes", idempotent,
         reply = Result<String, Uncosigned>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosign {
    /// The size that the log believes was cosigned last.
    pub old: u64,
    /// From there to the checkpoint: hashes of 32 bytes, one behind the other.
    pub proof: Vec<u8>,
    /// The checkpoint with its log's signature.
    pub note: String,
}

/// Why a checkpoint is not cosigned (see [`NotCosigned`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Uncosigned {
    /// It cannot be read.
    Unreadable(String),
    /// Its log is not watched.
    Unknown(String),
    /// Its log has not signed it.
    NotSigned(String),
    /// Another size was cosigned last.
    Conflict {
        /// That size.
        size: u64,
    },
    /// It does not continue what was cosigned.
    NotContinued {
        /// What came before is another tree's: not only the proof is wrong.
        rewritten: bool,
    },
    /// Too much waits here already.
    Overloaded {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
}

impl From<NotCosigned> for Uncosigned {
    fn from(why: NotCosigned) -> Self {
        match why {
            NotCosigned::Unreadable(why) => Self::Unreadable(why),
            NotCosigned::Unknown(origin) => Self::Unknown(origin),
            NotCosigned::NotSigned(origin) => Self::NotSigned(origin),
            NotCosigned::Conflict { size } => Self::Conflict { size },
            NotCosigned::NotContinued(why) => Self::NotContinued { rewritten: why == NoProof::OldRoot },
        }
    }
}

impl Uncosigned {
    /// As the log's machine takes it; none where it says nothing about the log.
    #[must_use]
    pub fn judged(self) -> Option<NotCosigned> {
        Some(match self {
            Self::Unreadable(why) => NotCosigned::Unreadable(why),
            Self::Unknown(origin) => NotCosigned::Unknown(origin),
            Self::NotSigned(origin) => NotCosigned::NotSigned(origin),
            Self::Conflict { size } => NotCosigned::Conflict { size },
            Self::NotContinued { rewritten: true } => NotCosigned::NotContinued(NoProof::OldRoot),
            Self::NotContinued { rewritten: false } => NotCosigned::NotContinued(NoProof::Root),
            Self::Overloaded { .. } => return None,
        })
    }
}

/// Why the audit log does not answer. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum AuditRefusal {
    /// There is no such entry or tree yet.
    NotThere {
        /// How many entries there are.
        entries: u64,
    },
    /// What records say of somebody is shown to operators of this region alone.
    NotShown {
        /// The region.
        region: Region,
    },
    /// The disk is not sound: see `rhumb audit fsck`.
    Unsound(String),
    /// The question makes no sense: says what was wrong and what would be right.
    Invalid(String),
    /// Too much waits here already.
    Overloaded {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
    /// It was there, and was pruned: it was older than the log's retention.
    #[since(2)]
    Pruned {
        /// The first entry that is there.
        mark: u64,
        /// The retention.
        retention: Duration,
    },
}

impl AuditRefusal {
    /// A short stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotThere { .. } => "not_there",
            Self::NotShown { .. } => "not_shown",
            Self::Unsound(_) => "unsound",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::Pruned { .. } => "pruned",
        }
    }

    /// When it may make sense to ask again, in milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Overloaded { retry_after } => u64::try_from(retry_after.as_millis()).ok(),
            _ => None,
        }
    }
}

impl fmt::Display for AuditRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere { entries } => {
                write!(f, "the log has {entries} entries: nothing can be proved of what is not under them")
            }
            Self::NotShown { region } => {
                write!(
                    f,
                    "records of this log are shown to operators of region {region} alone; entries are not secret"
                )
            }
            Self::Unsound(why) => write!(f, "{why}; `rhumb audit fsck` says what else is not sound"),
            Self::Invalid(why) => f.write_str(why),
            Self::Overloaded { retry_after } => {
                write!(f, "too much waits here; ask again in {retry_after:?}")
            }
            Self::Pruned { mark, retention } => {
                let days = retention.as_secs() / (24 * 3_600);
                write!(
                    f,
                    "the entries before {mark} were pruned: they were older than `audit.retention` ({days}d); ask \
                     from entry {mark} on, or of trees of at least {mark} entries"
                )
            }
        }
    }
}

/// How does the log stand? With a nonce: demands that the next checkpoint has it.
#[remote(crate = crate, name = "audit.Show", class = "control", audience = "operators", idempotent,
         reply = Result<AuditView, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowAudit {
    /// Up to 64 bytes that the next checkpoint is to have; none demanded where it is empty.
    pub nonce: Vec<u8>,
}

/// How a node's log stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct AuditView {
    /// Which node's.
    pub node: String,
    /// Its key, in `c2sp.org/signed-note` form.
    pub key: String,
    /// Which checkpoints it publishes, as a `c2sp.org/tlog-policy`; empty while too few log witnesses are known.
    pub policy: String,
    /// Entries, durable or about to be.
    pub entries: u64,
    /// Entries under the last signed checkpoint.
    pub signed: u64,
    /// Entries under the last one that is cosigned as the policy asks.
    pub published: u64,
    /// What each log witness has cosigned since this node started, by the name of its key.
    pub witnesses: BTreeMap<String, u64>,
    /// What this node has cosigned of other logs: entries by origin.
    pub cosigned: BTreeMap<String, u64>,
    /// Origins of logs against which this node has evidence.
    pub accused: Vec<String>,
    /// Nodes that show another key than the one that is pinned.
    pub refused: Vec<String>,
    /// Why nothing is signed any more.
    pub broken: Option<String>,
    /// The last signed checkpoint, a note; empty where there is none.
    pub checkpoint: String,
    /// The last published one, with its cosignatures; empty where there is none.
    pub published_note: String,
    /// Subjects whose keys are here.
    pub subjects: u64,
    /// Keys that can be unwrapped by nobody: what is sealed under them stays shut.
    pub lost_keys: u64,
    /// Observations for which there was no room.
    pub missed: u64,
    /// Bundles of 256 entries that were checked since the start.
    pub checked: u64,
    /// What the last check of everything has found, and the present one so far.
    pub faults: Vec<String>,
}

/// From which entry on are a log's entries there?
#[remote(crate = crate, name = "audit.ShowMark", class = "control", audience = "operators", idempotent,
         reply = Result<Mark, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowMark {}

/// Where a log begins.
#[grows(crate = crate)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of the first entry that was not pruned.
    pub mark: u64,
    /// The edge of the tree of those before it ([`Edge::left_of`](super::Edge::left_of)): hashes of 32 bytes, one behind
    /// the other.
    pub edge: Vec<u8>,
    /// How old an entry is before it is pruned.
    pub retention: Duration,
}

/// Read entries.
#[remote(crate = crate, name = "audit.Read", class = "control", audience = "operators", idempotent,
         reply = Result<EntryPage, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadEntries {
    /// From this number on.
    pub from: u64,
    /// So many at the most, and never more than [`READ_AT_ONCE`].
    pub limit: u64,
    /// Also the records, where they can be opened.
    pub records: bool,
    /// Only entries whose record is about this subject; all where it is empty.
    pub subject: String,
}

/// Entries that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct EntryPage {
    /// How many entries of the log are durable.
    pub entries: u64,
    /// What was looked through: the next page begins here.
    pub next: u64,
    /// Those that were asked for.
    pub page: Vec<EntryView>,
}

/// One entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct EntryView {
    /// Its number.
    pub index: u64,
    /// Its bytes, as they are hashed.
    pub entry: Vec<u8>,
    /// The record's salt, 32 bytes; empty where it is not shown.
    pub salt: Vec<u8>,
    /// The record; empty where it is not shown.
    pub record: Vec<u8>,
    /// The record was asked for and is shut: its subject was erased, or it never had one here.
    pub shut: bool,
    /// The record was asked for, and its body is not what was sealed: somebody or something changed it on the disk.
    pub changed: bool,
}

/// Prove that entries are in the tree of `size`, or, with `old`, that this tree continues that of `old`.
#[remote(crate = crate, name = "audit.Prove", class = "control", audience = "operators", idempotent,
         reply = Result<Proven, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prove {
    /// The entry.
    pub index: Option<u64>,
    /// The older size.
    pub old: Option<u64>,
    /// The size.
    pub size: u64,
}

/// A proof: hashes of 32 bytes, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Proven {
    /// Of inclusion (RFC 9162, section 2.1.3), where an entry was asked for.
    pub inclusion: Vec<u8>,
    /// Of consistency (section 2.1.4), where an older size was.
    pub consistency: Vec<u8>,
    /// The entry's bytes, where one was asked for.
    pub entry: Vec<u8>,
}

/// Prove that several entries are in the tree of `size`, by one proof.
#[remote(crate = crate, name = "audit.ProveBatch", class = "control", audience = "operators", idempotent,
         reply = Result<ProvenBatch, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProveBatch {
    /// The entries, each once and in order; [`READ_AT_ONCE`] of them at most.
    pub indices: Vec<u64>,
    /// The size.
    pub size: u64,
}

/// One proof for several entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct ProvenBatch {
    /// The entries' bytes, in their order.
    pub entries: Vec<Vec<u8>>,
    /// What proves them ([`rhumb_verify::batch`]): hashes of 32 bytes, one behind the other.
    pub hashes: Vec<u8>,
}

/// Check a bundle of 256 entries: entries, bodies, and the tiles above them.
#[remote(crate = crate, name = "audit.Check", class = "control", audience = "operators", idempotent,
         reply = Result<Checked, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckBundle {
    /// Which.
    pub bundle: u64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Checked {
    /// The bundle to be checked next; none: that was the last.
    pub next: Option<u64>,
    /// Entries that were hashed again.
    pub entries: u64,
    /// Bodies that were opened.
    pub opened: u64,
    /// What is not sound, each with its name.
    pub faults: Vec<String>,
}

/// What would this node state next of something, together with other regions?
#[remote(crate = crate, name = "audit.NextStatement", class = "control", audience = "operators", idempotent,
         reply = Result<String, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStatement {
    /// Of what kind: `policy`, `checkpoint`.
    pub kind: String,
    /// Of what: `mesh`, an origin.
    pub subject: String,
    /// The hash of the statement that it follows, 32 bytes; that which the node signed last where it is empty.
    pub previous: Vec<u8>,
}

/// State this together with other regions: sign it, if it is so.
#[remote(crate = crate, name = "audit.State", class = "control", audience = "operators", idempotent,
         reply = Result<String, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The statement, as `rhumb_verify::statement` has it.
    pub text: String,
}

/// Believe another key of a peer's log from now on: the one before is lost, or somebody else has it.
#[remote(crate = crate, name = "audit.ReplaceKey", class = "control", audience = "operators", idempotent,
         reply = Result<KeyReplaced, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaceKey {
    /// Whose.
    pub node: NodeId,
    /// The key, in `c2sp.org/signed-note` form.
    pub key: String,
}

/// A peer's key is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct KeyReplaced {
    /// The number of the entry that says so.
    pub entry: u64,
    /// The key before, in the same form.
    pub before: String,
}

/// Erase a subject: nothing that is sealed under its key can be opened any more, here or in any copy.
#[remote(crate = crate, name = "audit.Erase", class = "control", audience = "operators", idempotent,
         deadline = "60s", reply = Result<Erased, AuditRefusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EraseSubject {
    /// Whom, as records name it.
    pub subject: String,
}

/// A subject is erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Erased {
    /// The number of the entry that says so.
    pub entry: u64,
    /// The id of the key that was destroyed; none: there was none of that subject here.
    pub key: Option<String>,
}
