//! Keyspaces from a program: reads say what they need, and answers what they are.
//!
//! * It decides: which node is asked first (the nearest of the caller's region; handles that are opened one after the other take turns of
//!   those that are as near, and each stays with its own, which has what it has seen), which next where one does not answer, and that a
//!   handle's next read sees what its last calls saw, wherever they went. A program asks over the network; an actor asks the node
//!   that hosts it.
//! * It never does: write again what may have been written, or, for a handler, what its call's class does not allow.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rhumb_actors::placement::messages::Placement;
pub use rhumb_actors::ranges::messages::{
    CreateKeyspace, KeyspaceView, KvAnswer, KvCondition, KvOp, KvRead, KvRefusal, KvRow, KvWritten, Needs,
};
use rhumb_actors::ranges::messages::{KvWrite, Lifetimes, ListKeyspaces};
use rhumb_actors::ranges::token::SignedToken;
use rhumb_actors::remote::Remote;
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, Guarantee, NodeId, Region};
use thiserror::Error;
use tokio::time::{Instant, timeout};

pub use super::consistent::{Conflict, KvFound, NotUpgraded};
use super::{Ask, BETWEEN, MeshClient};
use crate::host::call;
use crate::mesh::Mesh;
use crate::mesh::keyspaces::{Asked, Keyspaces};
use crate::mesh::near::{self, ALONE};

/// How long a call may take.
const WITHIN: Duration = Duration::from_secs(10);

/// How long a keyspace is looked for that is not known.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum KvError {
    /// It is refused. Nothing was changed.
    #[error("refused: {0}")]
    Refused(KvRefusal),
    /// The answer says less of itself than was asked for.
    #[error("the answer is {achieved}, and {required} was asked for: ask a node of a later build")]
    Weaker {
        /// What was asked for.
        required: Guarantee,
        /// What the answer is.
        achieved: Guarantee,
    },
    /// Something failed on the way; its delivery says whether it may have been done.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A keyspace, as a program reads and writes it. What one call has seen the next one sees too.
#[derive(Debug)]
pub struct Kv<'a> {
    way: Way<'a>,
    name: String,
    class: DataClass,
    token: Mutex<Vec<u8>>,
}

/// How a keyspace is reached.
enum Way<'a> {
    /// By a program, over the network.
    Network {
        client: &'a MeshClient,
        /// In the order in which they are asked: first who answered first.
        nodes: Vec<NodeId>,
        /// Who is asked where no other may be, answered or not.
        nearest: Option<NodeId>,
    },
    /// By the node that this runs in.
    Here(Arc<dyn Keyspaces>),
}

impl fmt::Debug for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network { nodes, .. } => f.debug_tuple("Network").field(nodes).finish(),
            Self::Here(_) => f.write_str("Here"),
        }
    }
}

impl<'a> Kv<'a> {
    /// The keyspace of this name. Nodes of `region` are asked first; without one, those of the caller's.
    ///
    /// # Errors
    /// [`KvRefusal::NoSuchKeyspace`]; [`KvRefusal::Invalid`] where no node is in that region; no node answers. Within a handler
    /// [`FaultKind::Deadline`] where its call ends before either is known.
    pub async fn open(client: &'a MeshClient, name: &str, region: Option<&Region>) -> Result<Self, KvError> {
        if let Some(region) = region {
            let all: BTreeSet<&str> =
                client.directory().nodes().iter().map(|(node, _)| node.region.as_str()).collect();
            if !all.contains(region.as_str()) {
                let all: Vec<_> = all.into_iter().collect();
                let why = format!("no node is in region {region}: there are nodes in {}", all.join(", "));
                return Err(KvError::Refused(KvRefusal::Invalid(why)));
            }
        }
        let mut nodes = nearest_first(client, region);
        let nearest = nodes.first().cloned();
        let search = Search::begun()?;
        let found = loop {
            let (node, keyspaces): (_, Vec<KeyspaceView>) =
                ask_nodes(client, &nodes, &ListKeyspaces {}, left()?).await?;
            // Who does not answer is not asked first by each call again.
            nodes.sort_by_key(|other| *other != node);
            match named(keyspaces, name) {
                Ok(found) => break found,
                Err(refusal) => search.waits(refusal).await?,
            }
        };
        let way = Way::Network { client, nodes, nearest };
        Ok(Self { way, name: found.name, class: found.class, token: Mutex::default() })
    }

    /// The keyspace of this name, for what runs in a node: its actors, or the service around it. A replica on this node is
    /// read without leaving it. Within a handler (`call().mesh()` is its mesh) calls have the rest of its deadline, the keyspace's class
    /// may be no looser than what the call has seen, and an answer binds what the call may send on, as another actor's does.
    ///
    /// # Errors
    /// [`KvRefusal::NoSuchKeyspace`]; [`FaultKind::Deadline`] where the call ends before that is known; [`KvRefusal::Invalid`] where the mesh
    /// is a program's that hosts nothing: [`Kv::open`] is for those.
    pub async fn here(mesh: &Mesh, name: &str) -> Result<Kv<'static>, KvError> {
        let Some(keyspaces) = mesh.keyspaces().cloned() else {
            let why = "this mesh is of a program that hosts nothing: use Kv::open with its client";
            return Err(KvError::Refused(KvRefusal::Invalid(why.to_owned())));
        };
        let search = Search::begun()?;
        loop {
            match keyspaces.list().and_then(|spaces| named(spaces, name)) {
                Ok(KeyspaceView { name, class, .. }) => {
                    return Ok(Kv { way: Way::Here(keyspaces), name, class, token: Mutex::default() });
                }
                Err(refusal @ (KvRefusal::NoSuchKeyspace(_) | KvRefusal::NotNow { .. })) => {
                    search.waits(refusal).await?;
                }
                Err(refusal) => return Err(KvError::Refused(refusal)),
            }
        }
    }

    /// The class of its data.
    #[must_use]
    pub fn class(&self) -> &DataClass {
        &self.class
    }

    /// What was seen so far: to go on from elsewhere.
    #[must_use]
    pub fn token(&self) -> Vec<u8> {
        self.token.lock().clone()
    }

    /// Goes on from what was seen elsewhere, too: of two tokens the one that has seen more stays.
    pub fn goes_on(&self, token: Vec<u8>) {
        let mut seen = self.token.lock();
        if sees_more(&token, &seen) {
            *seen = token;
        }
    }

    /// Reads a key. The answer has one row, or none.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn get(&self, key: &[u8], needs: Needs) -> Result<KvAnswer, KvError> {
        self.read(KvRead { from: key.to_vec(), to: None, ..self.asks(needs) }).await
    }

    /// Reads keys from `from` on (itself included) to `to` (itself not; none: to the end).
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn scan(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        limit: u64,
        needs: Needs,
    ) -> Result<KvAnswer, KvError> {
        let to = Some(to.unwrap_or_default().to_vec());
        self.read(KvRead { from: from.to_vec(), to, limit, ..self.asks(needs) }).await
    }

    /// As [`Kv::get`] and [`Kv::scan`], with all that can be asked for. The keyspace, its class and the token are put in.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn read(&self, message: KvRead) -> Result<KvAnswer, KvError> {
        self.read_with(self.token(), message).await
    }

    /// As [`Kv::read`], to see what this token stands for, not all that the handle has seen.
    pub(crate) async fn read_with(&self, token: Vec<u8>, message: KvRead) -> Result<KvAnswer, KvError> {
        let (class, keyspace) = (self.class.clone(), self.name.clone());
        let message = KvRead { class, keyspace, token, hops: 0, ..message };
        let within = self.begins()?;
        let answer: Result<KvAnswer, _> = match &self.way {
            Way::Network { client, nearest, .. } if message.nearest_only => {
                ask(*client, nearest.as_slice(), &message, within).await
            }
            Way::Network { client, nodes, .. } => ask(*client, nodes, &message, within).await,
            Way::Here(keyspaces) => {
                let by = call::call().map(|call| call.actor().shown().to_string());
                waited(keyspaces.read(message, by, within), within).await
            }
        };
        let answer = self.heard(answer)?;
        self.goes_on(answer.token.clone());
        if let Some(within) = call::current() {
            within.call.met(answer.level);
        }
        Ok(answer)
    }

    /// Whether the call that is being handled here, if one is, may have something to do with data of this class; and how long.
    fn begins(&self) -> Result<Duration, KvError> {
        if let Some(within) = call::current() {
            within.call.may_send(&self.class)?;
        }
        Ok(left()?)
    }

    /// What was answered or refused binds the call that is being handled here, as another actor's reply does: either says something of
    /// what is there.
    fn heard<T>(&self, answer: Result<T, KvError>) -> Result<T, KvError> {
        if let (Some(within), Ok(_) | Err(KvError::Refused(_))) = (call::current(), &answer) {
            within.call.saw(&self.class);
        }
        answer
    }

    /// Writes a key.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<KvWritten, KvError> {
        self.write(vec![put(key, value)]).await
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn delete(&self, key: &[u8]) -> Result<KvWritten, KvError> {
        self.write(vec![KvOp { value: None, ..put(key, b"") }]).await
    }

    /// Writes a key if its condition holds.
    ///
    /// # Errors
    /// [`KvError`]; [`KvRefusal::Condition`].
    pub async fn put_if(
        &self,
        key: &[u8],
        value: &[u8],
        condition: KvCondition,
    ) -> Result<KvWritten, KvError> {
        self.write(vec![KvOp { condition: Some(condition), ..put(key, value) }]).await
    }

    /// Writes all of these, or none: 256 at most, of one range, with 256 KiB of keys and values.
    ///
    /// # Errors
    /// [`KvError`]; [`KvRefusal::Invalid`] says what may be, where these are more.
    pub async fn write(&self, ops: Vec<KvOp>) -> Result<KvWritten, KvError> {
        let (class, keyspace) = (self.class.clone(), self.name.clone());
        let message = KvWrite { class, keyspace, ops, hops: 0 };
        let within = self.begins()?;
        let written: Result<KvWritten, _> = match &self.way {
            Way::Network { client, nodes, .. } => ask(*client, nodes, &message, within).await,
            Way::Here(keyspaces) => waited(keyspaces.write(message, within), within).await,
        };
        let written = self.heard(written)?;
        self.goes_on(written.token.clone());
        Ok(written)
    }

    /// What a read says that asks for nothing special.
    #[must_use]
    pub fn asks(&self, needs: Needs) -> KvRead {
        KvRead {
            class: self.class.clone(),
            keyspace: self.name.clone(),
            from: Vec::new(),
            to: None,
            limit: 100,
            needs,
            token: Vec::new(),
            nearest_only: false,
            fallback: false,
            hops: 0,
            as_stored: false,
        }
    }
}

/// Creates a keyspace, as an operator. The same again is the same answer. `replication` 0: three replicas, or as many as
/// there may be.
///
/// # Errors
/// [`KvError`]; [`KvRefusal::Exists`] where it is another one.
pub async fn create(
    client: &MeshClient,
    name: &str,
    class: &DataClass,
    replication: u32,
) -> Result<KeyspaceView, KvError> {
    let message = CreateKeyspace {
        name: name.to_owned(),
        class: class.clone(),
        replication,
        lifetimes: Lifetimes::default(),
        placement: Placement::default(),
    };
    let (nodes, until) = (nearest_first(client, None), Instant::now() + WITHIN);
    loop {
        match ask(client, &nodes, &message, WITHIN).await {
            // The meta range is founded when all nodes have been up at one time.
            Err(KvError::Refused(KvRefusal::NotNow { retry_after, .. })) if Instant::now() < until => {
                tokio::time::sleep(retry_after).await;
            }
            ended => return ended,
        }
    }
}

/// The search for a keyspace: a node hears of a new one a moment after it was created, and one that starts knows none yet.
struct Search {
    until: Instant,
    /// It ends with the call that is being handled here, before it has been long enough.
    is_cut: bool,
}

impl Search {
    fn begun() -> Result<Self, Fault> {
        let left = left()?;
        Ok(Self { until: Instant::now() + left.min(KNOWN_WITHIN), is_cut: left < KNOWN_WITHIN })
    }

    /// Waits until it is looked for again. At its end it says why nothing was found.
    async fn waits(&self, refusal: KvRefusal) -> Result<(), KvError> {
        let now = Instant::now();
        if now < self.until {
            tokio::time::sleep_until(self.until.min(now + KNOWN_WITHIN / 5)).await;
            return Ok(());
        }
        match refusal {
            // There may be one that was not heard of yet.
            KvRefusal::NoSuchKeyspace(_) if self.is_cut => Err(passed().into()),
            refusal => Err(KvError::Refused(refusal)),
        }
    }
}

/// The one of this name.
fn named(keyspaces: Vec<KeyspaceView>, name: &str) -> Result<KeyspaceView, KvRefusal> {
    let found = keyspaces.into_iter().find(|space| space.name == name);
    found.ok_or_else(|| KvRefusal::NoSuchKeyspace(name.to_owned()))
}

/// How long may be asked: no longer than the call has left that is being handled here, if one is.
fn left() -> Result<Duration, Fault> {
    let Some(within) = call::current() else { return Ok(WITHIN) };
    let left = within.call.deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(passed()) } else { Ok(left.min(WITHIN)) }
}

/// The call that is being handled here has ended.
fn passed() -> Fault {
    Fault::not_sent(FaultKind::Deadline("asking for a keyspace within a call".to_owned()))
}

/// What this node has answered itself, if it has in time.
async fn waited<T>(asked: Asked<T>, within: Duration) -> Result<T, KvError> {
    let passed = |_| Fault::unknown(FaultKind::Deadline("waiting for this node's own ranges".to_owned()));
    timeout(within, asked).await.map_err(passed)??.map_err(KvError::Refused)
}

/// Whether to go on from a token that came after another one: calls end in another order than they begin in, and one range's
/// leaseholder may be behind another's.
fn sees_more(token: &[u8], seen: &[u8]) -> bool {
    let more = |token| has_seen(seen).is_none_or(|seen| token >= seen);
    !token.is_empty() && has_seen(token).is_none_or(more)
}

/// How much a token has seen: all up to a time, whatever the epoch of the clock of who said so; of two of one time a later epoch tells more.
/// Of bytes that are no token nothing is known, and a node says what is wrong with them.
fn has_seen(token: &[u8]) -> Option<(&[u8], &[u8])> {
    (token.len() == size_of::<SignedToken>()).then(|| (&token[9..17], &token[1..9]))
}

/// A write of a key, under no condition.
#[must_use]
pub fn put(key: &[u8], value: &[u8]) -> KvOp {
    let (key, value) = (key.to_vec(), Some(value.to_vec()));
    KvOp { key, value, condition: None, schema: None, subject: None, lasts: None }
}

/// All nodes, those of this region first, or of the caller's; of either those with the shortest measured round trip, and where that is the
/// same or was not measured, in turn.
pub(crate) fn nearest_first(client: &MeshClient, region: Option<&Region>) -> Vec<NodeId> {
    let region = region.unwrap_or(client.region());
    let candidates = client.directory().nodes().iter().map(|(node, _)| client.candidate(node));
    let mut nodes = near::order(None, region, candidates.collect(), client.turn());
    // It was asked for, however far it is; but not where there is no connection.
    nodes.sort_by_key(|node| (!client.candidate(node).is_well, node.region != *region));
    nodes
}

/// A node that says so soon that it cannot answer now has just started. Another one can.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Asks the first of these nodes that can be asked; where asking twice has the effect of once, the next one also after an
/// outcome that is not known, and beside one that takes long; and around again while there is time. After that nobody is asked.
pub(crate) async fn ask<M, T>(
    client: &impl Ask,
    nodes: &[NodeId],
    message: &M,
    within: Duration,
) -> Result<T, KvError>
where
    M: Remote<Reply = Result<T, KvRefusal>> + Sync,
{
    ask_nodes(client, nodes, message, within).await.map(|(_, answer)| answer)
}

/// Asks a node, which has what is left of the time; who it was, when that was, and what came of it.
async fn ask_one<M: Remote + Sync>(
    client: &impl Ask,
    node: NodeId,
    message: &M,
    until: Instant,
) -> (NodeId, Instant, Result<M::Reply, Fault>) {
    let asked_at = Instant::now();
    let left = until.saturating_duration_since(asked_at);
    let asked = client.ask(&node, message, left.min(M::DEADLINE)).await;
    (node, asked_at, asked)
}

/// As [`ask`], and says who has answered.
async fn ask_nodes<M, T>(
    client: &impl Ask,
    nodes: &[NodeId],
    message: &M,
    within: Duration,
) -> Result<(NodeId, T), KvError>
where
    M: Remote<Reply = Result<T, KvRefusal>> + Sync,
{
    let until = Instant::now() + within;
    let mut last = Fault::not_sent(match nodes {
        [] => FaultKind::Unreachable("there is no node to ask".to_owned()),
        _ => FaultKind::Deadline("looking for a node to ask".to_owned()),
    });
    let (mut unknown, mut refused) = (false, None);
    let one = |node: &NodeId| ask_one(client, node.clone(), message, until);
    let in_time = |_: &&NodeId| Instant::now() < until;
    loop {
        let (mut next, mut asked) = (nodes.iter(), FuturesUnordered::new());
        loop {
            if asked.is_empty() {
                let Some(node) = next.next().filter(in_time) else { break };
                asked.push(one(node));
            }
            let answered = match M::IDEMPOTENT && next.len() > 0 {
                true => timeout(ALONE, asked.next()).await,
                false => Ok(asked.next().await),
            };
            let Ok(answered) = answered else {
                asked.extend(next.next().filter(in_time).map(one));
                continue;
            };
            let (node, asked_at, answer) = answered.expect("somebody is asked");
            match answer {
                Ok(Err(refusal @ KvRefusal::NotNow { .. }))
                    if M::IDEMPOTENT && asked_at.elapsed() < AT_ONCE =>
                {
                    refused = Some(refusal);
                }
                Ok(answer) => return answer.map(|answer| (node, answer)).map_err(KvError::Refused),
                Err(fault) if M::IDEMPOTENT && fault.delivery() == Delivery::Unknown => {
                    (last, unknown) = (fault, true);
                }
                Err(fault) if fault.delivery() == Delivery::NotSent => last = fault,
                Err(fault) => return Err(fault.into()),
            }
        }
        if let Some(refusal) = refused {
            return Err(KvError::Refused(refusal));
        }
        if !unknown || Instant::now() + BETWEEN >= until {
            let delivery = if unknown { Delivery::Unknown } else { last.delivery() };
            return Err(Fault { delivery, ..last }.into());
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

#[cfg(test)]
mod tests;
