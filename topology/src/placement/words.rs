//! The reasons of a plan, in words.

use std::time::Duration;

use rhumb_core::Region;

use super::plan::{Allowed, Cost, is_lost, regions};
use super::{Chosen, Disk, Ground, Learners, Rejected, Role, Site, Survive, Wish};
use crate::policy::Use;

/// A round trip, or that it is not known.
pub(super) fn round_trip(far: Option<Duration>) -> String {
    match far {
        Some(far) if far < Duration::MAX => format!("{} ms", far.as_micros().div_ceil(1_000)),
        _ => "a distance that the latency matrix does not have".to_owned(),
    }
}

fn list<'a>(regions: impl IntoIterator<Item = &'a Region>) -> String {
    regions.into_iter().map(Region::as_str).collect::<Vec<_>>().join(", ")
}

/// Why a voter stands where it does.
pub(super) fn voter(ground: &Ground<'_>, site: &Site, voters: &[&Site], from: &Region) -> Chosen {
    let region = &site.node.region;
    let first =
        voters.iter().find(|other| other.node.region == *region).is_some_and(|other| other.node == site.node);
    let mut why = match (region == from, first) {
        (true, true) => format!("region {region} is where the lease is best held"),
        (_, true) => match (ground.distances)(from, region) {
            Some(far) => format!("region {region} is {} from {from}", round_trip(Some(far))),
            None => format!("how far region {region} is from {from} the latency matrix does not say"),
        },
        (_, false) => {
            format!("another one in region {region}: no region without a voter was left, or none was wanted")
        }
    };
    if let Disk::Lost(since) = site.disk {
        why.push_str(&format!("; {}", not_reached(since)));
        let may_stand_in = |other: &Site| {
            other.disk == Disk::Known
                && !voters.iter().any(|voter| voter.node == other.node)
                && ground.policy.permits(&other.node.region, Use::Hold, ground.class).is_ok()
        };
        if !ground.sites.iter().any(may_stand_in) {
            why.push_str(", and no other node may stand in");
        }
    }
    Chosen { node: site.node.clone(), role: Role::Voter, why }
}

/// Why the lease is best held there.
pub(super) fn leaseholder(wish: &Wish, from: &Region, cost: &Cost, voters: usize) -> String {
    let quorum = match (voters, cost.quorum) {
        (1, _) => "it votes alone".to_owned(),
        (_, far) if far < Duration::MAX => {
            format!("a write waits {} for the nearest quorum", round_trip(Some(far)))
        }
        _ => "how far its nearest quorum is the latency matrix does not say".to_owned(),
    };
    match wish.home {
        Some(_) => format!("region {from} was said to be home; {quorum}"),
        None if cost.readers == Duration::ZERO => quorum,
        None => format!("{quorum}, and all readers together are {} away", round_trip(Some(cost.readers))),
    }
}

/// Why the lease is not held from there.
pub(super) fn not_from(
    region: &Region,
    voters: &[&Site],
    (best, less): (&Region, &Cost),
    cost: &Cost,
) -> Rejected {
    let why = match () {
        () if cost.quorum > less.quorum => {
            let (here, there) = (round_trip(Some(cost.quorum)), round_trip(Some(less.quorum)));
            format!("from {region} a write waits {here} for the nearest quorum, from {best} {there}")
        }
        () if cost.readers > less.readers => {
            let (here, there) = (round_trip(Some(cost.readers)), round_trip(Some(less.readers)));
            format!("all readers together are {here} from {region}, and {there} from {best}")
        }
        () if cost > less => format!("voters around {region} live through less, or one of them is lost"),
        () => format!("no better than {best}, which comes first by name"),
    };
    Rejected { node: voters[0].node.clone(), role: Role::Leaseholder, why }
}

/// Why the loss of any one region would not be lived through.
pub(super) fn not_survived(allowed: &Allowed<'_>, voters: &[&Site]) -> String {
    let (may, stand) = (allowed.keys().copied(), regions(voters));
    format!(
        "{} voters in {} do not live through the loss of any one region, and no others are to be had: {} may hold the class. \
         Three regions and an odd number of voters would do; without --survive the plan says what it lives through",
        voters.len(),
        list(stand),
        list(may)
    )
}

/// What the loss of a region or of nodes means.
pub(super) fn survives(voters: &[&Site], may_lose: &[Region]) -> String {
    let all = regions(voters);
    let nodes = match (voters.len() - 1) / 2 {
        0 => "no node may be lost".to_owned(),
        1 => "any one node may be lost".to_owned(),
        more => format!("any {more} nodes may be lost"),
    };
    let ends = all.iter().copied().filter(|region| !may_lose.contains(region));
    match may_lose.len() {
        count if count == all.len() => format!("any one region may be lost; {nodes}"),
        0 => format!("the loss of {} stops writes and strong reads; {nodes}", one_of(ends)),
        _ => format!(
            "the loss of {} is lived through, that of {} stops writes and strong reads; {nodes}",
            one_of(may_lose),
            one_of(ends)
        ),
    }
}

fn one_of<'a>(regions: impl IntoIterator<Item = &'a Region>) -> String {
    let names: Vec<_> = regions.into_iter().map(Region::as_str).collect();
    names.join(" or ")
}

/// Why nodes have no replica.
pub(super) fn rejected(
    ground: &Ground<'_>,
    wish: &Wish,
    allowed: &Allowed<'_>,
    (voters, from): (&[&Site], &Region),
    learners: &[Chosen],
) -> Vec<Rejected> {
    let mut sites: Vec<_> = ground.sites.iter().collect();
    sites.sort_by_key(|site| &site.node);
    let mut rejected = Vec::new();
    for site in sites {
        let region = &site.node.region;
        let mut no = |role, why| rejected.push(Rejected { node: site.node.clone(), role, why });
        if voters.iter().any(|voter| voter.node == site.node) {
            continue;
        }
        if let Err(why) = ground.policy.permits(region, Use::Hold, ground.class) {
            no(Role::Voter, why);
            continue;
        }
        if site.disk == Disk::Unknown {
            no(Role::Voter, "it has not said yet which disk it has".to_owned());
            continue;
        }
        no(Role::Voter, not_a_voter(ground, wish, site, (voters, from)));
        let beside = learners.iter().find(|learner| learner.node.region == *region);
        if wish.learners == Learners::None || beside.is_some_and(|learner| learner.node == site.node) {
            continue;
        }
        let voter = voters.iter().find(|voter| voter.node.region == *region);
        let why = match (&site.disk, beside, voter) {
            (Disk::Lost(since), _, _) => not_reached(*since),
            (_, Some(learner), _) => second(site, &learner.node, "reads", allowed),
            (_, None, Some(voter)) => format!("region {region} reads at its voter on {}", voter.node),
            (_, None, None) => "nobody reads near it".to_owned(),
        };
        no(Role::Learner, why);
    }
    rejected
}

fn not_reached(since: Duration) -> String {
    format!("it has not been reached for {} s", since.as_secs())
}

fn not_a_voter(ground: &Ground<'_>, wish: &Wish, site: &Site, (voters, from): (&[&Site], &Region)) -> String {
    let region = &site.node.region;
    if let Disk::Lost(since) = site.disk {
        return not_reached(since);
    }
    let there = voters.iter().find(|voter| voter.node.region == *region);
    if let Some(voter) = there {
        return second(site, &voter.node, "a region's loss", &Allowed::from([(region, vec![*voter])]));
    }
    if wish.survive == Some(Survive::Zone) {
        return format!("region {region} is farther from {from} than those with voters");
    }
    let far = (ground.distances)(from, region);
    let farthest = voters.iter().filter(|voter| !is_lost(voter)).filter_map(|voter| {
        let far = if voter.node.region == *from {
            Duration::ZERO
        } else {
            (ground.distances)(from, &voter.node.region)?
        };
        Some((far, &voter.node.region))
    });
    match (far, farthest.max()) {
        (None, _) => format!("how far it is from {from} the latency matrix does not say"),
        (Some(far), Some((less, voter))) if far > less => {
            format!(
                "farther: {} from {from}, and {voter} is {}",
                round_trip(Some(far)),
                round_trip(Some(less))
            )
        }
        (Some(far), _) => format!("{} from {from}, and there are voters enough", round_trip(Some(far))),
    }
}

/// Why a second one in a region is not needed, and why it is the other one that was taken.
fn second(site: &Site, taken: &rhumb_core::NodeId, what: &str, allowed: &Allowed<'_>) -> String {
    let other = allowed.values().flatten().find(|other| other.node == *taken);
    let fewer = other.is_some_and(|other| other.replicas < site.replicas);
    let why = if fewer { " (with fewer replicas)" } else { "" };
    format!("same region: {taken}{why} is there already, and a second one would not help against {what}")
}
