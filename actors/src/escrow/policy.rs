//! How rights move to where demand is: settings, and the plan as a value.
//!
//! * It decides: whom to ask for how many rights, and how much a donor keeps for itself.
//! * It never does: move a right. A plan is only ever a request; the donor's own count decides.
//! * Invariant: integers only. A plan asks nobody for nothing and never names a peer twice.

use std::cmp::Reverse;
use std::time::Duration;

use rhumb_core::NodeId;
use rhumb_core::time::DEFAULT_MAX_OFFSET;

/// When and how far rights are levelled. All of it may differ between nodes: safety never rests on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelPolicy {
    /// A node that asks, asks for so much of its own demand.
    pub horizon: Duration,
    /// A node asks before it runs out when what it has covers less than this of its demand.
    pub low_water: Duration,
    /// A donor keeps so much of its own demand, but never more than half of what it has.
    pub reserve: Duration,
    /// Before it runs out, a node asks only peers whose units last at least so many times as long as
    /// its own. Two nodes of like cover never ask each other, so rights do not swing to and fro.
    pub clearly_more: u64,
    /// Below so many unsold units a node (times the nodes of the pool), the pool's home owns the tail:
    /// all others grant it everything and pass holds on. 0: never.
    pub tail_floor: u64,
    /// Plans while somebody waits lie at least so far apart.
    pub ask_spacing: Duration,
    /// Plans while nobody waits lie at least so far apart.
    pub plan_spacing: Duration,
}

impl Default for LevelPolicy {
    fn default() -> Self {
        Self {
            horizon: Duration::from_secs(4),
            low_water: Duration::from_secs(2),
            reserve: Duration::from_secs(1),
            clearly_more: 2,
            tail_floor: 32,
            ask_spacing: Duration::from_millis(50),
            plan_spacing: Duration::from_millis(250),
        }
    }
}

/// Settings of the escrow machine of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscrowSettings {
    /// How rights are levelled.
    pub level: LevelPolicy,
    /// What is not acknowledged is said again after this.
    pub resend: Duration,
    /// Changed figures are told to peers after this.
    pub gossip: Duration,
    /// The same while the pool's home owns the tail.
    pub tail_gossip: Duration,
    /// A pool in which nothing changes is still spoken of after this.
    pub idle_gossip: Duration,
    /// A peer's figures younger than this are believed to be its present ones.
    pub fresh: Duration,
    /// The home's word that it has nothing is believed for this long in tail mode.
    pub tail_word: Duration,
    /// The longest a hold waits here for rights to arrive.
    pub park: Duration,
    /// Holds of one pool that may wait here.
    pub max_parked: usize,
    /// Holds of one pool that may be on their way to its home.
    pub max_forwards: usize,
    /// Pools this node may know.
    pub max_pools: usize,
    /// Idempotency keys this node may remember.
    pub max_keys: usize,
    /// A node says how far its disk has come this often.
    pub beat: Duration,
    /// A node that is not proven asks again after this.
    pub prove: Duration,
    /// How far the clocks of two nodes may differ: a key made further in the future is refused.
    pub max_offset: Duration,
    /// How long after its sale a unit may be returned.
    pub returns: Duration,
}

impl Default for EscrowSettings {
    fn default() -> Self {
        Self {
            level: LevelPolicy::default(),
            resend: Duration::from_secs(1),
            gossip: Duration::from_secs(1),
            tail_gossip: Duration::from_millis(250),
            idle_gossip: Duration::from_secs(10),
            fresh: Duration::from_millis(1_500),
            tail_word: Duration::from_millis(250),
            park: Duration::from_secs(2),
            max_parked: 1_024,
            max_forwards: 256,
            max_pools: 4_096,
            max_keys: 2_000_000,
            beat: Duration::from_secs(1),
            prove: Duration::from_millis(200),
            max_offset: DEFAULT_MAX_OFFSET,
            returns: Duration::from_secs(24 * 3_600),
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
}

/// A peer's recent word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Units available there.
    pub available: u64,
    /// Units asked for there, per second.
    pub demand: u64,
}

/// Ask this peer for so many more rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub node: NodeId,
    /// How many.
    pub want: u64,
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

    /// Whether a pool with so little left is its home's alone.
    #[must_use]
    pub fn is_tail(&self, unsold: u64, nodes: usize) -> bool {
        unsold < self.tail_floor.saturating_mul(nodes as u64)
    }

    /// Whom to ask for how much: those known to have most first, those who are silent last.
    #[must_use]
    pub fn plan(&self, view: View<'_>) -> Vec<Ask> {
        let missing = view.parked.saturating_sub(view.available);
        let ahead = self.ahead(view);
        if missing == 0 && view.available >= units(view.demand, self.low_water) {
            return Vec::new();
        }
        let mut donors: Vec<(&Peer, u64)> = view
            .peers
            .iter()
            .filter_map(|peer| Some((peer, self.offer(view, missing > 0, peer)?)))
            .filter(|(_, offer)| *offer > 0)
            .collect();
        donors.sort_by_key(|(peer, offer)| (peer.known.is_none(), Reverse(*offer)));
        let mut rest = missing.saturating_add(ahead);
        let mut asks = Vec::new();
        for (peer, offer) in donors {
            let want = rest.min(offer);
            if want > 0 {
                asks.push(Ask { node: peer.node.clone(), want });
            }
            // Nothing is known of a silent peer, so the next silent one is asked for the same.
            if peer.known.is_some() {
                rest -= want;
            }
        }
        asks
    }

    /// What to ask for beyond what is waited for: a horizon of demand, but not more than would give
    /// every node the same cover.
    fn ahead(&self, view: View<'_>) -> u64 {
        let known = || view.peers.iter().filter_map(|peer| peer.known);
        let all: u128 = known().map(|k| u128::from(k.available)).sum::<u128>() + u128::from(view.available);
        let demand: u128 = known().map(|k| u128::from(k.demand)).sum::<u128>() + u128::from(view.demand);
        if demand == 0 {
            return 0;
        }
        let fair = u64::try_from(all * u128::from(view.demand) / demand).unwrap_or(u64::MAX);
        units(view.demand, self.horizon).min(fair.saturating_sub(view.available))
    }

    /// How much may be asked of a peer. Somebody who waits may ask whoever has something; one who
    /// only looks ahead asks those whose units last clearly longer than its own.
    fn offer(&self, view: View<'_>, waiting: bool, peer: &Peer) -> Option<u64> {
        let Some(known) = peer.known else { return waiting.then_some(u64::MAX) };
        let theirs = u128::from(known.available) * u128::from(view.demand);
        let mine = u128::from(view.available) * u128::from(known.demand);
        let longer = theirs > mine.saturating_mul(u128::from(self.clearly_more));
        (waiting || longer).then(|| self.spare(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(available: u64, parked: u64, demand: u64, peers: &[(&str, Option<(u64, u64)>)]) -> String {
        let peers: Vec<Peer> = peers
            .iter()
            .map(|(name, known)| Peer {
                node: NodeId::new(name, "n1").expect("valid"),
                known: known.map(|(available, demand)| Known { available, demand }),
            })
            .collect();
        let asks = LevelPolicy::default().plan(View { available, parked, demand, peers: &peers });
        asks.iter().map(|ask| format!("{}={}", ask.node.region, ask.want)).collect::<Vec<_>>().join(" ")
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
}
