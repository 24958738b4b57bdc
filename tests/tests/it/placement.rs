//! Where replicas stand: plans, learners, disks that are lost and nodes that stay away, with the real program.

use rhumb_tests::cluster::{DevMesh, FoundedMesh, REGIONS, Ran, ask_admin, eventually};
use serde_json::Value;

use crate::cluster::copy;

const FOUR: &str = "us-east,us-south,eu-central,ap-southeast";

/// The replicas of a keyspace, as `range ls` has them: node, number, whether it votes.
fn replicas(listed: &Ran, keyspace: &str) -> Vec<(String, u64, bool)> {
    let all = listed.json["replicas"].as_array().cloned().unwrap_or_default();
    let of_it = all.iter().filter(|replica| replica["keyspace"] == keyspace);
    of_it
        .map(|replica| {
            let node = replica["node"].as_str().expect("a node").to_owned();
            (node, replica["replica"].as_u64().expect("a number"), replica["votes"] == true)
        })
        .collect()
}

fn nodes(all: &[(String, u64, bool)], votes: bool) -> Vec<String> {
    let mut nodes: Vec<_> =
        all.iter().filter(|(_, _, votes_)| *votes_ == votes).map(|(node, ..)| node.clone()).collect();
    nodes.sort();
    nodes
}

fn of(plan: &Value, role: &str) -> Vec<String> {
    let seats = plan["seats"].as_array().cloned().unwrap_or_default();
    let mut nodes: Vec<_> = seats
        .iter()
        .filter(|seat| seat["role"] == role)
        .map(|seat| seat["node"].as_str().expect("a node").to_owned())
        .collect();
    nodes.sort();
    nodes
}

#[test]
fn learners_follow_are_read_and_neither_count_nor_lead_until_a_plan_has_them_vote() {
    let mesh = DevMesh::start(FOUR, "off");
    let plan = mesh.ok(&["placement", "plan", "--class", "inventory", "--learners", "auto"]);
    assert_eq!(of(&plan, "voter"), ["eu-central/n1", "us-east/n1", "us-south/n1"], "{plan}");
    assert_eq!(of(&plan, "learner"), ["ap-southeast/n1"], "{plan}");
    assert!(
        plan["survives"].as_str().is_some_and(|said| said.starts_with("any one region may be lost")),
        "{plan}"
    );
    let farther = |seat: &Value| {
        seat["node"] == "ap-southeast/n1"
            && seat["why"].as_str().is_some_and(|why| why.starts_with("farther"))
    };
    assert!(plan["rejected"].as_array().is_some_and(|all| all.iter().any(farther)), "{plan}");
    let unknown = mesh.rhumb(&["placement", "plan", "--class", "unheard-of"]);
    assert_eq!(
        (unknown.code, unknown.json["refused"]["code"].as_str()),
        (1, Some("not_allowed")),
        "{}",
        unknown.text
    );

    let create = ["keyspace", "create", "profiles", "--class", "inventory", "--learners", "auto"];
    let made = mesh.ok(&create);
    assert_eq!(made["replicas"].as_array().map(Vec::len), Some(4), "{made}");
    assert_eq!(mesh.ok(&create), made, "again");
    let other = mesh.rhumb(&["keyspace", "create", "profiles", "--class", "inventory"]);
    assert_eq!(other.json["refused"]["code"], "exists", "{}", other.text);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let read = |region: &str| {
        mesh.rhumb(&["kv", "get", "profiles", "ann", "--consistency", "bounded=5s", "--region", region])
    };
    eventually("the learner is read at home", || {
        let ran = read("ap-southeast");
        ran.code == 0 && ran.json["region"] == "ap-southeast" && ran.json["rows"][0]["value"] == "one"
    });
    let all = replicas(&mesh.rhumb(&["range", "ls"]), "profiles");
    assert_eq!(nodes(&all, false), ["ap-southeast/n1"], "{all:?}");
    let range = made["ranges"][0].as_u64().expect("a range").to_string();
    let given = mesh.rhumb(&["range", "transfer-lease", &range, "--to", "ap-southeast/n1"]);
    assert_eq!((given.code, given.json["refused"]["code"].as_str()), (1, Some("invalid")), "{}", given.text);
    assert!(given.text.contains("on node ap-southeast/n1 is a learner"), "{}", given.text);

    // Most is written there now: the learner votes, and the farthest voter is a learner.
    // What is not said stays: there are learners.
    let applied = mesh.ok(&["placement", "apply", "profiles", "--home", "ap-southeast"]);
    let shown = mesh.ok(&["keyspace", "show", "profiles"]);
    let wished = serde_json::json!({ "survive": null, "learners": "auto", "home": "ap-southeast" });
    assert_eq!(shown["placement"], wished);
    assert_eq!(of(&applied, "learner"), ["eu-central/n1"], "{applied}");
    eventually("it stands as planned", || {
        let all = replicas(&mesh.rhumb(&["range", "ls"]), "profiles");
        nodes(&all, true) == ["ap-southeast/n1", "us-east/n1", "us-south/n1"]
            && nodes(&all, false) == ["eu-central/n1"]
    });
    eventually("the row says so", || {
        let plan = mesh.ok(&["placement", "plan", "--keyspace", "profiles"]);
        plan["ranges"][0]["as_planned"] == true
            && plan["ranges"][0]["missing"].as_array().is_some_and(Vec::is_empty)
    });
    eventually("who was a learner holds the lease", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", "ap-southeast/n1"]).code == 0
    });
    mesh.ok(&["kv", "put", "profiles", "ann", "two"]);
    eventually("who was a voter is read", || {
        let ran = read("eu-central");
        ran.json["region"] == "eu-central" && ran.json["rows"][0]["value"] == "two"
    });
    // One voter and a learner are two of four, and no quorum.
    mesh.signal("us-east/n1", "STOP");
    mesh.signal("us-south/n1", "STOP");
    let wrote = mesh.rhumb(&["kv", "put", "profiles", "ann", "three", "--region", "ap-southeast"]);
    assert_ne!(wrote.code, 0, "{}", wrote.text);
    mesh.signal("us-east/n1", "CONT");
    eventually("two of three voters write", || {
        mesh.rhumb(&["kv", "put", "profiles", "ann", "four", "--region", "ap-southeast"]).code == 0
    });
    mesh.signal("us-south/n1", "CONT");
}

#[test]
fn what_is_said_to_stand_as_planned_stands_so() {
    let mesh = DevMesh::start("us-east,eu-central,ap-southeast", "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory", "--replication", "3"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    for replication in [1, 3] {
        mesh.ok(&["placement", "apply", "profiles", "--replication", &replication.to_string()]);
        eventually("it is said to stand as planned", || {
            mesh.ok(&["placement", "plan", "--keyspace", "profiles"])["ranges"][0]["as_planned"] == true
        });
        let all = replicas(&mesh.rhumb(&["range", "ls"]), "profiles");
        assert!(all.len() == replication && all.iter().all(|(.., votes)| *votes), "{all:?}");
    }
}

/// A number of a node's page of metrics.
pub(crate) fn metric(mesh: &DevMesh, node: &str, name: &str) -> f64 {
    let admin = mesh.node(node)["admin"].as_str().expect("a URL").replace("http://", "");
    let (_, page) = ask_admin(&admin, "/metrics").expect("it answers");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {page}"))
}

#[test]
fn a_learner_is_fed_by_a_near_voter_and_by_the_leader_once_that_one_is_gone() {
    let mesh = DevMesh::start(FOUR, "published");
    let (far, near, learner) = ("ap-southeast/n1", "us-east/n1", "eu-central/n1");
    let wish = ["--learners", "auto", "--home", "ap-southeast"];
    let plan = mesh.ok(&[&["placement", "plan", "--class", "inventory"][..], &wish].concat());
    let seats = plan["seats"].as_array().cloned().unwrap_or_default();
    let seat = seats.iter().find(|seat| seat["role"] == "learner").expect("a learner is planned");
    let why = seat["why"].as_str().expect("a reason");
    assert!(seat["node"] == learner && why.ends_with(&format!("; fed by {near}")), "{plan}");

    let made = mesh.ok(&[&["keyspace", "create", "profiles", "--class", "inventory"][..], &wish].concat());
    let range = made["ranges"][0].as_u64().expect("a range").to_string();
    eventually("the one that is far away holds the lease", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", far]).code == 0
    });
    let put = |value: &str| mesh.rhumb(&["kv", "put", "profiles", "ann", value]).code == 0;
    let reads = |value: &str| {
        let ran = mesh.rhumb(&[
            "kv",
            "get",
            "profiles",
            "ann",
            "--consistency",
            "bounded=5s",
            "--region",
            "eu-central",
        ]);
        ran.code == 0 && ran.json["region"] == "eu-central" && ran.json["rows"][0]["value"] == value
    };
    let value = "x".repeat(20_000);
    eventually("entries of that size come over the near voter", || {
        put(&value)
            && metric(&mesh, far, "rhumb_range_fed_entries_total") >= 1.0
            && metric(&mesh, far, "rhumb_range_fed_bytes_total") > 20_000.0
    });
    assert!(metric(&mesh, near, "rhumb_range_passed_on_bytes_total") > 20_000.0);
    eventually("the learner is read", || reads(&value));
    // Who feeds whom is shown, by the numbers of replicas.
    let number: Value = range.parse().expect("a number");
    let of = |node: &str, what: &str| {
        let listed = mesh.rhumb(&["range", "ls"]).json;
        let all = listed["replicas"].as_array().cloned().unwrap_or_default();
        let one = all.iter().find(|one| one["range"] == number && one["node"] == node);
        one.map(|one| one[what].clone()).unwrap_or_default()
    };
    eventually("it is told who feeds it", || of(learner, "fed_by") == of(near, "replica"));
    assert!(of(near, "fed_by").is_null(), "voters hear from the leader");

    mesh.signal(near, "STOP");
    eventually("the two other voters write", || put("after"));
    eventually("the learner has it from the leader", || reads("after"));
    mesh.signal(near, "CONT");

    // One that is killed in the midst of it is started again; meanwhile and afterwards the learner is read, and then it is fed again.
    eventually("it is fed again", || {
        let before = metric(&mesh, far, "rhumb_range_fed_entries_total");
        put(&value) && metric(&mesh, far, "rhumb_range_fed_entries_total") > before
    });
    mesh.kill_9(near);
    eventually("the two other voters write at once", || put("killed"));
    eventually("the learner has it", || reads("killed"));
    eventually("it is fed by the one that was started again", || {
        let before = metric(&mesh, far, "rhumb_range_fed_entries_total");
        put("again") && metric(&mesh, far, "rhumb_range_fed_entries_total") > before
    });
    eventually("the learner has that, too", || reads("again"));
}

#[test]
fn a_node_that_lost_its_disk_gets_its_replicas_anew() {
    let mesh = FoundedMesh::of(3);
    let mut nodes_of_it: Vec<_> = (0..3).map(|node| Some(mesh.serve(node, &[]))).collect();
    nodes_of_it.iter_mut().flatten().for_each(|node| node.wait_ready());
    let ask = |arguments: &[&str]| mesh.ask("operator", arguments);
    let mut made = Value::Null;
    eventually("a keyspace is there", || {
        let ran = ask(&["keyspace", "create", "profiles", "--class", "inventory"]);
        made = ran.json;
        ran.code == 0
    });
    for key in ["ann", "bob", "max"] {
        eventually("it is written", || ask(&["kv", "put", "profiles", key, "before"]).code == 0);
    }
    let before = replicas(&ask(&["range", "ls"]), "profiles");
    assert_eq!(before.len(), 3, "{before:?}");
    let lost = before.iter().find(|(node, ..)| node.starts_with(REGIONS[1])).expect("it has one").1;
    let founded = replicas(&ask(&["range", "ls"]), "meta");

    assert_eq!(ask(&["pool", "create", "concert", "--supply", "3"]).code, 0);

    // The disk goes with the node.
    drop(nodes_of_it[1].take());
    let data = mesh.data(1);
    let dir = data.to_str().expect("a name");
    let again = ["mesh", "new-disk", "--config", "mesh/config", "--region", REGIONS[1], "--node", "n1"];
    let refused = mesh.rhumb(&again);
    assert_ne!(refused.code, 0, "a disk that is there is not a lost one: {}", refused.text);
    std::fs::remove_dir_all(dir).expect("the disk dies");
    let made_disk = mesh.ok(&again);
    assert_eq!(made_disk["node"], format!("{}/n1", REGIONS[1]), "{made_disk}");
    let mut back = mesh.serve(1, &[]);
    // For the escrow it is an older copy until it is attested, and ranges start on no disk that is not proven.
    let attest = ["pool", "attest", "concert", "--node", "eu-central/n1", "--sold", "0"];
    eventually("it is attested", || ask(&attest).code == 0);
    drop(back);
    back = mesh.serve(1, &[]);
    back.wait_ready();
    nodes_of_it[1] = Some(back);

    eventually("it has its replicas again, each under a new number", || {
        let listed = ask(&["range", "ls"]);
        let (space, meta) = (replicas(&listed, "profiles"), replicas(&listed, "meta"));
        let is_new = |all: &[(String, u64, bool)], old: &[(String, u64, bool)]| {
            let here = all.iter().find(|(node, ..)| node.starts_with(REGIONS[1]));
            here.is_some_and(|(_, number, votes)| *votes && old.iter().all(|(_, before, _)| before < number))
        };
        space.len() == 3 && meta.len() == 3 && is_new(&space, &before) && is_new(&meta, &founded)
    });
    let now = replicas(&ask(&["range", "ls"]), "profiles");
    assert!(now.iter().all(|(_, number, _)| *number != lost), "{now:?}");
    eventually("it serves a near read of what was written before", || {
        let arguments =
            ["kv", "get", "profiles", "bob", "--consistency", "bounded=5s", "--region", REGIONS[1]];
        let ran = ask(&arguments);
        ran.code == 0 && ran.json["region"] == REGIONS[1] && ran.json["rows"][0]["value"] == "before"
    });
    eventually("nothing is missing", || {
        let plan = ask(&["placement", "plan", "--keyspace", "profiles"]).json;
        plan["ranges"][0]["missing"].as_array().is_some_and(Vec::is_empty)
    });
    // It takes its part: with it, another one may be lost, once it votes and the lost replica does so no more, which nothing
    // tells exactly. A little too early nobody writes until that one is back.
    let mut wrote = false;
    for _ in 0..6 {
        eventually("all of its replicas vote", || {
            let listed = ask(&["range", "ls"]);
            let (space, meta) = (replicas(&listed, "profiles"), replicas(&listed, "meta"));
            space.len() == 3 && meta.len() == 3 && space.iter().chain(&meta).all(|(.., votes)| *votes)
        });
        drop(nodes_of_it[2].take());
        let (first, second) = (mesh.admin(0), mesh.admin(1));
        let endpoints = format!("{first},{second}");
        let reach = ["--endpoint", &endpoints, "--identity", "mesh/operators/us-east-admin"];
        let put = [&["kv", "put", "profiles", "ann", "after"][..], &reach].concat();
        wrote = (0..3).any(|_| mesh.rhumb(&put).code == 0);
        if wrote {
            break;
        }
        let mut third = mesh.serve(2, &[]);
        third.wait_ready();
        nodes_of_it[2] = Some(third);
        eventually("all three write", || ask(&["kv", "put", "profiles", "ann", "between"]).code == 0);
    }
    assert!(wrote, "the two others never write");
}

#[test]
fn a_node_whose_disk_was_put_back_gets_its_replicas_anew_once_an_operator_says_so() {
    let mesh = FoundedMesh::of(3);
    let mut others: Vec<_> = [0, 2].map(|node| mesh.serve(node, &[])).into();
    let mut node = mesh.serve(1, &[]);
    others.iter_mut().chain([&mut node]).for_each(|node| node.wait_ready());
    let ask = |arguments: &[&str]| mesh.ask("operator", arguments);
    eventually("a keyspace is there", || {
        ask(&["keyspace", "create", "profiles", "--class", "inventory"]).code == 0
    });
    eventually("it is written", || ask(&["kv", "put", "profiles", "ann", "before"]).code == 0);
    assert_eq!(ask(&["pool", "create", "concert", "--supply", "3"]).code, 0);
    let spaces = |name: &str| replicas(&ask(&["range", "ls"]), name);
    let (before, founded) = (spaces("profiles"), spaces("meta"));
    assert_eq!((before.len(), founded.len()), (3, 3), "{before:?} {founded:?}");

    // A copy is made, and is older than what the others have seen when it is put back.
    let (data, old) = (mesh.data(1), mesh.directory().join("old"));
    drop(node);
    copy(&data, &old);
    node = mesh.serve(1, &[]);
    node.wait_ready();
    eventually("more is written", || ask(&["kv", "put", "profiles", "ann", "since"]).code == 0);
    let written = node.status()["durable_commit"].as_u64().expect("a number");
    eventually("the others have seen more of it", || {
        others.iter().all(|other| other.status()["witnessed"]["eu-central/n1"].as_u64() >= Some(written))
    });
    drop(node);
    std::fs::remove_dir_all(&data).expect("the disk dies");
    copy(&old, &data);
    let said = ["mesh", "new-ranges", "--config", "mesh/config", "--region", REGIONS[1], "--node", "n1"];
    let early = mesh.rhumb(&said);
    assert!(early.code != 0 && early.text.contains("not an older copy"), "{}", early.text);

    node = mesh.serve(1, &[]);
    let attest = ["pool", "attest", "concert", "--node", "eu-central/n1", "--sold", "0"];
    eventually("it is attested", || ask(&attest).code == 0);
    drop(node);
    node = mesh.serve(1, &[]);
    node.wait_ready();
    eventually("it says why its ranges do not start", || node.log().contains("rhumb mesh new-ranges"));
    let running = mesh.rhumb(&said);
    assert!(running.code != 0 && running.text.contains("in use"), "{}", running.text);
    // Who is listed are those that answer; who belongs to a range it says itself.
    let listed = ask(&["range", "ls"]);
    assert_eq!(listed.json["unreachable"], serde_json::json!(["eu-central/n1"]), "{}", listed.text);
    let belong = |range: &str| -> Vec<(String, u64)> {
        let all = ask(&["range", "check", range]).json["replicas"].as_array().cloned().unwrap_or_default();
        let one = |one: &Value| Some((one["node"].as_str()?.to_owned(), one["replica"].as_u64()?));
        all.iter().filter_map(one).collect()
    };
    for (range, had) in [("1", &founded), ("2", &before)] {
        let had: Vec<_> = had.iter().map(|(node, number, _)| (node.clone(), *number)).collect();
        eventually("nothing was replaced", || belong(range) == had);
    }
    eventually("the others write", || ask(&["kv", "put", "profiles", "ann", "meanwhile"]).code == 0);

    drop(node);
    let done = mesh.ok(&said);
    assert!(done["rows_deleted"].as_u64() > Some(0) && done["store"].is_string(), "{done}");
    assert!(mesh.rhumb(&said).text.contains("nothing was changed"));
    node = mesh.serve(1, &[]);
    node.wait_ready();
    eventually("its replicas are others, and vote", || {
        let is_new = |all: &[(String, u64, bool)], old: &[(String, u64, bool)]| {
            let here = all.iter().find(|(node, ..)| node.starts_with(REGIONS[1]));
            all.len() == 3
                && here.is_some_and(|(_, number, votes)| *votes && old.iter().all(|(_, was, _)| was < number))
        };
        is_new(&spaces("profiles"), &before) && is_new(&spaces("meta"), &founded)
    });
    eventually("it serves a near read", || {
        let read = ["kv", "get", "profiles", "ann", "--consistency", "bounded=5s", "--region", REGIONS[1]];
        let ran = ask(&read);
        ran.code == 0 && ran.json["region"] == REGIONS[1] && ran.json["rows"][0]["value"] == "meanwhile"
    });
}

#[test]
fn a_node_that_stays_away_is_told_of_and_replaced_and_a_move_to_one_is_taken_back() {
    let mesh = DevMesh::start_under(FOUR, "off", &[("RHUMB__RANGES__REPLACE_AFTER", "12s")]);
    // Commands are those of an operator there: it stays.
    let home = ["--replication", "3", "--home", "ap-southeast"];
    let made = mesh.ok(&[&["keyspace", "create", "profiles", "--class", "inventory"][..], &home].concat());
    let range = made["ranges"][0].as_u64().expect("a range").to_string();
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let listed = || replicas(&mesh.rhumb(&["range", "ls"]), "profiles");
    let stands = || nodes(&listed(), true);
    eventually("three have one", || stands().len() == 3);
    let had = stands();
    let free = FOUR
        .split(',')
        .map(|region| format!("{region}/n1"))
        .find(|node| !had.contains(node))
        .expect("one of four");

    // Where it is to go nobody is: it stays where it was.
    mesh.signal(&free, "STOP");
    let from = had.iter().find(|node| !node.starts_with("ap-southeast")).expect("two of three").clone();
    let moves = mesh.rhumb(&["range", "move", &range, "--from", &from, "--to", &free]);
    assert_eq!((moves.code, moves.json["done"].as_bool()), (3, Some(false)), "{}", moves.text);
    eventually("it is taken back", || {
        let ran = mesh.rhumb(&["range", "move", &range, "--from", &free, "--to", &from]);
        ran.code == 0 && ran.json["done"] == true
    });
    mesh.signal(&free, "CONT");
    eventually("it stands as before", || stands() == had);
    mesh.ok(&["kv", "put", "profiles", "ann", "two"]);

    // A voter stays away.
    let gone = had.iter().rfind(|node| !node.starts_with("ap-southeast")).expect("two of three").clone();
    mesh.signal(&gone, "STOP");
    eventually("it is said what is missing", || {
        let plan = mesh.rhumb(&["placement", "plan", "--keyspace", "profiles"]).json;
        let missing = &plan["ranges"][0]["missing"][0];
        missing["node"] == gone && missing["why"].as_str().is_some_and(|why| why.contains("is replaced, on"))
    });
    eventually("another node has it", || {
        let now = stands();
        now.len() == 3 && now.contains(&free) && !now.contains(&gone)
    });
    mesh.signal(&gone, "CONT");
    eventually("what it had is cleared away", || listed().len() == 3 && !stands().contains(&gone));
    let ran = mesh.rhumb(&["kv", "get", "profiles", "ann"]);
    assert_eq!((ran.code, ran.json["rows"][0]["value"].as_str()), (0, Some("two")), "{}", ran.text);

    // Whoever took the lease meanwhile, or was given it, gives it to where most is written.
    let elsewhere =
        stands().into_iter().find(|node| !node.starts_with("ap-southeast")).expect("two of three");
    eventually("somebody else has the lease", || {
        mesh.rhumb(&["range", "transfer-lease", &range, "--to", &elsewhere]).code == 0
    });
    eventually("it is at home again", || {
        let listed = mesh.rhumb(&["range", "ls"]).json;
        let is_home = |one: &Value| one["leaseholder"] == true && one["node"] == "ap-southeast/n1";
        let of_it = |one: &&Value| one["keyspace"] == "profiles";
        listed["replicas"].as_array().is_some_and(|all| all.iter().filter(of_it).any(is_home))
    });
}
