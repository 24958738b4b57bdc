//! How holds end: confirmed, released, expired, returned, forgotten. Only their owner ends them.

use rhumb_core::{Now, PoolName};
use rhumb_storage::Batch;

use super::{Answer, Book, Effect, Out, Request, Token, persist};
use crate::escrow::keys::return_key;
use crate::escrow::ledger::Ledger;
use crate::escrow::ledger::returns::GiveBack;
use crate::escrow::messages::{
    Confirm, HoldId, Receipts, Refusal, Release, Return, Returned, Settled, Standing, Tallies,
};
use crate::escrow::pool::Pool;

/// Ends a hold in the ledger; also says whether it had not ended before.
type End = fn(&mut Ledger, &HoldId, Now, &mut Batch) -> Result<(Settled, bool), Refusal>;

/// One way in which a caller ends a hold.
struct Way {
    end: End,
    tally: fn(&mut Tallies) -> &mut u64,
    /// Counts the units of its answer apart from the ledger.
    receipt: fn(&mut Receipts, u64),
}

impl Book {
    pub(super) fn confirm(&mut self, now: Now, token: Token, confirm: Confirm, out: &mut Out) {
        let way = Way {
            end: |ledger, id, now, batch| ledger.confirm(id, now.hybrid, batch),
            tally: |tallies| &mut tallies.confirmed,
            receipt: |receipts, units| receipts.sold = receipts.sold.saturating_add(units),
        };
        let hold = confirm.hold.clone();
        self.settle(now, token, &hold, Request::Confirm(confirm), way, out);
    }

    pub(super) fn release(&mut self, now: Now, token: Token, release: Release, out: &mut Out) {
        let way = Way {
            end: |ledger, id, now, batch| ledger.release(id, now.hybrid, batch),
            tally: |tallies| &mut tallies.released,
            receipt: |_, _| {},
        };
        let hold = release.hold.clone();
        self.settle(now, token, &hold, Request::Release(release), way, out);
    }

    fn settle(&mut self, now: Now, token: Token, id: &HoldId, request: Request, way: Way, out: &mut Out) {
        if id.owner != self.site.me && self.site.founding.contains(&id.owner) {
            return out.send(Effect::Forward { token, to: id.owner.clone(), request });
        }
        let mut batch = Batch::new();
        let answer = self.end(now, id, way, &mut batch);
        persist(batch, out);
        out.send(Effect::Reply { token, answer: answer.map(Answer::Settled) });
        self.touch(now, &id.pool, out);
    }

    fn end(&mut self, now: Now, id: &HoldId, way: Way, batch: &mut Batch) -> Result<Settled, Refusal> {
        let pool = self.owned(now, id, batch)?;
        let (settled, first) = (way.end)(&mut pool.ledger, id, now, batch)?;
        if first {
            *(way.tally)(&mut pool.tallies) += 1;
            (way.receipt)(pool.reconciliation.receipts_mut(), settled.qty);
        }
        Ok(settled)
    }

    pub(super) fn give_back(&mut self, now: Now, token: Token, request: Return, out: &mut Out) {
        let owner = &request.hold.owner;
        if *owner != self.site.me && self.site.founding.contains(owner) {
            return out.send(Effect::Forward { token, to: owner.clone(), request: Request::Return(request) });
        }
        let mut batch = Batch::new();
        let answer = self.take_return(now, &request, &mut batch);
        persist(batch, out);
        out.send(Effect::Reply { token, answer: answer.map(Answer::Returned) });
        self.touch(now, &request.hold.pool, out);
    }

    fn take_return(&mut self, now: Now, request: &Return, batch: &mut Batch) -> Result<Returned, Refusal> {
        let within = self.site.settings.returns;
        let pool = self.owned(now, &request.hold, batch)?;
        let key = return_key(&request.key);
        let part = GiveBack { hold: &request.hold, asked: request.qty, key, within };
        let (returned, first) = pool.ledger.give_back(part, now.hybrid, batch)?;
        if first {
            pool.tallies.returned += 1;
            let receipts = pool.reconciliation.receipts_mut();
            receipts.returned = receipts.returned.saturating_add(returned.qty);
        }
        Ok(returned)
    }

    /// The pool of a hold that this node owns and may settle.
    fn owned(&mut self, now: Now, id: &HoldId, batch: &mut Batch) -> Result<&mut Pool, Refusal> {
        let mine = id.owner == self.site.me;
        let pool = self.pools.get_mut(&id.pool).filter(|_| mine);
        let pool = pool.ok_or_else(|| Refusal::NoSuchHold(id.clone()))?;
        match pool.standing {
            Standing::Proven => {}
            Standing::Unproven => return Err(Refusal::Unproven),
            Standing::Restored => return Err(Refusal::Restored),
        }
        // A hold whose time has come has ended, whether or not its turn has.
        pool.tallies.expired += u64::from(pool.ledger.expire_if_due(id, now.hybrid, batch));
        Ok(pool)
    }

    /// Ends the holds whose time has come, and forgets those that ended long ago: a chunk of each.
    /// Whether more are due.
    pub(super) fn expire(&mut self, now: Now, name: &PoolName, out: &mut Out) -> bool {
        let (returns, chunk) = (self.site.settings.returns, self.site.chunk());
        let Some(pool) = self.pools.get_mut(name) else { return false };
        let mut batch = Batch::new();
        let mut expired = 0;
        while pool.may_spend() && expired < chunk && pool.ledger.expire_next(now.hybrid, &mut batch) {
            expired += 1;
        }
        pool.tallies.expired += expired as u64;
        let mut forgotten = 0;
        while forgotten < chunk && pool.ledger.forget_next(now.hybrid, returns, &mut batch) {
            forgotten += 1;
        }
        self.holds -= forgotten;
        persist(batch, out);
        expired == chunk || forgotten == chunk
    }
}
