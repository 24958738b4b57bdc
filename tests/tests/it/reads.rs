//! Reads of keyspaces of the real program that cannot be answered as they were asked, and what is said of them.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use rhumb_actors::ranges::{Token, TokenKey};
use rhumb_core::{ClusterId, Epoch, HybridTime};
use rhumb_tests::cluster::{DevMesh, eventually};
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
fn a_token_by_a_key_that_is_not_known_yet_may_be_tried_again_and_a_changed_one_may_not() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let written = mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let get = |token: &[u8]| {
        let token = BASE64_URL_SAFE_NO_PAD.encode(token);
        let ran = mesh.rhumb(&["kv", "get", "profiles", "ann", "--token", &token]);
        let refused = &ran.json["refused"];
        let code = refused["code"].as_str().unwrap_or_default().to_owned();
        (ran.code, code, refused["retry_after_ms"].as_u64())
    };
    let token = written["token"].as_str().expect("a token");
    let mut token = BASE64_URL_SAFE_NO_PAD.decode(token).expect("base64");
    assert_eq!(get(&token), (0, String::new(), None));
    let last = token.len() - 1;
    token[last] ^= 1;
    assert_eq!(get(&token), (1, "token".to_owned(), None), "it is by a key that is known, and was changed");
    let seen = Token { epoch: Epoch(0), at: HybridTime::ZERO };
    let unknown = TokenKey::from_seed(ClusterId(7), &[7; 32]).sign(seen);
    assert_eq!(get(&unknown), (1, "not_now".to_owned(), Some(1_000)));
}
