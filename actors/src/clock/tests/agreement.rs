//! What intervals agree on, against the definition.

use proptest::prelude::*;

use crate::clock::interval::{Interval, agreed};

/// By the definition: every number is tried.
fn by_trying(intervals: &[Interval], needed: usize) -> Option<Interval> {
    let in_enough =
        |number: &i64| intervals.iter().filter(|interval| interval.contains(*number)).count() >= needed;
    let mut numbers = (-60..=60).filter(in_enough);
    let low = numbers.next()?;
    Some(Interval::between(low, numbers.next_back().unwrap_or(low)))
}

proptest! {
    #[test]
    fn what_is_agreed_is_all_that_enough_of_them_contain(
        ends in prop::collection::vec((-50i64..50, 0i64..12), 0..8),
        needed in 1usize..6,
    ) {
        let intervals: Vec<_> = ends.iter().map(|(low, width)| Interval::between(*low, low + width)).collect();
        prop_assert_eq!(agreed(&intervals, needed), by_trying(&intervals, needed));
    }
}

#[test]
fn the_largest_agreement_need_not_contain_the_truth() {
    // Three that are right about 5, and two liars that overlap all of them at another place.
    let right = [Interval::between(0, 10); 3];
    let all = [&right[..], &[Interval::between(8, 20); 2]].concat();
    let agreed = agreed(&all, 3).expect("three agree");
    assert!(agreed.contains(5));
    assert_eq!(agreed, Interval::between(0, 10));
}

#[test]
fn distances_are_to_the_nearest_and_the_farthest_number() {
    let distances = |low, high| {
        let interval = Interval::between(low, high);
        (interval.nearest(), interval.farthest(), interval.middle(), interval.half_width())
    };
    assert_eq!(distances(-3, 8), (0, 8, 2, 6));
    assert_eq!(distances(4, 9), (4, 9, 6, 3));
    assert_eq!(distances(-9, -4), (4, 9, -6, 3));
    assert_eq!(Interval::between(i64::MIN, i64::MAX).farthest(), i64::MAX, "nothing overflows");
    assert_eq!(Interval::between(i64::MIN, i64::MAX).grown(1).shifted(-1).nearest(), 0);
}
