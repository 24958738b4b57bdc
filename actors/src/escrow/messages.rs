//! What `EscrowRegion` can be asked, its answers and its typed refusals: the actor's public face.
//!
//! These are the wire types of the actor: each message has a stable name and a layout that only grows
//! at its end, and there is an enum per choice, to which variants are only appended. One of them,
//! [`Key`], stands in records on disk too: it never changes at all.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rhumb_core::limits::MAX_KEY_BYTES;
use rhumb_core::{DataClass, HybridTime, Incarnation, NodeId, PoolName, Region, StoreId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Wire, remote};

/// How long a hold lasts that does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// The longest a hold may last.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long the answer to an idempotency key is remembered. An older key is refused, never run again.
pub const KEY_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Names one hold for ever: the pool, the node that owns it, that node's life, and a number in it.
/// As text: `concert/us-east/n1/19a3f0c2b41/17` (the life in hexadecimal).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct HoldId {
    /// The pool whose units are held.
    pub pool: PoolName,
    /// The only node that may confirm, release or expire it.
    pub owner: NodeId,
    /// The life of that node in which it was made.
    pub incarnation: Incarnation,
    /// Its number within that life, from 1.
    pub number: u64,
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:x}/{}", self.pool, self.owner, self.incarnation.0, self.number)
    }
}

/// Text that is not a hold id, or not an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{given:?} is not a {kind}; expected {expected}")]
pub struct ParseIdError {
    /// What was given.
    pub given: String,
    /// What it was to be.
    pub kind: &'static str,
    /// How one looks.
    pub expected: &'static str,
}

impl FromStr for HoldId {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let bad = || ParseIdError {
            given: s.chars().take(120).collect(),
            kind: "hold id",
            expected: "POOL/REGION/NODE/LIFE/NUMBER as printed by `rhumb hold`",
        };
        let parts: Vec<&str> = s.split('/').collect();
        let [pool, region, node, life, number] = parts[..] else { return Err(bad()) };
        Ok(Self {
            pool: pool.parse().map_err(|_| bad())?,
            owner: NodeId::new(region, node).map_err(|_| bad())?,
            incarnation: Incarnation(u64::from_str_radix(life, 16).map_err(|_| bad())?),
            number: number.parse().map_err(|_| bad())?,
        })
    }
}

/// An idempotency key: the same key never holds twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Key {
    /// Made by a client library: says which node remembers it and since when, so that a retry that
    /// lands anywhere finds its way home, and one that comes too late is known for it.
    /// As text: `k1:us-east/n1:1763689205123:4f2a…`.
    Made {
        /// The node that remembers it.
        home: NodeId,
        /// When it was made, milliseconds since the Unix epoch.
        created_ms: u64,
        /// Random letters and digits.
        nonce: String,
    },
    /// Given by hand. It is scoped to the region that is asked: the same text in another region is
    /// another key.
    Raw(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { home, created_ms, nonce } => write!(f, "k1:{home}:{created_ms}:{nonce}"),
            Self::Raw(text) => f.write_str(text),
        }
    }
}

impl FromStr for Key {
    type Err = ParseIdError;

    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let bad = |expected| ParseIdError {
            given: s.chars().take(120).collect(),
            kind: "idempotency key",
            expected,
        };
        if s.is_empty() || s.len() > MAX_KEY_BYTES || s.chars().any(char::is_control) {
            return Err(bad("1 to 200 bytes of printable text"));
        }
        let Some(made) = s.strip_prefix("k1:") else { return Ok(Self::Raw(s.to_owned())) };
        let shape = "k1:REGION/NODE:MILLISECONDS:NONCE (or any text that does not begin with k1:)";
        let parts: Vec<&str> = made.split(':').collect();
        let [home, created, nonce] = parts[..] else { return Err(bad(shape)) };
        if nonce.is_empty() || !nonce.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(bad(shape));
        }
        Ok(Self::Made {
            home: home.parse().map_err(|_| bad(shape))?,
            created_ms: created.parse().map_err(|_| bad(shape))?,
            nonce: nonce.to_owned(),
        })
    }
}

/// What a pool is. Fixed when it is created; every node that holds rights in it has a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolSpec {
    /// Its name, unique in the mesh.
    pub name: PoolName,
    /// The class of its data.
    pub class: DataClass,
    /// Units minted.
    pub supply: u64,
    /// How the first split was weighted, by region.
    pub weights: BTreeMap<Region, u64>,
    /// When its home minted it.
    pub created: HybridTime,
}

// ---- customers and operators ------------------------------------------------------------------

/// Create a pool: mint its units at its home, and grant each region its share. The same body again
/// is the same answer; another body under the same name is refused.
#[remote(crate = crate, name = "escrow.CreatePool", class = by(class), audience = "operators", idempotent,
         reply = Result<PoolCreated, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePool {
    /// Its name.
    pub name: PoolName,
    /// The class of its data.
    pub class: DataClass,
    /// Units to mint: 1 to 2⁴⁸.
    pub supply: u64,
    /// Weight of each region in the first split; empty for equal weights over all regions that
    /// policy allows to hold the class.
    pub weights: BTreeMap<Region, u64>,
}

/// A pool exists, and its units are minted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolCreated {
    /// What it is.
    pub spec: PoolSpec,
    /// The node that minted it and owns its tail.
    pub home: NodeId,
    /// Units granted to each node at first.
    pub shares: BTreeMap<NodeId, u64>,
}

/// Hold units for a buyer.
#[remote(crate = crate, name = "escrow.Hold", class = looked_up, key = key, idempotent,
         reply = Result<Held, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Of which pool.
    pub pool: PoolName,
    /// How many units, from 1.
    pub qty: u64,
    /// For how long; `None` for [`DEFAULT_TTL`].
    pub ttl: Option<Duration>,
    /// The same key never holds twice.
    pub key: Key,
    /// Set by a node that passes the request on, so that it is passed on at most twice: to the home
    /// of its key, and from there to the owner of the pool's tail.
    pub hops: u8,
}

/// Units are held, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Held {
    /// Confirm or release it by this.
    pub hold: HoldId,
    /// How many units.
    pub qty: u64,
    /// When its owner gives the units back unless it is confirmed.
    pub expires: HybridTime,
}

/// Make a hold a sale.
#[remote(crate = crate, name = "escrow.Confirm", class = looked_up, idempotent,
         reply = Result<Settled, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// Which.
    pub hold: HoldId,
}

/// Give a hold's units back.
#[remote(crate = crate, name = "escrow.Release", class = looked_up, idempotent,
         reply = Result<Settled, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub hold: HoldId,
}

/// A hold's life has ended as asked, durably. Asking again gives the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Settled {
    /// Which.
    pub hold: HoldId,
    /// How many units.
    pub qty: u64,
}

/// One node's view of a pool: its own rows exactly, the others as it last heard.
#[remote(crate = crate, name = "escrow.ShowPool", class = looked_up, idempotent,
         reply = Result<PoolView, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowPool {
    /// Which.
    pub pool: PoolName,
}

/// One node's view of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolView {
    /// What it is.
    pub spec: PoolSpec,
    /// The node that minted it and owns its tail.
    pub home: NodeId,
    /// Whose view this is.
    pub node: NodeId,
    /// Its own row, exact.
    pub row: Row,
    /// What it last heard from the others, and how long ago.
    pub others: BTreeMap<NodeId, (Figures, Duration)>,
    /// Whether the node forwards holds to the home because little is left.
    pub tail: bool,
    /// What came of the last reconciliation: known to the home alone.
    pub reconciled: Option<Reconciled>,
}

/// What a pool's home found when it last added up all nodes' rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Reconciled {
    /// Whether all rows stood so at one time. If not, nothing is known of the drift.
    pub exact: bool,
    /// Units too many (above zero) or too few. None unless exact.
    pub drift: Option<i64>,
    /// What is wrong whatever moved while the rows were read, in words that name the nodes.
    pub violations: Vec<String>,
    /// Nodes whose row is missing: silent, unproven or restored.
    pub missing: Vec<NodeId>,
    /// How often all rows were read.
    pub readings: u32,
    /// How long ago that was.
    pub age: Duration,
}

impl Reconciled {
    /// Whether somebody must look into it.
    #[must_use]
    pub fn is_alarm(&self) -> bool {
        self.drift.is_some_and(|drift| drift != 0) || !self.violations.is_empty()
    }
}

/// One node's row of a pool, exact and durable: for the audit.
#[remote(crate = crate, name = "escrow.ReadRow", class = looked_up, idempotent,
         reply = Result<Row, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRow {
    /// Which.
    pub pool: PoolName,
}

/// A node's rows in the matrix of a pool (all cumulative, all monotone but `held` and `available`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Row {
    /// Rises with every change of the row. Two equal readings frame an interval without change.
    pub version: u64,
    /// Units minted here.
    pub minted: u64,
    /// Rights granted to each other node, ever.
    pub granted: BTreeMap<NodeId, u64>,
    /// Rights accepted from each other node, ever.
    pub accepted: BTreeMap<NodeId, u64>,
    /// Units sold here, ever.
    pub consumed: u64,
    /// Units given back after sale, ever.
    pub returned: u64,
    /// Units held now.
    pub held: u64,
    /// Units that may be held or granted now.
    pub available: u64,
    /// What the node counted since it started.
    pub tallies: Tallies,
    /// Whether the node may spend.
    pub standing: Standing,
    /// What the node's answers add up to, counted apart from the other numbers.
    pub receipts: Receipts,
}

/// Units by the answers that a node gave, counted apart from its ledger: what the ledger said when the
/// node started, and each answer since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Receipts {
    /// Units told to be sold, ever.
    pub sold: u64,
    /// Units told to be given back after sale, ever.
    pub returned: u64,
}

/// What a node counted since it started. For people; no invariant rests on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Tallies {
    /// Holds granted.
    pub held: u64,
    /// Holds confirmed.
    pub confirmed: u64,
    /// Holds released.
    pub released: u64,
    /// Holds that expired.
    pub expired: u64,
    /// Holds refused, by the refusal's code.
    pub refused: BTreeMap<String, u64>,
    /// Holds refused although another node was known to have units to spare.
    pub false_refusals: u64,
    /// Holds passed on to the owner of the tail, or to the home of their key.
    pub forwarded: u64,
}

/// Whether a node may spend the rights on its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Standing {
    /// Its peers have not yet said that its disk is the latest.
    #[default]
    Unproven,
    /// It may spend.
    Proven,
    /// Its disk is older than what a peer has seen of it: it holds zero rights until attested.
    Restored,
}

/// Say, as an operator, what a restored node had sold of a pool. Its rights are then what it was
/// minted and granted, less what its peers have accepted from it, less this.
#[remote(crate = crate, name = "escrow.AttestPool", class = looked_up, audience = "operators", idempotent,
         reply = Result<PoolAttested, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestPool {
    /// Of which pool.
    pub pool: PoolName,
    /// The restored node.
    pub node: NodeId,
    /// Units that node had sold, by receipts.
    pub sold: u64,
}

/// A restored node may spend again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct PoolAttested {
    /// Of which pool.
    pub pool: PoolName,
    /// The node's row now.
    pub row: Row,
}

/// Why something was not done. A normal answer: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Refusal {
    /// No pool of this name.
    NoSuchPool(PoolName),
    /// Every unit is sold: proven by the nodes' own counts.
    SoldOut,
    /// Nothing to hold here now; held units may come back, or rights arrive.
    Exhausted {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
    /// A pool of this name exists with another body.
    PoolExists(Box<PoolSpec>),
    /// This key was used for a request with another body.
    KeyReused,
    /// This key is older than [`KEY_RETENTION`]: its answer is forgotten, and it is not run again.
    KeyExpired,
    /// No such hold here (never was, or its retention is over).
    NoSuchHold(HoldId),
    /// The hold has expired; its units went back.
    HoldExpired(HoldId),
    /// The hold was released; its units went back.
    HoldReleased(HoldId),
    /// The hold was confirmed; the units are sold.
    HoldConfirmed(HoldId),
    /// The node has just started and its peers have not yet said that its disk is the latest.
    Unproven,
    /// The node runs on a restored disk: `rhumb pool attest` first.
    Restored,
    /// Policy does not let the class be held in this region.
    NotAllowed {
        /// The class.
        class: DataClass,
        /// Where it may not be held.
        region: Region,
        /// The rule.
        reason: String,
    },
    /// The request makes no sense: says what was wrong and what would be right.
    Invalid(String),
    /// Too much waits here already.
    Overloaded {
        /// When it may make sense to ask again.
        retry_after: Duration,
    },
}

impl Refusal {
    /// A short stable code, for metrics, JSON and receipts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPool(_) => "no_such_pool",
            Self::SoldOut => "sold_out",
            Self::Exhausted { .. } => "exhausted",
            Self::PoolExists(_) => "pool_exists",
            Self::KeyReused => "key_reused",
            Self::KeyExpired => "key_expired",
            Self::NoSuchHold(_) => "no_such_hold",
            Self::HoldExpired(_) => "hold_expired",
            Self::HoldReleased(_) => "hold_released",
            Self::HoldConfirmed(_) => "hold_confirmed",
            Self::Unproven => "unproven",
            Self::Restored => "restored",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
        }
    }

    /// When it may make sense to ask again, where anyone knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { retry_after } | Self::Overloaded { retry_after } => Some(*retry_after),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchPool(name) => write!(f, "there is no pool {name}"),
            Self::SoldOut => f.write_str("sold out"),
            Self::Exhausted { retry_after } => {
                write!(f, "nothing to hold here now; ask again in {} ms", retry_after.as_millis())
            }
            Self::PoolExists(spec) => write!(
                f,
                "pool {} exists with another body: supply {}, class {}",
                spec.name, spec.supply, spec.class
            ),
            Self::KeyReused => f.write_str("this key was used for another request; use a new key"),
            Self::KeyExpired => {
                f.write_str("this key is older than 24 h and is not run again; use a new key")
            }
            Self::NoSuchHold(hold) => write!(f, "there is no hold {hold}"),
            Self::HoldExpired(hold) => write!(f, "hold {hold} has expired"),
            Self::HoldReleased(hold) => write!(f, "hold {hold} was released"),
            Self::HoldConfirmed(hold) => write!(f, "hold {hold} was confirmed"),
            Self::Unproven => {
                f.write_str("the node has not yet heard from a peer that its disk is the latest")
            }
            Self::Restored => f.write_str("the node runs on a restored disk; `rhumb pool attest` it first"),
            Self::NotAllowed { class, region, reason } => {
                write!(f, "class {class} may not be held in {region}: {reason}")
            }
            Self::Invalid(what) => f.write_str(what),
            Self::Overloaded { retry_after } => {
                write!(f, "too much waits here; ask again in {} ms", retry_after.as_millis())
            }
        }
    }
}

// ---- between nodes -----------------------------------------------------------------------------

/// What a node says of itself so that others can level rights and know when all is sold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Figures {
    /// Units sold there, ever. Monotone: an old message can only under-state it.
    pub consumed: u64,
    /// Units that may be held or granted there now.
    pub available: u64,
    /// Units held there now.
    pub held: u64,
    /// Units asked for there, per second, smoothed.
    pub demand: u64,
}

/// All that one node has to say to another about one pool. One level-triggered message: every number
/// in it is cumulative or the latest, so loss, duplication, reordering and late arrival are harmless,
/// and it is sent again until the other's own message shows that it arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Level {
    /// What the pool is, so that a node that does not know it yet learns it.
    pub spec: PoolSpec,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// Rights the sender has granted the receiver, ever: durable before it was sent.
    pub granted: u64,
    /// Rights the sender has accepted from the receiver, ever: durable before it was sent.
    pub accepted: u64,
    /// The sender would like the receiver to have granted it this many, ever.
    pub need: u64,
    /// What the sender says of itself.
    pub figures: Figures,
}

/// Each second a node tells its peers how far its disk has come; they remember the highest, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Beat {
    /// The sender's data.
    pub store: StoreId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its highest durable commit number.
    pub durable: u64,
    /// Set by a sender that is not proven yet: answer with [`Witnessed`].
    pub prove: bool,
}

/// The highest durable commit number that the sender has ever seen of the receiver's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Witnessed {
    /// The receiver's data.
    pub store: StoreId,
    /// The life of the receiver to which this answers.
    pub incarnation: Incarnation,
    /// The highest number seen before that life; 0 if none.
    pub highest: u64,
    /// The life of the receiver in which that number was seen; 0 if none. A disk that does not know
    /// of that life is an older one, whatever its numbers are.
    pub life: Incarnation,
}

/// A restored node asks every peer to stop believing its earlier lives, and what they know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Disown {
    /// Lives before this one are over: their grants are refused from now on.
    pub before: Incarnation,
    /// Of which pool.
    pub pool: PoolName,
}

/// What a peer knows of a restored node's pool, after refusing its earlier lives durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Disowned {
    /// The life that asked.
    pub before: Incarnation,
    /// Of which pool.
    pub pool: PoolName,
    /// What the pool is, if this peer knows it.
    pub spec: Option<PoolSpec>,
    /// Rights this peer has accepted from the restored node, ever.
    pub accepted: u64,
    /// Rights this peer has granted to the restored node, ever.
    pub granted: u64,
    /// The most that this peer has heard the restored node had sold.
    pub consumed: u64,
    /// The latest life of the restored node that this peer has seen: the asking one must be later.
    pub life: Incarnation,
    /// Every pool in which this peer knows the restored node to have a part: each must be attested.
    pub pools: Vec<PoolName>,
}

/// What nodes tell each other. Each is idempotent and sent again until it is no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum PeerMessage {
    /// Rights, needs and figures of one pool.
    Level(Level),
    /// How far my disk has come.
    Beat(Beat),
    /// How far I have seen your disk come.
    Witnessed(Witnessed),
    /// Stop believing my earlier lives.
    Disown(Disown),
    /// I have, and this is what I know.
    Disowned(Disowned),
}

impl PeerMessage {
    /// The class of the data in it: the pool's, or the mesh's own.
    #[must_use]
    pub fn class(&self) -> DataClass {
        match self {
            Self::Level(level) => level.spec.class.clone(),
            Self::Disowned(Disowned { spec: Some(spec), .. }) => spec.class.clone(),
            Self::Beat(_) | Self::Witnessed(_) | Self::Disown(_) | Self::Disowned(_) => DataClass::control(),
        }
    }
}

/// The stable name of [`PeerMessage`] on the wire. It is told, never asked: it has no reply.
pub const PEER_MESSAGE: &str = "escrow.Peer";
