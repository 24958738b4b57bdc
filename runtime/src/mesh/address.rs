//! Addresses of actors, wherever they live, and what one does with them.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rhumb_actors::remote::{Accepts, Addressed, Remote};
use rhumb_core::wire::{Wire, opaque};
use rhumb_core::{DataClass, Epoch, Fault, FaultKind, Guarantee, NodeId, Region};
use rhumb_transport::{Headers, Request, TraceContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::body::{alike, pack, unpack_reply};
use super::{Mesh, dispatch, registry};
use crate::host::call::{self, Before, CallState, MAX_CHAIN, Stage};
use crate::host::cell::Packed;
use crate::host::id::{ActorId, Target, Whom};

/// The longest that anybody waits for an answer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The address of an actor of type `A`. It names an identity and not a place, can be cloned, and can be
/// sent inside messages. `A` is the actor's type or its protocol.
pub struct MeshAddr<A: ?Sized> {
    inner: Arc<Address>,
    marker: PhantomData<fn() -> Box<A>>,
}

struct Address {
    id: ActorId,
    mesh: Option<Mesh>,
    /// The owner as it was found last, and the policy's version then.
    owner: Mutex<Option<(Option<u64>, NodeId)>>,
}

impl<A: ?Sized> Clone for MeshAddr<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), marker: PhantomData }
    }
}

impl<A: ?Sized> PartialEq for MeshAddr<A> {
    fn eq(&self, other: &Self) -> bool {
        self.inner.id == other.inner.id
    }
}

impl<A: ?Sized> Eq for MeshAddr<A> {}

impl<A: ?Sized> fmt::Debug for MeshAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshAddr({})", self.inner.id)
    }
}

impl<A: ?Sized> fmt::Display for MeshAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.id.fmt(f)
    }
}

impl<A: Addressed> MeshAddr<A> {
    pub(super) fn new(id: ActorId, mesh: Option<Mesh>) -> Self {
        Self { inner: Arc::new(Address { id, mesh, owner: Mutex::new(None) }), marker: PhantomData }
    }

    /// The actor's name.
    #[must_use]
    pub fn id(&self) -> &ActorId {
        &self.inner.id
    }

    /// The same address in this mesh. An address that came in a message is in its mesh already.
    #[must_use]
    pub fn on(&self, mesh: &Mesh) -> Self {
        Self::new(self.inner.id.clone(), Some(mesh.clone()))
    }

    /// Asks, and waits for the answer: `addr.ask(message).await`, or with more said,
    /// `addr.ask(message).within(limit).requiring(level).await`.
    pub fn ask<M: Remote>(&self, message: M) -> Ask<'_, A, M>
    where
        A: Accepts<M>,
    {
        Ask { to: self, message, said: Said::default(), answer: PhantomData }
    }

    /// Tells, and waits until the actor's mailbox has taken the message: a mailbox that is full says
    /// so. Nobody waits for the handler.
    pub fn tell<M: Remote>(&self, message: M) -> Tell<'_, A, M>
    where
        A: Accepts<M>,
    {
        Tell { to: self, message, said: Said::default() }
    }

    /// The node that owns the actor.
    ///
    /// # Errors
    /// No node may hold it, or the address is in no mesh.
    pub async fn owner(&self) -> Result<NodeId, Fault> {
        let mesh = self.mesh()?;
        self.owner_in(&mesh).await
    }

    pub(super) fn mesh(&self) -> Result<Mesh, Fault> {
        let mesh = self.inner.mesh.clone().or_else(Mesh::ambient);
        let lost = || {
            let why = format!("{} is in no mesh here: say `addr.on(&mesh)`", self.inner.id.shown());
            Fault::not_sent(FaultKind::Unreachable(why))
        };
        mesh.ok_or_else(lost)
    }

    pub(super) async fn owner_in(&self, mesh: &Mesh) -> Result<NodeId, Fault> {
        let version = mesh.policy_version();
        if let Some((at, owner)) = &*self.inner.owner.lock()
            && *at == version
        {
            return Ok(owner.clone());
        }
        let owner = mesh.owner(&class_of::<A>()?, &self.inner.id).await?;
        *self.inner.owner.lock() = Some((version, owner.clone()));
        Ok(owner)
    }

    /// The mesh of the address and the actor's owner, in time.
    async fn found(&self, deadline: Instant) -> Result<(Mesh, NodeId), Fault> {
        let mesh = self.mesh()?;
        let owner = timeout_at(deadline, self.owner_in(&mesh)).await.unwrap_or_else(|_| {
            let what = format!("asking which node owns an actor of type {}", A::TYPE);
            Err(Fault::not_sent(FaultKind::Deadline(what)))
        })?;
        Ok((mesh, owner))
    }

    /// What is known of the owner may be wrong: it is looked up anew the next time.
    fn doubt(&self, fault: &Fault) {
        if matches!(fault.kind, FaultKind::Moved(_) | FaultKind::NotHosted(_)) {
            *self.inner.owner.lock() = None;
        }
    }
}

/// The class of an actor type's state.
pub(super) fn class_of<A: Addressed>() -> Result<DataClass, Fault> {
    DataClass::new(A::CLASS)
        .map_err(|error| Fault::not_sent(FaultKind::NotHosted(format!("{}: {error}", A::TYPE))))
}

impl<A: Addressed> Serialize for MeshAddr<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.inner.id)
    }
}

impl<'de, A: Addressed> Deserialize<'de> for MeshAddr<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let target = Target::parse(&text);
        match target {
            Some(Target { kind, region, whom: Whom::One(key) }) if kind == A::TYPE => {
                let region = region.map(Region::new).transpose().map_err(de::Error::custom)?;
                Ok(Self::new(ActorId::new(A::TYPE, region, key), Mesh::ambient()))
            }
            _ => Err(de::Error::custom(format!("not the address of an actor of type {}", A::TYPE))),
        }
    }
}

impl<A: Addressed> Wire for MeshAddr<A> {
    const LAYOUT: u64 = opaque("rhumb-address-v1");
}

/// What a caller says besides the message.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    within: Option<Duration>,
    required: Option<Guarantee>,
    key: Option<String>,
    epoch: Option<Epoch>,
    trace: Option<TraceContext>,
}

/// A question that is about to be asked.
#[must_use = "a question is asked when it is awaited"]
pub struct Ask<'a, A: Addressed, M: Remote> {
    to: &'a MeshAddr<A>,
    message: M,
    said: Said,
    answer: PhantomData<fn() -> M::Reply>,
}

/// A message that is about to be told.
#[must_use = "a message is told when it is awaited"]
pub struct Tell<'a, A: Addressed, M: Remote> {
    to: &'a MeshAddr<A>,
    message: M,
    said: Said,
}

macro_rules! sayings {
    ($name:ident) => {
        impl<A: Addressed, M: Remote> $name<'_, A, M> {
            /// Waits no longer than this; and no longer than the call within which it is made.
            pub fn within(mut self, limit: Duration) -> Self {
                self.said.within = Some(limit);
                self
            }

            /// Requires that the answer rests on nothing weaker.
            pub fn requiring(mut self, level: Guarantee) -> Self {
                self.said.required = Some(level);
                self
            }

            /// Sends an idempotency key along.
            pub fn key(mut self, key: impl Into<String>) -> Self {
                self.said.key = Some(key.into());
                self
            }

            /// Only for an actor of this epoch: another answers `WrongEpoch`.
            pub fn epoch(mut self, epoch: Epoch) -> Self {
                self.said.epoch = Some(epoch);
                self
            }

            /// Continues a trace from outside.
            pub fn trace(mut self, trace: TraceContext) -> Self {
                self.said.trace = Some(trace);
                self
            }
        }
    };
}
sayings!(Ask);
sayings!(Tell);

type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

impl<'a, A, M> IntoFuture for Ask<'a, A, M>
where
    A: Addressed + Accepts<M>,
    M: Remote,
{
    type Output = Result<M::Reply, Fault>;
    type IntoFuture = Asked<'a, M::Reply>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Ok(ask(self.to, self.message, self.said).await?.0) })
    }
}

impl<'a, A, M> IntoFuture for Tell<'a, A, M>
where
    A: Addressed + Accepts<M>,
    M: Remote,
{
    type Output = Result<(), Fault>;
    type IntoFuture = Asked<'a, ()>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(tell(self.to, self.message, self.said))
    }
}

/// Asks, and gives the reply with its class.
pub(super) async fn ask<A, M>(
    to: &MeshAddr<A>,
    message: M,
    said: Said,
) -> Result<(M::Reply, DataClass), Fault>
where
    A: Addressed,
    M: Remote,
{
    let within = call::current().map(|current| current.call);
    let deadline = deadline::<M>(&said, within.as_deref());
    let (mesh, owner) = to.found(deadline).await?;
    let call = outgoing(&mesh, &to.inner.id, &message, said, within.clone(), deadline, Waits::Yes)?;
    let outcome = if Some(&owner) == mesh.node() {
        ask_here(&mesh, message, &call).await
    } else {
        let body = packed(&mesh, &owner, &message);
        drop(message);
        ask_there::<M>(&mesh, &owner, body?, &call).await
    };
    let (reply, class) = outcome.inspect_err(|fault| to.doubt(fault))?;
    let achieved = call.seen.lock().guarantee;
    if !achieved.meets(call.required) {
        return Err(Fault::ran(FaultKind::Guarantee { required: call.required, achieved }));
    }
    if let Some(caller) = within {
        caller.saw(&class);
        caller.met(achieved);
    }
    Ok((reply, class))
}

async fn tell<A: Addressed, M: Remote>(to: &MeshAddr<A>, message: M, said: Said) -> Result<(), Fault> {
    let within = call::current().map(|current| current.call);
    // Who tells waits for the mailbox only, and no longer than its own caller does.
    let (mesh, owner) = to.found(deadline::<M>(&said, within.as_deref())).await?;
    let deadline = deadline::<M>(&said, None);
    let call = outgoing(&mesh, &to.inner.id, &message, said, within, deadline, Waits::No)?;
    if Some(&owner) == mesh.node() {
        return here(&mesh, message, &call, None);
    }
    let body = packed(&mesh, &owner, &message);
    drop(message);
    let request = Request::post(M::NAME, call.class.clone(), body?, headers(&call));
    let posted = mesh.carrier(&owner)?.ask(&owner, pair(&call.to), request).await;
    let reply = posted.inspect_err(|fault| to.doubt(fault))?;
    mesh.received(&reply);
    Ok(())
}

/// Until when a caller waits: as it says, or as the message declares; and no longer than the call within
/// which it is made.
fn deadline<M: Remote>(said: &Said, caller: Option<&CallState>) -> Instant {
    let own = said.within.unwrap_or(M::DEADLINE).min(LONGEST);
    let own = Instant::now() + own;
    caller.map_or(own, |caller| own.min(caller.deadline))
}

/// Whether whoever sends waits for the handler.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    Yes,
    No,
}

/// The call of a message that is about to be sent, if it may be.
fn outgoing<M: Remote>(
    mesh: &Mesh,
    to: &ActorId,
    message: &M,
    said: Said,
    caller: Option<Arc<CallState>>,
    deadline: Instant,
    waits: Waits,
) -> Result<Arc<CallState>, Fault> {
    let class = message.class().cloned().unwrap_or_else(DataClass::control);
    if let Some(caller) = &caller {
        caller.may_send(&class)?;
    }
    let (mut required, mut trace) = (said.required.unwrap_or_default(), said.trace);
    let mut before = Before::Nobody;
    if let Some(caller) = caller {
        trace = trace.or(caller.trace);
        // Who tells does not wait: neither the deadline nor the chain of those who do goes on.
        if waits == Waits::Yes {
            required = required.max(caller.required);
            before = Before::Here(caller);
        }
    }
    let call = CallState {
        mesh: mesh.clone(),
        to: to.clone(),
        from: None,
        deadline,
        hybrid: mesh.hybrid(),
        trace,
        class,
        required,
        key: said.key.or_else(|| message.idempotency_key()),
        epoch: said.epoch,
        before,
        seen: Mutex::default(),
        end: OnceLock::new(),
        stage: AtomicU8::new(Stage::Waiting as u8),
    };
    if call.cycles() || call.before.len() >= MAX_CHAIN {
        return Err(Fault::not_sent(FaultKind::Cycle(call.to.shown().to_string())));
    }
    Ok(Arc::new(call))
}

/// Puts a message into a mailbox of this node.
fn here<M: Remote>(
    mesh: &Mesh,
    message: M,
    call: &Arc<CallState>,
    answer: Option<oneshot::Sender<M::Reply>>,
) -> Result<(), Fault> {
    let hosts = mesh.hosted();
    let home = hosts.and_then(|hosts| hosts.home(call.to.kind).cloned());
    let home = home.ok_or_else(|| not_hosted(mesh, call.to.kind))?;
    dispatch::epoch_matches(mesh, call.epoch)?;
    let packed = Packed { message, call: Arc::clone(call), answer, work: None };
    home.local(&call.to, M::NAME, Box::new(packed), Instant::now())
}

async fn ask_here<M: Remote>(
    mesh: &Mesh,
    message: M,
    call: &Arc<CallState>,
) -> Result<(M::Reply, DataClass), Fault> {
    let declared = message.reply_class().cloned().unwrap_or_else(DataClass::control);
    let (answer, answered) = oneshot::channel();
    here(mesh, message, call, Some(answer))?;
    let abandon = Abandon(call);
    let outcome = timeout_at(call.deadline, answered).await;
    match outcome {
        Ok(Ok(reply)) => {
            std::mem::forget(abandon);
            Ok((reply, call.answer_class(declared)?))
        }
        Ok(Err(_)) => Err(call.why(M::NAME)),
        Err(_) => Err(call.deadline_passed(M::NAME)),
    }
}

/// Nobody waits any more, when dropped: what has not begun need not.
struct Abandon<'a>(&'a CallState);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn ask_there<M: Remote>(
    mesh: &Mesh,
    owner: &NodeId,
    body: Bytes,
    call: &Arc<CallState>,
) -> Result<(M::Reply, DataClass), Fault> {
    let request = Request::ask(M::NAME, call.class.clone(), body, headers(call));
    let reply = mesh.carrier(owner)?.ask(owner, pair(&call.to), request).await?;
    call.met(reply.guarantee);
    let body = mesh.received(&reply);
    let decoded = mesh.decoding(|| unpack_reply(M::NAME, body))?;
    Ok((decoded, reply.class))
}

/// The bytes of a message, if the peer knows it and lays it out alike.
fn packed<M: Remote>(mesh: &Mesh, owner: &NodeId, message: &M) -> Result<Bytes, Fault> {
    understood::<M>(mesh, owner)?;
    pack(M::NAME, message)
}

/// Whether the peer knows a message and lays it out alike, by what it said in its HELLO. A peer that is
/// not connected yet says so in time.
fn understood<M: Remote>(mesh: &Mesh, owner: &NodeId) -> Result<(), Fault> {
    let Some(peer) = mesh.carrier(owner)?.peer(owner) else { return Ok(()) };
    let known = peer.manifest.iter().find(|entry| entry.name == M::NAME);
    let unknown = || Fault::not_sent(FaultKind::UnknownMessage(M::NAME.to_owned()));
    alike::<M>(known.ok_or_else(unknown)?.fingerprint).map_err(Fault::not_sent)
}

fn headers(call: &CallState) -> Headers {
    Headers {
        hybrid: call.hybrid,
        trace: call.trace,
        guarantee: Guarantee::STRONGEST,
        required: call.required,
        idempotency_key: call.key.clone(),
        epoch: call.epoch,
        chain: call.before.names(),
        target: Some(call.to.to_string()),
        ..Headers::within(call.deadline.saturating_duration_since(Instant::now()))
    }
}

/// What one actor is sent from here stays in order.
fn pair(to: &ActorId) -> u64 {
    registry::fnv(to.kind.bytes().chain(to.key.bytes()))
}

pub(super) fn not_hosted(mesh: &Mesh, kind: &str) -> Fault {
    let node =
        mesh.node().map_or_else(|| "a program that only calls".to_owned(), |node| format!("node {node}"));
    Fault::not_sent(FaultKind::NotHosted(format!("{node} hosts no actors of type {kind}")))
}

/// What became of a broadcast on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The node.
    pub node: NodeId,
    /// How many mailboxes took the message, and how many refused it.
    pub outcome: Result<(u64, u64), Fault>,
}

impl Mesh {
    /// Tells all actors of a type that are awake in these regions, each at its node directly. Wakes
    /// none. One answer for each node of the regions; a region without a node has none.
    pub async fn broadcast<A, M>(&self, regions: &[Region], message: M) -> Vec<Broadcast>
    where
        A: Addressed + Accepts<M>,
        M: Remote,
    {
        let id = ActorId::new(A::TYPE, None, "");
        let caller = call::current().map(|current| current.call);
        let until = deadline::<M>(&Said::default(), None);
        let ready = outgoing(self, &id, &message, Said::default(), caller, until, Waits::No)
            .and_then(|call| Ok((call, pack(M::NAME, &message)?)));
        let one = async |node: NodeId| {
            let outcome = match &ready {
                Ok((call, body)) => self.broadcast_to::<M>(&node, call, body.clone()).await,
                Err(fault) => Err(fault.clone()),
            };
            Broadcast { node, outcome }
        };
        futures::future::join_all(self.nodes_in(regions).into_iter().map(one)).await
    }

    async fn broadcast_to<M: Remote>(
        &self,
        node: &NodeId,
        call: &CallState,
        body: Bytes,
    ) -> Result<(u64, u64), Fault> {
        let headers = Headers { target: Some(Target::all(call.to.kind)), ..headers(call) };
        let request = Request::ask(M::NAME, call.class.clone(), body, headers);
        if Some(node) == self.node() {
            return dispatch::broadcast_here(self, request).await;
        }
        understood::<M>(self, node)?;
        let reply = self.carrier(node)?.ask(node, pair(&call.to), request).await?;
        unpack_reply(M::NAME, self.received(&reply))
    }
}
