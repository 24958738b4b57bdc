//! Panics: a new instance from the factory, with backoff, intensity and escalation to the parent.
//! (Bare actix: an actor that panics is closed for ever, supervised or not.)

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.Bump", class = "control", reply = u32)]
struct Bump;

#[remote(name = "test.Break", class = "control", reply = u32)]
struct Break {
    later: bool,
}

struct Fragile {
    count: u32,
}

#[remote_actor(name = "test.fragile", class = "control", accepts(Bump, Break))]
impl Actor for Fragile {
    type Context = Context<Self>;
}

impl Handler<Bump> for Fragile {
    type Result = u32;

    fn handle(&mut self, _: Bump, _: &mut Context<Self>) -> u32 {
        self.count += 1;
        self.count
    }
}

impl Handler<Break> for Fragile {
    type Result = Reply<u32>;

    fn handle(&mut self, broken: Break, _: &mut Context<Self>) -> Reply<u32> {
        assert!(broken.later, "broken as asked");
        Reply::later(async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            panic!("broken later, as asked")
        })
    }
}

struct Parent {
    count: u32,
}

#[remote_actor(name = "test.parent", class = "control", accepts(Bump))]
impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Bump> for Parent {
    type Result = u32;

    fn handle(&mut self, _: Bump, _: &mut Context<Self>) -> u32 {
        self.count += 1;
        self.count
    }
}

fn host(made: &Arc<AtomicU32>) -> Host<Fragile> {
    let made = Arc::clone(made);
    Host::new(move |_: &_| {
        made.fetch_add(1, Ordering::Relaxed);
        Fragile { count: 0 }
    })
}

#[test]
fn after_a_panic_a_new_instance_answers_and_what_waited_is_kept() {
    run(async {
        let made = Arc::default();
        let mesh = TestMesh::of(["us", "eu"]).host(host(&made)).start().await.expect("starts");
        let fragile = mesh.at("us").actor_in::<Fragile>(&"eu".parse().expect("a region"), "a");
        for later in [false, true] {
            assert_eq!(fragile.ask(Bump).await, Ok(1));
            assert_eq!(fragile.ask(Bump).await, Ok(2));
            let (broken, waited) = tokio::join!(fragile.ask(Break { later }), async {
                tokio::time::sleep(Duration::from_millis(8)).await;
                fragile.ask(Bump).await
            });
            let fault = broken.expect_err("it panicked");
            assert!(matches!(fault.kind, FaultKind::Panicked(_)), "{fault}");
            assert_eq!(fault.delivery(), Delivery::Ran);
            assert!(!fault.to_string().contains("as asked"), "a panic's own text stays at home: {fault}");
            assert_eq!(waited, Ok(1), "a fresh instance");
            assert_eq!(
                fragile.ask(Break { later: false }).await.expect_err("again").delivery(),
                Delivery::Ran
            );
        }
        assert_eq!(made.load(Ordering::Relaxed), 4, "each from the factory");
    });
}

#[test]
fn restarts_wait_longer_each_time_and_one_panic_too_many_is_a_rest() {
    run(async {
        let made = Arc::default();
        let restarts = Restarts {
            intensity: 3,
            first: Duration::from_millis(100),
            rest: Duration::from_secs(7),
            ..Restarts::default()
        };
        let host = host(&made).restarts(restarts);
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let fragile = mesh.at("us").actor::<Fragile>("a");
        let mut waits = Vec::new();
        for _ in 0..3 {
            fragile.ask(Break { later: false }).await.expect_err("it panicked");
            let began = tokio::time::Instant::now();
            assert_eq!(fragile.ask(Bump).await, Ok(1));
            waits.push(began.elapsed().as_millis());
        }
        assert_eq!(waits, [100, 200, 400]);
        fragile.ask(Break { later: false }).await.expect_err("one too many");
        let fault = fragile.ask(Bump).await.expect_err("it rests");
        assert!(matches!(fault.kind, FaultKind::Failed(_)), "{fault}");
        assert_eq!(fault.retry_after, Some(Duration::from_secs(7)));
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(fragile.ask(Bump).await, Ok(1));
    });
}

#[test]
fn a_child_that_gives_up_makes_its_parent_and_its_siblings_begin_anew() {
    run(async {
        let made = Arc::default();
        let restarts = Restarts { intensity: 1, ..Restarts::default() };
        let parent_of = |child: &str| child.split('/').next().unwrap_or_default().to_owned();
        let children = host(&made).restarts(restarts).child_of::<Parent>(parent_of);
        let parents = Host::new(|_: &_| Parent { count: 0 });
        let mesh = TestMesh::of(["us"]).host(children).host(parents).start().await.expect("starts");
        let at = mesh.at("us");
        let (parent, other) = (at.actor::<Parent>("p"), at.actor::<Parent>("q"));
        let (child, sibling) = (at.actor::<Fragile>("p/1"), at.actor::<Fragile>("p/2"));
        let stranger = at.actor::<Fragile>("q/1");
        for _ in 0..2 {
            for ask in [parent.ask(Bump).await, other.ask(Bump).await] {
                ask.expect("answers");
            }
            for ask in [sibling.ask(Bump).await, stranger.ask(Bump).await] {
                ask.expect("answers");
            }
        }
        for _ in 0..2 {
            child.ask(Break { later: false }).await.expect_err("it panicked");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(parent.ask(Bump).await, Ok(1), "the parent begins anew");
        assert_eq!(sibling.ask(Bump).await, Ok(1), "and so does its other child");
        assert_eq!(other.ask(Bump).await, Ok(3), "but nobody else");
        assert_eq!(stranger.ask(Bump).await, Ok(3), "but nobody else");
        assert!(matches!(child.ask(Bump).await.expect_err("it rests").kind, FaultKind::Failed(_)));
    });
}

#[remote(name = "test.Many", class = "control", reply = u32)]
struct Many {
    fails_after_ms: u64,
}

/// Stops as it starts, or panics in its factory, or in what it is asked first.
struct Stillborn;

#[remote_actor(name = "test.stillborn", class = "control", accepts(Bump))]
impl Actor for Stillborn {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.stop();
    }
}

impl Handler<Bump> for Stillborn {
    type Result = u32;

    fn handle(&mut self, _: Bump, _: &mut Context<Self>) -> u32 {
        1
    }
}

#[test]
fn an_actor_that_cannot_start_gives_up_instead_of_starting_for_ever() {
    run(async {
        let made: Arc<AtomicU32> = Arc::default();
        let (counts, panics) = (Arc::clone(&made), Arc::clone(&made));
        let stops = Host::new(move |_: &_| {
            counts.fetch_add(1, Ordering::Relaxed);
            Stillborn
        });
        let mesh = TestMesh::of(["us"]).host(stops).start().await.expect("starts");
        let stillborn = mesh.at("us").actor::<Stillborn>("a");
        let fault = stillborn.ask(Bump).within(Duration::from_secs(3_600)).await.expect_err("it never runs");
        assert!(matches!(fault.kind, FaultKind::Failed(_)), "{fault}");
        assert_eq!(made.swap(0, Ordering::Relaxed), 6, "five restarts, and no more");

        let panicking = Host::new(move |_: &_| -> Stillborn {
            panics.fetch_add(1, Ordering::Relaxed);
            panic!("no database")
        });
        let mesh = TestMesh::of(["us"]).host(panicking).start().await.expect("starts");
        let unborn = mesh.at("us").actor::<Stillborn>("a");
        unborn.tell(Bump).await.expect("its mailbox takes it");
        let fault = unborn.ask(Bump).within(Duration::from_secs(3_600)).await.expect_err("it never runs");
        assert!(matches!(fault.kind, FaultKind::Failed(_)), "{fault}");
        assert_eq!(made.load(Ordering::Relaxed), 6);
        assert_eq!(mesh.at("us").hosted().expect("it hosts").report()[0].dropped, 1, "the tell is counted");
    });
}

/// Answers later, and then panics.
struct Late {
    count: u32,
}

#[remote_actor(name = "test.late", class = "control", accepts(Bump, Many))]
impl Actor for Late {
    type Context = Context<Self>;
}

impl Handler<Bump> for Late {
    type Result = u32;

    fn handle(&mut self, _: Bump, _: &mut Context<Self>) -> u32 {
        self.count += 1;
        self.count
    }
}

impl Handler<Many> for Late {
    type Result = Reply<u32>;

    fn handle(&mut self, many: Many, _: &mut Context<Self>) -> Reply<u32> {
        Reply::later(async move {
            tokio::time::sleep(Duration::from_millis(many.fails_after_ms)).await;
            panic!("as asked")
        })
    }
}

#[test]
fn what_an_earlier_instance_left_under_way_does_not_break_the_next_one() {
    run(async {
        let restarts = Restarts { intensity: 1, ..Restarts::default() };
        let host = Host::new(|_: &_| Late { count: 0 }).restarts(restarts);
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let late = mesh.at("us").actor::<Late>("a");
        let asks = (1..=10).map(|n| {
            let late = late.clone();
            async move { late.ask(Many { fails_after_ms: 100 * n }).await }
        });
        let (all, bumps) = tokio::join!(futures::future::join_all(asks), async {
            // The first has panicked, the others have not yet.
            tokio::time::sleep(Duration::from_millis(150)).await;
            let mut counts = Vec::new();
            for _ in 0..9 {
                counts.push(late.ask(Bump).await);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            counts
        });
        assert!(
            all.iter().all(|ask| matches!(&ask, Err(fault) if matches!(fault.kind, FaultKind::Panicked(_))))
        );
        assert_eq!(bumps, (1..=9).map(Ok).collect::<Vec<_>>(), "one restart, and the new one lives on");
    });
}

#[test]
fn poison_between_two_sleeps_still_adds_up() {
    run(async {
        let made = Arc::default();
        let host = host(&made).idle(Duration::from_secs(1));
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let fragile = mesh.at("us").actor::<Fragile>("a");
        let mut last = None;
        for _ in 0..6 {
            last = fragile.ask(Break { later: false }).await.err();
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
        assert!(matches!(last.map(|fault| fault.kind), Some(FaultKind::Panicked(_))));
        let fault = fragile.ask(Bump).await.expect_err("six panics in a minute");
        assert!(matches!(fault.kind, FaultKind::Failed(_)), "{fault}");
    });
}
