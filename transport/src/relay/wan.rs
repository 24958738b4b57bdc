//! What happens to a datagram between two nodes: delivered at a time, or dropped for a reason.
//!
//! * It decides: each datagram's fate by its link's plan, the cuts in force, and the link's own
//!   generator, so that traffic on one link shifts nothing on another.
//! * It never does: read a clock, see a socket, or hold a datagram's bytes.
//! * Invariant: on each link at most the plan's number of datagrams and bytes is under way; what is
//!   over it is dropped and counted. Every datagram is counted once, as arrived or by a drop reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rhumb_core::rng::{Rng, Seed};
use rhumb_core::{Mono, NodeId, Region};
use thiserror::Error;

/// How one direction between two nodes behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkPlan {
    /// The least time a datagram takes: half the round trip.
    pub delay: Duration,
    /// At most this much more, evenly distributed.
    pub jitter: Duration,
    /// The probability of loss, 0 to 1.
    pub loss: f64,
    /// By how much jitter may let a datagram overtake an earlier one; zero keeps the order, and then
    /// datagrams sent close together wait for the slowest of them, as behind one another in a router.
    pub overtaking: Duration,
    /// The largest datagram that passes, in bytes of UDP payload.
    pub max_datagram: usize,
    /// Datagrams under way at most.
    pub queue_packets: usize,
    /// Bytes under way at most.
    pub queue_bytes: usize,
}

impl Default for LinkPlan {
    /// A perfect link with an Ethernet path's size (1500 bytes less IPv4 and UDP headers) and room
    /// for 100 Mbit/s over a third of a second.
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            overtaking: Duration::ZERO,
            max_datagram: 1472,
            queue_packets: 8192,
            queue_bytes: 4 << 20,
        }
    }
}

/// Why a link cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WanError {
    /// The loss is no probability.
    #[error("the loss from {0} to {1} is not a probability: give a number from 0 to 1")]
    Loss(NodeId, NodeId),
    /// The link exists already.
    #[error("the link from {0} to {1} is planned twice: plan it once")]
    Duplicate(NodeId, NodeId),
    /// The link's two ends are one node.
    #[error("node {0} needs no link to itself: plan links between different nodes")]
    ToItself(NodeId),
}

/// What is cut off. Cuts add up: a datagram passes when none in force concerns its link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cut {
    /// One direction between two nodes.
    Link(NodeId, NodeId),
    /// A node from every other, both ways.
    Node(NodeId),
    /// A region from every other, both ways; its own nodes still reach each other.
    Region(Region),
}

/// Names one direction between two nodes within one [`Wan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(usize);

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// By chance.
    Lost,
    /// The link is cut, or was when the datagram would have arrived.
    Cut,
    /// Too much is under way.
    QueueFull,
    /// It is larger than the path takes.
    TooLarge,
    /// There is nobody at the other end yet, or its socket does not take it.
    NoReceiver,
}

/// What happens to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Drop(DropReason),
    /// It is to be given to [`Wan::arrive`] at this time.
    DeliverAt(Mono),
}

/// A link's counters since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkStats {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// Whether a cut concerns it now.
    pub cut: bool,
    /// Datagrams sent into it.
    pub sent: u64,
    /// Datagrams that arrived.
    pub arrived: u64,
    /// Their bytes.
    pub arrived_bytes: u64,
    /// Datagrams under way now.
    pub under_way: u64,
    /// Datagrams dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
}

/// The links between nodes and what is under way on them.
#[derive(Debug)]
pub struct Wan {
    seed: Seed,
    links: Vec<Link>,
    by_ends: BTreeMap<(NodeId, NodeId), LinkId>,
    cuts: BTreeSet<Cut>,
}

#[derive(Debug)]
struct Link {
    plan: LinkPlan,
    rng: Rng,
    cut: bool,
    /// The latest delivery time given out: later datagrams do not overtake it.
    latest: Mono,
    under_way_bytes: usize,
    stats: LinkStats,
}

impl Wan {
    /// A world without links.
    #[must_use]
    pub fn new(seed: &Seed) -> Self {
        Self { seed: seed.child("wan"), links: Vec::new(), by_ends: BTreeMap::new(), cuts: BTreeSet::new() }
    }

    /// Adds the direction from one node to another.
    ///
    /// # Errors
    /// [`WanError`] when it exists, leads nowhere else, or its loss is no probability.
    pub fn link(&mut self, from: &NodeId, to: &NodeId, plan: LinkPlan) -> Result<LinkId, WanError> {
        if from == to {
            return Err(WanError::ToItself(from.clone()));
        }
        if !(0.0..=1.0).contains(&plan.loss) {
            return Err(WanError::Loss(from.clone(), to.clone()));
        }
        if self.id(from, to).is_some() {
            return Err(WanError::Duplicate(from.clone(), to.clone()));
        }
        let id = LinkId(self.links.len());
        let cut = self.cuts.iter().any(|cut| cut.concerns(from, to));
        let rng = self.seed.child(format!("{from}>{to}")).rng();
        let stats = LinkStats::new(from, to, cut);
        self.links.push(Link { plan, rng, cut, latest: Mono::default(), under_way_bytes: 0, stats });
        self.by_ends.insert((from.clone(), to.clone()), id);
        Ok(id)
    }

    /// A datagram of so many bytes enters a link.
    ///
    /// # Panics
    /// When the link is another world's.
    pub fn packet(&mut self, now: Mono, link: LinkId, bytes: usize) -> Fate {
        self.links[link.0].packet(now, bytes)
    }

    /// A datagram reached the end of its link: true if it may be handed over. A cut that came
    /// meanwhile drops it.
    ///
    /// # Panics
    /// When the link is another world's.
    pub fn arrive(&mut self, link: LinkId, bytes: usize) -> bool {
        let link = &mut self.links[link.0];
        link.leave(bytes);
        if link.cut {
            link.drop_for(DropReason::Cut);
            return false;
        }
        link.stats.arrived += 1;
        link.stats.arrived_bytes += bytes as u64;
        true
    }

    /// Whether a datagram that reached the end of this link may be handed over: no cut concerns it.
    ///
    /// # Panics
    /// When the link is another world's.
    #[must_use]
    pub fn may_arrive(&self, link: LinkId) -> bool {
        !self.links[link.0].cut
    }

    /// A datagram reached the end of its link, but nobody is there to take it.
    ///
    /// # Panics
    /// When the link is another world's.
    pub fn arrive_nowhere(&mut self, link: LinkId, bytes: usize) {
        let link = &mut self.links[link.0];
        link.leave(bytes);
        link.drop_for(DropReason::NoReceiver);
    }

    /// Puts a cut in force; what is under way on its links is lost.
    pub fn cut(&mut self, cut: Cut) {
        self.cuts.insert(cut);
        self.apply_cuts();
    }

    /// Takes a cut out of force; others stay. False when it was not in force.
    pub fn heal(&mut self, cut: &Cut) -> bool {
        let was = self.cuts.remove(cut);
        self.apply_cuts();
        was
    }

    /// Takes every cut out of force.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.apply_cuts();
    }

    /// Changes how a link behaves from the next datagram on.
    ///
    /// # Errors
    /// [`WanError::Loss`] when the loss is no probability.
    ///
    /// # Panics
    /// When the link is another world's.
    pub fn replan(&mut self, link: LinkId, plan: LinkPlan) -> Result<(), WanError> {
        let link = &mut self.links[link.0];
        if !(0.0..=1.0).contains(&plan.loss) {
            return Err(WanError::Loss(link.stats.from.clone(), link.stats.to.clone()));
        }
        link.plan = plan;
        Ok(())
    }

    /// The link from one node to another.
    #[must_use]
    pub fn id(&self, from: &NodeId, to: &NodeId) -> Option<LinkId> {
        self.by_ends.get(&(from.clone(), to.clone())).copied()
    }

    /// Whether any link is concerned by a cut.
    #[must_use]
    pub fn concerns(&self, cut: &Cut) -> bool {
        self.links.iter().any(|link| cut.concerns(&link.stats.from, &link.stats.to))
    }

    /// The cuts in force.
    #[must_use]
    pub fn cuts(&self) -> &BTreeSet<Cut> {
        &self.cuts
    }

    /// Every link's counters, in the order in which the links were added.
    pub fn stats(&self) -> impl Iterator<Item = &LinkStats> {
        self.links.iter().map(|link| &link.stats)
    }

    fn apply_cuts(&mut self) {
        for link in &mut self.links {
            link.cut = self.cuts.iter().any(|cut| cut.concerns(&link.stats.from, &link.stats.to));
            link.stats.cut = link.cut;
        }
    }
}

impl Link {
    fn packet(&mut self, now: Mono, bytes: usize) -> Fate {
        self.stats.sent += 1;
        // Both are drawn for every datagram, so that a cut or another loss rate shifts no jitter.
        let lost = self.rng.chance(self.plan.loss);
        let jitter = self.plan.jitter.mul_f64(self.rng.unit());
        if let Some(reason) = self.refuses(bytes, lost) {
            self.drop_for(reason);
            return Fate::Drop(reason);
        }
        let not_before = Mono(self.latest.0.saturating_sub(self.plan.overtaking));
        let at = now.plus(self.plan.delay + jitter).max(not_before);
        self.latest = self.latest.max(at);
        self.stats.under_way += 1;
        self.under_way_bytes += bytes;
        Fate::DeliverAt(at)
    }

    fn refuses(&self, bytes: usize, lost: bool) -> Option<DropReason> {
        let full = self.stats.under_way >= self.plan.queue_packets as u64
            || self.under_way_bytes + bytes > self.plan.queue_bytes;
        match () {
            () if bytes > self.plan.max_datagram => Some(DropReason::TooLarge),
            () if self.cut => Some(DropReason::Cut),
            () if lost => Some(DropReason::Lost),
            () if full => Some(DropReason::QueueFull),
            () => None,
        }
    }

    fn leave(&mut self, bytes: usize) {
        debug_assert!(self.stats.under_way > 0 && self.under_way_bytes >= bytes, "arrived but never sent");
        self.stats.under_way = self.stats.under_way.saturating_sub(1);
        self.under_way_bytes = self.under_way_bytes.saturating_sub(bytes);
    }

    fn drop_for(&mut self, reason: DropReason) {
        *self.stats.dropped.entry(reason).or_default() += 1;
    }
}

impl LinkStats {
    fn new(from: &NodeId, to: &NodeId, cut: bool) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            cut,
            sent: 0,
            arrived: 0,
            arrived_bytes: 0,
            under_way: 0,
            dropped: BTreeMap::new(),
        }
    }

    /// Datagrams dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(&reason).copied().unwrap_or_default()
    }
}

impl Cut {
    fn concerns(&self, from: &NodeId, to: &NodeId) -> bool {
        match self {
            Self::Link(a, b) => from == a && to == b,
            Self::Node(node) => from == node || to == node,
            Self::Region(region) => (from.region == *region) != (to.region == *region),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::QueueFull => "queue full",
            Self::TooLarge => "too large",
            Self::NoReceiver => "no receiver",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(text: &str) -> NodeId {
        text.parse().expect("a node id")
    }

    fn ocean() -> LinkPlan {
        LinkPlan { delay: 45 * MS, jitter: 5 * MS, ..LinkPlan::default() }
    }

    /// A world of a→b and b→a.
    fn pair(plan: LinkPlan) -> (Wan, LinkId, LinkId) {
        let mut wan = Wan::new(&Seed::new(7));
        let there = wan.link(&node("us/n1"), &node("eu/n1"), plan.clone()).expect("a link");
        let back = wan.link(&node("eu/n1"), &node("us/n1"), plan).expect("a link");
        (wan, there, back)
    }

    /// When each of `count` datagrams sent 0.1 ms apart arrives; none when dropped.
    fn send(wan: &mut Wan, link: LinkId, count: u32) -> Vec<(Mono, Option<Mono>)> {
        let mut fates = Vec::new();
        for i in 0..count {
            let now = Mono(MS / 10 * i);
            match wan.packet(now, link, 100) {
                Fate::DeliverAt(at) => {
                    assert!(wan.arrive(link, 100));
                    fates.push((now, Some(at)));
                }
                Fate::Drop(_) => fates.push((now, None)),
            }
        }
        fates
    }

    #[test]
    fn a_datagram_takes_its_delay_and_at_most_the_jitter_more() {
        // Far enough apart that keeping the order never delays one.
        let (mut wan, there, _) = pair(ocean());
        let mut extra = Vec::new();
        for i in 0..1_000 {
            let now = Mono(100 * MS * i);
            let Fate::DeliverAt(at) = wan.packet(now, there, 1200) else { panic!("dropped") };
            assert!(wan.arrive(there, 1200));
            extra.push(at.0 - now.0);
        }
        assert!(extra.iter().all(|taken| (45 * MS..=50 * MS).contains(taken)), "{extra:?}");
        let spread = *extra.iter().max().expect("some") - *extra.iter().min().expect("some");
        assert!(spread > 4 * MS, "jitter spreads over its range: {spread:?}");
    }

    #[test]
    fn datagrams_keep_their_order_unless_overtaking_is_allowed() {
        let overtakes = |overtaking| {
            let (mut wan, there, _) = pair(LinkPlan { overtaking, ..ocean() });
            let at: Vec<Mono> = send(&mut wan, there, 10_000).iter().filter_map(|(_, at)| *at).collect();
            let mut latest = Mono::default();
            let mut most = Duration::ZERO;
            for at in at {
                most = most.max(latest.0.saturating_sub(at.0));
                latest = latest.max(at);
            }
            most
        };
        assert_eq!(overtakes(Duration::ZERO), Duration::ZERO);
        let by = overtakes(2 * MS);
        assert!(by > MS && by <= 2 * MS, "overtaken by {by:?}");
    }

    #[test]
    fn the_planned_share_is_lost() {
        let (mut wan, there, _) = pair(LinkPlan { loss: 0.02, ..ocean() });
        let lost = send(&mut wan, there, 100_000).iter().filter(|(_, at)| at.is_none()).count();
        // Of 2,000 expected, five standard deviations are 221.
        assert!((1_779..=2_221).contains(&lost), "{lost} lost");
        let stats = wan.stats().next().expect("a link");
        assert_eq!(stats.dropped(DropReason::Lost), lost as u64);
        assert_eq!((stats.sent, stats.arrived + lost as u64), (100_000, 100_000));
    }

    #[test]
    fn equal_seeds_give_equal_fates_and_links_do_not_disturb_each_other() {
        let plan = LinkPlan { loss: 0.1, ..ocean() };
        let (mut one, there, _) = pair(plan.clone());
        let (mut other, same, back) = pair(plan);
        send(&mut other, back, 333);
        assert_eq!(send(&mut one, there, 1_000), send(&mut other, same, 1_000));
    }

    #[test]
    fn a_cut_stops_one_way_and_loses_what_is_under_way() {
        let (mut wan, there, back) = pair(ocean());
        assert!(matches!(wan.packet(Mono::default(), there, 10), Fate::DeliverAt(_)));
        let cut = Cut::Link(node("us/n1"), node("eu/n1"));
        wan.cut(cut.clone());
        assert!(!wan.arrive(there, 10), "it was under way when the cut came");
        assert_eq!(wan.packet(Mono::default(), there, 10), Fate::Drop(DropReason::Cut));
        assert!(matches!(wan.packet(Mono::default(), back, 10), Fate::DeliverAt(_)));
        assert!(wan.heal(&cut) && !wan.heal(&cut));
        assert!(matches!(wan.packet(Mono::default(), there, 10), Fate::DeliverAt(_)));
        let stats = wan.stats().next().expect("a link");
        assert_eq!((stats.sent, stats.arrived, stats.under_way), (3, 0, 1));
        assert_eq!(stats.dropped(DropReason::Cut), 2);
    }

    #[test]
    fn cuts_of_nodes_and_regions_add_up() {
        let nodes = ["us/n1", "us/n2", "eu/n1"].map(node);
        let mut wan = Wan::new(&Seed::new(1));
        for from in &nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                wan.link(from, to, LinkPlan::default()).expect("a link");
            }
        }
        let open = |wan: &Wan| {
            let open = wan.stats().filter(|link| !link.cut);
            open.map(|link| format!("{}>{}", link.from, link.to)).collect::<Vec<_>>().join(" ")
        };
        let us = Cut::Region(Region::new("us").expect("valid"));
        wan.cut(us.clone());
        assert_eq!(open(&wan), "us/n1>us/n2 us/n2>us/n1");
        wan.cut(Cut::Node(node("us/n2")));
        assert_eq!(open(&wan), "");
        wan.heal(&us);
        assert_eq!(open(&wan), "us/n1>eu/n1 eu/n1>us/n1");
        wan.heal_all();
        assert_eq!(wan.stats().filter(|link| link.cut).count(), 0);
        assert!(wan.cuts().is_empty());
    }

    #[test]
    fn what_is_under_way_is_bounded_in_datagrams_and_bytes() {
        let fates = |plan: LinkPlan, bytes: usize| {
            let (mut wan, there, _) = pair(plan);
            (0..5).map(|_| wan.packet(Mono::default(), there, bytes)).collect::<Vec<_>>()
        };
        let full = Fate::Drop(DropReason::QueueFull);
        let by_count = fates(LinkPlan { queue_packets: 3, ..LinkPlan::default() }, 1);
        assert_eq!(by_count.iter().filter(|fate| **fate == full).count(), 2);
        let by_bytes = fates(LinkPlan { queue_bytes: 250, ..LinkPlan::default() }, 100);
        assert_eq!(by_bytes.iter().filter(|fate| **fate == full).count(), 3);
        let (mut wan, there, _) = pair(LinkPlan { queue_packets: 1, ..LinkPlan::default() });
        for _ in 0..10 {
            assert!(matches!(wan.packet(Mono::default(), there, 1), Fate::DeliverAt(_)), "room again");
            wan.arrive_nowhere(there, 1);
        }
        assert_eq!(wan.stats().next().expect("a link").dropped(DropReason::NoReceiver), 10);
    }

    #[test]
    fn a_datagram_larger_than_the_path_never_arrives() {
        let (mut wan, there, _) = pair(LinkPlan::default());
        assert!(matches!(wan.packet(Mono::default(), there, 1472), Fate::DeliverAt(_)));
        assert_eq!(wan.packet(Mono::default(), there, 1473), Fate::Drop(DropReason::TooLarge));
    }

    #[test]
    fn bad_links_are_refused() {
        let (mut wan, there, _) = pair(LinkPlan::default());
        let (us, eu, ap) = (node("us/n1"), node("eu/n1"), node("ap/n1"));
        assert_eq!(wan.link(&us, &eu, ocean()), Err(WanError::Duplicate(us.clone(), eu.clone())));
        assert_eq!(wan.link(&us, &us, ocean()), Err(WanError::ToItself(us.clone())));
        for loss in [-0.1, 1.1, f64::NAN] {
            let plan = LinkPlan { loss, ..ocean() };
            assert_eq!(wan.link(&us, &ap, plan.clone()), Err(WanError::Loss(us.clone(), ap.clone())));
            assert_eq!(wan.replan(there, plan), Err(WanError::Loss(us.clone(), eu.clone())));
        }
        wan.replan(there, LinkPlan { loss: 1.0, ..ocean() }).expect("a plan");
        assert_eq!(wan.packet(Mono::default(), there, 1), Fate::Drop(DropReason::Lost));
    }
}
