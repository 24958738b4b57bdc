//! The plan itself: which regions may hold the class, from which of them the lease is best held, and who is near it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::Region;

use super::words::{self, round_trip};
use super::{Chosen, Disk, Ground, Learners, NoPlan, Plan, Role, Site, Survive, VOTERS, Wish};
use crate::policy::Use;

/// The sites of the regions that may hold the class, the best of each region first.
pub(super) type Allowed<'a> = BTreeMap<&'a Region, Vec<&'a Site>>;

/// Voters around one region, and what they cost.
struct Candidate<'a> {
    from: &'a Region,
    voters: Vec<&'a Site>,
    cost: Cost,
}

/// Less is better, from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Voters that are lost.
    lost: usize,
    /// Regions whose loss is lived through: more is better. Where that is not wanted, regions: fewer are better.
    spread: Reverse<usize>,
    /// The round trip to the nearest quorum.
    pub(super) quorum: Duration,
    /// From all regions that may see the class to this one, together.
    pub(super) readers: Duration,
}

/// Where the replicas of a range of this class should stand.
///
/// # Errors
/// [`NoPlan`].
pub fn plan(ground: &Ground<'_>, wish: &Wish) -> Result<Plan, NoPlan> {
    if ground.class.is_control() {
        let why = "class control is the mesh's own, on the founding nodes: expected a class of the policy; \
                   `rhumb policy show FILE` lists those of its file";
        return Err(NoPlan::NotAllowed(why.to_owned()));
    }
    let policy = ground.policy.version().ok_or_else(|| {
        NoPlan::NotAllowed(
            "no policy is loaded, and without one no labelled data is held anywhere".to_owned(),
        )
    })?;
    let (allowed, barred) = allowed(ground);
    let count = allowed.values().map(Vec::len).sum::<usize>();
    let wanted = match wish.replication {
        0 => (VOTERS as usize).min(count),
        asked => asked as usize,
    };
    if count == 0 || wanted > count {
        let nodes = ground.sites.len();
        let why = if barred.is_empty() { String::new() } else { format!(": {}", barred.join("; ")) };
        let wanted = wanted.max(1);
        let why =
            format!("{wanted} replicas were asked for and {count} of {nodes} nodes may hold the class{why}");
        return Err(NoPlan::NotAllowed(why));
    }
    let all = candidates(ground, wish, &allowed, wanted)?;
    let best = &all[0];
    let may_lose = may_lose(&best.voters);
    if wish.survive == Some(Survive::Region) && may_lose.len() < regions(&best.voters).len() {
        return Err(NoPlan::Impossible(words::not_survived(&allowed, &best.voters)));
    }
    let leaseholder = best.voters[0];
    let learners = learners(ground, wish, &allowed, &best.voters);
    let mut rejected = words::rejected(ground, wish, &allowed, (&best.voters, best.from), &learners);
    let others = all[1..]
        .iter()
        .map(|other| words::not_from(other.from, &other.voters, (best.from, &best.cost), &other.cost));
    rejected.extend(others);
    Ok(Plan {
        voters: best.voters.iter().map(|site| words::voter(ground, site, &best.voters, best.from)).collect(),
        leaseholder: Chosen {
            node: leaseholder.node.clone(),
            role: Role::Leaseholder,
            why: words::leaseholder(wish, best.from, &best.cost, best.voters.len()),
        },
        survives: words::survives(&best.voters, &may_lose),
        learners,
        may_lose,
        rejected,
        policy,
    })
}

/// Which sites the policy and what is known of disks let have a replica, and what the policy says of the others.
fn allowed<'a>(ground: &Ground<'a>) -> (Allowed<'a>, Vec<String>) {
    let (mut allowed, mut barred) = (Allowed::new(), Vec::new());
    for site in ground.sites {
        match ground.policy.permits(&site.node.region, Use::Hold, ground.class) {
            Ok(()) if site.disk == Disk::Unknown => {}
            Ok(()) => allowed.entry(&site.node.region).or_default().push(site),
            Err(why) => barred.push(why),
        }
    }
    for sites in allowed.values_mut() {
        sites.sort_by_key(|site| (is_lost(site), site.replicas, &site.node));
    }
    barred.sort();
    barred.dedup();
    (allowed, barred)
}

/// The voters around each region from which the lease might be held, the best first.
fn candidates<'a>(
    ground: &Ground<'a>,
    wish: &Wish,
    allowed: &Allowed<'a>,
    wanted: usize,
) -> Result<Vec<Candidate<'a>>, NoPlan> {
    let home = match &wish.home {
        None => None,
        Some(home) => match allowed.get_key_value(home) {
            Some((home, _)) => Some(*home),
            None => {
                let regions: Vec<_> = allowed.keys().map(|region| region.as_str()).collect();
                let regions = regions.join(", ");
                let why = format!(
                    "no node of region {home} may hold the class, so the lease cannot be there: {regions} may"
                );
                return Err(NoPlan::Impossible(why));
            }
        },
    };
    let live = |region: &&Region| allowed[*region].iter().any(|site| !is_lost(site));
    let some_live = allowed.keys().copied().any(|region| live(&region));
    let from = allowed.keys().copied().filter(|region| match home {
        Some(home) => home == *region,
        // Nobody who is lost holds a lease.
        None => live(region) || !some_live,
    });
    let mut all: Vec<_> = from
        .map(|from| {
            let voters = voters(ground, wish, allowed, from, wanted);
            let cost = Cost {
                lost: voters.iter().filter(|site| is_lost(site)).count(),
                spread: Reverse(match wish.survive {
                    Some(Survive::Zone) => usize::MAX - regions(&voters).len(),
                    _ => may_lose(&voters).len(),
                }),
                quorum: quorum(ground, from, &voters),
                readers: readers(ground, from),
            };
            Candidate { from, voters, cost }
        })
        .collect();
    // Who is first by name wins where all else is alike: the sort is stable.
    all.sort_by(|one, other| one.cost.cmp(&other.cost));
    Ok(all)
}

/// So many voters around a region.
fn voters<'a>(
    ground: &Ground<'a>,
    wish: &Wish,
    allowed: &Allowed<'a>,
    from: &Region,
    wanted: usize,
) -> Vec<&'a Site> {
    let mut near: Vec<_> = allowed.iter().collect();
    near.sort_by_key(|(region, sites)| {
        let far = (ground.distances)(from, region).unwrap_or(Duration::MAX);
        (**region != from, sites.iter().all(|site| is_lost(site)), far, **region)
    });
    let mut chosen = Vec::new();
    match wish.survive {
        Some(Survive::Zone) => {
            chosen.extend(near.iter().flat_map(|(_, sites)| sites.iter().copied()).take(wanted))
        }
        _ => {
            for round in 0.. {
                chosen.extend(near.iter().filter_map(|(_, sites)| sites.get(round).copied()));
                if chosen.len() >= wanted {
                    break;
                }
            }
            chosen.truncate(wanted);
        }
    }
    chosen
}

/// A learner in each region that may hold the class and has no voter.
fn learners(ground: &Ground<'_>, wish: &Wish, allowed: &Allowed<'_>, voters: &[&Site]) -> Vec<Chosen> {
    if wish.learners == Learners::None {
        return Vec::new();
    }
    let without =
        allowed.iter().filter(|(region, _)| !voters.iter().any(|site| site.node.region == ***region));
    let live =
        without.filter_map(|(region, sites)| Some((*region, sites.iter().find(|site| !is_lost(site))?)));
    live.map(|(region, site)| {
        let near = voters.iter().min_by_key(|voter| {
            ((ground.distances)(region, &voter.node.region).unwrap_or(Duration::MAX), &voter.node)
        });
        let near = near.expect("a plan has voters");
        let far = round_trip((ground.distances)(region, &near.node.region));
        let why = format!(
            "reads near {region}: no voter stands there, and the nearest one, {}, is {far} away",
            near.node
        );
        Chosen { node: site.node.clone(), role: Role::Learner, why }
    })
    .collect()
}

/// The regions any one of which may be lost while a quorum of these is left.
fn may_lose(voters: &[&Site]) -> Vec<Region> {
    let quorum = voters.len() / 2 + 1;
    let left = |region: &&Region| voters.iter().filter(|site| site.node.region != **region).count();
    regions(voters).into_iter().filter(|region| left(region) >= quorum).cloned().collect()
}

/// The regions of these, by their names.
pub(super) fn regions<'a>(sites: &[&'a Site]) -> Vec<&'a Region> {
    let mut regions: Vec<_> = sites.iter().map(|site| &site.node.region).collect();
    regions.sort();
    regions.dedup();
    regions
}

pub(super) fn is_lost(site: &Site) -> bool {
    matches!(site.disk, Disk::Lost(_))
}

/// The round trip from a region's voter to the nearest quorum, itself one of it.
fn quorum(ground: &Ground<'_>, from: &Region, voters: &[&Site]) -> Duration {
    let mut far: Vec<_> = voters[1..]
        .iter()
        .map(|site| (ground.distances)(from, &site.node.region).unwrap_or(Duration::MAX))
        .collect();
    far.sort();
    match voters.len() / 2 {
        0 => Duration::ZERO,
        others => far.get(others - 1).copied().unwrap_or(Duration::MAX),
    }
}

/// The round trips from all regions of the mesh that may see the class, together; those that are not known count nothing.
fn readers(ground: &Ground<'_>, to: &Region) -> Duration {
    let mut regions: Vec<_> = ground.sites.iter().map(|site| &site.node.region).collect();
    regions.sort();
    regions.dedup();
    let may = |region: &&&Region| {
        let may = |usage| ground.policy.permits(region, usage, ground.class).is_ok();
        **region != to && (may(Use::Hold) || may(Use::Read))
    };
    let far = regions.iter().filter(may).filter_map(|region| (ground.distances)(region, to));
    far.fold(Duration::ZERO, Duration::saturating_add)
}
