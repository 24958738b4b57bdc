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
