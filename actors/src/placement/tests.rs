//! What is mended, by cases.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::{DataClass, NodeId, Region, StoreId};
use rhumb_topology::policy::Policy;
use rhumb_topology::{PolicySnapshot, RegionMap};

use super::mend::{Known, mends, missing};
use super::messages::{Follows, Placement};
use crate::ranges::RangeId;
use crate::ranges::catalog::{Change, Keyspace, Place, changed, created, first_numbers};
use crate::ranges::messages::Lifetimes;

const POLICY: &str = r#"
version = 2

[jurisdictions]
earth = ["us-east", "us-south", "eu-central", "eu-west", "ap-southeast"]

[classes.inventory]
hold  = ["all"]
read  = ["all"]
carry = ["all"]

[classes.three]
hold  = ["us-east", "eu-central", "ap-southeast"]
read  = ["all"]
carry = ["all"]
"#;

/// Nodes with their disks: `us-east/n1=1`; `!` and seconds behind one: it is away for so long.
fn nodes(text: &str) -> (Vec<NodeId>, BTreeMap<NodeId, StoreId>, BTreeMap<NodeId, Duration>) {
    let (mut nodes, mut stores, mut lost) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for word in text.split_whitespace() {
        let (word, away) = word.split_once('!').map_or((word, None), |(word, away)| (word, Some(away)));
        let (name, store) = word.split_once('=').expect("a disk");
        let node: NodeId = name.parse().expect("a node");
        nodes.push(node.clone());
        stores.insert(node.clone(), StoreId(store.parse().expect("a number")));
        if let Some(away) = away {
            lost.insert(node, Duration::from_secs(away.parse().expect("seconds")));
        }
    }
    (nodes, stores, lost)
}

/// A keyspace of one range on these disks; `~` behind one: it does not vote.
fn keyspace(class: &str, on: &str, learners: Follows) -> Keyspace {
    let place = |word: &str| {
        let (word, votes) = word.strip_suffix('~').map_or((word, true), |word| (word, false));
        let (name, store) = word.split_once('=').expect("a disk");
        Place { node: name.parse().expect("a node"), store: StoreId(store.parse().expect("a number")), votes }
    };
    let class = DataClass::read(class).expect("valid");
    let placement = Placement { learners, ..Placement::default() };
    let places = on.split_whitespace().map(place).collect();
    created("profiles", &class, (0, placement), Lifetimes::default(), first_numbers(3), places).0
}

/// What is mended of it, where its range stands after that, and what is said to be missing before.
fn mended(space: &Keyspace, mesh: &str, after: Option<u64>) -> String {
    let (nodes, stores, lost) = nodes(mesh);
    let policy = Policy::parse(POLICY).expect("a good policy");
    let policy = PolicySnapshot::compile(policy, nodes.iter().map(|node| &node.region), 1_000);
    let map = RegionMap::default();
    let distances = |from: &Region, to: &Region| map.rtt(from, to).ok();
    let keyspaces = BTreeMap::from([(space.name.clone(), space.clone())]);
    let known = Known {
        keyspaces: &keyspaces,
        stores: &stores,
        lost: &lost,
        distances: &distances,
        policy: &policy,
        replace_after: after.map(Duration::from_secs),
    };
    let mut said = Vec::new();
    for seat in missing(&known, &nodes, space, &space.ranges[0]) {
        said.push(format!("missing {} on {}: {}", seat.role, seat.node, seat.why));
    }
    for mend in mends(&known, &nodes) {
        let numbers = first_numbers(100);
        let (space, _) = changed(space, numbers, &mend.change).expect("it may be").expect("it is new");
        let row = &space.ranges[0];
        let seat = |seat: &crate::ranges::Seat| {
            format!("{}={}{}", seat.node, seat.store.0, if seat.votes { "" } else { "~" })
        };
        let seats: Vec<_> = row.seats.iter().map(seat).collect();
        let leaving: Vec<_> = row.leaving.iter().map(seat).collect();
        said.push(format!("{} -> {} leaving [{}]", mend.why, seats.join(" "), leaving.join(" ")));
    }
    said.join("\n")
}

const THREE: &str = "us-east/n1=1 eu-central/n1=2 ap-southeast/n1=3";

#[test]
fn a_node_with_another_disk_has_its_replica_made_anew_there() {
    let space = keyspace("inventory", THREE, Follows::None);
    assert_eq!(mended(&space, THREE, Some(300)), "");
    assert_eq!(
        mended(&space, "us-east/n1=1 eu-central/n1=12 ap-southeast/n1=3", None),
        "missing voter on eu-central/n1: its node has another disk: it is replaced there\n\
         node eu-central/n1 has another disk than replica 5 -> us-east/n1=1 ap-southeast/n1=3 eu-central/n1=12 leaving \
         [eu-central/n1=2]"
    );
    // Something of it is on its way: one after the other.
    let on_its_way = changed(
        &space,
        first_numbers(9),
        &Change::Move {
            range: RangeId(2),
            from: "us-east/n1".parse().expect("a node"),
            to: "us-south/n1".parse().expect("a node"),
            store: StoreId(4),
        },
    );
    let (moving, _) = on_its_way.expect("it may be").expect("it is new");
    let said = mended(&moving, "us-east/n1=1 eu-central/n1=12 ap-southeast/n1=3 us-south/n1=4", None);
    assert!(said.starts_with("missing voter") && !said.contains("->"), "{said}");
}

#[test]
fn a_lost_replica_is_missing_until_the_one_in_its_place_votes_and_a_move_between_two_that_are_there_is_not() {
    let space = keyspace("inventory", THREE, Follows::None);
    let moved = |from: &str, to: &str, store: u128| {
        let (from, to) = (from.parse().expect("a node"), to.parse().expect("a node"));
        let change = Change::Move { range: RangeId(2), from, to, store: StoreId(store) };
        changed(&space, first_numbers(9), &change).expect("it may be").expect("it is new").0
    };
    let why = "replica 5 is lost with its disk or its node, and counts until another one votes in its place";
    let lost = format!("missing voter on eu-central/n1: {why}");
    let anew = moved("eu-central/n1", "eu-central/n1", 12);
    assert_eq!(mended(&anew, "us-east/n1=1 eu-central/n1=12 ap-southeast/n1=3", None), lost);
    let other = moved("eu-central/n1", "us-south/n1", 4);
    let mesh = |eu: &str| format!("us-east/n1=1 eu-central/n1={eu} ap-southeast/n1=3 us-south/n1=4");
    assert_eq!(mended(&other, &mesh("2!40"), None), lost);
    assert_eq!(mended(&other, &mesh("2"), None), "");
}

#[test]
fn a_replica_where_a_newer_policy_lets_no_class_be_is_told_of_and_moved_by_nobody() {
    let on = "us-east/n1=1 eu-central/n1=2 us-south/n1=4";
    let mesh = format!("{on} ap-southeast/n1=3");
    assert_eq!(mended(&keyspace("inventory", on, Follows::None), &mesh, Some(300)), "");
    assert_eq!(
        mended(&keyspace("three", on, Follows::None), &mesh, Some(300)),
        "missing voter on us-south/n1: region us-south may not hold class three any more: move it"
    );
}

#[test]
fn a_replica_whose_node_stays_away_is_replaced_after_the_delay_and_not_before() {
    let space = keyspace("inventory", THREE, Follows::None);
    let mesh = |away: u64| format!("us-east/n1=1 eu-central/n1=2!{away} ap-southeast/n1=3 eu-west/n1=5");
    let why = "on eu-west/n1: region eu-west has none and is 75 ms from us-east";
    assert_eq!(
        mended(&space, &mesh(40), Some(300)),
        format!(
            "missing voter on eu-central/n1: its node has not been reached for 40 s; in 260 s it is replaced, {why}"
        )
    );
    assert_eq!(
        mended(&space, &mesh(400), Some(300)),
        format!(
            "missing voter on eu-central/n1: its node has not been reached for 400 s; it is replaced, {why}\n\
             node eu-central/n1 has not been reached for 400 s: replica 5 is replaced, {why} -> us-east/n1=1 \
             ap-southeast/n1=3 eu-west/n1=5 leaving [eu-central/n1=2]"
        )
    );
    let off = mended(&space, &mesh(400), None);
    assert!(off.ends_with("and ranges.replace_after is off: move it"), "{off}");
    // Nobody else may hold the class: it is said, and nothing is done.
    let few = keyspace("three", THREE, Follows::None);
    assert_eq!(
        mended(&few, &mesh(400), Some(300)),
        "missing voter on eu-central/n1: its node has not been reached for 400 s, and no other node that is reached may hold \
         class three and has no replica"
    );
    // Most voters are away: whoever is left cannot tell, and could not do it.
    let said =
        mended(&space, "us-east/n1=1!400 eu-central/n1=2!400 ap-southeast/n1=3 eu-west/n1=5", Some(300));
    assert!(!said.contains("->"), "{said}");
}

#[test]
fn a_learner_takes_a_voters_place_and_a_region_without_one_gets_another() {
    let space = keyspace("inventory", &format!("{THREE} eu-west/n1=5~"), Follows::Auto);
    let away = "us-east/n1=1 eu-central/n1=2!400 ap-southeast/n1=3 eu-west/n1=5 us-south/n1=4";
    let said = mended(&space, away, Some(300));
    let last = said.lines().last().expect("something is said");
    assert!(
        last.ends_with("-> us-east/n1=1 ap-southeast/n1=3 eu-west/n1=5 leaving [eu-central/n1=2]"),
        "{said}"
    );
    assert_eq!(
        mended(
            &space,
            "us-east/n1=1 eu-central/n1=2 ap-southeast/n1=3 eu-west/n1=5 us-south/n1=4",
            Some(300)
        ),
        "region us-south is to have a learner and has no replica -> us-east/n1=1 eu-central/n1=2 ap-southeast/n1=3 \
         eu-west/n1=5~ us-south/n1=4~ leaving []"
    );
    // A learner that is away goes nowhere else: no other node is in its region. That stands in nobody's way.
    let gone = "us-east/n1=1 eu-central/n1=2 ap-southeast/n1=3 eu-west/n1=5!400 us-south/n1=4";
    let said = mended(&space, gone, Some(300));
    assert!(
        said.contains("missing learner on eu-west/n1") && said.contains("us-south/n1=4~ leaving []"),
        "{said}"
    );
}
