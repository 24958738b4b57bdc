//! A node's process, as the one who runs it sees it: how it starts, waits, stands still, stops, and is
//! replaced under load.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rhumb_tests::cluster::{FoundedMesh, Serving, eventually, program};
use serde_json::{Value, json};

fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a record of real time")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// How many customers a second come during the rolling restart, and for how long.
fn load() -> (&'static str, &'static str) {
    if std::env::var_os("RHUMB_FULL").is_some() { ("600", "60s") } else { ("300", "12s") }
}

fn start_load(mesh: &FoundedMesh) -> Child {
    let (rate, lasts) = load();
    let out = fs::File::create(mesh.directory().join("load.json")).expect("a file");
    let log = fs::File::create(mesh.directory().join("load.log")).expect("a file");
    Command::new(program())
        .args(["load", "escrow", "concert", "--rate", rate, "--for", lasts, "--receipts", "receipts.jsonl"])
        .args(["--abandon", "30", "--ttl", "10s", "-o", "json"])
        .args(mesh.reaching("client"))
        .current_dir(mesh.directory())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log)
        .spawn()
        .expect("the program starts")
}

#[test]
fn a_rolling_restart_under_load_leaves_no_call_without_its_outcome() {
    let mesh = FoundedMesh::of(3);
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let created = mesh.ask("operator", &["pool", "create", "concert", "--supply", "100000"]);
    assert_eq!(created.code, 0, "{}", created.text);
    let sells = |node: usize| {
        mesh.rhumb(&[
            "pool",
            "show",
            "concert",
            "--endpoint",
            &mesh.admin(node),
            "--identity",
            "mesh/clients/us-east-app",
        ])
    };
    eventually("every region has its share", || {
        (0..3).all(|node| sells(node).json["available"].as_u64().is_some_and(|left| left > 1_000))
    });
    let mut load = start_load(&mesh);
    let receipts = mesh.directory().join("receipts.jsonl");
    for (at, node) in nodes.iter_mut().enumerate() {
        let so_far = lines(&receipts);
        eventually("customers buy", || lines(&receipts) > so_far + 20);
        node.signal("TERM");
        let ended = node.wait_end();
        let log = node.log();
        assert!(ended.success(), "{ended}\n{log}");
        assert!(log.contains("stopped") && !log.contains("not all of a stage"), "{log}");
        *node = mesh.serve(at, &[]);
        node.wait_ready();
    }
    let ended = load.wait().expect("the load ends");
    let told = fs::read_to_string(mesh.directory().join("load.json")).expect("its answer");
    let met: Value = serde_json::from_str(&told).expect("JSON");
    assert!(ended.success(), "{ended} {told}");
    assert_eq!((&met["unknown"], &met["broken"]), (&json!(0), &json!(0)), "{told}");
    assert_eq!((&met["lost_holds"], &met["lost_confirms"]), (&json!(0), &json!(0)), "{told}");
    assert!(met["sold"].as_u64() > Some(60), "{told}");
    eventually("the books are at rest and agree with the receipts", || {
        let audit = mesh.ask("client", &["pool", "audit", "concert", "--receipts", "receipts.jsonl"]);
        audit.code == 0 && audit.json["oversold"] == json!(0) && audit.json["invariants"]["I5"] == json!(true)
    });
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

#[test]
fn status_shows_the_mesh_from_any_node_also_when_one_is_down() {
    let mesh = FoundedMesh::of(3);
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let mut shown = Value::Null;
    eventually("all links are up", || {
        shown = mesh.ask("client", &["status", "--check"]).json;
        let links = |node: &Value| {
            node["links"].as_array().map_or(0, |l| l.iter().filter(|l| l["up"] == true).count())
        };
        shown["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3 && nodes.iter().all(|n| links(n) == 2))
    });
    let node = &shown["nodes"][1];
    assert!(node["links"][0]["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0), "{shown}");
    assert!(node["offset_ms"].as_i64().is_some_and(|offset| offset.abs() < 1_000), "{shown}");
    assert!(node["certificate"]["expires_s"].as_i64() > Some(80 * 24 * 3_600), "{shown}");
    assert_eq!(node["settings_digest"], shown["nodes"][0]["settings_digest"]);
    assert_eq!(node["policy_version"], json!(1));
    assert!(node.get("pools").is_none(), "figures of pools are of their class, and this is control");

    nodes[0].signal("TERM");
    assert!(nodes[0].wait_end().success());
    let asked = mesh.ask("client", &["status"]);
    assert_eq!(asked.code, 0, "{}", asked.text);
    assert_eq!(asked.json["nodes"].as_array().map(Vec::len), Some(2), "{}", asked.text);
    let silent = &asked.json["silent"][0];
    assert_eq!(silent["node"], json!("us-east/n1"));
    assert!(silent["why"].as_str().is_some_and(|why| why.contains("unreachable")), "{silent}");
    eventually("the others know for how long", || {
        mesh.ask("client", &["status"]).json["silent"][0]["for_ms"].as_u64().is_some()
    });
    assert_eq!(mesh.ask("client", &["status", "--check"]).code, 5);
    // Any other command goes on with the addresses that can be connected, and says which cannot.
    let listed = mesh.ask("client", &["keyspace", "ls"]);
    assert_eq!(listed.code, 0, "{}", listed.text);
    assert!(listed.text.contains("going on without it"), "{}", listed.text);
    let there = mesh.ask("client", &["hold", "concert", "--qty", "1", "--region", "us-east"]);
    assert_eq!(there.code, 2, "{}", there.text);
    assert!(there.text.contains("no --endpoint leads to region us-east"), "{}", there.text);
    assert!(there.text.contains("cannot be connected"), "{}", there.text);
}

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: String,
}

impl Manager {
    fn new(directory: &Path) -> Self {
        let path = directory.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        Self { socket, path, heard: String::new() }
    }

    fn listens(&mut self) {
        let mut datagram = [0; 4096];
        while let Ok(bytes) = self.socket.recv(&mut datagram) {
            self.heard.push_str(&String::from_utf8_lossy(&datagram[..bytes]));
        }
    }

    /// Gives what it heard before. What came after has yet to be asked about.
    fn hears(&mut self, what: &str) -> String {
        eventually(what, || {
            self.listens();
            self.heard.contains(what)
        });
        let end = self.heard.find(what).map_or(0, |at| at + what.len());
        self.heard.drain(..end).collect()
    }

    fn forgets(&mut self) {
        self.listens();
        self.heard.clear();
    }
}

#[test]
fn a_service_manager_is_told_how_the_node_stands_until_it_stops() {
    let mesh = FoundedMesh::of(1);
    let mut manager = Manager::new(mesh.directory());
    let path = manager.path.to_str().expect("text").to_owned();
    let mut node = mesh.serve(0, &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "1000000")]);
    manager.hears("STATUS=starting: hot store");
    manager.hears("READY=1");
    manager.hears("WATCHDOG=1");
    node.signal("HUP");
    manager.hears("RELOADING=1\nMONOTONIC_USEC=");
    manager.hears("READY=1");
    node.signal("TERM");
    manager.hears("STOPPING=1");
    assert!(node.wait_end().success());
    let log = node.log();
    let steps = ["control store", "identity", "hot store", "actors", "transport", "ready"];
    let places: Vec<_> = steps.iter().map(|step| log.find(&format!("step=\"{step}\""))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{log}");
    let last = fs::read_to_string(mesh.data(0).join("last-stop.json")).expect("a record");
    assert!(last.contains("\"stopped\""), "{last}");
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release does not let itself be stalled")]
fn a_node_whose_event_loop_stands_still_is_not_ready_and_then_aborts_with_its_reason() {
    let mesh = FoundedMesh::of(1);
    let mut node = mesh.serve(
        0,
        &[
            ("RHUMB_TEST_STALL", "the escrow arbiter"),
            ("RHUMB__SUPERVISOR__STUCK_LOOP", "2s"),
            ("RHUMB__SUPERVISOR__WATCHDOG", "2s"),
        ],
    );
    node.wait_ready();
    let mut told = String::new();
    eventually("readiness names what is stuck", || {
        let answer = rhumb_tests::cluster::ask_admin(&mesh.admin(0), "/readyz");
        told = answer.map(|(code, why)| format!("{code} {why}")).unwrap_or_default();
        told.starts_with("503 not ready: stuck: the escrow arbiter has stood still for ")
    });
    let ended = node.wait_end();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(6), "{ended}: SIGABRT");
    let log = node.log();
    assert!(log.contains("the process ends at once"), "{log}");
    let last = fs::read_to_string(mesh.data(0).join("last-stop.json")).expect("a record");
    assert!(last.contains("watchdog: the escrow arbiter has stood still for "), "{last}");
}

#[test]
fn a_node_whose_data_directory_is_removed_or_replaced_stops_and_says_why() {
    let mesh = FoundedMesh::of(1);
    let data = mesh.data(0);
    let away = mesh.directory().join("away");
    let ends = |node: &mut Serving, lost: &str| {
        assert_eq!(node.wait_end().code(), Some(3), "{}", node.log());
        let log = node.log();
        let told = format!("nodes/us-east-n1/data{lost} is not what this process has open");
        assert!(log.contains("keep the data directory: missing: ") && log.contains(&told), "{log}");
    };
    // Only a store: the directory is still its own, and keeps the reason.
    let mut node = mesh.serve(0, &[]);
    node.wait_ready();
    fs::rename(data.join("hot"), &away).expect("renames");
    ends(&mut node, "/hot");
    let last = fs::read_to_string(data.join("last-stop.json")).expect("a record");
    assert!(last.contains("\"failed\"") && last.contains("keep the data directory"), "{last}");

    // All of it, with an older copy in its place: that is left as it is.
    fs::rename(&away, data.join("hot")).expect("renames");
    let mut node = mesh.serve(0, &[]);
    node.wait_ready();
    fs::rename(&data, &away).expect("renames");
    fs::create_dir(&data).expect("creates");
    ends(&mut node, "");
    assert_eq!(fs::read_dir(&data).expect("reads").count(), 0, "nothing is written there");
}

#[test]
fn a_node_that_died_too_often_waits_and_says_why_and_a_signal_ends_the_wait() {
    let mesh = FoundedMesh::of(1);
    let file = mesh.data(0).join("last-stop.json");
    let ends = vec![now_ms(); 10];
    let last = json!({"state": "failed", "at_ms": now_ms(), "why": "the disk is gone", "ends_ms": ends});
    fs::write(&file, last.to_string()).expect("writes");
    let mut node = mesh.serve(0, &[]);
    eventually("it says why it waits", || {
        let log = node.log();
        log.contains("it waits before it starts") && log.contains("the disk is gone")
    });
    node.signal("TERM");
    assert!(node.wait_end().success(), "a signal ends the wait");

    // A life that leaves no word counts; a stop that was asked for clears the count.
    let patient = [("RHUMB__SUPERVISOR__CRASHES", "1"), ("RHUMB__SUPERVISOR__CRASH_WAIT", "1s")];
    let mut node = mesh.serve(0, &patient);
    node.wait_ready();
    assert!(node.log().contains("it waits before it starts"));
    node.signal("KILL");
    node.wait_end();
    let mut node = mesh.serve(0, &patient);
    node.wait_ready();
    assert!(node.log().contains("it left no word: it was killed"), "{}", node.log());
    node.signal("TERM");
    assert!(node.wait_end().success());
    let mut node = mesh.serve(0, &patient);
    node.wait_ready();
    assert!(!node.log().contains("it waits before it starts"), "{}", node.log());
}

#[test]
fn a_node_that_is_not_ready_yet_does_not_say_so_because_its_settings_were_read_anew() {
    let mesh = FoundedMesh::of(3);
    let mut manager = Manager::new(mesh.directory());
    let path = manager.path.to_str().expect("text").to_owned();
    let mut node = mesh.serve(0, &[("NOTIFY_SOCKET", &path)]);
    manager.hears("STATUS=not ready: unproven");
    node.signal("HUP");
    eventually("it has read its settings anew", || node.log().contains("settings reloaded"));
    node.signal("TERM");
    let before = manager.hears("STOPPING=1");
    assert!(!before.contains("READY=1") && !before.contains("RELOADING=1"), "{before}");
    assert!(node.wait_end().success());
}

#[test]
fn a_node_that_is_asked_to_stop_while_it_starts_stops_in_order() {
    let mesh = FoundedMesh::of(1);
    let mut manager = Manager::new(mesh.directory());
    let path = manager.path.to_str().expect("text").to_owned();
    for step in ["identity", "hot store", "actors", "transport", "ready"] {
        let mut node = mesh.serve(0, &[("NOTIFY_SOCKET", &path)]);
        manager.hears(&format!("STATUS=starting: {step}"));
        node.signal("TERM");
        let ended = node.wait_end();
        assert!(ended.success(), "at the step {step}: {ended}\n{}", node.log());
        let last = fs::read_to_string(mesh.data(0).join("last-stop.json")).expect("a record");
        assert!(last.contains("\"stopped\""), "at the step {step}: {last}");
        manager.forgets();
    }
}

#[test]
fn a_start_that_fails_names_its_step_and_counts() {
    let mesh = FoundedMesh::of(1);
    let _taken = std::net::TcpListener::bind(mesh.admin(0)).expect("free until now");
    let mut node = mesh.serve(0, &[]);
    assert_eq!(node.wait_end().code(), Some(3));
    let log = node.log();
    assert!(log.contains("starting, at the step \"transport\": admin HTTP cannot listen on"), "{log}");
    assert!(
        log.contains("step=\"actors\"") && !log.contains("step=\"transport\""),
        "no peer heard of it: {log}"
    );
    let last = fs::read_to_string(mesh.data(0).join("last-stop.json")).expect("a record");
    assert!(last.contains("\"failed\"") && last.contains("admin HTTP cannot listen"), "{last}");
}

#[test]
fn an_ordered_stop_is_told_stage_by_stage_and_is_over_in_time() {
    let mesh = FoundedMesh::of(1);
    let mut node = mesh.serve(0, &[]);
    node.wait_ready();
    node.signal("TERM");
    assert!(node.wait_end().success());
    let log = node.log();
    let stages = ["refuse new calls", "drain calls", "end hosted actors", "close connections", "flush"];
    let places: Vec<_> = stages.iter().map(|stage| log.find(&format!("stage=\"{stage}\""))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}\n{log}");
}

#[test]
fn a_second_signal_ends_a_stop_at_once() {
    let mesh = FoundedMesh::of(2);
    let mut nodes: Vec<Serving> = (0..2).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    // A peer that is frozen holds the drain up, until its silence is noticed.
    nodes[1].signal("STOP");
    nodes[0].signal("TERM");
    eventually("the stop has begun", || nodes[0].log().contains("stage=\"refuse new calls\""));
    nodes[0].signal("TERM");
    assert_eq!(nodes[0].wait_end().code(), Some(130));
}
