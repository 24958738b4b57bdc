//! What the mesh asks of itself: the questions of watches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::remote::Remote;
use rhumb_actors::{Wire, remote};
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, NodeId, Principal, Region, Role};
use rhumb_topology::policy::Use;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::asking::{not_hosted, same_class};
use super::registry::{Call, Registry, ServedTwice};
use super::whose::WhoseIs;
use super::{Mesh, Whereabouts};
use crate::host::AnyHome;
use crate::host::id::Shown;
use crate::host::watch::{End, Ended, end, too_many};

/// How long the end of a watched actor is kept for a watcher who does not ask.
const KEPT: Duration = Duration::from_secs(600);
/// How many watches of others may be kept, and of one of them.
const MAX_KEPT: usize = 65_536;
const MAX_KEPT_OF_ONE: usize = 8_192;
/// How often a full table is looked through for watches that are over, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Has this actor ended? Answers when it does, or after the time given.
#[remote(
    name = "mesh.WatchActor",
    class = "control",
    reply = Watched,
    idempotent,
    deadline = "5s",
    crate = rhumb_actors
)]
pub(crate) struct WatchActor {
    /// The actor, as [`Shown`].
    pub(super) actor: String,
    /// The watch, the same in every question of it and drawn at random: a watcher that restarts does
    /// not find the watches of its former life.
    pub(super) number: u64,
    /// The epoch in which the watch began; none in its first question.
    pub(super) epoch: Option<u64>,
    /// It is the last question.
    pub(super) over: bool,
    /// How long to wait for the end.
    pub(super) wait_ms: u64,
}

/// What there is to say of a watched actor.
#[derive(Debug, Clone, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub(crate) struct Watched {
    /// The present epoch of the node.
    pub(super) epoch: u64,
    /// How it ended, if it did.
    pub(super) ended: Option<Ended>,
}

/// Which node owns this actor?
#[remote(name = "mesh.Locate", class = "control", reply = NodeId, idempotent, deadline = "2s", crate = rhumb_actors)]
pub(crate) struct Locate {
    /// The actor, as [`Shown`]: whoever is asked need not learn the key.
    actor: String,
    /// The class of the state of its type.
    class: DataClass,
}

/// Watches of others, between their questions and during them: a question that nobody waits for any more
/// takes nothing with it.
#[derive(Default)]
pub(super) struct Watches {
    kept: Mutex<HashMap<Principal, KeptOfOne>>,
    /// When the table was last looked through for watches that nobody asks for.
    swept: Mutex<Option<Instant>>,
}

/// By the actor and the watch's number.
type KeptOfOne = HashMap<(Shown, u64), Kept>;

struct Kept {
    ended: End,
    asked: Instant,
}

impl Watches {
    /// Whether a watcher may have one more. A full table is looked through now and then, and not at every question.
    fn has_room(&self, watcher: &Principal) -> bool {
        let now = Instant::now();
        let mut all = self.kept.lock();
        let room = |all: &HashMap<Principal, KeptOfOne>| {
            all.get(watcher).map_or(0, HashMap::len) < MAX_KEPT_OF_ONE
                && all.values().map(HashMap::len).sum::<usize>() < MAX_KEPT
        };
        if room(&all) {
            return true;
        }
        let mut swept = self.swept.lock();
        if swept.is_some_and(|at| now.duration_since(at) < SWEEP) {
            return false;
        }
        *swept = Some(now);
        all.retain(|_, kept| {
            kept.retain(|_, kept| now.duration_since(kept.asked) < KEPT);
            !kept.is_empty()
        });
        room(&all)
    }

    /// Keeps a new watch; false if there are too many.
    fn begin(&self, watcher: &Principal, key: (Shown, u64), ended: End) -> bool {
        let room = self.has_room(watcher);
        if room {
            let kept = Kept { ended, asked: Instant::now() };
            self.kept.lock().entry(watcher.clone()).or_default().insert(key, kept);
        }
        room
    }

    /// A watch that goes on.
    fn goes_on(&self, watcher: &Principal, key: &(Shown, u64)) -> Option<End> {
        let mut all = self.kept.lock();
        let kept = all.get_mut(watcher)?.get_mut(key)?;
        kept.asked = Instant::now();
        Some(kept.ended.clone())
    }

    fn over(&self, watcher: &Principal, key: &(Shown, u64)) {
        if let Some(kept) = self.kept.lock().get_mut(watcher) {
            kept.remove(key);
        }
    }
}

impl Mesh {
    /// Asks a node that has just said that another one owns an actor which one that is.
    pub(super) async fn locate_by(
        &self,
        node: &NodeId,
        class: &DataClass,
        id: &Shown,
        within: Duration,
    ) -> Result<NodeId, Fault> {
        let question = Locate { actor: id.to_string(), class: class.clone() };
        let within = within.min(Locate::DEADLINE);
        let asked = self.ask_node(node, &question, DataClass::control(), within).await;
        asked.map(|(owner, _)| owner)
    }

    /// Asks one node after the other where an actor lives.
    pub(super) async fn locate(&self, class: &DataClass, id: &Shown) -> Result<NodeId, Fault> {
        let question = Locate { actor: id.to_string(), class: class.clone() };
        self.ask_any_node(&question, Locate::DEADLINE).await
    }

    /// Asks one node after the other what any of them may know, the best first.
    pub(super) async fn ask_any_node<M: Remote>(
        &self,
        question: &M,
        within: Duration,
    ) -> Result<M::Reply, Fault> {
        let mut last = Fault::not_sent(FaultKind::Unreachable("there is no node to ask".into()));
        let mut left = self.all_nodes();
        // Each once, the best first: any of them knows.
        while let Some((at, weighed)) = self.resilience().choose(self.region(), &left, M::NAME) {
            let node = left.swap_remove(at);
            let answered = self.ask_node(&node, question, DataClass::control(), within).await;
            // That it hosts no such actors is an answer.
            weighed.went(answered.as_ref().err().filter(|fault| {
                use FaultKind::{Deadline, Draining, Full, Unreachable};
                matches!(fault.kind, Unreachable(_) | Deadline(_) | Full(_) | Draining)
            }));
            match answered {
                Ok((answer, _)) => return Ok(answer),
                // Nothing was run: it may be asked of anybody.
                // That nobody owns it says more than that one of those could not be asked.
                Err(_) if matches!(last.kind, FaultKind::Unowned(_)) => {}
                Err(fault) => last = Fault { delivery: Delivery::NotSent, ..fault },
            }
        }
        Err(last)
    }

    fn located(&self, question: &Locate) -> Result<NodeId, Fault> {
        let (id, home) = self.shown_here(&question.actor)?;
        same_class(home.kind(), home.class(), question.class.as_str())?;
        match &self.inner.places {
            Whereabouts::Known(places) => match self.moving(id.kind) {
                Some(owners) => self.moved_to(owners, &id, &question.class),
                None => places.owner(&id, &question.class).cloned(),
            },
            Whereabouts::Asked(_) => Err(not_hosted(self, id.kind)),
        }
    }

    async fn watched(self, watcher: Principal, question: WatchActor) -> Result<Watched, Fault> {
        let epoch = self.epoch().0;
        let (id, home) = self.shown_here(&question.actor)?;
        let (key, watches) = ((id, question.number), &self.inner.watches);
        if question.over {
            watches.over(&watcher, &key);
            return Ok(Watched { epoch, ended: None });
        }
        let watched = match question.epoch {
            Some(begun) if begun != epoch => {
                return Ok(Watched { epoch, ended: Some(Ended::NodeRestarted) });
            }
            Some(_) => match watches.goes_on(&watcher, &key) {
                Some(watched) => watched,
                None => return Ok(Watched { epoch, ended: Some(Ended::Unknown) }),
            },
            None => {
                self.may_watch(&watcher, &home)?;
                if !watches.has_room(&watcher) {
                    return Err(too_many());
                }
                let watched = home.watch(&key.0)?;
                if !watches.begin(&watcher, key, watched.clone()) {
                    return Err(too_many());
                }
                watched
            }
        };
        let wait = Duration::from_millis(question.wait_ms).min(Duration::from_secs(60));
        Ok(Watched { epoch, ended: tokio::time::timeout(wait, end(watched)).await.ok() })
    }

    /// Whether a program may know of an actor's end: where its region may see the actor's state.
    fn may_watch(&self, watcher: &Principal, home: &Arc<dyn AnyHome>) -> Result<(), Fault> {
        if watcher.role == Role::Node {
            return Ok(());
        }
        let refused = |why| Fault::not_sent(FaultKind::Unauthorized(why));
        let class = DataClass::new(home.class()).map_err(|error| refused(error.to_string()))?;
        let Whereabouts::Known(places) = &self.inner.places else { return Ok(()) };
        let policy = places.policy.load();
        let may = |usage| policy.permits(&watcher.region, usage, &class);
        may(Use::Hold).or_else(|_| may(Use::Read)).map_err(refused)
    }

    /// The actor that somebody else names, and the home of its type here.
    fn shown_here(&self, actor: &str) -> Result<(Shown, Arc<dyn AnyHome>), Fault> {
        let wrong = || Fault::not_sent(FaultKind::NotHosted("the actor is not one: TYPE#NUMBER".into()));
        let (kind, region, tag) = Shown::parse(actor).ok_or_else(wrong)?;
        let home = self.hosted().and_then(|hosts| hosts.home(kind).cloned());
        let home = home.ok_or_else(|| not_hosted(self, kind))?;
        let region = region.map(Region::new).transpose().map_err(|_| wrong())?;
        Ok((Shown { kind: home.kind(), region, tag }, home))
    }
}

/// Serves the mesh's own messages on a node.
///
/// # Errors
/// [`ServedTwice`].
pub(crate) fn serve(registry: &mut Registry, mesh: &Mesh) -> Result<(), ServedTwice> {
    let locating = mesh.clone();
    registry.serve(move |call: Call<Locate>| {
        let located = locating.located(&call.message);
        async move { Ok((located?, DataClass::control())) }
    })?;
    let watching = mesh.clone();
    registry.serve(move |call: Call<WhoseIs>| {
        let owned = watching.shown_here(&call.message.actor).and_then(|(id, home)| {
            same_class(home.kind(), home.class(), call.message.class.as_str())?;
            watching.whose_here(&id, &call.message.class)
        });
        async move { Ok((owned?, DataClass::control())) }
    })?;
    let mesh = mesh.clone();
    registry.serve(move |call: Call<WatchActor>| {
        let watcher = call.from.principal.clone();
        let watched = mesh.clone().watched(watcher, call.message);
        async move { Ok((watched.await?, DataClass::control())) }
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;
    use crate::host::id::ActorId;

    #[test]
    fn a_watcher_keeps_so_many_and_no_more_and_none_of_anothers_room() {
        let (watches, (told, ended)) = (Watches::default(), watch::channel(None));
        let watcher = |name: &str| Principal {
            role: Role::Client,
            region: "eu".parse().expect("a region"),
            name: name.to_owned(),
        };
        let actor = ActorId::new("cart", None, "42").shown();
        let (greedy, other) = (watcher("greedy"), watcher("other"));
        for number in 0..MAX_KEPT_OF_ONE as u64 {
            assert!(watches.begin(&greedy, (actor.clone(), number), ended.clone()));
        }
        assert!(!watches.begin(&greedy, (actor.clone(), u64::MAX), ended.clone()));
        assert!(watches.begin(&other, (actor.clone(), 1), ended.clone()));
        watches.over(&greedy, &(actor.clone(), 7));
        assert!(watches.begin(&greedy, (actor.clone(), u64::MAX), ended));
        told.send_replace(Some(Ended::Stopped));
        let kept = watches.goes_on(&other, &(actor.clone(), 1)).expect("kept");
        assert_eq!(*kept.borrow(), Some(Ended::Stopped), "an end stays until the watch is over");
        assert!(!watches.has_room(&greedy) && watches.swept.lock().is_some());
        let swept = *watches.swept.lock();
        assert!(!watches.begin(&greedy, (actor.clone(), 8), told.subscribe()));
        assert_eq!(*watches.swept.lock(), swept, "not at every question");
        let others = ActorId::new("cart", None, "43").shown();
        assert!(watches.goes_on(&other, &(others, 1)).is_none(), "a number is of one actor");
    }
}
