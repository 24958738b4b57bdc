//! Who wants to know when an actor ends.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use rhumb_actors::Wire;
use rhumb_core::{Fault, FaultKind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::id::{ActorId, Shown};
use super::moving::Acts;

/// How an actor ended for good: what was in memory is lost. Falling asleep is not an end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub enum Ended {
    /// It stopped itself.
    Stopped,
    /// It panicked too often.
    Failed,
    /// Its node stopped, or began a new life.
    NodeRestarted,
    /// Nobody knows: its node could not be reached for so long that it no longer keeps the end.
    Unknown,
    /// Its node may not act for it any more, or was fenced in between: another one makes the next instance, or it does.
    #[since(2)]
    Moved,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "it stopped itself",
            Self::Failed => "it panicked too often",
            Self::NodeRestarted => "its node restarted",
            Self::Unknown => "nobody knows how",
            Self::Moved => "it moved",
        })
    }
}

/// How many may watch one actor, and how many actors of one type on one node may be watched.
const MAX_WATCHERS: usize = 65_536;

/// What a watcher waits for. It stays there once it has come.
pub(crate) type End = watch::Receiver<Option<Ended>>;

/// The watchers of one type's actors.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    of: Mutex<HashMap<Shown, Watched>>,
}

#[derive(Debug)]
struct Watched {
    told: watch::Sender<Option<Ended>>,
    /// Under what this node acts for the actor since it is watched, if its type moves: it may sleep, and move as it does.
    acts: Option<Acts>,
}

impl Watchers {
    /// Adds one of an actor for which this node may act as that says.
    pub(crate) fn add(
        &self,
        actor: &Shown,
        acts: impl FnOnce() -> Result<Option<Acts>, Fault>,
    ) -> Result<End, Fault> {
        let mut of = self.of.lock();
        // Under the lock: what changes later is looked at in a later pass, which finds this one.
        let acts = acts()?;
        if let Some(Watched { told, .. }) = of.get(actor) {
            return if told.receiver_count() < MAX_WATCHERS { Ok(told.subscribe()) } else { Err(too_many()) };
        }
        if of.len() >= MAX_WATCHERS {
            of.retain(|_, watched| watched.told.receiver_count() > 0);
        }
        if of.len() >= MAX_WATCHERS {
            return Err(too_many());
        }
        let (told, receiver) = watch::channel(None);
        of.insert(actor.clone(), Watched { told, acts });
        Ok(receiver)
    }

    /// The actors that are watched.
    pub(super) fn all(&self) -> Vec<Shown> {
        self.of.lock().keys().cloned().collect()
    }

    /// Tells those who watch an actor that it has moved, unless this node acts for it as it did.
    pub(super) fn moved(&self, actor: &Shown, acts_still: impl FnOnce(&mut Acts) -> bool) {
        let mut of = self.of.lock();
        let acts = of.get_mut(actor).and_then(|watched| watched.acts.as_mut());
        if acts.is_some_and(|acts| !acts_still(acts))
            && let Some(Watched { told, .. }) = of.remove(actor)
        {
            told.send_replace(Some(Ended::Moved));
        }
    }

    /// Tells those who watch an actor that it ended.
    pub(crate) fn ended(&self, id: &ActorId, how: &Ended) {
        let mut of = self.of.lock();
        if of.is_empty() {
            return;
        }
        if let Some(watched) = of.remove(&id.shown()) {
            watched.told.send_replace(Some(how.clone()));
        }
    }
}

pub(crate) fn too_many() -> Fault {
    Fault::not_sent(FaultKind::Full("the list of watchers".into()))
}

/// Waits for the end. Who told the watchers is gone without it when the node stops.
pub(crate) async fn end(mut watched: End) -> Ended {
    match watched.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ended::Unknown),
        Err(_) => Ended::NodeRestarted,
    }
}
