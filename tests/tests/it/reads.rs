//! Reads of keyspaces of the real program: which of several replicas answers, and what is said where none can as it was asked.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rhumb_actors::ranges::{Token, TokenKey};
use rhumb_core::{ClusterId, Epoch, HybridTime};
use rhumb_tests::cluster::{DevMesh, eventually, eventually_or};
use serde_json::Value;

const THREE: &str = "us-east,eu-central,ap-southeast";
const NODES: [&str; 3] = ["us-east/n1", "eu-central/n1", "ap-southeast/n1"];

/// Who holds the lease of the keyspace.
fn holder(mesh: &DevMesh) -> Option<String> {
    let listed = mesh.rhumb(&["range", "ls"]).json;
    let holds = |replica: &&Value| replica["keyspace"] == "profiles" && replica["leaseholder"] == true;
    let replica = listed["replicas"].as_array()?.iter().find(holds)?;
    replica["node"].as_str().map(str::to_owned)
}

fn bounded(mesh: &DevMesh, node: &str, bound: &str, more: &[&str]) -> (i32, Value) {
    let (region, _) = node.split_once('/').expect("a region");
    let consistency = format!("bounded={bound}");
    let get = ["kv", "get", "profiles", "ann", "--region", region, "--consistency", &consistency];
    let ran = mesh.rhumb(&[&get[..], more].concat());
    (ran.code, ran.json)
}

/// How many of so many eventual reads in eu-central each replica has answered. All must be answered.
fn served(mesh: &DevMesh, reads: usize) -> BTreeMap<u64, usize> {
    let mut by = BTreeMap::new();
    for _ in 0..reads {
        let get = ["kv", "get", "profiles", "ann", "--region", "eu-central", "--consistency", "eventual"];
        let told = mesh.ok(&get);
        *by.entry(told["replica"].as_u64().expect("a number")).or_default() += 1;
    }
    by
}

#[test]
fn replicas_that_are_as_near_take_turns_and_one_that_does_not_answer_is_left_out_until_it_does() {
    let mesh = DevMesh::start("us-east:2,eu-central,ap-southeast", "published");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let range = made["ranges"][0].to_string();
    let twin = "us-east/n2";
    eventually("two of three are in one region, and none is where it is read", || {
        mesh.rhumb(&["range", "move", &range, "--from", "eu-central/n1", "--to", twin]).code == 0
    });
    let listed = mesh.rhumb(&["range", "ls"]).json;
    let replica = |node: &str| {
        let is_it = |one: &&Value| one["keyspace"] == "profiles" && one["node"] == node;
        let one = listed["replicas"].as_array().and_then(|all| all.iter().find(is_it));
        one.and_then(|one| one["replica"].as_u64()).expect("it stands there")
    };
    let near = ["us-east/n1", twin].map(replica);

    // Round trips are measured, and a slow moment of this machine is one of them for a while.
    eventually_or("each serves its share", || {
        let shares = served(&mesh, 20);
        let is_fair = near.iter().all(|replica| shares.get(replica).is_some_and(|served| *served >= 7));
        if is_fair { Ok(()) } else { Err(format!("{shares:?}")) }
    });
    mesh.signal(twin, "STOP");
    assert!(!served(&mesh, 6).contains_key(&near[1]), "the others serve all");
    mesh.signal(twin, "CONT");
    eventually("it serves again", || served(&mesh, 2).contains_key(&near[1]));
}

#[test]
fn a_bound_that_nobody_at_hand_keeps_is_refused_by_its_name_while_the_leaseholder_is_not_reached() {
    let mesh = DevMesh::start(THREE, "off");
    let made = mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let holds = holder(&mesh).expect("somebody holds the lease");
    let reader = NODES.into_iter().find(|node| *node != holds).expect("there are others");
    let violated = |told: &Value| {
        let refused = &told["refused"];
        assert_eq!(refused["code"], "staleness_bound_violated", "{told}");
        let (bound, age) = (refused["bound_ms"].as_u64(), refused["age_ms"].as_u64());
        assert!(age.expect("an age") > bound.expect("a bound"), "{told}");
        refused["retry_after_ms"].as_u64()
    };

    eventually("what was written is closed there", || {
        bounded(&mesh, reader, "1h", &["--nearest-only"]).0 == 0
    });

    // Nobody leads where two of three stand still: what is left has what was so long ago.
    let others = |node: &'static str| NODES.into_iter().filter(move |other| *other != node);
    others(reader).for_each(|node| mesh.signal(node, "STOP"));
    let (code, told) = bounded(&mesh, reader, "1s", &[]);
    assert_eq!((code, violated(&told)), (1, Some(200)), "{told}");
    // A bound that it keeps it answers.
    assert_eq!(bounded(&mesh, reader, "1h", &[]).0, 0);
    // Who lets nobody farther be asked is told so at once, and again as often as he asks.
    let (code, told) = bounded(&mesh, reader, "1s", &["--nearest-only"]);
    assert_eq!((code, violated(&told)), (1, None), "{told}");
    others(reader).for_each(|node| mesh.signal(node, "CONT"));
    eventually("the leaseholder is reached again", || bounded(&mesh, reader, "1s", &[]).0 == 0);

    // Who holds the lease and reaches no majority may not answer as leaseholder either.
    let range = made["ranges"][0].to_string();
    eventually("the lease is there", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", reader]).code == 0
            && holder(&mesh).as_deref() == Some(reader)
    });
    others(reader).for_each(|node| mesh.signal(node, "STOP"));
    let mut told = Value::Null;
    eventually("its lease has lapsed", || {
        let (code, answer) = bounded(&mesh, reader, "1s", &[]);
        told = answer;
        code != 0
    });
    assert_eq!(violated(&told), Some(200), "{told}");
    others(reader).for_each(|node| mesh.signal(node, "CONT"));
}

#[test]
fn where_only_the_nearest_may_be_asked_no_other_region_answers() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let holds = holder(&mesh).expect("somebody holds the lease");
    let reader = NODES.into_iter().find(|node| *node != holds).expect("there are others");
    let (near, _) = reader.split_once('/').expect("a region");
    let (far, _) = holds.split_once('/').expect("a region");
    // Of a key and of a scan: the exit code, and who has answered or why nobody has.
    let ask = |region: &str, needs: &[&str]| {
        [&["kv", "get", "profiles", "ann"][..], &["kv", "scan", "profiles"]].map(|what| {
            let ran = mesh.rhumb(&[what, &["--region", region], needs].concat());
            let told = ran.json["region"].as_str().or_else(|| ran.json["refused"]["code"].as_str());
            (ran.code, told.unwrap_or(&ran.text).to_owned())
        })
    };
    let answers = |region: &str| [0, 0].map(|code| (code, region.to_owned()));
    let refuses = |code: &str| [1, 1].map(|exit| (exit, code.to_owned()));
    eventually("it is read nearby", || {
        ask(near, &["--consistency", "eventual", "--nearest-only"]) == answers(near)
    });
    // What is complete there is three seconds old. Whoever may be asked besides answers.
    for (needs, refusal) in [("bounded=1s", "staleness_bound_violated"), ("strong", "not_now")] {
        assert_eq!(ask(near, &["--consistency", needs]), answers(far));
        assert_eq!(ask(near, &["--consistency", needs, "--nearest-only"]), refuses(refusal));
        assert_eq!(ask(far, &["--consistency", needs, "--nearest-only"]), answers(far), "it holds the lease");
    }

    // Nor does another one answer in the place of a nearest one that does not answer at all.
    mesh.signal(reader, "STOP");
    let get = ["kv", "get", "profiles", "ann", "--region", near, "--consistency", "eventual"];
    assert_ne!(mesh.ok(&get)["region"], near, "another one answers, where it may");
    let ran = mesh.rhumb(&[&get[..], &["--nearest-only"]].concat());
    assert!([3, 4].contains(&ran.code) && ran.json["fault"].is_object(), "{}", ran.text);
    mesh.signal(reader, "CONT");
}

#[test]
fn a_token_by_a_key_that_is_not_known_yet_may_be_tried_again_and_a_changed_one_may_not() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let written = mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let get_from = |region: &str, token: &[u8]| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        let ran = mesh.rhumb(&["kv", "get", "profiles", "ann", "--region", region, "--token", &token]);
        let refused = &ran.json["refused"];
        let code = refused["code"].as_str().unwrap_or_default().to_owned();
        (ran.code, code, refused["retry_after_ms"].as_u64())
    };
    let get = |token: &[u8]| get_from("us-east", token);
    let token = written["token"].as_str().expect("a token");
    let mut token = BASE64_URL_SAFE_NO_PAD.decode(token).expect("base64");
    assert_eq!(get(&token), (0, String::new(), None));
    let last = token.len() - 1;
    token[last] ^= 1;
    assert_eq!(get(&token), (1, "token".to_owned(), None), "it is by a key that is known, and was changed");
    let seen = Token { epoch: Epoch(0), at: HybridTime::ZERO };
    let unknown = TokenKey::from_seed(ClusterId(7), &[7; 32]).sign(seen);
    assert_eq!(get(&unknown), (1, "not_now".to_owned(), Some(1_000)));

    // A node that has another key since says so, and so do those that knew the former one: nobody needs to try again.
    token[last] ^= 1;
    let signer = format!("{}/n1", written["region"].as_str().expect("a region"));
    let keys = mesh.data().join("nodes").join(signer.replace('/', "-")).join("audit-keys");
    std::fs::remove_file(keys.join(signer.replace('/', ".")).join("audit.key")).expect("it was there");
    mesh.kill_9(&signer);
    for node in NODES {
        let (region, _) = node.split_once('/').expect("a region");
        eventually("the token is refused for good", || {
            get_from(region, &token) == (1, "token".to_owned(), None)
        });
    }
}
