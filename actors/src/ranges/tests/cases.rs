//! Leases, reads and closed timestamps, case by case.

use std::convert::Infallible;
use std::time::Duration;

use rhumb_core::effects::Release;
use rhumb_core::{Barrier, Effects, Epoch, Guarantee, HybridTime, NodeId, StoreId};
use rhumb_storage::mvcc::{KeyspaceId, Record, Snapshot, UserKey};
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store, keys};

use crate::ranges::support::{Said, Support, SupportMessage};
use crate::ranges::{
    Ask, Body, Command, Condition, Consistency, Descriptor, Elsewhere, Moment, Op, Outcome, RangeId,
    RangeRefusal, RangeReplica, RangeSettings, ReplicaId, Seat, Token, Witness,
};

pub(super) const SECOND: u64 = 1_000;

pub(super) fn at(ms: u64) -> HybridTime {
    HybridTime::new(100_000 + ms, 0)
}

pub(super) fn key(name: &str) -> UserKey {
    UserKey::new(name).expect("short")
}

pub(super) fn seat(number: u64) -> Seat {
    let node = NodeId::new(["us", "eu", "ap"][number as usize % 3], "n1").expect("valid");
    Seat { replica: ReplicaId(number), node, store: StoreId(u128::from(number)), votes: true }
}

/// One replica with its rows.
pub(super) struct Case {
    pub(super) replica: RangeReplica,
    pub(super) store: Store<MemoryEngine>,
    index: u64,
}

impl Case {
    pub(super) fn of(number: u64) -> Self {
        let descriptor = Descriptor {
            range: RangeId(1),
            keyspace: KeyspaceId(1),
            from: key(""),
            to: None,
            seats: (0..3).map(seat).collect(),
        };
        let replica = RangeReplica::new(RangeSettings::default(), ReplicaId(number), descriptor);
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("an empty disk opens");
        Self { replica, store, index: 0 }
    }

    /// Replica 0, which took the lease at 0 and has support for long.
    pub(super) fn leaseholder() -> Self {
        let mut case = Self::of(0);
        let lease = case.replica.take_lease(&moment(0), StoreId(0), &[]).expect("it is nobody's");
        assert_eq!(case.apply(&lease), Outcome::Leased(ReplicaId(0)));
        case
    }

    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        self.applied(command).0
    }

    pub(super) fn applied(&mut self, command: &Command) -> (Outcome, Option<RangeReplica>) {
        self.index += 1;
        let mut out = Effects::<Batch, Infallible>::default();
        let done =
            self.replica.apply(&self.store, self.index, command, &mut out).expect("the rows are sound");
        let mut all = Batch::new();
        let mut barrier = Barrier::default();
        barrier.absorb(&mut out, |release| {
            let Release::Persist(_, batch) = release;
            all.merge(batch);
        });
        self.replica.write(&mut all);
        if let Some(right) = &done.1 {
            right.write(&mut all);
        }
        self.store.write(&all).expect("memory takes it");
        done
    }

    pub(super) fn read(
        &self,
        moment: &Moment,
        ask: Ask,
    ) -> Result<(Option<HybridTime>, Guarantee, Duration), Elsewhere> {
        let name = ask.from.clone();
        let reading = self.replica.begin(moment, Epoch(0), ask)?;
        let snapshot = Snapshot::new(&self.store, KeyspaceId(1), reading.at, reading.threshold);
        let found = snapshot.expect("not collected").get(&name).expect("sound");
        let answer = self.replica.finish(moment, Epoch(0), reading, found.map(|version| version.at))?;
        Ok((answer.value, answer.level, answer.age))
    }
}

/// So many milliseconds in, with support for three seconds more.
pub(super) fn moment(ms: u64) -> Moment {
    Moment { now: at(ms), passed: at(ms), frozen: false, epoch: Epoch(1), supported: at(ms + 3 * SECOND) }
}

pub(super) fn put(name: &str) -> Vec<Op> {
    vec![Op { key: key(name), condition: None, record: Record::put("x") }]
}

pub(super) fn ask(name: &str, consistency: Consistency) -> Ask {
    Ask { from: key(name), to: None, consistency, token: None, nearest_only: false, fallback: false }
}

pub(super) fn refused<T: std::fmt::Debug>(outcome: Result<T, Elsewhere>) -> RangeRefusal {
    match outcome {
        Err(Elsewhere::Refused(refusal)) => refusal,
        other => panic!("refused, not {other:?}"),
    }
}

#[test]
fn the_leaseholder_reads_what_it_has_written() {
    let mut case = Case::leaseholder();
    let write = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    assert_eq!(case.apply(&write), Outcome::Written(at(10)));
    let read = case.read(&moment(20), ask("a", Consistency::Strong)).expect("served");
    assert_eq!(read, (Some(at(10)), Guarantee::StrictSerializable, Duration::ZERO));
}

#[test]
fn a_lease_ends_before_its_support_by_as_much_as_clocks_may_differ() {
    let case = Case::leaseholder();
    let ends = Moment { supported: at(3 * SECOND), ..moment(2_499) };
    assert!(case.replica.permit(&ends).is_ok());
    let stasis = Moment { now: at(2_500), passed: at(2_500), ..ends };
    assert_eq!(case.replica.permit(&stasis), Err(RangeRefusal::LeaseNotInForce));
    let stands = Moment { now: at(2_000), ..stasis };
    assert_eq!(case.replica.permit(&stands), Err(RangeRefusal::LeaseNotInForce), "hybrid time stands still");
    assert_eq!(case.replica.permit(&Moment { frozen: true, ..ends }), Err(RangeRefusal::Frozen));
    let reborn = Moment { epoch: Epoch(2), ..ends };
    assert_eq!(
        case.replica.permit(&reborn),
        Err(RangeRefusal::NotLeaseholder(None)),
        "another life of the store"
    );
}

#[test]
fn a_read_that_took_too_long_is_no_answer() {
    let case = Case::leaseholder();
    let reading = case.replica.begin(&moment(10), Epoch(0), ask("a", Consistency::Strong)).expect("begins");
    let late = Moment { now: at(4 * SECOND), passed: at(4 * SECOND), ..moment(10) };
    let ended = case.replica.finish(&late, Epoch(0), reading, ());
    assert_eq!(refused(ended), RangeRefusal::LeaseNotInForce);
    let reading = case.replica.begin(&moment(10), Epoch(0), ask("a", Consistency::Strong)).expect("begins");
    let ended = case.replica.finish(&Moment { now: at(11), ..late }, Epoch(0), reading, ());
    assert_eq!(refused(ended), RangeRefusal::LeaseNotInForce, "hybrid time stood still");
    // The lease may be in force still, and the answer older than its bound.
    let bounded = ask("a", Consistency::Bounded(Duration::from_millis(300)));
    let finish = |ms| {
        let reading = case.replica.begin(&moment(10), Epoch(0), bounded.clone()).expect("begins");
        case.replica.finish(&moment(ms), Epoch(0), reading, ())
    };
    assert!(finish(310).is_ok());
    assert!(matches!(refused(finish(311)), RangeRefusal::StalenessBoundViolated { bound_ms: 300, .. }));
}

#[cfg(feature = "canaries")]
#[test]
fn an_answer_to_a_read_that_took_too_long_is_noticed() {
    use rhumb_core::canary::{self, Canary};

    for bug in [Canary::LateAnswer, Canary::LateBound] {
        canary::let_out(Some(bug));
        let noticed = std::panic::catch_unwind(a_read_that_took_too_long_is_no_answer).is_err();
        canary::let_out(None);
        assert!(noticed, "{}", bug.name());
    }
}

#[test]
fn a_successor_needs_a_quorum_that_has_withdrawn_and_begins_above_what_it_promised() {
    let mut case = Case::of(1);
    let first = Case::of(0).replica.take_lease(&moment(0), StoreId(0), &[]).expect("it is nobody's");
    assert_eq!(case.apply(&first), Outcome::Leased(ReplicaId(0)));
    let witness = |by, until| Witness { by: StoreId(by), of: StoreId(0), epoch: Epoch(1), until: at(until) };
    let now = moment(4 * SECOND);
    let take = |witnesses: &[Witness]| case.replica.take_lease(&now, StoreId(1), witnesses);
    assert_eq!(take(&[]), Err(RangeRefusal::HolderIsSupported));
    assert_eq!(
        take(&[witness(1, 3_000), witness(1, 3_000)]),
        Err(RangeRefusal::HolderIsSupported),
        "one, twice"
    );
    assert_eq!(
        take(&[witness(1, 3_000), witness(9, 3_000)]),
        Err(RangeRefusal::HolderIsSupported),
        "no voter"
    );
    let old = Witness { epoch: Epoch(0), ..witness(2, 3_000) };
    assert_eq!(take(&[witness(1, 3_000), old]), Err(RangeRefusal::HolderIsSupported), "of an earlier epoch");
    let alone = Moment { supported: at(4_500), ..now };
    let both = [witness(1, 3_000), witness(2, 4_400)];
    assert_eq!(case.replica.take_lease(&alone, StoreId(1), &both), Err(RangeRefusal::LeaseNotInForce));
    let command = take(&both).expect("a quorum");
    assert!(matches!(command.body, Body::Lease(lease) if lease.start == at(4_400) && lease.seq == 2));
    assert_eq!(case.apply(&command), Outcome::Leased(ReplicaId(1)));
    assert_eq!(case.replica.permit(&now), Err(RangeRefusal::LeaseNotInForce), "not before its start");
    assert!(case.replica.permit(&moment(4_401)).is_ok());
}

#[test]
fn what_was_proposed_under_another_lease_is_void() {
    let mut case = Case::leaseholder();
    let late = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    let renewed = case.replica.take_lease(&moment(20), StoreId(0), &[]).expect("renews");
    case.apply(&renewed);
    assert_eq!(case.apply(&late), Outcome::StaleLease(2));
    assert_eq!(case.read(&moment(30), ask("a", Consistency::Strong)).expect("served").0, None);
}

#[test]
fn what_was_overtaken_is_void() {
    let mut case = Case::leaseholder();
    let first = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    let second = case.replica.propose_write(&moment(20), put("b")).expect("it holds the lease");
    assert_eq!(case.apply(&second), Outcome::Written(at(20)));
    assert_eq!(case.apply(&first), Outcome::Overtaken);
}

#[test]
fn who_gives_the_lease_away_serves_no_more() {
    let mut case = Case::leaseholder();
    let given =
        case.replica.transfer_lease(&moment(10), ReplicaId(1), StoreId(1), Epoch(7)).expect("its own");
    assert_eq!(refused(case.read(&moment(11), ask("a", Consistency::Strong))), RangeRefusal::Transferring);
    case.apply(&given);
    let Err(Elsewhere::Leaseholder(seat)) = case.read(&moment(12), ask("a", Consistency::Strong)) else {
        panic!("passed on")
    };
    assert_eq!(seat.replica, ReplicaId(1));
}

#[test]
fn conditions_are_held_against_what_is_applied() {
    let mut case = Case::leaseholder();
    let op = |condition| vec![Op { condition: Some(condition), ..put("a").remove(0) }];
    let mut write = |ms, ops| {
        let command = case.replica.propose_write(&moment(ms), ops).expect("it holds the lease");
        case.apply(&command)
    };
    assert_eq!(write(10, op(Condition::Absent)), Outcome::Written(at(10)));
    let failed = Outcome::ConditionFailed { op: 0, found: Some(at(10)) };
    assert_eq!(write(20, op(Condition::Absent)), failed);
    assert_eq!(write(30, op(Condition::Version(at(20)))), failed);
    assert_eq!(write(40, op(Condition::Version(at(10)))), Outcome::Written(at(40)));
    let both = [put("b"), op(Condition::Absent)].concat();
    assert_eq!(write(50, both), Outcome::ConditionFailed { op: 1, found: Some(at(40)) });
    assert_eq!(case.read(&moment(60), ask("b", Consistency::Strong)).expect("served").0, None, "all or none");
}

/// A follower that has applied a write at 10 and knows of nothing closed beside the log.
pub(super) fn follower() -> (Case, Case) {
    let (mut holder, mut follower) = (Case::leaseholder(), Case::of(1));
    let lease = Case::of(0).replica.take_lease(&moment(0), StoreId(0), &[]).expect("it is nobody's");
    follower.apply(&lease);
    let write = holder.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    holder.apply(&write);
    follower.apply(&write);
    (holder, follower)
}

#[test]
fn a_follower_serves_what_is_closed_and_says_how_old_it_is() {
    let (mut holder, mut follower) = follower();
    let said = holder.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    assert_eq!(said.closed, at(7 * SECOND));
    follower.replica.hear(said);
    let bounded = |seconds| ask("a", Consistency::Bounded(Duration::from_secs(seconds)));
    let (found, level, age) = follower.read(&moment(10 * SECOND), bounded(5)).expect("served here");
    assert_eq!((found, level, age), (Some(at(10)), Guarantee::Snapshot, Duration::from_secs(3)));
    // Three seconds by its clock may be three and a half in truth.
    let Err(Elsewhere::Leaseholder(seat)) = follower.read(&moment(10 * SECOND), bounded(3)) else {
        panic!("passed on")
    };
    assert_eq!(seat.replica, ReplicaId(0));
    let near = Ask { nearest_only: true, ..bounded(3) };
    let violated = RangeRefusal::StalenessBoundViolated { bound_ms: 3_000, age_ms: 3_500 };
    assert_eq!(refused(follower.read(&moment(10 * SECOND), near.clone())), violated);
    // As they would be three seconds later, if its disk had taken a higher ceiling of hybrid time.
    let stands = Moment { passed: at(13 * SECOND), ..moment(10 * SECOND) };
    let violated = RangeRefusal::StalenessBoundViolated { bound_ms: 3_000, age_ms: 6_500 };
    assert_eq!(refused(follower.read(&stands, near)), violated);
    let age = follower.read(&stands, bounded(7)).expect("served here").2;
    assert_eq!(age, Duration::from_secs(6));
    let old = follower.read(&moment(10 * SECOND), ask("a", Consistency::AsOf(at(9))));
    assert_eq!(old.expect("it is closed").0, None, "before the write");
}

#[test]
fn a_read_of_a_replica_that_left_meanwhile_is_refused() {
    let (mut holder, mut follower) = follower();
    follower.replica.hear(holder.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle"));
    let read = ask("a", Consistency::AsOf(at(11)));
    let begun = follower.replica.begin(&moment(10 * SECOND), Epoch(0), read.clone()).expect("it is closed");
    follower.replica.end();
    let finished = follower.replica.finish(&moment(10 * SECOND), Epoch(0), begun, None::<HybridTime>);
    assert_eq!(refused(finished), RangeRefusal::Removed, "its rows may have been cleared away under it");
    let again = follower.replica.begin(&moment(10 * SECOND), Epoch(0), read);
    assert_eq!(refused(again), RangeRefusal::Removed);
}

#[test]
fn what_is_closed_beside_the_log_waits_for_the_log() {
    let (mut holder, mut follower) = follower();
    let second = holder.replica.propose_write(&moment(20), put("b")).expect("it holds the lease");
    assert_eq!(holder.replica.close_beside(&moment(10 * SECOND), false), None, "something is in flight");
    holder.apply(&second);
    let said = holder.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    follower.replica.hear(said);
    assert!(follower.replica.closed() < at(20), "the follower lacks the second write");
    follower.apply(&second);
    assert_eq!(follower.replica.closed(), at(7 * SECOND));
}

#[test]
fn what_was_withdrawn_is_not_waited_for() {
    let (mut holder, mut follower) = follower();
    let lost = holder.replica.propose_write(&moment(20), put("b")).expect("it holds the lease");
    holder.replica.withdraw(lost.lease, lost.order);
    let said = holder.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    follower.replica.hear(said);
    assert_eq!((holder.replica.closed(), follower.replica.closed()), (at(7 * SECOND), at(7 * SECOND)));
    let next = holder.replica.propose_write(&moment(11 * SECOND), put("b")).expect("it holds the lease");
    assert!(next.order > lost.order, "an order stands for one proposal");
    assert_eq!(follower.apply(&next), Outcome::Written(at(11 * SECOND)));
}

#[test]
fn a_token_is_not_left_behind() {
    let (mut holder, mut follower) = follower();
    let said = holder.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    follower.replica.hear(said);
    let with = |epoch, ms| Ask {
        token: Some(Token { epoch: Epoch(epoch), at: at(ms) }),
        ..ask("a", Consistency::Bounded(Duration::from_secs(60)))
    };
    let now = moment(10 * SECOND);
    assert!(follower.read(&now, with(0, 7_000)).is_ok());
    assert!(matches!(follower.read(&now, with(0, 7_001)), Err(Elsewhere::Leaseholder(_))));
    assert_eq!(refused(follower.read(&now, with(0, 10_501))), RangeRefusal::InTheFuture(at(10_501)));
    assert_eq!(refused(follower.read(&now, with(1, 5))), RangeRefusal::LaterEpoch(Epoch(1)));
    let reading = follower.replica.begin(&now, Epoch(4), with(3, 5)).expect("an earlier epoch's");
    let answer = follower.replica.finish(&now, Epoch(4), reading, ()).expect("served");
    assert_eq!(answer.token, Token { epoch: Epoch(4), at: at(10) }, "the client learns of the epoch");
    let behind = follower.replica.begin(&now, Epoch(4), with(3, 7_001));
    assert!(matches!(behind, Err(Elsewhere::Leaseholder(_))), "its time counts all the same: {behind:?}");
}

#[test]
fn one_state_has_one_token_unless_its_values_end() {
    let mut case = Case::leaseholder();
    let token = |case: &Case, ms, consistency| {
        let now = moment(ms);
        let reading = case.replica.begin(&now, Epoch(0), ask("a", consistency)).expect("it holds the lease");
        case.replica.finish(&now, Epoch(0), reading, ()).expect("it still does").token.at
    };
    let write = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    case.apply(&write);
    assert_eq!([20, 30].map(|ms| token(&case, ms, Consistency::Strong)), [at(10); 2]);
    assert_eq!(token(&case, 30, Consistency::AsOf(at(9))), at(9), "the newest was not seen");
    let mut ends = put("b");
    ends[0].record.header.expires = Some(at(50));
    let write = case.replica.propose_write(&moment(40), ends).expect("it holds the lease");
    case.apply(&write);
    // Whoever has seen that it ended does not see it again elsewhere.
    assert_eq!([45, 60].map(|ms| token(&case, ms, Consistency::Strong)), [at(45), at(60)]);
}

#[test]
fn a_snapshot_waits_for_what_may_still_be_written_into_it() {
    let mut case = Case::leaseholder();
    let write = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    assert_eq!(refused(case.read(&moment(20), ask("a", Consistency::AsOf(at(15))))), RangeRefusal::InFlight);
    assert!(case.read(&moment(20), ask("a", Consistency::AsOf(at(5)))).is_ok());
    case.apply(&write);
    let (read, _, age) = case.read(&moment(20), ask("a", Consistency::AsOf(at(15)))).expect("served");
    assert_eq!(
        (read, age),
        (Some(at(10)), Duration::from_millis(5)),
        "the leaseholder says how old it is, too"
    );
    let as_of = |ms| refused(case.read(&moment(20), ask("a", Consistency::AsOf(at(ms)))));
    // Another range's leaseholder may have a clock that is so much faster.
    assert_eq!([as_of(21), as_of(520)], [21, 520].map(|ms| RangeRefusal::Ahead(at(ms))));
    assert_eq!(as_of(521), RangeRefusal::InTheFuture(at(521)));
}

#[test]
fn a_strong_read_waits_for_what_a_follower_may_have_shown() {
    let mut case = Case::leaseholder();
    let write = case.replica.propose_write(&moment(10), put("a")).expect("it holds the lease");
    // A follower has applied the write, closed its time and shown it; the leaseholder has not come so far.
    let shown = Some(Token { epoch: Epoch(0), at: at(15) });
    let strong = || Ask { token: shown, ..ask("a", Consistency::Strong) };
    assert_eq!(refused(case.read(&moment(20), strong())), RangeRefusal::InFlight);
    assert!(
        case.read(&moment(20), ask("a", Consistency::Strong)).is_ok(),
        "who has seen nothing may be early"
    );
    case.apply(&write);
    assert_eq!(case.read(&moment(20), strong()).expect("served").0, Some(at(10)));
}

#[test]
fn nothing_is_read_below_the_threshold() {
    let mut case = Case::leaseholder();
    let old = || ask("a", Consistency::AsOf(at(4)));
    assert!(case.replica.close_beside(&moment(10 * SECOND), false).is_some(), "it is idle");
    let now = moment(10 * SECOND + 1);
    let begun = case.replica.begin(&now, Epoch(0), old()).expect("begins");
    let raise = case.replica.propose_threshold(&now, at(5)).expect("it holds the lease");
    // What is begun from now on might be collected from.
    assert_eq!(refused(case.read(&now, old())), RangeRefusal::BelowThreshold(at(5)));
    assert_eq!(case.apply(&raise), Outcome::Raised(at(5)));
    assert_eq!(refused(case.read(&now, old())), RangeRefusal::BelowThreshold(at(5)));
    let below = RangeRefusal::BelowThreshold(at(5));
    assert_eq!(refused(case.replica.finish(&now, Epoch(0), begun, ())), below);
    // As a version, which whoever reads can ask for.
    let said =
        format!("versions before {} may be collected: ask for that one or a later time", at(5).to_bits());
    assert_eq!(below.to_string(), said);
}

#[test]
fn a_split_carries_lease_and_closed_timestamp() {
    let mut case = Case::leaseholder();
    let said = case.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    let seats = (0..3).map(|n| Seat { replica: ReplicaId(10 + n), ..seat(n) }).collect();
    let split = case.replica.propose_split(&moment(10_010), key("m"), RangeId(2), seats).expect("its own");
    let (outcome, right) = case.applied(&split);
    assert_eq!(outcome, Outcome::Split(RangeId(2)));
    let mut right = right.expect("a replica of it stands here");
    assert_eq!(right.closed(), split.closed.max(said.closed));
    assert_eq!((right.id(), right.lease().holder), (ReplicaId(10), Some(ReplicaId(10))));
    let row = case.store.get(Family::Raft, &RangeReplica::row_key(RangeId(2))).expect("reads");
    let recovered = RangeReplica::recover(RangeSettings::default(), &row.expect("of the same batch"));
    assert_eq!(recovered.expect("sound").applied(), right.applied());
    let now = moment(10_020);
    assert_eq!(case.replica.propose_write(&now, put("z")), Err(RangeRefusal::Outside));
    assert_eq!(refused(case.read(&now, ask("z", Consistency::Strong))), RangeRefusal::Outside);
    assert!(right.propose_write(&now, put("z")).is_ok());
    assert_eq!(right.propose_write(&now, put("a")), Err(RangeRefusal::Outside));
}

#[test]
fn seats_change_by_one_voter_and_give_the_lease_a_new_number() {
    let mut case = Case::leaseholder();
    let here = case.replica.descriptor().seats.clone();
    let seats = |votes: &[(u64, bool)]| -> Vec<Seat> {
        votes.iter().map(|(number, votes)| Seat { votes: *votes, ..seat(*number) }).collect()
    };
    let all: Vec<(u64, bool)> = here.iter().map(|seat| (seat.replica.0, seat.votes)).collect();
    for refused in [
        vec![(0, true), (1, false), (2, false)],
        vec![(0, false), (1, true), (2, true)],
        vec![(0, true), (1, true), (1, true)],
    ] {
        let command = case.replica.propose_reseat(&moment(10), seats(&refused)).expect("its own");
        assert_eq!(case.apply(&command), Outcome::NotSeated, "{refused:?}");
        assert_eq!(case.replica.descriptor().seats, here);
    }
    let said = case.replica.close_beside(&moment(10 * SECOND), false).expect("it is idle");
    let early = case.replica.propose_write(&moment(10_010), put("a")).expect("its own");
    let number = case.replica.lease().seq;
    let more = all.iter().copied().chain([(3, true)]).collect::<Vec<_>>();
    let command = case.replica.propose_reseat(&moment(10_020), seats(&more)).expect("its own");
    assert_eq!(case.apply(&command), Outcome::Reseated);
    assert_eq!(
        (case.replica.lease().seq, case.replica.descriptor().stores().len()),
        (number + 1, all.len() + 1)
    );
    // What was proposed by who did not know of it is void, and so is a lease taken by who does not know who votes.
    assert_eq!(case.apply(&early), Outcome::StaleLease(number + 1));
    // What was closed stays closed.
    let late = case.replica.propose_write(&moment(10_030), put("a")).expect("the lease goes on");
    assert!(late.closed >= said.closed);
    assert_eq!(case.apply(&late), Outcome::Written(at(10_030)));
}

#[test]
fn a_damaged_row_is_refused() {
    let case = Case::leaseholder();
    let row =
        case.store.get(Family::Raft, &RangeReplica::row_key(RangeId(1))).expect("reads").expect("is there");
    for cut in 0..row.len() {
        assert!(RangeReplica::recover(RangeSettings::default(), &row[..cut]).is_err(), "cut at {cut}");
    }
}

// ---- support ---------------------------------------------------------------------------------------

#[test]
fn a_disk_stands_still_that_has_not_taken_a_beat_for_as_long_as_support_lasts() {
    let (beat, me) = (Duration::from_secs(1), StoreId(1));
    let (mut support, mut out) = begun(Vec::new());
    // Hybrid time stands still, too: nobody counts by that.
    let beats = |support: &mut Support, out: &mut Effects<Batch, Said>, count: usize| -> Vec<bool> {
        let look = |_| {
            support.beat(at(0), [me], out);
            support.disk_stands(beat)
        };
        (0..count).map(look).collect()
    };
    assert!(!support.disk_stands(beat), "it has not asked for anything yet");
    assert_eq!(beats(&mut support, &mut out, 5), [false, false, false, true, true]);
    let answer = SupportMessage::Supported { epoch: Epoch(1), until: at(3_000) };
    support.heard(at(0), StoreId(2), answer, &mut out);
    assert!(support.disk_stands(beat), "another store's answer says nothing of this one's disk");
    support.heard(at(0), me, answer, &mut out);
    assert!(!support.disk_stands(beat));
    assert_eq!(beats(&mut support, &mut out, 4), [false, false, false, true]);
    support.heard(at(0), me, SupportMessage::Withdrawn { epoch: Epoch(1) }, &mut out);
    assert!(!support.disk_stands(beat), "a refusal is an answer");
}

fn begun(rows: Vec<(Vec<u8>, Vec<u8>)>) -> (Support, Effects<Batch, Said>) {
    let mut out = Effects::default();
    let support = Support::begin(StoreId(1), Duration::from_secs(3), rows, &mut out).expect("sound rows");
    (support, out)
}

/// Writes what was pushed, and gives what is said then.
fn told(out: &mut Effects<Batch, Said>, store: &Store<MemoryEngine>) -> Vec<Said> {
    let (mut barrier, mut said, mut tickets) = (Barrier::default(), Vec::new(), Vec::new());
    barrier.absorb(out, |release| match release {
        Release::Persist(ticket, batch) => {
            store.write(&batch).expect("memory takes it");
            tickets.push(ticket);
        }
        Release::Perform(what) => said.push(what),
    });
    assert!(tickets.is_empty() || said.is_empty(), "nothing is said before it is durable");
    tickets.into_iter().for_each(|ticket| barrier.durable(ticket, |what| said.push(what)));
    said
}

fn rows(store: &Store<MemoryEngine>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let scanned = store.scan(Family::Meta, keys::SUPPORT, |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    });
    scanned.expect("memory scans");
    rows
}

#[test]
fn support_is_promised_durably_and_kept_over_restarts() {
    let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("an empty disk opens");
    let (mut support, mut out) = begun(Vec::new());
    let beat = |epoch, until| SupportMessage::Beat { epoch: Epoch(epoch), until: at(until) };
    support.heard(at(0), StoreId(5), beat(1, 3_000), &mut out);
    let supported = SupportMessage::Supported { epoch: Epoch(1), until: at(3_000) };
    assert_eq!(told(&mut out, &store), [(StoreId(5), supported)]);
    let (mut support, mut out) = begun(rows(&store));
    assert_eq!(support.epoch(), Epoch(2), "a life has a higher epoch");
    let asks = SupportMessage::Withdraw { of: StoreId(5), epoch: Epoch(1) };
    support.heard(at(3_000), StoreId(9), asks, &mut out);
    assert_eq!(told(&mut out, &store), [], "it is promised still");
    support.heard(at(3_001), StoreId(9), asks, &mut out);
    let witness = Witness { by: StoreId(1), of: StoreId(5), epoch: Epoch(1), until: at(3_000) };
    assert_eq!(told(&mut out, &store), [(StoreId(9), SupportMessage::Witness(witness))]);
    let (mut support, mut out) = begun(rows(&store));
    support.heard(at(0), StoreId(5), beat(1, 9_000), &mut out);
    let withdrawn = SupportMessage::Withdrawn { epoch: Epoch(2) };
    assert_eq!(told(&mut out, &store), [(StoreId(5), withdrawn)], "never that epoch again");
}

#[test]
fn a_store_believes_what_others_withdrew_only_of_themselves() {
    let (mut support, mut out) = begun(Vec::new());
    let witness = |by, epoch| Witness { by: StoreId(by), of: StoreId(5), epoch: Epoch(epoch), until: at(9) };
    let mut hears = |from, said| {
        support.heard(at(0), StoreId(from), SupportMessage::Witness(said), &mut out);
        support.witnesses(StoreId(5))
    };
    assert_eq!(hears(2, witness(3, 1)), []);
    assert_eq!(hears(2, witness(2, 2)), [witness(2, 2)]);
    assert_eq!(hears(2, witness(2, 1)), [witness(2, 2)], "an older word");
    assert_eq!(hears(3, witness(3, 1)), [witness(2, 2), witness(3, 1)]);
}

#[test]
fn support_lasts_as_long_as_a_quorums() {
    let (mut support, mut out) = begun(Vec::new());
    let voters: Vec<_> = (1..4).map(StoreId).collect();
    let mut hears = |from, epoch, until| {
        let message = SupportMessage::Supported { epoch: Epoch(epoch), until: at(until) };
        support.heard(at(0), StoreId(from), message, &mut out);
        support.until(&voters)
    };
    assert_eq!(hears(1, 1, 5_000), HybridTime::ZERO, "one of three");
    assert_eq!(hears(2, 1, 3_000), at(3_000));
    assert_eq!(hears(3, 1, 4_000), at(4_000));
    assert_eq!(hears(3, 1, 2_000), at(4_000), "an older word");
    assert_eq!(hears(2, 0, 9_000), at(4_000), "of an earlier life");
    support.heard(at(0), StoreId(3), SupportMessage::Withdrawn { epoch: Epoch(4) }, &mut out);
    assert_eq!((support.epoch(), support.until(&voters)), (Epoch(4), HybridTime::ZERO));
}
