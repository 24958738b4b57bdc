//! Buys one seat of a pool: holds it, pays, confirms. Run `rhumb dev` and
//! `rhumb pool create concert --supply 100` first.

use std::path::Path;
use std::time::Duration;

use rhumb::client::directory::Directory;
use rhumb::client::key::KeyMaker;
use rhumb::client::{Ask, MeshClient, now_ms};
use rhumb::escrow::{Confirm, Hold};
use rhumb::seed::Seed;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example speaks on standard output")]
async fn main() -> anyhow::Result<()> {
    let data = Path::new(".rhumb/dev");
    let mesh = MeshClient::new(&data.join("client"), Directory::read(data)?)?;
    let (node, within) = (mesh.directory().nodes()[0].0.clone(), Duration::from_secs(5));

    // The key is made once and kept: asking again with it can never hold a second seat.
    let key = KeyMaker::new(&Seed::from_entropy()).make(node.clone(), now_ms());
    let hold = Hold { pool: "concert".parse()?, qty: 1, ttl: None, key, hops: 0, customer: None };
    match mesh.ask(&node, &hold, within).await? {
        Err(refusal) => println!("no seat: {refusal}"),
        Ok(held) => {
            println!("held {}, now pay", held.hold);
            let sold = mesh.ask(&node, &Confirm { hold: held.hold }, within).await?;
            println!("{}", sold.map_or_else(|refusal| refusal.to_string(), |s| format!("sold {}", s.hold)));
        }
    }
    mesh.close().await;
    Ok(())
}
