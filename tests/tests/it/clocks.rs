//! One node of a mesh has a wrong clock: it refuses strong paths and says so, the others go on, and it goes on by itself
//! when its clock is right again.

use rhumb_tests::cluster::{FoundedMesh, REGIONS, ask_admin, eventually};
use serde_json::{Value, json};

use crate::scene::{Scene, seed};

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
    eventually("it is in its audit log", || entries(&scene, 0, "clock.freeze").len() == 2);
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
    assert_eq!(long.code, 3, "{}", long.text);
    assert!(long.text.contains("expected 1ms to 60s"), "{}", long.text);
    let nobody = drill("client", &["--for", "1s"]);
    assert_eq!((nobody.code, &nobody.json["fault"]["kind"]), (3, &json!("unauthorized")), "{}", nobody.text);

    let told = entries(&scene, 1, "clock.drill");
    let outcomes: Vec<_> =
        told.iter().map(|entry| entry["record"]["outcome"].as_str().expect("a word")).collect();
    assert_eq!(outcomes, ["begun", "done", "begun", "failed"], "{told:?}");
    assert_eq!(told[1]["index"], done.json["entry"]);
    assert_eq!(told[0]["record"]["details"]["ahead_ms"], "-600000", "{told:?}");
}
