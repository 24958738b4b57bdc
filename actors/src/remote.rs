//! What makes a message one that other nodes may send: a stable name, a data class, and whether it
//! may be run twice.

use std::time::Duration;

use rhumb_core::DataClass;
use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// A message that may cross nodes.
pub trait Remote: Serialize + DeserializeOwned + Send + 'static {
    /// The name on the wire. Never a Rust path; never reused for another meaning.
    const NAME: &'static str;
    /// The version of its layout. A layout only grows at its end, behind a new version.
    const VERSION: u16 = 1;
    /// Whether running it twice has the effect of once. Only such messages are ever retried.
    const IDEMPOTENT: bool;
    /// How long a caller waits who sets no deadline.
    const DEADLINE: Duration = Duration::from_secs(5);
    /// Who may send it.
    const AUDIENCE: Audience;
    /// What it is answered with.
    type Reply: Serialize + DeserializeOwned + Send + 'static;

    /// The class of the data in it. `None`: the message does not carry it and the receiver looks it
    /// up (a hold names its pool, and the pool has the class).
    fn class(&self) -> Option<&DataClass>;
}
