//! The relay as its users hold it: a handle that starts it, names its addresses, cuts and heals.
//!
//! A node dials a peer by the relay's address for that ordered pair, on 127.0.0.1. What it sends takes
//! the link of that direction; replies come from the same address and take the opposite link.
//!
//! * It never does: decide a datagram's fate ([`Wan`] does) or touch a datagram (the pump does).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rhumb_core::NodeId;
use thiserror::Error;
use tokio::sync::oneshot;

use super::pump::{Route, Shared, bind, spawn};
use super::wan::{Cut, LinkStats, Wan};

/// One ordered pair of nodes: `from` dials `to` through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLink {
    /// The node that dials.
    pub from: NodeId,
    /// The node that is dialled.
    pub to: NodeId,
    /// Where it listens, if that is known yet; see [`Relay::set_target`].
    pub target: Option<SocketAddr>,
}

/// Why the relay did not do as asked.
#[derive(Debug, Error)]
pub enum RelayError {
    /// A socket, thread or runtime could not be had.
    #[error("the relay could not {0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// The world has no link there.
    #[error("no link is planned from {0} to {1}: plan both directions of every pair that is relayed")]
    NoPlan(NodeId, NodeId),
    /// The pair was given twice.
    #[error("the pair {0} to {1} is relayed twice: give it once")]
    Duplicate(NodeId, NodeId),
    /// The address is not on this machine's IPv4 loopback.
    #[error("{0} is not an IPv4 address: the relay stands on 127.0.0.1")]
    NotIpv4(SocketAddr),
    /// No relayed pair leads to this node.
    #[error("no relayed pair leads to node {0}")]
    UnknownNode(NodeId),
    /// No link is concerned by this cut.
    #[error("{0:?} concerns no link of this relay")]
    NothingToCut(Cut),
}

/// Counters of flows since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Flows opened.
    pub opened: u64,
    /// Flows closed because a link had too many.
    pub evicted: u64,
    /// Datagrams for which no flow could be opened.
    pub refused: u64,
    /// Replies dropped because they did not come from the pair's target.
    pub strangers: u64,
    /// Failed receives.
    pub receive_errors: u64,
}

/// All counters of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayStats {
    /// Each link's.
    pub links: Vec<LinkStats>,
    /// The flows'.
    pub flows: FlowStats,
}

/// A running relay. Clones are handles on the same one; it stops when the last is dropped.
#[derive(Debug, Clone)]
pub struct Relay {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    addresses: BTreeMap<(NodeId, NodeId), SocketAddr>,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Relay {
    /// Starts a relay for these pairs in a world that has planned both directions of each. Every
    /// pair's address is known when this returns, whether its target is up or not.
    ///
    /// # Errors
    /// [`RelayError`] when a pair is not planned or given twice, a target is not IPv4, or the system
    /// gives no socket or thread.
    pub fn start(links: Vec<RelayLink>, wan: Wan) -> Result<Self, RelayError> {
        let mut addresses = BTreeMap::new();
        let mut routes = Vec::new();
        let mut listeners = Vec::new();
        for link in links {
            let planned = |from: &NodeId, to: &NodeId| {
                wan.id(from, to).ok_or_else(|| RelayError::NoPlan(from.clone(), to.clone()))
            };
            let (there, back) = (planned(&link.from, &link.to)?, planned(&link.to, &link.from)?);
            link.target.map_or(Ok(()), ipv4)?;
            let listener = bind().map_err(|error| RelayError::System("open a socket", error))?;
            let address =
                listener.local_addr().map_err(|error| RelayError::System("read an address", error))?;
            if addresses.insert((link.from.clone(), link.to.clone()), address).is_some() {
                return Err(RelayError::Duplicate(link.from, link.to));
            }
            routes.push(Route { to: link.to, there, back, target: link.target });
            listeners.push(listener);
        }
        let shared = Arc::new(Shared::new(wan, routes));
        let running = Mutex::new(Some(spawn(shared.clone(), listeners)?));
        Ok(Self { inner: Arc::new(Inner { shared, addresses, running }) })
    }

    /// The address by which `from` dials `to`.
    #[must_use]
    pub fn address(&self, from: &NodeId, to: &NodeId) -> Option<SocketAddr> {
        self.inner.addresses.get(&(from.clone(), to.clone())).copied()
    }

    /// Says where a node listens, from now on and for every pair that leads to it.
    ///
    /// # Errors
    /// [`RelayError::UnknownNode`] and [`RelayError::NotIpv4`].
    pub fn set_target(&self, node: &NodeId, target: SocketAddr) -> Result<(), RelayError> {
        ipv4(target)?;
        let mut state = self.inner.shared.state.lock();
        let mut known = false;
        for route in state.routes.iter_mut().filter(|route| route.to == *node) {
            route.target = Some(target);
            known = true;
        }
        if known { Ok(()) } else { Err(RelayError::UnknownNode(node.clone())) }
    }

    /// Cuts; what is under way there is lost. Cuts add up.
    ///
    /// # Errors
    /// [`RelayError::NothingToCut`] when no link is concerned: a test with it would test nothing.
    pub fn cut(&self, cut: Cut) -> Result<(), RelayError> {
        let mut state = self.inner.shared.state.lock();
        if !state.wan.concerns(&cut) {
            return Err(RelayError::NothingToCut(cut));
        }
        state.wan.cut(cut);
        Ok(())
    }

    /// Takes back a cut; others stay. False when it was not in force.
    pub fn heal(&self, cut: &Cut) -> bool {
        self.inner.shared.state.lock().wan.heal(cut)
    }

    /// Takes back every cut.
    pub fn heal_all(&self) {
        self.inner.shared.state.lock().wan.heal_all();
    }

    /// Works on the world itself, as to change a link's plan. Traffic waits meanwhile: be short.
    pub fn with_wan<T>(&self, work: impl FnOnce(&mut Wan) -> T) -> T {
        work(&mut self.inner.shared.state.lock().wan)
    }

    /// All counters.
    #[must_use]
    pub fn stats(&self) -> RelayStats {
        let state = self.inner.shared.state.lock();
        RelayStats { links: state.wan.stats().cloned().collect(), flows: state.flows }
    }

    /// Stops the relay and waits until its sockets are closed. Dropping the last handle does the same.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        let Some((stop, thread)) = self.running.lock().take() else { return };
        // An error here says that the thread has ended already, which the join reports.
        let _ended = stop.send(());
        if thread.join().is_err() {
            tracing::error!("the relay's thread panicked");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

fn ipv4(address: SocketAddr) -> Result<(), RelayError> {
    if address.is_ipv4() { Ok(()) } else { Err(RelayError::NotIpv4(address)) }
}

#[cfg(test)]
#[path = "udp_tests.rs"]
mod tests;
