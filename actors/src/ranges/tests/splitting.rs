//! When a range is split by itself, and before which key, case by case.

use rhumb_core::HybridTime;
use rhumb_core::rng::Seed;
use rhumb_storage::mvcc::{KeyspaceId, Record, UserKey, VersionKey};
use rhumb_storage::{Batch, Family, MemoryDisk, MemoryEngine, Store};

use crate::ranges::splitting::load::{Finder, Touched, Upto};
use crate::ranges::splitting::size::Part;
use crate::ranges::splitting::{Decided, Rejected, SplitSettings, Splitting, Why};

const SPACE: KeyspaceId = KeyspaceId(5);

fn at(ms: u64) -> HybridTime {
    HybridTime::new(1_000_000 + ms, 0)
}

fn key(number: u64) -> UserKey {
    UserKey::new(number.to_be_bytes()).expect("short")
}

fn first() -> UserKey {
    UserKey::default()
}

/// The rows of a store, and what is known of a range of them.
struct Case {
    store: Store<MemoryEngine>,
    machine: Splitting,
    requests: u64,
}

impl Case {
    fn of(settings: SplitSettings, from: UserKey, to: Option<UserKey>) -> Self {
        let store = Store::open(MemoryEngine::open(&MemoryDisk::new())).expect("a new one opens");
        let machine = Splitting::begin(settings, at(0), SPACE, (from, to), Seed::new(7));
        Self { store, machine, requests: 0 }
    }

    fn by_size(limit: u64) -> Self {
        Self::of(SplitSettings { at: Some(limit), ..SplitSettings::OFF }, first(), None)
    }

    fn by_load(limit: u64) -> Self {
        Self::of(SplitSettings { load: Some(limit), ..SplitSettings::OFF }, first(), None)
    }

    /// Writes versions of a key, with values of so many bytes.
    fn put(&mut self, number: u64, versions: u64, bytes: usize) {
        self.put_in(SPACE, number, versions, bytes);
    }

    fn put_in(&mut self, keyspace: KeyspaceId, number: u64, versions: u64, bytes: usize) {
        let mut batch = Batch::new();
        for version in 0..versions {
            let row = VersionKey { keyspace, key: key(number), at: at(version) }.encode();
            let value = Record::put(vec![7; bytes]).encode(&row);
            self.machine.wrote((row.len() + value.len()) as u64);
            batch.put(Family::Mvcc, row, value);
        }
        self.store.write(&batch).expect("memory takes it");
    }

    /// Walks as long as there is something to walk; how many parts there were.
    fn walk(&mut self, rows: u64) -> usize {
        let mut parts = 0;
        while let Some(part) = self.machine.walks() {
            let found = part.look(&self.store, rows).expect("sound rows");
            self.machine.walked(&part, found);
            parts += 1;
            assert!(parts < 10_000, "it comes to no end");
        }
        parts
    }

    /// So many seconds, each with these requests.
    fn busy(
        &mut self,
        from: u64,
        seconds: u64,
        each: impl Fn(u64) -> (UserKey, Option<UserKey>),
        a_second: u64,
    ) {
        for second in from..from + seconds {
            for number in 0..a_second {
                self.requests += 1;
                let (from, to) = each(number);
                let to = to.as_ref().map_or(Upto::Alone, Upto::Including);
                self.machine.sampled(&Touched { from: &from, to });
            }
            self.machine.counted(at((second + 1) * 1_000), self.requests);
        }
    }
}

fn split(decided: Option<Result<Decided, Rejected>>) -> (UserKey, Why) {
    let decided = decided.expect("it was considered").expect("it is split");
    (decided.at, decided.why)
}

/// The bytes of rows of such values.
fn size_of(rows: &Store<MemoryEngine>, from: &UserKey, to: Option<&UserKey>) -> u64 {
    let part = Part { keyspace: SPACE, from: from.clone(), to: to.cloned() };
    let found = part.look(rows, u64::MAX).expect("sound");
    found.keys.iter().map(|(_, bytes, _)| bytes).sum()
}

// ---- by size -----------------------------------------------------------------------------------

#[test]
fn a_range_that_is_larger_than_it_may_be_is_split_where_its_bytes_are_halved() {
    let mut case = Case::by_size(100_000);
    // Small values at the beginning, large ones at the end: the middle of the keys is not that of the bytes.
    for number in 0..1_000 {
        case.put(number, 1 + number % 3, if number < 900 { 10 } else { 2_000 });
    }
    case.put_in(KeyspaceId(4), 1, 5, 50_000);
    case.put_in(KeyspaceId(6), 1, 5, 50_000);
    assert!(case.walk(100) >= 10, "a part at a time");
    let (middle, why) = split(case.machine.decide(at(10_000), false));
    assert_eq!(why, Why::Size);
    let (left, right) = (size_of(&case.store, &first(), Some(&middle)), size_of(&case.store, &middle, None));
    assert!(left.abs_diff(right) < (left + right) / 32, "{left} and {right}");
}

#[test]
fn a_range_no_larger_than_it_may_be_is_left_alone_and_walked_again_when_it_may_have_grown() {
    let mut case = Case::by_size(100_000);
    case.put(1, 1, 40_000);
    case.put(2, 1, 40_000);
    assert!(case.walk(100) > 0, "nothing was known");
    assert_eq!(case.walk(100), 0, "nothing was written since");
    assert_eq!(case.machine.decide(at(60_000), false), None);
    let known = case.machine.bytes().expect("it was walked");
    assert!((80_000..81_000).contains(&known), "{known}");
    case.put(3, 1, 15_000);
    assert_eq!(case.walk(100), 0, "even so it is not too large");
    // Bytes that were written are an estimate: these are collected before anybody looks.
    case.machine.wrote(20_000);
    assert_eq!(case.machine.decide(at(60_000), false), None, "an estimate splits nothing");
    assert!(case.walk(100) > 0);
    assert_eq!(case.machine.decide(at(60_000), false), None);
    assert_eq!(case.walk(100), 0);
    case.put(4, 1, 30_000);
    assert!(case.walk(100) > 0);
    let (middle, _) = split(case.machine.decide(at(60_000), false));
    assert!(middle > key(1) && middle <= key(4));
}

#[test]
fn one_key_is_not_split_however_large_it_is_and_that_is_said_once() {
    let mut case = Case::by_size(100_000);
    case.put(9, 50, 10_000);
    case.walk(10);
    assert_eq!(case.machine.decide(at(20_000), false), Some(Err(Rejected::OneKey)));
    assert_eq!(case.machine.decide(at(21_000), false), None);
    assert_eq!(case.walk(10), 0, "it is not walked for nothing");
    // Versions of the first key are never parted from each other.
    case.put(10, 1, 10_000);
    case.walk(10);
    assert_eq!(split(case.machine.decide(at(22_000), false)).0, key(10));
}

#[test]
fn only_the_keys_of_the_range_count() {
    let settings = SplitSettings { at: Some(10_000), ..SplitSettings::OFF };
    let mut case = Case::of(settings, key(10), Some(key(20)));
    for number in 0..30 {
        case.put(number, 1, 900);
    }
    case.walk(3);
    let bytes = case.machine.bytes().expect("it was walked");
    assert_eq!(bytes, size_of(&case.store, &key(10), Some(&key(20))));
    // Ten rows of a little less than a thousand bytes.
    assert_eq!(case.machine.decide(at(20_000), false), None);
    case.put(15, 4, 900);
    case.walk(3);
    let (middle, _) = split(case.machine.decide(at(20_000), false));
    assert!(middle > key(10) && middle < key(20), "{:?}", middle.as_bytes());
}

#[test]
fn a_range_is_not_split_soon_after_it_was_nor_while_something_is_under_way() {
    let mut case = Case::by_size(1_000);
    for number in 0..20 {
        case.put(number, 1, 200);
    }
    case.walk(100);
    // The lease was taken at 0.
    assert_eq!(case.machine.decide(at(9_999), false), Some(Err(Rejected::TooSoon)));
    assert_eq!(case.machine.decide(at(9_999), false), None, "a wait is said once");
    assert_eq!(case.machine.decide(at(10_000), true), Some(Err(Rejected::UnderWay)));
    let (middle, _) = split(case.machine.decide(at(11_000), false));
    assert_eq!(case.machine.decide(at(20_999), false), Some(Err(Rejected::TooSoon)), "whatever came of it");
    // It came to be: the left half begins anew, and is too large still.
    case.machine.has(at(12_000), &first(), Some(&middle));
    case.walk(100);
    assert_eq!(case.machine.decide(at(21_999), false), Some(Err(Rejected::TooSoon)));
    let (next, _) = split(case.machine.decide(at(22_000), false));
    assert!(next < middle && next > first());
    // Nothing came of it: the range is as it was.
    assert_eq!(split(case.machine.decide(at(32_000), false)).0, next);
}

#[test]
fn a_walk_of_a_range_that_is_split_meanwhile_is_of_no_use() {
    let mut case = Case::by_size(1_000);
    for number in 0..20 {
        case.put(number, 1, 200);
    }
    let part = case.machine.walks().expect("nothing is known");
    let found = part.look(&case.store, 100).expect("sound");
    case.machine.has(at(1_000), &first(), Some(&key(3)));
    case.machine.walked(&part, found);
    assert_eq!(case.machine.bytes(), None);
    case.walk(100);
    assert_eq!(case.machine.bytes(), Some(size_of(&case.store, &first(), Some(&key(3)))));
}

#[test]
fn nothing_is_walked_or_sampled_where_ranges_are_not_split_by_themselves() {
    let mut case = Case::of(SplitSettings::OFF, first(), None);
    case.put(1, 1, 100_000);
    case.put(2, 1, 100_000);
    assert_eq!(case.walk(100), 0);
    case.busy(0, 20, |number| (key(number), None), 1_000);
    assert_eq!((case.machine.samples_one_in(), case.machine.decide(at(60_000), false)), (None, None));
}

// ---- by load -----------------------------------------------------------------------------------

#[test]
fn a_busy_range_is_split_where_its_requests_are_halved() {
    let mut case = Case::by_load(500);
    // Three quarters of the requests are for the first quarter of the keys.
    let each =
        |number: u64| (key(if number.is_multiple_of(4) { 250 + number % 750 } else { number % 250 }), None);
    case.busy(0, 1, each, 1_000);
    assert_eq!(case.machine.samples_one_in(), None, "one look is no rate");
    case.busy(1, 1, each, 1_000);
    assert_eq!(case.machine.samples_one_in(), Some(3), "a thousand a second");
    case.busy(2, 9, each, 1_000);
    assert_eq!(case.machine.decide(at(11_000), false), None, "nine seconds are not enough");
    case.busy(11, 1, each, 1_000);
    let (middle, why) = split(case.machine.decide(at(12_000), false));
    assert_eq!(why, Why::Load);
    let left = (0..1_000).filter(|number| each(*number).0 < middle).count();
    assert!((250..=750).contains(&left), "{left} of 1000 requests are before it");
    assert_eq!(case.machine.decide(at(22_000), false), None, "it is found anew");
}

#[test]
fn a_range_that_is_busy_for_a_moment_only_is_left_alone() {
    let mut case = Case::by_load(500);
    let each = |number: u64| (key(number), None);
    case.busy(0, 9, each, 1_000);
    case.busy(9, 1, each, 100);
    assert_eq!(case.machine.samples_one_in(), None);
    case.busy(10, 5, each, 1_000);
    assert_eq!(case.machine.decide(at(15_000), false), None, "the ten seconds begin anew");
    let mut least = Case::by_load(500);
    least.busy(0, 30, each, 500);
    assert_eq!(least.machine.decide(at(30_000), false), None, "it is as busy as it may be");
}

#[test]
fn one_hot_key_is_not_split_off() {
    let mut case = Case::by_load(500);
    let each = |number: u64| (key(if number.is_multiple_of(10) { number } else { 500 }), None);
    case.busy(0, 12, each, 1_000);
    assert_eq!(case.machine.decide(at(12_000), false), Some(Err(Rejected::HotKey)));
    assert_eq!(case.machine.decide(at(13_000), false), None, "it is looked at anew first");
    case.busy(12, 11, each, 1_000);
    assert_eq!(case.machine.decide(at(23_000), false), Some(Err(Rejected::HotKey)), "each look is counted");
    // The range's first key, and it alone.
    let mut alone = Case::of(SplitSettings { load: Some(500), ..SplitSettings::OFF }, key(3), None);
    alone.busy(0, 12, |_| (key(3), None), 1_000);
    assert_eq!(alone.machine.decide(at(12_000), false), Some(Err(Rejected::HotKey)));
}

#[test]
fn a_key_that_most_requests_cross_is_not_split_before() {
    let mut case = Case::by_load(500);
    // Batches over nearly all keys, and some requests for one.
    let each = |number: u64| match number % 4 {
        0 => (key(number % 900), None),
        _ => (key(0), Some(key(950))),
    };
    case.busy(0, 12, each, 1_000);
    assert_eq!(case.machine.decide(at(12_000), false), Some(Err(Rejected::Crossed)));
    // Batches of neighbours cross few keys.
    let mut near = Case::by_load(500);
    near.busy(0, 12, |number| (key(number), Some(key(number + 5))), 1_000);
    assert_eq!(split(near.machine.decide(at(12_000), false)).1, Why::Load);
}

#[test]
fn what_a_request_crosses_is_said_by_its_first_and_its_last_key() {
    let (ten, middle, next) = (key(10), key(20), key(21));
    let cases = [
        (Upto::Alone, None),
        (Upto::Including(&ten), None),
        (Upto::Including(&middle), Some(Rejected::Crossed)),
        (Upto::Before(&middle), None),
        (Upto::Before(&next), Some(Rejected::Crossed)),
        (Upto::End, Some(Rejected::Crossed)),
    ];
    for (to, rejected) in cases {
        let mut finder = Finder::begin(at(0), Seed::new(1).rng());
        for number in 0..3_000 {
            let touched = match number % 3 {
                0 => Touched { from: &middle, to: Upto::Alone },
                _ => Touched { from: &ten, to },
            };
            finder.record(&touched);
        }
        let best = finder.best(&first());
        assert_eq!(best.as_ref().err().copied(), rejected, "{to:?}: {best:?}");
        let Ok(best) = best else { continue };
        assert_eq!((best.key, best.crossed), (middle.clone(), 0), "{to:?}");
        assert!(best.left > best.right && best.right > 0, "{to:?}: {} and {}", best.left, best.right);
    }
}

#[test]
fn a_load_that_waits_is_found_as_it_was_and_split_when_it_may_be() {
    let mut case = Case::by_load(500);
    let each = |number: u64| (key(number), None);
    case.busy(0, 12, each, 1_000);
    assert_eq!(case.machine.decide(at(12_000), true), Some(Err(Rejected::UnderWay)));
    assert_eq!(case.machine.decide(at(13_000), true), None);
    assert_eq!(split(case.machine.decide(at(14_000), false)).1, Why::Load);
}
