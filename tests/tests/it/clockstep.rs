//! The wall clock of one node of a mesh is stepped an hour, either way, while it serves.

use std::time::Duration;

use rhumb_tests::cluster::{FoundedMesh, ask_admin, eventually};
use rhumb_tests::powercut::Watched;
use serde_json::{Value, json};

use crate::scene::{Heights, Running, Scene, seed};

const HOUR_MS: i64 = 3_600_000;

/// A mesh of three under customers, whose certificates were issued two hours ago.
fn mesh_of_an_older_day(own_seed: u64) -> (Scene, Vec<Running>) {
    let mesh = FoundedMesh::unfounded(3);
    let outside = tempfile::tempdir().expect("a directory");
    let watched = Watched::over(mesh.directory(), outside.path()).expect("a directory to watch");
    watched.step_clock(-2 * HOUR_MS).expect("a page");
    let watching = watched.variables();
    mesh.found(&watching.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let mut scene = Scene::with(mesh, 3, seed(own_seed), &[]);
    let nodes = scene.open_shop();
    (scene, nodes)
}

/// Times of peers that a node has not taken.
fn refused(scene: &Scene, node: usize) -> u64 {
    let (_, page) = ask_admin(&scene.mesh.admin(node), "/metrics").expect("it is up");
    let line = page.lines().find_map(|line| line.strip_prefix("rhumb_clock_merges_refused_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {page}"))
}

fn height(scene: &Scene, node: usize) -> Heights {
    scene.height(node).expect("it is up")
}

/// Holds a unit at the node whose clock is stepped.
fn hold(scene: &Scene, ttl: &str, more: &[&str]) -> Value {
    let hold = ["hold", "concert", "--region", "us-east", "--ttl", ttl];
    let held = scene.mesh.ask("client", &[&hold[..], more].concat());
    assert_eq!(held.code, 0, "{}", held.text);
    held.json
}

fn confirmed(scene: &Scene, held: &Value) -> (i32, Value) {
    let ran = scene.mesh.ask("client", &["confirm", held["hold"].as_str().expect("an id")]);
    (ran.code, ran.json["refused"]["code"].clone())
}

fn says(node: &Running, what: &str) -> bool {
    node.serving.log().contains(what)
}

#[test]
fn a_clock_that_leaps_an_hour_ahead_is_not_believed_by_others_and_ends_short_holds() {
    let (mut scene, mut nodes) = mesh_of_an_older_day(21);
    let (short, long) = (hold(&scene, "10m", &[]), hold(&scene, "2h", &[]));
    let before: Vec<Heights> = (0..3).map(|node| height(&scene, node)).collect();
    let buying = scene.buy();
    nodes[0].watched.step_clock(HOUR_MS).expect("a page");
    eventually("the others do not take its times", || refused(&scene, 1) > 0 && refused(&scene, 2) > 0);
    eventually("they say so", || {
        nodes[1..]
            .iter()
            .all(|node| says(node, "node us-east/n1") && says(node, "a peer's time is not taken"))
    });
    scene.more_lines(100);
    drop(buying);
    let ahead = |node: usize| height(&scene, node).hybrid.0 - before[node].hybrid.0;
    assert!(ahead(0) >= HOUR_MS as u64, "its own time follows its clock");
    assert!(ahead(1) < HOUR_MS as u64 / 2 && ahead(2) < HOUR_MS as u64 / 2, "and nobody else's does");
    // A hold's end is a time, and by its node's clock that time is over: a plain answer, units given back.
    assert_eq!(confirmed(&scene, &short), (1, json!("hold_expired")));
    assert_eq!(confirmed(&scene, &long), (0, Value::Null));
    let audit = scene.mesh.ask("client", &["pool", "audit", "concert"]).json;
    assert_eq!((&audit["oversold"], &audit["invariants"]["I3"]), (&json!(0), &json!(true)), "{audit}");

    // Set right again, the node waits at its start for what it has told already, or refuses.
    let mut node = nodes.remove(0);
    node.serving.signal("KILL");
    node.serving.wait_end();
    let mut node = scene.serve(0, scene.watch(0));
    assert_eq!(node.serving.wait_end().code(), Some(3));
    let log = node.serving.log();
    assert!(
        log.contains("behind this node's last life: set it right") && log.contains("clock.catch_up"),
        "{log}"
    );
}

#[test]
fn a_clock_that_falls_an_hour_back_never_takes_time_back_and_ends_no_hold_early() {
    let (mut scene, nodes) = mesh_of_an_older_day(22);
    let (short, mine) = (hold(&scene, "10m", &[]), hold(&scene, "10m", &["--key", "mine"]));
    let before = height(&scene, 0);
    nodes[0].watched.step_clock(-HOUR_MS).expect("a page");
    let mut last = before;
    eventually("it does not take the others' times, and says so", || {
        let now = height(&scene, 0);
        assert!(now.hybrid >= last.hybrid, "{now:?} after {last:?}");
        last = now;
        refused(&scene, 0) > 0 && says(&nodes[0], "a peer's time is not taken")
    });
    assert!(u128::from(last.hybrid.0 - before.hybrid.0) < Duration::from_secs(60).as_millis(), "time crawls");
    // Keys that customers make now come from the future: refused by what is wrong, and nothing is held.
    eventually("new keys are from the future for it", || {
        let late = scene.mesh.ask("client", &["hold", "concert", "--region", "us-east"]);
        late.json["refused"]["code"] == "invalid" && late.text.contains("set the clock")
    });
    // What is held is held, and settled as ever.
    assert_eq!(hold(&scene, "10m", &["--key", "mine"])["hold"], mine["hold"]);
    assert_eq!(confirmed(&scene, &short), (0, Value::Null));
    assert_eq!(confirmed(&scene, &mine), (0, Value::Null));
    nodes[0].watched.step_clock(0).expect("a page");
    eventually("its clock is right again, and it holds", || {
        scene.mesh.ask("client", &["hold", "concert", "--region", "us-east"]).code == 0
    });
    scene.heights[0] = height(&scene, 0);
    let audit = scene.mesh.ask("client", &["pool", "audit", "concert"]).json;
    assert_eq!((&audit["oversold"], &audit["sold"]), (&json!(0), &json!(2)), "{audit}");
}
