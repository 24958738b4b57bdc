//! The audit log of the real program, pruned: two days pass for a mesh whose entries are kept for one.

use std::fs;
use std::time::Duration;

use rhumb::client::directory::Directory;
use rhumb::client::{Ask, MeshClient};
use rhumb_actors::audit::messages::ReadEntries;
use rhumb_actors::audit::rows;
use rhumb_storage::Family;
use rhumb_tests::cluster::{DevMesh, Ran, ask_admin, beside, eventually};
use serde_json::Value;

use crate::audit::{flip, published_of, tamper, verify, write};

const REGIONS: &str = "eu-central,us-east";
/// The node in whose region the operator stands.
const HOME: &str = "eu-central/n1";
const OFFSET: &str = "RHUMB_TEST_CLOCK_OFFSET_MS";
const TWO_DAYS_MS: &str = "172800000";
const SETTINGS: [(&str, &str); 2] =
    [("RHUMB__AUDIT__RETENTION", "1d"), ("RHUMB__AUDIT__CHECK_EVERY", "100ms")];
const WIDTH: u64 = 256;

/// Reads records of the log so many times, each of which is an entry of it.
fn read_often(mesh: &DevMesh, times: u64) {
    let read = async {
        let directory = Directory::read(&mesh.data()).expect("a ready file");
        let client = MeshClient::new(&mesh.data().join("operator"), directory).expect("an operator");
        let node = HOME.parse().expect("a node");
        let read = ReadEntries { from: 1 << 40, limit: 1, records: true, subject: String::new() };
        for _ in 0..times {
            let answer = client.ask(&node, &read, Duration::from_secs(10)).await;
            answer.expect("it answers").expect("an empty page");
        }
        client.close().await;
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(read);
}

fn number(view: &Value, name: &str) -> u64 {
    view[name].as_u64().unwrap_or_else(|| panic!("no {name}: {view}"))
}

/// The number of the last entry of a kind.
fn last_of(mesh: &DevMesh, action: &str) -> Value {
    let found = mesh.ok(&["audit", "query", "--action", action, "--records"]);
    found["found"].as_array().and_then(|all| all.last().cloned()).unwrap_or_else(|| panic!("none: {found}"))
}

/// Two days later: waits until all that is old is pruned. Gives the mark.
fn pruned_two_days_later(mesh: &mut DevMesh) -> u64 {
    mesh.restart_with(REGIONS, "off", &[(OFFSET, TWO_DAYS_MS)]);
    let mut mark = 0;
    eventually("all old bundles are pruned, and no other one", || {
        mark = number(&mesh.rhumb(&["audit", "checkpoint"]).json, "mark");
        // What was written before the start is old, and the rest, the node's own entries about it among them, is not.
        let start = number(&last_of(mesh, "node.start"), "index");
        mark == start / WIDTH * WIDTH
    });
    mark
}

fn verdict(mesh: &DevMesh, policy: &str, more: &[&str]) -> Ran {
    verify(mesh, &[&["--policy", policy, "--export", "log"], more].concat())
}

#[test]
fn a_pruned_log_says_where_it_begins_and_what_is_kept_is_verified_by_an_outsider() {
    let mut mesh = DevMesh::start_under(REGIONS, "off", &SETTINGS);
    let all = |view: &Value| {
        let witnesses = view["witnesses"].as_object().expect("a table");
        !witnesses.is_empty() && witnesses.values().all(|size| *size == view["published"])
    };
    let early = published_of(&mesh, HOME, all);
    let early = write(&mesh, "early.checkpoint", early["checkpoint"].as_str().expect("a note"));
    mesh.ok(&["audit", "prove", "1", "--out", "e1.tlog-proof"]);
    read_often(&mesh, 560);
    let before = published_of(&mesh, HOME, all);
    assert_eq!(before["mark"], 0, "nothing is old: {before}");
    let policy = write(&mesh, "auditors.policy", before["policy"].as_str().expect("a text"));
    let before = write(&mesh, "before.checkpoint", before["checkpoint"].as_str().expect("a note"));

    let mark = pruned_two_days_later(&mut mesh);
    assert!(mark >= 512, "{mark}");
    let mut told = Value::Null;
    eventually("it is told of when it is done", || {
        told = last_of(&mesh, "audit.prune");
        told["record"]["outcome"] == "done"
    });
    let record = &told["record"];
    assert_eq!(record["details"]["mark"], mark.to_string(), "{told}");
    assert_eq!(record["resource"], format!("entries 0 to {mark}"), "in one go: {told}");
    eventually("the second telling is published", || {
        number(&mesh.rhumb(&["audit", "checkpoint"]).json, "published") > number(&told, "index")
    });

    // What is below the mark is refused by name, and what is above goes on.
    let last = (mark - 1).to_string();
    for asked in [
        &["audit", "query", "--from", "0"][..],
        &["audit", "prove", "1"],
        &["audit", "prove", &last],
        &["audit", "prove", "1", &mark.to_string()],
        &["audit", "prove", "--since", &early],
        &["audit", "export", "--format", "json", "--from", &last, "--out", "none.json"],
    ] {
        let refused = mesh.rhumb(asked);
        assert_eq!(refused.json["refused"]["code"], "pruned", "{asked:?}: {}", refused.text);
        assert!(refused.text.contains(&format!("before {mark} were pruned")), "{}", refused.text);
    }
    let tail = mesh.ok(&["audit", "tail", "--count", "100000"]);
    let found = tail["found"].as_array().expect("a list");
    assert_eq!((&tail["mark"], &found[0]["index"]), (&mark.into(), &mark.into()));
    assert_eq!(found.len() as u64, number(&tail, "entries") - mark, "all from there on");
    mesh.ok(&["audit", "prove", &mark.to_string(), "--out", "first.tlog-proof"]);
    for proof in ["first.tlog-proof", "e1.tlog-proof"] {
        let proved = verify(&mesh, &["--policy", &policy, "--proof", proof]);
        assert_eq!(proved.code, 0, "{proof}: {}", proved.text);
    }
    mesh.ok(&["audit", "prove", "--since", &before, "--out", "grown.proof"]);
    let grown = verify(&mesh, &["--policy", &policy, "--proof", "grown.proof", "--since", &before]);
    assert_eq!(grown.code, 0, "{}", grown.text);

    exported(&mesh, &policy, (&early, &before), mark);
    metrics(&mesh, mark);
    found_and_named(&mut mesh);
}

/// An export of a pruned log begins at the mark, is verified from there, and whatever is changed in it is found.
fn exported(mesh: &DevMesh, policy: &str, (early, before): (&str, &str), mark: u64) {
    let told = mesh.ok(&["audit", "export", "--out", "log", "--records"]);
    assert_eq!((number(&told, "from"), number(&told, "mark")), (mark, mark), "{told}");
    assert_eq!(number(&told, "entries"), number(&told, "size") - mark, "{told}");
    let whole = verdict(mesh, policy, &["--since", before, "--from", &mark.to_string()]);
    assert_eq!((whole.code, &whole.json["mark"]), (0, &mark.into()), "{}", whole.text);
    assert!(whole.json["records"].as_u64() > Some(2), "{}", whole.text);
    let hidden = verdict(mesh, policy, &["--from", &(mark - 1).to_string()]);
    assert!(
        hidden.code == 5 && hidden.text.contains(&format!("begins with entry {mark}")),
        "{}",
        hidden.text
    );
    let older = verdict(mesh, policy, &["--since", early]);
    assert!(older.code == 5 && older.text.contains("not here to be compared"), "{}", older.text);

    let view = mesh.ok(&["audit", "checkpoint"]);
    let key = view["key"].as_str().expect("a key");
    let (first, gone) = (mark.to_string(), (mark - 1).to_string());
    let outsider = |entry: &str| -> Ran {
        let mut program = std::process::Command::new(beside("outsider"));
        program.args(["log", "--key", key, "--entry", entry]).current_dir(mesh.directory());
        program.output().expect("the program starts").into()
    };
    let judged = outsider(&first);
    assert_eq!(judged.code, 0, "{}", judged.text);
    assert!(judged.text.contains(&format!("tlog_tiles: each entry from {mark} on")), "{}", judged.text);
    assert!(outsider(&gone).text.contains("was pruned"), "{}", outsider(&gone).text);

    let log = mesh.directory().join("log");
    assert_eq!(fs::read_to_string(log.join("minimum-index")).expect("a mark"), format!("{mark}\n"));
    // The hash of a bundle that was pruned; an entry; a hash of an entry; the mark itself.
    let above = fs::read_dir(log.join("tile/1/000.p")).expect("a tile").next().expect("one").expect("read");
    let bundle = log.join(format!("tile/entries/{:03}", mark / WIDTH));
    let bundle = match bundle.exists() {
        true => bundle,
        false => {
            let parts = fs::read_dir(bundle.with_extension("p")).expect("a bundle");
            parts.last().expect("one").expect("read").path()
        }
    };
    for (file, byte) in [(above.path(), 3), (bundle, 40), (log.join("minimum-index"), 1)] {
        let kept = fs::read(&file).expect("a file");
        flip(&file, byte);
        let found = verdict(mesh, policy, &[]);
        assert_eq!(found.code, 5, "{}: {}", file.display(), found.text);
        fs::write(&file, kept).expect("written");
    }
    assert_eq!(verdict(mesh, policy, &[]).code, 0, "as it was");
}

fn metrics(mesh: &DevMesh, mark: u64) {
    let admin = mesh.node(HOME)["admin"].as_str().expect("a URL").replace("http://", "");
    let (_, page) = ask_admin(&admin, "/metrics").expect("it answers");
    let of = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {series}: {page}"))
    };
    assert_eq!(of("rhumb_audit_mark_entries"), mark as f64);
    assert!(of("rhumb_audit_log_entries") > of("rhumb_audit_mark_entries"));
    assert!(of("rhumb_audit_appends_total{action=\"audit.prune\"}") >= 2.0);
    assert!(of("rhumb_audit_witness_silence_seconds{peer=\"us-east/n1\"}") < 600.0);
    for well in ["rhumb_audit_broken", "rhumb_audit_faults", "rhumb_audit_accused_logs"] {
        assert_eq!(of(well), 0.0, "{well}");
    }
}

/// A check accepts a pruned log, and finds a flipped bit among the hashes of what was pruned; also after a start.
fn found_and_named(mesh: &mut DevMesh) {
    let sound = mesh.ok(&["audit", "fsck"]);
    let view = mesh.ok(&["audit", "checkpoint"]);
    assert!(number(&sound, "entries") <= number(&view, "entries") - number(&view, "mark"), "{sound}");
    mesh.restart_after(REGIONS, "off", |data| {
        tamper(&data.join("nodes/eu-central-n1"), |store, batch| {
            let key = rows::tile_key(1, 0);
            let mut tile = store.get(Family::Audit, &key).expect("readable").expect("it is there");
            tile[3] ^= 1;
            batch.put(Family::Audit, key, tile);
        });
    });
    let found = mesh.rhumb(&["audit", "fsck"]);
    let fault = found.json["faults"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!(found.code, 5, "{}", found.text);
    assert!(fault.starts_with("tile/1/000.p/") && fault.contains("for number 0 of its level"), "{fault}");
    eventually("it is found in the background too", || {
        mesh.rhumb(&["audit", "checkpoint"]).json["faults"][0] == fault.as_str()
    });
}
