//! How rights move to where demand is: the policy, and the plan as a value.
//!
//! * It decides: whom to ask for how many rights, whom to give how many unasked, and how much a donor
//!   keeps for itself.
//! * It never does: move a right. A plan is only ever a request; the donor's own count decides.
//! * Invariant: integers only. A plan asks nobody for nothing and never names a peer twice in one way.
//!   Two nodes of like cover neither ask nor give each other anything, and who gives keeps at least as
//!   much cover as it leaves the receiver with: rights do not swing to and fro.
//!
//! *Cover* is how long what a node has would last at its demand.

use std::cmp::Reverse;
use std::time::Duration;

use rhumb_core::NodeId;
use rhumb_core::canary::{self, Canary};

/// Who looks ahead. Whoever has a buyer waiting asks, whatever this says: a rare buyer is not refused
/// what another node has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Initiative {
    /// The needy: it asks before it runs out.
    Pull,
    /// The donor: it grants unasked, towards the demand that is forecast elsewhere.
    Push,
    /// Both; a donor gives only what it has beyond the high-water mark. It waits as little as push and
    /// moves rights least often (`docs/decisions/0015-who-moves-rights.md`).
    #[default]
    Hybrid,
}

impl Initiative {
    /// Its name in settings, metrics and plans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Hybrid => "hybrid",
        }
    }
}

/// When and how far rights are levelled. All of it may differ between nodes: safety never rests on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPolicy {
    /// Who looks ahead.
    pub initiative: Initiative,
    /// A node that asks, asks for so much of its own demand; a donor gives so much of a peer's.
    pub horizon: Duration,
    /// A node is in need when what it has covers less than this of its demand.
    pub low_water: Duration,
    /// A donor of [`Initiative::Hybrid`] gives unasked only what covers more than this of its own demand.
    pub high_water: Duration,
    /// A donor keeps so much of its own demand, but never more than half of what it has.
    pub reserve: Duration,
    /// Before anybody waits, rights move only from nodes whose units last more than so many times as
    /// long as the receiver's. Two nodes of like cover leave each other alone.
    pub clearly_more: u64,
    /// Below so many unsold units a node (times the nodes of the pool), the pool's home owns the tail:
    /// all others grant it everything and pass holds on, until half as many again are unsold. 0: never. The home's counts.
    pub tail_floor: u64,
    /// Plans while somebody waits lie at least so far apart.
    pub ask_spacing: Duration,
    /// Plans while nobody waits lie at least so far apart.
    pub plan_spacing: Duration,
}

impl Default for LevelPolicy {
    fn default() -> Self {
        Self {
            initiative: Initiative::default(),
            horizon: Duration::from_secs(4),
            low_water: Duration::from_secs(2),
            high_water: Duration::from_secs(8),
            reserve: Duration::from_secs(1),
            clearly_more: 2,
            tail_floor: 32,
            ask_spacing: Duration::from_millis(50),
            plan_spacing: Duration::from_millis(250),
        }
    }
}

/// What a plan is made from: this node's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// Units available here.
    pub available: u64,
    /// Units that waiting holds want.
    pub parked: u64,
    /// Units asked for here, per second.
    pub demand: u64,
    /// The other nodes of the pool.
    pub peers: &'a [Peer],
}

/// What is known of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub node: NodeId,
    /// What it said last and recently; `None` if it has been silent: it may have something.
    pub known: Option<Known>,
    /// Rights granted to it from here that it has not acknowledged.
    pub in_transit: u64,
}

/// A peer's recent word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Units available there.
    pub available: u64,
    /// Units asked for there, per second.
    pub demand: u64,
}

/// What a plan wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Ask this peer for so many more rights.
    Ask {
        /// Whom.
        node: NodeId,
        /// How many.
        units: u64,
    },
    /// Grant this peer so many rights, which it has not asked for.
    Give {
        /// Whom.
        node: NodeId,
        /// How many.
        units: u64,
    },
}

/// So many units are asked for in this time at this rate, rounded down.
fn units(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_millis() / 1_000).unwrap_or(u64::MAX)
}

impl LevelPolicy {
    /// What a donor keeps of what it has.
    #[must_use]
    pub fn floor(&self, available: u64, demand: u64) -> u64 {
        (available / 2).min(units(demand, self.reserve))
    }

    /// What a peer could grant, by its own word.
    #[must_use]
    pub fn spare(&self, known: Known) -> u64 {
        known.available - self.floor(known.available, known.demand)
    }

    /// Whether a pool with so little left is its home's alone, after it was or was not before: units that
    /// are returned near the floor do not send rights to and fro.
    #[must_use]
    pub fn is_tail(&self, unsold: u64, nodes: usize, was: bool) -> bool {
        let floor = self.tail_floor.saturating_mul(nodes as u64);
        let more = if was && !canary::sings(Canary::TailFlips) { floor.div_ceil(2) } else { 0 };
        unsold < floor.saturating_add(more)
    }

    /// Whom to ask for how much, and whom to give how much.
    #[must_use]
    pub fn plan(&self, view: View<'_>) -> Vec<Move> {
        let mut moves = self.asks(view);
        moves.extend(self.gifts(view));
        moves
    }

    /// Those known to have most are asked first, those who are silent last.
    fn asks(&self, view: View<'_>) -> Vec<Move> {
        let missing = view.parked.saturating_sub(view.available);
        let looks_ahead = self.initiative != Initiative::Push;
        let low = looks_ahead && view.available < units(view.demand, self.low_water);
        if missing == 0 && !low {
            return Vec::new();
        }
        let mut donors: Vec<(&Peer, u64)> = view
            .peers
            .iter()
            .filter_map(|peer| Some((peer, self.offer(view, missing > 0, peer)?)))
            .filter(|(_, offer)| *offer > 0)
            .collect();
        donors.sort_by_key(|(peer, offer)| (peer.known.is_none(), Reverse(*offer)));
        let ahead = if looks_ahead { self.ahead(view) } else { 0 };
        let mut rest = missing.saturating_add(ahead);
        let mut asks = Vec::new();
        for (peer, offer) in donors {
            let units = rest.min(offer);
            if units > 0 {
                asks.push(Move::Ask { node: peer.node.clone(), units });
            }
            // Nothing is known of a silent peer, so the next silent one is asked for the same.
            if peer.known.is_some() {
                rest -= units;
            }
        }
        asks
    }

    /// What to ask for beyond what is waited for: a horizon of demand, but not more than would give
    /// every node the same cover.
    fn ahead(&self, view: View<'_>) -> u64 {
        let fair = Whole::of(view).fair(view.demand);
        units(view.demand, self.horizon).min(fair.saturating_sub(view.available))
    }

    /// How much may be asked of a peer. Somebody who waits may ask whoever has something; one who
    /// only looks ahead asks those whose units last clearly longer than its own.
    fn offer(&self, view: View<'_>, waiting: bool, peer: &Peer) -> Option<u64> {
        let Some(known) = peer.known else { return waiting.then_some(u64::MAX) };
        let longer = self.clearly_longer(known, view.me());
        (waiting || longer || canary::sings(Canary::PullFromEquals)).then(|| self.spare(known))
    }

    /// What to give unasked: to those in need, the neediest first, up to a horizon of their demand and
    /// to no more than the same cover for all. Other donors are taken to do the same, each in
    /// proportion to its surplus.
    fn gifts(&self, view: View<'_>) -> Vec<Move> {
        if self.initiative == Initiative::Pull || view.parked > 0 {
            return Vec::new();
        }
        let whole = Whole::of(view);
        let mine = self.surplus(view.me(), whole);
        let mut needy: Vec<(&Peer, Known)> = view
            .peers
            .iter()
            .filter_map(|peer| Some((peer, peer.after_transit()?)))
            .filter(|(_, known)| known.available < units(known.demand, self.low_water))
            .filter(|(_, known)| self.clearly_longer(view.me(), *known))
            .collect();
        needy.sort_by_key(|(_, known)| u128::from(known.available) * 1_000 / u128::from(known.demand.max(1)));
        let mut left = mine;
        let mut gifts = Vec::new();
        for (peer, known) in needy {
            let donors = view.peers.iter().filter_map(|other| other.known);
            let donors = donors.filter(|other| self.clearly_longer(*other, known));
            let surpluses = donors.map(|other| u128::from(self.surplus(other, whole))).sum::<u128>();
            let lacks = units(known.demand, self.horizon).min(whole.fair(known.demand));
            let lacks = u128::from(lacks.saturating_sub(known.available));
            let all = (surpluses + u128::from(mine)).max(1);
            let part = u64::try_from((lacks * u128::from(mine)).div_ceil(all)).unwrap_or(u64::MAX).min(left);
            if part > 0 {
                gifts.push(Move::Give { node: peer.node.clone(), units: part });
                left -= part;
            }
        }
        gifts
    }

    /// What a node may give unasked: it keeps what it keeps from those who ask, as much cover as all
    /// have together, and what is below its high-water mark.
    fn surplus(&self, node: Known, whole: Whole) -> u64 {
        let mark = match self.initiative {
            Initiative::Hybrid if !canary::sings(Canary::HybridBelowMark) => {
                units(node.demand, self.high_water)
            }
            Initiative::Pull | Initiative::Push | Initiative::Hybrid => 0,
        };
        let kept = self.floor(node.available, node.demand).max(whole.fair(node.demand)).max(mark);
        node.available.saturating_sub(kept)
    }

    /// Whether what one has lasts clearly longer than what another has.
    fn clearly_longer(&self, one: Known, other: Known) -> bool {
        let ones = u128::from(one.available) * u128::from(other.demand);
        let others = u128::from(other.available) * u128::from(one.demand);
        ones > others.saturating_mul(u128::from(self.clearly_more))
    }
}

impl View<'_> {
    fn me(&self) -> Known {
        Known { available: self.available, demand: self.demand }
    }
}

impl Peer {
    /// How it will stand when what it was granted has arrived.
    fn after_transit(&self) -> Option<Known> {
        let known = self.known?;
        Some(Known { available: known.available.saturating_add(self.in_transit), ..known })
    }
}

/// All that is known of the pool together.
#[derive(Debug, Clone, Copy)]
struct Whole {
    available: u128,
    demand: u128,
}

impl Whole {
    fn of(view: View<'_>) -> Self {
        let all = || view.peers.iter().filter_map(|peer| peer.known).chain([view.me()]);
        Self {
            available: all().map(|known| u128::from(known.available)).sum(),
            demand: all().map(|known| u128::from(known.demand)).sum(),
        }
    }

    /// What a node of this demand would have if all had the same cover.
    fn fair(self, demand: u64) -> u64 {
        let fair = (self.available * u128::from(demand)).checked_div(self.demand).unwrap_or(0);
        u64::try_from(fair).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(peers: &[(&str, Option<(u64, u64)>)]) -> Vec<Peer> {
        let peer = |(name, known): &(&str, Option<(u64, u64)>)| Peer {
            node: NodeId::new(name, "n1").expect("valid"),
            known: known.map(|(available, demand)| Known { available, demand }),
            in_transit: 0,
        };
        peers.iter().map(peer).collect()
    }

    fn told(moves: &[Move]) -> String {
        let one = |a_move: &Move| match a_move {
            Move::Ask { node, units } => format!("{}={units}", node.region),
            Move::Give { node, units } => format!("{}<{units}", node.region),
        };
        moves.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn of(initiative: Initiative) -> LevelPolicy {
        LevelPolicy { initiative, ..LevelPolicy::default() }
    }

    fn plan(available: u64, parked: u64, demand: u64, known: &[(&str, Option<(u64, u64)>)]) -> String {
        let peers = peers(known);
        told(&of(Initiative::Pull).plan(View { available, parked, demand, peers: &peers }))
    }

    fn gives(initiative: Initiative, available: u64, demand: u64, known: &[(&str, (u64, u64))]) -> String {
        let known: Vec<_> = known.iter().map(|(name, known)| (*name, Some(*known))).collect();
        let peers = peers(&known);
        told(&of(initiative).plan(View { available, parked: 0, demand, peers: &peers }))
    }

    #[test]
    fn enough_asks_for_nothing() {
        assert_eq!(plan(2_000, 0, 600, &[("us", Some((5_000, 250)))]), "");
        assert_eq!(plan(0, 0, 0, &[("us", Some((5_000, 250)))]), "", "nobody wants anything here");
    }

    #[test]
    fn low_water_asks_the_richest_for_a_horizon_of_demand() {
        assert_eq!(plan(1_000, 0, 600, &[("eu", Some((3_000, 150))), ("us", Some((5_000, 250)))]), "us=2400");
    }

    #[test]
    fn nobody_is_asked_for_more_than_equal_cover() {
        // 1,200 in all, and this node has 60 % of the demand: its fair part is 720, it has 100. Each donor
        // keeps a second of its own demand.
        assert_eq!(plan(100, 0, 600, &[("eu", Some((500, 150))), ("us", Some((600, 250)))]), "eu=350 us=270");
    }

    #[test]
    fn peers_of_like_cover_are_left_alone() {
        assert_eq!(plan(100, 0, 100, &[("us", Some((190, 100)))]), "");
        assert_eq!(plan(100, 0, 100, &[("us", Some((300, 100)))]), "us=100");
    }

    #[test]
    fn whoever_waits_asks_everybody_that_may_have_something() {
        assert_eq!(plan(0, 5, 0, &[("ap", None), ("eu", Some((3, 0))), ("us", Some((0, 0)))]), "eu=3 ap=2");
        assert_eq!(plan(0, 5, 0, &[("ap", None), ("eu", None)]), "ap=5 eu=5");
    }

    #[test]
    fn a_donor_keeps_a_second_of_its_demand_but_gives_at_least_half() {
        let policy = LevelPolicy::default();
        assert_eq!(policy.floor(1_000, 100), 100);
        assert_eq!(policy.floor(1_000, 900), 500);
        assert_eq!(policy.floor(1, 900), 0, "the last unit is not kept from somebody who asks");
    }

    #[test]
    fn a_donor_gives_a_horizon_of_the_demand_elsewhere_and_no_more_than_the_same_cover() {
        use Initiative::{Hybrid, Pull, Push};
        for (initiative, available, demand, known, want) in [
            (Push, 5_000, 100, ("ap", (100, 600)), "ap<2300"),
            (Pull, 5_000, 100, ("ap", (100, 600)), ""),
            (Push, 5_000, 100, ("ap", (1_200, 600)), ""),
            // 700 in all, 600 of 700 of the demand there: its fair part is 600.
            (Push, 600, 100, ("ap", (100, 600)), "ap<500"),
            // Eight seconds of its own demand stay here.
            (Hybrid, 5_000, 600, ("ap", (0, 100)), "ap<200"),
            (Hybrid, 4_800, 600, ("ap", (0, 100)), ""),
            (Push, 4_800, 600, ("ap", (0, 100)), "ap<400"),
            (Push, 5_000, 0, ("ap", (0, 0)), ""),
            (Push, 1, 0, ("ap", (0, 3)), "ap<1"),
        ] {
            let got = gives(initiative, available, demand, &[known]);
            assert_eq!(got, want, "{initiative:?} {available} {demand} {known:?}");
        }
    }

    #[test]
    fn donors_share_a_gift_by_what_they_have_beyond_the_common_cover() {
        // 9,000 in all, six tenths of the demand at ap. Cover is 9 s: us has 2,500 beyond it, eu 1,900.
        let us = gives(Initiative::Push, 4_750, 250, &[("ap", (1_000, 600)), ("eu", (3_250, 150))]);
        let eu = gives(Initiative::Push, 3_250, 150, &[("ap", (1_000, 600)), ("us", (4_750, 250))]);
        assert_eq!((us.as_str(), eu.as_str()), ("ap<796", "ap<605"), "1,400 and a unit of rounding");
    }

    #[test]
    fn what_is_on_its_way_is_not_given_again() {
        let mut peers = peers(&[("ap", Some((100, 600)))]);
        peers[0].in_transit = 2_300;
        let view = View { available: 5_000, parked: 0, demand: 100, peers: &peers };
        assert_eq!(told(&of(Initiative::Push).plan(view)), "");
    }

    #[test]
    fn who_pushes_asks_only_for_a_buyer_who_waits() {
        let peers = peers(&[("us", Some((5_000, 10)))]);
        let view = View { available: 0, parked: 5, demand: 100, peers: &peers };
        assert_eq!(told(&of(Initiative::Push).plan(view)), "us=5");
        assert_eq!(told(&of(Initiative::Hybrid).plan(view)), "us=405");
        assert_eq!(told(&of(Initiative::Push).plan(View { parked: 0, ..view })), "");
    }

    /// Every node of a mesh plans by what all have, and all gifts arrive.
    fn arrive(policy: &LevelPolicy, nodes: &mut [(u64, u64)]) -> u64 {
        let name = |i: usize| NodeId::new("r", &format!("n{i}")).expect("valid");
        let before = nodes.to_vec();
        let mut moved = 0;
        for (i, &(available, demand)) in before.iter().enumerate() {
            let others = before.iter().enumerate().filter(|(other, _)| *other != i);
            let peers: Vec<Peer> = others
                .map(|(other, &(available, demand))| Peer {
                    node: name(other),
                    known: Some(Known { available, demand }),
                    in_transit: 0,
                })
                .collect();
            for a_move in policy.plan(View { available, parked: 0, demand, peers: &peers }) {
                let Move::Give { node, units } = a_move else { continue };
                let to = (0..nodes.len()).find(|to| name(*to) == node).expect("one of them");
                nodes[i].0 = nodes[i].0.checked_sub(units).expect("nobody gives what it has not");
                nodes[to].0 += units;
                moved += units;
            }
        }
        moved
    }

    proptest::proptest! {
        #[test]
        fn gifts_settle_at_once_and_never_come_back(
            nodes in proptest::collection::vec((0u64..100_000, 0u64..2_000), 2..6),
            hybrid in proptest::bool::ANY,
        ) {
            let policy = of(if hybrid { Initiative::Hybrid } else { Initiative::Push });
            let mut now = nodes.clone();
            let first = arrive(&policy, &mut now);
            let all = |nodes: &[(u64, u64)]| nodes.iter().map(|(available, _)| available).sum::<u64>();
            proptest::prop_assert_eq!(all(&nodes), all(&now));
            let again = arrive(&policy, &mut now);
            // Only what rounding to whole units left over.
            proptest::prop_assert!(again <= first / 4 + 8, "{} and then {} of {:?}", first, again, nodes);
        }

        #[test]
        fn two_nodes_of_like_cover_leave_each_other_alone(cover in 0u64..60, demand in (1u64..1_000, 1u64..1_000), off in 50u64..=100) {
            for initiative in [Initiative::Pull, Initiative::Push, Initiative::Hybrid] {
                let mine = (cover * demand.0, demand.0);
                let theirs = (cover * demand.1 * off / 100, demand.1);
                let plan = gives(initiative, mine.0, mine.1, &[("ap", theirs)]);
                let there = gives(initiative, theirs.0, theirs.1, &[("ap", mine)]);
                // Half the cover of a few units may round to less than half.
                let rounded = theirs.0 * 2 * mine.1 < mine.0 * theirs.1;
                proptest::prop_assert!(rounded || plan.is_empty() && there.is_empty(), "{}: {} {}", initiative.name(), plan, there);
            }
        }
    }
}
