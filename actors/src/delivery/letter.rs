//! Letters: messages that are told for sure, as they stand in an outbox.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rhumb_core::{DataClass, HybridTime, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

/// A letter's name within its source node: the life of the node in which it was written, and its number in
/// that life. Rises with every letter: no disk, not even a restored one, gives a name twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterId {
    /// The life of the source node.
    pub epoch: Incarnation,
    /// From 1.
    pub sequence: u64,
}

impl LetterId {
    /// The lowest name there can be.
    pub const LOWEST: Self = Self { epoch: Incarnation(0), sequence: 0 };
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.sequence)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (epoch, sequence) = text.split_once('-')?;
            Some(Self { epoch: Incarnation(epoch.parse().ok()?), sequence: sequence.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text:?} is no letter: say two numbers, as in 1790000000000-7"))
    }
}

/// What is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The node of its actor.
    pub to: NodeId,
    /// The actor, as an envelope says it. May be data of the letter's class.
    pub target: String,
    /// The actor's type, a number in place of its key.
    pub shown: String,
    /// The sender's stream: letters of one stream to one actor keep their order.
    pub stream: String,
    /// The stable name of the message.
    pub name: String,
    /// Its class.
    pub class: DataClass,
    /// The message, encoded behind its layout's mark.
    pub body: Vec<u8>,
    /// The message's idempotency key, for its handler to see.
    pub key: Option<String>,
    /// How long its handler may take, in milliseconds.
    pub within_ms: u64,
    /// When it was written.
    pub written: HybridTime,
}

impl Letter {
    /// What it costs to keep.
    #[must_use]
    pub fn bytes(&self) -> usize {
        128 + self.target.len() + self.shown.len() + self.stream.len() + self.name.len() + self.body.len()
    }
}

/// A letter that could not be delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The letter.
    pub letter: Letter,
    /// Why. Quotes nothing of the letter.
    pub reason: String,
    /// When it was given up.
    pub died: HybridTime,
    /// How often its handler failed.
    pub failures: u32,
}

/// What became of one attempt to deliver a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its receiver has durably noted it.
    Settled,
    /// It will never be taken, for this reason. Quotes nothing of the letter.
    Never(String),
    /// Its handler ran and failed, like this.
    Failed(String),
    /// Its forerunner in its channel is not settled there.
    Order,
    /// Not now: the actor or the node has no room.
    Busy(Option<Duration>),
    /// The node was not reached, or did not answer in time.
    Unreachable,
}
