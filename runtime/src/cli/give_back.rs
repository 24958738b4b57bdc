//! `rhumb return`.

use std::path::PathBuf;

use clap::Args;
use rhumb_actors::escrow::messages::{self, HoldId, Key};
use rhumb_core::Delivery;
use rhumb_core::limits::MAX_SUPPLY;
use rhumb_core::rng::Seed;
use serde::Serialize;

use super::args::number;
use super::connect::{Connect, ask};
use super::hold::near_the_owner;
use super::output::{Done, Failure, Output};
use crate::client::key::KeyMaker;
use crate::client::now_ms;
use crate::load::receipts::book_return;

/// Give back units of a sale.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rhumb return concert/us-east/n1/19a3f0c2b41/17/9c3e04d1a2b85f67\n  rhumb return concert/us-east/n1/19a3f0c2b41/17/9c3e04d1a2b85f67 --qty 1 --key refund-4711\n\nThe units can be sold again at once. A sale can be returned for 24 hours, unless the nodes' settings say otherwise."
)]
pub struct Return {
    /// The hold that was confirmed, as `rhumb hold` printed it.
    hold: HoldId,
    /// How many units; all that were not returned before unless given.
    #[arg(long, value_parser = number::<u64>(1..=MAX_SUPPLY))]
    qty: Option<u64>,
    /// The same key never returns twice. Made anew unless given.
    #[arg(long)]
    key: Option<Key>,
    /// The ledger with the sale's receipt: the return is written down in it.
    #[arg(long, value_name = "FILE")]
    receipts: Option<PathBuf>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Serialize)]
struct ReturnAnswer {
    hold: String,
    state: &'static str,
    qty: u64,
    left: u64,
    key: String,
}

impl Return {
    pub(super) async fn run(self, output: &Output) -> Result<Done, Failure> {
        let Self { hold, qty, key, receipts, connect } = self;
        let client = connect.client().await?;
        let mut keys = KeyMaker::new(&Seed::from_entropy());
        let key = key.unwrap_or_else(|| keys.make(hold.owner.clone(), now_ms()));
        let nodes = near_the_owner(client.directory(), &hold);
        let message = messages::Return { hold: hold.clone(), qty, key: key.clone() };
        let asked = ask(&client, &nodes, |_| message.clone()).await;
        client.close().await;
        if asked.answer.as_ref().is_err_and(|fault| fault.delivery() == Delivery::Unknown) {
            output.note(format_args!("to learn what became of it, ask again with --key {key}"));
        }
        let returned = asked.answer??;
        if let Some(path) = receipts {
            book_return(&path, &hold, returned.left, now_ms()).map_err(Failure::local)?;
        }
        let answer = ReturnAnswer {
            hold: hold.to_string(),
            state: "returned",
            qty: returned.qty,
            left: returned.left,
            key: key.to_string(),
        };
        let text = format!("returned {} of {} ({} still sold)", returned.qty, hold, returned.left);
        output.answer(&answer, text);
        Ok(Done::Well)
    }
}
