//! How a peer is connected, to be shown.

use std::net::SocketAddr;
use std::time::Duration;

use rhumb_core::NodeId;

use crate::error::ConnectError;
use crate::identity::Certificate;
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

/// What waits to be written on the lanes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Calls and answers, on all lanes.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Calls and answers on the lane that has the most.
    pub longest: usize,
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
    /// Packets sent on this connection.
    pub sent_packets: u64,
    /// Packets lost on this connection.
    pub lost_packets: u64,
    /// Times that this side told the peer that it had more to send than a window, or the number of
    /// streams, allowed.
    pub blocked: u64,
    /// What waits to be written on its lanes.
    pub waiting: Waiting,
    /// Counts the connections, from 1; 0 before the first.
    pub generation: u64,
    /// How long it has been in this state.
    pub since: Duration,
    /// Why the last attempt to connect failed, in types.
    pub last_error: Option<ConnectError>,
    /// The certificate that the peer showed on this connection; `None` without one.
    pub certificate: Option<Certificate>,
    /// Those that it showed on connections that have given way to this one, and still end calls.
    pub draining: Vec<Certificate>,
}
