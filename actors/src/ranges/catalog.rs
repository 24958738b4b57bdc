//! What the meta range holds of keyspaces and nodes.
//!
//! * It decides: the rows, and what becomes of them.
//! * It never does: choose a place for a replica: the planner does (`rhumb_topology::placement`); or use a number twice: numbers
//!   come from one row, which is raised in the same batch that uses them.
//!
//! | key of the meta range | value |
//! |---|---|
//! | `keyspace/` name | a [`Keyspace`] |
//! | `erased/` id | nothing: the key of a subject of that id is condemned |
//! | `node/` node | a [`Founder`]: its disk, and the public key of its tokens |
//! | `fence/` node | a node's [`Fence`](crate::failover::Fence); none: it was never fenced |
//! | `fence/` | nothing: it is written with each fence, so that two changes do not pass by one another |
//! | `purged/` number | a [`Keyspace`] that is purged |
//! | `next` | the [`Next`] numbers |
//! | `meta` | the [`RangeRow`] of the meta range itself, once a replica of it was replaced |
//! | `version` | the [`VersionRow`](crate::version::VersionRow): the cluster version; none: the first |

mod founder;
mod places;

pub use founder::Founder;

use std::collections::BTreeSet;
use std::time::Duration;

use rhumb_core::codec;
use rhumb_core::{DataClass, HybridTime, NodeId, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lifecycle::{Becomes, Life, Step};
use super::messages::{KeyspaceView, KvRefusal, Lifetimes};
use super::replica::{Descriptor, RangeId, ReplicaId, Seat};
use super::seating::Wanted;
use super::snapshots::{self, Held};
use crate::audit::seal::KeyId;
use crate::placement::messages::Placement;
use crate::version::formats::readable;

/// The meta range.
pub const META: RangeId = RangeId(1);
/// Its keyspace.
pub const META_KEYSPACE: KeyspaceId = KeyspaceId(1);
/// Before the keys of keyspaces.
pub const KEYSPACES: &str = "keyspace/";
/// Before the keys of nodes.
pub const NODES: &str = "node/";
/// Before the keys of fences.
pub const FENCES: &str = "fence/";
/// Behind the keys of fences.
pub const FENCES_END: &str = "fence0";
/// Before the numbers of purged keyspaces.
pub const PURGED: &str = "purged/";
/// Before the keys of erased subjects' key ids.
pub const ERASED: &str = "erased/";
/// The key of the next numbers.
pub const NEXT: &str = "next";
/// The key of the meta range's own row.
pub const META_ROW: &str = "meta";
/// The key of the cluster version.
pub const VERSION: &str = "version";
/// The most replicas of a keyspace.
pub const MAX_REPLICATION: u32 = 7;
/// When it may make sense to ask again for a move that cannot be now.
const MOVE_AGAIN: Duration = Duration::from_secs(1);
/// What the bytes of a row are called where they cannot be read.
const ROW: &str = "a row of the meta range";
/// The longest name of a keyspace.
pub const MAX_NAME: usize = 64;

/// A keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// The class of its data.
    pub class: DataClass,
    /// How many replicas were asked for; 0: it was not said.
    pub replication: u32,
    /// Its ranges, in the order in which they came to be. Which keys each has is not said here: keys are data, and this is read
    /// everywhere.
    pub ranges: Vec<RangeRow>,
    /// For how long things are kept.
    pub lifetimes: Lifetimes,
    /// Where it is in its life.
    pub life: Life,
    /// What is held of it.
    pub held: Vec<Held>,
    /// It is purged, and stands under its number: its rows are cleared from the disks that have them.
    pub purged: bool,
    /// What is wanted of where its replicas stand.
    pub placement: Placement,
}

/// A range of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRow {
    /// Its number.
    pub range: RangeId,
    /// The range that it was split from.
    pub parent: Option<RangeId>,
    /// Whether it has begun. One that is split from another one is planned before.
    pub begun: bool,
    /// Where its replicas are wanted.
    pub seats: Vec<Seat>,
    /// Those of its replicas that came later: they begin with nothing.
    pub joined: Vec<ReplicaId>,
    /// Replicas that are to leave it.
    pub leaving: Vec<Seat>,
    /// Replicas that have left it.
    pub left: Vec<ReplicaId>,
}

/// Numbers that were never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// Of a keyspace.
    pub keyspace: u32,
    /// Of a range.
    pub range: u64,
    /// Of a replica.
    pub replica: u64,
}

#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

/// The bytes of a row.
#[must_use]
pub fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    codec::encode(&Versioned::V1(row)).expect("a row of the meta range is within the codec's limits").to_vec()
}

/// The row of bytes.
///
/// # Errors
/// What is wrong with them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    readable(ROW, bytes).map_err(|unknown| unknown.to_string())?;
    let Versioned::V1(row) = codec::decode(bytes).map_err(|error| error.to_string())?;
    Ok(row)
}

/// The key of the cluster version.
#[must_use]
pub fn version_key() -> UserKey {
    UserKey::new(VERSION).expect("short")
}

/// The key of a keyspace's row.
#[must_use]
pub fn keyspace_key(name: &str) -> UserKey {
    UserKey::new(format!("{KEYSPACES}{name}")).expect("names are shorter than keys")
}

/// The key of a purged keyspace's row.
#[must_use]
pub fn purged_key(number: u32) -> UserKey {
    UserKey::new(format!("{PURGED}{number}")).expect("short")
}

/// The key of a node's row.
#[must_use]
pub fn node_key(node: &NodeId) -> UserKey {
    UserKey::new(format!("{NODES}{node}")).expect("names are shorter than keys")
}

/// The key that is written with each fence.
#[must_use]
pub fn fences_key() -> UserKey {
    UserKey::new(FENCES).expect("short")
}

/// The key of a node's fence.
#[must_use]
pub fn fence_key(node: &NodeId) -> UserKey {
    UserKey::new(format!("{FENCES}{node}")).expect("names are shorter than keys")
}

/// The key that says that the key of a subject is condemned.
#[must_use]
pub fn erased_key(id: KeyId) -> UserKey {
    UserKey::new(format!("{ERASED}{id}")).expect("ids are shorter than keys")
}

/// The id that such a key, without what stands before it, says.
#[must_use]
pub fn erased_id(said: &str) -> Option<KeyId> {
    let number = u128::from_str_radix(said, 16).ok().filter(|_| said.len() == 32)?;
    Some(KeyId(number.to_be_bytes()))
}

/// The meta range on these seats.
#[must_use]
pub fn meta(seats: Vec<Seat>) -> Descriptor {
    Descriptor { range: META, keyspace: META_KEYSPACE, from: UserKey::default(), to: None, seats }
}

/// The first numbers of a mesh whose meta range has so many replicas.
#[must_use]
pub fn first_numbers(replicas: usize) -> Next {
    Next { keyspace: META_KEYSPACE.0 + 1, range: META.0 + 1, replica: replicas as u64 + 1 }
}

impl Keyspace {
    /// What its first range was when it was created.
    #[must_use]
    pub fn descriptor(&self, row: &RangeRow) -> Descriptor {
        Descriptor {
            range: row.range,
            keyspace: KeyspaceId(self.id),
            from: UserKey::default(),
            to: None,
            seats: row.seats.clone(),
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> KeyspaceView {
        let begun = || self.ranges.iter().filter(|row| row.begun);
        let nodes: BTreeSet<_> =
            begun().flat_map(|row| row.seats.iter().map(|seat| seat.node.clone())).collect();
        KeyspaceView {
            id: self.id,
            name: self.name.clone(),
            class: self.class.clone(),
            replication: self.replication,
            ranges: begun().map(|row| row.range.0).collect(),
            nodes: nodes.into_iter().collect(),
            lifetimes: self.lifetimes,
            life: self.life,
            held: self.held.clone(),
            placement: self.placement.clone(),
        }
    }

    /// What the leaseholder of one of its ranges is to bring about.
    #[must_use]
    pub fn wanted(&self, row: &RangeRow) -> Wanted {
        Wanted { home: self.placement.home.clone(), ..row.wanted() }
    }

    /// The row of a range.
    #[must_use]
    pub fn row(&self, range: RangeId) -> Option<&RangeRow> {
        self.ranges.iter().find(|row| row.range == range)
    }

    /// All places of its replicas.
    pub fn seats(&self) -> impl Iterator<Item = &Seat> {
        self.ranges.iter().filter(|row| row.begun).flat_map(|row| &row.seats)
    }
}

impl RangeRow {
    /// Whether a replica that is missing begins as all first ones did: on the seats that the range was created with. One of a
    /// range whose replicas have moved since, or that was split off, begins with nothing.
    #[must_use]
    pub fn is_as_created(&self) -> bool {
        let moved = [self.joined.is_empty(), self.leaving.is_empty(), self.left.is_empty()].contains(&false);
        self.parent.is_none() && !moved
    }

    /// The row of a range on the seats that it was created with.
    #[must_use]
    pub fn created(range: RangeId, seats: Vec<Seat>) -> Self {
        let (joined, leaving, left) = (Vec::new(), Vec::new(), Vec::new());
        Self { range, parent: None, begun: true, seats, joined, leaving, left }
    }

    /// What its leaseholder is to bring about, wherever most is written.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let all = self.seats.iter().chain(&self.leaving).map(|seat| seat.replica);
        let known = all.chain(self.joined.iter().copied()).chain(self.left.iter().copied()).max();
        let (seats, leaving) = (self.seats.clone(), self.leaving.clone());
        Wanted { seats, leaving, unborn: !self.begun, known, home: None }
    }
}

/// What is to change in a keyspace's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A range is to be split from this one, whose replicas stand there.
    Split {
        /// This one.
        left: RangeId,
        /// There.
        seats: Vec<Seat>,
    },
    /// A range has begun.
    Begun(RangeId),
    /// A replica is to move from one node to another one's disk.
    Move {
        /// Of this range.
        range: RangeId,
        /// From there.
        from: NodeId,
        /// To there.
        to: NodeId,
        /// Its disk.
        store: StoreId,
    },
    /// It goes on in its life.
    Live {
        /// In this way.
        step: Step,
        /// At this time.
        at: HybridTime,
    },
    /// What it is at a time is held.
    Hold {
        /// That.
        held: Held,
        /// What had ended by now is held no longer.
        now: HybridTime,
    },
    /// A snapshot is held no longer.
    Drop(String),
    /// Replicas are wanted there, and nowhere else.
    Places {
        /// Of this range.
        range: RangeId,
        /// There.
        places: Vec<Place>,
    },
    /// What is wanted of the keyspace's replicas is another thing.
    Wish {
        /// How many vote; 0: it is not said.
        replication: u32,
        /// What else.
        placement: Placement,
    },
    /// Replicas have left a range.
    Left {
        /// This one.
        range: RangeId,
        /// These.
        replicas: Vec<ReplicaId>,
    },
    /// A replica is not to be believed: another one takes its place on its disk.
    Rebuild {
        /// Of this range.
        range: RangeId,
        /// This one.
        replica: ReplicaId,
    },
}

/// Where a replica is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its disk.
    pub store: StoreId,
    /// Whether it votes.
    pub votes: bool,
}

/// A keyspace's row after a change, with the numbers behind it. None: it is so already.
///
/// # Errors
/// Why it cannot be changed so, and what would be right.
pub fn changed(
    keyspace: &Keyspace,
    next: Next,
    change: &Change,
) -> Result<Option<(Keyspace, Next)>, KvRefusal> {
    let (mut keyspace, mut next) = (keyspace.clone(), next);
    let none = |range: &RangeId| {
        KvRefusal::Invalid(format!("there is no range {}; `rhumb range ls` lists them", range.0))
    };
    match change {
        Change::Split { left, seats } => {
            let row = keyspace.row(*left).ok_or_else(|| none(left))?;
            if !row.leaving.is_empty() || !row.begun {
                let why = format!("a replica of range {} is moving, or the range has not begun", left.0);
                return Err(KvRefusal::NotNow { why, retry_after: MOVE_AGAIN });
            }
            let seats: Vec<Seat> = seats
                .iter()
                .map(|seat| {
                    let replica = ReplicaId(next.replica);
                    next.replica += 1;
                    Seat { replica, ..seat.clone() }
                })
                .collect();
            // A number is planned once: whether an earlier plan came to be is not known here.
            keyspace.ranges.push(RangeRow {
                range: RangeId(next.range),
                parent: Some(*left),
                begun: false,
                seats,
                joined: Vec::new(),
                leaving: Vec::new(),
                left: Vec::new(),
            });
            next.range += 1;
        }
        Change::Begun(range) => {
            let row = row_mut(&mut keyspace, range).ok_or_else(|| none(range))?;
            if std::mem::replace(&mut row.begun, true) {
                return Ok(None);
            }
        }
        Change::Move { range, from, to, store } => {
            let row = row_mut(&mut keyspace, range).ok_or_else(|| none(range))?;
            if !places::moved(row, &mut next, (from, to, *store))? {
                return Ok(None);
            }
        }
        Change::Places { range, places } => {
            let row = row_mut(&mut keyspace, range).ok_or_else(|| none(range))?;
            if !places::set(row, &mut next, places)? {
                return Ok(None);
            }
        }
        Change::Rebuild { range, replica } => {
            let row = row_mut(&mut keyspace, range).ok_or_else(|| none(range))?;
            if !places::rebuilt(row, &mut next, *replica)? {
                return Ok(None);
            }
        }
        Change::Wish { replication, placement } => {
            if keyspace.replication == *replication && keyspace.placement == *placement {
                return Ok(None);
            }
            (keyspace.replication, keyspace.placement) = (*replication, placement.clone());
        }
        Change::Hold { held, now } => {
            keyspace.life.reads()?;
            match snapshots::with(&keyspace.held, held, *now)? {
                Some(left) => keyspace.held = left,
                None => return Ok(None),
            }
        }
        Change::Drop(name) => {
            let before = keyspace.held.len();
            keyspace.held.retain(|held| held.name != *name);
            if keyspace.held.len() == before {
                return Ok(None);
            }
        }
        Change::Live { step: Step::Purge, at } if keyspace.held.iter().any(|held| held.until > *at) => {
            let why = "there are snapshots of it: remove them first (`rhumb snapshot rm`)";
            return Err(KvRefusal::Invalid(why.to_owned()));
        }
        Change::Live { step, at } => match keyspace.life.step(*step, *at, &keyspace.lifetimes)? {
            Becomes::Same => return Ok(None),
            Becomes::Life(life) => keyspace.life = life,
            Becomes::Purged => keyspace.purged = true,
        },
        Change::Left { range, replicas } => {
            let row = row_mut(&mut keyspace, range).ok_or_else(|| none(range))?;
            if !places::left(row, replicas) {
                return Ok(None);
            }
        }
    }
    Ok(Some((keyspace, next)))
}

/// A range's row after one of its replicas moved to another disk, with the numbers behind it. None: it is so already.
///
/// # Errors
/// Why it cannot be.
pub fn moved_to(
    row: &RangeRow,
    next: Next,
    to: (&NodeId, &NodeId, StoreId),
) -> Result<Option<(RangeRow, Next)>, KvRefusal> {
    let (mut row, mut next) = (row.clone(), next);
    Ok(places::moved(&mut row, &mut next, to)?.then_some((row, next)))
}

/// A range's row after replicas have left it. None: they were not leaving.
#[must_use]
pub fn without(row: &RangeRow, replicas: &[ReplicaId]) -> Option<RangeRow> {
    let mut row = row.clone();
    places::left(&mut row, replicas).then_some(row)
}

fn row_mut<'a>(keyspace: &'a mut Keyspace, range: &RangeId) -> Option<&'a mut RangeRow> {
    keyspace.ranges.iter_mut().find(|row| row.range == *range)
}

/// Whether a name may be a keyspace's.
///
/// # Errors
/// What would be right.
pub fn named(name: &str) -> Result<(), KvRefusal> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_' || c == '.';
    let sound = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(letters);
    if sound && name != "meta" {
        return Ok(());
    }
    Err(KvRefusal::Invalid(format!(
        "{name:?} is no name of a keyspace: expected 1 to {MAX_NAME} lowercase letters, digits, '-', '_' and '.', and \
         not `meta`"
    )))
}

/// A new keyspace with these numbers, its first range in these places, and the numbers behind it.
#[must_use]
pub fn created(
    name: &str,
    class: &DataClass,
    (replication, placement): (u32, Placement),
    lifetimes: Lifetimes,
    next: Next,
    places: Vec<Place>,
) -> (Keyspace, Next) {
    let count = places.len() as u64;
    let seat = |(number, place): (usize, Place)| Seat {
        replica: ReplicaId(next.replica + number as u64),
        node: place.node,
        store: place.store,
        votes: place.votes,
    };
    let seats = places.into_iter().enumerate().map(seat).collect();
    let keyspace = Keyspace {
        id: next.keyspace,
        name: name.to_owned(),
        class: class.clone(),
        replication,
        ranges: vec![RangeRow::created(RangeId(next.range), seats)],
        lifetimes,
        life: Life::default(),
        held: Vec::new(),
        purged: false,
        placement,
    };
    let after = Next { keyspace: next.keyspace + 1, range: next.range + 1, replica: next.replica + count };
    (keyspace, after)
}

#[cfg(test)]
mod tests;
