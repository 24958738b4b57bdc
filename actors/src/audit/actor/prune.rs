//! Pruning, as the shell goes about it: looks for what is old, tells of it, prunes it, and tells of that.

use actix::prelude::*;
use rhumb_core::Now;
use rhumb_verify::Hash;
use rhumb_verify::tile::WIDTH;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::super::read;
use super::super::record::{Outcome, Record};
use super::asked::Append;
use super::{AuditLogger, NotAppended};

/// What is told of a pruning, before it is done and after.
pub(in crate::audit) const PRUNED: &str = "audit.prune";

/// How far a pruning has come.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    /// One is under way.
    under_way: bool,
    /// What is told of it when it is done.
    record: Option<Record>,
    /// Why nothing was pruned the last time: it is said once.
    held: Option<String>,
    /// When the first entry that is there was written, in milliseconds since the Unix epoch.
    pub(super) oldest: Option<u64>,
}

impl AuditLogger {
    /// Looks whether something is old enough.
    pub(super) fn look_for_old(&mut self, now: Now, ctx: &mut Context<Self>) {
        if self.pruning.under_way {
            return;
        }
        self.pruning.under_way = true;
        let (store, prunable, mark) = (self.store.clone(), self.machines.log.prunable(now), self.mark());
        let looked = spawn_blocking(move || {
            let oldest = read::millis(&store, mark).ok().flatten();
            let old = prunable.map_or(Ok(Vec::new()), |prunable| read::old(&store, &prunable));
            (oldest, old)
        });
        ctx.spawn(looked.into_actor(self).map(|looked, actor, ctx| {
            actor.pruning.under_way = false;
            match looked {
                Ok((oldest, Ok(old))) => {
                    actor.pruning.oldest = oldest;
                    if !old.is_empty() {
                        actor.begin_pruning(old, ctx);
                    }
                }
                Ok((_, Err(why))) => actor.not_pruned(&why.to_string()),
                Err(panic) => actor.not_pruned(&panic.to_string()),
            }
        }));
    }

    /// Tells of what is to go, and prunes it when that is durable.
    fn begin_pruning(&mut self, old: Vec<Hash>, ctx: &mut Context<Self>) {
        let (now, mark) = (self.world.now(), self.mark());
        let to = mark + old.len() as u64 * WIDTH;
        let retention = self.machines.settings.log.retention.as_secs();
        let record = Record::told(PRUNED, self.itself(), Outcome::Begun)
            .on(format!("entries {mark} to {to}"))
            .with("mark", to.to_string())
            .with("retention_s", retention.to_string());
        let (reply, told) = oneshot::channel();
        self.pruning.under_way = true;
        self.pruning.record = Some(record.clone());
        self.take(now, Append { record, subject: None, reply: Some(reply) });
        self.settle(now, ctx);
        ctx.spawn(told.into_actor(self).map(move |told, actor, ctx| {
            let now = actor.world.now();
            match told.unwrap_or(Err(NotAppended::Stopped)) {
                Ok(_) if actor.machines.log.prune(now, &old, &mut actor.outs.log) > 0 => {}
                // A log witness has another key since, or the like: it is looked at anew.
                Ok(_) => actor.end_pruning(now, Outcome::Refused, mark),
                Err(why) => {
                    (actor.pruning.under_way, actor.pruning.record) = (false, None);
                    actor.not_pruned(&why.to_string());
                }
            }
            actor.settle(now, ctx);
        }));
    }

    /// What was to be pruned is, durably; or it is not. The log begins with the mark.
    pub(super) fn end_pruning(&mut self, now: Now, outcome: Outcome, mark: u64) {
        self.pruning.under_way = false;
        self.pruning.held = None;
        let Some(record) = self.pruning.record.take() else { return };
        if outcome == Outcome::Done {
            tracing::info!(mark, "entries of the audit log that were older than audit.retention are pruned");
        }
        self.saw(now, Record { outcome, ..record }.with("mark", mark.to_string()));
    }

    fn not_pruned(&mut self, why: &str) {
        if self.pruning.held.as_deref() != Some(why) {
            tracing::error!(%why, "the audit log is not pruned");
            self.pruning.held = Some(why.to_owned());
        }
    }

    fn mark(&self) -> u64 {
        self.machines.log.mark()
    }
}
