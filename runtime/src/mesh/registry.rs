//! Which actor serves which message name, and who may send it.
//!
//! * It decides: whether an arriving message has a handler here and its sender may use it.
//! * It never does: run a handler out of order (a handler puts its message into a mailbox before it
//!   returns its future), or answer for one.
//! * Invariant: a name is served once; a second registration is refused when the node starts.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use rhumb_actors::remote::{Audience, Remote};
use rhumb_core::wire::Wire;
use rhumb_core::{DataClass, Delivery, Epoch, Fault, FaultKind, Guarantee, Region};
use rhumb_transport::{Answer, ConnectError, Inbound, Kind, ManifestEntry, Peer, Reply, Request};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Handle;

use super::body::{fingerprint, pack, unpack};
use super::{Mesh, dispatch};
use crate::clock::NodeClock;
use crate::telemetry::sampling::Begin;
use crate::telemetry::{self, Span, What, names};

/// A message on its way into an actor.
pub struct Call<M> {
    /// Who sent it, by certificate.
    pub from: Arc<Peer>,
    /// What it says.
    pub message: M,
    /// How long the caller still waits.
    pub within: Duration,
    /// The class it came under.
    pub class: DataClass,
}

impl<M> Call<M> {
    /// The region in which its sender stands.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.from.principal.region
    }
}

/// A name that two handlers want.
#[derive(Debug, Error)]
#[error("the message {0:?} is served twice on this node")]
pub struct ServedTwice(&'static str);

/// What one message's handler gives later.
type Later = Box<dyn Fn(Arc<Peer>, Request) -> BoxFuture<'static, Result<Reply, Fault>> + Send + Sync>;
/// A handler that answers by itself.
type Itself = Box<dyn Fn(Arc<Peer>, Request, Owed) + Send + Sync>;

enum Handler {
    Later(Later),
    Itself(Itself),
}

/// An answer that is owed, and the span of what it answers.
struct Owed {
    answer: Answer,
    span: Option<Span>,
    kind: Kind,
}

impl Owed {
    fn give(self, outcome: Result<Reply, Fault>) {
        match (self.kind, outcome) {
            // Nobody waits; that it was not taken up is counted.
            (Kind::Tell, Err(fault)) if fault.delivery() == Delivery::NotSent => self.answer.fault(fault),
            (Kind::Tell, _) => drop(self.answer),
            (Kind::Ask | Kind::Post | Kind::Posts, Ok(reply)) => self.answer.reply(reply),
            (Kind::Ask | Kind::Post | Kind::Posts, Err(fault)) => self.answer.fault(fault),
        }
    }
}

/// The obligation to answer one message `M`. Dropped without an answer, it tells the caller that its
/// handler was lost.
pub struct Answering<M> {
    owed: Owed,
    clock: NodeClock,
    message: PhantomData<fn(M)>,
}

impl<M: Remote> Answering<M> {
    /// Answers, with the reply and its class.
    pub fn give(self, outcome: Result<(M::Reply, DataClass), Fault>) {
        let Self { owed, clock, .. } = self;
        let span = owed.span.clone();
        telemetry::working_for(span.as_ref(), || {
            owed.give(outcome.and_then(|reply| packed::<M>(&clock, reply)))
        });
    }
}

fn packed<M: Remote>(clock: &NodeClock, (reply, class): (M::Reply, DataClass)) -> Result<Reply, Fault> {
    let body = telemetry::part(names::ENCODE, || pack(M::NAME, &reply));
    let body = body.map_err(|fault| Fault::ran(fault.kind))?;
    Ok(Reply {
        class,
        body,
        hybrid: clock.now().hybrid,
        guarantee: Guarantee::STRONGEST,
        trace: Span::current().map(|span| span.trace()),
    })
}

struct Entry {
    audience: Audience,
    version: u16,
    fingerprint: u64,
    handler: Handler,
    /// Where what it gives later is worked on.
    on: Handle,
}

/// Called when a peer node's connection comes up (`true`) or goes down.
pub type PeerChanged = Box<dyn Fn(&Peer, bool) + Send + Sync>;

/// Called when a connection is refused.
pub type TurnedAway = Box<dyn Fn(SocketAddr, &ConnectError) + Send + Sync>;

/// All messages that this node serves.
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
    clock: NodeClock,
    runtime: Handle,
    peer_changed: PeerChanged,
    mesh: Option<Mesh>,
    turned_away: Option<TurnedAway>,
}

impl Registry {
    /// A registry whose handlers' futures run on the given runtime.
    #[must_use]
    pub fn new(clock: NodeClock, runtime: Handle, peer_changed: PeerChanged) -> Self {
        Self { entries: BTreeMap::new(), clock, runtime, peer_changed, mesh: None, turned_away: None }
    }

    /// Also takes what is meant for the actors that this mesh hosts here.
    pub fn hosting(&mut self, mesh: Mesh) {
        self.mesh = Some(mesh);
    }

    /// Also tells of connections that are refused.
    pub fn refusing(&mut self, tell: impl Fn(SocketAddr, &ConnectError) + Send + Sync + 'static) {
        self.turned_away = Some(Box::new(tell));
    }

    /// Serves `M`. The handler enqueues before it returns; its future gives the reply and its class.
    ///
    /// # Errors
    /// [`ServedTwice`].
    pub fn serve<M, F>(
        &mut self,
        handler: impl Fn(Call<M>) -> F + Send + Sync + 'static,
    ) -> Result<(), ServedTwice>
    where
        M: Remote,
        F: Future<Output = Result<(M::Reply, DataClass), Fault>> + Send + 'static,
    {
        self.serve_on(self.runtime.clone(), handler)
    }

    /// As [`Registry::serve`], with futures that run elsewhere.
    ///
    /// # Errors
    /// [`ServedTwice`].
    pub fn serve_on<M, F>(
        &mut self,
        on: Handle,
        handler: impl Fn(Call<M>) -> F + Send + Sync + 'static,
    ) -> Result<(), ServedTwice>
    where
        M: Remote,
        F: Future<Output = Result<(M::Reply, DataClass), Fault>> + Send + 'static,
    {
        let clock = self.clock.clone();
        let run: Later = Box::new(move |from, request| {
            let call = match call::<M>(M::NAME, from, request) {
                Ok(call) => call,
                Err(fault) => return Box::pin(std::future::ready(Err(fault))),
            };
            let answer = handler(call);
            let clock = clock.clone();
            Box::pin(async move { packed::<M>(&clock, answer.await?) })
        });
        self.serves_with::<M>(Handler::Later(run), on)
    }

    /// Serves `M` with a handler that enqueues before it returns, and answers by itself: where it is done,
    /// without a task that waits for it. It ends within the time that the call says.
    ///
    /// # Errors
    /// [`ServedTwice`].
    pub fn answer<M: Remote>(
        &mut self,
        handler: impl Fn(Call<M>, Answering<M>) + Send + Sync + 'static,
    ) -> Result<(), ServedTwice> {
        let clock = self.clock.clone();
        let run: Itself = Box::new(move |from, request, owed| match call::<M>(M::NAME, from, request) {
            Ok(call) => handler(call, Answering { owed, clock: clock.clone(), message: PhantomData }),
            Err(fault) => owed.give(Err(fault)),
        });
        self.serves_with::<M>(Handler::Itself(run), self.runtime.clone())
    }

    fn serves_with<M: Remote>(&mut self, handler: Handler, on: Handle) -> Result<(), ServedTwice> {
        let fingerprint = fingerprint::<M>();
        let (audience, version) = (M::AUDIENCE, M::VERSION);
        self.insert(M::NAME, Entry { audience, version, fingerprint, handler, on })
    }

    /// Serves a told message of nodes, which has no reply; its handler says whether it has taken it.
    ///
    /// # Errors
    /// [`ServedTwice`].
    pub fn hear<M>(
        &mut self,
        name: &'static str,
        handler: impl Fn(Call<M>) -> Result<(), Fault> + Send + Sync + 'static,
    ) -> Result<(), ServedTwice>
    where
        M: Wire + DeserializeOwned + Send + 'static,
    {
        let run: Later = Box::new(move |from, request| {
            let outcome = call::<M>(name, from, request).and_then(&handler);
            let ran = |()| Err(Fault::ran(FaultKind::Handler(format!("{name} is told, it has no reply"))));
            Box::pin(std::future::ready(outcome.and_then(ran)))
        });
        self.insert(
            name,
            Entry {
                audience: Audience::Nodes,
                version: 1,
                fingerprint: M::LAYOUT,
                handler: Handler::Later(run),
                on: self.runtime.clone(),
            },
        )
    }

    /// What this node says in its HELLO that it serves: its own messages and those of its actors.
    #[must_use]
    pub fn manifest(&self) -> Vec<ManifestEntry> {
        let own = self.entries.iter().map(|(name, entry)| (*name, entry.version, entry.fingerprint));
        let hosts = self.mesh.as_ref().and_then(Mesh::hosted);
        let hosted = hosts.iter().flat_map(|hosts| hosts.all()).flat_map(|home| home.messages());
        let all: BTreeMap<_, _> = own.chain(hosted).map(|entry| (entry.0, entry)).collect();
        let entry = |(name, version, fingerprint): (&str, u16, u64)| ManifestEntry {
            name: name.to_owned(),
            version: version.into(),
            fingerprint,
        };
        all.into_values().map(entry).collect()
    }

    /// Whether messages of this name are for this node, or for actors that it hosts.
    fn serves(&self, name: &str) -> bool {
        let hosts = || self.mesh.as_ref().and_then(Mesh::hosted);
        self.entries.contains_key(name)
            || hosts().is_some_and(|hosts| hosts.all().any(|home| home.audience(name).is_some()))
    }

    /// The span of a message that has come, if its trace is kept. A program's call that comes without a
    /// trace begins one here; of a node's message without one, its node did not keep any.
    fn watch(&self, from: &Peer, request: &mut Request) -> Option<Span> {
        let tracer = self.mesh.as_ref()?.tracer()?;
        let (kind, class) = (request.kind, request.class.clone());
        // A name that is served nowhere here is whatever somebody chose to send.
        let what = || {
            let name = if self.serves(&request.name) { &*request.name } else { "_OTHER" };
            match kind {
                Kind::Ask => What::rpc(name, SpanKind::Server, &class),
                Kind::Post | Kind::Posts | Kind::Tell => What::processed(name, &class),
            }
        };
        let trace = request.headers.trace;
        let trace = if from.node.is_none() { trace.map(|trace| tracer.admits(trace)) } else { trace };
        let (span, trace) = match trace {
            Some(trace) if trace.is_sampled() => (tracer.under(trace, true, what()), Some(trace)),
            None if from.node.is_none() => {
                let (span, trace) = tracer.begin(Begin::Call, what);
                (span, Some(trace))
            }
            not_kept => (None, not_kept),
        };
        request.headers.trace = trace;
        let span = span?;
        span.set(KeyValue::new(names::PEER_REGION, from.principal.region.to_string()));
        if let Some(arrival) = request.arrival {
            span.passed(names::INGRESS_GATE, arrival.at, arrival.gate);
        }
        Some(span)
    }

    fn insert(&mut self, name: &'static str, entry: Entry) -> Result<(), ServedTwice> {
        if self.entries.contains_key(name) {
            return Err(ServedTwice(name));
        }
        self.entries.insert(name, entry);
        Ok(())
    }

    fn find(&self, peer: &Peer, name: &str, epoch: Option<Epoch>) -> Result<&Entry, Fault> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| Fault::not_sent(FaultKind::UnknownMessage(name.to_owned())))?;
        dispatch::welcome(entry.audience, Some(peer), name)?;
        self.mesh.as_ref().map_or(Ok(()), |mesh| dispatch::epoch_matches(mesh.epoch(), epoch))?;
        Ok(entry)
    }
}

impl Inbound for Registry {
    fn deliver(&self, from: &Arc<Peer>, mut request: Request, answer: Answer) {
        // A program has no clock in the mesh: what it says of the time moves nothing here. A node's clock too far
        // ahead is refused by the merge; what its node says is judged without it.
        if from.node.is_some()
            && let Err(refusal) = self.clock.merge(request.headers.hybrid)
        {
            tracing::warn!(from = %from.principal, %refusal, "a peer's time is not taken: set its clock right, or this node's");
        }
        let span = self.watch(from, &mut request);
        let _within = span.as_ref().map(|span| span.context().attach());
        let answer = match span.clone() {
            Some(span) => answer.observed(Box::new(move |outcome| span.went(outcome))),
            None => answer,
        };
        let answer = match &self.mesh {
            Some(mesh) => mesh.calls().arrived(&request, answer, || self.serves(&request.name)),
            None => answer,
        };
        let answer = match &self.mesh {
            Some(mesh) if request.kind == Kind::Ask => {
                mesh.told_of_first(from, &request, answer, &self.runtime)
            }
            _ => answer,
        };
        if let (Some(_), Some(mesh)) = (&request.headers.target, &self.mesh) {
            return mesh.deliver(from, request, answer);
        }
        let within = request.headers.deadline;
        let name = request.name.clone();
        let owed = Owed { answer, span: span.clone(), kind: request.kind };
        let (ran, on) = match self.find(from, &name, request.headers.epoch) {
            Ok(Entry { handler: Handler::Later(handler), on, .. }) => {
                (handler(Arc::clone(from), request), on)
            }
            Ok(Entry { handler: Handler::Itself(handler), .. }) => {
                return handler(Arc::clone(from), request, owed);
            }
            Err(fault) => return owed.answer.fault(fault),
        };
        let ended = async move {
            let outcome = tokio::time::timeout(within, ran).await;
            let passed = || Fault::unknown(FaultKind::Deadline(format!("waiting for {name}")));
            owed.give(outcome.unwrap_or_else(|_| Err(passed())));
        };
        on.spawn(async move { telemetry::within(span.as_ref(), ended).await });
    }

    fn connected(&self, peer: &Arc<Peer>) {
        if let (Some(mesh), Some(node)) = (&self.mesh, &peer.node) {
            mesh.resilience().connected(node);
        }
        (self.peer_changed)(peer, true);
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        (self.peer_changed)(peer, false);
    }

    fn refused(&self, from: SocketAddr, why: &ConnectError) {
        if let Some(tell) = &self.turned_away {
            tell(from, why);
        }
        if let Some(mesh) = &self.mesh {
            mesh.calls().turned_away(why);
        }
    }
}

/// FNV-1a over 64 bits.
pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn call<M: Wire + DeserializeOwned>(name: &str, from: Arc<Peer>, request: Request) -> Result<Call<M>, Fault> {
    let decode = || unpack(name, &request.body);
    let message = telemetry::part(names::DECODE, decode).map_err(Fault::not_sent)?;
    Ok(Call { from, message, within: request.headers.deadline, class: request.class })
}
