//! What goes with a call without the caller's doing: deadline, hybrid time, trace, class, guarantee,
//! key, epoch and the chain of callers.
//!
//! * It decides: how much time is left, which classes of data the call has seen, what it may answer
//!   under, and whether an actor is already in the chain.
//! * It never does: let a deadline grow, or forget a class that it has seen.
//! * Invariant: while a handler runs, and at each poll of the future that it returned as a
//!   [`Reply`](super::Reply), its call is the current one of the thread; never longer.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use parking_lot::Mutex;
use rhumb_actors::remote::Remote;
use rhumb_core::wakes::Wakes;
use rhumb_core::{DataClass, Epoch, Fault, FaultKind, Guarantee, HybridTime, Principal, Region};
use rhumb_transport::{Held, Peer, TraceContext};
use tokio::time::Instant;

use super::admission::Permit;
use super::arbiters::{Gauge, Listed};
use super::id::ActorId;
use crate::delivery::staged::Staged;
use crate::mesh::Mesh;
use crate::mesh::body::pack;
use crate::telemetry::{AtWork, Served, Span, Tracer, names};

/// How many actors may stand in one chain of calls.
pub const MAX_CHAIN: usize = 32;

/// The call under way. In a handler, [`call`] gives it.
#[derive(Clone)]
pub struct Call(Current);

pub(crate) struct CallState {
    pub(crate) mesh: Mesh,
    pub(crate) to: ActorId,
    pub(crate) from: Option<Arc<Peer>>,
    pub(crate) deadline: Instant,
    /// The sender's; of one that begins here, the time when it is first looked at.
    pub(crate) hybrid: OnceLock<HybridTime>,
    /// As it was sent.
    pub(crate) trace: Option<TraceContext>,
    /// The span of whoever sends, where that is here and its trace is kept.
    pub(crate) asked: Option<Span>,
    /// How it is watched while it is served here.
    pub(crate) served: OnceLock<Served>,
    pub(crate) class: DataClass,
    pub(crate) answers: Answers,
    pub(crate) required: Guarantee,
    pub(crate) key: Option<String>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) before: Before,
    pub(crate) seen: Mutex<Seen>,
    pub(crate) end: OnceLock<Fault>,
    pub(crate) stage: AtomicU8,
    /// What it writes is kept there; none where nothing is kept.
    pub(crate) staged: Option<Staged>,
    /// Its place behind the door of the actor's type, where it came over the network and there is one.
    pub(crate) admitted: Mutex<Option<Permit>>,
    /// The message, encoded, where an asker of this node was refused because another node may act for the actor: its asker
    /// takes it there.
    pub(crate) left: OnceLock<Bytes>,
    /// What the message makes this node hold for its sender, where nobody waits for an answer: messages under
    /// one head have it together.
    #[expect(dead_code, reason = "it is given back when it is dropped")]
    pub(crate) held: Option<Arc<Held>>,
}

/// What binds the class of a call's answer before anything has happened in it.
#[derive(Debug)]
pub(crate) struct Answers {
    /// The class that the message declares for its replies.
    pub(crate) declared: DataClass,
    /// The class of the state of the actor that answers, unless the message takes the answer out of it
    /// by declaring a class of its own for its replies.
    pub(crate) state: Option<DataClass>,
}

impl Answers {
    /// Those of a message to an actor whose state has this class.
    pub(crate) fn to<M: Remote>(message: &M, state: &DataClass) -> Self {
        let declared = message.reply_class().unwrap_or(state).clone();
        Self { declared, state: (!M::DECLARES_REPLY_CLASS).then(|| state.clone()) }
    }
}

/// How far a call has come. Whoever moves it out of `Waiting` decides whether its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// In the mailbox, or on its way there.
    Waiting,
    /// In the handler itself.
    Handling,
    /// The handler has returned; its answer may come later.
    Handled,
    /// Nobody waits any more, and the handler never ran.
    Abandoned,
}

/// The callers so far.
#[derive(Clone)]
pub(crate) enum Before {
    /// None: the call begins here.
    Nobody,
    /// An actor of this node, in the course of this call.
    Here(Arc<CallState>),
    /// Actors as another node names them, outermost first.
    Elsewhere(Arc<[String]>),
}

/// What a call has come across.
pub(crate) struct Seen {
    /// Classes of replies that it got.
    pub(crate) labels: Vec<DataClass>,
    /// The weakest of what it rests on.
    pub(crate) guarantee: Guarantee,
    /// The class under which the handler wants to answer.
    pub(crate) reply_class: Option<DataClass>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { labels: Vec::new(), guarantee: Guarantee::STRONGEST, reply_class: None }
    }
}

impl Seen {
    fn class(&mut self, class: &DataClass) {
        if !class.is_control() && !self.labels.contains(class) {
            self.labels.push(class.clone());
        }
    }

    fn rests_on(&mut self, guarantee: Guarantee) {
        self.guarantee = self.guarantee.compose(guarantee);
    }
}

/// What counts the work of an actor that has left its mailbox and is not done.
pub(crate) trait Load: Send + Sync {
    /// One more.
    fn begun(&self);
    /// One less.
    fn done(&self);
    /// A future of the actor panicked.
    fn panicked(&self);
    /// What its arbiter is seen to work on.
    fn gauge(&self) -> &Gauge;
    /// Under which epoch it is done.
    fn epoch(&self) -> Epoch;
}

/// What is current on a thread.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) call: Arc<CallState>,
    pub(crate) load: Arc<dyn Load>,
    pub(crate) work: Listed,
}

/// The call of a message on its way to its handler.
#[derive(Clone)]
pub(crate) enum Called {
    Made(Arc<CallState>),
    /// Made when somebody looks at it, which few handlers of what was told do.
    Later(Arc<dyn Later>),
}

/// What a call can be made of for which nobody waits.
pub(crate) trait Later: Send + Sync {
    /// The call, in the midst of its handler.
    fn make(&self) -> CallState;
    /// How it is watched while it is served here.
    fn served(&self) -> Option<&Served>;
}

/// What stands on a thread.
struct Standing {
    called: Called,
    load: Arc<dyn Load>,
    work: Listed,
}

thread_local! {
    static STANDING: RefCell<Option<Standing>> = const { RefCell::new(None) };
}

/// The call that is being handled; none outside of a handler and the future it returned.
#[must_use]
pub fn call() -> Option<Call> {
    current().map(Call)
}

pub(crate) fn current() -> Option<Current> {
    STANDING.with_borrow_mut(|standing| standing.as_mut().map(Standing::current))
}

/// The call within which this thread works.
pub(crate) fn within() -> Option<Arc<CallState>> {
    STANDING.with_borrow_mut(|standing| standing.as_mut().map(|standing| standing.called.made()))
}

impl Standing {
    fn current(&mut self) -> Current {
        Current { call: self.called.made(), load: Arc::clone(&self.load), work: self.work }
    }
}

impl Called {
    /// The call, made now unless it was before.
    fn made(&mut self) -> Arc<CallState> {
        let call = match self {
            Self::Made(call) => return Arc::clone(call),
            Self::Later(later) => Arc::new(later.make()),
        };
        *self = Self::Made(Arc::clone(&call));
        call
    }

    fn served(&self) -> Option<&Served> {
        match self {
            Self::Made(call) => call.served.get(),
            Self::Later(later) => later.served(),
        }
    }

    /// The handler is about to run. False when it must not: nobody waits.
    pub(crate) fn begins(&self) -> bool {
        match self {
            Self::Made(call) => call.begins(),
            Self::Later(_) => true,
        }
    }

    /// The handler has returned.
    pub(crate) fn handled(&self) {
        if let Self::Made(call) = self {
            call.handled();
        }
    }

    /// Ends without an answer, for this reason, which nobody is told of what is made later.
    pub(crate) fn fail(&self, fault: Fault) {
        if let Self::Made(call) = self {
            call.fail(fault);
        }
    }
}

/// Makes a call the current one until dropped.
pub(crate) struct Scope {
    before: Option<Standing>,
    _within: Option<AtWork>,
}

impl Scope {
    pub(crate) fn enter(called: Called, load: Arc<dyn Load>, work: Listed) -> Self {
        let within = called.served().map(Served::enter);
        Self { before: STANDING.replace(Some(Standing { called, load, work })), _within: within }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        STANDING.set(self.before.take());
    }
}

impl Current {
    /// Makes it the current one again until dropped.
    pub(crate) fn enter(&self) -> Scope {
        Scope::enter(Called::Made(Arc::clone(&self.call)), Arc::clone(&self.load), self.work)
    }
}

/// A future at each poll of which its call is the current one: see [`Call::scope`].
#[must_use = "a future runs when it is awaited"]
pub struct Scoped<F> {
    pub(crate) current: Current,
    pub(crate) future: Pin<Box<F>>,
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _wakes = Wakes::hold();
        let _scope = self.current.enter();
        self.future.as_mut().poll(context)
    }
}

impl Call {
    /// The actor that is called.
    #[must_use]
    pub fn actor(&self) -> &ActorId {
        &self.0.call.to
    }

    /// The mesh, as seen from this node.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.0.call.mesh
    }

    /// Who called over the network, by certificate; none when an actor or program of this node did.
    #[must_use]
    pub fn caller(&self) -> Option<&Principal> {
        self.0.call.from.as_ref().map(|peer| &peer.principal)
    }

    /// The region in which the caller stands.
    #[must_use]
    pub fn caller_region(&self) -> &Region {
        self.caller().map_or_else(|| self.0.call.mesh.region(), |principal| &principal.region)
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.call.deadline.saturating_duration_since(Instant::now())
    }

    /// The caller's hybrid time, as it was sent. Of a caller of this node, the time when this is first asked: later
    /// than all that the caller has seen.
    #[must_use]
    pub fn hybrid(&self) -> HybridTime {
        self.0.call.hybrid()
    }

    /// The caller's trace, if it is traced.
    #[must_use]
    pub fn trace(&self) -> Option<TraceContext> {
        self.0.call.trace()
    }

    /// The class of the message.
    #[must_use]
    pub fn class(&self) -> &DataClass {
        &self.0.call.class
    }

    /// The guarantee of all that this call rests on so far: at first that of the message, as its sender says it.
    #[must_use]
    pub fn guarantee(&self) -> Guarantee {
        self.0.call.seen.lock().guarantee
    }

    /// The guarantee that the caller requires of the answer.
    #[must_use]
    pub fn required(&self) -> Guarantee {
        self.0.call.required
    }

    /// The idempotency key, where the message has one.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.0.call.key.as_deref()
    }

    /// The epoch that the caller believes in, where it said one.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.0.call.epoch
    }

    /// The epoch of the instance that handles the call: that of its
    /// [`Activation`](super::Activation::epoch). For an actor that moves it says who is the later one, where it is checked.
    #[must_use]
    pub fn acts_under(&self) -> Epoch {
        self.0.load.epoch()
    }

    /// The actors that called one another until this one, outermost first, each as
    /// [`ActorId::shown`] says it.
    #[must_use]
    pub fn chain(&self) -> Vec<String> {
        self.0.call.before.names()
    }

    /// Says what the answer rests on: a cached value makes it weaker. It never becomes stronger.
    pub fn rests_on(&self, guarantee: Guarantee) {
        self.0.call.met(guarantee);
    }

    /// Answers under another class than the message declares for its replies. It may be stricter than
    /// that and than what the call has seen, not looser; the gates judge the answer by it.
    pub fn answer_under(&self, class: DataClass) {
        self.0.call.seen.lock().reply_class = Some(class);
    }

    /// Writes a row of this actor, in the batch in which the answer of this call is kept: both are durable before the
    /// answer is given, or neither is. Only for an ask under an idempotency key and a durable tell, and until the
    /// call is answered. [`Activation::rows`](super::Activation::rows) gives rows back.
    ///
    /// # Errors
    /// Nothing of this call is kept, it has been answered, or its batch has more than 1 MiB.
    pub fn put(&self, row: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.row(row.as_ref(), Some(value.as_ref()))
    }

    /// Deletes a row of this actor, as [`Call::put`] writes one.
    ///
    /// # Errors
    /// As for that.
    pub fn delete(&self, row: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.row(row.as_ref(), None)
    }

    fn row(&self, row: &[u8], value: Option<&[u8]>) -> Result<(), Fault> {
        let nothing = || {
            let why = "nothing of this call is kept: only of an ask under a key and of a durable tell";
            Fault::not_sent(FaultKind::Handler(why.to_owned()))
        };
        let staged = self.0.call.staged.as_ref().ok_or_else(nothing)?;
        staged.row(&self.0.call.to.target(), row, value)
    }

    /// Runs a future within this call: for what a handler gives to `actix::spawn`, `context.spawn` or
    /// `run_later`, where the call is not the current one. What is asked there has the call's deadline,
    /// class, trace and chain.
    pub fn scope<F: Future>(&self, future: F) -> Scoped<F> {
        Scoped { current: self.0.clone(), future: Box::pin(future) }
    }
}

impl CallState {
    /// Its hybrid time.
    pub(crate) fn hybrid(&self) -> HybridTime {
        *self.hybrid.get_or_init(|| self.mesh.hybrid())
    }

    /// What goes on from here: the span under which it is served, or what came with it.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.served.get().map(Served::trace).or(self.trace)
    }

    /// It is served here, for the sake of this span if its trace is kept.
    pub(crate) fn is_served(&self, span: Option<Span>) {
        let served = match (span, self.mesh.tracer()) {
            (Some(span), _) => Served::kept(span),
            (None, Some(_)) => Served::not(self.trace.unwrap_or_else(Tracer::not_kept)),
            (None, None) => return,
        };
        // It is served once.
        self.served.set(served).ok();
    }

    /// It has been answered, or will not be: its span ends.
    pub(crate) fn was_served(&self, outcome: Result<(), &Fault>) {
        if let Some(span) = self.served.get().and_then(Served::span) {
            self.ends(span, outcome);
        }
    }

    /// Whoever asked knows how it went.
    pub(crate) fn went(&self, outcome: Result<(), &Fault>) {
        if let Some(span) = &self.asked {
            self.ends(span, outcome);
        }
    }

    fn ends(&self, span: &Span, outcome: Result<(), &Fault>) {
        if outcome.is_ok() {
            span.set(KeyValue::new(names::GUARANTEE, self.seen.lock().guarantee.word()));
        }
        span.went(outcome);
        span.end();
    }

    /// Whether this actor is called within its own chain of calls.
    pub(crate) fn cycles(&self) -> bool {
        self.before.holds(&self.to)
    }

    /// Notes a reply's class.
    pub(crate) fn saw(&self, class: &DataClass) {
        self.seen.lock().class(class);
    }

    /// Notes a reply's guarantee.
    pub(crate) fn met(&self, guarantee: Guarantee) {
        self.seen.lock().rests_on(guarantee);
    }

    /// Notes a reply: its class and its guarantee.
    pub(crate) fn got(&self, class: &DataClass, guarantee: Guarantee) {
        let mut seen = self.seen.lock();
        seen.class(class);
        seen.rests_on(guarantee);
    }

    /// Keeps a message that is refused with this, if whoever acts for its actor now may be asked instead.
    pub(crate) fn leaves<M: Remote>(&self, message: &M, fault: &Fault) {
        if matches!(fault.kind, FaultKind::Moved(_) | FaultKind::Unowned(_))
            && let Ok(body) = pack(M::NAME, message)
        {
            self.left.set(body).ok();
        }
    }

    /// Ends without an answer, for this reason. The first reason counts.
    pub(crate) fn fail(&self, fault: Fault) {
        self.end.set(fault).ok();
    }

    /// Why there is no answer.
    pub(crate) fn why(&self, name: &str) -> Fault {
        let handling = self.stage.load(Ordering::Acquire) == Stage::Handling as u8;
        self.end.get().cloned().unwrap_or_else(|| {
            if handling {
                Fault::ran(FaultKind::Panicked(name.to_owned()))
            } else {
                Fault::unknown(FaultKind::Handler(format!(
                    "{} stopped before it answered {name}",
                    self.to.shown()
                )))
            }
        })
    }

    /// The handler is about to run. False when it must not: nobody waits.
    pub(crate) fn begins(&self) -> bool {
        if let Some(served) = self.served.get() {
            served.begins();
        }
        self.turns(Stage::Handling)
    }

    /// The handler has returned.
    pub(crate) fn handled(&self) {
        self.stage.store(Stage::Handled as u8, Ordering::Release);
    }

    /// Nobody waits any more. True if the handler has not run, and now never will.
    pub(crate) fn abandon(&self) -> bool {
        self.turns(Stage::Abandoned)
    }

    fn turns(&self, to: Stage) -> bool {
        let waiting = Stage::Waiting as u8;
        self.stage.compare_exchange(waiting, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The fault of a call whose deadline has passed.
    pub(crate) fn deadline_passed(&self, name: &str) -> Fault {
        if self.abandon() {
            return Fault::not_sent(FaultKind::Deadline(format!(
                "{name} waited in the mailbox of {}",
                self.to.shown()
            )));
        }
        Fault::unknown(FaultKind::Deadline(format!("waiting for {} to answer {name}", self.to.shown())))
    }

    /// Whether the call, with all that it has seen, may send data of this class: it may not be a looser
    /// one than any of what it has seen. Gives what it has rested on so far.
    pub(crate) fn may_send(&self, class: &DataClass) -> Result<Guarantee, Fault> {
        let seen = self.seen.lock();
        let loses = |label: &&DataClass| !self.mesh.no_less_strict(class, label);
        match std::iter::once(&self.class).chain(&seen.labels).find(loses) {
            None => Ok(seen.guarantee),
            Some(from) => {
                Err(Fault::not_sent(FaultKind::ClassLowered { from: from.clone(), to: class.clone() }))
            }
        }
    }

    /// The class under which the answer goes: what the handler chose, or what the message declares, or
    /// the strictest of that, the actor's state and all that the call has seen on its way.
    pub(crate) fn answer_class(&self) -> Result<DataClass, Fault> {
        let seen = self.seen.lock();
        let Answers { declared, state } = &self.answers;
        let binds = || [declared].into_iter().chain(state).chain(&seen.labels);
        let loses = |class: &DataClass| binds().find(|bound| !self.mesh.no_less_strict(class, bound));
        let wanted = seen.reply_class.as_ref().unwrap_or(declared);
        let Some(from) = loses(wanted) else { return Ok(wanted.clone()) };
        let raised = binds().find(|bound| loses(bound).is_none() && seen.reply_class.is_none());
        let lowered = || FaultKind::ClassLowered { from: from.clone(), to: wanted.clone() };
        raised.cloned().ok_or_else(|| Fault::ran(lowered()))
    }
}

impl Before {
    pub(crate) fn holds(&self, id: &ActorId) -> bool {
        match self {
            Self::Nobody => false,
            Self::Here(call) => call.to == *id || call.before.holds(id),
            Self::Elsewhere(names) => {
                let shown = id.shown().to_string();
                names.contains(&shown)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::Here(call) => 1 + call.before.len(),
            Self::Elsewhere(names) => names.len(),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Here(call) => {
                let mut names = call.before.names();
                names.push(call.to.shown().to_string());
                names
            }
            Self::Elsewhere(names) => names.to_vec(),
        }
    }
}
