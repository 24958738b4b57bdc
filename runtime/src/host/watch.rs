//! Who wants to know when an actor ends.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use rhumb_actors::Wire;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::id::{ActorId, Shown};

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
    of: Mutex<HashMap<Shown, watch::Sender<Option<Ended>>>>,
}

impl Watchers {
    /// Adds one; `None` if there are too many.
    pub(crate) fn add(&self, actor: &Shown) -> Option<End> {
        let mut of = self.of.lock();
        if let Some(watched) = of.get(actor) {
            return (watched.receiver_count() < MAX_WATCHERS).then(|| watched.subscribe());
        }
        if of.len() >= MAX_WATCHERS {
            of.retain(|_, watched| watched.receiver_count() > 0);
        }
        if of.len() >= MAX_WATCHERS {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        of.insert(actor.clone(), sender);
        Some(receiver)
    }

    /// Tells those who watch an actor that it ended.
    pub(crate) fn ended(&self, id: &ActorId, how: &Ended) {
        let mut of = self.of.lock();
        if of.is_empty() {
            return;
        }
        if let Some(watched) = of.remove(&id.shown()) {
            watched.send_replace(Some(how.clone()));
        }
    }
}

/// Waits for the end. Who told the watchers is gone without it when the node stops.
pub(crate) async fn end(mut watched: End) -> Ended {
    match watched.wait_for(Option::is_some).await {
        Ok(ended) => ended.clone().unwrap_or(Ended::Unknown),
        Err(_) => Ended::NodeRestarted,
    }
}
