//! Feeds an instance from its mailbox, within its context, and no more than its share of a turn.
//!
//! * It decides nothing: it takes what the cell gives, and goes when the cell says so.
//! * It never does: run more than [`BUDGET`] messages before the arbiter's other actors have a turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::prelude::*;
use rhumb_actors::remote::Hosted;
use rhumb_core::Epoch;
use rhumb_core::wakes::Wakes;
use tokio::time::Instant;

use super::arbiters::Gauge;
use super::call::Load;
use super::cell::Cell;
use super::life::Instance;
use super::packed::Deliver;

/// How many messages of one actor run before the other actors of its arbiter have a turn.
pub const BUDGET: usize = 64;

/// How long answers of one turn wait for each other.
const TOGETHER: Duration = Duration::from_micros(50);

/// What the cell has for the pump.
pub(super) enum Feed<A: Actor> {
    One(Box<dyn Deliver<A>>),
    Nothing,
    Leave,
    End,
}

/// The work of one instance. What is left of it after its end does no harm to the next one.
pub(super) struct InstanceLoad<A: Hosted> {
    pub(super) cell: Arc<Cell<A>>,
    pub(super) instance: Instance,
    pub(super) epoch: Epoch,
}

impl<A: Hosted> Load for InstanceLoad<A> {
    fn begun(&self) {
        self.cell.busy.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) {
        self.cell.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn panicked(&self) {
        self.cell.breaks(self.instance);
    }

    fn gauge(&self) -> &Gauge {
        self.cell.gauge()
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// Feeds an instance from its mailbox: a future in its context, so that it has the actor at hand.
pub(super) struct Pump<A: Hosted> {
    pub(super) load: Arc<InstanceLoad<A>>,
    /// The actor was asked to go. If it runs again after that, it has refused.
    pub(super) asked: bool,
}

impl<A: Hosted> Pump<A> {
    fn cell(&self) -> &Cell<A> {
        &self.load.cell
    }

    /// Runs one message.
    fn feed(&self, message: Box<dyn Deliver<A>>, actor: &mut A, context: &mut A::Context, now: Instant) {
        let gauge = self.cell().gauge();
        gauge.begin(message.work());
        let load = Arc::clone(&self.load) as Arc<dyn Load>;
        let ran = catch_unwind(AssertUnwindSafe(|| {
            message.run(actor, context, load, now);
            self.cell().weigh(actor);
        }));
        gauge.end();
        self.load.done();
        if ran.is_err() {
            self.load.panicked();
        }
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
        let mut now = Instant::now();
        // The answers of one turn leave together, unless that makes the first of them wait.
        let wakes = Wakes::hold();
        loop {
            // A handler that stopped the actor or lets it wait for a future has the last word.
            if context.state() != ActorState::Running || context.waiting() {
                return Poll::Pending;
            }
            // Actix polls again within one turn when a handler spawned something: the budget is the turn's.
            let fed = self.cell().fed.load(Ordering::Relaxed);
            if fed >= BUDGET {
                task.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.cell().next(task) {
                Feed::One(message) => {
                    self.cell().fed.store(fed + 1, Ordering::Relaxed);
                    self.feed(message, actor, context, now);
                    if wakes.are_waiting() && now.elapsed() > TOGETHER {
                        wakes.now();
                        now = Instant::now();
                    }
                }
                Feed::Nothing => return Poll::Pending,
                Feed::Leave if self.asked => {
                    self.asked = false;
                    self.cell().stays();
                    if self.cell().is_leaving() {
                        // The node stops: that cannot be refused.
                        context.terminate();
                        return Poll::Ready(());
                    }
                }
                Feed::Leave => {
                    self.asked = true;
                    context.stop();
                    task.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Feed::End => {
                    context.terminate();
                    return Poll::Ready(());
                }
            }
        }
    }
}
