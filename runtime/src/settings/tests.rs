use std::fs;
use std::path::Path;

use expect_test::{Expect, expect, expect_file};
use rhumb_core::{NodeName, Region};
use rhumb_topology::policy::OperatorKey;
use tempfile::TempDir;

use super::draft::Draft;
use super::key::{Field, Key};
use super::keys::{SECTIONS, Section, keys};
use super::kind::{Kind, Value, Written};
use super::*;

mod running;

const GLOBAL: &str = r#"
[mesh]
cluster = "000102030405060708090a0b0c0d0e0f"
trust_domain = "mesh.example"

[mesh.founding]
"us-east/n1" = "127.0.0.1:7001"
"eu-central/n1" = "127.0.0.1:7002"
"eu-central/n2" = "127.0.0.1:7003"
"#;

const US: &str = r#"
[nodes.n1]
listen = "127.0.0.1:7001"
admin = "127.0.0.1:7101"
data = "data"
identity = "identity"
"#;

/// A folder of settings. A line `=== NAME` begins a file, `=== NAME +` one that goes on from the sound
/// one of the same name; the two sound ones are there unless they are written anew.
struct Tree {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Tree {
    fn new(tree: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().expect("below the folder")).expect("writable");
            fs::write(file, text).expect("writable");
        };
        write("global.toml", GLOBAL);
        write("us-east.toml", US);
        for part in tree.split("=== ").skip(1) {
            let (name, text) = part.split_once('\n').expect("a name and a text");
            match name.strip_suffix(" +") {
                None => write(name, text),
                Some("global.toml") => write("global.toml", &format!("{GLOBAL}{text}")),
                Some(name) => write(name, &format!("{US}{text}")),
            }
        }
        Self { folder, variables: Vec::new() }
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.variables.push((name.to_owned(), text.to_owned()));
        self
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn source(&self, region: &str, env: Option<&str>) -> Source {
        let region = Region::new(region).expect("valid");
        Source::new(self.dir(), &region, env).with_variables(self.variables.clone())
    }

    fn load(&self, env: Option<&str>) -> Result<Settings, String> {
        self.source("us-east", env).load(None).map_err(|faults| self.told(&faults))
    }

    /// What is told of faults, without the name of the temporary folder.
    fn told(&self, faults: &Faults) -> String {
        faults.to_string().replace(&self.dir().display().to_string(), "DIR")
    }

    fn refused(&self, env: Option<&str>, want: Expect) {
        want.assert_eq(&self.load(env).expect_err("must be refused"));
    }
}

#[test]
fn each_layer_overrides_single_keys_of_those_below_it() {
    let tree = |tree: &str| {
        let settings = Tree::new(tree)
            .variable("RHUMB__ESCROW__MAX_KEYS", "5")
            .load(Some("staging"))
            .expect("they are sound");
        let shown = |name: &str| {
            let entry = &settings.entries()[name];
            format!("{name} = {} ({})\n", entry.shown(), entry.to_shown().origin())
        };
        [
            "escrow.max_pools",
            "escrow.max_parked",
            "escrow.max_forwards",
            "escrow.clearly_more",
            "escrow.max_keys",
        ]
        .map(shown)
        .concat()
    };
    let all = tree(
        "=== global.toml +
[escrow]
max_parked = 2
max_forwards = 2
clearly_more = 2
max_keys = 2
=== us-east.toml +
[escrow]
max_forwards = 3
clearly_more = 3
max_keys = 3
=== us-east/staging.toml
escrow.clearly_more = 4
escrow.max_keys = 4
",
    );
    expect![[r#"
        escrow.max_pools = 4096 (built in)
        escrow.max_parked = 2 (global.toml:11:14)
        escrow.max_forwards = 3 (us-east.toml:8:16)
        escrow.clearly_more = 4 (us-east/staging.toml:1:23)
        escrow.max_keys = 5 (RHUMB__ESCROW__MAX_KEYS)
    "#]]
    .assert_eq(&all);
}

#[test]
fn sound_settings_are_typed_and_stand_below_their_folder() {
    let tree = Tree::new(
        "=== us-east.toml +
dial = { \"eu-central/n2\" = \"127.0.0.1:40000\" }
[transport]
silence_limit = \"2s\"
socket_buffer = \"1MiB\"
",
    );
    let settings = tree.load(None).expect("they are sound");
    assert_eq!(settings.me.to_string(), "us-east/n1");
    assert_eq!(settings.node.data, tree.dir().join("data"));
    let ports: Vec<u16> = settings.peers.values().map(SocketAddr::port).collect();
    assert_eq!(ports, [7002, 40000], "a peer may be dialled another way");
    assert_eq!(settings.transport.silence_limit, Duration::from_secs(2));
    assert_eq!(settings.transport.socket_buffer, 1 << 20);
}

#[test]
fn every_fault_of_every_layer_is_told_at_once() {
    let tree = Tree::new(
        r#"=== global.toml
[mesh]
cluster = "12"
trust_domain = "Mesh.Example"
max_ofset = "500ms"
[mesh.founding]
"us-east/n1" = "localhost:7001"
"eu-central" = "127.0.0.1:7002"
[trasnport]
lanes = 3
[escrow]
max_keys = 0
max_parked = 1.5
lanes = 2
=== us-east.toml
[nodes.n1]
listen = "127.0.0.1:7001"
admin = 7101
data = ""
lisen = "127.0.0.1:7001"
[nodes."N 2"]
listen = "127.0.0.1:7001"
[log]
filter = "rhumb=loud"
format = "xml"
[transport]
idle_timeout = 15
stream_window = "2MB"
silence_limit = "10h"
lanes = [8]
[policy]
keys = ["ab", "cd"]
=== us-east/staging.toml
storage = 7
clock.catch_up = 1979-05-27
"#,
    );
    tree.variable("RHUMB__LOG__FLITER", "info")
        .variable("RHUMB__ESCROW__MAX_POOLS", "many")
        .variable("RHUMB__POLICY__KEYS", "ab")
        .variable("RHUMB__WHATEVER", "1")
        .refused(Some("staging"), expect![[r#"
            the settings in DIR have 27 faults:
              global.toml:2:11: mesh.cluster: found "12", expected 32 hexadecimal digits, such as "000102030405060708090a0b0c0d0e0f"
              global.toml:3:16: mesh.trust_domain: found "Mesh.Example", expected a DNS name in lower case, such as "mesh.example"
              global.toml:4:1: mesh.max_ofset is not known: did you mean mesh.max_offset?
              global.toml:6:16: mesh.founding.us-east/n1: found "localhost:7001", expected an IP address and a port, such as "10.0.0.1:7001"
              global.toml:7:1: mesh.founding.eu-central: "eu-central" is not a valid node id (REGION/NODE): use 1 to 63 characters of a-z, 0-9, '-' and begin and end with a letter or digit
              global.toml:8:2: trasnport is not known: did you mean transport?
              global.toml:11:12: escrow.max_keys: found 0, expected a whole number of keys from 1 to 100000000
              global.toml:12:14: escrow.max_parked: found 1.5, expected a whole number of holds from 1 to 1000000
              global.toml:13:1: escrow.lanes is not known: did you mean transport.lanes?
              us-east.toml:3:9: nodes.n1.admin: found 7101, expected an IP address and a port, such as "10.0.0.1:7001"
              us-east.toml:4:8: nodes.n1.data: found "", expected a folder, such as "/var/lib/rhumb"
              us-east.toml:5:1: nodes.n1.lisen is not known: did you mean nodes.n1.listen?
              us-east.toml:6:8: nodes.N 2: "N 2" is not a valid node name: use 1 to 63 characters of a-z, 0-9, '-' and begin and end with a letter or digit
              us-east.toml:9:10: log.filter: found "rhumb=loud", expected a tracing filter, such as "rhumb=debug,warn" (error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5)
              us-east.toml:10:10: log.format: found "xml", expected "text" or "json"
              us-east.toml:12:16: transport.idle_timeout: found 15, expected a duration from "1s" to "10m"
              us-east.toml:13:17: transport.stream_window: found "2MB", expected a size from "64KiB" to "64MiB"
              us-east.toml:14:17: transport.silence_limit: found "10h", expected a duration from "100ms" to "5m"
              us-east.toml:15:9: transport.lanes: found a list, expected a whole number of lanes from 1 to 64
              us-east.toml:17:8: policy.keys: found a list, expected a list of public keys of 64 hexadecimal digits, each in quotes (an operator's public key is 64 hexadecimal digits, not "ab")
              us-east/staging.toml:1:11: storage: write a table, such as [storage]
              us-east/staging.toml:2:18: clock.catch_up: found 1979-05-27, expected a duration from "0s" to "1h"
              RHUMB__ESCROW__MAX_POOLS: escrow.max_pools: found "many", expected a whole number of pools from 1 to 1000000
              RHUMB__LOG__FLITER: no setting has this name; did you mean RHUMB__LOG__FILTER?
              RHUMB__POLICY__KEYS: policy.keys: found "ab", expected public keys of 64 hexadecimal digits, with commas between them and no quotes (an operator's public key is 64 hexadecimal digits, not "ab")
              RHUMB__WHATEVER: no setting has this name; `rhumb config reference` lists all
              us-east.toml: nodes.n1.identity is missing: expected a folder, such as "/etc/rhumb/identity""#]]);
}

#[test]
fn what_is_missing_is_named() {
    let tree = Tree::new("=== global.toml\n=== us-east.toml\n[nodes.n1]\nadmin = \"127.0.0.1:7101\"\n");
    tree.refused(None, expect![[r#"
        the settings in DIR have 6 faults:
          global.toml: mesh.cluster is missing: expected 32 hexadecimal digits, such as "000102030405060708090a0b0c0d0e0f"
          global.toml: mesh.trust_domain is missing: expected a DNS name in lower case, such as "mesh.example"
          global.toml: mesh.founding is missing: expected for each node an IP address and a port, such as "10.0.0.1:7001"
          us-east.toml: nodes.n1.listen is missing: expected an IP address and a port, such as "10.0.0.1:7001"
          us-east.toml: nodes.n1.data is missing: expected a folder, such as "/var/lib/rhumb"
          us-east.toml: nodes.n1.identity is missing: expected a folder, such as "/etc/rhumb/identity""#]]);
    let no_node = Tree::new("=== global.toml\n=== us-east.toml\n");
    no_node.refused(None, expect![[r#"
        the settings in DIR have 4 faults:
          global.toml: mesh.cluster is missing: expected 32 hexadecimal digits, such as "000102030405060708090a0b0c0d0e0f"
          global.toml: mesh.trust_domain is missing: expected a DNS name in lower case, such as "mesh.example"
          global.toml: mesh.founding is missing: expected for each node an IP address and a port, such as "10.0.0.1:7001"
          us-east.toml: region us-east has no node: write its settings under [nodes.NAME]"#]]);
    let no_files = Tree::new("");
    fs::remove_file(no_files.dir().join("global.toml")).expect("it is there");
    fs::remove_file(no_files.dir().join("us-east.toml")).expect("it is there");
    no_files.refused(Some("prod"), expect![[r#"
        the settings in DIR have 3 faults:
          global.toml: there is no such file: --config names the folder that holds global.toml and us-east.toml
          us-east.toml: there is no such file: --config names the folder that holds global.toml and us-east.toml
          us-east/prod.toml: there is no such file: --env names a file in the region's folder"#]]);
}

#[test]
fn a_file_that_is_no_toml_is_told_beside_the_faults_of_the_others() {
    let tree =
        Tree::new("=== us-east.toml\n[nodes.n1\nlisten = \n=== us-east/staging.toml\nlog.fliter = 1\n");
    tree.refused(
        Some("staging"),
        expect![[r#"
        the settings in DIR have 2 faults:
          us-east.toml:1:10: unclosed table, expected `]`
          us-east/staging.toml:1:5: log.fliter is not known: did you mean log.filter?"#]],
    );
    let tree = Tree::new("");
    fs::write(tree.dir().join("us-east.toml"), b"[log]\nfilter = \"\xff\"\n").expect("writable");
    tree.refused(
        None,
        expect![[r#"
        the settings in DIR have 1 fault:
          us-east.toml:2:1: the file is not UTF-8 from here on"#]],
    );
}

#[test]
fn what_must_hold_between_keys_is_checked_where_it_was_set_last() {
    let tree = Tree::new(
        r#"=== global.toml +
[transport]
lanes = 15
probe_interval = "1s"
max_large_frame = "64KiB"
connect_backoff_min = "3s"
[storage]
max_waiting_bytes = "1MiB"
=== us-east.toml +
dial = { "mars/n1" = "127.0.0.1:1" }
[transport]
idle_timeout = "1s"
[escrow]
fresh = "1s"
low_water = "5s"
idle_gossip = "100ms"
plan_spacing = "10ms"
"#,
    );
    tree.variable("RHUMB__ESCROW__TAIL_GOSSIP", "2s").refused(None, expect![[r#"
        the settings in DIR have 12 faults:
          us-east.toml:7:22: nodes.n1.dial: mars/n1 is no peer; expected REGION/NODE of mesh.founding
          global.toml:11:9: transport.connection_window is "32MiB" and must be at least (transport.lanes + 2) × transport.stream_window, which is "34MiB"
          global.toml:13:19: transport.max_large_frame is "64KiB" and must be at least transport.max_frame, which is "1MiB"
          global.toml:12:18: transport.silence_limit is "1500ms" and must be at least 3 × transport.probe_interval, which is "1s"
          us-east.toml:9:16: transport.idle_timeout is "1s" and must be more than transport.silence_limit, which is "1500ms"
          global.toml:14:23: transport.connect_backoff_max is "2s" and must be at least transport.connect_backoff_min, which is "3s"
          us-east.toml:12:13: escrow.horizon is "4s" and must be at least escrow.low_water, which is "5s"
          us-east.toml:14:16: escrow.plan_spacing is "10ms" and must be at least escrow.ask_spacing, which is "50ms"
          us-east.toml:11:9: escrow.fresh is "1s" and must be more than escrow.gossip, which is "1s"
          RHUMB__ESCROW__TAIL_GOSSIP: escrow.gossip is "1s" and must be at least escrow.tail_gossip, which is "2s"
          us-east.toml:13:15: escrow.idle_gossip is "100ms" and must be at least escrow.gossip, which is "1s"
          global.toml:16:21: storage.max_waiting_bytes is "1MiB" and must be at least storage.max_group_bytes, which is "8MiB""#]]);
    let stranger = Tree::new("=== ap-southeast.toml +\n");
    let faults = stranger.source("ap-southeast", None).load(None).expect_err("must be refused");
    expect![[r#"
        the settings in DIR have 1 fault:
          global.toml:9:19: mesh.founding does not list this node, ap-southeast/n1 (`nodes.n1` of ap-southeast.toml, unless --node says which): it lists eu-central/n1, eu-central/n2, us-east/n1"#]].assert_eq(&stranger.told(&faults));
}

#[test]
fn a_rule_is_not_judged_by_a_value_that_is_faulty_itself() {
    let tree = Tree::new("=== us-east.toml +\n[transport]\nlanes = 15\nconnection_window = 1\n");
    tree.refused(None, expect![[r#"
        the settings in DIR have 1 fault:
          us-east.toml:9:21: transport.connection_window: found 1, expected a size from "192KiB" to "1GiB""#]]);
}

#[test]
fn windows_that_just_fit_are_taken() {
    let exact = |window: &str| {
        let tree = Tree::new(&format!(
            "=== us-east.toml +\n[transport]\nlanes = 14\nconnection_window = \"{window}\"\n"
        ));
        tree.load(None).map(|settings| settings.transport.connection_window)
    };
    assert_eq!(exact("32MiB"), Ok(32 << 20), "(14 + 2) × 2 MiB");
    assert!(exact("32767KiB").is_err());
}

#[test]
fn a_region_with_several_nodes_asks_which() {
    let eu = format!("=== eu-central.toml\n{US}{}", US.replace("n1", "n2"));
    let tree = Tree::new(&eu);
    let source = tree.source("eu-central", None);
    let name = |name: &str| NodeName::new(name).expect("valid");
    assert_eq!(source.load(Some(&name("n2"))).expect("sound").me.to_string(), "eu-central/n2");
    expect![[r#"
        the settings in DIR have 1 fault:
          eu-central.toml: region eu-central has several nodes: say --node, one of n1, n2"#]]
    .assert_eq(&tree.told(&source.load(None).expect_err("must be refused")));
    expect![[r#"
        the settings in DIR have 1 fault:
          eu-central.toml: region eu-central has no node n9: it has n1, n2"#]]
    .assert_eq(&tree.told(&source.load(Some(&name("n9"))).expect_err("must be refused")));
}

#[test]
fn variables_name_nodes_with_underscores_and_lists_with_commas() {
    let key = OperatorKey::from_seed([7; 32]).public();
    let settings = Tree::new("")
        .variable("RHUMB__NODES__N1__ADMIN", "127.0.0.1:9999")
        .variable("RHUMB__MESH__FOUNDING__EU_CENTRAL__N1", "127.0.0.1:9998")
        .variable("RHUMB__NODES__N1__DIAL__EU_CENTRAL__N2", "127.0.0.1:9997")
        .variable("RHUMB__POLICY__KEYS", &format!("{key}, {key}"))
        .load(None)
        .expect("they are sound");
    assert_eq!(settings.node.admin.port(), 9999);
    let ports: Vec<u16> = settings.peers.values().map(SocketAddr::port).collect();
    assert_eq!(ports, [9998, 9997]);
    assert_eq!(settings.entries()["policy.keys"].shown(), format!("[\"{key}\", \"{key}\"]"));
    for wrong in
        ["RHUMB__log__FILTER", "RHUMB__LOG", "RHUMB__LOG__FILTER__X", "RHUMB__NODES__n1__ADMIN", "RHUMB__"]
    {
        let refused = Tree::new("").variable(wrong, "info").load(None).expect_err("must be refused");
        assert!(refused.contains(&format!("{wrong}: no setting has this name")), "{refused}");
    }
}

/// One section more, with a key that is nobody's business.
static WITH_A_SECRET: &[Section] = &[
    SECTIONS[0],
    SECTIONS[1],
    Section {
        name: "vault",
        what: "",
        keys: &[Key::new(
            "vault.token",
            Kind::Text { form: "a token", example: "t-1" },
            Field {
                get: |_| None,
                set: |_, _, value| match value {
                    Value::Text(text) if !text.starts_with("t-") => Err(format!("{text} is no token")),
                    _ => Ok(()),
                },
            },
            "",
        )
        .secret()],
    },
];

#[test]
fn a_secret_is_shown_as_a_hash_and_never_told() {
    let load = |tree: Tree| {
        let source = tree.source("us-east", None).of_sections(WITH_A_SECRET);
        source.load(None).map_err(|faults| tree.told(&faults))
    };
    let tree = Tree::new("=== us-east.toml +\n[vault]\ntoken = \"t-sesame\"\n");
    let settings = load(tree).expect("they are sound");
    let shown = settings.entries()["vault.token"].to_shown();
    assert_eq!(shown.value, "sha256:85ef5518", "as sha256sum says of the bare text");
    let said = format!(
        "{settings:?} {} {:?}",
        serde_json::json!(shown),
        differences(settings.entries(), &Entries::new())
    );
    assert!(said.contains("sha256:") && !said.contains("sesame"), "{said}");

    for wrong in ["[\"sesame\"]", "\"sesame\"", "7331"] {
        let refused = load(Tree::new(&format!("=== us-east.toml +\n[vault]\ntoken = {wrong}\n")));
        let refused = refused.expect_err("must be refused");
        assert!(!refused.contains("sesame") && !refused.contains("7331"), "{refused}");
        assert!(refused.contains("us-east.toml:8:9: vault.token: expected a token"), "{refused}");
    }
    for wrong in [
        "[vault]\ntoken = \"sesame",
        "[vault]\ntokn = \"sesame\"",
        "vault = \"sesame\"",
        "token = \"sesame\"",
    ] {
        let refused = load(Tree::new(&format!("=== us-east.toml\n{wrong}\n"))).expect_err("must be refused");
        assert!(!refused.contains("sesame"), "{refused}");
    }
    let variable = Tree::new("").variable("RHUMB__VAULT__TOKEN", "sesame");
    assert!(!load(variable).expect_err("must be refused").contains("sesame"));
    let unknown = Tree::new("").variable("RHUMB__VAULT__TOKNE", "sesame");
    assert!(!load(unknown).expect_err("must be refused").contains("sesame"));
}

#[test]
fn sources_of_time_are_servers_and_each_has_one_voice() {
    let load = |sources: &str| {
        let tree = Tree::new(&format!("=== us-east.toml +\n[clock]\nsources = [{sources}]\n"));
        tree.source("us-east", None).load(None).map_err(|faults| tree.told(&faults))
    };
    let settings =
        load(r#""ntp-1.example:123", "[2001:db8::1]:123", "10.0.0.7:1123""#).expect("they are sound");
    assert_eq!(settings.time.sources[1].as_str(), "[2001:db8::1]:123");
    for wrong in
        ["\"ntp.example\"", "\":123\"", "\"ntp.example:0\"", "\"ntp .example:123\"", "\"ntp.example:ntp\""]
    {
        let refused = load(wrong).expect_err("must be refused");
        assert!(refused.contains("clock.sources") && refused.contains("HOST:PORT"), "{wrong}: {refused}");
    }
    let twice = load("\"a:123\", \"b:123\", \"a:123\"").expect_err("must be refused");
    assert!(twice.contains("clock.sources names a:123 twice"), "{twice}");
    let many: Vec<_> = (0..17).map(|n| format!("\"ntp-{n}:123\"")).collect();
    let many = load(&many.join(",")).expect_err("must be refused");
    assert!(many.contains("names 17 servers, expected 16 at most"), "{many}");
}

#[test]
fn ranges_are_split_at_a_size_and_a_load_or_not_by_themselves() {
    let load = |ranges: &str| {
        let tree = Tree::new(&format!("=== us-east.toml +\n[ranges]\n{ranges}\n"));
        tree.source("us-east", None).load(None).map_err(|faults| tree.told(&faults))
    };
    let splits = |ranges: &str| load(ranges).expect("it is sound").splits;
    assert_eq!((splits("").at, splits("").load), (Some(512 << 20), Some(2_500)), "as it is built in");
    let set = splits("split_at = \"64KiB\"\nsplit_load = 50");
    assert_eq!((set.at, set.load), (Some(64 << 10), Some(50)));
    assert!(splits("split_at = \"off\"\nsplit_load = \"off\"").is_off());
    let size = ", expected a size from \"64KiB\" to \"1024GiB\", or \"off\"";
    let rate = ", expected a whole number of requests a second from 50 to 1000000, or \"off\"";
    for (wrong, right) in [
        ("split_at = \"63KiB\"", size),
        ("split_at = 536870912", size),
        ("split_at = \"never\"", size),
        ("split_load = 49", rate),
        ("split_load = \"2500\"", rate),
        ("split_load = false", rate),
    ] {
        let refused = load(wrong).expect_err("must be refused");
        let key = wrong.split(' ').next().expect("a key");
        assert!(refused.contains(&format!("ranges.{key}: found")), "{wrong}: {refused}");
        assert!(refused.contains(right), "{wrong}: {refused}");
    }
}

#[test]
fn every_value_at_the_ends_of_its_range_fits_its_field_and_reads_back() {
    fn ends(kind: &Kind) -> Vec<Value> {
        match kind {
            Kind::Count { least, most, .. } | Kind::Size { least, most } => {
                vec![Value::Number(*least), Value::Number(*most)]
            }
            Kind::Span { least, most } => vec![Value::Span(*least), Value::Span(*most)],
            Kind::Share => vec![Value::Number(0), Value::Number(1_000_000)],
            Kind::Choice(words) => words.iter().map(|word| Value::Text((*word).to_owned())).collect(),
            Kind::Text { example, .. } => vec![Value::Text((*example).to_owned())],
            Kind::Texts { .. } => vec![Value::Texts(Vec::new())],
            Kind::Off { or } => ends(or).into_iter().chain([Value::Text("off".to_owned())]).collect(),
        }
    }
    for key in keys(SECTIONS) {
        for value in ends(&key.kind) {
            let mut draft = Draft::default();
            let last = if key.name.ends_with("*/*") { "us-east/n1" } else { key.name };
            assert_eq!((key.field.set)(&mut draft, last, value.clone()), Ok(()), "{}", key.name);
            let shown = key.kind.show(&value);
            if !key.name.ends_with("*/*") {
                let got = (key.field.get)(&draft).expect("it was set");
                assert_eq!(key.kind.show(&got), shown, "{} is another field's", key.name);
            }
            let read = toml::de::DeValue::parse(&shown).expect("what is shown is TOML");
            assert!(key.kind.read(&Written::Toml(read.get_ref())) == Some(value), "{}: {shown}", key.name);
        }
    }
}

#[test]
fn no_two_keys_set_the_same_field() {
    let fresh = Draft::default();
    for key in keys(SECTIONS) {
        let other_value = match (&key.kind, (key.field.get)(&fresh)) {
            (Kind::Count { least, most, .. } | Kind::Size { least, most }, now) => {
                Value::Number(if now == Some(Value::Number(*least)) { *most } else { *least })
            }
            (Kind::Off { .. }, _) => Value::Text("off".to_owned()),
            (Kind::Span { least, most }, now) => {
                Value::Span(if now == Some(Value::Span(*least)) { *most } else { *least })
            }
            _ => continue,
        };
        let mut draft = Draft::default();
        (key.field.set)(&mut draft, key.name, other_value).expect("it is in range");
        let differs = |other: &&Key| (other.field.get)(&draft) != (other.field.get)(&fresh);
        let changed: Vec<&str> = keys(SECTIONS).filter(differs).map(|other| other.name).collect();
        assert_eq!(changed, [key.name]);
    }
}

#[test]
fn what_is_built_in_is_sound() {
    let fresh = Draft::default();
    for key in keys(SECTIONS).filter(|key| !key.needed) {
        let Some(value) = (key.field.get)(&fresh) else { continue };
        let shown = key.kind.show(&value);
        let read = toml::de::DeValue::parse(&shown).expect("what is shown is TOML");
        assert!(key.kind.read(&Written::Toml(read.get_ref())).is_some(), "{}: {shown}", key.name);
    }
    let me = NodeId::new("us-east", "n1").expect("valid");
    let of_numbers = |rule: &&rules::Rule| !rule.keys().iter().any(|key| key.contains("founding"));
    for rule in rules::RULES.iter().filter(of_numbers) {
        assert_eq!(rule.broken(&fresh, &me), None, "{rule}");
        for name in rule.keys() {
            assert!(keys(SECTIONS).any(|key| key.name == name), "{rule}: there is no key {name}");
        }
    }
    fresh.transport.validate().expect("transport takes what is built in");
}

#[test]
fn names_are_unique_and_stand_in_their_section() {
    let mut seen = std::collections::BTreeSet::new();
    for section in SECTIONS {
        for key in section.keys {
            assert!(key.name.starts_with(&format!("{}.", section.name)), "{}", key.name);
            assert!(seen.insert(key.name), "{} stands twice", key.name);
            assert!(!key.what.is_empty() && key.what.ends_with('.'), "{} says not what it means", key.name);
        }
    }
}

/// A setting that a room gains is a key here too: this stops compiling until it is.
#[test]
fn every_number_of_the_rooms_is_a_key() {
    let Draft { transport, escrow, hot, rocks, .. } = Draft::default();
    let TransportSettings {
        lanes: _,
        stream_window: _,
        connection_window: _,
        send_window: _,
        idle_timeout: _,
        probe_interval: _,
        silence_limit: _,
        stall_limit: _,
        handshake_timeout: _,
        connect_backoff_min: _,
        connect_backoff_max: _,
        refresh_spread: _,
        max_frame: _,
        max_large_frame: _,
        large_streams: _,
        large_buffer: _,
        lane_queue: _,
        lane_queue_bytes: _,
        in_flight: _,
        in_flight_bytes: _,
        in_flight_bytes_all: _,
        handshakes: _,
        max_incoming: _,
        max_clients: _,
        socket_buffer: _,
    } = transport;
    let EscrowSettings {
        level:
            rhumb_actors::escrow::LevelPolicy {
                initiative: _,
                high_water: _,
                horizon: _,
                low_water: _,
                reserve: _,
                clearly_more: _,
                tail_floor: _,
                ask_spacing: _,
                plan_spacing: _,
            },
        forecast: rhumb_actors::escrow::forecast::Forecast { method: _, season: _, slot: _ },
        reconcile: _,
        resend: _,
        gossip: _,
        tail_gossip: _,
        idle_gossip: _,
        fresh: _,
        tail_word: _,
        park: _,
        max_parked: _,
        max_forwards: _,
        max_pools: _,
        max_keys: _,
        max_holds: _,
        beat: _,
        prove: _,
        max_offset: _,
        returns: _,
    } = escrow;
    let HotSettings {
        max_waiting: _,
        max_waiting_bytes: _,
        max_group_bytes: _,
        pressure_age: _,
        retry_after: _,
        slow_by: _,
    } = hot;
    let RocksSettings { block_cache_bytes: _, memtable_bytes: _, log_bytes: _, verify_bytes: _ } = rocks;
    let of =
        |section: &str| SECTIONS.iter().find(|s| s.name == section).map_or(0, |section| section.keys.len());
    assert_eq!((of("transport"), of("escrow"), of("storage")), (25, 28, 10));
}

#[test]
fn the_reference_is_the_page_in_docs() {
    expect_file!["../../../docs/settings.md"].assert_eq(&reference());
}
