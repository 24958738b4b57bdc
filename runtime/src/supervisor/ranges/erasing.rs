//! Subjects of personal values are erased: their keys are condemned in the meta range, and destroyed on every node.
//!
//! * It decides: when an erasure is done, and which nodes it waits for.
//! * It never does: say that a subject is erased while a node has not said that it is, or name a subject in a record that
//!   outlives it.

use std::time::Duration;

use futures::future::join_all;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::seal::KeyId;
use rhumb_actors::ranges::Op;
use rhumb_actors::ranges::catalog::{self, META};
use rhumb_actors::ranges::host::NotWritten;
use rhumb_actors::ranges::messages::KvRefusal;
use rhumb_actors::ranges::subjects::{
    self, AT_ONCE, CondemnKeys, DestroyKeys, EraseSubject, SubjectErased, WhichKeys,
};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Role};
use rhumb_storage::mvcc::Record as Row;
use tokio::time::Instant;

use super::catalog::CreateEnded;
use super::plan::{AGAIN_AFTER, Ended};
use super::serve::{Answer, control};
use super::subjects::is_personal;
use super::{Ranges, not_now};
use crate::mesh::registry::Call;
use crate::supervisor::audit;

/// How long an erasure is gone on with.
const ERASE_WITHIN: Duration = Duration::from_secs(20);

impl Ranges {
    /// Destroys the condemned keys that are on this disk, one round at a time.
    pub(super) fn destroy_condemned(&self) {
        if self.0.subjects.lock().to_destroy().is_empty() {
            return;
        }
        let here = self.clone();
        self.0.parts.runtime.spawn(async move {
            let Ok(_turn) = here.0.destroying.try_lock() else { return };
            here.destroy().await;
        });
    }

    /// A round. All of them share the new wrapping keys that are made for them.
    async fn destroy(&self) {
        let going = self.0.subjects.lock().to_destroy();
        let done = going.iter().map(|(id, name)| async { (*id, self.0.parts.log.erase(name).await) });
        for (id, erased) in join_all(done).await {
            match erased {
                Ok(_) => self.0.subjects.lock().destroyed(id),
                Err(why) => {
                    tracing::warn!(key = %id, %why, "the key of an erased subject is not destroyed yet")
                }
            }
        }
    }

    async fn destroyed(&self, ids: &[KeyId], until: Instant) -> Result<(), KvRefusal> {
        // Only what stands in this node's copy of the meta range holds after its next start.
        while !self.0.subjects.lock().are_condemned(ids) {
            if Instant::now() >= until {
                return Err(not_now("this node has not heard of the erasure yet"));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        loop {
            let left = self.0.subjects.lock().to_destroy();
            if !left.iter().any(|(id, _)| ids.contains(id)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(not_now("the keys are not destroyed on this node yet"));
            }
            if let Ok(_turn) = tokio::time::timeout_at(until, self.0.destroying.lock()).await {
                self.destroy().await;
            }
        }
    }

    /// Writes that keys are condemned, as leaseholder of the meta range.
    async fn condemned(&self, ids: &[KeyId]) -> Result<(), CreateEnded> {
        let host = self.host().map_err(CreateEnded::Refused)?;
        for ids in ids.chunks(AT_ONCE) {
            let ops = ids.iter().map(|id| Op {
                key: catalog::erased_key(*id),
                condition: None,
                record: Row::put(Vec::new()),
            });
            match host.write(META, ops.collect()).await {
                Ok(_) => {}
                Err(NotWritten::Unknown(why)) => return Err(CreateEnded::Unknown(why)),
                Err(NotWritten::Leaseholder(seat)) => return Err(CreateEnded::At(seat.node)),
                Err(_) => return Err(CreateEnded::Refused(not_now("the lease of the meta range moved"))),
            }
        }
        Ok(())
    }

    /// Erases a subject: which keys of it there are, where it was done, and where it was not.
    async fn erased(
        &self,
        class: &DataClass,
        subject: &str,
        until: Instant,
    ) -> (Vec<KeyId>, Vec<NodeId>, Ended<()>) {
        let message = WhichKeys { class: class.clone(), subject: subject.to_owned() };
        let keepers = self.others(self.keepers(class));
        let left = until.saturating_duration_since(Instant::now()) / 4;
        let asked = keepers.iter().map(|node| async {
            let told = self.0.parts.mesh.ask_node_untraced(node, &message, class.clone(), left).await;
            (node.clone(), told.ok().and_then(|(told, _)| told.ok()))
        });
        let (mut ids, mut silent) = (self.0.subjects.lock().of(class, subject), Vec::new());
        for (node, told) in join_all(asked).await {
            match told {
                Some(told) => ids.extend(told.iter().filter_map(|bytes| subjects::id(bytes).ok())),
                None => silent.push(node),
            }
        }
        ids.sort();
        ids.dedup();
        let bytes: Vec<Vec<u8>> = ids.iter().map(|id| id.0.to_vec()).collect();
        let told = match ids.is_empty() {
            true => Ok(Ok(())),
            false => {
                let message = CondemnKeys { ids: bytes };
                self.at_meta(&message, || self.condemned(&ids), until).await
            }
        };
        (ids, silent, told)
    }

    /// Has every node destroy these keys. Gives those that have not said that they have.
    async fn destroyed_everywhere(&self, ids: &[KeyId], until: Instant) -> Vec<NodeId> {
        let message = DestroyKeys { ids: ids.iter().map(|id| id.0.to_vec()).collect() };
        let nodes = self.0.parts.founding.nodes();
        let asked = nodes.iter().map(|node| async {
            let left = until.saturating_duration_since(Instant::now());
            let done = if *node == self.0.parts.me {
                self.destroyed(ids, until).await.is_ok()
            } else {
                let control = DataClass::control();
                let told = self.0.parts.mesh.ask_node_untraced(node, &message, control, left).await;
                matches!(told, Ok((Ok(()), _)))
            };
            (!done).then(|| node.clone())
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    pub(super) async fn condemns(self, call: Call<CondemnKeys>) -> Answer<()> {
        let ids = call.message.ids.iter().map(|bytes| subjects::id(bytes)).collect::<Result<Vec<_>, _>>();
        control(match ids {
            Err(refusal) => Err(refusal),
            Ok(ids) => match self.condemned(&ids).await {
                Ok(()) => Ok(()),
                Err(CreateEnded::Refused(refusal)) => Err(refusal),
                Err(CreateEnded::At(node)) => {
                    Err(not_now(format!("{node} holds the lease of the meta range")))
                }
                Err(CreateEnded::Unknown(why)) => return Err(Fault::unknown(FaultKind::Deadline(why))),
            },
        })
    }

    pub(super) async fn destroys(self, call: Call<DestroyKeys>) -> Answer<()> {
        let until = Instant::now() + call.within.mul_f32(0.95);
        let ids = call.message.ids.iter().map(|bytes| subjects::id(bytes)).collect::<Result<Vec<_>, _>>();
        control(match ids {
            Ok(ids) => self.destroyed(&ids, until).await,
            Err(refusal) => Err(refusal),
        })
    }

    pub(super) async fn erases(self, call: Call<EraseSubject>) -> Answer<SubjectErased> {
        let class = call.message.class.clone();
        if call.from.principal.role != Role::Operator {
            let why = "only an operator erases a subject".to_owned();
            return Err(Fault::not_sent(FaultKind::Unauthorized(why)));
        }
        Ok((self.erase_subject(&call).await?, class))
    }

    async fn erase_subject(&self, call: &Call<EraseSubject>) -> Ended<SubjectErased> {
        let EraseSubject { class, subject } = &call.message;
        let until = Instant::now() + call.within.mul_f32(0.9).min(ERASE_WITHIN);
        if let Err(refusal) = self.host().and_then(|_| subjects::named(subject)) {
            return Ok(Err(refusal));
        }
        if !is_personal(class) {
            let why = format!(
                "class {class} is not personal, and its values are not sealed under keys of subjects: expected \
                 `personal`, or a class whose name begins with `personal-` or `personal.`"
            );
            return Ok(Err(KvRefusal::Invalid(why)));
        }
        // The subject's name must not stand in a record that outlives it.
        let record = Record::told("subject.erase", "", Outcome::Begun).on(format!("class {class}"));
        let begun = audit::begin(&self.0.parts.log, &call.from, record).await?;
        let (ids, silent, told) = self.erased(class, subject, until).await;
        let ended = match told {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refusal)) => {
                begun.ended(Outcome::Refused, Some(refusal.to_string())).await?;
                return Ok(Err(refusal));
            }
            Err(fault) => Err(fault),
        };
        if let Err(fault) = ended {
            begun.ended(Outcome::Failed, Some(fault.to_string())).await?;
            return Err(fault);
        }
        let mut pending = self.destroyed_everywhere(&ids, until).await;
        pending.extend(silent.into_iter().filter(|node| !pending.contains(node)).collect::<Vec<_>>());
        let keys: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let begun = begun.with("keys", keys.join(", "));
        let entry = match pending.as_slice() {
            [] => begun.ended(Outcome::Done, None).await?,
            nodes => begun.ended(Outcome::Failed, Some(format!("not said yet by {}", names(nodes)))).await?,
        };
        let nodes = self.0.parts.founding.nodes().iter();
        let done = nodes.filter(|node| !pending.contains(node)).cloned().collect();
        Ok(Ok(SubjectErased { keys, done, pending, entry }))
    }
}
