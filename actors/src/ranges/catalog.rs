//! What the meta range holds of keyspaces and nodes, and where replicas of a new keyspace stand.
//!
//! * It decides: the rows; which nodes get a replica.
//! * It never does: put a replica where the policy does not let the class be held, or use a number twice: numbers come from
//!   one row, which is raised in the same batch that uses them.
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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::codec;
use rhumb_core::{DataClass, HybridTime, NodeId, Region, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lifecycle::{Becomes, Life, Step};
use super::messages::{KeyspaceView, KvRefusal, Lifetimes};
use super::replica::{Descriptor, RangeId, ReplicaId, Seat};
use super::seating::Wanted;
use super::snapshots::{self, Held};
use crate::audit::seal::KeyId;

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
/// Replicas of a keyspace that does not say how many.
pub const REPLICATION: u32 = 3;
/// The most replicas of a keyspace.
pub const MAX_REPLICATION: u32 = 7;
/// When it may make sense to ask again for a move that cannot be now.
const MOVE_AGAIN: Duration = Duration::from_secs(1);
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

/// A founding node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founder {
    /// Its disk.
    pub store: StoreId,
    /// The public key of its tokens.
    pub tokens: Vec<u8>,
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
    let Versioned::V1(row) = codec::decode(bytes).map_err(|error| error.to_string())?;
    Ok(row)
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
        }
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
        self.parent.is_none() && self.joined.is_empty()
    }

    /// What its leaseholder is to bring about.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted { seats: self.seats.clone(), leaving: self.leaving.clone(), unborn: !self.begun }
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
    /// Replicas have left a range.
    Left {
        /// This one.
        range: RangeId,
        /// These.
        replicas: Vec<ReplicaId>,
    },
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
            let comes = row.seats.iter().any(|seat| seat.store == *store);
            let leaves = row.leaving.iter().any(|seat| seat.node == *from);
            if comes && leaves {
                return Ok(None);
            }
            let invalid = |why: String| Err(KvRefusal::Invalid(why));
            // One that comes may come elsewhere instead.
            let coming = row.seats.iter().find(|seat| seat.node == *from).map(|seat| seat.replica);
            let instead = coming.is_some_and(|coming| row.joined.last() == Some(&coming));
            let leaves_there = row.leaving.iter().any(|seat| seat.store == *store);
            if !row.leaving.is_empty() && !instead || leaves_there || !row.begun {
                let why =
                    format!("a replica of range {} is moving already, or the range has not begun", range.0);
                return Err(KvRefusal::NotNow { why, retry_after: MOVE_AGAIN });
            }
            if comes {
                return invalid(format!("node {to} has a replica of range {} already", range.0));
            }
            let Some(at) = row.seats.iter().position(|seat| seat.node == *from) else {
                let nodes: Vec<_> = row.seats.iter().map(|seat| seat.node.to_string()).collect();
                return invalid(format!(
                    "node {from} has no replica of range {}; {} have",
                    range.0,
                    nodes.join(", ")
                ));
            };
            let leaving = row.seats.remove(at);
            let replica = ReplicaId(next.replica);
            next.replica += 1;
            row.seats.push(Seat { replica, node: to.clone(), store: *store, votes: leaving.votes });
            row.joined.push(replica);
            row.leaving.push(leaving);
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
            let before = row.leaving.len();
            row.leaving.retain(|seat| !replicas.contains(&seat.replica));
            if row.leaving.len() == before {
                return Ok(None);
            }
            row.left.extend(
                replicas.iter().copied().filter(|replica| !row.left.contains(replica)).collect::<Vec<_>>(),
            );
        }
    }
    Ok(Some((keyspace, next)))
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

/// Where the replicas of a keyspace stand: on so many of these nodes, over as many regions as possible. `may` says why the
/// policy does not let a region hold the class.
///
/// # Errors
/// The nodes that may hold it are too few, and why others may not.
pub fn place(
    founders: &BTreeMap<NodeId, StoreId>,
    replication: u32,
    may: impl Fn(&Region) -> Result<(), String>,
) -> Result<Vec<(NodeId, StoreId)>, KvRefusal> {
    let mut regions: BTreeMap<&Region, Vec<(&NodeId, &StoreId)>> = BTreeMap::new();
    let mut barred = Vec::new();
    for (node, store) in founders {
        match may(&node.region) {
            Ok(()) => regions.entry(&node.region).or_default().push((node, store)),
            Err(why) => barred.push(why),
        }
    }
    let allowed: usize = regions.values().map(Vec::len).sum();
    let wanted = match replication {
        0 => (REPLICATION as usize).min(allowed),
        asked => asked as usize,
    };
    if wanted == 0 || wanted > allowed {
        barred.dedup();
        let why = if barred.is_empty() { String::new() } else { format!(": {}", barred.join("; ")) };
        return Err(KvRefusal::NotAllowed(format!(
            "{} replicas were asked for and {allowed} of {} nodes may hold the class{why}",
            wanted.max(1),
            founders.len()
        )));
    }
    let mut placed = Vec::new();
    for round in 0.. {
        for nodes in regions.values() {
            if let Some((node, store)) = nodes.get(round)
                && placed.len() < wanted
            {
                placed.push(((*node).clone(), **store));
            }
        }
        if placed.len() == wanted {
            break;
        }
    }
    Ok(placed)
}

/// A new keyspace with these numbers, and the numbers behind it.
#[must_use]
pub fn created(
    name: &str,
    class: &DataClass,
    replication: u32,
    lifetimes: Lifetimes,
    next: Next,
    placed: Vec<(NodeId, StoreId)>,
) -> (Keyspace, Next) {
    let count = placed.len() as u64;
    let seat = |(number, (node, store)): (usize, (NodeId, StoreId))| Seat {
        replica: ReplicaId(next.replica + number as u64),
        node,
        store,
        votes: true,
    };
    let keyspace = Keyspace {
        id: next.keyspace,
        name: name.to_owned(),
        class: class.clone(),
        replication,
        ranges: vec![RangeRow {
            range: RangeId(next.range),
            parent: None,
            begun: true,
            seats: placed.into_iter().enumerate().map(seat).collect(),
            joined: Vec::new(),
            leaving: Vec::new(),
            left: Vec::new(),
        }],
        lifetimes,
        life: Life::default(),
        held: Vec::new(),
        purged: false,
    };
    let after = Next { keyspace: next.keyspace + 1, range: next.range + 1, replica: next.replica + count };
    (keyspace, after)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn founders(text: &str) -> BTreeMap<NodeId, StoreId> {
        let node =
            |(number, text): (usize, &str)| (text.parse().expect("a node"), StoreId(number as u128 + 1));
        text.split_whitespace().enumerate().map(node).collect()
    }

    fn placed(nodes: &str, replication: u32, barred: &str) -> String {
        let may = |region: &Region| match region.as_str() {
            region if barred.split_whitespace().any(|name| name == region) => {
                Err(format!("{region} may not"))
            }
            _ => Ok(()),
        };
        match place(&founders(nodes), replication, may) {
            Ok(placed) => placed.iter().map(|(node, _)| node.to_string()).collect::<Vec<_>>().join(" "),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn replicas_stand_in_as_many_regions_as_possible_and_only_where_they_may() {
        assert_eq!(placed("ap/n1 eu/n1 us/n1 us/n2", 0, ""), "ap/n1 eu/n1 us/n1");
        assert_eq!(placed("eu/n1 us/n1 us/n2", 3, ""), "eu/n1 us/n1 us/n2");
        assert_eq!(placed("us/n1 us/n2 us/n3 us/n4", 0, ""), "us/n1 us/n2 us/n3");
        assert_eq!(placed("ap/n1 eu/n1 us/n1 us/n2", 0, "us"), "ap/n1 eu/n1");
        assert_eq!(
            placed("ap/n1 eu/n1 us/n1", 3, "us"),
            "3 replicas were asked for and 2 of 3 nodes may hold the class: us may not"
        );
        assert_eq!(
            placed("us/n1", 0, "us"),
            "1 replicas were asked for and 0 of 1 nodes may hold the class: us may not"
        );
    }

    #[test]
    fn numbers_are_used_once() {
        let next = first_numbers(3);
        let class = DataClass::read("inventory").expect("valid");
        let (none, hour) = (Lifetimes::default(), Duration::from_secs(3_600));
        let (one, next) = created("a", &class, 0, none, next, founders("eu/n1 us/n1").into_iter().collect());
        let short = Lifetimes { retention: Some(hour), ttl: Some(2 * hour) };
        let (two, next) = created("b", &class, 0, short, next, founders("eu/n1 us/n1").into_iter().collect());
        let all: Vec<u64> =
            [&one, &two].iter().flat_map(|space| space.seats().map(|seat| seat.replica.0)).collect();
        assert_eq!(all, [4, 5, 6, 7]);
        assert_eq!((one.id, two.id, one.ranges[0].range.0, two.ranges[0].range.0), (2, 3, 2, 3));
        assert_eq!(next, Next { keyspace: 4, range: 4, replica: 8 });
        assert_eq!((one.lifetimes.retention(), two.lifetimes.retention()), (24 * hour, hour));
        assert_eq!(decode::<Keyspace>(&encode(&two)), Ok(two));
    }

    fn stands(keyspace: &Keyspace, range: u64) -> String {
        let row = keyspace.row(RangeId(range)).expect("it is there");
        let seats = |seats: &[Seat]| {
            let one = |seat: &Seat| format!("{}@{}", seat.replica.0, seat.node);
            seats.iter().map(one).collect::<Vec<_>>().join(" ")
        };
        let left: Vec<_> = row.left.iter().map(|replica| replica.0).collect();
        format!(
            "begun {} at {} leaving [{}] left {left:?}",
            row.begun,
            seats(&row.seats),
            seats(&row.leaving)
        )
    }

    #[test]
    fn a_range_is_planned_before_it_is_split_off_and_no_number_is_planned_twice() {
        let class = DataClass::read("inventory").expect("valid");
        let placed = founders("eu/n1 us/n1").into_iter().collect();
        let (space, next) = created("a", &class, 0, Lifetimes::default(), first_numbers(2), placed);
        let split = Change::Split { left: RangeId(2), seats: space.ranges[0].seats.clone() };
        let (planned, next) = changed(&space, next, &split).expect("it may be").expect("it is new");
        assert_eq!(stands(&planned, 3), "begun false at 5@eu/n1 6@us/n1 leaving [] left []");
        assert_eq!(planned.view().ranges, [2], "nobody sees what has not begun");
        let (again, next) = changed(&planned, next, &split).expect("it may be").expect("it is new");
        assert_eq!(stands(&again, 3), stands(&planned, 3), "it may be alive");
        assert_eq!(stands(&again, 4), "begun false at 7@eu/n1 8@us/n1 leaving [] left []");
        let (begun, next) =
            changed(&again, next, &Change::Begun(RangeId(4))).expect("it may be").expect("news");
        assert_eq!((begun.view().ranges, begun.ranges.len()), (vec![2, 4], 3));
        assert_eq!(changed(&begun, next, &Change::Begun(RangeId(4))), Ok(None));
        assert!(changed(&begun, next, &Change::Begun(RangeId(9))).is_err());
    }

    #[test]
    fn a_replica_moves_to_another_disk_under_a_new_number() {
        let class = DataClass::read("inventory").expect("valid");
        let placed = founders("eu/n1 us/n1").into_iter().collect();
        let (space, next) = created("a", &class, 0, Lifetimes::default(), first_numbers(2), placed);
        let node = |text: &str| text.parse::<NodeId>().expect("a node");
        let moves = |from: &str, to: &str, store| Change::Move {
            range: RangeId(2),
            from: node(from),
            to: node(to),
            store: StoreId(store),
        };
        let first = moves("us/n1", "ap/n1", 9);
        let (moving, next) = changed(&space, next, &first).expect("it may be").expect("it is new");
        assert_eq!(stands(&moving, 2), "begun true at 3@eu/n1 5@ap/n1 leaving [4@us/n1] left []");
        assert_eq!(changed(&moving, next, &first), Ok(None), "the same again");
        assert!(matches!(changed(&moving, next, &moves("eu/n1", "us/n2", 8)), Err(KvRefusal::NotNow { .. })));
        let split = Change::Split { left: RangeId(2), seats: moving.ranges[0].seats.clone() };
        assert!(matches!(changed(&moving, next, &split), Err(KvRefusal::NotNow { .. })), "not in the midst");
        // Where it was to come is dead: it comes elsewhere.
        let instead =
            changed(&moving, next, &moves("ap/n1", "ap/n2", 7)).expect("it may be").expect("it is new");
        assert_eq!(stands(&instead.0, 2), "begun true at 3@eu/n1 6@ap/n2 leaving [4@us/n1 5@ap/n1] left []");
        let gone = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(4)] };
        let (moved, next) = changed(&moving, next, &gone).expect("it may be").expect("it is new");
        assert_eq!(stands(&moved, 2), "begun true at 3@eu/n1 5@ap/n1 leaving [] left [4]");
        let refused = |change| changed(&moved, next, &change).expect_err("it may not").to_string();
        assert_eq!(
            refused(moves("us/n1", "us/n2", 8)),
            "node us/n1 has no replica of range 2; eu/n1, ap/n1 have"
        );
        assert_eq!(refused(moves("eu/n1", "ap/n1", 9)), "node ap/n1 has a replica of range 2 already");
        // A node whose disk was lost gets a replica on its new one.
        let (again, _) =
            changed(&moved, next, &moves("ap/n1", "ap/n1", 10)).expect("it may be").expect("new");
        assert_eq!(stands(&again, 2), "begun true at 3@eu/n1 6@ap/n1 leaving [5@ap/n1] left [4]");
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(named("profiles.v2"), Ok(()));
        for bad in ["", "meta", "Profiles", "a b", "a/b", &"x".repeat(65)] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
