//! Settings that a running node takes up, and a whole folder of them that is checked.

use super::*;

/// A policy in the tree, signed.
fn sign(tree: &Tree, version: u64) -> String {
    let key = OperatorKey::from_seed([7; 32]);
    let text = format!(
        "version = {version}\n[jurisdictions]\nus = [\"us-east\"]\neu = [\"eu-central\"]\n\
         [classes.inventory]\nhold = [\"all\"]\nread = [\"all\"]\ncarry = [\"all\"]\n"
    );
    fs::write(tree.dir().join("policy.toml"), &text).expect("writable");
    fs::write(tree.dir().join("policy.toml.sig"), key.sign(text.as_bytes())).expect("writable");
    format!("[policy]\nfile = \"policy.toml\"\nkeys = [\"{}\"]\n", key.public())
}

fn rewrite(tree: &Tree, more: &str) {
    fs::write(tree.dir().join("us-east.toml"), format!("{US}{more}")).expect("writable");
}

fn said(reloaded: &Reloaded) -> String {
    let line = |what: &'static str| move |change: &Difference| format!("{what} {change}\n");
    let applied = reloaded.applied.iter().map(line("now  "));
    applied.chain(reloaded.waiting.iter().map(line("start"))).collect()
}

#[test]
fn a_reload_takes_up_what_may_change_and_names_what_may_not() {
    let tree = Tree::new("=== us-east.toml +\n[escrow]\npark = \"1s\"\n");
    let live = Live::load(tree.source("us-east", None), None).expect("they are sound");
    let heard = live.subscribe();
    rewrite(
        &tree,
        "dial = { \"eu-central/n1\" = \"127.0.0.1:9\" }\n[log]\nfilter = \"debug\"\n[escrow]\nmax_keys = 7\n[transport]\nlanes = 4\n",
    );
    let reloaded = live.reload().expect("they are sound");
    expect![[r#"
        now   escrow.max_keys: 2000000 → 7
        now   escrow.park: "1s" → "2s"
        now   log.filter: "info" → "debug"
        start nodes.n1.dial.eu-central/n1: not set → "127.0.0.1:9"
        start transport.lanes: 8 → 4
    "#]]
    .assert_eq(&said(&reloaded));
    assert!(heard.has_changed().expect("it lives"));
    let now = live.now();
    assert_eq!((now.log.filter.to_string().as_str(), now.escrow.max_keys), ("debug", 7));
    assert_eq!((now.transport.lanes, now.peers.len()), (8, 2), "these stay as they were");
    assert_eq!(now.entries()["transport.lanes"].to_shown().origin(), "built in", "and so it is said");
    assert_eq!(said(&live.reload().expect("they are sound")).lines().count(), 2, "and named again");
}

#[test]
fn a_reload_with_a_fault_changes_nothing() {
    let tree = Tree::new("");
    let live = Live::load(tree.source("us-east", None), None).expect("they are sound");
    let heard = live.subscribe();
    rewrite(&tree, "[log]\nfilter = \"debug\"\n[escrow]\nmax_keys = 0\nmax_kesy = 1\n");
    let faults = live.reload().expect_err("must be refused");
    expect![[r#"
        the settings in DIR have 2 faults:
          us-east.toml:10:12: escrow.max_keys: found 0, expected a whole number of keys from 1 to 100000000
          us-east.toml:11:1: escrow.max_kesy is not known: did you mean escrow.max_keys?"#]]
    .assert_eq(&tree.told(&faults));
    assert_eq!(live.now().log.filter.to_string(), "info");
    assert!(!heard.has_changed().expect("it lives"));
}

#[test]
fn two_keys_that_a_rule_ties_change_together() {
    let tree = Tree::new("=== us-east.toml +\n[escrow]\ngossip = \"1s\"\nfresh = \"2s\"\n");
    let live = Live::load(tree.source("us-east", None), None).expect("they are sound");
    rewrite(&tree, "[escrow]\ngossip = \"3s\"\nfresh = \"4s\"\n");
    assert_eq!(said(&live.reload().expect("both change while running")).lines().count(), 2);
    assert_eq!(live.now().escrow.gossip, Duration::from_secs(3));
}

#[test]
fn a_policy_is_verified_with_the_settings_and_an_older_one_is_not_taken_back() {
    let tree = Tree::new("");
    let section = sign(&tree, 3);
    rewrite(&tree, &section);
    let live = Live::load(tree.source("us-east", None), None).expect("they are sound");
    let version = |live: &Live| live.now().policy.as_ref().map(|signed| signed.policy.version);
    assert_eq!(version(&live), Some(3));
    sign(&tree, 4);
    live.reload().expect("a newer one is taken");
    assert_eq!(version(&live), Some(4));
    sign(&tree, 2);
    expect![[r#"
        the settings in DIR have 1 fault:
          us-east.toml:8:8: policy.file: the policy has version 2, but this node serves under version 4: an older policy is not taken back; sign one with a higher version"#]].assert_eq(&tree.told(&live.reload().expect_err("an older one is not")));
    fs::write(tree.dir().join("policy.toml"), "version = 9").expect("writable");
    expect![[r#"
        the settings in DIR have 1 fault:
          us-east.toml:8:8: policy.file: DIR/policy.toml: the policy's signature by operator key fe812c12f3ab4ce6 is not over these bytes: the file was changed after it was signed"#]].assert_eq(&tree.told(&live.reload().expect_err("nobody has signed it")));
    assert_eq!(version(&live), Some(4));
}

// ---- a whole folder ------------------------------------------------------------------------------

fn checked(tree: &Tree, env: Option<&str>) -> String {
    match check(tree.dir(), &[], env) {
        Ok(Checked { nodes, files, notes }) => format!("{nodes:?}\n{files:?}\n{}\n", notes.join("\n")),
        Err(faults) => tree.told(&faults),
    }
}

#[test]
fn a_check_looks_at_every_region_environment_and_node() {
    let eu = format!("=== eu-central.toml\n{US}{}", US.replace("n1", "n2"));
    let sound = Tree::new(&format!(
        "{eu}=== us-east/staging.toml\n=== us-east/prod.toml\nlog.filter = \"warn\"\n=== us-esat.toml\n"
    ));
    expect![[r#"
        {NodeId(eu-central/n1), NodeId(eu-central/n2), NodeId(us-east/n1)}
        {"eu-central.toml", "global.toml", "us-east.toml", "us-east/prod.toml", "us-east/staging.toml"}
        us-esat.toml is read by no node: no region has this name
    "#]]
    .assert_eq(&checked(&sound, None));
    let faulty = Tree::new(&format!(
        "=== global.toml +\nlog.fliter = 1\n{eu}lanes = 3\n[nodes.n3]\nlisten = \"127.0.0.1:1\"\n=== us-east/prod.toml\nlog.filter = 7\n"
    ));
    expect![[r#"
        the settings in DIR have 7 faults:
          global.toml:10:1: mesh.founding.log: "log" is not a valid node id (REGION/NODE): use 1 to 63 characters of a-z, 0-9, '-' and begin and end with a letter or digit
          eu-central.toml:13:1: nodes.n2.lanes is not known: did you mean transport.lanes?
          eu-central.toml: nodes.n3.admin is missing: expected an IP address and a port, such as "10.0.0.1:7001"
          eu-central.toml: nodes.n3.data is missing: expected a folder, such as "/var/lib/rhumb"
          eu-central.toml: nodes.n3.identity is missing: expected a folder, such as "/etc/rhumb/identity"
          global.toml:9:19: mesh.founding does not list this node, eu-central/n3 (`nodes.n3` of eu-central.toml, unless --node says which): it lists eu-central/n1, eu-central/n2, us-east/n1
          us-east/prod.toml:1:14: log.filter: found 7, expected a tracing filter, such as "rhumb=debug,warn""#]].assert_eq(&checked(&faulty, None));
    let alone = Tree::new("");
    expect![[r#"
        {NodeId(us-east/n1)}
        {"global.toml", "us-east.toml"}
        there is no eu-central.toml here: eu-central is not checked
    "#]]
    .assert_eq(&checked(&alone, None));
    expect![[r#"
        the settings in DIR have 1 fault:
          us-east/prod.toml: there is no such file: --env names a file in the region's folder"#]]
    .assert_eq(&checked(&alone, Some("prod")));
    let nothing = Tree::new("=== global.toml\n");
    expect![[r#"
        the settings in DIR have 1 fault:
          global.toml: no region is known: list the nodes under [mesh.founding], or give --region"#]]
    .assert_eq(&checked(&nothing, None));
}
