//! kameo: actors that are tokio tasks, with bounded mailboxes.

use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox;
use kameo::message::{Context, Message};
use tokio::runtime::Handle;

use super::drive::{self, Other};
use super::{Measured, Order, obey};
use crate::threads::Threads;

/// As Rhumb's of this bench.
const MAILBOX: usize = 8_192;

#[derive(kameo::Actor)]
struct Counter {
    handled: u64,
}

struct Ask(u64);
struct Tell(u64);

impl Message<Ask> for Counter {
    type Reply = u64;

    async fn handle(&mut self, Ask(number): Ask, _: &mut Context<Self, u64>) -> u64 {
        number + 1
    }
}

impl Message<Tell> for Counter {
    type Reply = ();

    async fn handle(&mut self, Tell(number): Tell, _: &mut Context<Self, ()>) {
        self.handled += 1;
        std::hint::black_box(number);
    }
}

struct Addressed(ActorRef<Counter>);

impl Other for Addressed {
    async fn ask(&self, number: u64) -> anyhow::Result<u64> {
        self.0.ask(Ask(number)).await.map_err(|error| anyhow::anyhow!("{error}"))
    }

    async fn tell(&self, number: u64) -> anyhow::Result<()> {
        self.0.tell(Tell(number)).try_send().map_err(|error| anyhow::anyhow!("{error}"))
    }
}

fn start(thread: &Handle) -> ActorRef<Counter> {
    let _here = thread.enter();
    Counter::spawn_with_mailbox(Counter { handled: 0 }, mailbox::bounded(MAILBOX))
}

/// Obeys orders in this process.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn probe() -> anyhow::Result<()> {
    let threads = Threads::two()?;
    obey(|order| {
        let Order::Local(order) = order else { anyhow::bail!("kameo is only asked and told here") };
        let other = Addressed(start(threads.at(usize::from(order.across))));
        Ok(Measured::of(threads.on_first(async move { drive::local(&other, order).await })?))
    })
}
