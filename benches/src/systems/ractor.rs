//! ractor_cluster: an actor in a process group, called over TCP with mutual TLS 1.3. Bodies are taken as
//! they are, without a codec. A call carries no deadline of its caller: that is what a freeze shows.

use anyhow::Context;
use ractor::{Actor, ActorProcessingErr, ActorRef, RactorErr, RpcReplyPort, call, cast, pg};
use ractor_cluster::{IncomingEncryptionMode, NodeServer, NodeServerMessage, RactorClusterMessage};
use rustls::pki_types::ServerName;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::obey;
use crate::caller::Caller;
use crate::process::{Orders, say};
use crate::tls::{NAME, Tls};

const GROUP: &str = "bench";
const COOKIE: &str = "bench";
/// The largest frame, as Rhumb's.
const LARGEST: u64 = 16 << 20;

#[derive(RactorClusterMessage)]
enum Message {
    #[rpc]
    Ask(Vec<u8>, RpcReplyPort<Vec<u8>>),
    Tell(Vec<u8>),
    #[rpc]
    Arrived(RpcReplyPort<u64>),
}

struct Echo;

impl Actor for Echo {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, me: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        pg::join(GROUP.to_owned(), vec![me.get_cell()]);
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        arrived: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Ask(body, reply) => reply.send(body)?,
            Message::Tell(_) => *arrived += 1,
            Message::Arrived(reply) => reply.send(*arrived)?,
        }
        Ok(())
    }
}

async fn node(name: &str, dir: &Path) -> anyhow::Result<(ActorRef<NodeServerMessage>, u16)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    drop(listener);
    let tls = Tls(dir.to_owned()).server("ractor")?;
    let encrypted = IncomingEncryptionMode::Tls(TlsAcceptor::from(Arc::new(tls)));
    let server = NodeServer::new(port, COOKIE.into(), name.into(), "localhost".into(), Some(encrypted), None)
        .with_listen_addr(Ipv4Addr::LOCALHOST.into())
        .with_max_inbound_frame_size(LARGEST);
    let (server, _) = Actor::spawn(None, server, ()).await?;
    Ok((server, port))
}

/// Serves.
///
/// # Errors
/// It cannot.
pub async fn serve(dir: &Path) -> anyhow::Result<()> {
    let (_server, port) = node("server", dir).await?;
    let _echo = Actor::spawn(None, Echo, ()).await?;
    say(&format!("127.0.0.1:{port}"))?;
    Orders::default().until_closed().await
}

struct Client(ActorRef<Message>);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = call!(self.0, Message::Ask, vec![7_u8; payload])?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    fn is_fault(error: &anyhow::Error) -> bool {
        error.is::<RactorErr<Message>>()
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        Ok(cast!(self.0, Message::Tell(vec![7_u8; payload]))?)
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        Ok(call!(self.0, Message::Arrived)?)
    }
}

/// Drives.
///
/// # Errors
/// It cannot connect, or does not see the actor.
pub async fn drive(dir: &Path, address: &str) -> anyhow::Result<()> {
    let (server, _) = node("driver", dir).await?;
    let tls = TlsConnector::from(Arc::new(Tls(dir.to_owned()).client("ractor")?));
    let name = ServerName::try_from(NAME)?;
    connect(&server, address, tls, name).await?;
    let echo = remote().await.context("the actor of the other process does not show up")?;
    obey(Arc::new(Client(echo))).await
}

/// The server says its address a moment before it listens.
async fn connect(
    server: &ActorRef<NodeServerMessage>,
    address: &str,
    tls: TlsConnector,
    name: ServerName<'static>,
) -> anyhow::Result<()> {
    for _ in 0..50 {
        let tried = ractor_cluster::client_connect_enc(server, address, tls.clone(), name.clone()).await;
        if tried.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    anyhow::bail!("{address} does not answer")
}

async fn remote() -> Option<ActorRef<Message>> {
    for _ in 0..500 {
        let found = pg::get_members(&GROUP.to_owned()).into_iter().find(|cell| !cell.get_id().is_local());
        if let Some(cell) = found {
            return Some(cell.into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    None
}
