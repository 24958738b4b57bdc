//! Actors fall asleep when idle, or when memory is short; what comes meanwhile is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::{TestMesh, run};

#[remote(name = "test.Push", class = "control", reply = u32)]
struct Push;

type Shelf = Arc<Mutex<HashMap<String, u32>>>;

struct Sleeper {
    key: String,
    count: u32,
    shelf: Shelf,
    stays: bool,
}

#[remote_actor(name = "test.sleeper", class = "control", accepts(Push))]
impl Actor for Sleeper {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> actix::Running {
        if self.stays { actix::Running::Continue } else { actix::Running::Stop }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shelf.lock().expect("no panic").insert(self.key.clone(), self.count);
    }
}

impl Handler<Push> for Sleeper {
    type Result = u32;

    fn handle(&mut self, _: Push, _: &mut Context<Self>) -> u32 {
        self.count += 1;
        self.count
    }
}

fn host(shelf: &Shelf) -> Host<Sleeper> {
    let shelf = Arc::clone(shelf);
    Host::new(move |at: &Activation| {
        let key = at.key().to_owned();
        let count = shelf.lock().expect("no panic").remove(&key).unwrap_or_default();
        Sleeper { stays: key == "stays", key, count, shelf: Arc::clone(&shelf) }
    })
}

fn live(mesh: &TestMesh) -> u64 {
    mesh.at("us").hosted().expect("it hosts").report()[0].live
}

#[test]
fn an_idle_actor_sleeps_and_wakes_with_what_it_saved() {
    run(async {
        let shelf = Shelf::default();
        let host = host(&shelf).idle(Duration::from_secs(60));
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let (a, b) = (mesh.at("us").actor::<Sleeper>("a"), mesh.at("us").actor::<Sleeper>("b"));
        assert_eq!(a.ask(Push).await, Ok(1));
        for minute in 0..3 {
            assert_eq!(b.ask(Push).await, Ok(minute + 1));
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        assert_eq!(live(&mesh), 1, "b is used, a is not");
        assert_eq!(shelf.lock().expect("no panic").get("a"), Some(&1));
        assert_eq!(a.ask(Push).await, Ok(2));
        let report = &mesh.at("us").hosted().expect("it hosts").report()[0];
        assert_eq!((report.activations, report.passivations), (3, 1));
    });
}

#[test]
fn an_actor_may_refuse_to_sleep() {
    run(async {
        let host = host(&Shelf::default()).idle(Duration::from_secs(60));
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let stays = mesh.at("us").actor::<Sleeper>("stays");
        assert_eq!(stays.ask(Push).await, Ok(1));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(stays.ask(Push).await, Ok(2), "the same instance");
        assert_eq!(mesh.at("us").hosted().expect("it hosts").report()[0].activations, 1);
    });
}

#[test]
fn while_there_are_too_many_the_least_recently_used_sleep() {
    run(async {
        let shelf = Shelf::default();
        // Room for ten: each says that it has a megabyte.
        let host = host(&shelf).footprint(|_| 1 << 20).memory(10 << 20);
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        for key in 0..30 {
            assert_eq!(mesh.at("us").actor::<Sleeper>(key).ask(Push).await, Ok(1));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(live(&mesh) <= 10, "{} are awake", live(&mesh));
        let shelf = shelf.lock().expect("no panic");
        assert!((0..20).all(|key| shelf.contains_key(&key.to_string())), "the oldest went first: {shelf:?}");
    });
}

#[test]
fn nothing_that_comes_while_an_actor_falls_asleep_is_lost() {
    run(async {
        let host = host(&Shelf::default()).idle(Duration::from_millis(40));
        let mesh = TestMesh::of(["us"]).host(host).start().await.expect("starts");
        let actor = mesh.at("us").actor::<Sleeper>("a");
        for count in 1..=500 {
            assert_eq!(actor.ask(Push).await, Ok(count));
            // Now and then just as it falls asleep.
            tokio::time::sleep(Duration::from_millis(u64::from(count) % 60)).await;
        }
        let report = &mesh.at("us").hosted().expect("it hosts").report()[0];
        assert!(report.passivations > 50, "it slept {} times", report.passivations);
    });
}
