//! When customers come, where, and what they mean to do: an open-loop schedule.
//!
//! * It decides: every arrival's time, region and intent, from one seed.
//! * It never does: look at how the service copes. A slow answer delays nobody's arrival, so a stall
//!   is measured by all who came during it (no coordinated omission).
//! * Invariant: equal plans and seeds give equal schedules; arrival times never fall.

use std::time::Duration;
use std::vec;

use rhumb_core::Region;
use rhumb_core::rng::{Rng, Seed};

use super::requests::Listed;

/// How arrivals are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// A Poisson process: independent customers.
    Exponential,
    /// Evenly.
    Uniform,
}

/// More arrivals at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// How many times the rate.
    pub factor: u32,
    /// For how long.
    pub lasts: Duration,
}

/// What load is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Arrivals per second over all regions, above 0.
    pub rate: u32,
    /// How they are spaced.
    pub spacing: Spacing,
    /// More of them at the start.
    pub burst: Option<Burst>,
    /// How they are spread over the regions, by weight; at least one above 0.
    pub mix: Vec<(Region, u64)>,
    /// Of a hundred customers who get a hold, how many leave it to expire.
    pub abandon_percent: u8,
    /// How long the others think before they confirm: least and most.
    pub think: (Duration, Duration),
    /// Units each asks for.
    pub qty: u64,
    /// For how long they are held.
    pub ttl: Duration,
}

/// What a customer will do with a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// Leave it to expire.
    Abandon,
    /// Confirm it after thinking this long.
    Buy {
        /// From the hold's answer to the confirmation.
        think: Duration,
    },
}

/// One customer comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Which, from 0.
    pub number: u64,
    /// How long after the start.
    pub at: Duration,
    /// In which region.
    pub region: Region,
    /// How many units it wants.
    pub qty: u64,
    /// Who it is, where that is given.
    pub user: Option<Box<str>>,
    /// What for.
    pub intent: Intent,
}

/// The arrivals of a plan, without end.
#[derive(Debug)]
pub struct Schedule {
    plan: Plan,
    /// Requests that are given, instead of drawn ones.
    listed: Option<vec::IntoIter<Listed>>,
    gaps: Rng,
    places: Rng,
    intents: Rng,
    /// Arrivals so far, in units of expected arrivals: time is its image under the inverse of the
    /// cumulative rate (time change of a Poisson process).
    progress: f64,
    number: u64,
}

impl Schedule {
    /// The schedule of a plan and a seed.
    #[must_use]
    pub fn new(plan: Plan, seed: &Seed) -> Self {
        debug_assert!(plan.rate > 0 && plan.mix.iter().any(|(_, weight)| *weight > 0));
        Self::of(plan, None, seed)
    }

    /// The schedule of requests that are given: their times, regions and units. What customers do with
    /// what they get is drawn, as ever.
    #[must_use]
    pub fn listed(plan: Plan, requests: Vec<Listed>, seed: &Seed) -> Self {
        Self::of(plan, Some(requests.into_iter()), seed)
    }

    fn of(plan: Plan, listed: Option<vec::IntoIter<Listed>>, seed: &Seed) -> Self {
        let rng = |label| seed.child(label).rng();
        let (gaps, places, intents) = (rng("gaps"), rng("places"), rng("intents"));
        Self { plan, listed, gaps, places, intents, progress: 0.0, number: 0 }
    }

    fn drawn(&mut self) -> Listed {
        self.progress += match self.plan.spacing {
            Spacing::Exponential => self.gaps.exponential(1.0),
            Spacing::Uniform => 1.0,
        };
        let region = self.place();
        Listed { at: self.time_of(self.progress), region, user: "".into(), qty: self.plan.qty }
    }

    fn time_of(&self, progress: f64) -> Duration {
        let rate = f64::from(self.plan.rate);
        let seconds = match self.plan.burst {
            Some(Burst { factor, lasts }) => {
                let fast = rate * f64::from(factor.max(1));
                let in_burst = fast * lasts.as_secs_f64();
                if progress <= in_burst {
                    progress / fast
                } else {
                    lasts.as_secs_f64() + (progress - in_burst) / rate
                }
            }
            None => progress / rate,
        };
        Duration::from_secs_f64(seconds)
    }

    fn place(&mut self) -> Region {
        let total = self.plan.mix.iter().map(|(_, weight)| weight).sum();
        let mut left = self.places.below(total);
        for (region, weight) in &self.plan.mix {
            if left < *weight {
                return region.clone();
            }
            left -= weight;
        }
        unreachable!("a draw below the sum of the weights falls into one of them")
    }

    fn intent(&mut self) -> Intent {
        // Both are always drawn, so that one customer's choice shifts nobody else's.
        let abandons = self.intents.below(100) < u64::from(self.plan.abandon_percent);
        let (least, most) = self.plan.think;
        let spread = u64::try_from(most.saturating_sub(least).as_micros()).unwrap_or(u64::MAX - 1);
        let think = least + Duration::from_micros(self.intents.below(spread + 1));
        if abandons { Intent::Abandon } else { Intent::Buy { think } }
    }
}

impl Iterator for Schedule {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let Listed { at, region, qty, user } = match &mut self.listed {
            Some(listed) => listed.next()?,
            None => self.drawn(),
        };
        let user = Some(user).filter(|user| !user.is_empty());
        let arrival = Arrival { number: self.number, at, region, qty, user, intent: self.intent() };
        self.number += 1;
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    fn plan() -> Plan {
        Plan {
            rate: 1_000,
            spacing: Spacing::Exponential,
            burst: Some(Burst { factor: 2, lasts: Duration::from_secs(5) }),
            mix: vec![(region("ap"), 60), (region("eu"), 20), (region("us"), 20)],
            abandon_percent: 60,
            think: (Duration::from_millis(100), Duration::from_millis(500)),
            qty: 1,
            ttl: Duration::from_secs(3),
        }
    }

    fn arrivals(plan: Plan, seed: u64, until: Duration) -> Vec<Arrival> {
        Schedule::new(plan, &Seed::new(seed)).take_while(|arrival| arrival.at < until).collect()
    }

    /// Five standard deviations of a binomial count around its mean.
    fn near(count: usize, of: usize, share: f64) -> bool {
        let mean = of as f64 * share;
        (count as f64 - mean).abs() < 5.0 * (mean * (1.0 - share)).sqrt()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let until = Duration::from_secs(2);
        assert_eq!(arrivals(plan(), 7, until), arrivals(plan(), 7, until));
        assert_ne!(arrivals(plan(), 7, until), arrivals(plan(), 8, until));
    }

    #[test]
    fn twice_as_many_come_during_the_burst() {
        let all = arrivals(plan(), 1, Duration::from_secs(20));
        let burst = all.iter().filter(|a| a.at < Duration::from_secs(5)).count();
        // Poisson: the standard deviation is the root of the mean.
        assert!(burst.abs_diff(10_000) < 500, "{burst}");
        assert!((all.len() - burst).abs_diff(15_000) < 615, "{}", all.len() - burst);
        assert!(all.is_sorted_by_key(|a| a.at));
    }

    #[test]
    fn customers_are_spread_and_abandon_as_planned() {
        let all = arrivals(plan(), 2, Duration::from_secs(20));
        for (name, share) in [("ap", 0.6), ("eu", 0.2), ("us", 0.2)] {
            let came = all.iter().filter(|a| a.region == region(name)).count();
            assert!(near(came, all.len(), share), "{name}: {came} of {}", all.len());
        }
        let abandon = all.iter().filter(|a| a.intent == Intent::Abandon).count();
        assert!(near(abandon, all.len(), 0.6), "{abandon} of {}", all.len());
        for arrival in &all {
            if let Intent::Buy { think } = arrival.intent {
                assert!((100..=500).contains(&think.as_millis()), "{think:?}");
            }
        }
    }

    #[test]
    fn even_spacing_is_even() {
        let plan = Plan { rate: 4, spacing: Spacing::Uniform, burst: None, ..plan() };
        let burst = Plan { burst: Some(Burst { factor: 2, lasts: Duration::from_secs(1) }), ..plan.clone() };
        let times = |plan| {
            let all = Schedule::new(plan, &Seed::new(3)).take(12);
            all.map(|a| a.at.as_millis().to_string()).collect::<Vec<_>>().join(" ")
        };
        expect!["250 500 750 1000 1250 1500 1750 2000 2250 2500 2750 3000"].assert_eq(&times(plan));
        expect!["125 250 375 500 625 750 875 1000 1250 1500 1750 2000"].assert_eq(&times(burst));
    }

    #[test]
    fn requests_that_are_given_come_as_they_are() {
        let listed = |at, name: &str, qty| Listed {
            at: Duration::from_millis(at),
            region: region(name),
            user: "ann".into(),
            qty,
        };
        let requests = vec![listed(0, "eu", 2), listed(0, "us", 1), listed(700, "eu", 9)];
        let all: Vec<Arrival> = Schedule::listed(plan(), requests, &Seed::new(1)).collect();
        let told =
            |a: &Arrival| format!("{} {} {} {} {:?}", a.number, a.at.as_millis(), a.region, a.qty, a.user);
        let told: Vec<String> = all.iter().map(told).collect();
        assert_eq!(told, ["0 0 eu 2 Some(\"ann\")", "1 0 us 1 Some(\"ann\")", "2 700 eu 9 Some(\"ann\")"]);
    }

    #[test]
    fn a_region_without_weight_gets_nobody() {
        let plan = Plan { mix: vec![(region("us"), 0), (region("eu"), 1)], ..plan() };
        assert!(arrivals(plan, 5, Duration::from_secs(1)).iter().all(|a| a.region == region("eu")));
    }
}
