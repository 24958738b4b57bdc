//! The mesh as seen from one node: where actors live, and how they are called.
//!
//! * It decides: what goes with a call ([`Call`]), whether it may be made (its class, its chain, its
//!   deadline), and where it goes.
//! * It never does: retry unasked, let a call wait without a deadline, or pass a message on: it goes to the
//!   actor's node directly, or not at all.
//! * Invariant: every call ends with the reply or a typed fault.

pub mod address;
pub mod any;
mod asking;
pub(crate) mod body;
mod broadcast;
mod carrier;
pub mod clock;
pub mod dead_letters;
pub(crate) mod dispatch;
mod durably;
mod following;
pub(crate) mod keyspaces;
pub(crate) mod near;
pub(crate) mod owners;
mod place;
mod reads;
pub mod recipient;
pub mod registry;
pub mod resilience;
pub(crate) mod service;
pub mod status;
pub mod teller;
pub(crate) mod told;
pub mod watch;
pub mod whose;

use std::cell::RefCell;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use opentelemetry::trace::SpanKind;
use parking_lot::Mutex;
use rhumb_actors::audit::AuditHandle;
use rhumb_actors::clock::Freeze;
use rhumb_actors::remote::{Addressed, Remote};
#[cfg(feature = "rocks")]
use rhumb_core::wire::Wire;
use rhumb_core::{DataClass, Epoch, Fault, FaultKind, HybridTime, NodeId, Region};
use rhumb_topology::Founding;
use rhumb_topology::policy::PolicySnapshot;
use rhumb_transport::resilience::breaker::Went;
use rhumb_transport::resilience::mode::Mode;
use rhumb_transport::{Answer, Asked, Gathering, Headers, Peer, Reply, Request, TraceContext, Transport};
#[cfg(feature = "rocks")]
use serde::Serialize;
use tokio::time::Instant;

use self::asking::Waits;
use self::body::{pack, unpack_reply};
use self::keyspaces::Keyspaces;
use self::place::Places;
use self::resilience::{Passing, Resilience};
use crate::clock::NodeClock;
use crate::delivery::Delivery;
use crate::host::id::{ActorId, Shown};
use crate::host::{Call, Hosts};
use crate::metrics::calls::{Calls, UnderWay};
use crate::telemetry::{self, Span, Tracer, What, current_trace, names};

pub use address::{Ask, MeshAddr, Tell};
pub use any::{AnyOf, AskAny};
pub use broadcast::Broadcast;
pub use carrier::Carrier;
pub(crate) use service::serve;
pub use teller::{Failed, Teller, Told};
pub use watch::{Seen, Watch};
pub use whose::{Because, Owned, OwnerWatch};

/// How this side finds an actor's node.
enum Whereabouts {
    /// It knows the founding list and the policy.
    Known(Places),
    /// It asks one of these nodes.
    Asked(Vec<NodeId>),
}

/// The mesh, as seen from one node, or from a program that only calls. Cloneable; all clones are one.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    region: Region,
    /// None for a program that only calls.
    here: Option<NodeId>,
    places: Whereabouts,
    clock: Option<NodeClock>,
    carrier: OnceLock<Carrier>,
    hosts: OnceLock<Weak<Hosts>>,
    epoch: OnceLock<Epoch>,
    watches: service::Watches,
    calls: Arc<Calls>,
    tracer: OnceLock<Tracer>,
    audit: OnceLock<AuditHandle>,
    keyspaces: OnceLock<Arc<dyn Keyspaces>>,
    delivery: OnceLock<Delivery>,
    owners: OnceLock<owners::Owners>,
    resilience: OnceLock<Arc<Resilience>>,
    mode: tokio::sync::watch::Sender<Mode>,
    /// For what sign that is less than all.
    why: Mutex<Option<&'static str>>,
}

/// A question on its way to another node.
struct Carried {
    asked: Asked,
    under_way: UnderWay,
    passing: Option<Passing>,
}

impl Carried {
    async fn answer(mut self) -> Result<Reply, Fault> {
        let ended = self.asked.await;
        let fault = ended.as_ref().err();
        let (now, took) = self.under_way.end(fault);
        if let Some(passing) = self.passing.take() {
            passing.went(now, took, fault);
        }
        ended
    }
}

/// What a breaker let through has been sent, or has not. What has not left says nothing of whom it was for, also where
/// it is a fault that the other side could have given (its own lane is full); but that there is no way there.
fn passed(passing: Option<Passing>, sent: Result<Carried, Fault>) -> Result<Carried, Fault> {
    match (sent, passing) {
        (Ok(carried), passing) => Ok(Carried { passing, ..carried }),
        (Err(fault), passing) => {
            let passing = passing.filter(|_| matches!(fault.kind, FaultKind::Unreachable(_)));
            if let Some(passing) = passing {
                passing.went(Instant::now(), Duration::ZERO, Some(&fault));
            }
            Err(fault)
        }
    }
}

thread_local! {
    /// The mesh in which a message is being decoded: addresses in it belong there.
    static DECODING: RefCell<Option<Mesh>> = const { RefCell::new(None) };
}

impl Mesh {
    /// The mesh as seen from node `here`. Until its carrier is bound, every call to another node is
    /// `Unreachable`.
    #[must_use]
    pub fn new(
        here: NodeId,
        founding: Founding,
        policy: Arc<ArcSwap<PolicySnapshot>>,
        clock: NodeClock,
    ) -> Self {
        let places = Whereabouts::Known(Places { founding, policy });
        Self::of(here.region.clone(), Some(here), places, Some(clock))
    }

    /// The mesh as a program in this region sees it that can call actors on these nodes, and hosts none.
    pub(crate) fn of_program(region: Region, nodes: Vec<NodeId>, carrier: Carrier) -> Self {
        let mesh = Self::of(region, None, Whereabouts::Asked(nodes), None);
        mesh.bound(carrier);
        mesh
    }

    fn of(region: Region, here: Option<NodeId>, places: Whereabouts, clock: Option<NodeClock>) -> Self {
        let inner = Inner {
            region,
            here,
            places,
            clock,
            carrier: OnceLock::new(),
            hosts: OnceLock::new(),
            epoch: OnceLock::new(),
            watches: service::Watches::default(),
            calls: Arc::default(),
            tracer: OnceLock::new(),
            audit: OnceLock::new(),
            keyspaces: OnceLock::new(),
            delivery: OnceLock::new(),
            owners: OnceLock::new(),
            resilience: OnceLock::new(),
            mode: tokio::sync::watch::Sender::default(),
            why: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The carrier is bound.
    pub fn bound(&self, carrier: Carrier) {
        assert!(self.inner.carrier.set(carrier).is_ok(), "a mesh is bound once");
    }

    /// Makes spans of the calls that pass by here and whose traces are kept.
    ///
    /// # Panics
    /// When it does so already.
    pub fn traced(&self, tracer: Tracer) {
        assert!(self.inner.tracer.set(tracer).is_ok(), "a mesh is traced once");
    }

    /// The node's audit log, for what a program does that must be proved. None for a program that hosts nothing,
    /// and in a test's mesh.
    #[must_use]
    pub fn audit(&self) -> Option<&AuditHandle> {
        self.inner.audit.get()
    }

    /// The node has this audit log.
    ///
    /// # Panics
    /// When it has one already.
    #[cfg(feature = "rocks")]
    pub(crate) fn audits(&self, log: AuditHandle) {
        assert!(self.inner.audit.set(log).is_ok(), "a mesh is given its audit log once");
    }

    /// The node has these keyspaces.
    ///
    /// # Panics
    /// When it was told before.
    #[cfg(any(feature = "rocks", test))]
    pub(crate) fn keeps(&self, keyspaces: Arc<dyn Keyspaces>) {
        assert!(self.inner.keyspaces.set(keyspaces).is_ok(), "a mesh is given its keyspaces once");
    }

    /// The node's way to keyspaces. None for a program that hosts nothing.
    pub(crate) fn keyspaces(&self) -> Option<&Arc<dyn Keyspaces>> {
        self.inner.keyspaces.get()
    }

    /// What makes its spans, if something does.
    pub(crate) fn tracer(&self) -> Option<&Tracer> {
        self.inner.tracer.get()
    }

    /// The span of a call that begins here, and what goes with it: it goes on what is said, or what this
    /// thread works for; else it begins a trace.
    fn watch<'a>(
        &self,
        said: Option<TraceContext>,
        what: impl FnOnce() -> What<'a>,
    ) -> (Option<Span>, Option<TraceContext>) {
        telemetry::watch(self.tracer(), said.or_else(current_trace), said.is_some(), what)
    }

    /// The actor types that this node hosts, and the epoch of their instances.
    pub(crate) fn hosts(&self, hosts: &Arc<Hosts>, epoch: Epoch) {
        assert!(self.inner.epoch.set(epoch).is_ok(), "a mesh is given its hosts once");
        assert!(self.inner.hosts.set(Arc::downgrade(hosts)).is_ok(), "a mesh is given its hosts once");
    }

    /// This node; none for a program that only calls.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.inner.here.as_ref()
    }

    /// This side's region.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.inner.region
    }

    /// The life of this node; zero before it hosts anything.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch.get().copied().unwrap_or(Epoch(0))
    }

    /// The present hybrid time; zero for a program that only calls: it has no clock in the mesh.
    #[must_use]
    pub fn hybrid(&self) -> HybridTime {
        self.inner.clock.as_ref().map_or(HybridTime::ZERO, NodeClock::hybrid)
    }

    /// The present hybrid time, for what is right only while the clocks of the mesh differ by no more than
    /// `mesh.max_offset`. See [`NodeClock::strong_time`].
    ///
    /// # Errors
    /// Why this node's clock is not good enough at this moment; a program that only calls has no clock in the mesh, and is
    /// told [`Freeze::NeverAgreed`].
    pub fn strong_time(&self) -> Result<HybridTime, Freeze> {
        let none = || Err(Freeze::NeverAgreed { heard: 0, needed: 1 });
        self.inner.clock.as_ref().map_or_else(none, NodeClock::strong_time)
    }

    /// Whether what was learnt under one class may go on under another.
    pub(crate) fn no_less_strict(&self, class: &DataClass, than: &DataClass) -> bool {
        // Mostly they are the same, which needs no policy.
        class == than || self.policy().is_some_and(|policy| policy.no_less_strict(class, than))
    }

    /// The actor with this key. It names an identity and not a place: it costs nothing, and cannot
    /// fail before it is called.
    #[must_use]
    pub fn actor<A: Addressed>(&self, key: impl ToString) -> MeshAddr<A> {
        MeshAddr::new(ActorId::new(A::TYPE, None, &key.to_string()), Some(self.clone()))
    }

    /// The actor with this name. A name is a key that people chose.
    #[must_use]
    pub fn named<A: Addressed>(&self, name: &str) -> MeshAddr<A> {
        self.actor(name)
    }

    /// The only actor of its type in the mesh.
    #[must_use]
    pub fn singleton<A: Addressed>(&self) -> MeshAddr<A> {
        self.actor("")
    }

    /// The actor with this key that lives strictly in a region: never elsewhere, also when the region
    /// cannot be reached. It is another one than the actor with the same key elsewhere.
    #[must_use]
    pub fn actor_in<A: Addressed>(&self, region: &Region, key: impl ToString) -> MeshAddr<A> {
        MeshAddr::new(ActorId::new(A::TYPE, Some(region.clone()), &key.to_string()), Some(self.clone()))
    }

    /// Any actor of a type of which all are equal: asked where that is best. See [`AnyOf`].
    #[must_use]
    pub fn any<A: Addressed>(&self) -> AnyOf<A> {
        AnyOf::new(self.clone())
    }

    /// The nodes that may have equal actors whose state is of this class. A program asks all, and learns who has none.
    fn equals(&self, class: &DataClass) -> Vec<NodeId> {
        match &self.inner.places {
            Whereabouts::Known(places) => places.equals(class),
            Whereabouts::Asked(nodes) => nodes.clone(),
        }
    }

    /// What the node hosts, if it hosts actors and has not stopped.
    #[must_use]
    pub fn hosted(&self) -> Option<Arc<Hosts>> {
        self.inner.hosts.get()?.upgrade()
    }

    /// How much this node does, for services that leave out what can wait: each change is heard of. A program that
    /// only calls is always at its target.
    #[must_use]
    pub fn modes(&self) -> tokio::sync::watch::Receiver<Mode> {
        self.inner.mode.subscribe()
    }

    /// How much this node does from now on, and for what sign.
    pub(crate) fn does(&self, mode: Mode, why: Option<&'static str>) {
        *self.inner.why.lock() = why;
        self.inner.mode.send_replace(mode);
    }

    /// For what sign it does less than all.
    #[cfg(feature = "rocks")]
    pub(crate) fn does_less_for(&self) -> Option<&'static str> {
        *self.inner.why.lock()
    }

    /// The transport, once it is bound, where it is QUIC.
    #[must_use]
    pub fn transport(&self) -> Option<&Transport> {
        match self.inner.carrier.get()? {
            Carrier::Quic(transport) => Some(transport),
            Carrier::InProcess(_) | Carrier::InProcessClient(_) | Carrier::Client(_) => None,
        }
    }

    /// Asks the service of another node that serves `M`. Gives the reply and the class of the data in
    /// it.
    ///
    /// # Errors
    /// A typed fault that says whether the handler may have run.
    pub(crate) async fn ask_node<M: Remote>(
        &self,
        to: &NodeId,
        message: &M,
        class: DataClass,
        within: Duration,
    ) -> Result<(M::Reply, DataClass), Fault> {
        let what = || What::rpc(M::NAME, SpanKind::Client, &class);
        let (span, trace) = self.watch(None, what);
        let headers = Headers { trace, ..self.headers(within) };
        let asked = telemetry::within(span.as_ref(), async {
            let body = telemetry::part(names::ENCODE, || pack(M::NAME, message))?;
            let request = Request::ask(M::NAME, class.clone(), body, headers);
            let reply = self.carry(to, registry::fnv(M::NAME.bytes()), request)?.answer().await?;
            let body = self.received(&reply);
            let replied = telemetry::part(names::DECODE, || unpack_reply(M::NAME, body))?;
            Ok((replied, reply.class))
        });
        let asked = asked.await;
        if let Some(span) = span {
            self.reached(to, &span);
            span.went(asked.as_ref().map(|_| ()));
        }
        asked
    }

    /// As [`Mesh::ask_node`], for what nodes ask each other of themselves, many times a second: it begins no trace.
    ///
    /// # Errors
    /// A typed fault that says whether the handler may have run.
    #[cfg(feature = "rocks")]
    pub(crate) async fn ask_node_untraced<M: Remote>(
        &self,
        to: &NodeId,
        message: &M,
        class: DataClass,
        within: Duration,
    ) -> Result<(M::Reply, DataClass), Fault> {
        let headers = Headers { trace: None, ..self.headers(within) };
        let request = Request::ask(M::NAME, class, pack(M::NAME, message)?, headers);
        let reply = self.carry(to, registry::fnv(M::NAME.bytes()), request)?.answer().await?;
        let replied = unpack_reply(M::NAME, self.received(&reply))?;
        Ok((replied, reply.class))
    }

    /// Says on a span where another node was reached.
    fn reached(&self, node: &NodeId, span: &Span) {
        if let Some(peer) = self.inner.carrier.get().and_then(|carrier| carrier.peer(node)) {
            span.reached(&peer);
        }
    }

    /// Tells the service of another node that serves `name`; nobody waits. It goes on the trace of the
    /// span that this thread works for, and begins none: what nodes tell each other of themselves is not
    /// watched.
    ///
    /// # Errors
    /// A typed fault: it was not sent.
    #[cfg(feature = "rocks")]
    pub(crate) fn tell_node<M: Wire + Serialize>(
        &self,
        to: &NodeId,
        name: &'static str,
        message: &M,
        class: DataClass,
    ) -> Result<(), Fault> {
        let trace = Span::current().map(|span| span.trace());
        let headers = Headers { trace, ..self.headers(Duration::from_secs(5)) };
        let body = telemetry::part(names::ENCODE, || pack(name, message))?;
        let request = Request::tell(name, class, body, headers);
        self.carrier(to)?.tell(to, registry::fnv(name.bytes()), request)
    }

    /// Takes up a message for an actor of this node.
    pub(crate) fn deliver(&self, from: &Arc<Peer>, request: Request, answer: Answer) {
        dispatch::deliver(
            self,
            dispatch::Incoming { from: Some(Arc::clone(from)), request, answer, staged: None },
        );
    }

    /// The node of an actor.
    async fn owner(&self, class: &DataClass, id: &ActorId) -> Result<NodeId, Fault> {
        id.check()?;
        self.owner_of(class, &id.shown()).await
    }

    async fn owner_of(&self, class: &DataClass, id: &Shown) -> Result<NodeId, Fault> {
        match &self.inner.places {
            Whereabouts::Known(places) => match self.moving(id.kind) {
                Some(owners) => self.moved_to(owners, id, class),
                None => places.owner(id, class).cloned(),
            },
            Whereabouts::Asked(_) => self.locate(class, id).await,
        }
    }

    /// By what an owner was found: as long as these numbers are the same, so is the owner.
    fn found_by(&self, kind: &str) -> (Option<u64>, Option<u64>) {
        (self.policy_version(), self.moving(kind).map(|owners| owners.last().changes()))
    }

    /// The policy that is served under; none where nodes are asked.
    fn policy(&self) -> Option<arc_swap::Guard<Arc<PolicySnapshot>>> {
        match &self.inner.places {
            Whereabouts::Known(places) => Some(places.policy.load()),
            Whereabouts::Asked(_) => None,
        }
    }

    /// The version of the policy by which owners are found; none where nodes are asked.
    fn policy_version(&self) -> Option<u64> {
        self.policy().and_then(|policy| policy.version())
    }

    /// The nodes of these regions.
    fn nodes_in(&self, regions: &[Region]) -> Vec<NodeId> {
        self.all_nodes().into_iter().filter(|node| regions.contains(&node.region)).collect()
    }

    fn all_nodes(&self) -> Vec<NodeId> {
        match &self.inner.places {
            Whereabouts::Known(places) => places.founding.nodes().to_vec(),
            Whereabouts::Asked(nodes) => nodes.clone(),
        }
    }

    fn headers(&self, within: Duration) -> Headers {
        Headers { hybrid: self.hybrid(), ..Headers::within(within) }
    }

    fn carrier(&self, to: &NodeId) -> Result<&Carrier, Fault> {
        let unbound =
            || Fault::not_sent(FaultKind::Unreachable(format!("{to}: this node is still starting")));
        self.inner.carrier.get().ok_or_else(unbound)
    }

    /// Carries a question to another node, and counts it. It has its place in the order when this
    /// returns.
    fn carry(&self, to: &NodeId, pair: u64, request: Request) -> Result<Carried, Fault> {
        let carrier = self.carrier(to)?;
        let mut under_way = self.inner.calls.asking(&request.name, request.headers.trace);
        match carrier.begin(to, pair, request) {
            Ok(asked) => Ok(Carried { asked, under_way, passing: None }),
            Err(fault) => {
                under_way.end(Some(&fault));
                Err(fault)
            }
        }
    }

    /// Carries a message to actors of a type at another node, if that node and they are well enough.
    fn carry_to<M: Remote>(
        &self,
        to: &NodeId,
        actor: &ActorId,
        request: Request,
        waits: Waits,
    ) -> Result<Carried, Fault> {
        let passing = self.pass::<M>(to, actor, waits)?;
        passed(passing, self.carry(to, asking::pair(actor), request))
    }

    /// As [`Mesh::carry_to`], with what gathers until it is sent. It counts as one call.
    fn carry_gathered<M: Remote>(
        &self,
        to: &NodeId,
        actor: &ActorId,
        request: Request,
        gathering: &Arc<Gathering>,
    ) -> Result<Carried, Fault> {
        let (carrier, passing) = (self.carrier(to)?, self.pass::<M>(to, actor, Waits::No)?);
        let mut under_way = self.inner.calls.asking(&request.name, request.headers.trace);
        let begun = carrier.gather(to, asking::pair(actor), request, gathering);
        passed(
            passing,
            match begun {
                Ok(asked) => Ok(Carried { asked, under_way, passing: None }),
                Err(fault) => {
                    under_way.end(Some(&fault));
                    Err(fault)
                }
            },
        )
    }

    /// A program looks whether a node has connected anew; a node is told.
    fn meets(&self, node: &NodeId) {
        if let Some(Carrier::Client(client)) = self.inner.carrier.get()
            && let Some(peer) = client.peer(node)
        {
            self.resilience().meets(node, peer.generation);
        }
    }

    /// Whether the breakers of a node, and of actors of a type there, let a message through.
    fn pass<M: Remote>(&self, to: &NodeId, actor: &ActorId, waits: Waits) -> Result<Option<Passing>, Fault> {
        self.meets(to);
        let well = if waits == Waits::Yes { Went::Well } else { Went::Taken };
        // Who chose among equal targets knows which of them fail.
        self.resilience().pass(to, actor.kind, M::DEADLINE, well, actor.is_equal())
    }

    /// What this side counts of its calls.
    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.inner.calls
    }

    fn received<'a>(&self, reply: &'a Reply) -> &'a Bytes {
        // A peer whose clock is too far ahead is not believed; its answer is still an answer.
        if let Some(clock) = &self.inner.clock {
            clock.merge(reply.hybrid).ok();
        }
        &reply.body
    }

    /// Decodes with this as the mesh of the addresses in the message.
    fn decoding<T>(&self, decode: impl FnOnce() -> T) -> T {
        // A panic of what decodes ends it too.
        struct Ends(Option<Mesh>);
        impl Drop for Ends {
            fn drop(&mut self) {
                DECODING.set(self.0.take());
            }
        }
        let _ends = Ends(DECODING.replace(Some(self.clone())));
        decode()
    }

    /// The mesh in which this thread decodes a message or handles a call.
    fn ambient() -> Option<Self> {
        let decoding = DECODING.with_borrow(Clone::clone);
        decoding.or_else(|| crate::host::call().map(|call: Call| call.mesh().clone()))
    }
}
