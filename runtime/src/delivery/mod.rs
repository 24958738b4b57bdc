//! The shell of delivery: one task a node, in front of the key table, the inbox and the outbox.
//!
//! * It decides nothing: `rhumb_actors::delivery` does. It hands batches to the node's storage, lets effects out
//!   behind one barrier, runs handlers, sends letters, and keeps one timer.
//! * It never does: answer, or send, before what that rests on is durable.
//! * Invariant: what was handed in ends in an answer; what it cannot take in is refused at once.

mod desk;
mod disk;
pub(crate) mod parcel;
mod report;
pub(crate) mod staged;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::delivery::keys::{Asked, Key, KeyTable, Scope};
use rhumb_actors::delivery::rows::{self, Row};
use rhumb_actors::delivery::{Arrived, DeliverySettings, Inbox, Letter, LetterId, Outbox, Verdict};
use rhumb_core::{Fault, FaultKind, Incarnation, NodeId, Role};
use rhumb_transport::{Peer, Request};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::desk::{Desk, Input};
pub(crate) use self::disk::{Disk, Hot, Memory};
pub(crate) use self::report::DeliveryReport;
use self::staged::Unwritten;
use crate::mesh::Mesh;
use crate::mesh::dispatch::Incoming;
use crate::telemetry::Span;

/// What may wait for the task.
const WAITING: usize = 4_096;
/// When to come again to a task that has too much to do.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The machines, as a disk leaves them.
pub(crate) struct Recovered {
    pub(crate) keys: KeyTable,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
}

impl Recovered {
    /// Reads all rows but those of actors.
    pub(crate) fn read(
        disk: &dyn Disk,
        settings: &DeliverySettings,
        life: Incarnation,
    ) -> anyhow::Result<Self> {
        let (mut keys, mut letters, mut dead, mut inbox) =
            (Vec::new(), Vec::new(), Vec::new(), Inbox::default());
        for prefix in [b"k", b"l", b"d", b"f", b"m"] {
            for (key, value) in disk.rows(prefix).map_err(anyhow::Error::msg)? {
                match rows::read(&key, &value)? {
                    Some(Row::Key(key, row)) => keys.push((key, row)),
                    Some(Row::Letter(id, letter)) => letters.push((id, letter)),
                    Some(Row::Dead(id, letter)) => dead.push((id, letter)),
                    Some(Row::Settled(source, id)) => inbox.recover_settled(source, id),
                    Some(Row::Floor(source, floor)) => inbox.recover_floor(source, floor),
                    None => {}
                }
            }
        }
        Ok(Self {
            keys: KeyTable::recover(settings.clone(), keys),
            inbox,
            outbox: Outbox::recover(settings.clone(), life, letters, dead),
        })
    }
}

/// Delivery on one node. Cloneable; all clones are one.
#[derive(Clone)]
pub(crate) struct Delivery(Arc<Handle>);

struct Handle {
    inputs: mpsc::Sender<Input>,
    disk: Arc<dyn Disk>,
    unwritten: Arc<Unwritten>,
    /// Nodes whose outbox is full.
    full: Arc<Mutex<BTreeSet<NodeId>>>,
}

impl Delivery {
    /// Starts the task. `halt` is called when nothing can become durable any more.
    pub(crate) fn start(
        mesh: &Mesh,
        disk: Arc<dyn Disk>,
        recovered: Recovered,
        halt: impl Fn(String) + Send + Sync + 'static,
    ) -> (Self, JoinHandle<()>) {
        let (inputs, taken) = mpsc::channel(WAITING);
        let (unwritten, full) = (Arc::new(Unwritten::default()), Arc::default());
        let handle = Handle {
            inputs,
            disk: Arc::clone(&disk),
            unwritten: Arc::clone(&unwritten),
            full: Arc::clone(&full),
        };
        let desk = Desk::new(mesh.clone(), disk, recovered, unwritten, full, Arc::new(halt));
        (Self(Arc::new(handle)), tokio::spawn(desk.run(taken)))
    }

    /// An ask with a key has come for an actor of this node.
    pub(crate) fn ask(&self, key: &str, incoming: Incoming) {
        let asked = asked(key, incoming.from.as_deref(), &incoming.request);
        let (came, span) = (Instant::now(), Span::current());
        let input = Input::Ask { asked, incoming: Box::new(incoming), came, span };
        if let Err(error) = self.0.inputs.try_send(input)
            && let Input::Ask { incoming, .. } = error.into_inner()
        {
            incoming.answer.fault(busy());
        }
    }

    /// Takes a letter: durable here when this returns.
    pub(crate) async fn tell(&self, letter: Letter) -> Result<(), Fault> {
        let (answer, answered) = oneshot::channel();
        self.0.inputs.try_send(Input::Tell { letter, answer }).map_err(|_| busy())?;
        answered.await.unwrap_or_else(|_| Err(Fault::unknown(stops())))
    }

    /// Whether a letter to this node would be refused.
    pub(crate) fn has_room(&self, to: &NodeId) -> Result<(), Fault> {
        match self.0.full.lock().contains(to) {
            true => Err(rhumb_actors::delivery::outbox::full(to)),
            false => Ok(()),
        }
    }

    /// A letter of another node has come. The verdict comes later.
    pub(crate) fn arrives(
        &self,
        arrived: Arrived,
        from: Arc<Peer>,
        request: Request,
    ) -> oneshot::Receiver<Verdict> {
        let (answer, answered) = oneshot::channel();
        // What finds no room is dropped with its answer: that is not now.
        self.0.inputs.try_send(Input::Letter { arrived, from, request, answer }).ok();
        answered
    }

    /// A node can be reached again. A notice that is lost only costs a longer wait.
    pub(crate) fn reached(&self, node: NodeId) {
        self.0.inputs.try_send(Input::Reached(node)).ok();
    }

    /// An actor's rows, as its last answered call left them.
    pub(crate) fn rows(&self, actor: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        let prefix = rows::of_actor(actor);
        let found = self.0.unwritten.over(&prefix, || self.0.disk.rows(&prefix));
        let found = found.map_err(|why| Fault::not_sent(FaultKind::Storage(why)))?;
        Ok(found.into_iter().map(|(key, value)| (key[prefix.len()..].to_vec(), value)).collect())
    }

    /// What there is to say; none if the task has gone.
    pub(crate) async fn report(&self) -> Option<DeliveryReport> {
        self.look(report::of).await
    }

    /// Reads something of the outbox.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Recovered) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look: desk::Look = Box::new(move |machines| {
            answer.send(read(machines)).ok();
        });
        self.0.inputs.send(Input::Look(look)).await.ok()?;
        answered.await.ok()
    }

    /// Sends a dead letter again, or drops it for good.
    pub(crate) async fn settle(&self, id: LetterId, retry: bool) -> Result<(), Fault> {
        let (answer, answered) = oneshot::channel();
        self.0.inputs.try_send(Input::Settle { id, retry, answer }).map_err(|_| busy())?;
        answered.await.unwrap_or_else(|_| Err(Fault::unknown(stops())))
    }
}

fn busy() -> Fault {
    let full = Fault::not_sent(FaultKind::Full("this node's delivery".to_owned()));
    Fault { retry_after: Some(RETRY_AFTER), ..full }
}

fn stops() -> FaultKind {
    FaultKind::Handler("the node stops".to_owned())
}

/// The key of an ask, in whose scope it is, and what it says.
fn asked(key: &str, from: Option<&Peer>, request: &Request) -> Asked {
    let scope = match from.map(|from| &from.principal) {
        Some(program) if program.role != Role::Node => program.to_string(),
        _ => String::new(),
    };
    let target = request.headers.target.as_deref().unwrap_or_default();
    let name = request.name.to_string();
    Asked {
        key: Key(hash(&[scope.as_bytes(), target.as_bytes(), name.as_bytes(), key.as_bytes()])),
        body: hash(&[request.class.as_str().as_bytes(), &request.body]),
        scope: Scope(scope),
        actors: kind_of(target).to_owned(),
        name,
    }
}

/// The type in a target: `cart/42`, `cart@eu-west/42`, `cart?` for one of equal actors.
fn kind_of(target: &str) -> &str {
    target.split(['/', '@', '?']).next().unwrap_or_default()
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix("rhumb-key-v1\n");
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
