//! Two meshes never form from one, with the real program: not from a lost disk, not from two halves, not from two of the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rhumb::client::kv::{CreateKeyspace, KeyspaceView, create};
use rhumb::client::{Ask, MeshClient};
use rhumb_actors::placement::messages::Placement;
use rhumb_actors::ranges::messages::{Lifetimes, ListKeyspaces, ListRanges};
use rhumb_core::rng::Seed;
use rhumb_core::{DataClass, NodeId};
use rhumb_tests::chaos::mesh::Mesh;
use rhumb_tests::chaos::schedule::{Act, Fault};
use rhumb_tests::cluster::{FoundedMesh, REGIONS, Ran, Serving, eventually, turn};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

/// What a node says when it founds a meta range.
const FOUNDED: &str = "the meta range is founded";
/// How long something may take that comes by itself.
const SOON: Duration = Duration::from_secs(60);

// ---- a lost disk -------------------------------------------------------------------------------

/// Asks one node alone, as an operator of its own region.
fn ask_one(mesh: &FoundedMesh, node: usize, arguments: &[&str]) -> Ran {
    let (at, identity) = (mesh.admin(node), format!("mesh/operators/{}-admin", REGIONS[node]));
    mesh.rhumb(&[arguments, &["--endpoint", &at, "--identity", &identity]].concat())
}

/// The numbers of a keyspace's ranges, as a node has them.
fn ranges_of(mesh: &FoundedMesh, node: usize, keyspace: &str) -> Option<Value> {
    let listed = ask_one(mesh, node, &["keyspace", "ls"]).json;
    let all = listed["keyspaces"].as_array()?;
    all.iter().find(|space| space["keyspace"] == keyspace).map(|space| space["ranges"].clone())
}

#[test]
fn the_first_node_on_a_new_disk_founds_no_second_mesh() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let mut nodes: Vec<_> = (0..3).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    eventually("a keyspace is there", || {
        ask_one(&mesh, 1, &["keyspace", "create", "profiles", "--class", "inventory"]).code == 0
    });
    eventually("it is written", || ask_one(&mesh, 1, &["kv", "put", "profiles", "ann", "before"]).code == 0);
    let founder =
        nodes.iter().position(|node| node.log().contains(FOUNDED)).expect("one of them has founded it");
    let (other, third) = ((founder + 1) % 3, (founder + 2) % 3);
    let before = ranges_of(&mesh, other, "profiles").expect("it is there");
    assert_eq!(ask_one(&mesh, other, &["pool", "create", "concert", "--supply", "3"]).code, 0);

    // Its disk is lost, and an empty one in its place is refused until an operator says that it is a new one.
    drop(nodes.remove(founder));
    let data = mesh.data(founder);
    std::fs::remove_dir_all(&data).expect("the disk dies");
    let refused = mesh.serve(founder, &[]).wait_end();
    assert_eq!(refused.code(), Some(3), "an empty disk never initialises a cluster");
    assert!(!data.join("hot").exists());
    mesh.ok(&["mesh", "new-disk", "--config", "mesh/config", "--region", REGIONS[founder], "--node", "n1"]);
    let back = mesh.serve(founder, &[]);
    let lost = format!("{}/n1", REGIONS[founder]);
    let attest = ["pool", "attest", "concert", "--node", &lost, "--sold", "0"];
    // By an operator of its region: those of another one have no say there.
    eventually("it is attested", || ask_one(&mesh, founder, &attest).code == 0);
    drop(back);
    drop(nodes);

    // All alone it waits; with another one, whose disk is the old one, too: one of them that is not asked may have all.
    let mut alone = vec![mesh.serve(founder, &[])];
    let create = ["keyspace", "create", "profiles", "--class", "inventory"];
    founds_nothing(&mesh, (founder, &alone[0]), &create);
    alone.push(mesh.serve(other, &[]));
    eventually("they see each other", || is_connected(&alone[0], other) && is_connected(&alone[1], founder));
    founds_nothing(&mesh, (founder, &alone[0]), &create);

    // With all of them there is what was.
    alone.push(mesh.serve(third, &[]));
    alone.iter_mut().for_each(Serving::wait_ready);
    eventually("it has the catalog that was", || {
        ranges_of(&mesh, founder, "profiles").as_ref() == Some(&before)
    });
    eventually("what was written is read there", || {
        ask_one(&mesh, founder, &["kv", "get", "profiles", "ann"]).json["rows"][0]["value"] == "before"
    });
    assert!(alone.iter().all(|node| !node.log().contains(FOUNDED)), "{}", alone[0].log());
}

/// A node without a meta range creates nothing and founds nothing, though it is asked to.
fn founds_nothing(mesh: &FoundedMesh, (number, node): (usize, &Serving), create: &[&str]) {
    let asked = ask_one(mesh, number, create);
    assert!(asked.code != 0, "who has no catalog creates nothing: {}", asked.text);
    assert!(!node.log().contains(FOUNDED), "{}", node.log());
}

fn is_connected(node: &Serving, to: usize) -> bool {
    link(node, to)["up"] == true
}

fn link(node: &Serving, to: usize) -> Value {
    let status = rhumb_tests::cluster::ask_admin(node.admin(), "/status").map(|(_, status)| status);
    let status: Value = serde_json::from_str(&status.unwrap_or_default()).unwrap_or_default();
    let links = status["links"].as_array().cloned().unwrap_or_default();
    let it = format!("{}/n1", REGIONS[to]);
    links.into_iter().find(|link| link["node"] == it).unwrap_or_default()
}

// ---- two of the same names ---------------------------------------------------------------------

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("it is there").map(|entry| entry.expect("an entry")) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().expect("known").is_dir() {
            true => copy(&from, &to),
            false => drop(std::fs::copy(from, to).expect("copied")),
        }
    }
}

#[test]
fn nodes_of_two_meshes_of_the_same_names_and_addresses_refuse_each_other() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let addresses = mesh.addresses();
    mesh.ok(&["mesh", "init", "--nodes", &addresses, "other"]);
    let mut nodes = [mesh.serve(0, &[]), mesh.serve(1, &[])];
    let at = mesh.admin(2);
    let stranger = |config: &str| Serving::start(mesh.directory(), config, REGIONS[2], "n1", &at);

    // Of another authority, where the third node is to be.
    let other = stranger("other/config");
    eventually("the two see each other", || is_connected(&nodes[0], 1) && is_connected(&nodes[1], 0));
    let refuses = |node: &Serving, to: usize, says: &str| {
        let link = link(node, to);
        link["up"] == false && link["why"].as_str().is_some_and(|why| why.contains(says))
    };
    eventually("both sides refuse", || {
        (0..2).all(|node| refuses(&nodes[node], 2, "authority")) && refuses(&other, 0, "authority")
    });
    drop(other);

    // Of the same authority, with a disk of the other mesh.
    std::fs::remove_dir_all(mesh.data(2)).expect("it is there");
    copy(&mesh.directory().join("other/nodes/ap-southeast-n1/data"), &mesh.data(2));
    let mut other = stranger("mesh/config");
    assert_eq!(other.wait_end().code(), Some(3), "it does not start on such a disk");
    let why = other.log();
    assert!(why.contains("belongs to cluster") && why.contains("this node to cluster"), "{why}");
    // Nobody counts it: a meta range is founded by all three, and of these one is missing.
    let create = ["keyspace", "create", "profiles", "--class", "inventory"];
    let asked = ask_one(&mesh, 0, &create);
    assert!(asked.code != 0, "{}", asked.text);
    assert!(nodes.iter().chain([&other]).all(|node| !node.log().contains(FOUNDED)));
    assert!(nodes.iter_mut().all(|node| node.has_ended().is_none()), "they go on");
}

// ---- two halves --------------------------------------------------------------------------------

fn keyspace(name: &str, replication: u32) -> CreateKeyspace {
    CreateKeyspace {
        name: name.to_owned(),
        class: DataClass::new("inventory").expect("a class"),
        replication,
        lifetimes: Lifetimes::default(),
        placement: Placement::default(),
    }
}

/// Has each of these nodes asked to create a keyspace, again and again, and gives what was acknowledged.
async fn created(
    operator: &MeshClient,
    nodes: &[NodeId],
    wanted: CreateKeyspace,
    lasts: Duration,
) -> Vec<KeyspaceView> {
    let until = Instant::now() + lasts;
    let mut made = Vec::new();
    while Instant::now() < until && made.is_empty() {
        for node in nodes {
            let asked = operator.ask(node, &wanted, Duration::from_secs(2)).await;
            made.extend(asked.ok().and_then(Result::ok));
        }
        sleep(Duration::from_millis(100)).await;
    }
    made
}

/// What each node says of the catalog and of the members of the meta range, until all say the same.
async fn agreed(operator: &MeshClient) -> BTreeMap<String, Vec<u64>> {
    let nodes = operator.nodes();
    let within = Duration::from_secs(2);
    let one = |node: NodeId| async move {
        let spaces = operator.ask(&node, &ListKeyspaces {}, within).await.ok()?.ok()?;
        let ranges = operator.ask(&node, &ListRanges {}, within).await.ok()?.ok()?;
        let meta = ranges.into_iter().find(|view| view.keyspace == "meta")?;
        let catalog: BTreeMap<String, Vec<u64>> =
            spaces.into_iter().map(|space| (space.name, space.ranges)).collect();
        Some((catalog, meta.nodes.into_iter().collect::<BTreeSet<_>>()))
    };
    let all_agree = async {
        loop {
            let said = futures::future::join_all(nodes.iter().cloned().map(one)).await;
            if let Some((catalog, members)) = said[0].clone()
                && said.iter().all(|other| *other == said[0])
                && members == nodes.iter().cloned().collect()
            {
                return catalog;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(SOON, all_agree).await.expect("all say the same of the catalog and its members")
}

/// A cut of a node, or of its region.
fn cut(fault: Fault, node: usize) -> Act {
    let (at, lasts) = (Duration::ZERO, Duration::ZERO);
    Act { at, fault, node, other: 0, percent: 0, off_ms: 0, room: 0, draw: 0, lasts }
}

/// While a mesh is cut in two each half is asked to create a keyspace of one name, with another body. What is made in which half.
async fn in_halves(
    mesh: &Mesh,
    operator: &MeshClient,
    act: &Act,
    name: &str,
    halves: [&[NodeId]; 2],
) -> [Vec<KeyspaceView>; 2] {
    mesh.begin(act).await.expect("it is cut");
    // As long as a lease lasts that was held before, an election, and more.
    let lasts = Duration::from_secs(9);
    let made = tokio::join!(
        created(operator, halves[0], keyspace(name, 1), lasts),
        created(operator, halves[1], keyspace(name, 3), lasts)
    );
    mesh.end(act).await.expect("it heals");
    made.into()
}

#[test]
fn of_two_halves_of_a_mesh_never_both_change_the_catalog_and_in_the_end_there_is_one() {
    let _turn = turn();
    let folder = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mesh = Mesh::start(&folder.path().join("mesh"), &Seed::new(7)).await.expect("it starts");
        let operator = mesh.client("operator").expect("an operator");
        let class = DataClass::new("inventory").expect("a class");
        let before = create(&operator, "before", &class, 0).await.expect("it is created");
        let found = agreed(&operator).await;
        assert_eq!(found.keys().collect::<Vec<_>>(), ["before"]);

        // Two and two: none of them can.
        let nodes: Vec<NodeId> = mesh.ids().cloned().collect();
        let made =
            in_halves(&mesh, &operator, &cut(Fault::Partition, 0), "half", [&nodes[..2], &nodes[2..]]).await;
        assert_eq!(made, [vec![], vec![]], "two of four are no majority");
        let found = agreed(&operator).await;
        assert_eq!(found["before"], before.ranges, "{found:?}");

        // Three and one: the one cannot, and what the three have made is what all have.
        let made =
            in_halves(&mesh, &operator, &cut(Fault::CutOff, 3), "most", [&nodes[..3], &nodes[3..]]).await;
        let [most, alone] = made;
        assert!(alone.is_empty(), "one of four is no majority: {alone:?}");
        let most = most.first().expect("three of four are one");
        assert_eq!(most.replication, 1);
        let found = agreed(&operator).await;
        assert_eq!((&found["most"], &found["before"]), (&most.ranges, &before.ranges));
        // As many numbers as ranges: none was given twice.
        let numbers: BTreeSet<u64> = found.values().flatten().copied().collect();
        assert_eq!(numbers.len(), found.values().map(Vec::len).sum::<usize>(), "{found:?}");
        operator.close().await;
        assert_eq!(mesh.stop().await, Vec::<String>::new());
    });
}
