//! Personal values: their subjects' keys are drawn, kept by a majority, fetched and destroyed here (docs/decisions/0045).
//!
//! * It decides: which nodes keep a key (the founding ones whose region may hold the class), and when an erasure is done.
//! * It never does: propose a personal value in the clear, give a key to a node that may not hold the class, or say that a
//!   subject is erased while a node has not said that it is.

use std::time::Duration;

use futures::future::join_all;
use rhumb_actors::audit::keys::Fresh;
use rhumb_actors::audit::record::{Outcome, Record};
use rhumb_actors::audit::seal::{KeyId, SecretKey};
use rhumb_actors::ranges::catalog::{self, META};
use rhumb_actors::ranges::host::NotWritten;
use rhumb_actors::ranges::messages::{KvOp, KvRefusal};
use rhumb_actors::ranges::sealing::{self, SubjectKey};
use rhumb_actors::ranges::subjects::{
    self, AT_ONCE, CondemnKeys, DestroyKeys, EraseSubject, HandKey, Handed, KeepKey, PREFIX, Standing,
    SubjectErased, WhichKeys, majority,
};
use rhumb_actors::ranges::{Op, Write};
use rhumb_core::{DataClass, Fault, FaultKind, NodeId, Role};
use rhumb_storage::mvcc::{KeyspaceId, Record as Row, UserKey, Version};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::catalog::CreateEnded;
use super::plan::{AGAIN_AFTER, Ended};
use super::serve::{Answer, control};
use super::{Ranges, not_now};
use crate::mesh::registry::Call;
use crate::supervisor::audit;

/// How long another node may take to hand a key over.
const HAND_WITHIN: Duration = Duration::from_secs(2);
/// How long the disk may take to have been read of keys.
const RECALL_AGAIN: Duration = Duration::from_millis(200);
/// How long an erasure is gone on with.
const ERASE_WITHIN: Duration = Duration::from_secs(20);

/// Whether values of a class are sealed under their subjects' keys: the policy has no other word for it than the name.
pub(super) fn is_personal(class: &DataClass) -> bool {
    let word = class.as_str();
    word == "personal" || word.starts_with("personal-") || word.starts_with("personal.")
}

/// What seals the writes of a batch, each with what was drawn for it; none: it is a deletion.
pub(super) type Seals = Vec<Option<(SubjectKey, [u8; 12])>>;

/// Seals a batch when its time is known.
pub(super) fn seal(seals: Seals) -> impl FnOnce(KeyspaceId, &mut Write) + Send {
    move |keyspace, write| {
        let at = write.at;
        for (Op { key, record, .. }, by) in write.ops.iter_mut().zip(seals) {
            match by {
                Some((by, nonce)) => sealing::seal(&by, nonce, (keyspace, key, at), record),
                None => record.header.subject = None,
            }
        }
    }
}

impl Ranges {
    // ---- what is kept here -----------------------------------------------------------------------

    /// Reads which keys are on this disk.
    pub(super) async fn recall_keys(&self) {
        loop {
            if let Some(kept) = self.0.parts.log.kept(PREFIX).await {
                let mut subjects = self.0.subjects.lock();
                kept.into_iter().for_each(|(id, key, name)| subjects.kept(id, key, &name));
                return;
            }
            tokio::time::sleep(RECALL_AGAIN).await;
        }
    }

    /// Keeps a key on this disk.
    async fn keep_key(&self, class: &DataClass, by: &SubjectKey) -> Result<(), KvRefusal> {
        match self.0.subjects.lock().standing(class, by.id) {
            Standing::Here(known) if known == *by => return Ok(()),
            Standing::Here(_) => {
                let why = "a key of that id is here, and is another one".to_owned();
                return Err(KvRefusal::Invalid(why));
            }
            Standing::Erased => return Err(KvRefusal::Erased),
            Standing::NotHere => {}
        }
        let name = subjects::name(class, by);
        let kept = self.0.parts.log.keep(&name, Fresh { id: by.id, key: by.key.clone() }).await;
        kept.map_err(not_now)?;
        // If it was condemned meanwhile, it is destroyed with the next round.
        self.0.subjects.lock().kept(by.id, by.key.clone(), &name);
        Ok(())
    }

    /// The nodes that may hold a class, by the policy that this node serves under: they keep its keys.
    fn keepers(&self, class: &DataClass) -> Vec<NodeId> {
        let policy = &self.0.parts.policy;
        let nodes = self.0.parts.founding.nodes().iter();
        nodes.filter(|node| policy.permits(&node.region, Use::Hold, class)).cloned().collect()
    }

    fn others(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        nodes.into_iter().filter(|node| *node != self.0.parts.me).collect()
    }

    /// Whether the node behind a call and this one may have keys of a class.
    fn may_have(&self, from: Option<&NodeId>, class: &DataClass) -> Result<(), KvRefusal> {
        let me = &self.0.parts.me;
        for region in [Some(me), from].into_iter().flatten().map(|node| &node.region) {
            if !self.0.parts.policy.permits(region, Use::Hold, class) {
                let why = format!("region {region} may not hold class {class}, so it has no keys of it");
                return Err(KvRefusal::NotAllowed(why));
            }
        }
        match is_personal(class) && from.is_some() {
            true => Ok(()),
            false => Err(KvRefusal::NotAllowed("keys of subjects are nodes' own affair".to_owned())),
        }
    }

    // ---- sealing ---------------------------------------------------------------------------------

    /// What seals these writes: the keys of their subjects, each kept by a majority of those that may hold the class.
    pub(super) async fn seals(
        &self,
        class: &DataClass,
        ops: &[KvOp],
        until: Instant,
    ) -> Result<Seals, KvRefusal> {
        let mut seals = Seals::with_capacity(ops.len());
        for op in ops {
            let Some(subject) = op.subject.as_deref().filter(|_| op.value.is_some()) else {
                seals.push(None);
                continue;
            };
            let known =
                seals.iter().flatten().find(|(by, _)| by.subject == subject).map(|(by, _)| by.clone());
            let by = match known {
                Some(by) => by,
                None => self.firm_key(class, subject, until).await?,
            };
            let mut nonce = [0; 12];
            nonce.copy_from_slice(&self.0.drawn.lock().u128().to_be_bytes()[..12]);
            seals.push(Some((by, nonce)));
        }
        Ok(seals)
    }

    /// The key of a subject, which a majority keeps.
    async fn firm_key(
        &self,
        class: &DataClass,
        subject: &str,
        until: Instant,
    ) -> Result<SubjectKey, KvRefusal> {
        let known = self.0.subjects.lock().seals(class, subject);
        let by = match known {
            Some((by, true)) => return Ok(by),
            Some((by, false)) => by,
            None => self.draw(subject),
        };
        self.keep_key(class, &by).await?;
        let (keepers, left) = (self.keepers(class), until.saturating_duration_since(Instant::now()));
        let needed = majority(keepers.len());
        let message = KeepKey {
            class: class.clone(),
            id: by.id.0.to_vec(),
            key: by.key.bytes().to_vec(),
            subject: subject.to_owned(),
        };
        let mut asked: futures::stream::FuturesUnordered<_> = self
            .others(keepers)
            .into_iter()
            .map(|node| {
                let (mesh, message, class) = (self.0.parts.mesh.clone(), message.clone(), class.clone());
                // Those that are not waited for are told all the same.
                self.0.parts.runtime.spawn(async move {
                    let kept = mesh.ask_node_untraced(&node, &message, class, left).await;
                    matches!(kept, Ok((Ok(()), _)))
                })
            })
            .collect();
        let mut kept = 1;
        while kept < needed {
            use futures::StreamExt;
            match asked.next().await {
                Some(Ok(true)) => kept += 1,
                Some(_) => {}
                None => {
                    return Err(not_now(format!(
                        "{kept} of the {needed} nodes that must keep the subject's key were reached"
                    )));
                }
            }
        }
        self.0.subjects.lock().is_firm(by.id);
        Ok(by)
    }

    fn draw(&self, subject: &str) -> SubjectKey {
        let mut drawn = self.0.drawn.lock();
        let mut key = [0; 32];
        key.chunks_mut(8).for_each(|part| part.copy_from_slice(&drawn.u64().to_be_bytes()));
        SubjectKey {
            id: KeyId(drawn.u128().to_be_bytes()),
            key: SecretKey::new(key),
            subject: subject.to_owned(),
        }
    }

    // ---- opening ---------------------------------------------------------------------------------

    /// Opens what was read. A version whose subject was erased is none. One that is not sealed is as it was written.
    ///
    /// # Errors
    /// The key is on no node that was reached; the value is not what was sealed for its place.
    pub(super) async fn opened(
        &self,
        (class, keyspace): (&DataClass, KeyspaceId),
        key: &UserKey,
        version: &Version,
        until: Instant,
    ) -> Result<Option<(Vec<u8>, SubjectKey)>, KvRefusal> {
        let unsealed = || KvRefusal::Unsound("a value of a personal class is not sealed".to_owned());
        let id = sealing::sealed_under(version).ok_or_else(unsealed)?;
        let by = match self.key_of(class, id, until).await? {
            None => return Ok(None),
            Some(by) => by,
        };
        let opened = sealing::open(&by, (keyspace, key), version);
        let moved = |why| KvRefusal::Unsound(format!("a value of a personal class cannot be opened: {why}"));
        let value = opened.map_err(moved)?.to_vec();
        // It may have been erased while it was opened.
        let erased = self.0.subjects.lock().are_condemned(&[id]);
        Ok(Some((value, by)).filter(|_| !erased))
    }

    /// A key, from here or from another node that has it; none: its subject was erased.
    async fn key_of(
        &self,
        class: &DataClass,
        id: KeyId,
        until: Instant,
    ) -> Result<Option<SubjectKey>, KvRefusal> {
        let standing = self.0.subjects.lock().standing(class, id);
        match standing {
            Standing::Here(by) => return Ok(Some(by)),
            Standing::Erased => return Ok(None),
            Standing::NotHere => {}
        }
        let message = HandKey { class: class.clone(), id: id.0.to_vec() };
        let left = until.saturating_duration_since(Instant::now()).min(HAND_WITHIN);
        let others = self.others(self.keepers(class));
        let asked = others.iter().map(|node| async {
            let mesh = &self.0.parts.mesh;
            Some(mesh.ask_node_untraced(node, &message, class.clone(), left).await.ok()?.0.ok()?)
        });
        let answers: Vec<Handed> = join_all(asked).await.into_iter().flatten().collect();
        if answers.contains(&Handed::Erased) {
            return Ok(None);
        }
        for answer in answers {
            let Handed::Key { key, subject } = answer else { continue };
            let Ok(key) = <[u8; 32]>::try_from(key.as_slice()) else { continue };
            let by = SubjectKey { id, key: SecretKey::new(key), subject };
            return match self.keep_key(class, &by).await {
                Ok(()) => Ok(Some(by)),
                Err(KvRefusal::Erased) => Ok(None),
                Err(refusal) => Err(refusal),
            };
        }
        Err(not_now("the key of its subject is not on this node, and no node that has it was reached"))
    }

    // ---- erasing ---------------------------------------------------------------------------------

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

    // ---- what is asked over the mesh ---------------------------------------------------------------

    pub(super) async fn keeps_key(self, call: Call<KeepKey>) -> Answer<()> {
        let KeepKey { class, id, key, subject } = call.message;
        let sound = || -> Result<SubjectKey, KvRefusal> {
            self.may_have(call.from.node.as_ref(), &class)?;
            subjects::named(&subject)?;
            let none = |_| KvRefusal::Invalid("a key has 32 bytes".to_owned());
            let key = <[u8; 32]>::try_from(key.as_slice()).map_err(none)?;
            Ok(SubjectKey { id: subjects::id(&id)?, key: SecretKey::new(key), subject: subject.clone() })
        };
        let kept = match sound() {
            Ok(by) => self.keep_key(&class, &by).await,
            Err(refusal) => Err(refusal),
        };
        Ok((kept, class))
    }

    pub(super) async fn hands_key(self, call: Call<HandKey>) -> Answer<Handed> {
        let HandKey { class, id } = call.message;
        let may = self.may_have(call.from.node.as_ref(), &class).and_then(|()| subjects::id(&id));
        let handed = may.map(|id| match self.0.subjects.lock().standing(&class, id) {
            Standing::Here(by) => Handed::Key { key: by.key.bytes().to_vec(), subject: by.subject },
            Standing::Erased => Handed::Erased,
            Standing::NotHere => Handed::NotHere,
        });
        Ok((handed, class))
    }

    pub(super) async fn tells_which(self, call: Call<WhichKeys>) -> Answer<Vec<Vec<u8>>> {
        let WhichKeys { class, subject } = call.message;
        let may = self.may_have(call.from.node.as_ref(), &class);
        let ids = || self.0.subjects.lock().of(&class, &subject);
        let told = may.map(|()| ids().iter().map(|id| id.0.to_vec()).collect());
        Ok((told, class))
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
