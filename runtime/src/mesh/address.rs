//! Addresses of actors, wherever they live, and what one says to them.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::remote::{Accepts, Addressed, Remote};
use rhumb_core::wire::{Wire, opaque};
use rhumb_core::{DataClass, Epoch, Fault, FaultKind, Guarantee, NodeId, Region};
use rhumb_transport::TraceContext;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tokio::time::{Instant, timeout_at};

use super::Mesh;
use super::any::AskAny;
use super::asking::{ask, tell};
use super::teller::Teller;
use crate::host::id::{ActorId, Target, Whom};

/// The address of an actor of type `A`. It names an identity and not a place, can be cloned, and can be
/// sent inside messages. `A` is the actor's type or its protocol.
pub struct MeshAddr<A: ?Sized> {
    inner: Arc<Address>,
    marker: PhantomData<fn() -> Box<A>>,
}

struct Address {
    id: ActorId,
    mesh: Option<Mesh>,
    /// The owner as it was found last, and by what: see [`Mesh::found_by`].
    owner: Mutex<Option<(FoundBy, NodeId)>>,
}

/// The policy's version, and how often fences were changed, for a type that moves.
type FoundBy = (Option<u64>, Option<u64>);

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
        // What is printed for people who look for a fault goes into logs: the key does not.
        write!(f, "MeshAddr({})", self.inner.id.shown())
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

    /// A handle that tells the actor without waiting for each message: see [`Teller`].
    pub fn teller<M: Remote>(&self) -> Teller<A, M>
    where
        A: Accepts<M>,
    {
        Teller::new(self.clone())
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
        let version = mesh.found_by(self.inner.id.kind);
        if let Some(owner) = self.found_before(version) {
            return Ok(owner);
        }
        let owner = mesh.owner(&class_of::<A>()?, &self.inner.id).await?;
        *self.inner.owner.lock() = Some((version, owner.clone()));
        Ok(owner)
    }

    /// The mesh of the address and the actor's owner, in time.
    pub(super) async fn found(&self, deadline: Instant) -> Result<(Mesh, NodeId), Fault> {
        let mesh = self.mesh()?;
        if let Some(owner) = self.found_before(mesh.found_by(self.inner.id.kind)) {
            return Ok((mesh, owner));
        }
        // In a box: seldom needed, and larger than all else that an ask consists of.
        let owner = timeout_at(deadline, Box::pin(self.owner_in(&mesh))).await.unwrap_or_else(|_| {
            let what = format!("asking which node owns an actor of type {}", A::TYPE);
            Err(Fault::not_sent(FaultKind::Deadline(what)))
        })?;
        Ok((mesh, owner))
    }

    /// The owner as it was found last, if it was found by this.
    fn found_before(&self, version: FoundBy) -> Option<NodeId> {
        let found = self.inner.owner.lock();
        found.as_ref().filter(|(at, _)| *at == version).map(|(_, owner)| owner.clone())
    }

    /// What is known of the owner may be wrong: it is looked up anew the next time.
    pub(super) fn doubt(&self, fault: &Fault) {
        use FaultKind::{Deadline, Moved, NotHosted, Shut, Unowned, Unreachable};
        let wrong = matches!(fault.kind, Moved(_) | NotHosted(_) | Unowned(_));
        // A node hears of an owner that is lost. A program asks again, or it would hold to one for ever.
        let program = || self.inner.mesh.as_ref().is_some_and(|mesh| mesh.node().is_none());
        let lost = matches!(fault.kind, Unreachable(_) | Deadline(_) | Shut(_));
        if wrong || lost && program() {
            *self.inner.owner.lock() = None;
        }
    }

    /// Another node was found to own it.
    pub(super) fn is_at(&self, mesh: &Mesh, owner: NodeId) {
        let by = mesh.found_by(self.inner.id.kind);
        if by.1.is_none() {
            // Who knows the fences goes by them.
            *self.inner.owner.lock() = Some((by, owner));
        }
    }
}

/// The class of an actor type's state.
pub(crate) fn class_of<A: Addressed>() -> Result<DataClass, Fault> {
    DataClass::read(A::CLASS)
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
    pub(super) within: Option<Duration>,
    pub(super) required: Option<Guarantee>,
    pub(super) rests_on: Option<Guarantee>,
    pub(super) key: Option<String>,
    pub(super) epoch: Option<Epoch>,
    pub(super) trace: Option<TraceContext>,
    /// Through the outbox, in this stream.
    pub(super) durably: Option<String>,
    pub(super) retried: bool,
    pub(super) hedged: bool,
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

            /// Says what the message rests on: the level of the values in it
            /// ([`Consistent::level`](rhumb_core::Consistent::level)). Unless it is said, that is all that the call has
            /// rested on so far within which it is made, and the strongest outside of any.
            pub fn resting_on(mut self, level: Guarantee) -> Self {
                self.said.rests_on = Some(level);
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
sayings!(AskAny);

macro_rules! retried {
    ($name:ident, $note:literal) => {
        impl<A: Addressed, M: Remote> $name<'_, A, M> {
            /// Asks again where that is safe and may help, within the deadline and the mesh's budget of retries: where
            /// the question was not sent, and where its outcome is unknown and it can be asked twice. Only outside
            /// of any other call. For messages that are `idempotent` or have a `key`; with any other it does not
            /// compile.
            ///
            #[doc = $note]
            pub fn retried(mut self) -> Self {
                const {
                    let may = M::IDEMPOTENT || M::KEYED;
                    assert!(may, "only a message that is `idempotent` or has a `key` may be retried");
                }
                self.said.retried = true;
                self
            }
        }
    };
}
retried!(
    Ask,
    "It can be asked twice where it is `idempotent`, or has a key: its actor's node keeps the answer to that, and gives it \
     again. An actor of this node is asked once, unless it moves away or waits for its owner meanwhile."
);
retried!(
    AskAny,
    "It can be asked twice where it is `idempotent`. Each time the best of them is asked, which may be another one."
);

impl<A: Addressed, M: Remote> Tell<'_, A, M> {
    /// Tells for sure. Returns when the message is durable in this node's outbox; it is sent until the actor has
    /// handled it and its node has durably noted that, in the order in which it was told to that actor, across
    /// reconnects and restarts. What cannot be delivered becomes a dead letter.
    ///
    /// Within a call whose writes are kept ([`Call::put`](crate::host::Call::put)) it is durable with the answer of that
    /// call, or dropped with it.
    ///
    /// `within` is how long the handler may take each time. The class of the message must be one that this node may
    /// hold. A program that only calls has no outbox, and is refused.
    pub fn durably(self) -> Self {
        self.stream("")
    }

    /// As [`Tell::durably`], in a stream of this name: only messages of one stream to one actor wait for each other.
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.said.durably = Some(name.into());
        self
    }
}

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
