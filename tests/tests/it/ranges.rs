//! Keyspaces of the real program: three regions as processes, real QUIC, real RocksDB.

#![expect(clippy::disallowed_methods, reason = "what clients of real processes see is told in real time")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{Kv, KvError};
use rhumb_actors::ranges::messages::Needs;
use rhumb_core::{Delivery, Region};
use rhumb_histories::linear::check;
use rhumb_histories::{Did, Operation, Outcome};
use rhumb_storage::mvcc::VersionKey;
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Family, RocksEngine, Store};
use rhumb_tests::cluster::{DevMesh, Ran, eventually};
use serde_json::{Value, json};

const THREE: &str = "us-east,eu-central,ap-southeast";
/// Where the operator is of whom commands are.
const HOME: &str = "ap-southeast/n1";

/// The value of a key, as a strong read has it; none where it is not there.
fn get(mesh: &DevMesh, region: &str, key: &str, more: &[&str]) -> (i32, Value) {
    let mut arguments = vec!["kv", "get", "profiles", key, "--region", region];
    arguments.extend(more);
    let ran = mesh.rhumb(&arguments);
    (ran.code, ran.json)
}

#[test]
fn a_value_is_read_from_any_region_as_what_it_is() {
    let mesh = DevMesh::start(THREE, "off");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    assert_eq!(made["replicas"].as_array().map(Vec::len), Some(3), "{made}");
    assert_eq!(mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]), made, "again");
    let other = mesh.rhumb(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "2"]);
    assert_eq!((other.code, other.json["refused"]["code"].as_str()), (1, Some("exists")), "{}", other.text);
    let none = mesh.rhumb(&["keyspace", "create", "people", "--class", "unheard-of"]);
    assert_eq!((none.code, none.json["refused"]["code"].as_str()), (1, Some("not_allowed")), "{}", none.text);

    let about = mesh.rhumb(&["kv", "put", "profiles", "ann", "one", "--subject", "ann"]);
    assert_eq!((about.code, about.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", about.text);
    let put = mesh.ok(&["kv", "put", "profiles", "ann", "one", "--if-absent"]);
    let again = mesh.rhumb(&["kv", "put", "profiles", "ann", "two", "--if-absent"]);
    assert_eq!((again.code, again.json["refused"]["code"].as_str()), (1, Some("condition_failed")));
    let said = |ran: &Ran| ran.json["refused"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(said(&again).starts_with("the key was last written at "), "{}", again.text);
    let batch = mesh.rhumb(&["kv", "batch", "profiles", "--put", "bob=1", "--put", "ann=2", "--if-absent"]);
    assert!(said(&batch).starts_with("write 2 of 2: the key was last written at "), "{}", batch.text);
    for region in THREE.split(',') {
        let (code, answer) = get(&mesh, region, "ann", &[]);
        assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some("one")), "{region}: {answer}");
        assert_eq!(answer["level"], "strict_serializable", "{answer}");
        assert_eq!(answer["rows"][0]["version"], put["version"], "{answer}");
    }
    let version = put["version"].to_string();
    mesh.ok(&["kv", "put", "profiles", "ann", "two", "--if-version", &version]);
    let (_, old) = get(&mesh, "us-east", "ann", &["--as-of", &version]);
    assert_eq!((old["rows"][0]["value"].as_str(), old["level"].as_str()), (Some("one"), Some("snapshot")));

    mesh.ok(&["kv", "batch", "profiles", "--put", "bob=1", "--put", "carl=2", "--del", "ann"]);
    let scan = mesh.ok(&["kv", "scan", "profiles", "--limit", "10"]);
    let keys: Vec<_> = scan["rows"].as_array().expect("rows").iter().map(|row| row["key"].as_str()).collect();
    assert_eq!(keys, [Some("bob"), Some("carl")], "{scan}");
    assert_eq!(get(&mesh, "eu-central", "ann", &[]).0, 5, "it was deleted");

    // What one call has seen the next one sees, wherever it goes.
    let written = mesh.ok(&["kv", "put", "profiles", "bob", "new"]);
    let token = written["token"].as_str().expect("a token");
    for region in THREE.split(',') {
        let (_, answer) = get(&mesh, region, "bob", &["--consistency", "eventual", "--token", token]);
        assert_eq!(answer["rows"][0]["value"].as_str(), Some("new"), "{region}: {answer}");
    }
    let (code, bad) = get(&mesh, "us-east", "bob", &["--token", "AAAA"]);
    assert_eq!((code, bad["refused"]["code"].as_str()), (1, Some("token")), "{bad}");
    // Where nobody writes, what is closed reaches every replica: each region then reads at home.
    for region in THREE.split(',') {
        eventually("it is read at home", || {
            let (code, answer) = get(&mesh, region, "carl", &["--consistency", "bounded=5s"]);
            let home = answer["region"] == region && answer["fallback"] == false;
            code == 0 && home && answer["age_ms"].as_u64().is_some_and(|age| age <= 5_000)
        });
    }
}

/// The way from Sydney to Frankfurt and back takes nearly as long as a heartbeat of consensus, and a quiet link carries little
/// at first: what is some round trips long has to come there all the same, and so has all that is written behind it.
#[test]
fn batches_of_some_hundred_kilobytes_cross_the_oceans() {
    let mesh = DevMesh::start(THREE, "published");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let range = made["ranges"][0].to_string();
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    eventually("the lease is in Sydney", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", "ap-southeast/n1"]).code == 0
    });
    let value = "x".repeat(1_000);
    for batch in 0..3 {
        let puts: Vec<String> = (0..100).map(|key| format!("{batch}-{key}={value}")).collect();
        let mut batch = vec!["kv", "batch", "profiles"];
        batch.extend(puts.iter().flat_map(|put| ["--put", put.as_str()]));
        mesh.ok(&batch);
    }
    mesh.ok(&["kv", "put", "profiles", "ann", "two"]);
    for batch in 0..3 {
        let (code, answer) = get(&mesh, "eu-central", &format!("{batch}-99"), &[]);
        assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some(value.as_str())), "{answer}");
    }
}

#[test]
fn the_leaseholder_is_killed_and_reads_and_writes_go_on() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "before"]);
    let holder = || {
        let ran = mesh.rhumb(&["range", "ls"]);
        let replicas = ran.json["replicas"].as_array().cloned().unwrap_or_default();
        let holds = |replica: &&Value| replica["keyspace"] == "profiles" && replica["leaseholder"] == true;
        replicas.iter().find(holds).and_then(|replica| replica["node"].as_str().map(str::to_owned))
    };
    let first = holder().expect("somebody holds the lease");
    mesh.kill_9(&first);
    let (dead, _) = first.split_once('/').expect("a region");
    let region = THREE.split(',').find(|region| *region != dead).expect("two are left");
    let mut written = 0;
    eventually("another one holds the lease, and writes", || {
        let ran = mesh.rhumb(&["kv", "put", "profiles", "ann", "after", "--region", region]);
        written += i32::from(ran.code == 0);
        ran.code == 0
    });
    let (code, answer) = get(&mesh, region, "ann", &[]);
    assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some("after")), "{answer}");
    eventually("the killed one is back, and follows", || {
        let (code, answer) = get(&mesh, dead, "ann", &["--consistency", "bounded=10s"]);
        code == 0 && answer["rows"][0]["value"] == "after" && answer["region"] == dead
    });
}

/// The nodes that have a replica of a range, and which of them holds the lease.
pub(crate) fn places(mesh: &DevMesh, range: u64) -> (Vec<String>, Option<String>) {
    let ran = mesh.rhumb(&["range", "ls"]);
    let replicas = ran.json["replicas"].as_array().cloned().unwrap_or_default();
    let of_it: Vec<&Value> = replicas.iter().filter(|replica| replica["range"] == range).collect();
    let node = |replica: &&Value| replica["node"].as_str().expect("a node").to_owned();
    let holder = of_it.iter().find(|replica| replica["leaseholder"] == true).map(node);
    (of_it.iter().map(node).collect(), holder)
}

#[test]
fn a_scan_of_several_ranges_is_of_one_moment_and_says_so() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let put = |key: &str, value: &str| {
        eventually("it is written", || mesh.rhumb(&["kv", "put", "profiles", key, value]).code == 0);
    };
    ["ann", "max", "zoe"].iter().for_each(|key| put(key, "0"));
    let whole = mesh.ok(&["kv", "scan", "profiles"]);
    assert_eq!(whole["level"], "strict_serializable", "of one range: {whole}");
    for at in ["m", "z"] {
        mesh.ok(&["range", "split", "profiles", "--at", at]);
        ["ann", "max", "zoe"].iter().for_each(|key| put(key, "0"));
    }
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| {
            for number in 1..1_000 {
                if is_over.load(Ordering::Relaxed) {
                    return number;
                }
                ["ann", "max", "zoe"].iter().for_each(|key| put(key, &number.to_string()));
            }
            1_000
        });
        for round in 0..12 {
            let scan = mesh.ok(&["kv", "scan", "profiles", "--region", ["us-east", "eu-central"][round % 2]]);
            assert_eq!(scan["level"], "snapshot", "{scan}");
            let rows = scan["rows"].as_array().expect("rows");
            let value = |row: &Value| row["value"].as_str().and_then(|value| value.parse::<u32>().ok());
            let values: Vec<_> = rows.iter().map(|row| value(row).expect("a number")).collect();
            // They are written in this order, one after the other.
            let was =
                |values: &[u32]| values.is_sorted_by(|one, next| one >= next) && values[0] <= values[2] + 1;
            assert!(values.len() == 3 && was(&values), "never a state: {scan}");
            let at = scan["at"].as_u64().expect("a time");
            assert!(rows.iter().all(|row| row["version"].as_u64() <= Some(at)), "later than it says: {scan}");
            let apart = mesh.ok(&["kv", "scan", "profiles", "--consistency", "eventual"]);
            assert_eq!(apart["level"], "eventual", "{apart}");
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(writes.join().expect("it writes") > 5, "next to nothing was written meanwhile");
    });
    let nowhere = mesh.rhumb(&["kv", "get", "profiles", "ann", "--region", "mars"]);
    assert_eq!(
        (nowhere.code, nowhere.json["refused"]["code"].as_str()),
        (1, Some("invalid")),
        "{}",
        nowhere.text
    );
    assert!(
        nowhere.text.contains("there are nodes in ap-southeast, eu-central, us-east"),
        "{}",
        nowhere.text
    );
}

#[test]
fn a_range_is_split_and_its_replicas_and_leases_move_while_it_is_written() {
    let mesh = DevMesh::start("us-east,us-west,eu-central,ap-southeast", "off");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    let left = made["ranges"][0].as_u64().expect("a range");
    for key in ["ann", "bob", "max", "zoe"] {
        mesh.ok(&["kv", "put", "profiles", key, "first"]);
    }
    let split = mesh.ok(&["range", "split", "profiles", "--at", "m"]);
    assert_eq!(split["left"], left, "{split}");
    let right = split["right"].as_u64().expect("a range");
    let again = mesh.rhumb(&["range", "split", "profiles", "--at", "m"]);
    assert_eq!((again.code, again.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", again.text);
    for key in ["ann", "max"] {
        eventually("both ranges are written", || {
            mesh.rhumb(&["kv", "put", "profiles", key, "second"]).code == 0
        });
    }
    let both = mesh.rhumb(&["kv", "batch", "profiles", "--put", "ann=3", "--put", "max=3"]);
    assert_eq!((both.code, both.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", both.text);
    // A scan goes on from one range to the next, and says where there is more.
    let scan = |limit: &str| {
        let page = mesh.ok(&["kv", "scan", "profiles", "--limit", limit]);
        let rows = page["rows"].as_array().expect("rows");
        let keys: Vec<_> = rows.iter().map(|row| row["key"].as_str().expect("a key").to_owned()).collect();
        (keys.join(" "), page["next"].as_str().map(str::to_owned))
    };
    assert_eq!(scan("100"), ("ann bob max zoe".to_owned(), None));
    let (three, next) = scan("3");
    assert_eq!((&*three, next.is_some_and(|next| *next > *"max" && *next <= *"zoe")), ("ann bob max", true));
    eventually("the keyspace is shown with both", || {
        mesh.ok(&["keyspace", "show", "profiles"])["ranges"] == json!([left, right])
    });

    // A replica goes to the node that has none.
    let all = ["us-east/n1", "us-west/n1", "eu-central/n1", "ap-southeast/n1"];
    let (stands, _) = places(&mesh, right);
    let free = all.iter().find(|node| !stands.iter().any(|here| here == *node)).expect("three of four");
    let (from, range) = (stands[0].clone(), right.to_string());
    let gone = mesh.rhumb(&["range", "move", &range, "--from", free, "--to", free]);
    assert_eq!((gone.code, gone.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", gone.text);
    eventually("it has moved", || {
        let ran = mesh.rhumb(&["range", "move", &range, "--from", &from, "--to", free]);
        ran.code == 0 && ran.json["done"] == true
    });
    eventually("the old one is cleared away, and the new one is there", || {
        let (now, holder) = places(&mesh, right);
        now.len() == 3 && !now.contains(&from) && now.iter().any(|node| node == free) && holder.is_some()
    });
    // The node that has the left-hand range only passes on what is of the right-hand one.
    let (region, _) = from.split_once('/').expect("a region");
    eventually("it is read and written from where it was", || {
        let wrote = mesh.rhumb(&["kv", "put", "profiles", "zoe", "third", "--region", region]);
        let (code, answer) = get(&mesh, region, "zoe", &[]);
        wrote.code == 0 && code == 0 && answer["rows"][0]["value"] == "third"
    });
    for key in ["ann", "max"] {
        assert_eq!(get(&mesh, region, key, &[]).1["rows"][0]["value"], "second");
    }

    // The lease goes where it is wanted, and the new replica takes its part alone with another one.
    eventually("the new one holds the lease", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", free]).code == 0
            && places(&mesh, right).1.as_deref() == Some(free)
    });
    let other = places(&mesh, right).0.into_iter().find(|node| node != free).expect("two more");
    mesh.kill_9(&other);
    let (region, _) = free.split_once('/').expect("a region");
    eventually("two of three write", || {
        mesh.rhumb(&["kv", "put", "profiles", "max", "last", "--region", region]).code == 0
    });
    assert_eq!(get(&mesh, region, "max", &[]).1["rows"][0]["value"], "last");
}

/// An operation on the one key, which ends now unless nobody knows whether it did.
fn done(process: u32, did: Did, outcome: Outcome, call_ns: u64, now: u64) -> Operation {
    // What may have been done may be done at any later time.
    let return_ns = (outcome != Outcome::Unknown).then_some(now);
    Operation { process, key: "one".to_owned(), batch: None, did, call_ns, return_ns, outcome }
}

/// Who writes and reads in a region, for a while.
async fn client(
    number: u32,
    mesh: Arc<MeshClient>,
    region: Region,
    (begun, values): (Instant, Arc<AtomicU64>),
    told: Arc<Mutex<Vec<Operation>>>,
) {
    let ns = |at: Instant| u64::try_from(at.duration_since(begun).as_nanos()).expect("a short test");
    let kv = Kv::open(&mesh, "profiles", Some(&region)).await.expect("the keyspace is there");
    while begun.elapsed() < Duration::from_secs(20) {
        let call = ns(Instant::now());
        let (did, outcome) = if values.load(Ordering::Relaxed) % 3 == u64::from(number) % 3 {
            let value = values.fetch_add(1, Ordering::Relaxed);
            let outcome = match kv.put(b"one", value.to_string().as_bytes()).await {
                Ok(_) => Outcome::Ok,
                Err(KvError::Fault(fault)) if fault.delivery() != Delivery::NotSent => Outcome::Unknown,
                Err(_) => Outcome::Fail,
            };
            (Did::Write(value), outcome)
        } else {
            let read = kv.get(b"one", Needs::Strong).await;
            values.fetch_add(1, Ordering::Relaxed);
            let value = |row: &rhumb_actors::ranges::messages::KvRow| {
                String::from_utf8_lossy(&row.value).parse().expect("a number")
            };
            match read {
                Ok(answer) => (Did::Read(answer.rows.first().map(value)), Outcome::Ok),
                Err(_) => (Did::Read(None), Outcome::Fail),
            }
        };
        told.lock().expect("nobody panics").push(done(number, did, outcome, call, ns(Instant::now())));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_clients_of_three_regions_see_is_linearizable_while_leaseholders_are_killed() {
    // The checker sees what is wrong; its other calibration stands beside it.
    let wrote = |value, at| done(1, Did::Write(value), Outcome::Ok, at, at + 10);
    let wrong = [wrote(1, 0), wrote(2, 20), done(2, Did::Read(Some(1)), Outcome::Ok, 40, 50)];
    let within = Duration::from_secs(60);
    assert!(check(&wrong[..2], within).is_ok() && check(&wrong, within).is_err());

    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    mesh.ok(&["kv", "put", "profiles", "other", "x"]);
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let through = Arc::new(MeshClient::new(&mesh.data().join("client"), directory).expect("a certificate"));
    let told = Arc::<Mutex<Vec<Operation>>>::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (begun, values) = (Instant::now(), Arc::new(AtomicU64::new(1)));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let region = THREE.split(',').nth(number as usize % 3).expect("three");
            let region = Region::new(region).expect("valid");
            let shared = (begun, Arc::clone(&values));
            runtime.spawn(client(number, Arc::clone(&through), region, shared, Arc::clone(&told)))
        })
        .collect();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(5));
        let listed = mesh.rhumb(&["range", "ls"]).json;
        let holds = |one: &&Value| one["keyspace"] == "profiles" && one["leaseholder"] == true;
        let replicas = listed["replicas"].as_array().cloned().unwrap_or_default();
        if let Some(node) = replicas.iter().find(holds).and_then(|one| one["node"].as_str()) {
            mesh.kill_9(node);
        }
    }
    runtime.block_on(async {
        for client in clients {
            client.await.expect("no client panics");
        }
    });
    let history = told.lock().expect("nobody panics").clone();
    let lines: String = history.iter().map(|one| format!("{one}\n")).collect();
    std::fs::write(mesh.directory().join("history.jsonl"), &lines).expect("a file");
    let ended = |one: &&Operation| one.outcome == Outcome::Ok;
    let writes = history.iter().filter(ended).filter(|one| matches!(one.did, Did::Write(_))).count();
    let reads = history.iter().filter(ended).filter(|one| matches!(one.did, Did::Read(Some(_)))).count();
    println!("{writes} writes, {reads} reads, {} in all", history.len());
    assert!(writes > 50 && reads > 50, "{writes} writes, {reads} reads");
    check(&history, within).unwrap_or_else(|anomaly| panic!("{anomaly}\n{lines}"));
}

/// Versions of a keyspace that are on a stopped node's disk.
fn versions(data: &Path, region: &str, keyspace: u64) -> Vec<VersionKey> {
    let hot = data.join(format!("nodes/{region}-n1/data/hot"));
    let engine = RocksEngine::open(&hot, &RocksSettings::default(), false).expect("its store");
    let (store, mut found) = (Store::open(engine).expect("a sound store"), Vec::new());
    let walked = store.walk(Family::Mvcc, b"", |row, _| {
        let version = VersionKey::decode(row).expect("a version");
        found.extend(Some(version).filter(|version| u64::from(version.keyspace.0) == keyspace));
        true
    });
    walked.expect("it can be read");
    found
}

#[test]
fn what_is_older_than_the_retention_is_refused_and_collected_by_every_replica() {
    let mut mesh = DevMesh::start(THREE, "off");
    let create = |retention| {
        mesh.rhumb(&["keyspace", "create", "profiles", "--class", "inventory", "--retention", retention])
    };
    let short = create("5s");
    assert_eq!((short.code, short.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", short.text);
    let made = create("14s").json;
    assert_eq!((made["retention_ms"].as_u64(), made["ttl_ms"].is_null()), (Some(14_000), true), "{made}");
    assert_eq!(create("1d").json["refused"]["code"].as_str(), Some("exists"));
    let put = |key: &str, value: &str| mesh.ok(&["kv", "put", "profiles", key, value])["version"].to_string();
    let first = put("ann", "0");
    for value in 1..20 {
        put("ann", &value.to_string());
    }
    mesh.ok(&["kv", "put", "profiles", "bob", "x", "--expires", "1s"]);
    put("carl", "x");
    mesh.ok(&["kv", "del", "profiles", "carl"]);
    let (code, old) = get(&mesh, "eu-central", "ann", &["--as-of", &first]);
    assert_eq!((code, old["rows"][0]["value"].as_str()), (0, Some("0")), "{old}");
    // Nobody writes any more: what nobody may read any more goes, and no more than that.
    let collected = || {
        let ran = mesh.rhumb(&["range", "ls"]);
        let replicas = ran.json["replicas"].as_array().cloned().unwrap_or_default();
        let ours = replicas.iter().filter(|replica| replica["keyspace"] == "profiles");
        ours.map(|replica| replica["collected"].as_u64().unwrap_or_default()).collect::<Vec<_>>()
    };
    eventually("each replica has collected", || collected() == [19 + 1 + 2; 3]);
    for region in THREE.split(',') {
        let (code, refused) = get(&mesh, region, "ann", &["--as-of", &first]);
        assert_eq!((code, refused["refused"]["code"].as_str()), (1, Some("time")), "{region}: {refused}");
        // What is said to be the earliest can be asked for, though time may go on meanwhile.
        let said = refused["refused"]["message"].as_str().expect("a message");
        let earliest = said.split(' ').find(|word| word.parse::<u64>().is_ok()).expect("a version");
        assert_ne!(get(&mesh, region, "ann", &["--as-of", earliest]).0, 2, "{said}");
    }
    let made = made["id"].as_u64().expect("a number");
    mesh.restart_after(THREE, "off", |data| {
        for region in THREE.split(',') {
            let left = versions(data, region, made);
            let keys: Vec<_> = left.iter().map(|version| version.key.as_bytes()).collect();
            assert_eq!(keys, [b"ann"], "{region}");
        }
    });
    for (key, value) in [("ann", Some("19")), ("bob", None), ("carl", None)] {
        let (code, answer) = get(&mesh, "us-east", key, &[]);
        assert_eq!(answer["rows"][0]["value"].as_str(), value, "{key}: {answer}");
        assert_eq!(code, if value.is_some() { 0 } else { 5 }, "{key}: {answer}");
    }
    // A keyspace says for all of its values how long they are there, unless they say it themselves.
    mesh.ok(&["keyspace", "create", "visits", "--class", "inventory", "--ttl", "1s"]);
    mesh.ok(&["kv", "put", "visits", "short", "x"]);
    mesh.ok(&["kv", "put", "visits", "long", "x", "--expires", "1h"]);
    eventually("it expires", || mesh.rhumb(&["kv", "get", "visits", "short"]).code == 5);
    assert_eq!(mesh.rhumb(&["kv", "get", "visits", "long"]).code, 0);
}

#[test]
fn a_range_that_grows_is_split_by_itself_and_everything_is_still_read() {
    let set = [("RHUMB__RANGES__SPLIT_AT", "64KiB"), ("RHUMB__RANGES__SPLIT_LOAD", "off")];
    let mesh = DevMesh::start_under(THREE, "off", &set);
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let first = made["ranges"][0].as_u64().expect("a range");
    // Where an operator of that region may read what is told.
    eventually("the lease is there", || {
        mesh.rhumb(&["range", "transfer-lease", &first.to_string(), "--to", HOME]).code == 0
    });
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let through = MeshClient::new(&mesh.data().join("client"), directory).expect("a certificate");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let open = |region: &str| {
        let region = Region::new(region).expect("valid");
        runtime.block_on(Kv::open(&through, "profiles", Some(&region))).expect("the keyspace is there")
    };
    let (key, value) = (|number: u32| format!("{number:04}"), |number: u32| format!("{number:01000}"));
    let kv = open("us-east");
    let put = |number: u32| {
        eventually("it is written", || {
            runtime.block_on(kv.put(key(number).as_bytes(), value(number).as_bytes())).is_ok()
        });
    };
    (0..300).for_each(put);
    let ranges = || {
        let shown = mesh.ok(&["keyspace", "show", "profiles"])["ranges"].clone();
        shown.as_array().expect("ranges").len()
    };
    eventually("it is split", || ranges() > 1);
    (300..350).for_each(put);
    let kv = open("eu-central");
    for number in 0..350 {
        let mut found = None;
        eventually("it is read", || {
            let read = runtime.block_on(kv.get(key(number).as_bytes(), Needs::Strong));
            found = read.ok().map(|answer| answer.rows.first().map(|row| row.value.clone()));
            found.is_some()
        });
        assert_eq!(found.flatten(), Some(value(number).into_bytes()), "{number}");
    }
    // The halves are halved in their turn, and each split is told of as the node's own.
    eventually("a half is split too", || ranges() > 2);
    let query = ["audit", "query", "--node", HOME, "--action", "range.split", "--records"];
    let told = mesh.ok(&query)["found"].clone();
    let name = first.to_string();
    let of_the_first = |entry: &Value| {
        let (record, details) = (&entry["record"], &entry["record"]["details"]);
        let done = record["outcome"] == "done" && record["actor"] == format!("node {HOME}");
        done && details["range"] == *name && details["for"] == "size"
    };
    assert!(told.as_array().expect("entries").iter().any(of_the_first), "{told}");
}

#[test]
fn without_a_majority_it_is_said_that_nothing_is_done_and_nothing_is() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let mut holder = String::new();
    eventually("somebody holds the lease of the meta range", || {
        let listed = mesh.rhumb(&["range", "ls"]).json;
        let all = listed["replicas"].as_array().cloned().unwrap_or_default();
        let holds = all.iter().find(|one| one["keyspace"] == "meta" && one["leaseholder"] == true);
        holder = holds.and_then(|one| one["node"].as_str()).unwrap_or_default().to_owned();
        !holder.is_empty()
    });
    let others: Vec<_> =
        THREE.split(',').map(|region| format!("{region}/n1")).filter(|node| *node != holder).collect();
    let (stays, stopped) = (&others[0], [&holder, &others[1]]);
    let endpoint = mesh.node(stays)["quic"].as_str().expect("an address").to_owned();
    let ask = |arguments: &[&str]| {
        let ran = mesh.rhumb(&[arguments, &["--endpoint", &endpoint]].concat());
        (ran.code, ran.json["refused"]["code"].as_str().map(str::to_owned), ran.text)
    };
    stopped.iter().for_each(|node| mesh.signal(node, "STOP"));
    // Until it is missed the leaseholder is asked, and does later what it did not answer.
    eventually("the leaseholder is missed", || ask(&["region", "ls"]).2.contains("is not heard here"));
    for arguments in [
        &["region", "ls"][..],
        &["keyspace", "create", "late", "--class", "inventory"],
        &["snapshot", "create", "profiles", "late"],
    ] {
        let (code, refused, text) = ask(arguments);
        assert_eq!((code, refused.as_deref()), (1, Some("not_now")), "{arguments:?}: {text}");
    }
    stopped.iter().for_each(|node| mesh.signal(node, "CONT"));
    eventually("it goes on", || {
        mesh.rhumb(&["keyspace", "create", "later", "--class", "inventory"]).code == 0
    });
    let listed = mesh.ok(&["keyspace", "ls"]);
    let names: Vec<_> =
        listed["keyspaces"].as_array().expect("a list").iter().map(|of| &of["keyspace"]).collect();
    assert_eq!(names, ["later", "profiles"], "{listed}");
    assert_eq!(mesh.ok(&["snapshot", "ls"])["snapshots"], json!([]));
}

#[test]
fn a_keyspace_is_archived_deleted_restored_and_purged_and_its_name_is_free_again() {
    let mut mesh = DevMesh::start(THREE, "off");
    let create = ["keyspace", "create", "profiles", "--class", "inventory", "--retention", "14s"];
    let made = mesh.ok(&create);
    let id = made["id"].as_u64().expect("a number");
    assert_eq!(made["life"], "active", "{made}");
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    // Where the lease of the meta range is just taken, or a node is slow to say that it goes by it, it is asked again.
    let step = |mesh: &DevMesh, word: &str| {
        let mut done = Value::Null;
        eventually("the step is done", || {
            let ran = mesh.rhumb(&["keyspace", word, "profiles"]);
            assert!(ran.code == 0 || ran.code == 5 || ran.text.contains("not_now"), "{word}: {}", ran.text);
            done = ran.json;
            ran.code == 0 || done["life"] == "purged"
        });
        done
    };
    let put = |mesh: &DevMesh, region: &str| {
        let ran = mesh.rhumb(&["kv", "put", "profiles", "ann", "two", "--region", region]);
        (ran.code, ran.json["refused"]["code"].as_str().map(str::to_owned))
    };
    let refused = |word: &str| (1, Some(word.to_owned()));
    let early = mesh.rhumb(&["keyspace", "purge", "profiles"]);
    assert_eq!((early.code, early.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", early.text);

    assert_eq!(step(&mesh, "archive"), json!({"keyspace": "profiles", "life": "archived", "pending": []}));
    for region in THREE.split(',') {
        assert_eq!(put(&mesh, region), refused("archived"), "{region}");
        let (code, answer) = get(&mesh, region, "ann", &[]);
        assert_eq!((code, answer["rows"][0]["value"].as_str()), (0, Some("one")), "{region}: {answer}");
    }
    step(&mesh, "restore");
    assert_eq!(put(&mesh, "us-east"), (0, None));
    assert_eq!(step(&mesh, "delete")["life"], "deleted");
    mesh.restart(THREE, "off");
    for region in THREE.split(',') {
        eventually("it is still deleted after a restart", || put(&mesh, region) == refused("deleted"));
        assert_eq!(get(&mesh, region, "ann", &[]).1["refused"]["code"], "deleted", "{region}");
    }
    step(&mesh, "restore");
    eventually("it is back whole", || get(&mesh, "eu-central", "ann", &[]).1["rows"][0]["value"] == "two");

    // Deleted for longer than its retention it is purged by itself; a second one of its name is another one.
    step(&mesh, "delete");
    eventually("it is purged", || mesh.rhumb(&["keyspace", "show", "profiles"]).code != 0);
    let again = mesh.ok(&create);
    assert!(again["id"].as_u64().is_some_and(|number| number > id), "{again}");
    assert_eq!(get(&mesh, "us-east", "ann", &[]).0, 5, "nothing of the first one is in it");
    mesh.ok(&["kv", "put", "profiles", "bob", "of the second one"]);
    // By hand too, at once.
    step(&mesh, "delete");
    assert_eq!(step(&mesh, "purge")["life"], "purged");
    eventually("its replicas are gone", || {
        let ran = mesh.rhumb(&["range", "ls"]);
        let replicas = ran.json["replicas"].as_array().cloned().unwrap_or_default();
        ran.code == 0 && replicas.iter().all(|replica| replica["keyspace"] == "meta")
    });
    mesh.ok(&create);
    mesh.ok(&["kv", "put", "profiles", "carl", "of the third one"]);
    mesh.restart_after(THREE, "off", |data| {
        for region in THREE.split(',') {
            for number in [id, again["id"].as_u64().expect("a number")] {
                assert_eq!(versions(data, region, number).len(), 0, "{region}: {number}");
            }
        }
    });
    eventually("the third one is there", || get(&mesh, "us-east", "carl", &[]).0 == 0);
}
