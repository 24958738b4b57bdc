//! What carries messages to other nodes: the one place that knows all the ways there are.

use std::sync::Arc;

#[cfg(feature = "rocks")]
use rhumb_core::FaultKind;
use rhumb_core::{Fault, NodeId};
use rhumb_transport::in_process::{ClientPort, Port};
use rhumb_transport::{Asked, Gathering, Peer, Request, Transport};

use crate::client::MeshClient;

/// What carries messages to other nodes.
#[derive(Clone)]
pub enum Carrier {
    /// QUIC with mutual TLS.
    Quic(Transport),
    /// The network inside one process, for tests.
    InProcess(Port),
    /// That of a program in the same process that only calls.
    InProcessClient(ClientPort),
    /// A program's connections to the nodes.
    Client(Arc<MeshClient>),
}

impl Carrier {
    pub(super) fn begin(&self, to: &NodeId, pair: u64, request: Request) -> Result<Asked, Fault> {
        match self {
            Self::Quic(transport) => transport.begin(to, pair, request),
            Self::InProcess(port) => port.begin(to, pair, request),
            Self::InProcessClient(port) => {
                let (port, to) = (port.clone(), to.clone());
                Ok(Asked::later(async move { port.ask_in_order(&to, pair, request).await }))
            }
            Self::Client(client) => client.begin(to, pair, request),
        }
    }

    /// Whether a node is connected that knows gathered messages.
    pub(super) fn gathers(&self, to: &NodeId) -> bool {
        match self {
            Self::Quic(transport) => transport.gathers(to),
            Self::InProcess(port) => port.gathers(to),
            Self::InProcessClient(port) => port.gathers(to),
            Self::Client(client) => client.gathers(to),
        }
    }

    pub(super) fn gather(
        &self,
        to: &NodeId,
        pair: u64,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Asked, Fault> {
        match self {
            Self::Quic(transport) => transport.gather(to, pair, request, gathering),
            Self::InProcess(port) => port.gather(to, pair, request, gathering),
            Self::InProcessClient(port) => port.gather(to, pair, request, gathering),
            Self::Client(client) => client.gather(to, pair, request, gathering),
        }
    }

    #[cfg(feature = "rocks")]
    pub(super) fn tell(&self, to: &NodeId, pair: u64, request: Request) -> Result<(), Fault> {
        match self {
            Self::Quic(transport) => transport.tell(to, pair, request),
            Self::InProcess(port) => port.tell(to, pair, request),
            Self::Client(_) | Self::InProcessClient(_) => {
                let why = "a program that only calls tells no services".to_owned();
                Err(Fault::not_sent(FaultKind::Unauthorized(why)))
            }
        }
    }

    pub(super) fn peer(&self, node: &NodeId) -> Option<Arc<Peer>> {
        match self {
            Self::Quic(transport) => transport.peer(node),
            Self::InProcess(port) => port.peer(node),
            Self::InProcessClient(port) => port.peer(node),
            Self::Client(client) => client.peer(node),
        }
    }
}
