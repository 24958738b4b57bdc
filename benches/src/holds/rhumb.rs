//! Rhumb: holds at the escrow of a real node, asked for by a program with a client's certificate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rhumb::client::directory::Directory;
use rhumb::client::key::KeyMaker;
use rhumb::client::{Ask, MeshClient, now_ms};
use rhumb::dev::DevMesh;
use rhumb::escrow::{CreatePool, Hold};
use rhumb::seed::Seed;
use rhumb_core::{NodeId, PoolName};

use super::{HoldLoad, SUPPLY};
use crate::caller::{Caller, closed_loop_over};
use crate::process::{Orders, say};
use crate::sample::{Load, Verb};

/// The pool.
const POOL: &str = "seats";
/// As the program's own `rhumb hold` waits.
const DEADLINE: Duration = Duration::from_secs(5);

struct Buyer {
    client: MeshClient,
    node: NodeId,
    pool: PoolName,
    keys: Mutex<KeyMaker>,
}

impl Caller for Buyer {
    async fn ask(&self, _: usize) -> anyhow::Result<()> {
        let key = self.keys.lock().make(self.node.clone(), now_ms());
        let hold = Hold { pool: self.pool.clone(), qty: 1, ttl: None, key, hops: 0, customer: None };
        let held = self.client.ask(&self.node, &hold, DEADLINE).await?;
        let held = held.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        anyhow::ensure!(held.qty == 1, "{} units", held.qty);
        Ok(())
    }
}

/// Makes the pool in a mesh.
///
/// # Errors
/// It cannot be made.
pub async fn prepare(mesh: &DevMesh) -> anyhow::Result<()> {
    let client = MeshClient::new(mesh.operator_identity(), Directory::read(mesh.data())?)?;
    let (node, _) = client.directory().nodes().first().context("no node")?.clone();
    let create = CreatePool {
        name: POOL.parse()?,
        class: "inventory".parse()?,
        supply: SUPPLY,
        weights: Default::default(),
        debt: 0,
        reserve: None,
        per_customer: None,
        durability: Default::default(),
    };
    let created = client.ask(&node, &create, Duration::from_secs(10)).await?;
    created.map_err(|refusal| anyhow::anyhow!("no pool: {refusal:?}"))?;
    client.close().await;
    Ok(())
}

async fn buyer(dir: &Path) -> anyhow::Result<Arc<Buyer>> {
    let client = MeshClient::new(&dir.join("client"), Directory::read(dir)?)?;
    client.connect_all().await?;
    let (node, _) = client.directory().nodes().first().context("no node")?.clone();
    let keys = Mutex::new(KeyMaker::new(&Seed::from_entropy()));
    Ok(Arc::new(Buyer { client, node, pool: POOL.parse()?, keys }))
}

/// Drives the node of the mesh in a folder.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path) -> anyhow::Result<()> {
    let mut buyers = vec![buyer(dir).await?];
    say(&"ready")?;
    let mut orders = Orders::default();
    while let Some(HoldLoad { concurrency, each, millis }) = orders.next::<HoldLoad>().await? {
        let connections = if each { concurrency } else { 1 };
        while buyers.len() < connections {
            buyers.push(buyer(dir).await?);
        }
        let load = Load { verb: Verb::Ask, concurrency, payload: 0, millis };
        let asking = buyers[..connections].to_vec();
        say(&tokio::spawn(closed_loop_over(asking, load)).await?)?;
    }
    Ok(())
}
