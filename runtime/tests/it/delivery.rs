//! Asks that run once a key, and tells that arrive for sure, between the regions of a mesh.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

const POLICY: &str = r#"
    version = 1
    [jurisdictions]
    eu = ["eu"]
    world = ["us"]
    [classes.personal]
    hold = ["jurisdiction:eu"]
    read = ["all"]
    carry = ["all"]
    [classes.inventory]
    hold = ["all"]
    read = ["all"]
    carry = ["all"]
"#;

/// Runs once a key.
#[remote(name = "test.Book", class = "inventory", reply = u32, key = order)]
struct Book {
    order: String,
    seats: u32,
    slow: bool,
}

/// Is told; panics, refuses, or is noted in its order.
#[remote(name = "test.Note", class = "inventory", reply = ())]
struct Note {
    number: u32,
    panics: u32,
}

/// Passed on to another desk, with the batch of this call.
#[remote(name = "test.PassOn", class = "inventory", reply = (), key = order)]
struct PassOn {
    order: String,
    to: MeshAddr<Desks>,
    panics: bool,
}

/// May not be kept outside of the eu.
#[remote(name = "test.Secret", class = "personal", reply = ())]
struct Secret;

/// What a desk has: seats, and what was noted.
#[remote(name = "test.Look", class = "inventory", reply = (u32, Vec<u32>), idempotent)]
struct Look;

protocol! {
    /// Desks.
    pub Desks = "test.desk", class "inventory": Book, Note, PassOn, Secret, Look;
}

protocol! {
    /// The same, as somebody sees them who knows a message more.
    pub LaterDesks = "test.desk", class "inventory": Book, Note, PassOn, Secret, Look, Unheard;
}

/// No desk has heard of it.
#[remote(name = "test.Unheard", class = "inventory", reply = ())]
struct Unheard;

#[derive(Default)]
struct Desk {
    seats: u32,
    noted: Vec<u32>,
    panics: Arc<Mutex<BTreeMap<u32, u32>>>,
    ran: Arc<AtomicU32>,
}

impl Desk {
    fn wakes(at: &Activation, seen: &Seen) -> Self {
        let rows = at.rows().expect("it is read");
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
        let seats = rows.get(&b"seats"[..]).map_or(0, |row| number(row));
        let noted =
            rows.get(&b"noted"[..]).map_or(Vec::new(), |row| row.chunks_exact(4).map(number).collect());
        Self { seats, noted, panics: Arc::clone(&seen.panics), ran: Arc::clone(&seen.ran) }
    }
}

#[remote_actor(serves = Desks)]
impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Book> for Desk {
    type Result = Reply<u32>;

    fn handle(&mut self, book: Book, _: &mut Context<Self>) -> Reply<u32> {
        self.ran.fetch_add(1, Ordering::Relaxed);
        self.seats += book.seats;
        let call = call().expect("it is called");
        call.put("seats", self.seats.to_be_bytes()).expect("it is kept");
        let seats = self.seats;
        Reply::later(async move {
            if book.slow {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            seats
        })
    }
}

impl Handler<Note> for Desk {
    type Result = ();

    fn handle(&mut self, note: Note, _: &mut Context<Self>) {
        let times = *self.panics.lock().entry(note.number).and_modify(|times| *times += 1).or_insert(1);
        self.noted.push(note.number);
        let noted: Vec<u8> = self.noted.iter().flat_map(|number| number.to_be_bytes()).collect();
        call().expect("it is called").put("noted", noted).expect("it is kept");
        assert!(times > note.panics, "as asked");
    }
}

impl Handler<PassOn> for Desk {
    type Result = Reply<()>;

    fn handle(&mut self, pass: PassOn, _: &mut Context<Self>) -> Reply<()> {
        Reply::later(async move {
            pass.to.tell(Note { number: 7, panics: 0 }).durably().await.expect("it is enclosed");
            assert!(!pass.panics, "as asked");
        })
    }
}

impl Handler<Secret> for Desk {
    type Result = ();

    fn handle(&mut self, _: Secret, _: &mut Context<Self>) {}
}

impl Handler<Look> for Desk {
    type Result = rhumb::__private::actix::MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Context<Self>) -> Self::Result {
        let unkept = call().expect("it is called").put("seats", [0; 4]);
        assert!(unkept.is_err(), "nothing of a look is kept");
        rhumb::__private::actix::MessageResult((self.seats, self.noted.clone()))
    }
}

/// What the desks of one test have in common.
#[derive(Clone, Default)]
struct Seen {
    panics: Arc<Mutex<BTreeMap<u32, u32>>>,
    ran: Arc<AtomicU32>,
}

async fn mesh(seen: &Seen) -> TestMesh {
    let seen = seen.clone();
    let host = Host::new(move |at: &Activation| Desk::wakes(at, &seen));
    TestMesh::of(["us", "eu"]).policy(POLICY).host(host).start().await.expect("it starts")
}

fn desk(mesh: &Mesh, region: &str) -> MeshAddr<Desks> {
    mesh.actor_in(&region.parse().expect("a region"), "1")
}

fn book(order: &str, seats: u32) -> Book {
    Book { order: order.to_owned(), seats, slow: false }
}

/// Waits until the desk has noted these.
async fn noted(desk: &MeshAddr<Desks>, wanted: &[u32]) {
    let mut last = Vec::new();
    for _ in 0..2_000 {
        last = desk.ask(Look).await.map(|(_, noted)| noted).unwrap_or_default();
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("noted {last:?}, wanted {wanted:?}");
}

#[test]
fn one_key_runs_once_wherever_it_is_asked_and_another_message_under_it_is_refused() {
    run(async {
        let seen = Seen::default();
        let mesh = mesh(&seen).await;
        for from in ["us", "eu", "us"] {
            let desk = desk(mesh.at(from), "eu");
            assert_eq!(desk.ask(book("a", 2)).await, Ok(2));
            let fault = desk.ask(book("a", 3)).await.expect_err("another message");
            assert_eq!(fault, Fault::not_sent(FaultKind::KeyReused("test.Book".to_owned())));
        }
        assert_eq!(desk(mesh.at("us"), "eu").ask(book("b", 1)).await, Ok(3));
        assert_eq!(seen.ran.load(Ordering::Relaxed), 2);
        // A program's keys are its own.
        let program = mesh.client("us", "app");
        assert_eq!(desk(&program, "eu").ask(book("a", 5)).await, Ok(8));
        assert_eq!(desk(&program, "eu").ask(book("a", 5)).await, Ok(8));
    });
}

#[test]
fn who_asks_a_key_that_runs_gets_its_answer_also_when_the_first_asker_has_gone() {
    run(async {
        let seen = Seen::default();
        let mesh = mesh(&seen).await;
        let (here, there) = (desk(mesh.at("us"), "eu"), desk(mesh.at("eu"), "eu"));
        let slow = || Book { slow: true, ..book("a", 2) };
        let (first, second, third) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(100), here.ask(slow()).into_future()),
            there.ask(slow()).into_future(),
            here.ask(slow()).into_future(),
        );
        assert!(first.is_err(), "it lost its patience");
        assert_eq!((second, third), (Ok(2), Ok(2)));
        assert_eq!(seen.ran.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn what_is_told_durably_arrives_once_and_in_order_across_a_cut() {
    run(async {
        let mesh = mesh(&Seen::default()).await;
        let there = desk(mesh.at("us"), "eu");
        for number in 0..10 {
            there.tell(Note { number, panics: 0 }).durably().await.expect("it is taken");
        }
        mesh.cut("us", "eu");
        for number in 10..20 {
            there
                .tell(Note { number, panics: 0 })
                .durably()
                .await
                .expect("it is taken while the link is cut");
        }
        tokio::time::sleep(Duration::from_secs(300)).await;
        mesh.heal("us", "eu");
        mesh.reachable("us", "eu").await;
        noted(&desk(mesh.at("eu"), "eu"), &(0..20).collect::<Vec<_>>()).await;
        // On its own node as well.
        desk(mesh.at("eu"), "eu").tell(Note { number: 99, panics: 0 }).durably().await.expect("it is taken");
        noted(&desk(mesh.at("eu"), "eu"), &(0..20).chain([99]).collect::<Vec<_>>()).await;
    });
}

#[test]
fn a_handler_that_panics_runs_again_with_its_rows_as_they_were_and_those_behind_it_wait() {
    run(async {
        let mesh = mesh(&Seen::default()).await;
        let there = desk(mesh.at("us"), "eu");
        for (number, panics) in [(1, 0), (2, 3), (3, 0)] {
            there.tell(Note { number, panics }).durably().await.expect("it is taken");
        }
        noted(&there, &[1, 2, 3]).await;
    });
}

#[test]
fn what_cannot_be_delivered_is_a_dead_letter_and_those_behind_it_go_on() {
    run(async {
        let mesh = mesh(&Seen::default()).await;
        let there = desk(mesh.at("us"), "eu");
        there.tell(Note { number: 1, panics: u32::MAX }).durably().await.expect("it is taken");
        let unheard = mesh.at("us").actor_in::<LaterDesks>(&"eu".parse().expect("a region"), "1");
        unheard.tell(Unheard).durably().await.expect("it is taken");
        there.tell(Note { number: 2, panics: 0 }).durably().await.expect("it is taken");
        noted(&there, &[2]).await;
        let dead = mesh.at("us").dead_letters().await.expect("it answers");
        let told: Vec<_> = dead.iter().map(|dead| (dead.message.as_str(), dead.reason.as_str())).collect();
        assert_eq!(
            told,
            [
                ("test.Note", "its handler failed 5 times: the handler of \"test.Note\" panicked"),
                ("test.Unheard", "the peer does not know the message \"test.Unheard\""),
            ]
        );
    });
}

#[test]
fn a_letter_of_a_handler_goes_with_its_answer_or_not_at_all() {
    run(async {
        let mesh = mesh(&Seen::default()).await;
        let (here, there) = (desk(mesh.at("us"), "us"), desk(mesh.at("us"), "eu"));
        let pass = |order: &str, panics| PassOn { order: order.to_owned(), to: there.clone(), panics };
        here.ask(pass("a", true)).await.expect_err("it panics");
        tokio::time::sleep(Duration::from_secs(60)).await;
        noted(&there, &[]).await;
        here.ask(pass("a", false)).await.expect("it is passed on");
        here.ask(pass("a", false)).await.expect("it was passed on");
        noted(&there, &[7]).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        noted(&there, &[7]).await;
    });
}

#[test]
fn what_a_node_may_not_hold_is_not_taken_into_its_outbox_and_a_program_has_none() {
    run(async {
        let mesh = mesh(&Seen::default()).await;
        let fault = desk(mesh.at("us"), "eu").tell(Secret).durably().await.expect_err("us may not hold it");
        assert!(matches!(fault.kind, FaultKind::Gate(_)), "{fault}");
        desk(mesh.at("eu"), "eu").tell(Secret).durably().await.expect("eu may");
        let program = mesh.client("us", "app");
        let fault =
            desk(&program, "eu").tell(Note { number: 1, panics: 0 }).durably().await.expect_err("no outbox");
        assert!(fault.to_string().contains("only a node has one"), "{fault}");
    });
}
