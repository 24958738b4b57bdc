//! The power is cut of two nodes between which orders go: each order is answered once and shipped once, in order, with
//! whatever the disks kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb_tests::cluster::{FoundedMesh, eventually};
use rhumb_tests::orders::{Shipped, Warehouses};
use tokio::runtime::Runtime;

use crate::delivery::{actor, place};
use crate::scene::{Running, Scene, full, seed};

/// A desk in one region, a warehouse in another, and a customer who orders one thing after the other.
struct Shop {
    scene: Scene,
    nodes: Vec<Running>,
    runtime: Runtime,
    client: Arc<MeshClient>,
    ordered: u32,
}

impl Shop {
    fn open(seed: u64, variables: &[(&'static str, &str)]) -> Self {
        let mut scene = Scene::with(FoundedMesh::of(2), 2, seed, variables);
        scene.program = PathBuf::from(env!("CARGO_BIN_EXE_orders_node"));
        let nodes = scene.serve_all().expect("a fresh mesh starts");
        let runtime = Runtime::new().expect("a runtime");
        let addresses = (0..2).map(|node| {
            let (name, address) = (scene.mesh.address(node), scene.mesh.admin(node));
            let name = name.split('=').next().expect("a name");
            (name.parse().expect("a node"), address.parse().expect("an address"))
        });
        let directory = Directory::of(addresses.collect());
        let identity = scene.mesh.directory().join("mesh/clients/us-east-app");
        let client = runtime.block_on(async { MeshClient::new(&identity, directory) }).expect("a client");
        Self { scene, nodes, runtime, client: Arc::new(client), ordered: 0 }
    }

    /// Orders are placed while one of the nodes loses its power, and until it serves again.
    fn cut_one(&mut self) -> Result<(), String> {
        let (orders, stop) = (self.client.mesh(), Arc::new(AtomicBool::new(false)));
        let (from, stopped) = (self.ordered, Arc::clone(&stop));
        let customer = self.runtime.spawn(async move {
            let mut number = from;
            // At least one, so that it is known whether what was answered before counted once.
            while number == from || !stopped.load(Ordering::Relaxed) {
                let counted = place(&orders, number).await;
                if counted != number + 1 {
                    return Err(format!("order {number} counted as {counted}"));
                }
                number += 1;
            }
            Ok(number)
        });
        let at = self.scene.rng.below(2) as usize;
        let scene = &mut self.scene;
        let mut node = self.nodes.remove(at);
        scene.cut_off(at, &mut node)?;
        scene.cut(at, node)?;
        let mut node = scene.serve(at, scene.watch(at));
        let ready = scene.starts(at, &mut node)?;
        self.nodes.insert(at, node);
        stop.store(true, Ordering::Relaxed);
        if !ready {
            return Err("a node that nobody cuts off does not start".to_owned());
        }
        self.ordered = self.runtime.block_on(customer).map_err(|error| format!("no answer: {error}"))??;
        self.scene.rises(at)
    }

    /// Every order was shipped once, in order.
    fn shipped(&self) -> Result<(), String> {
        let orders = self.client.mesh();
        let warehouse = actor::<Warehouses>(&orders, "eu-central");
        let all: Vec<u32> = (0..self.ordered).collect();
        let mut last = Vec::new();
        eventually("as many are shipped as were ordered, or another one", || {
            if let Ok(shipped) = self.runtime.block_on(warehouse.ask(Shipped).into_future()) {
                last = shipped;
            }
            last.len() >= all.len() || !all.starts_with(&last)
        });
        if last == all { Ok(()) } else { Err(format!("{} orders were shipped as {last:?}", all.len())) }
    }
}

#[test]
fn each_order_counts_once_and_ships_once_over_power_cuts() {
    let mut shop = Shop::open(seed(6), &[]);
    for _ in 0..if full() { 100 } else { 8 } {
        let held = shop.cut_one().and_then(|()| shop.shipped());
        held.unwrap_or_else(|finding| panic!("{finding}"));
    }
    println!("{} cuts, {} orders", shop.scene.cuts, shop.ordered);
    assert!(shop.ordered as usize > 3 * shop.scene.cuts, "too little was ordered for a test");
}

#[test]
fn a_desk_that_does_not_sync_loses_orders_or_counts_them_twice() {
    let mut shop = Shop::open(seed(7), &[("RHUMB_TEST_CANARY", "no-sync")]);
    let found = (0..12).find_map(|_| shop.cut_one().and_then(|()| shop.shipped()).err());
    let found = found.expect("a store that does not sync loses what it answered");
    // What was not synced may leave a log with a hole, which the node refuses.
    let caught = [
        "counted as",
        "were shipped as",
        "gone back",
        "is lost although",
        "restored",
        "no answer",
        "does not start",
    ];
    assert!(caught.iter().any(|how| found.contains(how)), "{found}");
}
