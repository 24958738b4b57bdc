//! What makes a message one that other nodes may send, and an actor one that they may call.
//!
//! * It decides: what must be known of a message (name, layout, class, whether it may be run twice) and
//!   of an actor (name, what it accepts, where its state may live, what happens when its mailbox is
//!   full), all of it at compile time.
//! * It never does: send, receive or host anything. That is the runtime's, against these traits.
//! * Invariant: what an address is asked is in its actor's list, or the call does not compile.
//!
//! The traits are implemented by `#[remote]`, `#[remote_actor]` and `protocol!`.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Handler, Message};
use rhumb_core::{DataClass, Guarantee, Priority, Wire};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(test)]
mod tests;

/// Who may send a message, besides the mesh's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Only nodes.
    Nodes,
    /// Nodes, clients and operators.
    Everyone,
    /// Nodes and operators.
    Operators,
}

/// A message that may cross nodes. Written by `#[remote]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message that may cross nodes",
    note = "declare it: `#[remote(name = \"cart.Add\", class = \"inventory\", reply = Result<u32, CartError>)]`"
)]
pub trait Remote:
    Wire + Serialize + DeserializeOwned + Send + 'static + Message<Result = <Self as Remote>::Reply>
{
    /// The name on the wire. Never a Rust path; never reused for another meaning.
    const NAME: &'static str;
    /// The version of its layout: that of its newest field.
    const VERSION: u16 = 1;
    /// Whether running it twice has the effect of once. Only such messages, and keyed ones, are ever retried.
    const IDEMPOTENT: bool;
    /// How long a caller waits who sets no deadline.
    const DEADLINE: Duration = Duration::from_secs(5);
    /// Who may send it.
    const AUDIENCE: Audience;
    /// Whether each message has a key under which its receiver remembers that it ran.
    const KEYED: bool = false;
    /// Whether it is asked again where that is safe, also where its asker does not say so.
    const RETRIED: bool = false;
    /// How much it matters where there is not room for all.
    const PRIORITY: Priority = Priority::Normal;
    /// What its values must rest on at least: one that rests on less is refused before its handler runs.
    const REQUIRES: Guarantee = Guarantee::Eventual;
    /// Whether it declares the class of its replies. Unless it does, what an actor answers is also bound
    /// by the class of the actor's state.
    const DECLARES_REPLY_CLASS: bool = false;
    /// What it is answered with.
    type Reply: Wire + Serialize + DeserializeOwned + Send + 'static;

    /// The class of the data in it. `None`: the message does not carry it and the receiver looks it
    /// up (a hold names its pool, and the pool has the class).
    fn class(&self) -> Option<&DataClass>;

    /// The class of the data in an ordinary reply to it.
    fn reply_class(&self) -> Option<&DataClass> {
        self.class()
    }

    /// The key under which its receiver remembers that it ran.
    fn idempotency_key(&self) -> Option<String> {
        None
    }

    /// In a mailbox that coalesces, a message takes the place of a waiting one that has the same key.
    /// The keys of messages of different names differ.
    fn coalesce_key(&self) -> Option<u64> {
        None
    }
}

/// A kind of actor, by its stable name: the actor itself, or a protocol that stands for it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of actor that can be addressed",
    note = "give the actor `#[remote_actor(..)]`, or name a `protocol!`"
)]
pub trait Addressed: 'static {
    /// The name on the wire. Never a Rust path; never reused for another meaning.
    const TYPE: &'static str;
    /// The class of the state that such an actor keeps: says which regions may host it. Whoever calls
    /// one needs it to find its node.
    const CLASS: &'static str;
}

/// Marks what a kind of actor can be asked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not accept `{M}`",
    note = "list it in the actor's `#[remote_actor(.., accepts(..))]`, or in its `protocol!`"
)]
pub trait Accepts<M: Remote>: Addressed {}

/// What happens to a message that finds its actor's mailbox full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// It is refused, and its sender told.
    Refuse,
    /// The message that has waited longest is dropped, and its sender told.
    DropOldest,
    /// It takes the place of a waiting message of the same coalescing key, if there is one, full or
    /// not; otherwise it is refused.
    Coalesce,
}

/// An actor that a node can host. Written by `#[remote_actor]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be hosted",
    note = "put `#[remote_actor(name = \"cart\", class = \"inventory\", accepts(Add))]` on its `impl Actor`"
)]
pub trait Hosted: Actor<Context = actix::Context<Self>> + Addressed {
    /// Messages that may wait for it at once.
    const MAILBOX: usize;
    /// What happens to the next one.
    const OVERFLOW: Overflow;

    /// Enters each message that it accepts.
    fn serve<T: Table<Self>>(table: &mut T);
}

/// Where an actor's messages are entered.
pub trait Table<A: Actor> {
    /// The actor accepts `M`.
    fn message<M>(&mut self)
    where
        M: Remote,
        A: Handler<M>,
        <A as Handler<M>>::Result: KeepsContext;
}

/// What an actor serves that is declared apart from it: implemented by `protocol!` for every actor that
/// handles all of its messages.
#[diagnostic::on_unimplemented(
    message = "`{A}` does not serve `{Self}`",
    note = "it needs a `Handler` of each message of the protocol, with a result that keeps the call's context"
)]
pub trait Protocol<A: Actor>: Addressed {
    /// Enters each message of the protocol.
    fn serve<T: Table<A>>(table: &mut T);
}

/// A handler's result that does not lose the context of its call: the deadline, the class, the trace
/// and the chain of callers.
///
/// A handler that answers at once keeps it, and so does the runtime's `Reply`. Actix's own futures
/// (`ResponseFuture`, `ResponseActFuture`, `AtomicResponse`) are polled where no context is, so that a
/// call they make would lose it; a handler of a remote message that returns one does not compile:
///
/// ```compile_fail,E0277
/// use actix::{Actor, Context, Handler, ResponseFuture};
/// use rhumb_actors::{remote, remote_actor};
///
/// #[remote(crate = rhumb_actors, name = "doc.Ping", class = "control", reply = u32)]
/// struct Ping;
///
/// struct Pinged;
///
/// #[remote_actor(crate = rhumb_actors, name = "doc.pinged", class = "control", accepts(Ping))]
/// impl Actor for Pinged {
///     type Context = Context<Self>;
/// }
///
/// impl Handler<Ping> for Pinged {
///     type Result = ResponseFuture<u32>;
///     fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> Self::Result {
///         Box::pin(async { 1 })
///     }
/// }
/// ```
///
/// The same with `type Result = u32` does:
///
/// ```no_run
/// use actix::{Actor, Context, Handler};
/// use rhumb_actors::{remote, remote_actor};
///
/// #[remote(crate = rhumb_actors, name = "doc.Ping", class = "control", reply = u32)]
/// struct Ping;
///
/// struct Pinged;
///
/// #[remote_actor(crate = rhumb_actors, name = "doc.pinged", class = "control", accepts(Ping))]
/// impl Actor for Pinged {
///     type Context = Context<Self>;
/// }
///
/// impl Handler<Ping> for Pinged {
///     type Result = u32;
///     fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> u32 {
///         1
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler of a remote message may not return `{Self}`: it loses the deadline, class, trace and chain of its call",
    note = "answer at once (`type Result = Result<T, E>`), or later with `rhumb::Reply<T>`"
)]
pub trait KeepsContext {}

impl<T, E> KeepsContext for Result<T, E> {}
impl<T> KeepsContext for Option<T> {}
impl<T> KeepsContext for Vec<T> {}
impl<T> KeepsContext for Arc<T> {}
impl<M: Message> KeepsContext for actix::MessageResult<M> {}

macro_rules! at_once {
    ($($ty:ty),*) => { $(impl KeepsContext for $ty {})* };
}

at_once!((), bool, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64, String);
