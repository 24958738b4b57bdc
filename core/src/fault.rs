//! Operating errors of a call. A *refusal* is a normal answer and has a type of its own per actor; a
//! *fault* is what happened instead of an answer, and knows whether the callee may have run.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::class::DataClass;
use crate::gate::GateRefusal;
use crate::guarantee::Guarantee;

/// What a caller may conclude about the callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// The handler did not run and never will for this call: a retry is safe.
    NotSent,
    /// The handler ran, or its refusal to run is itself the callee's decision.
    Ran,
    /// Nobody here knows. Retry only what is idempotent.
    Unknown,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotSent => "not sent",
            Self::Ran => "ran",
            Self::Unknown => "unknown",
        })
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum FaultKind {
    /// No connection to the peer, or the connection was lost.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The deadline passed first.
    #[error("deadline passed while {0}")]
    Deadline(String),
    /// A bounded queue on the way was full.
    #[error("{0} is full")]
    Full(String),
    /// The peer is draining before a stop.
    #[error("the peer is draining")]
    Draining,
    /// A gate said no: the class may not go there.
    #[error("{0}")]
    Gate(GateRefusal),
    /// The callee has no handler for this message name.
    #[error("the peer does not know the message {0:?}")]
    UnknownMessage(String),
    /// The bytes are not a message of that name.
    #[error("message {name:?} could not be decoded: {reason}")]
    Decode {
        /// The stable name of the message.
        name: String,
        /// What was wrong.
        reason: String,
    },
    /// The message is larger than may be sent.
    #[error("message of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// How large it was.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The caller's certificate does not allow this (clients may only call what is meant for them).
    #[error("not authorized: {0}")]
    Unauthorized(String),
    /// The handler panicked or was lost before it answered.
    #[error("the handler failed: {0}")]
    Handler(String),
    /// The store under the callee has failed and the node is stopping.
    #[error("storage: {0}")]
    Storage(String),
    /// The chain of calls would come back to an actor that waits for it.
    #[error("{0} is already in this chain of calls")]
    Cycle(String),
    /// The node hosts no actor type of this name.
    #[error("the node hosts no actor type {0:?}")]
    NotHosted(String),
    /// The node is not the owner of the actor; who it thinks is.
    #[error("the actor is owned elsewhere: {0}")]
    Moved(String),
    /// The actor has panicked too often and is not started again for now; `retry_after` says when it
    /// is tried again.
    #[error("{0} gave up after repeated panics")]
    Failed(String),
    /// The handler of the message of this name panicked. Never the panic's own text, which may quote
    /// what was in the message.
    #[error("the handler of {0:?} panicked")]
    Panicked(String),
    /// A call may not carry data of a lower class than its caller's.
    #[error("a call of class {from} may not lead to one of class {to}")]
    ClassLowered {
        /// The caller's class.
        from: DataClass,
        /// The class of what it would have sent.
        to: DataClass,
    },
    /// The answer is weaker than the caller requires, or what the message rests on than its handler does: that one did
    /// not run.
    #[error("the guarantee achieved is {achieved}, required is {required}")]
    Guarantee {
        /// What is required.
        required: Guarantee,
        /// What the chain of calls gives.
        achieved: Guarantee,
    },
    /// The two builds lay the message out differently. *Ours* is the side that reports it.
    #[error("{name:?} has layout {ours:#010x} here and {theirs:#010x} there")]
    Skew {
        /// The stable name of the message.
        name: String,
        /// The low 32 bits of the layout's fingerprint at the side that reports it.
        ours: u32,
        /// The same of the other side.
        theirs: u32,
    },
    /// The caller believes in an epoch that is not the callee's.
    #[error("the epoch here is {ours}")]
    WrongEpoch {
        /// The epoch of the side that reports it.
        ours: u64,
    },
    /// Nobody waits for the answer any more.
    #[error("nobody waits for the answer any more")]
    Abandoned,
    /// The idempotency key was used before, for another message of this name.
    #[error("the idempotency key was used for another {0:?}: a new message needs a new key")]
    KeyReused(String),
    /// The message of this name ran under its idempotency key, and its answer was not kept: it may not be held where
    /// it was given, or found no room.
    #[error("{0:?} was answered under this key before, and the answer was not kept")]
    NotKept(String),
    /// The callee lets in no more than it can do in time; `retry_after` says when it may be asked again.
    #[error("there are too many calls for {0}")]
    Overloaded(String),
    /// The caller's own side holds calls back from where too many of them failed; `retry_after` says when
    /// it tries again.
    #[error("too many calls to {0} have failed: none is made for now")]
    Shut(String),
    /// Nobody may act for the actor at the moment: whoever did is fenced, or all that may hold it are away; why.
    #[error("nobody acts for the actor: {0}")]
    Unowned(String),
}

/// A call that has no answer: why, and what that says about the callee.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{kind} (outcome: {delivery})")]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// Whether the handler may have run.
    pub delivery: Delivery,
    /// When it may make sense to ask again, where anyone knows.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault before anything left: a retry is safe.
    #[must_use]
    pub fn not_sent(kind: FaultKind) -> Self {
        Self { kind, delivery: Delivery::NotSent, retry_after: None }
    }

    /// A fault after the message may have arrived.
    #[must_use]
    pub fn unknown(kind: FaultKind) -> Self {
        Self { kind, delivery: Delivery::Unknown, retry_after: None }
    }

    /// A fault that the callee itself reported after its handler had run.
    #[must_use]
    pub fn ran(kind: FaultKind) -> Self {
        Self { kind, delivery: Delivery::Ran, retry_after: None }
    }

    /// Whether the handler may have run.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }
}
