//! What may be asked of the actor, by its handle.

use actix::prelude::*;
use rhumb_core::NodeId;
use rhumb_verify::Hash;
use tokio::sync::oneshot;

use super::super::keys::{self, Fresh};
use super::super::messages::Uncosigned;
use super::super::observed::{Observations, Observed};
use super::super::peers::{KEY, NotReplaced, Seen};
use super::super::record::{Outcome, Record};
use super::super::seal::KeyId;
use super::super::statements;
use super::super::witness::{self, AddCheckpoint};
use super::{Appended, AuditLogger, Cosigned, MAX_ASKED, NotAppended, NotKept, PASS_EVERY, Replaced, Stated};

/// Take this record.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Append {
    pub(super) record: Record,
    /// About whom; about nobody but this node where none is named.
    pub(super) subject: Option<String>,
    pub(super) reply: Option<Appended>,
}

impl Append {
    pub(super) fn refuse(self, observations: &Observations, why: NotAppended) {
        match self.reply {
            Some(reply) => drop(reply.send(Err(why))),
            None => {
                observations.missed(1);
                observations.not_appended(&why);
                tracing::error!(action = self.record.action, %why, "what was seen is not in the audit log");
            }
        }
    }
}

impl Handler<Append> for AuditLogger {
    type Result = ();

    fn handle(&mut self, append: Append, ctx: &mut Self::Context) {
        self.backlog.taken();
        let now = self.world.now();
        self.take(now, append);
        self.settle(now, ctx);
    }
}

/// A log asks for a cosignature.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Asked(pub(super) AddCheckpoint, pub(super) Cosigned);

impl Handler<Asked> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Asked(asked, reply): Asked, ctx: &mut Self::Context) {
        self.backlog.taken();
        if self.waiting.cosigns.len() >= MAX_ASKED {
            return drop(reply.send(Err(Uncosigned::Overloaded { retry_after: PASS_EVERY })));
        }
        let (now, token) = (self.world.now(), self.waiting.token());
        self.waiting.cosigns.insert(token, reply);
        self.machines.witness.asked(now.hybrid, witness::Token(token), asked, &mut self.outs.witness);
        self.settle(now, ctx);
    }
}

/// Erase this subject.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Erase(pub(super) String, pub(super) oneshot::Sender<Option<KeyId>>);

impl Handler<Erase> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Erase(subject, reply): Erase, ctx: &mut Self::Context) {
        self.backlog.taken();
        if self.waiting.erasures.len() >= MAX_ASKED {
            // Dropped: who waits is told that it did not finish.
            return;
        }
        let (now, token, jurisdiction) = (self.world.now(), self.waiting.token(), self.jurisdiction());
        let id = self.machines.keys.id(&jurisdiction, &subject);
        self.waiting.erasures.insert(token, (id, reply));
        self.machines.keys.erase(keys::Token(token), &jurisdiction, &subject, &mut self.outs.keys);
        self.settle(now, ctx);
    }
}

/// Keep this key.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Keep(pub(super) String, pub(super) Fresh, pub(super) oneshot::Sender<Result<(), NotKept>>);

impl Handler<Keep> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Keep(name, fresh, reply): Keep, ctx: &mut Self::Context) {
        self.backlog.taken();
        if self.waiting.kept.len() >= MAX_ASKED {
            // Who waits may have gone, here and below.
            reply.send(Err(NotKept::Overloaded)).ok();
            return;
        }
        let (now, token, jurisdiction) = (self.world.now(), self.waiting.token(), self.jurisdiction());
        let (keys, out) = (&mut self.machines.keys, &mut self.outs.keys);
        match keys.keep(keys::Token(token), &jurisdiction, &name, fresh, out) {
            Ok(()) => drop(self.waiting.kept.insert(token, reply)),
            Err(why) => drop(reply.send(Err(why.into()))),
        }
        self.settle(now, ctx);
    }
}

/// A peer showed its public key.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Shown(pub(super) NodeId, pub(super) Vec<u8>);

impl Handler<Shown> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Shown(node, key): Shown, ctx: &mut Self::Context) {
        self.backlog.taken();
        let now = self.world.now();
        match self.machines.peers.shown(&node, &key, &mut self.outs.peers) {
            Seen::First => {
                tracing::info!(peer = %node, "the key of its audit log is pinned");
                let pinned = Record::told("key.pinned", self.itself(), Outcome::Done);
                self.saw(now, pinned.on(node.to_string()));
            }
            Seen::Other => {
                tracing::error!(
                    peer = %node,
                    "it shows another audit key than the one that was pinned, and is not believed: its identity \
                     folder was lost or replaced, or somebody else speaks for it"
                );
                self.observe(
                    now,
                    Observed::refused("key.refused", node.to_string(), "another key is pinned"),
                );
            }
            Seen::Same | Seen::None => {}
        }
        self.settle(now, ctx);
    }
}

/// An operator says which key of a peer is believed from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Replace(pub(super) NodeId, pub(super) [u8; KEY], pub(super) Replaced);

impl Handler<Replace> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Replace(node, key, reply): Replace, ctx: &mut Self::Context) {
        self.backlog.taken();
        let replaced = match self.waiting.replaced.contains_key(&node) {
            true => Err(NotReplaced::UnderWay(node.clone())),
            false => self.machines.peers.replace(&node, key, &mut self.outs.peers),
        };
        match replaced {
            Ok(()) => drop(self.waiting.replaced.insert(node, reply)),
            // Who waits may have gone.
            Err(why) => drop(reply.send(Err(why))),
        }
        self.settle(self.world.now(), ctx);
    }
}

/// Sign a statement, if it is so. What is known is said by whoever asks; of checkpoints the log witness knows.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct State(pub(super) String, pub(super) Option<(u64, Hash)>, pub(super) Stated);

impl Handler<State> for AuditLogger {
    type Result = ();

    fn handle(&mut self, State(text, known, reply): State, ctx: &mut Self::Context) {
        self.backlog.taken();
        if self.waiting.statements.len() >= MAX_ASKED {
            // Dropped: who waits is told that there was no answer.
            return;
        }
        let token = self.waiting.token();
        self.waiting.statements.insert(token, reply);
        let (machines, out) = (&mut self.machines, &mut self.outs.statements);
        machines.statements.asked(statements::Token(token), &text, |_| known, out);
        self.settle(self.world.now(), ctx);
    }
}

/// Have the next checkpoint answer a demand.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Demand(pub(super) Vec<u8>, pub(super) oneshot::Sender<bool>);

impl Handler<Demand> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Demand(nonce, reply): Demand, ctx: &mut Self::Context) {
        self.backlog.taken();
        let now = self.world.now();
        let taken = self.machines.log.demand(nonce);
        // Who waits may have gone.
        reply.send(taken).ok();
        self.settle(now, ctx);
    }
}

/// Tell of what was cosigned and not told of yet: the node stops.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Part;

impl Handler<Part> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Part: Part, ctx: &mut Self::Context) {
        self.backlog.taken();
        let now = self.world.now();
        let left = self.roots.left(now.mono);
        self.tell_roots(now, &left);
        self.settle(now, ctx);
    }
}

/// Look at what the machines know.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Look(pub(super) Box<dyn FnOnce(&AuditLogger) + Send>);

impl Handler<Look> for AuditLogger {
    type Result = ();

    fn handle(&mut self, Look(look): Look, _: &mut Self::Context) {
        self.backlog.taken();
        look(self);
    }
}
