//! What actix does by itself, so that it is seen when one of these changes: each of the runtime's own
//! works exists because of one of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use futures::future::join_all;

#[derive(Message)]
#[rtype(result = "()")]
struct Work(&'static str);

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

#[derive(Clone, Default)]
struct Worker {
    log: Arc<Mutex<Vec<&'static str>>>,
    slow: bool,
    ended: Arc<AtomicUsize>,
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(2);
    }
}

impl Supervised for Worker {}

impl Handler<Work> for Worker {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, work: Work, _: &mut Self::Context) -> ResponseFuture<()> {
        self.log.lock().expect("no panic").push(work.0);
        let (slow, ended) = (self.slow, Arc::clone(&self.ended));
        Box::pin(async move {
            if slow {
                actix::clock::sleep(Duration::from_millis(20)).await;
            }
            ended.fetch_add(1, Ordering::Relaxed);
        })
    }
}

impl Handler<Panic> for Worker {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("as asked")
    }
}

#[actix::test]
async fn a_mailbox_of_two_takes_ten_thousand_asks() {
    let worker = Worker::default();
    let address = worker.clone().start();
    let answers = join_all((0..10_000).map(|_| address.send(Work("ask")))).await;
    assert!(answers.iter().all(Result::is_ok), "not one of them was refused");
}

#[actix::test]
async fn a_supervisor_does_not_survive_a_panic() {
    let address = Supervisor::start(|_| Worker::default());
    address.send(Panic).await.expect_err("it panicked");
    for _ in 0..100 {
        actix::clock::sleep(Duration::from_millis(1)).await;
        assert!(matches!(address.send(Work("again")).await, Err(MailboxError::Closed)), "closed for ever");
    }
}

#[actix::test]
async fn a_neighbour_waits_for_the_whole_backlog() {
    let worker = Worker::default();
    let (busy, neighbour) = (worker.clone().start(), worker.clone().start());
    neighbour.send(Work("first")).await.expect("answered");
    busy.send(Work("first")).await.expect("answered");
    for _ in 0..5_000 {
        // Refused by the lint everywhere else: it queues for ever.
        #[expect(clippy::disallowed_methods, reason = "that it does is what is shown")]
        busy.do_send(Work("backlog"));
    }
    neighbour.send(Work("neighbour")).await.expect("answered");
    let log = worker.log.lock().expect("no panic");
    let before = log.iter().position(|work| *work == "neighbour").expect("it ran");
    assert!(before >= 5_000, "only {before} ran first");
}

#[actix::test]
async fn a_handler_that_nobody_waits_for_runs_to_its_end() {
    let worker = Worker { slow: true, ..Worker::default() };
    let address = worker.clone().start();
    let given_up = actix::clock::timeout(Duration::from_millis(5), address.send(Work("slow"))).await;
    assert!(given_up.is_err());
    for _ in 0..1_000 {
        if worker.ended.load(Ordering::Relaxed) == 1 {
            return;
        }
        actix::clock::sleep(Duration::from_millis(5)).await;
    }
    panic!("it was dropped");
}
