//! Who is joined to a network: what the others see of it, and its connections.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rhumb_core::{Fault, FaultKind, NodeId, Principal, Role};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::Link;
use super::paths::Seat;
use crate::hello::ManifestEntry;
use crate::link::{End, LinkState, LinkStatus, Node};
use crate::message::Peer;
use crate::tiebreak::Dialed;

/// The address of what has none.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a node says of itself as it joins. Its certificate is taken to name it as `id` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDescription {
    /// The node.
    pub id: NodeId,
    /// The messages that it understands.
    pub manifest: Vec<ManifestEntry>,
    /// The signing key of its region.
    pub public_key: Vec<u8>,
    /// Which life of the node on its disk.
    pub incarnation: u64,
    /// The program's version.
    pub build: String,
}

impl NodeDescription {
    /// A node in its first life that says nothing else of itself.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self { id, manifest: Vec::new(), public_key: Vec::new(), incarnation: 1, build: "in process".into() }
    }

    pub(crate) fn principal(&self) -> Principal {
        Principal { role: Role::Node, region: self.id.region.clone(), name: self.id.name.to_string() }
    }
}

/// One life of a node, or a client.
pub(crate) struct Member {
    pub(crate) seat: Seat,
    pub(crate) node: Arc<Node>,
    /// What the others see; generations are theirs.
    seen: Peer,
    slots: Mutex<BTreeMap<Seat, Slot>>,
    left: watch::Sender<bool>,
    changed: watch::Sender<u64>,
}

/// The connection with one other.
struct Slot {
    link: Option<Arc<Link>>,
    generation: u64,
    since: Instant,
    last_end: Option<String>,
}

impl Member {
    pub(crate) fn of_node(description: NodeDescription, node: Node) -> Self {
        let seen = Peer {
            principal: description.principal(),
            node: Some(description.id.clone()),
            generation: 0,
            address: NOWHERE,
            manifest: description.manifest,
            public_key: description.public_key,
            incarnation: description.incarnation,
            build: description.build,
        };
        Self::new(Seat::Node(description.id), seen, node)
    }

    pub(crate) fn of_client(principal: Principal, number: u64, node: Node) -> Self {
        let seat = Seat::Client { region: principal.region.clone(), number };
        let seen = Peer {
            principal,
            node: None,
            generation: 0,
            address: NOWHERE,
            manifest: Vec::new(),
            public_key: Vec::new(),
            incarnation: 0,
            build: "in process".into(),
        };
        Self::new(seat, seen, node)
    }

    fn new(seat: Seat, seen: Peer, node: Node) -> Self {
        Self {
            seat,
            node: Arc::new(node),
            seen,
            slots: Mutex::default(),
            left: watch::Sender::new(false),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.seen.principal
    }

    /// This member as another sees it on a connection.
    pub(crate) fn seen(&self, generation: u64) -> Arc<Peer> {
        Arc::new(Peer { generation, ..self.seen.clone() })
    }

    /// There is another, with whom it will be connected.
    pub(crate) fn meet(&self, other: &Seat) {
        let slot = || Slot { link: None, generation: 0, since: Instant::now(), last_end: None };
        self.slots.lock().entry(other.clone()).or_insert_with(slot);
    }

    /// A new connection moves in. The one that was there has failed before.
    pub(crate) fn move_in(&self, other: &Seat, make: impl FnOnce(u64) -> Arc<Link>) -> Arc<Link> {
        self.meet(other);
        let old = self.slots.lock().get_mut(other).and_then(|slot| slot.link.take());
        if let Some(old) = old {
            old.close(&End::Replaced);
        }
        let link = {
            let mut slots = self.slots.lock();
            let slot = slots.get_mut(other).expect("met above");
            slot.generation += 1;
            let link = make(slot.generation);
            (slot.link, slot.since, slot.last_end) = (Some(Arc::clone(&link)), Instant::now(), None);
            link
        };
        self.changed.send_modify(|changes| *changes += 1);
        link
    }

    /// A connection has ended. Nothing happens when another has moved in.
    pub(crate) fn ended(&self, other: &Seat, link: &Arc<Link>, end: &End) {
        {
            let mut slots = self.slots.lock();
            let Some(slot) = slots.get_mut(other) else { return };
            if !slot.link.as_ref().is_some_and(|present| Arc::ptr_eq(present, link)) {
                return;
            }
            (slot.link, slot.since, slot.last_end) = (None, Instant::now(), Some(end.to_string()));
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    pub(crate) fn link(&self, other: &Seat) -> Option<Arc<Link>> {
        self.slots.lock().get(other).and_then(|slot| slot.link.clone())
    }

    /// The connection with a node, or why there is none.
    pub(crate) fn link_to(&self, to: &NodeId) -> Result<Arc<Link>, Fault> {
        let slots = self.slots.lock();
        let why = match slots.get(&Seat::Node(to.clone())) {
            Some(Slot { link: Some(link), .. }) => return Ok(Arc::clone(link)),
            Some(Slot { last_end: Some(end), .. }) => end,
            Some(_) => "not connected yet",
            None => "not a peer of this node",
        };
        Err(Fault::not_sent(FaultKind::Unreachable(format!("{to}: {why}"))))
    }

    /// Whether it has ever been connected with a node; `None` when there never was such a node.
    pub(crate) fn was_connected(&self, to: &NodeId) -> Option<bool> {
        self.slots.lock().get(&Seat::Node(to.clone())).map(|slot| slot.generation > 0)
    }

    /// Waits until it is connected with a node.
    pub(crate) async fn until_connected(&self, to: &NodeId) {
        self.until(|slots| slots.get(&Seat::Node(to.clone())).is_some_and(|slot| slot.link.is_some())).await;
    }

    /// Waits until it is connected with nobody.
    pub(crate) async fn until_alone(&self) {
        self.until(|slots| slots.values().all(|slot| slot.link.is_none())).await;
    }

    async fn until(&self, wanted: impl Fn(&BTreeMap<Seat, Slot>) -> bool) {
        let mut changes = self.changed.subscribe();
        while !wanted(&self.slots.lock()) {
            // The sender lives in this member, so waiting cannot fail.
            let _ = changes.changed().await;
        }
    }

    pub(crate) fn all_links(&self) -> Vec<Arc<Link>> {
        self.slots.lock().values().filter_map(|slot| slot.link.clone()).collect()
    }

    /// Takes no more calls, and no more connections.
    pub(crate) fn leave(&self) {
        self.node.draining.store(true, Ordering::Release);
        self.left.send_replace(true);
        for link in self.all_links() {
            link.close(&End::Lost("this node is closing".to_owned()));
        }
    }

    pub(crate) fn has_left(&self) -> bool {
        *self.left.borrow()
    }

    pub(crate) async fn until_left(&self) {
        // The sender lives in this member, so waiting cannot fail.
        let _ = self.left.subscribe().wait_for(|left| *left).await;
    }

    /// The nodes and its connections with them.
    pub(crate) fn links(&self) -> Vec<LinkStatus> {
        let slots = self.slots.lock();
        let nodes = slots.iter().filter_map(|(seat, slot)| Some((seat.node()?, slot)));
        nodes.map(|(peer, slot)| self.status(peer, slot)).collect()
    }

    fn status(&self, peer: &NodeId, slot: &Slot) -> LinkStatus {
        let state = match (&slot.link, &slot.last_end) {
            (Some(link), _) if link.going_away.load(Ordering::Acquire) => LinkState::Draining,
            (Some(_), _) => LinkState::Connected,
            (None, Some(end)) => LinkState::Down(end.clone()),
            (None, None) => LinkState::Connecting,
        };
        let dialed =
            if self.seat.node().is_none_or(|own| own < peer) { Dialed::ByUs } else { Dialed::ByPeer };
        LinkStatus {
            peer: peer.clone(),
            address: None,
            state,
            dialed: slot.link.is_some().then_some(dialed),
            rtt: slot.link.as_ref().map(|link| crate::link::Wire::rtt(&link.wire)),
            sent_packets: 0,
            lost_packets: 0,
            blocked: 0,
            waiting: slot.link.as_ref().map(|link| link.waiting()).unwrap_or_default(),
            generation: slot.generation,
            since: slot.since.elapsed(),
            last_error: None,
            certificate: None,
            draining: Vec::new(),
        }
    }
}
