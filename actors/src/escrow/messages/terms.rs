//! What a pool was created with, and what of it another request would have otherwise.
//!
//! * It decides: how a pool's terms are said, and which of them a request asks for otherwise.
//! * It never does: judge whether two requests are the same. The pool's home does, by all of their text.

use std::collections::BTreeMap;
use std::fmt;

use rhumb_core::Region;

use super::{CreatePool, Durability, PoolSpec, Reserve};

/// A term: its name, what a pool has, and what is asked for.
type Term = (&'static str, String, String);

impl PoolSpec {
    /// The terms that a request for a pool of this name asks for otherwise: each with what the pool has.
    #[must_use]
    pub fn differences(&self, request: &CreatePool) -> Vec<String> {
        let all: [Term; 7] = [
            ("supply", self.supply.to_string(), request.supply.to_string()),
            ("class", self.class.to_string(), request.class.to_string()),
            ("weights", weights(&self.weights), weights(&self.weights_of(request))),
            ("debt", self.debt.to_string(), request.debt.to_string()),
            ("reserve", reserve(self.reserve.as_ref()), reserve(request.reserve.as_ref())),
            ("limit a customer", limit(self.per_customer), limit(request.per_customer)),
            ("durability", self.durability.name().to_owned(), request.durability.name().to_owned()),
        ];
        let differs = all.into_iter().filter(|(_, has, asked)| has != asked);
        differs.map(|(term, has, asked)| format!("{term}: it has {has}, asked for is {asked}")).collect()
    }

    /// The weight of each region by a request: equal where it gives none, 0 where it names only others.
    fn weights_of(&self, request: &CreatePool) -> BTreeMap<Region, u64> {
        let unsaid = u64::from(request.weights.is_empty());
        let regions = self.weights.keys().map(|region| (region.clone(), unsaid));
        regions.chain(request.weights.iter().map(|(region, weight)| (region.clone(), *weight))).collect()
    }

    /// All terms, for people.
    pub(super) fn terms(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "supply {}, class {}, weights {}, debt {}, reserve {}, limit a customer {}",
            self.supply,
            self.class,
            weights(&self.weights),
            self.debt,
            reserve(self.reserve.as_ref()),
            limit(self.per_customer)
        )?;
        match self.durability {
            Durability::Local => Ok(()),
            Durability::Quorum => f.write_str(", durability quorum"),
        }
    }
}

fn weights(weights: &BTreeMap<Region, u64>) -> String {
    let each: Vec<String> = weights.iter().map(|(region, weight)| format!("{region}={weight}")).collect();
    each.join(",")
}

fn reserve(reserve: Option<&Reserve>) -> String {
    reserve.map_or("none".to_owned(), |reserve| format!("{}={}", reserve.node, reserve.units))
}

fn limit(limit: Option<u64>) -> String {
    limit.map_or("none".to_owned(), |limit| limit.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use rhumb_core::{DataClass, HybridTime, NodeId, PoolName};

    use super::super::Refusal;
    use super::*;

    fn region(name: &str) -> Region {
        Region::new(name).expect("valid")
    }

    fn spec() -> PoolSpec {
        PoolSpec {
            name: PoolName::new("concert").expect("valid"),
            class: DataClass::new("inventory").expect("valid"),
            supply: 100,
            weights: BTreeMap::from([(region("eu"), 1), (region("us"), 1)]),
            created: HybridTime::ZERO,
            debt: 0,
            reserve: None,
            per_customer: None,
            durability: Durability::Local,
        }
    }

    /// The request that made that pool, changed.
    fn check(change: impl FnOnce(&mut CreatePool), want: Expect) {
        let PoolSpec { name, class, supply, debt, reserve, per_customer, durability, .. } = spec();
        let weights = BTreeMap::new();
        let mut request =
            CreatePool { name, class, supply, weights, debt, reserve, per_customer, durability };
        change(&mut request);
        want.assert_eq(&spec().differences(&request).join("\n"));
    }

    #[test]
    fn each_term_that_differs_is_named_with_what_the_pool_has() {
        check(|_| {}, expect![""]);
        check(|request| request.debt = 5, expect!["debt: it has 0, asked for is 5"]);
        check(
            |request| request.weights = BTreeMap::from([(region("us"), 3)]),
            expect!["weights: it has eu=1,us=1, asked for is eu=0,us=3"],
        );
        check(
            |request| {
                request.supply = 90;
                request.reserve = Some(Reserve { node: NodeId::new("us", "n1").expect("valid"), units: 20 });
                request.per_customer = Some(4);
            },
            expect![[r#"
                supply: it has 100, asked for is 90
                reserve: it has none, asked for is us/n1=20
                limit a customer: it has none, asked for is 4"#]],
        );
    }

    #[test]
    fn the_refusal_of_a_second_pool_says_all_terms_of_the_first() {
        let refusal = Refusal::PoolExists(Box::new(spec())).to_string();
        expect!["pool concert exists with other terms: supply 100, class inventory, weights eu=1,us=1, debt 0, reserve none, limit a customer none"].assert_eq(&refusal);
    }
}
