//! Actors of types that move: whether this node may do anything for one, looked at each time that it is about to.
//!
//! * It decides nothing: [`rhumb_actors::failover::acting`] does, by what the mesh has read of the fences.
//! * It never does: ask anybody, keep an instance that may begin nothing, or stop a handler that has begun.
//! * Invariants: a message of such an actor's mailbox comes to its turn only while this node has a permit and owns the actor by it,
//!   and only with the instance that was made since nobody else did. A type that does not move, and a mesh in which nobody reads
//!   the fences, pay one look for this.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rhumb_actors::failover::acting::{same_until, turn};
use rhumb_actors::failover::{Begins, Term, Turn};
use rhumb_actors::remote::Hosted;
use rhumb_core::{Epoch, Fault};

use super::cell::{Cell, State};
use super::home::Home;
use super::id::{ActorId, Shown};
use super::life::Phase;
use super::packed::Deliver;
use super::watch::End;
use crate::mesh::address::class_of;
use crate::mesh::owners::{Order, Owners, taken};

/// How many are looked at before others have a turn: a node may have a million actors.
const PORTION: usize = 256;

/// What is known of an actor's place, beside its cell.
#[derive(Default)]
pub(super) struct Seat(Mutex<Known>);

/// Under what this node acts for an actor, and by which order that was found.
pub(crate) type Acts = (Order, Term);

#[derive(Default)]
struct Known {
    order: Option<Order>,
    /// What the instance acts under.
    acts: Option<Acts>,
}

/// What becomes of the instance of an actor as a message's turn comes.
pub(super) enum Turned {
    /// It goes on.
    Goes,
    /// It ends, and the next one takes what waits.
    Anew,
    /// It ends, and what waits is refused with this.
    Ends(Fault),
}

impl<A: Hosted> Home<A> {
    /// By what an actor moves, if it does.
    pub(crate) fn owners_of(&self, id: &ActorId) -> Option<&Owners> {
        if self.moves() && !id.is_equal() { self.mesh.owners() } else { None }
    }

    /// Whether this node may take a message for an actor that moves. None: it does not.
    pub(crate) fn may_take(&self, id: &ActorId, cell: Option<&Cell<A>>) -> Option<Result<(), Fault>> {
        let owners = self.owners_of(id)?;
        Some(match cell {
            Some(cell) => self.judge(owners, id, &mut cell.seat.0.lock().order).map(drop),
            None => id.check().and_then(|()| self.judge(owners, id, &mut None).map(drop)),
        })
    }

    /// The epoch that a caller has to name who wants this instance of an actor, or the next one, and no other.
    pub(crate) fn epoch_of(&self, id: &ActorId) -> Epoch {
        let Some(owners) = self.owners_of(id) else { return self.mesh.epoch() };
        let acts = self.found(id).and_then(|cell| cell.epoch());
        acts.unwrap_or_else(|| Epoch(1 + owners.last().changes()))
    }

    /// Adds a watch of an actor for which this node may act.
    pub(super) fn watched(&self, actor: &Shown) -> Result<End, Fault> {
        self.watchers().add(actor, || {
            let Some(owners) = self.mesh.owners().filter(|_| self.moves()) else { return Ok(None) };
            let order = self.mesh.order(actor, &class_of::<A>()?)?;
            let begins = self.mesh.begins(owners, &order);
            taken(&begins, A::TYPE, &order)?;
            Ok(if let Begins::Here(term) = begins { Some((order, term)) } else { None })
        })
    }

    /// Whether this node acts for a watched actor as it did, be it that it sleeps.
    fn acts_still(&self, owners: &Owners, actor: &Shown, (by, term): &mut Acts) -> bool {
        if by.policy != self.mesh.policy_number() {
            let order = class_of::<A>().and_then(|class| self.mesh.order(actor, &class));
            let Ok(order) = order.map(|order| order.after(Some(by.clone()))) else { return false };
            if !self.judged_alike(by, &order) {
                return false;
            }
            *by = order;
        }
        turn(Some(*term), &self.mesh.begins(owners, by)) == Turn::Goes
    }

    /// Lets all go that may not act any more, and ends watches of actors that have moved. What changes meanwhile is looked at in the
    /// next pass; who takes a message is judged by itself in any case.
    pub(super) async fn lets_go(&self) {
        let Some(owners) = self.mesh.owners().filter(|_| self.moves()) else { return };
        for cells in self.shards() {
            for cells in cells.chunks(PORTION) {
                cells.iter().for_each(|cell| cell.lets_go());
                tokio::task::yield_now().await;
            }
        }
        // Who sleeps has no cell.
        for actors in self.watchers().all().chunks(PORTION) {
            for actor in actors {
                self.watchers().moved(actor, |acts| self.acts_still(owners, actor, acts));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Under what this node may begin something of an actor.
    fn judge(
        &self,
        owners: &Owners,
        id: &ActorId,
        order: &mut Option<Order>,
    ) -> Result<(Order, Term), Fault> {
        let (begins, order) = self.begins(owners, id, order)?;
        taken(&begins, A::TYPE, order)?;
        match begins {
            Begins::Here(term) => Ok((order.clone(), term)),
            Begins::At(_) | Begins::Nowhere(_) => unreachable!("that was refused"),
        }
    }

    fn begins<'a>(
        &self,
        owners: &Owners,
        id: &ActorId,
        order: &'a mut Option<Order>,
    ) -> Result<(Begins, &'a Order), Fault> {
        if order.as_ref().is_none_or(|order| order.policy != self.mesh.policy_number()) {
            let now = self.mesh.order(&id.shown(), &class_of::<A>()?)?;
            *order = Some(now.after(order.take()));
        }
        let order = order.as_ref().expect("it was found");
        Ok((self.mesh.begins(owners, order), order))
    }

    /// Whether the same fences decide by both orders whether this node acts.
    fn judged_alike(&self, one: &Order, other: &Order) -> bool {
        let alike = |me| same_until(me, &one.nodes, &other.nodes);
        Arc::ptr_eq(&one.nodes, &other.nodes) || self.mesh.node().is_some_and(alike)
    }
}

impl<A: Hosted> Cell<A> {
    /// A message's turn has come, or the fences were read.
    pub(super) fn turn(&self) -> Turned {
        let Some(owners) = self.home.owners_of(&self.id) else { return Turned::Goes };
        let mut known = self.seat.0.lock();
        let Known { order, acts } = &mut *known;
        let (begins, order) = match self.home.begins(owners, &self.id, order) {
            Ok(found) => found,
            Err(fault) => return Turned::Ends(fault),
        };
        // Another policy may put other nodes before this one: who acted is not known of those.
        let judged_alike = acts.as_ref().is_none_or(|(by, _)| self.home.judged_alike(by, order));
        match turn(acts.as_ref().map(|(_, term)| *term), &begins) {
            Turn::Goes if judged_alike => Turned::Goes,
            Turn::Goes | Turn::Anew => Turned::Anew,
            Turn::Ends => match taken(&begins, A::TYPE, order) {
                Ok(()) => Turned::Anew,
                Err(fault) => Turned::Ends(fault),
            },
        }
    }

    /// Lets the instance go if this node may not act for the actor any more.
    pub(crate) fn lets_go(&self) {
        match self.turn() {
            Turned::Goes => {}
            left => {
                let mut state = self.state.lock();
                let waiting = self.moves_away(&mut state, &left);
                Self::poke(state);
                self.refuse_moved(waiting, &left);
            }
        }
    }

    /// The instance goes, and takes nothing more of what waits. Gives what is to be refused.
    pub(super) fn moves_away(&self, state: &mut State<A>, left: &Turned) -> Vec<Box<dyn Deliver<A>>> {
        if matches!(state.life.phase(), Phase::Awake | Phase::Leaving) {
            state.life.leaves();
            self.moved.store(true, Ordering::Relaxed);
        }
        if matches!(left, Turned::Ends(_)) { state.mailbox.drain() } else { Vec::new() }
    }

    pub(super) fn refuse_moved(&self, waiting: Vec<Box<dyn Deliver<A>>>, left: &Turned) {
        if let Turned::Ends(fault) = left {
            self.refuse_all(waiting, fault);
        }
    }

    /// An instance is about to be made: whether it may be, and under what it acts from now on.
    pub(super) fn sits_down(&self) -> Result<(), Fault> {
        let Some(owners) = self.home.owners_of(&self.id) else { return Ok(()) };
        let mut known = self.seat.0.lock();
        let acts = self.home.judge(owners, &self.id, &mut known.order)?;
        known.acts = Some(acts);
        Ok(())
    }

    /// The instance has gone.
    pub(super) fn stands_up(&self) {
        self.seat.0.lock().acts = None;
    }

    /// The epoch under which the instance acts, if there is one and its type moves.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.seat.0.lock().acts.as_ref().map(|(_, term)| term.epoch)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use actix::prelude::*;
    use rhumb_actors::{remote, remote_actor};

    use super::PORTION;
    use crate::host::Host;
    use crate::testing::{TestMesh, run};

    #[remote(name = "test.Wake", class = "control", reply = u32, idempotent, crate = rhumb_actors)]
    struct Wake {}

    struct Sleeper;

    #[remote_actor(name = "test.sleeper", class = "control", accepts(Wake), crate = rhumb_actors)]
    impl Actor for Sleeper {
        type Context = Context<Self>;
    }

    impl Handler<Wake> for Sleeper {
        type Result = u32;

        fn handle(&mut self, _: Wake, _: &mut Context<Self>) -> u32 {
            1
        }
    }

    #[test]
    fn others_have_a_turn_while_many_actors_are_let_go() {
        run(async {
            let mesh = TestMesh::of(["eu"]).host(Host::new(|_| Sleeper).moves()).moving().start().await;
            let mesh = mesh.expect("it starts");
            tokio::time::sleep(Duration::from_secs(2)).await;
            let awake = 4 * PORTION;
            for key in 0..awake {
                assert_eq!(mesh.at("eu").actor::<Sleeper>(key).ask(Wake {}).await, Ok(1));
            }
            let hosts = mesh.at("eu").hosted().expect("hosts");
            let home = hosts.home("test.sleeper").expect("it is hosted");
            let mut pass = pin!(home.let_go());
            let mut turns = 0;
            std::future::poll_fn(|task| {
                turns += 1;
                pass.as_mut().poll(task)
            })
            .await;
            assert!(turns > awake / PORTION, "{turns} turns for {awake} actors");
        });
    }
}
