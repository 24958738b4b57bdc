//! The power is cut: of the real program with real RocksDB, under customers, at a chosen call or at any
//! moment. Then the node starts on what the disk kept.

use std::fs;

use rhumb_tests::cluster::{FoundedMesh, run_with};
use rhumb_tests::powercut::{Loss, Watched};

use crate::scene::{Running, Scene, full, seed};

/// Watched calls that a start takes, at the first guess.
const START_CALLS: u64 = 50;

/// Lives of the only node of a mesh, each ended by a cut.
struct Lives {
    scene: Scene,
    start_calls: u64,
    /// How many of them came as far as to serve.
    served: usize,
}

impl Lives {
    fn begin(mut scene: Scene) -> Self {
        let nodes = scene.open_shop();
        scene.close(nodes);
        Self { scene, start_calls: START_CALLS, served: 0 }
    }

    /// One life: every third ends while the node starts.
    fn live(&mut self) -> Result<(), String> {
        let scene = &mut self.scene;
        let watched = scene.watch(0);
        if scene.rng.chance(0.3) {
            watched.stop_at(1 + scene.rng.below(self.start_calls)).expect("a page");
        }
        let mut node = scene.serve(0, watched);
        if scene.starts(0, &mut node)? {
            node.watched.stop_at(0).expect("a page");
            self.start_calls = node.watched.calls().expect("a page");
            scene.rises(0)?;
            scene.check()?;
            let buying = scene.buy();
            let ended = scene.cut_off(0, &mut node);
            drop(buying);
            ended?;
            self.served += 1;
        }
        scene.cut(0, node)
    }
}

#[test]
fn a_node_whose_power_is_cut_starts_again_with_all_that_it_had_answered() {
    let mut lives = Lives::begin(Scene::new(1, seed(1), &[]));
    for _ in 0..if full() { 300 } else { 24 } {
        lives.live().unwrap_or_else(|finding| panic!("{finding}"));
    }
    let Lives { scene, served, .. } = &mut lives;
    let _node = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}"));
    scene.check_all().unwrap_or_else(|finding| panic!("{finding}"));
    println!("{} cuts, {served} of them under customers, {} receipts checked", scene.cuts, scene.checks);
    assert!(*served * 2 > scene.cuts && scene.checks > 20 * *served, "too little was sold for a test");
}

/// One node of a mesh loses its power under customers, and comes back while the others go on.
fn cut_one(scene: &mut Scene, nodes: &mut Vec<Running>) -> Result<(), String> {
    let at = scene.rng.below(nodes.len() as u64) as usize;
    let buying = scene.buy();
    let mut node = nodes.remove(at);
    scene.cut_off(at, &mut node)?;
    scene.cut(at, node)?;
    let mut node = scene.serve(at, scene.watch(at));
    let ready = scene.starts(at, &mut node)?;
    nodes.insert(at, node);
    drop(buying);
    if !ready {
        return Err("a node that nobody cuts off does not start".into());
    }
    scene.rises(at)?;
    scene.check()
}

/// All nodes lose their power at once, under customers.
fn cut_all(scene: &mut Scene, nodes: &mut Vec<Running>) -> Result<(), String> {
    let buying = scene.buy();
    // Of one that does not answer just now, what it said last.
    let heights = (0..nodes.len()).map(|node| scene.height(node).unwrap_or(scene.heights[node])).collect();
    scene.heights = heights;
    nodes.iter().for_each(|node| node.serving.signal("KILL"));
    for (at, mut node) in nodes.drain(..).enumerate() {
        node.serving.wait_end();
        scene.cut(at, node)?;
    }
    drop(buying);
    *nodes = scene.serve_all()?;
    (0..nodes.len()).try_for_each(|node| scene.rises(node))?;
    scene.check()
}

#[test]
fn nodes_of_a_mesh_lose_their_power_one_by_one_and_all_at_once() {
    let mut scene = Scene::new(3, seed(2), &[]);
    let mut nodes = scene.open_shop();
    for round in 0..if full() { 60 } else { 6 } {
        let cut =
            if round % 3 == 2 { cut_all(&mut scene, &mut nodes) } else { cut_one(&mut scene, &mut nodes) };
        cut.unwrap_or_else(|finding| panic!("{finding}"));
    }
    scene.check_all().unwrap_or_else(|finding| panic!("{finding}"));
    println!("{} cuts, {} receipts checked", scene.cuts, scene.checks);
}

#[test]
fn a_node_that_does_not_sync_is_caught() {
    let mut lives = Lives::begin(Scene::new(1, seed(3), &[("RHUMB_TEST_CANARY", "no-sync")]));
    let found = (0..20).find_map(|_| lives.live().err());
    let found = found.expect("a store that does not sync loses what it answered");
    // Or, of parts of the log that came through, that one is missing which a later one names as durable.
    let caught = ["an answer was lost", "gone back", "is lost although"];
    assert!(caught.iter().any(|how| found.contains(how)), "{found}");
}

#[test]
fn a_mesh_that_was_founded_is_there_after_a_power_cut() {
    let mesh = FoundedMesh::unfounded(1);
    let outside = tempfile::tempdir().expect("a directory");
    let watched = Watched::over(mesh.directory(), outside.path()).expect("a directory to watch");
    let watching = watched.variables();
    mesh.found(&watching.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    assert_eq!(watched.explained().expect("a journal"), Vec::<String>::new());
    let kept = watched.disk().expect("a journal").cut(&Loss::All);
    kept.write(mesh.directory()).expect("the directory is written");
    let mut scene = Scene::with(mesh, 1, seed(4), &[]);
    let nodes = scene.open_shop();
    scene.close(nodes);
}

#[test]
fn a_policy_that_a_node_served_under_is_remembered_through_a_power_cut() {
    let mut scene = Scene::new(1, seed(5), &[]);
    let files =
        ["policy.toml", "policy.toml.sig"].map(|file| scene.mesh.directory().join("mesh/config").join(file));
    let older = files.each_ref().map(|file| fs::read(file).expect("a file"));
    let newer = String::from_utf8(older[0].clone()).expect("text").replace("version = 1", "version = 2");
    fs::write(&files[0], newer).expect("written");
    scene.mesh.ok(&["policy", "sign", "--key", "mesh/policy/operator.key", "mesh/config/policy.toml"]);

    let mut node = scene.serve_all().unwrap_or_else(|finding| panic!("{finding}")).remove(0);
    node.serving.signal("KILL");
    node.serving.wait_end();
    scene.lose(0, node, &Loss::All).unwrap_or_else(|finding| panic!("{finding}"));
    files.iter().zip(older).for_each(|(file, bytes)| fs::write(file, bytes).expect("written"));
    let mut node = scene.serve(0, scene.watch(0));
    assert_eq!(node.serving.wait_end().code(), Some(3), "{}", node.serving.log());
    assert!(node.serving.log().contains("an older policy"), "{}", node.serving.log());
}

/// A command is cut off before each of its changes and syncs, and the disk keeps an arbitrary part of them: the node has
/// the certificate that it had or the new one, whole, and the next renewal is as any other.
#[test]
fn a_certificate_that_was_being_renewed_is_the_one_before_or_the_new_one_whole() {
    let mesh = FoundedMesh::of(1);
    let (folder, renew) =
        ("mesh/nodes/us-east-n1/identity", ["cert", "renew", "--mesh", "mesh", "us-east/n1"]);
    let serial = || {
        mesh.ok(&["cert", "status", folder])["certificates"][0]["serial"]
            .as_str()
            .expect("a serial")
            .to_owned()
    };
    let mut rng = rhumb_core::rng::Seed::new(seed(8)).rng();
    let (mut before, mut cuts, mut kept, mut call) = (serial(), 0, 0, 0);
    let mut left = if full() { 10 } else { 1 };
    while left > 0 {
        call += 1;
        let outside = tempfile::tempdir().expect("a directory");
        let watched =
            Watched::over(&mesh.directory().join("mesh"), outside.path()).expect("a directory to watch");
        watched.stop_at(call).expect("a page");
        let variables = watched.variables();
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let whole = run_with(&variables, mesh.directory(), &renew).code == 0;
        assert_eq!(watched.explained().expect("a journal"), Vec::<String>::new());
        let loss =
            if rng.chance(0.3) { Loss::All } else { Loss::Drawn(rhumb_core::rng::Seed::new(rng.u64())) };
        let disk = watched.disk().expect("a journal");
        disk.cut(&loss).write(&mesh.directory().join("mesh")).expect("the directory is written");
        // What was said to be done is done.
        let after = serial();
        assert!(!whole || after != before, "a renewal is lost that was answered");
        kept += usize::from(after == before);
        before = after;
        cuts += 1;
        if whole {
            (left, call) = (left - 1, 0);
        }
    }
    println!("{cuts} cuts, {kept} of them left the certificate before");
    assert!(
        cuts > 20 && kept > 0 && kept + 2 < cuts,
        "{cuts} cuts, {kept} with the old one: too few for a test"
    );
    mesh.ok(&renew);
    let mut scene = Scene::with(mesh, 1, seed(8), &[]);
    let nodes = scene.open_shop();
    scene.close(nodes);
}
