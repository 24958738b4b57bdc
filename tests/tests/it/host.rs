//! What a node tells the host and the host a node: metrics, `rhumb doctor`, the unit of systemd.

use std::collections::BTreeMap;
use std::path::Path;

use rhumb_tests::cluster::{Serving, ask_admin_for, eventually, free_port, run};
use rhumb_tests::exposition::{Family, Form, read};
use serde_json::Value;

/// A founded mesh of one node.
fn founded(folder: &Path) -> String {
    let at = format!("127.0.0.1:{}", free_port());
    let nodes = format!("us-east/n1={at}");
    let ran = run(folder, &["mesh", "init", "--nodes", &nodes, "--trust-domain", "mesh.example", "mesh"]);
    assert_eq!(ran.code, 0, "{}", ran.text);
    at
}

fn page(at: &str, accept: &str, form: Form) -> BTreeMap<String, Family> {
    let (head, body) = ask_admin_for(at, "/metrics", accept).expect("it answers");
    let kind = match form {
        Form::OpenMetrics => "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        Form::Classic => "content-type: text/plain; version=0.0.4; charset=utf-8",
    };
    assert!(head.to_lowercase().contains(kind), "{head}");
    read(&body, form).unwrap_or_else(|why| panic!("{why}\n{body}"))
}

#[test]
fn a_node_tells_its_metrics_in_the_form_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = founded(folder.path());
    let mut node = Serving::start(folder.path(), "mesh/config", "us-east", "n1", &at);
    node.wait_ready();
    let ask = ["--endpoint", &at, "--identity", "mesh/operators/us-east-admin", "-o", "json"];
    let create = run(folder.path(), &[&["pool", "create", "concert", "--supply", "10"][..], &ask].concat());
    assert_eq!(create.code, 0, "{}", create.text);
    let hold = run(folder.path(), &[&["hold", "concert", "--qty", "2"][..], &ask].concat());
    assert_eq!(hold.code, 0, "{}", hold.text);

    let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = page(&at, prometheus, Form::OpenMetrics);
    let classic = page(&at, "*/*", Form::Classic);
    let names = |families: &BTreeMap<String, Family>| -> Vec<String> {
        families.keys().map(|name| name.trim_end_matches("_total").to_owned()).collect()
    };
    assert_eq!(names(&open), names(&classic), "both tell the same families");
    for name in names(&open) {
        assert!(name.starts_with("rhumb_") || name.starts_with("process_"), "{name}");
    }

    let calls = &classic["rhumb_rpc_server_call_duration_seconds"];
    let held = calls
        .samples
        .iter()
        .find(|sample| sample.name.ends_with("_count") && sample.labels["method"] == "escrow.Hold");
    let held = held.expect("the hold was counted");
    assert_eq!((held.labels["outcome"].as_str(), held.value), ("ok", 1.0));
    let only = |name: &str| classic.get(name).and_then(|family| family.samples.last()).map(|it| it.value);
    assert_eq!(only("rhumb_pool_held"), Some(2.0));
    assert!(only("rhumb_store_sync_duration_seconds").is_some_and(|seconds| seconds > 0.0));
    assert!(only("process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    assert_eq!(only("rhumb_clock_merges_refused_total"), Some(0.0));
}

fn checks(folder: &Path, arguments: &[&str]) -> (i32, BTreeMap<String, Value>) {
    let ran = run(folder, &[&["doctor", "-o", "json"], arguments].concat());
    let checks = ran.json["checks"].as_array().unwrap_or_else(|| panic!("{}", ran.text)).clone();
    let name = |check: &Value| check["name"].as_str().expect("a name").to_owned();
    (ran.code, checks.into_iter().map(|check| (name(&check), check)).collect())
}

#[test]
fn the_doctor_finds_what_is_wrong_with_a_node_and_only_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = founded(folder.path());
    let settings = ["--config", "mesh/config", "--region", "us-east"];
    // What depends on this machine (clock, buffers, memory) may be anything here.
    let ours = ["settings", "certificate", "data", "quic port", "admin port"];
    let verdicts = |found: &BTreeMap<String, Value>| -> Vec<String> {
        ours.iter().map(|name| found[*name]["verdict"].as_str().expect("a verdict").to_owned()).collect()
    };
    let (code, found) = checks(folder.path(), &settings);
    assert_eq!(verdicts(&found), ["ok"; 5], "{found:?}");
    assert!(found["disk"]["found"].as_str().is_some_and(|told| told.contains("syncs: p50")), "{found:?}");
    assert_eq!(code == 5, found.values().any(|check| check["verdict"] == "fail"), "{found:?}");

    let mut node = Serving::start(folder.path(), "mesh/config", "us-east", "n1", &at);
    node.wait_ready();
    let (_, found) = checks(folder.path(), &settings);
    assert_eq!(verdicts(&found), ["ok"; 5], "the ports are the node's own: {found:?}");
    drop(node);

    let taken = std::net::TcpListener::bind(&at);
    eventually("the node has let go of its port", || {
        taken.is_ok() || std::net::TcpListener::bind(&at).is_ok()
    });
    let _taken = taken.or_else(|_| std::net::TcpListener::bind(&at)).expect("free");
    std::fs::remove_dir_all(folder.path().join("mesh/nodes/us-east-n1/data/hot")).expect("there");
    let identity = folder.path().join("mesh/nodes/us-east-n1/identity/identity.pem");
    std::fs::copy(folder.path().join("mesh/clients/us-east-app/identity.pem"), identity).expect("copied");
    let (code, found) = checks(folder.path(), &settings);
    assert_eq!(
        (code, verdicts(&found)),
        (5, ["ok", "fail", "fail", "ok", "fail"].map(str::to_owned).to_vec())
    );
    let advice = found["certificate"]["advice"].as_str().expect("advice");
    assert!(advice.contains("rhumb cert issue --ca DIR --node us-east/n1 --renew"), "{advice}");

    std::fs::write(folder.path().join("mesh/config/us-east.toml"), "[log]\nburst = 0\n").expect("written");
    let (code, found) = checks(folder.path(), &settings);
    assert_eq!((code, found["settings"]["verdict"].as_str()), (5, Some("fail")), "{found:?}");
    let (_, alone) = checks(folder.path(), &[]);
    assert!(alone.contains_key("disk") && !alone.contains_key("settings"), "{alone:?}");
}

/// The directives of a unit, each with all its values.
fn directives(unit: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let lines = unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '[']));
    for line in lines {
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no directive: {line}"));
        found.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    found
}

#[test]
fn the_unit_agrees_with_the_program_that_it_runs() {
    let unit = include_str!("../../../contrib/systemd/rhumb@.service");
    let unit = directives(unit);
    let one = |name: &str| unit.get(name).and_then(|values| values.first()).map_or("", String::as_str);
    let seconds = |name: &str| one(name).parse::<u64>().unwrap_or_else(|_| panic!("{name}={}", one(name)));
    // What is built in, from the page of settings.
    let reference = run(Path::new("."), &["config", "reference"]).text;
    let built_in = |key: &str| {
        let row = reference.lines().find(|line| line.starts_with(&format!("| `{key}`"))).expect("a key");
        let value = row.split(" | ").nth(2).expect("built in").trim_matches(['`', '"', ' ']);
        let (number, unit) = value.split_at(value.len() - 1);
        let each = ["s", "m"].iter().position(|known| *known == unit).map(|i| [1, 60][i]);
        number.parse::<u64>().ok().zip(each).map(|(n, each)| n * each).unwrap_or_else(|| panic!("{row}"))
    };
    assert_eq!((one("Type"), one("NotifyAccess"), one("KillSignal")), ("notify", "main", "SIGTERM"));
    // It says that it is well each quarter of WatchdogSec, so that systemd may have waited as long already.
    let waited = seconds("WatchdogSec").div_ceil(4);
    let last_words = 1;
    let ends_after = built_in("supervisor.watchdog") + waited + last_words;
    assert!(seconds("WatchdogSec") > ends_after, "it is killed before it says why");
    assert!(seconds("TimeoutStopSec") > built_in("supervisor.stop_within"), "it is killed in its stop");
    let waits = built_in("clock.catch_up") + built_in("supervisor.crash_wait");
    assert!(seconds("TimeoutStartSec") > waits, "it is killed while it waits");
    assert!(seconds("LimitNOFILE") >= 16_384, "what the doctor asks for");
    assert_eq!((one("Restart"), one("RestartPreventExitStatus")), ("on-failure", "2"));
    assert!(seconds("RestartMaxDelaySec") > seconds("RestartSec") && seconds("RestartSteps") > 0);
    for (name, value) in [
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("SystemCallFilter", "@system-service"),
        ("StateDirectory", "rhumb rhumb-audit-keys"),
        ("User", "rhumb"),
    ] {
        assert!(unit.contains_key(name) && one(name) == value, "{name}={}", one(name));
    }
}

#[test]
fn the_unit_runs_the_node_that_its_instance_names() {
    let unit = directives(include_str!("../../../contrib/systemd/rhumb@.service"));
    // As systemd expands it, with a program in the node's place that prints what it is given.
    let line = unit["ExecStart"][0].replace("%i", "eu-central:n1").replace("%%", "%").replace("$$", "$");
    let script =
        line.strip_prefix("/bin/sh -c '").and_then(|rest| rest.strip_suffix('\'')).expect("a shell's");
    let script = script.replace("/usr/local/bin/rhumb", "echo");
    let ran = std::process::Command::new("/bin/sh").args(["-c", &script.replace("exec ", "")]).output();
    let said = String::from_utf8(ran.expect("a shell").stdout).expect("text");
    assert_eq!(said.trim_end(), "serve --config /etc/rhumb --region eu-central --node n1");
}
