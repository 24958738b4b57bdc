//! actix-telepathy: an actix actor on each side, over plain TCP; it knows no TLS, and does not turn
//! Nagle's algorithm off. It has tells only, so that an ask is two of them: the question with a number, and the answer with the same.

// What its macros write names everything of `log`.
#![allow(unused_imports)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix::prelude::*;
use actix_broker::BrokerSubscribe;
use actix_telepathy::prelude::*;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{free_port, obey};
use crate::caller::Caller;
use crate::octets::Octets;
use crate::process::{Orders, say};

#[derive(RemoteMessage, Serialize, Deserialize)]
struct Ask {
    number: u64,
    body: Octets,
}

#[derive(RemoteMessage, Serialize, Deserialize)]
struct Answer {
    number: u64,
    body: Octets,
}

#[derive(RemoteMessage, Serialize, Deserialize)]
struct Note {
    body: Octets,
}

#[derive(RemoteMessage, Serialize, Deserialize)]
struct Arrived {
    number: u64,
}

/// The actor of the process that serves.
#[derive(RemoteActor, Default)]
#[remote_messages(Ask, Note, Arrived)]
struct Echo {
    arrived: u64,
    driver: Option<RemoteAddr>,
}

impl Actor for Echo {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.register(ctx.address().recipient());
        self.subscribe_system_async::<ClusterLog>(ctx);
    }
}

impl Echo {
    fn answer(&self, number: u64, body: Octets) {
        if let Some(driver) = &self.driver {
            driver.do_send(Answer { number, body });
        }
    }
}

impl Handler<Ask> for Echo {
    type Result = ();

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) {
        self.answer(ask.number, ask.body);
    }
}

impl Handler<Note> for Echo {
    type Result = ();

    fn handle(&mut self, _: Note, _: &mut Self::Context) {
        self.arrived += 1;
    }
}

impl Handler<Arrived> for Echo {
    type Result = ();

    fn handle(&mut self, arrived: Arrived, _: &mut Self::Context) {
        self.answer(arrived.number, Octets(self.arrived.to_be_bytes().to_vec()));
    }
}

impl Handler<ClusterLog> for Echo {
    type Result = ();

    fn handle(&mut self, log: ClusterLog, _: &mut Self::Context) {
        if let ClusterLog::NewMember(node) = log {
            self.driver = Some(node.get_remote_addr(Answers::ACTOR_ID.to_owned()));
        }
    }
}

impl ClusterListener for Echo {}

/// The asks that wait for their answer.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>>;

/// The actor of the process that drives.
#[derive(RemoteActor)]
#[remote_messages(Answer)]
struct Answers {
    waiting: Waiting,
    joined: mpsc::Sender<RemoteAddr>,
}

impl Actor for Answers {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.register(ctx.address().recipient());
        self.subscribe_system_async::<ClusterLog>(ctx);
    }
}

impl Handler<Answer> for Answers {
    type Result = ();

    fn handle(&mut self, answer: Answer, _: &mut Self::Context) {
        let asked = self.waiting.lock().expect("nobody panics with it").remove(&answer.number);
        if let Some(asked) = asked {
            // Whoever asked may have given up.
            asked.send(answer.body.0).ok();
        }
    }
}

impl Handler<ClusterLog> for Answers {
    type Result = ();

    fn handle(&mut self, log: ClusterLog, _: &mut Self::Context) {
        if let ClusterLog::NewMember(node) = log {
            self.joined.try_send(node.get_remote_addr(Echo::ACTOR_ID.to_owned())).ok();
        }
    }
}

impl ClusterListener for Answers {}

/// Serves.
///
/// # Errors
/// It cannot.
pub async fn serve(_: &Path) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let _echo = Echo::default().start();
    let _cluster = Cluster::new(address, Vec::new());
    // Who comes before it listens is sent away for a second.
    while TcpListener::bind(address).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    say(&address.to_string())?;
    Orders::default().until_closed().await
}

struct Client {
    echo: RemoteAddr,
    waiting: Waiting,
    next: AtomicU64,
}

impl Client {
    fn number(&self) -> (u64, oneshot::Receiver<Vec<u8>>) {
        let number = self.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().expect("nobody panics with it").insert(number, answer);
        (number, answered)
    }
}

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let (number, answered) = self.number();
        self.echo.do_send(Ask { number, body: Octets(vec![7_u8; payload]) });
        let answer = answered.await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        self.echo.do_send(Note { body: Octets(vec![7_u8; payload]) });
        Ok(())
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        let (number, answered) = self.number();
        self.echo.do_send(Arrived { number });
        let answer = answered.await?;
        Ok(u64::from_be_bytes(answer.as_slice().try_into()?))
    }
}

/// Drives.
///
/// # Errors
/// It cannot connect.
pub async fn drive(_: &Path, address: &str) -> anyhow::Result<()> {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let waiting = Waiting::default();
    let (joined, mut joins) = mpsc::channel(1);
    let _answers = Answers { waiting: Arc::clone(&waiting), joined }.start();
    let _cluster = Cluster::new(own, vec![address.parse()?]);
    let echo = joins.recv().await.context("no member joins")?;
    obey(Arc::new(Client { echo, waiting, next: AtomicU64::new(0) })).await
}
