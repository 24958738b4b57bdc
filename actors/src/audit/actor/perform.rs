//! What the machines want done, done.

use actix::prelude::*;
use rhumb_core::{NodeId, Now};
use rhumb_verify::{Checkpoint, Note, Policy};

use super::super::messages::Cosign;
use super::super::record::{Outcome, Record};
use super::super::seal::WrappedBy;
use super::super::{keys, log, peers, read, statements, witness};
use super::{AuditLogger, Sent};

impl AuditLogger {
    pub(super) fn perform(&mut self, now: Now, sent: Sent, ctx: &mut Context<Self>) {
        match sent {
            Sent::Log(effect) => self.perform_log(now, effect, ctx),
            Sent::Witness(effect) => self.perform_witness(now, effect),
            Sent::Keys(effect) => self.perform_keys(effect, ctx),
            Sent::Statements(effect) => self.perform_statements(effect),
            Sent::Peers(peers::Effect::Pinned { node }) => {
                self.machines.peers.pinned(&node);
                self.believe();
            }
            Sent::Peers(peers::Effect::Replaced { node }) => {
                self.machines.peers.pinned(&node);
                self.rekeyed(&node);
                if let Some(reply) = self.waiting.replaced.remove(&node) {
                    // Who waited may have gone.
                    reply.send(Ok(())).ok();
                }
            }
        }
    }

    /// By whom a checkpoint must be cosigned now.
    fn policy(&self) -> Option<Policy> {
        let machines = &self.machines;
        let policy = machines.peers.policy(machines.log.key(), machines.settings.quorum);
        policy.unwrap_or_else(|why| {
            tracing::error!(%why, "the audit log publishes nothing: no policy of its log witnesses can be");
            None
        })
    }

    /// A node's log and log witness have another key.
    fn rekeyed(&mut self, node: &NodeId) {
        let (policy, machines) = (self.policy(), &mut self.machines);
        if let Some(witness) = machines.peers.witness_of(node) {
            machines.log.rekeyed(policy, witness);
        }
        if let Some(log) = machines.peers.log_of(node) {
            machines.witness.rekeyed(log);
        }
    }

    /// Another key is known: it cosigns, and is cosigned.
    fn believe(&mut self) {
        let (policy, machines) = (self.policy(), &mut self.machines);
        machines.log.watched_by(policy, machines.peers.witnesses().map(|(_, key)| key));
        machines.peers.logs().for_each(|(_, key)| machines.witness.watch(key));
    }

    fn perform_log(&mut self, now: Now, effect: log::Effect, ctx: &mut Context<Self>) {
        match effect {
            log::Effect::Appended { token, index } => {
                self.durable = index + 1;
                if let Some(reply) = self.waiting.appends.remove(&token.0) {
                    // Who waited may have gone; the entry is there all the same.
                    reply.send(Ok(index)).ok();
                }
            }
            log::Effect::Sign { text } => {
                let signature = self.signing.log.sign(&text, 0);
                self.machines.log.signed(now, signature, &mut self.outs.log);
            }
            log::Effect::Ask { witness, old, size, note } => self.ask(&witness, old, size, note, ctx),
            log::Effect::Published { note } => {
                self.counted.published = Some(now.mono);
                self.machines.published = Some(note);
            }
            log::Effect::Pruned { mark } => self.end_pruning(now, Outcome::Done, mark),
            log::Effect::Broken { why } => {
                tracing::error!(%why, "the audit log signs nothing more: its disk is an old copy, or was changed");
            }
        }
    }

    fn ask(&mut self, witness: &str, old: u64, size: u64, note: String, ctx: &mut Context<Self>) {
        let Some(node) = self.machines.peers.of_witness(witness) else { return };
        let proof = match read::consistency(&self.store, old, size) {
            Ok(proof) => read::joined(&proof),
            Err(why) => return tracing::error!(%why, "the audit log cannot prove that it only grew"),
        };
        let text = match Note::parse(&note) {
            Ok(note) => note.text,
            Err(why) => return tracing::error!(%why, "the audit log's own checkpoint"),
        };
        let witness = witness.to_owned();
        let answer = self.world.cosign(&node, Cosign { old, proof, note }).into_actor(self);
        ctx.spawn(answer.map(move |answer, actor, ctx| {
            let now = actor.world.now();
            // An answer that says nothing of the log is none: it is asked again in time.
            let judged = match answer {
                Some(Ok(line)) => line.trim_end().parse().ok().map(Ok),
                Some(Err(why)) => why.judged().map(Err),
                None => None,
            };
            if let Some(judged) = judged {
                actor.machines.log.answered(now, &witness, &text, judged, &mut actor.outs.log);
            }
            actor.settle(now, ctx);
        }));
    }

    fn perform_witness(&mut self, now: Now, effect: witness::Effect) {
        // Who waited may have gone: what was cosigned is durable all the same.
        match effect {
            witness::Effect::Cosign { token, text, at } => {
                let signature = self.signing.witness.sign(&text, at);
                if let Ok(seen) = text.parse::<Checkpoint>() {
                    self.roots.cosigned(now.mono, &seen.origin, seen.size);
                }
                if let Some(reply) = self.waiting.cosigns.remove(&token.0) {
                    reply.send(Ok(signature.to_string())).ok();
                }
            }
            witness::Effect::Refuse { token, why } => {
                if let Some(reply) = self.waiting.cosigns.remove(&token.0) {
                    reply.send(Err(why.into())).ok();
                }
            }
            witness::Effect::Alarm { origin, cosigned, contradicts } => {
                tracing::error!(
                    %origin,
                    %cosigned,
                    %contradicts,
                    "this log has not shown that it continues what was cosigned: both checkpoints are kept"
                );
                let alarm = Record::told("witness.alarm", self.itself(), Outcome::Refused);
                self.saw(now, alarm.on(origin));
            }
        }
    }

    fn perform_statements(&mut self, effect: statements::Effect) {
        let (token, answer) = match effect {
            statements::Effect::Sign { token, text } => {
                (token, Ok(self.signing.log.sign(&text, 0).to_string()))
            }
            statements::Effect::Refuse { token, why } => (token, Err(why)),
        };
        if let Some(reply) = self.waiting.statements.remove(&token.0) {
            // Who waited may have gone: what was signed is durable all the same.
            reply.send(answer).ok();
        }
    }

    fn perform_keys(&mut self, effect: keys::Effect, ctx: &mut Context<Self>) {
        match effect {
            keys::Effect::Make(by) => {
                let made = self.world.make(by.clone()).into_actor(self);
                ctx.spawn(made.map(move |made, actor, ctx| match made {
                    Err(why) => actor.world.halt(format!("audit: a wrapping key was not made: {why}")),
                    Ok(key) => {
                        actor.machines.keys.made(&by, key, &mut actor.outs.keys);
                        actor.wrapped(by, ctx);
                    }
                }));
            }
            keys::Effect::Destroy(by) => {
                let destroyed = self.world.destroy(by.clone()).into_actor(self);
                ctx.spawn(destroyed.map(move |destroyed, actor, ctx| match destroyed {
                    Err(why) => actor.world.halt(format!("audit: a wrapping key was not destroyed: {why}")),
                    Ok(()) => {
                        actor.machines.keys.destroyed(&by, &mut actor.outs.keys);
                        actor.settle(actor.world.now(), ctx);
                    }
                }));
            }
            keys::Effect::Kept { token } => {
                if let Some(reply) = self.waiting.kept.remove(&token.0) {
                    // Who waited may have gone; the key is kept all the same.
                    reply.send(Ok(())).ok();
                }
            }
            keys::Effect::Erased { token } => {
                if let Some((id, reply)) = self.waiting.erasures.remove(&token.0) {
                    self.counted.erased += u64::from(id.is_some());
                    reply.send(id).ok();
                }
            }
        }
    }

    /// Some keys are wrapped under a new one. The next ones are when others have had their turn.
    fn wrapped(&mut self, by: WrappedBy, ctx: &mut Context<Self>) {
        let now = self.world.now();
        let more = self.machines.keys.step(&by.jurisdiction, &mut self.outs.keys);
        let early = std::mem::take(&mut self.waiting.early);
        early.into_iter().for_each(|append| self.take(now, append));
        self.settle(now, ctx);
        if more {
            ctx.run_later(std::time::Duration::from_millis(1), move |actor, ctx| actor.wrapped(by, ctx));
        }
    }
}
