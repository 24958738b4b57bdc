//! Customers who keep receipts of their own: they hold, confirm and release for as long as their standard
//! input is open, and ask later whether all that was answered them still stands.
//!
//! * It decides: what a receipt is worth. A line is written before a question is sent and after its answer
//!   came, so that what is not known is known as such.
//! * It never does: take a number from a node's counters, or a fault of unknown outcome for a *no*.
//! * Invariant: after a check that finds nothing broken, every line's last state is what the service says
//!   of it, so that the ledger's sums are exact.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Parser, ValueEnum};
use rhumb::client::directory::Directory;
use rhumb::client::key::KeyMaker;
use rhumb::client::{Ask, MeshClient, ask_until_known, now_ms};
use rhumb_actors::escrow::messages::{Confirm, Hold, HoldId, Refusal, Release, Settled};
use rhumb_actors::remote::Remote;
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Delivery, Fault, NodeId, PoolName};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a check goes on asking a node that does not serve yet.
const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// Questions of a check that are under way at a time.
const AT_ONCE: usize = 32;
/// Receipts that were checked before and are asked about again, about so many.
const OF_OLDER: u64 = 300;
const BETWEEN: Duration = Duration::from_millis(20);

/// Customers who keep receipts.
#[derive(Debug, Parser)]
struct Arguments {
    what: What,
    /// A node and its address, REGION/NAME=HOST:PORT. May be given more than once.
    #[arg(long = "node", required = true, value_parser = node)]
    nodes: Vec<(NodeId, SocketAddr)>,
    /// The folder with the certificate.
    #[arg(long)]
    identity: PathBuf,
    /// The ledger; it is appended to.
    #[arg(long)]
    ledger: PathBuf,
    #[arg(long, default_value = "concert")]
    pool: PoolName,
    /// Customers at a time, a node.
    #[arg(long, default_value_t = 8)]
    customers: usize,
    /// How long a hold lasts, in seconds.
    #[arg(long, default_value_t = 10_800)]
    ttl: u64,
    /// What is drawn is drawn from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A check asks about all of what was written from this line on, and about some of the receipts before.
    #[arg(long, default_value_t = 0)]
    from_line: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Hold, confirm and release until standard input closes.
    Buy,
    /// Ask about the receipts, and say what was found.
    Check,
}

fn node(text: &str) -> Result<(NodeId, SocketAddr), String> {
    let (node, address) = text.split_once('=').ok_or("expected REGION/NAME=HOST:PORT")?;
    let node = node.parse().map_err(|error| format!("{error}"))?;
    Ok((node, address.parse().map_err(|error| format!("{error}"))?))
}

/// How a receipt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// A hold is asked for, and nobody has answered yet.
    Asking,
    Held,
    Confirming,
    Sold,
    Releasing,
    Released,
    /// The service said no.
    Refused,
    /// Nothing was done.
    Unserved,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Receipt {
    key: String,
    node: NodeId,
    qty: u64,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Receipt {
    fn hold(&self) -> anyhow::Result<HoldId> {
        let id = self.hold.as_deref().ok_or_else(|| anyhow!("the receipt {} names no hold", self.key))?;
        Ok(id.parse()?)
    }
}

struct Shop {
    client: MeshClient,
    ledger: Mutex<File>,
    pool: PoolName,
    ttl: Duration,
}

impl Shop {
    fn write(&self, receipt: &Receipt) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(receipt)?;
        line.push(b'\n');
        Ok(self.ledger.lock().map_err(|_| anyhow!("a customer panicked"))?.write_all(&line)?)
    }

    fn hold(&self, receipt: &Receipt) -> anyhow::Result<Hold> {
        let (pool, key) = (self.pool.clone(), receipt.key.parse()?);
        Ok(Hold { pool, qty: receipt.qty, ttl: Some(self.ttl), key, hops: 0, customer: None })
    }

    /// One story, as far as it comes. Whether the node served.
    async fn story(&self, mut receipt: Receipt, rng: &mut Rng) -> anyhow::Result<bool> {
        self.write(&receipt)?;
        let held = self.client.ask(&receipt.node, &self.hold(&receipt)?, PATIENCE).await;
        match held {
            Ok(Ok(held)) => {
                (receipt.state, receipt.hold) = (State::Held, Some(held.hold.to_string()));
                self.write(&receipt)?;
            }
            Ok(Err(refusal)) => {
                (receipt.state, receipt.why) = (State::Refused, Some(refusal.code().into()));
                self.write(&receipt)?;
                return Ok(true);
            }
            Err(fault) => return self.unserved(receipt, State::Unserved, &fault),
        }
        let hold = receipt.hold()?;
        match rng.below(5) {
            0 => Ok(true),
            1 => self.settle(receipt, Release { hold }, State::Releasing, State::Released).await,
            _ => self.settle(receipt, Confirm { hold }, State::Confirming, State::Sold).await,
        }
    }

    async fn settle<M>(
        &self,
        mut receipt: Receipt,
        message: M,
        before: State,
        after: State,
    ) -> anyhow::Result<bool>
    where
        M: Remote<Reply = Result<Settled, Refusal>> + Sync,
    {
        let held = receipt.state;
        receipt.state = before;
        self.write(&receipt)?;
        match self.client.ask(&receipt.node, &message, PATIENCE).await {
            Ok(Ok(_)) => receipt.state = after,
            Ok(Err(refusal)) => (receipt.state, receipt.why) = (held, Some(refusal.to_string())),
            Err(fault) => return self.unserved(receipt, held, &fault),
        }
        self.write(&receipt)?;
        Ok(true)
    }

    /// Nothing is known unless the question was surely not sent.
    fn unserved(&self, mut receipt: Receipt, stands: State, fault: &Fault) -> anyhow::Result<bool> {
        if fault.delivery() == Delivery::NotSent {
            receipt.state = stands;
            self.write(&receipt)?;
        }
        Ok(false)
    }

    /// What the service says of a receipt now; what is broken, in words.
    async fn check(&self, receipt: &mut Receipt) -> anyhow::Result<Option<String>> {
        let was = receipt.state;
        let said = match was {
            State::Refused | State::Unserved => return Ok(None),
            State::Asking | State::Held => {
                let answer = self.insist(&receipt.node, &self.hold(receipt)?).await?;
                if let (State::Asking, Err(refusal)) = (was, &answer) {
                    (receipt.state, receipt.why) = (State::Refused, Some(refusal.code().into()));
                    return Ok(None);
                }
                answer.map(|held| {
                    let id = held.hold.to_string();
                    receipt.state = State::Held;
                    let known = receipt.hold.replace(id.clone());
                    known
                        .filter(|known| *known != id)
                        .map(|known| format!("it is another hold now: {id}, not {known}"))
                })
            }
            State::Confirming | State::Sold => {
                receipt.state = State::Sold;
                self.insist(&receipt.node, &Confirm { hold: receipt.hold()? }).await?.map(|_| None)
            }
            State::Releasing | State::Released => {
                receipt.state = State::Released;
                self.insist(&receipt.node, &Release { hold: receipt.hold()? }).await?.map(|_| None)
            }
        };
        let wrong = said.unwrap_or_else(|refusal| Some(refusal.to_string()));
        Ok(wrong
            .map(|why| format!("{} {was:?} {}: {why}", receipt.key, receipt.hold.as_deref().unwrap_or(""))))
    }

    /// Asks until there is an answer other than that the node has just started.
    async fn insist<M, T>(&self, node: &NodeId, message: &M) -> anyhow::Result<Result<T, Refusal>>
    where
        M: Remote<Reply = Result<T, Refusal>> + Sync,
    {
        let until = Instant::now() + CHECK_WITHIN;
        loop {
            let answer = ask_until_known(&self.client, node, message, PATIENCE).await;
            match answer {
                Ok(Err(Refusal::Unproven)) | Err(_) if Instant::now() < until => {
                    tokio::time::sleep(BETWEEN).await
                }
                answer => return answer.map_err(|fault| anyhow!("{node} does not answer: {fault}")),
            }
        }
    }
}

async fn buy(shop: Arc<Shop>, arguments: &Arguments) -> anyhow::Result<()> {
    let seed = Seed::new(arguments.seed);
    for (node, _) in &arguments.nodes {
        for customer in 0..arguments.customers {
            let seed = seed.child(format!("{node}/{customer}"));
            let (shop, node) = (Arc::clone(&shop), node.clone());
            tokio::spawn(async move {
                let (mut keys, mut rng) = (KeyMaker::new(&seed), seed.child("story").rng());
                loop {
                    let key = keys.make(node.clone(), now_ms()).to_string();
                    let qty = 1 + rng.below(3);
                    let receipt =
                        Receipt { key, node: node.clone(), qty, state: State::Asking, hold: None, why: None };
                    match shop.story(receipt, &mut rng).await {
                        Ok(true) => {}
                        Ok(false) => tokio::time::sleep(BETWEEN).await,
                        Err(error) => return eprintln!("a customer ends: {error:#}"),
                    }
                }
            });
        }
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// The last word on each key, and the line in which it stands.
fn ledger(arguments: &Arguments) -> anyhow::Result<BTreeMap<String, (usize, Receipt)>> {
    let text = fs::read_to_string(&arguments.ledger).unwrap_or_default();
    let mut receipts = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        // The last line of customers who were stopped may be cut off; its question was not sent then.
        let Ok(receipt) = serde_json::from_str::<Receipt>(line) else { continue };
        receipts.insert(receipt.key.clone(), (number, receipt));
    }
    Ok(receipts)
}

async fn check(shop: Arc<Shop>, arguments: &Arguments) -> anyhow::Result<()> {
    let mut receipts = ledger(arguments)?;
    let mut rng = Seed::new(arguments.seed).child("check").rng();
    let every = (receipts.len() as u64 / OF_OLDER).max(1);
    let due: Vec<Receipt> = receipts
        .values()
        .filter(|(line, _)| *line >= arguments.from_line || rng.below(every) == 0)
        .map(|(_, receipt)| receipt.clone())
        .collect();
    let (due, next) = (Arc::new(due), Arc::new(AtomicUsize::new(0)));
    let checking = (0..AT_ONCE).map(|_| {
        let (shop, due, next) = (Arc::clone(&shop), Arc::clone(&due), Arc::clone(&next));
        tokio::spawn(async move {
            let mut found = Vec::new();
            while let Some(receipt) = due.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut receipt = receipt.clone();
                let wrong = shop.check(&mut receipt).await?;
                shop.write(&receipt)?;
                found.push((receipt, wrong));
            }
            anyhow::Ok(found)
        })
    });
    let mut broken = Vec::new();
    for checked in checking.collect::<Vec<_>>() {
        for (receipt, wrong) in checked.await?? {
            broken.extend(wrong);
            receipts.insert(receipt.key.clone(), (0, receipt));
        }
    }
    let units = |state: State| -> u64 {
        receipts.values().filter(|(_, receipt)| receipt.state == state).map(|(_, receipt)| receipt.qty).sum()
    };
    println!(
        "{}",
        serde_json::json!({
            "receipts": receipts.len(), "checked": due.len(), "broken": broken,
            "sold": units(State::Sold), "held": units(State::Held), "released": units(State::Released),
        })
    );
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ledger = File::options().create(true).append(true).open(&arguments.ledger).context("the ledger")?;
    let client = MeshClient::new(&arguments.identity, Directory::of(arguments.nodes.clone()))?;
    let (pool, ttl) = (arguments.pool.clone(), Duration::from_secs(arguments.ttl));
    let shop = Arc::new(Shop { client, ledger: Mutex::new(ledger), pool, ttl });
    match arguments.what {
        What::Buy => buy(shop, &arguments).await?,
        What::Check => check(shop, &arguments).await?,
    }
    // What is under way is given up: its receipts say that it is not known.
    std::process::exit(0)
}
