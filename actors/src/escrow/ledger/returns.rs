//! Units come back after their sale (patterns.md §1.2, point 10).
//!
//! * It decides: how many units of a sale come back, and what they pay back first: debt.
//! * It never does: give back what was not sold or came back before, run one request twice, or take back
//!   what an operator's attestation may have counted as returned already.
//! * Invariant: the parts of a sale that came back stand in the hold's own record, each with its
//!   request's key; their sum is at most what was sold.

use std::time::Duration;

use rhumb_core::HybridTime;
use rhumb_core::canary::{self, Canary};
use rhumb_storage::Batch;

use super::{Ledger, add};
use crate::escrow::messages::{HoldId, Refusal, Returned};
use crate::escrow::records::{HoldNumber, HoldRow, Records, ReturnRow, Right, Stage};

/// In so many parts a sale may come back.
const MAX_PARTS: usize = 32;

/// What is asked to come back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GiveBack<'a> {
    pub(crate) hold: &'a HoldId,
    /// Units; none: the rest.
    pub(crate) asked: Option<u64>,
    /// A hash of the request's key.
    pub(crate) key: [u8; 16],
    /// How long after its sale a unit may come back.
    pub(crate) within: Duration,
}

impl Ledger {
    /// Gives back units of a sale; under the same key again: the same answer. Also says whether it had
    /// not been done before.
    pub(crate) fn give_back(
        &mut self,
        request: GiveBack<'_>,
        now: HybridTime,
        batch: &mut Batch,
    ) -> Result<(Returned, bool), Refusal> {
        let (number, row) = self.known(request.hold)?;
        check_sold(request.hold, row)?;
        let before = row.more.returns.iter().find(|part| part.key == request.key);
        if let Some(part) = before.filter(|_| !canary::sings(Canary::ReturnTwice)) {
            let same = part.asked == request.asked;
            let left = row.qty - row.returned();
            let answer = Returned { hold: request.hold.clone(), qty: part.qty, left };
            return if same { Ok((answer, false)) } else { Err(Refusal::KeyReused) };
        }
        self.check_counted(request.hold)?;
        let part = part_of(request, row, now)?;
        let left = row.qty - row.returned() - part.qty;
        self.take_back_sale(number, part, batch);
        Ok((Returned { hold: request.hold.clone(), qty: part.qty, left }, true))
    }

    /// A sale from before its node's disk was restored is in the number that the operator attested, less
    /// what had come back of it on the disk that is lost: what more comes back cannot be told from what
    /// did.
    fn check_counted(&self, hold: &HoldId) -> Result<(), Refusal> {
        let restored = self.counts.cleared.filter(|restored| hold.incarnation < *restored);
        let Some(restored) = restored.filter(|_| !canary::sings(Canary::ReturnAfterAttest)) else {
            return Ok(());
        };
        Err(Refusal::ReturnClosed { hold: hold.clone(), until_ms: restored.0 })
    }

    /// Debt is paid back first.
    fn take_back_sale(&mut self, number: HoldNumber, part: ReturnRow, batch: &mut Batch) {
        let row = self.holds.find(number).expect("the caller has just looked at this hold");
        let owed = row.part(Right::Debt).saturating_sub(row.returned());
        let debt = owed.min(part.qty);
        for (right, units) in [(Right::Debt, debt), (Right::Unit, part.qty - debt)] {
            let sums = self.counts.of_mut(right);
            sums.returned = add(sums.returned, units);
        }
        let row = self.holds.give_back(number, part);
        batch.put_hold(&self.name, number, row);
        batch.put_counts(&self.name, &self.counts);
        self.changed();
    }
}

fn check_sold(hold: &HoldId, row: &HoldRow) -> Result<(), Refusal> {
    match row.stage {
        Stage::Committed => Ok(()),
        Stage::Held => Err(Refusal::HoldNotConfirmed(hold.clone())),
        Stage::Released => Err(Refusal::HoldReleased(hold.clone())),
        Stage::Expired | Stage::Voided => Err(Refusal::HoldExpired(hold.clone())),
    }
}

/// The part of a sale that a request gives back, if it may.
fn part_of(request: GiveBack<'_>, row: &HoldRow, now: HybridTime) -> Result<ReturnRow, Refusal> {
    let hold = request.hold.clone();
    let until = row.ended.unwrap_or(HybridTime::ZERO).plus(request.within);
    if now > until {
        return Err(Refusal::ReturnClosed { hold, until_ms: until.millis() });
    }
    let left = row.qty - row.returned();
    let qty = request.asked.unwrap_or(left);
    if qty == 0 && left > 0 {
        return Err(Refusal::Invalid(format!("0 units: give 1 to {left}, or none for all of them")));
    }
    if left == 0 || qty > left {
        return Err(Refusal::ReturnTooMuch { hold, left });
    }
    if row.more.returns.len() + 1 >= MAX_PARTS && qty < left {
        return Err(Refusal::Invalid(format!(
            "a sale comes back in {MAX_PARTS} parts at most, and this is the last: give back all {left}"
        )));
    }
    Ok(ReturnRow { key: request.key, asked: request.asked, qty })
}
