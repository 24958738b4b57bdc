//! coerce: two workers of a cluster, over plain TCP; it knows no TLS, and does not turn Nagle's
//! algorithm off. Bodies are taken as they are. A
//! `send` waits for its answer without an end: that is what a freeze shows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use coerce::actor::context::ActorContext;
use coerce::actor::message::{Handler, Message, MessageUnwrapErr, MessageWrapErr};
use coerce::actor::scheduler::ActorType;
use coerce::actor::system::ActorSystem;
use coerce::actor::{Actor, ActorRef, ActorRefErr, IntoActorId};
use coerce::remote::system::RemoteActorSystem;

use super::{free_port, obey};
use crate::caller::Caller;
use crate::process::{Orders, say};

const NAME: &str = "bench";

struct Echo {
    arrived: u64,
}

impl Actor for Echo {}

struct Ask(Vec<u8>);

impl Message for Ask {
    type Result = Vec<u8>;

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self(bytes))
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<Vec<u8>, MessageUnwrapErr> {
        Ok(bytes)
    }

    fn write_remote_result(answer: Vec<u8>) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(answer)
    }
}

struct Note(Vec<u8>);

impl Message for Note {
    type Result = ();

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(self.0.clone())
    }

    fn from_bytes(bytes: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self(bytes))
    }

    fn read_remote_result(_: Vec<u8>) -> Result<(), MessageUnwrapErr> {
        Ok(())
    }

    fn write_remote_result((): ()) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(Vec::new())
    }
}

struct Arrived;

impl Message for Arrived {
    type Result = u64;

    fn as_bytes(&self) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(Vec::new())
    }

    fn from_bytes(_: Vec<u8>) -> Result<Self, MessageUnwrapErr> {
        Ok(Self)
    }

    fn read_remote_result(bytes: Vec<u8>) -> Result<u64, MessageUnwrapErr> {
        Ok(u64::from_be_bytes(bytes.try_into().map_err(|_| MessageUnwrapErr::DeserializationErr)?))
    }

    fn write_remote_result(arrived: u64) -> Result<Vec<u8>, MessageWrapErr> {
        Ok(arrived.to_be_bytes().to_vec())
    }
}

#[async_trait]
impl Handler<Ask> for Echo {
    async fn handle(&mut self, ask: Ask, _: &mut ActorContext) -> Vec<u8> {
        ask.0
    }
}

#[async_trait]
impl Handler<Note> for Echo {
    async fn handle(&mut self, _: Note, _: &mut ActorContext) {
        self.arrived += 1;
    }
}

#[async_trait]
impl Handler<Arrived> for Echo {
    async fn handle(&mut self, _: Arrived, _: &mut ActorContext) -> u64 {
        self.arrived
    }
}

async fn node(id: u64) -> RemoteActorSystem {
    RemoteActorSystem::builder()
        .with_tag(format!("node-{id}"))
        .with_id(id)
        .with_actor_system(ActorSystem::new())
        .with_handlers(|handlers| {
            handlers
                .with_handler::<Echo, Ask>("ask")
                .with_handler::<Echo, Note>("note")
                .with_handler::<Echo, Arrived>("arrived")
        })
        .build()
        .await
}

/// Serves.
///
/// # Errors
/// It cannot.
pub async fn serve(_: &Path) -> anyhow::Result<()> {
    let remote = node(1).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let _server = remote.clone().cluster_worker().listen_addr(address).start().await;
    let system = remote.actor_system().clone();
    let _echo = system
        .new_actor(NAME, Echo { arrived: 0 }, ActorType::Tracked)
        .await
        .map_err(|error| anyhow::anyhow!("the actor does not start: {error}"))?;
    say(&address.to_string())?;
    Orders::default().until_closed().await
}

struct Client(ActorRef<Echo>);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = self.0.send(Ask(vec![7_u8; payload])).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    fn is_fault(error: &anyhow::Error) -> bool {
        error.is::<ActorRefErr>()
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        Ok(self.0.notify(Note(vec![7_u8; payload])).await?)
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.0.send(Arrived).await?)
    }
}

/// Drives.
///
/// # Errors
/// It cannot connect, or does not find the actor.
pub async fn drive(_: &Path, address: &str) -> anyhow::Result<()> {
    let remote = node(2).await;
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let worker = remote.clone().cluster_worker().listen_addr(own).with_seed_addr(address);
    let _server = worker.start().await;
    let echo = found(&remote).await.context("the actor of the other process is not found")?;
    obey(Arc::new(Client(echo))).await
}

async fn found(remote: &RemoteActorSystem) -> Option<ActorRef<Echo>> {
    for _ in 0..50 {
        let echo = remote.actor_ref::<Echo>(NAME.into_actor_id()).await;
        if let Some(echo) = echo.filter(ActorRef::is_remote) {
            return Some(echo);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}
