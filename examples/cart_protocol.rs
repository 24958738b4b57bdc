//! What carts can be asked. A crate of its own: who calls carts needs this, and not the actor.

use std::collections::BTreeMap;

use rhumb::prelude::*;

/// Puts so many of an article into the cart. Answered with all that is in it.
#[remote(name = "cart.Add", class = "inventory", reply = BTreeMap<String, u32>)]
pub struct Add {
    /// Which.
    pub article: String,
    /// How many more.
    pub quantity: u32,
}

protocol! {
    /// Carts, one for each customer.
    pub Carts = "cart", class "inventory": Add;
}
