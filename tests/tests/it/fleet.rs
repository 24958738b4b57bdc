//! Certificates of a whole mesh, renewed, rolled out, revoked and moved to another authority while real nodes
//! serve.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

use rhumb_tests::cluster::{Ran, Serving, eventually, free_port, run, signal, spawn};
use rhumb_tests::spire::Agent;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A founded mesh whose nodes serve.
struct Fleet {
    directory: TempDir,
    nodes: Vec<(String, u16)>,
    serving: Vec<Serving>,
}

impl Fleet {
    fn found(regions: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let nodes: Vec<(String, u16)> =
            regions.iter().map(|region| ((*region).to_owned(), free_port())).collect();
        let listed: Vec<String> =
            nodes.iter().map(|(region, port)| format!("{region}/n1=127.0.0.1:{port}")).collect();
        let fleet = Self { directory, nodes, serving: Vec::new() };
        fleet.ok(&["mesh", "init", "--nodes", &listed.join(","), "--trust-domain", "mesh.example", "mesh"]);
        fleet
    }

    fn serve(&mut self, variables: &[(&str, &str)]) {
        for (region, port) in &self.nodes {
            let at = format!("127.0.0.1:{port}");
            let directory = self.directory.path();
            self.serving.push(Serving::start_with(variables, directory, "mesh/config", region, "n1", &at));
        }
        self.serving.iter_mut().for_each(Serving::wait_ready);
    }

    fn started(regions: &[&str]) -> Self {
        let mut fleet = Self::found(regions);
        fleet.serve(&[]);
        fleet
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("mesh").join(name)
    }

    fn rhumb(&self, arguments: &[&str]) -> Ran {
        run(self.directory.path(), &[arguments, &["-o", "json"]].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        let ran = self.rhumb(arguments);
        assert_eq!(ran.code, 0, "rhumb {}: {}", arguments.join(" "), ran.text);
        ran.json
    }

    /// Runs a command while the nodes are told again and again to look at their folders: they would do so by
    /// themselves, every ten seconds.
    fn while_they_look(&self, arguments: &[&str]) -> Ran {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut looks = 0;
                eventually("the command ends", || {
                    if looks % 10 == 0 {
                        self.serving.iter().for_each(|node| node.signal("HUP"));
                    }
                    looks += 1;
                    done.load(Ordering::Acquire)
                });
            });
            let ran = self.rhumb(arguments);
            done.store(true, Ordering::Release);
            ran
        })
    }

    fn endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .flat_map(|(_, port)| ["--endpoint".to_owned(), format!("127.0.0.1:{port}")])
            .collect()
    }

    /// Customers of the pool `concert`, so many a second for so many seconds, of whom one has bought by now.
    fn sells(&self, a_second: u32, seconds: u32) -> Child {
        let endpoints = self.endpoints().join(" ");
        let load = format!(
            "load escrow concert --rate {a_second} --for {seconds}s --abandon 0 --receipts r.jsonl -o json {endpoints} \
             --identity mesh/clients/us-east-app"
        );
        let load = spawn(self.directory.path(), &load.split(' ').collect::<Vec<_>>());
        eventually("it sells", || {
            fs::read_to_string(self.directory.path().join("r.jsonl")).is_ok_and(|r| r.contains("sold"))
        });
        load
    }

    /// A pool of this many units.
    fn pool(&self, name: &str, supply: &str) {
        let endpoints = self.endpoints();
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        let create =
            ["pool", "create", name, "--supply", supply, "--identity", "mesh/operators/us-east-admin"];
        self.ok(&[&create[..], &endpoints].concat());
    }

    /// How often connections between nodes were lost, and how often one took over from another.
    fn connections(&self) -> (usize, usize) {
        let count = |what: &str| {
            let of = |node: &Serving| {
                let log = node.log();
                log.lines().filter(|line| line.contains(what) && line.contains("peer=node ")).count()
            };
            self.serving.iter().map(of).sum()
        };
        (count("disconnected"), count("retired"))
    }

    fn issuers(&self) -> Vec<String> {
        let issuer =
            |node: &Serving| node.status()["certificate"]["issuer"].as_str().expect("text").to_owned();
        self.serving.iter().map(issuer).collect()
    }
}

const MESH: [&str; 2] = ["--mesh", "mesh"];

#[test]
fn the_root_of_a_running_mesh_is_replaced_under_load_and_no_call_is_lost() {
    let fleet = Fleet::started(&["us-east", "eu-central", "ap-southeast"]);
    fleet.pool("concert", "100000");
    let old = fleet.issuers()[0].clone();
    let mut load = fleet.sells(30, 600);

    let rotate = |stage: &str, more: &[&str]| {
        fleet.while_they_look(&[&["ca", "rotate", "--stage", stage][..], &MESH, more].concat())
    };
    let early = rotate("activate", &[]);
    assert_eq!(early.code, 2, "{}", early.text);
    assert!(early.text.contains("run --stage prepare first"), "{}", early.text);
    let prepared = rotate("prepare", &[]);
    assert_eq!((prepared.code, &prepared.json["reached"]), (0, &json!(true)), "{}", prepared.text);
    let early = rotate("retire", &[]);
    assert!(early.code == 2 && early.text.contains("not active"), "{}", early.text);
    assert_eq!(fleet.issuers(), [old.as_str(); 3], "nothing is issued by the new one yet");

    let active = rotate("activate", &[]);
    let new = active.json["authority"].as_str().expect("text").to_owned();
    // The program that sells looks at its own folder every ten seconds.
    assert_eq!((active.code, &active.json["reached"]), (0, &json!(true)), "{}", active.text);
    assert_eq!(fleet.issuers(), [new.as_str(); 3]);
    let again = rotate("activate", &[]);
    assert_eq!((again.code, &again.json["moves"]), (0, &json!(0)), "what is done is done: {}", again.text);

    let retired = rotate("retire", &[]);
    assert_eq!((retired.code, &retired.json["reached"]), (0, &json!(true)), "{}", retired.text);
    assert!(!fleet.path("ca/previous.pem").exists(), "the old key is destroyed");
    // It sold through all of it, and is asked to come to an end.
    assert_eq!(load.try_wait().expect("known"), None, "it still sells");
    signal(&load, "INT");
    let ended = load.wait().expect("it ends");
    let report = fs::read_to_string(fleet.directory.path().join("spawned.log")).expect("a report");
    assert_eq!(ended.code(), Some(130), "{report}");
    // Notes for people stand before it and after it.
    let answer = &report[report.find("{\n").expect("an object")..];
    let mut answers = serde_json::Deserializer::from_str(answer).into_iter::<Value>();
    let report = answers.next().expect("an answer").expect("JSON");
    for nothing in ["lost_holds", "lost_confirms", "unknown", "turned_away", "broken"] {
        assert_eq!(report[nothing], json!(0), "{nothing}: {report}");
    }
    assert_eq!(report["unserved"], json!({}), "{report}");
    assert!(report["sold"].as_u64().is_some_and(|sold| sold > 300), "{report}");
    let (lost, retired) = fleet.connections();
    assert_eq!(lost, 0, "{}", fleet.serving[0].log());
    assert!(retired >= 6, "each connection gave way, on both sides: {retired}");
}

#[test]
fn a_bad_canary_is_rolled_back_by_itself_and_the_log_says_why_and_a_good_one_is_followed_by_the_others() {
    let fleet = Fleet::started(&["us-east", "eu-central"]);
    let serials = || {
        let serial =
            |node: &Serving| node.status()["certificate"]["serial"].as_str().expect("text").to_owned();
        fleet.serving.iter().map(serial).collect::<Vec<_>>()
    };
    let before = serials();
    // Somebody issues by an authority that has not been made known: the old one stays believed beside it.
    fleet.ok(&["ca", "init", "--trust-domain", "mesh.example", "rogue"]);
    let (ca, rogue) = (fleet.path("ca"), fleet.directory.path().join("rogue"));
    for file in ["ca.pem", "crl.pem"] {
        let both =
            [fs::read(ca.join(file)).expect("there"), fs::read(rogue.join(file)).expect("there")].concat();
        fs::write(rogue.join(file), both).expect("written");
    }
    let kept = fleet.directory.path().join("kept");
    fs::rename(&ca, &kept).expect("moved");
    fs::rename(&rogue, &ca).expect("moved");
    let rollout = ["cert", "rollout", "--canary", "us-east/n1", "--bake", "2s", "--grace", "20s"];
    let rollout = [&rollout[..], &MESH].concat();
    let bad = fleet.while_they_look(&rollout);
    assert_eq!(bad.code, 5, "{}", bad.text);
    assert_eq!(
        (&bad.json["rolled_back"], &bad.json["left"]),
        (&json!("us-east/n1"), &json!(["eu-central/n1"]))
    );
    let why = bad.json["why"].as_str().expect("text");
    // Whoever dials: one side does not know the authority, the other is told.
    assert!(
        why.contains("turned away") && (why.contains("unknown_authority") || why.contains("refused_us")),
        "{why}"
    );
    assert_eq!((&bad.json["bad"], &bad.json["stuck"]), (&json!("us-east/n1"), &Value::Null));
    fleet.serving[0].signal("HUP");
    eventually("the canary is back at its old certificate", || serials() == before);
    eventually("its log says why", || {
        let log = fleet.serving[0].log();
        log.lines().any(|line| line.contains("certificate.rolled_back") && line.contains("turned away"))
    });
    let events = fs::read_to_string(ca.join("events.jsonl")).expect("written down");
    assert!(events.lines().any(|line| line.contains("certificate.rolled_back")), "{events}");
    assert_eq!(fleet.connections().0, 0, "and no connection was lost meanwhile");

    fs::rename(&ca, &rogue).expect("moved");
    fs::rename(&kept, &ca).expect("moved");
    // A program that reaches nobody keeps the node from its certificate, and then from its way back.
    let unreached = fleet.rhumb(&[&rollout[..], &["--deliver", "false"]].concat());
    assert_eq!(unreached.code, 5, "{}", unreached.text);
    assert_eq!(
        (&unreached.json["bad"], &unreached.json["rolled_back"]),
        (&json!("us-east/n1"), &Value::Null)
    );
    for told in ["why", "stuck"] {
        assert!(
            unreached.json[told].as_str().is_some_and(|why| why.contains("did not take")),
            "{}",
            unreached.text
        );
    }
    eventually("its folder is back all the same", || serials() == before);
    let good = fleet.while_they_look(&rollout);
    assert_eq!(good.code, 0, "{}", good.text);
    assert_eq!(good.json["renewed"], json!(["us-east/n1", "eu-central/n1"]));
    let after = serials();
    assert!(after[0] != before[0] && after[1] != before[1], "{before:?} {after:?}");
    assert_eq!(fleet.connections().0, 0);

    // By hand: one back, and the node follows.
    let back = fleet.ok(&["cert", "rollback", "mesh/nodes/us-east-n1/identity"]);
    assert!(back["from"].as_u64() > back["to"].as_u64(), "{back}");
    fleet.serving[0].signal("HUP");
    eventually("it went back", || serials()[0] == back["serial"].as_str().expect("text"));
}

#[test]
fn what_is_due_is_renewed_and_what_is_not_is_left_alone() {
    let fleet = Fleet::found(&["us-east", "eu-central"]);
    let early = fleet.ok(&[&["cert", "renew"][..], &MESH].concat());
    assert_eq!(early["renewed"], json!([]), "{early}");
    assert_eq!(early["kept"].as_array().map(Vec::len), Some(6), "two nodes, two clients, two operators");
    let one = fleet.ok(&[&["cert", "renew", "eu-central/n1", "--valid", "30d"][..], &MESH].concat());
    assert_eq!(one["renewed"][0]["holder"], "node eu-central/n1");
    assert_eq!(one["renewed"].as_array().map(Vec::len), Some(1));
    let days = one["renewed"][0]["days_left"].as_i64().expect("a number");
    assert!((29..=30).contains(&days), "{days}");
    let identity = fleet.path("nodes/eu-central-n1/identity");
    assert_eq!(fs::read_link(identity.join("current")).expect("a link"), PathBuf::from("generations/2"));
    let all = fleet.ok(&[&["cert", "renew", "--all"][..], &MESH].concat());
    assert_eq!(all["renewed"].as_array().map(Vec::len), Some(6), "{all}");
    let status =
        fleet.ok(&["cert", "status", "mesh/nodes/eu-central-n1/identity", "mesh/clients/us-east-app"]);
    assert_eq!(status["well"], true, "{status}");
    let events = fs::read_to_string(fleet.path("ca/events.jsonl")).expect("written down");
    let renewed = events.lines().filter(|line| line.contains("certificate.renewed")).count();
    assert_eq!(renewed, 7, "{events}");
}

#[test]
fn whoever_was_revoked_is_certified_anew_only_by_name_and_by_no_rotation() {
    let fleet = Fleet::found(&["us-east", "eu-central"]);
    let revoke = |which| fleet.ok(&[&["cert", "revoke", which][..], &MESH].concat());
    revoke("mesh/clients/us-east-app");
    revoke("mesh/nodes/us-east-n1/identity");
    let revoked = json!([["node us-east/n1", "revoked"], ["client us-east/app", "revoked"]]);
    let holders = |list: &Value| -> Value {
        list.as_array().expect("a list").iter().map(|one| json!([one["holder"], one["why"]])).collect()
    };
    let all = fleet.ok(&[&["cert", "renew", "--all"][..], &MESH].concat());
    assert_eq!((all["renewed"].as_array().map(Vec::len), holders(&all["kept"])), (Some(4), revoked.clone()));
    let nightly = fleet.ok(&[&["cert", "renew"][..], &MESH].concat());
    assert_eq!(nightly["kept"].as_array().map(Vec::len), Some(6), "{nightly}");
    let kept = holders(&nightly["kept"]);
    let out = kept.as_array().expect("a list").iter().filter(|one| one[1] == "revoked");
    assert_eq!(out.cloned().collect::<Value>(), revoked, "{nightly}");
    let why = |path| fleet.rhumb(&["cert", "status", path]).json["certificates"][0]["problems"].to_string();
    assert!(why("mesh/clients/us-east-app").contains("revoked"));

    // By name, and by name only.
    let named = fleet.ok(&[&["cert", "renew", "us-east/n1"][..], &MESH].concat());
    assert_eq!(named["renewed"][0]["holder"], "node us-east/n1", "{named}");
    assert_eq!(why("mesh/nodes/us-east-n1/identity"), "[]");
    let serial =
        |path: &str| fleet.rhumb(&["cert", "status", path]).json["certificates"][0]["serial"].clone();
    let before = serial("mesh/clients/us-east-app");
    for stage in ["prepare", "activate", "retire"] {
        let rotate = ["ca", "rotate", "--stage", stage, "--confirmed"];
        let rotated = fleet.ok(&[&rotate[..], &MESH].concat());
        assert_eq!(holders(&rotated["passed_over"]), json!([["client us-east/app", "revoked"]]), "{stage}");
    }
    let all = fleet.ok(&[&["cert", "renew", "--all"][..], &MESH].concat());
    assert_eq!(holders(&all["kept"]), json!([["client us-east/app", "revoked"]]), "also by who is gone");
    assert_eq!(serial("mesh/clients/us-east-app"), before, "nothing was issued to it");
}

#[test]
fn a_machine_that_cannot_be_reached_keeps_nothing_from_the_others() {
    let fleet = Fleet::found(&["us-east", "eu-central"]);
    let (program, log) = (fleet.path("deliver.sh"), fleet.path("delivered"));
    // Written by another process: this one forks while it would hold the file open, and then nobody could run it.
    let script = format!(
        "cat > {0} <<'END'\n#!/bin/sh\necho \"$1\" | tee -a {1}\n[ \"$1\" != 'node us-east/n1' ]\nEND\nchmod +x {0}",
        program.display(),
        log.display()
    );
    assert!(Command::new("sh").arg("-c").arg(script).status().expect("it runs").success());
    let program = program.to_str().expect("text");
    let delivered = || {
        let all = fs::read_to_string(&log).unwrap_or_default();
        fs::remove_file(&log).ok();
        all.lines().count()
    };
    for (command, ends_with) in [
        ("cert revoke --deliver {} mesh/clients/us-east-app", 3),
        ("cert revoke --deliver {} mesh/clients/us-east-app", 3),
        ("ca sign-list --valid 7d --deliver {}", 3),
        ("cert renew --all --deliver {}", 3),
        // Nobody is due any more, and the one that was not reached is not forgotten.
        ("cert renew --deliver {}", 3),
        ("cert renew --deliver {} eu-central/n1", 0),
        ("ca rotate --stage prepare --confirmed --deliver {}", 3),
    ] {
        let words: Vec<&str> =
            command.split(' ').map(|word| if word == "{}" { program } else { word }).collect();
        let ran = fleet.rhumb(&[&words[..], &MESH].concat());
        assert_eq!(ran.code, ends_with, "{command}: {}", ran.text);
        let missed: Vec<&Value> =
            ran.json["missed"].as_array().expect("a list").iter().map(|missed| &missed["holder"]).collect();
        let whom = if ends_with == 3 { vec!["node us-east/n1"] } else { vec![] };
        // The list of what is revoked goes to whoever was revoked too, a renewal or a rotation does not.
        let reached = match (ends_with, command.contains("revoke") || command.contains("sign-list")) {
            (0, _) => 1,
            (_, true) => 6,
            (_, false) => 5,
        };
        assert_eq!(missed, whom, "{command}: {}", ran.text);
        assert_eq!(delivered(), reached, "{command}: everybody is tried");
    }
}

#[test]
fn nobody_is_cut_off_by_a_rotation_without_being_named_first() {
    let fleet = Fleet::found(&["us-east"]);
    let issue = |more: &[&str]| {
        let client = ["cert", "issue", "--ca", "mesh/ca", "--client", "us-east/shop", "--out"];
        fleet.ok(&[&client[..], more].concat());
    };
    issue(&["shop"]);
    issue(&["mesh/clients/us-east-shop2"]);
    let rotate = |stage: &str, more: &[&str]| {
        fleet.rhumb(&[&["ca", "rotate", "--confirmed", "--stage", stage][..], &MESH, more].concat())
    };
    // One of the mesh's own of the same name is looked after: then nobody is left to be told.
    let prepared = rotate("prepare", &[]);
    assert_eq!((prepared.code, &prepared.json["others"]), (0, &json!([])), "{}", prepared.text);
    fs::remove_dir_all(fleet.path("clients/us-east-shop2")).expect("removed");
    let prepared = rotate("prepare", &[]);
    assert_eq!(prepared.json["others"][0]["holder"], "client us-east/shop", "{}", prepared.text);
    for (stage, lacks) in [("activate", "the new ca.pem"), ("retire", "a certificate of the new authority")] {
        let refused = rotate(stage, &[]);
        assert_eq!(refused.code, 2, "{}", refused.text);
        for part in ["client us-east/shop", lacks, "--others-told"] {
            assert!(refused.text.contains(part), "{part}: {}", refused.text);
        }
        if stage == "activate" {
            assert_eq!(rotate(stage, &["--others-told"]).code, 0);
        }
    }
    issue(&["shop", "--renew"]);
    let retired = rotate("retire", &[]);
    assert_eq!(
        (retired.code, &retired.json["others"]),
        (0, &json!([])),
        "he has a new one: {}",
        retired.text
    );
}

#[test]
fn a_revocation_reaches_every_folder_and_ends_live_connections() {
    let fleet = Fleet::started(&["us-east", "eu-central"]);
    fleet.pool("concert", "1000");
    let mut load = fleet.sells(20, 20);
    fleet.ok(&[&["cert", "revoke", "mesh/clients/us-east-app"][..], &MESH].concat());
    fleet.serving.iter().for_each(|node| node.signal("HUP"));
    eventually("its live connections are closed", || {
        fleet
            .serving
            .iter()
            .all(|node| node.log().contains("peer=client us-east/app") && node.log().contains("was revoked"))
    });
    eventually("and it is turned away when it comes again", || {
        let rejections = |node: &Serving| {
            let page = node.get("/metrics");
            page.lines()
                .any(|line| line.starts_with("rhumb_identity_crl_rejections_total ") && !line.ends_with(" 0"))
        };
        fleet.serving.iter().all(rejections)
    });
    load.kill().expect("it runs");
    load.wait().expect("it ends");
    assert_eq!(fleet.connections().0, 0, "the nodes notice nothing");
}

#[test]
fn where_lists_are_required_nodes_that_have_one_believe_each_other_and_one_without_does_not_start() {
    let mut fleet = Fleet::found(&["us-east", "eu-central"]);
    fleet.ok(&[&["ca", "sign-list", "--valid", "7d"][..], &MESH].concat());
    fleet.serve(&[("RHUMB__IDENTITY__REVOCATIONS", "strict")]);
    let linked = || fleet.serving[0].status()["links"][0]["up"] == json!(true);
    eventually("they believe each other", linked);
    // A node without its list does not start.
    fs::remove_file(fleet.path("nodes/us-east-n1/identity/crl.pem")).expect("there");
    drop(fleet.serving.remove(0));
    let strict = [("RHUMB__IDENTITY__REVOCATIONS", "strict")];
    let at = format!("127.0.0.1:{}", fleet.nodes[0].1);
    let mut bare = Serving::start_with(&strict, fleet.directory.path(), "mesh/config", "us-east", "n1", &at);
    assert_eq!(bare.wait_end().code(), Some(3), "{}", bare.log());
    assert!(bare.log().contains("list is missing or out of date"), "{}", bare.log());
}

#[test]
fn nodes_have_their_certificates_from_a_workload_api_and_take_up_new_ones() {
    let mut fleet = Fleet::found(&["us-east", "eu-central"]);
    let socket = fleet.directory.path().join("agent.sock");
    let agent = Agent::start(&socket);
    let (own, away) = (fleet.path("nodes/us-east-n1/identity"), fleet.path("elsewhere"));
    fs::rename(&own, &away).expect("moved: the node cannot read it");
    agent.give(&away);
    let (us, eu) = (fleet.nodes[0].1, fleet.nodes[1].1);
    let variables = [
        ("RHUMB__IDENTITY__SOURCE", "workload-api"),
        ("RHUMB__IDENTITY__SOCKET", socket.to_str().expect("text")),
    ];
    let directory = fleet.directory.path();
    let at = format!("127.0.0.1:{us}");
    fleet.serving.push(Serving::start_with(&variables, directory, "mesh/config", "us-east", "n1", &at));
    let at = format!("127.0.0.1:{eu}");
    fleet.serving.push(Serving::start(directory, "mesh/config", "eu-central", "n1", &at));
    fleet.serving.iter_mut().for_each(Serving::wait_ready);

    let ca =
        ["cert", "issue", "--ca", "mesh/ca", "--node", "us-east/n1", "--renew", "--out", "mesh/elsewhere"];
    let renewed = fleet.ok(&ca)["serial"].as_str().expect("text").to_owned();
    agent.give(&away);
    let serial = |node: &Serving| node.status()["certificate"]["serial"].clone();
    eventually("the node runs with the new one", || serial(&fleet.serving[0]) == json!(renewed));
    eventually("and shows it to its peer", || {
        fleet.serving[1].status()["links"][0]["serial"] == json!(renewed)
    });
    assert_eq!(fleet.connections().0, 0, "{}", fleet.serving[0].log());

    // Somebody else's is refused, and what is revoked reaches the node on this way too.
    fs::rename(fleet.path("nodes/eu-central-n1/identity"), fleet.path("theirs")).expect("moved");
    agent.give(&fleet.path("theirs"));
    eventually("somebody else's is refused", || {
        fleet.serving[0].status()["certificate"]["refused"]
            .as_str()
            .is_some_and(|why| why.contains("expected that of"))
    });
    assert_eq!(serial(&fleet.serving[0]), json!(renewed));
    fleet.ok(&["cert", "revoke", "--ca", "mesh/ca", "mesh/clients/us-east-app"]);
    fs::copy(fleet.path("ca/crl.pem"), away.join("crl.pem")).expect("copied");
    agent.give(&away);
    eventually("it knows the revocation", || {
        let lists = fleet.serving[0].status()["certificate"]["lists"].clone();
        lists.as_object().is_some_and(|lists| lists.values().any(|number| *number == json!(2)))
    });
}
