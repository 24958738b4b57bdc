//! What nodes tell each other. Nobody else is told any of it, and nothing of it is asked: it has no reply.

use rhumb_core::{DataClass, Incarnation, PoolName, StoreId};
use serde::{Deserialize, Serialize};

use super::{PoolSpec, Standing};
use crate::{Wire, grows};

/// What a node says of itself so that others can level rights and know when all is sold.
#[grows(crate = crate)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Units sold there, ever. Monotone: an old message can only under-state it.
    pub consumed: u64,
    /// Units that may be held or granted there now.
    pub available: u64,
    /// Units held there now.
    pub held: u64,
    /// Units asked for there, per second, smoothed.
    pub demand: u64,
    /// Units given back there after their sale, ever.
    #[since(2)]
    pub returned: u64,
    /// The part of `available` that is the pool's reserve.
    #[since(2)]
    pub reserved: u64,
    /// Debt rights.
    #[since(2)]
    pub debt: DebtFigures,
}

/// All that one node has to say to another about one pool. One level-triggered message: every number
/// in it is cumulative or the latest, so loss, duplication, reordering and late arrival are harmless,
/// and it is sent again until the other's own message shows that it arrived.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// What the pool is, so that a node that does not know it yet learns it.
    pub spec: PoolSpec,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// Rights the sender has granted the receiver, ever: durable before it was sent.
    pub granted: u64,
    /// Rights the sender has accepted from the receiver, ever: durable before it was sent.
    pub accepted: u64,
    /// The sender would like the receiver to have granted it this many, ever.
    pub need: u64,
    /// What the sender says of itself.
    pub figures: Figures,
    /// Debt rights, in the same way.
    #[since(2)]
    pub debt: DebtLevel,
    /// Whether the pool is in its tail. Only the word of its home counts: counts of units sold at a node
    /// that is lost since may have reached some nodes and not others.
    #[since(3)]
    pub tail: bool,
}

/// What a node says of its debt rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct DebtFigures {
    /// Units sold there on debt, ever.
    pub consumed: u64,
    /// Units given back there after such a sale, ever.
    pub returned: u64,
    /// Debt rights that may be used or granted there now.
    pub available: u64,
    /// Units held there on debt now.
    pub held: u64,
}

/// Debt rights between two nodes, said as [`Level`] says it of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct DebtLevel {
    /// Granted to the receiver, ever: durable before it was sent.
    pub granted: u64,
    /// Accepted from the receiver, ever: durable before it was sent.
    pub accepted: u64,
    /// The sender would like to have been granted this many, ever.
    pub need: u64,
}

/// What a peer knows of a restored node's debt rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct DebtWord {
    /// Accepted from the restored node, ever.
    pub accepted: u64,
    /// Granted to it, ever.
    pub granted: u64,
    /// The most that it is known to have sold on debt.
    pub consumed: u64,
    /// The most of that which it is known to have got back.
    pub returned: u64,
}

/// Each second a node tells its peers how far its disk has come; they remember the highest, durably.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Beat {
    /// The sender's data.
    pub store: StoreId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its highest durable commit number.
    pub durable: u64,
    /// Set by a sender that is not proven yet: answer with [`Witnessed`].
    pub prove: bool,
}

/// The highest durable commit number that the sender has ever seen of the receiver's store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Witnessed {
    /// The receiver's data.
    pub store: StoreId,
    /// The life of the receiver to which this answers.
    pub incarnation: Incarnation,
    /// The highest number seen before that life; 0 if none.
    pub highest: u64,
    /// The life of the receiver in which that number was seen; 0 if none. A disk that does not know
    /// of that life is an older one, whatever its numbers are.
    pub life: Incarnation,
}

/// A restored node asks every peer to stop believing its earlier lives, and what they know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub struct Disown {
    /// Lives before this one are over: their grants are refused from now on.
    pub before: Incarnation,
    /// Of which pool.
    pub pool: PoolName,
}

/// What a peer knows of a restored node's pool, after refusing its earlier lives durably.
#[grows(crate = crate)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disowned {
    /// The life that asked.
    pub before: Incarnation,
    /// Of which pool.
    pub pool: PoolName,
    /// What the pool is, if this peer knows it.
    pub spec: Option<PoolSpec>,
    /// Rights this peer has accepted from the restored node, ever.
    pub accepted: u64,
    /// Rights this peer has granted to the restored node, ever.
    pub granted: u64,
    /// The most that this peer has heard the restored node had sold.
    pub consumed: u64,
    /// The latest life of the restored node that this peer has seen: the asking one must be later.
    pub life: Incarnation,
    /// Every pool in which this peer knows the restored node to have a part: each must be attested.
    pub pools: Vec<PoolName>,
    /// The most that this peer has heard the restored node had got back after its sale.
    #[since(2)]
    pub returned: u64,
    /// What it knows of debt rights.
    #[since(2)]
    pub debt: DebtWord,
    /// Whether its own disk is believed, in this pool. Of a peer whose disk is not, no count is taken: what
    /// it has forgotten could be sold again.
    #[since(3)]
    pub standing: Standing,
    /// Lives of this peer before this one are over, its own disk having been restored: whoever asks may
    /// have forgotten that it refused them. 0 if there are none.
    #[since(3)]
    pub refuse_before: Incarnation,
}

/// What nodes tell each other. Each is idempotent and sent again until it is no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = crate)]
pub enum PeerMessage {
    /// Rights, needs and figures of one pool.
    Level(Level),
    /// How far my disk has come.
    Beat(Beat),
    /// How far I have seen your disk come.
    Witnessed(Witnessed),
    /// Stop believing my earlier lives.
    Disown(Disown),
    /// I have, and this is what I know.
    Disowned(Disowned),
}

impl PeerMessage {
    /// The class of the data in it: the pool's, or the mesh's own.
    #[must_use]
    pub fn class(&self) -> DataClass {
        match self {
            Self::Level(level) => level.spec.class.clone(),
            Self::Disowned(Disowned { spec: Some(spec), .. }) => spec.class.clone(),
            Self::Beat(_) | Self::Witnessed(_) | Self::Disown(_) | Self::Disowned(_) => DataClass::control(),
        }
    }
}

/// The stable name of [`PeerMessage`] on the wire. It is told, never asked: it has no reply.
pub const PEER_MESSAGE: &str = "escrow.Peer";
