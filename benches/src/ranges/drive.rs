//! What a client does when it is told to, whatever it is a client of.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::time::sleep;

use super::{FILLED, KEYS, Order, VALUE, Verb, gap, key, scattered, value};
use crate::caller::{Caller, closed_loop_over};
use crate::process::{Orders, say};
use crate::sample::{Load, Verb as Ask};

/// How long something is waited for that will be there in a moment.
const SOON: Duration = Duration::from_secs(30);

/// A client of some keys and values: of one keyspace, on one connection to one node.
pub trait Client: Send + Sync + 'static {
    /// Writes a key; ends when it would survive the loss of a node.
    fn put(&self, key: &[u8], value: &[u8]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Reads a key; how many bytes its value has. A read at a follower that is answered elsewhere is an error.
    fn get(&self, key: &[u8], verb: Verb) -> impl Future<Output = anyhow::Result<usize>> + Send;

    /// Writes these keys, each once.
    fn fill(&self, keys: u64, bytes: usize) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A client that does one thing again and again.
struct Doer<C> {
    client: Arc<C>,
    verb: Verb,
    next: AtomicU64,
    step: u64,
}

impl<C: Client> Caller for Doer<C> {
    async fn ask(&self, payload: usize) -> anyhow::Result<()> {
        let n = self.next.fetch_add(self.step, Relaxed);
        match self.verb {
            Verb::Put => self.client.put(&key(scattered(n, KEYS)), &value(n, payload)).await,
            verb => {
                let bytes = self.client.get(&key(scattered(n, FILLED)), verb).await?;
                anyhow::ensure!(bytes == payload, "a value of {bytes} bytes");
                Ok(())
            }
        }
    }
}

/// Waits until what was filled is there to be read in this way.
async fn filled<C: Client>(client: &C, verb: Verb) -> anyhow::Result<()> {
    let until = Instant::now() + SOON;
    loop {
        match client.get(&key(FILLED - 1), verb).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => {
                return Err(error).context("what was filled is not there");
            }
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Asks until the node that is asked reads at home, and answers strong reads and writes.
///
/// # Errors
/// It does not.
pub async fn until_served<C: Client>(client: &C) -> anyhow::Result<()> {
    let until = Instant::now() + 2 * SOON;
    loop {
        let served = async {
            client.get(&key(0), Verb::Follower).await?;
            client.get(&key(0), Verb::Strong).await?;
            client.put(b"served", b"yes").await
        };
        match served.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error).context("it does not serve"),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Obeys orders. Clients are those of one node or keyspace after the other, connection by connection: the first of them are
/// one of each.
///
/// # Errors
/// A client that cannot do what it is told, in a way that is no sample.
pub async fn obey<C: Client>(clients: Vec<Arc<C>>) -> anyhow::Result<()> {
    let first = clients.first().context("no client")?;
    let mut orders = Orders::default();
    let begun = AtomicU64::new(0);
    say(&"ready")?;
    while let Some(order) = orders.next::<Order>().await? {
        match order {
            Order::Fill { keys, bytes } => {
                first.fill(keys, bytes).await?;
                say(&"filled")?;
            }
            Order::Load { verb, concurrency, millis } => {
                if verb != Verb::Put {
                    filled(&**first, verb).await?;
                }
                let load = Load { verb: Ask::Ask, concurrency, payload: VALUE, millis };
                let step = clients.len() as u64;
                // No two clients write one key at a time.
                let from = begun.fetch_add(1_000_003 * step, Relaxed);
                let doers = clients.iter().zip(from..).map(|(client, n)| {
                    let client = Arc::clone(client);
                    Arc::new(Doer { client, verb, next: AtomicU64::new(n), step })
                });
                say(&tokio::spawn(closed_loop_over(doers.collect(), load)).await?)?;
            }
            Order::Probe => gap::probe(Arc::clone(first), &mut orders).await?,
            Order::Faulted => anyhow::bail!("a fault that nobody waits for"),
        }
    }
    Ok(())
}
