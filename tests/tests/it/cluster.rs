//! The real program, as a user meets it.

use std::path::Path;
use std::process::{Child, Command};

use rhumb_tests::cluster::{DevMesh, eventually, run, spawn};

const THREE: &str = "us-east,eu-central,ap-southeast";

#[test]
fn a_seat_is_held_confirmed_and_counted_from_another_region() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&[
        "pool",
        "create",
        "concert",
        "--supply",
        "100",
        "--weights",
        "us-east=50,eu-central=30,ap-southeast=20",
    ]);
    let held = mesh.ok(&["hold", "concert", "--qty", "2", "--region", "eu-central", "--key", "mine"]);
    let hold = held["hold"].as_str().expect("an id").to_owned();
    assert!(hold.starts_with("concert/eu-central/n1/"), "{hold}");
    let again = mesh.ok(&["hold", "concert", "--qty", "2", "--region", "eu-central", "--key", "mine"]);
    assert_eq!(again["hold"], hold.as_str(), "the same key never holds twice");
    let other = mesh.rhumb(&["hold", "concert", "--qty", "3", "--region", "eu-central", "--key", "mine"]);
    assert_eq!(
        (other.code, other.json["refused"]["code"].as_str()),
        (1, Some("key_reused")),
        "{}",
        other.text
    );
    mesh.ok(&["confirm", &hold]);
    let released = mesh.rhumb(&["release", &hold]);
    assert_eq!((released.code, released.json["refused"]["code"].as_str()), (1, Some("hold_confirmed")));
    let audit = mesh.ok(&["pool", "audit", "concert"]);
    assert_eq!((audit["sold"].as_u64(), audit["oversold"].as_u64()), (Some(2), Some(0)), "{audit}");
    for invariant in ["I1", "I2", "I3", "I4"] {
        assert_eq!(audit["invariants"][invariant], true, "{invariant} in {audit}");
    }
}

#[test]
fn a_load_makes_the_requests_of_a_file_and_refuses_one_with_faults() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "90"]);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/requests.csv");
    let load = |requests: &str, receipts: &str| {
        mesh.rhumb(&[
            "load",
            "escrow",
            "concert",
            "--requests",
            requests,
            "--receipts",
            receipts,
            "--abandon",
            "0",
            "--ttl",
            "60s",
        ])
    };
    let made = load(example, "receipts.jsonl");
    assert_eq!(made.code, 0, "{}", made.text);
    let of = |region: &str| made.json["regions"][region]["came"].as_u64();
    assert_eq!((made.json["came"].as_u64(), of("ap-southeast")), (Some(10), Some(4)), "{}", made.json);
    let audit = mesh.ok(&["pool", "audit", "concert", "--receipts", "receipts.jsonl"]);
    assert_eq!((audit["sold"].as_u64(), &audit["invariants"]["I5"]), (Some(18), &true.into()), "{audit}");
    std::fs::write(
        mesh.directory().join("bad.csv"),
        "at_ms,region,user,qty\n5,moon,ann,1\n1,us-east,ann,0\n",
    )
    .expect("a file");
    let refused = load("bad.csv", "none.jsonl");
    let told = refused.json["usage"]["message"].as_str().unwrap_or_default();
    assert_eq!(refused.code, 2, "{}", refused.text);
    for fault in ["line 2: region \"moon\"", "line 3: at_ms 1 comes after 5", "line 3: qty \"0\""] {
        assert!(told.contains(fault), "{fault} is not in {told}");
    }
}

#[test]
fn a_pool_with_terms_is_sold_beyond_its_supply_and_taken_back() {
    let mesh = DevMesh::start(THREE, "off");
    let create = ["pool", "create", "concert", "--supply", "10", "--debt", "3", "--per-customer", "8"];
    mesh.ok(&create);
    let hold = |qty: &str, who: &str| {
        mesh.rhumb(&["hold", "concert", "--qty", qty, "--region", "eu-central", "--customer", who])
    };
    let first = hold("8", "ann");
    assert_eq!((first.code, first.json["overdrawn"].as_u64()), (0, Some(0)), "{}", first.text);
    let refused = hold("1", "ann");
    assert_eq!((refused.code, refused.json["refused"]["code"].as_str()), (1, Some("customer_limit")));
    // Its units come from other nodes, which may take longer than one request waits.
    let mut second = hold("5", "bob");
    eventually("units from other nodes", || {
        if second.json["refused"]["code"] == "exhausted" {
            second = hold("5", "bob");
        }
        second.json["refused"]["code"] != "exhausted"
    });
    assert_eq!((second.code, second.json["overdrawn"].as_u64()), (0, Some(3)), "{}", second.text);
    let id = second.json["hold"].as_str().expect("an id");
    let (guessed, _) = id.rsplit_once('/').expect("a secret");
    let code =
        |answer: &rhumb_tests::cluster::Ran| answer.json["refused"]["code"].as_str().map(str::to_owned);
    assert_eq!(code(&mesh.rhumb(&["confirm", guessed])).as_deref(), Some("no_such_hold"));
    assert_eq!(code(&mesh.rhumb(&["return", id])).as_deref(), Some("hold_not_confirmed"));
    mesh.ok(&["confirm", id]);
    let audit = mesh.ok(&["pool", "audit", "concert"]);
    assert_eq!((audit["overdrawn"].as_u64(), audit["oversold"].as_u64()), (Some(3), Some(0)), "{audit}");
    let back = ["return", id, "--qty", "4", "--key", "refund"];
    assert_eq!(mesh.ok(&back)["left"], 1);
    assert_eq!(mesh.ok(&back)["left"], 1, "the same key returns once");
    assert_eq!(code(&mesh.rhumb(&["return", id, "--qty", "2"])).as_deref(), Some("return_too_much"));
    let audit = mesh.ok(&["pool", "audit", "concert"]);
    let sums = ["sold", "overdrawn", "returned", "held", "available"].map(|sum| audit[sum].as_u64());
    assert_eq!(sums, [Some(1), Some(0), Some(4), Some(8), Some(1)], "{audit}");
    let uncounted = "pool fair has no limit a customer";
    mesh.ok(&["pool", "create", "fair", "--supply", "10"]);
    let named = mesh.rhumb(&["hold", "fair", "--region", "us-east", "--customer", "ann"]);
    assert!(named.code == 0 && named.text.contains(uncounted), "{}", named.text);
    let nobody = mesh.rhumb(&["hold", "fair", "--region", "us-east"]);
    assert!(nobody.code == 0 && !nobody.text.contains("limit"), "{}", nobody.text);
    assert!(!first.text.contains("has no limit"), "a pool that counts: {}", first.text);
}

#[test]
fn advice_needs_no_mesh() {
    let folder = tempfile::tempdir().expect("a directory");
    let advice = run(folder.path(), &["-o", "json", "pool", "advise", "--rate", "95", "--units", "100"]);
    assert_eq!((advice.code, advice.json["enough"]["units"].as_u64()), (5, Some(118)), "{}", advice.text);
    let enough = run(folder.path(), &["-o", "json", "pool", "advise", "--rate", "95", "--units", "118"]);
    assert_eq!(enough.code, 0, "{}", enough.text);
}

#[test]
fn rights_move_to_where_they_are_asked_for() {
    let mesh = DevMesh::start(THREE, "published");
    mesh.ok(&["pool", "create", "shoes", "--supply", "30", "--weights", "us-east=1"]);
    // Every unit lies in us-east; a customer in Sydney gets one all the same.
    eventually("ap-southeast knows the pool", || {
        mesh.rhumb(&["pool", "show", "shoes", "--region", "ap-southeast"]).code == 0
    });
    eventually("a hold in ap-southeast", || {
        mesh.rhumb(&["hold", "shoes", "--qty", "1", "--region", "ap-southeast"]).code == 0
    });
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mesh = DevMesh::start("us-east:2,eu-central,ap-southeast", "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "1000"]);
    let holds: Vec<String> = ["us-east", "eu-central", "ap-southeast"]
        .iter()
        .cycle()
        .take(9)
        .map(|region| {
            let held = mesh.ok(&["hold", "concert", "--qty", "1", "--region", region]);
            held["hold"].as_str().expect("an id").to_owned()
        })
        .collect();
    for node in ["us-east/n1", "ap-southeast/n1"] {
        let pid = mesh.kill_9(node);
        eventually("the node is started again", || mesh.node(node)["pid"].as_u64() != Some(pid));
    }
    for hold in &holds {
        // A node that has just started refuses as unproven until its peers have vouched for its disk.
        eventually("the hold is confirmed", || mesh.rhumb(&["confirm", hold]).code == 0);
    }
    let audit = mesh.ok(&["pool", "audit", "concert"]);
    assert_eq!((audit["sold"].as_u64(), audit["oversold"].as_u64()), (Some(9), Some(0)), "{audit}");
}

#[test]
fn a_mesh_stopped_in_order_starts_again_on_its_data() {
    let mut mesh = DevMesh::start("us-east,eu-central", "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "10"]);
    let held = mesh.ok(&["hold", "concert", "--qty", "1", "--region", "us-east"]);
    mesh.restart("us-east,eu-central", "off");
    mesh.ok(&["confirm", held["hold"].as_str().expect("an id")]);
    assert_eq!(mesh.ok(&["pool", "audit", "concert"])["sold"], 1);
}

#[test]
fn refusals_faults_and_mistakes_have_exit_codes_of_their_own() {
    let mesh = DevMesh::start("us-east", "off");
    let code = |arguments: &[&str]| mesh.rhumb(arguments).code;
    assert_eq!(code(&["hold", "nothing", "--qty", "1", "--region", "us-east"]), 1, "refused: no such pool");
    assert_eq!(
        code(&["pool", "create", "x", "--supply", "5", "--class", "medical"]),
        1,
        "refused: no policy for it"
    );
    assert_eq!(code(&["hold", "x", "--qty", "one"]), 2, "usage");
    assert_eq!(code(&["confirm", "not-a-hold"]), 2, "usage");
    mesh.ok(&["pool", "create", "few", "--supply", "1"]);
    mesh.ok(&["hold", "few", "--qty", "1", "--region", "us-east"]);
    let exhausted = mesh.rhumb(&["hold", "few", "--qty", "1", "--region", "us-east"]);
    assert_eq!(
        (exhausted.code, exhausted.json["refused"]["code"].as_str()),
        (1, Some("exhausted")),
        "held, not sold"
    );
    let other = mesh.rhumb(&["pool", "create", "few", "--supply", "1", "--debt", "2"]);
    assert_eq!((other.code, other.json["refused"]["code"].as_str()), (1, Some("pool_exists")));
    for told in ["exists with other terms: supply 1, class inventory, ", "debt: it has 0, asked for is 2"] {
        assert!(other.text.contains(told), "{}", other.text);
    }
    mesh.ok(&["pool", "create", "fair", "--supply", "10", "--per-customer", "2"]);
    let load = ["load", "escrow", "fair", "--rate", "5", "--for", "1s", "--receipts", "fair.jsonl"];
    let nameless = mesh.rhumb(&load);
    assert!(nameless.code == 2 && nameless.text.contains("--requests FILE"), "{}", nameless.text);
    assert!(!mesh.directory().join("fair.jsonl").exists(), "nobody came");
    let identity = mesh.data().join("client");
    let identity = identity.to_str().expect("a path is text");
    let nobody = run(
        mesh.directory(),
        &["hold", "few", "--qty", "1", "-o", "json", "--endpoint", "127.0.0.1:1", "--identity", identity],
    );
    assert_eq!(nobody.code, 3, "nobody listens there: {}", nobody.text);
}

#[test]
fn what_a_hold_prints_is_what_a_confirmation_takes() {
    let mesh = DevMesh::start("us-east", "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "9"]);
    let data = mesh.data();
    let at = ["--data", data.to_str().expect("a path is text")];
    let held = run(mesh.directory(), &[&["hold", "concert", "--qty", "2"][..], &at].concat());
    assert!(held.code == 0 && held.text.contains("held 2 of concert for "), "{}", held.text);
    let confirmed = run(mesh.directory(), &[&["confirm", held.out.trim_end()][..], &at].concat());
    assert_eq!(confirmed.code, 0, "{}: {}", held.out, confirmed.text);
}

#[test]
fn the_demo_in_small_keeps_every_promise() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let demo = run(directory.path(), &["-o", "json", "demo", "--seats", "400", "--rate", "150"]);
    assert_eq!(demo.code, 0, "{}", demo.text);
    assert_eq!(
        (demo.json["sold"].as_u64(), demo.json["oversold"].as_u64()),
        (Some(400), Some(0)),
        "{}",
        demo.text
    );
    for invariant in ["I1", "I2", "I3", "I4", "I5"] {
        assert_eq!(demo.json["invariants"][invariant], true, "{invariant} in {}", demo.text);
    }
}

/// The pids of the nodes of a spawned mesh, once it is ready.
fn pids(mesh: &mut Child, directory: &Path, data: &str) -> Vec<u64> {
    let read = || std::fs::read_to_string(directory.join(data).join("ready.json")).unwrap_or_default();
    eventually("the mesh is ready", || {
        let log = || std::fs::read_to_string(directory.join("spawned.log")).unwrap_or_default();
        assert!(mesh.try_wait().expect("a child can be asked").is_none(), "it ended: {}", log());
        !read().is_empty()
    });
    let ready: serde_json::Value = serde_json::from_str(&read()).expect("JSON");
    let nodes = ready["regions"].as_array().expect("a list");
    nodes.iter().map(|node| node["pid"].as_u64().expect("a pid")).collect()
}

/// Whether a process of this pid runs (a zombie does not).
fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

#[test]
fn ctrl_c_stops_the_demo_and_leaves_no_process_behind() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut demo = spawn(directory.path(), &["demo", "--data", "demo"]);
    let nodes = pids(&mut demo, directory.path(), "demo");
    assert!(nodes.len() == 3 && nodes.iter().all(|pid| runs(*pid)), "{nodes:?}");
    signal("-INT", demo.id());
    eventually("the demo ends", || demo.try_wait().expect("a child can be asked").is_some());
    assert_ne!(demo.wait().expect("it has ended").code(), Some(0), "a sale that was stopped is no success");
    eventually("its nodes end", || !nodes.iter().any(|pid| runs(*pid)));
}

#[test]
fn nodes_end_even_when_their_supervisor_is_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut dev =
        spawn(directory.path(), &["dev", "--regions", "us-east,eu-central", "--wan", "off", "--data", "dev"]);
    let nodes = pids(&mut dev, directory.path(), "dev");
    signal("-KILL", dev.id());
    dev.wait().expect("it was killed");
    eventually("its nodes end", || !nodes.iter().any(|pid| runs(*pid)));
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

#[test]
fn a_restored_disk_sells_nothing_until_it_is_attested() {
    const TWO: &str = "us-east,eu-central";
    let sell = |mesh: &DevMesh, count: usize| {
        for _ in 0..count {
            let held = mesh.ok(&["hold", "concert", "--qty", "1", "--region", "eu-central"]);
            mesh.ok(&["confirm", held["hold"].as_str().expect("an id")]);
        }
    };
    let mut mesh = DevMesh::start(TWO, "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "100"]);
    let show = ["pool", "show", "concert", "--region", "eu-central"];
    eventually("eu-central has its share", || mesh.rhumb(&show).json["nodes"][0]["available"] == 50);
    sell(&mesh, 2);
    let disk = |data: &Path| data.join("nodes/eu-central-n1/data");
    mesh.restart_after(TWO, "off", |data| copy(&disk(data), &data.join("old")));
    sell(&mesh, 3);
    // The peer must have seen more of this disk than the copy has.
    let sold_at = mesh.status("eu-central/n1")["durable_commit"].as_u64().expect("a number");
    let seen = || mesh.status("us-east/n1")["witnessed"]["eu-central/n1"].as_u64() >= Some(sold_at);
    eventually("us-east has seen how far the disk has come", seen);
    mesh.restart_after(TWO, "off", |data| {
        std::fs::remove_dir_all(disk(data)).expect("the disk dies");
        copy(&data.join("old"), &disk(data));
    });
    let refused = mesh.rhumb(&["hold", "concert", "--qty", "1", "--region", "eu-central"]);
    assert_eq!(
        (refused.code, refused.json["refused"]["code"].as_str()),
        (1, Some("restored")),
        "{}",
        refused.text
    );
    mesh.ok(&["hold", "concert", "--qty", "1", "--region", "us-east"]);
    mesh.ok(&["pool", "attest", "concert", "--node", "eu-central/n1", "--sold", "5"]);
    sell(&mesh, 1);
    let audit = mesh.ok(&["pool", "audit", "concert"]);
    assert_eq!((audit["sold"].as_u64(), audit["oversold"].as_u64()), (Some(6), Some(0)), "{audit}");
}
