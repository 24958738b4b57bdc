//! A relay that makes one machine look like a world: UDP datagrams between nodes pass through it and
//! suffer the delay, jitter, loss and cuts of a wide-area network, so that real QUIC between real
//! processes behaves as it would between continents.
//!
//! * [`wan`] decides (pure): what happens to a datagram on a link.
//! * [`udp`] is its handle: one address per ordered pair of nodes. Behind it `pump` touches the sockets.
//! * It never does: look into a datagram, resend one, or hold more than each link's stated bound.
//! * Invariant: no datagram arrives before its link's delay has passed, and none on a cut link.

pub mod wan;

pub mod udp;

mod pump;

pub use pump::MAX_FLOWS;
pub use udp::{FlowStats, Relay, RelayError, RelayLink, RelayStats};
pub use wan::{Cut, DropReason, Fate, LinkId, LinkPlan, LinkStats, Wan, WanError};
