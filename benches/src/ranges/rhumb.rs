//! A client of Rhumb's keyspaces: a program with a client's certificate, over QUIC, with the tokens that a client carries.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;
use rhumb::client::kv::{self, Kv};
use rhumb_actors::ranges::messages::Needs;
use rhumb_core::{Guarantee, NodeId, Region};

use super::drive::{Client, obey};
use super::{CONNECTIONS, Verb, key, value};

/// How old a follower's answer may be.
const BOUND: Duration = Duration::from_secs(5);
/// Batches under way while keys are filled.
const FILLING: usize = 4;
/// Keys and values of one batch: a frame has 1 MiB.
const BATCH_BYTES: usize = 200 << 10;
/// How often a batch is tried.
const TRIES: usize = 10;
/// Keys of one batch.
const BATCH_KEYS: usize = 200;

/// A keyspace, asked for at one node, on a connection of its own.
pub struct Space {
    kv: Kv<'static>,
    region: Region,
}

impl Client for Space {
    async fn put(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.kv.put(key, value).await?;
        Ok(())
    }

    async fn get(&self, key: &[u8], verb: Verb) -> anyhow::Result<usize> {
        let follower = verb == Verb::Follower;
        let needs = if follower { Needs::Bounded(BOUND) } else { Needs::Strong };
        let answer = self.kv.get(key, needs).await?;
        if follower {
            let home = answer.region == self.region && !answer.fallback;
            anyhow::ensure!(home, "it was read in {}, not in {}", answer.region, self.region);
        } else {
            anyhow::ensure!(answer.level == Guarantee::StrictSerializable, "it was {:?}", answer.level);
        }
        Ok(answer.rows.first().context("the key is not there")?.value.len())
    }

    async fn fill(&self, keys: u64, bytes: usize) -> anyhow::Result<()> {
        let many = (BATCH_BYTES / (bytes + 16)).clamp(1, BATCH_KEYS) as u64;
        let batch = |first: u64| async move {
            let rows = first..(first + many).min(keys);
            let ops: Vec<_> = rows.map(|n| kv::put(&key(n), &value(n, bytes))).collect();
            // Written twice these are as they would be once, and nobody reads them yet.
            for _ in 1..TRIES {
                match self.kv.write(ops.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(error) => eprintln!("keys from {first} on are written again: {error}"),
                }
            }
            self.kv.write(ops).await?;
            anyhow::Ok(())
        };
        let batches = stream::iter((0..keys).step_by(many as usize)).map(batch);
        batches.buffer_unordered(FILLING).try_collect::<()>().await?;
        // Whoever reads next has not seen these.
        self.kv.goes_on(Vec::new());
        Ok(())
    }
}

/// A keyspace and the node that is asked for it: `SPACE@REGION/NODE`.
fn target(text: &str) -> anyhow::Result<(&str, NodeId)> {
    let (space, node) =
        text.split_once('@').with_context(|| format!("{text:?}: expected SPACE@REGION/NODE"))?;
    Ok((space, node.parse()?))
}

/// Drives the nodes of a mesh in a folder: those of the targets, separated by commas. Other nodes are not asked.
///
/// # Errors
/// It cannot connect.
pub async fn drive(dir: &Path, targets: &str) -> anyhow::Result<()> {
    obey(spaces(dir, targets).await?).await
}

/// Clients of these targets, each target once for every connection.
///
/// # Errors
/// They cannot connect.
pub async fn spaces(dir: &Path, targets: &str) -> anyhow::Result<Vec<Arc<Space>>> {
    let targets: Vec<_> = targets.split(',').map(target).collect::<anyhow::Result<_>>()?;
    let known = Directory::read(dir)?;
    let mut nodes: Vec<_> =
        known.nodes().iter().filter(|(id, _)| targets.iter().any(|(_, node)| node == id)).cloned().collect();
    nodes.sort();
    let mut spaces = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = MeshClient::new(&dir.join("client"), Directory::of(nodes.clone()))?;
        client.connect_all().await?;
        // It lives as long as this process.
        let client: &'static MeshClient = Box::leak(Box::new(client));
        for (space, node) in &targets {
            let region = node.region.clone();
            let kv = Kv::open(client, space, Some(&region)).await?;
            spaces.push(Arc::new(Space { kv, region }));
        }
    }
    Ok(spaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_names_a_keyspace_and_a_node() {
        let (space, node) = target("one@us-east/n1").expect("a target");
        assert_eq!((space, node.to_string()), ("one", "us-east/n1".to_owned()));
        assert!(target("one").is_err() && target("one@us-east").is_err());
    }
}
