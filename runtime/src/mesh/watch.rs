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
        match self.watch_at(&mesh, owner).await {
            // What was known of its owner is old.
            Err(fault) if matches!(fault.kind, FaultKind::Moved(_)) => {
                self.doubt(&fault);
                let owner = self.owner_in(&mesh).await?;
                self.watch_at(&mesh, owner).await
            }
            begun => begun.inspect_err(|fault| self.doubt(fault)),
        }
    }

    async fn watch_at(&self, mesh: &Mesh, owner: NodeId) -> Result<Watch, Fault> {
        let (told, seen) = mpsc::channel(4);
        if Some(&owner) == mesh.node() {
            let home = mesh.hosted().and_then(|hosts| hosts.home(A::TYPE).cloned());
            let home = home.ok_or_else(|| not_hosted(mesh, A::TYPE))?;
            let watched = home.watch(&self.id().shown())?;
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
        let mut far = Far { id, class, owner, number: drawn(), mesh: mesh.clone(), begun: None };
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
                Ok(None) if reachable => {
                    if !self.has_moved().await {
                        continue;
                    }
                    Seen::Terminal(Ended::Moved)
                }
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
            let over = matches!(seen, Seen::Terminal(_));
            if told.send(seen).await.is_err() || over {
                return;
            }
        }
    }

    /// Whether the actor is elsewhere by what is known here, and its node says so too: one of the two may have read a policy, or
    /// the fences, later than the other.
    async fn has_moved(&self) -> bool {
        let elsewhere = |owner: NodeId| owner != self.owner;
        if !self.mesh.owner_of(&self.class, &self.id).await.is_ok_and(elsewhere) {
            return false;
        }
        let said = self.mesh.locate_by(&self.owner, &self.class, &self.id, Duration::from_secs(3));
        said.await.is_ok_and(elsewhere)
    }
}
