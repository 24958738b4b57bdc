//! *Persist, then send*, as a type.
//!
//! A machine pushes what it wants done into a bounded [`Effects`]: batches to persist, and effects
//! for the world. A shell (or the simulated world) moves them through a [`Barrier`], which lets an
//! effect out only when every batch that was pushed before it, in this step or an earlier one, is
//! durable. So an answer can never tell of a state that a crash could undo.
//!
//! Invariant: effects pushed by [`Effects::send`] leave in the order in which they were pushed, and
//! never before an earlier batch is durable. [`Effects::send_at_once`] is for what tells nothing of
//! the machine's state (a request for rights, a heartbeat).

use std::collections::VecDeque;

use crate::canary::{self, Canary};
use crate::limits::MAX_EFFECTS;

/// One thing that a machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pushed<B, E> {
    Persist(B),
    Send(E),
    AtOnce(E),
}

/// A machine's out-buffer: bounded, reused from step to step. `B` is what is persisted, `E` what is
/// done once it is.
#[derive(Debug)]
pub struct Effects<B, E> {
    pushed: VecDeque<Pushed<B, E>>,
    capacity: usize,
}

impl<B, E> Default for Effects<B, E> {
    fn default() -> Self {
        Self::with_capacity(MAX_EFFECTS)
    }
}

impl<B, E> Effects<B, E> {
    /// An out-buffer that holds at most so many.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { pushed: VecDeque::new(), capacity }
    }

    /// Persist a batch. Everything sent after it waits until it is durable.
    ///
    /// # Panics
    /// When the buffer is full, as for every push: a step that pushes without bound is a bug. A
    /// machine whose step may push much looks at [`Effects::room`] and continues in its next step.
    pub fn persist(&mut self, batch: B) {
        self.push(Pushed::Persist(batch));
    }

    /// Persist this before anything of this step is sent, unless a batch is the first thing in it. Of a step in which
    /// nothing was pushed, nothing is persisted.
    pub fn persist_first(&mut self, batch: B) {
        if self.pushed.front().is_some_and(|first| !matches!(first, Pushed::Persist(_))) {
            assert!(self.pushed.len() < self.capacity, "a machine pushed more than it may in one step");
            self.pushed.push_front(Pushed::Persist(batch));
        }
    }

    /// Do this once everything persisted so far is durable.
    pub fn send(&mut self, effect: E) {
        self.push(Pushed::Send(effect));
    }

    /// Do this now: it tells nothing of the machine's state.
    pub fn send_at_once(&mut self, effect: E) {
        self.push(Pushed::AtOnce(effect));
    }

    /// How many more may be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.pushed.len()
    }

    /// Whether nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pushed.is_empty()
    }

    fn push(&mut self, item: Pushed<B, E>) {
        assert!(
            self.pushed.len() < self.capacity,
            "a machine pushed more than {} effects in one step",
            self.capacity
        );
        self.pushed.push_back(item);
    }
}

/// Names one batch that was handed to storage. Tickets of one barrier rise by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a shell is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release<B, E> {
    /// Hand this batch to storage; report its ticket to [`Barrier::durable`] when it is durable.
    /// Batches are handed over in ticket order and become durable in ticket order.
    Persist(Ticket, B),
    /// Do this.
    Perform(E),
}

/// Holds back what must wait for durability.
#[derive(Debug)]
pub struct Barrier<E> {
    /// The last ticket given out.
    issued: u64,
    /// The last ticket known durable.
    durable: u64,
    /// Effects that wait, each for a ticket; in push order, so tickets never fall.
    waiting: VecDeque<(u64, E)>,
}

impl<E> Default for Barrier<E> {
    fn default() -> Self {
        Self { issued: 0, durable: 0, waiting: VecDeque::new() }
    }
}

impl<E> Barrier<E> {
    /// Moves a step's effects in, and gives what is to be done now, in order.
    pub fn absorb<B>(&mut self, effects: &mut Effects<B, E>, release: impl FnMut(Release<B, E>)) {
        self.absorb_as(effects, |effect, _| effect, release);
    }

    /// As [`Barrier::absorb`], of a machine's effects with something of the shell's added to each:
    /// `wrap` learns for which ticket an effect must wait, if for one.
    pub fn absorb_as<B, M>(
        &mut self,
        effects: &mut Effects<B, M>,
        mut wrap: impl FnMut(M, Option<Ticket>) -> E,
        mut release: impl FnMut(Release<B, E>),
    ) {
        for item in effects.pushed.drain(..) {
            match item {
                Pushed::Persist(batch) => {
                    self.issued += 1;
                    release(Release::Persist(Ticket(self.issued), batch));
                }
                Pushed::AtOnce(effect) => release(Release::Perform(wrap(effect, None))),
                Pushed::Send(effect) if self.may_pass() => release(Release::Perform(wrap(effect, None))),
                Pushed::Send(effect) => {
                    let effect = wrap(effect, Some(Ticket(self.issued)));
                    self.waiting.push_back((self.issued, effect));
                }
            }
        }
    }

    /// Everything up to this ticket is durable: gives the effects that waited for it, in order.
    pub fn durable(&mut self, ticket: Ticket, mut perform: impl FnMut(E)) {
        debug_assert!(ticket.0 <= self.issued, "a batch that was never issued cannot be durable");
        self.durable = self.durable.max(ticket.0);
        while let Some((_, effect)) = self.waiting.pop_front_if(|(needs, _)| *needs <= self.durable) {
            perform(effect);
        }
    }

    /// How many effects wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The last ticket given out.
    #[must_use]
    pub fn issued(&self) -> Ticket {
        Ticket(self.issued)
    }

    fn may_pass(&self) -> bool {
        canary::sings(Canary::SendBeforePersist) || (self.waiting.is_empty() && self.durable == self.issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(
        barrier: &mut Barrier<&'static str>,
        push: impl FnOnce(&mut Effects<u32, &'static str>),
    ) -> Vec<String> {
        let mut out = Effects::with_capacity(8);
        push(&mut out);
        let mut done = Vec::new();
        barrier.absorb(&mut out, |release| {
            done.push(match release {
                Release::Persist(ticket, batch) => format!("persist {batch} as {}", ticket.0),
                Release::Perform(effect) => format!("perform {effect}"),
            })
        });
        done
    }

    fn durable(barrier: &mut Barrier<&'static str>, ticket: u64) -> Vec<&'static str> {
        let mut done = Vec::new();
        barrier.durable(Ticket(ticket), |effect| done.push(effect));
        done
    }

    #[test]
    fn what_was_sent_after_a_batch_waits_for_it() {
        let mut barrier = Barrier::default();
        let done = step(&mut barrier, |out| {
            out.send("before");
            out.persist(7);
            out.send("after");
            out.send_at_once("heartbeat");
        });
        assert_eq!(done, ["perform before", "persist 7 as 1", "perform heartbeat"]);
        assert_eq!(durable(&mut barrier, 1), ["after"]);
    }

    #[test]
    fn an_answer_of_a_later_step_waits_for_an_earlier_steps_batch() {
        // The second step only reads, but what it reads may still be undone by a crash.
        let mut barrier = Barrier::default();
        step(&mut barrier, |out| out.persist(7));
        assert_eq!(step(&mut barrier, |out| out.send("already held")), Vec::<String>::new());
        assert_eq!(durable(&mut barrier, 1), ["already held"]);
    }

    #[test]
    fn what_is_persisted_first_holds_back_a_whole_step() {
        let mut barrier = Barrier::default();
        let done = step(&mut barrier, |out| {
            out.send("reply");
            out.persist_first(0);
        });
        assert_eq!(done, ["persist 0 as 1"]);
        let done = step(&mut barrier, |out| {
            out.persist(7);
            out.send("held");
            out.persist_first(0);
        });
        assert_eq!(done, ["persist 7 as 2"], "a batch is there to wait for");
        assert_eq!(step(&mut barrier, |out| out.persist_first(0)), Vec::<String>::new());
        assert_eq!(durable(&mut barrier, 2), ["reply", "held"]);
    }

    #[test]
    fn a_later_ticket_releases_everything_before_it_in_order() {
        let mut barrier = Barrier::default();
        step(&mut barrier, |out| {
            out.persist(1);
            out.send("a");
            out.persist(2);
            out.send("b");
        });
        assert_eq!(durable(&mut barrier, 2), ["a", "b"]);
        assert_eq!(barrier.waiting(), 0);
    }

    #[test]
    #[should_panic(expected = "more than 1 effects")]
    fn the_buffer_is_bounded() {
        let mut out: Effects<u32, u32> = Effects::with_capacity(1);
        out.send(1);
        out.send(2);
    }
}
