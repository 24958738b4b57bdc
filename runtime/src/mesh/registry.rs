//! Which actor serves which message name, and who may send it.
//!
//! * It decides: whether an arriving message has a handler here and its sender may use it.
//! * It never does: run a handler out of order (a handler puts its message into a mailbox before it
//!   returns its future), or answer for one.
//! * Invariant: a name is served once; a second registration is refused when the node starts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rhumb_actors::remote::{Audience, Remote};
use rhumb_core::{DataClass, Fault, FaultKind, Guarantee, Region, Role};
use rhumb_transport::{Answer, Inbound, Kind, ManifestEntry, Peer, Reply, Request, decode, encode};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Handle;

use crate::clock::NodeClock;

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

type Handler = Box<dyn Fn(Arc<Peer>, Request) -> BoxFuture<'static, Result<Reply, Fault>> + Send + Sync>;

struct Entry {
    audience: Audience,
    version: u16,
    handler: Handler,
}

/// Called when a peer node's connection comes up (`true`) or goes down.
pub type PeerChanged = Box<dyn Fn(&Peer, bool) + Send + Sync>;

/// All messages that this node serves.
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
    clock: NodeClock,
    runtime: Handle,
    peer_changed: PeerChanged,
}

impl Registry {
    /// A registry whose handlers' futures run on the given runtime.
    #[must_use]
    pub fn new(clock: NodeClock, runtime: Handle, peer_changed: PeerChanged) -> Self {
        Self { entries: BTreeMap::new(), clock, runtime, peer_changed }
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
        let clock = self.clock.clone();
        let run: Handler = Box::new(move |from, request| {
            let call = match call::<M>(M::NAME, from, request) {
                Ok(call) => call,
                Err(fault) => return Box::pin(std::future::ready(Err(fault))),
            };
            let answer = handler(call);
            let clock = clock.clone();
            Box::pin(async move {
                let (reply, class) = answer.await?;
                let body = encode(&reply).map_err(|e| {
                    Fault::ran(FaultKind::Decode {
                        name: format!("reply of {}", M::NAME),
                        reason: e.to_string(),
                    })
                })?;
                Ok(Reply {
                    class,
                    body,
                    hybrid: clock.now().hybrid,
                    guarantee: Guarantee::STRONGEST,
                    trace: None,
                })
            })
        });
        self.insert(M::NAME, Entry { audience: M::AUDIENCE, version: M::VERSION, handler: run })
    }

    /// Serves a told message of nodes, which has no reply.
    ///
    /// # Errors
    /// [`ServedTwice`].
    pub fn hear<M>(
        &mut self,
        name: &'static str,
        handler: impl Fn(Call<M>) + Send + Sync + 'static,
    ) -> Result<(), ServedTwice>
    where
        M: DeserializeOwned + Send + 'static,
    {
        let run: Handler = Box::new(move |from, request| {
            let outcome = call::<M>(name, from, request).map(&handler);
            let ran = |()| Err(Fault::ran(FaultKind::Handler(format!("{name} is told, it has no reply"))));
            Box::pin(std::future::ready(outcome.and_then(ran)))
        });
        self.insert(name, Entry { audience: Audience::Nodes, version: 1, handler: run })
    }

    /// What this node says in its HELLO that it serves.
    #[must_use]
    pub fn manifest(&self) -> Vec<ManifestEntry> {
        let each = self.entries.iter();
        each.map(|(name, entry)| manifest_entry(name, entry.version)).collect()
    }

    fn insert(&mut self, name: &'static str, entry: Entry) -> Result<(), ServedTwice> {
        if self.entries.contains_key(name) {
            return Err(ServedTwice(name));
        }
        self.entries.insert(name, entry);
        Ok(())
    }

    fn find(&self, peer: &Peer, name: &str) -> Result<&Entry, Fault> {
        let entry = self.entries.get(name);
        let entry = entry.ok_or_else(|| Fault::not_sent(FaultKind::UnknownMessage(name.to_owned())))?;
        let role = peer.principal.role;
        let welcome = match entry.audience {
            Audience::Everyone => true,
            Audience::Nodes => role == Role::Node,
            Audience::Operators => role == Role::Node || role == Role::Operator,
        };
        if welcome {
            return Ok(entry);
        }
        let why = format!("{name} is not for a {role}; {} is one", peer.principal);
        Err(Fault::not_sent(FaultKind::Unauthorized(why)))
    }
}

impl Inbound for Registry {
    fn deliver(&self, from: &Arc<Peer>, request: Request, answer: Answer) {
        // A clock too far ahead is refused by the merge; what its node says is judged without it.
        self.clock.merge(request.headers.hybrid).ok();
        let kind = request.kind;
        let within = request.headers.deadline;
        let name = request.name.clone();
        let ran = match self.find(from, &name) {
            Ok(entry) => (entry.handler)(Arc::clone(from), request),
            Err(fault) => return answer.fault(fault),
        };
        self.runtime.spawn(async move {
            let outcome = tokio::time::timeout(within, ran).await;
            match (kind, outcome) {
                (Kind::Tell, _) => drop(answer),
                (Kind::Ask, Ok(Ok(reply))) => answer.reply(reply),
                (Kind::Ask, Ok(Err(fault))) => answer.fault(fault),
                (Kind::Ask, Err(_)) => {
                    answer.fault(Fault::unknown(FaultKind::Deadline(format!("waiting for {name}"))));
                }
            }
        });
    }

    fn connected(&self, peer: &Arc<Peer>) {
        (self.peer_changed)(peer, true);
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        (self.peer_changed)(peer, false);
    }
}

/// What a HELLO says of one message. The fingerprint tells two layouts of one version apart; until
/// layouts are derived from the types it is that of name and version (FNV-1a, 64 bits).
fn manifest_entry(name: &str, version: u16) -> ManifestEntry {
    let fingerprint = fnv(name.bytes().chain(version.to_be_bytes()));
    ManifestEntry { name: name.to_owned(), version: version.into(), fingerprint }
}

/// FNV-1a over 64 bits.
pub(super) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn call<M: DeserializeOwned>(name: &str, from: Arc<Peer>, request: Request) -> Result<Call<M>, Fault> {
    let message = decode(&request.body)
        .map_err(|e| Fault::not_sent(FaultKind::Decode { name: name.to_owned(), reason: e.to_string() }))?;
    Ok(Call { from, message, within: request.headers.deadline, class: request.class })
}
