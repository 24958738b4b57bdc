//! A till whose every sale is in the node's audit log, about the customer, before it is final. A node, and a customer
//! of it, in one program:
//!
//! ```text
//! rhumb dev --regions us-east,eu-central --program target/debug/audited-till
//! rhumb pool create tea --supply 1000
//! target/debug/audited-till sell ada tea 3
//! rhumb audit query --action till.sell --records
//! rhumb audit erase-subject 'customer ada'
//! ```
//!
//! Units of the pool that another region has are fetched from there when a sale needs them: where the policy closes
//! the border they are not, and where a signed exception opens it, that is in the log. Whoever has the log's keys
//! verifies all of it, also when nobody can read any more whose sale it was; `docs/audit.md` shows the commands.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rhumb::audit::{Outcome, Record};
use rhumb::client::directory::Directory;
use rhumb::client::key::KeyMaker;
use rhumb::client::{Ask, MeshClient, now_ms};
use rhumb::escrow::{Confirm, Hold, Release};
use rhumb::prelude::*;
use rhumb::seed::Seed;

const WITHIN: Duration = Duration::from_secs(10);

/// Tells of a sale. Answered with the number of its entry in the log, when that is durable.
#[remote(name = "till.Sell", class = "inventory", reply = Result<u64, String>)]
pub struct Sell {
    /// To whom.
    pub customer: String,
    /// What.
    pub article: String,
    /// Whether it is sold; until then it is about to be.
    pub sold: bool,
}

protocol! {
    /// The till: one in each region.
    pub Tills = "till", class "inventory": Sell;
}

struct Till;

#[remote_actor(serves = Tills)]
impl Actor for Till {
    type Context = Context<Self>;
}

impl Handler<Sell> for Till {
    type Result = Reply<Result<u64, String>>;

    fn handle(&mut self, Sell { customer, article, sold }: Sell, _: &mut Context<Self>) -> Self::Result {
        let Some(log) = call().and_then(|call| call.mesh().audit().cloned()) else {
            return Reply::ready(Err("this node keeps no audit log".to_owned()));
        };
        let subject = format!("customer {customer}");
        let outcome = if sold { Outcome::Done } else { Outcome::Begun };
        let record = Record::told("till.sell", subject.as_str(), outcome).on(article);
        Reply::later(async move { log.append(record, Some(&subject)).await.map_err(|why| why.to_string()) })
    }
}

/// Holds units of the pool, tells the till, and sells them: what cannot be logged is not sold.
async fn sell(customer: &str, pool: &str, qty: u64) -> anyhow::Result<()> {
    let data = std::env::var("RHUMB_DATA").unwrap_or_else(|_| ".rhumb/dev".into());
    let data = Path::new(&data);
    let client = Arc::new(MeshClient::new(&data.join("client"), Directory::read(data)?)?);
    let region = client.region().clone();
    let node =
        client.directory().nodes_in(Some(&region))?.first().cloned().context("a node of this region")?;
    let till = client.mesh().actor_in::<Tills>(&region, "till");

    let key = KeyMaker::new(&Seed::from_entropy()).make(node.clone(), now_ms());
    let hold = Hold { pool: pool.parse()?, qty, ttl: None, key, hops: 0, customer: None };
    let held = client.ask(&node, &hold, WITHIN).await?.map_err(|refusal| anyhow!("not sold: {refusal}"))?;
    let article = format!("{qty} of {pool}, {}", held.hold);
    let tell = |sold| Sell { customer: customer.to_owned(), article: article.clone(), sold };
    if let Err(why) = till.ask(tell(false)).await? {
        client.ask(&node, &Release { hold: held.hold }, WITHIN).await?.ok();
        anyhow::bail!("not sold: {why}");
    }
    let confirmed = client.ask(&node, &Confirm { hold: held.hold }, WITHIN).await?;
    confirmed.map_err(|refusal| anyhow!("not sold: {refusal}"))?;
    let entry =
        till.ask(tell(true)).await?.map_err(|why| anyhow!("sold, and its end is not in the log: {why}"))?;
    println!("{} {entry}", till.owner().await?);
    client.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, customer, pool, qty] = &arguments[..]
        && command == "sell"
        && let Ok(qty) = qty.parse()
    {
        return match sell(customer, pool, qty).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    rhumb::cli::serve::node_program(|node| node.host(Host::new(|_: &Activation| Till))).await
}
