//! Bytes between the nodes of a mesh: who the peer is, how a message is framed, in which order it
//! arrives, and what a caller may conclude when no answer does.
//!
//! * It decides: whether a connection may speak (identity on both sides, then HELLO), which lane a
//!   message takes, what an interrupted call means ([`rhumb_core::Delivery`]).
//! * It never does: know a policy (it asks the injected [`rhumb_core::Gate`], before bytes leave and
//!   after they arrive), decide where an actor lives, retry a call, or declare a region dead.
//! * Invariants: messages of one pair arrive in the order in which they were sent, within one
//!   connection generation; an old generation has failed before a new one is used; every call ends,
//!   at the latest at its deadline; every queue is bounded.
//!
//! Pure modules decide; what touches sockets is in [`quic`]. [`in_process`] is a mesh without them, for
//! tests of what stands upon transport.

mod admission;
pub mod answer;
mod asked;
pub mod backoff;
pub mod control;
pub mod counts;
mod datagrams;
pub mod envelope;
pub mod error;
pub mod gathering;
pub mod hello;
pub mod identity;
pub mod in_process;
pub mod inbound;
pub mod lanes;
mod link;
pub mod liveness;
pub mod message;
pub mod pending;
pub mod quic;
pub mod relay;
pub mod resilience;
pub mod settings;
mod shares;
pub mod tiebreak;

pub use answer::{Answer, AnswerFuture, Cancelled};
pub use asked::Asked;
pub use counts::{Counted, TransportCounts};
pub use error::{BindError, ConnectError};
pub use gathering::Gathering;
pub use hello::{HelloRefusal, HelloRefusalKind, ManifestEntry};
pub use identity::{
    Certificate, Credentials, CredentialsError, IdentityError, Regions, RevocationList, Trust, TrustDomain,
    issue,
};
pub use inbound::Inbound;
pub use link::{LinkState, LinkStatus, Waiting};
pub use message::{Arrival, Headers, Identity, Kind, Peer, Reply, Request, TraceContext};
pub use quic::{Client, Expect, Transport};
pub use rhumb_core::codec::{self, Bincode, Codec, CodecError, decode, encode};
pub use settings::{SettingsError, TransportSettings};
pub use shares::Held;
pub use tiebreak::Dialed;
