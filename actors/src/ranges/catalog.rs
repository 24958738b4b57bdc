//! What the meta range holds of keyspaces and nodes.
//!
//! * It decides: the rows, and what becomes of them.
//! * It never does: choose a place for a replica: the planner does (`rhumb_topology::placement`); or use a number twice: numbers
//!   come from one row, which is raised in the same batch that uses them.
//!
//! | key of the meta range | value |
//! |---|---|
//! | `keyspace/` name | a [`Keyspace`] |
//! | `node/` node | a [`Founder`]: its disk, and the public key of its tokens |
//! | `next` | the [`Next`] numbers |
//! | `meta` | the [`RangeRow`] of the meta range itself, once a replica of it was replaced |

mod places;

use std::collections::BTreeSet;
use std::time::Duration;

use rhumb_core::codec;
use rhumb_core::{DataClass, NodeId, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::messages::{KeyspaceView, KvRefusal, Lifetimes};
use super::replica::{Descriptor, RangeId, ReplicaId, Seat};
use super::seating::Wanted;
use crate::placement::messages::Placement;

/// The meta range.
pub const META: RangeId = RangeId(1);
/// Its keyspace.
pub const META_KEYSPACE: KeyspaceId = KeyspaceId(1);
/// Before the keys of keyspaces.
pub const KEYSPACES: &str = "keyspace/";
/// Before the keys of nodes.
pub const NODES: &str = "node/";
/// The key of the next numbers.
pub const NEXT: &str = "next";
/// The key of the meta range's own row.
pub const META_ROW: &str = "meta";
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

/// The key of a node's row.
#[must_use]
pub fn node_key(node: &NodeId) -> UserKey {
    UserKey::new(format!("{NODES}{node}")).expect("names are shorter than keys")
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
            placement: self.placement.clone(),
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
        let moved = [self.joined.is_empty(), self.leaving.is_empty(), self.left.is_empty()].contains(&false);
        self.parent.is_none() && !moved
    }

    /// The row of a range on the seats that it was created with.
    #[must_use]
    pub fn created(range: RangeId, seats: Vec<Seat>) -> Self {
        let (joined, leaving, left) = (Vec::new(), Vec::new(), Vec::new());
        Self { range, parent: None, begun: true, seats, joined, leaving, left }
    }

    /// What its leaseholder is to bring about.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let all = self.seats.iter().chain(&self.leaving).map(|seat| seat.replica);
        let known = all.chain(self.joined.iter().copied()).chain(self.left.iter().copied()).max();
        Wanted { seats: self.seats.clone(), leaving: self.leaving.clone(), unborn: !self.begun, known }
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
        Change::Wish { replication, placement } => {
            if keyspace.replication == *replication && keyspace.placement == *placement {
                return Ok(None);
            }
            (keyspace.replication, keyspace.placement) = (*replication, placement.clone());
        }
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
        placement,
    };
    let after = Next { keyspace: next.keyspace + 1, range: next.range + 1, replica: next.replica + count };
    (keyspace, after)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn places(text: &str) -> Vec<Place> {
        let place = |(number, word): (usize, &str)| {
            let (name, votes) = word.strip_suffix('~').map_or((word, true), |name| (name, false));
            Place { node: name.parse().expect("a node"), store: StoreId(number as u128 + 1), votes }
        };
        text.split_whitespace().enumerate().map(place).collect()
    }

    fn plain() -> (u32, Placement) {
        (0, Placement::default())
    }

    #[test]
    fn numbers_are_used_once() {
        let next = first_numbers(3);
        let class = DataClass::read("inventory").expect("valid");
        let (none, hour) = (Lifetimes::default(), Duration::from_secs(3_600));
        let (one, next) = created("a", &class, plain(), none, next, places("eu/n1 us/n1"));
        let short = Lifetimes { retention: Some(hour), ttl: Some(2 * hour) };
        let (two, next) = created("b", &class, plain(), short, next, places("eu/n1 us/n1"));
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
            let one = |seat: &Seat| {
                format!("{}@{}{}", seat.replica.0, seat.node, if seat.votes { "" } else { "~" })
            };
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
        let placed = places("eu/n1 us/n1");
        let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed);
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
        let placed = places("eu/n1 us/n1");
        let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed);
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
    fn a_move_that_is_under_way_can_be_taken_back() {
        let class = DataClass::read("inventory").expect("valid");
        let placed = places("eu/n1 us/n1");
        let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed);
        let node = |text: &str| text.parse::<NodeId>().expect("a node");
        let moves = |from: &str, to: &str, store| Change::Move {
            range: RangeId(2),
            from: node(from),
            to: node(to),
            store: StoreId(store),
        };
        let change = |space: &Keyspace, next, change: &Change| {
            changed(space, next, change).expect("it may be").expect("it is new")
        };
        let (moving, next) = change(&space, next, &moves("us/n1", "ap/n1", 9));
        let (back, next) = change(&moving, next, &moves("ap/n1", "us/n1", 2));
        assert_eq!(stands(&back, 2), "begun true at 3@eu/n1 4@us/n1 leaving [5@ap/n1] left []");
        assert_eq!(changed(&back, next, &moves("ap/n1", "us/n1", 2)), Ok(None), "the same again");
        // A leaseholder that had not heard of it says that the old one has left: that is no longer so.
        let gone = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(4)] };
        assert_eq!(changed(&back, next, &gone), Ok(None));
        let gone = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(5)] };
        let (done, next) = change(&back, next, &gone);
        assert_eq!(stands(&done, 2), "begun true at 3@eu/n1 4@us/n1 leaving [] left [5]");
        assert_eq!(done.ranges[0].wanted().known, Some(ReplicaId(5)));
        let (moving, next) = change(&done, next, &moves("us/n1", "ap/n1", 9));
        let gone = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(4)] };
        let (moved, next) = change(&moving, next, &gone);
        assert_eq!(stands(&moved, 2), "begun true at 3@eu/n1 6@ap/n1 leaving [] left [5, 4]");
        let (again, _) = change(&moved, next, &moves("ap/n1", "us/n1", 2));
        assert_eq!(
            stands(&again, 2),
            "begun true at 3@eu/n1 7@us/n1 leaving [6@ap/n1] left [5, 4]",
            "too late"
        );
    }

    #[test]
    fn places_are_set_as_a_whole_and_who_changes_begins_no_longer_as_created() {
        let class = DataClass::read("inventory").expect("valid");
        let placed = places("eu/n1 us/n1 ap/n1 sa/n1~");
        let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed);
        assert_eq!(stands(&space, 2), "begun true at 3@eu/n1 4@us/n1 5@ap/n1 6@sa/n1~ leaving [] left []");
        assert!(space.ranges[0].is_as_created());
        let set = |places: Vec<Place>| Change::Places { range: RangeId(2), places };
        let places_of = |text: &str| places(text);
        assert_eq!(changed(&space, next, &set(places_of("eu/n1 us/n1 ap/n1 sa/n1~"))), Ok(None));
        // sa votes instead of ap, which is read on, and us goes.
        let wanted: Vec<_> =
            places_of("eu/n1 us/n1 ap/n1~ sa/n1").into_iter().filter(|place| place.store.0 != 2).collect();
        let (after, next) = changed(&space, next, &set(wanted)).expect("it may be").expect("it is new");
        assert_eq!(stands(&after, 2), "begun true at 3@eu/n1 5@ap/n1~ 6@sa/n1 leaving [4@us/n1] left []");
        assert!(!after.ranges[0].is_as_created());
        let fifth = places_of("eu/n1 us/n1 ap/n1 sa/n1 af/n1~");
        let (more, _) = changed(&after, next, &set(fifth)).expect("it may be").expect("it is new");
        assert_eq!(
            stands(&more, 2),
            "begun true at 3@eu/n1 4@us/n1 5@ap/n1 6@sa/n1 7@af/n1~ leaving [] left []",
            "who was leaving stays"
        );
        for (bad, why) in [
            (Vec::new(), "no places: expected at least one voter"),
            (places_of("eu/n1~ us/n1~"), "no places: expected at least one voter"),
            ([places_of("eu/n1"), places_of("eu/n1")].concat(), "a node twice: expected each once"),
        ] {
            assert_eq!(changed(&space, next, &set(bad)).expect_err("it may not").to_string(), why);
        }
        let wish = Change::Wish { replication: 5, placement: Placement::default() };
        assert_eq!(changed(&space, next, &wish).expect("it may be").expect("new").0.replication, 5);
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(named("profiles.v2"), Ok(()));
        for bad in ["", "meta", "Profiles", "a b", "a/b", &"x".repeat(65)] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
