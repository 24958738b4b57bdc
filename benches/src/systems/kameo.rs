//! kameo's remote actors, over libp2p's QUIC. Its own identities stand for mutual TLS.
//!
//! Every message has a stream of its own, and what is over a limit of streams is lost without a word; so
//! both limits, libp2p's and kameo's, are far above what this bench sends.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use kameo::actor::{ActorRef, RemoteActorRef, Spawn};
use kameo::error::{Infallible, RemoteSendError};
use kameo::mailbox;
use kameo::message::{Context, Message};
use kameo::remote::{self, messaging};
use kameo::{Actor, RemoteActor, remote_message};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder};
use serde::{Deserialize, Serialize};

use super::obey;
use crate::caller::Caller;
use crate::octets::Octets;
use crate::process::{Orders, say};

const NAME: &str = "bench";
const STREAMS: u32 = 1_000_000;
/// The largest request and answer, as Rhumb's.
const LARGEST: u64 = 16 << 20;
const FOR_EVER: Duration = Duration::from_secs(3_600);

#[derive(RemoteActor)]
struct Echo {
    arrived: u64,
}

impl Actor for Echo {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(state)
    }
}

#[derive(Serialize, Deserialize)]
struct Ask(Octets);

#[derive(Serialize, Deserialize, kameo::Reply)]
struct Answer(Octets);

#[remote_message("ask")]
impl Message<Ask> for Echo {
    type Reply = Answer;

    async fn handle(&mut self, ask: Ask, _: &mut Context<Self, Answer>) -> Answer {
        Answer(ask.0)
    }
}

#[derive(Serialize, Deserialize)]
struct Note(Octets);

#[remote_message("note")]
impl Message<Note> for Echo {
    type Reply = ();

    async fn handle(&mut self, _: Note, _: &mut Context<Self, ()>) {
        self.arrived += 1;
    }
}

#[derive(Serialize, Deserialize)]
struct Arrived;

#[remote_message("arrived")]
impl Message<Arrived> for Echo {
    type Reply = u64;

    async fn handle(&mut self, _: Arrived, _: &mut Context<Self, u64>) -> u64 {
        self.arrived
    }
}

/// A swarm that listens, and where.
async fn listening() -> anyhow::Result<(Swarm<remote::Behaviour>, Multiaddr)> {
    let config = messaging::Config::default()
        .with_max_concurrent_streams(STREAMS as usize)
        .with_request_size_maximum(LARGEST)
        .with_response_size_maximum(LARGEST);
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_quic_config(|mut quic| {
            quic.max_concurrent_stream_limit = STREAMS;
            quic
        })
        .with_behaviour(|key| remote::Behaviour::new(key.public().to_peer_id(), config))?
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(FOR_EVER))
        .build();
    swarm.behaviour().try_init_global()?;
    swarm.listen_on("/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    };
    Ok((swarm, address))
}

fn keep_going(mut swarm: Swarm<remote::Behaviour>) {
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
}

/// Serves.
///
/// # Errors
/// It cannot.
pub async fn serve(_: &Path) -> anyhow::Result<()> {
    let (swarm, address) = listening().await?;
    keep_going(swarm);
    let echo = Echo::spawn_with_mailbox(Echo { arrived: 0 }, mailbox::unbounded());
    echo.register(NAME).await?;
    say(&address.to_string())?;
    Orders::default().until_closed().await
}

struct Client(RemoteActorRef<Echo>);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let ask = Ask(Octets(vec![7_u8; payload]));
        let Answer(Octets(answer)) = self.0.ask(&ask).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    fn is_fault(error: &anyhow::Error) -> bool {
        error.is::<RemoteSendError<Infallible>>()
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        Ok(self.0.tell(&Note(Octets(vec![7_u8; payload]))).send()?)
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.0.ask(&Arrived).await?)
    }
}

/// Drives.
///
/// # Errors
/// It cannot connect, or does not find the actor.
pub async fn drive(_: &Path, address: &str) -> anyhow::Result<()> {
    let (mut swarm, _) = listening().await?;
    let address: Multiaddr = address.parse()?;
    swarm.dial(address.clone())?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                swarm.add_peer_address(peer_id, address);
                break;
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => anyhow::bail!("{error}"),
            _ => {}
        }
    }
    keep_going(swarm);
    let echo = found().await.context("the actor of the other process is not found")?;
    obey(Arc::new(Client(echo))).await
}

async fn found() -> Option<RemoteActorRef<Echo>> {
    for _ in 0..500 {
        if let Ok(Some(echo)) = RemoteActorRef::<Echo>::lookup(NAME).await {
            return Some(echo);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}
