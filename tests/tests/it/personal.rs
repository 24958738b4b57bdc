//! Personal data in keyspaces of the real program: what is on disks, who reads it, and what an erasure leaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::MeshAddr;
use rhumb_core::{DataClass, Region};
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Family, RocksEngine, Store};
use rhumb_tests::clerk::{Clerks, Errand};
use rhumb_tests::cluster::{DevMesh, eventually, eventually_or, run};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const THREE: &str = "us-east,eu-central,ap-southeast";
/// Where the operator is of whom commands are.
const HOME: &str = "ap-southeast/n1";
const CLASSES: &str = r#"
[classes.personal]
hold = ["all"]
read = ["all"]
carry = ["all"]
audit_reads = true

[classes.personal-eu]
hold = ["eu-central"]
read = ["all"]
carry = ["all"]
"#;
const SECRET: &str = "Seventeen-Rhumb-Street-is-where-she-lives";
const OTHER: &str = "Forty-Meridian-Road-is-where-he-lives";

/// A mesh whose policy has personal classes.
fn start() -> DevMesh {
    ruled(DevMesh::start(THREE, "off"))
}

fn ruled(mut mesh: DevMesh) -> DevMesh {
    mesh.restart_after(THREE, "off", |data| {
        let policy = data.join("config/policy.toml");
        let text = std::fs::read_to_string(&policy).expect("a policy");
        // What `dev` says of the class is said here.
        let (text, _) = text.split_once("[classes.personal]").expect("dev has one");
        let text = text.replace("version = 1\n", "version = 2\n") + CLASSES;
        std::fs::write(&policy, text).expect("written");
        let signed = run(data, &["policy", "sign", "--key", "config/operator.key", "config/policy.toml"]);
        assert_eq!(signed.code, 0, "{}", signed.text);
    });
    mesh
}

/// All files below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The files of nodes in which this text stands.
fn with_text(data: &Path, text: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(&data.join("nodes"), &mut all);
    let has = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    };
    all.into_iter().filter(has).collect()
}

fn get(mesh: &DevMesh, region: &str, key: &str, more: &[&str]) -> (i32, Value) {
    let ran = mesh.rhumb(&[&["kv", "get", "people", key, "--region", region], more].concat());
    (ran.code, ran.json)
}

#[test]
fn personal_values_are_in_no_file_and_an_erased_subject_is_read_by_nobody_on_any_replica() {
    let mut mesh = start();
    mesh.ok(&["keyspace", "create", "people", "--class", "personal", "--retention", "14s"]);
    mesh.ok(&["keyspace", "create", "things", "--class", "inventory"]);
    let refused = mesh.rhumb(&["kv", "put", "people", "ann", SECRET]);
    assert_eq!((refused.code, refused.json["refused"]["code"].as_str()), (1, Some("invalid")));
    assert!(refused.text.contains("--subject"), "{}", refused.text);
    let first = mesh.ok(&["kv", "put", "people", "ann", SECRET, "--subject", "subject-ann"]);
    mesh.ok(&["kv", "batch", "people", "--put", &format!("bob={OTHER}"), "--subject", "subject-bob"]);
    mesh.ok(&["kv", "put", "things", "chair", "Plain-as-a-chair-that-anybody-sees"]);
    for region in THREE.split(',') {
        let (code, answer) = get(&mesh, region, "ann", &[]);
        let row = &answer["rows"][0];
        assert_eq!((code, row["value"].as_str()), (0, Some(SECRET)), "{region}: {answer}");
        assert_eq!((&row["subject"], &row["version"]), (&json!("subject-ann"), &first["version"]));
        // The replica of each region opens it.
        eventually("it is read at home", || {
            let (code, answer) = get(&mesh, region, "ann", &["--consistency", "bounded=10s"]);
            code == 0 && answer["region"] == region && answer["rows"][0]["value"] == SECRET
        });
    }

    // Each read is in the log of the node that answered, with neither the key, the value nor the subject.
    let query = ["audit", "query", "--node", HOME, "--action", "data.read", "--records"];
    let told = mesh.ok(&query)["found"].clone();
    let reads: Vec<&Value> = told.as_array().expect("entries").iter().map(|entry| &entry["record"]).collect();
    let of_ann = reads.iter().find(|record| record["details"]["level"] == "strict serializable");
    let of_ann = of_ann.unwrap_or_else(|| panic!("no strong read: {told}"));
    assert_eq!((&of_ann["resource"], &of_ann["details"]["rows"]), (&json!("keyspace people"), &json!("1")));
    assert_eq!(of_ann["details"]["keys"].as_str().map(str::len), Some(16), "{of_ann}");
    assert_eq!(of_ann["details"]["subject_keys"].as_str().map(str::len), Some(32), "{of_ann}");
    assert!(!told.to_string().contains("subject-ann") && !told.to_string().contains(SECRET), "{told}");

    // No file of a node holds a value or who it is about; what is not personal is found so.
    mesh.restart_after(THREE, "off", |data| {
        assert!(
            !with_text(data, "Plain-as-a-chair-that-anybody-sees").is_empty(),
            "the search finds what is there"
        );
        for text in [SECRET, OTHER, "subject-ann", "subject-bob"] {
            let found = with_text(data, text);
            assert!(found.is_empty(), "{text} stands in {found:?}");
        }
    });
    eventually("it is read after the restart", || {
        get(&mesh, "us-east", "ann", &[]).1["rows"][0]["value"] == SECRET
    });

    let mut keys = 0;
    eventually("it is erased on every node", || {
        let erased = mesh.rhumb(&["subject", "erase", "subject-ann", "--class", "personal"]).json;
        keys = keys.max(erased["keys"].as_array().map_or(0, Vec::len));
        erased["erased"] == true && erased["pending"] == json!([])
    });
    assert_eq!(keys, 1);
    let check = |mesh: &DevMesh| {
        for region in THREE.split(',') {
            for needs in [&["--consistency", "strong"][..], &["--consistency", "eventual"]] {
                let mut ended = (0, Value::Null);
                eventually("it is refused as erased", || {
                    ended = get(mesh, region, "ann", needs);
                    assert_ne!(ended.0, 0, "{region}: {}", ended.1);
                    ended.1["refused"]["code"] == "erased"
                });
            }
            let (code, answer) = get(mesh, region, "bob", &[]);
            assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some(OTHER)), "{region}: {answer}");
        }
        let scan = mesh.ok(&["kv", "scan", "people"]);
        assert_eq!((scan["rows"].as_array().map(Vec::len), &scan["erased"]), (Some(1), &json!(1)), "{scan}");
    };
    check(&mesh);
    mesh.restart(THREE, "off");
    check(&mesh);
    let mut again = Value::Null;
    eventually("it is erased still", || {
        again = mesh.rhumb(&["subject", "erase", "subject-ann"]).json;
        again["erased"] == true
    });
    assert_eq!((&again["erased"], &again["keys"]), (&json!(true), &json!([])), "{again}");
    let node = again["node"].as_str().expect("a node").to_owned();
    let told = mesh.ok(&["audit", "query", "--node", &node, "--action", "subject.erase", "--records"]);
    assert!(told["found"].as_array().is_some_and(|found| found.len() >= 2), "{told}");
    assert!(!told.to_string().contains("subject-ann"), "{told}");

    // The key is free for what comes next, about the same subject too.
    mesh.ok(&["kv", "put", "people", "ann", "anew", "--subject", "subject-ann"]);
    assert_eq!(get(&mesh, "eu-central", "ann", &[]).1["rows"][0]["value"], "anew");
}

#[test]
fn an_actor_reaches_keyspaces_in_its_own_name_under_the_class_and_within_the_time_of_its_call() {
    let mesh = ruled(DevMesh::start_with(PathBuf::from(env!("CARGO_BIN_EXE_counter_node")), THREE, "off"));
    mesh.ok(&["keyspace", "create", "people", "--class", "personal"]);
    mesh.ok(&["keyspace", "create", "things", "--class", "inventory"]);
    eventually("there is a pool with a keyspace of its own", || {
        mesh.rhumb(&["pool", "create", "concert", "--supply", "10", "--durability", "quorum"]).code == 0
    });
    let runtime = Runtime::new().expect("a runtime");
    let directory = Directory::read(&mesh.data()).expect("its nodes");
    let client = runtime.block_on(async { MeshClient::new(&mesh.data().join("client"), directory) });
    let client = Arc::new(client.expect("a client's certificate"));
    let here: Region = HOME.split_once('/').expect("a region").0.parse().expect("a region");
    let clerk: MeshAddr<Clerks> = client.mesh().actor_in(&here, "desk");
    let asked = |kind: &str, does: &[&str], within: Duration| {
        let class = DataClass::new(kind).expect("a class");
        let does = does.iter().map(|&what| what.to_owned()).collect();
        runtime.block_on(async { clerk.ask(Errand { class, does }).within(within).await })
    };
    let ask = |kind: &str, does: &[&str]| {
        asked(kind, does, Duration::from_secs(30)).unwrap_or_else(|fault| panic!("{does:?}: {fault}"))
    };

    let put = format!("put people ann {SECRET}");
    let both = [put.as_str(), "get people ann"];
    eventually("it is put and read", || {
        asked("personal", &both, Duration::from_secs(30)).is_ok_and(|told| told == ["put", SECRET])
    });
    assert_eq!(get(&mesh, here.as_str(), "ann", &[]).0, 0);
    // It is the node that reads, by the actor; what a program reads is the program's own.
    let query = ["audit", "query", "--node", HOME, "--action", "data.read", "--records"];
    let told = mesh.ok(&query)["found"].clone();
    let reads: Vec<&Value> = told.as_array().expect("entries").iter().map(|entry| &entry["record"]).collect();
    let (by_actor, others): (Vec<_>, Vec<_>) =
        reads.into_iter().partition(|read| read["details"]["by"].is_string());
    let name = clerk.id().shown().to_string();
    assert!(!by_actor.is_empty() && !others.is_empty(), "{told}");
    for read in by_actor {
        assert_eq!((&read["details"]["by"], &read["resource"]), (&json!(name), &json!("keyspace people")));
        assert!(read["actor"].as_str().is_some_and(|actor| actor.contains(HOME)), "{read}");
    }

    let lowered = "personal is no inventory";
    assert_eq!(ask("personal", &["get things chair", "put things chair 1"]), [lowered; 2]);
    assert_eq!(ask("inventory", &["get people ann", "put things chair 1"]), [SECRET, lowered]);
    assert_eq!(mesh.rhumb(&["kv", "get", "things", "chair"]).code, 5, "nothing was written");
    assert_eq!(ask("inventory", &["put things chair 1", "get things chair"]), ["put", "1"]);
    assert_eq!(ask("control", &["get pool/concert a", "put pool/concert a 1"]), ["no_such_keyspace"; 2]);

    // It is told that nobody answers before its own call is over, however long that is.
    let others = THREE.split(',').map(|region| format!("{region}/n1")).filter(|node| node != HOME);
    others.for_each(|node| mesh.signal(&node, "STOP"));
    eventually_or("it hears of it in time", || {
        match asked("control", &["get things chair"], Duration::from_secs(6)) {
            Ok(told) if told == ["not_now"] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    THREE.split(',').for_each(|region| mesh.signal(&format!("{region}/n1"), "CONT"));
}

#[test]
fn an_erasure_is_not_told_before_a_node_that_was_gone_has_destroyed_the_key() {
    let mesh = start();
    mesh.ok(&["keyspace", "create", "people", "--class", "personal"]);
    mesh.ok(&["kv", "put", "people", "ann", SECRET, "--subject", "ann"]);
    mesh.signal("us-east/n1", "STOP");
    let mut ended = None;
    eventually("the others erase it", || {
        let ran = mesh.rhumb(&["subject", "erase", "ann"]);
        let done = ran.code == 5;
        if !done {
            eprintln!("code {}: {}", ran.code, ran.text);
        }
        ended = Some(ran);
        done
    });
    let ended = ended.expect("it ended");
    assert_eq!((&ended.json["erased"], &ended.json["pending"]), (&json!(false), &json!(["us-east/n1"])));
    mesh.signal("us-east/n1", "CONT");
    eventually("it is erased everywhere", || mesh.rhumb(&["subject", "erase", "ann"]).code == 0);
    for region in THREE.split(',') {
        let mut last = Value::Null;
        eventually("nobody reads it", || {
            last = get(&mesh, region, "ann", &["--consistency", "eventual"]).1;
            last["refused"]["code"] == "erased"
        });
    }
}

#[test]
fn keys_of_a_class_stay_where_it_may_be_held() {
    let mut mesh = start();
    mesh.ok(&["keyspace", "create", "people", "--class", "personal-eu"]);
    mesh.ok(&["kv", "put", "people", "ann", SECRET, "--subject", "ann"]);
    // It is read elsewhere, where the policy lets it be read, and opened where it is held.
    for region in THREE.split(',') {
        let (code, answer) = get(&mesh, region, "ann", &[]);
        assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some(SECRET)), "{region}: {answer}");
        assert_eq!(answer["region"], "eu-central", "{answer}");
    }
    let (_, answer) = get(&mesh, "us-east", "ann", &[]);
    let id = answer["rows"][0]["sealed_under"].as_str().expect("the id of its key").to_owned();
    mesh.restart_after(THREE, "off", |data| {
        let has = |region: &str| {
            let hot = data.join(format!("nodes/{region}-n1/data/hot"));
            let engine = RocksEngine::open(&hot, &RocksSettings::default(), false).expect("its store");
            let (store, mut found) = (Store::open(engine).expect("a sound store"), false);
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let walked = store.walk(Family::Audit, b"k", |row, _| {
                found |= row.strip_prefix(b"k").is_some_and(|row| hex(row) == id);
                row.starts_with(b"k")
            });
            walked.expect("it can be read");
            found
        };
        assert_eq!(THREE.split(',').map(has).collect::<Vec<_>>(), [false, true, false]);
    });
    let erased = ["subject", "erase", "ann", "--class", "personal-eu"];
    eventually("the mesh is up", || mesh.rhumb(&["keyspace", "show", "people"]).code == 0);
    let mut keys = 0;
    eventually("it is erased on every node", || {
        let ran = mesh.rhumb(&erased);
        keys = keys.max(ran.json["keys"].as_array().map_or(0, Vec::len));
        ran.code == 0 && ran.json["erased"] == true
    });
    assert_eq!(keys, 1);
}

#[test]
fn a_snapshot_is_held_past_the_retention_and_its_export_is_whole_and_sealed() {
    let mesh = start();
    mesh.ok(&["keyspace", "create", "people", "--class", "personal", "--retention", "14s"]);
    mesh.ok(&["kv", "put", "people", "ann", SECRET, "--subject", "ann"]);
    mesh.ok(&["kv", "put", "people", "bob", OTHER, "--subject", "bob"]);
    let taken = mesh.rhumb(&["snapshot", "create", "people", "monday", "--keep", "1h"]);
    // Of a slow machine a node may not have said in time that it goes by it.
    assert!(taken.code == 0 || taken.code == 5, "{}", taken.text);
    let taken = taken.json;
    let at = taken["at"].to_string();
    mesh.ok(&["kv", "put", "people", "ann", "later", "--subject", "ann"]);
    mesh.ok(&["kv", "del", "people", "bob"]);
    let then = |mesh: &DevMesh| get(mesh, "us-east", "ann", &["--as-of", &at]);
    assert_eq!(then(&mesh).1["rows"][0]["value"], SECRET);
    // A keyspace beside it that nothing is held of shows that the time has come.
    mesh.ok(&["keyspace", "create", "things", "--class", "inventory", "--retention", "14s"]);
    let first = mesh.ok(&["kv", "put", "things", "chair", "1"])["version"].to_string();
    mesh.ok(&["kv", "put", "things", "chair", "2"]);
    eventually("what is not held is too old", || {
        let ran = mesh.rhumb(&["kv", "get", "things", "chair", "--as-of", &first]);
        ran.json["refused"]["code"] == "time"
    });
    assert_eq!(then(&mesh).1["rows"][0]["value"], SECRET, "it is held");
    assert_eq!(mesh.ok(&["snapshot", "ls"])["snapshots"][0]["snapshot"], "monday");

    let exported = mesh.ok(&["snapshot", "export", "people", "monday", "--out", "people.snapshot"]);
    assert_eq!((&exported["rows"], &exported["sealed"]), (&json!(2), &json!(2)), "{exported}");
    let file = mesh.directory().join("people.snapshot");
    let bytes = std::fs::read(&file).expect("a file");
    let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("monday") && !has(SECRET) && !has(OTHER), "values stay sealed");
    let verified = run(mesh.directory(), &["snapshot", "verify", "people.snapshot", "-o", "json"]);
    assert_eq!((verified.code, &verified.json["sha256"]), (0, &exported["sha256"]), "{}", verified.text);
    let mut changed = bytes.clone();
    changed[40] ^= 1;
    std::fs::write(&file, changed).expect("written");
    assert_eq!(run(mesh.directory(), &["snapshot", "verify", "people.snapshot"]).code, 5);
    let told = mesh.ok(&["audit", "query", "--node", HOME, "--action", "snapshot.export", "--records"]);
    assert!(told["found"].as_array().is_some_and(|found| found.len() == 2), "{told}");

    // What is deleted goes into no file, and the log does not say that it did.
    let step = |word: &str| eventually(word, || mesh.rhumb(&["keyspace", word, "people"]).code == 0);
    step("delete");
    let deleted = mesh.rhumb(&["snapshot", "export", "people", "monday", "--out", "again.snapshot"]);
    assert_eq!((deleted.code, &deleted.json["refused"]["code"]), (1, &json!("deleted")), "{}", deleted.text);
    let told = mesh.ok(&["audit", "query", "--node", HOME, "--action", "snapshot.export", "--records"]);
    let last = told["found"].as_array().and_then(|found| found.last());
    assert_eq!(last.map(|entry| &entry["record"]["outcome"]), Some(&json!("refused")), "{told}");
    step("restore");

    mesh.ok(&["snapshot", "rm", "people", "monday"]);
    eventually("it is held no longer", || then(&mesh).1["refused"]["code"] == "time");
}
