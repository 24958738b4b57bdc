//! Pools with `durability=quorum`, as the real program has them: three regions as processes, real QUIC, real RocksDB.

use std::time::Duration;

use rhumb::client::{Ask, MeshClient};
use rhumb_actors::escrow::messages::Confirm;
use rhumb_actors::ranges::lifecycle::{LiveKeyspace, Step};
use rhumb_actors::ranges::messages::{
    CreateKeyspace, KvOp, KvRead, KvRefusal, KvWrite, Lifetimes, ListKeyspaces, Needs, SplitRange,
};
use rhumb_actors::remote::Remote;
use rhumb_core::{DataClass, Delivery, FaultKind, NodeId, PoolName};
use rhumb_tests::cluster::{FoundedMesh, REGIONS, Ran, Serving, eventually, turn};
use rhumb_tests::counter::directory;
use rhumb_topology::{Founding, pool_home};
use serde_json::Value;

/// Units of a pool: so many that each node sells its own at first.
const SUPPLY: u64 = 600;

fn id(node: usize) -> NodeId {
    NodeId::new(REGIONS[node], "n1").expect("a node")
}

/// The first name of which this node is the home.
fn name_at(home: usize) -> String {
    named("concert", home)
}

fn named(like: &str, home: usize) -> String {
    let founding = Founding::new((0..3).map(id).collect::<Vec<_>>()).expect("three nodes");
    let at_home = |name: &String| *pool_home(&founding, &PoolName::new(name).expect("a name")) == id(home);
    (0..).map(|number| format!("{like}-{number}")).find(at_home).expect("some name")
}

/// Asks one node, as the operator or a client of its region.
fn at(mesh: &FoundedMesh, node: usize, arguments: &[&str]) -> Ran {
    let identity = match arguments[0] {
        "hold" | "confirm" | "release" => format!("mesh/clients/{}-app", REGIONS[node]),
        _ => format!("mesh/operators/{}-admin", REGIONS[node]),
    };
    let admin = mesh.admin(node);
    mesh.rhumb(&[arguments, &["--endpoint", &admin, "--identity", &identity]].concat())
}

fn code(ran: &Ran) -> &str {
    ran.json["refused"]["code"].as_str().unwrap_or_default()
}

/// Holds units at a node, if it gives them.
fn hold(mesh: &FoundedMesh, node: usize, pool: &str, qty: u64) -> Ran {
    at(mesh, node, &["hold", pool, "--qty", &qty.to_string(), "--ttl", "20m"])
}

fn held(ran: &Ran) -> String {
    assert_eq!(ran.code, 0, "{}", ran.text);
    ran.json["hold"].as_str().expect("a hold").to_owned()
}

fn served(mesh: &FoundedMesh) -> Vec<Serving> {
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    nodes
}

fn created(mesh: &FoundedMesh, pool: &str) {
    let supply = SUPPLY.to_string();
    let create = ["pool", "create", pool, "--supply", &supply, "--durability", "quorum"];
    let mut made = Value::Null;
    eventually("the pool is created, once there is a meta range", || {
        let ran = at(mesh, 1, &create);
        made = ran.json.clone();
        ran.code == 0
    });
    assert_eq!(made["durability"], "quorum", "{made}");
    assert_eq!(at(mesh, 2, &create).json, made, "again, elsewhere");
    let other = at(mesh, 1, &["pool", "create", pool, "--supply", &supply]);
    assert_eq!((other.code, code(&other)), (1, "pool_exists"), "{}", other.text);
    let spaces = at(mesh, 1, &["keyspace", "ls"]);
    assert!(!spaces.text.contains(pool), "its range is its own: {}", spaces.text);
}

#[test]
fn a_node_is_lost_with_its_disk_and_others_keep_its_holds_and_sell_its_rights() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let mut nodes = served(&mesh);
    // The node that is lost is the home of the one pool, and an owner of rights of the other.
    let pools = [name_at(0), name_at(1)];
    let mut open = Vec::new();
    for pool in &pools {
        created(&mesh, pool);
        eventually("the node that will be lost has rights of it", || {
            let shown = at(&mesh, 0, &["pool", "show", pool]).json;
            let nodes = shown["nodes"].as_array().cloned().unwrap_or_default();
            nodes.iter().any(|one| one["node"] == "us-east/n1" && one["available"].as_u64() > Some(100))
        });
        for qty in [1, 2, 2, 2, 2] {
            let one = held(&hold(&mesh, 0, pool, qty));
            assert!(one.contains("/us-east/n1/"), "it is the lost node's own: {one}");
            open.push(one);
        }
    }
    let (sold, freed) = (open.remove(0), open.remove(0));
    assert_eq!(at(&mesh, 0, &["confirm", &sold]).code, 0);
    assert_eq!(at(&mesh, 0, &["release", &freed]).code, 0);

    // kill -9, and the disk is gone for good.
    drop(nodes.remove(0));
    std::fs::remove_dir_all(mesh.data(0)).expect("its disk");

    for (number, one) in open.iter().enumerate() {
        let by = 1 + number % 2;
        eventually("an acknowledged hold is confirmed elsewhere", || {
            let ran = at(&mesh, by, &["confirm", one]);
            assert!(ran.code == 0 || !["no_such_hold", "sold_out"].contains(&code(&ran)), "{}", ran.text);
            ran.code == 0
        });
    }
    for by in [1, 2] {
        assert_eq!(
            at(&mesh, by, &["confirm", &sold]).code,
            0,
            "what was sold is sold, and the answer is the same"
        );
        let late = at(&mesh, by, &["confirm", &freed]);
        assert_eq!((late.code, code(&late)), (1, "hold_released"), "{}", late.text);
    }

    // The rest is sold, the rights of the lost node among it, and not one unit more.
    for (number, pool) in pools.iter().enumerate() {
        let mut units: u64 = if number == 0 { 1 + 3 * 2 } else { 1 + 4 * 2 };
        eventually("all that is left is sold", || {
            for qty in [60, 9, 1] {
                if units + qty > SUPPLY {
                    continue;
                }
                let ran = hold(&mesh, 1 + number, pool, qty);
                if ran.code == 0 {
                    let one = held(&ran);
                    assert_eq!(at(&mesh, 2 - number, &["confirm", &one]).code, 0, "{one}");
                    units += qty;
                    assert!(units <= SUPPLY, "{units} of {SUPPLY} are sold");
                } else {
                    assert!(units == SUPPLY || code(&ran) != "sold_out", "{units} are sold: {}", ran.text);
                }
            }
            units == SUPPLY
        });
        eventually("whoever comes after is told that all is sold", || {
            code(&hold(&mesh, 2, pool, 1)) == "sold_out"
        });
    }
}

#[test]
fn a_pool_with_a_range_needs_three_nodes_that_may_hold_it() {
    let _turn = turn();
    let mesh = FoundedMesh::of(2);
    let mut nodes: Vec<Serving> = (0..2).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let founding = Founding::new((0..2).map(id).collect::<Vec<_>>()).expect("two nodes");
    let home = pool_home(&founding, &PoolName::new("concert").expect("a name")).clone();
    let ran = at(
        &mesh,
        usize::from(home == id(1)),
        &["pool", "create", "concert", "--supply", "10", "--durability", "quorum"],
    );
    assert_eq!((ran.code, code(&ran)), (1, "invalid"), "{}", ran.text);
    assert!(ran.text.contains("needs 3 nodes that may hold class inventory"), "{}", ran.text);
}

#[test]
fn a_home_on_a_new_disk_gives_no_name_again_that_has_a_range() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let mut nodes = served(&mesh);
    let pool = name_at(1);
    created(&mesh, &pool);
    assert_eq!(at(&mesh, 1, &["pool", "create", "concert", "--supply", "3"]).code, 0);

    drop(nodes.remove(1));
    std::fs::remove_dir_all(mesh.data(1)).expect("its disk");
    mesh.ok(&["mesh", "new-disk", "--config", "mesh/config", "--region", REGIONS[1], "--node", "n1"]);
    let back = mesh.serve(1, &[]);
    let attest = ["pool", "attest", "concert", "--node", &id(1).to_string(), "--sold", "0"];
    eventually("its part of the other pool is attested", || {
        let ran = at(&mesh, 1, &attest);
        if ran.code != 0 {
            println!("not yet: {}", ran.text);
        }
        ran.code == 0
    });
    drop(back);
    let mut back = mesh.serve(1, &[]);
    back.wait_ready();
    // At first it has read nothing of the catalog, and its escrow knows no such pool.
    eventually("it says that there is such a pool", || {
        let ran = at(&mesh, 1, &["pool", "create", &pool, "--supply", "5"]);
        assert_ne!(ran.code, 0, "a second pool of one name: {}", ran.text);
        code(&ran) == "pool_exists"
    });
}

#[test]
fn a_node_knows_no_more_pools_with_a_range_than_it_may() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let few = [("RHUMB__ESCROW__MAX_POOLS", "1")];
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, &few)).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let pool = name_at(1);
    created(&mesh, &pool);
    let other =
        at(&mesh, 1, &["pool", "create", &named("encore", 1), "--supply", "5", "--durability", "quorum"]);
    assert_eq!((other.code, code(&other)), (1, "overloaded"), "{}", other.text);
    // Nor one on disks: they are counted together.
    let other = at(&mesh, 1, &["pool", "create", &named("encore", 1), "--supply", "5"]);
    assert_eq!((other.code, code(&other)), (1, "overloaded"), "{}", other.text);
    assert_eq!(at(&mesh, 1, &["pool", "show", &pool]).code, 0);
}

#[test]
fn who_confirms_where_the_catalog_does_not_come_is_told_so_long_before_he_gives_up() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    // The third has never been up: nobody has founded the catalog.
    let mut nodes: Vec<Serving> = (0..2).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let identity = mesh.directory().join("mesh/clients/us-east-app");
    let addresses = mesh.addresses();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let client = MeshClient::new(&identity, directory(&addresses)).expect("a certificate");
        let (node, pool) = (id(0), name_at(0));
        let confirm = Confirm { hold: format!("{pool}/{node}/a/1").parse().expect("a hold's id") };
        let asked = client.ask(&node, &confirm, Duration::from_secs(120));
        let answer = tokio::time::timeout(Duration::from_secs(20), asked).await.expect("it is answered");
        let fault = answer.expect_err("it cannot know that there is no such hold");
        assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::NotSent, "it may be asked again, or another node");
    });
}

/// What a node refuses of a message that it has been asked; it must refuse it.
async fn refused<M, T>(client: &MeshClient, node: &NodeId, message: &M) -> KvRefusal
where
    M: Remote<Reply = Result<T, KvRefusal>> + Sync,
{
    let answer = client.ask(node, message, Duration::from_secs(10)).await;
    match answer.unwrap_or_else(|fault| panic!("{} at {node}: {fault}", M::NAME)) {
        Ok(_) => panic!("{} at {node} was done", M::NAME),
        Err(refusal) => refusal,
    }
}

#[test]
fn nobody_but_nodes_reads_or_changes_what_a_pool_keeps_in_its_range() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let _nodes = served(&mesh);
    let pool = name_at(1);
    created(&mesh, &pool);
    let shown = at(&mesh, 0, &["pool", "show", &pool]).json;

    let (keyspace, class) = (format!("pool/{pool}"), DataClass::new("inventory").expect("a class"));
    let (node, from) = (id(1), format!("{}", id(1)).into_bytes());
    let read = |to: Option<Vec<u8>>| KvRead {
        class: class.clone(),
        keyspace: keyspace.clone(),
        from: from.clone(),
        to,
        limit: 10,
        needs: Needs::Strong,
        token: Vec::new(),
        nearest_only: false,
        fallback: false,
        hops: 0,
        as_stored: false,
    };
    let op = |value: Option<&[u8]>| {
        let (key, value) = (from.clone(), value.map(<[u8]>::to_vec));
        KvOp { key, value, condition: None, schema: None, subject: None, lasts: None }
    };
    let write = |op| KvWrite { class: class.clone(), keyspace: keyspace.clone(), ops: vec![op], hops: 0 };
    let split = SplitRange { class: class.clone(), keyspace: keyspace.clone(), at: b"eu".to_vec(), hops: 0 };
    let create = |name: &str| CreateKeyspace {
        name: name.to_owned(),
        class: class.clone(),
        replication: 3,
        lifetimes: Lifetimes::default(),
        placement: Default::default(),
    };
    let addresses = mesh.addresses();
    let client = |role: &str| {
        let identity = mesh.directory().join("mesh").join(role);
        MeshClient::new(&identity, directory(&addresses)).expect("a certificate")
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let not_allowed = |refusal: KvRefusal| {
            assert!(matches!(refusal, KvRefusal::NotAllowed(_)), "{refusal:?}");
        };
        let (program, operator) = (client("clients/us-east-app"), client("operators/us-east-admin"));
        for node in (0..3).map(id) {
            for who in [&program, &operator] {
                for to in [None, Some(Vec::new())] {
                    not_allowed(refused(who, &node, &read(to)).await);
                }
                for value in [None, Some(&b"stolen"[..])] {
                    not_allowed(refused(who, &node, &write(op(value))).await);
                }
            }
            not_allowed(refused(&operator, &node, &split).await);
            for step in [Step::Archive, Step::Delete, Step::Restore, Step::Purge] {
                let lives = LiveKeyspace { keyspace: keyspace.clone(), step };
                not_allowed(refused(&operator, &node, &lives).await);
            }
            // Neither its own name nor that of a pool that nobody has created.
            for name in [keyspace.as_str(), "pool/encore"] {
                let refusal = refused(&operator, &node, &create(name)).await;
                assert!(matches!(refusal, KvRefusal::Invalid(_)), "{refusal:?}");
            }
        }
        let within = Duration::from_secs(10);
        let listed = program.ask(&node, &ListKeyspaces {}, within).await.expect("an answer");
        assert_eq!(listed, Ok(Vec::new()), "nor are they listed");
    });
    assert_eq!(at(&mesh, 0, &["pool", "show", &pool]).json["supply"], shown["supply"]);
}
