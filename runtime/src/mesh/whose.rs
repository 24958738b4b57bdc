//! Watching whose an actor is: which node acts for it, under which epoch, and why.
//!
//! * It decides: what of the fences is a change for one actor.
//! * It never does: keep changes for who does not look (the newest is what is seen), or make anybody wait for a watcher.
//! * Invariant: what is told differs from what was told before, and is not older: epochs never fall.

use std::time::Duration;

use rhumb_actors::failover::{Table, Whose, Why};
use rhumb_actors::remote::{Addressed, Remote};
use rhumb_actors::{Wire, remote};
use rhumb_core::{DataClass, Epoch, Fault, NodeId};
use serde::{Deserialize, Serialize};

use super::address::class_of;
use super::owners::{Order, Owners};
use super::{Mesh, MeshAddr, Whereabouts};
use crate::host::id::Shown;

/// How often it is looked whether what was read still counts, and how often a program asks.
const LOOKS: Duration = Duration::from_millis(500);

/// Whose an actor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub struct Owned {
    /// The node that acts for it. None: nobody does for now.
    pub node: Option<NodeId>,
    /// The epoch under which it acts, or nobody does: it rises with each change. Zero for an actor that does not move.
    pub epoch: Epoch,
    /// Why.
    pub because: Because,
}

/// Why an actor is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Wire)]
#[wire(crate = rhumb_actors)]
pub enum Because {
    /// The node comes first in the actor's order of preference. An actor that does not move is there always.
    First,
    /// All nodes that come before it are away; this is the last of them.
    InPlaceOf(NodeId),
    /// Nobody acts: this node is fenced, because it is lost or comes back, until all have stopped that acted as it.
    Fenced(NodeId),
    /// Nobody acts: all nodes are away that may hold the actor.
    AllAway,
    /// Nobody can say: the node that looks has not read the fences lately.
    NotRead,
}

/// Whose is this actor?
#[remote(name = "mesh.WhoseIs", class = "control", reply = Owned, idempotent, deadline = "2s", crate = rhumb_actors)]
pub(crate) struct WhoseIs {
    /// The actor, as [`Shown`].
    pub(super) actor: String,
    /// The class of the state of its type.
    pub(super) class: DataClass,
}

/// A watch of whose an actor is. Dropped, it ends. It keeps nothing: who looks seldom sees fewer changes.
pub struct OwnerWatch {
    mesh: Mesh,
    id: Shown,
    class: DataClass,
    told: Option<Owned>,
    /// The highest epoch that was seen: a node that lags behind another one is not believed.
    seen: Epoch,
    over: bool,
}

impl<A: Addressed> MeshAddr<A> {
    /// Watches whose the actor is, for types that move ([`Host::moves`](crate::host::Host::moves)): which node acts for it, under
    /// which epoch, and why. The first look gives the present. Of an actor that does not move it gives that alone.
    ///
    /// # Errors
    /// The address is in no mesh.
    pub fn watch_owner(&self) -> Result<OwnerWatch, Fault> {
        let (mesh, id, class) = (self.mesh()?, self.id().shown(), class_of::<A>()?);
        Ok(OwnerWatch { mesh, id, class, told: None, seen: Epoch(0), over: false })
    }
}

impl OwnerWatch {
    /// Whose it is, once that differs from what was told before; what changed and changed back in between is not told, but for
    /// its epoch. Epochs never fall: what a node says that has read less than another one before is passed over. None where nothing
    /// will follow: the actor does not move, or not any more. Dropped before, nothing is lost: ask again.
    ///
    /// # Errors
    /// No node may hold the actor; for a program: no node answers.
    pub async fn next(&mut self) -> Result<Option<Owned>, Fault> {
        let mut readings = self.mesh.owners().map(Owners::readings);
        while !self.over {
            let now = self.mesh.whose_is(&self.id, &self.class).await?;
            self.over = now.epoch == Epoch(0);
            if self.over && self.seen > now.epoch {
                break;
            }
            let older = now.epoch < self.seen;
            self.seen = self.seen.max(now.epoch);
            if !older && self.told.as_ref().is_none_or(|told| differs(told, &now)) {
                self.told = Some(now.clone());
                return Ok(Some(now));
            }
            match &mut readings {
                Some(readings) => drop(tokio::time::timeout(LOOKS, readings.changed()).await),
                None => tokio::time::sleep(LOOKS).await,
            }
        }
        Ok(None)
    }
}

/// Whether one is more than the other under a later number.
fn differs(told: &Owned, now: &Owned) -> bool {
    told.node != now.node || told.because != now.because
}

impl Mesh {
    async fn whose_is(&self, id: &Shown, class: &DataClass) -> Result<Owned, Fault> {
        match &self.inner.places {
            Whereabouts::Known(_) => self.whose_here(id, class),
            Whereabouts::Asked(_) => {
                let question = WhoseIs { actor: id.to_string(), class: class.clone() };
                self.ask_any_node(&question, WhoseIs::DEADLINE).await
            }
        }
    }

    /// Whose an actor is, as this node has read it.
    pub(super) fn whose_here(&self, id: &Shown, class: &DataClass) -> Result<Owned, Fault> {
        let order = self.order(id, class)?;
        let first = || order.nodes.first().cloned();
        let Some(owners) = self.moving(id.kind) else {
            return Ok(Owned { node: first(), epoch: Epoch(0), because: Because::First });
        };
        Ok(match owners.permit() {
            Some(table) => owned(&table, &order),
            None => {
                let epoch = Epoch(1 + owners.last().changes());
                Owned { node: None, epoch, because: Because::NotRead }
            }
        })
    }
}

fn owned(table: &Table, order: &Order) -> Owned {
    let epoch = Epoch(1 + table.changes());
    let nobody = |because| Owned { node: None, epoch, because };
    match table.whose(order.nodes.iter()) {
        Whose::Of(node, term) => {
            let before = order.nodes.iter().take_while(|before| **before != node).last().cloned();
            let because = before.map_or(Because::First, Because::InPlaceOf);
            Owned { node: Some(node), epoch: term.epoch, because }
        }
        Whose::Nobody(Why::Fenced(node)) => nobody(Because::Fenced(node)),
        Whose::Nobody(Why::AllAway) => nobody(Because::AllAway),
        Whose::Nobody(Why::NoPermit) => nobody(Because::NotRead),
    }
}
