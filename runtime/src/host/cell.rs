//! One actor's place: its mailbox, whether it is awake, and the pump that feeds it.
//!
//! * It decides: when an actor is made, when it goes to sleep, and what follows its end.
//! * It never does: run more than [`BUDGET`] messages before the arbiter's other actors have a turn, or
//!   keep a message for an instance that has gone: what waits outlives the instance.
//! * Invariant: at most one instance of an actor at a time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::fut::ActorFuture;
use actix::prelude::*;
use parking_lot::Mutex;
use rhumb_actors::remote::{Hosted, Remote};
use rhumb_core::{Fault, FaultKind};
use tokio::time::Instant;

use super::arbiters::Listed;
use super::call::{CallState, Current, Load, Scope};
use super::home::{Activation, Home};
use super::id::ActorId;
use super::mailbox::{Mailbox, Pushed, Waits};
use super::restarts::{Panics, Verdict};
use super::watch::Ended;

/// How many messages of one actor run before the other actors of its arbiter have a turn.
pub const BUDGET: usize = 64;

/// A message on its way into an actor of type `A`, whatever it is.
pub(crate) trait Deliver<A: Actor>: Waits + Send {
    /// Runs the handler. May panic with it.
    fn run(self: Box<Self>, actor: &mut A, context: &mut A::Context, load: Arc<dyn Load>, now: Instant);
    /// Ends without the handler.
    fn refuse(self: Box<Self>, fault: Fault);
    /// What it is, for whoever watches the arbiter.
    fn work(&self) -> Listed;
}

/// A message with its call and the one who waits for the answer. The same box from the asker to the
/// handler: asks within a node encode nothing.
pub(crate) struct Packed<M: Remote> {
    pub(crate) message: M,
    pub(crate) call: Arc<CallState>,
    pub(crate) answer: Option<OneshotSender<M::Reply>>,
    pub(crate) work: Option<Listed>,
}

impl<M: Remote> Waits for Packed<M> {
    fn coalesces(&self) -> Option<u64> {
        // Who waits for an answer is not replaced by somebody else's newer question.
        if self.answer.is_some() { None } else { self.message.coalesce_key() }
    }
}

impl<A, M> Deliver<A> for Packed<M>
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    fn run(self: Box<Self>, actor: &mut A, context: &mut A::Context, load: Arc<dyn Load>, now: Instant) {
        let Self { message, call, answer, .. } = *self;
        if answer.as_ref().is_some_and(OneshotSender::is_closed) {
            call.abandon();
            return;
        }
        if now >= call.deadline {
            return call.fail(call.deadline_passed(M::NAME));
        }
        if !call.begins() {
            return;
        }
        let scope = Scope::enter(Current { call: Arc::clone(&call), load });
        actor.handle(message, context).handle(context, answer);
        drop(scope);
        call.handled();
    }

    fn refuse(self: Box<Self>, fault: Fault) {
        self.call.fail(fault);
    }

    fn work(&self) -> Listed {
        self.work.expect("it was listed when it was let in")
    }
}

/// Makes what an asker packed into what an actor of type `A` takes: the same box.
pub(crate) fn unpack<A, M>(packed: Box<dyn Any + Send>, work: Listed) -> Option<Box<dyn Deliver<A>>>
where
    A: Hosted + Handler<M>,
    M: Remote,
{
    let mut packed = packed.downcast::<Packed<M>>().ok()?;
    packed.work = Some(work);
    Some(packed)
}

/// Where in its life an actor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no instance.
    Asleep,
    /// An instance is about to be made.
    Waking,
    /// An instance runs.
    Awake,
    /// The instance was asked to go: it has been idle, or room is needed, or its parent begins anew.
    Leaving,
    /// The instance panicked, or its child gave up, and must go.
    Broken,
    /// It panicked too often and rests.
    Resting(Instant),
    /// The cell was taken out of its home.
    Gone,
}

struct State<A: Actor> {
    mailbox: Mailbox<Box<dyn Deliver<A>>>,
    phase: Phase,
    pump: Option<Waker>,
    panics: Option<Box<Panics>>,
}

/// One actor's place.
pub(crate) struct Cell<A: Hosted> {
    pub(crate) id: ActorId,
    pub(crate) home: Arc<Home<A>>,
    pub(crate) hash: u64,
    state: Mutex<State<A>>,
    busy: AtomicUsize,
    used_ms: AtomicU64,
    footprint: AtomicU64,
}

/// Why a message was not let in.
pub(crate) enum NotIn<A: Actor> {
    /// The cell has gone: look it up again.
    Gone(Box<dyn Deliver<A>>),
    /// It was refused.
    Refused(Fault),
}

impl<A: Actor> Waits for Box<dyn Deliver<A>> {
    fn coalesces(&self) -> Option<u64> {
        (**self).coalesces()
    }
}

impl<A: Hosted> Cell<A> {
    pub(crate) fn new(id: ActorId, hash: u64, home: Arc<Home<A>>) -> Self {
        let mailbox = Mailbox::new(home.capacity(), A::OVERFLOW);
        let state = State { mailbox, phase: Phase::Asleep, pump: None, panics: None };
        Self {
            id,
            home,
            hash,
            state: Mutex::new(state),
            busy: AtomicUsize::new(0),
            used_ms: AtomicU64::new(0),
            footprint: AtomicU64::new(0),
        }
    }

    /// Lets a message in, and wakes the actor for it.
    pub(crate) fn push(self: &Arc<Self>, message: Box<dyn Deliver<A>>, now: Instant) -> Result<(), NotIn<A>> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Gone => return Err(NotIn::Gone(message)),
            Phase::Resting(until) if now < until => {
                drop(state);
                message.refuse(self.failed(until, now));
                return Err(NotIn::Refused(self.failed(until, now)));
            }
            _ => {}
        }
        self.used_ms.store(self.home.millis(now), Ordering::Relaxed);
        let pushed = state.mailbox.push(message, self.busy.load(Ordering::Relaxed));
        let wakes = match state.phase {
            _ if matches!(pushed, Pushed::Refused(_)) => None,
            Phase::Asleep | Phase::Resting(_) => {
                state.phase = Phase::Waking;
                drop(state);
                Arc::clone(self).wake();
                None
            }
            _ => {
                let pump = state.pump.take();
                drop(state);
                pump
            }
        };
        if let Some(pump) = wakes {
            pump.wake();
        }
        self.judge(pushed)
    }

    /// Asks the instance to go when it is idle. False when it is not.
    pub(crate) fn leave_if_idle(&self, unused_since_ms: u64) -> bool {
        let state = self.state.lock();
        let idle = state.phase == Phase::Awake
            && state.mailbox.len() == 0
            && self.busy.load(Ordering::Relaxed) == 0
            && self.used_ms.load(Ordering::Relaxed) <= unused_since_ms;
        if idle {
            Self::turn(state, Phase::Leaving);
        }
        idle
    }

    /// Asks the instance to go, whatever waits. A new one takes its place if something does.
    pub(crate) fn leave(&self) {
        let state = self.state.lock();
        if state.phase == Phase::Awake {
            Self::turn(state, Phase::Leaving);
        }
    }

    /// The instance cannot go on.
    pub(crate) fn broken(&self) {
        let state = self.state.lock();
        if matches!(state.phase, Phase::Awake | Phase::Leaving) {
            Self::turn(state, Phase::Broken);
        }
    }

    /// The instance was asked to go and refused (its `stopping` said so).
    fn stays(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Leaving {
            state.phase = Phase::Awake;
        }
    }

    /// Whether the cell can be taken out: nothing runs, waits or rests. If so it is gone.
    pub(crate) fn goes(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let over = match state.phase {
            Phase::Asleep => true,
            Phase::Resting(until) => now >= until,
            _ => false,
        };
        let goes = over && state.mailbox.len() == 0 && self.busy.load(Ordering::Relaxed) == 0;
        if goes {
            state.phase = Phase::Gone;
        }
        goes
    }

    /// Refuses all that waits: the node stops.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        let waiting: Vec<_> = std::iter::from_fn(|| state.mailbox.pop()).collect();
        let runs = matches!(state.phase, Phase::Waking | Phase::Awake | Phase::Leaving | Phase::Broken);
        Self::turn(state, if runs { Phase::Leaving } else { Phase::Gone });
        waiting.into_iter().for_each(|message| message.refuse(Fault::not_sent(FaultKind::Draining)));
    }

    pub(crate) fn awake(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Waking | Phase::Awake | Phase::Leaving)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().mailbox.len()
    }

    pub(crate) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn footprint(&self) -> u64 {
        self.footprint.load(Ordering::Relaxed)
    }

    fn turn(mut state: parking_lot::MutexGuard<'_, State<A>>, phase: Phase) {
        state.phase = phase;
        let pump = state.pump.take();
        drop(state);
        if let Some(pump) = pump {
            pump.wake();
        }
    }

    /// What the one who pushed is told; whoever gave way is told too.
    fn judge(&self, pushed: Pushed<Box<dyn Deliver<A>>>) -> Result<(), NotIn<A>> {
        match pushed {
            Pushed::Taken => Ok(()),
            Pushed::Instead(older) => {
                self.home.counts.overflowed();
                older.refuse(self.full());
                Ok(())
            }
            Pushed::Refused(message) => {
                self.home.counts.overflowed();
                message.refuse(self.full());
                Err(NotIn::Refused(self.full()))
            }
        }
    }

    fn full(&self) -> Fault {
        let full = Fault::not_sent(FaultKind::Full(format!("the mailbox of {}", self.id)));
        Fault { retry_after: Some(super::RETRY_AFTER), ..full }
    }

    fn failed(&self, until: Instant, now: Instant) -> Fault {
        let failed = Fault::not_sent(FaultKind::Failed(self.id.to_string()));
        Fault { retry_after: Some(until.saturating_duration_since(now)), ..failed }
    }

    /// Makes an instance, on the actor's arbiter.
    fn wake(self: Arc<Self>) {
        let handle = self.home.worker(self.hash).handle.clone();
        let cell = Arc::clone(&self);
        let spawned = handle.spawn_fn(move || {
            actix::spawn(cell.live());
        });
        if !spawned {
            self.close();
        }
    }

    /// The life of one instance, from the factory to what follows its end.
    async fn live(self: Arc<Self>) {
        let activation = Activation::new(&self);
        let made = catch_unwind(AssertUnwindSafe(|| self.home.make(&activation)));
        let panicked = match made {
            Err(_) => true,
            Ok(actor) => {
                self.home.counts.activated();
                self.weigh(&actor);
                let panicked = self.run(actor).await;
                self.home.lighter(self.footprint.swap(0, Ordering::Relaxed));
                self.home.counts.ended();
                panicked
            }
        };
        self.ended(panicked).await;
    }

    /// Runs an instance to its end. True if it panicked.
    async fn run(self: &Arc<Self>, actor: A) -> bool {
        {
            let mut state = self.state.lock();
            if state.phase == Phase::Waking {
                state.phase = Phase::Awake;
            }
        }
        let mut context = Context::<A>::new();
        context.spawn(Pump { cell: Arc::clone(self), asked: false });
        let mut life = pin!(Some(context.into_future(actor)));
        let panicked = std::future::poll_fn(|task| {
            let Some(running) = life.as_mut().as_pin_mut() else { return Poll::Ready(false) };
            match catch_unwind(AssertUnwindSafe(|| running.poll(task))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(false),
                Err(_) => Poll::Ready(true),
            }
        })
        .await;
        // Actix runs what is left of an actor when it is dropped, and that may panic once more.
        catch_unwind(AssertUnwindSafe(|| life.set(None))).ok();
        panicked || self.state.lock().phase == Phase::Broken
    }

    /// What follows the end of an instance.
    async fn ended(self: Arc<Self>, panicked: bool) {
        if panicked {
            return self.after_panic().await;
        }
        let asked = {
            let mut state = self.state.lock();
            let asked = state.phase == Phase::Leaving;
            state.pump = None;
            state.phase = Phase::Asleep;
            asked
        };
        if !asked {
            self.home.end(&self.id, &Ended::Stopped);
        }
        self.sleep_or_wake();
    }

    async fn after_panic(self: Arc<Self>) {
        self.home.counts.panicked();
        self.home.begins_anew(&self.id);
        let now = Instant::now();
        let verdict = {
            let mut state = self.state.lock();
            state.pump = None;
            // Nothing wakes it before its time.
            state.phase = Phase::Broken;
            state.panics.get_or_insert_default().panicked(now, &self.home.restarts())
        };
        match verdict {
            Verdict::Again(after) => {
                tracing::warn!(actor = %self.id, ?after, "an actor panicked; it is made anew");
                tokio::time::sleep(after).await;
                self.state.lock().phase = Phase::Asleep;
                self.sleep_or_wake();
            }
            Verdict::GiveUp => self.give_up(now),
        }
    }

    fn give_up(&self, now: Instant) {
        let until = now + self.home.restarts().rest;
        let waiting: Vec<_> = {
            let mut state = self.state.lock();
            state.phase = Phase::Resting(until);
            std::iter::from_fn(|| state.mailbox.pop()).collect()
        };
        tracing::error!(actor = %self.id, "an actor panicked too often; it rests");
        self.home.counts.gave_up();
        waiting.into_iter().for_each(|message| message.refuse(self.failed(until, now)));
        self.home.end(&self.id, &Ended::Failed);
        self.home.escalate(&self.id);
    }

    /// With something waiting a new instance is made; else the cell can go.
    fn sleep_or_wake(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.phase != Phase::Asleep {
            return;
        }
        if state.mailbox.len() > 0 && !self.home.is_closed() {
            state.phase = Phase::Waking;
            drop(state);
            return Arc::clone(self).wake();
        }
        drop(state);
        // The panics of an actor that sleeps still count: its cell stays until they are old.
        if self.state.lock().panics.is_none() {
            self.home.take_out(self);
        }
    }

    /// Takes a message out for the pump, or leaves word to be woken.
    fn next(&self, task: &TaskContext<'_>) -> Next<A> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Broken => return Next::End,
            Phase::Leaving => return Next::Leave,
            _ => {}
        }
        state.mailbox.pop().map_or_else(
            || {
                state.pump = Some(task.waker().clone());
                Next::Nothing
            },
            Next::One,
        )
    }

    fn weigh(&self, actor: &A) {
        let now = self.home.weight_of(actor);
        let before = self.footprint.swap(now, Ordering::Relaxed);
        self.home.heavier(now);
        self.home.lighter(before);
    }
}

enum Next<A: Actor> {
    One(Box<dyn Deliver<A>>),
    Nothing,
    Leave,
    End,
}

impl<A: Hosted> Load for Cell<A> {
    fn begun(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn panicked(&self) {
        self.broken();
    }
}

/// Feeds an instance from its mailbox: a future in its context, so that it has the actor at hand.
struct Pump<A: Hosted> {
    cell: Arc<Cell<A>>,
    /// The actor was asked to go. If it runs again after that, it has refused.
    asked: bool,
}

impl<A: Hosted> Pump<A> {
    /// Runs one message. False if it panicked.
    fn feed(
        &self,
        message: Box<dyn Deliver<A>>,
        actor: &mut A,
        context: &mut A::Context,
        now: Instant,
    ) -> bool {
        let gauge = &self.cell.home.worker(self.cell.hash).gauge;
        gauge.begin(message.work());
        let load: Arc<dyn Load> = Arc::clone(&self.cell) as Arc<dyn Load>;
        let ran = catch_unwind(AssertUnwindSafe(|| message.run(actor, context, load, now)));
        gauge.end();
        ran.is_ok()
    }
}

impl<A: Hosted> ActorFuture<A> for Pump<A> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        context: &mut A::Context,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let (mut fed, now) = (0, Instant::now());
        loop {
            // A handler that stopped the actor or lets it wait for a future has the last word.
            if context.state() != ActorState::Running || context.waiting() {
                return Poll::Pending;
            }
            if fed == BUDGET {
                task.waker().wake_by_ref();
                break;
            }
            match self.cell.next(task) {
                Next::One(message) => {
                    fed += 1;
                    if !self.feed(message, actor, context, now) {
                        self.cell.broken();
                    }
                }
                Next::Nothing => break,
                Next::Leave if self.asked => {
                    self.asked = false;
                    self.cell.stays();
                }
                Next::Leave => {
                    self.asked = true;
                    context.stop();
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::End => {
                    context.terminate();
                    return Poll::Ready(());
                }
            }
        }
        if fed > 0 {
            self.cell.weigh(actor);
        }
        Poll::Pending
    }
}
