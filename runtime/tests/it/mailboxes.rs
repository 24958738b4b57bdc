//! Mailboxes are really bounded, and do what they declare when they are full; an ask that nobody waits
//! for is not run. (Bare actix: a mailbox of two took ten thousand asks, and a million tells.)

use std::future::IntoFuture;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.Slow", class = "control", reply = u32, deadline = "60s")]
struct Slow {
    number: u32,
}

#[remote(name = "test.Note", class = "control", reply = (), coalesce = key)]
struct Note {
    key: u32,
    number: u32,
}

#[derive(Clone, Default)]
struct Seen {
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    notes: Arc<Mutex<Vec<u32>>>,
}

macro_rules! actor {
    ($name:ident, $type:literal, $over:literal) => {
        struct $name(Seen);

        #[remote_actor(name = $type, class = "control", accepts(Slow, Note), mailbox = 2, overflow = $over)]
        impl Actor for $name {
            type Context = Context<Self>;
        }

        impl Handler<Slow> for $name {
            type Result = Reply<u32>;

            fn handle(&mut self, slow: Slow, _: &mut Context<Self>) -> Reply<u32> {
                let seen = self.0.clone();
                seen.begun.fetch_add(1, Ordering::Relaxed);
                Reply::later(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    seen.ended.fetch_add(1, Ordering::Relaxed);
                    slow.number
                })
            }
        }

        impl Handler<Note> for $name {
            type Result = ();

            fn handle(&mut self, note: Note, _: &mut Context<Self>) {
                self.0.notes.lock().expect("no panic").push(note.number);
            }
        }
    };
}

actor!(Refusing, "test.refusing", "refuse");
actor!(Newest, "test.newest", "drop_oldest");
actor!(Latest, "test.latest", "coalesce");

#[test]
fn a_mailbox_of_two_has_two_asks_under_way_and_refuses_the_others_at_once() {
    run(async {
        let seen = Seen::default();
        let of = seen.clone();
        let host = Host::new(move |_: &_| Refusing(of.clone()));
        let mesh = TestMesh::of(["us", "eu"]).host(host).start().await.expect("starts");
        for region in ["us", "eu"] {
            // Here, and from the other region.
            let slow = &mesh.at("us").actor_in::<Refusing>(&region.parse().expect("a region"), "a");
            let before = tokio::time::Instant::now();
            let asks = (0..1_000).map(|number| async move {
                let answer = slow.ask(Slow { number }).await;
                (answer, before.elapsed())
            });
            let answers = join_all(asks).await;
            let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(answer, _)| answer.is_ok());
            assert_eq!((good.len(), bad.len()), (2, 998));
            for (answer, after) in bad {
                let fault = answer.expect_err("refused");
                assert!(matches!(fault.kind, FaultKind::Full(_)), "{fault}");
                assert_eq!(fault.delivery(), Delivery::NotSent);
                assert!(fault.retry_after.is_some() && after < Duration::from_millis(500));
            }
        }
        assert_eq!(seen.begun.load(Ordering::Relaxed), 4);
    });
}

/// Tells notes (`key number`) to an actor whose mailbox of two is not emptied meanwhile.
async fn notes<A>(mesh: &TestMesh, seen: &Seen, told: &[(u32, u32)]) -> (Vec<u32>, usize)
where
    A: rhumb::remote::Accepts<Note>,
{
    let actor = mesh.at("us").actor::<A>("a");
    // One thread: nothing runs before the first await that waits.
    let tells =
        told.iter().map(|(key, number)| actor.tell(Note { key: *key, number: *number }).into_future());
    let refused = join_all(tells).await.into_iter().filter(Result::is_err).count();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let notes = std::mem::take(&mut *seen.notes.lock().expect("no panic"));
    (notes, refused)
}

#[test]
fn a_full_mailbox_refuses_drops_the_oldest_or_coalesces_as_its_actor_declares() {
    run(async {
        let seen = Seen::default();
        let (a, b, c) = (seen.clone(), seen.clone(), seen.clone());
        let mesh = TestMesh::of(["us"])
            .host(Host::new(move |_: &_| Refusing(a.clone())))
            .host(Host::new(move |_: &_| Newest(b.clone())))
            .host(Host::new(move |_: &_| Latest(c.clone())));
        let mesh = mesh.start().await.expect("starts");
        let told = [(1, 1), (2, 2), (1, 3), (2, 4), (3, 5)];
        assert_eq!(notes::<Refusing>(&mesh, &seen, &told).await, (vec![1, 2], 3));
        assert_eq!(notes::<Newest>(&mesh, &seen, &told).await, (vec![4, 5], 0));
        assert_eq!(notes::<Latest>(&mesh, &seen, &told).await, (vec![3, 4], 1));
    });
}

#[test]
fn a_tell_across_regions_learns_that_the_mailbox_is_full() {
    run(async {
        let seen = Seen::default();
        let of = seen.clone();
        let host = Host::new(move |_: &_| Refusing(of.clone()));
        let mesh = TestMesh::of(["us", "eu"]).host(host).start().await.expect("starts");
        let far = mesh.at("us").actor_in::<Refusing>(&"eu".parse().expect("a region"), "a");
        let outcomes = join_all((0..5).map(|number| far.ask(Slow { number }).into_future()));
        let full = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            far.tell(Note { key: 1, number: 1 }).await
        };
        let (_, told) = tokio::join!(outcomes, full);
        let fault = told.expect_err("two are under way");
        assert!(matches!(fault.kind, FaultKind::Full(_)), "{fault}");
    });
}

#[test]
fn an_ask_that_nobody_waits_for_is_not_run_and_one_under_way_is_dropped() {
    run(async {
        let seen = Seen::default();
        let of = seen.clone();
        let host = Host::new(move |_: &_| Refusing(of.clone()));
        let mesh = TestMesh::of(["us", "eu"]).host(host).start().await.expect("starts");
        for (number, region) in ["us", "eu"].into_iter().enumerate() {
            let actor = mesh.at("us").actor_in::<Refusing>(&region.parse().expect("a region"), "a");
            let limit = Duration::from_millis(300);
            let cut_off = tokio::time::timeout(limit, actor.ask(Slow { number: 1 }).into_future()).await;
            assert!(cut_off.is_err());
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!(seen.begun.load(Ordering::Relaxed), number + 1, "it began");
            assert_eq!(seen.ended.load(Ordering::Relaxed), 0, "and was dropped");
        }
    });
}
