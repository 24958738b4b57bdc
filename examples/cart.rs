//! A cart that falls asleep when nobody uses it, and wakes with what was in it.
//!
//! An actor's memory is lost when it sleeps, so it keeps what matters elsewhere: it saves as it stops,
//! and its factory loads. (Here "elsewhere" is a map; in a service it is your database.)

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rhumb::prelude::*;
use rhumb::testing::TestMesh;

/// Puts so many of an article into the cart. Answered with all that is in it.
#[remote(name = "cart.Add", class = "control", reply = BTreeMap<String, u32>)]
struct Add {
    article: String,
    quantity: u32,
}

type Shelf = Arc<Mutex<HashMap<String, BTreeMap<String, u32>>>>;

struct Cart {
    customer: String,
    items: BTreeMap<String, u32>,
    shelf: Shelf,
}

#[remote_actor(name = "cart", class = "control", accepts(Add), mailbox = 32)]
impl Actor for Cart {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Context<Self>) {
        println!("{}'s cart falls asleep", self.customer);
        let items = std::mem::take(&mut self.items);
        self.shelf.lock().expect("nobody panics here").insert(self.customer.clone(), items);
    }
}

impl Handler<Add> for Cart {
    type Result = Reply<BTreeMap<String, u32>>;

    fn handle(&mut self, add: Add, _: &mut Context<Self>) -> Self::Result {
        *self.items.entry(add.article).or_default() += add.quantity;
        Reply::ready(self.items.clone())
    }
}

/// How carts are hosted: asleep after a minute without a message, or sooner when all carts together
/// take more than a megabyte.
fn carts(shelf: Shelf) -> Host<Cart> {
    let load = move |at: &Activation| {
        println!("{}'s cart wakes", at.key());
        let items = shelf.lock().expect("nobody panics here").remove(at.key()).unwrap_or_default();
        Cart { customer: at.key().to_owned(), items, shelf: Arc::clone(&shelf) }
    };
    Host::new(load).idle(Duration::from_secs(60)).memory(1 << 20)
}

fn main() -> anyhow::Result<()> {
    // In the test world an hour passes in no time.
    rhumb::testing::run(async {
        let mesh = TestMesh::of(["us-east", "eu-west"]).host(carts(Shelf::default())).start().await?;
        let cart = mesh.at("us-east").actor::<Cart>("ada");
        cart.ask(Add { article: "tea".into(), quantity: 2 }).await?;
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let items = cart.ask(Add { article: "milk".into(), quantity: 1 }).await?;
        println!("{items:?}");
        Ok(())
    })
}
