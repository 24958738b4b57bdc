use std::fs;
use std::path::Path;

use super::*;

const GLOBAL: &str = r#"
[mesh]
cluster = "000102030405060708090a0b0c0d0e0f"
trust_domain = "mesh.example"
founding = [
    { region = "us-east", name = "n1", quic = "127.0.0.1:7001" },
    { region = "eu-central", name = "n1", quic = "127.0.0.1:7002" },
    { region = "eu-central", name = "n2", quic = "127.0.0.1:7003" },
]
"#;

const US: &str = r#"
[nodes.n1]
listen = "127.0.0.1:7001"
admin = "127.0.0.1:7101"
data = "data"
identity = "identity"
"#;

fn write(dir: &Path, name: &str, text: &str) {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().expect("below dir")).expect("writable");
    fs::write(file, text).expect("writable");
}

fn load_with(files: &[(&str, &str)], region: &str, env: Option<&str>) -> Result<NodeConfig, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        write(dir.path(), name, text);
    }
    let region = Region::new(region).expect("valid");
    load(dir.path(), &region, None, env).map_err(|e| e.to_string())
}

#[test]
fn a_region_layer_stands_on_the_global_one_and_an_environment_on_both() {
    let staging = "[log]\nfilter = \"debug\"\n[nodes.n1]\nadmin = \"127.0.0.1:9999\"\n";
    let files = [("global.toml", GLOBAL), ("us-east.toml", US), ("us-east/staging.toml", staging)];
    let config = load_with(&files, "us-east", Some("staging")).expect("valid");
    assert_eq!(config.me.to_string(), "us-east/n1");
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.node.admin.port(), 9999, "the environment overrides one key");
    assert_eq!(config.node.listen.port(), 7001, "and leaves its neighbours");
    assert_eq!(config.peers.len(), 2);
}

#[test]
fn a_peer_may_be_dialled_another_way() {
    let us = format!("{US}dial = {{ \"eu-central/n2\" = \"127.0.0.1:40000\" }}\n");
    let config =
        load_with(&[("global.toml", GLOBAL), ("us-east.toml", &us)], "us-east", None).expect("valid");
    let ports: Vec<u16> = config.peers.values().map(|address| address.port()).collect();
    assert_eq!(ports, [7002, 40000]);
}

#[test]
fn what_is_wrong_is_named() {
    let us = |extra: &str| format!("{US}{extra}");
    let refused =
        |files: &[(&str, &str)], region| load_with(files, region, None).expect_err("must be refused");

    assert!(refused(&[], "us-east").contains("global.toml"));
    let unknown = refused(&[("global.toml", GLOBAL), ("us-east.toml", &us("lisen = 3\n"))], "us-east");
    assert!(unknown.contains("lisen") && unknown.contains("us-east.toml"), "{unknown}");
    let dial = us("dial = { \"mars/n1\" = \"127.0.0.1:1\" }\n");
    let dial = refused(&[("global.toml", GLOBAL), ("us-east.toml", &dial)], "us-east");
    assert!(dial.contains("mars/n1") && dial.contains("REGION/NODE"), "{dial}");
    let stranger = refused(&[("global.toml", GLOBAL), ("ap-southeast.toml", US)], "ap-southeast");
    assert!(stranger.contains("does not list this node, ap-southeast/n1"), "{stranger}");
    let cluster = GLOBAL.replace("000102030405060708090a0b0c0d0e0f", "12");
    let cluster = refused(&[("global.toml", &cluster), ("us-east.toml", US)], "us-east");
    assert!(cluster.contains("mesh.cluster") && cluster.contains("32 hexadecimal digits"), "{cluster}");
    let environment = load_with(&[("global.toml", GLOBAL), ("us-east.toml", US)], "us-east", Some("prod"));
    assert!(environment.expect_err("must be refused").contains("prod.toml"));
}

#[test]
fn a_region_with_several_nodes_asks_which() {
    let eu = format!("{US}{}", US.replace("n1", "n2"));
    let asked = load_with(&[("global.toml", GLOBAL), ("eu-central.toml", &eu)], "eu-central", None);
    let asked = asked.expect_err("must be refused");
    assert!(asked.contains("--node") && asked.contains("n1, n2"), "{asked}");
}
