//! What others hold of `AuditLogger`: a handle that waits for durability, and never for ever.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use rhumb_core::{HybridTime, NodeId};
use rhumb_verify::statement::Statement;
use rhumb_verify::{Checkpoint, Hash, Key};
use tokio::sync::oneshot;

use super::asked::{Append, Asked, Demand, Erase, Keep, Look, Part, Replace, Shown, State};
pub use super::view::Looked;
use super::{AuditLogger, NotAppended, NotErased, NotKept};
use crate::audit::keys::Fresh;
use crate::audit::messages::{AuditView, Cosign, Uncosigned};
use crate::audit::observed::{self, Observations, Observed};
use crate::audit::peers::{KEY, NotReplaced};
use crate::audit::read;
use crate::audit::record::Record;
use crate::audit::report::AuditReport;
use crate::audit::seal::{KeyId, SecretKey};
use crate::audit::statements::Unstated;
use crate::audit::witness::AddCheckpoint;
use crate::backlog::{Backlog, Waiting};

/// How long an append may take.
const APPEND_WITHIN: Duration = Duration::from_secs(10);
/// How long an erasure may take: every other subject's key is wrapped again.
const ERASE_WITHIN: Duration = Duration::from_secs(55);
/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// When a log that found no room may ask again.
const OVERLOADED: Duration = Duration::from_secs(1);

/// What an actor and its handle share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub(super) backlog: Arc<Backlog>,
    pub(super) observations: Observations,
}

impl Default for Shared {
    fn default() -> Self {
        Self { backlog: AuditLogger::backlog(), observations: Observations::default() }
    }
}

/// `AuditLogger`, as others see it.
#[derive(Clone)]
pub struct AuditHandle {
    address: Arc<Addr<AuditLogger>>,
    shared: Shared,
}

impl AuditHandle {
    /// A handle on a started actor that was made with the same shared part.
    #[must_use]
    pub fn new(address: Addr<AuditLogger>, shared: Shared) -> Self {
        Self { address: Arc::new(address), shared }
    }

    /// What waits in the mailbox.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.shared.backlog.waiting()
    }

    /// Appends a record about a subject; about nobody but this node where none is named. Gives the entry's
    /// number when it is durable. The log says when and in which region.
    ///
    /// # Errors
    /// [`NotAppended`]: what the record tells of must not be done, or not be acknowledged.
    pub async fn append(&self, record: Record, subject: Option<&str>) -> Result<u64, NotAppended> {
        let appended = self.appended(record, subject).await;
        appended.inspect_err(|why| self.shared.observations.not_appended(why))
    }

    async fn appended(&self, record: Record, subject: Option<&str>) -> Result<u64, NotAppended> {
        let (reply, index) = oneshot::channel();
        let subject = subject.map(str::to_owned);
        self.offer(Append { record, subject, reply: Some(reply) })?;
        let answered = tokio::time::timeout(APPEND_WITHIN, index).await;
        answered.map_err(|_| NotAppended::Late(APPEND_WITHIN))?.unwrap_or(Err(NotAppended::Stopped))
    }

    /// Tells of something that was seen, and waits for nothing. Where there is no room it is counted and said in
    /// the log.
    pub fn saw(&self, record: Record) {
        let action = record.action.clone();
        if let Err(why) = self.offer(Append { record, subject: None, reply: None }) {
            self.shared.observations.missed(1);
            self.shared.observations.not_appended(&why);
            tracing::error!(action, %why, "what was seen is not in the audit log");
        }
    }

    /// Counts something that may happen often: the first of its kind in a minute is told, the rest as a number.
    pub fn observe(&self, now: HybridTime, kind: Observed) {
        let mut told = Vec::new();
        self.shared.observations.happened(now, kind, |one| told.push(one));
        told.into_iter().for_each(|one| self.saw(observed::record(one)));
    }

    /// A log asks for a cosignature. None: the actor stopped.
    pub async fn cosign(&self, ask: Cosign) -> Option<Result<String, Uncosigned>> {
        let Some(proof) = read::split(&ask.proof) else {
            return Some(Err(Uncosigned::Unreadable("a proof is made of hashes of 32 bytes".into())));
        };
        let (reply, cosigned) = oneshot::channel();
        let asked = Asked(AddCheckpoint { old: ask.old, proof, note: ask.note }, reply);
        match self.address.try_send(asked) {
            Ok(()) => self.shared.backlog.came(),
            Err(SendError::Full(_)) => return Some(Err(Uncosigned::Overloaded { retry_after: OVERLOADED })),
            Err(SendError::Closed(_)) => return None,
        }
        tokio::time::timeout(APPEND_WITHIN, cosigned).await.ok()?.ok()
    }

    /// A peer showed its public key in its HELLO. When the mailbox is full it is left for its next connection.
    pub fn shown(&self, node: &NodeId, key: &[u8]) {
        match self.address.try_send(Shown(node.clone(), key.to_vec())) {
            Ok(()) => self.shared.backlog.came(),
            Err(_) => tracing::warn!(peer = %node, "the audit mailbox is full: its key was not looked at"),
        }
    }

    /// Tells of the other logs' checkpoints that were cosigned and not told of yet: the node stops. An append that comes
    /// after it is durable after them. When the mailbox is full they are left untold.
    pub fn part(&self) {
        match self.address.try_send(Part) {
            Ok(()) => self.shared.backlog.came(),
            Err(why) => tracing::warn!(%why, "what was cosigned of other logs is not told of in this one"),
        }
    }

    /// Has the next checkpoint answer a demand. False: it answers [`MAX_NONCES`](crate::audit::log::MAX_NONCES) others already, or there is
    /// no room.
    pub async fn demand(&self, nonce: Vec<u8>) -> bool {
        let (reply, taken) = oneshot::channel();
        if self.address.try_send(Demand(nonce, reply)).is_err() {
            return false;
        }
        self.shared.backlog.came();
        matches!(tokio::time::timeout(LOOK_WITHIN, taken).await, Ok(Ok(true)))
    }

    /// Replaces the pinned key of a peer. None: the actor has stopped or did not answer in time,
    /// and it may or may not be replaced.
    pub async fn replace(&self, node: &NodeId, key: [u8; KEY]) -> Option<Result<(), NotReplaced>> {
        let (reply, replaced) = oneshot::channel();
        self.address.try_send(Replace(node.clone(), key, reply)).ok()?;
        self.shared.backlog.came();
        tokio::time::timeout(APPEND_WITHIN, replaced).await.ok()?.ok()
    }

    /// What this node would sign next of a chain of statements.
    pub async fn next_statement(
        &self,
        (kind, subject): (String, String),
        known: (u64, Hash),
        previous: Option<Hash>,
    ) -> Option<Statement> {
        self.look(move |actor| actor.machines.statements.next((&kind, &subject), known, previous)).await
    }

    /// Signs a statement that is so: gives a line of a signed note, by the log's key, when what was signed is durable.
    /// `known` is what this node knows of what it states. None: the actor did not answer.
    pub async fn state(&self, text: String, known: Option<(u64, Hash)>) -> Option<Result<String, Unstated>> {
        let (reply, stated) = oneshot::channel();
        self.address.try_send(State(text, known, reply)).ok()?;
        self.shared.backlog.came();
        tokio::time::timeout(APPEND_WITHIN, stated).await.ok()?.ok()
    }

    /// How many entries of a log were cosigned last, or signed of this node's own, and under which root.
    pub async fn checkpointed(&self, origin: &str) -> Option<(u64, Hash)> {
        let origin = origin.to_owned();
        self.look(move |actor| {
            let machines = &actor.machines;
            let own = (machines.log.key().name == origin).then(|| machines.log.present()).flatten();
            let own = own.and_then(|text| text.parse::<Checkpoint>().ok());
            let seen = own.or(machines.witness.last(&origin).map(|(checkpoint, _)| checkpoint.clone()));
            seen.map(|checkpoint| (checkpoint.size, checkpoint.root))
        })
        .await?
    }

    /// The key of a peer's log that is believed, and what was cosigned of it last, a note; none if there is none, or the
    /// actor does not say.
    pub async fn peer(&self, node: &NodeId) -> Option<(Key, Option<String>)> {
        let node = node.clone();
        self.look(move |actor| {
            let key = actor.machines.peers.log_of(&node)?;
            let note = actor.machines.witness.last(&key.name).map(|(_, note)| note.to_owned());
            Some((key, note))
        })
        .await?
    }

    /// Erases a subject. Gives the id of the key that was destroyed, where there was one.
    ///
    /// # Errors
    /// [`NotErased`].
    pub async fn erase(&self, subject: &str) -> Result<Option<KeyId>, NotErased> {
        let (reply, erased) = oneshot::channel();
        match self.address.try_send(Erase(subject.to_owned(), reply)) {
            Ok(()) => self.shared.backlog.came(),
            Err(SendError::Full(_)) => return Err(NotErased::Overloaded),
            Err(SendError::Closed(_)) => return Err(NotErased::Unfinished),
        }
        let erased = tokio::time::timeout(ERASE_WITHIN, erased).await;
        erased.ok().and_then(Result::ok).ok_or(NotErased::Unfinished)
    }

    /// Keeps a key under a name that no other key has: wrapped as subjects' keys are, and ended by [`AuditHandle::erase`]
    /// of that name. It ends when the key is on the disk.
    ///
    /// # Errors
    /// [`NotKept`].
    pub async fn keep(&self, name: &str, fresh: Fresh) -> Result<(), NotKept> {
        let (reply, kept) = oneshot::channel();
        match self.address.try_send(Keep(name.to_owned(), fresh, reply)) {
            Ok(()) => self.shared.backlog.came(),
            Err(SendError::Full(_)) => return Err(NotKept::Overloaded),
            Err(SendError::Closed(_)) => return Err(NotKept::Unfinished),
        }
        let kept = tokio::time::timeout(APPEND_WITHIN, kept).await;
        kept.ok().and_then(Result::ok).unwrap_or(Err(NotKept::Unfinished))
    }

    /// The keys whose names begin so, each with its name; none if the actor does not say.
    pub async fn kept(&self, prefix: &str) -> Option<Vec<(KeyId, SecretKey, String)>> {
        let prefix = prefix.to_owned();
        self.look(move |actor| {
            let named = actor.machines.keys.named(&prefix);
            named.map(|(id, key, name)| (id, key.clone(), name.to_owned())).collect()
        })
        .await
    }

    /// How it stands; none if it does not say within two seconds.
    pub async fn view(&self) -> Option<AuditView> {
        self.look(AuditLogger::view).await
    }

    /// How many entries are durable; none if the actor does not say. Those behind them may be on the disk already, and gone
    /// after a power cut.
    pub async fn durable(&self) -> Option<u64> {
        self.look(|actor| actor.durable).await
    }

    /// How it stands, in numbers; none if it does not say within two seconds.
    pub async fn report(&self) -> Option<AuditReport> {
        self.look(AuditLogger::report).await
    }

    /// The keys of the other nodes' logs, and of the log witnesses of this one's, those that were replaced among them;
    /// none if the actor does not say.
    pub async fn believed(&self) -> Option<(Vec<Key>, Vec<Key>)> {
        self.look(|actor| {
            let peers = &actor.machines.peers;
            (peers.all_logs(), peers.all_witnesses())
        })
        .await
    }

    /// The id of a subject's key; none if there is none, or the actor does not say.
    pub async fn subject(&self, subject: &str) -> Option<KeyId> {
        let subject = subject.to_owned();
        self.look(move |actor| actor.machines.keys.id(&actor.jurisdiction(), &subject)).await?
    }

    /// Opens bodies, each with what its entry commits to; none if the actor does not say.
    pub async fn open(&self, bodies: Vec<(Hash, Vec<u8>)>) -> Option<Vec<Looked>> {
        self.look(move |actor| bodies.iter().map(|(of, body)| actor.looked(of, body)).collect()).await
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&AuditLogger) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, seen) = oneshot::channel();
        // Who waited may have gone.
        let look = Look(Box::new(move |actor: &AuditLogger| drop(reply.send(look(actor)))));
        self.address.try_send(look).ok()?;
        self.shared.backlog.came();
        tokio::time::timeout(LOOK_WITHIN, seen).await.ok()?.ok()
    }

    fn offer(&self, append: Append) -> Result<(), NotAppended> {
        self.address.try_send(append).map_err(|error| match error {
            SendError::Full(_) => NotAppended::Overloaded,
            SendError::Closed(_) => NotAppended::Stopped,
        })?;
        self.shared.backlog.came();
        Ok(())
    }
}
