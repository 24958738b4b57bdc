//! Shares of a supply by the largest-remainder method (Hamilton's), in integers.
//!
//! * It decides: how many whole units each weight gets.
//! * It never does: use floats, or lose or invent a unit.
//! * Invariant: the parts sum to the total exactly, and each is its exact quota rounded down or up.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use rhumb_core::canary::{self, Canary};
use rhumb_core::{NodeId, Region};
use thiserror::Error;

use crate::founding::Founding;

/// Why a supply cannot be split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShareError {
    /// No weight, or none above zero.
    #[error("nothing to split over: at least one weight must be above zero")]
    NoWeight,
    /// A region was given that has no node.
    #[error("region {region} has no node: the mesh has {known}")]
    UnknownRegion {
        /// The region given.
        region: Region,
        /// Those that have nodes, for the message.
        known: String,
    },
    /// A region was given twice.
    #[error("region {0} has two weights: give one")]
    DuplicateRegion(Region),
}

/// Splits a total by weights: each gets its quota rounded down, and what is left over goes, one unit
/// each, to the largest remainders; equal remainders in the order given. So 10,000 over three equal
/// weights is 3334, 3333, 3333. A weight of zero gets nothing.
///
/// # Errors
/// [`ShareError::NoWeight`] when no weight is above zero.
pub fn split<T: Clone>(total: u64, weights: &[(T, u64)]) -> Result<Vec<(T, u64)>, ShareError> {
    let sum: u128 = weights.iter().map(|(_, weight)| u128::from(*weight)).sum();
    if sum == 0 {
        return Err(ShareError::NoWeight);
    }
    // A product of two 64-bit numbers always fits 128 bits.
    let scaled = |weight: u64| u128::from(total) * u128::from(weight);
    let mut parts: Vec<u64> = weights.iter().map(|(_, weight)| whole(scaled(*weight) / sum)).collect();
    // Each remainder is below `sum`, so fewer units are left over than there are remainders above 0.
    let left_over = total - parts.iter().sum::<u64>();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|i| Reverse(scaled(weights[*i].1) % sum));
    if !canary::sings(Canary::FloorDivision) {
        for i in order.into_iter().take(usize::try_from(left_over).expect("fewer than the weights")) {
            parts[i] += 1;
        }
    }
    Ok(weights.iter().map(|(name, _)| name.clone()).zip(parts).collect())
}

/// Splits a supply by region weight, then evenly over each region's nodes. Every node of the founding
/// list is in the answer, in its order; nodes of regions without a weight get zero.
///
/// # Errors
/// [`ShareError`] when a region is unknown or given twice, or no weight is above zero.
pub fn split_over_nodes(
    supply: u64,
    region_weights: &[(Region, u64)],
    founding: &Founding,
) -> Result<Vec<(NodeId, u64)>, ShareError> {
    let mut seen = BTreeSet::new();
    for (region, _) in region_weights {
        if founding.nodes_in(region).is_empty() {
            let known: Vec<&str> = founding.regions().iter().map(|region| region.as_str()).collect();
            return Err(ShareError::UnknownRegion { region: region.clone(), known: known.join(", ") });
        }
        if !seen.insert(region) {
            return Err(ShareError::DuplicateRegion(region.clone()));
        }
    }
    let mut shares: Vec<(NodeId, u64)> = founding.nodes().iter().map(|node| (node.clone(), 0)).collect();
    for (region, units) in split(supply, region_weights)? {
        let even: Vec<(&NodeId, u64)> = founding.nodes_in(&region).iter().map(|node| (node, 1)).collect();
        for (node, part) in split(units, &even)? {
            let at = founding.nodes().binary_search(node).expect("a node of the list");
            shares[at].1 = part;
        }
    }
    Ok(shares)
}

/// A quota is never above the total, which is a `u64`.
fn whole(quota: u128) -> u64 {
    u64::try_from(quota).expect("a weight is at most the sum of the weights")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::founding::founding;

    fn check(total: u64, weights: &[u64], want: &[u64]) {
        let named: Vec<(usize, u64)> = weights.iter().copied().enumerate().collect();
        let parts: Vec<u64> =
            split(total, &named).expect("a weight above zero").into_iter().map(|(_, n)| n).collect();
        assert_eq!(parts, want, "{total} by {weights:?}");
    }

    #[test]
    fn remainders_go_to_the_largest_first_and_ties_by_order() {
        check(10_000, &[1, 1, 1], &[3334, 3333, 3333]);
        check(10_000, &[50, 30, 20], &[5000, 3000, 2000]);
        check(2, &[1, 1, 1], &[1, 1, 0]);
        check(10, &[1, 0, 2], &[3, 0, 7]);
        check(0, &[1, 2], &[0, 0]);
        check(u64::MAX, &[u64::MAX, u64::MAX], &[u64::MAX / 2 + 1, u64::MAX / 2]);
    }

    #[test]
    fn nothing_to_split_over_is_refused() {
        assert_eq!(split::<()>(7, &[]), Err(ShareError::NoWeight));
        assert_eq!(split(7, &[("a", 0), ("b", 0)]), Err(ShareError::NoWeight));
    }

    #[test]
    fn floor_division_loses_units() {
        canary::let_out(Some(Canary::FloorDivision));
        let parts = split(10_000, &[('a', 1), ('b', 1), ('c', 1)]).expect("weights");
        canary::let_out(None);
        assert_eq!(parts.iter().map(|(_, n)| n).sum::<u64>(), 9_999);
    }

    fn over(supply: u64, weights: &[(&str, u64)], nodes: &str) -> Result<String, ShareError> {
        let weights: Vec<(Region, u64)> =
            weights.iter().map(|(r, w)| (Region::new(r).expect("valid"), *w)).collect();
        let shares = split_over_nodes(supply, &weights, &founding(nodes))?;
        Ok(shares.iter().map(|(node, n)| format!("{node}={n}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_regions_share_is_split_evenly_over_its_nodes() {
        let mesh = "us/n1 us/n2 eu/n1 ap/n1";
        let demo = over(10_000, &[("us", 50), ("eu", 30), ("ap", 20)], mesh);
        assert_eq!(demo.as_deref(), Ok("ap/n1=2000 eu/n1=3000 us/n1=2500 us/n2=2500"));
        assert_eq!(over(5, &[("us", 1)], mesh).as_deref(), Ok("ap/n1=0 eu/n1=0 us/n1=3 us/n2=2"));
    }

    #[test]
    fn regions_without_nodes_or_given_twice_are_refused() {
        let region = |name| Region::new(name).expect("valid");
        let unknown = ShareError::UnknownRegion { region: region("mars"), known: "eu, us".into() };
        assert_eq!(over(1, &[("mars", 1)], "us/n1 eu/n1"), Err(unknown));
        let twice = ShareError::DuplicateRegion(region("us"));
        assert_eq!(over(1, &[("us", 1), ("us", 1)], "us/n1 eu/n1"), Err(twice));
        assert_eq!(over(1, &[("us", 0)], "us/n1"), Err(ShareError::NoWeight));
    }

    proptest! {
        #[test]
        fn parts_sum_exactly_and_each_is_its_quota_rounded(
            total in prop_oneof![0..100u64, any::<u64>()],
            weights in prop::collection::vec(prop_oneof![0..5u64, any::<u64>()], 1..70),
        ) {
            let sum: u128 = weights.iter().map(|w| u128::from(*w)).sum();
            let named: Vec<(usize, u64)> = weights.iter().copied().enumerate().collect();
            let Ok(parts) = split(total, &named) else {
                prop_assert_eq!(sum, 0);
                return Ok(());
            };
            prop_assert_eq!(parts.iter().map(|(_, n)| u128::from(*n)).sum::<u128>(), u128::from(total));
            for ((i, part), weight) in parts.iter().zip(&weights) {
                let quota = u128::from(total) * u128::from(*weight);
                let floor = quota / sum;
                let ceil = quota.div_ceil(sum);
                prop_assert!((floor..=ceil).contains(&u128::from(*part)), "part {} of {}", i, part);
            }
        }
    }
}
