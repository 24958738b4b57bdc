//! The network itself: who is joined, and the test's hand on what is between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_core::limits::MAX_NODES;
use rhumb_core::{Gate, NodeId, Principal, Role};
use tokio::runtime::Handle;

use super::cable::{Cable, Duct, World};
use super::connection::{Link, serve};
use super::member::{Member, NodeDescription};
use super::paths::{Paths, Place, Seat};
use super::port::{ClientPort, Port};
use crate::codec::{Bincode, Codec};
use crate::hello::{Agreement, VERSIONS};
use crate::inbound::Inbound;
use crate::link::{End, Node, Outside};
use crate::settings::TransportSettings;

/// The longest delay that may be set.
const LONGEST: Duration = Duration::from_secs(3600);

/// A network inside this process. A handle: clones are the same network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.inner.members.lock().keys()).finish()
    }
}

struct Inner {
    world: Arc<World>,
    settings: TransportSettings,
    /// Where the tasks of connections run.
    runtime: Handle,
    members: Mutex<BTreeMap<Seat, Arc<Member>>>,
    /// Everyone who was ever joined.
    known: Mutex<BTreeSet<Seat>>,
    clients: AtomicU64,
}

impl Network {
    /// A network without delays, with the settings of a node's transport. Equal seeds draw equal
    /// jitter, if any is asked for. Its tasks run on the tokio runtime in which it is made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, TransportSettings::default())
    }

    /// A network whose links have these settings: the bounds of lanes and of calls, the windows, the
    /// limit of silence. Those that only sockets need are not looked at.
    ///
    /// # Panics
    /// When the settings contradict each other, and as [`Network::new`].
    #[must_use]
    pub fn with(seed: u64, settings: TransportSettings) -> Self {
        if let Err(error) = settings.validate() {
            panic!("{error}");
        }
        let inner = Inner {
            world: Arc::new(World::new(seed)),
            settings,
            runtime: Handle::current(),
            members: Mutex::default(),
            known: Mutex::default(),
            clients: AtomicU64::new(1),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Connections that are made from now on are of this protocol version, as if one side were of an older
    /// build.
    ///
    /// # Panics
    /// When this build does not speak it.
    pub fn speak(&self, version: u16) {
        assert!((VERSIONS.0..=VERSIONS.1).contains(&version), "this build speaks versions {VERSIONS:?}");
        self.inner.world.version.store(version, Ordering::Relaxed);
    }

    /// A node joins, and comes to be connected with every other (see [`Port::connected`]). One that has
    /// left may join again, thawed if it was frozen: say a higher incarnation if it is to count as a
    /// new life.
    ///
    /// # Panics
    /// When a node of this id is joined, or as many as a mesh may have.
    pub fn join(&self, description: NodeDescription, gate: Arc<dyn Gate>, inbound: Arc<dyn Inbound>) -> Port {
        let nodes = self.inner.members.lock().keys().filter(|seat| seat.node().is_some()).count();
        assert!(nodes < MAX_NODES, "a mesh has at most {MAX_NODES} nodes");
        let region = description.id.region.clone();
        let node = Node::new(region, gate, inbound, self.inner.settings.clone());
        self.change(|paths| paths.set_frozen(&description.id, false));
        Port::new(self.clone(), self.seat(Member::of_node(description, node)))
    }

    /// A program that only calls, of a client's or an operator's role; it may ask every node. Without a
    /// gate of its own the nodes' gates decide alone, as they do over QUIC.
    ///
    /// # Panics
    /// When the principal is a node, or there are as many clients as a transport lets in.
    #[must_use]
    pub fn client(&self, principal: Principal, gate: Option<Arc<dyn Gate>>) -> ClientPort {
        assert!(principal.role != Role::Node, "{principal} is no client: a node joins");
        let clients = self.inner.members.lock().keys().filter(|seat| seat.node().is_none()).count();
        assert!(clients < self.inner.settings.max_clients, "as many clients as may be: {clients}");
        let number = self.inner.clients.fetch_add(1, Ordering::Relaxed);
        let gate = gate.unwrap_or_else(|| Arc::new(Outside));
        let region = principal.region.clone();
        let node = Node::new(region, gate, Arc::new(Outside), self.inner.settings.clone());
        ClientPort::new(self.clone(), self.seat(Member::of_client(principal, number, node)))
    }

    /// From now on, what is sent from one place to the other takes so long. One way.
    ///
    /// # Panics
    /// When that is more than an hour.
    pub fn delay(&self, from: impl Into<Place>, to: impl Into<Place>, takes: Duration) {
        assert!(takes <= LONGEST, "{takes:?} is longer than {LONGEST:?}");
        let (from, to) = (from.into(), to.into());
        self.change(|paths| paths.set_delay(from, to, takes));
    }

    /// From now on, what is sent between two places takes so long, each way.
    ///
    /// # Panics
    /// As [`Network::delay`].
    pub fn delay_between(&self, one: impl Into<Place>, other: impl Into<Place>, takes: Duration) {
        let (one, other) = (one.into(), other.into());
        self.delay(one.clone(), other.clone(), takes);
        self.delay(other, one, takes);
    }

    /// From now on, everything takes up to so much longer, drawn from the seed. Messages of one pair
    /// keep their order; others need not.
    ///
    /// # Panics
    /// As [`Network::delay`].
    pub fn jitter(&self, up_to: Duration) {
        assert!(up_to <= LONGEST, "{up_to:?} is longer than {LONGEST:?}");
        self.change(|paths| paths.set_jitter(up_to));
    }

    /// Nothing passes between two places, either way, until it is healed. What was sent waits; when
    /// that takes too long (the limit of silence, 1.5 s unless set), connections end.
    ///
    /// # Panics
    /// When nobody of one of the places has ever joined: a cut that cuts nothing is a mistake.
    pub fn cut(&self, one: impl Into<Place>, other: impl Into<Place>) {
        let (one, other) = (one.into(), other.into());
        self.must_know(&[&one, &other]);
        self.change(|paths| {
            paths.set_cut(one.clone(), other.clone(), true);
            paths.set_cut(other, one, true);
        });
    }

    /// Nothing passes from one place to the other; the other way stays as it is.
    ///
    /// # Panics
    /// As [`Network::cut`].
    pub fn cut_one_way(&self, from: impl Into<Place>, to: impl Into<Place>) {
        let (from, to) = (from.into(), to.into());
        self.must_know(&[&from, &to]);
        self.change(|paths| paths.set_cut(from, to, true));
    }

    /// Everything passes between two places, either way, whatever was cut before.
    pub fn heal(&self, one: impl Into<Place>, other: impl Into<Place>) {
        let (one, other) = (one.into(), other.into());
        self.change(|paths| {
            paths.set_cut(one.clone(), other.clone(), false);
            paths.set_cut(other, one, false);
        });
    }

    /// Nothing is cut any more. Delays stay, and who is frozen.
    pub fn heal_all(&self) {
        self.change(Paths::heal_all);
    }

    /// A node stands still: nothing reaches it and nothing leaves it, its own calls neither. Everything
    /// waits until it is thawed, or until its peers have found it silent for too long.
    ///
    /// # Panics
    /// When no such node has ever joined.
    pub fn freeze(&self, node: &NodeId) {
        self.must_know(&[&node.into()]);
        self.change(|paths| paths.set_frozen(node, true));
    }

    /// A frozen node goes on.
    pub fn thaw(&self, node: &NodeId) {
        self.change(|paths| paths.set_frozen(node, false));
    }

    /// The nodes that are joined, in order of their ids.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.inner.members.lock().keys().filter_map(|seat| seat.node().cloned()).collect()
    }

    fn change(&self, change: impl FnOnce(&mut Paths)) {
        self.inner.world.paths.send_modify(change);
    }

    fn must_know(&self, places: &[&Place]) {
        let known = self.inner.known.lock();
        for place in places {
            assert!(known.iter().any(|seat| place.covers(seat)), "nobody of {place} has ever joined");
        }
    }

    fn seat(&self, member: Member) -> Arc<Member> {
        let member = Arc::new(member);
        let mut members = self.inner.members.lock();
        assert!(!members.contains_key(&member.seat), "{} is joined already", member.principal());
        let is_node = |seat: &Seat| seat.node().is_some();
        for other in members.values().filter(|other| is_node(&member.seat) || is_node(&other.seat)) {
            member.meet(&other.seat);
            other.meet(&member.seat);
            let (one, other) = (Arc::clone(&member), Arc::clone(other));
            self.inner.runtime.spawn(keep(Arc::clone(&self.inner.world), one, other));
        }
        self.inner.known.lock().insert(member.seat.clone());
        members.insert(member.seat.clone(), Arc::clone(&member));
        member
    }

    /// One life of a member ends.
    pub(crate) fn unseat(&self, member: &Arc<Member>) {
        {
            let mut members = self.inner.members.lock();
            if members.get(&member.seat).is_some_and(|present| Arc::ptr_eq(present, member)) {
                members.remove(&member.seat);
            }
        }
        member.leave();
    }
}

/// Keeps two connected until one of them leaves.
async fn keep(world: Arc<World>, one: Arc<Member>, other: Arc<Member>) {
    let left = async {
        tokio::select! {
            () = one.until_left() => {}
            () = other.until_left() => {}
        }
    };
    tokio::pin!(left);
    while tokio::select! {
        biased;
        () = &mut left => false,
        () = reach(&world, &one.seat, &other.seat) => true,
    } {
        if one.node.draining.load(Ordering::Acquire) || other.node.draining.load(Ordering::Acquire) {
            return;
        }
        let (at_one, at_other) = connect(&world, &one, &other);
        tokio::join!(
            serve_until_end(&one, &other.seat, at_one),
            serve_until_end(&other, &one.seat, at_other)
        );
        // Not at once: what ended a connection may end the next.
        tokio::select! {
            biased;
            () = &mut left => return,
            () = tokio::time::sleep(one.node.settings.connect_backoff_min) => {}
        }
    }
}

/// Waits until a handshake has gone there and back.
async fn reach(world: &World, one: &Seat, other: &Seat) {
    loop {
        world.until(|paths| paths.lets_connect(one, other)).await;
        let takes = world.there_and_back(one, other);
        if takes.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            () = world.until(|paths| !paths.lets_connect(one, other)) => {}
            () = tokio::time::sleep(takes) => return,
        }
    }
}

fn connect(world: &Arc<World>, one: &Member, other: &Member) -> (Arc<Link>, Arc<Link>) {
    let (settings, version) = (&one.node.settings, world.version.load(Ordering::Relaxed));
    let agreement = Agreement { version, codec: Bincode::ID, lanes: settings.lanes };
    let duct = || Duct::new(settings.lanes, settings.stream_window);
    let (there, back) = (duct(), duct());
    let end = |own: &Member, peer: &Member, outward: &Arc<Duct>, inward: &Arc<Duct>| {
        own.move_in(&peer.seat, |generation| {
            let cable = Cable::new(world, (&own.seat, &peer.seat), (outward, inward), generation);
            Link::new(Arc::clone(&own.node), peer.seen(generation), cable, agreement)
        })
    };
    let (at_one, at_other) = (end(one, other, &there, &back), end(other, one, &back, &there));
    for link in [&at_other, &at_one] {
        link.node.inbound.connected(&link.peer);
    }
    // Who left in this very moment has not seen the link.
    if one.has_left() || other.has_left() {
        let end = End::Lost("this node is closing".to_owned());
        at_one.close(&end);
        at_other.close(&end);
    }
    (at_one, at_other)
}

async fn serve_until_end(member: &Member, peer: &Seat, link: Arc<Link>) {
    let end = serve(Arc::clone(&link)).await;
    member.ended(peer, &link, &end);
}
