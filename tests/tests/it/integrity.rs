//! Replicas of the real program that become wrong on their disks: found, quarantined, rebuilt, and told of.

use std::path::Path;

use rhumb_storage::mvcc::{Record, VersionKey};
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, Family, RocksEngine, Store};
use rhumb_tests::cluster::{DevMesh, eventually};
use serde_json::Value;

use crate::placement::metric;

const THREE: &str = "us-east,eu-central,ap-southeast";
/// The region whose node's disk becomes wrong.
const WRONG: &str = "ap-southeast";

fn store(data: &Path) -> Store<RocksEngine> {
    let hot = data.join(format!("nodes/{WRONG}-n1/data/hot"));
    let engine = RocksEngine::open(&hot, &RocksSettings::default(), false).expect("its store");
    Store::open(engine).expect("a sound store")
}

/// The rows of a key on the stopped node's disk.
fn rows(store: &Store<RocksEngine>, keyspace: u64, key: &str) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let walked = store.walk(Family::Mvcc, b"", |row, _| {
        let version = VersionKey::decode(row).expect("a version");
        let is_it = u64::from(version.keyspace.0) == keyspace && version.key.as_bytes() == key.as_bytes();
        found.extend(Some(row.to_vec()).filter(|_| is_it));
        true
    });
    walked.expect("it can be read");
    found
}

fn put(store: &Store<RocksEngine>, row: Vec<u8>, value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(Family::Mvcc, row, value);
    store.write(&batch).expect("written");
    store.sync().expect("durable");
}

/// What a region's own replica has of a key, without a leaseholder.
fn at_home(mesh: &DevMesh, region: &str, key: &str) -> Option<String> {
    let get = ["kv", "get", "profiles", key, "--region", region, "--consistency", "bounded=10s"];
    let ran = mesh.rhumb(&get);
    let home = ran.json["region"] == region;
    ran.json["rows"][0]["value"].as_str().map(str::to_owned).filter(|_| home)
}

/// The replica of a range on the wrong node: its number, whether it votes, and what is said to be wrong with it.
fn replica(mesh: &DevMesh, range: u64) -> Option<(u64, bool, String)> {
    let ran = mesh.rhumb(&["range", "ls"]);
    let all = ran.json["replicas"].as_array().cloned().unwrap_or_default();
    let node = format!("{WRONG}/n1");
    let of_it = all.iter().find(|one| one["range"] == range && one["node"] == node.as_str())?;
    let condition = of_it["condition"].as_str().expect("a word").to_owned();
    Some((of_it["replica"].as_u64().expect("a number"), of_it["votes"] == true, condition))
}

/// What the node has told of an action, with this range.
fn told(mesh: &DevMesh, node: &str, action: &str, range: u64) -> Vec<Value> {
    let found = mesh.rhumb(&["audit", "query", "--node", node, "--action", action, "--records"]).json;
    let all = found["found"].as_array().cloned().unwrap_or_default();
    let of_it = format!("range {range}");
    all.into_iter().map(|one| one["record"].clone()).filter(|one| one["resource"] == of_it.as_str()).collect()
}

/// Waits until the replica that was `old` is another one, votes, and shows what is right; then looks what was told.
fn is_rebuilt(mesh: &DevMesh, range: u64, old: u64) {
    eventually("another replica stands there, votes, and is well", || {
        replica(mesh, range)
            .is_some_and(|(now, votes, condition)| now != old && votes && condition.is_empty())
    });
    for region in THREE.split(',') {
        eventually("it is read at home as it was written", || {
            at_home(mesh, region, "ann").as_deref() == Some("right")
                && at_home(mesh, region, "bob").as_deref() == Some("also right")
        });
    }
    let node = format!("{WRONG}/n1");
    for action in ["range.quarantined", "range.rebuilt"] {
        eventually("it is told", || !told(mesh, &node, action, range).is_empty());
    }
    let rebuilt = &told(mesh, &node, "range.rebuilt", range)[0];
    assert_eq!(rebuilt["details"]["instead_of"], old.to_string().as_str(), "{rebuilt}");
    for became in ["quarantined", "rebuilt"] {
        let series = format!("rhumb_range_quarantines_total{{became=\"{became}\"}}");
        assert!(metric(mesh, &node, &series) >= 1.0, "{became}");
    }
    for series in ["rhumb_range_replicas_quarantined", "rhumb_ranges_suspect", "rhumb_ranges_old_copy"] {
        eventually("no alarm goes on", || metric(mesh, &node, series) == 0.0);
    }
    let same = mesh.rhumb(&["range", "check", &range.to_string()]);
    assert_eq!((same.code, &same.json["same"]), (0, &Value::Bool(true)), "{}", same.text);
}

fn begin() -> (DevMesh, u64, u64) {
    let mesh = DevMesh::start(THREE, "off");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    let (range, keyspace) =
        (made["ranges"][0].as_u64().expect("a range"), made["id"].as_u64().expect("an id"));
    mesh.ok(&["kv", "put", "profiles", "ann", "right"]);
    mesh.ok(&["kv", "put", "profiles", "bob", "also right"]);
    for region in THREE.split(',') {
        eventually("all replicas have it", || at_home(&mesh, region, "bob").is_some());
    }
    (mesh, range, keyspace)
}

#[test]
fn a_row_that_is_wrong_behind_its_checksum_is_found_and_its_replica_rebuilt() {
    let (mut mesh, range, keyspace) = begin();
    let well = mesh.ok(&["range", "check", &range.to_string()]);
    assert_eq!(
        (&well["same"], well["replicas"].as_array().map(Vec::len)),
        (&Value::Bool(true), Some(3)),
        "{well}"
    );
    let none = mesh.rhumb(&["range", "check", "999"]);
    assert_eq!((none.code, none.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", none.text);
    let (old, ..) = replica(&mesh, range).expect("it has a replica");
    mesh.restart_after(THREE, "off", |data| {
        let store = store(data);
        let row = rows(&store, keyspace, "ann").pop().expect("its row");
        let value = Record::put("wrong").encode(&row);
        put(&store, row, value);
    });
    // No checksum says so.
    eventually("the wrong replica serves it", || at_home(&mesh, WRONG, "ann").as_deref() == Some("wrong"));
    let mut odd = Value::Null;
    eventually("a comparison finds it", || {
        let checked = mesh.rhumb(&["range", "check", &range.to_string()]);
        let replicas = checked.json["replicas"].as_array().cloned().unwrap_or_default();
        odd = replicas.into_iter().find(|one| one["odd"] == true).unwrap_or_default();
        (checked.code, !odd.is_null()) == (5, true)
            || replica(&mesh, range).is_some_and(|(now, ..)| now != old)
    });
    assert!(odd.is_null() || odd["replica"] == old, "{odd}");
    is_rebuilt(&mesh, range, old);
    // Whoever held the lease has said so; what is in the audit log of another region this operator does not read.
    let said = format!("replicas of a range differ range={range} ");
    let odd = format!("odd=\"{old}\"");
    let logs = THREE.split(',').map(|region| mesh.data().join(format!("nodes/{region}-n1/log")));
    let logs: Vec<_> = logs.map(|log| std::fs::read_to_string(log).unwrap_or_default()).collect();
    let says = |log: &String| log.lines().any(|line| line.contains(&said) && line.contains(&odd));
    assert!(logs.iter().any(says), "{logs:?}");
    let aside = format!("nodes/{WRONG}-n1/data/quarantine/range-{range}-replica-{old}.rows");
    let kept = std::fs::read(mesh.data().join(aside)).expect("what it held is set aside");
    assert!(kept.windows(5).any(|part| part == b"wrong"), "the wrong value is among it");
}

#[test]
fn a_row_whose_checksum_does_not_match_is_met_by_a_read_and_its_replica_rebuilt() {
    let (mut mesh, range, keyspace) = begin();
    let (old, ..) = replica(&mesh, range).expect("it has a replica");
    mesh.restart_after(THREE, "off", |data| {
        let store = store(data);
        let row = rows(&store, keyspace, "ann").pop().expect("its row");
        let mut value = Record::put("wrong").encode(&row);
        value[3] ^= 1;
        put(&store, row, value);
    });
    eventually("a read meets it, and is answered by another replica or later", || {
        let get = ["kv", "get", "profiles", "ann", "--region", WRONG, "--consistency", "bounded=10s"];
        let read = mesh.rhumb(&get).json["rows"][0]["value"].as_str().map(str::to_owned);
        assert!(read.as_deref().is_none_or(|value| value == "right"), "{read:?}");
        replica(&mesh, range).is_none_or(|(now, _, condition)| now != old || !condition.is_empty())
    });
    is_rebuilt(&mesh, range, old);
    assert!(!told(&mesh, &format!("{WRONG}/n1"), "range.damaged", range).is_empty(), "it is told");
    let damage = metric(&mesh, &format!("{WRONG}/n1"), "rhumb_range_damage_total{place=\"disk\"}");
    assert!(damage >= 1.0, "{damage}");
}
