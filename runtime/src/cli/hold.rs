//! `rhumb hold`, `confirm`, `release`.

use std::slice;
use std::time::Duration;

use clap::Args;
use rhumb_actors::escrow::messages::{self, CustomerTag, HoldId, Key, Settled, ShowPool};
use rhumb_actors::remote::Remote;
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::rng::Seed;
use rhumb_core::{Delivery, NodeId, PoolName, Region};
use serde::Serialize;

use super::args::{number, ttl};
use super::connect::{Connect, ask, nodes_from};
use super::output::{Done, Failure, Output};
use crate::client::MeshClient;
use crate::client::directory::Directory;
use crate::client::key::KeyMaker;
use crate::client::now_ms;

/// Hold units of a pool for a buyer.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb hold concert --qty 2 --region eu-central\n  rhumb hold concert --region us-east --ttl 30s --key order-4711 -o json\n  H=$(rhumb hold concert --region us-east) && rhumb confirm $H\n\nA key given by hand belongs to the region that is asked: the same text in another region is another key."
)]
pub struct Hold {
    /// The pool.
    pool: PoolName,
    /// How many units.
    #[arg(long, default_value_t = 1, value_parser = number::<u64>(1..=MAX_SUPPLY))]
    qty: u64,
    /// The region to ask.
    #[arg(long)]
    region: Option<Region>,
    /// For how long, 1ms to 1d: 5m unless given.
    #[arg(long, value_parser = ttl, value_name = "TIME")]
    ttl: Option<Duration>,
    /// The same key never holds twice. Made anew unless given.
    #[arg(long)]
    key: Option<Key>,
    /// For whom: whatever tells customers apart. It is hashed here and goes no further.
    #[arg(long, value_name = "TEXT")]
    customer: Option<String>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct HoldAnswer {
    hold: String,
    pool: PoolName,
    region: Region,
    node: String,
    qty: u64,
    overdrawn: u64,
    expires_ms: u64,
    key: String,
}

impl Hold {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let tag = |who: &String| CustomerTag::of(&self.pool, who);
        let customer = self.customer.as_ref().map(tag).transpose();
        let customer = customer.map_err(|error| Failure::Usage(error.to_string()))?;
        let client = self.connect.client().await?;
        let nodes = client.directory().nodes_in(self.region.as_ref())?;
        let (mut keys, made_at) = (KeyMaker::new(&Seed::from_entropy()), now_ms());
        let made =
            nodes.iter().map(|node| self.key.clone().unwrap_or_else(|| keys.make(node.clone(), made_at)));
        let made: Vec<(_, Key)> = nodes.iter().cloned().zip(made).collect();
        let key_at = |node: &_| made.iter().find(|(at, _)| at == node).expect("one a node").1.clone();
        let message = |node: &_| messages::Hold {
            pool: self.pool.clone(),
            qty: self.qty,
            ttl: self.ttl,
            key: key_at(node),
            hops: 0,
            customer,
        };
        let asked = ask(&client, &nodes, message).await;
        if customer.is_some() && matches!(asked.answer, Ok(Ok(_))) {
            self.note_if_unlimited(&client, &asked.node, output).await;
        }
        client.close().await;
        let key = key_at(&asked.node);
        if asked.answer.as_ref().is_err_and(|fault| fault.delivery() == Delivery::Unknown) {
            output.note(format_args!("to learn what became of it, ask again with --key {key}"));
        }
        let held = asked.answer??;
        let owner = &held.hold.owner;
        let answer = HoldAnswer {
            hold: held.hold.to_string(),
            pool: self.pool.clone(),
            region: owner.region.clone(),
            node: owner.to_string(),
            qty: held.qty,
            overdrawn: held.overdrawn,
            expires_ms: held.expires.millis(),
            key: key.to_string(),
        };
        let left = held.expires.millis().saturating_sub(now_ms()) / 1_000;
        let debt = match held.overdrawn {
            0 => String::new(),
            units => format!(" ({units} beyond the supply, on debt)"),
        };
        output.aside(format_args!(
            "held {} of {}{debt} for {left} s; confirm or release it by then",
            held.qty, self.pool
        ));
        output.answer(&answer, &answer.hold);
        Ok(Done::Well)
    }

    /// A customer is named for a pool that counts none: that is said, for whoever named one may believe that
    /// a limit holds.
    async fn note_if_unlimited(&self, client: &MeshClient, node: &NodeId, output: &Output) {
        let shown = ask(client, slice::from_ref(node), |_| ShowPool { pool: self.pool.clone() }).await;
        if let Ok(Ok(view)) = shown.answer
            && view.spec.per_customer.is_none()
        {
            output.note(format_args!(
                "pool {} has no limit a customer (`pool create --per-customer`): --customer was not looked at",
                self.pool
            ));
        }
    }
}

/// Make a hold a sale.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb confirm concert/us-east/n1/19a3f0c2b41/17/9c3e04d1a2b85f67")]
pub struct Confirm {
    /// The hold, as `rhumb hold` printed it.
    hold: HoldId,
    #[command(flatten)]
    connect: Connect,
}

/// Give a hold's units back.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rhumb release concert/us-east/n1/19a3f0c2b41/17/9c3e04d1a2b85f67")]
pub struct Release {
    /// The hold, as `rhumb hold` printed it.
    hold: HoldId,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct SettledAnswer {
    hold: String,
    state: &'static str,
    qty: u64,
}

impl Confirm {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let message = messages::Confirm { hold: self.hold.clone() };
        settle(&self.connect, &self.hold, message, "confirmed", output).await
    }
}

impl Release {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let message = messages::Release { hold: self.hold.clone() };
        settle(&self.connect, &self.hold, message, "released", output).await
    }
}

async fn settle<M>(
    connect: &Connect,
    hold: &HoldId,
    message: M,
    state: &'static str,
    output: &Output,
) -> Result<Done, Failure>
where
    M: Remote<Reply = Result<Settled, messages::Refusal>> + Clone + Sync,
{
    let client = connect.client().await?;
    let nodes = near_the_owner(client.directory(), hold);
    let asked = ask(&client, &nodes, |_| message.clone()).await;
    client.close().await;
    let settled = asked.answer??;
    let answer = SettledAnswer { hold: settled.hold.to_string(), state, qty: settled.qty };
    output.answer(&answer, format!("{state} {} ({} units)", settled.hold, settled.qty));
    Ok(Done::Well)
}

/// The owner first. Any other node passes the question on: to it, or to who acts in its place.
pub(super) fn near_the_owner(directory: &Directory, hold: &HoldId) -> Vec<NodeId> {
    nodes_from(directory, |node| *node == hold.owner)
}
