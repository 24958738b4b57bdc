//! Watching an actor: told when it ends, and told apart from that when nobody can say.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rhumb_actors::remote::Addressed;
use rhumb_core::{DataClass, Fault, FaultKind, NodeId};
use tokio::sync::mpsc;

use super::address::class_of;
use super::asking::not_hosted;
use super::service::{WatchActor, Watched};
use super::{Mesh, MeshAddr};
use crate::host::id::Shown;
use crate::host::watch::{Ended, end};

/// How long one question to the actor's node waits for the end.
const ROUND: Duration = Duration::from_secs(20);
/// How long to wait before a node that cannot be reached is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What a watch sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The actor ended. Nothing follows.
    Terminal(Ended),
    /// Its node cannot be reached: nobody can say whether the actor lives.
    Unreachable,
    /// Its node can be reached again, and the actor had not ended.
    Reachable,
}

/// A watch of one actor. Dropped, it ends.
#[derive(Debug)]
pub struct Watch {
    seen: mpsc::Receiver<Seen>,
}

impl Watch {
    /// What is seen next; none after the end.
    pub async fn next(&mut self) -> Option<Seen> {
        self.seen.recv().await
    }
}

impl<A: Addressed> MeshAddr<A> {
    /// Watches the actor, wherever it lives. Falling asleep is not an end. When this returns, an end
    /// that follows will be seen.
    ///
    /// # Errors
    /// The actor's node cannot be asked, or has too many watchers.
    pub async fn watch(&self) -> Result<Watch, Fault> {
        let mesh = self.mesh()?;
        let owner = self.owner_in(&mesh).await?;
        let (told, seen) = mpsc::channel(4);
        if Some(&owner) == mesh.node() {
            let home = mesh.hosted().and_then(|hosts| hosts.home(A::TYPE).cloned());
            let home = home.ok_or_else(|| not_hosted(&mesh, A::TYPE))?;
            let watched = home.watchers().add(&self.id().shown()).ok_or_else(too_many)?;
            tokio::spawn(async move {
                tokio::select! {
                    ended = end(watched) => {
                        told.send(Seen::Terminal(ended)).await.ok();
                    }
                    () = told.closed() => {}
                }
            });
            return Ok(Watch { seen });
        }
        let (id, class) = (self.id().shown(), class_of::<A>()?);
        let mut far = Far { id, class, owner, number: drawn(), mesh, begun: None };
        far.ask(Duration::ZERO, false).await?;
        tokio::spawn(async move {
            tokio::select! {
                () = far.follow(&told) => {}
                () = told.closed() => {}
            }
            // Else its node keeps the watch until it is old.
            far.ask(Duration::ZERO, true).await.ok();
        });
        Ok(Watch { seen })
    }
}

/// A number that no other watch has.
fn drawn() -> u64 {
    RandomState::new().hash_one(())
}

pub(super) fn too_many() -> Fault {
    Fault::not_sent(FaultKind::Full("the list of watchers".into()))
}

/// The watch of an actor of another node: the same question again and again, under one number, so that
/// its node keeps the end for us between two of them.
struct Far {
    id: Shown,
    /// That of its state.
    class: DataClass,
    owner: NodeId,
    number: u64,
    mesh: Mesh,
    /// The epoch in which the watch began.
    begun: Option<u64>,
}

impl Far {
    async fn ask(&mut self, wait: Duration, over: bool) -> Result<Option<Ended>, Fault> {
        let message = WatchActor {
            actor: self.id.to_string(),
            number: self.number,
            epoch: self.begun,
            over,
            wait_ms: wait.as_millis() as u64,
        };
        let within = wait + Duration::from_secs(3);
        let asked = self.mesh.ask_node(&self.owner, &message, DataClass::control(), within).await;
        let Watched { epoch, ended } = asked?.0;
        self.begun = Some(epoch);
        Ok(ended)
    }

    async fn follow(&mut self, told: &mpsc::Sender<Seen>) {
        let mut reachable = true;
        loop {
            let seen = match self.ask(if reachable { ROUND } else { Duration::ZERO }, false).await {
                Ok(Some(ended)) => {
                    told.send(Seen::Terminal(ended)).await.ok();
                    return;
                }
                Ok(None) if reachable => continue,
                Ok(None) => Seen::Reachable,
                Err(fault) => {
                    tracing::debug!(owner = %self.owner, %fault, "a watched actor's node does not answer");
                    if self.mesh.owner_of(&self.class, &self.id).await.is_ok_and(|owner| owner != self.owner)
                    {
                        told.send(Seen::Terminal(Ended::Moved)).await.ok();
                        return;
                    }
                    tokio::time::sleep(AGAIN).await;
                    if !reachable {
                        continue;
                    }
                    Seen::Unreachable
                }
            };
            reachable = seen == Seen::Reachable;
            if told.send(seen).await.is_err() {
                return;
            }
        }
    }
}
