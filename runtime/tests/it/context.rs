//! What goes with a call without the caller's doing, through asynchronous handlers and across regions.

use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};
use rhumb_core::Epoch;

/// Where a call goes on to, and then where that goes on to.
#[remote(name = "test.Hop", class = "control", reply = Vec<String>, idempotent, key = id, deadline = "10s")]
struct Hop {
    id: String,
    route: Vec<MeshAddr<Station>>,
    wait_ms: u64,
}

/// An actor that passes a call on and says what it knows of it.
struct Station;

#[remote_actor(name = "test.station", class = "control", accepts(Hop))]
impl Actor for Station {
    type Context = Context<Self>;
}

impl Handler<Hop> for Station {
    type Result = Reply<Vec<String>>;

    fn handle(&mut self, mut hop: Hop, _: &mut Context<Self>) -> Self::Result {
        Reply::later(async move {
            tokio::time::sleep(Duration::from_millis(hop.wait_ms)).await;
            // After a suspension the context is still there.
            let here = call().expect("a handler has a call");
            let mut told = vec![format!(
                "{} left={}ms required={} key={} chain={}",
                here.actor(),
                here.remaining().as_millis(),
                here.required(),
                here.idempotency_key().unwrap_or("none"),
                here.chain().join(">"),
            )];
            if hop.route.is_empty() {
                here.rests_on(Guarantee::Snapshot);
                return told;
            }
            let next = hop.route.remove(0);
            match next.ask(hop).await {
                Ok(further) => told.extend(further),
                Err(fault) => told.push(format!("fault: {fault}")),
            }
            told.push(format!("rests on {}", here.guarantee()));
            told
        })
    }
}

async fn mesh() -> TestMesh {
    let mesh =
        TestMesh::of(["us", "eu", "ap"]).host(Host::new(|_: &_| Station)).start().await.expect("starts");
    mesh.delay("us", "eu", Duration::from_millis(50));
    mesh.delay("eu", "ap", Duration::from_millis(50));
    mesh
}

fn station(mesh: &TestMesh, region: &str, key: &str) -> MeshAddr<Station> {
    mesh.at("us").actor_in(&region.parse().expect("a region"), key)
}

fn hop(route: Vec<MeshAddr<Station>>) -> Hop {
    Hop { id: "k-1".to_owned(), route, wait_ms: 100 }
}

#[test]
fn deadline_key_requirement_chain_and_guarantee_go_from_hop_to_hop() {
    run(async {
        let mesh = mesh().await;
        let (eu, ap, us) = (station(&mesh, "eu", "b"), station(&mesh, "ap", "c"), station(&mesh, "us", "a"));
        let (first, second) = (us.id().shown(), eu.id().shown());
        let route = vec![eu.clone(), ap];
        let ask = us.ask(hop(route)).within(Duration::from_secs(1)).requiring(Guarantee::Snapshot);
        let told = ask.await.expect("answered");
        assert_eq!(
            told,
            [
                "test.station@us/a left=900ms required=snapshot key=k-1 chain=".to_owned(),
                format!("test.station@eu/b left=800ms required=snapshot key=k-1 chain={first}"),
                format!("test.station@ap/c left=700ms required=snapshot key=k-1 chain={first}>{second}"),
                "rests on snapshot".to_owned(),
                "rests on snapshot".to_owned(),
            ]
        );
        let refused = us.ask(hop(vec![eu])).requiring(Guarantee::StrictSerializable).await.expect("answered");
        assert!(refused.iter().any(|line| line.contains("strict serializable")), "{refused:?}");
        let refused = us.ask(hop(vec![])).requiring(Guarantee::Serializable).await.expect_err("it is weaker");
        assert_eq!(
            (refused.delivery(), matches!(refused.kind, FaultKind::Guarantee { .. })),
            (Delivery::Ran, true)
        );
    });
}

#[test]
fn no_hop_waits_longer_than_the_first_caller_and_the_time_in_a_queue_counts() {
    run(async {
        let mesh = mesh().await;
        let (us, eu) = (station(&mesh, "us", "a"), station(&mesh, "eu", "b"));
        let began = tokio::time::Instant::now();
        let slow = Hop { wait_ms: 400, ..hop(vec![eu]) };
        let fault = us.ask(slow).within(Duration::from_millis(600)).await.expect_err("too slow");
        assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
        assert_eq!(fault.delivery(), Delivery::Unknown);
        assert_eq!(began.elapsed().as_millis(), 600, "and not the message's own ten seconds");
    });
}

#[test]
fn an_actor_asked_within_its_own_chain_answers_at_once() {
    run(async {
        let mesh = mesh().await;
        let (us, eu) = (station(&mesh, "us", "a"), station(&mesh, "eu", "b"));
        for route in [vec![us.clone()], vec![eu.clone(), us.clone()]] {
            let began = tokio::time::Instant::now();
            let told = us.ask(hop(route)).await.expect("answered");
            let cycle = format!("{} is already in this chain", us.id().shown());
            assert!(told.iter().any(|line| line.contains(&cycle)), "{told:?}");
            assert!(began.elapsed() < Duration::from_secs(1), "nothing waited for a deadline");
        }
        // Twice one after the other is no cycle.
        us.ask(hop(vec![])).await.expect("answered");
    });
}

#[test]
fn an_actor_of_another_epoch_says_so() {
    run(async {
        let mesh = mesh().await;
        for region in ["us", "eu"] {
            let actor = station(&mesh, region, "a");
            actor.ask(hop(vec![])).epoch(Epoch(1)).await.expect("the present one");
            let fault = actor.ask(hop(vec![])).epoch(Epoch(2)).await.expect_err("another one");
            assert_eq!((fault.kind, fault.delivery), (FaultKind::WrongEpoch { ours: 1 }, Delivery::NotSent));
        }
    });
}

#[test]
fn hybrid_time_rises_along_a_call_although_clocks_differ() {
    run(async {
        let mesh = mesh().await;
        mesh.skew("eu", 300);
        let before = mesh.at("us").hybrid();
        station(&mesh, "eu", "b").ask(hop(vec![])).await.expect("answered");
        let after = mesh.at("us").hybrid();
        assert!(after.millis() >= before.millis() + 400, "the callee's clock counts: {before:?} {after:?}");
    });
}

/// Asks for the chain from within a task that the handler spawns.
#[remote(name = "test.Spawn", class = "control", reply = Vec<String>)]
struct Spawn {
    scoped: bool,
    to: MeshAddr<Station>,
}

struct Spawner;

#[remote_actor(name = "test.spawner", class = "control", accepts(Spawn))]
impl Actor for Spawner {
    type Context = Context<Self>;
}

impl Handler<Spawn> for Spawner {
    type Result = Reply<Vec<String>>;

    fn handle(&mut self, spawn: Spawn, _: &mut Context<Self>) -> Self::Result {
        let here = call().expect("a handler has a call");
        let ask = async move { spawn.to.ask(hop(vec![])).await.expect("answered") };
        let task = if spawn.scoped { actix::spawn(here.scope(ask)) } else { actix::spawn(ask) };
        Reply::later(async move { task.await.expect("no panic") })
    }
}

#[test]
fn a_task_that_a_handler_spawns_has_its_call_when_it_is_put_into_its_scope() {
    run(async {
        let hosts = TestMesh::of(["us", "eu"]).host(Host::new(|_: &_| Station));
        let mesh = hosts.host(Host::new(|_: &_| Spawner)).start().await.expect("starts");
        let spawner = mesh.at("us").actor_in::<Spawner>(&"us".parse().expect("a region"), "s");
        let told = async |scoped| {
            let spawn = Spawn { scoped, to: station(&mesh, "eu", "b") };
            spawner.ask(spawn).within(Duration::from_secs(1)).await.expect("answered").remove(0)
        };
        let (scoped, bare) = (told(true).await, told(false).await);
        let chain = spawner.id().shown().to_string();
        assert!(scoped.contains("left=900ms") && scoped.ends_with(&chain), "{scoped}");
        assert!(bare.contains("left=9900ms") && bare.ends_with("chain="), "{bare}");
    });
}
