//! What `EscrowRegion` can be asked, its answers and its typed refusals: the actor's public face.
//!
//! These are the wire types of the actor: each message has a stable name and a layout that only grows
//! at its end, and there is an enum per choice, to which variants are only appended. One of them,
//! [`Key`], stands in records on disk too: it never changes at all. What nodes tell each other is in `peer`.

mod ids;
mod ledgers;
mod listing;
mod peer;
mod refusal;
mod terms;

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::{DataClass, HybridTime, NodeId, PoolName, Region};
use serde::{Deserialize, Serialize};

pub use self::ids::{CustomerTag, HoldId, Key, ParseIdError};
pub use self::ledgers::{AskLedger, LEDGER_WORD, LedgerAnswer, LedgerAsk, LedgerWord};
pub use self::listing::{LISTED_AT_ONCE, ListPools, PoolList, PoolListed};
pub use self::peer::{
    Beat, DebtFigures, DebtLevel, DebtWord, Disown, Disowned, Figures, Level, PEER_MESSAGE, PeerMessage,
    Witnessed,
};
pub use self::refusal::Refusal;
use crate::{Wire, grows, remote};

/// How long a hold lasts that does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(300);
/// The longest a hold may last.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// How long the answer to an idempotency key is remembered. An older key is refused, never run again.
pub const KEY_RETENTION: Duration = Duration::from_secs(24 * 3600);

/// What a pool is. Fixed when it is created; every node that holds rights in it has a copy.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Rights to sell beyond the supply, minted with it.
    #[since(2)]
    pub debt: u64,
    /// The node that holds a part of the supply for the others, if one does.
    #[since(2)]
    pub reserve: Option<Reserve>,
    /// The most that one customer may hold and have bought; `None`: as much as there is.
    #[since(2)]
    pub per_customer: Option<u64>,
    /// Where its rows are safe.
    #[since(3)]
    pub durability: Durability,
}

/// Where a pool's rows are safe. It stands in records too: variants are only appended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum Durability {
    /// On the disk of the node that wrote them.
    #[default]
    Local,
    /// On a majority of the replicas of a range, before they are acknowledged.
    Quorum,
}

impl Durability {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Quorum => "quorum",
        }
    }
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
    /// Rights to sell beyond the supply, used only where no unit is left or to be had: up to 2⁴⁸.
    #[since(2)]
    pub debt: u64,
    /// A part of the supply that one node holds for all others. It is granted before any node with
    /// demand of its own is asked, and is not sold to that node's own customers.
    #[since(2)]
    pub reserve: Option<Reserve>,
    /// The most that one customer may hold and have bought, over the whole mesh. Holds must then say
    /// for whom they are.
    #[since(2)]
    pub per_customer: Option<u64>,
    /// Where its rows are to be safe.
    #[since(3)]
    pub durability: Durability,
}

/// A part of a pool's supply that one node holds for the others. It stands in records on disk too: it
/// never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Reserve {
    /// Who holds it.
    pub node: NodeId,
    /// How many units, from 1 and fewer than the supply.
    pub units: u64,
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
    /// Set by a node that passes the request on, so that it is passed on three times at most: to the
    /// home of its key, from there to the home of the pool, and to the home of its customer.
    pub hops: u8,
    /// For whom; needed where the pool limits what one customer may have.
    #[since(2)]
    pub customer: Option<CustomerTag>,
}

/// Units are held, durably.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Confirm or release it by this.
    pub hold: HoldId,
    /// How many units.
    pub qty: u64,
    /// When its owner gives the units back unless it is confirmed.
    pub expires: HybridTime,
    /// Of these units, how many stand on debt: they are beyond the supply.
    #[since(2)]
    pub overdrawn: u64,
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

/// Give back units after their sale: of a sale, by whoever has its hold's name. They can be sold again
/// at once; those that stood on debt pay it back first.
#[remote(crate = crate, name = "escrow.Return", class = looked_up, key = key, idempotent,
         reply = Result<Returned, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Of which sale.
    pub hold: HoldId,
    /// How many units; `None` for all that were not returned before.
    pub qty: Option<u64>,
    /// The same key never returns twice.
    pub key: Key,
}

/// Units of a sale were given back, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Returned {
    /// Of which sale.
    pub hold: HoldId,
    /// Units given back under this key.
    pub qty: u64,
    /// Units of the sale that are sold still.
    pub left: u64,
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
#[grows(crate = crate)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Rises with every change of the row. Two equal readings frame an interval without change.
    pub version: u64,
    /// Units minted here.
    pub minted: u64,
    /// Rights granted to each other node, ever.
    pub granted: BTreeMap<NodeId, u64>,
    /// Rights accepted from each other node, ever.
    pub accepted: BTreeMap<NodeId, u64>,
    /// Units sold here, ever, without those sold on debt.
    pub consumed: u64,
    /// Units given back after sale, ever.
    pub returned: u64,
    /// Units held now, without those held on debt.
    pub held: u64,
    /// Units that may be held or granted now.
    pub available: u64,
    /// What the node counted since it started.
    pub tallies: Tallies,
    /// Whether the node may spend.
    pub standing: Standing,
    /// What the node's answers add up to, counted apart from the other numbers.
    pub receipts: Receipts,
    /// The part of `available` that the node keeps for the others, as the pool's reserve.
    #[since(2)]
    pub reserved: u64,
    /// The same matrix of debt rights: units that may be sold beyond the supply.
    #[since(2)]
    pub debt: DebtRow,
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

/// A node's rows in the matrix of a pool's debt rights. What they are made of is what [`Row`] is made of.
#[grows(crate = crate)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DebtRow {
    /// Debt rights minted here.
    pub minted: u64,
    /// Granted to each other node, ever.
    pub granted: BTreeMap<NodeId, u64>,
    /// Accepted from each other node, ever.
    pub accepted: BTreeMap<NodeId, u64>,
    /// Units sold on debt here, ever.
    pub consumed: u64,
    /// Units given back after such a sale, ever.
    pub returned: u64,
    /// Units held on debt now.
    pub held: u64,
    /// Debt rights that may be used or granted now.
    pub available: u64,
}

/// What a node counted since it started. For people; no invariant rests on it.
#[grows(crate = crate)]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Holds passed on: to the owner of the tail, to the home of their key or of their customer.
    pub forwarded: u64,
    /// Returns of sold units.
    #[since(2)]
    pub returned: u64,
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

/// Say, as an operator, what a restored node had sold of a pool, less what was given back. Its rights are then what it was
/// minted and granted, less what its peers have accepted from it, less this.
#[remote(crate = crate, name = "escrow.AttestPool", class = looked_up, audience = "operators", idempotent,
         reply = Result<PoolAttested, Refusal>)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestPool {
    /// Of which pool.
    pub pool: PoolName,
    /// The restored node.
    pub node: NodeId,
    /// Units that node had sold and not got back, by receipts.
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
