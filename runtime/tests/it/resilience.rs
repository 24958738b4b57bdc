//! What becomes of calls to where calls fail: made again where that is safe, held back where it is of no use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rhumb::mesh::resilience::{BudgetSettings, ResilienceSettings};
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};
use tokio::time::Instant;

#[remote(name = "test.Read", class = "control", reply = u32, idempotent, deadline = "2s")]
struct Read {}

#[remote(name = "test.Take", class = "control", reply = u32, key = order, deadline = "2s")]
struct Take {
    order: String,
}

#[remote(name = "test.Always", class = "control", reply = u32, idempotent, retried, deadline = "20s")]
struct Always {}

#[remote(name = "test.Through", class = "control", reply = Result<u32, String>, deadline = "10s")]
struct Through {
    to: MeshAddr<Shelf>,
}

/// What the actors do, and how often they did.
#[derive(Clone, Default)]
struct World {
    runs: Arc<AtomicUsize>,
    hangs: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl World {
    fn read(&self) -> Reply<u32> {
        let runs = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(!self.panics.load(Ordering::Relaxed), "as it was told to");
        if self.hangs.load(Ordering::Relaxed) {
            return Reply::later(std::future::pending());
        }
        Reply::ready(runs as u32)
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }
}

struct Shelf(World);
struct Beside;
struct Asker;

#[remote_actor(name = "test.shelf", class = "control", accepts(Read, Take, Always))]
impl Actor for Shelf {
    type Context = Context<Self>;
}

#[remote_actor(name = "test.beside", class = "control", accepts(Read))]
impl Actor for Beside {
    type Context = Context<Self>;
}

#[remote_actor(name = "test.asker", class = "control", accepts(Through))]
impl Actor for Asker {
    type Context = Context<Self>;
}

impl Handler<Read> for Shelf {
    type Result = Reply<u32>;
    fn handle(&mut self, _: Read, _: &mut Context<Self>) -> Reply<u32> {
        self.0.read()
    }
}

impl Handler<Take> for Shelf {
    type Result = Reply<u32>;
    fn handle(&mut self, _: Take, _: &mut Context<Self>) -> Reply<u32> {
        self.0.read()
    }
}

impl Handler<Always> for Shelf {
    type Result = Reply<u32>;
    fn handle(&mut self, _: Always, _: &mut Context<Self>) -> Reply<u32> {
        self.0.read()
    }
}

impl Handler<Read> for Beside {
    type Result = u32;
    fn handle(&mut self, _: Read, _: &mut Context<Self>) -> u32 {
        7
    }
}

impl Handler<Through> for Asker {
    type Result = Reply<Result<u32, String>>;
    fn handle(&mut self, through: Through, _: &mut Context<Self>) -> Self::Result {
        Reply::later(async move {
            let asked = through.to.ask(Always {}).retried().within(Duration::from_secs(8)).await;
            asked.map_err(|fault| fault.to_string())
        })
    }
}

/// Two regions, and the actors of both.
async fn mesh(settings: ResilienceSettings) -> (TestMesh, World) {
    let world = World::default();
    let here = world.clone();
    let shelf = Host::new(move |_: &_| Shelf(here.clone()));
    let mesh = TestMesh::of(["us", "eu"])
        .host(shelf)
        .host(Host::new(|_: &_| Beside))
        .host(Host::new(|_: &_| Asker))
        .resilience(settings);
    (mesh.start().await.expect("starts"), world)
}

fn at_eu<A: rhumb::remote::Addressed>(mesh: &TestMesh) -> MeshAddr<A> {
    mesh.at("us").actor_in::<A>(&"eu".parse().expect("a region"), "a")
}

async fn heals_after(mesh: &TestMesh, after: Duration) {
    tokio::time::sleep(after).await;
    mesh.heal("us", "eu");
}

#[test]
fn what_may_run_twice_is_asked_again_until_it_is_answered_and_nothing_else_is() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        mesh.cut("us", "eu");
        let until = Duration::from_secs(20);
        let (plain, keyed, again, declared, ()) = tokio::join!(
            async { shelf.ask(Read {}).within(until).await },
            async { shelf.ask(Take { order: "o".into() }).retried().within(until).await },
            async { shelf.ask(Read {}).retried().within(until).await },
            async { shelf.ask(Always {}).await },
            heals_after(&mesh, Duration::from_secs(6)),
        );
        // All were on their way when the link was found to be cut: whether they ran nobody knows.
        for lost in [plain, keyed] {
            assert_eq!(lost.expect_err("not made again").delivery(), Delivery::Unknown);
        }
        assert!(again.is_ok() && declared.is_ok(), "{again:?} {declared:?}");
    });
}

#[test]
fn what_has_a_key_is_asked_again_where_it_was_not_sent() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        mesh.cut("us", "eu");
        shelf.ask(Read {}).await.expect_err("the link is found to be cut");
        let (keyed, ()) = tokio::join!(
            async { shelf.ask(Take { order: "o".into() }).retried().within(Duration::from_secs(20)).await },
            heals_after(&mesh, Duration::from_secs(3)),
        );
        assert!(keyed.is_ok(), "{keyed:?}");
        assert_eq!(world.runs(), 1, "once");
    });
}

#[test]
fn a_call_within_another_is_left_to_the_outermost() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        let asker = mesh.at("us").actor_in::<Asker>(&"us".parse().expect("a region"), "a");
        mesh.cut("us", "eu");
        at_eu::<Shelf>(&mesh).ask(Read {}).await.expect_err("the link is found to be cut");
        let before = Instant::now();
        let answered = asker.ask(Through { to: at_eu::<Shelf>(&mesh) }).await.expect("answered");
        assert!(answered.is_err_and(|fault| fault.contains("unreachable")));
        assert!(before.elapsed() < Duration::from_millis(20), "at once: {:?}", before.elapsed());
    });
}

#[test]
fn without_a_budget_nothing_is_asked_again() {
    run(async {
        let retries = BudgetSettings { share: 0.0, least: 0 };
        let (mesh, _) = mesh(ResilienceSettings { retries, ..ResilienceSettings::default() }).await;
        let shelf = at_eu::<Shelf>(&mesh);
        mesh.cut("us", "eu");
        shelf.ask(Read {}).await.expect_err("the link is found to be cut");
        let before = Instant::now();
        shelf.ask(Always {}).await.expect_err("the budget is spent");
        assert!(before.elapsed() < Duration::from_millis(20), "at once: {:?}", before.elapsed());
    });
}

#[test]
fn actors_of_a_type_that_fails_are_left_alone_and_the_others_of_their_node_are_not() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let (shelf, beside) = (at_eu::<Shelf>(&mesh), at_eu::<Beside>(&mesh));
        world.hangs.store(true, Ordering::Relaxed);
        for _ in 0..7 {
            let fault = shelf.ask(Read {}).await.expect_err("it hangs");
            assert!(matches!(fault.kind, FaultKind::Deadline(_)), "{fault}");
        }
        let before = Instant::now();
        let fault = shelf.ask(Read {}).await.expect_err("held back");
        assert!(matches!(fault.kind, FaultKind::Shut(_)), "{fault}");
        assert_eq!((fault.delivery(), before.elapsed()), (Delivery::NotSent, Duration::ZERO));
        assert_eq!(beside.ask(Read {}).await, Ok(7), "another type of the same node");
        assert_eq!(world.runs(), 7);

        // One call finds out whether it is well again; a second one meanwhile is held back.
        world.hangs.store(false, Ordering::Relaxed);
        tokio::time::sleep(fault.retry_after.expect("it says when")).await;
        let (probe, other) =
            tokio::join!(async { shelf.ask(Read {}).await }, async { shelf.ask(Read {}).await });
        assert_eq!(probe, Ok(8));
        assert!(matches!(other.expect_err("held back").kind, FaultKind::Shut(_)));
        assert_eq!(shelf.ask(Read {}).await, Ok(9), "all go through");
    });
}

#[test]
fn who_is_impatient_or_walks_away_does_not_shut_others_out() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        world.hangs.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            shelf.ask(Read {}).within(Duration::from_millis(50)).await.expect_err("it hangs");
            let walked = async { shelf.ask(Read {}).await };
            tokio::time::timeout(Duration::from_millis(1_500), walked).await.expect_err("it hangs");
        }
        world.hangs.store(false, Ordering::Relaxed);
        assert!(shelf.ask(Read {}).await.is_ok());
    });
}

#[test]
fn a_new_connection_lets_calls_through_again() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        world.panics.store(true, Ordering::Relaxed);
        for _ in 0..7 {
            let key = mesh.at("us").actor_in::<Shelf>(&"eu".parse().expect("a region"), world.runs());
            let fault = key.ask(Read {}).await.expect_err("it panics");
            assert!(matches!(fault.kind, FaultKind::Panicked(_)), "{fault}");
        }
        assert!(matches!(shelf.ask(Read {}).await.expect_err("held back").kind, FaultKind::Shut(_)));
        world.panics.store(false, Ordering::Relaxed);
        mesh.cut("us", "eu");
        tokio::time::sleep(Duration::from_secs(3)).await;
        mesh.heal("us", "eu");
        mesh.reachable("us", "eu").await;
        assert!(shelf.ask(Read {}).await.is_ok());
    });
}
