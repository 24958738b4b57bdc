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
use rhumb_core::{Mono, NodeId, PoolName};
use sha2::{Digest, Sha256};

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
    /// Where in a period this pool's turn is, in parts of 2³²: pools that a node begins with at once are
    /// not all reconciled at once.
    phase: u32,
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
            phase: phase_of(ledger.name()),
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

    /// Begins one if it is time to, ends one that has waited too long. The first begins within a period
    /// after this node has come to do it.
    pub(crate) fn tick(&mut self, now: Mono, every: Duration, rest: &Others<'_>) -> Then {
        let Some(next) = self.next else {
            self.next = Some(now.plus(self.turn(every)));
            return Then::Wait;
        };
        if let Some(round) = &self.round {
            return if round.until <= now { self.conclude(now, rest) } else { Then::Wait };
        }
        // A shorter period counts at once.
        let next = if next > now.plus(every) { now.plus(self.turn(every)) } else { next };
        self.next = Some(next);
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

    /// When in a period this pool's turn is.
    fn turn(&self, every: Duration) -> Duration {
        let ms = (every.as_millis() * (u128::from(self.phase) + 1)) >> 32;
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
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
        let deaf = canary::sings(Canary::ReconcileBlind) && round.before.is_some();
        if round.rows.contains_key(from) || deaf {
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

fn phase_of(name: &PoolName) -> u32 {
    let hash = Sha256::digest(format!("rhumb-reconcile-v1\n{name}"));
    u32::from_be_bytes(hash[..4].try_into().expect("4 of 32 bytes"))
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

#[cfg(test)]
mod tests {
    use rhumb_core::{DataClass, HybridTime, Incarnation};

    use super::*;
    use crate::escrow::messages::Durability;
    use crate::escrow::records::{PoolMore, PoolRow};

    const EVERY: Duration = Duration::from_secs(30);

    fn node(region: &str) -> NodeId {
        NodeId::new(region, "n1").expect("valid")
    }

    fn ledger() -> Ledger {
        let row = PoolRow {
            class: DataClass::control(),
            supply: 100,
            weights: BTreeMap::new(),
            created: HybridTime::ZERO,
            body: None,
            durability: Durability::Local,
            debt_ceiling: 0,
            more: PoolMore::default(),
        };
        Ledger::new(
            PoolName::new("concert").expect("valid"),
            row,
            vec![node("ap"), node("eu")],
            Incarnation(1),
        )
    }

    /// A home that has granted so much to ap, which has accepted so much and granted some of it to eu.
    struct Story {
        machine: Reconciliation,
        own: Row,
        now: Mono,
    }

    fn row(version: u64, standing: Standing) -> Row {
        Row { version, standing, ..Row::default() }
    }

    fn minted(version: u64) -> Row {
        Row { minted: 100, available: 100, ..row(version, Standing::Proven) }
    }

    fn holds(version: u64, accepted: &[(&str, u64)], granted: &[(&str, u64)]) -> Row {
        let of =
            |all: &[(&str, u64)]| all.iter().map(|(name, n)| (node(name), *n)).collect::<BTreeMap<_, _>>();
        let (accepted, granted) = (of(accepted), of(granted));
        let available = accepted.values().sum::<u64>() - granted.values().sum::<u64>();
        Row { accepted, granted, available, ..row(version, Standing::Proven) }
    }

    impl Story {
        fn begun() -> Self {
            let mut story =
                Self { machine: Reconciliation::new(&ledger()), own: minted(1), now: Mono::millis(0) };
            assert_eq!(story.tick(), Then::Wait, "the first begins a period later");
            story.now = story.now.plus(EVERY);
            assert_eq!(story.tick(), Then::Read(1));
            story
        }

        fn with<T>(&mut self, step: impl FnOnce(&mut Reconciliation, Mono, &Others<'_>) -> T) -> T {
            let me = node("us");
            let nodes = vec![node("ap"), node("eu")];
            let others = Others { me: &me, own: self.own.clone(), minted: 100, nodes, down: Vec::new() };
            step(&mut self.machine, self.now, &others)
        }

        fn tick(&mut self) -> Then {
            self.with(|machine, now, others| machine.tick(now, EVERY, others))
        }

        fn row(&mut self, from: &str, number: u64, row: Row) -> Then {
            let answered = Answered::Row(Box::new(row));
            self.with(|machine, now, others| machine.read_row(now, &node(from), number, answered, others))
        }

        fn last(&self) -> Reconciled {
            self.machine.last(self.now).expect("one is over")
        }
    }

    #[test]
    fn a_row_that_moved_between_two_readings_is_no_alarm() {
        // Ap grants eu 30 of its 40 after its row was read, and eu has accepted them before its own is.
        let mut story = Story::begun();
        story.own = Row { granted: [(node("ap"), 40)].into(), available: 60, ..minted(2) };
        assert_eq!(story.row("ap", 1, holds(5, &[("us", 40)], &[])), Then::Wait);
        assert_eq!(story.row("eu", 1, holds(8, &[("ap", 30)], &[])), Then::Read(2));
        assert_eq!(story.row("ap", 2, holds(6, &[("us", 40)], &[("eu", 30)])), Then::Wait);
        assert_eq!(story.row("eu", 2, holds(8, &[("ap", 30)], &[])), Then::Read(3), "ap has moved");
        assert_eq!(story.row("eu", 3, holds(8, &[("ap", 30)], &[])), Then::Wait);
        assert_eq!(story.row("ap", 3, holds(6, &[("us", 40)], &[("eu", 30)])), Then::Wait);
        assert_eq!((story.last().drift, story.last().readings), (Some(0), 3));
    }

    #[test]
    #[cfg(feature = "canaries")]
    fn torn_rows_that_are_taken_for_exact_are_noticed() {
        canary::let_out(Some(Canary::TornReadIsExact));
        let mut story = Story::begun();
        story.own = Row { granted: [(node("ap"), 40)].into(), available: 60, ..minted(2) };
        story.row("ap", 1, holds(5, &[("us", 40)], &[]));
        let then = story.row("eu", 1, holds(8, &[("ap", 30)], &[]));
        canary::let_out(None);
        assert!(matches!(then, Then::Alarm(found) if found.drift == Some(30)));
    }

    #[test]
    fn more_accepted_than_granted_is_an_alarm_whatever_moves() {
        let mut story = Story::begun();
        for number in 1..=4 {
            story.row("ap", number, holds(5 + number, &[], &[]));
            assert_eq!(story.row("eu", number, holds(8, &[("ap", 30)], &[])), Then::Read(number + 1));
        }
        story.row("ap", 5, holds(10, &[], &[]));
        let Then::Alarm(found) = story.row("eu", 5, holds(8, &[("ap", 30)], &[])) else { panic!("an alarm") };
        assert_eq!((found.exact, found.drift), (false, None), "ap never rested");
        assert_eq!(found.violations, ["I2: eu/n1 accepted 30 from ap/n1, which granted it 0"]);
        assert_eq!(story.machine.counts().alarms, 1);
    }

    #[test]
    fn an_answer_that_is_late_double_or_missing_is_not_taken_for_another() {
        let mut story = Story::begun();
        assert_eq!(story.row("ap", 1, row(5, Standing::Proven)), Then::Wait);
        assert_eq!(story.row("ap", 1, row(6, Standing::Proven)), Then::Wait, "the first counts");
        assert_eq!(story.row("ap", 7, row(7, Standing::Proven)), Then::Wait, "of another reading");
        story.now = story.now.plus(READ_WITHIN);
        assert_eq!(story.tick(), Then::Wait);
        assert_eq!((story.last().exact, story.last().missing), (false, vec![node("eu")]));
        assert_eq!(story.row("eu", 1, row(8, Standing::Proven)), Then::Wait, "too late");
        story.now = story.now.plus(EVERY);
        assert_eq!(story.tick(), Then::Read(2));
        assert_eq!(story.row("eu", 2, row(8, Standing::Restored)), Then::Wait);
        assert_eq!(story.last().missing, vec![node("eu")], "it does not know whether its row is true");
    }

    #[test]
    fn another_period_counts_at_once() {
        let mut story = Story::begun();
        story.now = story.now.plus(READ_WITHIN);
        story.tick();
        let short = Duration::from_secs(3);
        assert!(story.machine.is_due(story.now, short));
        assert_eq!(story.with(|machine, now, others| machine.tick(now, short, others)), Then::Wait);
        let next = story.machine.next_deadline().expect("there is one");
        assert!((story.now..=story.now.plus(short)).contains(&next), "within the shorter period");
        assert!(!story.machine.is_due(story.now, short));
    }

    #[test]
    fn pools_of_one_node_are_not_all_reconciled_at_once() {
        let phases = (0..100).map(|n| phase_of(&PoolName::new(&format!("concert-{n}")).expect("valid")));
        let of = |phase| Reconciliation { phase, ..Reconciliation::new(&ledger()) }.turn(EVERY);
        let mut turns: Vec<Duration> = phases.map(of).collect();
        turns.sort();
        assert!(turns[99] <= EVERY, "each within a period");
        let gap = turns.windows(2).map(|pair| pair[1] - pair[0]).max().expect("there are pairs");
        assert!(gap < EVERY / 10 && turns[0] < EVERY / 10 && turns[99] > EVERY * 9 / 10, "{turns:?}");
    }
}
