//! A node of a mesh under load, attacked in every way of `tests/hostile/cases.py` by a program that is none of ours:
//! Python on `aioquic`. Each attack ends as that table says; nobody else notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rhumb_tests::cluster::{FoundedMesh, Serving, eventually, program, spawn};
use rhumb_transport::TransportSettings;
use serde_json::{Value, json};

use crate::documents::file;

/// Limits short enough for a test to wait for, and small enough to be reached by one.
const LIMITS: [(&str, &str); 6] = [
    ("RHUMB__TRANSPORT__HANDSHAKE_TIMEOUT", "3s"),
    ("RHUMB__TRANSPORT__STALL_LIMIT", "3s"),
    ("RHUMB__TRANSPORT__MAX_LARGE_FRAME", "4MiB"),
    ("RHUMB__TRANSPORT__LARGE_BUFFER", "16MiB"),
    ("RHUMB__TRANSPORT__IN_FLIGHT_BYTES", "8MiB"),
    ("RHUMB__TRANSPORT__IN_FLIGHT_BYTES_ALL", "64MiB"),
];
/// MiB by which the node may have grown in the end: what its own work keeps, and what the allocator does.
const MEMORY_MIB: u64 = 160;

const PERSONAL: &str = r#"
[classes.personal]
hold = ["eu-central"]
read = ["eu-central"]
carry = ["eu-central"]
"#;

fn attacker() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hostile")
}

/// A Python with the attacker's packages: beside the program, made by the first test that needs it, and anew
/// when the list of packages changes.
fn python() -> PathBuf {
    let wanted = fs::read_to_string(attacker().join("requirements.txt")).expect("a list of packages");
    let home = program().with_file_name("hostile");
    let (note, python) = (home.join("packages"), home.join("venv/bin/python"));
    if fs::read_to_string(&note).is_ok_and(|present| present == wanted) {
        return python;
    }
    fs::remove_dir_all(&home).ok();
    fs::create_dir_all(&home).expect("a folder");
    let run = |what: &str, command: &mut Command| {
        let ran = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {error}"));
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{what}:\n{said}");
    };
    let venv = home.join("venv");
    run(
        "the attacker needs Python with its module venv (Debian: apt-get install python3 python3-venv)",
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
    );
    run(
        "the attacker's packages (tests/hostile/requirements.txt) cannot be had from the package registry",
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary",
                ":all:",
            ])
            .arg("--requirement")
            .arg(attacker().join("requirements.txt")),
    );
    // Written last: an installation that was broken off is made anew.
    fs::write(&note, wanted).expect("written");
    python
}

/// A founded mesh whose third region the attacker has: its node does not run, its certificate is stolen.
fn founded() -> FoundedMesh {
    let mesh = FoundedMesh::of(3);
    let policy = mesh.directory().join("mesh/config/policy.toml");
    let text = fs::read_to_string(&policy).expect("a policy");
    fs::write(&policy, text + PERSONAL).expect("written");
    mesh.ok(&["policy", "sign", "--key", "mesh/policy/operator.key", "mesh/config/policy.toml"]);
    for name in ["thief", "guest"] {
        let (client, folder) = (format!("us-east/{name}"), format!("mesh/clients/us-east-{name}"));
        mesh.ok(&["cert", "issue", "--ca", "mesh/ca", "--client", &client, "--out", &folder]);
    }
    mesh.ok(&["cert", "revoke", "mesh/clients/us-east-thief", "--mesh", "mesh"]);
    mesh
}

/// A pool whose home is the node under attack: where that is depends on the name alone.
fn pool(mesh: &FoundedMesh) -> String {
    let node = mesh.admin(0);
    let asking = ["--endpoint", &node, "--identity", "mesh/operators/us-east-admin"];
    let at_home = |name: &String| {
        let create = ["pool", "create", name, "--supply", "100000"];
        let ran = mesh.rhumb(&[&create[..], &asking].concat());
        ran.code == 0 && ran.json["home"] == json!("us-east/n1")
    };
    let pool = (1..50).map(|number| format!("fair-{number}")).find(at_home);
    pool.expect("one of fifty names is at home at one of three nodes")
}

/// Customers at both nodes, until they are stopped.
fn customers(mesh: &FoundedMesh, pool: &str) -> Child {
    let endpoints = (0..2).map(|node| mesh.admin(node)).collect::<Vec<_>>().join(",");
    let load = format!(
        "load escrow {pool} --rate 20 --for 20m --abandon 0 --receipts r.jsonl -o json --endpoint {endpoints} \
         --identity mesh/clients/eu-central-app"
    );
    let customers = spawn(mesh.directory(), &load.split(' ').collect::<Vec<_>>());
    eventually("they buy", || {
        fs::read_to_string(mesh.directory().join("r.jsonl")).is_ok_and(|r| r.contains("sold"))
    });
    customers
}

/// What the customers say in the end.
fn report(mesh: &FoundedMesh, mut customers: Child) -> Value {
    let stopped = Command::new("kill").args(["-s", "INT", &customers.id().to_string()]).status();
    assert!(stopped.expect("kill runs").success());
    let ended = customers.wait().expect("they end");
    let said = fs::read_to_string(mesh.directory().join("spawned.log")).expect("a report");
    // Notes for people stand before it and after it.
    let object = said.find("{\n").unwrap_or_else(|| panic!("no report, {ended}: {said}"));
    let mut answers = serde_json::Deserializer::from_str(&said[object..]).into_iter::<Value>();
    answers.next().expect("an answer").expect("JSON")
}

/// Attacks; gives a line an attack.
fn attack(mesh: &FoundedMesh, under_attack: &Serving, pool: &str) -> String {
    let settings = fs::read_to_string(mesh.directory().join("mesh/config/global.toml")).expect("settings");
    let domain = settings.split("trust_domain = \"").nth(1).and_then(|rest| rest.split('"').next());
    let plan = json!({
        "node": mesh.admin(0),
        "admin": mesh.admin(0),
        "pid": under_attack.pid(),
        "mesh": mesh.directory().join("mesh"),
        "program": program(),
        "domain": domain.expect("a trust domain"),
        "pool": pool,
        "memory_mib": MEMORY_MIB,
    });
    let path = mesh.directory().join("plan.json");
    fs::write(&path, plan.to_string()).expect("written");
    let one = std::env::var("RHUMB_ATTACK").unwrap_or_default();
    let ran = Command::new(python())
        .arg("-B")
        .arg(attacker().join("attack.py"))
        .arg(&path)
        .arg(one)
        .stdin(Stdio::null())
        .output()
        .expect("the attacker starts");
    let said = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ran.status.success(), "{said}");
    said
}

/// What the attacked node said in its HELLO that it serves, save the targets' own, is fuzzed by name.
fn each_message_is_among_those_of_the_fuzzers(mesh: &FoundedMesh) {
    let served = fs::read_to_string(mesh.directory().join("served.json")).expect("the attacker wrote them");
    let served: Vec<String> = serde_json::from_str(&served).expect("names");
    let fuzzed = rhumb_tests::entries::messages();
    let missing: Vec<_> = served.iter().filter(|name| !fuzzed.contains(&&***name)).collect();
    let missing: Vec<_> = missing.into_iter().filter(|name| !name.starts_with("target.")).collect();
    assert!(served.len() > 10 && missing.is_empty(), "not in tests/src/entries/wire.rs: {missing:?}");
}

#[test]
fn hostile_bytes_end_in_typed_errors_and_are_counted_and_nobody_else_notices() {
    let mesh = founded();
    let program = Path::new(env!("CARGO_BIN_EXE_targets_node"));
    let mut nodes = vec![mesh.serve_with(program, 0, &LIMITS), mesh.serve(1, &LIMITS)];
    nodes.iter_mut().for_each(Serving::wait_ready);
    let pool = pool(&mesh);
    let customers = customers(&mesh, &pool);

    println!("{}", attack(&mesh, &nodes[0], &pool));
    each_message_is_among_those_of_the_fuzzers(&mesh);

    let report = report(&mesh, customers);
    for nothing in ["lost_holds", "lost_confirms", "unknown", "turned_away", "broken"] {
        assert_eq!(report[nothing], json!(0), "{nothing}: {report}");
    }
    assert_eq!(report["unserved"], json!({}), "every call was answered: {report}");
    assert!(report["sold"].as_u64().is_some_and(|sold| sold > 0), "{report}");
    for node in &mut nodes {
        assert_eq!(node.has_ended(), None, "{}", node.log());
        let log = node.log();
        let panicked: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains("panic")).collect();
        assert!(panicked.is_empty(), "{panicked:#?}");
        let page = node.get("/metrics");
        assert!(page.contains("rhumb_transport_dropped_total{what=\"deliveries_panicked\"} 0"), "{page}");
    }
}

#[test]
fn the_memory_that_the_threat_model_speaks_of_is_that_of_the_settings() {
    let settings = TransportSettings::default();
    let text = file("docs/security.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let paragraph = text.split("**Memory.**").nth(1).and_then(|rest| rest.split("###").next());
    let paragraph = paragraph.expect("a paragraph about memory");
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let thousands = |number: usize| {
        let digits = number.to_string();
        let (front, back) = digits.split_at(digits.len().saturating_sub(3));
        if front.is_empty() { back.to_owned() } else { format!("{front},{back}") }
    };
    let (each, all) = (mib(settings.in_flight_bytes), mib(settings.in_flight_bytes_all));
    for said in [
        format!("{each} of messages that wait to be handled"),
        format!("{each} of large answers that wait to be read"),
        format!("{} of large frames in part.", mib(settings.large_buffer / 4)),
        format!("{} received", mib(settings.connection_window as usize)),
        format!("{} sent", mib(settings.send_window as usize)),
        format!("{} calls", thousands(settings.in_flight)),
        format!("each of {} lanes {} of a frame", settings.lanes, mib(settings.max_frame)),
        format!("{} of answers", mib(settings.lane_queue_bytes)),
        format!("{} handshakes and {} of peers", settings.handshakes, settings.handshakes / 2),
        format!("{} clients (one principal {})", thousands(settings.max_clients), settings.max_clients / 2),
        format!("{all} in each direction"),
        format!("{} of large frames in part, of all", mib(settings.large_buffer)),
    ] {
        assert!(paragraph.contains(&said), "the settings say {said:?}, docs/security.md:\n{paragraph}");
    }
}
