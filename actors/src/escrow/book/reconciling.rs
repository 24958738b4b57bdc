//! A pool's home reads the rows of all its nodes from time to time, and raises an alarm when they do not
//! add up to what was minted.

use rhumb_core::{NodeId, Now, PoolName};

use super::{Answer, Book, Effect, Out};
use crate::escrow::messages::Refusal;
use crate::escrow::pool::Pool;
use crate::escrow::reconcile::{Answered, Others, READ_WITHIN, Then};
use crate::escrow::settings::EscrowSettings;

impl Book {
    /// Begins a reconciliation of a pool if it is time to.
    pub(super) fn reconcile(&mut self, now: Now, name: &PoolName, out: &mut Out) {
        let (me, every) = (&self.site.me, self.site.settings.reconcile);
        let Some(pool) = self.pools.get_mut(name) else { return };
        if pool.home != *me || !pool.may_spend() {
            return pool.reconciliation.rest();
        }
        if !pool.reconciliation.is_due(now.mono, every) {
            return;
        }
        let others = others(me, pool, &self.site.settings);
        let then = pool.reconciliation.tick(now.mono, every, &others);
        act(name, &others, then, out);
    }

    /// A node has answered a reading, or nobody has in its place.
    pub(super) fn row_read(
        &mut self,
        now: Now,
        from: &NodeId,
        name: &PoolName,
        number: u64,
        answer: Option<Result<Answer, Refusal>>,
        out: &mut Out,
    ) {
        let Some(pool) = self.pools.get_mut(name) else { return };
        let answered = match answer {
            Some(Ok(Answer::Row(row))) => Answered::Row(row),
            Some(Err(Refusal::NoSuchPool(_))) => Answered::Unknown,
            Some(_) | None => Answered::Nothing,
        };
        let others = others(&self.site.me, pool, &self.site.settings);
        let then = pool.reconciliation.read_row(now.mono, from, number, answered, &others);
        act(name, &others, then, out);
        self.rearm(now, name);
    }
}

fn others<'a>(me: &'a NodeId, pool: &Pool, settings: &EscrowSettings) -> Others<'a> {
    let down = pool.lines.iter().filter(|(_, line)| line.down).map(|(node, _)| node.clone());
    Others {
        me,
        own: pool.row(settings),
        minted: pool.supply() + pool.ledger.pool().debt_ceiling,
        nodes: pool.lines.keys().cloned().collect(),
        down: down.collect(),
    }
}

fn act(name: &PoolName, others: &Others<'_>, then: Then, out: &mut Out) {
    match then {
        Then::Wait => {}
        Then::Read(number) => {
            for to in &others.nodes {
                let (pool, to) = (name.clone(), to.clone());
                out.send(Effect::Read { pool, to, number, within: READ_WITHIN });
            }
        }
        Then::Alarm(found) => out.send(Effect::Alarm { pool: name.clone(), found }),
    }
}
