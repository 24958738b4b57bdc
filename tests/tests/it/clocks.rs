//! One node of a mesh has a wrong clock: it refuses strong paths and says so, the others go on, and it goes on by itself
//! when its clock is right again.

#![expect(clippy::disallowed_methods, reason = "real servers of time show real time")]

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rhumb_tests::cluster::{DevMesh, FoundedMesh, REGIONS, ask_admin, eventually, eventually_or, run};
use serde_json::{Value, json};

use crate::documents::fenced;
use crate::scene::{Scene, seed};

const PAGE: &str = "docs/operations/clocks.md";

/// 96 % of the half second by which clocks may differ: more than the 80 % at which a node stops, and near enough that the
/// others still take its times.
const SKEW_MS: i64 = 480;

/// What a node says of its own clock.
fn clock(scene: &Scene, node: usize) -> Value {
    let (_, status) = ask_admin(&scene.mesh.admin(node), "/status").expect("it is up");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["clock"].clone()
}

fn metric(scene: &Scene, node: usize, name: &str) -> f64 {
    let (_, page) = ask_admin(&scene.mesh.admin(node), "/metrics").expect("it is up");
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

fn ready(scene: &Scene, node: usize) -> String {
    let (code, text) = ask_admin(&scene.mesh.admin(node), "/readyz").expect("it is up");
    assert_eq!(code, 200, "what needs no clock goes on: {text}");
    text
}

fn has_compared_all(scene: &Scene, node: usize) -> bool {
    clock(scene, node)["peers"].as_array().is_some_and(|peers| peers.len() == 2)
}

/// Entries of a node's audit log with this action, oldest first.
fn entries(scene: &Scene, node: usize, action: &str) -> Vec<Value> {
    let identity = format!("mesh/operators/{}-admin", REGIONS[node]);
    let of = format!("{}/n1", REGIONS[node]);
    let admin = scene.mesh.admin(node);
    let which = ["audit", "query", "--node", &of, "--action", action, "--records"];
    let asked = [&which[..], &["--identity", &identity, "--endpoint", &admin]].concat();
    scene.mesh.ok(&asked)["found"].as_array().expect("a list").clone()
}

#[test]
fn one_wrong_clock_stops_strong_paths_of_its_own_node_and_of_no_other() {
    let mut scene = Scene::with(FoundedMesh::of(3), 3, seed(31), &[]);
    let nodes = scene.open_shop();
    eventually("all have compared their clocks", || (0..3).all(|node| has_compared_all(&scene, node)));
    assert_eq!(ready(&scene, 0), "ready\n");
    let buying = scene.buy();

    for skew in [SKEW_MS, -SKEW_MS] {
        nodes[0].watched.step_clock(skew).expect("a page");
        eventually("the node with the wrong clock freezes", || clock(&scene, 0)["standing"] == "frozen");
        let frozen = clock(&scene, 0);
        assert_eq!(frozen["frozen"]["kind"], "off_peers", "{frozen}");
        eventually("and says so", || {
            let log = nodes[0].serving.log();
            log.contains("strong paths are refused") && log.contains("from those of 2 of 2 other nodes")
        });
        assert!(ready(&scene, 0).starts_with("ready; strong paths are refused: the wall clock differs"));
        assert_eq!(metric(&scene, 0, "rhumb_clock_frozen"), 1.0);
        eventually("the others see whose clock it is", || {
            (1..3).all(|node| {
                let peers = clock(&scene, node)["peers"].as_array().expect("a list").clone();
                peers.iter().all(|peer| peer["off"] == json!(peer["node"] == "us-east/n1"))
            })
        });
        // Its customers buy as ever, and so do those of the others.
        scene.more_lines(30);
        for node in 1..3 {
            assert_eq!(
                (&clock(&scene, node)["freezes"], ready(&scene, node).as_str()),
                (&json!(0), "ready\n")
            );
        }
        let checked = scene.mesh.ask("client", &["clock", "status", "--check"]);
        assert_eq!(checked.code, 5, "{}", checked.text);
        nodes[0].watched.step_clock(0).expect("a page");
        eventually("it stands again by itself", || clock(&scene, 0)["frozen"].is_null());
        eventually("nobody is off any more", || {
            (0..3).all(|node| metric(&scene, node, "rhumb_clock_peers_off") == 0.0)
        });
    }
    drop(buying);
    scene.check_all().expect("no answer was lost");
    let mut found = 0;
    eventually("it is in its audit log", || {
        let freezes = entries(&scene, 0, "clock.freeze");
        if freezes.len() != found {
            println!("{freezes:?}");
        }
        found = freezes.len();
        found == 2
    });
    for node in 1..3 {
        assert_eq!(entries(&scene, node, "clock.freeze"), Vec::<Value>::new(), "node {node}");
    }
}

#[test]
fn a_drill_shows_what_happens_and_is_an_operators_act() {
    let scene = Scene::with(FoundedMesh::of(3), 3, seed(32), &[]);
    let nodes = scene.serve_all().expect("a fresh mesh starts");
    eventually("all have compared their clocks", || (0..3).all(|node| has_compared_all(&scene, node)));
    let before = scene.height(1).expect("it is up").hybrid;
    let drill = |role, more: &[&str]| {
        let of = ["clock", "drill", "--node", "eu-central/n1"];
        scene.mesh.ask(role, &[&of[..], more].concat())
    };
    let done = drill("operator", &["--for", "2s", "--behind", "--offset", "10m"]);
    assert_eq!(done.code, 0, "{}", done.text);
    assert_eq!(done.json["ahead_ms"], -600_000);
    assert!(done.json["froze_after_ms"].as_u64().is_some_and(|ms| ms < 2_000), "{}", done.text);
    assert_eq!(done.json["others_froze"], json!([]));
    let after = clock(&scene, 1);
    assert_eq!(
        (&after["frozen"], &after["drill"], &after["freezes"]),
        (&Value::Null, &Value::Null, &json!(1))
    );
    assert!(after["refused"].as_u64().is_some_and(|count| count > 0), "strong time was asked for: {after}");
    let went = scene.height(1).expect("it is up").hybrid.0 - before.0;
    assert!((2_000..120_000).contains(&went), "hybrid time went on as ever: {went} ms");
    assert!(nodes[1].serving.log().contains("a drill"), "{}", nodes[1].serving.log());

    let short = drill("operator", &["--for", "100ms", "--offset", "1ms"]);
    assert_eq!((short.code, &short.json["froze_after_ms"]), (5, &Value::Null), "{}", short.text);
    let long = drill("operator", &["--for", "2m"]);
    assert_eq!(long.code, 2, "{}", long.text);
    assert!(long.text.contains("expected 1ms to 60s"), "{}", long.text);
    let unknown = scene.mesh.ask("operator", &["clock", "drill", "--node", "eu-central/n9"]);
    assert_eq!(unknown.code, 2, "{}", unknown.text);
    let message = unknown.json["usage"]["message"].as_str().expect("a message");
    assert!(message.starts_with("there is no node eu-central/n9 here; there are "), "{message}");
    let nobody = drill("client", &["--for", "1s"]);
    assert_eq!((nobody.code, &nobody.json["fault"]["kind"]), (3, &json!("unauthorized")), "{}", nobody.text);

    let told = entries(&scene, 1, "clock.drill");
    let outcomes: Vec<_> =
        told.iter().map(|entry| entry["record"]["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["begun", "done", "begun", "failed"], "{told:?}");
    assert_eq!(told[1]["index"], done.json["entry"]);
    assert_eq!(told[0]["record"]["details"]["ahead_ms"], "-600000", "{told:?}");
}

/// An NTP server whose time is this machine's, and so many seconds more. It ends with its guard.
struct TimeServer {
    address: String,
    over: Arc<AtomicBool>,
}

impl TimeServer {
    fn ahead(seconds: u64) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let address = socket.local_addr().expect("bound").to_string();
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut packet = [0; 48];
            while !ends.load(Ordering::Acquire) {
                let Ok((48, from)) = socket.recv_from(&mut packet) else { continue };
                let cookie = packet[40..].to_vec();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later than 1970");
                let since_1900 = now.as_secs() + 2_208_988_800 + seconds;
                let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
                packet.fill(0);
                (packet[0], packet[1]) = (0b00_100_100, 1);
                packet[24..32].copy_from_slice(&cookie);
                packet[40..44].copy_from_slice(&(since_1900 as u32).to_be_bytes());
                packet[44..].copy_from_slice(&(fraction as u32).to_be_bytes());
                socket.send_to(&packet, from).ok();
            }
        });
        Self { address, over }
    }
}

impl Drop for TimeServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

#[test]
fn sources_say_whose_clock_is_wrong_and_nobody_follows_it() {
    let servers = [TimeServer::ahead(0), TimeServer::ahead(0), TimeServer::ahead(30)];
    let sources = servers.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",");
    let variables = [("RHUMB__CLOCK__SOURCES", sources.as_str())];
    let mut scene = Scene::with(FoundedMesh::of(3), 3, seed(33), &variables);
    let nodes = scene.open_shop();
    let verdicts = |node| {
        let sources = clock(&scene, node)["sources"].as_array().expect("a list").clone();
        sources.iter().map(|source| source["verdict"].clone()).collect::<Vec<_>>()
    };
    eventually("all have heard them, and know the liar", || {
        (0..3).all(|node| verdicts(node) == ["agrees", "agrees", "outlier"])
    });
    let knows = clock(&scene, 1);
    assert!(knows["frozen"].is_null() && knows["doubts"][0]["kind"] == "outlier", "{knows}");
    let uncertainty = |node| metric(&scene, node, "rhumb_clock_uncertainty_seconds");
    assert!(knows["offset_us"].as_i64().is_some_and(|off| off.abs() < 100_000), "{knows}");
    assert!(uncertainty(1) > 0.0, "there is no clock without it");
    assert_eq!(metric(&scene, 1, "rhumb_clock_drifts"), 0.0);
    for of in ["peer_offset", "uncertainty"] {
        // Sources may be heard before the first peer is compared.
        let name = format!("rhumb_clock_{of}_distribution_seconds_count");
        eventually("it is counted", || metric(&scene, 1, &name) > 0.0);
    }
    let before: Vec<_> = (0..3).map(|node| clock(&scene, node)["freezes"].clone()).collect();

    let buying = scene.buy();
    nodes[0].watched.step_clock(SKEW_MS).expect("a page");
    eventually("the node with the wrong clock freezes", || clock(&scene, 0)["frozen"]["kind"] == "beyond");
    // Its messages would take the others' hybrid time so far ahead that they had to freeze, and they do not follow.
    let refused = |node| metric(&scene, node, "rhumb_clock_merges_refused_total");
    eventually("the others do not take its times", || refused(1) > 0.0 && refused(2) > 0.0);
    scene.more_lines(100);
    for (node, before) in before.iter().enumerate().skip(1) {
        let now = clock(&scene, node);
        assert_eq!((&now["freezes"], &now["frozen"]), (before, &Value::Null), "{now}");
    }
    nodes[0].watched.step_clock(0).expect("a page");
    eventually("it stands again by itself", || clock(&scene, 0)["frozen"].is_null());
    drop(buying);
    scene.check_all().expect("no answer was lost");
}

#[test]
fn a_reset_begins_a_new_epoch_which_tokens_tell_of() {
    let servers = [TimeServer::ahead(0), TimeServer::ahead(0), TimeServer::ahead(0)];
    let sources = servers.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",");
    let variables = [("RHUMB__CLOCK__SOURCES", sources.as_str())];
    let scene = Scene::with(FoundedMesh::of(3), 3, seed(34), &variables);
    let _nodes = scene.serve_all().expect("a fresh mesh starts");
    let stands = |node| {
        let clock = clock(&scene, node);
        clock["frozen"].is_null() && clock["sources"][2]["verdict"] == "agrees"
    };
    eventually("all know what time it is", || (0..3).all(stands));
    let ask = |role, what: &[&str]| scene.mesh.ask(role, what);
    let nobody = ask("client", &["clock", "reset"]);
    assert_eq!((nobody.code, &nobody.json["fault"]["kind"]), (3, &json!("unauthorized")), "{}", nobody.text);
    let create = || ask("operator", &["keyspace", "create", "notes", "--class", "inventory"]);
    eventually("a keyspace", || create().code == 0);
    eventually("a key", || ask("client", &["kv", "put", "notes", "a", "1"]).code == 0);
    let page = "x".repeat(100 << 10);
    for key in ["b", "c", "d", "e"] {
        eventually("more than one answer takes", || {
            ask("client", &["kv", "put", "notes", key, &page]).code == 0
        });
    }
    let range = create().json["ranges"][0].to_string();

    let before = scene.height(1).expect("it is up").hybrid;
    let one = ask("operator", &["clock", "reset", "--node", "eu-central/n1"]);
    assert_eq!((one.code, &one.json["nodes"][0]["epoch"]), (0, &json!(1)), "{}", one.text);
    let waited = one.json["nodes"][0]["waited_ms"].as_u64();
    assert!(waited.is_some_and(|ms| (500..5_000).contains(&ms)), "its times had to pass: {}", one.text);
    assert!(scene.height(1).expect("it is up").hybrid > before, "hybrid time does not go back");
    assert_eq!(clock(&scene, 1)["epoch"], 1);
    eventually("strong paths stand again", || stands(1));

    let read = |region: &str, token: Option<&str>| {
        let of =
            ["kv", "get", "notes", "a", "--consistency", "eventual", "--nearest-only", "--region", region];
        let token: Vec<&str> = token.into_iter().flat_map(|token| ["--token", token]).collect();
        ask("client", &[&of[..], &token].concat())
    };
    eventually("it is read in eu-central", || read("eu-central", None).code == 0);
    let seen = read("eu-central", None);
    let later = seen.json["token"].as_str().expect("a token").to_owned();
    let refused = read("us-east", Some(&later));
    assert_eq!(
        (refused.code, refused.json["refused"]["code"].as_str()),
        (1, Some("token")),
        "{}",
        refused.text
    );

    eventually("the lease is held under the later epoch", || {
        ask("operator", &["range", "transfer-lease", &range, "--to", "eu-central/n1"]).code == 0
    });
    let parted =
        "the first part of a scan is of the later epoch, the next one is asked of an earlier one's node";
    eventually_or(parted, || {
        let scan = ask("client", &["kv", "scan", "notes", "--region", "us-east"]);
        assert_ne!(scan.json["refused"]["code"], "token", "no token was brought: {}", scan.text);
        let rows = scan.json["rows"].as_array().map(Vec::len);
        let is_whole = (scan.code, &scan.json["level"], rows) == (0, &json!("snapshot"), Some(5));
        if is_whole { Ok(()) } else { Err(format!("{} {rows:?}: {:.300}", scan.code, scan.text)) }
    });

    let all = ask("operator", &["clock", "reset"]);
    assert_eq!(
        (all.code, &all.json["epoch"], &all.json["silent"]),
        (0, &json!(2), &json!([])),
        "{}",
        all.text
    );
    eventually("all have the same epoch, and stand", || {
        (0..3).all(|node| clock(&scene, node)["epoch"] == 2 && stands(node))
    });
    eventually("it is read everywhere", || read("us-east", Some(&later)).code == 0);
    let told = entries(&scene, 1, "clock.reset");
    let outcomes: Vec<_> = told.iter().map(|entry| entry["record"]["outcome"].clone()).collect();
    assert_eq!(outcomes, ["begun", "done", "begun", "done"], "{told:?}");
}

#[test]
fn a_clock_without_sources_is_not_reset() {
    let scene = Scene::with(FoundedMesh::of(3), 3, seed(35), &[]);
    let _nodes = scene.serve_all().expect("a fresh mesh starts");
    let refused = scene.mesh.ask("operator", &["clock", "reset", "--node", "us-east/n1"]);
    let why = refused.json["nodes"][0]["why"].as_str().unwrap_or_default();
    assert!(refused.code == 5 && why.contains("too few sources of time agree"), "{}", refused.text);
    assert_eq!(clock(&scene, 0)["epoch"], 0);
}

#[test]
fn the_commands_of_the_page_about_clocks_run_against_the_mesh_of_dev() {
    let commands: Vec<String> = fenced(PAGE)
        .into_iter()
        .filter(|(tag, _)| tag == "console")
        .flat_map(|(_, block)| block.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let commands: Vec<Vec<&str>> = commands
        .iter()
        .map(|line| line.strip_prefix("$ rhumb ").expect("a command").split(' ').collect())
        .collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    let mesh = DevMesh::start(&REGIONS.join(","), "off");
    for command in &commands {
        // A translation asks no mesh.
        let ran = match command[1] {
            "translate" => run(&mesh.data(), command),
            _ => mesh.rhumb(command),
        };
        match command[1] {
            "status" => {
                assert_eq!(ran.code, 0, "{}", ran.text);
                for region in REGIONS {
                    assert!(ran.text.contains(&format!("{region}/n1")), "{region}: {}", ran.text);
                }
            }
            "drill" | "translate" => assert_eq!(ran.code, 0, "{command:?}: {}", ran.text),
            // The nodes of `dev` have no sources of time, as the page says of those that refuse.
            "reset" => {
                assert!(ran.code == 5 && ran.text.contains("too few sources of time agree"), "{}", ran.text)
            }
            other => panic!("nobody knows what comes of clock {other}"),
        }
    }
}
