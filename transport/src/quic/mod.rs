//! What touches sockets: QUIC by quinn, TLS by rustls. The decisions are made in the pure modules of
//! this room; these files move bytes, keep timers, and hold the handles.
//!
//! One connection between two nodes carries a control stream (HELLO, GOAWAY, cancellations), lanes
//! (long-lived streams of frames, one direction each) and streams of their own for what is too large
//! for a lane. FIN is never the end of a message, and a stream dropped in the middle is reset.

mod accept;
mod asking;
mod client;
mod close;
mod config;
mod greeting;
mod keep;
mod large;
mod link;
mod receive;
mod slot;
mod socket;
mod stream;
mod tasks;
mod transport;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::answer::Answer;
use crate::error::ConnectError;
use crate::message::{Peer, Request};

pub use client::{Client, Expect};
pub use slot::{LinkState, LinkStatus};
pub use transport::Transport;

/// The application protocol in TLS.
pub const ALPN: &[u8] = b"rhumb/1";

/// Where messages from peers go. No method may block: they are called by the tasks that read lanes.
pub trait Inbound: Send + Sync + 'static {
    /// A message has come, has passed the ingress gate, and is to be answered (a tell's answer goes
    /// nowhere). Called in order for messages of one lane.
    fn deliver(&self, from: &Arc<Peer>, request: Request, answer: Answer);

    /// A peer is connected. Nothing of this generation was delivered before.
    fn connected(&self, _peer: &Arc<Peer>) {}

    /// A connection has ended. Nothing of this generation is delivered after.
    fn disconnected(&self, _peer: &Arc<Peer>) {}

    /// Someone who connected was turned away.
    fn refused(&self, _from: SocketAddr, _why: &ConnectError) {}
}
