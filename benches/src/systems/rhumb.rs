//! Rhumb: an actor in a node of its own process (`bench-node`, which is `rhumb serve` with five more
//! actor types), asked by a program with a client's certificate.

use std::path::Path;
use std::sync::Arc;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::{MeshAddr, Teller, Told};
use rhumb_actors::remote::Accepts;
use rhumb_core::Fault;
use tokio::sync::{mpsc, oneshot};

use super::obey;
use crate::caller::Caller;
use crate::protocol::{Arrived, Echo, Note};

/// Tells that are without an answer: half of the actor's mailbox.
const WINDOW: usize = 512;

/// What the bench's actors can be asked and told, wherever they run.
pub trait Bench: Accepts<Echo> + Accepts<Note> + Accepts<Arrived> {}
impl<P: Accepts<Echo> + Accepts<Note> + Accepts<Arrived>> Bench for P {}

struct Client<P: Bench> {
    echo: MeshAddr<P>,
    /// To the task that has the teller. None where each tell is waited for.
    teller: Option<mpsc::Sender<Order>>,
}

/// What senders that share a teller hand to the task that has it.
enum Order {
    Tell(Note),
    Settle(oneshot::Sender<Told>),
}

/// Tells for all senders, as a tonic client's stream has one task that writes for all of them.
async fn tell_for_all<P: Bench>(mut teller: Teller<P, Note>, mut orders: mpsc::Receiver<Order>) {
    let mut unsent = 0;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Tell(note) => unsent += u64::from(teller.tell(note).await.is_err()),
            Order::Settle(answer) => {
                let mut told = teller.flush().await;
                told.unlisted += std::mem::take(&mut unsent);
                // Whoever asked may have gone.
                let _ = answer.send(told);
            }
        }
    }
}

impl<P: Bench> Caller for Client<P> {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = self.echo.ask(Echo { body: vec![7_u8; payload].into() }).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    fn is_fault(error: &anyhow::Error) -> bool {
        error.is::<Fault>()
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        let note = Note { body: vec![7_u8; payload].into() };
        match &self.teller {
            Some(teller) => teller.send(Order::Tell(note)).await?,
            None => self.echo.tell(note).await?,
        }
        Ok(())
    }

    async fn settled(&self) -> u64 {
        let Some(teller) = &self.teller else { return 0 };
        let (answer, told) = oneshot::channel();
        teller.send(Order::Settle(answer)).await.expect("its task ends after this");
        let told = told.await.expect("its task ends after this");
        if let Some(first) = told.failed.first() {
            eprintln!("the first tell that failed: {}", first.fault);
        }
        told.failed.len() as u64 + told.unlisted
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.echo.ask(Arrived).await?)
    }
}

/// Drives the node of the mesh in a folder that `rhumb dev` or this bench has founded; tells with a window, or
/// waits for each.
///
/// # Errors
/// It cannot connect.
pub async fn drive<P: Bench>(dir: &Path, windowed: bool) -> anyhow::Result<()> {
    let client = Arc::new(MeshClient::new(&dir.join("client"), Directory::read(dir)?)?);
    client.connect_all().await?;
    let echo = client.mesh().actor::<P>("bench");
    let teller = windowed.then(|| {
        let (orders, waiting) = mpsc::channel(2 * WINDOW);
        tokio::spawn(tell_for_all(echo.teller().window(WINDOW), waiting));
        orders
    });
    obey(Arc::new(Client { echo, teller })).await
}
