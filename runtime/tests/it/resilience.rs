//! What becomes of calls to where calls fail: made again where that is safe, held back where it is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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

#[remote(name = "test.Slow", class = "control", reply = (), idempotent, deadline = "30s")]
struct SlowRead {}

#[remote(name = "test.Urgent", class = "control", reply = (), idempotent, priority = "high", deadline = "30s")]
struct Urgent {}

#[remote(name = "test.Through", class = "control", reply = Result<u32, String>, deadline = "10s")]
struct Through {
    to: MeshAddr<Shelf>,
}

#[remote(name = "test.Where", class = "control", reply = String, idempotent, deadline = "2s")]
struct Where {}

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
struct Narrow;
struct Asker;

#[remote_actor(name = "test.shelf", class = "control", accepts(Read, Take, Always))]
impl Actor for Shelf {
    type Context = Context<Self>;
}

#[remote_actor(name = "test.narrow", class = "control", accepts(SlowRead, Urgent))]
impl Actor for Narrow {
    type Context = Context<Self>;
}

impl Handler<SlowRead> for Narrow {
    type Result = Reply<()>;
    fn handle(&mut self, _: SlowRead, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(tokio::time::sleep(Duration::from_secs(1)))
    }
}

impl Handler<Urgent> for Narrow {
    type Result = Reply<()>;
    fn handle(&mut self, _: Urgent, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(tokio::time::sleep(Duration::from_secs(1)))
    }
}

/// Says where it is; or nothing, for as long as it is told to.
struct Equal {
    at: String,
    mute: Arc<Mutex<BTreeSet<String>>>,
}

#[remote_actor(name = "test.equal", class = "control", accepts(Where))]
impl Actor for Equal {
    type Context = Context<Self>;
}

impl Handler<Where> for Equal {
    type Result = Reply<String>;
    fn handle(&mut self, _: Where, _: &mut Context<Self>) -> Reply<String> {
        match self.mute.lock().expect("no panic").contains(&self.at) {
            true => Reply::later(std::future::pending()),
            false => Reply::ready(self.at.clone()),
        }
    }
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
        .host(Host::new(|_: &_| Narrow).admission(Admission {
            first: 4,
            least: 4,
            most: 4,
            ..Admission::default()
        }))
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
fn what_may_be_asked_twice_is_asked_again_until_it_is_answered_and_nothing_else_is() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        mesh.cut_one_way("eu", "us");
        let until = Duration::from_secs(20);
        let take = || Take { order: "o".into() };
        let (plain, once, keyed, again, declared, ()) = tokio::join!(
            async { shelf.ask(Read {}).within(until).await },
            async { shelf.ask(Take { order: "p".into() }).within(until).await },
            async { shelf.ask(take()).retried().within(until).await },
            async { shelf.ask(Read {}).retried().within(until).await },
            async { shelf.ask(Always {}).await },
            heals_after(&mesh, Duration::from_secs(6)),
        );
        // All had run when the link was found to be cut: their askers cannot know.
        for lost in [plain, once] {
            assert_eq!(lost.expect_err("not made again").delivery(), Delivery::Unknown);
        }
        let (keyed, runs) = (keyed.expect("it was asked again"), world.runs());
        assert!(again.is_ok() && declared.is_ok(), "{again:?} {declared:?}");
        assert_eq!(runs, 7, "two once, two by their keys once, two twice... and no more");
        assert_eq!(shelf.ask(take()).await, Ok(keyed));
        assert_eq!(world.runs(), runs, "a key runs once");
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
fn what_is_told_to_actors_that_fail_is_held_back_with_what_is_asked() {
    run(async {
        let (mesh, world) = mesh(ResilienceSettings::default()).await;
        let shelf = at_eu::<Shelf>(&mesh);
        world.hangs.store(true, Ordering::Relaxed);
        let mut teller = shelf.teller::<Read>();
        for _ in 0..7 {
            shelf.ask(Read {}).await.expect_err("it hangs");
            // That its mailbox takes what nobody waits for says nothing of what somebody waits for.
            if world.runs() < 13 {
                shelf.tell(Read {}).await.expect("its mailbox takes it");
            }
        }
        let is_shut = |fault: Fault| {
            assert!(matches!(fault.kind, FaultKind::Shut(_)), "{fault}");
            assert_eq!(fault.delivery(), Delivery::NotSent);
            fault.retry_after.expect("it says when to come again")
        };
        is_shut(shelf.tell(Read {}).await.expect_err("held back"));
        is_shut(teller.tell(Read {}).await.expect_err("held back"));
        let eu = "eu".parse().expect("a region");
        let told = mesh.at("us").broadcast::<Shelf, _>(&[eu], Read {}).await;
        let wait = is_shut(told[0].outcome.clone().expect_err("held back"));
        // When its time is over, what is told finds out whether they take anything.
        world.hangs.store(false, Ordering::Relaxed);
        tokio::time::sleep(wait).await;
        teller.tell(Read {}).await.expect("let through");
        assert_eq!(teller.close().await.all_taken(), Ok(1));
        assert!(shelf.ask(Read {}).await.is_ok(), "all go through");
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

/// How many of so many questions at once were let in, and the fault of one that was not.
async fn at_once<M>(narrow: &MeshAddr<Narrow>, many: usize, message: impl Fn() -> M) -> (usize, Option<Fault>)
where
    M: rhumb::remote::Remote<Reply = ()>,
    Narrow: rhumb::remote::Accepts<M>,
{
    let asks = (0..many).map(|_| narrow.ask(message()).into_future());
    let answers = futures::future::join_all(asks).await;
    let let_in = answers.iter().filter(|answer| answer.is_ok()).count();
    (let_in, answers.into_iter().find_map(Result::err))
}

#[test]
fn a_type_lets_in_what_it_answers_in_time_the_lowest_last_and_no_other_type_notices() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        for region in ["us", "eu"] {
            // Here, and from the other region.
            let narrow = mesh.at("us").actor_in::<Narrow>(&region.parse().expect("a region"), "a");
            let ((normal, refused), beside) = tokio::join!(at_once(&narrow, 10, || SlowRead {}), async {
                at_eu::<Beside>(&mesh).ask(Read {}).await
            });
            let refused = refused.expect("there is no room for ten");
            assert!(matches!(refused.kind, FaultKind::Overloaded(_)), "{refused}");
            assert_eq!(refused.delivery(), Delivery::NotSent);
            assert!(refused.retry_after.is_some(), "it says when to come again");
            assert_eq!((normal, beside), (3, Ok(7)), "nine tenths of four, in {region}");
            let (urgent, _) = at_once(&narrow, 10, || Urgent {}).await;
            assert_eq!(urgent, 4, "all of it is for the urgent, in {region}");
            let hosts = mesh.at(region).hosted().expect("it hosts");
            let report = hosts.report().into_iter().find(|of| of.kind == "test.narrow").expect("it is there");
            let door = report.admission.expect("it has a door");
            assert_eq!((door.admitted, door.full, door.under_way), (7, 13, 0));
        }
    });
}

#[test]
fn what_was_turned_away_is_asked_again_when_it_was_told_to() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        let narrow = at_eu::<Narrow>(&mesh);
        let asks = (0..6).map(|_| async { narrow.ask(SlowRead {}).retried().await });
        let answers = futures::future::join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}

/// Two nodes in us and one in eu, each with two equal actors, of which those at these nodes say nothing.
async fn equals() -> (TestMesh, Arc<Mutex<BTreeSet<String>>>) {
    let mute = Arc::new(Mutex::new(BTreeSet::new()));
    let of = Arc::clone(&mute);
    let host = Host::new(move |made: &Activation| Equal {
        at: made.mesh.node().map(ToString::to_string).unwrap_or_default(),
        mute: Arc::clone(&of),
    });
    let mesh = TestMesh::of(["us/n1", "us/n2", "eu/n1"]).host(host.equals(2));
    (mesh.start().await.expect("starts"), mute)
}

/// Who answers so many questions, and how many fail.
async fn who_answers(mesh: &Mesh, many: usize) -> (BTreeMap<String, usize>, usize) {
    let (any, mut answers, mut failed) = (mesh.any::<Equal>(), BTreeMap::new(), 0);
    for _ in 0..many {
        match any.ask(Where {}).await {
            Ok(at) => *answers.entry(at).or_insert(0) += 1,
            Err(_) => failed += 1,
        }
    }
    (answers, failed)
}

#[test]
fn any_of_several_is_asked_near_by_first_and_elsewhere_when_those_fail() {
    run(async {
        let (mesh, mute) = equals().await;
        mesh.delay("us", "eu", Duration::from_millis(40));
        mesh.delay("us/n1", "us/n2", Duration::from_millis(1));
        let (answers, failed) = who_answers(mesh.at("us/n1"), 200).await;
        assert_eq!(failed, 0);
        assert!(!answers.contains_key("eu/n1") && answers["us/n1"] > 50, "{answers:?}");
        let client = mesh.client("eu", "app");
        let (answers, failed) = who_answers(&client, 50).await;
        assert!(failed == 0 && answers["eu/n1"] == 50, "a program too: {answers:?}");

        // Of who fails, few questions notice.
        mute.lock().expect("no panic").insert("us/n1".into());
        let (answers, failed) = who_answers(mesh.at("us/n1"), 200).await;
        assert!(failed <= 3 && answers["us/n2"] > 150, "{failed} failed, {answers:?}");
        mute.lock().expect("no panic").insert("us/n2".into());
        let (answers, failed) = who_answers(mesh.at("us/n1"), 200).await;
        assert!(failed <= 8 && answers["eu/n1"] > 150, "{failed} failed, {answers:?}");

        // Well again, they are asked again.
        mute.lock().expect("no panic").clear();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let (answers, failed) = who_answers(mesh.at("us/n1"), 400).await;
        assert!(failed == 0 && answers.contains_key("us/n1"), "{failed} failed, {answers:?}");
    });
}

#[test]
fn any_of_several_is_asked_again_elsewhere() {
    run(async {
        let (mesh, mute) = equals().await;
        mesh.delay("us", "eu", Duration::from_millis(1));
        mesh.cut("us/n1", "us/n2");
        tokio::time::sleep(Duration::from_secs(5)).await;
        mute.lock().expect("no panic").clear();
        let any = mesh.at("us/n1").any::<Equal>();
        for _ in 0..100 {
            let answered = any.ask(Where {}).retried().await;
            assert!(answered.as_ref().is_ok_and(|at| at != "us/n2"), "{answered:?}");
        }
    });
}

#[test]
fn a_program_learns_where_an_actor_lives_of_a_node_near_it_and_past_one_that_is_silent() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        mesh.freeze("eu");
        for (region, at_once) in [("us", true), ("eu", false)] {
            let (client, before) = (mesh.client(region, "app"), Instant::now());
            let beside = client.actor_in::<Beside>(&"us".parse().expect("a region"), "a");
            assert_eq!(beside.ask(Read {}).within(Duration::from_secs(9)).await, Ok(7), "from {region}");
            assert_eq!(before.elapsed() < Duration::from_millis(100), at_once, "from {region}");
            // Of others it is asked no more for a while.
            let (other, before) =
                (client.actor_in::<Beside>(&"us".parse().expect("a region"), "b"), Instant::now());
            assert_eq!(other.ask(Read {}).await, Ok(7), "from {region}");
            assert!(before.elapsed() < Duration::from_millis(100), "from {region}: {:?}", before.elapsed());
        }
    });
}

#[test]
fn a_type_without_equals_says_so() {
    run(async {
        let (mesh, _) = mesh(ResilienceSettings::default()).await;
        let fault = mesh.at("us").any::<Beside>().ask(Read {}).await.expect_err("it has none");
        assert!(matches!(fault.kind, FaultKind::NotHosted(_)), "{fault}");
    });
}

#[test]
fn what_is_hedged_is_answered_by_another_when_the_first_is_late() {
    run(async {
        let (mesh, mute) = equals().await;
        mesh.delay("us", "eu", Duration::from_millis(40));
        mesh.delay("us/n1", "us/n2", Duration::from_millis(1));
        let (answers, _) = who_answers(mesh.at("us/n1"), 100).await;
        assert!(answers["us/n1"] > 0, "{answers:?}");
        let any = mesh.at("us/n1").any::<Equal>();
        for _ in 0..100 {
            any.ask(Where {}).hedged().await.expect("answered");
        }
        for silent in ["us/n1", "us/n2"] {
            mute.lock().expect("no panic").insert(silent.into());
            let before = Instant::now();
            for _ in 0..5 {
                let answered = any.ask(Where {}).hedged().await;
                assert!(answered.is_ok_and(|at| at != silent));
            }
            assert!(
                before.elapsed() < Duration::from_secs(1),
                "nobody waited for it: {:?}",
                before.elapsed()
            );
            mute.lock().expect("no panic").clear();
        }
    });
}
