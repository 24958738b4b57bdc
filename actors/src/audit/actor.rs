//! The shell of `AuditLogger`: receives, steps the machines, performs their effects, arms one timer. All
//! machines write through one barrier: what any of them says waits for what all of them wrote before.

mod asked;
mod handle;
mod perform;
mod prune;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::future::BoxFuture;
use futures::stream;
use rhumb_core::effects::{Effects, Release};
use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Barrier, Mono, NodeId, Now, Ticket};
use rhumb_storage::{Batch, CommitError, CommitNumber, HotStore};
use rhumb_verify::record::Entry;
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use self::asked::Append;
pub use self::handle::{AuditHandle, Looked, Shared};
use self::prune::Pruning;
use self::view::Counted;
use super::keys::{self, Fresh, NoKey};
use super::machines::{Machines, Signing};
use super::messages::{Cosign, Uncosigned};
use super::observed::{self, Observations, Observed};
use super::peers::{self, NotReplaced};
use super::record::{NoRecord, Outcome, Record, Salts};
use super::roots::{COSIGNED, Roots};
use super::seal::{self, KeyId, SecretKey, WrappedBy};
use super::statements::Unstated;
use super::{log, statements, witness};
use crate::backlog::Backlog;
use crate::storage::{StorageHandle, Window};

/// How much may wait in the mailbox.
const MAILBOX: usize = 8_192;
/// How many appends may wait for the disk, or for the first wrapping key.
const MAX_WAITING: usize = 16_384;
/// How many erasures, and how many cosignatures, may be under way.
const MAX_ASKED: usize = 1_024;
/// Batches under way with storage, as everywhere: one that is being synced, and the next.
const WINDOW: usize = 2;
/// How often counted observations are looked at.
const PASS_EVERY: Duration = Duration::from_secs(1);

/// What the shell needs of the world around it.
pub trait World: Send + Sync + 'static {
    /// The present time.
    fn now(&self) -> Now;
    /// Asks a log witness. None: it did not answer.
    fn cosign(&self, witness: &NodeId, ask: Cosign)
    -> BoxFuture<'static, Option<Result<String, Uncosigned>>>;
    /// Makes a wrapping key durably, or gives the one that is there.
    fn make(&self, by: WrappedBy) -> BoxFuture<'static, Result<SecretKey, String>>;
    /// Destroys a wrapping key durably.
    fn destroy(&self, by: WrappedBy) -> BoxFuture<'static, Result<(), String>>;
    /// The log or the store below it can not go on: stop the process.
    fn halt(&self, reason: String);
}

/// Why a record is not in the log. What it tells of must not be done, or not be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAppended {
    /// It is no record.
    #[error(transparent)]
    Record(#[from] NoRecord),
    /// It cannot be sealed.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// Too much waits.
    #[error("the audit log has no room for more at present: ask again")]
    Overloaded,
    /// The log has stopped.
    #[error("the audit log has stopped")]
    Stopped,
    /// The disk does not take it.
    #[error("the audit log cannot be written: {0}")]
    Failed(String),
    /// Nobody knows whether it is in the log.
    #[error("the audit log did not answer within {0:?}: the entry may or may not be there")]
    Late(Duration),
}

impl NotAppended {
    /// A short stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Key(_) => "key",
            Self::Overloaded => "overloaded",
            Self::Stopped => "stopped",
            Self::Failed(_) => "failed",
            Self::Late(_) => "late",
        }
    }
}

/// Why a key that was brought is not kept here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotKept {
    /// There is no room for it, or nothing to wrap it under.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// Too much waits.
    #[error("too many keys are being kept: ask again")]
    Overloaded,
    /// The log has stopped, or did not answer in time.
    #[error("whether the key is kept is not known: the audit actor did not answer in time")]
    Unfinished,
}

/// Why a subject is not erased.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotErased {
    /// Too many erasures are under way.
    #[error("too many erasures are under way: ask again")]
    Overloaded,
    /// The log has stopped, or did not answer in time: the erasure goes on when the node starts again.
    #[error("the erasure was not told finished: ask again, it is finished when that is answered")]
    Unfinished,
}

/// What is durable, and of which machine.
#[derive(Debug)]
enum Sent {
    Log(log::Effect),
    Witness(witness::Effect),
    Keys(keys::Effect),
    Peers(peers::Effect),
    Statements(statements::Effect),
}

#[derive(Default)]
struct Outs {
    peers: Effects<Batch, peers::Effect>,
    keys: Effects<Batch, keys::Effect>,
    witness: Effects<Batch, witness::Effect>,
    log: Effects<Batch, log::Effect>,
    statements: Effects<Batch, statements::Effect>,
}

/// How far this actor's batches are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Committed {
    UpTo(Ticket),
    Failed(String),
}

type Appended = oneshot::Sender<Result<u64, NotAppended>>;
type Cosigned = oneshot::Sender<Result<String, Uncosigned>>;
type Stated = oneshot::Sender<Result<String, Unstated>>;
type Replaced = oneshot::Sender<Result<(), NotReplaced>>;

/// Who waits, by token.
#[derive(Default)]
struct Waiting {
    last: u64,
    appends: BTreeMap<u64, Appended>,
    cosigns: BTreeMap<u64, Cosigned>,
    erasures: BTreeMap<u64, (Option<KeyId>, oneshot::Sender<Option<KeyId>>)>,
    kept: BTreeMap<u64, oneshot::Sender<Result<(), NotKept>>>,
    replaced: BTreeMap<NodeId, Replaced>,
    statements: BTreeMap<u64, Stated>,
    /// Appends that came before there was a wrapping key.
    early: VecDeque<Append>,
}

impl Waiting {
    fn token(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

/// The audit log of one node.
pub struct AuditLogger {
    machines: Machines,
    signing: Signing,
    salts: Salts,
    drawn: Rng,
    outs: Outs,
    barrier: Barrier<Sent>,
    window: Window,
    storage: StorageHandle,
    store: HotStore,
    backlog: Arc<Backlog>,
    observations: Observations,
    roots: Roots,
    world: Arc<dyn World>,
    waiting: Waiting,
    pruning: Pruning,
    counted: Counted,
    /// When it goes off, and what stops it.
    timer: Option<(Mono, SpawnHandle)>,
    committed: watch::Sender<Committed>,
    /// So many entries are durable: what lies behind them on the disk may still be taken back.
    durable: u64,
}

impl AuditLogger {
    /// What counts a mailbox of this actor's.
    #[must_use]
    pub fn backlog() -> Arc<Backlog> {
        Arc::new(Backlog::of(MAILBOX))
    }

    /// The actor around recovered machines, and the part of it that is shared with its handle.
    #[must_use]
    pub fn new(
        machines: Machines,
        signing: Signing,
        storage: StorageHandle,
        store: HotStore,
        shared: &Shared,
        world: Arc<dyn World>,
    ) -> Self {
        let (committed, _) = watch::channel(Committed::UpTo(Ticket(0)));
        let entropy = Seed::from_entropy();
        let durable = machines.log.status().entries;
        Self {
            durable,
            machines,
            signing,
            salts: Salts::new(entropy.child("salts").rng()),
            drawn: entropy.child("keys").rng(),
            outs: Outs::default(),
            barrier: Barrier::default(),
            window: Window::new(WINDOW),
            storage,
            store,
            backlog: Arc::clone(&shared.backlog),
            observations: shared.observations.clone(),
            roots: Roots::default(),
            world,
            waiting: Waiting::default(),
            pruning: Pruning::default(),
            counted: Counted::default(),
            timer: None,
            committed,
        }
    }

    /// The jurisdiction of this node's records. A node has wrapping keys of its own, so its region is as fine
    /// as any jurisdiction that it belongs to.
    fn jurisdiction(&self) -> String {
        self.machines.me.region.to_string()
    }

    /// Who the node is in records that are about nobody else.
    fn itself(&self) -> String {
        format!("node {}", self.machines.me)
    }

    /// Moves what the machines pushed through the barrier until nothing moves, and arms the timer anew.
    fn settle(&mut self, now: Now, ctx: &mut Context<Self>) {
        loop {
            let released = self.released();
            if released.is_empty() {
                break;
            }
            for release in released {
                match release {
                    Release::Persist(ticket, batch) => {
                        let ready = self.window.offer(ticket, batch);
                        self.hand_over(ready);
                    }
                    Release::Perform(sent) => self.perform(now, sent, ctx),
                }
            }
        }
        self.arm(now, ctx);
    }

    /// In this order: a key is written before what is sealed under it.
    fn released(&mut self) -> Vec<Release<Batch, Sent>> {
        let (mut released, outs) = (Vec::new(), &mut self.outs);
        let mut push = |release| released.push(release);
        self.barrier.absorb_as(&mut outs.peers, |effect, _| Sent::Peers(effect), &mut push);
        self.barrier.absorb_as(&mut outs.keys, |effect, _| Sent::Keys(effect), &mut push);
        self.barrier.absorb_as(&mut outs.witness, |effect, _| Sent::Witness(effect), &mut push);
        self.barrier.absorb_as(&mut outs.log, |effect, _| Sent::Log(effect), &mut push);
        self.barrier.absorb_as(&mut outs.statements, |effect, _| Sent::Statements(effect), &mut push);
        released
    }

    fn hand_over(&mut self, ready: Option<(Ticket, Batch)>) {
        let Some((ticket, batch)) = ready else { return };
        let committed = self.committed.clone();
        let done = move |result: Result<CommitNumber, CommitError>| {
            committed.send_modify(|state| match (&result, &state) {
                (_, Committed::Failed(_)) => {}
                (Ok(_), _) => *state = Committed::UpTo(ticket),
                (Err(error), _) => *state = Committed::Failed(error.to_string()),
            });
        };
        if let Err(reason) = self.storage.write(batch, Box::new(done)) {
            self.world.halt(format!("audit: a batch was not taken: {reason}"));
        }
    }

    /// Sees to it that the log has its tick in time.
    fn arm(&mut self, now: Now, ctx: &mut Context<Self>) {
        let Some(deadline) = self.machines.log.next_deadline(now) else { return };
        if self.timer.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let wait = deadline.since(now.mono).max(Duration::from_millis(1));
        let timer = ctx.run_later(wait, |actor, ctx| {
            actor.timer = None;
            let now = actor.world.now();
            actor.machines.log.tick(now, &mut actor.outs.log);
            actor.settle(now, ctx);
        });
        self.timer = Some((deadline, timer));
    }

    /// Takes a record, unless it must wait for the first wrapping key.
    fn take(&mut self, now: Now, append: Append) {
        if self.waiting.appends.len() + self.waiting.early.len() >= MAX_WAITING {
            return append.refuse(&self.observations, NotAppended::Overloaded);
        }
        let jurisdiction = self.jurisdiction();
        let record =
            Record { time: now.hybrid.to_string(), region: jurisdiction.clone(), ..append.record.clone() };
        let subject = append.subject.clone().unwrap_or_else(|| self.itself());
        let bytes = match record.bytes() {
            Ok(bytes) => bytes,
            Err(why) => return append.refuse(&self.observations, why.into()),
        };
        let fresh = self.fresh();
        let (id, key) = match self.machines.keys.of(&jurisdiction, &subject, fresh, &mut self.outs.keys) {
            Ok(key) => key,
            Err(NoKey::NoWrappingKey(_)) => return self.waiting.early.push_back(append),
            Err(why) => return append.refuse(&self.observations, why.into()),
        };
        let (commitment, body) = seal::seal(&key, id, &self.salts.draw(), &bytes);
        self.counted.appended.count(&record.action);
        let entry = Entry { time: now.hybrid.to_bits(), action: record.action, commitment };
        let token = self.waiting.token();
        if let Some(reply) = append.reply {
            self.waiting.appends.insert(token, reply);
        }
        self.machines.log.append(log::Token(token), &entry, &body, &mut self.outs.log);
    }

    fn fresh(&mut self) -> Fresh {
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|part| part.copy_from_slice(&self.drawn.u64().to_be_bytes()));
        Fresh { id: KeyId(self.drawn.u128().to_be_bytes()), key: SecretKey::new(key) }
    }

    /// Tells of something that this node saw itself.
    fn saw(&mut self, now: Now, record: Record) {
        self.take(now, Append { record, subject: None, reply: None });
    }

    /// Counts something that this node saw, and tells what is to be told now.
    fn observe(&mut self, now: Now, kind: Observed) {
        let mut told = Vec::new();
        self.observations.happened(now.hybrid, kind, |one| told.push(one));
        told.into_iter().for_each(|one| self.saw(now, observed::record(one)));
    }

    /// Nothing more becomes durable: whoever waits is told so, before the process is gone.
    fn tell_why(&mut self, reason: &str) {
        let early = std::mem::take(&mut self.waiting.early);
        let early = early.into_iter().filter_map(|append| append.reply);
        for reply in std::mem::take(&mut self.waiting.appends).into_values().chain(early) {
            // Who waited may have gone.
            reply.send(Err(NotAppended::Failed(reason.to_owned()))).ok();
        }
    }

    fn pass(&mut self, ctx: &mut Context<Self>) {
        let (now, mut told) = (self.world.now(), Vec::new());
        self.observations.pass(now.hybrid, |one| told.push(one));
        let due = self.roots.due(now.mono);
        if !told.is_empty() || !due.is_empty() {
            told.into_iter().for_each(|one| self.saw(now, observed::record(one)));
            self.tell_roots(now, &due);
            self.settle(now, ctx);
        }
        self.look_for_old(now, ctx);
    }

    /// Tells of the checkpoints of other logs that were cosigned last, with those logs' signatures.
    fn tell_roots(&mut self, now: Now, origins: &[String]) {
        for origin in origins {
            let Some((checkpoint, note)) = self.machines.witness.last(origin) else { continue };
            let root = Record::told(COSIGNED, self.itself(), Outcome::Done)
                .on(origin.as_str())
                .with("entries", checkpoint.size.to_string())
                .with("note", note);
            self.saw(now, root);
        }
    }
}

impl Drop for AuditLogger {
    /// A machine that has panicked is not asked again: the process stops and recovers from its disk.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.halt("the audit actor panicked; its log says why".into());
        }
    }
}

impl Actor for AuditLogger {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        let changes = stream::unfold(self.committed.subscribe(), |mut changes| async {
            changes.changed().await.ok()?;
            let state = changes.borrow_and_update().clone();
            Some((state, changes))
        });
        ctx.add_stream(changes);
        ctx.run_interval(PASS_EVERY, Self::pass);
        let (now, jurisdiction) = (self.world.now(), self.jurisdiction());
        self.counted.begun = now.mono;
        self.machines.keys.begin(&jurisdiction, &mut self.outs.keys);
        if self.machines.log.has_other_key() {
            tracing::error!(
                "the audit log has another key than the one that it signed with last: its log witnesses refuse it until \
                 that key is put back, or operators of theirs replace it (`rhumb audit replace-key`)"
            );
            self.saw(now, Record::told("key.changed", self.itself(), Outcome::Done));
        }
        self.machines.log.tick(now, &mut self.outs.log);
        self.settle(now, ctx);
    }
}

impl StreamHandler<Committed> for AuditLogger {
    fn handle(&mut self, state: Committed, ctx: &mut Self::Context) {
        match state {
            Committed::Failed(reason) => {
                self.tell_why(&reason);
                self.world.halt(format!("audit: storage failed: {reason}"));
            }
            Committed::UpTo(ticket) => {
                let (now, mut performed) = (self.world.now(), Vec::new());
                self.barrier.durable(ticket, |sent| performed.push(sent));
                for sent in performed {
                    self.perform(now, sent, ctx);
                }
                let ready = self.window.durable(ticket);
                self.hand_over(ready);
                self.settle(now, ctx);
            }
        }
    }
}
