//! What a handle asks, of whom and for how long; and what it keeps.

use actix::prelude::*;
use rhumb_actors::ranges::lifecycle::Life;
use rhumb_actors::ranges::{Token, TokenKey};
use rhumb_actors::{remote, remote_actor};
use rhumb_core::{ClusterId, Epoch, HybridTime};

use super::*;
use crate::host::{Host, Reply};
use crate::mesh::MeshAddr;
use crate::testing::{TestMesh, run};

#[test]
fn of_two_tokens_the_one_stays_that_has_seen_more() {
    let key = TokenKey::from_seed(ClusterId(7), &[1; 32]);
    let token = |epoch, ms| {
        let said = Token { epoch: Epoch(epoch), at: HybridTime::new(ms, 0) };
        key.sign(said).to_vec()
    };
    for (token, seen, taken) in [
        (token(1, 6), token(1, 5), true),
        (token(1, 5), token(1, 6), false),
        (token(1, 256), token(1, 255), true),
        // Of a range that was not written since the clock was reset, and of one that was just before: the later time has seen both.
        (token(2, 5), token(1, 6), false),
        (token(1, 6), token(2, 5), true),
        (token(2, 6), token(1, 6), true),
        (token(1, 6), token(2, 6), false),
        (token(1, 5), Vec::new(), true),
        (Vec::new(), token(1, 5), false),
        // A node says what is wrong with it.
        (b"no token".to_vec(), token(1, 5), true),
        (token(1, 5), b"no token".to_vec(), true),
    ] {
        assert_eq!(sees_more(&token, &seen), taken, "{token:?} after {seen:?}");
    }
}

/// A node of it is frozen: nothing comes back. The other one answers.
struct OneIsFrozen;

impl Ask for OneIsFrozen {
    async fn ask<M: Remote + Sync>(&self, node: &NodeId, _: &M, _: Duration) -> Result<M::Reply, Fault> {
        if node.region.as_str() == "frozen" {
            std::future::pending::<()>().await;
        }
        Err(Fault::ran(FaultKind::Draining))
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_node_costs_a_read_a_second_and_not_its_deadline() {
    let nodes: Vec<NodeId> = ["frozen/n1", "well/n1"].map(|node| node.parse().expect("a node")).into();
    let begun = Instant::now();
    let answer = ask(&OneIsFrozen, &nodes, &ListKeyspaces {}, WITHIN).await;
    let Err(KvError::Fault(fault)) = answer else { panic!("{answer:?}") };
    assert_eq!((fault.kind, begun.elapsed()), (FaultKind::Draining, ALONE));
}

/// Nothing can be sent to its nodes, which is known when the time is over that was given. It remembers who was asked.
#[derive(Default)]
struct NothingIsSent(Mutex<Vec<String>>);

impl Ask for NothingIsSent {
    async fn ask<M: Remote + Sync>(&self, node: &NodeId, _: &M, within: Duration) -> Result<M::Reply, Fault> {
        self.0.lock().push(format!("{node} in {within:?}"));
        tokio::time::sleep(within).await;
        Err(Fault::not_sent(FaultKind::Deadline(format!("connecting to {node}"))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_not_sent_by_the_end_of_its_call_is_sent_to_nobody_after_it() {
    let nodes: Vec<NodeId> = ["eu/n1", "us/n1", "us/n2"].map(|node| node.parse().expect("a node")).into();
    let (class, ops) = (class("inventory"), vec![put(b"ann", b"")]);
    let write = KvWrite { class, keyspace: "things".to_owned(), ops, hops: 0 };
    for (seconds, asked, lost) in [
        (0, vec![], "looking for a node to ask"),
        (2, vec!["eu/n1 in 2s"], "connecting to eu/n1"),
        // No node has more than the five seconds that a write may take there.
        (8, vec!["eu/n1 in 5s", "us/n1 in 3s"], "connecting to us/n1"),
    ] {
        let (mesh, begun, within) = (NothingIsSent::default(), Instant::now(), Duration::from_secs(seconds));
        let answer = ask(&mesh, &nodes, &write, within).await;
        let Err(KvError::Fault(fault)) = answer else { panic!("{answer:?}") };
        assert_eq!((begun.elapsed(), fault.delivery()), (within, Delivery::NotSent));
        assert_eq!(fault.kind, FaultKind::Deadline(lost.to_owned()));
        assert_eq!(*mesh.0.lock(), asked);
    }
}

const POLICY: &str = r#"
version = 1

[jurisdictions]
eu = ["eu"]
us = ["us"]

[classes.personal]
hold = ["eu"]
read = ["eu"]
carry = ["eu"]

[classes.inventory]
hold = ["all"]
read = ["all"]
carry = ["all"]
"#;

fn class(name: &str) -> DataClass {
    DataClass::new(name).expect("a class")
}

/// A node's keyspaces, `people` and `things`: they remember what they were asked.
#[derive(Default)]
struct Shelf {
    asked: Mutex<Vec<String>>,
    /// They do not answer.
    stands_still: bool,
}

impl Shelf {
    fn asks<T: Send + 'static>(&self, asked: String, answer: Result<T, KvRefusal>) -> Asked<T> {
        self.asked.lock().push(asked);
        if self.stands_still {
            return Box::pin(std::future::pending());
        }
        Box::pin(std::future::ready(Ok(answer)))
    }
}

impl Keyspaces for Shelf {
    fn list(&self) -> Result<Vec<KeyspaceView>, KvRefusal> {
        let space = |(id, name, kind): (u32, &str, &str)| KeyspaceView {
            id,
            name: name.to_owned(),
            class: class(kind),
            replication: 0,
            ranges: vec![u64::from(id)],
            nodes: vec!["eu/n1".parse().expect("a node")],
            lifetimes: Lifetimes::default(),
            life: Life::Active,
            held: Vec::new(),
            placement: Placement::default(),
        };
        Ok([(1, "people", "personal"), (2, "things", "inventory")].map(space).into())
    }

    fn read(&self, message: KvRead, by: Option<String>, within: Duration) -> Asked<KvAnswer> {
        let by = by.unwrap_or_else(|| "nobody".to_owned());
        let answer = KvAnswer {
            rows: Vec::new(),
            next: None,
            level: Guarantee::Snapshot,
            at: HybridTime::ZERO,
            age: Duration::ZERO,
            region: "eu".parse().expect("a region"),
            replica: 1,
            fallback: false,
            token: Vec::new(),
            erased: 0,
        };
        self.asks(format!("get {} for {by} in {within:?}", message.keyspace), Ok(answer))
    }

    fn write(&self, message: KvWrite, within: Duration) -> Asked<KvWritten> {
        let refused = || KvRefusal::Condition { op: 0, found: None };
        let written = KvWritten {
            version: HybridTime::ZERO,
            region: "eu".parse().expect("a region"),
            replica: 1,
            token: Vec::new(),
        };
        let answer = if message.ops[0].condition.is_some() { Err(refused()) } else { Ok(written) };
        self.asks(format!("put {} in {within:?}", message.keyspace), answer)
    }
}

/// Does these one after the other: `get people`, `put things`, `claim things` (which is refused), `wait 100` milliseconds.
#[remote(
    name = "test.Errand",
    class = by(class),
    reply_class = "control",
    reply = Vec<String>,
    crate = rhumb_actors
)]
struct Errand {
    class: DataClass,
    does: Vec<String>,
}

fn errand(kind: &str, does: &[&str]) -> Errand {
    Errand { class: class(kind), does: does.iter().map(|&what| what.to_owned()).collect() }
}

/// Runs errands, and notes what came of each part.
struct Clerk(Arc<Mutex<Vec<String>>>);

#[remote_actor(name = "test.clerk", class = "control", accepts(Errand), crate = rhumb_actors)]
impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Errand> for Clerk {
    type Result = Reply<Vec<String>>;

    fn handle(&mut self, errand: Errand, _: &mut Context<Self>) -> Self::Result {
        let noted = Arc::clone(&self.0);
        Reply::later(async move {
            let mut came = Vec::new();
            for what in &errand.does {
                let told = does(what).await;
                noted.lock().push(told.clone());
                came.push(told);
            }
            came
        })
        .finish()
    }
}

async fn does(what: &str) -> String {
    let (what, whom) = what.split_once(' ').expect("two words");
    if what == "wait" {
        tokio::time::sleep(Duration::from_millis(whom.parse().expect("milliseconds"))).await;
        return "waited".to_owned();
    }
    let mesh = call::call().expect("it is in a call").mesh().clone();
    let came = async {
        let kv = Kv::here(&mesh, whom).await?;
        match what {
            "get" => kv.get(b"ann", Needs::Eventual).await.map(drop),
            "claim" => kv.put_if(b"ann", b"", KvCondition::Absent).await.map(drop),
            _ => kv.put(b"ann", b"").await.map(drop),
        }
    };
    match came.await {
        Ok(()) => "done".to_owned(),
        Err(KvError::Refused(refusal)) => refusal.code().to_owned(),
        Err(KvError::Fault(Fault { kind: FaultKind::ClassLowered { from, to }, .. })) => {
            format!("{from} is no {to}")
        }
        Err(KvError::Fault(fault)) if matches!(fault.kind, FaultKind::Deadline(_)) => {
            format!("too late, {:?}", fault.delivery())
        }
        Err(error) => error.to_string(),
    }
}

/// Two regions, and what the clerk of the first one noted. Personal data stays there, and its keyspaces are these.
async fn mesh(shelf: &Arc<Shelf>) -> (TestMesh, Arc<Mutex<Vec<String>>>) {
    let noted = Arc::default();
    let notes = Arc::clone(&noted);
    let clerks = Host::new(move |_| Clerk(Arc::clone(&notes)));
    let mesh = TestMesh::of(["eu", "us"]).policy(POLICY).host(clerks).start().await.expect("it starts");
    mesh.at("eu").keeps(Arc::clone(shelf) as Arc<dyn Keyspaces>);
    (mesh, noted)
}

/// The clerk in the region of the keyspaces, for who asks from here.
fn clerk(mesh: &TestMesh, from: &str) -> MeshAddr<Clerk> {
    mesh.at(from).actor_in(&"eu".parse().expect("a region"), "desk")
}

#[test]
fn a_keyspace_of_a_looser_class_than_what_a_call_has_seen_is_not_reached() {
    run(async {
        let shelf = Arc::new(Shelf::default());
        let (mesh, _) = mesh(&shelf).await;
        let lowered = "personal is no inventory";
        for (kind, does, came) in [
            ("control", ["get things", "put people"], ["done", "done"]),
            ("inventory", ["put things", "put people"], ["done", "done"]),
            ("personal", ["get people", "put people"], ["done", "done"]),
            ("personal", ["get things", "put things"], [lowered, lowered]),
            ("inventory", ["get people", "put things"], ["done", lowered]),
            // What is told of a write binds as well: that it was made, and that it was not.
            ("inventory", ["put people", "get things"], ["done", lowered]),
            ("inventory", ["claim people", "put things"], ["condition_failed", lowered]),
            ("inventory", ["claim things", "put things"], ["condition_failed", "done"]),
        ] {
            shelf.asked.lock().clear();
            let told = clerk(&mesh, "eu").ask(errand(kind, &does)).await.expect("it answers");
            assert_eq!(told, came, "{kind}: {does:?}");
            let reached = came.iter().filter(|came| **came != lowered).count();
            assert_eq!(shelf.asked.lock().len(), reached, "what is refused is not asked: {kind}: {does:?}");
        }
        // The answer is of the class of what was read, whatever its message declares: it does not leave the region.
        let elsewhere = clerk(&mesh, "us");
        assert_eq!(elsewhere.ask(errand("control", &["get things"])).await, Ok(vec!["done".to_owned()]));
        let fault = elsewhere.ask(errand("control", &["get people"])).await.expect_err("it stays there");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
    });
}

#[test]
fn an_actor_reads_in_its_own_name_and_within_the_time_of_its_call() {
    run(async {
        let shelf = Arc::new(Shelf::default());
        let (mesh, _) = mesh(&shelf).await;
        let clerk = clerk(&mesh, "eu");
        let parts = ["wait 1000", "get things", "put things"];
        let told = clerk.ask(errand("control", &parts)).within(Duration::from_secs(3)).await;
        assert_eq!(told, Ok(["waited", "done", "done"].map(str::to_owned).into()));
        let told = clerk.ask(errand("control", &["get things"])).within(Duration::from_secs(60)).await;
        assert_eq!(told, Ok(vec!["done".to_owned()]));
        // The service around the node is in no call.
        let kv = Kv::here(mesh.at("eu"), "things").await.expect("it is there");
        kv.get(b"ann", Needs::Strong).await.expect("answered");
        let name = clerk.id().shown();
        let asked = [
            format!("get things for {name} in 2s"),
            "put things in 2s".to_owned(),
            format!("get things for {name} in 10s"),
            "get things for nobody in 10s".to_owned(),
        ];
        assert_eq!(*shelf.asked.lock(), asked);
    });
}

#[test]
fn what_is_asked_within_a_call_ends_with_it_and_nothing_is_asked_after_it() {
    run(async {
        let shelf = Arc::new(Shelf { stands_still: true, ..Shelf::default() });
        let (mesh, noted) = mesh(&shelf).await;
        let clerk = clerk(&mesh, "eu");
        let ask = clerk.ask(errand("control", &["get things", "put things"]));
        let fault = ask.within(Duration::from_millis(300)).await.expect_err("nobody answered in time");
        assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*noted.lock(), ["too late, Unknown", "too late, NotSent"]);
        assert_eq!(*shelf.asked.lock(), [format!("get things for {} in 300ms", clerk.id().shown())]);

        // A keyspace that is not known is looked for no longer than the call lasts, and that there is none is not known then.
        noted.lock().clear();
        let ask = clerk.ask(errand("control", &["get nothing"])).within(Duration::from_millis(301));
        ask.await.expect_err("nobody answered in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*noted.lock(), ["too late, NotSent"]);
        let told = clerk.ask(errand("control", &["get nothing"])).within(Duration::from_secs(2)).await;
        assert_eq!(told, Ok(vec!["no_such_keyspace".to_owned()]));
    });
}
