//! What the escrow machine keeps on disk, all in one family: one record a node, a peer, a pool, a
//! pair of nodes in a pool, a hold, a customer of a limited pool and a key.
//!
//! * It decides: the bytes. Every value is an enum of versions, to which versions are only appended;
//!   every key begins with a letter that says its kind.
//! * It never does: decide what is written when.
//! * Invariant: what is written reads back the same, and golden bytes hold the format. A record that
//!   cannot be read stops recovery: a ledger with a hole in it must not sell.

use std::collections::BTreeMap;

use bincode::config;
use rhumb_core::codec::MAX_ENCODED_BYTES;
use rhumb_core::{DataClass, HybridTime, Incarnation, NodeId, PoolName, Region, StoreId};
use rhumb_storage::{Batch, Family};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::messages::{CustomerTag, Durability, Key, PoolSpec, Reserve};

/// Why a node's records cannot be taken up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecoverError {
    /// A record does not read as what its key says it is.
    #[error("escrow record {key} cannot be read: {reason}")]
    Unreadable {
        /// Its key, escaped.
        key: String,
        /// What was wrong.
        reason: String,
    },
    /// A record belongs to a pool that has no record of its own.
    #[error("escrow records of pool {0} exist, but the pool's own record does not")]
    NoPool(PoolName),
    /// The counters of a pool contradict each other.
    #[error("the rights of pool {0} sum to less than nothing: the records are not this node's history")]
    Negative(PoolName),
    /// This node does not stand in the founding list.
    #[error("{0} is not in the founding list")]
    NotAFounder(NodeId),
}

/// A record's value: the version of its layout, then the layout. A second layout is the first one and
/// what came later; the bytes of the first stay readable, and are written where nothing came later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Versioned<T, L> {
    V1(T),
    V2(T, L),
}

/// What a kind of record has of later layouts.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// What its second layout added.
    type Later: Serialize + DeserializeOwned;
    /// Its later part, where there is something in it.
    fn later(&self) -> Option<&Self::Later>;
    /// The record with a later part.
    fn with(self, later: Self::Later) -> Self;
}

/// The later part of a record that has one layout only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Never {}

macro_rules! one_layout {
    ($($row:ident),*) => {
        $(impl Record for $row {
            type Later = Never;
            fn later(&self) -> Option<&Never> {
                None
            }
            fn with(self, later: Never) -> Self {
                match later {}
            }
        })*
    };
}

macro_rules! two_layouts {
    ($($row:ident + $more:ident),*) => {
        $(impl Record for $row {
            type Later = $more;
            fn later(&self) -> Option<&$more> {
                (self.more != $more::default()).then_some(&self.more)
            }
            fn with(self, more: $more) -> Self {
                Self { more, ..self }
            }
        })*
    };
}

one_layout!(NodeRow, WitnessRow, KeyRow, CustomerRow);
two_layouts!(PoolRow + PoolMore, CountsRow + CountsMore, LinkRow + Flow, HoldRow + HoldMore);

/// The two resources of a pool: the units that exist, and the debt rights to sell beyond them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Unit,
    Debt,
}

/// How far this node's disk is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proof {
    /// Not yet since it was opened: at this commit, with this as its last believed life.
    Pending { number: u64, life: Incarnation },
    /// The peers knew of nothing newer.
    Proven,
    /// A peer knew of something newer.
    Restored,
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    /// Its last life.
    pub(crate) life: Incarnation,
    pub(crate) proof: Proof,
    /// The life in which it was last found to be restored: what was before it must be attested.
    pub(crate) floor: Option<Incarnation>,
    /// Keys made before this (milliseconds since the Unix epoch) may be among those that a lost disk
    /// knew: they are not run again.
    pub(crate) keys_from: u64,
}

/// How far a peer's disk has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WitnessRow {
    pub(crate) store: StoreId,
    /// The latest life in which the peer was believed.
    pub(crate) life: Incarnation,
    /// Its highest durable commit number in that life.
    pub(crate) highest: u64,
    /// Grants of lives before this one are refused: the peer has disowned them.
    pub(crate) refuse_before: Incarnation,
}

/// What a pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolRow {
    pub(crate) class: DataClass,
    pub(crate) supply: u64,
    pub(crate) weights: BTreeMap<Region, u64>,
    pub(crate) created: HybridTime,
    /// The request that created it, at its home.
    pub(crate) body: Option<[u8; 32]>,
    pub(crate) durability: Durability,
    pub(crate) debt_ceiling: u64,
    #[serde(skip)]
    pub(crate) more: PoolMore,
}

impl PoolRow {
    /// What the pool of this name is.
    pub(crate) fn spec(&self, name: &PoolName) -> PoolSpec {
        PoolSpec {
            name: name.clone(),
            class: self.class.clone(),
            supply: self.supply,
            weights: self.weights.clone(),
            created: self.created,
            debt: self.debt_ceiling,
            reserve: self.more.reserve.clone(),
            per_customer: self.more.per_customer,
            durability: self.durability,
        }
    }
}

/// What the second layout of a pool's record added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolMore {
    pub(crate) reserve: Option<Reserve>,
    pub(crate) per_customer: Option<u64>,
}

/// A node's own counters of one resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) minted: u64,
    pub(crate) consumed: u64,
    pub(crate) returned: u64,
}

/// A node's own counters in a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountsRow {
    pub(crate) units: Sums,
    /// The restoration since which this row is known to be whole: it was attested after it, or the
    /// node first heard of the pool when all others had been.
    pub(crate) cleared: Option<Incarnation>,
    /// What an operator last said was sold.
    pub(crate) attested: Option<u64>,
    #[serde(skip)]
    pub(crate) more: CountsMore,
}

/// What the second layout of a pool's counters added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountsMore {
    pub(crate) debt: Sums,
    /// Units granted to others out of the reserve that this node holds, ever.
    pub(crate) from_reserve: u64,
}

impl CountsRow {
    pub(crate) fn of(&self, right: Right) -> &Sums {
        match right {
            Right::Unit => &self.units,
            Right::Debt => &self.more.debt,
        }
    }

    pub(crate) fn of_mut(&mut self, right: Right) -> &mut Sums {
        match right {
            Right::Unit => &mut self.units,
            Right::Debt => &mut self.more.debt,
        }
    }
}

/// One resource between a node and one other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    /// Rights granted to it, ever.
    pub(crate) granted: u64,
    /// Rights accepted from it, ever.
    pub(crate) accepted: u64,
}

/// A node's counters toward one other node in a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LinkRow {
    pub(crate) units: Flow,
    /// The same of debt rights: what the second layout added.
    #[serde(skip)]
    pub(crate) more: Flow,
}

impl LinkRow {
    pub(crate) fn of(&self, right: Right) -> &Flow {
        match right {
            Right::Unit => &self.units,
            Right::Debt => &self.more,
        }
    }

    pub(crate) fn of_mut(&mut self, right: Right) -> &mut Flow {
        match right {
            Right::Unit => &mut self.units,
            Right::Debt => &mut self.more,
        }
    }
}

/// How far a hold has come. Steps go one way: `Held` to any of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    Held,
    Committed,
    Released,
    Expired,
    /// The disk was restored, and the operator's word took the hold's place.
    Voided,
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldRow {
    pub(crate) qty: u64,
    pub(crate) deadline: HybridTime,
    pub(crate) stage: Stage,
    /// When it left `Held`.
    pub(crate) ended: Option<HybridTime>,
    #[serde(skip)]
    pub(crate) more: HoldMore,
}

/// What the second layout of a hold's record added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldMore {
    /// Who settles it must name it; 0 of holds from before there were secrets.
    pub(crate) secret: u64,
    /// Of its units, how many stand on debt.
    pub(crate) debt: u64,
    /// For whom it is, where the pool limits what one customer may have.
    pub(crate) customer: Option<CustomerTag>,
    /// What was given back after the sale, in the order of asking.
    pub(crate) returns: Vec<ReturnRow>,
}

/// A part of a sale that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReturnRow {
    /// A hash of the request's key.
    pub(crate) key: [u8; 16],
    /// How many units the request named; none: the rest.
    pub(crate) asked: Option<u64>,
    pub(crate) qty: u64,
}

impl HoldRow {
    /// Its units of one resource.
    pub(crate) fn part(&self, right: Right) -> u64 {
        match right {
            Right::Unit => self.qty - self.more.debt,
            Right::Debt => self.more.debt,
        }
    }

    /// Units given back after the sale.
    pub(crate) fn returned(&self) -> u64 {
        self.more.returns.iter().map(|part| part.qty).sum()
    }
}

/// What a customer has of a limited pool in sales that are forgotten otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CustomerRow {
    pub(crate) units: u64,
}

/// A hold among those of its pool and owner.
pub(crate) type HoldNumber = (Incarnation, u64);

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// A hold of this node.
    Held { pool: PoolName, hold: HoldNumber },
    /// Passed on to this node for good.
    Forwarded { to: NodeId },
}

/// One idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    /// Of the request.
    pub(crate) body: [u8; 16],
    /// When it was first seen here.
    pub(crate) seen: HybridTime,
    pub(crate) outcome: Outcome,
}

/// All records of a pool on one node.
#[derive(Debug, Default)]
pub(crate) struct PoolImage {
    pub(crate) pool: Option<PoolRow>,
    pub(crate) counts: CountsRow,
    pub(crate) links: BTreeMap<NodeId, LinkRow>,
    pub(crate) holds: BTreeMap<HoldNumber, HoldRow>,
    pub(crate) customers: BTreeMap<CustomerTag, CustomerRow>,
}

/// All records of a node.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) node: Option<NodeRow>,
    pub(crate) witnessed: BTreeMap<NodeId, WitnessRow>,
    pub(crate) pools: BTreeMap<PoolName, PoolImage>,
    pub(crate) keys: BTreeMap<Key, KeyRow>,
}

impl Image {
    /// Reads all records of the family.
    pub(crate) fn read(records: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Self, RecoverError> {
        let mut image = Self::default();
        for (key, value) in records {
            image.take(&key, &value).map_err(|reason| RecoverError::Unreadable {
                key: key.escape_ascii().to_string().chars().take(300).collect(),
                reason,
            })?;
        }
        match image.pools.iter().find(|(_, pool)| pool.pool.is_none()) {
            Some((name, _)) => Err(RecoverError::NoPool(name.clone())),
            None => Ok(image),
        }
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let (kind, rest) = key.split_first().ok_or("its key is empty")?;
        match kind {
            b'n' if rest.is_empty() => self.node = Some(open(value)?),
            b'w' => {
                self.witnessed.insert(text(rest)?.parse().map_err(said)?, open(value)?);
            }
            b'p' => self.pool(text(rest)?)?.pool = Some(open(value)?),
            b'c' => self.pool(text(rest)?)?.counts = open(value)?,
            b'l' => {
                let (pool, node) = text(rest)?.split_once('/').ok_or("it names no node")?;
                let node = node.parse().map_err(said)?;
                self.pool(pool)?.links.insert(node, open(value)?);
            }
            b'h' => {
                let (pool, number) =
                    rest.split_at_checked(rest.len().wrapping_sub(17)).ok_or("it is short")?;
                let word = |at: usize| number[at..at + 8].try_into().map(u64::from_be_bytes).map_err(said);
                let hold = (Incarnation(word(1)?), word(9)?);
                self.pool(text(pool)?)?.holds.insert(hold, open(value)?);
            }
            b'u' => {
                let (pool, tag) = rest.split_last_chunk::<17>().ok_or("it is short")?;
                let tag = tag.strip_prefix(b"/").ok_or("it names no customer")?;
                let tag = CustomerTag::from_bytes(tag.try_into().map_err(said)?);
                self.pool(text(pool)?)?.customers.insert(tag, open(value)?);
            }
            b'k' => {
                self.keys.insert(decode(rest)?, open(value)?);
            }
            _ => return Err("no record of this kind is known to this version".to_owned()),
        }
        Ok(())
    }

    fn pool(&mut self, name: &str) -> Result<&mut PoolImage, String> {
        Ok(self.pools.entry(PoolName::new(name).map_err(said)?).or_default())
    }
}

fn said(error: impl ToString) -> String {
    error.to_string()
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(said)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // Without a limit a damaged length is a request for so much memory, which ends the process.
    let bounded = config::standard().with_limit::<MAX_ENCODED_BYTES>();
    let (value, read) = bincode::serde::decode_from_slice(bytes, bounded).map_err(said)?;
    if read == bytes.len() { Ok(value) } else { Err(format!("{} bytes follow it", bytes.len() - read)) }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, config::standard())
        .expect("records are plain data, which always encodes to memory")
}

fn open<T: Record>(bytes: &[u8]) -> Result<T, String> {
    Ok(match decode::<Versioned<T, T::Later>>(bytes)? {
        Versioned::V1(row) => row,
        Versioned::V2(row, later) => row.with(later),
    })
}

fn hold_key(pool: &PoolName, hold: HoldNumber) -> Vec<u8> {
    let mut key = format!("h{pool}/").into_bytes();
    key.extend(hold.0.0.to_be_bytes());
    key.extend(hold.1.to_be_bytes());
    key
}

fn key_key(key: &Key) -> Vec<u8> {
    let mut bytes = vec![b'k'];
    bytes.extend(encode(key));
    bytes
}

/// Writes records into a batch.
pub(crate) trait Records {
    fn put_node(&mut self, row: &NodeRow);
    fn put_witness(&mut self, peer: &NodeId, row: &WitnessRow);
    fn put_pool(&mut self, pool: &PoolName, row: &PoolRow);
    fn put_counts(&mut self, pool: &PoolName, row: &CountsRow);
    fn put_link(&mut self, pool: &PoolName, peer: &NodeId, row: &LinkRow);
    fn put_hold(&mut self, pool: &PoolName, hold: HoldNumber, row: &HoldRow);
    fn forget_hold(&mut self, pool: &PoolName, hold: HoldNumber);
    fn put_customer(&mut self, pool: &PoolName, customer: &CustomerTag, row: &CustomerRow);
    fn put_key(&mut self, key: &Key, row: &KeyRow);
    fn forget_key(&mut self, key: &Key);
}

fn put<T: Record>(batch: &mut Batch, key: impl Into<Vec<u8>>, row: &T) {
    let versioned = match row.later() {
        None => Versioned::V1(row),
        Some(later) => Versioned::V2(row, later),
    };
    batch.put(Family::Escrow, key, encode(&versioned));
}

impl Records for Batch {
    fn put_node(&mut self, row: &NodeRow) {
        put(self, "n", row);
    }
    fn put_witness(&mut self, peer: &NodeId, row: &WitnessRow) {
        put(self, format!("w{peer}"), row);
    }
    fn put_pool(&mut self, pool: &PoolName, row: &PoolRow) {
        put(self, format!("p{pool}"), row);
    }
    fn put_counts(&mut self, pool: &PoolName, row: &CountsRow) {
        put(self, format!("c{pool}"), row);
    }
    fn put_link(&mut self, pool: &PoolName, peer: &NodeId, row: &LinkRow) {
        put(self, format!("l{pool}/{peer}"), row);
    }
    fn put_hold(&mut self, pool: &PoolName, hold: HoldNumber, row: &HoldRow) {
        put(self, hold_key(pool, hold), row);
    }
    fn forget_hold(&mut self, pool: &PoolName, hold: HoldNumber) {
        self.delete(Family::Escrow, hold_key(pool, hold));
    }
    fn put_customer(&mut self, pool: &PoolName, customer: &CustomerTag, row: &CustomerRow) {
        let mut key = format!("u{pool}/").into_bytes();
        key.extend(customer.bytes());
        put(self, key, row);
    }
    fn put_key(&mut self, key: &Key, row: &KeyRow) {
        put(self, key_key(key), row);
    }
    fn forget_key(&mut self, key: &Key) {
        self.delete(Family::Escrow, key_key(key));
    }
}
