//! Addresses name identities: they go into messages, become recipients, and find their actor again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rhumb::host::HostError;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.WhereAreYou", class = "control", reply = String)]
struct WhereAreYou;

#[remote(name = "test.Introduce", class = "control", reply = String)]
struct Introduce {
    to: MeshAddr<Places>,
}

#[remote(name = "test.ForNodes", class = "control", reply = (), audience = "nodes")]
struct ForNodes;

protocol! {
    /// What can be asked of a place, apart from the actor that serves it.
    pub Places = "test.place", class "control": WhereAreYou, Introduce, ForNodes;
}

struct Place(String);

#[remote_actor(serves = Places)]
impl Actor for Place {
    type Context = Context<Self>;
}

impl Handler<WhereAreYou> for Place {
    type Result = String;

    fn handle(&mut self, _: WhereAreYou, _: &mut Context<Self>) -> String {
        self.0.clone()
    }
}

impl Handler<Introduce> for Place {
    type Result = Reply<String>;

    fn handle(&mut self, introduce: Introduce, _: &mut Context<Self>) -> Self::Result {
        let here = self.0.clone();
        Reply::later(async move {
            match introduce.to.ask(WhereAreYou).await {
                Ok(there) => format!("{here} met {there}"),
                Err(fault) => fault.to_string(),
            }
        })
    }
}

impl Handler<ForNodes> for Place {
    type Result = ();

    fn handle(&mut self, _: ForNodes, _: &mut Context<Self>) {}
}

fn host() -> Host<Place> {
    Host::new(|at: &Activation| Place(format!("{} at {}", at.id, at.mesh.region())))
}

async fn mesh() -> TestMesh {
    TestMesh::of(["us/n1", "us/n2", "eu/n1", "ap/n1"]).host(host()).start().await.expect("starts")
}

#[test]
fn a_key_is_one_actor_wherever_it_is_called_from() {
    run(async {
        let mesh = mesh().await;
        let mut places = std::collections::BTreeSet::new();
        for key in 0..40 {
            let mut told = Vec::new();
            for from in ["us/n1", "us/n2", "eu", "ap"] {
                told.push(mesh.at(from).actor::<Places>(key).ask(WhereAreYou).await.expect("answered"));
            }
            told.dedup();
            assert_eq!(told.len(), 1, "{told:?}");
            places.extend(told.pop().and_then(|told| told.split(" at ").nth(1).map(str::to_owned)));
        }
        assert_eq!(places.len(), 3, "keys are spread over all regions");
        let of = |mesh: &Mesh| mesh.singleton::<Places>();
        let (a, b) = (of(mesh.at("us")).ask(WhereAreYou).await, of(mesh.at("ap")).ask(WhereAreYou).await);
        assert_eq!(a, b, "there is one singleton");
        let strict = mesh.at("us").actor_in::<Place>(&"eu".parse().expect("a region"), "x");
        assert_eq!(strict.ask(WhereAreYou).await, Ok("test.place@eu/x at eu".to_owned()));
    });
}

#[test]
fn an_address_travels_in_a_message() {
    run(async {
        let mesh = mesh().await;
        let at = |region: &str, key: &str| mesh.at("us").actor_in(&region.parse().expect("a region"), key);
        let told = at("eu", "a").ask(Introduce { to: at("ap", "b") }).await;
        assert_eq!(told, Ok("test.place@eu/a at eu met test.place@ap/b at ap".to_owned()));
        let key = "x".repeat(500);
        let fault = mesh.at("us").actor::<Places>(key).ask(WhereAreYou).await.expect_err("too long");
        assert!(fault.to_string().contains("at most 200 bytes"), "{fault}");
    });
}

#[test]
fn code_for_local_recipients_works_across_regions_unchanged() {
    async fn local_code(who: Recipient<WhereAreYou>) -> String {
        who.send(WhereAreYou).await.expect("answered")
    }
    run(async {
        let mesh = mesh().await;
        let far = mesh.at("us").actor_in::<Place>(&"ap".parse().expect("a region"), "a");
        assert_eq!(local_code(far.recipient()).await, "test.place@ap/a at ap");
        far.recipient::<WhereAreYou>().try_send(WhereAreYou).expect("there is room");
        mesh.cut("us", "ap");
        let closed = far.recipient::<WhereAreYou>().send(WhereAreYou).await;
        assert!(matches!(closed, Err(actix::MailboxError::Closed)), "{closed:?}");
    });
}

#[test]
fn who_no_longer_waits_for_a_recipient_ends_the_call() {
    run(async {
        let dropped = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&dropped);
        let host = Host::new(move |_: &_| Lingerer(Vec::new(), Arc::clone(&counted)));
        let mesh = TestMesh::of(["us", "ap"]).host(host).start().await.expect("starts");
        let far = mesh.at("us").actor_in::<Lingerer>(&"ap".parse().expect("a region"), "a");
        let recipient = far.recipient::<Linger>();
        let waits = tokio::time::timeout(Duration::from_secs(1), recipient.send(Linger)).await;
        assert!(waits.is_err(), "it lingers");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "and is dropped when nobody waits");
    });
}

#[test]
fn what_goes_through_one_recipient_arrives_in_order() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    threads.expect("threads").block_on(async {
        let host = Host::new(|_: &_| Lingerer(Vec::new(), Arc::default()));
        let mesh = TestMesh::of(["us", "ap"]).host(host).start().await.expect("starts");
        for region in ["us", "ap"] {
            let actor = mesh.at("us").actor_in::<Lingerer>(&region.parse().expect("a region"), "a");
            let recipient = actor.recipient::<Next>();
            for number in 0..200 {
                recipient.do_send(Next { number });
            }
            let told = recipient.send(Next { number: 200 }).await.expect("answered");
            assert_eq!(told, (0..=200).collect::<Vec<u32>>(), "{region}");
        }
    });
}

#[remote(name = "test.Linger", class = "control", reply = (), deadline = "2m")]
struct Linger;

#[remote(name = "test.Next", class = "control", reply = Vec<u32>)]
struct Next {
    number: u32,
}

/// Notes what comes, and how many of its futures were dropped.
struct Lingerer(Vec<u32>, Arc<AtomicU32>);

#[remote_actor(name = "test.lingerer", class = "control", accepts(Linger, Next))]
impl Actor for Lingerer {
    type Context = Context<Self>;
}

struct Counts(Arc<AtomicU32>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler<Linger> for Lingerer {
    type Result = Reply<()>;

    fn handle(&mut self, _: Linger, _: &mut Context<Self>) -> Reply<()> {
        let counts = Counts(Arc::clone(&self.1));
        Reply::later(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(counts);
        })
    }
}

impl Handler<Next> for Lingerer {
    type Result = Vec<u32>;

    fn handle(&mut self, next: Next, _: &mut Context<Self>) -> Vec<u32> {
        self.0.push(next.number);
        self.0.clone()
    }
}

#[test]
fn a_program_outside_calls_actors_and_only_what_is_meant_for_it() {
    run(async {
        let mesh = mesh().await;
        let client = mesh.client("eu", "shop");
        for key in 0..10 {
            let from_node = mesh.at("us").actor::<Places>(key).ask(WhereAreYou).await;
            assert_eq!(client.actor::<Places>(key).ask(WhereAreYou).await, from_node);
        }
        let fault = client.actor::<Places>("a").ask(ForNodes).await.expect_err("not for clients");
        assert!(matches!(fault.kind, FaultKind::Unauthorized(_)), "{fault}");
        mesh.at("eu").actor::<Places>("a").ask(ForNodes).await.expect("for nodes");
    });
}

#[test]
fn a_broadcast_reaches_all_that_are_awake_in_the_regions_named() {
    run(async {
        let mesh = mesh().await;
        for (region, keys) in [("us", 6), ("eu", 3), ("ap", 2)] {
            for key in 0..keys {
                let place = mesh.at("us").actor_in::<Place>(&region.parse().expect("a region"), key);
                place.ask(WhereAreYou).await.expect("awake");
            }
        }
        let regions = ["us", "ap"].map(|region| region.parse().expect("a region"));
        let outcomes = mesh.at("eu").broadcast::<Places, _>(&regions, WhereAreYou).await;
        let sum = |place: &str| {
            let of = outcomes.iter().filter(|one| one.node.region.as_str() == place);
            of.map(|one| one.outcome.clone().expect("reached").0).sum::<u64>()
        };
        assert_eq!((outcomes.len(), sum("us"), sum("ap"), sum("eu")), (3, 6, 2, 0));
    });
}

#[test]
fn a_type_that_is_hosted_twice_or_missing_is_refused_by_name() {
    run(async {
        let refusal = |started: anyhow::Result<TestMesh>| -> HostError {
            let error = started.err().expect("it is refused");
            error.downcast_ref::<HostError>().expect("by its hosts").clone()
        };
        let twice = TestMesh::of(["us"]).host(host()).host(host()).start().await;
        assert_eq!(refusal(twice), HostError::Twice("test.place"));
        let missing = TestMesh::of(["us"]).host(host().calls::<Elsewhere>()).start().await;
        assert_eq!(refusal(missing), HostError::Missing { by: "test.place", needs: "test.elsewhere" });
        // Hosted on one node only: the other says so by name.
        let mesh = TestMesh::of(["us", "eu"]).host_at("us", host()).start().await.expect("starts");
        let far = mesh.at("us").actor_in::<Place>(&"eu".parse().expect("a region"), "a");
        let fault = far.ask(WhereAreYou).await.expect_err("not hosted there");
        assert_eq!(fault.delivery(), Delivery::NotSent);
        assert!(fault.to_string().contains("test.WhereAreYou"), "{fault}");
    });
}

protocol! {
    /// Nobody serves it.
    pub Elsewhere = "test.elsewhere", class "control": WhereAreYou;
}

#[test]
fn local_calls_encode_nothing() {
    // A message that cannot be encoded goes through within a node, and fails only on its way out.
    run(async {
        let mesh = mesh().await;
        let near = mesh.at("eu").actor_in::<Shy>(&"eu".parse().expect("a region"), "a");
        let _ = (near, Arc::new(()));
        let mesh = TestMesh::of(["us", "eu"]).host(Host::new(|_: &_| Shy)).start().await.expect("starts");
        let near = mesh.at("us").actor_in::<Shy>(&"us".parse().expect("a region"), "a");
        let far = mesh.at("us").actor_in::<Shy>(&"eu".parse().expect("a region"), "a");
        assert_eq!(near.ask(Secretive { text: Unencodable }).await, Ok(1));
        let fault = far.ask(Secretive { text: Unencodable }).await.expect_err("it cannot be encoded");
        assert!(matches!(fault.kind, FaultKind::Decode { .. }), "{fault}");
    });
}

#[derive(Wire)]
struct Unencodable;

impl serde::Serialize for Unencodable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it does not want to be written"))
    }
}

impl<'de> serde::Deserialize<'de> for Unencodable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[remote(name = "test.Secretive", class = "control", reply = u32)]
struct Secretive {
    text: Unencodable,
}

struct Shy;

#[remote_actor(name = "test.shy", class = "control", accepts(Secretive))]
impl Actor for Shy {
    type Context = Context<Self>;
}

impl Handler<Secretive> for Shy {
    type Result = u32;

    fn handle(&mut self, secretive: Secretive, _: &mut Context<Self>) -> u32 {
        let Unencodable = secretive.text;
        1
    }
}
