//! All actors of one type on a node.
//!
//! * It decides: which messages the type takes, how many of its actors may be awake, and which of them
//!   go to sleep first.
//! * It never does: decide on which node an actor lives.
//! * Invariant: an actor has one cell.

use std::any::Any;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::Handler;
use futures::future::BoxFuture;
use hashbrown::{HashMap, HashTable};
use parking_lot::Mutex;
use rhumb_actors::remote::{Audience, Hosted, KeepsContext, Remote, Table};
use rhumb_core::{Epoch, Fault, FaultKind};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::Door;
use super::arbiters::{Arbiters, Listed, Work, Worker};
use super::cell::{Cell, NotIn};
use super::hosting::{Activation, Host};
use super::id::{ActorId, Shown};
use super::packed::{Deliver, unpack};
use super::restarts::Restarts;
use super::watch::{End, Ended, Watchers};
use super::{AnyHome, Hosts, TypeReport};
use crate::mesh::Mesh;
use crate::mesh::body::fingerprint;
use crate::mesh::dispatch::{self, Incoming};

/// Bytes that an actor costs besides what it says itself, by which a memory limit counts: its actix
/// context, its cell and its place in the map.
pub const BASE_FOOTPRINT: u64 = 1_400;
/// How long a home takes to look at all its cells, at most, and at least.
const ROUND: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));
/// A mailbox that has been empty for so long gives back its room.
const RESTED: Duration = Duration::from_secs(1);
/// How often actors are put to sleep for memory, at most.
const SHED_EVERY: Duration = Duration::from_millis(100);
/// How many maps an actor type's cells are spread over.
const SHARDS: usize = 64;

/// What was counted of one type.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    activations: AtomicU64,
    live: AtomicU64,
    panics: AtomicU64,
    gave_up: AtomicU64,
    passivations: AtomicU64,
    overflows: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    pub(crate) fn activated(&self) {
        self.activations.fetch_add(1, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn gave_up(&self) {
        self.gave_up.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn overflowed(&self) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes what an asker packed into what an actor takes; none if it is another message.
type Unpack<A> = fn(Box<dyn Any + Send>, Listed) -> Option<Box<dyn Deliver<A>>>;

/// What a type does with one kind of message.
pub(crate) struct Entry<A: Hosted> {
    version: u16,
    fingerprint: u64,
    audience: Audience,
    runs_once: bool,
    work: Listed,
    unpack: Unpack<A>,
    receive: fn(&Arc<Home<A>>, ActorId, Listed, Incoming),
    receive_all: fn(&Arc<Home<A>>, Listed, Incoming),
}

/// The table that [`Hosted::serve`] fills.
struct Entries<A: Hosted>(HashMap<&'static str, Entry<A>>);

impl<A: Hosted> Table<A> for Entries<A> {
    fn message<M>(&mut self)
    where
        M: Remote,
        A: Handler<M>,
        <A as Handler<M>>::Result: KeepsContext,
    {
        let entry = Entry {
            version: M::VERSION,
            fingerprint: fingerprint::<M>(),
            audience: M::AUDIENCE,
            runs_once: !M::IDEMPOTENT,
            work: Work { actor: A::TYPE, message: M::NAME }.list(),
            unpack: unpack::<A, M>,
            receive: dispatch::receive::<A, M>,
            receive_all: dispatch::receive_all::<A, M>,
        };
        self.0.insert(M::NAME, entry);
    }
}

/// All actors of one type on a node.
pub(crate) struct Home<A: Hosted> {
    pub(crate) mesh: Mesh,
    pub(crate) counts: Counts,
    /// How the making of an instance shows when it blocks its arbiter.
    pub(crate) making: Listed,
    /// How an instance's turn shows, besides its messages.
    pub(crate) turning: Listed,
    host: Host<A>,
    door: Option<Arc<Door>>,
    /// Whose turn it is among equal actors.
    turn: AtomicUsize,
    hosts: Weak<Hosts>,
    arbiters: Arc<Arbiters>,
    entries: HashMap<&'static str, Entry<A>>,
    /// Cells by the hash of their actor's name.
    shards: Vec<Mutex<HashTable<Arc<Cell<A>>>>>,
    hasher: RandomState,
    watchers: Watchers,
    started: Instant,
    weight: AtomicU64,
    heavy: Arc<Notify>,
    closed: AtomicBool,
    this: OnceLock<Weak<Self>>,
    marker: PhantomData<fn() -> A>,
}

impl<A: Hosted> Home<A> {
    pub(crate) fn start(host: Host<A>, mesh: Mesh, hosts: Weak<Hosts>, arbiters: Arc<Arbiters>) -> Arc<Self> {
        let mut entries = Entries(HashMap::new());
        A::serve(&mut entries);
        let home = Arc::new(Self {
            mesh,
            counts: Counts::default(),
            making: Work { actor: A::TYPE, message: "its factory" }.list(),
            turning: Work { actor: A::TYPE, message: "a hook (started, stopping, stopped) or a future" }
                .list(),
            turn: AtomicUsize::new(0),
            door: host.admission.map(|settings| Arc::new(Door::new(A::TYPE, settings))),
            host,
            hosts,
            arbiters,
            entries: entries.0,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            watchers: Watchers::default(),
            started: Instant::now(),
            weight: AtomicU64::new(0),
            heavy: Arc::default(),
            closed: AtomicBool::new(false),
            this: OnceLock::new(),
            marker: PhantomData,
        });
        home.this.set(Arc::downgrade(&home)).expect("set once");
        tokio::spawn(keep(Arc::downgrade(&home)));
        home
    }

    pub(crate) fn capacity(&self) -> usize {
        self.host.mailbox.unwrap_or(A::MAILBOX)
    }

    /// Whether its actors move.
    pub(super) fn moves(&self) -> bool {
        self.host.moves
    }

    pub(crate) fn restarts(&self) -> Restarts {
        self.host.restarts
    }

    pub(crate) fn make(&self, activation: &Activation) -> A {
        (self.host.factory)(activation)
    }

    pub(crate) fn worker(&self, hash: u64) -> &Worker {
        if self.host.beside_links { self.arbiters.of_links() } else { self.arbiters.of_key(hash) }
    }

    pub(crate) fn millis(&self, now: Instant) -> u64 {
        now.duration_since(self.started).as_millis() as u64
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn weight_of(&self, actor: &A) -> u64 {
        let own = self.host.footprint.as_ref().map_or(0, |footprint| footprint(actor));
        BASE_FOOTPRINT + size_of::<A>() as u64 + own
    }

    /// An actor's weight changes.
    pub(crate) fn weighs(&self, before: u64, now: u64) {
        if now >= before {
            let all = self.weight.fetch_add(now - before, Ordering::Relaxed) + (now - before);
            if now > before && self.host.bound().is_some_and(|(limit, _)| all > limit) {
                self.heavy.notify_one();
            }
        } else {
            self.weight.fetch_sub(before - now, Ordering::Relaxed);
        }
    }

    /// Puts a message into the mailbox of one actor, whose cell may have been found already.
    pub(crate) fn push(
        &self,
        id: &ActorId,
        found: Option<Arc<Cell<A>>>,
        message: Box<dyn Deliver<A>>,
        now: Instant,
    ) -> Result<(), Fault> {
        let (mut message, mut found) = (message, found);
        loop {
            let Some(cell) = found.take().or_else(|| self.cell(id)) else {
                message.refuse(Fault::not_sent(FaultKind::Draining));
                return Err(Fault::not_sent(FaultKind::Draining));
            };
            match cell.push(message, now) {
                Ok(()) => return Ok(()),
                Err(NotIn::Refused(fault)) => return Err(fault),
                Err(NotIn::Gone(back)) => message = back,
            }
        }
    }

    /// All actors of the type that are awake.
    pub(crate) fn awake(&self) -> Vec<Arc<Cell<A>>> {
        self.cells(|cell| cell.is_awake())
    }

    /// Takes a cell out that nobody needs.
    pub(crate) fn take_out(&self, cell: &Arc<Cell<A>>) {
        let mut cells = self.shard(cell.hash).lock();
        if cell.goes(Instant::now()) {
            forget(&mut cells, cell);
        }
    }

    /// Takes a cell out whose arbiter is gone.
    pub(crate) fn remove(&self, cell: &Arc<Cell<A>>) {
        forget(&mut self.shard(cell.hash).lock(), cell);
    }

    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    pub(crate) fn end(&self, id: &ActorId, how: &Ended) {
        self.watchers.ended(id, how);
    }

    /// An actor gave up: its parent begins anew.
    pub(crate) fn escalate(&self, id: &ActorId) {
        if let (Some((kind, key)), Some(hosts)) = (&self.host.parent, self.hosts.upgrade()) {
            let named = catch_unwind(AssertUnwindSafe(|| key(id.key())));
            match named {
                Ok(parent) => hosts.child_gave_up(kind, &parent, id),
                Err(_) => tracing::error!(actor = %id.shown(), "what names its parent panicked"),
            }
        }
    }

    /// An actor begins anew: so do its children.
    pub(crate) fn begins_anew(&self, id: &ActorId) {
        if let Some(hosts) = self.hosts.upgrade() {
            hosts.parent_begins_anew(id);
        }
    }

    /// The cell of an actor, if it has one.
    pub(crate) fn found(&self, id: &ActorId) -> Option<Arc<Cell<A>>> {
        let hash = self.hasher.hash_one(id);
        let cells = self.shard(hash).lock();
        cells.find(hash, |cell| cell.id == *id).map(Arc::clone)
    }

    /// The cell of an actor; none any more when the node stops.
    pub(crate) fn cell(&self, id: &ActorId) -> Option<Arc<Cell<A>>> {
        let hash = self.hasher.hash_one(id);
        let mut cells = self.shard(hash).lock();
        if self.is_closed() {
            return None;
        }
        if let Some(cell) = cells.find(hash, |cell| cell.id == *id) {
            return Some(Arc::clone(cell));
        }
        let this = self.this.get().and_then(Weak::upgrade)?;
        let cell = Arc::new(Cell::new(id.clone(), hash, this));
        cells.insert_unique(hash, Arc::clone(&cell), |cell| cell.hash);
        Some(cell)
    }

    fn shard(&self, hash: u64) -> &Mutex<HashTable<Arc<Cell<A>>>> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn cells(&self, wanted: impl Fn(&Cell<A>) -> bool) -> Vec<Arc<Cell<A>>> {
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| {
                let cells = shard.lock();
                cells.iter().filter(|cell| wanted(cell)).map(Arc::clone).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The cells of each shard, one shard after the other.
    pub(super) fn shards(&self) -> impl Iterator<Item = Vec<Arc<Cell<A>>>> {
        self.shards.iter().map(|shard| shard.lock().iter().map(Arc::clone).collect())
    }

    /// Looks at the cells of one shard: lets idle actors go, and takes out what nobody needs.
    fn sweep(&self, shard: usize) {
        let now = Instant::now();
        let cells: Vec<_> = self.shards[shard].lock().iter().map(Arc::clone).collect();
        if let Some(before) = self.millis(now).checked_sub(RESTED.as_millis() as u64) {
            cells.iter().for_each(|cell| cell.slim(before));
        }
        if let Some(idle) = self.host.idle
            && let Some(since) = self.millis(now).checked_sub(idle.as_millis() as u64)
        {
            let gone = cells.iter().filter(|cell| cell.leave_if_idle(since)).count();
            self.counts.passivations.fetch_add(gone as u64, Ordering::Relaxed);
        }
        cells.iter().filter(|cell| !cell.is_awake()).for_each(|cell| self.take_out(cell));
    }

    /// Lets the least recently used go while there are too many.
    fn shed(&self) {
        let Some((limit, fewer)) = self.host.bound() else { return };
        // All cells are walked only where there may be too many.
        if self.weight.load(Ordering::Relaxed) <= limit {
            return;
        }
        let leaving: u64 = self.cells(Cell::is_leaving).iter().map(|cell| cell.footprint()).sum();
        let mut over = self.weight.load(Ordering::Relaxed).saturating_sub(limit + leaving);
        if over == 0 {
            return;
        }
        over += fewer;
        let cells = self.cells(|cell| cell.footprint() > 0);
        // Read once: an actor that is used meanwhile must not change its place amid the sort.
        let mut cells: Vec<_> = cells.into_iter().map(|cell| (cell.used_ms(), cell)).collect();
        cells.sort_unstable_by_key(|(used, _)| *used);
        for (_, cell) in cells {
            let bytes = cell.footprint();
            if over > 0 && cell.leave_if_idle(u64::MAX) {
                self.counts.passivations.fetch_add(1, Ordering::Relaxed);
                over = over.saturating_sub(bytes);
            }
        }
    }

    /// How long to wait between two shards, and how many to look at then.
    fn pace(&self) -> (Duration, usize) {
        let round = self.host.idle.map_or(ROUND.1, |idle| (idle / 4).clamp(ROUND.0, ROUND.1));
        let every = (round / SHARDS as u32).max(ROUND.0);
        let shards = (SHARDS as u128 * every.as_nanos()).div_ceil(round.as_nanos());
        (every, (shards as usize).clamp(1, SHARDS))
    }
}

/// Takes this very cell out of its shard, and no later one of the same actor.
fn forget<A: Hosted>(cells: &mut HashTable<Arc<Cell<A>>>, cell: &Arc<Cell<A>>) {
    if let Ok(present) = cells.find_entry(cell.hash, |present| Arc::ptr_eq(present, cell)) {
        present.remove();
    }
}

/// Keeps a home for as long as there is one: a few cells at a time, so that nobody waits for it.
async fn keep<A: Hosted>(home: Weak<Home<A>>) {
    let Some((every, shards)) = home.upgrade().map(|home| home.pace()) else { return };
    let heavy = home.upgrade().map(|home| Arc::clone(&home.heavy));
    let Some(heavy) = heavy else { return };
    let (mut at, mut shed) = (0, Instant::now());
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = heavy.notified() => tokio::time::sleep_until(shed + SHED_EVERY).await,
        }
        let Some(home) = home.upgrade().filter(|home| !home.is_closed()) else { return };
        for _ in 0..shards {
            home.sweep(at % SHARDS);
            at += 1;
        }
        if shed.elapsed() >= SHED_EVERY {
            shed = Instant::now();
            home.shed();
        }
    }
}

impl<A: Hosted> AnyHome for Home<A> {
    fn kind(&self) -> &'static str {
        A::TYPE
    }

    fn class(&self) -> &'static str {
        A::CLASS
    }

    fn needs(&self) -> Vec<&'static str> {
        let parent = self.host.parent.as_ref().map(|(kind, _)| *kind);
        self.host.needs.iter().copied().chain(parent).collect()
    }

    fn messages(&self) -> Vec<(&'static str, u16, u64)> {
        self.entries.iter().map(|(name, entry)| (*name, entry.version, entry.fingerprint)).collect()
    }

    fn audience(&self, name: &str) -> Option<Audience> {
        self.entries.get(name).map(|entry| entry.audience)
    }

    fn runs_once(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.runs_once)
    }

    fn door(&self) -> Option<&Arc<Door>> {
        self.door.as_ref()
    }

    fn equal(&self) -> Option<ActorId> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let number = turn.checked_rem(self.host.equals)?;
        Some(ActorId::equal(A::TYPE, Some(number)))
    }

    fn local(
        &self,
        id: &ActorId,
        name: &'static str,
        packed: Box<dyn Any + Send>,
        now: Instant,
    ) -> Result<(), Fault> {
        let entry = self.entries.get(name);
        let message = entry.and_then(|entry| (entry.unpack)(packed, entry.work));
        let unknown = || Fault::not_sent(FaultKind::UnknownMessage(name.to_owned()));
        self.push(id, None, message.ok_or_else(unknown)?, now)
    }

    fn remote(&self, id: ActorId, incoming: Incoming) {
        let this = self.this.get().and_then(Weak::upgrade);
        match (self.entries.get(&*incoming.request.name), this) {
            (Some(entry), Some(this)) => (entry.receive)(&this, id, entry.work, incoming),
            _ => incoming.unknown(),
        }
    }

    fn remote_all(&self, incoming: Incoming) {
        let this = self.this.get().and_then(Weak::upgrade);
        match (self.entries.get(&*incoming.request.name), this) {
            (Some(entry), Some(this)) => (entry.receive_all)(&this, entry.work, incoming),
            _ => incoming.unknown(),
        }
    }

    fn watch(&self, actor: &Shown) -> Result<End, Fault> {
        self.watched(actor)
    }

    fn child_gave_up(&self, key: &str, child: &ActorId) {
        for cell in self.cells(|cell| cell.id.key() == key) {
            let (actor, child) = (cell.id.shown(), child.shown());
            tracing::warn!(%actor, %child, "a child gave up: its parent begins anew");
            cell.child_gave_up();
        }
    }

    fn parent_begins_anew(&self, parent: &ActorId) {
        let Some((kind, key)) = &self.host.parent else { return };
        if *kind != parent.kind() {
            return;
        }
        let is_child = |cell: &Arc<Cell<A>>| {
            let named = catch_unwind(AssertUnwindSafe(|| key(cell.id.key())));
            named.is_ok_and(|name| name == parent.key())
        };
        self.cells(|_| true).iter().filter(|cell| is_child(cell)).for_each(|cell| cell.begin_anew());
    }

    fn report(&self) -> TypeReport {
        let counts = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let cells = self.cells(|cell| cell.waiting() > 0);
        let backlogs: Vec<(usize, Option<Instant>)> = cells.iter().map(|cell| cell.backlog()).collect();
        let oldest = backlogs.iter().filter_map(|(_, since)| *since).min();
        TypeReport {
            kind: A::TYPE,
            live: read(&counts.live),
            waiting: backlogs.iter().map(|(waiting, _)| waiting).sum(),
            fullest: backlogs.iter().map(|(waiting, _)| *waiting).max().unwrap_or(0),
            capacity: self.capacity(),
            oldest: oldest.map(|since| since.elapsed()),
            bytes: self.weight.load(Ordering::Relaxed),
            activations: read(&counts.activations),
            passivations: read(&counts.passivations),
            panics: read(&counts.panics),
            gave_up: read(&counts.gave_up),
            overflows: read(&counts.overflows),
            dropped: read(&counts.dropped),
            admission: self.door.as_ref().map(|door| door.report()),
        }
    }

    fn moves(&self) -> bool {
        self.host.moves
    }

    fn may_take(&self, id: &ActorId) -> Result<(), Fault> {
        // Others have no owner that could change.
        if self.owners_of(id).is_none() {
            return Ok(());
        }
        Home::may_take(self, id, self.found(id).as_deref()).unwrap_or(Ok(()))
    }

    fn epoch(&self, id: &ActorId) -> Epoch {
        self.epoch_of(id)
    }

    fn let_go(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.lets_go())
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut cells = Vec::new();
        // Taken out too: a cell holds its home, and the home must not hold the cell for ever.
        self.shards.iter().for_each(|shard| cells.extend(shard.lock().drain()));
        cells.iter().for_each(|cell| cell.close());
    }
}
