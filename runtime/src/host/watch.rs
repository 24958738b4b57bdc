//! Who wants to know when an actor ends.

use std::collections::HashMap;
use std::fmt;

use parking_lot::Mutex;
use rhumb_actors::Wire;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::id::ActorId;

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
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "it stopped itself",
            Self::Failed => "it panicked too often",
            Self::NodeRestarted => "its node restarted",
            Self::Unknown => "nobody knows how",
        })
    }
}

/// How many may watch the actors of one type on one node.
const MAX_WATCHERS: usize = 65_536;

/// The watchers of one type's actors. Each wants one word, so a channel has one place.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    of: Mutex<HashMap<ActorId, Vec<mpsc::Sender<Ended>>>>,
}

impl Watchers {
    /// Adds one; `None` if there are too many.
    pub(crate) fn add(&self, id: &ActorId) -> Option<mpsc::Receiver<Ended>> {
        let (sender, receiver) = mpsc::channel(1);
        let mut of = self.of.lock();
        if of.len() >= MAX_WATCHERS {
            of.retain(|_, watchers| {
                watchers.retain(|watcher| !watcher.is_closed());
                !watchers.is_empty()
            });
        }
        let all = of.len();
        let watchers = of.entry(id.clone()).or_default();
        watchers.retain(|watcher| !watcher.is_closed());
        if all.max(watchers.len()) >= MAX_WATCHERS {
            return None;
        }
        watchers.push(sender);
        Some(receiver)
    }

    /// Tells those who watch an actor that it ended.
    pub(crate) fn ended(&self, id: &ActorId, how: &Ended) {
        let watchers = self.of.lock().remove(id).unwrap_or_default();
        for watcher in watchers {
            // The one place of its channel is free: it was never used. Or nobody is there any more.
            watcher.try_send(how.clone()).ok();
        }
    }
}
