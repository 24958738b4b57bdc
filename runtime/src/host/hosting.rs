//! How actors of one type are hosted: what a program says, and what a factory is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rhumb_actors::remote::{Addressed, Hosted};
use rhumb_core::{Epoch, Fault};

use super::Admission;
use super::cell::Cell;
use super::id::ActorId;
use super::restarts::Restarts;
use crate::mesh::Mesh;

/// How long an actor may be idle before it goes to sleep, unless its host says otherwise.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How large all actors of a type together are before the idle ones go to sleep sooner, unless their host says
/// otherwise: whoever may send messages chooses their keys.
pub const MEMORY: u64 = 1 << 30;

/// What a factory is told about the actor that it makes.
#[derive(Clone)]
pub struct Activation {
    /// The actor's name.
    pub id: ActorId,
    /// The mesh, as seen from this node.
    pub mesh: Mesh,
    /// The epoch of the instance: the life of its node. Only rises. Of a type that moves ([`Host::moves`]), where its node
    /// keeps ranges: higher than that of every instance that the actor has had on another node before. What the
    /// instance writes elsewhere should carry it to where it is checked.
    pub epoch: Epoch,
}

impl Activation {
    pub(crate) fn new<A: Hosted>(cell: &Cell<A>) -> Self {
        let mesh = cell.home.mesh.clone();
        Self { id: cell.id.clone(), epoch: cell.epoch().unwrap_or_else(|| mesh.epoch()), mesh }
    }

    /// The rows that this actor wrote ([`Call::put`](super::Call::put)), as its last answered call left them. Empty
    /// where nothing is kept.
    ///
    /// # Errors
    /// The node's store does not answer.
    pub fn rows(&self) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        self.mesh.delivery().map_or_else(|| Ok(BTreeMap::new()), |delivery| delivery.rows(&self.id.target()))
    }

    /// The actor's key; empty for a singleton.
    #[must_use]
    pub fn key(&self) -> &str {
        self.id.key()
    }
}

type Factory<A> = Arc<dyn Fn(&Activation) -> A + Send + Sync>;
type Footprint<A> = Arc<dyn Fn(&A) -> u64 + Send + Sync>;
type Parent = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// How actors of one type are hosted on a node.
pub struct Host<A: Hosted> {
    pub(crate) factory: Factory<A>,
    pub(crate) idle: Option<Duration>,
    pub(crate) memory: Option<u64>,
    pub(crate) footprint: Option<Footprint<A>>,
    pub(crate) restarts: Restarts,
    pub(crate) mailbox: Option<usize>,
    pub(crate) parent: Option<(&'static str, Parent)>,
    pub(crate) needs: Vec<&'static str>,
    pub(crate) beside_links: bool,
    pub(crate) admission: Option<Admission>,
    pub(crate) equals: usize,
    pub(crate) moves: bool,
}

impl<A: Hosted> Clone for Host<A> {
    fn clone(&self) -> Self {
        Self {
            factory: Arc::clone(&self.factory),
            footprint: self.footprint.clone(),
            parent: self.parent.clone(),
            needs: self.needs.clone(),
            ..*self
        }
    }
}

impl<A: Hosted> Host<A> {
    /// Hosts a type whose actors this factory makes: at the first message to a key, and again after a
    /// panic or a sleep.
    pub fn new(factory: impl Fn(&Activation) -> A + Send + Sync + 'static) -> Self {
        Self {
            factory: Arc::new(factory),
            idle: Some(IDLE),
            memory: None,
            footprint: None,
            restarts: Restarts::default(),
            mailbox: None,
            parent: None,
            needs: Vec::new(),
            beside_links: false,
            admission: None,
            equals: 0,
            moves: false,
        }
    }

    /// Lets an actor go to sleep that nobody has called for so long: a quarter of an hour unless said.
    /// Messages that come meanwhile are kept, and wake it.
    #[must_use]
    pub fn idle(mut self, after: Duration) -> Self {
        self.idle = Some(after);
        self
    }

    /// Lets no actor go to sleep, neither for being idle nor for memory: whoever may send it messages can then fill
    /// that, one key after the other, unless [`Host::memory`] is set.
    #[must_use]
    pub fn never_idle(mut self) -> Self {
        self.idle = None;
        self
    }

    /// Lets actors go to sleep, the least recently used first, while all of this type together have a
    /// larger footprint than this many bytes: [`MEMORY`] unless said. Only idle ones: it is a target, not a wall.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Says how many bytes an actor has on the heap; the size of the type and [`super::BASE_FOOTPRINT`] are
    /// added.
    #[must_use]
    pub fn footprint(mut self, of: impl Fn(&A) -> u64 + Send + Sync + 'static) -> Self {
        self.footprint = Some(Arc::new(of));
        self
    }

    /// How actors that panic are restarted.
    #[must_use]
    pub fn restarts(mut self, restarts: Restarts) -> Self {
        self.restarts = restarts;
        self
    }

    /// Lets these actors run on the thread on which the node's links are, where their messages arrive. That
    /// spares each question and each answer the way to another thread: about half of what a small one
    /// costs a node. It is for handlers of some microseconds: while one runs, the node acknowledges
    /// nothing, and one that blocks for longer than the silence limit makes the node unreachable. The
    /// watchdog names it.
    #[must_use]
    pub fn beside_links(mut self) -> Self {
        self.beside_links = true;
        self
    }

    /// Lets in only as many questions at once as these actors answer without waiting for each other: how many that is,
    /// is learnt from how long they take. The others are told `Overloaded` at once, and when to come again; so is what
    /// could not be done in the time that it has. For types whose questions take about equally long.
    #[must_use]
    pub fn admission(mut self, settings: Admission) -> Self {
        self.admission = Some(settings);
        self
    }

    /// Has so many actors on this node that are equal to each other and to those of other nodes, besides those with
    /// keys: `mesh.any::<A>()` asks one of them, wherever that is best. They have no key, and what one keeps in its
    /// memory the others do not know.
    #[must_use]
    pub fn equals(mut self, count: usize) -> Self {
        self.equals = count;
        self
    }

    /// Lets another node act for these actors while theirs is lost, and theirs again when it is back: see
    /// [`Activation::epoch`]. In a mesh whose nodes keep ranges; elsewhere they stay where they are. What waits for an
    /// instance that may not act any more is refused, and what it has in memory is lost.
    ///
    /// Answers under keys, rows ([`Call::put`](super::Call::put)) and durable tells are of one node's disk, and do not move: such
    /// messages to these actors are refused. All nodes of a mesh say this of a type, or none does.
    #[must_use]
    pub fn moves(mut self) -> Self {
        self.moves = true;
        self
    }

    /// Another capacity of the mailbox than the type declares.
    #[must_use]
    pub fn mailbox(mut self, capacity: usize) -> Self {
        self.mailbox = Some(capacity);
        self
    }

    /// Makes each actor the child of an actor of type `P` on its node, whose key this gives for the
    /// child's key. A child that gives up makes its parent begin anew, and count it as a panic of its
    /// own; a parent that begins anew lets all its children begin anew.
    #[must_use]
    pub fn child_of<P: Hosted>(mut self, key: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        self.parent = Some((P::TYPE, Arc::new(key)));
        self
    }

    /// Says that these actors call actors of type `P`: a node that hosts this type and not that one
    /// refuses to start.
    #[must_use]
    pub fn calls<P: Addressed>(mut self) -> Self {
        self.needs.push(P::TYPE);
        self
    }

    /// By how many bytes all actors of the type may weigh, and how many fewer they weigh once some had to go: to
    /// look for the least recently used costs as much for one as for many.
    pub(crate) fn bound(&self) -> Option<(u64, u64)> {
        let unsaid = self.idle.map(|_| (MEMORY, MEMORY / 16));
        self.memory.map(|limit| (limit, 0)).or(unsaid)
    }
}
