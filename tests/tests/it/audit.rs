//! The audit log of the real program: what was done is in it, cosigned by the other regions, and an outsider
//! verifies it; what is changed behind its back is found, and a rewritten history is caught.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rhumb_actors::audit::rows;
use rhumb_storage::rocks::RocksSettings;
use rhumb_storage::{Batch, Family, RocksEngine, Store};
use rhumb_tests::cluster::{DevMesh, Ran, beside, eventually, run};
use serde_json::Value;

const THREE: &str = "us-east,eu-central,ap-southeast";
/// The region in which `rhumb dev` has its operator, and the node there.
const HOME: &str = "ap-southeast/n1";
const OPERATOR: &str = "operator ap-southeast/dev";

/// Waits until a node's log is published as a whole, and gives how it stands.
fn published(mesh: &DevMesh, holds: impl Fn(&Value) -> bool) -> Value {
    published_of(mesh, HOME, holds)
}

pub(crate) fn published_of(mesh: &DevMesh, node: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut view = Value::Null;
    eventually("a checkpoint is published", || {
        view = mesh.rhumb(&["audit", "checkpoint", "--node", node]).json;
        view["published"].as_u64() > Some(0) && view["published"] == view["entries"] && holds(&view)
    });
    view
}

fn cosigned_by_both(view: &Value) -> bool {
    let witnesses = view["witnesses"].as_object().expect("a table");
    witnesses.len() == 2 && witnesses.values().all(|size| *size == view["published"])
}

pub(crate) fn write(mesh: &DevMesh, name: &str, text: &str) -> String {
    let path = mesh.directory().join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("a path is text").to_owned()
}

/// Runs a command that knows no mesh.
pub(crate) fn verify(mesh: &DevMesh, arguments: &[&str]) -> Ran {
    let mut all = vec!["audit", "verify", "-o", "json"];
    all.extend(arguments);
    run(mesh.directory(), &all)
}

pub(crate) fn flip(path: &Path, byte: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[byte] ^= 1;
    fs::write(path, bytes).expect("a file");
}

#[test]
fn what_was_done_is_in_the_log_and_an_outsider_verifies_it_also_after_an_erasure() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "100"]);
    let view = published(&mesh, cosigned_by_both);
    let policy = write(&mesh, "auditors.policy", view["policy"].as_str().expect("a text"));
    let before = write(&mesh, "before.checkpoint", view["checkpoint"].as_str().expect("a note"));

    // The pool's home may be any node; every node tells of its own start.
    let found = mesh.ok(&["audit", "query", "--node", HOME, "--action", "node.start", "--records"]);
    let start = &found["found"][0];
    assert_eq!(start["record"]["actor"], format!("node {HOME}"), "{found}");
    let index = start["index"].to_string();
    mesh.ok(&["audit", "prove", &index, "--out", "start.tlog-proof"]);
    let proof = ["--policy", &policy, "--proof", "start.tlog-proof"];
    let verdict = verify(&mesh, &proof).json;
    assert_eq!((&verdict["proved"], &verdict["entry"]["action"]), (&true.into(), &"node.start".into()));
    assert!(!verdict["cosigned"].as_object().expect("a table").is_empty(), "{verdict}");

    // The reading of records is told, before they are shown.
    let reads = mesh.ok(&["audit", "query", "--action", "audit.read", "--subject", OPERATOR, "--records"]);
    assert_eq!(reads["found"][0]["record"]["actor"], OPERATOR, "{reads}");
    let foreign = mesh.rhumb(&["audit", "tail", "--records", "--node", "eu-central/n1"]);
    assert_eq!((foreign.code, foreign.json["refused"]["code"].as_str()), (1, Some("not_shown")));

    published(&mesh, cosigned_by_both);
    // Several by one proof, a range, and that it only grew.
    mesh.ok(&["audit", "prove", "2", "0", "--out", "two.batch-proof"]);
    let verdict = verify(&mesh, &["--policy", &policy, "--proof", "two.batch-proof"]).json;
    let numbers: Vec<_> =
        verdict["entries"].as_array().expect("a list").iter().map(|one| &one["index"]).collect();
    assert_eq!(numbers, [0, 2], "{verdict}");
    let range = mesh.ok(&["audit", "prove", "--range", "0..3", "--out", "three.batch-proof"]);
    assert_eq!(range["indices"], serde_json::json!([0, 1, 2]), "{range}");
    let three = mesh.directory().join("three.batch-proof");
    let text = fs::read_to_string(&three).expect("a proof").replacen("\n1 ", "\n9 ", 1);
    fs::write(&three, text).expect("written");
    assert_eq!(verify(&mesh, &["--policy", &policy, "--proof", "three.batch-proof"]).code, 5);
    let beyond = mesh.rhumb(&["audit", "prove", "0", "999999"]);
    assert_eq!(beyond.json["refused"]["code"], "not_there", "{}", beyond.text);
    mesh.ok(&["audit", "prove", "--since", &before, "--out", "grown.proof"]);
    let grown = ["--policy", &policy, "--proof", "grown.proof", "--since", &before];
    assert!(verify(&mesh, &grown).json["continues"].as_u64() > Some(0));
    assert_eq!(verify(&mesh, &grown[..4]).code, 5, "growth from nothing is nothing");

    mesh.ok(&["audit", "export", "--out", "log", "--records"]);
    let export = ["--policy", &policy, "--export", "log", "--since", &before];
    let verdict = verify(&mesh, &export).json;
    assert!(verdict["records"].as_u64() > Some(2) && verdict["continues"].as_u64() > Some(0), "{verdict}");
    let bundles = fs::read_dir(mesh.directory().join("log/tile/entries/000.p")).expect("a bundle");
    let bundle = bundles.last().expect("one").expect("readable").path();
    flip(&bundle, 40);
    let refused = verify(&mesh, &export);
    assert_eq!(refused.code, 5, "{}", refused.text);

    let erased = mesh.ok(&["audit", "erase-subject", OPERATOR]);
    assert!(erased["key"].is_string(), "{erased}");
    let reads =
        mesh.ok(&["audit", "query", "--action", "audit.read", "--to", &index_of(&erased), "--records"]);
    assert_eq!(reads["found"][0]["shut"], true, "{reads}");
    let sound = mesh.ok(&["audit", "fsck"]);
    assert!(sound["entries"].as_u64() > sound["opened"].as_u64(), "{sound}");
    assert_eq!(verify(&mesh, &proof).code, 0);
    let fresh = mesh.ok(&["audit", "checkpoint", "--fresh"]);
    let nonce = format!("nonce {}", fresh["nonce"].as_str().expect("a nonce"));
    assert!(fresh["checkpoint"].as_str().is_some_and(|note| note.contains(&nonce)), "{fresh}");
}

fn index_of(erased: &Value) -> String {
    erased["entry"].to_string()
}

#[test]
fn with_a_region_frozen_the_log_goes_on_and_says_how_far_it_is_cosigned() {
    let mesh = DevMesh::start(THREE, "off");
    let before = published(&mesh, cosigned_by_both);
    mesh.signal("eu-central/n1", "STOP");
    mesh.ok(&["audit", "tail", "--records"]);
    let view = published(&mesh, |view| view["entries"].as_u64() > before["entries"].as_u64());
    let witnesses = view["witnesses"].as_object().expect("a table");
    let of = |region: &str| {
        let (_, size) = witnesses.iter().find(|(name, _)| name.contains(region)).expect("a witness");
        size.as_u64()
    };
    assert_eq!(of(".us-east."), view["published"].as_u64(), "{view}");
    assert!(of(".eu-central.") < view["published"].as_u64(), "{view}");
    mesh.signal("eu-central/n1", "CONT");
    published(&mesh, cosigned_by_both);
}

/// Changes the hot store of a stopped node, whose folder this is.
pub(crate) fn tamper(node: &Path, change: impl FnOnce(&Store<RocksEngine>, &mut Batch)) {
    let hot: PathBuf = node.join("data/hot");
    let engine = RocksEngine::open(&hot, &RocksSettings::default(), false).expect("its store");
    let (store, mut batch) = (Store::open(engine).expect("a sound store"), Batch::new());
    change(&store, &mut batch);
    store.write(&batch).expect("written");
    store.sync().expect("synced");
}

#[test]
fn a_flipped_bit_is_found_and_named_and_a_rewritten_history_is_caught_by_a_witness() {
    let mut mesh = DevMesh::start(THREE, "off");
    published(&mesh, cosigned_by_both);
    mesh.restart_after(THREE, "off", |data| {
        tamper(&data.join("nodes/ap-southeast-n1"), |store, batch| {
            let key = rows::body_key(0);
            let mut body = store.get(Family::Audit, &key).expect("readable").expect("it is there");
            *body.last_mut().expect("bytes") ^= 1;
            batch.put(Family::Audit, key, body);
        });
    });
    let found = mesh.rhumb(&["audit", "fsck"]);
    let fault = found.json["faults"][0].as_str().unwrap_or_default().to_owned();
    assert_eq!((found.code, found.json["sound"].as_bool()), (5, Some(false)), "{}", found.text);
    assert!(fault.starts_with("the body of entry 0: it was changed"), "{fault}");
    // Who reads it is told that too, and not that its subject was erased.
    let shown = mesh.ok(&["audit", "query", "--to", "1", "--records"]);
    let (shut, changed) = (&shown["found"][0]["shut"], &shown["found"][0]["changed"]);
    assert!(shut.is_null() && changed == true, "{shown}");
    let out = ["audit", "export", "--format", "json", "--records", "--out", "changed.jsonl"];
    assert_eq!(mesh.ok(&out)["changed"], 1);
    eventually("it is found in the background too", || {
        let view = mesh.rhumb(&["audit", "checkpoint"]);
        view.code == 5 && view.json["faults"][0] == fault.as_str()
    });

    // The node's owner changes an entry, and takes away what was signed of it.
    published(&mesh, cosigned_by_both);
    mesh.restart_after(THREE, "off", |data| {
        tamper(&data.join("nodes/ap-southeast-n1"), |store, batch| {
            let key = rows::entry_key(0);
            let mut entry = store.get(Family::Audit, &key).expect("readable").expect("it is there");
            *entry.last_mut().expect("bytes") ^= 1;
            batch.put(Family::Audit, key, entry);
            batch.delete(Family::Audit, rows::SIGNED).delete(Family::Audit, rows::PUBLISHED);
        });
    });
    // One honest witness is enough: once it says so the log signs nothing more, and the other may not have been
    // asked by then.
    let has_evidence = |witness: &&str| {
        let view = mesh.rhumb(&["audit", "checkpoint", "--node", witness]);
        let accused = view.json["accused"][0].as_str().unwrap_or_default().to_owned();
        view.code == 5 && accused.ends_with("/audit/ap-southeast/n1")
    };
    eventually("a witness has evidence", || ["eu-central/n1", "us-east/n1"].iter().any(has_evidence));
    eventually("the log that lies signs nothing more", || {
        let view = mesh.rhumb(&["audit", "checkpoint", "--node", HOME]);
        view.code == 5 && view.json["broken"].is_string()
    });
    let proof = mesh.rhumb(&["audit", "prove", "0"]);
    assert_ne!(proof.code, 0, "nothing of it is published: {}", proof.text);
}

#[test]
fn what_one_log_signed_stands_in_anothers_and_both_are_verified_together() {
    let mut mesh = DevMesh::start("eu-central,us-east", "off");
    let home = TWO[0];
    let both =
        |view: &Value| view["cosigned"].as_object().is_some_and(|of| of.values().all(|size| *size != 0));
    published_of(&mesh, home, |view| {
        both(view) && view["cosigned"].as_object().map(serde_json::Map::len) == Some(1)
    });
    mesh.restart("eu-central,us-east", "off");
    // The node in the operator's region told of the other one's root when it stopped.
    let told = mesh.ok(&["audit", "query", "--action", "checkpoint.cosigned", "--records"]);
    let record = &told["found"][0]["record"];
    assert!(
        record["resource"].as_str().is_some_and(|origin| origin.ends_with("/audit/us-east/n1")),
        "{told}"
    );
    let entries: u64 = record["details"]["entries"].as_str().and_then(|n| n.parse().ok()).expect("a number");
    let last = told["found"][0]["index"].as_u64().expect("a number");
    published_of(&mesh, home, |view| view["published"].as_u64() > Some(last));
    mesh.ok(&["audit", "export", "--out", "witness", "--records"]);
    let other = published_of(&mesh, TWO[1], |view| view["published"].as_u64() >= Some(entries));
    let policy = write(&mesh, "auditors.policy", other["policy"].as_str().expect("a text"));
    mesh.ok(&["audit", "export", "--out", "log", "--node", TWO[1]]);
    let verdict = verify(&mesh, &["--policy", &policy, "--export", "log", "--seen-by", "witness"]);
    assert!(verdict.code == 0 && verdict.json["seen"].as_u64() > Some(0), "{}", verdict.text);
}

#[test]
fn regions_certify_the_policy_one_after_the_other_and_a_fork_is_refused() {
    let mesh = DevMesh::start("eu-central,us-east", "off");
    let keys = TWO.map(|node| {
        let view = mesh.ok(&["audit", "checkpoint", "--node", node]);
        view["key"].as_str().expect("a key").to_owned()
    });
    let keys = write(&mesh, "regions.keys", &keys.join("\n"));
    let first = mesh.ok(&["audit", "certify", "policy", "--out", "1.certificate"]);
    assert_eq!(first["signed"].as_array().map(Vec::len), Some(2), "{first}");
    let policy = fs::read(mesh.data().join("config/policy.toml")).expect("a policy");
    let digest = rhumb_verify::hash::sha256(&[&policy]);
    assert_eq!((&first["number"], &first["value"]), (&1.into(), &digest.to_string().into()));
    for node in TWO {
        let told = mesh.ok(&["audit", "query", "--action", "statement.sign", "--node", node]);
        assert_eq!(told["found"].as_array().map(Vec::len), Some(1), "{told}");
    }

    sign(&mesh, 2, CLOSED);
    let second =
        mesh.ok(&["audit", "certify", "policy", "--after", "1.certificate", "--out", "2.certificate"]);
    assert_eq!(second["number"], 2, "{second}");
    let verify = |certificate: &str, more: &[&str]| {
        let all =
            [&["audit", "certificate", certificate, "--keys", &keys, "--need", "2", "-o", "json"], more];
        run(mesh.directory(), &all.concat())
    };
    let follows = verify("2.certificate", &["--after", "1.certificate"]);
    assert_eq!((follows.code, follows.json["certified"].as_bool()), (0, Some(true)), "{}", follows.text);
    let back = verify("1.certificate", &["--after", "2.certificate"]);
    assert_eq!(back.code, 5, "{}", back.text);
    let three =
        run(mesh.directory(), &["audit", "certificate", "2.certificate", "--keys", &keys, "--need", "3"]);
    assert_eq!(three.code, 5, "{}", three.text);
    // A second chain, which would be a fork, is signed by nobody.
    let fork = write(&mesh, "other.certificate", &{
        let text = fs::read_to_string(mesh.directory().join("1.certificate")).expect("a certificate");
        text.replacen("\n1\n", "\n0\n", 1)
    });
    let forked = mesh.rhumb(&["audit", "certify", "policy", "--after", &fork]);
    assert_eq!(forked.code, 5, "{}", forked.text);
    assert!(forked.text.contains("would be a fork"), "{}", forked.text);
    // A checkpoint's certificate: what the other region cosigned last of this node's log.
    eventually("both know one checkpoint", || {
        let said = mesh.rhumb(&["audit", "certify", "checkpoint", "--node", TWO[0]]);
        said.code == 0 && said.json["kind"] == "checkpoint"
    });
}

#[test]
fn a_peer_that_lost_its_key_is_believed_again_when_an_operator_says_so() {
    let mut mesh = DevMesh::start("eu-central,us-east", "off");
    let [home, peer] = TWO;
    let cosigned = |view: &Value| {
        let witnesses = view["witnesses"].as_object().expect("a table");
        !witnesses.is_empty() && witnesses.values().all(|size| *size == view["published"])
    };
    published_of(&mesh, peer, cosigned);
    published_of(&mesh, home, cosigned);
    mesh.restart_after("eu-central,us-east", "off", |data| {
        let key = data.join("nodes/us-east-n1/audit-keys/us-east.n1/audit.key");
        fs::remove_file(key).expect("a key is lost");
    });
    let standing = |node: &str| mesh.rhumb(&["audit", "checkpoint", "--node", node]).json;
    eventually("another key is refused", || standing(home)["refused"][0] == peer);
    let (ours, theirs) = (standing(home), standing(peer));
    let [ours, key] = [&ours, &theirs].map(|view| view["key"].as_str().expect("a key").to_owned());
    let replace = |key: &str| mesh.rhumb(&["audit", "replace-key", peer, "--key", key]);
    let refused = replace(&ours);
    assert_eq!(refused.json["refused"]["code"], "invalid", "{}", refused.text);
    let foreign = mesh.rhumb(&["audit", "replace-key", home, "--key", &ours, "--node", peer]);
    assert_eq!(
        foreign.json["fault"]["kind"], "unauthorized",
        "of its own region's operators: {}",
        foreign.text
    );
    let replaced = replace(&key);
    assert_eq!(replaced.code, 0, "{}", replaced.text);
    assert_ne!(replaced.json["before"], key.as_str());
    let again = replace(&key);
    assert!(again.text.contains("is the one that is pinned"), "{}", again.text);

    for node in TWO {
        published_of(&mesh, node, cosigned);
    }
    assert_eq!(standing(home)["refused"], serde_json::json!([]));
    let told = mesh.ok(&["audit", "query", "--action", "key.replace", "--records"]);
    let record = &told["found"][1]["record"];
    assert_eq!(
        (&record["outcome"], &record["resource"]),
        (&"done".into(), &"node us-east/n1".into()),
        "{told}"
    );
    let kept = record["details"]["cosigned"].as_str().unwrap_or_default();
    assert!(kept.contains("/audit/us-east/n1\n"), "what was cosigned under the lost key: {record}");
    let theirs = mesh.ok(&["audit", "query", "--action", "key.changed", "--node", peer]);
    assert_eq!(theirs["found"].as_array().map(Vec::len), Some(1), "the node itself tells of it: {theirs}");
    mesh.ok(&["audit", "fsck"]);
    // It is so after a start too.
    mesh.restart("eu-central,us-east", "off");
    for node in TWO {
        published_of(&mesh, node, cosigned);
    }
    mesh.ok(&["audit", "fsck"]);
}

/// The border is closed: stock may lie in one region alone.
const CLOSED: &str = r#"
[classes.inventory]
hold = ["eu-central"]
read = ["eu-central"]
carry = ["eu-central"]
"#;
/// And opened for what lies beyond it: units come home, and the words about them go there and back.
const OPENED: &str = r#"
[[exceptions]]
class = "inventory"
from = "us-east"
to = "eu-central"
reason = "stock is brought home, approved by the data protection officer"
expires = 2096-07-31T00:00:00Z

[[exceptions]]
class = "inventory"
from = "eu-central"
to = "us-east"
reason = "the stock that is brought home is asked for and acknowledged"
expires = 2096-07-31T00:00:00Z
"#;
/// The nodes of a mesh of two regions, that in which the operator stands first.
const TWO: [&str; 2] = ["eu-central/n1", "us-east/n1"];

/// Has a mesh go on under this policy, signed.
fn sign(mesh: &DevMesh, version: u64, classes: &str) {
    let config = mesh.data().join("config");
    let (file, key) = (config.join("policy.toml"), config.join("operator.key"));
    let text = fs::read_to_string(&file).expect("a policy");
    let head = text.split("[classes").next().expect("its jurisdictions");
    let head = head.replace(&format!("version = {}", version - 1), &format!("version = {version}"));
    fs::write(&file, head + classes).expect("written");
    let (file, key) = (file.to_str().expect("text"), key.to_str().expect("text"));
    let signed = run(mesh.directory(), &["policy", "sign", "--key", key, file]);
    assert_eq!(signed.code, 0, "{}", signed.text);
    for node in TWO {
        mesh.signal(node, "HUP");
        eventually("it serves under the policy", || mesh.status(node)["policy_version"] == version);
    }
}

/// Sells so many units of tea; gives the entry of the sale, or why there is none.
fn sell(mesh: &DevMesh, customer: &str, units: u64) -> Result<String, String> {
    let mut program = Command::new(beside("audited-till"));
    let sold = program
        .args(["sell", customer, "tea", &units.to_string()])
        .env("RHUMB_DATA", mesh.data())
        .output()
        .expect("the program starts");
    let said = String::from_utf8(sold.stdout).expect("text");
    match said.trim().split_once(' ') {
        Some((node, entry)) if sold.status.success() => {
            assert_eq!(node, TWO[0], "the till of the seller's region");
            Ok(entry.to_owned())
        }
        _ => Err(String::from_utf8_lossy(&sold.stderr).into_owned()),
    }
}

/// The entry of a kind whose record says this.
fn entry_of(mesh: &DevMesh, action: &str, says: &str) -> String {
    let found = mesh.ok(&["audit", "query", "--action", action, "--records"]);
    let all = found["found"].as_array().expect("a list");
    let is = |one: &&Value| one["record"].to_string().contains(says);
    all.iter().find(is).map(|one| one["index"].to_string()).unwrap_or_else(|| panic!("no {says}: {found}"))
}

/// Reads of this class are told of.
const MARKED: &str = r#"
[classes.inventory]
hold = ["eu-central", "us-east"]
read = ["eu-central", "us-east"]
carry = ["eu-central", "us-east"]
audit_reads = true
"#;

#[test]
fn a_read_of_a_class_that_is_marked_so_is_in_the_log_before_it_is_answered_and_no_other_is() {
    let mesh = DevMesh::start("eu-central,us-east", "off");
    mesh.ok(&["pool", "create", "tea", "--supply", "100"]);
    let reads = |node: &str| {
        let told = mesh.ok(&["audit", "query", "--action", "data.read", "--node", node]);
        told["found"].as_array().expect("a list").len()
    };
    mesh.ok(&["pool", "show", "tea"]);
    assert_eq!(TWO.map(reads), [0, 0], "the class is not marked");

    sign(&mesh, 2, MARKED);
    let before = reads(TWO[0]);
    mesh.ok(&["pool", "show", "tea"]);
    assert!(reads(TWO[0]) > before, "it is durable before it is answered");
    let told = mesh.ok(&["audit", "query", "--action", "data.read", "--node", TWO[0], "--records"]);
    let found = told["found"].as_array().expect("a list");
    let by_the_program = |one: &&Value| {
        one["record"]["actor"] == "client eu-central/dev"
            && one["record"]["details"]["message"] == "escrow.ShowPool"
            && one["record"]["details"]["class"] == "inventory"
    };
    let read = found.iter().find(by_the_program).unwrap_or_else(|| panic!("no read by the program: {told}"));
    assert!(read["record"]["address"].as_str().is_some_and(|address| address.starts_with("127.")), "{read}");
}

/// Other people's code alone, on an export.
fn outsider(mesh: &DevMesh, view: &Value, entries: &[&str]) -> Ran {
    let mut program = Command::new(beside("outsider"));
    program.arg("log").args(["--key", view["key"].as_str().expect("a key")]).current_dir(mesh.directory());
    for entry in entries {
        program.args(["--entry", entry]);
    }
    program.output().expect("the program starts").into()
}

#[test]
fn a_sale_a_border_crossed_by_an_exception_and_an_erasure_are_verified_by_an_outsider() {
    let mesh = DevMesh::start_with(beside("audited-till"), "eu-central,us-east", "off");
    mesh.ok(&["pool", "create", "tea", "--supply", "1000"]);
    let sale = sell(&mesh, "ada", 3).expect("there is enough");

    sign(&mesh, 2, CLOSED);
    let refused = sell(&mesh, "bob", 700).expect_err("what lies beyond the border is not to be had");
    assert!(refused.contains("not sold"), "{refused}");
    entry_of(&mesh, "gate.refused", "us-east");
    sign(&mesh, 3, &format!("{CLOSED}{OPENED}"));
    eventually("what lies beyond the border is fetched", || sell(&mesh, "bob", 700).is_ok());
    let crossed = entry_of(&mesh, "gate.exception", "stock is brought home");
    let there = mesh.ok(&["audit", "query", "--action", "gate.exception", "--node", TWO[1]]);
    assert!(!there["found"].as_array().expect("a list").is_empty(), "the donor tells of it too: {there}");

    let erase = ["audit", "erase-subject", "customer ada"];
    let erased = mesh.ok(&erase);
    assert!(erased["key"].is_string(), "{erased}");
    let erased = erased["entry"].to_string();
    assert!(mesh.ok(&erase)["key"].is_null(), "there is none any more");
    let last: u64 = erased.parse().expect("a number");

    // From here on nobody of the mesh is trusted: an export, the log's key, and others' programs.
    let view = published_of(&mesh, TWO[0], |view| view["published"].as_u64() > Some(last));
    let policy = write(&mesh, "auditors.policy", view["policy"].as_str().expect("a text"));
    mesh.ok(&["audit", "prove", &sale, "--out", "sale.tlog-proof"]);
    let proof = verify(&mesh, &["--policy", &policy, "--proof", "sale.tlog-proof"]).json;
    assert_eq!((&proof["proved"], &proof["entry"]["action"]), (&true.into(), &"till.sell".into()));
    mesh.ok(&["audit", "export", "--out", "log", "--records"]);
    let export = verify(&mesh, &["--policy", &policy, "--export", "log"]);
    assert_eq!(export.code, 0, "{}", export.text);
    let records = fs::read_to_string(mesh.directory().join("log/records.jsonl")).expect("records");
    assert!(records.contains("stock is brought home") && records.contains("customer bob"), "{records}");
    assert!(!records.contains("customer ada"), "the erased one's records are shut: {records}");
    let entries = [sale.as_str(), &crossed, &erased];
    let judged = outsider(&mesh, &view, &entries);
    assert_eq!(judged.code, 0, "{}", judged.text);
    for (entry, action) in entries.into_iter().zip(["till.sell", "gate.exception", "subject.erase"]) {
        let proved = format!("tlog_tiles, ct-merkle: entry {entry}, {action}, is one of them");
        assert!(judged.text.contains(&proved), "{proved}: {}", judged.text);
    }
    let bundles = fs::read_dir(mesh.directory().join("log/tile/entries/000.p")).expect("a bundle");
    flip(&bundles.last().expect("one").expect("readable").path(), 40);
    assert_ne!(outsider(&mesh, &view, &[]).code, 0, "a changed entry is not the log's");
    mesh.ok(&["audit", "fsck"]);
}
