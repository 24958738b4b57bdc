//! Orders through the real program: nodes are killed while customers order, and each order counts once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::prelude::*;
use rhumb_tests::cluster::{DevMesh, eventually};
use rhumb_tests::orders::{Desks, Misplace, Place, Shipped, Stock, Warehouses};
use tokio::time::Instant;

/// How long a customer tries.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn actor<A: rhumb::__private::remote::Addressed>(mesh: &Mesh, region: &str) -> MeshAddr<A> {
    mesh.actor_in(&region.parse().expect("a region"), "1")
}

/// Asks under its key until it is answered, as somebody does who wants it once.
pub(crate) async fn place(mesh: &Mesh, number: u32) -> u32 {
    let until = Instant::now() + PATIENCE;
    loop {
        let order = Place { order: format!("order-{number}"), number };
        match actor::<Desks>(mesh, "us-east").ask(order).await {
            Ok(placed) => return placed,
            Err(fault) => assert!(Instant::now() < until, "order {number} was never answered: {fault}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn each_order_counts_once_and_ships_once_and_in_order_while_both_nodes_are_killed() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_orders_node"));
    let mesh = DevMesh::start_with(program, "us-east,eu-central", "off");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let client = runtime.block_on(async { MeshClient::new(&mesh.data().join("client"), directory) });
    let client = Arc::new(client.expect("a client"));
    let orders = client.mesh();
    let all: Vec<u32> = (0..24).collect();
    for number in &all {
        match number {
            6 | 18 => drop(mesh.kill_9("eu-central/n1")),
            12 => drop(mesh.kill_9("us-east/n1")),
            _ => {}
        }
        assert_eq!(runtime.block_on(place(&orders, *number)), number + 1, "it counts once");
    }
    let warehouse = actor::<Warehouses>(&orders, "eu-central");
    let shipped = || runtime.block_on(warehouse.ask(Shipped).into_future());
    eventually("all orders are shipped", || shipped().as_ref() == Ok(&all));
    assert_eq!(runtime.block_on(place(&orders, 0)), 1, "an answer outlives its node");

    // What the warehouse has never heard of is a dead letter of the node that told it.
    let desk = actor::<Desks>(&orders, "us-east");
    let misplaced = desk.ask(Misplace { order: "m".into() });
    runtime.block_on(misplaced.into_future()).expect("it is taken");
    let dead = || mesh.ok(&["dead-letters", "list", "--node", "us-east/n1"])["nodes"][0]["letters"].clone();
    eventually("it is a dead letter", || dead().as_array().is_some_and(|letters| letters.len() == 1));
    let letter = dead()[0].clone();
    assert_eq!(
        (letter["message"].as_str(), letter["to"].as_str()),
        (Some("orders.Burn"), Some("eu-central/n1"))
    );
    let name = letter["letter"].as_str().expect("a name").to_owned();
    let show = mesh.ok(&["dead-letters", "show", &name, "--node", "us-east/n1"]);
    assert_eq!(show["target"], "orders.warehouse@eu-central/1");
    mesh.ok(&["dead-letters", "retry", &name, "--node", "us-east/n1"]);
    eventually("it is one again", || dead()[0]["letter"].as_str().is_some_and(|again| again != name));
    let again = dead()[0]["letter"].as_str().expect("a name").to_owned();
    mesh.ok(&["dead-letters", "drop", &again, "--node", "us-east/n1"]);
    assert_eq!(dead().as_array().map(Vec::len), Some(0));
    let gone = mesh.rhumb(&["dead-letters", "drop", &again, "--node", "us-east/n1"]);
    assert_eq!(gone.code, 3, "{}", gone.text);
    assert!(mesh.log("us-east/n1").contains("a letter could not be delivered"), "an alarm is in the log");
    // What an operator did with them is in the audit log, each before it was done and before it was acknowledged.
    let told = mesh.ok(&["audit", "query", "--action", "dead_letter.", "--node", "us-east/n1"]);
    let acts =
        told["found"].as_array().expect("entries").iter().map(|one| one["action"].as_str().expect("text"));
    let [retry, drop] = ["dead_letter.retry", "dead_letter.drop"];
    assert_eq!(acts.collect::<Vec<_>>(), [retry, retry, drop, drop, drop, drop]);

    // What a node told its own actor, and that had not handled it when the node was killed, finds it when it starts again.
    let stocked = desk.ask(Stock { order: "s".into(), number: 99 });
    runtime.block_on(stocked.into_future()).expect("it is taken");
    mesh.kill_9("us-east/n1");
    let own = actor::<Warehouses>(&orders, "us-east");
    eventually("it is shipped", || runtime.block_on(own.ask(Shipped).into_future()) == Ok(vec![99]));
    assert_eq!(dead().as_array().map(Vec::len), Some(0), "it is no dead letter");
    runtime.block_on(client.close());
}
