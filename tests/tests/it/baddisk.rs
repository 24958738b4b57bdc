//! Disks that go bad under the real program: full, read-only, slow, failing to sync, with a bit flipped.
//! Each time the node says what is wrong, answers nothing wrong, and loses nothing that it had answered.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use rhumb::client::MeshClient;
use rhumb::client::kv::{Kv, KvError, KvRefusal, Needs};
use rhumb_core::{Delivery, Fault, FaultKind};
use rhumb_tests::cluster::{REGIONS, ask_admin, eventually, eventually_or, turn};
use rhumb_tests::counter::directory;
use rhumb_tests::powercut::{Image, Loss, UNBOUNDED};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::scene::{Customers, Running, Scene, full, seed};

const READ_ONLY: u64 = 30;

/// A shop with one node, under customers.
fn busy(own_seed: u64, variables: &[(&'static str, &str)]) -> (Scene, Running, Customers) {
    let mut scene = Scene::new(1, seed(own_seed), variables);
    let node = scene.open_shop().pop().expect("a node");
    let buying = scene.buy();
    (scene, node, buying)
}

/// The node cannot go on: it ends with code 3, and its log says why. Gives the log.
fn gives_up(node: &mut Running, why: &[&str]) -> String {
    let ended = node.serving.wait_end();
    let log = node.serving.log();
    assert_eq!(ended.code(), Some(3), "{ended}\n{log}");
    for why in why {
        assert!(log.contains(why), "{why:?} is not in:\n{log}");
    }
    log
}

/// On a disk that is well again everything is there.
fn all_is_there(scene: &mut Scene) {
    let nodes = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    scene.rises(0).unwrap_or_else(|finding| panic!("{finding}"));
    scene.check_all().unwrap_or_else(|finding| panic!("{finding}"));
    scene.close(nodes);
}

#[test]
fn a_full_disk_stops_the_node_and_takes_nothing_back() {
    let (mut scene, mut node, buying) = busy(11, &[]);
    scene.heights[0] = scene.height(0).expect("it is up");
    node.watched.room(32 << 10).expect("a page");
    gives_up(&mut node, &["no space left", "this node cannot go on and stops"]);
    drop(buying);
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));

    let watched = scene.watch(0);
    watched.room(0).expect("a page");
    let mut node = scene.serve(0, watched);
    gives_up(&mut node, &["no space left", "us-east-n1/data"]);
    node.watched.room(UNBOUNDED).expect("a page");
    all_is_there(&mut scene);
}

#[test]
fn a_disk_that_becomes_read_only_stops_the_node_and_takes_nothing_back() {
    let (mut scene, mut node, buying) = busy(12, &[]);
    scene.heights[0] = scene.height(0).expect("it is up");
    node.watched.refuse(READ_ONLY).expect("a page");
    gives_up(&mut node, &["not permitted", "Read-only file system", "this node cannot go on and stops"]);
    drop(buying);
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));

    let watched = scene.watch(0);
    watched.refuse(READ_ONLY).expect("a page");
    gives_up(&mut scene.serve(0, watched), &["not permitted", "us-east-n1/data"]);
    all_is_there(&mut scene);
}

#[test]
fn a_sync_that_fails_once_is_the_last_one() {
    let (mut scene, mut node, buying) = busy(13, &[]);
    scene.heights[0] = scene.height(0).expect("it is up");
    node.watched.fail_syncs(1).expect("a page");
    gives_up(&mut node, &["input/output error", "this node cannot go on and stops"]);
    drop(buying);
    assert_eq!(node.watched.failed().expect("a page"), 1);
    // What the sync was to cover is lost for good, whatever was synced after it.
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));
    all_is_there(&mut scene);
}

#[test]
fn what_cannot_be_logged_is_not_acknowledged_and_the_operator_is_told_why() {
    let mut scene = Scene::new(1, seed(16), &[]);
    let mut node = scene.open_shop().pop().expect("a node");
    let audited = |scene: &Scene| {
        let asked = scene.mesh.ask("operator", &["audit", "query", "--action", "pool.create", "--records"]);
        assert_eq!(asked.code, 0, "{}", asked.text);
        asked.json["found"].to_string()
    };
    assert!(audited(&scene).contains("pool concert"));
    // The next sync, some node's clock's, lasts so long that the operator's call joins those that wait; and fails.
    node.watched.delay_syncs(3_000).expect("a page");
    node.watched.fail_syncs(1).expect("a page");
    let refused = scene.mesh.ask("operator", &["pool", "create", "encore", "--supply", "10"]);
    assert_eq!(
        (refused.code, refused.json["fault"]["kind"].as_str()),
        (3, Some("storage")),
        "{}",
        refused.text
    );
    let why = refused.json["fault"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("the audit log cannot be written"), "{why}");
    assert_eq!(refused.json["fault"]["delivery"], "not_sent", "it was not done");
    gives_up(&mut node, &["input/output error", "this node cannot go on and stops"]);
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));

    let nodes = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    let there = audited(&scene);
    assert!(there.contains("pool concert") && !there.contains("pool encore"), "{there}");
    let pools = scene.mesh.ask("operator", &["pool", "list"]);
    assert!(pools.code == 0 && !pools.text.contains("encore"), "{}", pools.text);
    scene.close(nodes);
}

#[test]
fn a_slow_disk_makes_answers_late_and_nothing_else() {
    let (mut scene, mut node, buying) = busy(14, &[("RHUMB__SUPERVISOR__SLOW_SYNC", "100ms")]);
    node.watched.delay_syncs(500).expect("a page");
    let so_far = scene.lines();
    scene.heights[0] = scene.height(0).expect("it is up");
    eventually("customers are served all the same", || {
        let now = scene.height(0).expect("it is up");
        assert!(now.hybrid >= scene.heights[0].hybrid, "{now:?} after {:?}", scene.heights[0]);
        scene.heights[0] = now;
        let (code, why) = ask_admin(&scene.mesh.admin(0), "/readyz").expect("it is up");
        assert_eq!(code, 200, "{why}");
        scene.lines() > so_far + 60
    });
    let log = node.serving.log();
    assert!(log.contains("a part of this node is slow") && log.contains("a sync of the hot store"), "{log}");
    node.serving.signal("KILL");
    node.serving.wait_end();
    drop(buying);
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));
    all_is_there(&mut scene);
}

/// What became of writes.
#[derive(Debug, Default)]
struct Fates {
    written: Vec<String>,
    refused: Vec<String>,
    /// Of those that were refused, how many as there is too much to do.
    overloaded: usize,
    /// Nobody knows, and what is said of it.
    open: Vec<(String, Fault)>,
}

impl Fates {
    /// So many puts of so many bytes, one so long after the other.
    fn press(
        &mut self,
        runtime: &Runtime,
        kv: &Kv<'_>,
        wave: u64,
        (puts, bytes, apart): (u32, usize, Duration),
    ) {
        let value = &vec![7; bytes];
        let puts = (0..puts).map(|number| async move {
            tokio::time::sleep(apart * number).await;
            let key = format!("{wave}-{number}");
            (kv.put(key.as_bytes(), value).await, key)
        });
        for (put, key) in runtime.block_on(join_all(puts)) {
            match put {
                Ok(_) => self.written.push(key),
                Err(KvError::Refused(refusal)) => {
                    self.overloaded += usize::from(matches!(refusal, KvRefusal::Overloaded { .. }));
                    self.refused.push(key);
                }
                Err(KvError::Fault(fault)) if fault.delivery() == Delivery::NotSent => self.refused.push(key),
                Err(KvError::Fault(
                    fault @ Fault { kind: FaultKind::Deadline(_) | FaultKind::Unreachable(_), .. },
                )) => self.open.push((key, fault)),
                Err(other) => panic!("{key}: {other}"),
            }
        }
    }
}

#[test]
fn a_disk_that_cannot_keep_up_takes_no_new_write_of_a_keyspace_until_it_can() {
    let _turn = turn();
    let little = [
        ("RHUMB__STORAGE__MAX_WAITING", "8"),
        ("RHUMB__STORAGE__MAX_WAITING_BYTES", "1MiB"),
        ("RHUMB__STORAGE__MAX_GROUP_BYTES", "1MiB"),
    ];
    let scene = Scene::new(1, seed(17), &little);
    let nodes = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    let create = ["keyspace", "create", "profiles", "--class", "inventory", "--replication", "1"];
    eventually("there is a keyspace", || scene.mesh.ask("operator", &create).code == 0);
    let runtime = Runtime::new().expect("a runtime");
    let identity = scene.mesh.directory().join("mesh/clients/us-east-app");
    let client = runtime.block_on(async { MeshClient::new(&identity, directory(&scene.mesh.addresses())) });
    let client = client.expect("a client's certificate");
    let kv = &eventually_or("it is known", || {
        runtime.block_on(Kv::open(&client, "profiles", None)).map_err(|error| error.to_string())
    });

    // What comes at one moment is let in, be it more than one batch takes.
    let (mut fates, mut waves) = (Fates::default(), 0_u64..);
    eventually("more than a store takes at once is let in at once", || {
        let before = fates.written.len();
        let at_once = (16, 200 << 10, Duration::ZERO);
        fates.press(&runtime, kv, waves.next().expect("it has no end"), at_once);
        fates.written.len() > before + 5
    });
    assert!(fates.open.is_empty(), "{fates:?}");
    eventually("it has come to rest", || {
        let (_, page) = ask_admin(&scene.mesh.admin(0), "/metrics").expect("it is up");
        let level = page.lines().find_map(|line| line.strip_prefix("rhumb_store_pressure_level "));
        level.and_then(|level| level.parse().ok()) == Some(0.0)
    });

    nodes[0].watched.delay_syncs(500).expect("a page");
    // What was let in just before the disk became that slow may take longer than its call: how slow it is is known from here on.
    let put = ["kv", "put", "profiles", "first", "one"];
    eventually("something is written meanwhile", || scene.mesh.ask("client", &put).code == 0);
    let is_over = AtomicBool::new(false);
    let told = std::thread::scope(|scope| {
        let presses = scope.spawn(|| {
            // It ends by itself, should nobody say that it is over.
            for wave in waves.by_ref().take(5_000) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                // As much at a time as the disk does not take; what comes at one moment would be one batch.
                fates.press(&runtime, kv, wave, (64, 3, Duration::from_millis(10)));
            }
        });
        let told = eventually_or("a command is told", || {
            assert!(!presses.is_finished(), "nobody presses it any more");
            let ran = scene.mesh.ask("client", &["kv", "put", "profiles", "ann", "one", "--if-absent"]);
            let is_told = ran.code == 1 && ran.json["refused"]["code"] == "overloaded";
            if is_told { Ok(ran.json["refused"].clone()) } else { Err(ran.text) }
        });
        is_over.store(true, Ordering::Relaxed);
        told
    });
    assert_eq!(told["retry_after_ms"], 50, "{told}");
    assert!(told["message"].as_str().is_some_and(|why| why.contains("node us-east/n1: ")), "{told}");
    assert!(fates.overloaded > 0, "{fates:?}");
    assert!(fates.open.is_empty(), "what is let in is told its end: {fates:?}");
    assert_eq!(fates.overloaded, fates.refused.len(), "nothing else is refused: {fates:?}");

    nodes[0].watched.delay_syncs(0).expect("a page");
    eventually("it takes writes again", || {
        scene.mesh.ask("client", &["kv", "put", "profiles", "bob", "one"]).code == 0
    });
    let is_there = |key: &String| {
        eventually_or("it is read", || {
            let read = runtime.block_on(kv.get(key.as_bytes(), Needs::Strong));
            read.map(|answer| !answer.rows.is_empty()).map_err(|error| format!("{key}: {error}"))
        })
    };
    assert!(fates.written.iter().all(is_there), "what was acknowledged is there");
    assert!(!fates.refused.iter().any(is_there), "what was refused is not");
    scene.close(nodes);
}

#[test]
fn who_cannot_write_to_its_disk_keeps_no_lease_and_others_write() {
    let _turn = turn();
    let scene = Scene::new(3, seed(18), &[]);
    let nodes = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    let create = ["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"];
    eventually("there is a keyspace", || scene.mesh.ask("operator", &create).code == 0);
    let put = |value: &str, at: usize| {
        let put = ["kv", "put", "profiles", "ann", value, "--region", REGIONS[at]];
        scene.mesh.ask("client", &put).code == 0
    };
    eventually("it is written", || put("one", 0));
    // Each replica as its own node sees it: one that cannot write does not hear that its lease is gone.
    let holders = || {
        let listed = scene.mesh.ask("operator", &["range", "ls"]).json;
        let all = listed["replicas"].as_array().cloned().unwrap_or_default();
        let of_it = all.iter().filter(|one| one["keyspace"] == "profiles" && one["leaseholder"] == true);
        let is_in =
            |one: &Value, region: &str| one["node"].as_str().is_some_and(|node| node.starts_with(region));
        let place = |one: &Value| REGIONS.iter().position(|region| is_in(one, region));
        of_it.filter_map(place).collect::<Vec<_>>()
    };
    let before = eventually_or("somebody holds the lease", || holders().pop().ok_or("nobody".to_owned()));

    // Longer than any support; shorter than what ends the node.
    nodes[before].watched.delay_syncs(15_000).expect("a page");
    let others = [1, 2].map(|further| (before + further) % REGIONS.len());
    eventually("others write", || others.iter().any(|at| put("two", *at)));
    eventually("another one holds the lease", || holders().iter().any(|holder| *holder != before));
    // Not by the lease that was, which lasts a moment longer than the disk.
    eventually("others write on", || others.iter().any(|at| put("three", *at)));
    let read = || scene.mesh.ask("client", &["kv", "get", "profiles", "ann", "--region", REGIONS[before]]);
    let ran = read();
    assert!(ran.code != 0 || ran.json["rows"][0]["value"] == "three", "what was is not read: {}", ran.text);
    nodes[before].watched.delay_syncs(0).expect("a page");
    eventually("all of it is read where it was", || {
        let ran = read();
        ran.code == 0 && ran.json["rows"][0]["value"] == "three"
    });
    scene.close(nodes);
}

#[test]
fn a_disk_that_stands_still_makes_the_node_unready_and_then_ends_it() {
    let patience = [("RHUMB__SUPERVISOR__STUCK_SYNC", "1s"), ("RHUMB__SUPERVISOR__WATCHDOG", "2s")];
    let (mut scene, mut node, buying) = busy(15, &patience);
    node.watched.delay_syncs(3_600_000).expect("a page");
    eventually("readiness names what is stuck", || {
        ask_admin(&scene.mesh.admin(0), "/readyz")
            .is_some_and(|(code, why)| code == 503 && why.contains("stuck: a sync of the hot store"))
    });
    let ended = node.serving.wait_end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{ended}: SIGABRT");
    drop(buying);
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));
    all_is_there(&mut scene);
}

/// What a node does about a flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It refuses to start, and names the file.
    Refuses,
    /// The bit bears on nothing: everything is there.
    Serves,
    /// The one or the other, by where the bit stands.
    Either,
}

/// The kinds of files below a mesh's folder, by what their paths begin and end with, what must stand in the
/// log of a node that refuses, and what it does.
const KINDS: [(&str, &str, &str, Does); 18] = [
    ("nodes/us-east-n1/data/hot/0", ".log", ".log", Does::Either),
    ("nodes/us-east-n1/data/hot/0", ".sst", ".sst", Does::Either),
    ("nodes/us-east-n1/data/hot/MANIFEST-", "", "MANIFEST-", Does::Refuses),
    ("nodes/us-east-n1/data/hot/CURRENT", "", "hot", Does::Refuses),
    ("nodes/us-east-n1/data/hot/OPTIONS-", "", "OPTIONS-", Does::Serves),
    ("nodes/us-east-n1/data/hot/IDENTITY", "", "IDENTITY", Does::Serves),
    ("nodes/us-east-n1/data/hot/LOG", "", "LOG", Does::Serves),
    ("nodes/us-east-n1/data/control/db", "", "control", Does::Either),
    ("nodes/us-east-n1/data/control/conf", "", "control", Does::Either),
    ("nodes/us-east-n1/data/control/snap.", "", "control", Does::Either),
    ("nodes/us-east-n1/data/last-stop.json", "", "last-stop.json", Does::Serves),
    ("nodes/us-east-n1/identity/identity.pem", "", "identity", Does::Either),
    ("nodes/us-east-n1/identity/ca.pem", "", "identity", Does::Either),
    ("nodes/us-east-n1/identity/crl.pem", "", "identity", Does::Either),
    // Another key that is one: the node serves, and its log signs nothing.
    ("nodes/us-east-n1/audit-keys/us-east.n1/audit.key", "", "audit.key", Does::Either),
    ("nodes/us-east-n1/audit-keys/us-east.n1/us-east.", "", "audit log", Does::Refuses),
    ("config/policy.toml", ".toml", "policy.toml", Does::Refuses),
    ("config/policy.toml.sig", ".sig", "policy.toml", Does::Refuses),
];

/// A shop that has filled all kinds of files, stopped in order; gives its folder.
fn a_stopped_shop() -> (Scene, Image) {
    let mut scene = Scene::new(1, seed(16), &[]);
    let nodes = scene.open_shop();
    let buying = scene.buy();
    drop(buying);
    scene.close(nodes);
    let nodes = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    let buying = scene.buy();
    drop(buying);
    scene.check_all().unwrap_or_else(|finding| panic!("{finding}"));
    scene.close(nodes);
    let image = Image::read(&scene.mesh.directory().join("mesh")).expect("a folder");
    (scene, image)
}

/// Flips a drawn bit of a file: in which byte, and as it is told.
fn flip(scene: &mut Scene, folder: &Path, path: &str) -> (usize, String) {
    let file = folder.join(path);
    let mut bytes = fs::read(&file).expect("a file");
    // Much of some files is empty: every other draw is of what is not.
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let anywhere = scene.rng.below(bytes.len() as u64) as usize;
    let at = if scene.rng.chance(0.5) { anywhere } else { *scene.rng.pick(&written).unwrap_or(&anywhere) };
    let bit = scene.rng.below(8);
    bytes[at] ^= 1 << bit;
    fs::write(&file, bytes).expect("written");
    (at, format!("{path}: bit {bit} of byte {at}"))
}

/// What a node does on what stands there now; a finding when it is neither of the two.
#[expect(clippy::print_stdout, reason = "for whoever runs the test to see")]
fn does(scene: &mut Scene, names: &str) -> Result<Does, String> {
    let mut node = scene.serve(0, scene.watch(0));
    match scene.starts(0, &mut node) {
        Ok(_) => {
            scene.check_all()?;
            Ok(Does::Serves)
        }
        Err(finding) => {
            let log = node.serving.log();
            let code = node.serving.has_ended().and_then(|ended| ended.code());
            let said = log.lines().last().unwrap_or_default();
            if matches!(code, Some(2 | 3)) && !log.contains("panicked") && said.contains(names) {
                println!("    refused: {said}");
                Ok(Does::Refuses)
            } else {
                Err(finding)
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_refused_by_its_files_name_or_bears_on_nothing() {
    let (mut scene, image) = a_stopped_shop();
    let folder = scene.mesh.directory().join("mesh");
    let is_the_nodes = |path: &String| path.starts_with("nodes/us-east-n1/");
    let is_of_a_kind =
        |path: &String| KINDS.iter().any(|kind| path.starts_with(kind.0) && path.ends_with(kind.1));
    let holds_something = |path: &String| image.file(path).is_some_and(|bytes| !bytes.is_empty());
    let none: Vec<String> = image.files().into_iter().filter(|path| !is_of_a_kind(path)).collect();
    let none: Vec<&String> = none.iter().filter(|path| is_the_nodes(path) && holds_something(path)).collect();
    assert_eq!(none, Vec::<&String>::new(), "each kind of file of a node is named");
    for (begins, ends, names, want) in KINDS {
        let paths = image.files();
        let is = |path: &&String| path.starts_with(begins) && path.ends_with(ends);
        let of_kind: Vec<&String> = paths.iter().filter(is).collect();
        for _ in 0..if full() { 40 } else { 2 } {
            image.write(&folder).expect("written");
            let path =
                (*scene.rng.pick(&of_kind).unwrap_or_else(|| panic!("no {begins} in {paths:?}"))).clone();
            let (_, flipped) = flip(&mut scene, &folder, &path);
            println!("{flipped}");
            let done = does(&mut scene, names).unwrap_or_else(|finding| panic!("{flipped}: {finding}"));
            assert!(
                want == Does::Either || want == done,
                "{flipped}: it {done:?}, and should have: {want:?}"
            );
        }
    }
}

/// Whether a byte of a settings file is space, or in a comment.
fn says_nothing(text: &str, at: usize) -> bool {
    let begin = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text.as_bytes()[at].is_ascii_whitespace() || text[begin..].trim_start().starts_with('#')
}

#[test]
fn a_flipped_bit_in_the_settings_is_refused_by_its_files_name_or_shows_in_what_they_come_to() {
    let mut scene = Scene::new(1, seed(17), &[]);
    let folder = scene.mesh.directory().join("mesh/config");
    let show = ["config", "show", "--effective", "--config", "mesh/config", "--region", "us-east"];
    let sound = scene.mesh.ok(&show)["settings"].clone();
    let values = |settings: &Value| -> Vec<(String, Value)> {
        let all = settings.as_object().expect("a table").iter();
        all.map(|(key, entry)| (key.clone(), entry["value"].clone())).collect()
    };
    for draw in 0..if full() { 400 } else { 24 } {
        let name = ["global.toml", "us-east.toml"][draw % 2];
        let text = fs::read_to_string(folder.join(name)).expect("a file");
        let (at, flipped) = flip(&mut scene, &folder, name);
        let shown = scene.mesh.rhumb(&show);
        match shown.code {
            2 => assert!(shown.text.contains(name), "{flipped}: {}", shown.text),
            0 => assert!(
                values(&shown.json["settings"]) != values(&sound) || says_nothing(&text, at),
                "{flipped} is not to be seen: {}",
                shown.text
            ),
            _ => panic!("{flipped}: {}", shown.text),
        }
        fs::write(folder.join(name), text).expect("written");
    }
}
