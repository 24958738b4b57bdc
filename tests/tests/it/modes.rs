//! How much a running node does: a service in it hears of each change, and an operator reads it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::prelude::*;
use rhumb_tests::cluster::{DevMesh, ask_admin, eventually};
use rhumb_tests::overload::{Burn, Burner, Heard, Listener};
use tokio::runtime::Runtime;

const SETTINGS: [(&str, &str); 4] = [
    ("RHUMB__RESILIENCE__MODE_WORSE_AFTER", "1s"),
    ("RHUMB__RESILIENCE__MODE_CALM_AFTER", "2s"),
    ("RHUMB__RESILIENCE__MODE_STEADY_AFTER", "2s"),
    // However many are turned away, it is no reason to go to the floor.
    ("RHUMB__RESILIENCE__MODE_SHED_MOST", "1"),
];
/// Customers who ask at once: more than are let in.
const CUSTOMERS: usize = 48;

/// Asks until it is said to be enough, each a moment after it was turned away.
fn ask_for_too_much(runtime: &Runtime, mesh: &Mesh, enough: &Arc<AtomicBool>) {
    for customer in 0..CUSTOMERS {
        let (actor, enough) = (mesh.actor::<Burner>(customer), Arc::clone(enough));
        runtime.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                if actor.ask(Burn {}).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
}

#[test]
fn a_service_of_a_node_that_is_asked_for_too_much_hears_that_it_does_less_and_later_all_again() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_overload"));
    let node = DevMesh::start_with_settings(program, "us-east", "off", &SETTINGS);
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(async {
        let directory = Directory::read(&node.data()).expect("a ready file");
        MeshClient::new(&node.data().join("client"), directory).expect("a client")
    });
    let client = Arc::new(client);
    let mesh = client.mesh();
    let listener = mesh.singleton::<Listener>();
    let heard = || runtime.block_on(listener.ask(Heard {}).into_future()).expect("it listens");
    let admin = node.node("us-east/n1")["admin"].as_str().expect("a URL").replace("http://", "");
    let gauge = |level: u8| {
        let (_, page) = ask_admin(&admin, "/metrics").expect("it answers");
        page.lines().any(|line| line.starts_with(&format!("rhumb_node_mode {level}")))
    };
    assert!(heard().is_empty() && gauge(3), "it does all that it is asked");

    let enough = Arc::new(AtomicBool::new(false));
    ask_for_too_much(&runtime, &mesh, &enough);
    eventually("it does less", || heard() == ["degraded"]);
    assert!(gauge(1), "an operator sees it");
    assert_eq!(node.status("us-east/n1")["mode"], "degraded");
    enough.store(true, Ordering::Relaxed);
    // Once each: at the edge it does not go to and fro.
    eventually("it recovers", || heard() == ["degraded", "recovery"]);
    eventually("it does all again", || heard() == ["degraded", "recovery", "target"]);
    assert!(gauge(3), "an operator sees it");
    runtime.block_on(client.close());
}
