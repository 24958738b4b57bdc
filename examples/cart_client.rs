//! Calls carts from another program, with a certificate of its own: no actix system, no RocksDB, and
//! nothing of the actor but its protocol. Run `rhumb dev --program target/debug/cart-node` first.

use std::path::Path;
use std::sync::Arc;

use cart_protocol::{Add, Carts};
use rhumb::client::MeshClient;
use rhumb::client::directory::Directory;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let data = std::env::args().nth(1).unwrap_or_else(|| ".rhumb/dev".into());
    let data = Path::new(&data);
    let client = Arc::new(MeshClient::new(&data.join("client"), Directory::read(data)?)?);
    let carts = client.mesh();
    for customer in ["ada", "grace", "ada"] {
        let cart = carts.actor::<Carts>(customer);
        let items = cart.ask(Add { article: "tea".into(), quantity: 1 }).await?;
        println!("{customer} at {}: {items:?}", cart.owner().await?.region);
    }
    client.close().await;
    Ok(())
}
