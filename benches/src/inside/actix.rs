//! Bare actix: addresses, `send` and `try_send`, arbiters.

use std::sync::Arc;

use actix::prelude::*;

use super::drive::{self, Crowd, Other, Sleepers};
use super::gate::Gate;
use super::{Local, Measured, Order, obey};

static GATE: Gate = Gate::new();
/// As Rhumb's of this bench.
const MAILBOX: usize = 8_192;

#[derive(Default)]
struct Counter {
    handled: u64,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }
}

#[derive(Message)]
#[rtype(result = "u64")]
struct Ask(u64);

#[derive(Message)]
#[rtype(result = "()")]
struct Tell(u64);

#[derive(Message)]
#[rtype(result = "()")]
struct Work;

#[derive(Message)]
#[rtype(result = "u64")]
struct Handled;

#[derive(Message)]
#[rtype(result = "()")]
struct Block;

impl Handler<Ask> for Counter {
    type Result = u64;

    fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self>) -> u64 {
        number + 1
    }
}

impl Handler<Tell> for Counter {
    type Result = ();

    fn handle(&mut self, Tell(number): Tell, _: &mut Context<Self>) {
        self.handled += 1;
        std::hint::black_box(number);
    }
}

impl Handler<Work> for Counter {
    type Result = ();

    fn handle(&mut self, _: Work, _: &mut Context<Self>) {
        self.handled += 1;
        drive::work();
    }
}

impl Handler<Handled> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Handled, _: &mut Context<Self>) -> u64 {
        self.handled
    }
}

impl Handler<Block> for Counter {
    type Result = ();

    fn handle(&mut self, _: Block, _: &mut Context<Self>) {
        GATE.pass();
    }
}

struct Addressed(Addr<Counter>);

impl Other for Addressed {
    async fn ask(&self, number: u64) -> anyhow::Result<u64> {
        Ok(self.0.send(Ask(number)).await?)
    }

    async fn tell(&self, number: u64) -> anyhow::Result<()> {
        self.0.try_send(Tell(number)).map_err(|error| anyhow::anyhow!("{error}"))
    }
}

struct Two {
    hog: Addr<Counter>,
    neighbour: Addr<Counter>,
}

impl Crowd for Two {
    async fn block(&self) -> anyhow::Result<()> {
        self.hog.do_send(Block);
        Ok(())
    }

    async fn pile(&self) -> anyhow::Result<()> {
        self.hog.do_send(Work);
        Ok(())
    }

    async fn handled(&self) -> anyhow::Result<u64> {
        Ok(self.hog.send(Handled).await?)
    }

    async fn neighbour(&self) -> anyhow::Result<u64> {
        Ok(self.neighbour.send(Ask(0)).await?)
    }
}

/// Actors by number: bare actix finds none by key, so this is only the addresses.
struct Many {
    arbiters: Vec<ArbiterHandle>,
    addresses: Vec<Addr<Counter>>,
}

impl Many {
    fn make(&mut self, number: u64) -> Addr<Counter> {
        let arbiter = &self.arbiters[number as usize % self.arbiters.len()];
        let address = Counter::start_in_arbiter(arbiter, |_| Counter::default());
        self.addresses.push(address.clone());
        address
    }
}

impl Sleepers for Many {
    async fn rouse(&mut self, number: u64) -> anyhow::Result<()> {
        self.make(number).send(Ask(number)).await?;
        Ok(())
    }

    async fn rouse_all(&mut self, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
        for number in numbers.clone().step_by(drive::RUN) {
            let upto = (number + drive::RUN as u64).min(numbers.end);
            let made: Vec<_> = (number..upto).map(|number| self.make(number)).collect();
            futures::future::try_join_all(made.iter().map(|address| address.send(Ask(0)))).await?;
        }
        Ok(())
    }
}

fn start(arbiter: &ArbiterHandle) -> Addr<Counter> {
    Counter::start_in_arbiter(arbiter, |_| Counter::default())
}

/// The driver is a future on the first arbiter; the other actor is there, or on the second one.
async fn local(arbiters: &[ArbiterHandle], order: Local) -> anyhow::Result<Measured> {
    let other = Addressed(start(&arbiters[usize::from(order.across)]));
    let (done, driven) = tokio::sync::oneshot::channel();
    let driver = async move {
        done.send(drive::local(&other, order).await).ok();
    };
    anyhow::ensure!(arbiters[0].spawn(driver), "the arbiter is gone");
    Ok(Measured::of(driven.await?))
}

async fn measure(arbiters: Arc<Vec<ArbiterHandle>>, order: Order) -> anyhow::Result<Measured> {
    match order {
        Order::Local(order) => local(&arbiters, order).await,
        Order::Neighbour { backlog } => {
            let two = Two { hog: start(&arbiters[0]), neighbour: start(&arbiters[0]) };
            drive::neighbour(&two, &GATE, backlog).await
        }
        Order::Idle { actors, probes } => {
            let mut many = Many { arbiters: arbiters.to_vec(), addresses: Vec::new() };
            let measured = drive::idle(&mut many, actors, probes).await;
            // Not one by one: the process ends after this.
            std::mem::forget(many);
            measured
        }
        _ => anyhow::bail!("actix has neither a clock nor a log"),
    }
}

/// Obeys orders in this process.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn probe() -> anyhow::Result<()> {
    let system = System::new();
    let arbiters =
        system.block_on(async { Arc::new(vec![Arbiter::new().handle(), Arbiter::new().handle()]) });
    obey(|order| system.block_on(measure(Arc::clone(&arbiters), order)))
}
