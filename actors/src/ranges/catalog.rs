//! What the meta range holds of keyspaces and nodes, and where replicas of a new keyspace stand.
//!
//! * It decides: the rows; which nodes get a replica.
//! * It never does: put a replica where the policy does not let the class be held, or use a number twice: numbers come from
//!   one row, which is raised in the same batch that uses them.
//!
//! | key of the meta range | value |
//! |---|---|
//! | `keyspace/` name | a [`Keyspace`] |
//! | `node/` node | a [`Founder`]: its disk, and the public key of its tokens |
//! | `next` | the [`Next`] numbers |

use std::collections::BTreeMap;

use rhumb_core::codec;
use rhumb_core::{DataClass, NodeId, Region, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::messages::{KeyspaceView, KvRefusal, Lifetimes};
use super::replica::{Descriptor, RangeId, ReplicaId, Seat};

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
/// Replicas of a keyspace that does not say how many.
pub const REPLICATION: u32 = 3;
/// The most replicas of a keyspace.
pub const MAX_REPLICATION: u32 = 7;
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
    /// Its range.
    pub range: RangeId,
    /// Where that stands.
    pub seats: Vec<Seat>,
    /// For how long things are kept.
    pub lifetimes: Lifetimes,
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
    /// What its range is.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            range: self.range,
            keyspace: KeyspaceId(self.id),
            from: UserKey::default(),
            to: None,
            seats: self.seats.clone(),
        }
    }

    /// As it is shown.
    #[must_use]
    pub fn view(&self) -> KeyspaceView {
        KeyspaceView {
            id: self.id,
            name: self.name.clone(),
            class: self.class.clone(),
            replication: self.replication,
            range: self.range.0,
            nodes: self.seats.iter().map(|seat| seat.node.clone()).collect(),
            lifetimes: self.lifetimes,
        }
    }
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
        range: RangeId(next.range),
        seats: placed.into_iter().enumerate().map(seat).collect(),
        lifetimes,
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
            [&one, &two].iter().flat_map(|space| space.seats.iter().map(|seat| seat.replica.0)).collect();
        assert_eq!(all, [4, 5, 6, 7]);
        assert_eq!((one.id, two.id, one.range.0, two.range.0), (2, 3, 2, 3));
        assert_eq!(next, Next { keyspace: 4, range: 4, replica: 8 });
        assert_eq!((one.lifetimes.retention(), two.lifetimes.retention()), (24 * hour, hour));
        assert_eq!(decode::<Keyspace>(&encode(&two)), Ok(two));
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(named("profiles.v2"), Ok(()));
        for bad in ["", "meta", "Profiles", "a b", "a/b", &"x".repeat(65)] {
            assert!(named(bad).is_err(), "{bad}");
        }
    }
}
