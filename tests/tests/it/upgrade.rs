//! A rolling upgrade of the real program: three regions as processes, each stopped and started with the next build while clients write
//! and read; then the cluster version is raised, and there is no way back.
//!
//! The next build is the program itself, which knows one cluster version more with `RHUMB_TEST_BUILD=next`. Programs that are not
//! built for tests do not have that version, and refuse to start with the variable (`core/src/version.rs`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{Kv, KvError};
use rhumb_actors::ranges::messages::{KvRefusal, Needs};
use rhumb_core::{FaultKind, Region};
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Family, RocksEngine, Store};
use rhumb_tests::cluster::{FoundedMesh, REGIONS, Ran, Serving, eventually};
use serde_json::{Value, json};

const NEXT: &[(&str, &str)] = &[("RHUMB_TEST_BUILD", "next")];
const OLD: &[(&str, &str)] = &[];
/// A mark and a CRC-32C, before what a range writes.
const CHECKSUM: usize = 5;

/// What clients have met.
#[derive(Default)]
struct Met {
    stop: AtomicBool,
    written: AtomicU64,
    read: AtomicU64,
    /// Calls that may be made again: nothing was done, or nobody knows.
    again: AtomicU64,
    /// What must not be.
    wrong: Mutex<Vec<String>>,
}

/// A refusal or fault that a client meets with any restart of a node.
fn is_usual(error: &KvError) -> bool {
    use FaultKind::{Deadline, Draining, Full, Handler, Unreachable};
    match error {
        KvError::Refused(refusal) => matches!(refusal, KvRefusal::NotNow { .. }),
        // Another kind would say that two builds do not understand each other.
        KvError::Fault(fault) => {
            matches!(fault.kind, Unreachable(_) | Deadline(_) | Draining | Full(_) | Handler(_))
        }
        KvError::Weaker { .. } => false,
    }
}

/// One who writes a key of its own, and reads it strongly: always what was acknowledged last, or what was tried since.
async fn writes_and_reads(client: Arc<MeshClient>, number: usize, met: Arc<Met>) {
    let region = Region::new(REGIONS[number % 3]).expect("valid");
    let kv = loop {
        match Kv::open(&client, "profiles", Some(&region)).await {
            Ok(kv) => break kv,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let key = format!("client-{number}");
    let (mut acknowledged, mut tried) = (0_u64, 0_u64);
    let wrong = |what: String| met.wrong.lock().expect("nobody panics").push(what);
    while !met.stop.load(Ordering::Relaxed) {
        tried += 1;
        match kv.put(key.as_bytes(), tried.to_string().as_bytes()).await {
            Ok(_) => {
                acknowledged = tried;
                met.written.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_usual(&error) => drop(met.again.fetch_add(1, Ordering::Relaxed)),
            Err(error) => wrong(format!("{key}: the write of {tried}: {error}")),
        }
        match kv.get(key.as_bytes(), Needs::Strong).await {
            Ok(answer) => {
                let row = answer.rows.first().map(|row| String::from_utf8_lossy(&row.value).into_owned());
                let found = row.map_or(0, |text| text.parse::<u64>().expect("a number"));
                if found < acknowledged || found > tried {
                    wrong(format!(
                        "{key}: {acknowledged} was acknowledged, {tried} tried, and {found} is read"
                    ));
                }
                met.read.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if is_usual(&error) => drop(met.again.fetch_add(1, Ordering::Relaxed)),
            Err(error) => wrong(format!("{key}: a strong read: {error}")),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What an operator is answered. A lease that is on its way after a restart is waited for, as the refusal says.
fn told(mesh: &FoundedMesh, arguments: &[&str]) -> Ran {
    let mut ran = None;
    eventually("whoever holds the lease answers", || {
        let asked = mesh.ask("operator", arguments);
        let again = asked.json["refused"]["code"] == "not_now" || [3, 4].contains(&asked.code);
        ran = Some(asked);
        !again
    });
    ran.expect("it was asked")
}

fn version(mesh: &FoundedMesh) -> Value {
    told(mesh, &["mesh", "version"]).json
}

fn active(mesh: &FoundedMesh) -> u64 {
    version(mesh)["active"].as_u64().unwrap_or_default()
}

/// A counter or gauge of a node, by its whole series.
fn series(node: &Serving, name: &str) -> f64 {
    let page = node.get("/metrics");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The formats of the states of replicas that are on a stopped node's disk, by the first byte behind their checksum.
fn formats(data: &Path) -> Vec<u8> {
    let engine = RocksEngine::open(&data.join("hot"), &RocksSettings::default(), false).expect("its store");
    let (store, mut found) = (Store::open(engine).expect("a sound store"), Vec::new());
    let walked = store.walk(Family::Raft, b"a", |key, row| {
        found.extend(key.starts_with(b"a").then(|| row[CHECKSUM] + 1));
        key.starts_with(b"a")
    });
    walked.expect("it can be read");
    found
}

/// Stops a node and starts it again, with what the environment says of its build.
fn restart(mesh: &FoundedMesh, node: &mut Serving, at: usize, build: &[(&str, &str)]) {
    node.signal("TERM");
    let ended = node.wait_end();
    assert!(ended.success(), "{ended}\n{}", node.log());
    *node = mesh.serve(at, build);
    node.wait_ready();
}

fn raises(mesh: &FoundedMesh) -> Vec<Value> {
    let mut found = Vec::new();
    for (node, region) in REGIONS.iter().enumerate() {
        let (id, identity) = (format!("{region}/n1"), format!("mesh/operators/{region}-admin"));
        let admin = mesh.admin(node);
        let which = ["audit", "query", "--node", &id, "--action", "version.raise", "--records"];
        let asked = [&which[..], &["--identity", &identity, "--endpoint", &admin]].concat();
        let entries = mesh.ok(&asked)["found"].as_array().cloned().expect("a list");
        found.extend(entries.into_iter().map(|entry| entry["record"].clone()));
    }
    found
}

#[test]
fn a_mesh_serves_through_a_rolling_upgrade_and_new_formats_wait_for_its_end() {
    let mesh = FoundedMesh::of(3);
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, OLD)).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let create = ["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"];
    eventually("a keyspace is there", || mesh.ask("operator", &create).code == 0);
    let shown = version(&mesh);
    assert_eq!((&shown["active"], &shown["allowed"]), (&json!(1), &json!(1)), "{shown}");
    let nothing = told(&mesh, &["mesh", "finalize"]);
    assert_eq!((nothing.code, &nothing.json["active"]), (0, &json!(1)), "{}", nothing.text);

    let addresses = (0..3).map(|node| {
        let (name, address) = (format!("{}/n1", REGIONS[node]), mesh.admin(node));
        (name.parse().expect("a node"), address.parse().expect("an address"))
    });
    let directory = Directory::of(addresses.collect());
    let identity = mesh.directory().join("mesh/clients/us-east-app");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let client = runtime.block_on(async { MeshClient::new(&identity, directory) }).expect("a client");
    let (client, met) = (Arc::new(client), Arc::new(Met::default()));
    let clients: Vec<_> = (0..6)
        .map(|number| runtime.spawn(writes_and_reads(Arc::clone(&client), number, Arc::clone(&met))))
        .collect();
    let goes_on = || {
        let (written, read) = (met.written.load(Ordering::Relaxed), met.read.load(Ordering::Relaxed));
        eventually("clients write and read", || {
            met.written.load(Ordering::Relaxed) > written + 60 && met.read.load(Ordering::Relaxed) > read + 60
        });
    };
    goes_on();

    // One node is of the next build, goes back to the old one, and is of the next one again: nothing was promised.
    for (at, build) in [(0, NEXT), (0, OLD), (0, NEXT), (1, NEXT)] {
        restart(&mesh, &mut nodes[at], at, build);
        goes_on();
    }
    let refused = told(&mesh, &["mesh", "finalize"]);
    assert_eq!(
        (refused.code, refused.json["refused"]["code"].as_str()),
        (1, Some("not_allowed")),
        "{}",
        refused.text
    );
    assert!(refused.text.contains("ap-southeast/n1: its build knows cluster version 1"), "{}", refused.text);
    let shown = version(&mesh);
    let held = |at: usize| {
        shown["nodes"].as_array().expect("a list").iter().find_map(|node| {
            (node["node"] == format!("{}/n1", REGIONS[at])).then(|| node["holds_back"].clone())
        })
    };
    assert_eq!(held(0), Some(Value::Null), "{shown}");
    assert_eq!(held(2), Some(json!("its build knows cluster version 1")), "{shown}");
    assert_eq!(told(&mesh, &["mesh", "version", "--check"]).code, 5);
    restart(&mesh, &mut nodes[2], 2, NEXT);
    goes_on();
    let new_format = "rhumb_range_commands_total{format=\"2\"}";
    for node in &nodes {
        assert_eq!(series(node, new_format), 0.0, "no new format before the version is raised");
        assert_eq!(series(node, "rhumb_cluster_version"), 1.0);
    }

    // Now there is no way back.
    let raised = told(&mesh, &["mesh", "finalize"]);
    assert!([0, 5].contains(&raised.code), "{}", raised.text);
    eventually("the mesh is at version 2", || active(&mesh) == 2);
    eventually("every node has seen it", || {
        nodes.iter().all(|node| series(node, "rhumb_cluster_version") == 2.0)
    });
    goes_on();
    let new: f64 = nodes.iter().map(|node| series(node, new_format)).sum();
    assert!(new > 60.0, "the new format is written: {new}");
    let status = mesh.ask("client", &["status"]).json;
    assert!(
        status["nodes"].as_array().expect("a list").iter().all(|node| node["cluster_version"] == 2),
        "{status}"
    );
    let raises = raises(&mesh);
    let done: Vec<_> = raises.iter().filter(|record| record["outcome"] == "done").collect();
    assert_eq!(done.len(), 1, "{raises:?}");
    assert_eq!(
        (&done[0]["details"]["from"], &done[0]["details"]["to"]),
        (&json!("1"), &json!("2")),
        "{raises:?}"
    );

    // The old build is refused before it opens what it could not read; the next one goes on.
    nodes[1].signal("TERM");
    assert!(nodes[1].wait_end().success());
    let formats = formats(&mesh.data(1));
    assert!(formats.contains(&2), "states of replicas are of the new format: {formats:?}");
    let mut old = mesh.serve(1, OLD);
    let ended = old.wait_end();
    let log = old.log();
    assert!(!ended.success() && log.contains("this build knows cluster version 1"), "{ended}\n{log}");
    assert!(log.contains("start a build that knows cluster version 2"), "{log}");
    nodes[1] = mesh.serve(1, NEXT);
    nodes[1].wait_ready();
    goes_on();

    met.stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for client in clients {
            client.await.expect("no client panics");
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!("{} written, {} read, {} again", count(&met.written), count(&met.read), count(&met.again));
    let wrong = met.wrong.lock().expect("nobody panics");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_build_of_tests_says_so_and_takes_no_other_word() {
    let mesh = FoundedMesh::of(1);
    let mut node = mesh.serve(0, &[("RHUMB_TEST_BUILD", "later")]);
    let ended = node.wait_end();
    assert!(
        !ended.success() && node.log().contains("RHUMB_TEST_BUILD is \"later\""),
        "{ended}\n{}",
        node.log()
    );
}

#[test]
fn a_mesh_of_one_goes_through_it_too() {
    let mesh = FoundedMesh::of(1);
    let mut node = mesh.serve(0, NEXT);
    node.wait_ready();
    eventually("there is a meta range", || active(&mesh) == 1);
    let raised = told(&mesh, &["mesh", "finalize", "--to", "2"]);
    assert!([0, 5].contains(&raised.code), "{}", raised.text);
    eventually("the mesh is at version 2", || active(&mesh) == 2);
    let back = told(&mesh, &["mesh", "finalize", "--to", "1"]);
    assert_eq!(back.json["refused"]["code"].as_str(), Some("not_allowed"), "{}", back.text);
    let later = told(&mesh, &["mesh", "finalize", "--to", "3"]);
    assert_eq!(later.json["refused"]["code"].as_str(), Some("not_allowed"), "{}", later.text);
    // What it has written itself it refuses to read as the old build.
    node.signal("KILL");
    node.wait_end();
    let mut old = mesh.serve(0, OLD);
    assert!(!old.wait_end().success() && old.log().contains("cluster version 1"), "{}", old.log());
}
