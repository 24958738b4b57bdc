//! Delivery: asks that are answered once a key, tells that arrive for sure, and what could not be delivered.
//!
//! * [`KeyTable`] decides: whether an ask with an idempotency key runs, waits for the one that runs, gets the answer
//!   that is kept, or is refused. It never does: let a key that is kept run again, or answer before the answer is
//!   durable. Invariant: within the retention, one key of one actor has one body and one answer.
//! * [`Outbox`] decides: which letter is sent when, and when one is given up. It never does: say that a letter is
//!   taken before it is durable, forget one before its receiver has durably noted it, or drop one: what is given up
//!   is a dead letter. Invariant: letters of one channel (destination actor and stream) are sent in their order.
//! * [`Inbox`] decides: which letter of another node's outbox runs here, and in which order. It never does: run one
//!   that is noted, or one whose forerunner in its channel is not. Invariant: a letter's note and what its handler
//!   wrote are one batch.
//!
//! All three push into one buffer of [`Effect`]s and stand behind one barrier. Their rows are in [`rows`].

pub mod inbox;
pub mod keys;
pub mod letter;
pub mod outbox;
pub mod rows;
mod settings;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rhumb_core::{Effects, Fault, NodeId};
use rhumb_storage::Batch;

pub use inbox::{Arrived, Inbox};
pub use keys::{Asked, Key, KeyTable, Scope, Stored};
pub use letter::{DeadLetter, Letter, LetterId, Verdict};
pub use outbox::{Outbox, OutboxReport};
pub use settings::DeliverySettings;

/// Who waits for something, as the shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Where the machines of this folder push what they want done.
pub type Out = Effects<Batch, Effect>;

/// What they want done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Run the handler of this ask, and say how it ended.
    Run(Token),
    /// Give this answer to whoever waits.
    Reply(Token, Arc<Stored>),
    /// Tell whoever waits that there is no answer, or that a letter was not taken.
    Fault(Token, Fault),
    /// The letter is taken: it is durable here.
    Taken(Token),
    /// Send a letter to its node.
    Send(Sending),
    /// Run the handler of a letter that arrived, and say how it ended.
    Deliver(NodeId, LetterId, Token),
    /// Answer the node that sent a letter.
    Answer(Token, Verdict),
    /// A letter could not be delivered and is a dead letter now: raise the alarm.
    Died(LetterId, Arc<DeadLetter>),
    /// The queue of dead letters is full, and this letter should be in it: raise the alarm.
    NoRoom(LetterId),
}

/// A letter on its way to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sending {
    /// Which one.
    pub id: LetterId,
    /// What it says, and to whom.
    pub letter: Arc<Letter>,
    /// All letters to that node below this one are settled or given up.
    pub floor: LetterId,
    /// The letter of its channel that must be settled first, if one must.
    pub after: Option<LetterId>,
}
