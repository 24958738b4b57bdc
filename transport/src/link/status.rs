//! How a peer is connected, to be shown.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_core::NodeId;

use crate::error::ConnectError;
use crate::tiebreak::Dialed;

/// How a peer is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// No connection yet, and none has failed.
    Connecting,
    /// HELLO was exchanged.
    Connected,
    /// Connected, and the peer takes no more calls.
    Draining,
    /// No connection: the last attempt, or the last connection, failed for this reason.
    Down(String),
}

/// A peer's connection, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStatus {
    /// The peer.
    pub peer: NodeId,
    /// Where it is dialled, if this node dials it.
    pub address: Option<SocketAddr>,
    /// How it is connected.
    pub state: LinkState,
    /// Who opened the connection that there is.
    pub dialed: Option<Dialed>,
    /// The smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Packets lost on this connection.
    pub lost_packets: u64,
    /// Counts the connections, from 1; 0 before the first.
    pub generation: u64,
    /// How long it has been in this state.
    pub since: Duration,
    /// Why the last attempt to connect failed, in types.
    pub last_error: Option<ConnectError>,
}
