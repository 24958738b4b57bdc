//! Keyspaces are archived, deleted, restored and purged: as their rows in the meta range say, which every node follows.
//!
//! * It decides: who has to go by it before it is told done, and what is cleared from this disk.
//! * It never does: clear a row of a keyspace that is not purged, in this node's copy of the meta range.

use std::time::Duration;

use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::Op;
use rhumb_actors::ranges::catalog::{self, Change, Keyspace, META};
use rhumb_actors::ranges::lifecycle::{LiveKeyspace, Lived, Step};
use rhumb_actors::ranges::messages::{KeyspaceView, KvRefusal, ListKeyspaces};
use rhumb_core::{DataClass, NodeId};
use rhumb_storage::mvcc::Record as Row;
use tokio::time::Instant;

use super::Ranges;
use super::plan::{AGAIN_AFTER, Ended, PLAN_WITHIN};
use super::serve::{Answer, control};
use crate::mesh::registry::Call;

/// How long another node may take to say how it sees a keyspace.
const SEES_WITHIN: Duration = Duration::from_secs(1);

/// What is written when a keyspace is purged: its row goes, under which its name was taken, and stands under its number.
pub(super) fn purged(space: &Keyspace, mut ops: Vec<Op>) -> Vec<Op> {
    let named = catalog::keyspace_key(&space.name);
    for op in ops.iter_mut().filter(|op| op.key == named) {
        op.record = Row::deleted();
    }
    let record = Row::put(catalog::encode(space));
    ops.push(Op { key: catalog::purged_key(space.id), condition: None, record });
    ops
}

impl Ranges {
    pub(super) async fn lives(self, call: Call<LiveKeyspace>) -> Answer<Lived> {
        let LiveKeyspace { keyspace, step } = &call.message;
        if let Err(refusal) = super::pools::only_nodes(keyspace, false) {
            return control(Err(refusal));
        }
        let action = format!("keyspace.{}", step.word());
        let record = Record::told(&action, "", Outcome::Begun).on(format!("keyspace {keyspace}"));
        control(self.told_of(&call.from, record, self.lived(keyspace, *step, call.within)).await?)
    }

    async fn lived(&self, name: &str, step: Step, within: Duration) -> Ended<Lived> {
        let until = Instant::now() + within.mul_f32(0.9);
        let change = Change::Live { step, at: self.0.parts.clock.last() };
        let space = match self.plan(name, &change, until).await? {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(row) => match catalog::decode::<Keyspace>(&row) {
                Ok(space) => space,
                Err(why) => return Ok(Err(KvRefusal::Unsound(why))),
            },
        };
        let pending = self.all_go_by(&space, until).await;
        let keyspace = (!space.purged).then(|| space.view());
        Ok(Ok(Lived { keyspace, pending }))
    }

    /// Waits until all nodes that have replicas of a keyspace go by its row. Gives those that have not said so.
    pub(super) async fn all_go_by(&self, space: &Keyspace, until: Instant) -> Vec<NodeId> {
        let mut pending: Vec<NodeId> = space.seats().map(|seat| seat.node.clone()).collect();
        pending.sort();
        pending.dedup();
        loop {
            let mut left = Vec::new();
            for node in pending {
                if !self.goes_by(&node, space).await {
                    left.push(node);
                }
            }
            pending = left;
            if pending.is_empty() || Instant::now() + AGAIN_AFTER + SEES_WITHIN >= until {
                return pending;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Whether a node sees a keyspace as it is now.
    async fn goes_by(&self, node: &NodeId, space: &Keyspace) -> bool {
        let sees = |views: Vec<KeyspaceView>| {
            let seen = views.into_iter().find(|view| view.id == space.id);
            seen.map(|view| (view.life, view.held))
                == (!space.purged).then(|| (space.life, space.held.clone()))
        };
        if *node == self.0.parts.me {
            return sees(self.0.keyspaces.read().values().map(Keyspace::view).collect());
        }
        let (mesh, control) = (&self.0.parts.mesh, DataClass::control());
        let told = mesh.ask_node_untraced(node, &ListKeyspaces {}, control, SEES_WITHIN).await;
        match told {
            Ok((Ok(views), _)) => sees(views),
            _ => false,
        }
    }

    /// Clears away what is here of keyspaces that are purged.
    pub(super) fn clear_purged(&self) {
        let Ok(host) = self.host() else { return };
        for space in self.0.purged.read().iter() {
            // Of one that was quarantined nothing is set aside either.
            let here = |range| host.group(range).map(|group| group.id()).or_else(|| host.quarantined(range));
            let all = space.ranges.iter().filter_map(|row| Some((row.range, here(row.range)?)));
            for (range, replica) in all {
                let host = host.clone();
                tracing::info!(keyspace = space.name, range = range.0, %replica, "it is purged and cleared away");
                self.0.parts.runtime.spawn(async move {
                    if let Err(error) = host.clear(range, replica).await {
                        tracing::error!(range = range.0, %error, "its rows are not cleared away yet");
                    }
                });
            }
        }
    }

    /// Purges what was deleted so long ago that its retention is over: where the meta range is led.
    pub(super) async fn purge_over(&self) {
        let now = self.0.parts.clock.last();
        let over: Vec<String> = {
            let spaces = self.0.keyspaces.read();
            let held = |space: &Keyspace| space.held.iter().any(|held| held.until > now);
            let over = spaces.values().filter(|space| space.life.is_over(now) && !held(space));
            over.map(|space| space.name.clone()).collect()
        };
        let Ok(host) = self.host() else { return };
        if over.is_empty() || !host.holds(META).await {
            return;
        }
        for name in over {
            let record = Record::told("keyspace.purge", format!("node {}", self.0.parts.me), Outcome::Begun)
                .on(format!("keyspace {name}"))
                .with("for", "retention");
            if let Err(error) = self.0.parts.log.append(record.clone(), None).await {
                return tracing::warn!(keyspace = name, %error, "not purged: it cannot be logged");
            }
            let change = Change::Live { step: Step::Purge, at: now };
            let until = Instant::now() + PLAN_WITHIN;
            let (outcome, why) = match self.plan(&name, &change, until).await {
                Ok(Ok(_)) => (Outcome::Done, None),
                Ok(Err(refusal)) => (Outcome::Refused, Some(refusal.to_string())),
                Err(fault) => (Outcome::Failed, Some(fault.to_string())),
            };
            let record = why.into_iter().fold(record, |record, why| record.with("why", why));
            if let Err(error) = self.0.parts.log.append(Record { outcome, ..record }, None).await {
                tracing::warn!(keyspace = name, %error, "how its purge ended cannot be logged");
            }
        }
    }
}
