//! One actor's place: its mailbox, its life, and what follows when either changes.
//!
//! * It decides nothing: `mailbox` and `life` do.
//! * It never does: lose a message because its instance went. What waits outlives the instance.
//! * Invariant: whatever was let in ends in its handler, or is refused and counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};

use actix::prelude::*;
use opentelemetry::KeyValue;
use parking_lot::{Mutex, MutexGuard};
use rhumb_actors::remote::Hosted;
use rhumb_core::{Fault, FaultKind, wakes};
use tokio::time::Instant;

use super::arbiters::Gauge;
use super::home::Home;
use super::hosting::Activation;
use super::id::ActorId;
use super::life::{End, Entry, Instance, Life, Next, Phase};
use super::mailbox::{Mailbox, Pushed};
use super::moving::{Seat, Turned};
use super::packed::Deliver;
use super::pump::{Feed, InstanceLoad, Pump};
use super::watch::Ended;
use crate::telemetry::names;

pub(super) struct State<A: Actor> {
    pub(super) mailbox: Mailbox<Box<dyn Deliver<A>>>,
    pub(super) life: Life,
    pump: Option<Waker>,
    /// The instance took at least one message.
    took_any: bool,
}

/// One actor's place.
pub(crate) struct Cell<A: Hosted> {
    pub(crate) id: ActorId,
    pub(crate) home: Arc<Home<A>>,
    pub(crate) hash: u64,
    pub(super) state: Mutex<State<A>>,
    /// Messages that have left the mailbox and are not done.
    pub(super) busy: AtomicUsize,
    /// Messages fed in this turn of the arbiter.
    pub(super) fed: AtomicUsize,
    used_ms: AtomicU64,
    footprint: AtomicU64,
    /// Under which policy this node was found to own the actor: see [`Cell::is_owned_under`].
    owned_under: AtomicU64,
    /// It goes because its parent begins anew: then its own children do too.
    anew: AtomicBool,
    /// It goes because its node may not act for it any more, and may not refuse.
    pub(super) moved: AtomicBool,
    pub(super) seat: Seat,
}

/// Why a message was not let in.
pub(crate) enum NotIn<A: Actor> {
    /// The cell has gone: look it up again.
    Gone(Box<dyn Deliver<A>>),
    /// It was refused.
    Refused(Fault),
}

impl<A: Hosted> Cell<A> {
    pub(crate) fn new(id: ActorId, hash: u64, home: Arc<Home<A>>) -> Self {
        let mailbox = Mailbox::new(home.capacity(), A::OVERFLOW);
        Self {
            id,
            home,
            hash,
            state: Mutex::new(State { mailbox, life: Life::new(), pump: None, took_any: false }),
            busy: AtomicUsize::new(0),
            fed: AtomicUsize::new(0),
            used_ms: AtomicU64::new(0),
            footprint: AtomicU64::new(0),
            owned_under: AtomicU64::new(0),
            anew: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            seat: Seat::default(),
        }
    }

    /// Whether this node was found to own the actor under this policy (zero: none was). The founding list
    /// never changes, so nothing else can change the answer.
    pub(crate) fn is_owned_under(&self, policy: u64) -> bool {
        policy != 0 && self.owned_under.load(Ordering::Relaxed) == policy
    }

    pub(crate) fn owned_under(&self, policy: u64) {
        self.owned_under.store(policy, Ordering::Relaxed);
    }

    /// Lets a message in, and wakes the actor for it.
    pub(crate) fn push(self: &Arc<Self>, message: Box<dyn Deliver<A>>, now: Instant) -> Result<(), NotIn<A>> {
        let mut state = self.state.lock();
        let entry = state.life.comes(now);
        match entry {
            Entry::Gone => return Err(NotIn::Gone(message)),
            Entry::Rests(until) => {
                drop(state);
                message.refuse(self.failed(until, now));
                return Err(NotIn::Refused(self.failed(until, now)));
            }
            Entry::Wake | Entry::Poke | Entry::Wait => {}
        }
        self.used_ms.store(self.home.millis(now), Ordering::Relaxed);
        let pushed = state.mailbox.push(message, self.busy.load(Ordering::Relaxed), now);
        if entry == Entry::Wake && state.mailbox.len() > 0 {
            state.life.wakes();
            drop(state);
            Arc::clone(self).wake();
        } else {
            Self::poke(state);
        }
        self.judge(pushed)
    }

    /// Gives back the room of a mailbox that has been empty since then.
    pub(crate) fn slim(&self, unused_since_ms: u64) {
        let mut state = self.state.lock();
        if state.mailbox.len() == 0 && self.used_ms.load(Ordering::Relaxed) <= unused_since_ms {
            state.mailbox.slim();
        }
    }

    /// Asks the instance to go if it is idle. False when it is not.
    pub(crate) fn leave_if_idle(&self, unused_since_ms: u64) -> bool {
        let mut state = self.state.lock();
        let idle = state.mailbox.len() == 0
            && self.busy.load(Ordering::Relaxed) == 0
            && self.used_ms.load(Ordering::Relaxed) <= unused_since_ms;
        let leaves = idle && state.life.leaves();
        if leaves {
            Self::poke(state);
        }
        leaves
    }

    /// Lets the actor begin anew, because its parent does. What waits is kept for the next instance.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.state.lock();
        if state.life.leaves() {
            self.anew.store(true, Ordering::Relaxed);
            Self::poke(state);
        }
    }

    /// This instance cannot go on.
    pub(crate) fn breaks(&self, instance: Instance) {
        let mut state = self.state.lock();
        if state.life.breaks(instance) {
            Self::poke(state);
        }
    }

    /// The present instance cannot go on: a child gave up.
    pub(crate) fn child_gave_up(&self) {
        let instance = self.state.lock().life.instance();
        self.breaks(instance);
    }

    /// Takes the cell out if nobody needs it: then it is gone.
    pub(crate) fn goes(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let needed = state.mailbox.len() > 0 || self.busy.load(Ordering::Relaxed) > 0;
        !needed && state.life.goes(now, &self.home.restarts())
    }

    /// The node stops: refuses all that waits, and lets the instance go.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.life.closes();
        let waiting = state.mailbox.drain();
        Self::poke(state);
        self.refuse_all(waiting, &Fault::not_sent(FaultKind::Draining));
    }

    /// Whether there is an instance, or is about to be.
    pub(crate) fn is_awake(&self) -> bool {
        matches!(self.phase(), Phase::Waking | Phase::Awake | Phase::Leaving)
    }

    /// Whether its instance is on its way out.
    pub(crate) fn is_leaving(&self) -> bool {
        self.phase() == Phase::Leaving
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().mailbox.len()
    }

    /// How many wait, and since when the first of them.
    pub(crate) fn backlog(&self) -> (usize, Option<Instant>) {
        let state = self.state.lock();
        (state.mailbox.len(), state.mailbox.oldest())
    }

    pub(crate) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn footprint(&self) -> u64 {
        self.footprint.load(Ordering::Relaxed)
    }

    fn phase(&self) -> Phase {
        self.state.lock().life.phase()
    }

    /// Tells the instance that something changed.
    pub(super) fn poke(mut state: MutexGuard<'_, State<A>>) {
        let pump = state.pump.take();
        drop(state);
        if let Some(pump) = pump {
            wakes::wake(pump);
        }
    }

    /// What the one who pushed is told; whoever gave way is told too.
    fn judge(&self, pushed: Pushed<Box<dyn Deliver<A>>>) -> Result<(), NotIn<A>> {
        match pushed {
            Pushed::Taken => Ok(()),
            Pushed::Instead(older) => {
                self.home.counts.overflowed();
                self.refuse_all(vec![older], &self.full());
                Ok(())
            }
            Pushed::Refused(message) => {
                self.home.counts.overflowed();
                message.refuse(self.full());
                Err(NotIn::Refused(self.full()))
            }
        }
    }

    /// Refuses what was let in. What was told is counted: nobody else will ever know.
    pub(super) fn refuse_all(&self, messages: Vec<Box<dyn Deliver<A>>>, fault: &Fault) {
        for message in messages {
            if !message.is_asked() {
                self.home.counts.dropped();
            }
            message.refuse(fault.clone());
        }
    }

    fn full(&self) -> Fault {
        let full = Fault::not_sent(FaultKind::Full(format!("the mailbox of {}", self.id.shown())));
        Fault { retry_after: Some(super::RETRY_AFTER), ..full }
    }

    fn failed(&self, until: Instant, now: Instant) -> Fault {
        let failed = Fault::not_sent(FaultKind::Failed(self.id.shown().to_string()));
        Fault { retry_after: Some(until.saturating_duration_since(now)), ..failed }
    }

    /// Makes an instance, on the actor's arbiter.
    fn wake(self: Arc<Self>) {
        let handle = self.home.worker(self.hash).handle.clone();
        let alive = Alive(Some(self));
        // An arbiter that has stopped drops what it is given, and `alive` with it.
        handle.spawn_fn(move || {
            actix::spawn(alive.live());
        });
    }

    /// Makes the instance; none if its factory panicked.
    fn make(&self) -> Option<A> {
        let activation = Activation::new(self);
        let gauge = &self.home.worker(self.hash).gauge;
        gauge.begin(self.home.making);
        let made = catch_unwind(AssertUnwindSafe(|| {
            let actor = self.home.make(&activation);
            self.weigh(&actor);
            actor
        }));
        gauge.end();
        made.ok()
    }

    /// Runs an instance to its end, and says how it ended.
    async fn run(self: &Arc<Self>, actor: A) -> End {
        let instance = {
            let mut state = self.state.lock();
            state.life.made();
            self.moved.store(false, Ordering::Relaxed);
            state.took_any = false;
            state.life.instance()
        };
        self.home.counts.activated();
        let mut context = Context::<A>::new();
        let epoch = self.epoch().unwrap_or_else(|| self.home.mesh.epoch());
        let load = Arc::new(InstanceLoad { cell: Arc::clone(self), instance, epoch });
        context.spawn(Pump { load, asked: false });
        let mut life = pin!(Some(context.into_future(actor)));
        let panicked = std::future::poll_fn(|task| {
            let Some(running) = life.as_mut().as_pin_mut() else { return Poll::Ready(false) };
            self.fed.store(0, Ordering::Relaxed);
            self.gauge().begin(self.home.turning);
            let polled = catch_unwind(AssertUnwindSafe(|| running.poll(task)));
            self.gauge().end();
            match polled {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(false),
                Err(_) => Poll::Ready(true),
            }
        })
        .await;
        if panicked {
            // Actix runs what is left of an actor when it is dropped: it gets no message any more.
            self.breaks(instance);
        }
        catch_unwind(AssertUnwindSafe(|| life.set(None))).ok();
        self.home.counts.ended();
        let mut state = self.state.lock();
        state.pump = None;
        let (asked, waited_for) = (state.life.phase() == Phase::Leaving, state.mailbox.len() > 0);
        End { panicked, asked, took_any: state.took_any, waited_for }
    }

    /// The instance was asked to go, and refused.
    pub(super) fn stays(&self) {
        self.state.lock().life.stays();
    }

    /// Takes a message out for the pump, or leaves word to be woken.
    pub(super) fn next(&self, task: &TaskContext<'_>) -> Feed<A> {
        let mut state = self.state.lock();
        match state.life.phase() {
            Phase::Awake => {}
            Phase::Leaving if !self.moved.load(Ordering::Relaxed) => return Feed::Leave,
            _ => return Feed::End,
        }
        if state.mailbox.len() > 0 && self.home.moves() {
            match self.turn() {
                Turned::Goes => {}
                left => {
                    let waiting = self.moves_away(&mut state, &left);
                    drop(state);
                    self.refuse_moved(waiting, &left);
                    return Feed::End;
                }
            }
        }
        let Some(message) = state.mailbox.pop() else {
            state.pump = Some(task.waker().clone());
            return Feed::Nothing;
        };
        state.took_any = true;
        // It takes a place until its handler has returned, and longer if its answer comes later.
        self.busy.fetch_add(1, Ordering::Relaxed);
        Feed::One(message)
    }

    pub(super) fn weigh(&self, actor: &A) {
        let now = self.home.weight_of(actor);
        // Only its arbiter writes it.
        let before = self.footprint.load(Ordering::Relaxed);
        if before != now {
            self.footprint.store(now, Ordering::Relaxed);
            self.home.weighs(before, now);
        }
    }

    pub(super) fn gauge(&self) -> &Gauge {
        &self.home.worker(self.hash).gauge
    }
}

/// Sees to it that an instance's end has its consequences, also when whatever should run it is gone.
struct Alive<A: Hosted>(Option<Arc<Cell<A>>>);

impl<A: Hosted> Alive<A> {
    /// The life of one instance, from the factory to what follows its end.
    async fn live(mut self) {
        let Some(cell) = self.0.clone() else { return };
        let end = match cell.sits_down() {
            Ok(()) => match cell.make() {
                Some(actor) => cell.run(actor).await,
                None => End { panicked: true, asked: false, took_any: false, waited_for: true },
            },
            Err(fault) => {
                let waiting = cell.state.lock().mailbox.drain();
                cell.refuse_all(waiting, &fault);
                End { panicked: false, asked: true, took_any: false, waited_for: false }
            }
        };
        cell.stands_up();
        cell.home.weighs(cell.footprint.swap(0, Ordering::Relaxed), 0);
        let now = Instant::now();
        let next = {
            let mut state = cell.state.lock();
            state.life.ended(end, now, &cell.home.restarts())
        };
        let mut wakes = next == Next::Wake;
        match next {
            Next::Wake | Next::Sleep => cell.went(end),
            Next::Pause(after) => {
                tracing::warn!(actor = %cell.id.shown(), ?after, "an actor panicked; it is made anew");
                cell.tell("actor restart");
                cell.home.counts.panicked();
                cell.home.begins_anew(&cell.id);
                tokio::time::sleep(after).await;
                let mut state = cell.state.lock();
                let waited_for = state.mailbox.len() > 0;
                wakes = state.life.paused(waited_for);
            }
            Next::Rest(until) => {
                cell.home.counts.panicked();
                cell.home.begins_anew(&cell.id);
                cell.give_up(until, now);
            }
        }
        self.0 = None;
        cell.goes_on(wakes);
    }
}

impl<A: Hosted> Drop for Alive<A> {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else { return };
        let waiting = {
            let mut state = cell.state.lock();
            state.life.lost();
            state.mailbox.drain()
        };
        cell.refuse_all(waiting, &Fault::not_sent(FaultKind::Draining));
        cell.home.remove(&cell);
    }
}

impl<A: Hosted> Cell<A> {
    /// An instance has gone in order.
    fn went(&self, end: End) {
        if self.anew.swap(false, Ordering::Relaxed) {
            self.home.begins_anew(&self.id);
        }
        if self.moved.swap(false, Ordering::Relaxed) {
            self.home.end(&self.id, &Ended::Moved);
        }
        if !end.asked {
            self.home.end(&self.id, &Ended::Stopped);
        }
    }

    /// Says in a trace of its own what happened to an actor of this type.
    fn tell(&self, what: &'static str) {
        if let Some(tracer) = self.home.mesh.tracer() {
            tracer.incident(what, vec![KeyValue::new(names::ACTOR_TYPE, A::TYPE)]);
        }
    }

    fn give_up(&self, until: Instant, now: Instant) {
        tracing::error!(actor = %self.id.shown(), "an actor panicked too often; it rests");
        self.tell("actor gave up");
        let waiting = self.state.lock().mailbox.drain();
        self.home.counts.gave_up();
        self.refuse_all(waiting, &self.failed(until, now));
        self.home.end(&self.id, &Ended::Failed);
        self.home.escalate(&self.id);
    }

    /// Makes the next instance, or lets the cell go if nobody needs it.
    fn goes_on(self: &Arc<Self>, wakes: bool) {
        let wakes = {
            let mut state = self.state.lock();
            // Something may have come since.
            let wakes = (wakes || state.mailbox.len() > 0) && state.life.phase() == Phase::Asleep;
            if wakes {
                state.life.wakes();
            }
            wakes
        };
        if wakes {
            Arc::clone(self).wake();
        } else {
            self.home.take_out(self);
        }
    }
}
