//! Personal values: their subjects' keys are drawn, kept by a majority, and fetched here (docs/decisions/0045).
//!
//! * It decides: which nodes keep a key: the founding ones whose region may hold the class.
//! * It never does: propose a personal value in the clear, or give a key to a node that may not hold the class.

use std::time::Duration;

use futures::future::join_all;
use rhumb_actors::audit::keys::Fresh;
use rhumb_actors::audit::seal::{KeyId, SecretKey};
use rhumb_actors::ranges::messages::{KvOp, KvRefusal};
use rhumb_actors::ranges::sealing::{self, SubjectKey};
use rhumb_actors::ranges::subjects::{self, HandKey, Handed, KeepKey, PREFIX, Standing, WhichKeys, majority};
use rhumb_actors::ranges::{Op, Write};
use rhumb_core::{DataClass, NodeId};
use rhumb_storage::mvcc::{KeyspaceId, UserKey, Version};
use rhumb_topology::policy::Use;
use tokio::time::Instant;

use super::serve::Answer;
use super::{Ranges, not_now};
use crate::mesh::registry::Call;

/// How long another node may take to hand a key over.
const HAND_WITHIN: Duration = Duration::from_secs(2);
/// How long the disk may take to have been read of keys.
const RECALL_AGAIN: Duration = Duration::from_millis(200);

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
    pub(super) fn keepers(&self, class: &DataClass) -> Vec<NodeId> {
        let policy = &self.0.parts.policy;
        let nodes = self.0.parts.founding.nodes().iter();
        nodes.filter(|node| policy.permits(&node.region, Use::Hold, class)).cloned().collect()
    }

    pub(super) fn others(&self, nodes: Vec<NodeId>) -> Vec<NodeId> {
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
            mesh.ask_node_untraced(node, &message, class.clone(), left).await.ok()?.0.ok()
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
        // Whoever erases may stand where the class is not held. An id opens nothing, and the gates judge its way.
        let ids = self.0.subjects.lock().of(&class, &subject);
        Ok((Ok(ids.iter().map(|id| id.0.to_vec()).collect()), class))
    }
}
