//! Levels of keyspaces of the real program: in types, in traces, in metrics, and an alarm when replicas are too far behind.

use std::sync::Arc;
use std::time::Duration;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{Kv, KvError, KvFound, KvRead, KvRefusal, Needs, NotUpgraded};
use rhumb::consistent::{AtLeast, Snapshot, StrictSerializable};
use rhumb::prelude::*;
use rhumb::testing::TestMesh;
use rhumb_tests::cluster::{DevMesh, ask_admin, eventually};
use rhumb_tests::otlp::Collector;

const THREE: &str = "us-east,eu-central,ap-southeast";
const NODES: [&str; 3] = ["us-east/n1", "eu-central/n1", "ap-southeast/n1"];

fn in_time<T>(told: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(told)
}

fn region(name: &str) -> Region {
    Region::new(name).expect("valid")
}

fn page(mesh: &DevMesh, node: &str) -> String {
    let admin = mesh.node(node)["admin"].as_str().expect("a URL").replace("http://", "");
    ask_admin(&admin, "/metrics").expect("it answers").1
}

/// The sum of a series over all nodes.
fn sum(mesh: &DevMesh, series: &str) -> f64 {
    let value = |page: String| {
        let line =
            page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    NODES.iter().map(|node| value(page(mesh, node))).sum()
}

/// Only what was so now.
fn strongly(found: &Consistent<KvFound, StrictSerializable>) -> Option<&[u8]> {
    found.value().bytes()
}

/// What was so at one moment.
fn at_a_moment<L: AtLeast<Snapshot>>(found: &Consistent<KvFound, L>) -> Option<&[u8]> {
    found.value().bytes()
}

#[test]
fn a_value_is_upgraded_by_reading_it_again_and_a_conflict_shows_both_versions() {
    let collector = Collector::grpc();
    let mesh = DevMesh::start_traced(THREE, "off", &collector.endpoint, &[]);
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let client = MeshClient::new(&mesh.data().join("client"), directory).expect("a certificate");
    in_time(async {
        let client = &client;
        let open = |name| async move {
            Kv::open(client, "profiles", Some(&region(name))).await.expect("it is there")
        };
        let (us, eu) = (open("us-east").await, open("eu-central").await);
        us.put(b"bob", b"at home").await.expect("written");
        let one = us.put(b"ann", b"one").await.expect("written").version;
        let shown = us.eventual(b"ann").await.expect("read");
        assert_eq!((shown.level(), shown.value().bytes()), (Guarantee::Eventual, Some(&b"one"[..])));
        let now = us.upgrade(shown.clone()).await.expect("nobody wrote meanwhile");
        assert_eq!((strongly(&now), at_a_moment(&now)), (Some(&b"one"[..]), Some(&b"one"[..])));
        assert_eq!((now.value().version(), now.value().level), (Some(one), Guarantee::StrictSerializable));

        let two = eu.put(b"ann", b"two").await.expect("written").version;
        let Err(NotUpgraded::Conflict(conflict)) = us.upgrade(shown).await else { panic!("it was written") };
        assert_eq!((conflict.had.version(), conflict.now.value().version()), (Some(one), Some(two)));
        assert_eq!(strongly(&conflict.now), Some(&b"two"[..]));
        let text = format!("version {} was read, and now it is version {}", one.to_bits(), two.to_bits());
        assert!(conflict.to_string().starts_with(&text), "{conflict}");
        eu.delete(b"ann").await.expect("deleted");
        let Err(NotUpgraded::Conflict(conflict)) = us.upgrade(conflict.now).await else {
            panic!("it is gone")
        };
        assert_eq!((conflict.had.version(), conflict.now.value().version()), (Some(two), None));
        us.upgrade(us.eventual(b"nobody").await.expect("read")).await.expect("it is still not there");

        let then = us.as_of(b"ann", one).await.expect("it is kept");
        assert_eq!((at_a_moment(&then), then.level()), (Some(&b"one"[..]), Guarantee::Snapshot));
        // A bound that no follower can keep: two of three refuse, where they may not pass it on.
        let mut refused = 0;
        for name in THREE.split(',') {
            let store = open(name).await;
            let needs = store.asks(Needs::Bounded(Duration::from_secs(1)));
            match store.read(KvRead { from: b"ann".to_vec(), nearest_only: true, ..needs }).await {
                Err(KvError::Refused(KvRefusal::StalenessBoundViolated { bound_ms: 1_000, .. })) => {
                    refused += 1
                }
                Ok(answer) => assert_eq!(answer.level, Guarantee::StrictSerializable),
                Err(other) => panic!("{other}"),
            }
            store.goes_on(us.token());
            store.eventual(b"ann").await.expect("whoever has applied it answers");
            store.bounded(b"ann", Duration::from_secs(60)).await.expect("whoever leads answers");
        }
        assert_eq!(refused, 2, "all but the leaseholder");
    });
    eventually("a snapshot is read at home", || {
        let read = mesh.rhumb(&["kv", "get", "profiles", "bob", "--consistency", "bounded=10s"]);
        read.json["level"] == "snapshot"
    });
    assert_eq!(sum(&mesh, "rhumb_kv_staleness_refused_total"), 2.0);
    for level in ["strict_serializable", "snapshot"] {
        let series = format!("rhumb_kv_read_age_seconds_count{{level=\"{level}\"}}");
        assert!(sum(&mesh, &series) >= 1.0, "{series}: {}", page(&mesh, NODES[0]));
    }
    // With a token right after a write nothing is closed so far on any follower.
    assert!(sum(&mesh, "rhumb_kv_read_fallbacks_total") >= 2.0, "{}", page(&mesh, NODES[0]));
    eventually("each node tells how far behind it is", || {
        NODES
            .iter()
            .all(|node| page(&mesh, node).contains("rhumb_range_behind_seconds{keyspace=\"profiles\"}"))
    });
    assert_eq!(sum(&mesh, "rhumb_ranges_stale"), 0.0);
    eventually("the spans of reads say their level and age", || {
        let spans = collector.spans();
        let of = |level: &str| {
            spans.iter().any(|span| {
                let says = |key: &str| span.attributes.get(key).map(String::as_str);
                let age = says("rhumb.kv.age_ms").and_then(|age| age.parse::<u64>().ok());
                let aged = age.is_some_and(|age| (age > 0) == (level == "snapshot"));
                span.name == "kv/Read"
                    && span.kind == "SERVER"
                    && says("rhumb.guarantee") == Some(level)
                    && aged
            })
        };
        of("strict_serializable") && of("snapshot")
    });
}

/// An answer is of the class of what its handler has read, and passes where that may.
const POLICY: &str = r#"
version = 1

[jurisdictions]
us = ["us"]
eu = ["eu"]

[classes.inventory]
hold = ["all"]
read = ["all"]
carry = ["all"]
"#;

/// Looks up a key, strongly or not.
#[remote(name = "test.Look", class = "inventory", reply = String)]
struct Look {
    strong: bool,
}

struct Looker {
    client: Arc<MeshClient>,
}

#[remote_actor(name = "test.looker", class = "inventory", accepts(Look))]
impl Actor for Looker {
    type Context = Context<Self>;
}

impl Handler<Look> for Looker {
    type Result = Reply<String>;

    fn handle(&mut self, look: Look, _: &mut Context<Self>) -> Self::Result {
        let client = Arc::clone(&self.client);
        Reply::later(async move {
            let kv = Kv::open(&client, "profiles", None).await.expect("it is there");
            let needs = if look.strong { Needs::Strong } else { Needs::Eventual };
            let answer = kv.get(b"ann", needs).await.expect("read");
            let rests_on = call().expect("a handler has a call").guarantee();
            format!("{} rows, by {rests_on}", answer.rows.len())
        })
    }
}

#[test]
fn what_a_handler_reads_its_answer_rests_on() {
    let mesh = DevMesh::start("us-east", "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let directory = Directory::read(&mesh.data()).expect("a ready file");
    let client = MeshClient::new(&mesh.data().join("client"), directory).expect("a certificate");
    in_time(async {
        let client = Arc::new(client);
        client.connect_all().await.expect("it is up");
        let host = Host::new(move |_: &Activation| Looker { client: Arc::clone(&client) });
        let actors = TestMesh::of(["us", "eu"]).policy(POLICY).host(host).start().await.expect("it starts");
        let looker = actors.at("us").actor_in::<Looker>(&region("eu"), "looker");
        let look = async |strong| looker.ask(Look { strong }).requiring(Guarantee::Snapshot).await;
        assert_eq!(look(true).await.expect("strong"), "1 rows, by strict serializable");
        let fault = look(false).await.expect_err("it rests on less than was required");
        let (required, achieved) = (Guarantee::Snapshot, Guarantee::Eventual);
        assert_eq!(
            (fault.kind, fault.delivery),
            (FaultKind::Guarantee { required, achieved }, Delivery::Ran)
        );
    });
}

#[test]
fn replicas_that_are_too_far_behind_raise_an_alarm_until_they_have_caught_up() {
    let mesh = DevMesh::start(THREE, "off");
    mesh.ok(&["keyspace", "create", "profiles", "--class", "inventory"]);
    mesh.ok(&["kv", "put", "profiles", "ann", "one"]);
    let (left, stopped) = (NODES[0], &NODES[1..]);
    let readyz = || {
        let admin = mesh.node(left)["admin"].as_str().expect("a URL").replace("http://", "");
        ask_admin(&admin, "/readyz").expect("it answers")
    };
    assert_eq!(readyz(), (200, "ready\n".to_owned()));
    stopped.iter().for_each(|node| mesh.signal(node, "STOP"));
    eventually("without a majority nothing is closed", || {
        page(&mesh, left).contains("rhumb_ranges_stale 2.0")
    });
    assert_eq!(readyz(), (200, "ready; replicas are too far behind: meta, profiles\n".to_owned()));
    assert!(mesh.log(left).contains("replicas here are too far behind"), "{}", mesh.log(left));
    stopped.iter().for_each(|node| mesh.signal(node, "CONT"));
    eventually("they have caught up", || readyz().1 == "ready\n");
    assert!(mesh.log(left).contains("replicas here have caught up"), "{}", mesh.log(left));
}
