//! How many units a node should have for the time in which it must live on them: the tail of a Poisson
//! distribution.
//!
//! * It decides: how likely more units are asked for than there are, when requests come independently
//!   of each other at a known rate, each for one unit.
//! * It never does: touch a unit. This is advice, in floating point; ledgers and plans use integers.
//! * Invariant: [`exceeds`] falls as units rise, and [`enough`] is the smallest number at which it has
//!   fallen to the risk.
//!
//! Running out here is no overselling: escrow never oversells. It is a buyer who waits for rights from
//! another node.

use std::f64::consts::PI;

use rhumb_core::canary::{self, Canary};

/// The highest rate for which this is exact to nine digits or more.
pub const MOST_RATE: f64 = 1e7;

/// P(X > units) for a Poisson number X of this mean: the sum of the smaller side's terms, begun at the
/// term nearest the mean.
///
/// # Panics
/// When the rate is not above 0 and at most [`MOST_RATE`].
#[must_use]
pub fn exceeds(rate: f64, units: u64) -> f64 {
    check(rate);
    let units = if canary::sings(Canary::AdviseOffByOne) { units.saturating_sub(1) } else { units };
    let n = units as f64;
    if n + 1.0 > rate {
        // p(n+1) (1 + λ/(n+2) + λ²/((n+2)(n+3)) + …)
        (term(rate, units + 1) * series(|k| rate / (n + 1.0 + k))).min(1.0)
    } else {
        // 1 − p(n) (1 + n/λ + n(n−1)/λ² + …)
        (1.0 - term(rate, units) * series(|k| ((n + 1.0 - k) / rate).max(0.0))).max(0.0)
    }
}

/// The same by the normal distribution of equal mean and variance, with continuity correction: what a
/// rule of thumb would give.
///
/// # Panics
/// When the rate is not above 0 and at most [`MOST_RATE`].
#[must_use]
pub fn exceeds_by_normal(rate: f64, units: u64) -> f64 {
    check(rate);
    upper((units as f64 + 0.5 - rate) / rate.sqrt())
}

/// The smallest number of units that is exceeded with at most this risk.
///
/// # Panics
/// When the rate is not above 0 and at most [`MOST_RATE`], or the risk not above 0 and below 1.
#[must_use]
pub fn enough(rate: f64, risk: f64) -> u64 {
    assert!(risk > 0.0 && risk < 1.0, "a risk of {risk}: give one above 0 and below 1");
    let mut most = (rate.ceil() as u64).max(1);
    while exceeds(rate, most) > risk {
        most *= 2;
    }
    let mut least = 0;
    while least < most {
        let middle = least + (most - least) / 2;
        if exceeds(rate, middle) > risk { least = middle + 1 } else { most = middle }
    }
    most
}

fn check(rate: f64) {
    assert!(rate > 0.0 && rate <= MOST_RATE, "a rate of {rate}: give one above 0, at most {MOST_RATE}");
}

/// 1 + f(1) + f(1)f(2) + …, until a term no longer counts.
fn series(factor: impl Fn(f64) -> f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * f64::EPSILON / 16.0 {
        term *= factor(k);
        sum += term;
        k += 1.0;
    }
    sum
}

/// P(X = k), by its saddle-point expansion: no large numbers are subtracted from each other (C. Loader,
/// "Fast and accurate computation of binomial probabilities", 2000).
fn term(rate: f64, k: u64) -> f64 {
    if k == 0 {
        return (-rate).exp();
    }
    let n = k as f64;
    (-stirling_error(k) - deviance(n, rate)).exp() / (2.0 * PI * n).sqrt()
}

/// ln k! − ln(√(2πk) (k/e)^k).
fn stirling_error(k: u64) -> f64 {
    let n = k as f64;
    if k < 16 {
        let factorial: f64 = (1..=k).map(|i| (i as f64).ln()).sum();
        return factorial - (n * n.ln() - n + 0.5 * (2.0 * PI * n).ln());
    }
    let square = n * n;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1_260.0 - 1.0 / (1_680.0 * square)) / square) / square) / n
}

/// n ln(n/m) + m − n, without cancellation where the two are near each other.
fn deviance(n: f64, m: f64) -> f64 {
    let v = (n - m) / (n + m);
    if v.abs() >= 0.1 {
        return n * (n / m).ln() + m - n;
    }
    let mut sum = (n - m) * v;
    let mut power = 2.0 * n * v;
    let mut odd = 3.0;
    loop {
        power *= v * v;
        let next = sum + power / odd;
        if next == sum {
            return sum;
        }
        sum = next;
        odd += 2.0;
    }
}

/// The upper tail of the standard normal distribution: a series near the middle (G. Marsaglia,
/// "Evaluating the normal distribution", 2004), a continued fraction (Laplace) further out.
fn upper(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper(-z);
    }
    let density = (-z * z / 2.0).exp() / (2.0 * PI).sqrt();
    if z < 3.0 {
        let (mut sum, mut term, mut odd) = (z, z, 1.0);
        while term > sum * f64::EPSILON {
            odd += 2.0;
            term *= z * z / odd;
            sum += term;
        }
        return 0.5 - density * sum;
    }
    density / (1..=200).rev().fold(z, |below, k| z + f64::from(k) / below)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(got: f64, want: f64, relative: f64) {
        assert!((got - want).abs() <= want.abs() * relative, "{got} and not {want}");
    }

    #[test]
    fn the_worked_example_of_a_region_with_a_hundred_units() {
        assert_eq!(format!("{:.4}", exceeds(95.0, 100)), "0.2823");
        assert_eq!(format!("{:.4}", exceeds_by_normal(95.0, 100)), "0.2863");
        assert_eq!(enough(95.0, 0.01), 118);
        assert_eq!(format!("{:.4} {:.4}", exceeds(95.0, 117), exceeds(95.0, 118)), "0.0125 0.0097");
    }

    /// All terms up to n, each from the one before, added up from the smallest.
    fn by_summing(rate: f64, units: u64) -> f64 {
        let mut terms = vec![(-rate).exp()];
        for k in 1..units + 1_000 {
            terms.push(terms[k as usize - 1] * rate / k as f64);
        }
        terms[units as usize + 1..].iter().rev().sum()
    }

    #[test]
    fn it_is_what_plain_summing_gives_where_that_works() {
        for rate in [0.001, 0.5, 1.0, 7.3, 95.0, 300.0] {
            for units in [0, 1, 2, 5, 14, 15, 16, 50, 95, 96, 110, 290, 310, 400] {
                let want = by_summing(rate, units);
                if want > 1e-250 {
                    near(exceeds(rate, units), want, 1e-10);
                }
            }
        }
    }

    #[test]
    fn it_is_right_at_its_largest() {
        for rate in [1e4, 1e6, MOST_RATE] {
            // P(X ≤ λ) = 1/2 + 2/(3 √(2πλ)) + …, for whole λ (Ramanujan).
            near(exceeds(rate, rate as u64), 0.5 - 2.0 / (3.0 * (2.0 * PI * rate).sqrt()), 1e-5);
            let units = (rate + 2.0 * rate.sqrt()) as u64;
            near(exceeds(rate, units), exceeds_by_normal(rate, units), 0.05);
        }
        let enough = enough(MOST_RATE, 1e-6);
        assert!(exceeds(MOST_RATE, enough) <= 1e-6 && exceeds(MOST_RATE, enough - 1) > 1e-6);
    }

    #[test]
    fn the_normal_tail_is_that_of_the_tables() {
        for (z, want) in [
            (0.0, 0.5),
            (1.0, 0.158_655_253_931_457),
            (1.96, 0.024_997_895_148_220),
            (-1.0, 0.841_344_746_068_543),
            (3.0, 0.001_349_898_031_630),
            (5.0, 2.866_515_718_791_94e-7),
        ] {
            near(upper(z), want, 1e-12);
        }
    }

    proptest! {
        #[test]
        fn more_units_are_exceeded_less_often(rate in 0.01f64..50_000.0, units in 0u64..60_000) {
            let (less, more) = (exceeds(rate, units), exceeds(rate, units + 1));
            prop_assert!((0.0..=1.0).contains(&less) && more <= less + 1e-12, "{} {}", less, more);
        }

        #[test]
        fn enough_is_the_smallest_that_is(rate in 0.01f64..50_000.0, risk in 1e-9f64..0.99) {
            let units = enough(rate, risk);
            prop_assert!(exceeds(rate, units) <= risk);
            prop_assert!(units == 0 || exceeds(rate, units - 1) > risk);
        }
    }
}
