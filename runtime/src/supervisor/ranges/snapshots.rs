//! Snapshots of keyspaces, for operators.
//!
//! * It decides: at which time one is, when it counts as held, and to whom it may be exported.
//! * It never does: let an export begin that goes to a region which may not hold the class, or that is not in the audit log.

use std::time::Duration;

use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::ranges::catalog::{self, Change, Keyspace};
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::ranges::snapshots::{
    CreateSnapshot, ExportSnapshot, Exportable, Held, RemoveSnapshot, SnapshotTaken, may_keep,
};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::Ranges;
use super::plan::{AGAIN_AFTER, Ended};
use super::serve::{Answer, control};
use crate::mesh::registry::Call;

impl Ranges {
    pub(super) async fn takes(self, call: Call<CreateSnapshot>) -> Answer<SnapshotTaken> {
        let CreateSnapshot { keyspace, name, .. } = &call.message;
        if let Err(refusal) = super::pools::only_nodes(keyspace, call.from.node.is_some()) {
            return control(Err(refusal));
        }
        let record = Record::told("snapshot.create", "", Outcome::Begun)
            .on(format!("keyspace {keyspace}"))
            .with("snapshot", name.clone());
        control(self.told_of(&call.from, record, self.taken(&call.message, call.within)).await?)
    }

    async fn taken(&self, asked: &CreateSnapshot, within: Duration) -> Ended<SnapshotTaken> {
        let until = Instant::now() + within.mul_f32(0.9);
        if let Err(refusal) = may_keep(asked.keep).and_then(|()| self.host().map(drop)) {
            return Ok(Err(refusal));
        }
        // No clock of a leaseholder is ahead of this: all that is acknowledged by now was written before it.
        let (clock, max_offset) = (&self.0.parts.clock, self.0.parts.max_offset);
        let now = clock.last();
        let at = now.plus(max_offset);
        let held = Held { name: asked.name.clone(), at, until: at.plus(asked.keep) };
        let change = Change::Hold { held: held.clone(), now };
        let space = match self.plan(&asked.keyspace, &change, until).await? {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(row) => match catalog::decode::<Keyspace>(&row) {
                Ok(space) => space,
                Err(why) => return Ok(Err(KvRefusal::Unsound(why))),
            },
        };
        let pending = self.all_go_by(&space, until).await;
        // From then on every leaseholder reads as of it.
        while clock.hybrid() < at.plus(max_offset) {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        Ok(Ok(SnapshotTaken { held, pending }))
    }

    pub(super) async fn removes(self, call: Call<RemoveSnapshot>) -> Answer<()> {
        let RemoveSnapshot { keyspace, name } = &call.message;
        let record = Record::told("snapshot.remove", "", Outcome::Begun)
            .on(format!("keyspace {keyspace}"))
            .with("snapshot", name.clone());
        let until = Instant::now() + call.within.mul_f32(0.9);
        let change = Change::Drop(name.clone());
        let removed = async { Ok(self.plan(keyspace, &change, until).await?.map(drop)) };
        control(self.told_of(&call.from, record, removed).await?)
    }

    pub(super) async fn exports(self, call: Call<ExportSnapshot>) -> Answer<Exportable> {
        let ExportSnapshot { keyspace, name } = &call.message;
        let record = Record::told("snapshot.export", "", Outcome::Begun)
            .on(format!("keyspace {keyspace}"))
            .with("snapshot", name.clone());
        let region = call.from.principal.region.clone();
        let may = async {
            let space = self.0.keyspaces.read().get(keyspace).cloned();
            let Some(space) = space else { return Ok(Err(KvRefusal::NoSuchKeyspace(keyspace.clone()))) };
            if !self.0.parts.policy.permits(&region, Use::Hold, &space.class) {
                let why = format!(
                    "an export holds what is in it, and region {region}, where you stand, may not hold class {}",
                    space.class
                );
                return Ok(Err(KvRefusal::NotAllowed(why)));
            }
            if let Err(refusal) = space.life.reads() {
                return Ok(Err(refusal));
            }
            let now = self.0.parts.clock.last();
            let held = space.held.iter().find(|held| held.name == *name && held.until > now);
            let none = || {
                let why = format!("there is no snapshot {name}; `rhumb snapshot ls {keyspace}` lists them");
                KvRefusal::Invalid(why)
            };
            let held = held.cloned().ok_or_else(none);
            Ok(held.map(|held| Exportable { id: space.id, class: space.class, held }))
        };
        control(self.told_of(&call.from, record, may).await?)
    }
}
