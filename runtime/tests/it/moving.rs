//! Actors that move: another node acts for them while theirs is lost, under a higher epoch, and whoever did begins nothing more.

use std::time::Duration;

use rhumb::mesh::{Because, Owned, OwnerWatch};
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

/// Which node counts, under which epoch, and how much it has counted since it was made.
#[remote(name = "test.Count", class = "control", reply = (String, u64, u32), idempotent)]
struct Count {}

#[remote(name = "test.CountOnce", class = "control", reply = u32, key = order)]
struct CountOnce {
    order: String,
}

#[remote(name = "test.CountSlowly", class = "control", reply = u64, idempotent, deadline = "60s")]
struct CountSlowly {
    ms: u64,
}

struct Counter {
    at: String,
    epoch: u64,
    counted: u32,
}

#[remote_actor(name = "test.counter", class = "control", accepts(Count, CountOnce, CountSlowly))]
impl Actor for Counter {
    type Context = Context<Self>;
}

impl Handler<Count> for Counter {
    type Result = Reply<(String, u64, u32)>;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Self::Result {
        assert_eq!(call().expect("a handler is called").acts_under().0, self.epoch);
        self.counted += 1;
        Reply::ready((self.at.clone(), self.epoch, self.counted))
    }
}

impl Handler<CountOnce> for Counter {
    type Result = u32;

    fn handle(&mut self, _: CountOnce, _: &mut Context<Self>) -> u32 {
        self.counted += 1;
        self.counted
    }
}

impl Handler<CountSlowly> for Counter {
    type Result = Reply<u64>;

    fn handle(&mut self, count: CountSlowly, context: &mut Context<Self>) -> Self::Result {
        // Nothing else has its turn meanwhile.
        let pause = tokio::time::sleep(Duration::from_millis(count.ms));
        context.wait(actix::fut::wrap_future(pause));
        Reply::ready(self.epoch)
    }
}

fn counters() -> Host<Counter> {
    Host::new(|at: &Activation| Counter { at: at.mesh.region().to_string(), epoch: at.epoch.0, counted: 0 })
}

async fn mesh() -> TestMesh {
    let mesh = TestMesh::of(["ap", "eu", "us"]).host(counters().moves()).moving().start().await;
    let mesh = mesh.expect("it starts");
    // All have read the fences.
    seconds(2).await;
    mesh
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

/// A counter whose first node is in this region, as another region sees it.
fn counter_of(mesh: &TestMesh, region: &str, from: &str) -> MeshAddr<Counter> {
    let first = |key: &u32| {
        let mut watch = mesh.at(from).actor::<Counter>(key).watch_owner().expect("it is in a mesh");
        let owned = futures::executor::block_on(watch.next()).expect("known").expect("one");
        owned.node.is_some_and(|node| node.region.as_str() == region)
    };
    let key = (0..200).find(first).expect("one of so many is there");
    mesh.at(from).actor(key)
}

fn regions_but(region: &str) -> Vec<&'static str> {
    ["ap", "eu", "us"].into_iter().filter(|other| *other != region).collect()
}

/// What becomes of it when `region` is lost, to the moment when others act.
async fn loses(mesh: &TestMesh, region: &str) {
    mesh.freeze(region);
    mesh.fence(region);
    seconds(5).await;
    mesh.replace(region);
    seconds(2).await;
}

/// The same when it is back.
async fn regains(mesh: &TestMesh, region: &str) {
    mesh.thaw(region);
    for other in regions_but(region) {
        mesh.reachable(region, other).await;
    }
    seconds(2).await;
    mesh.fence(region);
    seconds(5).await;
    mesh.restore(region);
    seconds(2).await;
}

#[test]
fn who_is_lost_is_followed_under_a_higher_epoch_and_follows_again_when_it_is_back() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        assert_eq!(counter.ask(Count {}).await.expect("counted"), ("eu".to_owned(), 1, 1));
        assert_eq!(counter.ask(Count {}).await.expect("counted"), ("eu".to_owned(), 1, 2));

        mesh.freeze("eu");
        let lost = counter.ask(Count {}).await.expect_err("its node is frozen");
        assert_eq!(lost.delivery(), Delivery::Unknown, "{lost}");
        mesh.fence("eu");
        seconds(2).await;
        let fenced = counter.ask(Count {}).await.expect_err("nobody acts as it");
        assert!(matches!(fenced.kind, FaultKind::Unowned(_)), "{fenced}");
        assert_eq!((fenced.delivery(), fenced.retry_after.is_some()), (Delivery::NotSent, true));
        // A call that may be made again waits until somebody does.
        let waits = tokio::spawn({
            let counter = counter.clone();
            async move { counter.ask(Count {}).within(Duration::from_secs(20)).retried().await }
        });
        seconds(3).await;
        mesh.replace("eu");
        let (at, epoch, counted) = waits.await.expect("no panic").expect("counted at last");
        assert_ne!(at, "eu");
        assert_eq!((epoch, counted), (3, 1), "another instance, under the number of the fences' changes");

        regains(&mesh, "eu").await;
        assert_eq!(counter.ask(Count {}).await.expect("counted"), ("eu".to_owned(), 5, 1));
        let live = |region: &str| mesh.at(region).hosted().expect("hosts").report()[0].live;
        assert_eq!(["ap", "eu", "us"].map(live), [0, 1, 0], "who may not act has no instance left");
    });
}

#[test]
fn who_has_no_permit_begins_nothing_and_lets_its_instance_go() {
    run(async {
        let mesh = mesh().await;
        let there = counter_of(&mesh, "eu", "eu");
        there.ask(Count {}).await.expect("counted");
        let mut ends = there.watch().await.expect("watched");
        let (slow, waits) = (there.clone(), there.clone());
        // One message keeps the instance for longer than its node has a permit; the other one waits behind it.
        let slow = tokio::spawn(async move { slow.ask(CountSlowly { ms: 8_000 }).await });
        seconds(1).await;
        let waits = tokio::spawn(async move { waits.ask(Count {}).within(Duration::from_secs(30)).await });
        mesh.freeze("eu");
        seconds(9).await;
        assert_eq!(slow.await.expect("no panic"), Ok(1), "what has begun goes on");
        let refused = waits.await.expect("no panic").expect_err("its turn came too late");
        assert!(matches!(refused.kind, FaultKind::Unowned(_)), "{refused}");
        assert_eq!(refused.delivery(), Delivery::NotSent);
        let refused = there.ask(Count {}).await.expect_err("it has no permit");
        assert!(matches!(refused.kind, FaultKind::Unowned(_)), "{refused}");
        assert_eq!(ends.next().await, Some(Seen::Terminal(Ended::Moved)));
        assert_eq!(mesh.at("eu").hosted().expect("hosts").report()[0].live, 0);
        // Nobody was fenced: it goes on as soon as it may, with another instance of the same epoch.
        mesh.thaw("eu");
        mesh.reachable("eu", "us").await;
        seconds(3).await;
        assert_eq!(there.ask(Count {}).await.expect("counted"), ("eu".to_owned(), 1, 1));
    });
}

#[test]
fn a_caller_on_the_node_that_an_actor_leaves_is_led_after_it() {
    run(async {
        let mesh = mesh().await;
        let there = counter_of(&mesh, "eu", "eu");
        let slow = there.clone();
        let slow = tokio::spawn(async move { slow.ask(CountSlowly { ms: 6_000 }).await });
        seconds(1).await;
        let ask = |retried: bool| {
            let waits = there.clone();
            tokio::spawn(async move {
                let ask = waits.ask(Count {}).within(Duration::from_secs(40));
                if retried { ask.retried().await } else { ask.await }
            })
        };
        let (led, told) = (ask(true), ask(false));
        seconds(1).await;
        mesh.fence("eu");
        seconds(5).await;
        mesh.replace("eu");
        assert_eq!(slow.await.expect("no panic"), Ok(1), "what has begun goes on");
        let (at, epoch, _) = led.await.expect("no panic").expect("it was led to who acts");
        assert!(at != "eu" && epoch == 3, "{at} {epoch}");
        let fault = told.await.expect("no panic").expect_err("it does not wait for another owner");
        assert!(matches!(fault.kind, FaultKind::Unowned(_)), "{fault}");
    });
}

#[test]
fn however_many_wait_for_an_owner_their_waiting_takes_no_retries() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        let program = mesh.client("us", "shop");
        mesh.fence("eu");
        seconds(2).await;
        let waits = (0..100).map(|number| {
            let counter = if number % 4 == 0 { counter.on(&program) } else { counter.clone() };
            tokio::spawn(async move { counter.ask(Count {}).within(Duration::from_secs(60)).retried().await })
        });
        let waits: Vec<_> = waits.collect();
        seconds(20).await;
        mesh.replace("eu");
        for wait in waits {
            let (at, epoch, _) = wait.await.expect("no panic").expect("counted at last");
            assert!(at != "eu" && epoch == 3, "{at} {epoch}");
        }
        // Who waits no longer is told why.
        loses(&mesh, "us").await;
        mesh.fence("ap");
        seconds(2).await;
        let there = counter.on(mesh.at("ap"));
        let waits = there.ask(Count {}).within(Duration::from_secs(5)).retried();
        let fault = waits.await.expect_err("nobody acts");
        assert!(matches!(fault.kind, FaultKind::Unowned(_)), "{fault}");
    });
}

#[test]
fn a_watch_of_an_actor_that_sleeps_while_it_moves_says_that_it_moved() {
    run(async {
        let asleep = counters().moves().idle(Duration::from_secs(1));
        let mesh = TestMesh::of(["ap", "eu", "us"]).host(asleep).moving().start().await.expect("it starts");
        seconds(2).await;
        let (moves, stays) = (counter_of(&mesh, "eu", "us"), counter_of(&mesh, "us", "us"));
        for counter in [&moves, &stays] {
            counter.ask(Count {}).await.expect("counted");
        }
        let program = mesh.client("ap", "shop").actor::<Counter>(moves.id().key());
        let mut watches = Vec::new();
        for watcher in [moves.on(mesh.at("eu")), moves.clone(), program.clone()] {
            watches.push(watcher.watch().await.expect("watched"));
        }
        let mut other = stays.watch().await.expect("watched");
        seconds(10).await;
        assert_eq!(mesh.at("eu").hosted().expect("hosts").report()[0].live, 0, "it sleeps");

        let soon = Duration::from_secs(60);
        for _ in 0..2 {
            mesh.fence("eu");
            for watch in &mut watches {
                let seen = tokio::time::timeout(soon, watch.next()).await.expect("it is told");
                assert_eq!(seen, Some(Seen::Terminal(Ended::Moved)));
            }
            seconds(5).await;
            mesh.replace("eu");
            seconds(2).await;
            // Who watches it there is told when it goes back, asleep again.
            watches = vec![moves.watch().await.expect("watched"), program.watch().await.expect("watched")];
            mesh.fence("eu");
            seconds(5).await;
            mesh.restore("eu");
            for watch in &mut watches {
                let seen = tokio::time::timeout(soon, watch.next()).await.expect("it is told");
                assert_eq!(seen, Some(Seen::Terminal(Ended::Moved)));
            }
            seconds(2).await;
            watches = vec![moves.watch().await.expect("watched"), program.watch().await.expect("watched")];
        }
        assert!(tokio::time::timeout(soon, other.next()).await.is_err(), "it has not moved");
    });
}

#[test]
fn a_caller_that_knows_an_old_owner_follows_the_actor() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        let program = mesh.client("us", "shop").actor::<Counter>(counter.id().key());
        assert_eq!(program.ask(Count {}).await.expect("counted").0, "eu");
        // Others act for it though it is well: the program has heard nothing of that.
        mesh.fence("eu");
        seconds(5).await;
        mesh.replace("eu");
        seconds(2).await;
        let (at, epoch, _) = program.ask(Count {}).await.expect("it was told where to go");
        assert_ne!((at.as_str(), epoch), ("eu", 1));
        program.tell(Count {}).await.expect("taken");
        // So does one whose owner answers nothing.
        mesh.fence("eu");
        seconds(5).await;
        mesh.restore("eu");
        seconds(2).await;
        assert_eq!(program.ask(Count {}).await.expect("counted").0, "eu");
        loses(&mesh, "eu").await;
        program.ask(Count {}).await.expect_err("it was there");
        assert_ne!(program.ask(Count {}).await.expect("it is elsewhere").0, "eu");
        program.tell(Count {}).await.expect("taken");
    });
}

#[test]
fn who_may_not_leave_its_region_is_unowned_while_that_is_away() {
    run(async {
        let mesh = mesh().await;
        let strict = mesh.at("us").actor_in::<Counter>(&"eu".parse().expect("a region"), "a");
        assert_eq!(strict.ask(Count {}).await.expect("counted").0, "eu");
        loses(&mesh, "eu").await;
        for _ in 0..3 {
            let fault = strict.ask(Count {}).await.expect_err("nobody else may");
            assert_eq!(fault.kind, FaultKind::Unowned("all nodes that may hold it are away (of eu)".into()));
            seconds(20).await;
        }
        regains(&mesh, "eu").await;
        assert_eq!(strict.ask(Count {}).await.expect("counted"), ("eu".to_owned(), 5, 1));
    });
}

#[test]
fn a_watcher_sees_each_owner_and_nobody_in_between_and_why() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        let eu: NodeId = "eu/n1".parse().expect("a node");
        let other = |watched: &Owned| watched.node.clone().filter(|node| *node != eu).expect("another one");
        let program = mesh.client("us", "shop").actor::<Counter>(counter.id().key());
        let mut watches = [counter.watch_owner(), program.watch_owner()].map(|watch| watch.expect("watched"));
        for watch in &mut watches {
            let first = watch.next().await.expect("known");
            let want = Owned { node: Some(eu.clone()), epoch: Epoch(1), because: Because::First };
            assert_eq!(first, Some(want));
        }
        mesh.fence("eu");
        seconds(5).await;
        for watch in &mut watches {
            let fenced = watch.next().await.expect("known");
            let want = Owned { node: None, epoch: Epoch(2), because: Because::Fenced(eu.clone()) };
            assert_eq!(fenced, Some(want));
        }
        mesh.replace("eu");
        seconds(2).await;
        for watch in &mut watches {
            let follows = watch.next().await.expect("known").expect("one");
            assert_eq!((follows.epoch, &follows.because), (Epoch(3), &Because::InPlaceOf(eu.clone())));
            other(&follows);
        }
        // Who does not look sees the newest, and not what was in between.
        regains(&mesh, "eu").await;
        for watch in &mut watches {
            let back = watch.next().await.expect("known").expect("one");
            assert_eq!((back.node, back.epoch), (Some(eu.clone()), Epoch(5)));
        }
        // A node that reads nothing says that it does not know.
        mesh.freeze("us");
        seconds(6).await;
        let unread = watches[0].next().await.expect("it says so").expect("one");
        assert_eq!((unread.node, unread.because), (None, Because::NotRead));
    });
}

#[test]
fn a_watcher_is_told_of_no_lower_epoch_by_a_node_that_has_read_less() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        let program = mesh.client("us", "shop").actor::<Counter>(counter.id().key());
        let mut watch = program.watch_owner().expect("watched");
        let told = async |watch: &mut OwnerWatch| loop {
            match watch.next().await {
                Ok(owned) => return owned.expect("it moves"),
                Err(_) => seconds(1).await,
            }
        };
        assert_eq!(told(&mut watch).await.epoch, Epoch(1));
        // One node reads nothing more, and the program asks the others.
        for other in ["ap", "eu"] {
            mesh.cut("us", other);
        }
        mesh.freeze("us");
        mesh.fence("eu");
        seconds(5).await;
        assert_eq!(told(&mut watch).await.epoch, Epoch(2));
        mesh.replace("eu");
        seconds(2).await;
        assert_eq!(told(&mut watch).await.epoch, Epoch(3));
        // Then it alone can be asked.
        mesh.freeze("ap");
        mesh.freeze("eu");
        mesh.thaw("us");
        let lower = tokio::time::timeout(Duration::from_secs(120), told(&mut watch)).await;
        assert!(lower.is_err(), "{lower:?}");
        for other in ["ap", "eu"] {
            mesh.thaw(other);
            mesh.heal("us", other);
        }
        for (a, b) in [("us", "ap"), ("us", "eu"), ("ap", "eu")] {
            mesh.reachable(a, b).await;
        }
        seconds(2).await;
        mesh.fence("eu");
        let next = told(&mut watch).await;
        assert!(next.epoch >= Epoch(3), "{next:?}");
    });
}

#[test]
fn what_is_kept_on_one_node_is_refused() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        for from in ["eu", "us"] {
            let counter = counter.on(mesh.at(from));
            let keyed = counter.ask(CountOnce { order: "1".into() }).await.expect_err("it has a key");
            assert!(
                matches!(&keyed.kind, FaultKind::NotHosted(why) if why.contains("one node's disk")),
                "{keyed}"
            );
            let durable = counter.tell(Count {}).durably().await.expect_err("a letter");
            assert!(matches!(&durable.kind, FaultKind::NotHosted(why) if why.contains("one node's disk")));
        }
    });
}

#[test]
fn a_caller_may_name_an_epoch_and_only_that_one_is_meant() {
    run(async {
        let mesh = mesh().await;
        let counter = counter_of(&mesh, "eu", "us");
        let (_, epoch, _) = counter.ask(Count {}).await.expect("counted");
        counter.ask(Count {}).epoch(Epoch(epoch)).await.expect("it is the one");
        loses(&mesh, "eu").await;
        let fault = counter.ask(Count {}).epoch(Epoch(epoch)).await.expect_err("it is another one");
        assert_eq!(fault.kind, FaultKind::WrongEpoch { ours: 3 });
    });
}

#[test]
fn without_fences_and_for_types_that_do_not_move_an_actor_stays_where_it_is() {
    run(async {
        let stays = TestMesh::of(["ap", "eu", "us"]).host(counters().moves()).start().await.expect("starts");
        let does_not = TestMesh::of(["ap", "eu", "us"]).host(counters()).moving().start().await;
        let does_not = does_not.expect("starts");
        for mesh in [&stays, &does_not] {
            let counter = counter_of(mesh, "eu", "us");
            assert_eq!(counter.ask(Count {}).await.expect("counted").0, "eu");
            assert_eq!(counter.ask(CountOnce { order: "1".into() }).await, Ok(2), "it is kept there");
            let mut watch = counter.watch_owner().expect("watched");
            let owned = watch.next().await.expect("known").expect("one");
            assert_eq!((owned.epoch, owned.because), (Epoch(0), Because::First));
            assert_eq!(watch.next().await, Ok(None), "nothing follows");
            mesh.freeze("eu");
            seconds(300).await;
            let fault = counter.ask(Count {}).await.expect_err("nobody takes over");
            assert!(matches!(fault.kind, FaultKind::Unreachable(_)), "{fault}");
        }
    });
}

/// Which region's shelf it is, and how much was taken from it since it was made.
#[remote(name = "test.Take", class = "inventory", reply = (String, u32), idempotent)]
struct Take {}

#[remote(name = "test.TakeSlowly", class = "inventory", reply = u32, idempotent, deadline = "60s")]
struct TakeSlowly {
    ms: u64,
}

struct Shelf {
    at: String,
    taken: u32,
}

#[remote_actor(name = "test.shelf", class = "inventory", accepts(Take, TakeSlowly))]
impl Actor for Shelf {
    type Context = Context<Self>;
}

impl Handler<Take> for Shelf {
    type Result = Reply<(String, u32)>;

    fn handle(&mut self, _: Take, _: &mut Context<Self>) -> Self::Result {
        self.taken += 1;
        Reply::ready((self.at.clone(), self.taken))
    }
}

impl Handler<TakeSlowly> for Shelf {
    type Result = Reply<u32>;

    fn handle(&mut self, take: TakeSlowly, context: &mut Context<Self>) -> Self::Result {
        let pause = tokio::time::sleep(Duration::from_millis(take.ms));
        context.wait(actix::fut::wrap_future(pause));
        Reply::ready(self.taken)
    }
}

/// A policy under which these may hold class inventory, and nobody else.
fn held_by(version: u64, holders: &str) -> String {
    format!(
        r#"
        version = {version}
        [jurisdictions]
        ap = ["ap"]
        eu = ["eu"]
        us = ["us"]
        [classes.inventory]
        hold = [{holders}]
        read = ["all"]
        carry = ["all"]
        "#
    )
}

#[test]
fn a_policy_that_leaves_an_actor_where_it_is_leaves_its_instance_alone() {
    run(async {
        let shelves = Host::new(|at: &Activation| Shelf { at: at.mesh.region().to_string(), taken: 0 });
        let mesh = TestMesh::of(["ap", "eu", "us"]).policy(&held_by(1, r#""all""#)).host(shelves.moves());
        let mesh = mesh.moving().start().await.expect("it starts");
        seconds(2).await;
        let (mut first, mut all) = (std::collections::BTreeMap::new(), Vec::new());
        for key in 0..40 {
            let shelf = mesh.at("us").actor::<Shelf>(key);
            assert_eq!(shelf.ask(Take {}).await.expect("taken").1, 1);
            let (at, taken) = shelf.ask(Take {}).await.expect("taken");
            assert_eq!(taken, 2);
            *first.entry(at.clone()).or_insert(0) += 1;
            all.push((shelf, at));
        }
        assert_eq!(first.len(), 3, "{first:?}");

        mesh.policy(&held_by(2, r#""all""#));
        seconds(2).await;
        for (shelf, at) in &all {
            assert_eq!(
                shelf.ask(Take {}).await.expect("taken"),
                (at.clone(), 3),
                "nothing has changed for it"
            );
        }
        // Nobody in ap may hold it any more: those that were there begin elsewhere, and the others go on.
        mesh.policy(&held_by(3, r#""jurisdiction:eu", "jurisdiction:us""#));
        seconds(2).await;
        for (shelf, at) in &all {
            let (now, taken) = shelf.ask(Take {}).await.expect("taken");
            if at == "ap" {
                assert!(now != "ap" && taken == 1, "{now} {taken}");
            } else {
                assert_eq!((&now, taken), (at, 4), "its owner is the same");
            }
        }
        assert_eq!(mesh.at("ap").hosted().expect("hosts").report()[0].live, 0);
    });
}

#[test]
fn a_caller_beside_an_actor_is_led_to_who_owns_it_by_a_new_policy() {
    run(async {
        let shelves = Host::new(|at: &Activation| Shelf { at: at.mesh.region().to_string(), taken: 0 });
        let mesh = TestMesh::of(["ap", "eu", "us"]).policy(&held_by(1, r#""all""#)).host(shelves.moves());
        let mesh = mesh.moving().start().await.expect("it starts");
        seconds(2).await;
        let mut shelf = None;
        for key in 0..40 {
            let one = mesh.at("ap").actor::<Shelf>(key);
            if one.ask(Take {}).await.expect("taken").0 == "ap" {
                shelf = Some(one);
            }
        }
        let shelf = shelf.expect("one of so many is there");
        let (slow, waits) = (shelf.clone(), shelf.clone());
        let slow = tokio::spawn(async move { slow.ask(TakeSlowly { ms: 3_000 }).await });
        seconds(1).await;
        let waits = tokio::spawn(async move { waits.ask(Take {}).await });
        seconds(1).await;
        mesh.policy(&held_by(2, r#""jurisdiction:eu", "jurisdiction:us""#));
        let (at, taken) = waits.await.expect("no panic").expect("it was let in before, and follows");
        assert!(at != "ap" && taken == 1, "{at} {taken}");
        assert_eq!(slow.await.expect("no panic"), Ok(1), "what has begun goes on");
    });
}
