//! Reconciliation: a pool's home reads all nodes' rows from time to time, and says whether units have
//! appeared or vanished.
//!
//! * It decides: when rows stood so at one time, what they drift by, and what is an alarm.
//! * It never does: mend anything, stop a sale, or raise an alarm by rows that moved while they were
//!   read. Of those it says only what is so whatever moved: I1 of each row, and I2 with sinks read
//!   before sources.
//! * Invariant: what it calls exact is the rows as they all stood when the first of two readings had
//!   ended: each node's row was read before and again after, and its version was the same.
//!
//! The receipts it compares with are counted by each node from the answers that it gives, apart from the
//! ledger, for one life of the node: what had drifted before a restart is not seen after it. The audit
//! with customers' receipts (`rhumb pool audit --receipts`) sees all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{Mono, NodeId};

use super::ledger::Ledger;
use super::matrix::{self, Rows};
use super::messages::{Receipts, Reconciled, Row, Standing};
use super::records::Right;

/// How long a node may take for one reading.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(2);
/// How many readings are made before a pool is called moving.
const READINGS: u32 = 5;

/// How often what came of it, since the node started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reconciliations {
    /// Rows that stood so at one time.
    pub exact: u64,
    /// Rows that never rested.
    pub torn: u64,
    /// A row was missing.
    pub incomplete: u64,
    /// Of all of them, those that found units too many or too few, or rows that contradict each other.
    pub alarms: u64,
}

/// What is known of the drift of one pool, on one node.
#[derive(Debug)]
pub(crate) struct Reconciliation {
    receipts: Receipts,
    /// When the next one begins; none where this node is not to do it.
    next: Option<Mono>,
    round: Option<Round>,
    /// Names a reading, so that a late answer to an earlier one is known for it.
    number: u64,
    last: Option<(Mono, Reconciled)>,
    counts: Reconciliations,
}

/// One reconciliation under way.
#[derive(Debug)]
struct Round {
    readings: u32,
    until: Mono,
    before: Option<Rows>,
    rows: Rows,
    missing: BTreeSet<NodeId>,
}

/// What came of asking a node for its row.
#[derive(Debug)]
pub(crate) enum Answered {
    /// The row.
    Row(Box<Row>),
    /// It does not know the pool.
    Unknown,
    /// No answer, or one that is of no use.
    Nothing,
}

/// What is to be done after a step.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing yet.
    Wait,
    /// Read all others' rows, under this number.
    Read(u64),
    /// It is over; the figures are an alarm.
    Alarm(Reconciled),
}

impl Reconciliation {
    /// None yet, of a ledger whose counters are taken as they are.
    pub(crate) fn new(ledger: &Ledger) -> Self {
        Self {
            receipts: receipts_of(ledger),
            next: None,
            round: None,
            number: 0,
            last: None,
            counts: Reconciliations::default(),
        }
    }

    /// An operator's word took the place of the counters.
    pub(crate) fn attested(&mut self, ledger: &Ledger) {
        self.receipts = receipts_of(ledger);
    }

    pub(crate) fn receipts(&self) -> Receipts {
        self.receipts
    }

    /// The receipts, to count an answer in them.
    pub(crate) fn receipts_mut(&mut self) -> &mut Receipts {
        &mut self.receipts
    }

    pub(crate) fn counts(&self) -> Reconciliations {
        self.counts
    }

    /// What came of the last one, and how long ago.
    pub(crate) fn last(&self, now: Mono) -> Option<Reconciled> {
        self.last.as_ref().map(|(at, last)| Reconciled { age: now.since(*at), ..last.clone() })
    }

    /// This node is not to do it, or not now.
    pub(crate) fn rest(&mut self) {
        (self.next, self.round) = (None, None);
    }

    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        self.round.as_ref().map_or(self.next, |round| Some(round.until))
    }

    /// Whether [`Self::tick`] has something to do: a look that is cheaper than the row.
    pub(crate) fn is_due(&self, now: Mono, every: Duration) -> bool {
        self.next_deadline().is_none_or(|at| at <= now || at > now.plus(every.max(READ_WITHIN)))
    }

    /// Begins one if it is time to, ends one that has waited too long. The first begins a period after
    /// this node has come to do it.
    pub(crate) fn tick(&mut self, now: Mono, every: Duration, rest: &Others<'_>) -> Then {
        let Some(next) = self.next else {
            self.next = Some(now.plus(every));
            return Then::Wait;
        };
        if let Some(round) = &self.round {
            return if round.until <= now { self.conclude(now, rest) } else { Then::Wait };
        }
        // A shorter period counts at once.
        self.next = Some(next.min(now.plus(every)));
        if now < next {
            return Then::Wait;
        }
        self.next = Some(now.plus(every));
        self.round = Some(Round {
            readings: 0,
            until: now,
            before: None,
            rows: Rows::new(),
            missing: rest.down.iter().cloned().collect(),
        });
        if rest.down.is_empty() { self.read(now, rest) } else { self.conclude(now, rest) }
    }

    /// A node has answered a reading, or nobody has in its place.
    pub(crate) fn read_row(
        &mut self,
        now: Mono,
        from: &NodeId,
        number: u64,
        answered: Answered,
        rest: &Others<'_>,
    ) -> Then {
        let Some(round) = self.round.as_mut().filter(|_| number == self.number) else { return Then::Wait };
        if round.rows.contains_key(from) {
            return Then::Wait;
        }
        let row = match answered {
            Answered::Row(row) if row.standing == Standing::Proven => *row,
            // What it was granted is on its way.
            Answered::Unknown => Row::default(),
            // It can not say its row, or does not know whether it is true.
            Answered::Row(_) | Answered::Nothing => {
                round.missing.insert(from.clone());
                return self.conclude(now, rest);
            }
        };
        round.rows.insert(from.clone(), row);
        if round.rows.len() < rest.nodes.len() { Then::Wait } else { self.all_read(now, rest) }
    }

    /// Reads all rows, once more.
    fn read(&mut self, now: Mono, rest: &Others<'_>) -> Then {
        let Some(round) = &mut self.round else { return Then::Wait };
        self.number += 1;
        round.readings += 1;
        round.until = now.plus(READ_WITHIN);
        if rest.nodes.is_empty() { self.all_read(now, rest) } else { Then::Read(self.number) }
    }

    /// All rows of a reading are there: this node's own joins them, as it stands now.
    fn all_read(&mut self, now: Mono, rest: &Others<'_>) -> Then {
        let Some(round) = &mut self.round else { return Then::Wait };
        round.rows.insert(rest.me.clone(), rest.own.clone());
        let alike = round.before.as_ref().is_some_and(|before| same(before, &round.rows));
        let over = alike || round.readings >= READINGS || rest.nodes.is_empty();
        if over || canary::sings(Canary::TornReadIsExact) {
            return self.conclude(now, rest);
        }
        round.before = Some(std::mem::take(&mut round.rows));
        self.read(now, rest)
    }

    fn conclude(&mut self, now: Mono, rest: &Others<'_>) -> Then {
        let Some(mut round) = self.round.take() else { return Then::Wait };
        let whole = round.rows.len() == rest.nodes.len() + 1;
        if !whole && round.missing.is_empty() {
            let silent = rest.nodes.iter().filter(|node| !round.rows.contains_key(*node));
            round.missing.extend(silent.cloned());
        }
        let exact = whole && round.missing.is_empty() && round.is_framed(rest);
        let reconciled = Reconciled {
            exact,
            drift: exact.then(|| clamped(matrix::drift(&round.rows, rest.minted))),
            violations: round.certain(),
            missing: round.missing.into_iter().collect(),
            readings: round.readings,
            age: Duration::ZERO,
        };
        self.count(&reconciled);
        self.last = Some((now, reconciled.clone()));
        if reconciled.is_alarm() { Then::Alarm(reconciled) } else { Then::Wait }
    }

    fn count(&mut self, reconciled: &Reconciled) {
        let counts = &mut self.counts;
        match (reconciled.exact, reconciled.missing.is_empty()) {
            (true, _) => counts.exact += 1,
            (false, true) => counts.torn += 1,
            (false, false) => counts.incomplete += 1,
        }
        counts.alarms += u64::from(reconciled.is_alarm());
    }
}

impl Round {
    /// Whether no row changed between two readings.
    fn is_framed(&self, rest: &Others<'_>) -> bool {
        if rest.nodes.is_empty() || canary::sings(Canary::TornReadIsExact) {
            return true;
        }
        self.before.as_ref().is_some_and(|before| same(before, &self.rows))
    }

    /// What is wrong whatever moved meanwhile: sinks of the earlier reading, sources of the later one.
    fn certain(&self) -> Vec<String> {
        let debts = matrix::debts(&self.rows);
        let mut found = matrix::availability(&self.rows);
        found.extend(matrix::of_debt(matrix::availability(&debts)));
        if let Some(before) = self.before.as_ref().filter(|before| before.len() == self.rows.len()) {
            found.extend(matrix::acceptance(before, &self.rows));
            found.extend(matrix::of_debt(matrix::acceptance(&matrix::debts(before), &debts)));
        }
        found
    }
}

/// What a step sees beside the round: this node's own row, and the others of the pool.
#[derive(Debug)]
pub(crate) struct Others<'a> {
    pub(crate) me: &'a NodeId,
    pub(crate) own: Row,
    /// Units and debt rights.
    pub(crate) minted: u64,
    pub(crate) nodes: Vec<NodeId>,
    /// Those that cannot be reached.
    pub(crate) down: Vec<NodeId>,
}

fn receipts_of(ledger: &Ledger) -> Receipts {
    let counts = ledger.counts();
    let (units, debt) = (counts.of(Right::Unit), counts.of(Right::Debt));
    Receipts { sold: units.consumed + debt.consumed, returned: units.returned + debt.returned }
}

fn same(one: &Rows, other: &Rows) -> bool {
    let versions =
        |rows: &Rows| rows.iter().map(|(n, row)| (n.clone(), row.version)).collect::<BTreeMap<_, _>>();
    versions(one) == versions(other)
}

fn clamped(drift: i128) -> i64 {
    i64::try_from(drift).unwrap_or(if drift < 0 { i64::MIN } else { i64::MAX })
}
