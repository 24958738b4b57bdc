//! Ranges that are split and moved while they are read and written, with the real program.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{Kv, KvError};
use rhumb_actors::ranges::messages::Needs;
use rhumb_core::{Delivery, Region};
use rhumb_tests::cluster::{DevMesh, ask_admin, eventually, eventually_or};
use serde_json::Value;

use crate::ranges::places;

const THREE: &str = "us-east,eu-central,ap-southeast";

const CLIENTS: usize = 8;
/// Keys of each of them.
const KEYS: usize = 8;

/// What there may be of a key that one client alone writes.
#[derive(Debug, Clone, Default)]
struct Known {
    /// What was acknowledged last.
    acknowledged: Option<usize>,
    /// Writes of unknown outcome, which may be done at any later time.
    unsure: Vec<usize>,
}

impl Known {
    fn may_be(&self, found: Option<usize>) -> bool {
        found == self.acknowledged || found.is_some_and(|value| self.unsure.contains(&value))
    }
}

/// Writes each of its keys, reads it three times, and again, until it is over; gives what it knows of them.
async fn client(
    number: usize,
    through: Arc<MeshClient>,
    region: Region,
    is_over: Arc<AtomicBool>,
) -> Vec<(String, Known)> {
    let kv = Kv::open(&through, "profiles", Some(&region)).await.expect("the keyspace is there");
    // In the order of keys those of all clients take turns.
    let mut all: Vec<_> = (0..KEYS).map(|at| (format!("{at}-{number}"), Known::default())).collect();
    for value in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let (key, known) = &mut all[value % KEYS];
        if (value / KEYS).is_multiple_of(4) {
            match kv.put(key.as_bytes(), value.to_string().as_bytes()).await {
                Ok(_) => known.acknowledged = Some(value),
                Err(KvError::Fault(fault)) if fault.delivery() != Delivery::NotSent => {
                    known.unsure.push(value);
                }
                Err(_) => {}
            }
        } else if let Ok(answer) = kv.get(key.as_bytes(), Needs::Strong).await {
            let found = answer.rows.first().map(|row| String::from_utf8_lossy(&row.value).into_owned());
            let found = found.map(|value| value.parse().expect("a number"));
            assert!(known.may_be(found), "{key}: {found:?} was read, and there may be {known:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all
}

/// Does something while clients of all regions read and write; gives what there may be afterwards.
fn while_busy(mesh: &DevMesh, regions: &str, meanwhile: impl FnOnce()) -> Vec<(String, Known)> {
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let through = Arc::new(MeshClient::new(&mesh.data().join("client"), directory).expect("a certificate"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .zip(regions.split(',').cycle())
        .map(|(number, region)| {
            let region = Region::new(region).expect("valid");
            runtime.spawn(client(number, Arc::clone(&through), region, Arc::clone(&is_over)))
        })
        .collect();
    meanwhile();
    is_over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await.expect("no client panics"));
        }
        all
    })
}

/// Every key is read strongly, from one region after the other, and is what it may be.
fn is_all_there(mesh: &DevMesh, regions: &str, known: &[(String, Known)]) {
    for ((key, known), region) in known.iter().zip(regions.split(',').cycle()) {
        assert!(known.acknowledged.is_some(), "{key} was never written");
        let mut found = Value::Null;
        eventually("it is read", || {
            let ran = mesh.rhumb(&["kv", "get", "profiles", key, "--region", region]);
            found = ran.json["rows"][0]["value"].clone();
            assert!(ran.code != 5, "{key} is gone: {known:?}");
            ran.code == 0
        });
        let found = found.as_str().and_then(|value| value.parse().ok());
        assert!(known.may_be(found), "{key}: {found:?} was read, and there may be {known:?}");
    }
}

#[test]
fn a_range_that_is_busy_is_split_by_itself_while_it_is_read_and_written() {
    let set = [("RHUMB__RANGES__SPLIT_LOAD", "50"), ("RHUMB__RANGES__SPLIT_AT", "off")];
    let mesh = DevMesh::start_under(THREE, "off", &set);
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let ranges = || {
        let listed = mesh.rhumb(&["range", "ls"]).json;
        let replicas = listed["replicas"].as_array().cloned().unwrap_or_default();
        let ours = replicas.iter().filter(|replica| replica["keyspace"] == "profiles");
        ours.map(|replica| replica["range"].as_u64().expect("a number")).collect::<BTreeSet<_>>()
    };
    assert_eq!(made["ranges"].as_array().map(Vec::len), Some(1), "{made}");
    // Pages of metrics cost next to nothing: commands in a loop would be most of the load.
    let is_split = |region: &str| {
        let admin =
            mesh.node(&format!("{region}/n1"))["admin"].as_str().expect("a URL").replace("http://", "");
        ask_admin(&admin, "/metrics").is_some_and(|(_, page)| {
            page.lines().any(|line| line.starts_with("rhumb_range_splits_total{why=\"load\"} "))
        })
    };
    let known = while_busy(&mesh, THREE, || {
        eventually("its leaseholder splits it for its load", || THREE.split(',').any(is_split));
        eventually("both are listed", || ranges().len() > 1);
    });
    is_all_there(&mesh, THREE, &known);
}

#[test]
fn a_replica_and_a_lease_that_an_operator_moves_take_along_all_that_was_acknowledged() {
    let four = "us-east,us-west,eu-central,ap-southeast";
    let mesh = DevMesh::start(four, "off");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    let number = made["ranges"][0].as_u64().expect("a range");
    let range = number.to_string();
    let stood = made["replicas"].as_array().expect("nodes").iter();
    let stood: BTreeSet<_> = stood.map(|node| node.as_str().expect("a node").to_owned()).collect();
    let is_free = |node: &String| !stood.contains(node);
    let free = four.split(',').map(|region| format!("{region}/n1")).find(is_free).expect("three of four");
    let (from, other) = (stood.first().expect("three"), stood.last().expect("three"));

    let refused = |arguments: &[&str], why: &str| {
        // A node may not have heard of all others yet.
        eventually_or(why, || {
            let ran = mesh.rhumb(&[&["range"][..], arguments].concat());
            let is_refused = ran.code == 1 && ran.json["refused"]["code"] == "invalid";
            if is_refused && ran.text.contains(why) { Ok(()) } else { Err(ran.text) }
        });
    };
    refused(&["move", &range, "--from", from, "--to", "mars/n1"], "node mars/n1 is not known");
    refused(&["move", &range, "--from", "mars/n1", "--to", &free], "there is no node mars/n1");
    refused(&["move", &range, "--from", from, "--to", other], "has a replica of range");
    refused(&["move", &range, "--from", &free, "--to", &free], "has no replica of range");
    refused(&["move", "99", "--from", from, "--to", &free], "there is no range 99");
    refused(&["transfer-lease", &range, "--to", "mars/n1"], "node mars/n1 has no replica of range");
    refused(&["transfer-lease", &range, "--to", &free], "has no replica of range");
    eventually("it stands as before", || {
        places(&mesh, number).0.into_iter().collect::<BTreeSet<_>>() == stood
    });

    let moves = ["range", "move", &range, "--from", from, "--to", &free];
    let known = while_busy(&mesh, four, || {
        eventually("the replica has moved", || {
            let ran = mesh.rhumb(&moves);
            ran.code == 0 && ran.json["done"] == true
        });
        eventually("it stands there", || {
            let (now, _) = places(&mesh, number);
            now.len() == 3 && now.contains(&free) && !now.contains(from)
        });
        eventually("the lease is there, too", || {
            mesh.rhumb(&["range", "transfer-lease", &range, "--to", &free]).code == 0
                && places(&mesh, number).1.as_ref() == Some(&free)
        });
    });
    is_all_there(&mesh, four, &known);
    assert_eq!(mesh.ok(&moves)["done"], true, "the same again tells that it is done");
}
