//! What the mesh asks of itself: the questions of watches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rhumb_actors::remote::Remote;
use rhumb_actors::{Wire, remote};
use rhumb_core::{DataClass, Delivery, Fault, FaultKind, NodeId, Region};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::address::not_hosted;
use super::registry::{Call, Registry, ServedTwice};
use super::watch::too_many;
use super::{Mesh, Whereabouts};
use crate::host::AnyHome;
use crate::host::id::{ActorId, Target, Whom};
use crate::host::watch::Ended;

/// How long the end of a watched actor is kept for a watcher who does not ask.
const KEPT: Duration = Duration::from_secs(600);
/// How many watches of other nodes may be kept.
const MAX_KEPT: usize = 65_536;

/// Has this actor ended? Answers when it does, or after the time given.
#[remote(
    name = "mesh.WatchActor",
    class = "control",
    reply = Watched,
    idempotent,
    deadline = "5s",
    crate = rhumb_actors
)]
pub(super) struct WatchActor {
    /// The actor's name.
    pub(super) actor: String,
    /// The watch, the same in every question of it.
    pub(super) number: u64,
    /// The epoch in which the watch began.
    pub(super) epoch: Option<u64>,
    /// How long to wait for the end.
    pub(super) wait_ms: u64,
}

/// What there is to say of a watched actor.
#[derive(Debug, Clone, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub(super) struct Watched {
    /// The present epoch of the node.
    pub(super) epoch: u64,
    /// How it ended, if it did.
    pub(super) ended: Option<Ended>,
}

/// Which node owns this actor?
#[remote(name = "mesh.Locate", class = "control", reply = NodeId, idempotent, deadline = "2s", crate = rhumb_actors)]
pub(super) struct Locate {
    /// The actor's name.
    actor: String,
    /// The class of the state of its type.
    class: DataClass,
}

/// Watches of other nodes' watchers, between their questions.
#[derive(Default)]
pub(super) struct Watches {
    numbers: AtomicU64,
    kept: Mutex<HashMap<(String, u64), Kept>>,
}

struct Kept {
    ended: mpsc::Receiver<Ended>,
    asked: Instant,
}

impl Mesh {
    /// A number for a new watch.
    pub(super) fn watch_number(&self) -> u64 {
        self.inner.watches.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks one node after the other where an actor lives.
    pub(super) async fn locate(&self, class: &DataClass, id: &ActorId) -> Result<NodeId, Fault> {
        let question = Locate { actor: id.to_string(), class: class.clone() };
        let mut last = Fault::not_sent(FaultKind::Unreachable("there is no node to ask".into()));
        for node in self.all_nodes() {
            match self.ask_node(&node, &question, DataClass::control(), Locate::DEADLINE).await {
                Ok((owner, _)) => return Ok(owner),
                // Nothing was run: where an actor lives may be asked of anybody.
                Err(fault) => last = Fault { delivery: Delivery::NotSent, ..fault },
            }
        }
        Err(last)
    }

    fn located(&self, question: &Locate) -> Result<NodeId, Fault> {
        let (id, _) = self.named_here(&question.actor)?;
        match &self.inner.places {
            Whereabouts::Known(places) => places.owner(&id, &question.class).cloned(),
            Whereabouts::Asked(_) => Err(not_hosted(self, id.kind())),
        }
    }

    async fn watched(self, watcher: String, question: WatchActor) -> Result<Watched, Fault> {
        let epoch = self.epoch().0;
        if question.epoch.is_some_and(|begun| begun != epoch) {
            return Ok(Watched { epoch, ended: Some(Ended::NodeRestarted) });
        }
        let key = (watcher, question.number);
        let kept = self.inner.watches.kept.lock().remove(&key);
        let mut ended = match (kept, question.epoch) {
            (Some(kept), _) => kept.ended,
            (None, Some(_)) => return Ok(Watched { epoch, ended: Some(Ended::Unknown) }),
            (None, None) => self.begin(&question.actor)?,
        };
        let wait = Duration::from_millis(question.wait_ms).min(Duration::from_secs(60));
        let outcome = tokio::time::timeout(wait, ended.recv()).await;
        let how = outcome.ok().map(|how| how.unwrap_or(Ended::Unknown));
        // The answer may be lost on its way: the end is kept until the watcher has no question more.
        let kept = how.clone().map_or(ended, already);
        self.keep(key, kept)?;
        Ok(Watched { epoch, ended: how })
    }

    fn begin(&self, actor: &str) -> Result<mpsc::Receiver<Ended>, Fault> {
        let (id, home) = self.named_here(actor)?;
        home.watchers().add(&id).ok_or_else(too_many)
    }

    /// The actor that another node names, and the home of its type here.
    fn named_here(&self, actor: &str) -> Result<(ActorId, Arc<dyn AnyHome>), Fault> {
        let wrong = || Fault::not_sent(FaultKind::NotHosted("the address is not one: TYPE/KEY".into()));
        let target = Target::parse(actor).ok_or_else(wrong)?;
        let home = self.hosted().and_then(|hosts| hosts.home(target.kind).cloned());
        let home = home.ok_or_else(|| not_hosted(self, target.kind))?;
        let Whom::One(key) = target.whom else { return Err(wrong()) };
        let region = target.region.map(Region::new).transpose().map_err(|_| wrong())?;
        Ok((ActorId::new(home.kind(), region, key), home))
    }

    fn keep(&self, key: (String, u64), ended: mpsc::Receiver<Ended>) -> Result<(), Fault> {
        let now = Instant::now();
        let mut kept = self.inner.watches.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| now.duration_since(kept.asked) < KEPT);
        }
        if kept.len() >= MAX_KEPT {
            return Err(too_many());
        }
        kept.insert(key, Kept { ended, asked: now });
        Ok(())
    }
}

/// A channel in which the end is.
fn already(how: Ended) -> mpsc::Receiver<Ended> {
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(how).expect("its one place is free");
    receiver
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
    let mesh = mesh.clone();
    registry.serve(move |call: Call<WatchActor>| {
        let watcher = call.from.principal.to_string();
        let watched = mesh.clone().watched(watcher, call.message);
        async move { Ok((watched.await?, DataClass::control())) }
    })
}
