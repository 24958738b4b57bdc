//! Thresholds and collection, case by case.

use std::time::Duration;

use rhumb_core::{Epoch, HybridTime};
use rhumb_storage::mvcc::{KeyspaceId, Record, VersionKey};
use rhumb_storage::{Batch, Family};

use super::cases::{Case, SECOND, ask, at, key, moment, put, refused, seat};
use crate::ranges::collect::{Lagging, Part, Positions, Progress};
use crate::ranges::{Consistency, Moment, Op, Outcome, RangeId, RangeRefusal, RangeReplica, ReplicaId, Seat};

const RETENTION: Duration = Duration::from_secs(100);

fn op(name: &str, record: Record) -> Vec<Op> {
    vec![Op { key: key(name), condition: None, record }]
}

impl Case {
    fn write(&mut self, ms: u64, ops: Vec<Op>) {
        let command = self.replica.propose_write(&moment(ms), ops).expect("it holds the lease");
        assert_eq!(self.apply(&command), Outcome::Written(at(ms)));
    }

    /// Closes what can be closed, and gives the threshold that is due.
    fn due(&mut self, ms: u64, lagging: &[HybridTime]) -> Option<HybridTime> {
        let _ = self.replica.close_beside(&moment(ms), false);
        self.replica.threshold_due(&moment(ms + 1), RETENTION, lagging)
    }

    fn raise(&mut self, ms: u64, threshold: HybridTime) {
        let _ = self.replica.close_beside(&moment(ms), false);
        let command = self.replica.propose_threshold(&moment(ms + 1), threshold).expect("it holds the lease");
        assert_eq!(self.apply(&command), Outcome::Raised(threshold));
    }

    /// Collects all there is, so much in a step; the steps that it took.
    fn collect(&mut self, limit: usize) -> usize {
        let (range, mut steps) = (RangeId(1), 0);
        loop {
            let row = self.store.get(Family::Raft, &Progress::row_key(range)).expect("memory reads");
            let mut progress = row.map_or_else(Progress::default, |row| Progress::read(&row).expect("sound"));
            let Some(step) = progress.step(&self.replica) else { return steps };
            let garbage = step.look(&self.store, limit).expect("the rows are sound");
            let mut batch = Batch::new();
            progress.stepped(range, &step, garbage, &mut batch);
            self.store.write(&batch).expect("memory takes it");
            steps += 1;
        }
    }

    /// The versions that are there.
    fn versions(&self) -> Vec<(String, u64)> {
        let mut versions = Vec::new();
        let walked = self.store.walk(Family::Mvcc, b"", |row, _| {
            let version = VersionKey::decode(row).expect("a version");
            let name = String::from_utf8_lossy(version.key.as_bytes()).into_owned();
            versions.push((name, version.at.millis() - at(0).millis()));
            true
        });
        walked.expect("memory walks");
        versions
    }

    /// All rows, as a part of a state's.
    fn part(&self, threshold: HybridTime) -> Part {
        let mut rows = Vec::new();
        let walked = self.store.walk(Family::Mvcc, b"", |row, value| {
            rows.push((row.to_vec(), value.to_vec()));
            true
        });
        walked.expect("memory walks");
        Part { from: first("", u64::MAX), to: None, threshold, rows }
    }

    fn receive(&mut self, part: Part) {
        let batch = part.received(&self.store, &self.replica).expect("sound");
        self.store.write(&batch).expect("memory takes it");
    }
}

/// Where a key's versions of this time stand.
fn first(name: &str, bits: u64) -> Vec<u8> {
    VersionKey { keyspace: KeyspaceId(1), key: key(name), at: HybridTime::from_bits(bits) }.encode()
}

fn named<const N: usize>(versions: [(&str, u64); N]) -> Vec<(String, u64)> {
    versions.map(|(name, ms)| (name.to_owned(), ms)).to_vec()
}

#[test]
fn an_expired_value_is_absent_at_every_level_and_collected() {
    let mut case = Case::leaseholder();
    let mut ends = Record::put("x");
    ends.header.expires = Some(at(5_000));
    case.write(10, op("a", Record::put("before")));
    case.write(20, op("a", ends));
    let levels = |now: u64| {
        let bounded = Consistency::Bounded(Duration::from_secs(10));
        [Consistency::Strong, bounded, Consistency::Eventual, Consistency::AsOf(at(now - 4_000))]
    };
    // By each level's own time: what is closed is three seconds behind.
    for (now, is_there) in [(4_000, true), (9_001, false)] {
        let _ = case.replica.close_beside(&moment(now), false);
        for level in levels(now) {
            let (found, ..) = case.read(&moment(now + 1), ask("a", level)).expect("served");
            let old = matches!(level, Consistency::AsOf(at) if at < super::cases::at(10));
            assert_eq!(found.is_some(), is_there && !old, "{level:?} at {now}");
        }
    }
    // Nothing is written any more, and it is collected all the same.
    let due = case.due(110 * SECOND, &[]).expect("it has expired meanwhile");
    assert!(due > at(5_000), "{due}");
    case.raise(110 * SECOND, due);
    case.collect(10);
    assert_eq!(case.versions(), []);
    assert_eq!(case.due(500 * SECOND, &[]), None, "there is nothing left to expire");
}

#[test]
fn a_threshold_rises_rarely_and_only_where_something_was_written() {
    let mut case = Case::leaseholder();
    assert_eq!(case.due(1_000 * SECOND, &[]), None, "nothing was written");
    case.write(1_001 * SECOND, put("a"));
    assert_eq!(case.due(1_050 * SECOND, &[]), Some(at(1_050 * SECOND + 1 - 500 - 100 * SECOND)));
    case.raise(1_050 * SECOND, at(949 * SECOND));
    assert_eq!(case.due(1_055 * SECOND, &[]), None, "by less than a tenth of the retention");
    let due = case.due(1_103 * SECOND, &[]).expect("by more");
    case.raise(1_103 * SECOND, due);
    assert!(due > at(1_001 * SECOND));
    assert_eq!(case.due(2_000 * SECOND, &[]), None, "nothing was written since");
    case.write(2_001 * SECOND, put("a"));
    let now = moment(2_200 * SECOND);
    let reborn = Moment { epoch: Epoch(9), ..now };
    assert_eq!(case.replica.threshold_due(&reborn, RETENTION, &[]), None, "the lease is not in force");
    assert!(case.replica.threshold_due(&now, RETENTION, &[]).is_some());
}

#[test]
fn readers_and_replicas_that_lag_hold_the_threshold_back() {
    let mut case = Case::leaseholder();
    case.write(SECOND, put("a"));
    let now = 1_000 * SECOND;
    let free = case.due(now, &[]).expect("nobody holds it");
    assert_eq!(free, at(now + 1 - 500 - 100 * SECOND));
    let reader = case.replica.in_use().reads(at(500 * SECOND));
    let other = case.replica.in_use().reads(at(500 * SECOND));
    assert_eq!(case.due(now, &[]), Some(at(500 * SECOND)));
    drop(reader);
    assert_eq!(case.due(now, &[]), Some(at(500 * SECOND)), "another one reads there");
    drop(other);
    assert_eq!(case.due(now, &[at(300 * SECOND), at(800 * SECOND)]), Some(at(300 * SECOND)));
    assert_eq!(case.due(now, &[]), Some(free));
    // What was said to be given up is not read any more, before it is so in the log.
    let _raise = case.replica.propose_threshold(&moment(now + 1), free).expect("it holds the lease");
    let old = case.read(&moment(now + 2), ask("a", Consistency::AsOf(at(500 * SECOND))));
    assert_eq!(refused(old), RangeRefusal::BelowThreshold(free));
}

#[test]
fn a_replica_that_lags_is_waited_for_no_longer_than_two_retentions() {
    let (one, two) = (ReplicaId(1), ReplicaId(2));
    let mut lagging = Lagging::default();
    let mut looked = |seconds: u64, first, has: [(ReplicaId, Option<u64>); 2]| {
        lagging.looked(at(seconds * SECOND), RETENTION, &Positions { first, has: has.to_vec() })
    };
    assert_eq!(looked(1_000, 0, [(one, Some(9)), (two, None)]), [], "the log has all");
    assert_eq!(looked(1_010, 10, [(one, Some(9)), (two, None)]), [at(1_000 * SECOND)]);
    assert_eq!(looked(1_020, 11, [(one, Some(9)), (two, Some(10))]), [at(1_010 * SECOND)]);
    let long = looked(1_500, 11, [(one, Some(9)), (two, Some(10))]);
    assert_eq!(long, [at(1_300 * SECOND)], "no longer");
    assert_eq!(looked(1_510, 11, [(one, Some(10)), (two, Some(10))]), []);
}

#[test]
fn a_round_goes_on_where_it_was() {
    let mut case = Case::leaseholder();
    for begun in [10, 20] {
        for (number, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
            case.write(begun + number as u64, put(name));
        }
    }
    case.write(40, op("c", Record::deleted()));
    case.raise(10 * SECOND, at(50));
    case.write(10 * SECOND + 10, put("a"));
    // Each step reads anew from the disk how far the last one came.
    assert!(case.collect(2) > 2);
    let left = [("a", 10_010), ("a", 20), ("b", 21), ("d", 23), ("e", 24), ("f", 25)];
    assert_eq!(case.versions(), named(left));
    assert_eq!(case.collect(2), 0, "nothing is looked at again");
    case.raise(20 * SECOND, at(60));
    assert_eq!(case.collect(100), 1);
}

#[test]
fn nothing_is_collected_while_a_states_rows_are_sent() {
    let mut case = Case::leaseholder();
    case.write(10, put("a"));
    case.write(20, put("a"));
    let sent = case.replica.in_use().sends(HybridTime::ZERO, None).expect("nothing was collected");
    case.raise(10 * SECOND, at(30));
    assert_eq!(case.collect(10), 0);
    drop(sent);
    let progress = Progress::default();
    let step = progress.step(&case.replica).expect("it is due");
    assert!(case.replica.in_use().sends(at(30), None).is_none(), "a step is under way");
    drop(step);
    assert!(case.replica.in_use().sends(HybridTime::ZERO, None).is_none(), "what belongs to it may be gone");
    assert!(case.replica.in_use().sends(at(30), None).is_some());
    // A new life does not know what the last one has collected.
    let row = case.store.get(Family::Raft, &RangeReplica::row_key(RangeId(1))).expect("memory reads");
    let reborn = RangeReplica::recover(crate::ranges::RangeSettings::default(), &row.expect("it is there"));
    let reborn = reborn.expect("sound");
    assert!(reborn.in_use().sends(at(29), None).is_none() && reborn.in_use().sends(at(30), None).is_some());
}

#[test]
fn what_was_split_off_keeps_rows_of_a_state_of_the_whole() {
    let mut case = Case::leaseholder();
    case.write(10, put("z"));
    case.write(20, put("z"));
    let whole = case.replica.in_use().sends(HybridTime::ZERO, None).expect("nothing was collected");
    let seats = (0..3).map(|n| Seat { replica: ReplicaId(10 + n), ..seat(n) }).collect();
    case.raise(10 * SECOND, at(30));
    let now = moment(10 * SECOND + 10);
    let split = case.replica.propose_split(&now, key("m"), RangeId(2), seats).expect("its own");
    let (_, right) = case.applied(&split);
    let right = right.expect("a replica of it stands here");
    let progress = Progress::default();
    assert!(progress.step(&right).is_none(), "rows of the whole are on their way");
    drop(whole);
    assert!(progress.step(&right).is_some());
}

/// A leaseholder that has collected, and a follower that has applied only what came first.
fn ahead_and_behind() -> (Case, Case) {
    let (mut ahead, mut behind) = (Case::leaseholder(), Case::of(1));
    behind.apply(&Case::of(0).replica.take_lease(&moment(0), seat(0).store, &[]).expect("it is nobody's"));
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let write = ahead.replica.propose_write(&moment(10 + number as u64), put(name)).expect("holds it");
        ahead.apply(&write);
        behind.apply(&write);
    }
    ahead.write(20, op("b", Record::deleted()));
    ahead.write(21, put("c"));
    ahead.raise(10 * SECOND, at(30));
    ahead.collect(100);
    ahead.write(10 * SECOND + 10, put("a"));
    assert_eq!(ahead.versions(), named([("a", 10_010), ("a", 10), ("c", 21)]));
    (ahead, behind)
}

#[test]
fn what_was_deleted_and_collected_does_not_come_back_with_a_state() {
    let (ahead, mut behind) = ahead_and_behind();
    behind.receive(ahead.part(at(30)));
    let versions = [("a", 10_010), ("a", 10), ("b", 30), ("b", 11), ("c", 21), ("c", 12)];
    assert_eq!(behind.versions(), named(versions), "`b` is deleted by 30, which it was");
    behind.replica.receive(&ahead.replica.row()).expect("a later state");
    behind.collect(100);
    assert_eq!(behind.versions(), ahead.versions());
}

#[test]
fn a_state_is_the_same_in_whatever_parts_it_comes() {
    let (ahead, reference) = ahead_and_behind();
    let whole = ahead.part(at(30));
    let mut expected = reference;
    expected.receive(whole.clone());
    for cut in 0..=whole.rows.len() {
        let (_, mut behind) = ahead_and_behind();
        let (left, right) = whole.rows.split_at(cut);
        let between = right.first().map(|(row, _)| row.clone());
        let begins = Part { to: between.clone(), rows: left.to_vec(), ..whole.clone() };
        behind.receive(begins);
        if let Some(from) = between {
            behind.receive(Part { from, rows: right.to_vec(), ..whole.clone() });
        }
        assert_eq!(behind.versions(), expected.versions(), "cut at {cut}");
    }
}

#[test]
fn a_follower_takes_nothing_of_a_state_that_it_may_have_collected() {
    let (mut ahead, _) = ahead_and_behind();
    let (_, behind) = ahead_and_behind();
    // What comes late was sent before all this was collected.
    ahead.receive(behind.part(HybridTime::ZERO));
    assert_eq!(ahead.versions(), named([("a", 10_010), ("a", 10), ("c", 21)]));
}

#[test]
fn a_part_that_is_not_sound_is_refused() {
    let (ahead, behind) = ahead_and_behind();
    let whole = ahead.part(at(30));
    let refused = |part: Part| part.received(&behind.store, &behind.replica).expect_err("not sound");
    let cut = Part { to: Some(b"v".to_vec()), ..whole.clone() };
    assert!(refused(cut).contains("ends before"));
    let mut elsewhere = whole.clone();
    elsewhere.rows[0].0 = VersionKey { keyspace: KeyspaceId(2), key: key("a"), at: at(1) }.encode();
    assert_eq!(refused(elsewhere), "a row is not of this range");
    let mut damaged = whole;
    damaged.rows[0].1[1] ^= 1;
    assert!(refused(damaged).contains("checksum"));
}

#[test]
fn a_damaged_row_of_progress_is_refused() {
    let mut case = Case::leaseholder();
    case.write(10, put("a"));
    case.raise(10 * SECOND, at(30));
    case.collect(10);
    let row = case.store.get(Family::Raft, &Progress::row_key(RangeId(1))).expect("memory reads");
    let row = row.expect("it is kept");
    for cut in 0..row.len() {
        assert!(Progress::read(&row[..cut]).is_err(), "cut at {cut}");
    }
}
