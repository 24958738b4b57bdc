//! Rhumb: an actor in a node of its own process (`bench-node`, which is `rhumb serve` with one more
//! actor type), asked by a program with a client's certificate.

use std::path::Path;
use std::sync::Arc;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::{MeshAddr, Teller};
use tokio::sync::Mutex;

use super::obey;
use crate::caller::Caller;
use crate::protocol::{Arrived, Echo, Echoes, Note};

/// Tells that are without an answer: half of the actor's mailbox.
const WINDOW: usize = 512;

struct Client {
    echo: MeshAddr<Echoes>,
    /// None where each tell is waited for.
    teller: Option<Mutex<Teller<Echoes, Note>>>,
}

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = self.echo.ask(Echo { body: vec![7_u8; payload].into() }).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        let note = Note { body: vec![7_u8; payload].into() };
        match &self.teller {
            Some(teller) => teller.lock().await.tell(note).await.map(drop)?,
            None => self.echo.tell(note).await?,
        }
        Ok(())
    }

    async fn settled(&self) -> u64 {
        let Some(teller) = &self.teller else { return 0 };
        let told = teller.lock().await.flush().await;
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
pub async fn drive(dir: &Path, windowed: bool) -> anyhow::Result<()> {
    let client = Arc::new(MeshClient::new(&dir.join("client"), Directory::read(dir)?)?);
    client.connect_all().await?;
    let echo = client.mesh().actor::<Echoes>("bench");
    let teller = windowed.then(|| Mutex::new(echo.teller().window(WINDOW)));
    obey(Arc::new(Client { echo, teller })).await
}
