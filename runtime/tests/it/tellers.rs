//! Many tells under way, of which none is waited for alone: each is accounted for once, whatever happens to
//! the others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rhumb::mesh::teller::MAX_LISTED;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};
use serde::{Deserialize, Deserializer, Serialize};

const POLICY: &str = r#"
version = 1

[jurisdictions]
eu = ["eu"]
us = ["us"]

[classes.open]
hold = ["all"]
read = ["all"]
carry = ["all"]

[classes.closed]
hold = ["jurisdiction:us"]
read = ["jurisdiction:us"]
carry = ["jurisdiction:us"]
"#;

#[remote(name = "test.Line", class = by(class), reply = ())]
struct Line {
    class: DataClass,
    number: u64,
    text: String,
}

/// Takes its place in the mailbox for an hour.
#[remote(name = "test.Sit", class = "open", reply = ())]
struct Sit;

fn line(number: u64) -> Line {
    Line { class: "open".parse().expect("a class"), number, text: String::new() }
}

/// Cannot be decoded without a panic, if it is armed.
#[derive(Serialize)]
struct Fuse(bool);

impl<'de> Deserialize<'de> for Fuse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let armed = bool::deserialize(deserializer)?;
        assert!(!armed, "on purpose");
        Ok(Self(armed))
    }
}

#[remote(name = "test.Fused", class = "open", reply = ())]
struct Fused {
    number: u64,
    #[wire(opaque = "fuse-v1")]
    fuse: Fuse,
}

/// Is noted if its handler finds its call, at once and after a while.
#[remote(name = "test.Look", class = "closed", reply = ())]
struct Look {
    number: u64,
}

type Seen = Arc<Mutex<Vec<u64>>>;

struct Book(Seen);

#[remote_actor(name = "test.book", class = "open", accepts(Line, Sit, Fused, Look), mailbox = 64)]
impl Actor for Book {
    type Context = Context<Self>;
}

impl Handler<Line> for Book {
    type Result = ();

    fn handle(&mut self, line: Line, _: &mut Context<Self>) {
        self.0.lock().expect("no panic").push(line.number);
    }
}

impl Handler<Fused> for Book {
    type Result = ();

    fn handle(&mut self, fused: Fused, _: &mut Context<Self>) {
        self.0.lock().expect("no panic").push(fused.number);
    }
}

impl Handler<Look> for Book {
    type Result = Reply<()>;

    fn handle(&mut self, look: Look, _: &mut Context<Self>) -> Reply<()> {
        let seen = Arc::clone(&self.0);
        let first = call().expect("it is within a call");
        Reply::later(async move {
            tokio::task::yield_now().await;
            let now = call().expect("it is still within a call");
            let to = |call: &Call| (call.class().to_string(), call.actor().to_string(), call.hybrid());
            let lowered = book(now.mesh(), "us").tell(line(0)).await.expect_err("that is open to all");
            let is_bound = matches!(lowered.kind, FaultKind::ClassLowered { .. });
            let is_it =
                to(&first) == to(&now) && now.class().as_str() == "closed" && now.actor().key() == "a";
            if is_it && is_bound && !now.remaining().is_zero() {
                seen.lock().expect("no panic").push(look.number);
            }
        })
    }
}

impl Handler<Sit> for Book {
    type Result = Reply<()>;

    fn handle(&mut self, _: Sit, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(async { tokio::time::sleep(Duration::from_secs(3600)).await }).finish()
    }
}

async fn mesh() -> (TestMesh, Seen) {
    let seen = Seen::default();
    let of = Arc::clone(&seen);
    let host = Host::new(move |_: &_| Book(Arc::clone(&of)));
    let mesh = TestMesh::of(["us", "eu"]).policy(POLICY).host(host).start().await.expect("starts");
    (mesh, seen)
}

fn book(mesh: &Mesh, region: &str) -> MeshAddr<Book> {
    mesh.actor_in::<Book>(&region.parse().expect("a region"), "a")
}

fn taken(seen: &Seen) -> Vec<u64> {
    std::mem::take(&mut *seen.lock().expect("no panic"))
}

#[test]
fn more_than_a_window_arrives_in_order_from_here_from_elsewhere_and_from_a_program() {
    run(async {
        let (mesh, seen) = mesh().await;
        let client = mesh.client("us", "till");
        for (from, to) in [(mesh.at("us"), "us"), (mesh.at("us"), "eu"), (&client, "eu")] {
            let mut teller = book(from, to).teller::<Line>().window(32);
            for number in 0..1_000 {
                // Now and then one that is too large to share a head.
                let text = if number % 100 == 7 { "x".repeat(20_000) } else { String::new() };
                assert_eq!(teller.tell(Line { text, ..line(number) }).await, Ok(number));
                assert!(teller.unanswered() <= 32);
            }
            assert_eq!(teller.close().await.all_taken(), Ok(1_000), "{to}");
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(taken(&seen), (0..1_000).collect::<Vec<_>>(), "{to}");
        }
    });
}

#[test]
fn the_handler_of_each_finds_its_call_and_is_bound_by_its_class() {
    run(async {
        let (mesh, seen) = mesh().await;
        let mut teller = book(&mesh.client("us", "till"), "us").teller::<Look>();
        for number in 0..10 {
            assert_eq!(teller.tell(Look { number }).await, Ok(number));
        }
        assert_eq!(teller.close().await.all_taken(), Ok(10));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut found = taken(&seen);
        found.sort_unstable();
        assert_eq!(found, (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_peer_that_knows_no_gathered_tells_is_told_one_by_one() {
    run(async {
        let seen = Seen::default();
        let of = Arc::clone(&seen);
        let host = Host::new(move |_: &_| Book(Arc::clone(&of)));
        let older = TestMesh::of(["us", "eu"]).protocol(1).policy(POLICY).host(host);
        let mesh = older.start().await.expect("starts");
        let mut teller = book(mesh.at("us"), "eu").teller::<Fused>().window(16);
        for number in 0..100 {
            teller.tell(Fused { number, fuse: Fuse(number == 50) }).await.expect("on its way");
            assert!(teller.unanswered() <= 16);
        }
        let told = teller.close().await;
        assert_eq!((told.taken, told.failed.len(), told.failed[0].number), (99, 1, 50), "each by itself");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(taken(&seen), (0..50).chain(51..100).collect::<Vec<_>>());
    });
}

#[test]
fn a_tell_that_a_gate_refuses_fails_alone() {
    run(async {
        let (mesh, seen) = mesh().await;
        let mut teller = book(mesh.at("us"), "eu").teller::<Line>();
        let mut refused = 0;
        for number in 0..30 {
            let class = if number % 3 == 0 { "closed" } else { "open" };
            let told = teller.tell(Line { class: class.parse().expect("a class"), ..line(number) }).await;
            if let Err(fault) = told {
                assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
                assert_eq!(fault.delivery(), Delivery::NotSent);
                refused += 1;
            }
        }
        assert_eq!((refused, teller.close().await.all_taken()), (10, Ok(20)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(taken(&seen), (0..30).filter(|number| number % 3 != 0).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_full_mailbox_refuses_is_named_and_the_rest_is_taken() {
    run(async {
        let (mesh, seen) = mesh().await;
        let book = book(mesh.at("us"), "eu");
        let mut sitting = book.teller::<Sit>();
        for _ in 0..60 {
            sitting.tell(Sit).await.expect("on its way");
        }
        assert_eq!(sitting.flush().await.all_taken(), Ok(60));
        let mut teller = book.teller::<Line>().window(64);
        for number in 0..16 {
            teller.tell(line(number)).await.expect("on its way");
        }
        let told = teller.flush().await;
        assert_eq!((told.taken, told.unlisted), (4, 0), "64 places, of which 60 are taken");
        assert_eq!(
            told.failed.iter().map(|failed| failed.number).collect::<Vec<_>>(),
            (4..16).collect::<Vec<_>>()
        );
        for failed in told.failed {
            assert!(matches!(failed.fault.kind, FaultKind::Full(_)), "{}", failed.fault);
            assert!(failed.fault.delivery() == Delivery::NotSent && failed.fault.retry_after.is_some());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(taken(&seen), [0, 1, 2, 3]);
        assert_eq!(teller.close().await, rhumb::mesh::Told::default(), "said once");
    });
}

#[test]
fn of_a_window_to_a_frozen_peer_each_tell_has_its_fault() {
    run(async {
        let (mesh, seen) = mesh().await;
        let mut teller = book(mesh.at("us"), "eu").teller::<Line>();
        teller.tell(line(0)).await.expect("on its way");
        assert_eq!(teller.flush().await.all_taken(), Ok(1));
        mesh.freeze("eu");
        let before = tokio::time::Instant::now();
        for number in 1..=100 {
            teller.tell(line(number)).await.expect("on its way");
        }
        let told = teller.flush().await;
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
        assert_eq!((told.taken, told.unlisted), (0, 0));
        assert_eq!(
            told.failed.iter().map(|failed| failed.number).collect::<Vec<_>>(),
            (1..=100).collect::<Vec<_>>()
        );
        assert!(told.failed.iter().all(|failed| failed.fault.delivery() != Delivery::Ran));
        mesh.thaw("eu");
        mesh.reachable("us", "eu").await;
        teller.tell(line(101)).await.expect("on its way");
        assert_eq!(teller.close().await.all_taken(), Ok(1));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(taken(&seen).last(), Some(&101));
    });
}

#[test]
fn of_a_window_whose_peer_is_cut_off_each_tell_is_accounted_for_once() {
    run(async {
        let (mesh, seen) = mesh().await;
        mesh.delay("us", "eu", Duration::from_millis(20));
        let mut teller = book(mesh.at("us"), "eu").teller::<Line>().window(64);
        let (mut refused, mut told) = (Vec::new(), 0..2_000_u64);
        for number in told.by_ref() {
            match number {
                700 => mesh.cut("us", "eu"),
                1_500 => mesh.heal("us", "eu"),
                _ => {}
            }
            if let Err(fault) = teller.tell(line(number)).await {
                assert_eq!(fault.delivery(), Delivery::NotSent, "{fault}");
                refused.push(number);
                // Not connected: not sooner than it may be.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let told = teller.close().await;
        let failed = told.failed.len() as u64 + told.unlisted;
        assert_eq!(told.taken + failed + refused.len() as u64, 2_000);
        assert!(
            failed > 0 && !refused.is_empty() && told.taken > 700,
            "{failed} {} {}",
            refused.len(),
            told.taken
        );
        mesh.reachable("us", "eu").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let arrived = taken(&seen);
        assert!(arrived.is_sorted() && arrived.len() as u64 >= told.taken, "{} arrived", arrived.len());
        let unsure =
            told.failed.iter().filter(|failed| failed.fault.delivery() == Delivery::Unknown).count() as u64;
        assert!(arrived.len() as u64 <= told.taken + unsure);
        assert!(
            refused.iter().all(|number| arrived.binary_search(number).is_err()),
            "refused, and yet arrived"
        );
    });
}

#[test]
fn faults_that_nobody_has_looked_at_are_counted_when_there_are_too_many() {
    run(async {
        let (mesh, _) = mesh().await;
        let book = book(mesh.at("us"), "eu");
        let mut sitting = book.teller::<Sit>();
        for _ in 0..2_000 {
            sitting.tell(Sit).await.expect("on its way");
        }
        let told = sitting.close().await;
        assert_eq!((told.taken, told.failed.len()), (64, MAX_LISTED));
        assert_eq!(told.unlisted, 2_000 - 64 - MAX_LISTED as u64);
        assert_eq!(told.failed[0].number, 64);
    });
}

#[test]
fn nobody_is_told_of_tells_that_a_panic_lost_that_they_were_taken() {
    run(async {
        let (mesh, seen) = mesh().await;
        let mut teller = book(mesh.at("us"), "eu").teller::<Fused>();
        for number in 0..10 {
            teller.tell(Fused { number, fuse: Fuse(number == 5) }).await.expect("on its way");
        }
        let told = teller.flush().await;
        assert_eq!((told.taken, told.failed.len()), (0, 10));
        assert!(told.failed.iter().all(|failed| failed.fault.delivery() == Delivery::Unknown));
        teller.tell(Fused { number: 10, fuse: Fuse(false) }).await.expect("on its way");
        assert_eq!(teller.close().await.all_taken(), Ok(1), "the connection goes on");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(taken(&seen), [0, 1, 2, 3, 4, 10]);
    });
}
