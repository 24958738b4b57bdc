//! Rows of keyspaces, by cases.

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
        let one =
            |seat: &Seat| format!("{}@{}{}", seat.replica.0, seat.node, if seat.votes { "" } else { "~" });
        seats.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let left: Vec<_> = row.left.iter().map(|replica| replica.0).collect();
    format!("begun {} at {} leaving [{}] left {left:?}", row.begun, seats(&row.seats), seats(&row.leaving))
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
    let (begun, next) = changed(&again, next, &Change::Begun(RangeId(4))).expect("it may be").expect("news");
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
    let instead = changed(&moving, next, &moves("ap/n1", "ap/n2", 7)).expect("it may be").expect("it is new");
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
    assert_eq!(changed(&moved, next, &first), Ok(None), "the same again, when it is done");
    // A node whose disk was lost gets a replica on its new one.
    let (again, _) = changed(&moved, next, &moves("ap/n1", "ap/n1", 10)).expect("it may be").expect("new");
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
    assert_eq!(changed(&done, next, &moves("ap/n1", "us/n1", 2)), Ok(None), "and when it is done");
    let (moving, next) = change(&done, next, &moves("us/n1", "ap/n1", 9));
    let gone = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(4)] };
    let (moved, next) = change(&moving, next, &gone);
    assert_eq!(stands(&moved, 2), "begun true at 3@eu/n1 6@ap/n1 leaving [] left [5, 4]");
    let (again, _) = change(&moved, next, &moves("ap/n1", "us/n1", 2));
    assert_eq!(stands(&again, 2), "begun true at 3@eu/n1 7@us/n1 leaving [6@ap/n1] left [5, 4]", "too late");
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
fn a_replica_is_rebuilt_on_its_disk_under_a_new_number_and_does_not_come_back() {
    let class = DataClass::read("inventory").expect("valid");
    let placed = places("eu/n1 us/n1 ap/n1");
    let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed.clone());
    let rebuild = |replica| Change::Rebuild { range: RangeId(2), replica: ReplicaId(replica) };
    let (rebuilt, next) = changed(&space, next, &rebuild(4)).expect("it may be").expect("it is news");
    assert_eq!(stands(&rebuilt, 2), "begun true at 3@eu/n1 5@ap/n1 6@us/n1 leaving [4@us/n1] left []");
    assert_eq!(rebuilt.ranges[0].seats[2].store, space.ranges[0].seats[1].store, "on the same disk");
    assert!(!rebuilt.ranges[0].is_as_created());
    assert_eq!(changed(&rebuilt, next, &rebuild(4)), Ok(None), "again");
    let later = changed(&rebuilt, next, &rebuild(3));
    assert!(matches!(later, Err(KvRefusal::NotNow { .. })), "one at a time: {later:?}");
    let set = Change::Places { range: RangeId(2), places: placed };
    assert_eq!(changed(&rebuilt, next, &set), Ok(None), "wanted on that disk is the new one");
    let left = Change::Left { range: RangeId(2), replicas: vec![ReplicaId(4)] };
    let (done, next) = changed(&rebuilt, next, &left).expect("it may be").expect("it is news");
    assert_eq!(stands(&done, 2), "begun true at 3@eu/n1 5@ap/n1 6@us/n1 leaving [] left [4]");
    assert_eq!(changed(&done, next, &rebuild(4)), Ok(None), "it has left");
    let (alone, next) = created("b", &class, plain(), Lifetimes::default(), next, places("eu/n1 us/n1~"));
    let voter = alone.ranges[0].seats[0].replica;
    let only = changed(&alone, next, &Change::Rebuild { range: alone.ranges[0].range, replica: voter });
    assert!(matches!(only, Err(KvRefusal::Invalid(_))), "there is nothing to rebuild it from: {only:?}");
}

#[test]
fn a_replica_is_rebuilt_while_another_one_moves_and_the_move_can_still_be_taken_back() {
    let class = DataClass::read("inventory").expect("valid");
    let placed = places("eu/n1 us/n1 ap/n1");
    let (space, next) = created("a", &class, plain(), Lifetimes::default(), first_numbers(2), placed);
    let node = |text: &str| text.parse::<NodeId>().expect("a node");
    let moves = |from: &str, to: &str, store| Change::Move {
        range: RangeId(2),
        from: node(from),
        to: node(to),
        store: StoreId(store),
    };
    let rebuild = |replica| Change::Rebuild { range: RangeId(2), replica: ReplicaId(replica) };
    let change = |space: &Keyspace, next, change: &Change| {
        changed(space, next, change).expect("it may be").expect("it is new")
    };
    let (moving, next) = change(&space, next, &moves("us/n1", "us/n2", 9));
    assert_eq!(stands(&moving, 2), "begun true at 3@eu/n1 5@ap/n1 6@us/n2 leaving [4@us/n1] left []");
    // One that stays stops.
    let (stays, after) = change(&moving, next, &rebuild(5));
    let both = "begun true at 3@eu/n1 6@us/n2 7@ap/n1 leaving [4@us/n1 5@ap/n1] left []";
    assert_eq!(stands(&stays, 2), both);
    let again = changed(&stays, after, &rebuild(3));
    assert!(matches!(again, Err(KvRefusal::NotNow { .. })), "one at a time: {again:?}");
    let us = space.ranges[0].seats[1].store;
    let (back, _) = change(&stays, after, &moves("us/n2", "us/n1", us.0));
    let taken = "begun true at 3@eu/n1 7@ap/n1 4@us/n1 leaving [5@ap/n1 6@us/n2] left []";
    assert_eq!(stands(&back, 2), taken);
    // The one that comes stops.
    let (comes, _) = change(&moving, next, &rebuild(6));
    let both = "begun true at 3@eu/n1 5@ap/n1 7@us/n2 leaving [4@us/n1 6@us/n2] left []";
    assert_eq!(stands(&comes, 2), both);
}

#[test]
fn names_are_plain() {
    assert_eq!(named("profiles.v2"), Ok(()));
    for bad in ["", "meta", "Profiles", "a b", "a/b", &"x".repeat(65)] {
        assert!(named(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_row_of_a_later_format_is_refused_by_its_number() {
    let mut row = encode(&first_numbers(3));
    row[0] = 8;
    let why = decode::<Next>(&row).expect_err("it is not known");
    assert!(why.starts_with("a row of the meta range is of format 9, and this build knows"), "{why}");
    let formats = crate::version::Formats::default();
    let node = Founder::new(StoreId(3), vec![1, 2], rhumb_core::ClusterVersion::FIRST);
    assert_eq!(Founder::decode(&node.encode(), &formats), Ok(node.clone()));
    let mut row = node.encode();
    row[0] = 8;
    let why = Founder::decode(&row, &formats).expect_err("it is not known");
    assert!(why.contains("format 9"), "{why}");
}

#[cfg(feature = "canaries")]
#[test]
fn a_node_that_has_seen_the_next_version_says_so_in_a_row_that_the_old_build_does_not_read() {
    use rhumb_core::Knows;

    use crate::version::Formats;

    let next = Knows::RELEASE.newest.next();
    let knows = Knows { newest: next, ..Knows::RELEASE };
    let node = Founder::new(StoreId(3), vec![1, 2], next);
    assert_ne!(node, Founder::new(StoreId(3), vec![1, 2], Knows::RELEASE.newest), "it is written anew");
    assert_eq!(Founder::decode(&node.encode(), &Formats::new(knows)), Ok(node.clone()));
    let why = Founder::decode(&node.encode(), &Formats::new(Knows::RELEASE)).expect_err("it is not known");
    assert!(why.contains("format 2"), "{why}");
}
