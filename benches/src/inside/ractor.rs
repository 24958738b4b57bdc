//! ractor: actors that are tokio tasks, with unbounded mailboxes.

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorMessage;
use tokio::runtime::Handle;

use super::drive::{self, Other};
use super::{Measured, Order, obey};
use crate::threads::Threads;

#[derive(RactorMessage)]
enum Message {
    Ask(u64, RpcReplyPort<u64>),
    Tell(u64),
}

struct Counter;

impl Actor for Counter {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        handled: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ask(number, reply) => Ok(reply.send(number + 1)?),
            Message::Tell(number) => {
                *handled += 1;
                std::hint::black_box(number);
                Ok(())
            }
        }
    }
}

struct Addressed(ActorRef<Message>);

impl Other for Addressed {
    async fn ask(&self, number: u64) -> anyhow::Result<u64> {
        Ok(ractor::call!(self.0, Message::Ask, number)?)
    }

    async fn tell(&self, number: u64) -> anyhow::Result<()> {
        Ok(ractor::cast!(self.0, Message::Tell(number))?)
    }
}

fn start(thread: &Handle) -> anyhow::Result<ActorRef<Message>> {
    let (started, wait) = std::sync::mpsc::channel();
    thread.spawn(async move {
        started.send(Actor::spawn(None, Counter, ()).await).ok();
    });
    Ok(wait.recv()??.0)
}

/// Obeys orders in this process.
///
/// # Errors
/// An order that cannot be obeyed.
pub fn probe() -> anyhow::Result<()> {
    let threads = Threads::two()?;
    obey(|order| {
        let Order::Local(order) = order else { anyhow::bail!("ractor is only asked and told here") };
        let other = Addressed(start(threads.at(usize::from(order.across)))?);
        Ok(Measured::of(threads.on_first(async move { drive::local(&other, order).await })?))
    })
}
