//! Rhumb's macros: what is written once in an attribute becomes the implementations of
//! `rhumb_actors::remote` and `rhumb_core::wire`.
//!
//! * It decides: whether a declaration is whole and makes sense, and what is said where it is not.
//! * It never does: guess a name or a class. What must be said and is not does not compile.
//! * Invariant: what it writes names everything from the root, so that it means the same in any scope.
//!
//! Every macro takes `crate = PATH`, the path of the crate through which these things are reached
//! (`::rhumb` unless said), for crates that re-export it under another name.

use proc_macro::TokenStream;
use quote::quote;
use syn::parse_macro_input;

mod actor;
mod args;
mod fields;
mod grows;
mod protocol;
mod remote;
mod rules;
mod wire;

#[cfg(test)]
mod tests;

/// Makes a struct a message that other nodes may send.
///
/// ```text
/// #[remote(name = "cart.Add", class = "inventory", reply = Result<u32, CartError>)]
/// pub struct Add {
///     pub sku: String,
///     pub qty: u32,
///     #[since(2)]
///     pub note: Option<String>,
/// }
/// ```
///
/// | key | |
/// |---|---|
/// | `name = "cart.Add"` | the name on the wire, for ever; must be given |
/// | `class = "inventory"` | the data class; must be given. `by(FIELD)`: the field, a `DataClass`, says it. `looked_up`: the message does not carry it, its receiver knows |
/// | `reply = TYPE` | what it is answered with; must be given (`()` for nothing) |
/// | `reply_class = "…"` | the class of the reply, if it is another; `by(FIELD)` and `looked_up` as above. Without it a hosted actor's reply is of the message's class or of its state's, whichever is stricter |
/// | `idempotent` | running it twice has the effect of once: it may be retried |
/// | `deadline = "500ms"` | how long a caller waits who does not say (`ms`, `s`, `m`; 5 s) |
/// | `key = FIELD` | the field (by its `Display`) is the idempotency key that travels with the call |
/// | `audience = "nodes"` | who may send it: `everyone`, `operators` (and nodes), or only `nodes`; everyone unless said |
/// | `requires = "snapshot"` | the consistency level that what it carries must rest on at least, or its handler does not run: `eventual`, `read_committed`, `snapshot`, `serializable`, `strict_serializable`; `eventual` unless said |
/// | `coalesce = FIELD` | in a mailbox that coalesces, it replaces a waiting one with the same value of the field (by its `Hash`); `coalesce` alone: any waiting one |
///
/// It writes `Serialize`, `Deserialize`, `Wire`, `actix::Message` and `Remote`, and neither `Debug` nor
/// `Clone`: what a message carries reaches no log by accident.
///
/// Fields are added at the end, with the version that brings them: `#[since(2)]`. Their types have a
/// default; a field that is its default is not sent, and one that was not sent is its default. A build
/// that does not have the field refuses a message that carries it, by name, unless it is declared
/// `#[since(2, may_drop)]`. The fields of the first version never change. A field of another crate's
/// type says which layout that has: `#[wire(opaque = "uuid-v1")]`.
#[proc_macro_attribute]
pub fn remote(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(item.clone(), remote::expand(args.into(), item.into()))
}

/// Makes an actor one that other nodes may call, and that a node can host. Stands on its
/// `impl Actor for …`.
///
/// ```text
/// #[remote_actor(name = "cart", class = "inventory", accepts(Add, Remove))]
/// impl Actor for Cart {
///     type Context = Context<Self>;
/// }
/// ```
///
/// | key | |
/// |---|---|
/// | `name = "cart"` | the name of its kind on the wire, for ever |
/// | `class = "inventory"` | the class of the state it keeps: says in which regions it may live |
/// | `accepts(Add, Remove)` | what it can be asked; it has a `Handler` of each |
/// | `serves = Carts` | instead of these three, which are then those of the `protocol!` |
/// | `mailbox = 1024` | messages that may wait (1024 unless said) |
/// | `overflow = "refuse"` | what happens to the next: `refuse` (unless said), `drop_oldest`, `coalesce` |
#[proc_macro_attribute]
pub fn remote_actor(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(item.clone(), actor::expand(args.into(), item.into()))
}

/// Declares what a kind of actor can be asked apart from the actor, so that callers need not depend on
/// it. An actor serves it with `#[remote_actor(serves = Carts, ..)]`.
///
/// ```text
/// protocol! {
///     /// A customer's cart.
///     pub Carts = "cart", class "inventory": Add, Remove;
/// }
/// ```
///
/// `crate = PATH;` may stand first.
#[proc_macro]
pub fn protocol(input: TokenStream) -> TokenStream {
    protocol::expand(input.into()).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// Lets a struct grow that travels inside messages or as a reply: writes `Serialize`, `Deserialize` and
/// `Wire` for it, with later fields as in `#[remote]`.
#[proc_macro_attribute]
pub fn grows(args: TokenStream, item: TokenStream) -> TokenStream {
    finish(item.clone(), grows::expand(args.into(), item.into()))
}

/// The layout of a type whose bytes serde's derives write, and which is never to change; to enums,
/// variants may be added at the end, with `#[since(2)]`.
///
/// `#[wire(opaque = "uuid-v1")]` stands for the layout of a field of another crate's type, or of the
/// whole type where serde is told to write something else; `#[wire(crate = PATH)]` as everywhere.
#[proc_macro_derive(Wire, attributes(wire, since))]
pub fn derive_wire(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    wire::expand(&item).unwrap_or_else(|error| error.to_compile_error()).into()
}

/// What an attribute gives: the expansion, or its error and the item as it is without our attributes,
/// so that one mistake is one error.
fn finish(item: TokenStream, expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    match expanded {
        Ok(tokens) => tokens.into(),
        Err(error) => {
            let error = error.to_compile_error();
            let item = fields::bare(item.into());
            quote!(#error #item).into()
        }
    }
}
