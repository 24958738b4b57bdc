//! Who takes the place of a replica whose node is gone, while all others stay.

use std::time::Duration;

use rhumb_core::NodeId;

use super::words::round_trip;
use super::{Chosen, Disk, Ground, Role};
use crate::policy::Use;

/// Where a replica should stand in stead of one whose node is gone. A voter goes to a region that has none of those that stay if
/// there is one, the nearest to the first of them; a learner stays in its region, near its readers.
///
/// # Errors
/// Why nobody may take its place.
pub fn stand_in(ground: &Ground<'_>, stay: &[NodeId], gone: &NodeId, role: Role) -> Result<Chosen, String> {
    let known = ground.policy.version().is_some() && !ground.class.is_control();
    let mut free: Vec<_> = ground
        .sites
        .iter()
        .filter(|site| known && site.disk == Disk::Known && site.node != *gone && !stay.contains(&site.node))
        .filter(|site| ground.policy.permits(&site.node.region, Use::Hold, ground.class).is_ok())
        .filter(|site| role == Role::Voter || site.node.region == gone.region)
        .collect();
    let from = stay.first().map_or(&gone.region, |first| &first.region);
    free.sort_by_key(|site| {
        let region = &site.node.region;
        let beside = stay.iter().any(|stays| stays.region == *region);
        let far = (ground.distances)(from, region).unwrap_or(Duration::MAX);
        (beside, *region != gone.region, far, site.replicas, &site.node)
    });
    let Some(site) = free.first() else {
        let place = match role {
            Role::Learner => format!("no other node of region {} that is reached", gone.region),
            _ => "no other node that is reached".to_owned(),
        };
        return Err(format!("{place} may hold class {} and has no replica", ground.class));
    };
    let region = &site.node.region;
    let why = match stay.iter().find(|stays| stays.region == *region) {
        Some(beside) => format!("beside {beside}: no region without a replica may hold the class"),
        None if *region == gone.region => format!("in the region of {gone}"),
        None => format!(
            "region {region} has none and is {} from {from}",
            round_trip((ground.distances)(from, region))
        ),
    };
    Ok(Chosen { node: site.node.clone(), role, why })
}
