//! A node of one's own: it hosts carts beside Rhumb's own actors. It takes the place of `rhumb serve`:
//!
//! ```text
//! rhumb dev --program target/debug/cart-node
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use cart_protocol::{Add, Carts};
use rhumb::prelude::*;

#[derive(Default)]
struct Cart(BTreeMap<String, u32>);

#[remote_actor(serves = Carts)]
impl Actor for Cart {
    type Context = Context<Self>;
}

impl Handler<Add> for Cart {
    type Result = Reply<BTreeMap<String, u32>>;

    fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Self::Result {
        *self.0.entry(add.article).or_default() += add.quantity;
        Reply::ready(self.0.clone())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let carts = Host::new(|_: &Activation| Cart::default());
    rhumb::cli::serve::node_program(|node| node.host(carts)).await
}
