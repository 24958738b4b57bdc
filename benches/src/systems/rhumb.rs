//! Rhumb: an actor in a node of its own process (`bench-node`, which is `rhumb serve` with one more
//! actor type), asked by a program with a client's certificate.

use std::path::Path;
use std::sync::Arc;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::MeshAddr;

use super::obey;
use crate::caller::Caller;
use crate::protocol::{Arrived, Echo, Echoes, Note};

struct Client(MeshAddr<Echoes>);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = self.0.ask(Echo { body: vec![7_u8; payload].into() }).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
    }

    async fn tell(&self, payload: usize) -> anyhow::Result<()> {
        Ok(self.0.tell(Note { body: vec![7_u8; payload].into() }).await?)
    }

    async fn arrived(&self) -> anyhow::Result<u64> {
        Ok(self.0.ask(Arrived).await?)
    }
}

/// Drives the node of the mesh in a folder that `rhumb dev` or this bench has founded.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path) -> anyhow::Result<()> {
    let client = Arc::new(MeshClient::new(&dir.join("client"), Directory::read(dir)?)?);
    client.connect_all().await?;
    let echo = client.mesh().actor::<Echoes>("bench");
    obey(Arc::new(Client(echo))).await
}
