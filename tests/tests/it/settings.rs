//! Settings of the real program: what a running node takes up, and what nobody does.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rhumb_tests::cluster::{DevMesh, Ran, eventually, program, run};

const NODE: &str = "us-east/n1";

/// The folder of a mesh's settings.
fn config(mesh: &DevMesh) -> PathBuf {
    mesh.data().join("config")
}

/// Puts sections behind those that `rhumb dev` wrote.
fn change(mesh: &DevMesh, written: &str, more: &str) {
    fs::write(config(mesh).join("us-east.toml"), format!("{written}\n{more}")).expect("writable");
}

/// Runs a `config` command, or `serve`, on a mesh's settings, with one variable more.
fn on_settings(mesh: &DevMesh, arguments: &[&str], variable: Option<(&str, &str)>) -> Ran {
    let mut command = Command::new(program());
    command.args(arguments).arg("--config").arg(config(mesh)).args(["-o", "json"]);
    command.envs(variable).current_dir(mesh.directory());
    command.output().expect("the program starts").into()
}

/// Reloads a node's settings and waits until its log has said so many times what came of it.
fn reload(mesh: &DevMesh, says: &str, times: usize) {
    reload_at(mesh, NODE, says, times);
}

fn reload_at(mesh: &DevMesh, node: &str, says: &str, times: usize) {
    mesh.signal(node, "HUP");
    eventually(says, || mesh.log(node).matches(says).count() >= times);
}

/// Writes a policy and signs it as the operator.
fn sign(mesh: &DevMesh, text: &str) {
    let (file, key) = (config(mesh).join("policy.toml"), config(mesh).join("operator.key"));
    fs::write(&file, text).expect("writable");
    let (key, file) = (key.to_str().expect("text"), file.to_str().expect("text"));
    let signed = run(mesh.directory(), &["policy", "sign", "--key", key, file]);
    assert_eq!(signed.code, 0, "{}", signed.text);
}

#[test]
fn a_running_node_takes_up_what_may_change_and_names_what_may_not() {
    let mesh = DevMesh::start("us-east", "off");
    mesh.ok(&["pool", "create", "concert", "--supply", "100"]);
    mesh.ok(&["hold", "concert", "--qty", "1", "--region", "us-east"]);
    let pid = mesh.node(NODE)["pid"].clone();
    let hold = || mesh.rhumb(&["hold", "concert", "--qty", "1", "--region", "us-east"]);
    let written = fs::read_to_string(config(&mesh).join("us-east.toml")).expect("it is there");

    change(
        &mesh,
        &written,
        "[escrow]\nmax_keys = 1\n[log]\nfilter = \"rhumb=debug\"\n[transport]\nlanes = 4\n",
    );
    let admin = mesh.node(NODE)["admin"].as_str().expect("a URL").to_owned();
    let against = on_settings(&mesh, &["config", "check", "--against", &admin], None);
    assert_eq!(against.code, 0, "{}", against.text);
    let keys =
        |what: &str| against.json["against"][what].as_object().expect("a table").keys().cloned().collect();
    let (at_reload, at_start): (Vec<String>, Vec<String>) = (keys("reload"), keys("restart"));
    assert_eq!(at_reload, ["escrow.max_keys", "log.filter"]);
    assert_eq!(at_start, ["transport.lanes"]);

    reload(&mesh, "settings reloaded", 1);
    let log = mesh.log(NODE);
    assert!(log.contains("escrow.max_keys: 2000000 → 1"), "{log}");
    assert!(log.contains("only when the node is started again change=transport.lanes: 8 → 4"), "{log}");
    eventually("a second key is one too many", || hold().json["refused"]["code"] == "overloaded");
    let settings = mesh.admin(NODE, "/settings");
    let value = |key: &str| settings["settings"][key]["value"].clone();
    assert_eq!((value("escrow.max_keys"), value("transport.lanes")), ("1".into(), "8".into()));
    assert_eq!(value("log.filter"), "\"rhumb=debug\"");

    change(&mesh, &written, "[escrow]\nmax_keys = 0\nmax_kesy = 9\n");
    reload(&mesh, "settings not reloaded", 1);
    let log = mesh.log(NODE);
    assert!(log.contains("escrow.max_keys: found 0, expected a whole number"), "{log}");
    assert!(log.contains("did you mean escrow.max_keys?"), "{log}");
    assert_eq!(hold().json["refused"]["code"], "overloaded", "nothing has changed");

    change(&mesh, &written, "");
    reload(&mesh, "settings reloaded", 2);
    eventually("there is room for keys again", || hold().code == 0);
    assert_eq!(mesh.node(NODE)["pid"], pid, "all in one life of the process");
}

#[test]
fn a_running_node_takes_up_a_newer_policy_and_no_older_one() {
    let mesh = DevMesh::start("us-east", "off");
    let first = fs::read_to_string(config(&mesh).join("policy.toml")).expect("it is there");
    let sign = |text: &str| sign(&mesh, text);
    let create = |pool: &str| mesh.rhumb(&["pool", "create", pool, "--supply", "1"]);
    assert_eq!(create("before").code, 0);

    sign(&first.replace("version = 1", "version = 2").replace("[classes.inventory]", "[classes.other]"));
    reload(&mesh, "settings reloaded", 1);
    eventually("the class has no rule any more", || create("after").json["refused"]["code"] == "not_allowed");

    sign(&first);
    reload(&mesh, "settings not reloaded", 1);
    assert!(mesh.log(NODE).contains("an older policy is not taken back"), "{}", mesh.log(NODE));
    assert_eq!(create("again").json["refused"]["code"], "not_allowed", "the newer one stands");

    sign(&first.replace("version = 1", "version = 3"));
    reload(&mesh, "settings reloaded", 2);
    eventually("the class has its rule again", || create("later").code == 0);
}

#[test]
fn a_replica_does_not_move_to_a_region_that_must_not_hold_its_class() {
    let mesh = DevMesh::start("us-east,eu-central", "off");
    let first = fs::read_to_string(config(&mesh).join("policy.toml")).expect("it is there");
    let here = "[classes.local]\nhold = [\"us-east\"]\nread = [\"all\"]\ncarry = [\"all\"]\n";
    sign(&mesh, &format!("{}\n{here}", first.replace("version = 1", "version = 2")));
    for node in [NODE, "eu-central/n1"] {
        reload_at(&mesh, node, "settings reloaded", 1);
    }
    let made = mesh.ok(&["keyspace", "create", "secrets", "--class", "local"]);
    assert_eq!(made["replicas"].as_array().map(Vec::len), Some(1), "{made}");
    mesh.ok(&["kv", "put", "secrets", "ann", "one"]);
    let range = made["ranges"][0].to_string();
    let there = mesh.rhumb(&["range", "move", &range, "--from", NODE, "--to", "eu-central/n1"]);
    let refused = &there.json["refused"];
    assert_eq!((there.code, refused["code"].as_str()), (1, Some("not_allowed")), "{}", there.text);
    assert!(there.text.contains("eu-central"), "{}", there.text);
    let space = mesh.ok(&["keyspace", "show", "secrets"]);
    assert_eq!(space["replicas"], made["replicas"], "nothing was planned: {space}");
}

#[test]
fn faulty_settings_end_every_command_with_code_2_and_all_faults() {
    let mesh = DevMesh::start("us-east,eu-central", "off");
    let files = |ran: &Ran| -> Vec<String> {
        let faults = ran.json["settings"]["faults"].as_array().cloned().unwrap_or_default();
        faults
            .iter()
            .map(|f| f["file"].as_str().or(f["variable"].as_str()).unwrap_or("").to_owned())
            .collect()
    };
    let sound = on_settings(&mesh, &["config", "check"], None);
    assert_eq!((sound.code, sound.json["nodes"].as_array().map(Vec::len)), (0, Some(2)), "{}", sound.text);

    let variable = Some(("RHUMB__LOG__FLITER", "debug"));
    for command in [
        &["config", "check"][..],
        &["config", "show", "--region", "us-east"],
        &["serve", "--region", "us-east"],
    ] {
        let refused = on_settings(&mesh, command, variable);
        assert_eq!(refused.code, 2, "{command:?}: {}", refused.text);
        assert_eq!(files(&refused), ["RHUMB__LOG__FLITER"], "{command:?}");
    }
    for region in ["us-east", "eu-central"] {
        let file = config(&mesh).join(format!("{region}.toml"));
        let text = fs::read_to_string(&file).expect("it is there");
        fs::write(&file, format!("{text}\n[transport]\nlanes = 65\n[escrow]\nresend = 1\n"))
            .expect("writable");
    }
    let refused = on_settings(&mesh, &["config", "check"], variable);
    assert_eq!(refused.code, 2);
    let expected =
        ["eu-central.toml", "eu-central.toml", "RHUMB__LOG__FLITER", "us-east.toml", "us-east.toml"];
    assert_eq!(files(&refused), expected, "{}", refused.text);
    let both = on_settings(&mesh, &["config", "diff", "us-east", "eu-central"], None);
    assert_eq!((both.code, files(&both).len()), (2, 4), "{}", both.text);
}

#[test]
fn regions_are_compared_with_all_their_layers() {
    let mesh = DevMesh::start("us-east,eu-central", "off");
    for (file, text) in
        [("us-east/prod.toml", "escrow.max_keys = 7\n"), ("eu-central/prod.toml", "escrow.resend = \"2s\"\n")]
    {
        let file = config(&mesh).join(file);
        fs::create_dir_all(file.parent().expect("below the folder")).expect("writable");
        fs::write(file, text).expect("writable");
    }
    let variable = Some(("RHUMB__ESCROW__MAX_POOLS", "9"));
    let diff = on_settings(&mesh, &["config", "diff", "us-east", "eu-central", "--env", "prod"], variable);
    assert_eq!(diff.code, 0, "{}", diff.text);
    let differences = diff.json["differences"].as_array().expect("a list");
    let of = |key: &str| {
        differences.iter().find(|difference| difference["key"] == key).cloned().unwrap_or_default()
    };
    let keys = of("escrow.max_keys");
    assert_eq!(
        (&keys["left"]["value"], &keys["left"]["from"]),
        (&"7".into(), &"us-east/prod.toml:1:19".into())
    );
    assert_eq!(
        (&keys["right"]["value"], &keys["right"]["from"]),
        (&"2000000".into(), &serde_json::Value::Null)
    );
    assert_eq!(of("escrow.resend")["right"]["value"], "\"2s\"");
    assert!(of("escrow.max_pools").is_null(), "a variable says the same to both");

    let show = ["config", "show", "--effective", "--region", "us-east", "--env", "prod"];
    let shown = on_settings(&mesh, &show, variable);
    let from = |key: &str| shown.json["settings"][key]["from"].clone();
    assert_eq!(from("escrow.max_pools"), "RHUMB__ESCROW__MAX_POOLS");
    assert_eq!(from("escrow.max_keys"), "us-east/prod.toml:1:19");
    assert_eq!(
        (from("escrow.resend"), &shown.json["settings"]["escrow.resend"]["value"]),
        (serde_json::Value::Null, &"\"1s\"".into())
    );
    let set = on_settings(&mesh, &["config", "show", "--region", "us-east"], None);
    assert!(set.json["settings"]["escrow.resend"].is_null(), "what is built in is shown only when asked for");
}
