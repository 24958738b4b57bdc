//! Rhumb: an actor in a node of its own process (`bench-node`, which is `rhumb serve` with one more
//! actor type), asked by a program with a client's certificate.

use std::path::Path;
use std::sync::Arc;

use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::mesh::MeshAddr;

use super::obey;
use crate::caller::Caller;
use crate::protocol::{Echo, Echoes};

struct Client(MeshAddr<Echoes>);

impl Caller for Client {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let answer = self.0.ask(Echo { body: vec![7_u8; payload].into() }).await?;
        anyhow::ensure!(answer.len() == payload, "an answer of {} bytes", answer.len());
        Ok(())
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
