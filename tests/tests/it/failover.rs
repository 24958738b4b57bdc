//! Who is lost and who is back, as the real program sees it: three regions as processes, real QUIC, real RocksDB.

use std::collections::BTreeMap;

use rhumb_tests::cluster::{FoundedMesh, REGIONS, Serving, eventually, turn};
use serde_json::Value;

/// How each node stands, and under which epoch; nothing when nobody can say. The nodes of `among` are asked.
fn stands(mesh: &FoundedMesh, among: &[usize]) -> BTreeMap<String, (String, u64)> {
    let endpoints: Vec<_> = among.iter().map(|node| mesh.admin(*node)).collect();
    let identity = format!("mesh/operators/{}-admin", REGIONS[among[0]]);
    let asked = mesh.rhumb(&["region", "ls", "--endpoint", &endpoints.join(","), "--identity", &identity]);
    let nodes = asked.json["nodes"].as_array().cloned().unwrap_or_default();
    let one = |node: &Value| {
        let (state, epoch) = (node["state"].as_str()?.to_owned(), node["epoch"].as_u64()?);
        Some((node["node"].as_str()?.to_owned(), (state, epoch)))
    };
    nodes.iter().filter_map(one).collect()
}

/// What the audit logs of these nodes say of a node's fence: actions that were done, with their epochs.
fn told(mesh: &FoundedMesh, among: &[usize], of: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for node in among {
        let (id, identity) =
            (format!("{}/n1", REGIONS[*node]), format!("mesh/operators/{}-admin", REGIONS[*node]));
        let admin = mesh.admin(*node);
        for action in ["failover.fence", "failover.away", "failover.return"] {
            let which = ["audit", "query", "--node", &id, "--action", action, "--records"];
            let asked = [&which[..], &["--identity", &identity, "--endpoint", &admin]].concat();
            for entry in mesh.ok(&asked)["found"].as_array().expect("a list") {
                let record = &entry["record"];
                if record["outcome"] == "done" && record["resource"] == format!("node {of}") {
                    let epoch = record["details"]["epoch"].as_str().and_then(|epoch| epoch.parse().ok());
                    found.push((action.to_owned(), epoch.expect("an epoch")));
                }
            }
        }
    }
    found
}

fn permitted(node: &Serving) -> bool {
    node.get("/metrics").lines().any(|line| line == "rhumb_failover_permit 1.0")
}

#[test]
fn a_node_that_is_lost_is_fenced_under_the_next_epoch_and_acts_again_when_it_is_back() {
    let _turn = turn();
    let mesh = FoundedMesh::of(3);
    let mut nodes: Vec<Serving> = (0..3).map(|node| mesh.serve(node, &[])).collect();
    nodes.iter_mut().for_each(Serving::wait_ready);
    let all = [0, 1, 2];
    let is = |among: &[usize], node: &str, state: &str| {
        stands(&mesh, among).get(node).filter(|(stands, _)| stands == state).map(|(_, epoch)| *epoch)
    };
    eventually("all are alive, and none was ever fenced", || {
        let stands = stands(&mesh, &all);
        stands.len() == 3 && stands.values().all(|(state, epoch)| state == "alive" && *epoch == 1)
    });
    eventually("all may act", || nodes.iter().all(permitted));

    // One that is frozen believes nothing of it, and comes back to another epoch.
    let (frozen, others) = ("ap-southeast/n1", [0, 1]);
    nodes[2].signal("STOP");
    let mut away = None;
    eventually("others act for the frozen one", || {
        away = is(&others, frozen, "away");
        away.is_some()
    });
    let away = away.expect("it is away");
    assert!(away >= 2, "under a higher epoch: {away}");
    let rest = stands(&mesh, &others);
    assert_eq!(rest["us-east/n1"], ("alive".to_owned(), 1), "{rest:?}");
    nodes[2].signal("CONT");
    let mut back = None;
    eventually("it is back", || {
        back = is(&all, frozen, "alive");
        back.is_some()
    });
    let back = back.expect("it is back");
    assert!(back > away, "not under an old epoch: {back} after {away}");
    eventually("it may act", || permitted(&nodes[2]));
    let told_of = told(&mesh, &all, frozen);
    for (action, epoch) in
        [("failover.fence", 2), ("failover.away", away), ("failover.fence", back), ("failover.return", back)]
    {
        assert!(told_of.contains(&(action.to_owned(), epoch)), "{action} {epoch}: {told_of:?}");
    }

    // One that is dead for good stays away, whoever coordinated.
    drop(nodes.remove(0));
    eventually("others act for the dead one", || is(&[1, 2], "us-east/n1", "away").is_some());
    let rest = stands(&mesh, &[1, 2]);
    assert!(["eu-central/n1", frozen].iter().all(|node| rest[*node].0 == "alive"), "{rest:?}");
    assert!(nodes.iter().all(permitted), "a majority goes on");
    drop(nodes.remove(0));
    eventually("one of three may not act", || !permitted(&nodes[0]));
}
