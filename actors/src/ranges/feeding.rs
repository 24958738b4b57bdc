//! Who of a range's learners gets its entries from another replica than the leader: a far region is fed by a near one, and what
//! crosses an ocean crosses it once.
//!
//! * It decides: which replica feeds which learner, by the distances of their regions; whether the entries that a feeder has are
//!   those that the leader has named.
//! * It never does: have a voter fed (what counts for a quorum comes from the leader itself), or have one feed that is fed: the
//!   tree is two deep, and has no circles.
//! * Invariant: consensus rests on none of it. What a feeder passes on is what the leader has named, and the learner looks at it as
//!   if the leader had sent it.

use std::collections::BTreeMap;
use std::time::Duration;

use rhumb_core::Region;

/// A feeder is nearer to the learner than the leader is by this at least.
const NEARER: u32 = 2;
/// The way over a feeder is at most 3/2 of the way from the leader to the learner: else what comes over it comes too late.
const DETOUR: (u32, u32) = (3, 2);

/// One of a range's replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand<K> {
    /// Which.
    pub who: K,
    /// Where its node is.
    pub region: Region,
    /// Whether it votes.
    pub votes: bool,
}

/// Which replica feeds each learner; whom it does not name the leader sends to itself. `distances` says the round trip from one
/// region to another, where it is known. The same replicas have the same tree, whatever their order.
///
/// A learner is fed by the voter that is nearest to it, or, where none is near, by the nearest learner that comes before it and is
/// not fed: of two learners in one far region one is sent to over the ocean, and the other one by that.
#[must_use]
pub fn tree<K: Ord + Clone>(
    leader: &K,
    all: &[Stand<K>],
    distances: &dyn Fn(&Region, &Region) -> Option<Duration>,
) -> BTreeMap<K, K> {
    let mut tree = BTreeMap::new();
    let Some(root) = all.iter().find(|stand| stand.who == *leader) else { return tree };
    let way = |from: &Stand<K>, to: &Stand<K>| distances(&from.region, &to.region);
    // How far it then is from the feeder, if that is worth it.
    let near = |feeder: &Stand<K>, learner: &Stand<K>| {
        let (far, there, near) = (way(root, learner)?, way(root, feeder)?, way(feeder, learner)?);
        let is_nearer = near.saturating_mul(NEARER) <= far;
        let on_the_way = there.saturating_add(near).saturating_mul(DETOUR.1) <= far.saturating_mul(DETOUR.0);
        (is_nearer && on_the_way).then_some(near)
    };
    let mut learners: Vec<_> = all.iter().filter(|stand| !stand.votes && stand.who != root.who).collect();
    learners.sort_by(|one, other| one.who.cmp(&other.who));
    for (place, learner) in learners.iter().enumerate() {
        let voters = all.iter().filter(|stand| stand.votes && stand.who != root.who);
        let before = learners[..place].iter().copied().filter(|stand| !tree.contains_key(&stand.who));
        let by_voter = voters.filter_map(|feeder| Some((near(feeder, learner)?, &feeder.who))).min();
        let by_learner = before.filter_map(|feeder| Some((near(feeder, learner)?, &feeder.who))).min();
        if let Some((_, feeder)) = by_voter.or(by_learner) {
            tree.insert(learner.who.clone(), feeder.clone());
        }
    }
    tree
}

#[cfg(test)]
mod tests {
    use rhumb_topology::RegionMap;

    use super::*;

    /// Replicas by their regions, in the order of their numbers; `?` behind one: it has no vote. The first one leads.
    fn stands(text: &str) -> Vec<Stand<usize>> {
        let stand = |(who, word): (usize, &str)| {
            let (region, votes) = word.strip_suffix('?').map_or((word, true), |region| (region, false));
            Stand { who, region: Region::new(region).expect("a region"), votes }
        };
        text.split_whitespace().enumerate().map(stand).collect()
    }

    fn check(text: &str, wanted: &[(usize, usize)]) {
        let map = RegionMap::default();
        let distances = |from: &Region, to: &Region| map.rtt(from, to).ok();
        let mut all = stands(text);
        let wanted: BTreeMap<_, _> = wanted.iter().copied().collect();
        assert_eq!(tree(&0, &all, &distances), wanted, "{text}");
        all.reverse();
        assert_eq!(tree(&0, &all, &distances), wanted, "{text}, the other way round");
    }

    #[test]
    fn a_learner_is_fed_by_whoever_is_much_nearer_and_on_the_way() {
        // From Sydney Frankfurt is 249 ms away, Washington 214; from there it is 91 ms.
        check("ap-southeast us-east us-south eu-central?", &[(3, 1)]);
        // Two of one region.
        check("eu-central us-east ap-southeast ap-southeast?", &[(3, 2)]);
        // Where the leader is there is nothing to be won.
        check("eu-central us-east ap-southeast eu-central?", &[]);
        // From Washington Sydney is 214 ms away; from Dallas it is not half of that.
        check("us-east us-south eu-central ap-southeast?", &[]);
        // Dallas is 123 ms from Frankfurt, and 31 from Washington.
        check("eu-central us-east ap-southeast us-south?", &[(3, 1)]);
        // London is 75 ms from Washington and 27 from Madrid, which is 87 from Washington: that is a way around.
        check("us-east eu-south ap-southeast eu-west?", &[]);
    }

    #[test]
    fn voters_are_never_fed_and_who_is_fed_feeds_nobody() {
        check("eu-central ap-southeast ap-southeast", &[]);
        check("eu-central us-east us-south ap-southeast", &[]);
        // One of two learners far away is sent to over the ocean, and a third one is fed by the same.
        check("eu-central us-east us-south ap-southeast? ap-southeast? ap-southeast?", &[(4, 3), (5, 3)]);
        // A voter goes before a learner that is as near.
        check("eu-central ap-southeast? ap-southeast ap-southeast?", &[(1, 2), (3, 2)]);
    }

    #[test]
    fn where_a_distance_is_not_known_the_leader_sends_itself() {
        check("moon us-east us-east?", &[]);
        check("eu-central moon us-east?", &[]);
        check("eu-central us-east moon?", &[]);
        let all = stands("eu-central us-east us-south?");
        let far = |_: &Region, _: &Region| Some(Duration::from_millis(50));
        assert_eq!(tree(&7, &all, &far), BTreeMap::new(), "nobody of them leads");
        assert_eq!(tree(&0, &all, &far), BTreeMap::new(), "all are as far");
    }
}
