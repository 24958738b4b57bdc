//! Where messages from peers go: the seam between transport and whoever handles them.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::answer::Answer;
use crate::error::ConnectError;
use crate::message::{Peer, Request};

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
