//! Smeared and legacy time at a gateway.

use std::time::Duration;

use proptest::prelude::*;

use crate::clock::{ForeignTime, LeapSecond, Order, Smeared};

/// The midnight after the leap second of 2016, in microseconds of Unix time.
const MIDNIGHT: i64 = 1_483_228_800_000_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;

fn smeared(inserted: bool) -> Smeared {
    Smeared::new(vec![LeapSecond { midnight: MIDNIGHT / SECOND, inserted }])
}

#[test]
fn a_smear_takes_the_leap_second_in_over_a_day() {
    let clock = smeared(true);
    // Published for this smear: at the noons it is right, at midnight half a second off.
    assert_eq!(clock.shows(MIDNIGHT - 12 * HOUR, false), MIDNIGHT - 12 * HOUR);
    assert_eq!(clock.shows(MIDNIGHT + 12 * HOUR, false), MIDNIGHT + 12 * HOUR);
    let off = clock.shows(MIDNIGHT - 1, false) - (MIDNIGHT - 1);
    assert!((-500_010..-499_980).contains(&off), "half a second behind just before the leap second: {off}");
    let off = clock.shows(MIDNIGHT, false) - MIDNIGHT;
    assert!((499_980..500_010).contains(&off), "and half a second ahead just after it: {off}");
}

#[test]
fn within_the_leap_second_two_moments_cannot_be_told_apart() {
    let clock = smeared(true);
    let within = clock.read(clock.shows(MIDNIGHT - SECOND / 2, true), Duration::ZERO);
    assert_eq!(within.latest() - within.earliest(), SECOND + 2);
    assert!(within.earliest() <= MIDNIGHT - SECOND / 2 && MIDNIGHT - SECOND / 2 <= within.latest());
    let outside = clock.read(MIDNIGHT - HOUR, Duration::ZERO);
    assert_eq!(outside.latest() - outside.earliest(), 2);
}

#[test]
fn outside_of_a_smear_time_is_what_it_says() {
    let read = smeared(true).read(MIDNIGHT + 13 * HOUR, Duration::from_millis(3));
    assert_eq!(
        (read.earliest(), read.latest()),
        (MIDNIGHT + 13 * HOUR - 3_001, MIDNIGHT + 13 * HOUR + 3_001)
    );
    assert_eq!(Smeared::default().read(MIDNIGHT, Duration::ZERO).earliest(), MIDNIGHT - 1);
}

proptest! {
    #[test]
    fn what_a_smeared_clock_shows_is_read_back(
        from_midnight in -13 * HOUR..13 * HOUR,
        inserted: bool,
        error_us in 0i64..5_000,
        wrong in -1.0f64..1.0,
    ) {
        let clock = smeared(inserted);
        let unix = MIDNIGHT + from_midnight;
        // A second that is left out has no moments.
        prop_assume!(inserted || !(-SECOND..0).contains(&from_midnight));
        let shown = clock.shows(unix, false) + (error_us as f64 * wrong) as i64;
        let read = clock.read(shown, Duration::from_micros(error_us as u64 + 1));
        prop_assert!(read.earliest() <= unix && unix <= read.latest(), "{read:?} is not {unix}");
        prop_assert!(read.latest() - read.earliest() <= 2 * error_us + SECOND + 10);
    }
}

#[test]
fn what_overlaps_has_no_order() {
    let at = |ms, error| ForeignTime::legacy(ms, Duration::from_millis(error));
    assert_eq!(at(1_000, 10).against(at(1_021, 10)), Order::Before);
    assert_eq!(at(1_021, 10).against(at(1_000, 10)), Order::After);
    assert_eq!(at(1_000, 10).against(at(1_020, 10)), Order::Unknown);
    assert_eq!(at(i64::MIN, 10).against(at(i64::MAX, 10)), Order::Before, "nothing overflows");
}
