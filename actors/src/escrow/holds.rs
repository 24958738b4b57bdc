//! The holds of one pool on the node that owns them.
//!
//! * It decides: how a hold ends. Each step is one-way and durable, and only the owner takes it.
//! * It never does: read a clock, or count a unit twice.
//! * Invariant: the held sum is the sum over rows in the stage `Held`, and a deadline stands in the
//!   queue for exactly those.

use std::collections::{BTreeMap, BTreeSet};

use rhumb_core::HybridTime;

use super::messages::KEY_RETENTION;
use super::records::{HoldNumber, HoldRow, Stage};

/// One pool's holds on one node.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    rows: BTreeMap<HoldNumber, HoldRow>,
    deadlines: BTreeSet<(HybridTime, HoldNumber)>,
    ended: BTreeSet<(HybridTime, HoldNumber)>,
    held: u64,
}

impl Holds {
    pub(crate) fn recovered(rows: BTreeMap<HoldNumber, HoldRow>) -> Self {
        let mut holds = Self::default();
        for (number, row) in rows {
            holds.index(number, &row);
            holds.rows.insert(number, row);
        }
        holds
    }

    /// A new hold.
    pub(crate) fn insert(&mut self, number: HoldNumber, qty: u64, deadline: HybridTime) -> &HoldRow {
        let row = HoldRow { qty, deadline, stage: Stage::Held, ended: None };
        self.index(number, &row);
        let before = self.rows.insert(number, row);
        assert!(before.is_none(), "hold number {number:?} was given out twice");
        &self.rows[&number]
    }

    /// Ends a hold that is held.
    pub(crate) fn end(&mut self, number: HoldNumber, stage: Stage, now: HybridTime) -> &HoldRow {
        let row = self.rows.get_mut(&number).expect("the caller has just looked at this hold");
        assert_eq!(row.stage, Stage::Held, "hold {number:?} ends twice");
        self.deadlines.remove(&(row.deadline, number));
        self.held = self.held.checked_sub(row.qty).expect("the held sum covers every hold");
        row.stage = stage;
        row.ended = Some(now);
        self.ended.insert((now, number));
        row
    }

    /// Forgets a hold that ended longer than the retention ago.
    pub(crate) fn forget_next(&mut self, now: HybridTime) -> Option<HoldNumber> {
        let (ended, number) = *self.ended.first()?;
        if now <= ended.plus(KEY_RETENTION) {
            return None;
        }
        self.ended.remove(&(ended, number));
        self.rows.remove(&number);
        Some(number)
    }

    pub(crate) fn find(&self, number: HoldNumber) -> Option<&HoldRow> {
        self.rows.get(&number)
    }

    /// The next hold to expire.
    pub(crate) fn next_deadline(&self) -> Option<HybridTime> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next hold whose time has come.
    pub(crate) fn due(&self, now: HybridTime) -> Option<HoldNumber> {
        self.deadlines.first().filter(|(deadline, _)| now >= *deadline).map(|(_, number)| *number)
    }

    /// When the next ended hold may be forgotten.
    pub(crate) fn next_forgotten(&self) -> Option<HybridTime> {
        self.ended.first().map(|(ended, _)| ended.plus(KEY_RETENTION))
    }

    /// Every hold that is held.
    pub(crate) fn open(&self) -> Vec<HoldNumber> {
        self.deadlines.iter().map(|(_, number)| *number).collect()
    }

    /// Units held.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// How many holds are remembered.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    fn index(&mut self, number: HoldNumber, row: &HoldRow) {
        match row.ended {
            None => {
                self.deadlines.insert((row.deadline, number));
                self.held = self.held.checked_add(row.qty).expect("held units are at most the supply");
            }
            Some(ended) => {
                self.ended.insert((ended, number));
            }
        }
    }
}
